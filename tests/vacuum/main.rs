//! Vacuum: whatever crashed, raced or was compacted, the store comes back to what the readable versions name, and nobody
//! who is at work loses anything.

#[path = "../common/clock.rs"]
mod clock;
#[path = "../common/fault.rs"]
#[allow(dead_code)]
mod fault;
#[path = "../common/writer.rs"]
mod writer;

mod faults;
mod garbage;
mod readers;
mod writers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dedupe::ledger::{Ledger, name};
use dedupe::policy::Policy;
use dedupe::store::Store;
use dedupe::upkeep::compact::compact;
use dedupe::upkeep::vacuum::{VacuumOptions, VacuumReport, vacuum};
use object_store::memory::InMemory;

use clock::ClockStore;
use fault::FaultStore;
use writer::{Place, rows};

pub const DAY: i64 = 24 * 3600;

/// A table on a store with faults and a clock that are set by the test.
pub struct World {
    pub place: Place,
    pub clock: Arc<ClockStore>,
    pub faults: Arc<FaultStore>,
}

impl World {
    pub async fn new() -> Self {
        let clock = ClockStore::new(Arc::new(InMemory::new()));
        let faults = FaultStore::new(Arc::clone(&clock) as _);
        let store = Store::from_object_store(Arc::clone(&faults) as _, "table", "memory:");
        Self { place: Place::on(store, &Policy::default()).await, clock, faults }
    }
}

pub fn grace(seconds: u64) -> VacuumOptions {
    let mut options = VacuumOptions::default();
    options.grace = Duration::from_secs(seconds);
    options
}

pub async fn vacuumed(place: &Place, seconds: u64) -> VacuumReport {
    vacuum(&mut place.ledger().await, &grace(seconds)).await.unwrap()
}

/// Commits `keys`, each hundred of them a file.
pub async fn commit(place: &Place, keys: std::ops::Range<u64>) {
    let mut writer = place.writer().await;
    writer.feed(&rows(keys, 1)).await;
    writer.commit().await;
}

/// Files of a session that died.
pub async fn dies(place: &Place, keys: std::ops::Range<u64>) {
    let mut writer = place.writer().await;
    writer.feed(&rows(keys, 1)).await;
    writer.session.seal().await.unwrap();
}

pub async fn compacted(place: &Place) {
    compact(&mut place.ledger().await, 64 << 20).await.unwrap();
}

/// The names of all staged objects that exist.
pub async fn staged(store: &Store) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for folder in [name::DATA, name::TOKENS, name::QUARANTINE] {
        names.extend(store.list(folder).await.unwrap().into_iter().map(|object| object.name));
    }
    names
}

/// The names of all objects that a version of the table holds.
pub fn held(ledger: &Ledger) -> BTreeSet<String> {
    let state = ledger.state();
    let (files, quarantine) = (state.files().unwrap(), state.quarantine().unwrap());
    files.keys().chain(state.runs.keys()).chain(quarantine.keys()).cloned().collect()
}

/// Nothing is staged but what the table's newest version holds; and nothing is wrong with the table.
pub async fn is_clean(place: &Place) {
    assert_eq!(staged(&place.store).await, held(&place.ledger().await));
    place.is_sound().await;
}
