//! Memory pools of all sizes: the right answer, or a clean "resources exhausted"; never a wait without end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{
    SendableRecordBatchStream, SessionStateBuilder, TaskContext, runtime_env::RuntimeEnv,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};
use dedupe::operator::{DedupeDataFrame, DedupePlanner, DedupeTable};
use dedupe::options::MIB;
use dedupe::session::SessionOptions;
use futures::StreamExt;

use crate::scene::*;

fn context(pool: Arc<dyn MemoryPool>) -> SessionContext {
    let runtime: Arc<RuntimeEnv> = RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc().unwrap();
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(4))
        .with_runtime_env(runtime)
        .with_query_planner(Arc::new(DedupePlanner));
    let context = SessionContext::new_with_state(state.build());
    dedupe::operator::register(&context);
    context
}

fn pools() -> Vec<(u64, Arc<dyn MemoryPool>)> {
    let mut pools: Vec<(u64, Arc<dyn MemoryPool>)> =
        vec![(u64::MAX, Arc::new(UnboundedMemoryPool::default()))];
    for mebibytes in [1, 8, 16, 32, 64, 256] {
        let bytes = (mebibytes * MIB) as usize;
        pools.push((mebibytes, Arc::new(FairSpillPool::new(bytes))));
        pools.push((mebibytes, Arc::new(GreedyMemoryPool::new(bytes))));
    }
    pools
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_whatever_memory_there_is() {
    for (mebibytes, pool) in pools() {
        let scene = Scene::of(context(Arc::clone(&pool))).await;
        let partitions: Vec<Vec<Vec<Row>>> = (0..4)
            .map(|p| (0..10).map(|b| rows((p * 7 + b) * 3_000..(p * 7 + b) * 3_000 + 8_000, p)).collect())
            .collect();
        let all: HashSet<String> =
            partitions.iter().flatten().flatten().filter_map(|row| row.0.clone()).collect();
        let session = scene.session();
        let plan = scene.frame(&partitions).dedupe(&session).unwrap().create_physical_plan().await.unwrap();
        let run = collect(Arc::clone(&plan), scene.context.task_ctx());
        let run = tokio::time::timeout(Duration::from_secs(300), run);
        match run.await.expect("it ends") {
            Ok(batches) => {
                assert!(mebibytes > 1, "{pool:?}");
                let keys: HashSet<String> =
                    of_batches(&batches).into_iter().filter_map(|row| row.0).collect();
                assert_eq!(keys, all);
                assert_eq!(session.commit().await.unwrap().rows.accepted, all.len() as u64);
                assert_eq!(scene.keys().await.len(), all.len());
                let spills = plan.metrics().unwrap().sum_by_name("spills").unwrap().as_usize();
                match mebibytes {
                    ..=32 => assert!(spills > 0, "no spills in {pool:?}"),
                    // All keys nearly fit.
                    33..=64 => {}
                    65.. => assert_eq!(spills, 0, "{pool:?}"),
                }
            }
            Err(error) => {
                assert!(mebibytes == 1, "{pool:?}: {error}");
                assert!(error.to_string().contains("Resources exhausted"), "{error}");
                assert_eq!(scene.keys().await.len(), 0);
            }
        }
        drop(session);
        all_given_back(&pool).await;
    }
}

/// A sort below takes memory too, and holds what it has until its last row was judged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_behind_a_sort_with_whatever_memory_there_is() {
    let partitions: Vec<Vec<Vec<Row>>> = (0..2)
        .map(|p| (0..20).map(|b| rows((p * 10 + b) * 3_000..(p * 10 + b) * 3_000 + 6_000, p)).collect())
        .collect();
    let all: HashSet<String> =
        partitions.iter().flatten().flatten().filter_map(|row| row.0.clone()).collect();
    for (mebibytes, pool) in pools() {
        let scene = Scene::of(context(Arc::clone(&pool))).await;
        let provider =
            DedupeTable::try_new(scene.table.clone(), Some(&schema()), SessionOptions::default()).unwrap();
        scene.context.register_table("events", Arc::new(provider)).unwrap();
        scene.context.register_table("landing", scene.frame(&partitions).into_view()).unwrap();
        let insert = scene.context.sql("INSERT INTO events SELECT id, n FROM landing ORDER BY n DESC, id");
        let run = insert.await.unwrap().collect();
        match tokio::time::timeout(Duration::from_secs(300), run).await.expect("it ends") {
            Ok(_) => {
                let found = scene.context.sql("SELECT id, n FROM events").await.unwrap().collect().await;
                let found = of_batches(&found.unwrap());
                assert_eq!(found.len(), all.len());
                // Of two rows with one key the first in that order is kept.
                let number = |id: &str| id.strip_prefix("key-").and_then(|id| id.parse::<i64>().ok());
                let both = |id: &Option<String>| {
                    id.as_deref().and_then(number).is_some_and(|id| (30_000..63_000).contains(&id))
                };
                let kept = found.iter().find(|(id, n)| *n == 0 && both(id));
                assert_eq!(kept, None);
            }
            Err(error) => {
                assert!(mebibytes < 64, "{pool:?}: {error}");
                assert!(error.to_string().contains("Resources exhausted"), "{pool:?}: {error}");
                assert_eq!(scene.keys().await.len(), 0);
            }
        }
        all_given_back(&pool).await;
    }
}

