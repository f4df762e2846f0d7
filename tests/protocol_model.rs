//! Every interleaving of a small world that commits through the shipped `State`: no sequence of lost answers, late
//! landings, crashes, compactions and vacuums breaks a promise, and every bug that is planted is found.
//!
//! `DEDUPE_MODEL=long cargo test --release --test protocol_model -- --nocapture` explores larger worlds, all twelve or
//! that one of them which `DEDUPE_MODEL_WORLD` says.

mod model;

use dedupe::clock::Stopwatch;
use model::ledger::Rule;
use model::{Budget, Bug, Identity, World, Writer};
use stateright::{Checker, HasDiscoveries, Model};
use std::collections::BTreeSet;

/// Two writers that share a token: one by batch id and token runs, one by nothing but tokens, inline.
fn overlapping() -> World {
    World {
        writers: vec![
            Writer { tokens: 0b011, identity: Identity::Batch, inline: false },
            Writer { tokens: 0b110, identity: Identity::Tokens, inline: true },
        ],
        compactors: 1,
        runs_only: false,
        budget: Budget { compactions: 1, vacuums: 1, crashes: 1, faults: 1 },
        all_crash: false,
        bugs: vec![],
        without: None,
    }
}

/// Two writers without a token in common: whoever loses the race keeps his files, and with them their old stage.
fn disjoint() -> World {
    World {
        writers: vec![
            Writer { tokens: 0b011, identity: Identity::Source, inline: false },
            Writer { tokens: 0b100, identity: Identity::Tokens, inline: false },
        ],
        ..overlapping()
    }
}

struct Outcome {
    states: usize,
    failures: BTreeSet<&'static str>,
    reached: BTreeSet<&'static str>,
}

fn explore(name: &str, world: World, to_the_end: bool) -> Outcome {
    let watch = Stopwatch::start();
    let finish = if to_the_end { HasDiscoveries::AllFailures } else { HasDiscoveries::AnyFailures };
    let checker = world.checker().threads(2).finish_when(finish).spawn_bfs().join();
    let (mut failures, mut reached) = (BTreeSet::new(), BTreeSet::new());
    let mut shortest = String::new();
    for (property, path) in checker.discoveries() {
        if checker.discovery_classification(property).to_string() == "example" {
            reached.insert(property);
        } else {
            failures.insert(property);
            shortest += &format!("; \"{property}\" broken in {} steps", path.clone().into_actions().len());
            if to_the_end {
                println!("{:#?}", path.into_actions());
            }
        }
    }
    let states = checker.unique_state_count();
    println!("{name}: {states} states, depth {}, {:.1} s{shortest}", checker.max_depth(), watch.seconds());
    Outcome { states, failures, reached }
}

/// The world keeps every promise, and is not so small that nothing happens in it.
fn holds(name: &str, world: World) -> usize {
    let outcome = explore(name, world, true);
    assert_eq!(outcome.failures, BTreeSet::new(), "{name}");
    for happens in [model::ALL_FINISH, model::VACUUM_DELETES, model::COMPACTS] {
        assert!(outcome.reached.contains(happens), "{name}: {happens}");
    }
    outcome.states
}

/// Both shapes.
fn shapes() -> Vec<(&'static str, World)> {
    vec![("overlapping", overlapping()), ("disjoint", disjoint())]
}

/// Both shapes without compaction, unless all the time in the world is given: for bugs that multiply the states.
fn plain_shapes() -> Vec<(&'static str, World)> {
    let plain = |world: World| World { budget: Budget { compactions: 0, ..world.budget }, ..world };
    shapes().into_iter().map(|(shape, world)| (shape, if long() { world } else { plain(world) })).collect()
}

/// Two compactors and no vacuum, in both shapes.
fn two_compactors() -> Vec<(&'static str, World)> {
    let two = |world: World| World {
        compactors: 2,
        budget: Budget { compactions: 2, vacuums: 0, crashes: 0, faults: 1 },
        ..world
    };
    shapes().into_iter().map(|(shape, world)| (shape, two(world))).collect()
}

