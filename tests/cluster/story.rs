//! Jobs on a table in a temporary folder, and what they must have done to it.

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::sync::Arc;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::execution::SessionStateBuilder;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext};
use dedupe::cluster::{Job, StagePlanner};
use dedupe::operator::DedupeTable;
use dedupe::session::{Committed, SessionOptions};
use proptest::prelude::*;

use crate::scene::*;

/// What the rows of one job are: files of row groups.
pub type Files = Vec<Vec<Vec<Row>>>;

/// A few jobs' rows: keys that repeat within a job and between jobs, and rows without a key.
pub fn any_jobs() -> impl Strategy<Value = Vec<Files>> {
    let row = prop_oneof![9 => (0i64..150).prop_map(Some), 1 => Just(None)];
    let group = prop::collection::vec(row, 0..60);
    let file = prop::collection::vec(group, 1..3);
    prop::collection::vec(prop::collection::vec(file, 1..4), 1..4).prop_map(|jobs| {
        let mut n = 0;
        let mut row = |key: Option<i64>| {
            n += 1;
            (key.map(|key| format!("key-{key}")), n)
        };
        let mut group = |keys: Vec<Option<i64>>| keys.into_iter().map(&mut row).collect::<Vec<_>>();
        jobs.into_iter()
            .map(|files| {
                files.into_iter().map(|file| file.into_iter().map(&mut group).collect()).collect::<Files>()
            })
            .collect()
    })
}

/// A context whose planner knows jobs.
pub fn context(partitions: usize) -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(partitions))
        .with_query_planner(Arc::new(StagePlanner));
    let context = SessionContext::new_with_state(state.build());
    dedupe::operator::register(&context);
    context
}

/// Files in a folder, as every executor can read them.
pub struct Sources(tempfile::TempDir);

impl Sources {
    pub fn of(files: &Files) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for (number, groups) in files.iter().enumerate() {
            let file = std::fs::File::create(folder.path().join(format!("{number}.parquet"))).unwrap();
            let mut writer = ArrowWriter::try_new(file, schema(), None).unwrap();
            for group in groups {
                writer.write(&batch(group)).unwrap();
                writer.flush().unwrap();
            }
            writer.close().unwrap();
        }
        Self(folder)
    }

    pub fn path(&self) -> &str {
        self.0.path().to_str().unwrap()
    }

    pub async fn frame(&self, context: &SessionContext) -> DataFrame {
        context.read_parquet(self.path(), ParquetReadOptions::default()).await.unwrap()
    }
}

pub async fn begin(scene: &Scene, schema: &SchemaRef) -> Job {
    let mut table = scene.table.clone();
    table.refresh().await.unwrap();
    let mut options = SessionOptions::default();
    options.memory = 16 << 20;
    Job::begin(&table, schema, options, Vec::new()).await.unwrap()
}

/// All rows that the table holds.
pub async fn held(scene: &Scene) -> Vec<Row> {
    let mut table = scene.table.clone();
    table.refresh().await.unwrap();
    let provider = DedupeTable::try_new(table, Some(&schema()), SessionOptions::default()).unwrap();
    of_batches(&scene.context.read_table(Arc::new(provider)).unwrap().collect().await.unwrap())
}

/// What a plain set says of the table: rows by key, each the first of its key in some order of its job.
#[derive(Default)]
pub struct Oracle {
    /// The rows that may stand for a key: those that the first job with it had.
    allowed: HashMap<String, HashSet<i64>>,
}

impl Oracle {
    /// Takes note of a job that was committed, which must have accounted for its rows like this.
    pub fn job(&mut self, files: &Files, committed: &Committed) {
        let rows: Vec<&Row> = files.iter().flatten().flatten().collect();
        let mut new = HashMap::<String, HashSet<i64>>::new();
        let mut keyed = 0;
        for (key, n) in rows.iter().filter_map(|(key, n)| Some((key.clone()?, *n))) {
            keyed += 1;
            if !self.allowed.contains_key(&key) {
                new.entry(key).or_default().insert(n);
            }
        }
        let counts = committed.rows;
        assert_eq!(counts.accepted, new.len() as u64);
        assert_eq!(counts.duplicate, keyed - new.len() as u64);
        assert_eq!((counts.read, counts.rejected), (rows.len() as u64, rows.len() as u64 - keyed));
        self.allowed.extend(new);
    }

    /// What the table must hold now.
    pub async fn agrees(&self, scene: &Scene) {
        let held = held(scene).await;
        let keys: HashSet<&str> = held.iter().filter_map(|(key, _)| key.as_deref()).collect();
        assert_eq!(held.len(), keys.len(), "a key was kept twice, or a row without one");
        assert_eq!(keys, self.allowed.keys().map(String::as_str).collect::<HashSet<_>>());
        for (key, n) in &held {
            assert!(self.allowed[key.as_deref().unwrap()].contains(n), "{key:?} is a row of another job");
        }
        scene.is_sound().await;
    }
}

/// Runs jobs one after the other, as `run` has them run, and compares what the table holds with a plain set.
pub async fn jobs_agree_with_a_plain_set<F>(jobs: &[Files], run: impl Fn(Job, Sources) -> F)
where
    F: Future<Output = (Job, Vec<RecordBatch>)>,
{
    let scene = Scene::of(context(4)).await;
    let mut oracle = Oracle::default();
    for files in jobs {
        let job = begin(&scene, &schema()).await;
        let (job, staged) = run(job, Sources::of(files)).await;
        oracle.job(files, &job.commit(&staged).await.unwrap());
        oracle.agrees(&scene).await;
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(future)
}
