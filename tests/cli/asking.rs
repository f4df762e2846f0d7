//! The commands that ask a table.

use arrow::array::{Array, AsArray, FixedSizeBinaryArray};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::scene::{Scene, fields, lines};

#[test]
fn status_tells_what_the_table_holds() {
    let scene = Scene::with_table();
    let status = scene.answer(&["status", "t"]);
    for (name, value) in
        [("version", 1), ("versions", 2), ("rows", 4), ("files", 1), ("tokens", 4), ("batches", 1)]
    {
        assert_eq!(status[name], value, "{name}: {status}");
    }
    assert_eq!(status["duplicate_rate"], 0.2);
    assert_eq!(status["key"][0]["name"], "id");
    assert_eq!(status["last_commit"]["version"], 1);
    assert!(!status.to_string().contains("siphash_key") && status["key"].as_array().unwrap().len() == 1);
    let text = scene.run(&["status", "t"]).out;
    assert!(text.contains("key             id (text)\n"), "{text}");
    assert_eq!(scene.answer(&["status", "t", "--version", "0"])["rows"], 0);
}

#[test]
fn the_tokens_random_key_is_shown_by_no_command() {
    let scene = Scene::with_table();
    let identity = std::fs::read_to_string(scene.path("t/_dedupe/table.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&identity).unwrap();
    let secret = identity["token"]["key"].as_str().unwrap();
    for command in ["status", "log", "show", "files", "verify", "quarantine"] {
        for format in ["text", "json"] {
            let ended = scene.run(&[command, "t", "--output", format, "-vvv"]);
            assert!(!ended.out.contains(secret) && !ended.err.contains(secret), "{command}");
        }
    }
}

#[test]
fn log_has_a_line_a_version_newest_first() {
    let scene = Scene::with_table();
    let log = scene.answer(&["log", "t"]);
    let versions: Vec<_> =
        log["versions"].as_array().unwrap().iter().map(|line| line["version"].clone()).collect();
    assert_eq!(versions, [1, 0]);
    assert_eq!(log["versions"][0]["batch"], "one");
    assert_eq!(log["versions"][0]["accepted"], 4);
    assert_eq!(log["versions"][0]["void"], serde_json::Value::Null);
    assert_eq!(log["versions"][1]["kind"], "create");
    let text = scene.run(&["log", "t", "-n", "1"]).out;
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().nth(1).unwrap().ends_with("batch one"), "{text}");
}

#[test]
fn show_tells_one_version_in_full() {
    let scene = Scene::with_table();
    let shown = scene.answer(&["show", "t"]);
    assert_eq!(fields(&shown), ["table", "version", "kind", "void", "manifest"]);
    assert_eq!(shown["manifest"]["rows"]["read"], 5);
    assert_eq!(scene.answer(&["show", "t", "0"])["kind"], "create");
    let text = scene.run(&["show", "t", "1"]).out;
    for word in ["SOURCES", "DATA FILES", "TOKEN RUNS", "SCHEMA FROM HERE ON", "first.ndjson"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let (code, error) = scene.json(&["show", "t", "7"]);
    assert_eq!((code, &error["error"]["message"]), (2, &"there is no version 7: the newest is 1".into()));
}

#[test]
fn files_are_absolute_paths_that_exist() {
    let scene = Scene::with_table();
    let ended = scene.run(&["files", "t"]);
    let paths: Vec<&str> = ended.out.lines().collect();
    assert_eq!(paths.len(), 1);
    assert!(
        std::path::Path::new(paths[0]).is_absolute() && std::path::Path::new(paths[0]).is_file(),
        "{paths:?}"
    );
    let files = scene.answer(&["files", "t"]);
    assert_eq!((&files["files"][0]["path"], &files["files"][0]["rows"]), (&paths[0].into(), &4.into()));
    assert_eq!(scene.run(&["files", "t", "--version", "0"]).out, "");
}

#[test]
fn outcome_knows_a_batch_or_ends_with_three() {
    let scene = Scene::with_table();
    let known = scene.answer(&["outcome", "t", "one"]);
    assert_eq!((&known["outcome"], &known["version"]), (&"committed".into(), &1.into()));
    assert_eq!((&known["accepted"], &known["duplicate"], &known["files"]), (&4.into(), &1.into(), &1.into()));
    let (code, unknown) = scene.json(&["outcome", "t", "two"]);
    assert_eq!((code, &unknown["outcome"], &unknown["as_of"]), (3, &"unknown".into(), &1.into()));
    assert_eq!(scene.run(&["outcome", "t", "two"]).code, 3);
}

#[test]
fn explain_follows_a_key_to_its_source_its_file_and_its_row() {
    let scene = Scene::with_table();
    scene.write("second.ndjson", &lines(["a", "e", "f"]));
    scene.write("third.ndjson", &lines(["g"]));
    scene.answer(&["ingest", "second.ndjson", "third.ndjson", "--into", "t"]);
    for (id, version, source, row) in [
        ("c", 1, "first.ndjson", 2),
        ("a", 1, "first.ndjson", 0),
        ("f", 2, "second.ndjson", 1),
        ("g", 2, "third.ndjson", 2),
    ] {
        let key = format!("id={id}");
        let explained = scene.answer(&["explain", "t", "--key", &key]);
        assert_eq!(
            (&explained["known"], &explained["version"]),
            (&true.into(), &version.into()),
            "{explained}"
        );
        assert!(explained["source"].as_str().unwrap().ends_with(source), "{explained}");
        assert_eq!(explained["row"], row, "{explained}");
        assert!(std::path::Path::new(explained["path"].as_str().unwrap()).is_file(), "{explained}");
    }
    let (code, unknown) = scene.json(&["explain", "t", "--key", "id=nobody"]);
    assert_eq!((code, &unknown["known"]), (3, &false.into()), "{unknown}");
    let (code, wrong) = scene.json(&["explain", "t", "--key", "n=1"]);
    assert_eq!((code, &wrong["error"]["kind"]), (2, &"usage".into()), "{wrong}");
}

#[test]
fn explain_finds_the_version_after_the_index_was_compacted() {
    let scene = Scene::with_table();
    for (n, name) in ["e", "f", "g"].iter().enumerate() {
        let file = format!("{n}.ndjson");
        scene.write(&file, &lines([*name]));
        scene.answer(&["ingest", &file, "--into", "t"]);
    }
    let compacted = scene.answer(&["compact", "t"]);
    assert_eq!((&compacted["version"], &compacted["runs_after"]), (&5.into(), &1.into()), "{compacted}");
    let explained = scene.answer(&["explain", "t", "--key", "id=f"]);
    assert_eq!((&explained["version"], &explained["row"]), (&3.into(), &0.into()), "{explained}");
    assert!(explained["index"].as_str().unwrap().ends_with(".run"), "{explained}");
    let again = scene.run(&["compact", "t"]);
    assert_eq!((again.code, again.out.as_str()), (0, "nothing to do: the table has 1 run\n"));
}

#[test]
fn verify_passes_on_a_sound_table_and_lists_what_is_wrong_with_another() {
    let scene = Scene::with_table();
    let sound = scene.answer(&["verify", "t"]);
    assert_eq!(
        (&sound["ok"], &sound["problems"], &sound["rows"]),
        (&true.into(), &serde_json::json!([]), &4.into())
    );
    let file = scene.answer(&["files", "t"])["files"][0]["path"].as_str().unwrap().to_owned();
    std::fs::remove_file(file).unwrap();
    let (code, damaged) = scene.json(&["verify", "t"]);
    assert_eq!((code, &damaged["ok"]), (1, &false.into()), "{damaged}");
    assert!(!damaged["problems"].as_array().unwrap().is_empty());
}

#[cfg(unix)]
#[test]
fn verify_does_not_call_keys_lost_whose_file_could_not_be_read() {
    let scene = Scene::with_table();
    let file = scene.answer(&["files", "t"])["files"][0]["path"].as_str().unwrap().to_owned();
    std::fs::remove_file(&file).unwrap();
    // A link to itself cannot be opened, by nobody.
    std::os::unix::fs::symlink(&file, &file).unwrap();
    let (code, report) = scene.json(&["verify", "t"]);
    assert_eq!(code, 1, "{report}");
    let problems = report["problems"].to_string();
    assert!(problems.contains("could not be read"), "{problems}");
    assert!(!problems.contains("an accepted key without a row"), "{problems}");
}

#[test]
fn tokens_are_exported_as_parquet() {
    let scene = Scene::with_table();
    let exported = scene.answer(&["tokens", "t", "-o", "tokens.parquet"]);
    assert_eq!((&exported["tokens"], &exported["runs"]), (&4.into(), &1.into()), "{exported}");
    let file = std::fs::File::open(scene.path("tokens.parquet")).unwrap();
    let batches: Vec<_> = ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let tokens: &FixedSizeBinaryArray = batches[0].column(0).as_fixed_size_binary();
    assert_eq!((tokens.len(), tokens.value_length()), (4, 16));
    assert!(!scene.path("tokens.parquet.partial").exists());
    let (code, error) = scene.json(&["tokens", "t", "--run", "nonsense", "-o", "none.parquet"]);
    assert_eq!((code, &error["error"]["kind"]), (2, &"usage".into()));
    assert!(!scene.path("none.parquet").exists() && !scene.path("none.parquet.partial").exists());
}

#[test]
fn rows_that_were_kept_out_are_listed_and_printed() {
    let scene = Scene::with_table();
    assert_eq!(scene.run(&["quarantine", "t"]).out, "no rows were kept out\n");
    scene.write("bad.ndjson", "{\"id\":\"x\",\"n\":1}\n{broken\n{\"n\":2}\n");
    let report = scene.answer(&["ingest", "bad.ndjson", "--into", "t"]);
    assert_eq!((&report["accepted"], &report["rejected"]), (&1.into(), &2.into()), "{report}");
    let listed = scene.answer(&["quarantine", "t"]);
    assert_eq!((&listed["rows"], &listed["files"][0]["version"]), (&2.into(), &2.into()), "{listed}");
    let printed = scene.answer(&["quarantine", "t", "--print"]);
    assert_eq!(printed["records"].as_array().unwrap().len(), 2, "{printed}");
    assert!(
        printed["records"].as_array().unwrap().iter().any(|row| row["raw"] == "{broken" && row["line"] == 2)
    );
    let text = scene.run(&["quarantine", "t", "--print", "--version", "2"]).out;
    assert_eq!(text.lines().count(), 2, "{text}");
    assert!(text.lines().all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()), "{text}");
    assert_eq!(scene.run(&["quarantine", "t", "--print", "--version", "1"]).out, "");
}
