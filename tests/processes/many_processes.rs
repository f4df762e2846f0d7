//! Eight real processes on one table, with keys in common: some are killed and started again, some are stopped for a
//! while and go on, one compacts and vacuums. In the end every key has one row, and the table verifies.
//!
//! On a local disk for a few seconds (`DEDUPE_RACE_SECONDS` for as long as one likes), and on the S3 and Azure emulators
//! if `DEDUPE_TEST_S3` and `DEDUPE_TEST_AZURE` say where they are, as in `tests/emulator.rs`.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::disk::{Dice, Tally, dedupe};
use crate::table::{self, Event, Shape};
use dedupe::clock::Stopwatch;
use dedupe::ledger::Ledger;
use dedupe::store::Store;
use dedupe::upkeep::verify::{VerifyOptions, verify};

/// Processes that ingest; one more compacts and vacuums.
const WRITERS: usize = 7;

/// Keys that a batch draws from, and rows of a batch.
const KEYS: usize = 40_000;
const ROWS: usize = 1_500;

fn seconds() -> f64 {
    let asked = std::env::var("DEDUPE_RACE_SECONDS").ok();
    asked.map_or(15.0, |seconds| seconds.parse().expect("DEDUPE_RACE_SECONDS is a number"))
}

/// What becomes of a process while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Spared,
    Killed,
    Stopped,
}

/// What one writer did, or the one that tidies up.
#[derive(Debug, Default)]
struct Did {
    keys: HashSet<String>,
    tally: Tally,
}

#[expect(clippy::disallowed_methods, reason = "lets another process go on for a while")]
fn wait(milliseconds: usize) {
    std::thread::sleep(Duration::from_millis(milliseconds as u64));
}

/// Sends a signal, if the process is still there.
fn signal(child: &Child, name: &str) {
    let mut kill = Command::new("kill");
    let _ = kill.args([name, &child.id().to_string()]).stderr(Stdio::null()).status().unwrap();
}

/// Runs `command` once, with a fate drawn from `dice`, that meets it within `pace` milliseconds. The report, if it was let finish.
fn once(mut command: Command, pace: usize, dice: &mut Dice, tally: &mut Tally) -> Option<serde_json::Value> {
    let fate = [Fate::Spared, Fate::Spared, Fate::Killed, Fate::Killed, Fate::Stopped][dice.throw(5)];
    let child = command.args(["--output", "json"]).spawn().unwrap();
    match fate {
        Fate::Spared => {}
        Fate::Killed => {
            wait(dice.throw(pace));
            signal(&child, "-KILL");
        }
        Fate::Stopped => {
            wait(dice.throw(pace));
            signal(&child, "-STOP");
            wait(300 + dice.throw(700));
            signal(&child, "-CONT");
        }
    }
    let ended = child.wait_with_output().unwrap();
    let Some(code) = ended.status.code() else {
        tally.count("killed");
        return None;
    };
    if fate == Fate::Stopped {
        tally.count("stopped, and went on");
    }
    tally.count(format!("exit code {code}"));
    let told = String::from_utf8_lossy(&ended.stderr);
    assert!(code == 0 || code == 75, "{code}: {told}");
    (code == 0).then(|| serde_json::from_slice(&ended.stdout).unwrap())
}

/// Where they meet.
struct Race<'a> {
    table: &'a str,
    folder: &'a Path,
    watch: &'a Stopwatch,
    seconds: f64,
    /// Milliseconds within which a process meets its fate.
    pace: usize,
}

/// Ingests batch after batch, each until it is done.
fn writes(number: usize, race: &Race<'_>) -> Did {
    let Race { table, folder, watch, seconds, pace } = *race;
    let (mut did, mut dice) = (Did::default(), Dice::new(number as u64 + 1));
    for batch in 0.. {
        if batch > 0 && watch.seconds() > seconds {
            break;
        }
        // Half of them near where the others are just now, so that they meet.
        let first = if dice.throw(2) == 0 { batch * ROWS / 2 } else { dice.throw(KEYS) };
        let key = |i: usize| format!("key-{}", (first + i) % KEYS);
        let event = |i: usize| Event { id: Some(key(i)), n: number as i64 };
        let events: Vec<Event> = (0..ROWS).map(event).collect();
        let shape = if batch % 2 == 0 { Shape::Ndjson } else { Shape::Parquet { group: 400 } };
        let source = table::write(folder, &format!("{number}-{batch}"), shape, &events);
        let report = loop {
            let mut command = ingest(&source, table);
            if batch % 3 == 0 {
                command.args(["--batch-id", &format!("{number}-{batch}")]);
            }
            if let Some(report) = once(command, pace, &mut dice, &mut did.tally) {
                break report;
            }
        };
        assert_eq!(report["read"], ROWS, "{report}");
        did.tally.count("batch done");
        did.keys.extend(events.into_iter().filter_map(|event| event.id));
        std::fs::remove_file(source).unwrap();
    }
    did
}

