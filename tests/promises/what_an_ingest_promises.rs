//! Whole runs of the command on the small test data, against the truth that lies beside it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use crate::scene::{Scene, lines};
use crate::table::{self, Event, Shape};
use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use base64::Engine;
use parquet::arrow::ArrowWriter;
use parquet::file::reader::{FileReader, SerializedFileReader};
use serde_json::Value;

fn data(name: &str) -> String {
    format!("{}/testdata/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn truth() -> Value {
    serde_json::from_str(&std::fs::read_to_string(data("truth.json")).unwrap()).unwrap()
}

/// An ingest of test data that must succeed.
fn ingest(scene: &Scene, sources: &[&str], more: &[&str]) -> Value {
    let sources: Vec<String> = sources.iter().map(|name| data(name)).collect();
    let args: Vec<&str> = ["ingest"].into_iter().chain(sources.iter().map(String::as_str)).collect();
    scene.answer(&[&args[..], &["--into", "t"], more].concat())
}

/// An ingest of test data that must fail: its exit code and message.
fn refused(scene: &Scene, sources: &[&str], more: &[&str]) -> (i32, String) {
    let sources: Vec<String> = sources.iter().map(|name| data(name)).collect();
    let args: Vec<&str> = ["ingest"].into_iter().chain(sources.iter().map(String::as_str)).collect();
    let (code, answer) = scene.json(&[&args[..], &["--into", "t"], more].concat());
    (code, answer["error"]["message"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned())
}

fn counts(report: &Value) -> [u64; 5] {
    ["read", "accepted", "duplicate", "replayed", "rejected"].map(|name| report[name].as_u64().unwrap())
}

fn is_sound(scene: &Scene) {
    let verified = scene.answer(&["verify", "t"]);
    assert_eq!(verified["ok"], true, "{verified}");
}

/// Every file below a folder with its content.
fn tree(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                all.insert(path.display().to_string(), std::fs::read(&path).unwrap());
            }
        }
    }
    all
}

/// The names of a table's rows' folders, with the rows in each.
fn rows_by_folder(scene: &Scene) -> BTreeMap<String, u64> {
    let files = scene.answer(&["files", "t"]);
    let mut folders = BTreeMap::new();
    for file in files["files"].as_array().unwrap() {
        let path = file["path"].as_str().unwrap();
        let folder = path.rsplit_once("/data/").unwrap().1.rsplit_once('/').map_or("", |(folder, _)| folder);
        *folders.entry(folder.to_owned()).or_default() += file["rows"].as_u64().unwrap();
    }
    folders
}

#[test]
fn eight_files_in_all_formats_keep_the_first_of_each_key() {
    let truth = &truth()["orders"];
    for key in ["event_id", "order_id,status", "customer", "items"] {
        let scene = Scene::new();
        let report = ingest(&scene, &["orders"], &["--key", key]);
        let expected = &truth["together"][key];
        assert_eq!(report["read"], expected["rows"]);
        assert_eq!(report["accepted"], expected["accepted_quarantine"], "{key}");
        is_sound(&scene);
    }
}

#[test]
fn a_batch_is_committed_once_and_stands_for_its_sources() {
    let scene = Scene::new();
    let batch = ["--key", "event_id", "--batch-id", "monday"];
    let first = ingest(&scene, &["orders/part-1.parquet", "orders/part-2.parquet"], &batch);
    let again = ingest(&scene, &["orders/part-1.parquet", "orders/part-2.parquet"], &batch);
    assert_eq!(counts(&again), counts(&first));
    assert_eq!((&again["version"], &again["batch_replayed"]), (&first["version"], &true.into()));
    let before = tree(&scene.path("t"));
    let (code, message) = refused(&scene, &["orders/part-1.parquet"], &batch);
    assert_eq!(code, 1);
    assert!(message.contains("\"monday\"") && message.contains("version 1"), "{message}");
    // Another batch of the same sources is a commit of its own, in which all rows were replayed.
    let other = ingest(&scene, &["orders/part-1.parquet"], &["--batch-id", "tuesday"]);
    assert_eq!((counts(&other), &other["committed"]), ([200, 0, 0, 200, 0], &true.into()));
    assert_eq!(before.len() + 1, tree(&scene.path("t")).len(), "nothing but a manifest was added");
    assert_eq!(scene.answer(&["outcome", "t", "tuesday"])["version"], 2);
    is_sound(&scene);
}

