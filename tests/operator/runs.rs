//! Runs of plans: what comes out of them, and what is seen afterwards.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::streaming::StreamingTable;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::PartitionStream;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{ParquetReadOptions, col, lit};
use dedupe::Error;
use dedupe::operator::{DedupeDataFrame, DedupeExec};
use futures::StreamExt;
use futures::channel::mpsc::UnboundedReceiver;
use proptest::prelude::*;

use crate::scene::*;

fn some_rows() -> impl Strategy<Value = Vec<Row>> {
    let id = prop_oneof![19 => (0u32..150).prop_map(|i| Some(format!("key-{i}"))), 1 => Just(None)];
    prop::collection::vec((id, any::<i64>()), 0..80)
}

/// Partitions of batches.
fn some_partitions() -> impl Strategy<Value = Vec<Vec<Vec<Row>>>> {
    prop::collection::vec(prop::collection::vec(some_rows(), 0..4), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 30, failure_persistence: None, ..ProptestConfig::default() })]

    /// Several plans, one after the other, each committed or not.
    #[test]
    fn as_a_plain_set_says(plans in prop::collection::vec((some_partitions(), any::<bool>()), 1..4), keys_only in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new().await;
            let mut known = HashSet::new();
            for (partitions, commits) in plans {
                let all: Vec<Row> = partitions.iter().flatten().flatten().cloned().collect();
                let mut after = known.clone();
                let first = first_of_each(&mut after, &all);
                let session = if keys_only { scene.keys_only() } else { scene.session() };
                let frame = scene.frame(&partitions).dedupe(&session).unwrap();
                let streams = frame.execute_stream_partitioned().await.unwrap();
                let mut found = Vec::new();
                for (stream, given) in streams.into_iter().zip(&partitions) {
                    let batches: Vec<_> = stream.map(|batch| batch.unwrap()).collect().await;
                    let rows = of_batches(&batches);
                    // In the order of the input.
                    let mut given = given.iter().flatten();
                    assert!(rows.iter().all(|row| given.any(|other| other == row)), "{rows:?} of {given:?}");
                    found.extend(rows);
                }
                // Run to their ends one after the other, the partitions are seen in their order.
                assert_eq!(&found, &first);
                if commits {
                    let committed = session.commit().await.unwrap();
                    let keyless = all.iter().filter(|(id, _)| id.is_none()).count() as u64;
                    assert!(committed.rows.is_conserved());
                    assert_eq!(committed.rows.read, all.len() as u64);
                    assert_eq!((committed.rows.accepted, committed.rows.rejected), (first.len() as u64, keyless));
                    known = after;
                }
                assert_eq!(scene.keys().await, known);
            }
            scene.is_sound().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_side_by_side_agree_on_who_is_first() {
    let scene = Scene::new().await;
    let partitions: Vec<Vec<Vec<Row>>> =
        (0..4).map(|p| (0..20).map(|b| rows(b * 50 + p * 10..b * 50 + p * 10 + 80, p)).collect()).collect();
    let all: HashSet<String> =
        partitions.iter().flatten().flatten().filter_map(|row| row.0.clone()).collect();
    let session = scene.session();
    let found = of_batches(&scene.frame(&partitions).dedupe(&session).unwrap().collect().await.unwrap());
    let keys: HashSet<String> = found.iter().filter_map(|row| row.0.clone()).collect();
    assert_eq!((found.len(), keys), (all.len(), all.clone()));
    session.commit().await.unwrap();
    assert_eq!(scene.keys().await, all);
    scene.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_the_input_has_an_order_the_first_in_that_order_stays() {
    let scene = Scene::new().await;
    let partitions: Vec<Vec<Vec<Row>>> =
        (0..4).map(|p| vec![rows(0..500, 3 - p), rows(0..500, 7 - p)]).collect();
    let session = scene.session();
    let sorted = scene.frame(&partitions).sort(vec![col("n").sort(true, false)]).unwrap();
    let found = of_batches(&sorted.dedupe(&session).unwrap().collect().await.unwrap());
    assert_eq!(found.len(), 500);
    assert!(found.iter().all(|(_, n)| *n == 0), "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_that_is_run_again_gives_the_same_again() {
    let scene = Scene::new().await;
    let session = scene.session();
    let given = [rows(0..300, 1), rows(100..400, 2)].concat();
    let plan = scene.one(&given).dedupe(&session).unwrap();
    let plan = plan.create_physical_plan().await.unwrap();
    for _ in 0..3 {
        let found = collect(plan.clone(), scene.context.task_ctx()).await.unwrap();
        assert_eq!(of_batches(&found), first_of_each(&mut HashSet::new(), &given));
    }
    // Also under another node, as an optimizer makes it.
    let again = plan.clone().replace_children(
        plan.children().into_iter().cloned().collect(),
        datafusion::physical_plan::ReplaceChildrenOptions::new(
            datafusion::physical_plan::ChildrenPropertiesMode::Recompute,
        ),
    );
    let again = again.unwrap();
    assert_eq!(of_batches(&collect(again, scene.context.task_ctx()).await.unwrap()).len(), 400);
    assert_eq!(session.commit().await.unwrap().rows.accepted, 400);
    // From here on they are seen.
    assert_eq!(collect(plan, scene.context.task_ctx()).await.unwrap().len(), 0);
    assert_eq!(session.commit().await.unwrap().rows.duplicate, 600);
    assert!(matches!(session.commit().await.unwrap_err(), Error::Usage(_)));
    scene.is_sound().await;
}

/// A sort above would otherwise move below, and the least row of each key be the first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_that_is_wanted_of_the_result_does_not_change_who_is_first() {
    let scene = Scene::new().await;
    let given: Vec<Row> = (0..6).flat_map(|n| rows(0..50, 5 - n)).collect();
    let session = scene.session();
    let sorted = scene.one(&given).dedupe(&session).unwrap().sort(vec![col("n").sort(true, false)]).unwrap();
    let found = of_batches(&sorted.collect().await.unwrap());
    assert_eq!(found.len(), 50);
    assert!(found.iter().all(|(_, n)| *n == 5), "{found:?}");
}

/// Scans of files give their rows once, and are reset before they are run again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_over_files_is_reset_and_run_again() {
    let scene = Scene::new().await;
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("a.parquet")).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema(), None).unwrap();
    writer.write(&batch(&rows(0..300, 1))).unwrap();
    writer.close().unwrap();
    let place = folder.path().to_str().unwrap();
    let files = scene.context.read_parquet(place, ParquetReadOptions::default()).await.unwrap();
    let session = scene.session();
    let mut plan = files.dedupe(&session).unwrap().create_physical_plan().await.unwrap();
    for _ in 0..3 {
        let found = collect(plan.clone(), scene.context.task_ctx()).await.unwrap();
        assert_eq!(of_batches(&found).len(), 300);
        plan = reset_plan_states(plan).unwrap();
    }
    assert_eq!(session.commit().await.unwrap().rows.accepted, 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_took_is_not_seen() {
    let scene = Scene::new().await;
    let session = scene.session();
    let many: Vec<Vec<Row>> = (0..50).map(|b| rows(b * 100..b * 100 + 100, b)).collect();
    let limited = scene.frame(&[many.clone(), many]).dedupe(&session).unwrap().limit(0, Some(10)).unwrap();
    assert_eq!(of_batches(&limited.collect().await.unwrap()).len(), 10);
    let refused = session.commit().await.unwrap_err();
    assert!(refused.to_string().contains("did not run to its end"), "{refused}");
    assert_eq!(scene.keys().await.len(), 0);
    // Nor is it in the way of whoever comes next.
    let session = scene.session();
    let all = scene.one(&rows(0..200, 1)).dedupe(&session).unwrap().collect().await.unwrap();
    assert_eq!(of_batches(&all).len(), 200);
    session.commit().await.unwrap();
    assert_eq!(scene.keys().await.len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_that_fails_marks_nothing() {
    let scene = Scene::new().await;
    let session = scene.session();
    let broken = scene.one(&rows(0..200, 0)).dedupe(&session).unwrap();
    let broken = broken.select(vec![col("id"), (lit(1i64) / col("n")).alias("n")]).unwrap();
    assert!(broken.collect().await.is_err());
    assert_eq!(scene.keys().await.len(), 0);
    let whole = scene.one(&rows(0..200, 0)).dedupe(&session).unwrap();
    assert_eq!(of_batches(&whole.collect().await.unwrap()).len(), 200);
    assert_eq!(session.commit().await.unwrap().rows.accepted, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_that_another_writer_was_first_with_are_not_passed_off_as_first_seen() {
    let scene = Scene::new().await;
    let (ours, theirs) = (scene.session(), scene.session());
    for (session, n) in [(&ours, 1), (&theirs, 2)] {
        let found = scene.one(&rows(0..300, n)).dedupe(session).unwrap().collect().await.unwrap();
        assert_eq!(of_batches(&found).len(), 300);
    }
    theirs.commit().await.unwrap();
    assert!(matches!(ours.commit().await.unwrap_err(), Error::Overtaken { keys: 300, .. }));
    let again = scene.one(&rows(0..301, 1)).dedupe(&ours).unwrap().collect().await.unwrap();
    assert_eq!(of_batches(&again), rows(300..301, 1));
    ours.commit().await.unwrap();
    scene.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_may_keep_the_keys_alone() {
    let scene = Scene::new().await;
    let session = scene.keys_only();
    let given = [rows(0..300, 1), rows(100..400, 2)].concat();
    let found = scene.one(&given).dedupe(&session).unwrap().collect().await.unwrap();
    assert_eq!(of_batches(&found), first_of_each(&mut HashSet::new(), &given));
    session.commit().await.unwrap();
    let mut table = scene.table.clone();
    table.refresh().await.unwrap();
    let columns = table.ledger().state().schema.clone().unwrap();
    assert_eq!(columns.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>(), ["id"]);
    scene.is_sound().await;
    // Where whole rows are kept, it is refused.
    let whole = Scene::new().await;
    let session = whole.session();
    whole.one(&given).dedupe(&session).unwrap().collect().await.unwrap();
    session.commit().await.unwrap();
    let mut table = whole.table.clone();
    table.refresh().await.unwrap();
    let keys = dedupe::operator::PlanSession::keeping(
        &table,
        dedupe::session::SessionOptions::default(),
        dedupe::operator::Keep::Keys,
    );
    assert!(whole.one(&given).dedupe(&keys).unwrap_err().to_string().contains("a column \"n\""));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_say_what_became_of_the_rows() {
    let scene = Scene::new().await;
    let session = scene.session();
    let given = [rows(0..300, 1), vec![(None, 0); 7], rows(100..400, 2)].concat();
    let plan = scene.one(&given).dedupe(&session).unwrap().create_physical_plan().await.unwrap();
    collect(plan.clone(), scene.context.task_ctx()).await.unwrap();
    let metrics = plan.downcast_ref::<DedupeExec>().unwrap().metrics().unwrap().aggregate_by_name();
    let count = |name: &str| metrics.sum_by_name(name).unwrap().as_usize();
    assert_eq!((count("accepted"), count("duplicate"), count("rejected")), (400, 200, 7));
    assert_eq!(metrics.output_rows(), Some(400));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn prepared_and_committed_by_somebody_else() {
    let scene = Scene::new().await;
    let mut options = dedupe::session::SessionOptions::default();
    options.batch = Some(dedupe::ledger::entry::Batch::named("checkpoint-1"));
    let session = dedupe::operator::PlanSession::new(&scene.table, options);
    scene.one(&rows(0..300, 1)).dedupe(&session).unwrap().collect().await.unwrap();
    let prepared = session.prepare().await.unwrap();
    assert_eq!(scene.keys().await.len(), 0);
    let committed = scene.table.clone().commit(&prepared).await.unwrap();
    assert_eq!((committed.rows.accepted, scene.keys().await.len()), (300, 300));
}

/// A source that goes on for as long as somebody sends batches.
#[derive(Debug)]
struct Live(Mutex<Option<UnboundedReceiver<RecordBatch>>>, SchemaRef);

impl PartitionStream for Live {
    fn schema(&self) -> &SchemaRef {
        &self.1
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let batches = self.0.lock().unwrap().take().unwrap().map(Ok);
        Box::pin(RecordBatchStreamAdapter::new(schema(), batches))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_do_not_wait_for_others_to_come() {
    let scene = Scene::new().await;
    let (sender, receiver) = futures::channel::mpsc::unbounded();
    let live = Arc::new(Live(Mutex::new(Some(receiver)), schema()));
    let source = StreamingTable::try_new(schema(), vec![live]).unwrap();
    let session = scene.session();
    let frame = scene.context.read_table(Arc::new(source)).unwrap().dedupe(&session).unwrap();
    let mut out = frame.execute_stream().await.unwrap();
    let mut next = async || {
        let next = tokio::time::timeout(Duration::from_secs(60), out.next()).await;
        next.expect("a row waits for others").map(|batch| of_batches(&[batch.unwrap()]))
    };
    sender.unbounded_send(batch(&rows(0..3, 1))).unwrap();
    assert_eq!(next().await, Some(rows(0..3, 1)));
    // Of what is there already nothing is lost, and each batch comes out by itself.
    sender.unbounded_send(batch(&rows(1..3, 2))).unwrap();
    sender.unbounded_send(batch(&[])).unwrap();
    sender.unbounded_send(batch(&rows(2..5, 2))).unwrap();
    sender.unbounded_send(batch(&rows(4..7, 3))).unwrap();
    assert_eq!(next().await, Some(rows(3..5, 2)));
    assert_eq!(next().await, Some(rows(5..7, 3)));
    drop(sender);
    assert_eq!(next().await, None);
    assert_eq!(session.commit().await.unwrap().rows.accepted, 7);
    scene.is_sound().await;
}
