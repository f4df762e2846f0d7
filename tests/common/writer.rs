//! Sessions by hand: a test begins them, feeds them, and commits them when it likes, on any store.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use dedupe::ledger::entry::{Batch, DataFile, Ingest, SourceUse};
use dedupe::ledger::log::{Proposal, Proposer};
use dedupe::ledger::name::StagedName;
use dedupe::ledger::{Body, Ledger, TableIdentity};
use dedupe::options::MIB;
use dedupe::policy::{NullKey, Policy};
use dedupe::session::{Chunk, Committed, QuarantinedRow, Rows, Session, SessionOptions};
use dedupe::sink::SinkOptions;
use dedupe::store::Store;
use dedupe::token::{TokenHash, TokenKey, TokenSpec};
use dedupe::upkeep::verify::{VerifyOptions, verify};
use dedupe::workers::Workers;
use object_store::memory::InMemory;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

/// A key, if the row has one, and a number that tells who brought it.
pub type Row = (Option<String>, i64);

/// Rows `key-<i>` that all bear the number `n`.
pub fn rows(keys: std::ops::Range<u64>, n: i64) -> Vec<Row> {
    keys.map(|i| (Some(format!("key-{i}")), n)).collect()
}

/// So many rows without a key.
pub fn keyless(count: usize, n: i64) -> Vec<Row> {
    vec![(None, n); count]
}

/// A store of either kind, with a new table in it.
pub struct Place {
    pub store: Store,
    _folder: Option<tempfile::TempDir>,
}

impl Place {
    /// On a local disk, and in memory behind the interface of a bucket.
    pub async fn both(policy: &Policy) -> [Self; 2] {
        [Self::local(policy).await, Self::memory(policy).await]
    }

    pub async fn local(policy: &Policy) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("table").to_str().unwrap(), &[]).unwrap();
        Self { store, _folder: Some(folder) }.created(policy).await
    }

    pub async fn memory(policy: &Policy) -> Self {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:");
        Self { store, _folder: None }.created(policy).await
    }

    /// On any store.
    pub async fn on(store: Store, policy: &Policy) -> Self {
        Self { store, _folder: None }.created(policy).await
    }

    async fn created(self, policy: &Policy) -> Self {
        let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
        let key = TokenKey::random().unwrap();
        let spec = TokenSpec::new(&["id".into()], &schema, TokenHash::SipHash24, key).unwrap();
        let identity = TableIdentity::new(spec).unwrap();
        Ledger::create(self.store.clone(), identity, policy.clone(), &proposer()).await.unwrap();
        self
    }

    pub async fn ledger(&self) -> Ledger {
        let mut ledger = Ledger::open(self.store.clone()).await.unwrap().unwrap();
        ledger.read_files().await.unwrap();
        ledger
    }

    pub async fn writer(&self) -> Writer {
        self.writer_with(options()).await
    }

    pub async fn writer_with(&self, options: SessionOptions) -> Writer {
        self.writer_of(&schema(&[]), options).await
    }

    /// A writer whose rows have the columns of `schema`.
    pub async fn writer_of(&self, schema: &Schema, options: SessionOptions) -> Writer {
        let ledger = self.ledger().await;
        let contract = match &ledger.state().schema {
            Some(table) => dedupe::schema::widen(table, schema).unwrap(),
            None => schema.clone(),
        };
        let workers = Workers::new(NonZeroUsize::new(2).unwrap());
        let begun_at = ledger.state().entries;
        let session = Session::begin(ledger, Arc::new(contract), options, &workers).await.unwrap();
        Writer { session, schema: Arc::new(schema.clone()), begun_at }
    }

    /// Puts an entry of another kind into the ledger.
    pub async fn enter(&self, body: Body) {
        let mut ledger = self.ledger().await;
        let entry = ledger.entry(&proposer(), body).unwrap();
        let proposal = ledger.propose(&entry).await.unwrap();
        assert!(matches!(proposal, Proposal::Committed), "{proposal:?}");
    }

    /// All rows of the table, sorted.
    pub async fn rows(&self) -> Vec<Row> {
        let mut all = Vec::new();
        for name in self.ledger().await.state().files().unwrap().keys() {
            all.extend(read(&self.store, name).await);
        }
        all.sort();
        all
    }

    pub async fn keys(&self) -> Vec<String> {
        self.rows().await.into_iter().filter_map(|(id, _)| id).collect()
    }

    /// The ingest that version `version` is.
    pub async fn ingest(&self, version: u64) -> Ingest {
        self.ledger().await.read(version).await.unwrap().unwrap().ingest().unwrap().clone()
    }

    /// Nothing is wrong with the table, every file holds what its manifest says, and from the sources it says.
    pub async fn is_sound(&self) {
        let ledger = self.ledger().await;
        let report = verify(&ledger, &VerifyOptions::default()).await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
        for file in ledger.state().files().unwrap().values() {
            let of_sources: u64 = file.item.origin.iter().map(|(_, rows)| rows).sum();
            assert_eq!(of_sources, file.item.rows, "{}", file.item.name);
        }
        for version in 1..ledger.state().entries {
            if let Some(ingest) = ledger.read(version).await.unwrap().unwrap().ingest() {
                self.origins_agree(ingest).await;
            }
        }
    }

    /// By source, the rows of the files are the rows accepted.
    async fn origins_agree(&self, ingest: &Ingest) {
        let mut by_source = BTreeMap::<u32, u64>::new();
        for (source, rows) in ingest.files.iter().flat_map(|file| &file.origin) {
            *by_source.entry(*source).or_default() += rows;
        }
        for (number, source) in (0..).zip(&ingest.sources) {
            let found = by_source.get(&number).copied().unwrap_or_default();
            assert_eq!(found, source.rows.accepted, "source {number} of {ingest:?}");
        }
    }
}

