//! `dedupe ingest --sql`: the binary itself.

use std::fs::File;
use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, RecordBatch, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::parquet::arrow::ArrowWriter;
use serde_json::{Value, json};

#[allow(dead_code, reason = "others use the rest of it")]
#[path = "../cli/scene.rs"]
mod scene;
use scene::Scene;

const ERRORS: &str = "SELECT id, msg, n + 1 AS n FROM source WHERE level = 'error'";

/// A table row as the file has it: `level` and `msg` may be absent.
fn parquet(scene: &Scene, name: &str, rows: &[(&str, &str, i64)]) {
    let field = |name: &str, kind| Field::new(name, kind, true);
    // Another order than in the text, one column more, and one less.
    let schema = Arc::new(Schema::new(vec![
        field("n", DataType::Int64),
        field("level", DataType::Utf8),
        field("id", DataType::Utf8),
        field("extra", DataType::Int64),
    ]));
    let columns: Vec<Arc<dyn datafusion::arrow::array::Array>> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1))),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
    ];
    let mut writer =
        ArrowWriter::try_new(File::create(scene.path(name)).unwrap(), schema.clone(), None).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.close().unwrap();
}

/// Text and Parquet: five errors with four keys, one of them without a key, a bad line, and rows that are no errors.
fn landing() -> Scene {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("raw")).unwrap();
    scene.write(
        "raw/a.ndjson",
        "{\"id\":\"a\",\"level\":\"error\",\"msg\":\"first\",\"n\":1}\n\
         {\"id\":\"b\",\"level\":\"info\",\"msg\":\"fine\",\"n\":2}\n\
         {broken\n\
         {\"id\":\"a\",\"level\":\"error\",\"msg\":\"again\",\"n\":3}\n\
         {\"id\":null,\"level\":\"error\",\"msg\":\"nobody\",\"n\":4}\n",
    );
    parquet(&scene, "raw/b.parquet", &[("a", "error", 5), ("c", "error", 6), ("d", "info", 7)]);
    scene
}

fn ingest(scene: &Scene, sql: &str, more: &[&str]) -> Value {
    scene.answer(&[&["ingest", "raw", "--into", "t", "--key", "id", "--sql", sql], more].concat())
}

fn rows(scene: &Scene, columns: &str) -> Value {
    scene.answer(&["sql", "t", &format!("SELECT {columns} FROM t ORDER BY id")])["rows"].clone()
}

fn counts(report: &Value) -> [u64; 5] {
    ["read", "accepted", "duplicate", "replayed", "rejected"].map(|name| report[name].as_u64().unwrap())
}

fn sound(scene: &Scene) {
    let report = scene.answer(&["verify", "t"]);
    assert_eq!(report["problems"], json!([]), "{report}");
}

#[test]
fn what_the_query_gives_is_ingested_and_what_cannot_be_read_is_kept_out() {
    let scene = landing();
    let report = ingest(&scene, ERRORS, &[]);
    // Five rows of the query, and the line that gave none.
    assert_eq!(counts(&report), [6, 2, 2, 0, 2], "{report}");
    assert_eq!((&report["created"], &report["sources"]), (&true.into(), &2.into()), "{report}");
    assert_eq!(
        rows(&scene, "*"),
        json!([{"id": "a", "msg": "first", "n": 2}, {"id": "c", "msg": null, "n": 7}])
    );
    let kept_out = scene.run(&["quarantine", "t", "--print"]);
    let kept_out: Vec<Value> = std::fs::read_to_string(report["quarantine"][0].as_str().unwrap())
        .unwrap_or(kept_out.out)
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let of =
        |source: &str| kept_out.iter().find(|row| row["source"].as_str().unwrap().ends_with(source)).unwrap();
    assert_eq!((&of("a.ndjson")["line"], &of("a.ndjson")["raw"]), (&3.into(), &"{broken".into()));
    let nobody = of(ERRORS);
    assert_eq!(nobody["source"], format!("sql:{ERRORS}"));
    assert_eq!(nobody["record"]["msg"], "nobody");
    // What it was, and whence a row came, can be told later.
    let explained = scene.run(&["explain", "t", "--key", "id=c"]);
    assert!(explained.out.contains("sql:SELECT id, msg"), "{explained:?}");
    sound(&scene);
}

