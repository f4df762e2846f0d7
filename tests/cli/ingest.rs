//! `dedupe ingest`: what it says and does.

use crate::scene::{Scene, fields, lines};

const SUMMARY: [&str; 12] = [
    "table",
    "version",
    "batch",
    "read",
    "accepted",
    "duplicate",
    "replayed",
    "conflict",
    "late",
    "rejected",
    "files",
    "seconds",
];

#[test]
fn the_json_summary_has_every_promised_field() {
    let scene = Scene::new();
    scene.write("a.ndjson", &lines(["x", "y", "x"]));
    let report = scene.answer(&["ingest", "a.ndjson", "--into", "t", "--key", "id", "--batch-id", "b1"]);
    for name in SUMMARY {
        assert!(fields(&report).contains(&name), "{name}: {report}");
    }
    assert_eq!(report["table"], scene.path("t").canonicalize().unwrap().display().to_string());
    assert_eq!((&report["batch"], &report["created"]), (&"b1".into(), &true.into()));
    assert_eq!(report["read"], 3);
    assert_eq!((&report["accepted"], &report["duplicate"]), (&2.into(), &1.into()));
    let verdicts = ["accepted", "duplicate", "replayed", "conflict", "late", "rejected"];
    let sum: u64 = verdicts.iter().map(|verdict| report[verdict].as_u64().unwrap()).sum();
    assert_eq!(sum, 3);
}

#[test]
fn a_person_is_told_what_happened_in_a_few_lines() {
    let scene = Scene::new();
    scene.write("a.ndjson", &lines(["x", "y", "x"]));
    let ended = scene.run(&["ingest", "a.ndjson", "--into", "t", "--key", "id"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.starts_with("created the table, committed version 1\n"), "{}", ended.out);
    assert!(ended.out.contains("duplicate  1 (33.3 %)\n"), "{}", ended.out);
    assert_eq!(ended.err, "", "nothing goes to standard error without need");
}

#[test]
fn the_same_source_again_adds_nothing_and_is_said_to_be_replayed() {
    let scene = Scene::with_table();
    let again = scene.answer(&["ingest", "first.ndjson", "--into", "t"]);
    assert_eq!((&again["accepted"], &again["replayed"]), (&0.into(), &5.into()), "{again}");
    let reread = scene.answer(&["ingest", "first.ndjson", "--into", "t", "--reread"]);
    assert_eq!((&reread["accepted"], &reread["read"]), (&0.into(), &5.into()), "{reread}");
}

#[test]
fn a_batch_that_was_committed_returns_its_first_outcome() {
    let scene = Scene::with_table();
    let again = scene.answer(&["ingest", "first.ndjson", "--into", "t", "--batch-id", "one"]);
    assert_eq!((&again["batch_replayed"], &again["committed"]), (&true.into(), &false.into()), "{again}");
    assert_eq!((&again["version"], &again["accepted"]), (&1.into(), &4.into()), "{again}");
    scene.write("other.ndjson", &lines(["z"]));
    let (code, other) = scene.json(&["ingest", "other.ndjson", "--into", "t", "--batch-id", "one"]);
    assert_eq!((code, &other["error"]["kind"]), (1, &"refused".into()), "{other}");
}

#[test]
fn a_dry_run_tells_and_does_not_write() {
    let scene = Scene::with_table();
    scene.write("second.ndjson", &lines(["d", "e"]));
    let report = scene.answer(&["ingest", "second.ndjson", "--into", "t", "--dry-run"]);
    assert_eq!((&report["accepted"], &report["duplicate"]), (&1.into(), &1.into()), "{report}");
    assert_eq!((&report["dry_run"], &report["committed"]), (&true.into(), &false.into()));
    assert_eq!(scene.answer(&["status", "t"])["rows"], 4);
    let ended = scene.run(&["ingest", "second.ndjson", "--into", "new", "--key", "id", "--dry-run"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(ended.out.starts_with("dry run: nothing was written"), "{}", ended.out);
    assert!(!scene.path("new").exists());
}

#[test]
fn standard_input_is_a_source() {
    use std::io::Write;
    use std::process::Stdio;
    let scene = Scene::new();
    let mut command = scene.command(&["ingest", "-", "--into", "t", "--key", "id", "--output", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines(["a", "a"]).as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&report["accepted"], &report["duplicate"]), (&1.into(), &1.into()), "{report}");
}

#[test]
fn parquet_that_is_taken_for_text_is_an_error_and_no_pile_of_bad_lines() {
    let scene = Scene::with_table();
    let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/orders/part-2.parquet");
    std::fs::copy(orders, scene.path("wrong.ndjson")).unwrap();
    for args in [
        &["ingest", "wrong.ndjson", "--into", "t"][..],
        &["ingest", "wrong.ndjson", "--into", "new", "--key", "id"],
    ] {
        let (code, error) = scene.json(args);
        let message = error["error"]["message"].as_str().unwrap_or_default();
        assert!(code == 1 && message.contains("--format parquet"), "{code} {error}");
    }
    assert_eq!(scene.answer(&["status", "t"])["version"], 1);
}

/// Standard input cannot be read again, so a writer that loses the race for the creation goes on with what it has read.
#[test]
#[expect(clippy::disallowed_methods, reason = "the other writer must have looked for the table")]
fn standard_input_survives_another_creator() {
    use std::io::Write;
    use std::process::Stdio;
    let scene = Scene::new();
    let mut command = scene.command(&["ingest", "-", "--into", "t", "--key", "id", "--output", "json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(["a", "b", "b"]).as_bytes()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(400));
    scene.write("theirs.ndjson", &lines(["b", "c"]));
    assert_eq!(scene.answer(&["ingest", "theirs.ndjson", "--into", "t", "--key", "id"])["created"], true);
    stdin.write_all(lines(["d", "c"]).as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["read"], &report["accepted"], &report["created"]),
        (&5.into(), &2.into(), &false.into())
    );
    assert_eq!(scene.answer(&["status", "t"])["rows"], 4);
    assert_eq!(scene.run(&["verify", "t"]).code, 0);
}

#[test]
fn the_schema_that_status_prints_can_be_given_to_a_new_table() {
    let scene = Scene::with_table();
    scene.write("schema.json", &scene.answer(&["status", "t"])["schema"].to_string());
    scene.write("later.ndjson", "{\"id\":\"q\"}\n");
    scene.answer(&["ingest", "later.ndjson", "--into", "u", "--key", "id", "--schema", "schema.json"]);
    assert_eq!(scene.answer(&["status", "u"])["schema"], scene.answer(&["status", "t"])["schema"]);
    let (code, wrong) =
        scene.json(&["ingest", "later.ndjson", "--into", "v", "--key", "id", "--schema", "later.ndjson"]);
    assert_eq!((code, &wrong["error"]["kind"]), (2, &"usage".into()), "{wrong}");
}
