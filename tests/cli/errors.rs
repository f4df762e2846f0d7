//! What is said when something is wrong, and with which exit code.

use crate::scene::{Scene, lines};

#[test]
fn a_missing_table_is_told_with_what_to_do() {
    let scene = Scene::new();
    for command in ["status", "log", "show", "files", "verify", "quarantine", "compact"] {
        let ended = scene.run(&[command, "nowhere"]);
        assert_eq!(ended.code, 2, "{command}");
        assert_eq!(ended.out, "");
        let told =
            ended.err.starts_with("error: there is no table at ") && ended.err.contains("--key COLUMN");
        assert!(told, "{command}: {}", ended.err);
        assert!(!scene.path("nowhere").exists(), "{command} made something");
    }
}

#[test]
fn json_errors_are_one_object_on_standard_output_as_well() {
    let scene = Scene::new();
    let (code, value) = scene.json(&["status", "nowhere"]);
    assert_eq!((code, &value["error"]["kind"], &value["error"]["exit"]), (2, &"usage".into(), &2.into()));
    let (code, value) = scene.json(&["statsu", "nowhere"]);
    assert_eq!((code, &value["error"]["kind"]), (2, &"usage".into()), "{value}");
    let (code, value) = scene.json(&["ingest", "nothing.ndjson", "--into", "t", "--key", "id"]);
    assert_eq!((code, &value["error"]["kind"]), (2, &"usage".into()), "{value}");
}

#[test]
fn a_new_table_needs_a_key_and_a_key_that_exists() {
    let scene = Scene::new();
    scene.write("a.ndjson", &lines(["x"]));
    let ended = scene.run(&["ingest", "a.ndjson", "--into", "t"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.err.contains("--key"), "{ended:?}");
    let ended = scene.run(&["ingest", "a.ndjson", "--into", "t", "--key", "uid"]);
    assert!(ended.code != 0 && ended.err.contains("uid") && ended.err.contains("id"), "{ended:?}");
    assert!(!scene.path("t/_dedupe/table.json").exists());
}

#[test]
fn another_key_than_the_tables_is_refused_with_both_named() {
    let scene = Scene::with_table();
    scene.write("b.ndjson", &lines(["y"]));
    let ended = scene.run(&["ingest", "b.ndjson", "--into", "t", "--key", "n"]);
    assert_eq!(ended.code, 1, "{ended:?}");
    assert!(ended.err.contains("id") && ended.err.contains('n'), "{ended:?}");
    assert_eq!(scene.answer(&["status", "t"])["version"], 1);
}

#[test]
fn a_file_that_is_not_what_it_claims_fails_with_its_name_and_commits_nothing() {
    let scene = Scene::with_table();
    scene.write("torn.parquet", "PAR1 this is no parquet file PAR1");
    let (code, value) = scene.json(&["ingest", "torn.parquet", "--into", "t"]);
    assert_eq!((code, &value["error"]["kind"]), (1, &"input".into()), "{value}");
    assert!(value["error"]["message"].as_str().unwrap().contains("torn.parquet"), "{value}");
    assert_eq!(scene.answer(&["status", "t"])["version"], 1);
}

#[test]
fn values_that_cannot_be_meant_are_refused_before_anything_happens() {
    let scene = Scene::new();
    scene.write("a.ndjson", &lines(["x"]));
    for wrong in [
        ["--memory", "1MB"],
        ["--memory", "much"],
        ["--target-file-size", "0"],
        ["--threads", "0"],
        ["--sample-rows", "0"],
        ["--compression", "zip"],
        ["--batch-id", ""],
        ["--key", ""],
        ["--format", "csv"],
        ["--store-option", "hunter2"],
    ] {
        let ended = scene.run(&[&["ingest", "a.ndjson", "--into", "t", "--key", "id"], &wrong[..]].concat());
        assert_eq!(ended.code, 2, "{wrong:?}: {ended:?}");
        assert!(!ended.err.contains("hunter2"), "{ended:?}");
    }
    assert!(!scene.path("t").exists());
}

#[test]
fn secrets_among_the_store_options_are_never_printed() {
    let scene = Scene::with_table();
    let secret = ["--store-option", "aws_secret_access_key=hunter2", "-vvv"];
    for args in [
        &["status", "t"][..],
        &["status", "nowhere"],
        &["statsu", "t"],
        &["status", "s3://bucket/t", "--store-option", "endpoint=http://127.0.0.1:9"],
        &["status", "gopher://x"],
    ] {
        let mut command = scene.command(&[args, &secret[..]].concat());
        let output =
            command.env("AWS_ACCESS_KEY_ID", "me").env("AWS_REGION", "eu-central-1").output().unwrap();
        let all = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!all.contains("hunter2"), "{args:?}: {all}");
    }
}

#[test]
fn logs_go_to_standard_error_and_obey_rust_log() {
    let scene = Scene::with_table();
    let quiet = scene.run(&["log", "t"]);
    assert_eq!(quiet.err, "");
    let mut command = scene.command(&["log", "t"]);
    let loud = command.env("RUST_LOG", "trace").output().unwrap();
    assert_eq!(String::from_utf8(loud.stdout).unwrap(), quiet.out);
}
