//! Who acts on the table: writers, a compactor, a vacuum, a reader. Each is a task that may die at any request and
//! then begins a new life.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use bytes::Bytes;
use dedupe::error::{Error, Result};
use dedupe::ledger::entry::{self, SourceUse};
use dedupe::ledger::log::Proposer;
use dedupe::ledger::{Ledger, TableIdentity};
use dedupe::policy::Policy;
use dedupe::session::{Chunk, QuarantinedRow, Rows, Session, SessionOptions};
use dedupe::sink::{CompressionChoice, SinkOptions};
use dedupe::store::Store;
use dedupe::token::{TokenHash, TokenKey, TokenSpec};
use dedupe::upkeep::compact::{compact, compact_if_due};
use dedupe::verdict::Accounting;
use dedupe::workers::Workers;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use xxhash_rust::xxh3::xxh3_64;

use super::Bug;
use super::byhand;
use super::oracle::{Ack, End, Probe, Record, Snapshot};
use super::plan::{Batch, Plan, Row, schema};
use super::rng::Rng;
use super::store::{Client, Life, World};

thread_local! {
    static ACTING: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// Nobody acts.
pub fn rest() {
    ACTING.set(usize::MAX);
}

/// Whose step this is.
pub fn acting() -> usize {
    ACTING.get()
}

pub fn name_of(actor: usize) -> String {
    match actor {
        0 => "compactor".into(),
        1 => "vacuum".into(),
        2 => "reader".into(),
        writer => format!("writer {}", writer - 2),
    }
}

pub const COMPACTOR: usize = 0;
pub const VACUUM: usize = 1;
pub const READER: usize = 2;
pub const FIRST_WRITER: usize = 3;

/// A future that ends when the life of its actor does: it is dropped where it stands.
struct Mortal<F> {
    future: Option<Pin<Box<F>>>,
    life: Arc<Life>,
    actor: usize,
}

impl<F: Future> Future for Mortal<F> {
    /// `None` = died.
    type Output = Option<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        ACTING.set(self.actor);
        self.life.watch(context.waker());
        let life = Arc::clone(&self.life);
        let Some(future) = self.future.as_mut() else { return Poll::Ready(None) };
        if !life.is_over()
            && let Poll::Ready(output) = future.as_mut().poll(context)
        {
            return Poll::Ready(Some(output));
        }
        if life.is_over() {
            self.future = None;
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

/// What all actors share.
#[derive(Clone)]
pub struct Scene {
    pub world: Arc<World>,
    pub plan: Arc<Plan>,
    pub record: Arc<Mutex<Record>>,
    pub bug: Bug,
    pub seed: u64,
}

/// How a life ended.
enum Lived<T> {
    Died,
    Finished(Result<T>, Arc<Life>),
}

impl Scene {
    pub fn record(&self) -> std::sync::MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn store(&self, client: &Client) -> Store {
        Store::in_small_parts(Arc::new(client.clone()), "", "sim:", self.plan.part)
    }

    async fn live<T, F: Future<Output = Result<T>>>(
        &self,
        actor: usize,
        number: u64,
        act: impl FnOnce(Store) -> F,
    ) -> Lived<T> {
        let client = Client::new(&self.world, actor, number);
        let life = Arc::clone(&client.life);
        let future = Some(Box::pin(act(self.store(&client))));
        drop(client);
        match (Mortal { future, life: Arc::clone(&life), actor }).await {
            None => Lived::Died,
            Some(result) => Lived::Finished(result, life),
        }
    }

    /// An error is honest if something went wrong. Which errors may be, depends on what.
    fn complain(&self, actor: usize, life: &Life, error: &Error) {
        let excused = match error {
            Error::Store { .. } | Error::Unknown { .. } => true,
            Error::Corrupt { .. } | Error::Input { .. } => life.broken_reads.load(Ordering::Relaxed) > 0,
            Error::SnapshotExpired { .. } => true,
            Error::Fenced { .. } => true,
            _ => false,
        };
        self.world.note((actor, life.number), "fails", &error.to_string());
        if !excused {
            self.record().problems.push(format!("{} was told: {error}", name_of(actor)));
        }
    }
}

async fn pause(rng: &mut Rng, most: u64) {
    tokio::time::sleep(Duration::from_millis(rng.below(most))).await;
}

/// The table, if it has been created by now.
pub async fn opened(scene: &Scene, store: Store) -> Result<Option<Ledger>> {
    let was_there = scene.record().table_seen;
    let ledger = Ledger::open(store).await?;
    match ledger {
        Some(_) => scene.record().table_seen = true,
        None if was_there => scene.record().problems.push("the table is gone".into()),
        None => {}
    }
    Ok(ledger)
}

/// The table; created, if nobody has done so. Creators draw keys of their own, and do not agree about the rules.
pub async fn opened_or_created(scene: &Scene, store: Store) -> Result<Ledger> {
    match opened(scene, store.clone()).await? {
        Some(ledger) => Ok(ledger),
        None => create(scene, store, identity()?).await,
    }
}

pub async fn create(scene: &Scene, store: Store, identity: TableIdentity) -> Result<Ledger> {
    scene.record().creators += 1;
    let partitioned = scene.plan.partitioned && acting().is_multiple_of(2);
    let partition_by = if partitioned { vec!["p".to_owned()] } else { Vec::new() };
    let policy = Policy { partition_by, ..Policy::default() };
    Ledger::create(store, identity, policy, &Proposer::new()?).await
}

pub fn identity() -> Result<TableIdentity> {
    let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
    TableIdentity::new(TokenSpec::new(&["id".into()], &schema, TokenHash::SipHash24, TokenKey::random()?)?)
}

/// A writer brings its batches one after the other, each until it is acknowledged.
pub async fn writer(scene: Scene, at: usize) {
    let actor = FIRST_WRITER + at;
    let mut rng = Rng::new(scene.seed, 100 + at as u64);
    let mut lives = 0;
    for (number, batch) in scene.plan.writers[at].iter().enumerate() {
        // In a rush all begin at once, and create the table together.
        pause(&mut rng, if number == 0 && scene.plan.rush { 20 } else { 3_000 }).await;
        for tries in 0.. {
            lives += 1;
            let attempt = scene.record().begin(batch.number);
            let by_hand = scene.bug.is_by_hand() && rng.chance(700);
            let act = async |store: Store| match by_hand {
                true => byhand::bring(&scene, store, batch, attempt).await,
                false => bring(&scene, store, batch, attempt).await,
            };
            let end = match scene.live(actor, lives, act).await {
                Lived::Died => End::Died,
                Lived::Finished(Ok(ack), _) => End::Acked(ack),
                Lived::Finished(Err(error), life) => {
                    scene.complain(actor, &life, &error);
                    match error {
                        Error::Unknown { .. } => End::Unknown,
                        error => End::Failed(error.to_string()),
                    }
                }
            };
            let acked = matches!(end, End::Acked(_));
            scene.record().end(attempt, end);
            if acked {
                break;
            }
            if tries == 300 {
                scene.record().problems.push(format!("batch {} got nowhere in 300 tries", batch.number));
                return;
            }
            pause(&mut rng, 2_000).await;
        }
    }
}

/// One attempt to bring a batch, as a run of `ingest` makes it.
async fn bring(scene: &Scene, store: Store, batch: &Batch, attempt: u64) -> Result<Ack> {
    let mut ledger = opened_or_created(scene, store).await?;
    ledger.set_patience(scene.plan.patience);
    if let Some((id, _)) = &batch.id
        && let Some(seen) = ledger.batch(id).await?
    {
        return Ok(Ack { version: seen.version, replayed: true, rows: None });
    }
    let own = Arc::new(schema(batch.wide));
    let contract = match &ledger.state().schema {
        Some(table) => dedupe::schema::widen(table, &own).map_err(Error::Refused)?,
        None => (*own).clone(),
    };
    let ids: Vec<u128> = batch.sources.iter().filter_map(|source| source.id).collect();
    ledger.look_up(&ids, &[]).await?;
    let known = ledger.state().clone();
    let mut session = Session::begin(ledger, Arc::new(contract), options(scene, batch), &workers()).await?;
    for source in &batch.sources {
        let seen = match source.id {
            Some(id) => known.source(id)?,
            None => None,
        };
        let replay_of = seen.map(|seen| seen.version);
        let mut using = used(source, attempt);
        using.replay_of = replay_of;
        if replay_of.is_some() {
            let all = source.rows().count() as u64;
            using.rows = Accounting { read: all, replayed: all, ..Accounting::default() };
            session.add_source(using)?;
            continue;
        }
        let number = session.add_source(using)?;
        for rows in &source.chunks {
            let record = record_batch(&own, rows);
            let key = session.identity().token.bind(&own, &source.url)?;
            let verdicts = session.judge_tokens(number, &key.tokenise(&record)?).await?;
            for row in &verdicts.no_key {
                let row =
                    QuarantinedRow::of_record(&source.url, u64::from(*row), "no key".into(), "{}".into());
                session.set_aside(&row).await?;
            }
            session.write(Rows { source: number, chunk: Chunk::Batch(record), verdicts }).await?;
        }
    }
    let (committed, _) = session.commit().await?;
    Ok(Ack { version: committed.version, replayed: committed.batch_replayed, rows: Some(committed.rows) })
}

/// What the manifest says of a source. The attempt stands where the time of modification would.
pub fn used(source: &super::plan::Source, attempt: u64) -> SourceUse {
    SourceUse {
        url: source.url.clone(),
        id: source.id,
        modified: Some(attempt.to_string()),
        ..SourceUse::default()
    }
}

pub fn workers() -> Workers {
    Workers::new(std::num::NonZeroUsize::MIN)
}

fn options(scene: &Scene, batch: &Batch) -> SessionOptions {
    let batch = batch.id.clone().map(|(id, digest)| entry::Batch { id, digest });
    // Many small files, quickly made.
    let compression = CompressionChoice::Codec(Compression::UNCOMPRESSED);
    let sink = SinkOptions { target_file_size: 1, row_group_rows: 10, compression, ..SinkOptions::default() };
    let mut options = SessionOptions::default();
    (options.sink, options.memory, options.batch) = (sink, scene.plan.memory, batch);
    options
}

pub fn record_batch(schema: &Arc<Schema>, rows: &[Row]) -> RecordBatch {
    let column = |name: &str| -> Arc<dyn Array> {
        match name {
            "id" => Arc::new(StringArray::from_iter(rows.iter().map(|(key, _)| key.map(key_text)))),
            "p" => Arc::new(Int64Array::from_iter(rows.iter().map(|(key, _)| key.map(|key| key as i64 % 3)))),
            _ => Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, n)| *n))),
        }
    };
    let columns = schema.fields().iter().map(|field| column(field.name())).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).expect("columns of one length")
}

