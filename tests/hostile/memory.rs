//! Memory stays within the budget and a stated constant, for every file there is. Seen from outside: the most that
//! the real process ever held, as the system counts it.

use crate::bombs;
use crate::held::side_by_side;
use crate::scene::Scene;
use dedupe::source::parquet::ParquetFile;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What every run here is given.
const BUDGET: &str = "64MiB";
const BUDGET_MIB: u64 = 64;

/// What a process takes besides, as `docs/operations.md` states it: the program and its threads, text and batches under
/// way. (A test build of the program is larger than the one that is shipped.)
const CONSTANT_MIB: u64 = 96;

/// What one line of the largest size takes besides while it is looked at: some twenty times its length.
const LINE_MIB: u64 = 448;

/// What 9000 columns take besides while their rows are encoded: some 48 KiB each.
const WIDE_MIB: u64 = 9000 * 48 / 1024;

/// What the pages of one file may take at a time besides, where somebody made them as large as is allowed.
const PAGES_MIB: u64 = 512;

// Of the C library that every program here is linked with; the fields are longs.
unsafe extern "C" {
    fn wait4(pid: i32, status: *mut i32, options: i32, usage: *mut [i64; 18]) -> i32;
}

/// How a run ended, and the most memory it held, in MiB.
struct Run {
    code: i32,
    said: String,
    peak: u64,
}

/// Runs the program and measures it. Of its child a system counts also what stood in memory before `exec`, which is a
/// copy of its parent: so the parent is a fresh process, this very test program, with nothing to do but [`measured`].
fn run(scene: &Scene, args: &[&str]) -> Run {
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["memory::measured", "--exact", "--nocapture"])
        .env(MEASURED, args.join("\x1f"))
        .current_dir(scene.path("."))
        .stdout(Stdio::null())
        .stderr(Stdio::inherit())
        .status();
    assert!(status.unwrap().success());
    let told = fs::read_to_string(scene.path("measured")).unwrap();
    let (code, peak) = told.split_once(' ').unwrap();
    let said = String::from_utf8_lossy(&fs::read(scene.path("out")).unwrap()).into_owned();
    Run { code: code.parse().unwrap(), said, peak: peak.parse().unwrap() }
}

/// The arguments of a run to be measured.
const MEASURED: &str = "DEDUPE_TEST_MEASURED";

#[test]
#[allow(clippy::zombie_processes, reason = "wait4 waits for it")]
fn measured() {
    // Called without them it has nothing to do.
    let Ok(args) = std::env::var(MEASURED) else { return };
    let out = fs::File::create("out").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_dedupe"));
    command.args(args.split('\x1f')).env_remove("RUST_LOG").env_remove(MEASURED).stdin(Stdio::null());
    let child = command.stderr(Stdio::from(out.try_clone().unwrap())).stdout(out).spawn().unwrap();
    let (mut status, mut usage) = (0, [0; 18]);
    // SAFETY: the pointers are to values of the sizes that Linux writes, and the child is ours and not waited for yet.
    let waited = unsafe { wait4(child.id() as i32, &mut status, 0, &mut usage) };
    assert_eq!(waited, child.id() as i32);
    let code = if status & 0x7f == 0 { status >> 8 & 0xff } else { -(status & 0x7f) };
    fs::write("measured", format!("{code} {}", usage[4] / 1024)).unwrap();
}

/// Ingests one file into a fresh table; the run must end in order, and within the budget and `more`.
fn within(file: &Path, key: &str, more: u64) -> Run {
    let scene = Scene::new();
    let file = file.to_str().unwrap();
    let args = ["ingest", file, "--into", "t", "--key", key, "--memory", BUDGET, "--threads", "2"];
    let run = run(&scene, &[&args[..], &["--null-key", "keep"]].concat());
    let name = Path::new(file).file_name().unwrap().to_str().unwrap();
    println!("{name}: exit {}, {} MiB", run.code, run.peak);
    assert!(matches!(run.code, 0..=2), "{name}: exit {}: {}", run.code, run.said);
    assert!(run.code == 0 || run.said.contains(name), "{name}: {}", run.said);
    assert!(!run.said.contains("panicked"), "{name}: {}", run.said);
    let most = BUDGET_MIB + CONSTANT_MIB + more;
    assert!(run.peak <= most, "{name} took {} MiB of {most}: {}", run.peak, run.said);
    if run.code == 0 && more == 0 && scene.path("t").exists() {
        let verified = scene.run(&["verify", "t", "--memory", BUDGET]);
        assert_eq!(verified.code, 0, "{name}: {verified:?}");
    }
    run
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = walkdir::WalkDir::new(folder).sort_by_file_name().into_iter();
    entries.map(|entry| entry.unwrap().into_path()).filter(|path| path.is_file()).collect()
}