/// Waits until what was reserved is given back: tasks of DataFusion's own end in the background.
async fn all_given_back(pool: &Arc<dyn MemoryPool>) {
    let given_back = async {
        while pool.reserved() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), given_back).await.expect("all is given back");
}

/// Some batches, and then nothing more, but no end either.
#[derive(Debug)]
struct Stalls(SchemaRef);

impl PartitionStream for Stalls {
    fn schema(&self) -> &SchemaRef {
        &self.0
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let some = (0..5).map(|b| Ok(batch(&rows(b * 100..b * 100 + 100, b))));
        let batches = futures::stream::iter(some).chain(futures::stream::pending());
        Box::pin(RecordBatchStreamAdapter::new(schema(), batches))
    }
}

/// Whoever stops early gives back what it took, and leaves nothing that is seen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dropped_in_the_middle_leaves_nothing() {
    let pool: Arc<dyn MemoryPool> = Arc::new(FairSpillPool::new(64 << 20));
    let scene = Scene::of(context(Arc::clone(&pool))).await;
    let provider =
        DedupeTable::try_new(scene.table.clone(), Some(&schema()), SessionOptions::default()).unwrap();
    scene.context.register_table("events", Arc::new(provider)).unwrap();
    let stalls = || Arc::new(Stalls(schema())) as Arc<dyn PartitionStream>;
    let endless = StreamingTable::try_new(schema(), vec![stalls(), stalls()]).unwrap();
    scene.context.register_table("landing", Arc::new(endless)).unwrap();
    let insert = scene.context.sql("INSERT INTO events SELECT * FROM landing").await.unwrap();
    let plan = insert.create_physical_plan().await.unwrap();
    // Twice the same plan, and each time until rows were judged.
    for _ in 0..2 {
        let before = judged(&plan);
        let run = tokio::spawn(collect(Arc::clone(&plan), scene.context.task_ctx()));
        while judged(&plan) < before + 1000 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(pool.reserved() > 0);
        run.abort();
        assert!(run.await.unwrap_err().is_cancelled());
        assert_eq!(scene.keys().await.len(), 0);
    }
    // The frame that a program holds itself.
    let session = scene.session();
    let frame = scene.context.table("landing").await.unwrap().dedupe(&session).unwrap();
    let mut stream = frame.execute_stream().await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    drop(stream);
    assert!(session.commit().await.unwrap_err().to_string().contains("did not run to its end"));
    drop((plan, session));
    all_given_back(&pool).await;
    assert_eq!(scene.keys().await.len(), 0);
    scene.is_sound().await;
}

/// Rows that the deduplication in `plan` has judged.
fn judged(plan: &Arc<dyn ExecutionPlan>) -> usize {
    let own = match plan.name() {
        "DedupeExec" => ["accepted", "duplicate"]
            .iter()
            .filter_map(|name| Some(plan.metrics()?.sum_by_name(name)?.as_usize()))
            .sum(),
        _ => 0,
    };
    own + plan.children().into_iter().map(judged).sum::<usize>()
}

/// Next to operators that take all memory there is: the right rows, or one of them says that it found nothing left, a sort or what
/// merges the two sorts; never the deduplication, which gives way. The first sort may take all before the second, or the merge,
/// begins, where memory is given to who comes first, and on a busy machine also where it is shared fairly. There it is rare.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_to_a_sort_in_64_mebibytes() {
    let greedy = || Arc::new(GreedyMemoryPool::new(64 << 20)) as Arc<dyn MemoryPool>;
    next_to_a_sort(greedy()).await;
    let fair = || Arc::new(FairSpillPool::new(64 << 20)) as Arc<dyn MemoryPool>;
    let mut sorted = false;
    for _ in 0..4 {
        sorted = sorted || next_to_a_sort(fair()).await;
    }
    assert!(sorted, "four times there was not enough memory for two sorts");
}

/// Whether there was enough memory.
async fn next_to_a_sort(pool: Arc<dyn MemoryPool>) -> bool {
    let scene = Scene::of(context(pool)).await;
    let many: Vec<Vec<Row>> = (0..40).map(|b| rows(b * 5_000..b * 5_000 + 10_000, b)).collect();
    let session = scene.session();
    let sorted = scene.frame(&[many.clone(), many]).dedupe(&session).unwrap();
    let sorted = sorted.sort(vec![datafusion::prelude::col("id").sort(true, false)]).unwrap();
    match tokio::time::timeout(Duration::from_secs(300), sorted.collect()).await.expect("it ends") {
        Ok(found) => {
            assert_eq!(of_batches(&found).len(), 205_000);
            assert_eq!(session.commit().await.unwrap().rows.accepted, 205_000);
            true
        }
        Err(error) => {
            let error = error.to_string();
            assert!(error.contains("Resources exhausted") && !error.contains("dedupe session"), "{error}");
            assert_eq!(scene.keys().await.len(), 0);
            false
        }
    }
}