pub fn key_text(key: u64) -> String {
    format!("key-{key}")
}

/// Compacts now and then, and leaves checkpoints behind.
pub async fn compactor(scene: Scene) {
    let mut rng = Rng::new(scene.seed, 50);
    for life in 0..rng.from(2, 6) {
        pause(&mut rng, 9_000).await;
        let (all, memory) = (rng.chance(600), scene.plan.memory);
        let act = async |store: Store| {
            let Some(mut ledger) = opened(&scene, store).await? else { return Ok(()) };
            byhand::compact_with(&scene, &mut ledger).await?;
            if all {
                compact(&mut ledger, memory).await?
            } else {
                compact_if_due(&mut ledger, memory).await?
            };
            let _ = ledger.write_checkpoint().await;
            Ok(())
        };
        if let Lived::Finished(Err(error), life) = scene.live(COMPACTOR, life, act).await {
            scene.complain(COMPACTOR, &life, &error);
        }
    }
}

/// Fences, and deletes what can no longer become part of the table.
pub async fn vacuum(scene: Scene) {
    let mut rng = Rng::new(scene.seed, 60);
    for life in 0..rng.from(2, 6) {
        pause(&mut rng, 9_000).await;
        let grace = Duration::from_millis([0, 500, 5_000][rng.below(3) as usize]);
        let act = async |store: Store| match opened(&scene, store).await? {
            Some(mut ledger) => byhand::vacuum(&scene, &mut ledger, grace).await,
            None => Ok(()),
        };
        if let Lived::Finished(Err(error), life) = scene.live(VACUUM, life, act).await {
            scene.complain(VACUUM, &life, &error);
        }
    }
}