/// A column that can be a key.
fn key_of(file: &Path) -> String {
    let Ok(bytes) = fs::read(file) else { return "id".into() };
    match ParquetFile::open(bytes::Bytes::from(bytes), "x") {
        Ok(file) => {
            file.schema().fields().first().map_or("id".into(), |field| field.name().replace(',', "\\,"))
        }
        Err(_) => "id".into(),
    }
}

fn is_source(path: &Path) -> bool {
    let name = path.to_str().unwrap();
    [".parquet", ".ndjson", ".jsonl", ".ndjson.gz", ".ndjson.zst"].iter().any(|end| name.ends_with(end))
}

#[test]
fn every_file_of_the_test_data_stays_within_the_budget() {
    let _others = side_by_side();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut seen = 0;
    for file in files(&folder).iter().filter(|file| is_source(file)) {
        let key = if file.extension().is_some_and(|e| e == "parquet") { key_of(file) } else { "id".into() };
        within(file, &key, 0);
        seen += 1;
    }
    assert!(seen > 30);
}

#[test]
fn every_real_file_stays_within_the_budget() {
    let _others = side_by_side();
    let Some(folder) = std::env::var_os("DEDUPE_REALDATA").map(PathBuf::from) else {
        println!("not tested: DEDUPE_REALDATA is not set");
        return;
    };
    for file in files(&folder.join("parquet")).iter().filter(|file| is_source(file)) {
        within(file, &key_of(file), 0);
    }
    for file in files(&folder.join("json_hostile")) {
        let scene = Scene::new();
        let bytes = fs::read(&file).unwrap();
        let copy = scene.path("hostile.ndjson");
        fs::write(&copy, [&b"{\"id\":1}\n"[..], &bytes].concat()).unwrap();
        within(&copy, "id", 0);
    }
    for file in
        files(&folder.join("events")).iter().filter(|file| file.extension().is_some_and(|e| e == "gz"))
    {
        within(file, "id", 0);
    }
}

#[test]
fn bombs_of_parquet_stay_within_the_budget_and_what_pages_may_take() {
    let _others = side_by_side();
    for bomb in bombs::parquet() {
        let scene = Scene::new();
        let file = scene.path("bomb.parquet");
        fs::write(&file, &bomb.bytes).unwrap();
        println!("{}", bomb.name);
        let run = within(&file, "id", PAGES_MIB);
        match bomb.end {
            bombs::End::Rows => assert_eq!(run.code, 0, "{}: {}", bomb.name, run.said),
            bombs::End::Told(words) => {
                assert_eq!(run.code, 1, "{}: {}", bomb.name, run.said);
                assert!(run.said.contains(words), "{}: {}", bomb.name, run.said);
            }
        }
    }
}

/// Text that is made while it is packed: `line` may be long, and there may be many.
fn packed(name: &str, scene: &Scene, write: impl FnOnce(&mut dyn Write)) -> PathBuf {
    let path = scene.path(name);
    let file = fs::File::create(&path).unwrap();
    if name.ends_with(".zst") {
        let mut packed = zstd::Encoder::new(file, 1).unwrap();
        write(&mut packed);
        packed.finish().unwrap();
    } else {
        let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
        write(&mut packed);
        packed.finish().unwrap();
    }
    path
}

fn repeat(to: &mut dyn Write, text: &str, count: u64) {
    let many = text.repeat(1000);
    for _ in 0..count / 1000 {
        to.write_all(many.as_bytes()).unwrap();
    }
}