#[test]
fn a_source_is_read_again_only_on_request() {
    let scene = Scene::new();
    ingest(&scene, &["bad/null-keys.ndjson"], &["--key", "id", "--null-key", "keep"]);
    let recognised = ingest(&scene, &["bad/null-keys.ndjson"], &[]);
    assert_eq!(counts(&recognised), [8, 0, 0, 8, 0]);
    // Rows without a key cannot be recognised one by one: their source can.
    let reread = ingest(&scene, &["bad/null-keys.ndjson"], &["--reread"]);
    assert_eq!(counts(&reread), [8, 0, 4, 4, 0]);
    assert_eq!(scene.answer(&["status", "t"])["rows"], 5);
    is_sound(&scene);
}

#[test]
fn rows_without_a_key_are_set_aside_or_kept_or_stop_the_run() {
    let truth = &truth()["bad"]["null-keys"]["files"];
    for (file, keys) in truth.as_object().unwrap() {
        let source = format!("bad/{file}");
        for (key, expected) in keys.as_object().unwrap() {
            let scene = Scene::new();
            let set_aside = ingest(&scene, &[&source], &["--key", key]);
            assert_eq!(set_aside["accepted"], expected["accepted_quarantine"], "{file} {key}");
            assert_eq!(set_aside["rejected"], expected["keyless"], "{file} {key}");
            is_sound(&scene);
            let scene = Scene::new();
            let kept = ingest(&scene, &[&source], &["--key", key, "--null-key", "keep"]);
            assert_eq!(kept["accepted"], expected["accepted_keep"], "{file} {key}");
            assert_eq!(kept["rejected"], 0);
            is_sound(&scene);
            let scene = Scene::new();
            let (code, message) = refused(&scene, &[&source], &["--key", key, "--null-key", "fail"]);
            assert!(code == 1 && message.contains(file.as_str()), "{message}");
            assert!(!scene.path("t/_dedupe/table.json").exists(), "a table of a run that failed");
        }
    }
}

#[test]
fn a_bad_row_stops_the_run_if_asked() {
    let scene = Scene::new();
    let (code, message) =
        refused(&scene, &["bad/malformed.ndjson"], &["--key", "id", "--on-bad-row", "fail"]);
    assert_eq!(code, 1);
    assert!(message.contains("malformed.ndjson") && message.contains("line 2 (byte 20)"), "{message}");
    assert!(!scene.path("t/_dedupe/table.json").exists(), "a table of a run that failed");
}

#[test]
fn what_was_kept_out_lies_in_quarantine_line_by_line() {
    let scene = Scene::new();
    let truth = &truth()["bad"]["malformed.ndjson"];
    let report = ingest(&scene, &["bad/malformed.ndjson"], &["--key", "id"]);
    let expected = truth["rejected"].as_array().unwrap();
    assert_eq!(counts(&report), [17, 3, 0, 0, expected.len() as u64]);
    let bytes = std::fs::read(data("bad/malformed.ndjson")).unwrap();
    let path = report["quarantine"][0].as_str().unwrap();
    let text = std::fs::read_to_string(path).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), expected.len());
    for (row, expected) in rows.iter().zip(expected) {
        assert_eq!((&row["line"], &row["offset"]), (&expected["line"], &expected["offset"]), "{row}");
        assert_eq!(row["source"], data("bad/malformed.ndjson"));
        assert!(!row["reason"].as_str().unwrap().is_empty());
        let raw = match (row["raw"].as_str(), row["raw_base64"].as_str()) {
            (Some(text), None) => text.as_bytes().to_vec(),
            (None, Some(text)) => base64::engine::general_purpose::STANDARD.decode(text).unwrap(),
            _ => panic!("{row}"),
        };
        let start = expected["offset"].as_u64().unwrap() as usize;
        let line = bytes[start..].split(|b| *b == b'\n').next().unwrap();
        assert_eq!(raw, line);
    }
    is_sound(&scene);
}

