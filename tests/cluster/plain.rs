//! Jobs without an engine: the nodes and their codec in DataFusion alone, and what a driver makes of tasks that fail.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties, collect, execute_stream};
use datafusion::prelude::SessionContext;
use datafusion_proto::bytes::{
    physical_plan_from_bytes_with_extension_codec, physical_plan_to_bytes_with_extension_codec,
};
use dedupe::cluster::{DedupeCodec, Job};
use dedupe::error::Error;
use dedupe::session::SessionOptions;
use dedupe::upkeep::vacuum::{VacuumOptions, vacuum};
use futures::TryStreamExt;
use proptest::prelude::*;

use crate::scene::*;
use crate::story::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_job_keeps_what_a_plain_set_keeps(jobs in any_jobs(), partitions in 1usize..5) {
        block_on(jobs_agree_with_a_plain_set(&jobs, |job, sources| async move {
            let staged = job.stage(sources.frame(&context(partitions)).await).unwrap().collect().await.unwrap();
            (job, staged)
        }));
    }

    #[test]
    fn a_plan_that_travelled_does_the_same(jobs in any_jobs(), tasks in 1usize..5) {
        block_on(jobs_agree_with_a_plain_set(&jobs, |job, sources| async move {
            let context = context(2);
            let plan = travelled(planned(&job, &sources, &context, tasks).await, &context);
            let staged = collect(plan, context.task_ctx()).await.unwrap();
            (job, staged)
        }));
    }
}

async fn planned(
    job: &Job,
    sources: &Sources,
    context: &SessionContext,
    tasks: usize,
) -> Arc<dyn ExecutionPlan> {
    let input = sources.frame(context).await.create_physical_plan().await.unwrap();
    job.plan(input, tasks).unwrap()
}

/// The plan as it is at the other end of a wire.
fn travelled(plan: Arc<dyn ExecutionPlan>, context: &SessionContext) -> Arc<dyn ExecutionPlan> {
    let codec = DedupeCodec::new();
    let bytes = physical_plan_to_bytes_with_extension_codec(plan, &codec).unwrap();
    physical_plan_from_bytes_with_extension_codec(&bytes, &context.task_ctx(), &codec).unwrap()
}

/// One attempt at one task.
async fn attempt(plan: &Arc<dyn ExecutionPlan>, task: usize, context: &SessionContext) -> RecordBatch {
    let batches: Vec<_> = plan.execute(task, context.task_ctx()).unwrap().try_collect().await.unwrap();
    let [staged] = batches.as_slice() else { panic!("a task says one thing: {batches:?}") };
    staged.clone()
}

/// Every task run once, as an engine would: each on a plan of its own, which reads everything that is shuffled anew.
async fn once_each(plan: &Arc<dyn ExecutionPlan>, context: &SessionContext) -> Vec<RecordBatch> {
    let mut staged = Vec::new();
    for task in 0..plan.output_partitioning().partition_count() {
        staged.push(attempt(&travelled(Arc::clone(plan), context), task, context).await);
    }
    staged
}

/// What a vacuum without any manners deletes: it respects neither age nor leases.
async fn cleared(scene: &Scene) -> Vec<String> {
    let mut ledger = scene.table.ledger().clone();
    ledger.refresh().await.unwrap();
    let store = ledger.store().clone();
    for lease in store.list("_dedupe/session").await.unwrap() {
        store.delete(&lease.name).await.unwrap();
    }
    let mut options = VacuumOptions::default();
    options.grace = Duration::ZERO;
    vacuum(&mut ledger, &options).await.unwrap().names
}

fn many_rows() -> Files {
    (0..4).map(|file| vec![rows(file * 500..file * 500 + 1000, file)]).collect()
}