#[test]
fn bombs_of_text_stay_within_the_budget() {
    let _others = side_by_side();
    const MIB: u64 = 1 << 20;
    type Bomb = (&'static str, Box<dyn Fn(&mut dyn Write)>, i64);
    // Name, text after two good rows, and how many lines of it are bad.
    let bombs: [Bomb; 10] = [
        ("a-line-of-400-mib.ndjson.gz", Box::new(|to| repeat(to, "xxxxxxxx", 50 * MIB)), 1),
        ("a-line-of-400-mib.ndjson.zst", Box::new(|to| repeat(to, "xxxxxxxx", 50 * MIB)), 1),
        ("levels-without-end.ndjson.gz", Box::new(|to| repeat(to, "[", 15 * MIB)), 1),
        (
            "numbers.ndjson.gz",
            Box::new(|to| {
                to.write_all(b"{\"id\":7,\"l\":[").unwrap();
                repeat(to, "1,", 7 * MIB);
                to.write_all(b"1]}").unwrap();
            }),
            0,
        ),
        (
            "many-long-lines.ndjson.gz",
            Box::new(|to| {
                for n in 0..12 {
                    write!(to, "{{\"id\":{},\"l\":[", n + 7).unwrap();
                    repeat(to, "1,", 7 * MIB);
                    to.write_all(b"1]}\n").unwrap();
                }
            }),
            0,
        ),
        (
            "empty-lists.ndjson.gz",
            Box::new(|to| {
                to.write_all(b"{\"id\":7,\"l\":[").unwrap();
                repeat(to, "[],", 5 * MIB);
                to.write_all(b"[]]}").unwrap();
            }),
            0,
        ),
        (
            "members.ndjson.gz",
            Box::new(|to| {
                to.write_all(b"{\"id\":7,\"o\":{").unwrap();
                for n in 0..1_000_000 {
                    write!(to, "\"{n:x}\":0,").unwrap();
                }
                to.write_all(b"\"\":1}}").unwrap();
            }),
            0,
        ),
        ("bad-lines.ndjson.gz", Box::new(|to| repeat(to, "x\n", 600_000)), 600_000),
        (
            "wide-and-empty.ndjson.gz",
            Box::new(|to| {
                let members: Vec<String> = (0..9_000).map(|n| format!("\"c{n}\":{n}")).collect();
                to.write_all(format!("{{\"id\":7,{}}}\n", members.join(",")).as_bytes()).unwrap();
                repeat(to, "{\"id\":8}\n", 60_000);
            }),
            0,
        ),
        ("blank-lines.ndjson.zst", Box::new(|to| repeat(to, "\n\n\n\n\n\n\n\n", 20 * MIB)), 0),
    ];
    for (name, write, bad) in bombs {
        let scene = Scene::new();
        let file = packed(name, &scene, |to| {
            to.write_all(b"{\"id\":1}\n{\"id\":2}\n").unwrap();
            write(to);
        });
        let table = scene.path("t");
        let args = ["ingest", file.to_str().unwrap(), "--into", table.to_str().unwrap(), "--key", "id"];
        let more = ["--memory", BUDGET, "--threads", "2", "--output", "json"];
        let run = run(&scene, &[&args[..], &more].concat());
        println!("{name}: {} bytes, exit {}, {} MiB", fs::metadata(&file).unwrap().len(), run.code, run.peak);
        assert_eq!(run.code, 0, "{name}: {}", run.said);
        let report: serde_json::Value = serde_json::from_str(&run.said).unwrap();
        assert_eq!(report["rejected"], bad, "{name}: {report}");
        assert!(report["accepted"].as_u64().unwrap() >= 2, "{name}: {report}");
        let long =
            ["numbers", "many-long", "empty-lists", "members"].iter().any(|long| name.starts_with(long));
        let more = match name.starts_with("wide") {
            true => WIDE_MIB,
            false if long => LINE_MIB,
            false => 0,
        };
        let most = BUDGET_MIB + CONSTANT_MIB + more;
        assert!(run.peak <= most, "{name} took {} MiB of {most}", run.peak);
    }
}

#[test]
fn a_frame_of_zstd_that_wants_a_huge_window_is_refused_with_what_to_do() {
    let _others = side_by_side();
    let scene = Scene::new();
    // Magic, no sizes, a window of 2 GiB, one raw block.
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8];
    let text = b"{\"id\":1}\n";
    frame.extend(((text.len() as u32) << 3 | 1).to_le_bytes().iter().take(3));
    frame.extend_from_slice(text);
    let file = scene.path("window.ndjson.zst");
    fs::write(&file, frame).unwrap();
    let run = within(&file, "id", 0);
    assert_eq!(run.code, 1);
    assert!(run.said.contains("window over 128 MiB") && run.said.contains("--long"), "{}", run.said);
}

#[test]
fn a_folder_of_many_strange_files_takes_no_more_than_one() {
    let _others = side_by_side();
    let scene = Scene::new();
    fs::create_dir(scene.path("in")).unwrap();
    for file in 0..40 {
        let mut text = String::from("{\"id\":1");
        // Objects of 900 members each stay objects: a shape is remembered for every one.
        for object in 0..9 {
            let members: Vec<String> = (0..900).map(|n| format!("\"m{file}_{n}\":{n}")).collect();
            text.push_str(&format!(",\"o{object}\":{{{}}}", members.join(",")));
        }
        text.push_str("}\n");
        fs::write(scene.path(&format!("in/{file:03}.ndjson")), text).unwrap();
    }
    let args = ["ingest", "in", "--into", "t", "--key", "id", "--memory", BUDGET, "--threads", "2"];
    let run = run(&scene, &args);
    println!("exit {}, {} MiB: {}", run.code, run.peak, run.said);
    assert!(matches!(run.code, 0..=2), "{}", run.said);
    assert!(run.peak <= BUDGET_MIB + CONSTANT_MIB, "{} MiB", run.peak);
}
