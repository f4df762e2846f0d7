//! Every system call of the real binary fails in turn: disk full, over quota, read-only, broken, no handles left. The
//! run then ends with the exit code and the words it promises, nothing is half-visible, and running again is exact.
//!
//! `DEDUPE_FAULTS=all` also tries the faults after which a commit is asked for until its patience ends (two minutes).

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disk::{self, EDQUOT, EIO, EMFILE, ENOSPC, EROFS, Fault, FaultyDisk, Tally, dedupe};
use crate::story::{Story, sound_rows};

/// Kinds of calls that take space.
const GROWING: &str = "create,write,mkdir,link";

/// Kinds of calls that change a folder or a file.
const CHANGING: &str = "create,write,mkdir,link,rename,unlink,truncate";

/// One fault in one step of the story.
#[derive(Debug, Clone)]
struct Job {
    step: usize,
    what: String,
    fault: Fault,
}

/// Places a table as before a step.
fn set(before: &Path, folder: &Path) -> (PathBuf, PathBuf) {
    let work = folder.join("work");
    std::fs::create_dir(&work).unwrap();
    let table = work.join("lake/table");
    if before.exists() {
        disk::copy(before, &table);
    }
    (work, table)
}

/// What holds after a run that met a fault: the code and the words fit, and so does what is there. Gives the code.
fn judged(story: &Story, step: usize, table: &Path, ended: &Output, what: &str) -> i32 {
    let (told, out) = (String::from_utf8_lossy(&ended.stderr), String::from_utf8_lossy(&ended.stdout));
    let code = ended.status.code().unwrap_or_else(|| panic!("{what}: {}: {told}", ended.status));
    let rows = sound_rows(table).unwrap_or_else(|why| panic!("{what}: {why}; it had said: {told}"));
    let (old, new) = (story.before(step), story.steps[step].rows.as_slice());
    match code {
        0 => assert!(rows == new && !out.is_empty(), "{what}: done, and {} rows: {told}", rows.len()),
        1 => {
            assert!(rows == old, "{what}: failed, and {} rows: {told}", rows.len());
            assert!(told.starts_with("error: ") || told.contains("\nerror: "), "{what}: {told}");
            // What failed and why: by its whole path, or by its name within the table.
            let places = [table.parent().unwrap().to_str().unwrap(), " _dedupe/", " data/"];
            let named = places.iter().any(|place| told.contains(place));
            assert!(named && told.contains("(os error "), "{what}: {told}");
        }
        75 => {
            assert!(rows == old || rows == new, "{what}: unknown, and {} rows: {told}", rows.len());
            assert!(told.contains("is unknown") && told.contains("re-running is safe"), "{what}: {told}");
        }
        code => panic!("{what}: exit code {code}: {told}"),
    }
    let again = story.steps[step].command(table).output().unwrap();
    assert!(again.status.success(), "{what}: again: {}", String::from_utf8_lossy(&again.stderr));
    let rows = sound_rows(table).unwrap_or_else(|why| panic!("{what}: again: {why}"));
    assert!(rows == new, "{what}: again: {} rows", rows.len());
    code
}

/// The faults of each call of a step.
fn jobs(disk: &FaultyDisk, story: &Story, step: usize, before: &Path) -> Vec<Job> {
    let folder = tempfile::tempdir().unwrap();
    let (work, table) = set(before, folder.path());
    let trace = folder.path().join("trace");
    let mut command = story.steps[step].command(&table);
    disk.watch(&mut command, &work, &Fault::default());
    disk::trace_into(&mut command, &trace, "");
    assert!(command.output().unwrap().status.success());
    let calls = disk::calls(&trace);
    let count =
        |kinds: &str| calls.iter().filter(|call| kinds.split(',').any(|kind| kind == call.kind)).count();
    let mut jobs = Vec::new();
    let mut add = |what: &str, kinds: &str, does: &str, lasts: bool| {
        for nth in 1..=count(kinds) {
            let fault = Fault { at: format!("{kinds} {nth}"), does: does.into(), lasts };
            jobs.push(Job { step, what: what.into(), fault });
        }
    };
    for kind in
        ["open", "create", "read", "write", "sync", "syncdir", "close", "link", "rename", "unlink", "mkdir"]
    {
        add(&format!("{kind}: EIO once"), kind, &format!("fail {EIO}"), false);
    }
    for kind in ["write", "link", "mkdir", "unlink", "rename"] {
        add(&format!("{kind}: done, and told EIO"), kind, &format!("lie {EIO}"), false);
    }
    add("disk full from there on", GROWING, &format!("fail {ENOSPC}"), true);
    add("over quota from there on", GROWING, &format!("fail {EDQUOT}"), true);
    add("over quota, told by the sync", "sync", &format!("fail {EDQUOT}"), true);
    add("read-only from there on", CHANGING, &format!("fail {EROFS}"), true);
    add("no handles left from there on", "open,create", &format!("fail {EMFILE}"), true);
    add("half of the bytes are written", "write", "short", true);
    jobs
}

