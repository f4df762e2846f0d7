//! What a run tells about itself: while it runs, and at its end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use serde::Serialize;

use crate::verdict::{Accounting, Lookups};

/// The result of a run of `dedupe ingest`, as `--output json` prints it.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct IngestReport {
    /// Where the table lies.
    pub table: String,
    /// The version that holds the result: a new one, or the one that stands if there was nothing to commit.
    pub version: Option<u64>,
    /// Whether this run made that version.
    pub committed: bool,
    /// The batch id, if one was given.
    pub batch: Option<String>,
    /// Whether the batch was committed by an earlier run, whose outcome this is.
    pub batch_replayed: bool,
    /// Whether this run created the table.
    pub created: bool,
    /// Whether nothing was written because only a forecast was asked for.
    pub dry_run: bool,
    /// Row accounting.
    #[serde(flatten)]
    pub rows: Accounting,
    /// What finding out which keys are known has taken.
    #[serde(flatten)]
    pub lookups: Lookups,
    /// Data files added.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Sources read or recognised.
    pub sources: u64,
    /// Sources left out because they could not be read, each with its reason.
    pub skipped: Vec<Skipped>,
    /// Where the rows that were kept out lie.
    pub quarantine: Vec<String>,
    /// Columns this run added to the table's schema.
    pub new_columns: Vec<String>,
    /// Wall time in seconds.
    pub seconds: f64,
}

/// A source that was left out.
#[derive(Debug, Clone, Serialize)]
pub struct Skipped {
    /// Path or URL, without credentials.
    pub url: String,
    /// Why.
    pub reason: String,
}

/// Counters of a running ingest, to be looked at from outside. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Progress(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    rows: AtomicU64,
    dropped: AtomicU64,
    bytes_done: AtomicU64,
    bytes_total: AtomicU64,
    cancelled: AtomicBool,
    committing: AtomicBool,
}

impl Progress {
    /// Rows judged so far.
    pub fn rows(&self) -> u64 {
        self.0.rows.load(Ordering::Relaxed)
    }

    /// Rows dropped so far.
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Bytes of the sources read so far, and in all (0 while unknown).
    pub fn bytes(&self) -> (u64, u64) {
        (self.0.bytes_done.load(Ordering::Relaxed), self.0.bytes_total.load(Ordering::Relaxed))
    }

    /// Asks the run to stop. It does so before its commit, or not at all.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether the run was asked to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }

    /// Whether the commit has begun, after which a request to stop is not heard.
    pub fn is_committing(&self) -> bool {
        self.0.committing.load(Ordering::Relaxed)
    }

    pub(crate) fn count(&self, rows: u64, dropped: u64) {
        self.0.rows.fetch_add(rows, Ordering::Relaxed);
        self.0.dropped.fetch_add(dropped, Ordering::Relaxed);
    }

    pub(crate) fn set_total(&self, bytes: u64) {
        self.0.bytes_total.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn advance(&self, bytes: u64) {
        self.0.bytes_done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Forgets what an attempt that failed had counted.
    pub(crate) fn start_over(&self) {
        for counter in [&self.0.rows, &self.0.dropped, &self.0.bytes_done] {
            counter.store(0, Ordering::Relaxed);
        }
        self.0.committing.store(false, Ordering::Relaxed);
    }

    pub(crate) fn begin_commit(&self) {
        self.0.committing.store(true, Ordering::Relaxed);
    }
}
