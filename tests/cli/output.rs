//! Standard output that somebody closes, or that is full.

use std::io::Read;
use std::process::Stdio;

use crate::scene::Scene;

#[test]
fn a_reader_that_has_seen_enough_is_a_normal_end() {
    let scene = Scene::with_table();
    for args in
        [&["completions", "bash"][..], &["log", "t"], &["man", "ingest"], &["show", "t", "--output", "json"]]
    {
        let mut child = scene.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Closed before or while the command writes.
        drop(child.stdout.take());
        let mut err = String::new();
        child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
        assert_eq!((child.wait().unwrap().code(), err.as_str()), (Some(0), ""), "{args:?}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_report_that_cannot_be_written_is_told_apart_from_a_failed_run() {
    let scene = Scene::with_table();
    scene.write("more.ndjson", &crate::scene::lines(["x"]));
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = scene.command(&["ingest", "more.ndjson", "--into", "t"]);
    let output = command.stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(74));
    assert!(
        String::from_utf8_lossy(&output.stderr)
            .starts_with("error: done, but standard output cannot be written")
    );
    assert_eq!(scene.answer(&["status", "t"])["rows"], 5);
}
