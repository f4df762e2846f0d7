//! Vacuum, and what is told of those who are at work.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use crate::scene::{Scene, lines};

/// Sets the times of all files in a folder back.
fn age(folder: &Path, seconds: u64) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            age(&path, seconds);
        } else {
            let time = SystemTime::now() - Duration::from_secs(seconds);
            File::options().append(true).open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

/// A table with garbage: the file of a session that died, and one that a crash left half-written.
fn littered() -> (Scene, [String; 2]) {
    let scene = Scene::with_table();
    let session = "0f".repeat(16);
    let garbage = [format!("data/.dedupe-tmp-{session}"), format!("data/{:020}-{session}-0.parquet", 2)];
    garbage.iter().for_each(|name| scene.write(&format!("t/{name}"), "left behind"));
    (scene, garbage)
}

#[test]
fn vacuum_deletes_what_is_old_and_no_part_of_the_table() {
    let (scene, garbage) = littered();
    scene.write("t/data/notes.txt", "not ours");
    let young = scene.answer(&["vacuum", "t"]);
    assert_eq!((&young["version"], &young["names"]), (&Value::Null, &Value::Array(vec![])));
    assert_eq!((&young["kept"]["objects"], &young["foreign"][0]), (&2.into(), &"data/notes.txt".into()));
    age(&scene.path("t"), 25 * 3600);
    let forecast = scene.answer(&["vacuum", "t", "--dry-run"]);
    assert_eq!((&forecast["dry_run"], &forecast["version"]), (&true.into(), &Value::Null));
    let told = scene.run(&["vacuum", "t", "--dry-run"]);
    assert!(
        told.out.starts_with(&format!("{}\n{}\ndry run: nothing was written", garbage[0], garbage[1])),
        "{told:?}"
    );
    assert_eq!(scene.answer(&["status", "t"])["version"], 1);
    let done = scene.answer(&["vacuum", "t"]);
    assert_eq!(done["names"], forecast["names"]);
    assert_eq!(done["names"], Value::from(garbage.to_vec()));
    assert_eq!((&done["version"], &done["floor"], &done["oldest"]), (&2.into(), &3.into(), &0.into()));
    assert_eq!(done["deleted"]["data"], serde_json::json!({"objects": 1, "bytes": 11}));
    assert_eq!(done["deleted"]["leftover"]["objects"], 1);
    assert!(garbage.iter().all(|name| !scene.path("t").join(name).exists()));
    assert!(scene.path("t/data/notes.txt").exists());
    let verified = scene.answer(&["verify", "t"]);
    assert_eq!((&verified["ok"], &verified["rows"]), (&true.into(), &4.into()));
    // Once more there is nothing to do, and a longer grace time or a shorter one changes nothing.
    for grace in ["24h", "0", "7d"] {
        let again = scene.run(&["vacuum", "t", "--grace", grace]);
        assert!(
            again.out.starts_with("nothing to do: the table holds nothing that no version needs\n"),
            "{again:?}"
        );
    }
    let status = scene.answer(&["status", "t"]);
    assert_eq!((&status["version"], &status["floor"], &status["oldest"]), (&2.into(), &3.into(), &0.into()));
    assert_eq!(status["in_flight"], Value::Array(vec![]));
    // The fence is a version like any other.
    assert_eq!(scene.answer(&["show", "t", "2"])["manifest"]["floor"], 3);
    scene.write("second.ndjson", &lines(["a", "e"]));
    assert_eq!(scene.answer(&["ingest", "second.ndjson", "--into", "t"])["accepted"], 1);
}

#[test]
fn a_version_that_was_given_up_is_told_so() {
    let scene = Scene::with_table();
    for n in 0..3 {
        let file = format!("{n}.ndjson");
        let ids: Vec<String> = (0..300).map(|i| format!("{n}-{i}")).collect();
        scene.write(&file, &lines(ids.iter().map(String::as_str)));
        scene.answer(&["ingest", &file, "--into", "t"]);
    }
    assert_eq!(scene.answer(&["compact", "t"])["version"], 5);
    let vacuumed = scene.answer(&["vacuum", "t", "--grace", "0"]);
    assert_eq!((&vacuumed["version"], &vacuumed["oldest"]), (&6.into(), &5.into()));
    for command in [&["files", "t"][..], &["verify", "t"], &["tokens", "t", "-o", "t.parquet"]] {
        let (code, reply) = scene.json(&[command, &["--version", "4"]].concat());
        assert_eq!((code, &reply["error"]["kind"]), (1, &"expired".into()), "{reply}");
        let message = reply["error"]["message"].as_str().unwrap();
        assert!(
            message.contains("version 4 can no longer be read") && message.contains("from 5 on"),
            "{message}"
        );
        assert_eq!(scene.json(&[command, &["--version", "5"]].concat()).0, 0);
    }
    // What it was is told all the same.
    assert_eq!(scene.answer(&["status", "t", "--version", "4"])["rows"], 904);
    assert_eq!(scene.answer(&["show", "t", "3"])["kind"], "ingest");
    assert_eq!(scene.answer(&["log", "t"])["versions"].as_array().unwrap().len(), 7);
    let text = scene.run(&["status", "t"]).out;
    assert!(text.contains("readable        from version 5 on\n"), "{text}");
}

#[test]
fn a_wrong_grace_time_is_refused() {
    let scene = Scene::with_table();
    let ended = scene.run(&["vacuum", "t", "--grace", "soon"]);
    assert_eq!(ended.code, 2);
    assert!(ended.err.contains("24h, 30m, 90s, 7d or 0"), "{ended:?}");
    assert_eq!(scene.run(&["vacuum", "nowhere"]).code, 2);
}

#[cfg(unix)]
mod at_work {
    use super::*;
    use std::io::Write;
    use std::process::{Child, ChildStdin, Command, Stdio};

    /// An ingest that has judged much and waits for more.
    fn busy(scene: &Scene) -> (Child, ChildStdin) {
        let mut command = scene.command(&["ingest", "-", "--into", "t", "--batch-id", "two"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // The first 16 MiB are kept to find new columns, and judged only when they are there.
        let block: String =
            (0..10_000).map(|i| format!("{{\"id\":\"{i}\",\"n\":{i}{}}}\n", " ".repeat(100))).collect();
        for _ in 0..(24 << 20) / block.len() {
            stdin.write_all(block.as_bytes()).unwrap();
        }
        stdin.flush().unwrap();
        (child, stdin)
    }

    fn soon<T>(mut look: impl FnMut() -> Option<T>) -> T {
        let start = Instant::now();
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(start.elapsed() < Duration::from_secs(120), "it did not come to pass");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn in_flight(scene: &Scene) -> Value {
        soon(|| {
            Some(scene.answer(&["status", "t"])["in_flight"][0].clone()).filter(|writer| !writer.is_null())
        })
    }

    fn signal(child: &Child, name: &str) {
        assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
    }

    #[test]
    fn who_is_at_work_is_told_and_spared_until_his_lease_is_overdue() {
        let (scene, garbage) = littered();
        let (mut child, stdin) = busy(&scene);
        let writer = in_flight(&scene);
        assert_eq!(
            (&writer["kind"], &writer["stage"], &writer["batch"]),
            (&"ingest".into(), &2.into(), &"two".into())
        );
        assert_eq!((&writer["alive"], &writer["fenced"]), (&true.into(), &false.into()));
        assert!(writer["writer"].as_str().unwrap().ends_with(&format!(":{}", child.id())), "{writer}");
        let (code, received) = scene.json(&["outcome", "t", "two"]);
        assert_eq!((code, &received["outcome"]), (3, &"received".into()), "{received}");
        let told = scene.run(&["outcome", "t", "two"]).out;
        assert!(
            told.starts_with("batch two is being worked on, and not committed as of version 1\n"),
            "{told}"
        );
        let text = scene.run(&["status", "t"]).out;
        assert!(text.contains("\nIN FLIGHT\n") && text.contains("  alive "), "{text}");
        assert_eq!(scene.answer(&["outcome", "t", "one"])["outcome"], "committed");
        // It holds back a vacuum from what was staged when it began.
        age(&scene.path("t/data"), 25 * 3600);
        let spared = scene.answer(&["vacuum", "t", "--grace", "0"]);
        assert_eq!(
            (&spared["floor"], &spared["held_back_by"][0]["session"]),
            (&0.into(), &writer["session"])
        );
        // Killed, it leaves its lease behind; as long as that is alive, so is it.
        child.kill().unwrap();
        child.wait().unwrap();
        drop(stdin);
        assert_eq!(in_flight(&scene)["alive"], true);
        age(&scene.path("t"), 1000);
        age(&scene.path("t/_dedupe/session"), 130);
        assert_eq!(in_flight(&scene)["alive"], false);
        assert_eq!(scene.json(&["outcome", "t", "two"]).1["outcome"], "unknown");
        // Now a vacuum passes over it. Its lease still tells that it did.
        let done = scene.answer(&["vacuum", "t", "--grace", "30s"]);
        assert_eq!((&done["floor"], &done["held_back_by"]), (&3.into(), &Value::Array(vec![])));
        assert!(garbage.iter().all(|name| !scene.path("t").join(name).exists()));
        assert_eq!(in_flight(&scene)["fenced"], true);
        let (code, fenced) = scene.json(&["outcome", "t", "two"]);
        assert_eq!((code, &fenced["outcome"]), (3, &"fenced".into()), "{fenced}");
        age(&scene.path("t/_dedupe/session"), 1000);
        scene.answer(&["vacuum", "t", "--grace", "0"]);
        assert_eq!(scene.json(&["outcome", "t", "two"]).1["outcome"], "unknown");
        assert_eq!(scene.answer(&["verify", "t"])["ok"], true);
    }

    #[test]
    fn who_is_interrupted_or_done_takes_his_lease_back() {
        let scene = Scene::with_table();
        let leases = || std::fs::read_dir(scene.path("t/_dedupe/session")).map_or(0, |folder| folder.count());
        let (mut child, stdin) = busy(&scene);
        in_flight(&scene);
        signal(&child, "-INT");
        assert_eq!(soon(|| child.try_wait().unwrap()).code(), Some(130));
        drop(stdin);
        assert_eq!(leases(), 0);
        let (mut child, stdin) = busy(&scene);
        in_flight(&scene);
        drop(stdin);
        assert_eq!(soon(|| child.try_wait().unwrap()).code(), Some(0));
        assert_eq!(leases(), 0);
        assert_eq!(scene.answer(&["outcome", "t", "two"])["accepted"], 10_000);
    }

    #[test]
    fn an_ingest_of_standard_input_that_was_fenced_off_says_that_it_must_be_run_again() {
        let (scene, _) = littered();
        let (mut child, stdin) = busy(&scene);
        in_flight(&scene);
        age(&scene.path("t"), 1000);
        // Its lease may be renewed in between: then the vacuum is held back, and is run again.
        soon(|| {
            age(&scene.path("t/_dedupe/session"), 1000);
            Some(scene.answer(&["vacuum", "t", "--grace", "0"])).filter(|done| done["floor"] == 3)
        });
        drop(stdin);
        let ended = soon(|| child.try_wait().unwrap());
        let mut told = String::new();
        std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut told).unwrap();
        assert_eq!(ended.code(), Some(1), "{told}");
        assert!(
            told.contains("fenced off everything below stage 3: nothing was committed; run again"),
            "{told}"
        );
        assert_eq!(scene.answer(&["status", "t"])["rows"], 4);
    }
}
