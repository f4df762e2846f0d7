//! Memory pools of all sizes: the right answer, or a clean "resources exhausted"; never a wait without end.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::memory_pool::{FairSpillPool, GreedyMemoryPool, MemoryPool, UnboundedMemoryPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionStateBuilder, runtime_env::RuntimeEnv};
use datafusion::prelude::{SessionConfig, SessionContext};
use dedupe::operator::{DedupeDataFrame, DedupePlanner};
use dedupe::options::MIB;

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
    for mebibytes in [1, 8, 16, 64, 256] {
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
        let frame = scene.frame(&partitions).dedupe(&session).unwrap();
        let run = tokio::time::timeout(Duration::from_secs(300), frame.collect());
        match run.await.expect("it ends") {
            Ok(batches) => {
                assert!(mebibytes > 1, "{pool:?}");
                let keys: HashSet<String> =
                    of_batches(&batches).into_iter().filter_map(|row| row.0).collect();
                assert_eq!(keys, all);
                assert_eq!(session.commit().await.unwrap().rows.accepted, all.len() as u64);
                assert_eq!(scene.keys().await.len(), all.len());
            }
            Err(error) => {
                assert!(mebibytes == 1, "{pool:?}: {error}");
                assert!(error.to_string().contains("Resources exhausted"), "{error}");
                assert_eq!(scene.keys().await.len(), 0);
            }
        }
        drop(session);
        assert_eq!(pool.reserved(), 0, "what was reserved is given back");
    }
}

/// Next to operators that take all memory there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn next_to_a_sort_in_64_mebibytes() {
    for pool in [
        Arc::new(FairSpillPool::new(64 << 20)) as Arc<dyn MemoryPool>,
        Arc::new(GreedyMemoryPool::new(64 << 20)),
    ] {
        let scene = Scene::of(context(pool)).await;
        let many: Vec<Vec<Row>> = (0..40).map(|b| rows(b * 5_000..b * 5_000 + 10_000, b)).collect();
        let session = scene.session();
        let sorted = scene.frame(&[many.clone(), many]).dedupe(&session).unwrap();
        let sorted = sorted.sort(vec![datafusion::prelude::col("id").sort(true, false)]).unwrap();
        let found = tokio::time::timeout(Duration::from_secs(300), sorted.collect()).await.expect("it ends");
        assert_eq!(of_batches(&found.unwrap()).len(), 205_000);
        assert_eq!(session.commit().await.unwrap().rows.accepted, 205_000);
    }
}
