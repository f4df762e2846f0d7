//! What a vacuum does when the store fails, and what crashes leave of it.

use dedupe::Error;
use dedupe::ledger::log::Patience;
use dedupe::ledger::name;
use dedupe::session::Session;
use dedupe::upkeep::vacuum::vacuum;

use super::fault::{Call, Fault, FaultStore, Rates};
use super::writer::{self, Place, rows};
use super::{World, commit, compacted, dies, grace, held, is_clean, staged, vacuumed};

async fn littered(place: &Place) {
    for n in 0..3 {
        commit(place, n * 1000..n * 1000 + 400).await;
        dies(place, 7000..7300).await;
    }
    compacted(place).await;
}

#[tokio::test]
async fn whatever_cannot_be_listed_keeps_a_vacuum_from_deleting_anything() {
    for nth in 0..3 {
        let world = World::new().await;
        let place = &world.place;
        littered(place).await;
        let (before, version) = (staged(&place.store).await, place.ledger().await.version());
        let mut ledger = place.ledger().await;
        let part = ["", "checkpoint", "data"][nth];
        world.faults.next(Call::List, part, Fault::NotDone);
        let error = vacuum(&mut ledger, &grace(0)).await.unwrap_err();
        assert!(matches!(error, Error::Store { action: "list", .. }), "{error}");
        assert_eq!(staged(&place.store).await, before);
        assert_eq!(place.ledger().await.version(), version);
        assert_eq!(world.faults.count(Call::Delete, "data"), 0);
        vacuumed(place, 0).await;
        is_clean(place).await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_keeps_a_vacuum_from_deleting_anything() {
    for part in ["ledger/00000000000000000002", "session/0f"] {
        let world = World::new().await;
        let place = &world.place;
        littered(place).await;
        place.store.put(&format!("{}/{}.json", name::SESSIONS, "0f".repeat(16)), "{}".into()).await.unwrap();
        let before = staged(&place.store).await;
        let mut ledger = place.ledger().await;
        world.faults.always(Call::Get, part, Fault::NotDone);
        let error = vacuum(&mut ledger, &grace(0)).await.unwrap_err();
        assert!(matches!(error, Error::Store { action: "read", .. }), "{error}");
        world.faults.heal();
        assert_eq!(staged(&place.store).await, before);
    }
}

#[tokio::test]
async fn a_listing_that_does_not_show_the_newest_objects_costs_nothing() {
    let world = World::new().await;
    let place = &world.place;
    littered(place).await;
    dies(place, 8000..8001).await;
    let mut ledger = place.ledger().await;
    world.faults.always(Call::List, "", Fault::Stale);
    vacuum(&mut ledger, &grace(0)).await.unwrap();
    world.faults.heal();
    place.is_sound().await;
    vacuumed(place, 0).await;
    is_clean(place).await;
}

#[tokio::test]
async fn what_a_fence_may_have_taken_is_not_called_damage_while_that_cannot_be_found_out() {
    let world = World::new().await;
    let place = &world.place;
    commit(place, 0..10).await;
    let mut slow = place.writer().await;
    slow.feed(&rows(100..200, 2)).await;
    slow.session.seal().await.unwrap();
    commit(place, 150..300).await;
    // It learns of this commit, and not of the fence behind it.
    let fence = format!("ledger/{:020}", place.ledger().await.version() + 1);
    assert!(!vacuumed(place, 0).await.names.is_empty());
    world.faults.always(Call::Get, &fence, Fault::NotDone);
    let error = slow.try_commit().await.unwrap_err();
    assert!(matches!(error, Error::Store { action: "read", .. }), "{error}");
    world.faults.heal();
    is_clean(place).await;
}

#[tokio::test]
async fn a_vacuum_that_dies_between_two_deletes_is_finished_by_the_next() {
    let objects = {
        let world = World::new().await;
        littered(&world.place).await;
        vacuumed(&world.place, 0).await.names.len()
    };
    assert!(objects > 6);
    for after in 0..objects {
        let world = World::new().await;
        let place = &world.place;
        littered(place).await;
        let kept = place.rows().await;
        // From the n-th delete on the process is dead. (What is deleted in which order does not matter.)
        let dead = (objects - after) as u32;
        if after > 0 {
            world.faults.times(after as u32, Call::Delete, "", Fault::Slow(0));
        }
        world.faults.times(dead, Call::Delete, "", Fault::NotDone);
        let error = vacuum(&mut place.ledger().await, &grace(0)).await.unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, Error::Store { action: "delete", .. }), "{text}");
        assert!(text.contains(&format!("{dead} of {objects} objects could not be deleted")), "{text}");
        world.faults.heal();
        let fence = place.ledger().await.version();
        assert_eq!(
            staged(&place.store).await.difference(&held(&place.ledger().await)).count(),
            objects - after
        );
        // The fence that stands suffices: the next one adds none, though the table has moved on.
        let report = vacuumed(place, 0).await;
        assert_eq!((report.version, report.names.len()), (None, objects - after));
        assert_eq!(place.ledger().await.version(), fence);
        is_clean(place).await;
        assert_eq!(place.rows().await, kept);
    }
}