#[test]
fn rows_of_parquet_without_a_key_are_quarantined_as_records() {
    let scene = Scene::new();
    let report = ingest(&scene, &["bad/null-keys.parquet"], &["--key", "id"]);
    let text = std::fs::read_to_string(report["quarantine"][0].as_str().unwrap()).unwrap();
    let rows: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.iter().map(|row| row["row"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2, 3, 5]);
    assert_eq!(rows[0]["record"]["tenant"], "a");
}

#[test]
fn rows_without_a_key_keep_their_places_in_a_row_group_that_is_judged_in_pieces() {
    // A piece has some 65,000 rows with so little memory.
    let scene = Scene::new();
    let ids: Int64Array = (0..150_000).map(|row| (row % 40_000 != 7).then_some(row)).collect();
    let numbers: Int64Array = (0..150_000).map(Some).collect();
    let columns: [(&str, ArrayRef); 2] = [("id", Arc::new(ids)), ("n", Arc::new(numbers))];
    let batch = RecordBatch::try_from_iter_with_nullable(columns.map(|(name, array)| (name, array, true)));
    let batch = batch.unwrap();
    for name in ["one.parquet", "two.parquet"] {
        let file = File::create(scene.path(name)).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
    }
    let args = ["--into", "t", "--key", "id", "--memory", "64MiB", "--threads", "2"];
    let refused = scene.run(&[&["ingest", "two.parquet", "--null-key", "fail"][..], &args].concat());
    assert!(refused.code == 1 && refused.err.contains("row 7 has no key"), "{refused:?}");
    let report = scene.answer(&[&["ingest", "one.parquet", "two.parquet"][..], &args].concat());
    assert_eq!(counts(&report), [300_000, 149_996, 149_996, 0, 8]);
    let mut places = Vec::new();
    for file in report["quarantine"].as_array().unwrap() {
        let text = std::fs::read_to_string(file.as_str().unwrap()).unwrap();
        for line in text.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            assert_eq!(line["record"]["n"], line["row"]);
            places.push(line["row"].as_u64().unwrap());
        }
    }
    assert_eq!(places, [7, 40_007, 80_007, 120_007].repeat(2));
}

#[test]
fn an_unreadable_file_stops_the_run_or_is_left_out() {
    for bad in ["truncated.parquet", "spoilt-pages.parquet", "truncated.ndjson.gz", "text.parquet"] {
        let path = format!("bad/{bad}");
        let sources = ["orders/part-1.parquet", &path, "orders/part-3.parquet"];
        let scene = Scene::new();
        let (code, message) = refused(&scene, &sources, &["--key", "event_id"]);
        assert!(code == 1 && message.contains(bad), "{message}");
        let report = ingest(&scene, &sources, &["--key", "event_id", "--on-bad-file", "skip"]);
        assert_eq!(counts(&report), [400, 300, 100, 0, 0], "{bad}");
        assert_eq!(report["skipped"].as_array().unwrap().len(), 1);
        assert_eq!(report["skipped"][0]["url"], data(&path));
        assert!(!report["skipped"][0]["reason"].as_str().unwrap().is_empty());
        is_sound(&scene);
        // On a table that is new to this run, too.
        let scene = Scene::new();
        let report = ingest(&scene, &sources, &["--key", "event_id", "--on-bad-file", "skip"]);
        assert_eq!((&report["created"], &report["accepted"]), (&true.into(), &300.into()), "{bad}");
        assert_eq!(scene.answer(&["show", "t"])["manifest"]["skipped"][0]["url"], data(&path));
        // Nothing but bad files: there is nothing to make a table of.
        for more in [&[][..], &["--batch-id", "b"]] {
            let scene = Scene::new();
            let args = [&["--key", "event_id", "--on-bad-file", "skip"], more].concat();
            let sources = [data(&path)];
            let (code, answer) = scene.json(&[&["ingest", &sources[0], "--into", "t"], &args[..]].concat());
            assert!(!answer.to_string().contains("internal error"), "{answer}");
            assert!(answer.to_string().contains(bad) && code < 2, "{answer}");
        }
    }
}

