//! `kill -9` at random moments of an ingest, tens of times: afterwards the table verifies, and a run that is let
//! finish completes it with exactly the rows that a plain set would keep.

use std::collections::HashSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::table::{self, Event, Shape};
use dedupe::clock::Stopwatch;

const KILLS: u32 = 40;

fn ingest(table: &Path, source: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dedupe"));
    command.arg("ingest").arg(source).arg("--into").arg(table);
    command.args(["--key", "id", "--memory", "16MiB", "--target-file-size", "200KB"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a kill at a moment needs a clock")]
fn at_any_moment() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table");
    let event = |i: i64| Event { id: Some(format!("key-{}", i * i % 30_011)), n: i };
    let mut known = HashSet::new();
    let mut expected = Vec::new();
    // How long an undisturbed run takes tells where the moments are.
    let start = Stopwatch::start();
    let warm =
        table::write(folder.path(), "warm", Shape::Ndjson, &(0..20_000).map(event).collect::<Vec<_>>());
    assert!(ingest(&table, &warm).status().unwrap().success());
    expected.extend(table::first_of_each(&mut known, &table::events_of_text(&warm)));
    let mut whole = Duration::from_secs_f64(start.seconds());
    let mut killed = 0;
    for round in 0..KILLS {
        let rows = (0..20_000i64).map(|i| event(i + 10_000 * i64::from(round)));
        let shape = if round % 2 == 0 { Shape::Ndjson } else { Shape::Parquet { group: 1_500 } };
        let rows: Vec<Event> = rows.collect();
        let source = table::write(folder.path(), &format!("round-{round}"), shape, &rows);
        let mut child = ingest(&table, &source).spawn().unwrap();
        // Spread over the whole run, the end included: low-discrepancy instead of random, so that it can be repeated.
        let share = f64::from(round) * 0.618_034 % 1.0;
        std::thread::sleep(whole.mul_f64(share));
        killed += u32::from(child.kill().is_ok() && !child.wait().unwrap().success());
        if table.join("_dedupe/table.json").exists() {
            assert_eq!(table::problems(&table), Vec::<String>::new(), "after kill {round}");
        }
        let start = Stopwatch::start();
        assert!(ingest(&table, &source).status().unwrap().success(), "after kill {round}");
        whole = Duration::from_secs_f64(start.seconds());
        expected.extend(table::first_of_each(&mut known, &rows));
    }
    assert_eq!(table::problems(&table), Vec::<String>::new());
    assert_eq!(table::rows(&table), expected);
    assert!(killed > KILLS / 4, "only {killed} of {KILLS} runs were killed in time");
}