#[tokio::test]
async fn a_delete_whose_answer_is_lost_is_no_harm() {
    let world = World::new().await;
    let place = &world.place;
    littered(place).await;
    world.faults.times(3, Call::Delete, "data", Fault::AckLost);
    assert!(vacuum(&mut place.ledger().await, &grace(0)).await.is_err());
    is_clean(place).await;
    assert_eq!(vacuumed(place, 0).await.version, None);
}

#[tokio::test]
async fn a_fence_whose_answer_stays_unknown_deletes_nothing_and_is_used_by_the_next_if_it_stands() {
    for lands in [Fault::AckLost, Fault::NotDone, Fault::Late] {
        let world = World::new().await;
        let place = &world.place;
        littered(place).await;
        let before = staged(&place.store).await;
        let mut ledger = place.ledger().await;
        ledger.set_patience(Patience { attempts: 1, ..Patience::default() });
        let next = format!("{:020}", ledger.version() + 1);
        world.faults.next(Call::Put, &next, lands);
        // Replaying reads the version to find it absent; then it cannot be read back.
        world.faults.next(Call::Get, &next, Fault::AfterLate);
        world.faults.always(Call::Get, &next, Fault::NotDone);
        let error = vacuum(&mut ledger, &grace(0)).await.unwrap_err();
        assert!(matches!(error, Error::Unknown { .. }), "{error}");
        world.faults.heal();
        assert_eq!(staged(&place.store).await, before);
        world.faults.land_late().await;
        let stands = place.ledger().await.state().floor > 0;
        assert_eq!(stands, lands != Fault::NotDone);
        let report = vacuumed(place, 0).await;
        assert_eq!(report.version.is_none(), stands);
        is_clean(place).await;
    }
}

/// A writer on a ledger without patience.
async fn hasty(place: &Place) -> writer::Writer {
    let mut ledger = place.ledger().await;
    ledger.set_patience(Patience { attempts: 1, ..Patience::default() });
    let schema = std::sync::Arc::new(writer::schema(&[]));
    let workers = dedupe::workers::Workers::new(std::num::NonZeroUsize::MIN);
    let begun_at = ledger.state().entries;
    let session = Session::begin(ledger, schema.clone(), writer::options(), &workers).await.unwrap();
    writer::Writer { session, schema, begun_at }
}

#[tokio::test]
async fn a_commit_that_lands_just_before_the_fence_is_whole() {
    let world = World::new().await;
    let place = &world.place;
    littered(place).await;
    let mut writer = hasty(place).await;
    writer.feed(&rows(2000..2700, 5)).await;
    let next = format!("ledger/{:020}", place.ledger().await.version() + 1);
    world.faults.next(Call::Put, &next, Fault::Late);
    let error = writer.try_commit().await.unwrap_err();
    assert!(matches!(error, Error::Unknown { .. }), "{error}");
    // Its writer has died. The fence meets it.
    world.faults.next(Call::Put, &next, Fault::AfterLate);
    let report = vacuumed(place, 0).await;
    assert_eq!(report.version, Some(place.ledger().await.version()));
    assert_eq!(place.keys().await.len(), 1200 + 300);
    place.is_sound().await;
    vacuumed(place, 0).await;
    is_clean(place).await;
}