#[test]
fn a_table_keeps_its_key() {
    let scene = Scene::new();
    ingest(&scene, &["orders/part-1.parquet"], &["--key", "order_id,status"]);
    let before = tree(&scene.path("t"));
    let (code, message) = refused(&scene, &["orders/part-2.parquet"], &["--key", "event_id"]);
    assert_eq!(code, 1);
    assert!(message.contains("order_id,status") && message.contains("event_id"), "{message}");
    assert_eq!(tree(&scene.path("t")), before);
    assert_eq!(ingest(&scene, &["orders/part-2.parquet"], &["--key", "order_id,status"])["accepted"], 150);
}

#[test]
fn producers_may_change_as_long_as_nothing_is_lost() {
    let scene = Scene::new();
    let truth = &truth()["drift"];
    let survivors = truth["survivors_by_id"].as_object().unwrap();
    for (n, (file, ranges)) in survivors.iter().enumerate() {
        let report = ingest(&scene, &[&format!("drift/{file}")], &["--key", "id"]);
        let rows = |range: &Value| range[1].as_u64().unwrap() - range[0].as_u64().unwrap() + 1;
        let expected: u64 = ranges.as_array().unwrap().iter().map(rows).sum();
        assert_eq!(report["accepted"], expected, "{file}");
        let widens = !report["new_columns"].as_array().unwrap().is_empty();
        assert_eq!(widens, n == 1 || n == 5, "{report}");
    }
    is_sound(&scene);
    let before = tree(&scene.path("t"));
    for file in truth["refused"].as_array().unwrap() {
        let file = format!("drift/{}", file.as_str().unwrap());
        let (code, message) = refused(&scene, &[&file], &[]);
        assert!(code == 1 && message.contains(&file), "{message}");
    }
    assert_eq!(tree(&scene.path("t")), before, "nothing is written");
    let report = ingest(&scene, &["drift/incompatible.ndjson"], &[]);
    assert_eq!((&report["accepted"], &report["rejected"]), (&2.into(), &4.into()));
    let text = std::fs::read_to_string(report["quarantine"][0].as_str().unwrap()).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["line"].clone());
    assert_eq!(Value::Array(lines.collect()), truth["incompatible.ndjson"]["rejected_lines"]);
    is_sound(&scene);
}

#[test]
fn a_dry_run_tells_the_future_and_writes_nothing() {
    let scene = Scene::new();
    let dry = ["--key", "event_id", "--dry-run"];
    let report = ingest(&scene, &["orders"], &dry);
    assert_eq!(counts(&report), [1456, 900, 556, 0, 0]);
    assert!(tree(&scene.path("")).is_empty() && !scene.path("t").exists());
    ingest(&scene, &["orders/part-1.parquet"], &["--key", "event_id"]);
    let before = tree(&scene.path(""));
    let told = ingest(&scene, &["orders"], &["--dry-run"]);
    assert_eq!(counts(&told), [1456, 700, 556, 200, 0]);
    // Quarantine is not written either.
    let keyless = data("bad/null-keys.ndjson");
    let told = scene.answer(&["ingest", &keyless, "--into", "new", "--key", "id", "--dry-run"]);
    assert_eq!((counts(&told), &told["quarantine"]), ([8, 1, 3, 0, 4], &serde_json::json!([])));
    assert_eq!(tree(&scene.path("")), before);
}

#[test]
fn standard_input_is_read_once() {
    let scene = Scene::new();
    for (accepted, duplicate) in [(120, 6), (0, 126)] {
        let args = ["ingest", "-", "--into", "t", "--key", "event_id", "--output", "json"];
        let mut command = scene.command(&args);
        command.stdin(File::open(data("orders/part-4.ndjson")).unwrap());
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        // It has no identity, so its rows are judged one by one.
        assert_eq!(counts(&report), [126, accepted, duplicate, 0, 0], "{report}");
    }
    is_sound(&scene);
}

