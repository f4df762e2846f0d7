//! Seeded histories of writers, a compactor, a vacuum and a reader on a store that fails: nothing is lost, nothing
//! doubled, nobody is lied to.
//!
//! `DEDUPE_SIM=20000 cargo test --test simulation` plays that many histories;
//! `DEDUPE_SIM_SEED=17 cargo test --test simulation -- --nocapture` plays one, and prints every storage call.

mod sim;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use sim::store::CLASSES;
use sim::{Bug, Outcome, play};

/// Plays `count` histories from `first` on, on two threads; stops soon after one that went wrong.
fn play_all(first: u64, count: u64, bug: Bug) -> Vec<Outcome> {
    let (next, failed) = (AtomicU64::new(first), AtomicU64::new(u64::MAX));
    let all = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + count || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = play(seed, bug, false);
                    if !outcome.problems.is_empty() {
                        failed.fetch_min(seed, Ordering::Relaxed);
                    }
                    all.lock().unwrap().push(outcome);
                }
            });
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|outcome| outcome.seed);
    all
}

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

fn show(outcome: &Outcome) -> String {
    let again = play(outcome.seed, Bug::None, true);
    let (seed, problems) = (outcome.seed, outcome.problems.join("\n  "));
    format!(
        "{}\nseed {seed}:\n  {problems}\nReplay: DEDUPE_SIM_SEED={seed} cargo test --test simulation -- --nocapture",
        again.lines.join("\n")
    )
}

#[test]
fn nothing_is_lost_and_nothing_doubled_in_any_history() {
    if let Some(seed) = asked("DEDUPE_SIM_SEED") {
        let outcome = play(seed, Bug::None, true);
        println!("{}", outcome.lines.join("\n"));
        println!("seed {seed}, hash {:016x}: {:#?}", outcome.hash, outcome.problems);
        assert!(outcome.problems.is_empty());
        return;
    }
    let count = asked("DEDUPE_SIM").unwrap_or(1_000);
    let first = asked("DEDUPE_SIM_FIRST").unwrap_or(0);
    let all = play_all(first, count, Bug::None);
    if let Some(bad) = all.iter().find(|outcome| !outcome.problems.is_empty()) {
        panic!("{}", show(bad));
    }
    let histories = all.len() as u64;
    let sum = |of: fn(&Outcome) -> u64| all.iter().map(of).sum::<u64>();
    println!(
        "{histories} histories: {} calls, {} versions, {} virtual hours, at least {} calls",
        sum(|o| o.calls),
        sum(|o| o.versions),
        sum(|o| o.seconds) / 3600,
        all.iter().map(|o| o.calls).min().unwrap_or_default()
    );
    let mut happened = std::collections::BTreeMap::<&str, u64>::new();
    for (what, times) in all.iter().flat_map(|outcome| &outcome.happened) {
        *happened.entry(what).or_default() += times;
    }
    println!("{happened:#?}");
    assert!(histories < 100 || (happened.len() == 16 && !happened.values().any(|times| *times == 0)));
    for class in CLASSES {
        let at = class as usize;
        let histories_with = all.iter().filter(|outcome| outcome.fired[at] > 0).count() as u64;
        let times: u64 = all.iter().map(|outcome| outcome.fired[at]).sum();
        println!(
            "{class:?}: in {:.1} % of histories, {times} times",
            histories_with as f64 * 100.0 / histories as f64
        );
        assert!(histories < 100 || histories_with * 10 >= histories * 3, "{class:?} fires too seldom");
    }
    assert!(all.iter().all(|outcome| outcome.calls >= 200));
}

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in 0..100 {
        let (one, other) = (play(seed, Bug::None, false), play(seed, Bug::None, false));
        assert_eq!((one.hash, one.calls, one.fired), (other.hash, other.calls, other.fired), "seed {seed}");
    }
}

/// Each mistake, and what finds it.
const PLANTED: [Bug; 19] = [
    Bug::SkipRefilter,
    Bug::StaleFilter,
    Bug::SkipFence,
    Bug::NextVersion,
    Bug::TimeoutMeansDone,
    Bug::AbsentMeansDone,
    Bug::AbsentMeansFailed,
    Bug::ExistsMeansFailed,
    Bug::CleanUpOnConflict,
    Bug::CleanUpWhenAbsent,
    Bug::CompactUnchecked,
    Bug::VacuumByAge,
    Bug::VacuumBeforeFence,
    Bug::VacuumByCheckpoint,
    Bug::HintAsTruth,
    Bug::DamageBelieved,
    Bug::OwnIdentity,
    Bug::ConditionIgnored,
    Bug::NoSync,
];

#[test]
fn every_planted_mistake_is_found_within_a_thousand_seeds() {
    let sound = play_all(0, asked("DEDUPE_SIM_BY_HAND").unwrap_or(300), Bug::ByHand);
    if let Some(bad) = sound.iter().find(|outcome| !outcome.problems.is_empty()) {
        panic!("without a mistake, seed {}: {:?}", bad.seed, bad.problems);
    }
    let unnoticed: Vec<Bug> = PLANTED.into_iter().filter(|bug| !is_noticed(*bug)).collect();
    assert!(unnoticed.is_empty(), "{unnoticed:?}");
}

fn is_noticed(bug: Bug) -> bool {
    let all = play_all(0, 1_000, bug);
    match all.iter().find(|outcome| !outcome.problems.is_empty()) {
        Some(found) => println!("{bug:?}: seed {}, {}", found.seed, found.problems[0]),
        None => println!("{bug:?}: not noticed"),
    }
    all.iter().any(|outcome| !outcome.problems.is_empty())
}
