//! A disk that fails where a test says: real processes run over `tests/preload/faulty_disk.c`, a library that stands
//! between them and the system calls with which they change files. Linux with glibc only; elsewhere nothing is tested.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Numbers of errors, as Linux has them.
pub const EIO: i32 = 5;
pub const EMFILE: i32 = 24;
pub const ENOSPC: i32 = 28;
pub const EROFS: i32 = 30;
pub const EDQUOT: i32 = 122;

/// The library, compiled.
pub struct FaultyDisk {
    library: PathBuf,
    _folder: tempfile::TempDir,
}

/// What happens to a watched process, and where.
#[derive(Debug, Clone, Default)]
pub struct Fault {
    /// `KINDS NTH PART`, as the library reads it.
    pub at: String,
    /// `kill-before`, `kill-after`, `stop-before`, `stop-after`, `fail ERRNO`, `lie ERRNO`, `short`.
    pub does: String,
    /// From there on, not once.
    pub lasts: bool,
}

impl Fault {
    pub fn once(at: impl Into<String>, does: impl Into<String>) -> Self {
        Self { at: at.into(), does: does.into(), lasts: false }
    }

    pub fn lasting(at: impl Into<String>, does: impl Into<String>) -> Self {
        Self { lasts: true, ..Self::once(at, does) }
    }
}

/// One watched call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The label of the process's run.
    pub run: String,
    pub process: u32,
    /// `open`, `create`, `read`, `write`, `truncate`, `sync`, `syncdir`, `close`, `link`, `rename`, `unlink`, `mkdir`,
    /// `rmdir`; `say` is a write to standard output.
    pub kind: String,
    /// What it returned; below zero an error's number.
    pub result: i64,
    /// What was done to it: empty, or as in [`Fault::does`] without the number.
    pub fault: String,
    pub offset: u64,
    pub data: Vec<u8>,
    pub path: PathBuf,
    /// The new name, of a link or a rename.
    pub other: PathBuf,
}

impl FaultyDisk {
    /// Compiles the library; `None`, and a word about it, where it cannot work.
    pub fn compile() -> Option<Self> {
        if !cfg!(all(target_os = "linux", target_env = "gnu")) {
            println!("not tested: the faulty disk is for Linux with glibc");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("faulty_disk.so");
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/preload/faulty_disk.c");
        let mut compiler = Command::new("cc");
        compiler
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(&library)
            .arg(source)
            .args(["-ldl", "-lpthread"]);
        let built = compiler.status().expect("the tests of faulty disks need a C compiler called cc");
        assert!(built.success());
        Some(Self { library, _folder: folder })
    }

    /// Makes `command` run over the faulty disk, as far as it touches files below `root`.
    pub fn watch(&self, command: &mut Command, root: &Path, fault: &Fault) {
        command.env("LD_PRELOAD", &self.library).env("FAULTY_ROOTS", root).env("FAULTY_NO_SYNC", "1");
        if !fault.at.is_empty() {
            command.env("FAULTY_POINT", &fault.at).env("FAULTY_DO", &fault.does);
        }
        if fault.lasts {
            command.env("FAULTY_LASTS", "1");
        }
    }
}

/// Makes a watched `command` write down its calls, with what was written.
pub fn trace_into(command: &mut Command, file: &Path, run: &str) {
    command.env("FAULTY_TRACE", file).env("FAULTY_RUN", run);
}

/// Makes a watched and traced `command` write down its data as well.
pub fn trace_data(command: &mut Command) {
    command.env("FAULTY_DATA", "1");
}

/// All calls in a trace, in the order in which they were made.
pub fn calls(trace: &Path) -> Vec<Call> {
    let bytes = std::fs::read(trace).unwrap_or_default();
    let (mut calls, mut rest) = (Vec::new(), bytes.as_slice());
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = std::str::from_utf8(&rest[..end]).unwrap();
        let fields: Vec<&str> = line.split('\t').collect();
        let [run, process, kind, result, fault, offset, length, path, other] = fields[..] else {
            panic!("not a call: {line}")
        };
        let after = end + 1 + length.parse::<usize>().unwrap();
        calls.push(Call {
            run: run.into(),
            process: process.parse().unwrap(),
            kind: kind.into(),
            result: result.parse().unwrap(),
            fault: fault.into(),
            offset: offset.parse().unwrap_or(0),
            data: rest[end + 1..after].to_vec(),
            path: path.into(),
            other: other.into(),
        });
        rest = &rest[after..];
    }
    calls
}

impl Call {
    /// Whether it changes a file or folder, or makes a change last, or closes what was changed.
    pub fn changes(&self) -> bool {
        !matches!(self.kind.as_str(), "open" | "read" | "say")
    }

    /// What kind of object of a table it is about.
    pub fn object(&self) -> &'static str {
        let path = if self.other.as_os_str().is_empty() { &self.path } else { &self.other };
        let path = path.to_str().unwrap();
        let name = path.rsplit('/').next().unwrap();
        let in_probe = path.contains("/_dedupe/probe-");
        let is_file = name.contains('.') || in_probe;
        match () {
            () if !is_file => "folder",
            () if path.contains("/_dedupe/ledger/") => "manifest",
            () if path.contains("/_dedupe/checkpoint/") => "checkpoint",
            () if path.contains("/_dedupe/parts/") => "part of a checkpoint",
            () if path.contains("/_dedupe/tokens/") => "token run",
            () if path.contains("/_dedupe/quarantine/") => "quarantine",
            () if path.contains("/_dedupe/session/") => "lease",
            () if in_probe => "probe",
            () if path.contains("/_dedupe/") => "table.json",
            () if path.contains("/data/") => "data file",
            () => "other",
        }
    }
}

/// How often each kind of thing happened.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<String, usize>);

impl Tally {
    pub fn count(&mut self, what: impl Into<String>) {
        *self.0.entry(what.into()).or_default() += 1;
    }

    pub fn merge(&mut self, other: Self) {
        for (what, times) in other.0 {
            *self.0.entry(what).or_default() += times;
        }
    }

    pub fn kinds(&self) -> usize {
        self.0.len()
    }

    pub fn total(&self) -> usize {
        self.0.values().sum()
    }

    pub fn of(&self, part: &str) -> usize {
        self.0.iter().filter(|(what, _)| what.contains(part)).map(|(_, times)| times).sum()
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>7}  {what}"))
    }
}

/// The binary, with nothing on its standard input and its output kept.
pub fn dedupe() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dedupe"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("RUST_LOG").env("NO_COLOR", "1");
    command
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Numbers from a seed, for histories that can be had again.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub fn throw(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % sides.max(1) as u64) as usize
    }
}

/// Sends a signal to a process.
pub fn signal(process: u32, name: &str) {
    assert!(Command::new("kill").args([name, &process.to_string()]).status().unwrap().success());
}

/// Waits until a process has stopped itself; `false` if it ended instead.
#[expect(clippy::disallowed_methods, reason = "waits for another process")]
pub fn stopped(process: u32) -> bool {
    for _ in 0..60_000 {
        let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        match state.rsplit(')').next().unwrap().trim_start().chars().next() {
            Some('T') => return true,
            Some('Z') => return false,
            _ => std::thread::sleep(std::time::Duration::from_millis(1)),
        }
    }
    panic!("process {process} did not stop");
}