/// Beyond what is kept of its beginning to find a schema, and whether it is compressed or not.
#[test]
fn long_standard_input_loses_nothing() {
    let padding = "x".repeat(150);
    let events: Vec<Event> =
        (0..110_000).map(|n| Event { id: Some(format!("{padding}{}", n * 7919 % 100_003)), n }).collect();
    let expected = table::first_of_each(&mut Default::default(), &events);
    for shape in [Shape::Ndjson, Shape::NdjsonGzip, Shape::NdjsonZstd] {
        let scene = Scene::new();
        let source = table::write(&scene.path(""), "long", shape, &events);
        if shape == Shape::Ndjson {
            assert!(std::fs::metadata(&source).unwrap().len() > 17 << 20);
        }
        let mut command = scene.command(&["ingest", "-", "--into", "t", "--key", "id", "--output", "json"]);
        command.stdin(File::open(&source).unwrap());
        let report: Value = serde_json::from_slice(&command.output().unwrap().stdout).unwrap();
        let (all, kept) = (events.len() as u64, expected.len() as u64);
        assert_eq!(counts(&report), [all, kept, all - kept, 0, 0], "{shape:?}: {report}");
        assert_eq!(table::rows(&scene.path("t")), expected, "{shape:?}");
    }
}

#[test]
fn a_table_is_no_source_of_itself() {
    let scene = Scene::new();
    std::fs::copy(data("orders/part-1.parquet"), scene.path("part-1.parquet")).unwrap();
    scene.answer(&["ingest", ".", "--into", "t", "--key", "event_id"]);
    std::fs::copy(data("orders/part-2.parquet"), scene.path("part-2.parquet")).unwrap();
    let report = scene.answer(&["ingest", ".", "--into", "./t"]);
    assert_eq!((&report["sources"], &report["accepted"]), (&2.into(), &150.into()), "{report}");
    for source in ["t", "t/data/*.parquet"] {
        let (code, answer) = scene.json(&["ingest", source, "--into", "t"]);
        assert_eq!((code, &answer["error"]["kind"]), (2, &"usage".into()), "{answer}");
    }
    // A source that only begins like the table is one.
    std::fs::create_dir(scene.path("t2")).unwrap();
    std::fs::copy(data("orders/part-3.parquet"), scene.path("t2/part-3.parquet")).unwrap();
    assert_eq!(scene.answer(&["ingest", "t2", "--into", "t"])["read"], 200);
    is_sound(&scene);
}

#[test]
fn partitions_are_folders() {
    let scene = Scene::new();
    let report = ingest(&scene, &["clicks"], &["--key", "click_id", "--partition-by", "date(at)"]);
    assert_eq!(report["accepted"], 60);
    let none = "__HIVE_DEFAULT_PARTITION__";
    let expected = truth()["clicks"]["survivors_per_day"].as_object().unwrap().clone();
    let expected: BTreeMap<String, u64> = expected
        .iter()
        .map(|(day, rows)| (format!("at_date={}", day.replace("None", none)), rows.as_u64().unwrap()))
        .collect();
    assert_eq!(rows_by_folder(&scene), expected);
    is_sound(&scene);
    let (code, message) = refused(&scene, &["clicks"], &["--partition-by", "country"]);
    assert!(code == 1 && message.contains("date(at)") && message.contains("country"), "{message}");

    let scene = Scene::new();
    ingest(&scene, &["clicks"], &["--key", "click_id", "--partition-by", "country"]);
    let folders = rows_by_folder(&scene);
    assert_eq!(folders.values().sum::<u64>(), 60);
    assert!(
        folders.keys().all(|folder| folder.starts_with("country=") && !folder.contains('/')),
        "{folders:?}"
    );
    is_sound(&scene);
}

