//! Who writes while a vacuum runs.

use std::time::Duration;

use dedupe::Error;
use dedupe::ingest::ingest;
use dedupe::lease::{self, Kind, Lease};
use dedupe::ledger::{Body, Ledger, name};
use dedupe::options::IngestOptions;
use dedupe::policy::Policy;
use dedupe::report::Progress;
use dedupe::store::Store;
use dedupe::upkeep::vacuum::{VacuumReport, vacuum};
use dedupe::upkeep::verify::{VerifyOptions, verify};

use super::writer::{self, Place, rows};
use super::{DAY, World, commit, compacted, dies, grace, held, is_clean, staged, vacuumed};

fn fenced(error: &Error) {
    assert!(matches!(error, Error::Fenced { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("nothing was committed; run again"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_writer_that_was_fenced_off_commits_nothing_and_loses_nothing() {
    for place in Place::both(&Policy::default()).await {
        commit(&place, 0..200).await;
        let (mut slow, mut sealed) = (place.writer().await, place.writer().await);
        slow.feed(&rows(100..500, 2)).await;
        sealed.feed(&rows(100..500, 3)).await;
        sealed.session.seal().await.unwrap();
        let (before, kept) = (staged(&place.store).await, place.rows().await);
        commit(&place, 1000..1100).await;
        let report = vacuumed(&place, 0).await;
        assert!(report.names.iter().all(|name| before.contains(name)) && !report.names.is_empty());
        for late in [slow, sealed] {
            fenced(&late.try_commit().await.unwrap_err());
        }
        assert_eq!(place.rows().await.len(), kept.len() + 100);
        // Run again, it brings what it had.
        let mut again = place.writer().await;
        again.feed(&rows(100..500, 2)).await;
        assert_eq!(again.commit().await.rows.accepted, 300);
        vacuumed(&place, 0).await;
        is_clean(&place).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_index_was_vacuumed_away_ends_as_one_that_was_fenced_off() {
    for place in Place::both(&Policy::default()).await {
        for n in 0..3 {
            commit(&place, n * 1000..n * 1000 + 400).await;
        }
        // It slept since version 3; then the runs it knows are merged and deleted.
        let mut asleep = place.writer().await;
        compacted(&place).await;
        vacuumed(&place, 0).await;
        let source = asleep.session.add_source(Default::default()).unwrap();
        let key = asleep.session.identity().token.bind(&asleep.schema, "s").unwrap();
        let batch = arrow::array::RecordBatch::try_new(
            std::sync::Arc::clone(&asleep.schema),
            vec![
                std::sync::Arc::new(arrow::array::StringArray::from(vec!["key-5", "key-1005", "new"])),
                std::sync::Arc::new(arrow::array::Int64Array::from(vec![1, 2, 3])),
            ],
        )
        .unwrap();
        fenced(&asleep.session.judge_tokens(source, &key.tokenise(&batch).unwrap()).await.unwrap_err());
        is_clean(&place).await;
    }
}

/// Writes a lease as its session would.
async fn leased(world: &World, digit: &str, kind: Kind, stage: u64) -> String {
    let lease = Lease::new(&digit.repeat(32), "far:1", kind, stage);
    let json = serde_json::to_vec(&lease).unwrap();
    world.place.store.put(&lease.object(), json.into()).await.unwrap();
    lease.session
}

#[tokio::test]
async fn a_live_lease_holds_the_floor_back_and_a_dead_one_does_not() {
    let world = World::new().await;
    let place = &world.place;
    for n in 0..4 {
        commit(place, n * 1000..n * 1000 + 400).await;
        dies(place, 9000..9100).await;
    }
    world.clock.pass(10 * DAY);
    let early = leased(&world, "a", Kind::Ingest, 3).await;
    leased(&world, "b", Kind::Vacuum, 0).await;
    world.clock.pass(60);
    let late = leased(&world, "c", Kind::Compact, 5).await;
    world.clock.pass(60);
    let report = vacuumed(place, 60).await;
    assert_eq!((report.floor, report.oldest), (3, 0));
    let held_by: Vec<_> =
        report.held_back_by.iter().map(|held| (held.session.as_str(), held.stage)).collect();
    assert_eq!(held_by, [(early.as_str(), 3), (late.as_str(), 5)]);
    let stages: Vec<u64> = report.names.iter().map(|name| writer::stage(name)).collect();
    assert!(!stages.is_empty() && stages.iter().all(|stage| *stage < 3), "{stages:?}");
    // A second more, and the one is taken for dead; and then the other.
    world.clock.pass(1);
    let report = vacuumed(place, 60).await;
    assert_eq!((report.floor, report.held_back_by.len()), (5, 0));
    world.clock.pass(60);
    let report = vacuumed(place, 60).await;
    assert_eq!((report.floor, report.held_back_by.len()), (6, 0));
    is_clean(place).await;
    world.clock.pass(60);
    assert!(vacuumed(place, 60).await.names.iter().all(|name| name.starts_with(name::SESSIONS)));
    assert_eq!(place.store.list(name::SESSIONS).await.unwrap(), []);
}

/// Sessions hold leases by the runtime's time alone, so with paused time a test sees every moment.
#[tokio::test(start_paused = true)]
async fn a_session_at_work_is_seen_and_spared_and_leaves_no_lease_behind() {
    let world = World::new().await;
    let (place, store) = (&world.place, &world.place.store);
    commit(place, 0..200).await;
    let mut writer = place.writer_with(writer::batched("b", 1)).await;
    writer.feed(&rows(0..350, 2)).await;
    assert_eq!(store.list(name::SESSIONS).await.unwrap(), []);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let found = lease::leases(store).await.unwrap();
    let lease = found[0].lease.clone().unwrap();
    assert_eq!((lease.kind, lease.stage, lease.batch.as_deref()), (Kind::Ingest, 2, Some("b")));
    assert_eq!((lease.done.sources, lease.done.rows), (1, 350));
    // Other versions come and go: it is not fenced off, and what it reads stays.
    compacted(place).await;
    for n in 0..4 {
        commit(place, n * 1000 + 3000..n * 1000 + 3400).await;
    }
    compacted(place).await;
    let VacuumReport { floor, oldest, held_back_by, .. } = vacuumed(place, 0).await;
    assert_eq!((floor, oldest, held_back_by.len()), (0, 0, 1));
    writer.feed(&rows(0..600, 3)).await;
    let staged_by_now = lease.done.files;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let lease = lease::leases(store).await.unwrap()[0].lease.clone().unwrap();
    assert_eq!((lease.done.sources, lease.done.rows), (2, 950));
    assert!(lease.done.files >= staged_by_now);
    assert_eq!(writer.commit().await.rows.accepted, 400);
    assert_eq!(store.list(name::SESSIONS).await.unwrap(), []);
    vacuumed(place, 0).await;
    is_clean(place).await;
    // One that fails takes its lease back too, a moment later.
    let mut dropped = place.writer().await;
    dropped.feed(&rows(0..350, 2)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(store.list(name::SESSIONS).await.unwrap().len(), 1);
    drop(dropped);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(store.list(name::SESSIONS).await.unwrap(), []);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_takes_no_leases_takes_commits() {
    let world = World::new().await;
    world.faults.always(super::fault::Call::Put, "session", super::fault::Fault::NotDone);
    let mut writer = world.place.writer().await;
    writer.feed(&rows(0..350, 2)).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(world.faults.count(super::fault::Call::Put, "session") > 3);
    assert_eq!(writer.commit().await.rows.accepted, 350);
}

#[tokio::test(flavor = "multi_thread")]
async fn vacuums_at_the_same_moment_as_each_other_and_as_writers() {
    let place = Place::memory(&Policy::default()).await;
    for round in 0..6 {
        let begin = round * 1000;
        let mut tasks = Vec::new();
        for _ in 0..3 {
            let mut ledger = place.ledger().await;
            tasks.push(tokio::spawn(async move { vacuum(&mut ledger, &grace(0)).await.map(|_| ()) }));
        }
        for n in 0..3 {
            // Fenced off perhaps; then run again, as a caller would.
            loop {
                let mut writer = place.writer().await;
                let fed = rows(begin + n * 100..begin + n * 100 + 150, 1);
                let source = Default::default();
                let number = writer.session.add_source(source).unwrap();
                let ended = feed(&mut writer, number, &fed).await;
                match if ended.is_ok() { writer.try_commit().await.map(|_| ()) } else { ended } {
                    Ok(()) => break,
                    Err(error) => fenced(&error),
                }
            }
            compacted(&place).await;
        }
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        assert_eq!(place.keys().await.len() as u64, (round + 1) * 350);
    }
    vacuumed(&place, 0).await;
    is_clean(&place).await;
}

pub async fn feed(writer: &mut writer::Writer, source: u32, rows: &[writer::Row]) -> dedupe::Result<()> {
    let ids = arrow::array::StringArray::from_iter(rows.iter().map(|(id, _)| id.as_deref()));
    let numbers = arrow::array::Int64Array::from_iter_values(rows.iter().map(|(_, n)| *n));
    let columns: Vec<arrow::array::ArrayRef> = vec![std::sync::Arc::new(ids), std::sync::Arc::new(numbers)];
    let batch = arrow::array::RecordBatch::try_new(std::sync::Arc::clone(&writer.schema), columns).unwrap();
    let key = writer.session.identity().token.bind(&writer.schema, "s").unwrap();
    let verdicts = writer.session.judge_tokens(source, &key.tokenise(&batch).unwrap()).await?;
    let chunk = dedupe::session::Chunk::Batch(batch);
    writer.session.write(dedupe::session::Rows { source, chunk, verdicts }).await
}

/// An ingest that a vacuum takes for dead in the middle starts over by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ingest_that_was_fenced_off_starts_over_by_itself() {
    let folder = tempfile::tempdir().unwrap();
    let mut count = 40_000;
    for attempt in 0..6 {
        let table = format!("memory://{}-{attempt}", folder.path().file_name().unwrap().to_str().unwrap());
        let write = |name: &str, keys: std::ops::Range<u64>| {
            let path = folder.path().join(format!("{attempt}-{name}.ndjson"));
            let lines: String = keys.map(|i| format!("{{\"id\":\"key-{i}\"}}\n")).collect();
            std::fs::write(&path, lines).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let mut options = IngestOptions::default();
        options.key = Some(vec!["id".into()]);
        options.memory = 64 << 20;
        ingest(&[write("a", 0..1000)], &table, &options, &Progress::default()).await.unwrap();
        let store = Store::open(&table, &[]).unwrap();
        let mut ledger = Ledger::open(store.clone()).await.unwrap().unwrap();
        // Something to delete, or the vacuum would see no need for a fence.
        let litter = format!("data/{:020}-{}-0.parquet", ledger.state().entries, "0f".repeat(16));
        store.put(&litter, "left behind".into()).await.unwrap();
        let (progress, source) = (Progress::default(), write("b", 500..count));
        let run = tokio::spawn({
            let (table, options, progress) = (table.clone(), options.clone(), progress.clone());
            async move { ingest(&[source], &table, &options, &progress).await }
        });
        while progress.rows() == 0 && !run.is_finished() {
            tokio::task::yield_now().await;
        }
        let fence = vacuum(&mut ledger, &grace(0)).await.unwrap();
        let report = run.await.unwrap().unwrap();
        assert_eq!((report.rows.read, report.rows.accepted), (count - 500, count - 1000));
        let ledger = Ledger::open(store.clone()).await.unwrap().unwrap();
        let checked = verify(&ledger, &VerifyOptions::default()).await.unwrap();
        assert_eq!((checked.problems, checked.rows), (Vec::new(), count));
        let left = staged(&store).await.difference(&held(&ledger)).count();
        if left > 0 && report.version > fence.version {
            // The first try was fenced off, and what it staged is garbage; the second one committed.
            let entry = ledger.read(report.version.unwrap()).await.unwrap().unwrap();
            let Body::Ingest(ingest) = entry.body else { panic!("an ingest") };
            assert!(ingest.files.iter().all(|file| writer::stage(&file.name) >= fence.floor));
            return;
        }
        count *= 2;
    }
    panic!("in no attempt did the fence come in time");
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

/// Whatever the store's clock does: whoever is told "committed" has his rows in the table, each key is there once, and a
/// reader finds all of his version or is told that it expired.
#[tokio::test(start_paused = true)]
async fn clocks_that_jump_or_stand_still_make_a_vacuum_rude_or_idle_and_never_wrong() {
    let (mut rude, mut expired, mut fences) = (0, 0, 0);
    for seed in 0..24 {
        let world = World::new().await;
        let place = &world.place;
        let mut dice = Dice(seed);
        let (mut at_work, mut readers) = (Vec::new(), vec![place.ledger().await]);
        let mut committed = std::collections::BTreeSet::new();
        for _ in 0..40 {
            match dice.roll(7) {
                0 | 1 => {
                    let first = dice.roll(20) * 100;
                    let mut writer = place.writer().await;
                    writer.feed(&rows(first..first + 300, 1)).await;
                    at_work.push((writer, first));
                }
                2 if !at_work.is_empty() => {
                    let (writer, first) = at_work.swap_remove(dice.roll(at_work.len() as u64) as usize);
                    match writer.try_commit().await {
                        Ok(_) => committed.extend((first..first + 300).map(|i| format!("key-{i}"))),
                        Err(error) => {
                            fenced(&error);
                            rude += 1;
                        }
                    }
                }
                3 => compacted(place).await,
                4 => fences += u64::from(vacuumed(place, dice.roll(2) * 3600).await.version.is_some()),
                5 => readers.push(place.ledger().await),
                // A third of the worlds have a clock that stands still.
                _ if seed % 3 != 0 => world.clock.pass(dice.roll(20 * DAY as u64) as i64 - 8 * DAY),
                _ => tokio::time::sleep(Duration::from_secs(dice.roll(90))).await,
            }
        }
        for reader in &readers {
            match verify(reader, &VerifyOptions::default()).await {
                Ok(report) => assert_eq!(report.problems, Vec::<String>::new(), "seed {seed}"),
                Err(Error::SnapshotExpired { .. }) => expired += 1,
                Err(error) => panic!("seed {seed}: {error}"),
            }
        }
        let keys = place.keys().await;
        assert_eq!(keys.iter().collect::<std::collections::BTreeSet<_>>().len(), keys.len(), "seed {seed}");
        assert_eq!(keys.into_iter().collect::<std::collections::BTreeSet<_>>(), committed, "seed {seed}");
        drop(at_work);
        tokio::time::sleep(Duration::from_secs(10)).await;
        world.clock.pass(100 * DAY);
        vacuumed(place, 0).await;
        is_clean(place).await;
    }
    assert!(rude > 1 && expired > 5 && fences > 10, "{rude} {expired} {fences}");
}
