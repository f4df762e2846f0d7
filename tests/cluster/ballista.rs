//! Ballista: a scheduler and executors in this process, over real connections.

use std::time::Duration;

use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_executor::new_standalone_executor_from_state;
use ballista_scheduler::standalone::new_standalone_scheduler_from_state;
use datafusion::execution::SessionStateBuilder;
use dedupe::cluster::ballista;
use dedupe::ingest::ingest;
use dedupe::ledger::Ledger;
use dedupe::options::IngestOptions;
use dedupe::report::Progress;
use dedupe::store::Store;
use dedupe::upkeep::verify::{VerifyOptions, verify};
use proptest::prelude::*;

use crate::scene::*;
use crate::story::*;

/// The URL of a scheduler with so many executors.
async fn cluster(executors: usize) -> String {
    let state = SessionStateBuilder::new().with_config(ballista::config()).with_default_features().build();
    let url = format!("http://{}", new_standalone_scheduler_from_state(&state).await.unwrap());
    let scheduler = loop {
        match SchedulerGrpcClient::connect(url.clone()).await {
            Ok(scheduler) => break scheduler,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    for _ in 0..executors {
        new_standalone_executor_from_state(scheduler.clone(), 2, &state).await.unwrap();
    }
    url
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_executors_keep_what_a_plain_set_keeps(jobs in any_jobs(), tasks in 1usize..5) {
        block_on(async {
            let url = cluster(2).await;
            jobs_agree_with_a_plain_set(&jobs, |job, sources| {
                let url = url.clone();
                async move {
                    let input = sources.frame(&context(2)).await.create_physical_plan().await.unwrap();
                    let staged = ballista::run(&url, job.plan(input, tasks).unwrap()).await.unwrap();
                    (job, staged)
                }
            })
            .await;
        });
    }
}

/// What both ways of ingesting must agree on.
async fn outcome(table: &str) -> (Vec<String>, u64, Vec<String>) {
    let ledger = Ledger::open(Store::open(table, &[]).unwrap()).await.unwrap().unwrap();
    let report = verify(&ledger, &VerifyOptions::default()).await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let entry = ledger.read(ledger.version()).await.unwrap().unwrap();
    let ingest = entry.ingest().unwrap();
    let sources = ingest.sources.iter().map(|source| format!("{} {:?}", source.url, source.id)).collect();
    let mut kept_out = Vec::new();
    for file in &ingest.quarantine {
        let text = ledger.store().get(&file.name).await.unwrap().unwrap();
        kept_out.extend(std::str::from_utf8(&text).unwrap().lines().map(str::to_owned));
    }
    kept_out.sort();
    (sources, ingest.added.count, kept_out)
}

#[test]
fn ingest_on_a_cluster_is_ingest() {
    block_on(async {
        let url = cluster(2).await;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        let sources = Sources::of(&(0..3).map(|file| vec![rows(file * 50..file * 50 + 100, file)]).collect());
        let mut text = String::new();
        for n in 0..300 {
            text += &format!("{{\"id\":\"key-{}\",\"n\":{n},\"extra\":{{\"x\":{n}}}}}\n", n % 250);
            if n % 50 == 0 {
                text += "{\"id\":null,\"n\":1}\nno JSON at all\n";
            }
        }
        std::fs::write(at("more.ndjson"), text).unwrap();
        let mut options = IngestOptions::default();
        options.memory = 32 << 20;
        options.key = Some(vec!["id".into()]);
        let mut reports = Vec::new();
        for (name, by) in [("here", None), ("there", Some(&url))] {
            let table = at(name);
            for given in [vec![sources.path().to_owned()], vec![sources.path().to_owned(), at("more.ndjson")]]
            {
                let progress = Progress::default();
                let report = match by {
                    None => ingest(&given, &table, &options, &progress).await,
                    Some(url) => ballista::ingest(url, 3, &given, &table, &options, &progress).await,
                };
                let mut report = serde_json::to_value(report.unwrap()).unwrap();
                for name in ["table", "files", "bytes", "seconds", "quarantine"] {
                    report[name].take();
                }
                reports.push((name, report, outcome(&table).await));
            }
        }
        let (here, there) = reports.split_at(2);
        for ((_, here, held_here), (_, there, held_there)) in here.iter().zip(there) {
            assert_eq!(here, there);
            assert_eq!(held_here, held_there);
        }
        assert_eq!(there[1].1["rejected"], 12);
        assert_eq!(there[1].1["replayed"], 300);
        // What was consumed is recognised, and no job is run for it.
        let (source, table, progress) = ([at("more.ndjson")], at("there"), Progress::default());
        let again = ballista::ingest("http://127.0.0.1:1", 3, &source, &table, &options, &progress).await;
        assert!(!again.unwrap().committed);
    });
}

#[test]
fn a_source_that_cannot_be_read_ends_the_job_with_its_name() {
    block_on(async {
        let url = cluster(1).await;
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        std::fs::write(at("a.ndjson"), "{\"id\":1}\n{\"id\":2}\nnone\n").unwrap();
        let mut options = IngestOptions::default();
        options.key = Some(vec!["id".into()]);
        options.on_bad_row = dedupe::options::OnBadRow::Fail;
        let (source, table, progress) = ([at("a.ndjson")], at("t"), Progress::default());
        let run = ballista::ingest(&url, 2, &source, &table, &options, &progress).await;
        let error = run.unwrap_err().to_string();
        assert!(error.contains("a.ndjson: line 3"), "{error}");
        options.on_bad_row = dedupe::options::OnBadRow::Quarantine;
        let run = ballista::ingest(&url, 2, &source, &table, &options, &progress).await;
        assert_eq!(run.unwrap().rows.accepted, 2);
    });
}

#[test]
fn a_job_that_is_cancelled_leaves_the_executors_free_for_the_next() {
    block_on(async {
        let url = cluster(1).await;
        let folder = tempfile::tempdir().unwrap();
        let (data, table) =
            (folder.path().join("t/data"), folder.path().join("t").to_str().unwrap().to_owned());
        let files: Files =
            (0..8).map(|file| vec![rows(file * 20_000..file * 20_000 + 40_000, file)]).collect();
        let sources = Sources::of(&files);
        let mut options = IngestOptions::default();
        options.memory = 16 << 20;
        options.key = Some(vec!["id".into()]);
        let staged = || std::fs::read_dir(&data).map_or(0, Iterator::count);
        let (given, progress) = ([sources.path().to_owned()], Progress::default());
        let stop = async {
            while staged() == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            progress.cancel();
        };
        let (ended, ()) = tokio::join!(ballista::ingest(&url, 24, &given, &table, &options, &progress), stop);
        assert!(matches!(ended, Err(dedupe::error::Error::Interrupted)), "{ended:?}");
        let run = ballista::ingest(&url, 2, &given, &table, &options, &Progress::default()).await;
        assert_eq!(run.unwrap().rows.accepted, 180_000);
        // Each of the 24 tasks that judge stages a file of its own.
        assert!(staged() < 24, "the job ran to its end");
    });
}
