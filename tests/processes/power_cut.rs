//! Power cuts. Real processes write a table, every system call of theirs is written down, and after every single one of
//! them the power is cut: a model of a disk works out what may be left. On each such disk the table verifies, everything
//! that was acknowledged is there, and running everything again leaves exactly what a plain set would.
//!
//! Then the same with bugs planted into the calls (syncs left out, or too late): each of them must be noticed.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::{self, Call, EIO, Fault, FaultyDisk};
use crate::power::{self, Disk, Luck};
use crate::story::{Story, sound_rows};
use crate::table::{Event, Shape};

/// How often unsynced changes are drawn at random after each call, besides the extremes.
fn draws() -> u64 {
    std::env::var("DEDUPE_POWER_DRAWS").map_or(3, |n| n.parse().expect("DEDUPE_POWER_DRAWS is a number"))
}

/// A recorded history, and where it took place.
struct History<'a> {
    story: &'a Story,
    /// The disk before it.
    before: Disk,
    /// The steps that it tells of, by their number, which is their label too.
    steps: std::ops::Range<usize>,
    /// Whether the steps came one after another, so that their rows are those of the story.
    in_turn: bool,
    table: PathBuf,
    calls: Vec<Call>,
    _folder: tempfile::TempDir,
}

/// What was looked at.
#[derive(Debug, Default)]
struct Seen {
    cuts: usize,
    disks: usize,
}

impl<'a> History<'a> {
    /// A place with the table as before step `first`, in a folder of a folder that is not there yet.
    fn new(story: &'a Story, steps: std::ops::Range<usize>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("disk");
        std::fs::create_dir(&root).unwrap();
        let table = root.join("deep/lake/table");
        if steps.start > 0 {
            story.tell(&table, steps.start);
        }
        let before = Disk::of(&root);
        Self { story, before, steps, in_turn: true, table, calls: Vec::new(), _folder: folder }
    }

    fn root(&self) -> &Path {
        self.table.ancestors().nth(3).unwrap()
    }

    fn trace(&self) -> PathBuf {
        self.root().with_extension("trace")
    }

    /// A process that does step `number`, recorded.
    fn process(&self, disk: &FaultyDisk, number: usize, fault: &Fault) -> Command {
        let mut command = self.story.steps[number].command(&self.table);
        disk.watch(&mut command, self.root(), fault);
        disk::trace_into(&mut command, &self.trace(), &number.to_string());
        disk::trace_data(&mut command);
        command
    }

    fn recorded(mut self) -> Self {
        self.calls = disk::calls(&self.trace());
        self
    }

    /// The steps one after another, undisturbed.
    fn undisturbed(disk: &FaultyDisk, story: &'a Story, steps: std::ops::Range<usize>) -> Self {
        let history = Self::new(story, steps.clone());
        for number in steps {
            let ended = history.process(disk, number, &Fault::default()).output().unwrap();
            assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
        }
        history.recorded()
    }

    /// Cuts the power after each of `calls`. The first disk that is not as it must be ends it.
    fn cut_everywhere(&self, calls: &[Call], draws: u64) -> Result<Seen, String> {
        let (mut now, mut acknowledged) = (self.before.clone(), BTreeSet::new());
        let (mut seen, mut known) = (Seen::default(), HashSet::new());
        for at in 0..=calls.len() {
            if let Some(call) = at.checked_sub(1).map(|last| &calls[last]) {
                now.apply(call);
                if call.kind == "say" && call.result > 0 {
                    acknowledged.insert(call.run.parse::<usize>().unwrap());
                }
            }
            seen.cuts += 1;
            let random = (0..draws).map(|draw| Luck::Some(draw * 100_003 + at as u64));
            for luck in
                [Luck::None, Luck::All, Luck::NamesOnly, Luck::NamesAndLengths].into_iter().chain(random)
            {
                let left = now.cut(luck);
                let mut hash = DefaultHasher::new();
                (&left, &acknowledged).hash(&mut hash);
                if known.insert(hash.finish()) {
                    seen.disks += 1;
                    self.look_at(&left, &acknowledged)
                        .map_err(|why| format!("cut after {at} calls, {luck:?}: {why}"))?;
                }
            }
        }
        Ok(seen)
    }