/// Reads the table again and again until the writers are done, and asks its index.
pub async fn reader(scene: Scene, done: Arc<std::sync::atomic::AtomicUsize>) {
    let mut rng = Rng::new(scene.seed, 70);
    for life in 0.. {
        pause(&mut rng, 15_000).await;
        let finished = done.load(Ordering::Relaxed) == scene.plan.writers.len();
        let probing = rng.chance(300);
        let keys: Vec<u64> = (0..12).map(|_| rng.below(scene.plan.keys * 2)).collect();
        let act = async |store: Store| {
            if probing { probe(&scene, store, keys).await } else { read(&scene, store).await }
        };
        if let Lived::Finished(Err(error), life) = scene.live(READER, life, act).await {
            scene.complain(READER, &life, &error);
        }
        if finished && scene.world.calls() >= 200 {
            return;
        }
    }
}

/// Pins a version, and reads all of its rows.
async fn read(scene: &Scene, store: Store) -> Result<()> {
    let state = byhand::state_for_reading(scene, store.clone()).await?;
    let Some(version) = state.version() else { return Ok(()) };
    let mut snapshot = Snapshot { version, rows: 0, sum: 0 };
    for file in state.files()?.values() {
        let Some(bytes) = store.get(&file.item.name).await? else {
            if byhand::is_live(store, &file.item.name).await? {
                let gone = format!("{} of version {} is absent", file.item.name, snapshot.version);
                scene.record().problems.push(gone);
            }
            return Ok(());
        };
        if format!("{:016x}", xxh3_64(&bytes)) != file.item.check {
            return Err(Error::corrupt(&file.item.name, "a bit is wrong"));
        }
        let rows = scene.record().rows_of(&file.item.name, &bytes);
        snapshot.rows += rows.len() as u64;
        snapshot.sum = rows.iter().map(|row| row_hash(*row)).fold(snapshot.sum, u64::wrapping_add);
    }
    scene.record().snapshots.push(snapshot);
    Ok(())
}