/// Some world of both shapes breaks `promise` if `bugs` are planted, and rules taken out of `State`.
fn found(bugs: &[Bug], without: Option<Rule>, promise: &str) {
    found_in(&shapes(), bugs, without, promise);
}

fn found_in(worlds: &[(&str, World)], bugs: &[Bug], without: Option<Rule>, promise: &str) {
    let mut broken = BTreeSet::new();
    for (shape, world) in worlds {
        let name = format!("{bugs:?}, {without:?} not judged, {shape}");
        broken
            .extend(explore(&name, World { bugs: bugs.to_vec(), without, ..world.clone() }, false).failures);
    }
    assert!(broken.contains(promise), "{bugs:?} {without:?}: {broken:?}");
}

/// No world of either shape breaks any promise although `bugs` are planted. `void`: because `State::apply` takes the
/// entries that the bug writes for void, which is seen to happen.
fn harmless(bugs: &[Bug], void: bool) {
    harmless_in(&shapes(), bugs, void);
}

fn harmless_in(worlds: &[(&str, World)], bugs: &[Bug], void: bool) {
    let mut voids = false;
    for (shape, world) in worlds {
        let name = format!("{bugs:?}, {shape}");
        let outcome = explore(&name, World { bugs: bugs.to_vec(), ..world.clone() }, true);
        assert_eq!(outcome.failures, BTreeSet::new(), "{name}");
        voids |= outcome.reached.contains(model::VOID_STANDS);
    }
    assert_eq!(voids, void, "{bugs:?}");
}

fn long() -> bool {
    std::env::var("DEDUPE_MODEL").is_ok_and(|size| size == "long")
}

#[test]
fn overlapping_writers_keep_every_promise() {
    holds("overlapping", overlapping());
}

#[test]
fn disjoint_writers_keep_every_promise() {
    holds("disjoint", disjoint());
}

/// What is explored where there is time.
fn larger_worlds() -> Vec<(String, World)> {
    let mut worlds = Vec::new();
    for (shape, world) in shapes() {
        let faults = World { budget: Budget { faults: 2, ..world.budget }, ..world.clone() };
        worlds.push((format!("{shape}, two faults"), faults));
        let compactors =
            World { compactors: 2, budget: Budget { compactions: 2, ..world.budget }, ..world.clone() };
        worlds.push((format!("{shape}, two compactors"), compactors));
        let crashes = World { all_crash: true, runs_only: true, ..world.clone() };
        worlds.push((format!("{shape}, everybody crashes, runs alone are compacted too"), crashes));
        let vacuums =
            World { budget: Budget { vacuums: 2, compactions: 1, ..world.budget }, all_crash: true, ..world };
        worlds.push((format!("{shape}, two vacuums that crash"), vacuums));
    }
    let mut three = overlapping();
    three.writers.push(Writer { tokens: 0b1000, identity: Identity::Source, inline: false });
    three.budget = Budget { compactions: 0, vacuums: 1, crashes: 1, faults: 1 };
    worlds.push(("three writers".to_owned(), three.clone()));
    let faults = World { budget: Budget { faults: 2, ..three.budget }, ..three.clone() };
    worlds.push(("three writers, two faults".to_owned(), faults));
    let crashes = World { budget: Budget { crashes: 2, ..three.budget }, ..three.clone() };
    worlds.push(("three writers, two crashes".to_owned(), crashes));
    // With a crash as well it takes more memory than 20 GiB.
    let compacted = World { budget: Budget { compactions: 1, crashes: 0, ..three.budget }, ..three };
    worlds.push(("three writers and a compactor, no crash".to_owned(), compacted));
    worlds
}

#[test]
fn larger_worlds_keep_every_promise() {
    if !long() {
        return;
    }
    let only: Option<usize> =
        std::env::var("DEDUPE_MODEL_WORLD").ok().map(|n| n.parse().expect("DEDUPE_MODEL_WORLD is a number"));
    for (number, (name, world)) in (1..).zip(larger_worlds()) {
        if only.is_none_or(|only| only == number) {
            holds(&name, world);
        }
    }
}