    fn look_at(&self, left: &power::Left, acknowledged: &BTreeSet<usize>) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        power::restore(left, folder.path());
        let table = folder.path().join("deep/lake/table");
        let rows = sound_rows(&table).map_err(|why| format!("the table is damaged: {why}"))?;
        if self.in_turn {
            // As after some step that is not before the last one acknowledged.
            let least = acknowledged.last().map_or(self.steps.start, |last| last + 1);
            let mut possible = (least..=self.steps.end).map(|after| self.story.before(after));
            if !possible.any(|possible| possible == rows) {
                return Err(format!("{} rows, and {acknowledged:?} were acknowledged", rows.len()));
            }
        } else {
            let ids = ids(&rows)?;
            for number in acknowledged {
                let all = self.story.own_keys(*number);
                if let Some(lost) = all.iter().find(|id| !ids.contains(*id)) {
                    return Err(format!("{lost} of step {number} was acknowledged and is lost"));
                }
            }
        }
        for step in &self.story.steps[..self.steps.end] {
            step.redo(&table).map_err(|why| format!("{} fails afterwards: {why}", step.name))?;
        }
        let rows = sound_rows(&table).map_err(|why| format!("damaged after running again: {why}"))?;
        let wanted = self.story.before(self.steps.end);
        let exact = if self.in_turn { rows == wanted } else { ids(&rows)? == ids(wanted)? };
        if exact { Ok(()) } else { Err(format!("{} rows in the end, not {}", rows.len(), wanted.len())) }
    }
}

/// The keys of rows, each of which must be there once.
fn ids(rows: &[Event]) -> Result<HashSet<String>, String> {
    let ids: HashSet<String> = rows.iter().filter_map(|row| row.id.clone()).collect();
    if ids.len() == rows.len() { Ok(ids) } else { Err("a key is there twice".into()) }
}

fn all_is_well(what: &str, history: &History<'_>) {
    let seen = history.cut_everywhere(&history.calls, draws()).unwrap_or_else(|why| panic!("{what}: {why}"));
    println!("{what}: {} cuts, {} different disks", seen.cuts, seen.disks);
    assert!(seen.cuts > history.calls.len() && seen.disks > 0);
}

#[test]
fn after_every_call_of_ingests_a_compaction_and_a_vacuum() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let story = Story::short();
    let history = History::undisturbed(&disk, &story, 0..4);
    assert_eq!(history.calls.iter().filter(|call| call.kind == "say").count(), 4);
    let deleted = |call: &&Call| call.kind == "unlink" && call.path.to_str().unwrap().ends_with(".run");
    assert!(history.calls.iter().filter(deleted).count() >= 2, "the vacuum had nothing to delete");
    all_is_well("two ingests, a compaction and a vacuum", &history);
}

#[test]
fn after_every_call_of_a_commit_that_leaves_a_checkpoint() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let story = Story::tiny_commits();
    let history = History::undisturbed(&disk, &story, 31..33);
    assert!(history.calls.iter().any(|call| call.object() == "checkpoint"));
    all_is_well("a commit that leaves a checkpoint, and the next", &history);
}

#[test]
fn after_every_call_of_two_processes_that_race() {
    let Some(disk) = FaultyDisk::compile() else { return };
    for round in 0..2 {
        let mut story = Story::new();
        for n in 0..2 {
            let event = |i: i64| Event { id: Some(format!("key-{i}")), n: i };
            let events: Vec<Event> = (200 * n..200 * n + 400).map(event).collect();
            story.ingest("racing ingest", Shape::Ndjson, &events, 4, None);
        }
        let mut history = History::new(&story, 0..2);
        history.in_turn = false;
        // From different moments each time; whatever comes of it was written down.
        let fault = Fault::once(format!("* {}", 5 + 40 * round), "stop-before");
        let mut first = history.process(&disk, 0, &fault).spawn().unwrap();
        assert!(disk::stopped(first.id()));
        let mut second = history.process(&disk, 1, &Fault::default()).spawn().unwrap();
        disk::signal(first.id(), "-CONT");
        assert!(first.wait().unwrap().success() && second.wait().unwrap().success());
        all_is_well("two processes that race", &history.recorded());
    }
}