/// A session, and the schema of the rows that it is given.
pub struct Writer {
    pub session: Session,
    pub schema: SchemaRef,
    pub begun_at: u64,
}

impl Writer {
    /// Feeds rows of a source that cannot be recognised.
    pub async fn feed(&mut self, rows: &[Row]) -> u32 {
        self.source(None, &[rows]).await
    }

    /// Feeds a source in chunks. It is a replay if the table knew it when the session began and `seen` says so.
    pub async fn source(&mut self, id: Option<u128>, chunks: &[&[Row]]) -> u32 {
        self.source_seen(id, None, chunks).await
    }

    pub async fn source_seen(&mut self, id: Option<u128>, seen: Option<u64>, chunks: &[&[Row]]) -> u32 {
        let url = format!("source-{}", self.session.sources().len());
        let source = SourceUse { url: url.clone(), id, replay_of: seen, ..SourceUse::default() };
        let number = self.session.add_source(source).unwrap();
        for rows in chunks {
            let batch = batch(&self.schema, rows);
            let key = self.session.identity().token.bind(&self.schema, &url).unwrap();
            let tokens = key.tokenise(&batch).unwrap();
            let verdicts = self.session.judge_tokens(number, &tokens).await.unwrap();
            for row in &verdicts.no_key {
                let row = QuarantinedRow::of_record(&url, u64::from(*row), "no key".into(), "{}".into());
                self.session.set_aside(&row).await.unwrap();
            }
            self.session.write(Rows { source: number, chunk: Chunk::Batch(batch), verdicts }).await.unwrap();
        }
        number
    }

    pub async fn commit(self) -> Committed {
        self.try_commit().await.unwrap()
    }

    pub async fn try_commit(self) -> dedupe::Result<Committed> {
        Ok(self.session.commit().await?.0)
    }
}

/// `id` and `n`, with further columns after them.
pub fn schema(more: &[(&str, DataType)]) -> Schema {
    let standard = [("id", DataType::Utf8), ("n", DataType::Int64)];
    let fields = standard.iter().chain(more).map(|(name, kind)| Field::new(*name, kind.clone(), true));
    Schema::new(fields.collect::<Vec<_>>())
}

/// Each chunk fed is a row group, and each row group a file, if it has a hundred rows.
pub fn options() -> SessionOptions {
    let sink = SinkOptions { target_file_size: 1, row_group_rows: 100, ..SinkOptions::default() };
    let mut options = SessionOptions::default();
    (options.sink, options.memory) = (sink, 64 * MIB);
    options
}

/// The options above, changed.
pub fn with(change: impl FnOnce(&mut SessionOptions)) -> SessionOptions {
    let mut options = options();
    change(&mut options);
    options
}

pub fn keeping() -> SessionOptions {
    with(|options| options.null_key = Some(NullKey::Keep))
}

pub fn batched(id: &str, digest: u128) -> SessionOptions {
    with(|options| options.batch = Some(Batch { id: id.into(), digest }))
}

pub fn proposer() -> Proposer {
    Proposer { session: "ab".repeat(16), writer: "test".into() }
}

/// The stage in the name of a staged object.
pub fn stage(name: &str) -> u64 {
    StagedName::parse(name).unwrap().stage
}

/// Stage and rows of each file, in the order of the manifest.
pub fn shapes(files: &[DataFile]) -> Vec<(u64, u64)> {
    files.iter().map(|file| (stage(&file.name), file.rows)).collect()
}

/// Columns besides `id` and `n` hold the number as well, as whatever type they have.
pub fn batch(schema: &SchemaRef, rows: &[Row]) -> RecordBatch {
    let numbers: Arc<dyn Array> = Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, n)| *n)));
    let column = |field: &Arc<Field>| match field.name().as_str() {
        "id" => Arc::new(StringArray::from_iter(rows.iter().map(|(id, _)| id.as_deref()))) as _,
        _ => arrow::compute::cast(&numbers, field.data_type()).unwrap(),
    };
    RecordBatch::try_new(Arc::clone(schema), schema.fields().iter().map(column).collect()).unwrap()
}

async fn read(store: &Store, name: &str) -> Vec<Row> {
    let bytes = store.get(name).await.unwrap().unwrap();
    let mut rows = Vec::new();
    for batch in ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap() {
        let batch = batch.unwrap();
        let ids = arrow::compute::cast(batch.column_by_name("id").unwrap(), &DataType::Utf8).unwrap();
        let numbers = arrow::compute::cast(batch.column_by_name("n").unwrap(), &DataType::Int64).unwrap();
        for (id, n) in ids.as_string::<i32>().iter().zip(numbers.as_primitive::<Int64Type>().values()) {
            rows.push((id.map(str::to_owned), *n));
        }
    }
    rows
}