#[test]
fn the_same_query_over_the_same_sources_is_not_run_again() {
    let scene = landing();
    ingest(&scene, ERRORS, &[]);
    let again = ingest(&scene, &format!("  {ERRORS}\n"), &[]);
    assert_eq!(counts(&again), [5, 0, 0, 5, 0], "{again}");
    assert_eq!(
        (&again["committed"], &again["version"], &again["sources"]),
        (&false.into(), &1.into(), &2.into())
    );
    // With another word in it, it is another one.
    let other = ingest(&scene, "SELECT id, msg, n FROM source WHERE level = 'error'", &[]);
    assert_eq!(counts(&other), [6, 0, 4, 0, 2], "{other}");
    let reread = ingest(&scene, ERRORS, &["--reread"]);
    assert_eq!(counts(&reread), [6, 0, 4, 0, 2], "{reread}");
    // Over one more source, too.
    parquet(&scene, "raw/c.parquet", &[("c", "error", 8), ("e", "error", 9)]);
    let more = ingest(&scene, ERRORS, &[]);
    assert_eq!(counts(&more), [8, 1, 5, 0, 2], "{more}");
    // The files themselves were not consumed.
    let plain = scene.answer(&["ingest", "raw", "--into", "t"]);
    assert_eq!(counts(&plain)[..2], [10, 2], "{plain}");
    sound(&scene);
}

#[test]
fn a_batch_is_a_query_over_sources() {
    let scene = landing();
    let first = ingest(&scene, ERRORS, &["--batch-id", "one"]);
    let again = ingest(&scene, ERRORS, &["--batch-id", "one"]);
    assert_eq!((&again["batch_replayed"], &again["version"]), (&true.into(), &1.into()), "{again}");
    assert_eq!((counts(&again), &again["sources"]), (counts(&first), &first["sources"]));
    let args = ["ingest", "raw", "--into", "t", "--batch-id", "one"];
    for other in [&["--sql", "SELECT id FROM source"][..], &[]] {
        let (code, refused) = scene.json(&[&args, other].concat());
        assert_eq!((code, &refused["error"]["kind"]), (1, &"refused".into()), "{refused}");
    }
    // One more batch over what was consumed before is committed, with nothing in it.
    let second = ingest(&scene, ERRORS, &["--batch-id", "two"]);
    assert_eq!((counts(&second), &second["version"]), ([5, 0, 0, 5, 0], &2.into()), "{second}");
    sound(&scene);
}

#[test]
fn all_of_sql_that_reads() {
    for (sql, expected) in [
        // The first of the result is kept.
        (
            "SELECT id, n FROM source WHERE id IS NOT NULL ORDER BY n DESC",
            json!([["a", 5], ["b", 2], ["c", 6], ["d", 7]]),
        ),
        (
            "SELECT id, sum(n) AS n FROM source WHERE id IS NOT NULL GROUP BY id",
            json!([["a", 9], ["b", 2], ["c", 6], ["d", 7]]),
        ),
        (
            "SELECT a.id, b.n FROM source a JOIN source b ON a.n = b.n + 1 WHERE a.id IS NOT NULL",
            json!([["a", 2], ["b", 1], ["c", 5], ["d", 6]]),
        ),
        ("SELECT id, n FROM source ORDER BY n LIMIT 2", json!([["a", 1], ["b", 2]])),
        ("SELECT 'x' AS id, count(*) AS n FROM source", json!([["x", 7]])),
        ("SELECT 'y' AS id, count(extra) AS n FROM source", json!([["y", 3]])),
        ("SELECT id, n FROM source WHERE n = (SELECT max(n) FROM source)", json!([["d", 7]])),
    ] {
        let scene = landing();
        let report = ingest(&scene, sql, &["--memory", "64MiB"]);
        // The bad line is told once, however often the sources are read.
        assert_eq!(report["rejected"], 1, "{sql}: {report}");
        let found = scene.answer(&["sql", "t", "SELECT id, n FROM t ORDER BY id"])["rows"].clone();
        let found: Vec<Value> =
            found.as_array().unwrap().iter().map(|row| json!([row["id"], row["n"]])).collect();
        assert_eq!(Value::from(found), expected, "{sql}");
        sound(&scene);
    }
}