#[test]
fn after_a_writer_stopped_between_its_commit_and_the_sync_of_it_and_another_one_read_it() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let story = Story::short();
    for (steps, point) in [
        // The other one finds the batch committed, and says so.
        (1..2, Fault::once("link 1 _dedupe/ledger/0", "stop-after")),
        // The other one finds folders that nobody has made last.
        (0..1, Fault::once("syncdir 1", "stop-before")),
        (0..1, Fault::once("link 1 _dedupe/table.json", "stop-after")),
        (0..1, Fault::once("link 1 _dedupe/ledger/0", "stop-after")),
    ] {
        let history = History::new(&story, steps.clone());
        let mut first = history.process(&disk, steps.start, &point).spawn().unwrap();
        assert!(disk::stopped(first.id()));
        let second = history.process(&disk, steps.start, &Fault::default()).output().unwrap();
        assert!(second.status.success(), "{}", String::from_utf8_lossy(&second.stderr));
        first.kill().unwrap();
        first.wait().unwrap();
        all_is_well(&format!("{point:?}"), &history.recorded());
    }
}

#[test]
fn after_a_sync_that_failed_nothing_is_reported_that_does_not_last() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let story = Story::short();
    let (mut failed, mut unknown, mut done) = (0, 0, 0);
    for step in 0..2 {
        for kind in ["sync", "syncdir"] {
            for nth in 1.. {
                let history = History::new(&story, step..step + 1);
                let fault = Fault::once(format!("{kind} {nth}"), format!("fail {EIO}"));
                let ended = history.process(&disk, step, &fault).output().unwrap();
                let history = history.recorded();
                let Some(call) = history.calls.iter().find(|call| call.fault == "fail") else { break };
                let told = String::from_utf8_lossy(&ended.stderr);
                match ended.status.code() {
                    // What failed was not needed for what is reported.
                    Some(0) => done += 1,
                    Some(1) => failed += 1,
                    Some(75) => unknown += 1,
                    code => panic!("{code:?} after {call:?}: {told}"),
                }
                if ended.status.code() != Some(0) {
                    let folder = if kind == "sync" { call.path.parent().unwrap() } else { &call.path };
                    assert!(told.contains(folder.to_str().unwrap()), "{call:?}: {told}");
                    assert!(told.contains("Input/output error"), "{told}");
                }
                let mut now = history.before.clone();
                history.calls.iter().for_each(|call| now.apply(call));
                let acknowledged = history.calls.iter().filter(|call| call.kind == "say");
                let acknowledged = acknowledged.map(|call| call.run.parse().unwrap()).collect();
                for luck in [Luck::None, Luck::All, Luck::NamesOnly, Luck::NamesAndLengths, Luck::Some(7)] {
                    let seen = history.look_at(&now.cut(luck), &acknowledged);
                    seen.unwrap_or_else(|why| panic!("{call:?} failed, {luck:?}: {why}"));
                }
            }
        }
    }
    println!("one sync fails: {failed} runs failed, {unknown} were unknown, {done} were done all the same");
    assert!(failed >= 5 && unknown >= 1, "{failed} {unknown} {done}");
}

