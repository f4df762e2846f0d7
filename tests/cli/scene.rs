//! A scratch folder and the binary to run in it.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// A scratch folder with sources and a table to come.
pub struct Scene(tempfile::TempDir);

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Scene {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A scene with a table of four events, of which the last came in twice, from `first.ndjson` in version 1.
    pub fn with_table() -> Self {
        let scene = Self::new();
        scene.write("first.ndjson", &lines(["a", "b", "c", "d", "d"]));
        let ended = scene.run(&["ingest", "first.ndjson", "--into", "t", "--key", "id", "--batch-id", "one"]);
        assert_eq!(ended.code, 0, "{ended:?}");
        scene
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dedupe"));
        command.args(args).current_dir(self.0.path()).env_remove("RUST_LOG").env("NO_COLOR", "1");
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    /// Runs with `--output json`; the output must be one JSON object, whatever the exit code.
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        let ended = self.run(&[args, &["--output", "json"]].concat());
        let value: Value = serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:?}"));
        assert!(value.is_object(), "{ended:?}");
        (ended.code, value)
    }

    /// As [`Self::json`], for commands that must succeed.
    pub fn answer(&self, args: &[&str]) -> Value {
        let (code, value) = self.json(args);
        assert_eq!(code, 0, "{args:?}: {value}");
        value
    }
}

impl Ended {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// One event a line, with an id and a running number.
pub fn lines<'a>(ids: impl IntoIterator<Item = &'a str>) -> String {
    ids.into_iter().enumerate().map(|(n, id)| format!("{{\"id\":\"{id}\",\"n\":{n}}}\n")).collect()
}

/// The names of an object's members.
pub fn fields(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}