#[test]
fn what_makes_no_sense_is_refused_and_writes_nothing() {
    let scene = landing();
    for (sql, code, says) in [
        ("SELEC id FROM source", 2, "SELEC"),
        ("SELECT nothing FROM source", 2, "nothing"),
        ("SELECT id FROM elsewhere", 2, "elsewhere"),
        ("DROP TABLE source", 2, "DDL not supported"),
        ("INSERT INTO source SELECT * FROM source", 2, "DML not supported"),
        ("SELECT msg FROM source", 2, "key column \"id\" is missing; the columns are msg"),
        ("SELECT id, id FROM source", 2, "id"),
        ("SELECT a.id, b.id FROM source a JOIN source b ON a.n = b.n", 1, "two columns named"),
        ("SELECT id, 1 / (n - 2) AS n FROM source", 1, "ivide by zero"),
    ] {
        let (found, reply) = scene.json(&["ingest", "raw", "--into", "t", "--key", "id", "--sql", sql]);
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(found == code && message.contains(says), "{sql}: {found}: {reply}");
        assert!(!scene.path("t").join("_dedupe/table.json").exists(), "{sql}");
    }
    let ended = scene.run(&["ingest", "raw", "--into", "t", "--sql", ERRORS]);
    assert!(ended.code == 2 && ended.err.contains("--key"), "{ended:?}");
    let ended = scene.run(&["ingest", "raw", "--into", "t", "--sql", ERRORS, "--schema", "s.json"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    // Rows that do not fit a table are refused as those of a file are.
    ingest(&scene, ERRORS, &[]);
    let (code, reply) =
        scene.json(&["ingest", "raw", "--into", "t", "--sql", "SELECT id, level AS n FROM source"]);
    assert_eq!((code, &reply["error"]["kind"]), (1, &"refused".into()), "{reply}");
}

#[test]
fn bad_rows_and_bad_files_are_met_as_asked() {
    let scene = landing();
    let args = ["ingest", "raw", "--into", "t", "--key", "id", "--sql", ERRORS];
    let (code, reply) = scene.json(&[&args[..], &["--on-bad-row", "fail"]].concat());
    assert_eq!((code, &reply["error"]["kind"]), (1, &"input".into()), "{reply}");
    assert!(reply["error"]["message"].as_str().unwrap().contains("a.ndjson: line 3"), "{reply}");
    let (code, reply) = scene.json(&[&args[..], &["--null-key", "fail"]].concat());
    assert_eq!((code, &reply["error"]["kind"]), (1, &"input".into()), "{reply}");
    let whole = std::fs::read(scene.path("raw/b.parquet")).unwrap();
    // Of one the footer is damaged, of the other the pages.
    let mut pages = whole.clone();
    pages[4..40].fill(0xff);
    for damaged in [&whole[..whole.len() - 20], &pages] {
        let scene = landing();
        std::fs::write(scene.path("raw/b.parquet"), damaged).unwrap();
        let (code, reply) = scene.json(&args);
        assert_eq!((code, &reply["error"]["kind"]), (1, &"input".into()), "{reply}");
        let report = scene.answer(&[&args[..], &["--on-bad-file", "skip"]].concat());
        assert_eq!((counts(&report)[1], report["skipped"].as_array().unwrap().len()), (1, 1), "{report}");
        assert_eq!(report["sources"], 1, "{report}");
        // It is missed: the same command reads all again, and finds it mended.
        std::fs::write(scene.path("raw/b.parquet"), &whole).unwrap();
        let report = scene.answer(&args);
        assert_eq!(counts(&report)[1], 1, "{report}");
        sound(&scene);
    }
}

#[test]
fn columns_that_turn_up_behind_a_sample_are_an_error() {
    let scene = Scene::new();
    std::fs::create_dir(scene.path("raw")).unwrap();
    scene.write("raw/a.ndjson", "{\"id\":\"a\"}\n{\"id\":\"b\",\"late\":1}\n");
    let args = ["ingest", "raw", "--into", "t", "--key", "id", "--sql", "SELECT * FROM source"];
    let (code, reply) = scene.json(&[&args[..], &["--sample-rows", "1"]].concat());
    assert_eq!((code, &reply["error"]["kind"]), (1, &"input".into()), "{reply}");
    assert_eq!(counts(&scene.answer(&args))[1], 2);
}

#[test]
fn a_dry_run_writes_nothing() {
    let scene = landing();
    let report = ingest(&scene, ERRORS, &["--dry-run"]);
    assert_eq!(counts(&report), [6, 2, 2, 0, 2], "{report}");
    assert!(!scene.path("t").exists());
}

#[test]
fn standard_input_is_read_once() {
    use std::io::Write;
    use std::process::Stdio;
    let scene = Scene::new();
    let args = [
        "ingest",
        "-",
        "--into",
        "t",
        "--key",
        "id",
        "--sql",
        "SELECT id FROM source WHERE n > 0",
        "--output",
        "json",
    ];
    let mut command = scene.command(&args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(scene::lines(["a", "b", "c", "b"]).as_bytes()).unwrap();
    let ended = scene::Ended::of(child.wait_with_output().unwrap());
    let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
    assert_eq!(counts(&report), [3, 2, 1, 0, 0], "{report}");
}

#[cfg(unix)]
#[test]
#[expect(clippy::disallowed_methods, reason = "a signal at a moment needs a clock")]
fn an_interrupt_stops_before_the_commit() {
    use std::io::{BufRead, BufReader, Write};
    use std::process::{Command, Stdio};
    let scene = Scene::with_table();
    let args = ["ingest", "-", "--into", "t", "--sql", "SELECT id, n FROM source"];
    let mut command = scene.command(&args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // More than is looked at to find a schema, so that rows are read and judged, and then nothing more comes.
    let mut stdin = child.stdin.take().unwrap();
    let line = format!("{{\"id\":\"x\",\"n\":1,\"pad\":\"{}\"}}\n", "x".repeat(1000));
    stdin.write_all(line.repeat((17 << 20) / line.len()).as_bytes()).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(700));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let mut first = String::new();
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "stopping before the commit (once more to end at once)\n");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    drop(stdin);
    assert_eq!(scene.answer(&["status", "t"])["version"], 1);
}
