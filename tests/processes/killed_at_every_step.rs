//! `kill -9` before and after every system call that changes a table, in the real binary: afterwards the table verifies
//! and holds the rows of before or those of after, and a run that is let finish leaves exactly what a plain set would.
//!
//! `DEDUPE_KILLS=10000` goes on, with several kills one after another, until so many processes were killed;
//! `DEDUPE_KILLS_SEED=2` draws others.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::disk::{self, Dice, Fault, FaultyDisk, Tally};
use crate::story::{Step, Story, sound_rows};

/// Kills that every run of the test must reach.
const LEAST: usize = 500;

/// Kills of the step that spills, which takes longer than the others, unless more are asked for.
const OF_SPILLS: usize = 60;

/// A step, the table as it is before it, and how many calls there are to be killed at.
struct Scene<'a> {
    story: &'a Story,
    number: usize,
    before: PathBuf,
    calls: usize,
}

/// Kills of one process after another, by the number of the call, and whether before or after it.
#[derive(Debug, Clone)]
struct Job {
    scene: usize,
    kills: Vec<(usize, &'static str)>,
}

impl Scene<'_> {
    fn step(&self) -> &Step {
        &self.story.steps[self.number]
    }

    /// A new table as before the step, in `folder`.
    fn set(&self, folder: &Path) -> PathBuf {
        let table = folder.join("lake/table");
        if self.before.exists() {
            disk::copy(&self.before, &table);
        }
        table
    }
}

fn scenes<'a>(disk: &FaultyDisk, stories: &[(&'a Story, &[usize])], folder: &Path) -> Vec<Scene<'a>> {
    let mut scenes = Vec::new();
    for (story, numbers) in stories {
        for number in *numbers {
            let name = format!("{}-{number}", scenes.len());
            let before = folder.join(&name);
            if *number > 0 {
                story.tell(&before, *number);
            }
            let mut scene = Scene { story, number: *number, before, calls: 0 };
            let (work, trace) = (folder.join(format!("{name}-work")), folder.join(format!("{name}-trace")));
            std::fs::create_dir(&work).unwrap();
            let table = scene.set(&work);
            let mut command = scene.step().command(&table);
            disk.watch(&mut command, &work, &Fault::default());
            disk::trace_into(&mut command, &trace, "");
            assert!(command.output().unwrap().status.success(), "{}", scene.step().name);
            assert_eq!(sound_rows(&table).unwrap(), scene.step().rows, "{}", scene.step().name);
            scene.calls = disk::calls(&trace).iter().filter(|call| call.changes()).count();
            println!("{}: {} calls that change something", scene.step().name, scene.calls);
            scenes.push(scene);
        }
    }
    scenes
}

/// Kills, looks, and lets finish. Returns what was hit.
fn act(disk: &FaultyDisk, scene: &Scene<'_>, job: &Job) -> Tally {
    let mut tally = Tally::default();
    let folder = tempfile::tempdir().unwrap();
    let (work, trace) = (folder.path().join("work"), folder.path().join("trace"));
    std::fs::create_dir(&work).unwrap();
    let table = scene.set(&work);
    let (old, new) = (scene.story.before(scene.number), scene.step().rows.as_slice());
    for (nth, when) in &job.kills {
        let mut command = scene.step().command(&table);
        disk.watch(&mut command, &work, &Fault::once(format!("* {nth}"), format!("kill-{when}")));
        disk::trace_into(&mut command, &trace, "");
        let ended = command.output().unwrap();
        if ended.status.signal() == Some(9) {
            let call = disk::calls(&trace).pop().unwrap();
            tally.count(format!("{} {}, {when}", call.kind, call.object()));
        } else {
            // It had fewer calls to make this time.
            assert!(ended.status.success(), "{job:?}: {}", String::from_utf8_lossy(&ended.stderr));
        }
        let rows = sound_rows(&table).unwrap_or_else(|why| panic!("{} {job:?}: {why}", scene.step().name));
        assert!(rows == old || rows == new, "{} {job:?}: {} rows", scene.step().name, rows.len());
    }
    let ended = scene.step().command(&table).output().unwrap();
    assert!(ended.status.success(), "{job:?}: {}", String::from_utf8_lossy(&ended.stderr));
    let rows = sound_rows(&table).unwrap_or_else(|why| panic!("{} {job:?}: {why}", scene.step().name));
    assert!(rows == new, "{} {job:?}: {} rows instead of {}", scene.step().name, rows.len(), new.len());
    tally
}

/// Every call once before and once after; then, up to `kills` in all, two to four in a row at calls drawn from a seed.
fn jobs(scenes: &[Scene<'_>], kills: usize) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (scene, set) in scenes.iter().enumerate() {
        let all = (1..=set.calls).flat_map(|nth| [(nth, "before"), (nth, "after")]);
        let spills = set.step().name.contains("spills") && kills == 0;
        let stride = if spills { (2 * set.calls).div_ceil(OF_SPILLS) | 1 } else { 1 };
        jobs.extend(all.step_by(stride).map(|kill| Job { scene, kills: vec![kill] }));
    }
    let (mut dice, mut planned) = (Dice::new(number("DEDUPE_KILLS_SEED").unwrap_or(1)), jobs.len());
    // Some are not met: a process that follows another one has less to do.
    while planned < kills + kills / 6 {
        let scene = dice.throw(scenes.len());
        let several = (0..2 + dice.throw(3))
            .map(|_| (1 + dice.throw(scenes[scene].calls), ["before", "after"][dice.throw(2)]));
        let kills: Vec<_> = several.collect();
        planned += kills.len();
        jobs.push(Job { scene, kills });
    }
    jobs
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")))
}

#[test]
fn before_and_after_every_call() {
    let Some(disk) = FaultyDisk::compile() else { return };
    let kills = number("DEDUPE_KILLS").unwrap_or(0) as usize;
    let (long, tiny) = (Story::long(), Story::tiny_commits());
    let folder = tempfile::tempdir().unwrap();
    let scenes = scenes(&disk, &[(&long, &[0, 1, 2, 3, 4]), (&tiny, &[31, 32])], folder.path());
    let jobs = jobs(&scenes, kills);
    let (next, hit) = (AtomicUsize::new(0), Mutex::new(Tally::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let tally = act(&disk, &scenes[job.scene], job);
                    hit.lock().unwrap().merge(tally);
                }
            });
        }
    });
    let hit = hit.into_inner().unwrap();
    println!("{hit}{} kills at {} kinds of places", hit.total(), hit.kinds());
    assert!(hit.kinds() >= 25, "only {} kinds of places", hit.kinds());
    assert!(hit.total() >= LEAST.max(kills * 9 / 10), "only {} kills", hit.total());
    for object in [
        "table.json",
        "probe",
        "manifest",
        "checkpoint",
        "part of a checkpoint",
        "data file",
        "token run",
        "quarantine",
        "lease",
    ] {
        assert!(hit.of(object) > 0, "nothing was killed at a {object}");
    }
}
