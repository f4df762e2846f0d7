//! Rows in memory, a table in a temporary folder, and what they have to do with each other.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use datafusion::datasource::MemTable;
use datafusion::prelude::{DataFrame, SessionContext};
use dedupe::operator::{Keep, PlanSession};
use dedupe::session::SessionOptions;
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};
use dedupe::upkeep::verify::{VerifyOptions, verify};

/// A key, if the row has one, and a number that tells it from its repeats.
pub type Row = (Option<String>, i64);

pub fn rows(keys: std::ops::Range<i64>, n: i64) -> Vec<Row> {
    keys.map(|i| (Some(format!("key-{i}")), n)).collect()
}

pub fn schema() -> SchemaRef {
    let field = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![field("id", DataType::Utf8), field("n", DataType::Int64)]))
}

pub fn batch(rows: &[Row]) -> RecordBatch {
    let ids = StringArray::from_iter(rows.iter().map(|(id, _)| id.as_deref()));
    let numbers = Int64Array::from_iter_values(rows.iter().map(|(_, n)| *n));
    RecordBatch::try_new(schema(), vec![Arc::new(ids), Arc::new(numbers)]).unwrap()
}

pub fn of_batches(batches: &[RecordBatch]) -> Vec<Row> {
    let mut rows = Vec::new();
    for batch in batches {
        let ids = cast(batch.column_by_name("id").unwrap(), &DataType::Utf8).unwrap();
        let numbers = cast(batch.column_by_name("n").unwrap(), &DataType::Int64).unwrap();
        for (id, n) in ids.as_string::<i32>().iter().zip(numbers.as_primitive::<Int64Type>().values()) {
            rows.push((id.map(str::to_owned), *n));
        }
    }
    rows
}

/// What a plain set keeps of these rows. Those without a key go to quarantine.
pub fn first_of_each(known: &mut HashSet<String>, rows: &[Row]) -> Vec<Row> {
    let first = |row: &&Row| row.0.clone().is_some_and(|id| known.insert(id));
    rows.iter().filter(first).cloned().collect()
}

pub struct Scene {
    pub context: SessionContext,
    pub table: Table,
    _folder: tempfile::TempDir,
}

impl Scene {
    pub async fn new() -> Self {
        Self::of(dedupe::operator::context()).await
    }

    pub async fn of(context: SessionContext) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("table").to_str().unwrap(), &[]).unwrap();
        let table = Table::open_or_create(store, &schema(), &NewTable::keyed_by(["id"])).await.unwrap();
        Self { context, table, _folder: folder }
    }

    pub fn session(&self) -> PlanSession {
        PlanSession::new(&self.table, SessionOptions::default())
    }

    pub fn keys_only(&self) -> PlanSession {
        PlanSession::keeping(&self.table, SessionOptions::default(), Keep::Keys)
    }

    /// These rows, in partitions of batches.
    pub fn frame(&self, partitions: &[Vec<Vec<Row>>]) -> DataFrame {
        let of = |batches: &Vec<Vec<Row>>| batches.iter().map(|rows| batch(rows)).collect();
        let source = MemTable::try_new(schema(), partitions.iter().map(of).collect()).unwrap();
        self.context.read_table(Arc::new(source)).unwrap()
    }

    /// All rows of one partition, in one batch.
    pub fn one(&self, rows: &[Row]) -> DataFrame {
        self.frame(&[vec![rows.to_vec()]])
    }

    /// All keys that the table knows, by its data files.
    pub async fn keys(&self) -> HashSet<String> {
        let held = dedupe::operator::DedupeTable::try_new(
            self.table.clone(),
            Some(&schema()),
            SessionOptions::default(),
        );
        let rows = self.context.read_table(Arc::new(held.unwrap())).unwrap().collect().await.unwrap();
        let ids = rows.iter().flat_map(|batch| {
            let ids = cast(batch.column_by_name("id").unwrap(), &DataType::Utf8).unwrap();
            ids.as_string::<i32>().iter().flatten().map(str::to_owned).collect::<Vec<_>>()
        });
        ids.collect()
    }

    pub async fn is_sound(&self) {
        let mut table = self.table.clone();
        table.refresh().await.unwrap();
        let report = verify(table.ledger(), &VerifyOptions::default()).await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }
}