fn unseen(scene: &Scene) -> impl Future<Output = ()> {
    let (mut table, seen) = (scene.table.clone(), scene.table.ledger().version());
    async move {
        table.refresh().await.unwrap();
        assert_eq!(table.ledger().version(), seen, "something was committed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_that_is_run_again_counts_once() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let plan = planned(&job, &sources, &context, 3).await;
    let mut staged = once_each(&plan, &context).await;
    // The first attempt at task 1 is forgotten, and what it staged is garbage; task 2 is delivered twice.
    staged[1] = attempt(&travelled(Arc::clone(&plan), &context), 1, &context).await;
    staged.push(staged[2].clone());
    let committed = job.commit(&staged).await.unwrap();
    let mut oracle = Oracle::default();
    oracle.job(&many_rows(), &committed);
    oracle.agrees(&scene).await;
    let deleted = cleared(&scene).await;
    assert!(deleted.len() >= 2, "{deleted:?}");
    oracle.agrees(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_task_whose_word_is_lost_is_missed() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    for lost in 0..3 {
        let job = begin(&scene, &schema()).await;
        let plan = planned(&job, &sources, &context, 3).await;
        let mut staged = once_each(&plan, &context).await;
        staged.remove(lost);
        let refused = job.commit(&staged).await.unwrap_err();
        assert!(matches!(&refused, Error::Refused(why) if why.contains("was lost")), "{refused}");
        unseen(&scene).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_attempts_at_one_task_are_not_both_believed() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let plan = planned(&job, &sources, &context, 3).await;
    let mut staged = once_each(&plan, &context).await;
    staged.push(attempt(&travelled(plan, &context), 1, &context).await);
    let refused = job.commit(&staged).await.unwrap_err();
    assert!(matches!(&refused, Error::Refused(why) if why.contains("two tasks judged")), "{refused}");
    unseen(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_were_not_shuffled_by_their_range_are_refused() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let staged = once_each(&planned(&job, &sources, &context, 3).await, &context).await;
    // As if half of each task's rows had gone to the next: that of a job with another number of tasks.
    let other = once_each(&planned(&job, &sources, &context, 2).await, &context).await;
    let mixed = [staged[0].clone(), other[0].clone(), other[1].clone()];
    assert!(matches!(job.commit(&mixed).await, Err(Error::Refused(_))));
    unseen(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_staged_and_is_gone_is_not_committed() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let store = scene.table.ledger().store().clone();
    for folder in ["data", "_dedupe/tokens"] {
        let job = begin(&scene, &schema()).await;
        let staged = once_each(&planned(&job, &sources, &context, 3).await, &context).await;
        let object = store.list(folder).await.unwrap().pop().unwrap();
        store.delete(&object.name).await.unwrap();
        let error = job.commit(&staged).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { object: gone, .. } if *gone == object.name), "{error}");
        unseen(&scene).await;
        // Nothing is lost: run again, it is all there.
        for folder in ["data", "_dedupe/tokens"] {
            for object in store.list(folder).await.unwrap() {
                store.delete(&object.name).await.unwrap();
            }
        }
    }
    let job = begin(&scene, &schema()).await;
    let staged = once_each(&planned(&job, &sources, &context, 3).await, &context).await;
    let mut oracle = Oracle::default();
    oracle.job(&many_rows(), &job.commit(&staged).await.unwrap());
    oracle.agrees(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_was_taken_for_dead_says_so() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let plan = planned(&job, &sources, &context, 3).await;
    let staged = once_each(&plan, &context).await;
    while cleared(&scene).await.is_empty() {}
    let fenced = job.commit(&staged).await.unwrap_err();
    assert!(matches!(fenced, Error::Fenced { .. }), "{fenced}");
    let job = begin(&scene, &schema()).await;
    let staged = once_each(&planned(&job, &sources, &context, 3).await, &context).await;
    let mut oracle = Oracle::default();
    oracle.job(&many_rows(), &job.commit(&staged).await.unwrap());
    oracle.agrees(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_job_that_was_overtaken_is_judged_against_who_was_first() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let staged = once_each(&planned(&job, &sources, &context, 3).await, &context).await;
    let first = vec![vec![rows(100..700, 9)], vec![rows(2400..2600, 9)]];
    let rival = begin(&scene, &schema()).await;
    let theirs = rival.stage(Sources::of(&first).frame(&context).await).unwrap().collect().await.unwrap();
    let mut oracle = Oracle::default();
    oracle.job(&first, &rival.commit(&theirs).await.unwrap());
    oracle.job(&many_rows(), &job.commit(&staged).await.unwrap());
    oracle.agrees(&scene).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_explained_plan_shows_the_shuffle() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let frame = job.stage(sources.frame(&context).await).unwrap();
    let plan = frame.create_physical_plan().await.unwrap();
    let shown = datafusion::physical_plan::displayable(plan.as_ref()).indent(false).to_string();
    let lines: Vec<&str> = shown.lines().map(str::trim_start).collect();
    assert!(lines[0].starts_with("StageExec: table="), "{shown}");
    assert!(lines[1].starts_with("RepartitionExec: partitioning=Hash([_dedupe.range@"), "{shown}");
    assert!(lines[2].starts_with("TokeniseExec: table="), "{shown}");
    assert!(lines[3].starts_with("DataSourceExec:"), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_stops_early_stops_the_task() {
    let (scene, context, sources) = (Scene::of(context(4)).await, context(2), Sources::of(&many_rows()));
    let job = begin(&scene, &schema()).await;
    let plan = planned(&job, &sources, &context, 1).await;
    drop(execute_stream(plan, context.task_ctx()).unwrap());
    let staged: Vec<RecordBatch> = Vec::new();
    assert!(matches!(job.commit(&staged).await, Err(Error::Refused(_))));
    unseen(&scene).await;
    let mut options = SessionOptions::default();
    options.dry_run = true;
    let refused = Job::begin(&scene.table, &schema(), options, Vec::new()).await;
    assert!(matches!(refused, Err(Error::Usage(_))));
}
