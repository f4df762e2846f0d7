//! datafusion-distributed: workers over real connections, in this process.

use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion_distributed::{DistributedExt, display_plan_ascii};
use dedupe::cluster::distributed;
use proptest::prelude::*;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::scene::*;
use crate::story::*;

/// So many workers, and a context that knows them. They end with the test's runtime.
async fn workers(count: usize) -> (SessionContext, Vec<JoinHandle<()>>) {
    let (mut urls, mut serving) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()).parse().unwrap());
        serving.push(tokio::spawn(async move { distributed::serve(listener).await.unwrap() }));
    }
    // The files of tests are small: each of them is worth a partition.
    let context = distributed::context(SessionConfig::new().with_target_partitions(4), urls)
        .with_distributed_file_scan_config_bytes_per_partition(1)
        .unwrap();
    (context, serving)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn three_workers_keep_what_a_plain_set_keeps(jobs in any_jobs()) {
        block_on(jobs_agree_with_a_plain_set(&jobs, |job, sources| async move {
            let (context, _serving) = workers(3).await;
            let staged = job.stage(sources.frame(&context).await).unwrap().collect().await.unwrap();
            (job, staged)
        }));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_is_spread_over_the_workers() {
    let (scene, (context, _serving)) = (Scene::of(context(4)).await, workers(3).await);
    let files: Files = (0..6).map(|file| vec![rows(file * 500..file * 500 + 1000, file)]).collect();
    let sources = Sources::of(&files);
    let job = begin(&scene, &schema()).await;
    let frame = job.stage(sources.frame(&context).await).unwrap();
    let plan = frame.clone().create_physical_plan().await.unwrap();
    let shown = display_plan_ascii(plan.as_ref(), false);
    assert!(shown.contains("NetworkShuffleExec") && shown.contains("StageExec"), "{shown}");
    let staged = frame.collect().await.unwrap();
    let tasks: usize = staged.iter().map(|batch| batch.num_rows()).sum();
    assert!(tasks > 4, "{tasks} tasks staged: {shown}");
    let mut oracle = Oracle::default();
    oracle.job(&files, &job.commit(&staged).await.unwrap());
    oracle.agrees(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_loses_a_worker_fails_and_can_be_run_again() {
    let (scene, (context, serving)) = (Scene::of(context(4)).await, workers(2).await);
    let files: Files = (0..4).map(|file| vec![rows(file * 500..file * 500 + 1000, file)]).collect();
    let sources = Sources::of(&files);
    let job = begin(&scene, &schema()).await;
    let frame = job.stage(sources.frame(&context).await).unwrap();
    serving[1].abort();
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    assert!(frame.collect().await.is_err());
    drop(job);
    let (context, _serving) = workers(2).await;
    let job = begin(&scene, &schema()).await;
    let staged = job.stage(sources.frame(&context).await).unwrap().collect().await.unwrap();
    let mut oracle = Oracle::default();
    oracle.job(&files, &job.commit(&staged).await.unwrap());
    oracle.agrees(&scene).await;
}
