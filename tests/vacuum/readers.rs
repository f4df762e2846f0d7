//! Who reads while a vacuum runs.

use dedupe::Error;
use dedupe::ledger::{Body, Ledger};
use dedupe::policy::Policy;
use dedupe::upkeep::explain::explain;
use dedupe::upkeep::export::export_tokens;
use dedupe::upkeep::vacuum::{VacuumOptions, vacuum};
use dedupe::upkeep::verify::{VerifyOptions, verify};

use super::writer::{Place, rows};
use super::{DAY, World, commit, compacted, held, staged, vacuumed};

fn expired<T: std::fmt::Debug>(result: dedupe::Result<T>, is: u64, least: u64) {
    let error = result.unwrap_err();
    assert!(
        matches!(error, Error::SnapshotExpired { version, oldest } if (version, oldest) == (is, least)),
        "{error}"
    );
    assert!(error.to_string().starts_with("snapshot expired: version"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_was_given_up_is_told_so_and_not_taken_for_damage() {
    let folder = tempfile::tempdir().unwrap();
    for place in Place::both(&Policy::default()).await {
        for n in 0..3 {
            commit(&place, n * 1000..n * 1000 + 400).await;
        }
        let pinned = place.ledger().await;
        compacted(&place).await;
        let fence = vacuumed(&place, 0).await;
        assert_eq!((fence.version, fence.oldest), (Some(5), 4));
        // A reader that is at it finds its objects gone.
        expired(verify(&pinned, &VerifyOptions::default()).await, 3, 4);
        expired(export_tokens(&pinned, None, &folder.path().join("t.parquet")).await, 3, 4);
        expired(explain(&pinned, &[("id".into(), Some("key-5".into()))]).await, 3, 4);
        expired(pinned.check_readable().await, 3, 4);
        // One that begins is told before it looks.
        for version in 0..4 {
            expired(Ledger::open_at(place.store.clone(), version).await.map(|_| ()), version, 4);
            // What the version was can still be told.
            let told = Ledger::folded_at(place.store.clone(), version).await.unwrap().unwrap();
            assert_eq!(told.version(), version);
        }
        for version in [4, 5] {
            let ledger = Ledger::open_at(place.store.clone(), version).await.unwrap().unwrap();
            assert_eq!(
                verify(&ledger, &VerifyOptions::default()).await.unwrap().problems,
                Vec::<String>::new()
            );
        }
        let error = Ledger::open_at(place.store.clone(), 6).await.unwrap_err();
        assert!(error.to_string().contains("the newest is 5"), "{error}");
    }
}

#[tokio::test]
async fn damage_stays_damage() {
    let world = World::new().await;
    let place = &world.place;
    commit(place, 0..400).await;
    let ledger = place.ledger().await;
    place.store.delete(held(&ledger).iter().find(|name| name.ends_with(".run")).unwrap()).await.unwrap();
    let error = export_tokens(&ledger, None, std::path::Path::new("/dev/null")).await.unwrap_err();
    assert!(!matches!(error, Error::SnapshotExpired { .. }), "{error}");
    let error = verify(&ledger, &VerifyOptions::default()).await.unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error}");
}

#[tokio::test]
async fn a_reader_within_the_grace_time_finds_everything() {
    let world = World::new().await;
    let place = &world.place;
    for n in 0..3 {
        commit(place, n * 1000..n * 1000 + 400).await;
    }
    world.clock.pass(2 * DAY);
    // It begins at version 3, which is two days old, and is compacted a moment later.
    let reader = place.ledger().await;
    world.clock.pass(1);
    compacted(place).await;
    world.clock.pass(DAY - 1);
    let report = vacuum(&mut place.ledger().await, &VacuumOptions::default()).await.unwrap();
    assert!(report.oldest <= 3, "{report:?}");
    assert_eq!(verify(&reader, &VerifyOptions::default()).await.unwrap().problems, Vec::<String>::new());
    assert!(held(&reader).is_subset(&staged(&place.store).await));
    world.clock.pass(1);
    let report = vacuum(&mut place.ledger().await, &VacuumOptions::default()).await.unwrap();
    expired(verify(&reader, &VerifyOptions::default()).await, 3, report.oldest);
}

#[tokio::test]
async fn versions_that_a_fence_keeps_readable_are_whole_even_if_a_compaction_slips_in_before_it() {
    let world = World::new().await;
    let place = &world.place;
    for n in 0..3 {
        commit(place, n * 1000..n * 1000 + 400).await;
    }
    super::dies(place, 7000..7100).await;
    // The vacuum's fence for version 4 loses to a compaction, and stands in version 5.
    let mut late = place.ledger().await;
    world.faults.next(super::fault::Call::Put, "ledger/00000000000000000004", super::fault::Fault::Late);
    late.set_patience(dedupe::ledger::log::Patience { attempts: 1, ..Default::default() });
    let error = dedupe::upkeep::compact::compact(&mut late, 64 << 20).await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    world.faults.next(super::fault::Call::Put, "ledger/00000000000000000004", super::fault::Fault::AfterLate);
    let report = vacuumed(place, 0).await;
    // What died at stage 4 goes. What the compaction replaced stays: the fence was not made for that.
    assert_eq!((report.version, report.floor, report.oldest), (Some(5), 5, 0));
    assert!(
        report.names.len() == 1 && report.names.iter().all(|name| super::writer::stage(name) == 4),
        "{report:?}"
    );
    let reader = Ledger::open_at(place.store.clone(), 3).await.unwrap().unwrap();
    assert_eq!(verify(&reader, &VerifyOptions::default()).await.unwrap().problems, Vec::<String>::new());
    let entry = place.ledger().await.read(4).await.unwrap().unwrap();
    assert!(matches!(entry.body, Body::Compact(_)));
    // The next one gives version 3 up.
    assert_eq!(vacuumed(place, 0).await.names.len(), 3);
    super::is_clean(place).await;
    assert_eq!(place.keys().await.len(), 1200);
    let mut writer = place.writer().await;
    writer.feed(&rows(0..1400, 9)).await;
    assert_eq!(writer.commit().await.rows.accepted, 600);
}
