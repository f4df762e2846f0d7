//! `dedupe sql`: the binary itself.

use std::process::Command;

fn dedupe(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_dedupe")).args(words).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_table_is_asked() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, table) = (at("a.ndjson"), at("table"));
    for (lines, round) in
        [("{\"id\":1,\"v\":\"a\"}\n{\"id\":1,\"v\":\"b\"}\n", 1), ("{\"id\":2,\"v\":null}\n", 2)]
    {
        std::fs::write(&source, lines).unwrap();
        let (code, _, err) = dedupe(&["ingest", &source, "--into", &table, "--key", "id"]);
        assert_eq!(code, 0, "round {round}: {err}");
    }
    let query = "SELECT id, v FROM t ORDER BY id";
    let (code, out, _) = dedupe(&["sql", &table, query]);
    assert_eq!(
        (code, out.as_str()),
        (0, "+----+---+\n| id | v |\n+----+---+\n| 1  | a |\n| 2  |   |\n+----+---+\n")
    );
    let (code, out, _) = dedupe(&["sql", &table, query, "--output", "json"]);
    let reply: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &reply["version"]), (0, &2.into()));
    assert_eq!(reply["rows"], serde_json::json!([{"id": 1, "v": "a"}, {"id": 2, "v": null}]));
    let (code, out, _) =
        dedupe(&["sql", &table, "SELECT count(*) AS n FROM t", "--version", "1", "--output", "json"]);
    let reply: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &reply["rows"][0]["n"], &reply["version"]), (0, &1.into(), &1.into()));
    // Nothing to show is shown as nothing.
    let (code, out, _) = dedupe(&["sql", &table, "SELECT id FROM t WHERE id > 5"]);
    assert_eq!((code, out.contains("| id |")), (0, true), "{out}");
}

#[test]
fn what_cannot_be_asked_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (source, table) = (at("a.ndjson"), at("table"));
    std::fs::write(&source, "{\"id\":1}\n").unwrap();
    assert_eq!(dedupe(&["ingest", &source, "--into", &table, "--key", "id"]).0, 0);
    for (query, says) in [
        ("SELECT nothing FROM t", "nothing"),
        ("SELEC id FROM t", "SELEC"),
        ("INSERT INTO t VALUES (2)", "DML not supported"),
        ("CREATE TABLE u AS SELECT 1", "DDL not supported"),
    ] {
        let (code, out, err) = dedupe(&["sql", &table, query]);
        assert_eq!((code, out.as_str()), (2, ""), "{query}: {err}");
        assert!(err.contains(says), "{query}: {err}");
    }
    assert_eq!(dedupe(&["sql", &at("elsewhere"), "SELECT 1"]).0, 2);
    let (code, out, _) = dedupe(&["sql", &table, "SELECT 1 / (id - 1) FROM t", "--output", "json"]);
    let reply: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &reply["error"]["kind"]), (1, &"refused".into()), "{reply}");
}