#[tokio::test]
async fn a_commit_that_comes_after_the_fence_finds_its_version_taken_and_what_it_staged_goes() {
    let world = World::new().await;
    let place = &world.place;
    littered(place).await;
    let mut writer = hasty(place).await;
    writer.feed(&rows(2000..2700, 5)).await;
    world.faults.next(Call::Put, "ledger", Fault::Late);
    assert!(writer.try_commit().await.is_err());
    vacuumed(place, 0).await;
    world.faults.land_late().await;
    is_clean(place).await;
    assert_eq!(place.keys().await.len(), 1200);
}

#[tokio::test]
async fn a_data_file_that_lands_after_the_vacuum_is_found_by_the_next() {
    let world = World::new().await;
    let place = &world.place;
    littered(place).await;
    let mut writer = place.writer().await;
    let source = writer.session.add_source(Default::default()).unwrap();
    world.faults.always(Call::Put, "data", Fault::Late);
    let fed = super::writers::feed(&mut writer, source, &rows(20_000..20_300, 5)).await;
    assert!(fed.is_err() || writer.try_commit().await.is_err());
    world.faults.heal();
    dies(place, 30_000..30_100).await;
    vacuumed(place, 0).await;
    is_clean(place).await;
    world.faults.land_late().await;
    assert!(staged(&place.store).await.len() > held(&place.ledger().await).len());
    // The fence that stands is above it.
    assert_eq!(vacuumed(place, 0).await.version, None);
    is_clean(place).await;
}

/// Writers, compactions and vacuums on a store that fails at random, each of which may give up at any moment.
#[tokio::test(start_paused = true)]
async fn after_any_number_of_failures_the_store_holds_what_the_table_names() {
    for seed in 0..30 {
        let inner = std::sync::Arc::new(object_store::memory::InMemory::new());
        let healthy = dedupe::store::Store::from_object_store(inner.clone(), "table", "memory:");
        let place = Place::on(healthy, &Default::default()).await;
        let faults =
            FaultStore::seeded(inner, seed, Rates { put: 100, get: 20, list: 50, delete: 100, lands: 100 });
        let ill = dedupe::store::Store::from_object_store(faults.clone(), "table", "memory:");
        let mut accepted = std::collections::BTreeSet::new();
        for round in 0..12 {
            let Ok(Some(mut ledger)) = dedupe::ledger::Ledger::open(ill.clone()).await else { continue };
            match round % 3 {
                0 => drop(vacuum(&mut ledger, &grace(0)).await),
                1 => drop(dedupe::upkeep::compact::compact(&mut ledger, 64 << 20).await),
                _ => {
                    let keys = round * 100..round * 100 + 350;
                    let workers = dedupe::workers::Workers::new(std::num::NonZeroUsize::MIN);
                    let schema = std::sync::Arc::new(writer::schema(&[]));
                    let begun_at = ledger.state().entries;
                    let Ok(session) =
                        Session::begin(ledger, schema.clone(), writer::options(), &workers).await
                    else {
                        continue;
                    };
                    let mut writer = writer::Writer { session, schema, begun_at };
                    let number = writer.session.add_source(Default::default()).unwrap();
                    if super::writers::feed(&mut writer, number, &rows(keys.clone(), 1)).await.is_ok()
                        && writer.try_commit().await.is_ok()
                    {
                        accepted.extend(keys.map(|i| format!("key-{i}")));
                    }
                }
            }
        }
        faults.heal();
        faults.land_late().await;
        let keys: std::collections::BTreeSet<String> = place.keys().await.into_iter().collect();
        assert_eq!(keys.len(), place.keys().await.len(), "seed {seed}: a key is there twice");
        assert!(keys.is_superset(&accepted), "seed {seed}: a key that was committed is gone");
        vacuumed(&place, 0).await;
        assert_eq!(staged(&place.store).await, held(&place.ledger().await), "seed {seed}");
        place.is_sound().await;
    }
}
