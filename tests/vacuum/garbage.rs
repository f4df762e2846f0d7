//! What goes, and what stays.

use std::collections::BTreeSet;

use dedupe::ledger::{Body, name};
use dedupe::policy::Policy;
use dedupe::upkeep::vacuum::{Sort, VacuumOptions, vacuum};

use super::writer::{Place, keyless, rows};
use super::{DAY, World, commit, compacted, dies, grace, held, is_clean, staged, vacuumed};

/// Two commits that raced, a session that died, and a compaction.
async fn littered(place: &Place) {
    let (mut a, mut b) = (place.writer().await, place.writer().await);
    a.feed(&[rows(0..500, 1), keyless(3, 1)].concat()).await;
    b.feed(&[rows(400..900, 2), keyless(4, 2)].concat()).await;
    a.commit().await;
    b.commit().await;
    dies(place, 5000..5400).await;
    commit(place, 1000..1400).await;
    compacted(place).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_races_crashes_and_compactions_left_goes_and_nothing_else() {
    for place in Place::both(&Policy::default()).await {
        littered(&place).await;
        let before = staged(&place.store).await;
        let (kept, held) = (place.rows().await, held(&place.ledger().await));
        assert!(before.len() > held.len() + 3, "there is garbage");
        let report = vacuumed(&place, 0).await;
        assert_eq!(report.version, Some(place.ledger().await.version()));
        let deleted: Vec<String> = before.difference(&held).cloned().collect();
        assert_eq!(report.names, deleted);
        let counted: u64 = report.deleted.values().map(|tally| tally.objects).sum();
        assert_eq!(counted, deleted.len() as u64);
        assert!(report.deleted[&Sort::Data].bytes > 0 && report.deleted[&Sort::Tokens].objects > 0);
        is_clean(&place).await;
        assert_eq!(place.rows().await, kept);
        // Once more: nothing to do, and no entry for it.
        let again = vacuumed(&place, 0).await;
        assert_eq!((again.version, again.names.len()), (None, 0));
        assert_eq!(place.ledger().await.version(), report.version.unwrap());
        // Its own lease is gone, too.
        assert_eq!(place.store.list(name::SESSIONS).await.unwrap(), []);
        // And the table goes on.
        commit(&place, 9000..9400).await;
        is_clean(&place).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_tells_what_would_go_and_writes_nothing() {
    for place in Place::both(&Policy::default()).await {
        littered(&place).await;
        let (before, version) = (place.store.list("").await.unwrap(), place.ledger().await.version());
        let mut options = grace(0);
        options.dry_run = true;
        let forecast = vacuum(&mut place.ledger().await, &options).await.unwrap();
        assert_eq!(place.store.list("").await.unwrap(), before);
        assert_eq!((place.ledger().await.version(), forecast.version), (version, None));
        let report = vacuumed(&place, 0).await;
        assert!(!report.names.is_empty());
        assert_eq!((forecast.names, forecast.deleted), (report.names, report.deleted));
        assert_eq!((forecast.floor, forecast.oldest), (report.floor, report.oldest));
    }
}

#[tokio::test]
async fn what_is_younger_than_the_grace_time_stays() {
    let world = World::new().await;
    let place = &world.place;
    littered(place).await;
    let all = staged(&place.store).await;
    world.clock.pass(DAY - 1);
    let report = vacuum(&mut place.ledger().await, &VacuumOptions::default()).await.unwrap();
    assert_eq!((report.version, report.floor, report.names.len()), (None, 0, 0));
    assert_eq!(staged(&place.store).await, all);
    // A day later the first litter is old. What died since is young, and so is the version that came since.
    world.clock.pass(1);
    dies(place, 6000..6100).await;
    commit(place, 2000..2100).await;
    let newest = place.ledger().await.version();
    let young = staged(&place.store).await.len() - all.len();
    let report = vacuum(&mut place.ledger().await, &VacuumOptions::default()).await.unwrap();
    assert_eq!((report.floor, report.oldest), (newest, newest - 1));
    assert!(!report.names.is_empty() && report.names.iter().all(|name| all.contains(name)));
    assert_eq!(staged(&place.store).await.len(), held(&place.ledger().await).len() + young - 1);
    world.clock.pass(DAY);
    let report = vacuum(&mut place.ledger().await, &VacuumOptions::default()).await.unwrap();
    assert_eq!(report.names.len(), young - 1);
    is_clean(place).await;
}

#[tokio::test]
async fn a_table_at_rest_does_not_grow_by_being_vacuumed() {
    let world = World::new().await;
    commit(&world.place, 0..300).await;
    for seconds in [0, 1, 86_400, 0] {
        let report = vacuumed(&world.place, seconds).await;
        assert_eq!((report.version, report.names.len()), (None, 0));
        world.clock.pass(10 * DAY);
    }
    assert_eq!(world.place.ledger().await.version(), 1);
}

#[tokio::test]
async fn what_is_not_ours_is_reported_and_left_alone() {
    let world = World::new().await;
    let (place, store) = (&world.place, &world.place.store);
    littered(place).await;
    // The last are of other tables, which somebody made beneath the data of this one.
    let staged = "00000000000000000000-0123456789abcdef0123456789abcdef-0";
    let strangers = [
        "_dedupe/session/notes.json".to_owned(),
        "_dedupe/zebra".to_owned(),
        "data/README.md".to_owned(),
        format!("data/data/{staged}.parquet"),
        format!("data/events/_dedupe/tokens/{staged}.run"),
        format!("data/events/data/day=1/{staged}.parquet"),
        "data/x/part-0.parquet".to_owned(),
    ];
    for name in &strangers {
        store.put(name, "not ours".into()).await.unwrap();
    }
    store.put("README.md", "beside".into()).await.unwrap();
    store.put("_delta_log/0.json", "beside".into()).await.unwrap();
    world.clock.pass(100 * DAY);
    let report = vacuumed(place, 0).await;
    assert!(!report.names.is_empty());
    assert_eq!(report.foreign, strangers);
    for name in strangers.iter().map(String::as_str).chain(["README.md", "_delta_log/0.json"]) {
        assert!(store.head(name).await.unwrap().is_some(), "{name}");
    }
}

#[tokio::test]
async fn probes_and_leases_of_the_dead_go() {
    let world = World::new().await;
    let (place, store) = (&world.place, &world.place.store);
    let (probe, lease) = (
        format!("{}{}", name::PROBE, "0f".repeat(16)),
        format!("{}/{}.json", name::SESSIONS, "1e".repeat(16)),
    );
    store.put(&probe, "first".into()).await.unwrap();
    store.put(&lease, "what nobody understands".into()).await.unwrap();
    assert_eq!(vacuumed(place, 0).await.names, [probe.as_str()]);
    world.clock.pass(119);
    assert_eq!(vacuumed(place, 0).await.names.len(), 0);
    world.clock.pass(1);
    assert_eq!(vacuumed(place, 0).await.names, [lease.as_str()]);
}

#[tokio::test]
async fn two_good_checkpoints_stay_and_bad_ones_go() {
    let world = World::new().await;
    let (place, store) = (&world.place, &world.place.store);
    let mut ledger = place.ledger().await;
    for _ in 0..160 {
        let entry = ledger.entry(&super::writer::proposer(), Body::Fence { floor: 0, oldest: 0 }).unwrap();
        assert!(matches!(ledger.propose(&entry).await.unwrap(), dedupe::ledger::log::Proposal::Committed));
    }
    let good: Vec<String> =
        store.list(name::CHECKPOINTS).await.unwrap().into_iter().map(|object| object.name).collect();
    assert_eq!(good.len(), 5);
    // The newest is damaged, one is of another table, and one claims what the ledger does not say.
    store.put(&good[4], "damaged".into()).await.unwrap();
    let lie = |version: u64, change: &dyn Fn(&mut dedupe::ledger::State)| {
        let mut state = ledger.state().clone();
        state.entries = version + 1;
        change(&mut state);
        dedupe::ledger::checkpoint::encode(&state).unwrap().pop().unwrap()
    };
    let (other, bytes) = lie(150, &|state| state.table = "other".into());
    store.put(&other, bytes).await.unwrap();
    let (wrong, bytes) = lie(140, &|state| state.floor = 100);
    store.put(&wrong, bytes).await.unwrap();
    let (later, bytes) = lie(1000, &|_| ());
    store.put(&later, bytes).await.unwrap();
    let report = vacuumed(place, 0).await;
    let mut gone = vec![good[0].clone(), good[1].clone(), good[2].clone(), wrong, other, good[4].clone()];
    gone.sort();
    assert_eq!(report.names, gone);
    assert_eq!(report.floor, 0, "the floor of a lie is not believed");
    // Another vacuum does not undo the choice, and the table opens by what is left.
    assert_eq!(vacuumed(place, 0).await.names.len(), 0);
    assert!(store.head(&good[3]).await.unwrap().is_some() && store.head(&later).await.unwrap().is_some());
    assert_eq!(place.ledger().await.version(), 160);
}

#[tokio::test]
async fn parts_stay_as_long_as_a_checkpoint_that_stays_names_them() {
    let world = World::new().await;
    let (place, store) = (&world.place, &world.place.store);
    let mut ledger = place.ledger().await;
    let mut commit = async |sources: std::ops::Range<u128>| {
        for id in sources {
            let ingest = dedupe::ledger::entry::Ingest {
                policy: ledger.state().policy_version,
                sources: vec![dedupe::ledger::entry::SourceUse { id: Some(id), ..Default::default() }],
                total: ledger.state().total,
                ..Default::default()
            };
            let body = Body::Ingest(Box::new(ingest));
            let entry = ledger.entry(&super::writer::proposer(), body).unwrap();
            let proposal = ledger.propose(&entry).await.unwrap();
            assert!(matches!(proposal, dedupe::ledger::log::Proposal::Committed));
        }
        ledger.clone()
    };
    let named = async || {
        let mut named = BTreeSet::new();
        for object in store.list(name::CHECKPOINTS).await.unwrap() {
            let head = store.get(&object.name).await.unwrap().unwrap();
            let state = dedupe::ledger::checkpoint::decode(&object.name, &head).unwrap();
            named.extend(dedupe::ledger::checkpoint::parts_of(&state).map(str::to_owned));
        }
        named
    };
    let parts = async || -> BTreeSet<String> {
        store.list(name::PARTS).await.unwrap().into_iter().map(|object| object.name).collect()
    };
    commit(1000..1300).await;
    assert_eq!((parts().await, store.list(name::CHECKPOINTS).await.unwrap().len()), (named().await, 9));
    let before = parts().await.len();
    vacuumed(place, 0).await;
    assert_eq!((parts().await, store.list(name::CHECKPOINTS).await.unwrap().len()), (named().await, 2));
    assert!(parts().await.len() < before);
    // And what is left still answers, for those who come and those who wrote it.
    let mut writer = commit(1300..1310).await;
    for ledger in [&mut writer, &mut place.ledger().await] {
        for id in [1000, 1150, 1299, 1309] {
            assert!(ledger.source(id).await.unwrap().is_some(), "{id}");
        }
        assert_eq!(ledger.source(1310).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_ledger_that_lost_a_version_is_not_vacuumed() {
    for lost in 1..4 {
        let world = World::new().await;
        let (place, store) = (&world.place, &world.place.store);
        littered(place).await;
        let mut opened_before = place.ledger().await;
        store.delete(&name::manifest(lost)).await.unwrap();
        let before = store.list("").await.unwrap();
        for ledger in [&mut opened_before, &mut place.ledger().await] {
            let error = vacuum(ledger, &grace(0)).await.unwrap_err();
            assert!(matches!(error, dedupe::Error::Corrupt { .. }), "{error}");
            assert!(error.to_string().contains(&name::manifest(lost)), "{error}");
        }
        assert_eq!(store.list("").await.unwrap(), before);
    }
}
