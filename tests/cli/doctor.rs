//! `dedupe doctor`: what it says, in which form, and with which exit code.

use crate::scene::{Scene, fields};

#[test]
fn doctor_certifies_a_folder_and_leaves_no_trace() {
    let scene = Scene::new();
    let reply = scene.answer(&["doctor", "lake/new", "--clients", "4", "--rounds", "2"]);
    assert_eq!(fields(&reply), ["location", "healthy", "store", "table", "problems", "notes", "seconds"]);
    assert_eq!((&reply["healthy"], &reply["table"]), (&true.into(), &serde_json::Value::Null));
    let findings = reply["store"]["findings"].as_array().unwrap();
    assert_eq!(findings.len(), 10);
    for finding in findings {
        assert_eq!(fields(finding), ["promise", "answer", "seen"]);
        assert_eq!(finding["answer"], "kept", "{finding}");
    }
    assert_eq!((&reply["store"]["clients"], &reply["store"]["rounds"]), (&4.into(), &2.into()));
    assert!(!scene.path("lake").exists(), "something stayed behind");
}

#[test]
fn doctor_finds_a_table_well_in_words_and_without_writing() {
    let scene = Scene::with_table();
    let ended = scene.run(&["doctor", "t", "--rounds", "1"]);
    assert_eq!((ended.code, ended.err.as_str()), (0, ""), "{ended:?}");
    for words in ["2 entries replayed, 0 void; 1 data file", "kept  create-once", "healthy\n"] {
        assert!(ended.out.contains(words), "{words}: {}", ended.out);
    }
    assert!(
        !std::fs::read_dir(scene.path("t/_dedupe"))
            .unwrap()
            .any(|entry| { entry.unwrap().file_name().to_string_lossy().starts_with("probe-") })
    );
    let reply = scene.answer(&["doctor", "t", "--no-write"]);
    assert_eq!((&reply["store"], &reply["table"]["entries"]), (&serde_json::Value::Null, &2.into()));
}

#[test]
fn doctor_explains_a_torn_manifest_that_every_other_command_stops_at() {
    let scene = Scene::with_table();
    let manifest = scene.path("t/_dedupe/ledger/00000000000000000001.json");
    let bytes = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &bytes[..bytes.len() - 40]).unwrap();
    assert_eq!(scene.run(&["status", "t"]).code, 1);
    let (code, reply) = scene.json(&["doctor", "t", "--no-write"]);
    assert_eq!((code, &reply["healthy"]), (1, &false.into()));
    let problem = &reply["problems"][0];
    assert!(problem["what"].as_str().unwrap().contains("torn"), "{problem}");
    assert!(problem["advice"].as_str().unwrap().contains("--version 0"), "{problem}");
    let ended = scene.run(&["doctor", "t", "--no-write"]);
    assert_eq!(ended.code, 1);
    assert!(ended.out.contains("1 problem\n- ") && ended.out.contains("what to do: "), "{}", ended.out);
    assert_eq!(std::fs::read(&manifest).unwrap().len(), bytes.len() - 40);
}

#[test]
fn doctor_finds_objects_that_were_taken_away() {
    let scene = Scene::with_table();
    let file = scene.answer(&["files", "t"])["files"][0]["path"].as_str().unwrap().to_owned();
    std::fs::remove_file(&file).unwrap();
    let (code, reply) = scene.json(&["doctor", "t", "--no-write"]);
    assert_eq!(code, 1);
    assert!(reply["problems"][0]["what"].as_str().unwrap().contains(&file), "{reply}");
}

#[test]
fn doctor_needs_a_folder() {
    let scene = Scene::new();
    scene.write("file", "");
    assert_eq!(scene.run(&["doctor", "file"]).code, 2);
}
