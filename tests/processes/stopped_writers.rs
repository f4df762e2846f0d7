//! A writer is stopped (SIGSTOP) at any of its system calls, for longer than its lease: meanwhile others commit the same
//! keys, compact, and vacuum everything that nobody needs. When it goes on it loses nothing and doubles nothing.

use std::collections::HashSet;
use std::path::Path;

use crate::disk::{self, Fault, FaultyDisk, Tally, dedupe};
use crate::story::{Story, sound_rows};
use crate::table::{Event, Shape};

/// Stops of a first ingest, and of one into a table that is there.
const STOPS: usize = 24;

fn done(mut command: std::process::Command) {
    let ended = command.output().unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
}

/// The leases in a table, which are as if expired when they are gone: nothing but politeness depends on them.
fn expire_leases(table: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(table.join("_dedupe/session")) else { return 0 };
    entries.map(|entry| std::fs::remove_file(entry.unwrap().path()).unwrap()).count()
}

fn stop_at(disk: &FaultyDisk, story: &Story, before: usize, nth: usize, tally: &mut Tally) {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("lake/table");
    story.tell(&table, before);
    let mut command = story.steps[before].command(&table);
    disk.watch(&mut command, folder.path(), &Fault::once(format!("* {nth}"), "stop-before"));
    let first = command.spawn().unwrap();
    if !disk::stopped(first.id()) {
        // It had fewer calls to make than this.
        return assert!(first.wait_with_output().unwrap().status.success());
    }
    let expired = expire_leases(&table);
    // The others: the next step, which has keys in common, and whoever tidies up.
    done(story.steps[before + 1].command(&table));
    for (upkeep, more) in [("compact", [].as_slice()), ("vacuum", &["--grace", "0"])] {
        let mut command = dedupe();
        command.arg(upkeep).arg(&table).args(more);
        done(command);
    }
    disk::signal(first.id(), "-CONT");
    let ended = first.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    let wanted: HashSet<&str> =
        story.steps[before + 1].rows.iter().filter_map(|row| row.id.as_deref()).collect();
    let exact = |rows: &[Event]| {
        let ids: HashSet<&str> = rows.iter().filter_map(|row| row.id.as_deref()).collect();
        rows.len() == ids.len() && ids == wanted
    };
    let rows = sound_rows(&table).unwrap_or_else(|why| panic!("stopped at {nth}: {why}; {told}"));
    match ended.status.code() {
        Some(0) => assert!(exact(&rows), "stopped at {nth}: done, and {} rows", rows.len()),
        // As it says; the next run does it.
        Some(1) => assert!(told.contains("error: "), "stopped at {nth}: {told}"),
        code => panic!("stopped at {nth}: {code:?}: {told}"),
    }
    tally.count(format!("{} lease, exit code {}", expired.min(1), ended.status.code().unwrap()));
    done(story.steps[before].command(&table));
    let rows = sound_rows(&table).unwrap_or_else(|why| panic!("stopped at {nth}: again: {why}"));
    assert!(exact(&rows), "stopped at {nth}: again: {} rows, {} keys", rows.len(), wanted.len());
}

#[test]
fn at_calls_of_the_first_ingest_and_of_a_later_one() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let mut story = Story::new();
    for n in 0..3 {
        let event = |i: i64| Event { id: Some(format!("key-{i}")), n: i };
        let events: Vec<Event> = (200 * n..200 * n + 500).map(event).collect();
        story.ingest("ingest", Shape::Ndjson, &events, 4, None);
    }
    let mut tally = Tally::default();
    for (before, calls) in [(0, 110), (1, 70)] {
        for stop in 0..STOPS {
            stop_at(&disk, &story, before, 1 + stop * calls / STOPS, &mut tally);
        }
    }
    println!("{tally}");
    assert!(tally.total() >= STOPS && tally.of("exit code 0") > 0);
}

#[test]
fn past_its_lease() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table");
    let events = |from: i64, to: i64| (from..to).map(|i| Event { id: Some(format!("key-{i}")), n: i });
    let mut story = Story::new();
    story.ingest("first ingest", Shape::Ndjson, &events(0, 400).collect::<Vec<_>>(), 4, None);
    story.ingest("second ingest", Shape::Ndjson, &events(200, 800).collect::<Vec<_>>(), 4, None);
    let mine: Vec<Event> = events(300, 30_000).collect();
    story.ingest("mine", Shape::Parquet { group: 1_000 }, &mine, 4, None);
    story.tell(&table, 1);
    // It stops at each call for a data file, so that it lives long enough to be given a lease.
    let mut command = story.steps[2].command(&table);
    disk.watch(&mut command, folder.path(), &Fault::lasting("* 4 /data/", "stop-before"));
    let writer = command.spawn().unwrap();
    let any = |folder: &str, start: &str| {
        let mut names = std::fs::read_dir(table.join(folder)).into_iter().flatten();
        names.any(|name| name.unwrap().file_name().to_str().unwrap().starts_with(start))
    };
    // A lease, and a data file under its final name that was staged after two versions.
    let ready = || any("_dedupe/session", "") && any("data", "00000000000000000002-");
    loop {
        assert!(disk::stopped(writer.id()), "it ended before it had a lease and a file");
        if ready() {
            break;
        }
        wait(400);
        disk::signal(writer.id(), "-CONT");
    }
    assert!(expire_leases(&table) > 0);
    done(story.steps[1].command(&table));
    // What it staged a moment ago is kept for a moment.
    let vacuumed = (0..30).any(|_| {
        wait(300);
        let mut vacuum = dedupe();
        let ended = vacuum.arg("vacuum").arg(&table).args(["--grace", "0"]).output().unwrap();
        let told = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(ended.status.success(), "{told}");
        told.lines().any(|line| line.starts_with("deleted"))
    });
    assert!(vacuumed, "nothing that it had staged was deleted");
    while disk::stopped(writer.id()) {
        disk::signal(writer.id(), "-CONT");
        wait(2);
    }
    let ended = writer.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    println!("{}: {told}", ended.status);
    // What it had staged is gone: it begins again by itself, or says that it must be run again.
    let rows = sound_rows(&table).unwrap();
    match ended.status.code() {
        Some(0) => assert_eq!(rows, story.steps[2].rows),
        Some(1) => assert!(rows == story.steps[1].rows && told.contains("vacuum"), "{told}"),
        code => panic!("{code:?}: {told}"),
    }
    done(story.steps[2].command(&table));
    assert_eq!(sound_rows(&table).unwrap(), story.steps[2].rows);
}

#[expect(clippy::disallowed_methods, reason = "lets another process go on for a while")]
fn wait(milliseconds: u64) {
    std::thread::sleep(std::time::Duration::from_millis(milliseconds));
}
