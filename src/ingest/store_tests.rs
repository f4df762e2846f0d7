//! Stores that do not keep what a table rests on: refused by name, or taken at the user's own risk.

use super::*;
use crate::ledger::name;
use crate::options::Risk;
use crate::store::loopback::{Loopback, Mood};
use crate::store::passing;
use crate::upkeep::doctor;

struct Scene {
    folder: tempfile::TempDir,
    server: Loopback,
}

impl Scene {
    fn new(mood: Mood) -> Self {
        let server = Loopback::start();
        server.set(mood);
        Self { folder: tempfile::tempdir().unwrap(), server }
    }

    fn store(&self) -> Store {
        Store::open("s3://bucket/t", &self.server.options()).unwrap()
    }

    async fn ingest(&self, ids: std::ops::Range<u32>, risk: Option<Risk>) -> Result<IngestReport> {
        let source = self.folder.path().join(format!("{}-{}.ndjson", ids.start, ids.end));
        let lines: String = ids.map(|id| format!("{{\"id\":{id}}}\n")).collect();
        std::fs::write(&source, lines).unwrap();
        let mut options = IngestOptions::default();
        options.key = Some(vec!["id".into()]);
        options.memory = 16 * MIB;
        options.accepted_risk = risk;
        options.store_options = self.server.options();
        ingest(&[source.display().to_string()], "s3://bucket/t", &options, &Progress::default()).await
    }
}

#[tokio::test]
async fn a_store_that_breaks_a_promise_is_refused_by_its_name_before_anything_is_begun() {
    for (mood, promise) in [
        (Mood::IgnoreConditions, "create-once"),
        (Mood::NoConditions, "create-once"),
        (Mood::StaleLists, "list-after-write"),
    ] {
        let scene = Scene::new(mood);
        let error = scene.ingest(0..10, None).await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{mood:?}: {error:?}");
        assert!(error.to_string().contains(&format!("breaks the promise {promise} (")), "{mood:?}: {error}");
        scene.server.set(Mood::Honest);
        assert!(scene.store().list("_dedupe").await.unwrap().is_empty(), "{mood:?}: something was begun");
    }
}

#[tokio::test]
async fn whoever_knows_the_risk_gets_a_table_that_is_marked_and_works() {
    for mood in [Mood::IgnoreConditions, Mood::NoConditions] {
        let scene = Scene::new(mood);
        let first = scene.ingest(0..10, Some(Risk::SingleWriter)).await.unwrap();
        assert_eq!((first.rows.accepted, first.version), (10, Some(1)), "{mood:?}");
        let table = scene.store().get(name::TABLE).await.unwrap().unwrap();
        assert!(String::from_utf8_lossy(&table).contains("\"single_writer\": true"));
        // No flag from here on.
        let second = scene.ingest(5..20, None).await.unwrap();
        assert_eq!((second.rows.accepted, second.rows.duplicate, second.version), (10, 5, Some(2)));
        let ledger = Ledger::open(scene.store()).await.unwrap().unwrap();
        assert!(ledger.identity().single_writer);
        assert_eq!((ledger.state().entries, ledger.state().rows.accepted), (3, 20));
        let diagnosis = doctor::examine(&scene.store()).await.unwrap();
        assert_eq!(diagnosis.problems, [], "{mood:?}");
        assert!(diagnosis.notes.iter().any(|note| note.contains("single-writer")), "{:?}", diagnosis.notes);
    }
}

#[tokio::test]
async fn the_risk_is_not_taken_where_there_is_none_and_does_not_cover_stale_reads() {
    let scene = Scene::new(Mood::Honest);
    scene.ingest(0..10, Some(Risk::SingleWriter)).await.unwrap();
    assert!(!Ledger::open(scene.store()).await.unwrap().unwrap().identity().single_writer);
    let table = scene.store().get(name::TABLE).await.unwrap().unwrap();
    assert!(!String::from_utf8_lossy(&table).contains("single_writer"));
    scene.ingest(10..20, Some(Risk::SingleWriter)).await.unwrap();

    let stale = Scene::new(Mood::StaleLists);
    let error = stale.ingest(0..10, Some(Risk::SingleWriter)).await.unwrap_err();
    assert!(error.to_string().contains("list-after-write"), "{error}");
}

#[tokio::test]
async fn a_run_that_is_dropped_while_it_probes_leaves_nothing() {
    let scene = Scene::new(Mood::Honest);
    let probes = || scene.server.names().iter().any(|name| name.contains("/_dedupe/probe-"));
    let mut run = Box::pin(scene.ingest(0..10, None));
    while !probes() {
        tokio::select! {
            biased;
            _ = &mut run => panic!("it ended without a probe"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(run);
    passing::taken_away(std::time::Duration::from_secs(60)).await;
    assert_eq!(scene.server.names(), Vec::<String>::new());
}
