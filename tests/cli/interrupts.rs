//! Ctrl-C and SIGTERM while an ingest waits for its input.
#![cfg(unix)]

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::scene::{Scene, lines};

/// An ingest whose standard input stays open, so that it cannot end by itself.
fn waiting(scene: &Scene) -> (Child, std::process::ChildStdin) {
    let mut command = scene.command(&["ingest", "-", "--into", "t"]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines(["x", "y"]).as_bytes()).unwrap();
    stdin.flush().unwrap();
    // Long enough for the handlers to stand: until then a signal ends the process by the system's default.
    std::thread::sleep(Duration::from_millis(700));
    (child, stdin)
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

fn code_within(child: &mut Child, limit: Duration) -> Option<i32> {
    let start = Instant::now();
    while start.elapsed() < limit {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    None
}

#[test]
fn the_first_interrupt_stops_before_the_commit_and_says_so() {
    for (name, code) in [("-INT", 130), ("-TERM", 143)] {
        let scene = Scene::with_table();
        let (mut child, stdin) = waiting(&scene);
        signal(&child, name);
        let mut first = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut first).unwrap();
        assert_eq!(first, "stopping before the commit (once more to end at once)\n");
        // Although its input is still open.
        assert_eq!(code_within(&mut child, Duration::from_secs(60)), Some(code));
        drop(stdin);
        assert_eq!(scene.answer(&["status", "t"])["version"], 1);
    }
}

#[test]
fn an_interrupted_doctor_takes_its_probes_away() {
    let scene = Scene::with_table();
    let probes = || {
        let home = std::fs::read_dir(scene.path("t/_dedupe")).unwrap();
        home.filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().starts_with("probe-"))
            .count()
    };
    let mut command = scene.command(&["doctor", "t", "--rounds", "1000"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let start = Instant::now();
    while probes() == 0 && start.elapsed() < Duration::from_secs(60) {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(probes(), 1);
    std::thread::sleep(Duration::from_millis(200));
    signal(&child, "-INT");
    assert_eq!(code_within(&mut child, Duration::from_secs(60)), Some(130));
    assert_eq!(probes(), 0);
}