fn ingest(source: &PathBuf, table: &str) -> Command {
    let mut command = dedupe();
    command.arg("ingest").arg(source).arg("--into").arg(table).args(["--key", "id"]);
    command.args(["--threads", "1", "--memory", "32MiB", "--target-file-size", "20KB"]);
    command
}

fn tidies(race: &Race<'_>) -> Did {
    let (mut did, mut dice) = (Did::default(), Dice::new(99));
    // However slow the machine is: each at least once.
    let never = |did: &Did| did.tally.of("compaction done") == 0 || did.tally.of("vacuum done") == 0;
    while race.watch.seconds() < race.seconds || never(&did) {
        let mut command = dedupe();
        command.arg("compact").arg(race.table).args(["--memory", "32MiB"]);
        if once(command, race.pace, &mut dice, &mut did.tally).is_some() {
            did.tally.count("compaction done");
        }
        let mut command = dedupe();
        command.arg("vacuum").arg(race.table).args(["--grace", ["0", "1s"][dice.throw(2)]]);
        if once(command, race.pace, &mut dice, &mut did.tally).is_some() {
            did.tally.count("vacuum done");
        }
        wait(200);
    }
    did
}

fn race(table: &str, pace: usize) {
    let (folder, watch) = (tempfile::tempdir().unwrap(), Stopwatch::start());
    // Somebody must have made the table before it can be compacted.
    let first =
        table::write(folder.path(), "first", Shape::Ndjson, &[Event { id: Some("key-0".into()), n: 0 }]);
    assert!(ingest(&first, table).output().unwrap().status.success());
    let race = Race { table, folder: folder.path(), watch: &watch, seconds: seconds(), pace };
    let race = &race;
    let done: Vec<Did> = std::thread::scope(|scope| {
        let mut running: Vec<_> = (0..WRITERS).map(|n| scope.spawn(move || writes(n, race))).collect();
        running.push(scope.spawn(move || tidies(race)));
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (mut expected, mut tally) = (HashSet::from(["key-0".to_owned()]), Tally::default());
    for did in done {
        expected.extend(did.keys);
        tally.merge(did.tally);
    }
    println!("{tally}{} keys in {:.0} s", expected.len(), watch.seconds());
    is_exact(table, &expected);
    for what in ["killed", "stopped", "batch done", "compaction done", "vacuum done"] {
        assert!(tally.of(what) > 0, "never {what}");
    }
}

/// Every expected key has one row, and nothing else is there.
fn is_exact(table: &str, expected: &HashSet<String>) {
    let store = Store::open(table, &[]).unwrap();
    let runtime = table::runtime();
    let mut ledger = runtime.block_on(Ledger::open(store.clone())).unwrap().unwrap();
    runtime.block_on(ledger.read_files()).unwrap();
    let report = runtime.block_on(verify(&ledger, &VerifyOptions::default())).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    let folder = tempfile::tempdir().unwrap();
    let (mut rows, mut found) = (0, HashSet::new());
    for name in ledger.state().files().unwrap().keys() {
        let bytes = runtime.block_on(store.get(name)).unwrap().unwrap();
        let file = folder.path().join("file.parquet");
        std::fs::write(&file, bytes).unwrap();
        let events = table::events(&file);
        rows += events.len();
        found.extend(events.into_iter().filter_map(|event| event.id));
    }
    assert_eq!((rows, found.len()), (expected.len(), expected.len()), "rows, distinct keys");
    assert!(found == *expected);
    assert_eq!(ledger.state().rows.accepted, expected.len() as u64);
}

#[test]
fn on_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    race(folder.path().join("table").to_str().unwrap(), 60);
}

/// Runs on a fresh folder in the bucket or container that `variable` names.
fn on_emulator(variable: &str) {
    let Ok(base) = std::env::var(variable) else {
        return println!("not tested: {variable} is not set");
    };
    let unique = dedupe::random::identity().unwrap();
    race(&format!("{}/tests/{unique}", base.trim_end_matches('/')), 400);
}

#[test]
fn emulator_s3_keeps_every_key_once() {
    on_emulator("DEDUPE_TEST_S3");
}

#[test]
fn emulator_azure_keeps_every_key_once() {
    on_emulator("DEDUPE_TEST_AZURE");
}
