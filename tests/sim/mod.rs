//! A deterministic simulation of many writers on one table, on a store that fails.
//!
//! One seed is one history: [`plan`] says who brings what, [`store`] is the bucket with everything that can go wrong,
//! [`actors`] are the writers, compactor, vacuum and reader, [`oracle`] judges afterwards, [`trace`] holds every call.
//! [`byhand`] has actors with planted mistakes. All of it runs on one thread in virtual time.

pub mod actors;
pub mod byhand;
pub mod oracle;
pub mod plan;
pub mod rng;
pub mod store;
pub mod trace;

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use dedupe::{clock, random};

use actors::Scene;
use plan::{Clock, Plan};
use rng::Rng;
use store::{CLASSES, World};

/// A mistake that is planted, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Everything as it is shipped.
    None,
    /// Actors made by hand, without a mistake.
    ByHand,
    /// Rows are not judged again after a lost race (R1).
    SkipRefilter,
    /// Rows are judged against a filter that is some versions older than the index (R1).
    StaleFilter,
    /// Nothing is checked before an entry is sent after a lost race: neither fence nor anything else (R3).
    SkipFence,
    /// After a time-out a new entry is sent, to whichever version is free (R2, R3).
    NextVersion,
    /// A time-out is taken for success (R5).
    TimeoutMeansDone,
    /// "Absent" after no clear answer is taken for success (R5).
    AbsentMeansDone,
    /// "Absent" after no clear answer is taken for failure (R5).
    AbsentMeansFailed,
    /// "Exists" is taken for a rival, without reading (R5).
    ExistsMeansFailed,
    /// Own files are deleted when told "exists" (R4).
    CleanUpOnConflict,
    /// Own files are deleted after reading "absent" (R4).
    CleanUpWhenAbsent,
    /// A compaction does not look whether its inputs are live, and deletes them itself (R6, R4).
    CompactUnchecked,
    /// Vacuum deletes what is old and in no version, without a fence.
    VacuumByAge,
    /// Vacuum deletes by the state before its fence.
    VacuumBeforeFence,
    /// Vacuum takes the newest checkpoint it finds for the truth.
    VacuumByCheckpoint,
    /// A reader takes a listing for the truth about the tip.
    HintAsTruth,
    /// A reader believes a manifest that was damaged on its way, where it is still JSON.
    DamageBelieved,
    /// A creator goes on with the identity that it drew, whatever stands in the table.
    OwnIdentity,
    /// The store ignores the condition now and then.
    ConditionIgnored,
    /// Files are not synced: those of a writer that dies may be lost.
    NoSync,
}

impl Bug {
    /// Whether writers and compactors are those made by hand.
    pub fn is_by_hand(self) -> bool {
        use Bug::*;
        !matches!(
            self,
            None | VacuumByAge
                | VacuumBeforeFence
                | VacuumByCheckpoint
                | HintAsTruth
                | DamageBelieved
                | ConditionIgnored
                | NoSync
        )
    }
}

/// What a history was like.
#[derive(Debug, Clone)]
pub struct Outcome {
    pub seed: u64,
    pub problems: Vec<String>,
    pub hash: u64,
    pub calls: u64,
    pub seconds: u64,
    pub fired: [u64; CLASSES.len()],
    pub lines: Vec<String>,
    pub versions: u64,
    pub happened: oracle::Happened,
}

/// Plays one history.
pub fn play(seed: u64, bug: Bug, keep_lines: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    tokio::task::LocalSet::new().block_on(&runtime, history(seed, bug, keep_lines))
}

async fn history(seed: u64, bug: Bug, keep_lines: bool) -> Outcome {
    let plan = Arc::new(Plan::of(seed));
    let world = World::new(seed, plan.mood, bug);
    if keep_lines {
        world.trace(trace::Trace::keep_lines);
    }
    let draws = RefCell::new(Rng::new(seed, 2));
    let _random = random::drive(move || draws.borrow_mut().next128());
    let (clocks, at) = (plan.clocks.clone(), Arc::clone(&world));
    let readings = Cell::new(0u64);
    let _clock = clock::drive(move || {
        readings.set(readings.get() + 1);
        let begun = DateTime::<Utc>::from_timestamp_millis(1_800_000_000_000).unwrap_or_default();
        let now = begun + TimeDelta::milliseconds(at.now() as i64);
        match clocks.get(actors::acting()) {
            Some(Clock::Skewed(seconds)) => now + TimeDelta::seconds(*seconds),
            Some(Clock::Jumping(most)) => {
                let off = Rng::new(seed, readings.get()).below(2 * *most as u64) as i64 - most;
                now + TimeDelta::seconds(off)
            }
            Some(Clock::Frozen(seconds)) => begun + TimeDelta::seconds(*seconds),
            None => now,
        }
    });
    actors::rest();
    let scene =
        Scene { world: Arc::clone(&world), plan: Arc::clone(&plan), record: Arc::default(), bug, seed };
    let done = Arc::new(AtomicUsize::new(0));
    let mut tasks = vec![
        tokio::task::spawn_local(actors::compactor(scene.clone())),
        tokio::task::spawn_local(actors::vacuum(scene.clone())),
        tokio::task::spawn_local(actors::reader(scene.clone(), Arc::clone(&done))),
    ];
    for at in 0..plan.writers.len() {
        let (scene, done) = (scene.clone(), Arc::clone(&done));
        tasks.push(tokio::task::spawn_local(async move {
            actors::writer(scene, at).await;
            done.fetch_add(1, Ordering::Relaxed);
        }));
    }
    for task in tasks {
        if let Err(error) = task.await {
            scene.record().problems.push(format!("an actor panicked: {error}"));
        }
    }
    actors::rest();
    let seconds = world.now() / 1000;
    world.heal();
    world.settle();
    let (problems, happened) = oracle::judge(&scene).await;
    let (mut hash, mut lines) = (0, Vec::new());
    world.trace(|trace| (hash, lines) = (trace.hash(), trace.take_lines()));
    let versions = world.names().iter().filter(|name| name.contains("/ledger/")).count() as u64;
    Outcome {
        seed,
        problems,
        hash,
        calls: world.calls(),
        seconds,
        fired: world.fired(),
        lines,
        versions,
        happened,
    }
}
