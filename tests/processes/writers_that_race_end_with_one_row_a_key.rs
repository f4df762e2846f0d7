//! Several processes ingest overlapping keys into one table at the same moment: every key ends with one row, every
//! process is told the truth about its own rows, and what was staged for nothing is named by no version.

use std::collections::HashSet;
use std::process::{Command, Stdio};

use crate::table::{self, Event, Shape};

fn race(writers: usize, rounds: usize, rows: i64, overlap: i64, shape: Shape) {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("table");
    let mut expected = HashSet::new();
    let mut accepted = 0;
    for round in 0..rounds {
        let mut children = Vec::new();
        for writer in 0..writers {
            let step = rows - overlap;
            let first = (round * writers + writer) as i64 * step;
            let event = |i: i64| Event { id: Some(format!("key-{i}")), n: writer as i64 };
            let events: Vec<Event> = (first..first + rows).map(event).collect();
            expected.extend(events.iter().filter_map(|event| event.id.clone()));
            let source = table::write(folder.path(), &format!("{round}-{writer}"), shape, &events);
            let mut command = Command::new(env!("CARGO_BIN_EXE_dedupe"));
            command
                .arg("ingest")
                .arg(source)
                .arg("--into")
                .arg(&table)
                .args(["--key", "id", "--output", "json"]);
            children.push(
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap(),
            );
        }
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["read"], rows);
            accepted += report["accepted"].as_u64().unwrap();
        }
    }
    let ids: Vec<String> = table::rows(&table).into_iter().filter_map(|event| event.id).collect();
    assert_eq!(ids.len(), expected.len(), "a key was doubled or lost");
    assert_eq!(ids.into_iter().collect::<HashSet<_>>(), expected);
    assert_eq!(accepted, expected.len() as u64);
    assert_eq!(table::problems(&table), Vec::<String>::new());
}

#[test]
fn with_large_commits() {
    race(4, 3, 4_000, 1_000, Shape::Parquet { group: 700 });
}

#[test]
fn with_tiny_commits_whose_tokens_stand_in_the_manifest() {
    race(6, 3, 40, 20, Shape::Ndjson);
}

#[test]
fn with_the_same_keys_from_everybody() {
    race(5, 2, 1_000, 1_000, Shape::Ndjson);
}
