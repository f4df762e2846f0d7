//! A table's first schema is that of all rows of its sources, however late the one comes that is unlike the others: the program
//! looks at the beginning of a large text, holds the rest to it as it reads, and starts over if that is not borne out.

use serde_json::{Value, json};

use crate::scene::{Ended, Scene};

/// More than what is looked at first: lines of a KiB.
const ROWS: u64 = 6_000;

fn line(n: u64) -> String {
    let padding = "x".repeat(1_000);
    format!(
        "{{\"id\":\"{n:06}\",\"n\":{n},\"f\":{n}.5,\"s\":{{\"a\":[{n}]}},\"nothing\":null,\"text\":\"{padding}\"}}\n"
    )
}

fn text(late: &str) -> String {
    let mut text: String = (0..ROWS).map(line).collect();
    text.push_str(late);
    text.push('\n');
    text
}

/// The types of the columns, in their order.
fn columns(scene: &Scene, table: &str) -> Vec<(String, Value)> {
    let status = scene.answer(&["status", table]);
    let fields = status["schema"]["fields"].as_array().unwrap_or_else(|| panic!("{status}"));
    fields.iter().map(|field| (field["name"].as_str().unwrap().to_owned(), field["type"].clone())).collect()
}

fn usual() -> Vec<(String, Value)> {
    let of_s = json!({"struct": [{"name": "a", "type": {"list": "int64"}}]});
    let all = [
        ("id", json!("text")),
        ("n", json!("int64")),
        ("f", json!("float64")),
        ("s", of_s),
        ("nothing", json!("json")),
        ("text", json!("text")),
    ];
    all.map(|(name, kind)| (name.to_owned(), kind)).into()
}

fn with(name: &str, kind: Value) -> Vec<(String, Value)> {
    let mut all = usual();
    match all.iter_mut().find(|(known, _)| known == name) {
        Some((_, known)) => *known = kind,
        None => all.push((name.to_owned(), kind)),
    }
    all
}

#[test]
fn whatever_comes_last() {
    let struct_of = |more: Value| json!({"struct": [{"name": "a", "type": {"list": "int64"}}, more]});
    for (late, expected, accepted) in [
        (r#"{"id":"z","n":-7,"f":8,"s":{},"nothing":null}"#, usual(), 1),
        (r#"{"id":"z","n":7.5}"#, with("n", json!("float64")), 1),
        (r#"{"id":"z","n":"7"}"#, with("n", json!("json")), 1),
        (r#"{"id":"z","n":18446744073709551615}"#, with("n", json!("uint64")), 1),
        (r#"{"id":"z","f":9007199254740993}"#, with("f", json!("json")), 1),
        (r#"{"id":"z","nothing":true}"#, with("nothing", json!("bool")), 1),
        (r#"{"id":"z","new":"column"}"#, with("new", json!("text")), 1),
        (r#"{"id":"z","s":{"b":1}}"#, with("s", struct_of(json!({"name": "b", "type": "int64"}))), 1),
        // No row at all says nothing.
        (r#"{"id":"z","n":7.5,"new":"#, usual(), 0),
    ] {
        let scene = Scene::new();
        std::fs::write(scene.path("in.ndjson"), text(late)).unwrap();
        let args = ["ingest", "in.ndjson", "--into", "t", "--key", "id", "--output", "json"];
        let ended = Ended::of(scene.command(&args).env("RUST_LOG", "info").output().unwrap());
        let report: Value = serde_json::from_str(&ended.out).unwrap_or_else(|_| panic!("{ended:?}"));
        let started_over = ended.err.contains("not all rows are like the first");
        assert_eq!(started_over, expected != usual(), "{late}: {}", ended.err);
        let (rows, rejected) = (ROWS + accepted, 1 - accepted);
        assert_eq!((&report["accepted"], &report["rejected"]), (&rows.into(), &rejected.into()), "{late}");
        assert_eq!((&report["version"], &report["created"]), (&1.into(), &true.into()), "{report}");
        assert_eq!(columns(&scene, "t"), expected, "{late}");
        assert_eq!(scene.answer(&["verify", "t"])["ok"], true, "{late}");
    }
}

/// Columns come in the order in which they appear, also if only the beginning of a later file shows one that the first has late.
#[test]
fn whichever_file_shows_it_first() {
    let scene = Scene::new();
    std::fs::write(scene.path("1.ndjson"), text(r#"{"id":"a","z":1}"#)).unwrap();
    std::fs::write(scene.path("2.ndjson"), "{\"id\":\"b\",\"y\":1,\"z\":2}\n").unwrap();
    scene.answer(&["ingest", "1.ndjson", "2.ndjson", "--into", "t", "--key", "id"]);
    let mut expected = with("z", json!("int64"));
    expected.push(("y".to_owned(), json!("int64")));
    assert_eq!(columns(&scene, "t"), expected);
}

/// Neither a key nor a partition is missed because the first rows lack it.
#[test]
fn whenever_the_key_comes() {
    let scene = Scene::new();
    std::fs::write(scene.path("in.ndjson"), text(r#"{"id":"a","late":"k"}"#)).unwrap();
    let args = ["ingest", "in.ndjson", "--into", "t", "--key", "late", "--null-key", "keep"];
    let report = scene.answer(&args);
    assert_eq!(report["accepted"], ROWS + 1);
    let args = ["ingest", "in.ndjson", "--into", "p", "--key", "id", "--partition-by", "late"];
    assert_eq!(scene.answer(&args)["accepted"], ROWS + 1);
    assert_eq!(columns(&scene, "p"), with("late", json!("text")));
}