#[test]
fn data_files_are_closed_at_their_size() {
    let scene = Scene::new();
    let event = |n: i64| Event { id: Some(format!("key-{n:x}-{:x}", n.wrapping_mul(0x9E37_79B9_7F4A))), n };
    let events: Vec<Event> = (0..60_000).map(event).collect();
    let source = table::write(&scene.path(""), "all", Shape::Parquet { group: 1000 }, &events);
    let source = source.to_str().unwrap();
    let more = ["--target-file-size", "100KB", "--row-group-rows", "1000", "--memory", "64MiB"];
    let report = scene.answer(&[&["ingest", source, "--into", "t", "--key", "id"], &more[..]].concat());
    let files = scene.answer(&["files", "t"]);
    let sizes: Vec<u64> =
        files["files"].as_array().unwrap().iter().map(|file| file["bytes"].as_u64().unwrap()).collect();
    assert_eq!(report["files"], sizes.len());
    assert!(sizes.len() > 3, "{sizes:?}");
    let small = sizes.iter().filter(|bytes| **bytes < 100_000).count();
    assert!(small <= 1, "{sizes:?}");
    assert_eq!(table::rows(&scene.path("t")), events);
    is_sound(&scene);
}

#[test]
fn a_row_group_of_new_rows_is_copied_byte_for_byte() {
    let scene = Scene::new();
    let event = |n: i64| Event { id: Some(format!("key-{n}")), n };
    let events: Vec<Event> = (0..210_000).map(event).collect();
    let known = table::write(&scene.path(""), "known", Shape::Ndjson, &events[100_000..100_001]);
    let source = table::write(&scene.path(""), "all", Shape::Parquet { group: 70_000 }, &events);
    let (known, source) = (known.to_str().unwrap(), source.to_str().unwrap());
    scene.answer(&["ingest", known, "--into", "t", "--key", "id"]);
    let report = scene.answer(&["ingest", source, "--into", "t", "--memory", "256MiB"]);
    assert_eq!((&report["accepted"], &report["duplicate"]), (&209_999.into(), &1.into()));
    let made = table::files(&scene.path("t")).pop().unwrap();
    let chunks = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        let file = SerializedFileReader::new(File::open(path).unwrap()).unwrap();
        let groups = file.metadata().row_groups().to_vec();
        let columns = groups.iter().map(|group| {
            let columns = group.columns().iter().map(|column| {
                let (start, length) = column.byte_range();
                bytes[start as usize..(start + length) as usize].to_vec()
            });
            (group.num_rows(), columns.collect::<Vec<_>>())
        });
        columns.collect::<Vec<_>>()
    };
    let (theirs, ours) = (chunks(Path::new(source)), chunks(&made));
    assert_eq!(ours.iter().map(|(rows, _)| *rows).collect::<Vec<_>>(), [70_000, 69_999, 70_000]);
    for (group, same) in [(0, true), (1, false), (2, true)] {
        for (column, (their, our)) in theirs[group].1.iter().zip(&ours[group].1).enumerate() {
            assert_eq!(their == our, same, "row group {group}, column {column}");
        }
    }
    is_sound(&scene);
}

/// In the middle of much text, the end of which is still awaited.
#[test]
#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "a signal at a moment needs a clock")]
fn an_interrupt_before_the_commit_leaves_the_table_as_it_was() {
    let scene = Scene::with_table();
    let ledger = || tree(&scene.path("t/_dedupe/ledger"));
    let before = ledger();
    let args = ["ingest", "-", "--into", "t", "--target-file-size", "1MB", "--row-group-rows", "20000"];
    let mut command = scene.command(&args);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let text = |from: u64| -> String {
        (from..from + 100_000).map(|i| format!("{{\"id\":\"long-key-{i:040}\",\"n\":{i}}}\n")).collect()
    };
    for n in 0..4 {
        stdin.write_all(text(n * 100_000).as_bytes()).unwrap();
    }
    stdin.flush().unwrap();
    // Long enough for the handlers to stand, and for all of that to be taken in.
    std::thread::sleep(Duration::from_millis(1500));
    let id = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", String::from_utf8_lossy(&ended.stderr));
    drop(stdin);
    assert_eq!(ledger(), before);
    assert_eq!(scene.answer(&["status", "t"])["rows"], 4);
    is_sound(&scene);
    scene.write("more.ndjson", &lines(["x", "a"]));
    assert_eq!(scene.answer(&["ingest", "more.ndjson", "--into", "t"])["accepted"], 1);
}
