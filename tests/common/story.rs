//! The life of a small table, step by step, with what it must hold after each: the plot of the tests that kill, fail
//! and cut the power. All steps run as real processes; each can also be done within the test.
#![allow(dead_code, reason = "every test binary uses its own part")]

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use dedupe::options::{IngestOptions, MIB};
use dedupe::store::Store;
use dedupe::upkeep::compact::compact;
use dedupe::upkeep::vacuum::{VacuumOptions, vacuum};
use dedupe::upkeep::verify::{VerifyOptions, verify};

use crate::disk::dedupe;
use crate::table::{self, Event, Shape};

/// What is done to the table.
#[derive(Debug, Clone)]
enum Deed {
    Ingest { source: PathBuf, memory: u64, target: u64, batch: Option<String> },
    Compact,
    Vacuum,
}

/// One step, and the rows of the table after it.
#[derive(Debug, Clone)]
pub struct Step {
    pub name: &'static str,
    deed: Deed,
    pub rows: Vec<Event>,
    /// The keys that its source has.
    keys: HashSet<String>,
}

/// A few steps, with their sources.
pub struct Story {
    pub steps: Vec<Step>,
    folder: tempfile::TempDir,
    known: HashSet<String>,
    rows: Vec<Event>,
}

impl Story {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { steps: Vec::new(), folder, known: HashSet::new(), rows: Vec::new() }
    }

    /// Two ingests with repeats and rows without a key, a compaction, and a vacuum of what it replaced.
    pub fn short() -> Self {
        let mut story = Self::new();
        let with_gaps = |i: i64| Event { id: (i % 40 != 7).then(|| format!("key-{}", i % 330)), n: i };
        story.ingest("first ingest", Shape::Ndjson, &(0..420).map(with_gaps).collect::<Vec<_>>(), 4, None);
        let events: Vec<Event> = (250..650).map(|i| Event { id: Some(format!("key-{i}")), n: -i }).collect();
        story.ingest("second ingest", Shape::Parquet { group: 100 }, &events, 4, Some("two"));
        story.upkeep("compaction", Deed::Compact);
        story.upkeep("vacuum", Deed::Vacuum);
        story
    }

    /// As [`Self::short`], and an ingest with more keys than its memory holds.
    pub fn long() -> Self {
        let mut story = Self::short();
        let events: Vec<Event> =
            (0..60_000).map(|i| Event { id: Some(format!("key-{}", i * 7 % 50_021)), n: i }).collect();
        story.ingest("ingest that spills", Shape::Parquet { group: 20_000 }, &events, 4, None);
        story
    }

    /// Many tiny ingests: the last but one leaves a checkpoint, and the last reads it.
    pub fn tiny_commits() -> Self {
        let mut story = Self::new();
        for n in 0..33i64 {
            let event = |i: i64| Event { id: Some(format!("key-{i}")), n: i };
            let events: Vec<Event> = (2 * n..2 * n + 4).map(event).collect();
            story.ingest("tiny ingest", Shape::Ndjson, &events, 4, None);
        }
        story
    }

    pub fn ingest(
        &mut self,
        name: &'static str,
        shape: Shape,
        events: &[Event],
        memory: u64,
        batch: Option<&str>,
    ) {
        let source = table::write(self.folder.path(), &format!("source-{}", self.steps.len()), shape, events);
        self.rows.extend(table::first_of_each(&mut self.known, events));
        let deed =
            Deed::Ingest { source, memory: memory * MIB, target: 200_000, batch: batch.map(str::to_owned) };
        let keys = events.iter().filter_map(|event| event.id.clone()).collect();
        self.steps.push(Step { name, deed, rows: self.rows.clone(), keys });
    }

    /// A step that changes no rows.
    fn upkeep(&mut self, name: &'static str, deed: Deed) {
        let rows = self.rows.clone();
        self.steps.push(Step { name, deed, rows, keys: HashSet::new() });
    }

    /// The rows before step `number`.
    pub fn before(&self, number: usize) -> &[Event] {
        number.checked_sub(1).map_or(&[], |before| &self.steps[before].rows)
    }

    /// The keys in the source of step `number`.
    pub fn own_keys(&self, number: usize) -> &HashSet<String> {
        &self.steps[number].keys
    }

    /// Does the first `steps` steps on `table`, undisturbed.
    pub fn tell(&self, table: &Path, steps: usize) {
        self.steps.iter().take(steps).for_each(|step| step.redo(table).unwrap());
    }
}

impl Step {
    /// The command line that does it.
    pub fn command(&self, table: &Path) -> Command {
        let mut command = dedupe();
        match &self.deed {
            Deed::Compact => {
                command.arg("compact").arg(table);
            }
            Deed::Vacuum => {
                command.arg("vacuum").arg(table).args(["--grace", "0"]);
            }
            Deed::Ingest { source, memory, target, batch } => {
                command.arg("ingest").arg(source).arg("--into").arg(table).args(["--key", "id"]);
                command.args(["--threads", "1", "--memory", &memory.to_string()]);
                command.args(["--target-file-size", &target.to_string()]);
                command.args(batch.iter().flat_map(|id| ["--batch-id", id]));
            }
        }
        command
    }

    /// Does it within this process.
    pub fn redo(&self, table: &Path) -> Result<(), String> {
        match &self.deed {
            Deed::Compact => {
                let mut ledger = table::open(table);
                table::runtime().block_on(compact(&mut ledger, 8 * MIB)).map_err(|e| e.to_string())?;
            }
            Deed::Vacuum => {
                let mut options = VacuumOptions::default();
                options.grace = std::time::Duration::ZERO;
                let mut ledger = table::open(table);
                table::runtime().block_on(vacuum(&mut ledger, &options)).map_err(|e| e.to_string())?;
            }
            Deed::Ingest { source, memory, target, batch } => {
                let mut options: IngestOptions = table::options(*memory, 1);
                options.target_file_size = *target;
                options.batch_id.clone_from(batch);
                table::run(table, std::slice::from_ref(source), &options).map_err(|e| e.to_string())?;
            }
        }
        Ok(())
    }
}

/// The rows of the table, or why it is not sound. A folder that is no table yet has none.
pub fn sound_rows(table: &Path) -> Result<Vec<Event>, String> {
    let rows = std::panic::catch_unwind(|| {
        let store = Store::open(table.to_str().unwrap(), &[]).unwrap();
        let opened = table::runtime().block_on(dedupe::ledger::Ledger::open(store));
        let Some(ledger) = opened.map_err(|e| format!("it cannot be opened: {e}"))? else {
            return Ok(Vec::new());
        };
        let mut options = VerifyOptions::default();
        options.memory = 16 * MIB;
        let report = table::runtime().block_on(verify(&ledger, &options)).map_err(|e| e.to_string())?;
        if report.problems.is_empty() { Ok(table::rows(table)) } else { Err(report.problems.join("; ")) }
    });
    rows.unwrap_or_else(|_| Err("its data cannot be read".into()))
}