/// Asks the index which keys it knows.
async fn probe(scene: &Scene, store: Store, mut keys: Vec<u64>) -> Result<()> {
    keys.sort_unstable();
    keys.dedup();
    let Some(ledger) = opened(scene, store).await? else { return Ok(()) };
    let version = ledger.version();
    let own = Arc::new(schema(false));
    let contract = ledger.state().schema.clone().unwrap_or((*own).clone());
    let mut options = SessionOptions::default();
    options.memory = scene.plan.memory;
    let mut session = Session::begin(ledger, Arc::new(contract), options, &workers()).await?;
    let source = session.add_source(SourceUse::default())?;
    let rows: Vec<Row> = keys.iter().map(|key| (Some(*key), 0)).collect();
    let key = session.identity().token.bind(&own, "probe")?;
    let verdicts = session.judge_tokens(source, &key.tokenise(&record_batch(&own, &rows))?).await?;
    let known = keys.into_iter().enumerate().map(|(at, key)| (key, !verdicts.keep.value(at))).collect();
    scene.record().probes.push(Probe { version, known });
    Ok(())
}

pub fn row_hash((key, n): Row) -> u64 {
    let key = key.map_or(u64::MAX, |key| key).to_le_bytes();
    xxh3_64(&[key, n.to_le_bytes()].concat())
}

/// The rows of a data file.
pub fn rows_in(bytes: &Bytes) -> Vec<Row> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes.clone()).and_then(|reader| reader.build());
    let mut rows = Vec::new();
    for batch in reader.expect("a live file is Parquet") {
        let batch = batch.expect("a live file can be read");
        let column = |name: &str, kind| {
            let column = batch.column_by_name(name).expect("the column is there");
            arrow::compute::cast(column, &kind).expect("the column is of its type")
        };
        let (ids, numbers) = (column("id", DataType::Utf8), column("n", DataType::Int64));
        for (id, n) in ids.as_string::<i32>().iter().zip(numbers.as_primitive::<Int64Type>().values()) {
            rows.push((id.and_then(|id| id.strip_prefix("key-")?.parse().ok()), *n));
        }
    }
    rows
}