// Bugs of a writer that nothing but the writer's own care prevents: each must be found.

#[test]
fn without_judging_again_after_a_lost_race_a_token_is_committed_twice() {
    found(&[Bug::NoRefilter], None, model::TOKEN_ONCE);
}

#[test]
fn if_absent_means_done_rows_are_lost() {
    found(&[Bug::AbsentMeansDone], None, model::DONE_IS_COMMITTED);
}

#[test]
fn if_absent_means_failed_a_commit_is_denied() {
    found(&[Bug::AbsentMeansFailed], None, model::FAILED_IS_ABSENT);
}

#[test]
fn whoever_cleans_up_after_a_conflict_deletes_live_objects() {
    found(&[Bug::ConflictCleansUp], None, model::LIVE_EXISTS);
}

#[test]
fn whoever_cleans_up_after_reading_absent_deletes_live_objects() {
    found(&[Bug::AbsentCleansUp], None, model::LIVE_EXISTS);
}

#[test]
fn a_vacuum_by_age_deletes_live_objects() {
    found(&[Bug::VacuumByAge], None, model::LIVE_EXISTS);
}

#[test]
fn a_vacuum_that_judges_by_an_older_state_deletes_live_objects() {
    found(&[Bug::VacuumFromHint], None, model::LIVE_EXISTS);
}

#[test]
fn a_vacuum_that_forgets_readers_breaks_a_version_that_was_to_stay_readable() {
    found(&[Bug::VacuumForgetsReaders], None, model::READABLE_IS_WHOLE);
}

#[test]
fn a_store_that_ignores_the_condition_loses_commits() {
    found(&[Bug::LyingStore], None, model::DONE_IS_COMMITTED);
}

// Bugs that `State::apply` defuses: the entry is void, so nothing happens. Each is found as soon as the rule that
// stops it is taken out of `State`, or if the writer believes its bytes without asking whether they are valid.

#[test]
fn a_commit_below_the_fence_is_void() {
    harmless(&[Bug::SkipFence], true);
    found(&[Bug::SkipFence], Some(Rule::Floor), model::LIVE_EXISTS);
    found(&[Bug::SkipFence, Bug::VoidMeansDone], None, model::DONE_IS_COMMITTED);
}

#[test]
fn a_commit_sent_to_the_next_version_without_any_check_is_void() {
    harmless_in(&plain_shapes(), &[Bug::NextVersion], true);
    found(&[Bug::NextVersion], Some(Rule::Floor), model::LIVE_EXISTS);
    found(&[Bug::NextVersion, Bug::VoidMeansDone], None, model::DONE_IS_COMMITTED);
}

#[test]
fn a_compaction_of_what_is_no_longer_live_is_void() {
    // A second compactor takes the inputs away; no vacuum is needed for the harm.
    harmless_in(&two_compactors(), &[Bug::SkipLiveInputs], true);
    found_in(&two_compactors(), &[Bug::SkipLiveInputs], Some(Rule::LiveInputs), model::FILES_EXACT);
}

#[test]
fn a_second_commit_of_a_batch_is_void() {
    harmless(&[Bug::SkipBatch], true);
    found(&[Bug::SkipBatch], Some(Rule::BatchOnce), model::ACCOUNTING);
}

#[test]
fn an_entry_with_the_sums_of_another_version_is_void() {
    harmless_in(&plain_shapes(), &[Bug::NoRefilterNorSums], true);
    found(&[Bug::NoRefilterNorSums, Bug::VoidMeansDone], None, model::DONE_IS_COMMITTED);
}

// Mistakes that cost honesty or work, but no data.

#[test]
fn own_bytes_taken_for_a_rivals_are_found_again_as_duplicates() {
    harmless_in(&plain_shapes(), &[Bug::NoReadBack], false);
}

#[test]
fn other_bytes_for_the_same_version_are_judged_against_the_first() {
    harmless_in(&plain_shapes(), &[Bug::OtherBytes], false);
}