#[test]
fn every_call_fails_in_turn() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let (story, folder) = (Story::short(), tempfile::tempdir().unwrap());
    let before = |step: usize| folder.path().join(format!("before-{step}"));
    (1..4).for_each(|step| story.tell(&before(step), step));
    let mut all: Vec<Job> = (0..4).flat_map(|step| jobs(&disk, &story, step, &before(step))).collect();
    if std::env::var("DEDUPE_FAULTS").is_ok_and(|which| which == "all") {
        for nth in 1..=40 {
            let fault = Fault::lasting(format!("* {nth}"), format!("fail {EIO}"));
            all.push(Job { step: 1, what: "broken from there on".into(), fault });
        }
    }
    let (next, tally) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(job) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let folder = tempfile::tempdir().unwrap();
                    let (work, table) = set(&before(job.step), folder.path());
                    let mut command = story.steps[job.step].command(&table);
                    disk.watch(&mut command, &work, &job.fault);
                    let ended = command.output().unwrap();
                    let what = format!("{} {job:?}", story.steps[job.step].name);
                    let code = judged(&story, job.step, &table, &ended, &what);
                    tally.lock().unwrap().count(format!("{}: exit code {code}", job.what));
                }
            });
        }
    });
    let tally = tally.into_inner().unwrap();
    println!("{tally}{} faults", tally.total());
    assert!(tally.total() >= 300, "{}", tally.total());
    for code in [0, 1, 75] {
        assert!(tally.of(&format!("exit code {code}")) > 0, "never {code}");
    }
}

#[test]
fn with_any_number_of_handles() {
    let (story, folder) = (Story::short(), tempfile::tempdir().unwrap());
    let mut codes = Tally::default();
    for handles in (3..32).chain([64]) {
        let table = folder.path().join(format!("{handles}/table"));
        let (step, before) = (1, 1);
        story.tell(&table, before);
        let inner = story.steps[step].command(&table);
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {handles}; exec \"$0\" \"$@\"")]);
        command.arg(inner.get_program()).args(inner.get_args()).env("NO_COLOR", "1");
        let ended = command.output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        let rows = sound_rows(&table).unwrap();
        match ended.status.code() {
            // Too few to start any program.
            Some(127) => assert_eq!(rows, story.before(step), "{told}"),
            Some(0) => assert_eq!(rows, story.steps[step].rows),
            Some(1) => {
                assert_eq!(rows, story.before(step));
                assert!(told.contains("Too many open files"), "{handles}: {told}");
            }
            code => panic!("{handles} handles: {code:?}: {told}"),
        }
        codes.count(format!("exit code {:?}", ended.status.code()));
        story.steps[step].redo(&table).unwrap();
        assert_eq!(sound_rows(&table).unwrap(), story.steps[step].rows);
    }
    println!("{codes}");
    assert!(codes.of("Some(0)") > 0 && codes.of("Some(1)") > 0);
}

#[test]
fn a_folder_that_may_not_be_written_to_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.ndjson");
    std::fs::write(&source, "{\"id\":1}\n").unwrap();
    let sealed = Path::new("/proc/sys");
    if !sealed.exists() {
        return println!("not tested: there is no /proc");
    }
    let mut command = dedupe();
    let ended =
        command.arg("ingest").arg(&source).arg("--into").arg(sealed.join("table")).args(["--key", "id"]);
    let ended = ended.output().unwrap();
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("/proc/sys/table") && told.contains("os error"), "{told}");
}