/// A way to spoil a history.
type Bug = (&'static str, fn(Vec<Call>) -> Vec<Call>);

fn without(calls: Vec<Call>, left_out: impl Fn(&Call) -> bool) -> Vec<Call> {
    calls.into_iter().filter(|call| !left_out(call)).collect()
}

fn is_sync_of_folder(call: &Call, name: &str) -> bool {
    call.kind == "syncdir" && call.path.ends_with(name)
}

/// Puts each call that is `late` behind the next link that follows it.
fn after_the_link(calls: Vec<Call>, late: impl Fn(&Call) -> bool) -> Vec<Call> {
    let (mut result, mut kept) = (Vec::new(), Vec::new());
    for call in calls {
        if late(&call) {
            kept.push(call);
            continue;
        }
        let link = call.kind == "link";
        result.push(call);
        if link {
            result.append(&mut kept);
        }
    }
    result
}

const BUGS: &[Bug] = &[
    ("data files are not synced", |calls| without(calls, |c| c.kind == "sync" && c.object() == "data file")),
    ("token runs are not synced", |calls| without(calls, |c| c.kind == "sync" && c.object() == "token run")),
    ("manifests are not synced", |calls| without(calls, |c| c.kind == "sync" && c.object() == "manifest")),
    ("quarantine is not synced", |calls| without(calls, |c| c.kind == "sync" && c.object() == "quarantine")),
    ("table.json is not synced", |calls| without(calls, |c| c.kind == "sync" && c.object() == "table.json")),
    ("the folder of the data is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "data"))),
    ("the folder of the runs is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "tokens"))),
    ("the folder of quarantine is not synced", |calls| {
        without(calls, |c| is_sync_of_folder(c, "quarantine"))
    }),
    ("the folder of the ledger is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "ledger"))),
    ("the folder of table.json is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "_dedupe"))),
    ("the table's folder is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "table"))),
    ("the folder above the table is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "lake"))),
    ("the folder above that is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "deep"))),
    ("the first folder above is not synced", |calls| without(calls, |c| is_sync_of_folder(c, "disk"))),
    ("a manifest gets its name before it is synced", |calls| {
        after_the_link(calls, |c| c.kind == "sync" && c.object() == "manifest")
    }),
    ("runs are deleted before the compaction that replaces them", |mut calls| {
        let gone = |c: &Call| c.kind == "unlink" && c.path.to_str().unwrap().ends_with(".run");
        let replaced = calls.iter().position(gone).unwrap();
        let compaction = |c: &Call| c.run == "2" && c.kind == "link" && c.object() == "manifest";
        let to = calls.iter().position(compaction).unwrap();
        let call = calls.remove(replaced);
        calls.insert(to, call);
        calls
    }),
    ("success is reported before the ledger is synced", |calls| {
        let said: Vec<Call> = calls.iter().filter(|c| c.kind == "say").cloned().collect();
        let mut calls = without(calls, |c| c.kind == "say");
        for say in said.into_iter().rev() {
            let commit = |c: &Call| c.run == say.run && c.kind == "link" && c.object() == "manifest";
            let at = calls.iter().rposition(commit).unwrap();
            calls.insert(at + 1, say);
        }
        calls
    }),
];

#[test]
fn planted_bugs_are_noticed() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let story = Story::short();
    let history = History::undisturbed(&disk, &story, 0..4);
    let hook = std::panic::take_hook();
    // A table that lost its files makes the reading of it panic, which is noticed like any other problem.
    std::panic::set_hook(Box::new(|_| {}));
    let noticed: Vec<_> = std::thread::scope(|scope| {
        let begun = BUGS.iter().map(|(name, plant)| {
            let (calls, history) = (plant(history.calls.clone()), &history);
            assert_ne!(calls, history.calls, "{name}: there was nothing to spoil");
            (name, scope.spawn(move || history.cut_everywhere(&calls, 1)))
        });
        let begun: Vec<_> = begun.collect();
        begun.into_iter().map(|(name, cutting)| (name, cutting.join().unwrap())).collect()
    });
    std::panic::set_hook(hook);
    for (name, seen) in &noticed {
        println!("{name}: {}", seen.as_ref().map_or_else(Clone::clone, |_| "NOT NOTICED".into()));
    }
    assert!(noticed.iter().all(|(_, seen)| seen.is_err()));
}
