//! Compaction of the index, on a disk and in memory: the same tokens, each with the version that accepted it, in fewer
//! objects; who loses the race for it loses nothing but the work.

use crate::writer::*;
use dedupe::ingest::ingest;
use dedupe::ledger::{Body, Ledger};
use dedupe::options::{IngestOptions, MIB};
use dedupe::policy::Policy;
use dedupe::report::Progress;
use dedupe::store::Store;
use dedupe::upkeep::compact::{compact, compact_if_due};
use dedupe::upkeep::explain::explain;

/// The version that accepted `key-<i>`, and the object that says so.
async fn version_of(ledger: &Ledger, i: u64) -> Option<(u64, String)> {
    let explained = explain(ledger, &[("id".into(), Some(format!("key-{i}")))]).await.unwrap();
    explained.accepted.map(|accepted| {
        assert!(accepted.row.is_some(), "the row of key-{i} is not found");
        (accepted.version, accepted.index)
    })
}

async fn commit(place: &Place, keys: std::ops::Range<u64>) -> u64 {
    let mut writer = place.writer().await;
    writer.feed(&rows(keys, 1)).await;
    writer.commit().await.version
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_keeps_the_version_that_accepted_it() {
    for place in Place::both(&Policy::default()).await {
        // Runs and inline tokens, then a compacted run among new ones, then all of it once more.
        for round in 0..3 {
            for n in 0..4 {
                let first = round * 10_000 + n * 1000;
                commit(&place, first..first + if n % 2 == 0 { 600 } else { 60 }).await;
            }
            let mut ledger = place.ledger().await;
            let total = ledger.state().total;
            let report = compact(&mut ledger, 64 * MIB).await.unwrap();
            assert_eq!((report.runs_after, report.tokens), (1, total.count));
            assert_eq!(report.version, Some(ledger.version()));
            assert!(ledger.state().inline.is_empty());
            assert_eq!(ledger.state().total, total);
            let run = ledger.state().runs.values().next().unwrap();
            assert_eq!(run.item.tokens, total);
            for old in 0..=round {
                for n in 0..4 {
                    // Four commits and a compaction a round.
                    let version = old * 5 + n + 1;
                    let (found, index) = version_of(&ledger, old * 10_000 + n * 1000 + 59).await.unwrap();
                    assert_eq!((found, index.as_str()), (version, run.item.name.as_str()));
                }
            }
            assert_eq!(version_of(&ledger, 999_999).await, None);
            let again = compact(&mut ledger, 64 * MIB).await.unwrap();
            assert_eq!((again.version, again.tokens, again.runs_after), (None, 0, 1));
        }
        // What was known is known.
        let mut writer = place.writer().await;
        writer.feed(&rows(0..30_000, 2)).await;
        assert_eq!(writer.commit().await.rows.duplicate, 3 * 1320);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_blocks_and_little_memory() {
    let place = Place::local(&Policy::default()).await;
    for n in 0..6 {
        commit(&place, n * 100_000..n * 100_000 + 90_000).await;
    }
    let mut ledger = place.ledger().await;
    // As many at a time as fit.
    let report = compact_if_due(&mut ledger, 4 * MIB).await.unwrap();
    assert!(report.runs_before == 6 && report.runs_after < 6, "{report:?}");
    assert_eq!(compact(&mut ledger, 4 * MIB).await.unwrap().runs_after, 1);
    for i in (0..600_000).step_by(33_331) {
        let expected = (i % 100_000 < 90_000).then_some(i / 100_000 + 1);
        assert_eq!(version_of(&ledger, i).await.map(|found| found.0), expected, "key-{i}");
    }
    place.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loser_of_a_race_finds_nothing_left_to_do() {
    for place in Place::both(&Policy::default()).await {
        for n in 0..4 {
            commit(&place, n * 1000..n * 1000 + 400).await;
        }
        let (mut first, mut second) = (place.ledger().await, place.ledger().await);
        assert_eq!(compact(&mut first, 64 * MIB).await.unwrap().version, Some(5));
        let report = compact(&mut second, 64 * MIB).await.unwrap();
        assert_eq!((report.version, report.runs_before, report.runs_after), (None, 4, 1));
        assert_eq!(second.version(), 5);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compactions_and_commits_at_the_same_moment() {
    for place in Place::both(&Policy::default()).await {
        for n in 0..4 {
            commit(&place, n * 1000..n * 1000 + 400).await;
        }
        let mut compactions = Vec::new();
        for _ in 0..3 {
            let mut ledger = place.ledger().await;
            compactions.push(tokio::spawn(async move { compact(&mut ledger, 64 * MIB).await.unwrap() }));
        }
        for n in 0..3 {
            commit(&place, n * 1000 + 350..n * 1000 + 700).await;
        }
        for compaction in compactions {
            compaction.await.unwrap();
        }
        let ledger = place.ledger().await;
        assert_eq!(ledger.state().total.count, 4 * 400 + 3 * 300);
        for (i, version) in [(5, 1), (1005, 2), (3005, 4)] {
            assert_eq!(version_of(&ledger, i).await.unwrap().0, version);
        }
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_or_a_fence_in_between_does_not_disturb_a_compaction() {
    let place = Place::memory(&Policy::default()).await;
    for n in 0..3 {
        commit(&place, n * 1000..n * 1000 + 400).await;
    }
    let mut stale = place.ledger().await;
    commit(&place, 9000..9400).await;
    place.enter(Body::Fence { floor: 2, oldest: 0 }).await;
    let report = compact(&mut stale, 64 * MIB).await.unwrap();
    // Those it saw: the run that came meanwhile is left for another time.
    assert_eq!((report.runs_before, report.runs_after), (3, 2));
    place.is_sound().await;
    // A floor above everything that it would have written: it does its work again.
    commit(&place, 10_000..10_400).await;
    let mut stale = place.ledger().await;
    let floor = stale.state().entries + 1;
    place.enter(Body::Fence { floor: floor - 1, oldest: 0 }).await;
    place.enter(Body::Fence { floor, oldest: 0 }).await;
    let report = compact(&mut stale, 64 * MIB).await.unwrap();
    assert_eq!((report.version, report.runs_after), (Some(stale.version()), 1));
    place.is_sound().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_small_ingests_compact_by_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().file_name().unwrap().to_str().unwrap();
    // Of one row, whose tokens stand inline, and of so many that they make runs.
    for (count, ingests) in [(1, 70), (300, 9)] {
        let table = format!("memory://{name}-{count}");
        for n in 0..ingests {
            let source = folder.path().join(format!("{count}-{n}.ndjson"));
            let line = |i: u64| format!("{{\"id\":\"key-{i}\"}}\n");
            std::fs::write(&source, (n * 1000..n * 1000 + count).map(line).collect::<String>()).unwrap();
            let mut options = IngestOptions::default();
            options.key = Some(vec!["id".into()]);
            options.memory = 16 * MIB;
            ingest(&[source.to_str().unwrap().into()], &table, &options, &Progress::default()).await.unwrap();
        }
        let ledger = Ledger::open(Store::open(&table, &[]).unwrap()).await.unwrap().unwrap();
        let state = ledger.state();
        let compactions = state.entries - 1 - ingests;
        assert!(compactions > 0 && compactions < ingests / 3, "{compactions} compactions");
        assert!(state.inline.len() < 64 && state.runs.len() < 5, "{} runs", state.runs.len());
        for n in 0..ingests {
            let (version, _) = version_of(&ledger, n * 1000).await.unwrap();
            let entry = ledger.read(version).await.unwrap().unwrap();
            assert!(entry.ingest().unwrap().sources[0].url.ends_with(&format!("{count}-{n}.ndjson")));
        }
        let report = dedupe::upkeep::verify::verify(&ledger, &Default::default()).await.unwrap();
        assert_eq!(report.problems, Vec::<String>::new());
    }
}
