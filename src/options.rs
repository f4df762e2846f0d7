//! Settings as plain data. Components (stores, clocks) are never settings.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use arrow_schema::Schema;

use crate::policy::NullKey;
use crate::source::discover::Format;
use crate::source::ndjson::MAX_LINE;
use crate::token::TokenHash;

/// Everything a run of `dedupe ingest` can be told. `Default` is what the command does without flags.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct IngestOptions {
    /// Key columns. Needed for the first ingest; later they must agree with the table's.
    pub key: Option<Vec<String>>,
    /// The token function of a new table.
    pub token_hash: Option<TokenHash>,
    /// Read every source as this format, whatever its name.
    pub format: Option<Format>,
    /// Makes the run idempotent under this id.
    pub batch_id: Option<String>,
    /// Judge the rows of sources that were consumed before one by one, instead of recognising the source.
    pub reread: bool,
    /// What becomes of rows without a key. `None` = as the table's policy says.
    pub null_key: Option<NullKey>,
    /// What becomes of a row that is malformed or does not fit the schema.
    pub on_bad_row: OnBadRow,
    /// What becomes of a source that cannot be read.
    pub on_bad_file: OnBadFile,
    /// The schema of a new table, instead of an inferred one.
    pub schema: Option<Schema>,
    /// Infer the schema of NDJSON from this many rows of each source instead of from all.
    pub sample_rows: Option<u64>,
    /// Partition expressions of a new table.
    pub partition_by: Option<Vec<String>>,
    /// Data files are closed when they reach this many bytes.
    pub target_file_size: u64,
    /// Row groups that are encoded anew hold up to this many rows.
    pub row_group_rows: usize,
    /// Codec of data that is encoded anew, as text (`zstd(3)`, `snappy`, …). `None` = the source's, zstd for NDJSON.
    pub compression: Option<String>,
    /// Bytes that input, session set, index and writers may take together.
    pub memory: u64,
    /// Threads that decode, hash and encode.
    pub threads: NonZeroUsize,
    /// Judge everything, write nothing.
    pub dry_run: bool,
    /// What a new table may lack, because its user knows.
    pub accepted_risk: Option<Risk>,
    /// Options for the stores, as `key=value`.
    pub store_options: Vec<(String, String)>,
    /// The longest NDJSON line that is read, in bytes.
    pub max_line: usize,
    /// A folder on the local disk in which parts of the index of a table in a bucket are kept.
    pub cache_dir: Option<PathBuf>,
    /// Bytes that the cache may take there.
    pub cache_size: u64,
}

/// What a cache may take unless told otherwise: the prefixes of some three billion keys.
pub const CACHE_SIZE: u64 = 4 << 30;

/// What becomes of a row that is malformed or does not fit the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadRow {
    /// It goes to quarantine with its reason and origin.
    #[default]
    Quarantine,
    /// The run stops with an error; nothing is committed.
    Fail,
}

/// What becomes of a source that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBadFile {
    /// The run stops with an error; nothing is committed.
    #[default]
    Fail,
    /// It is left out, and the manifest records which and why.
    Skip,
}

/// A risk that a user may take when a table is created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Risk {
    /// The store does not keep conditional writes; only one writer at a time will ever run.
    SingleWriter,
}

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// The least memory a run can be given: below it nothing useful fits.
pub const MIN_MEMORY: u64 = 4 * MIB;

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            key: None,
            token_hash: None,
            format: None,
            batch_id: None,
            reread: false,
            null_key: None,
            on_bad_row: OnBadRow::default(),
            on_bad_file: OnBadFile::default(),
            schema: None,
            sample_rows: None,
            partition_by: None,
            target_file_size: 256_000_000,
            row_group_rows: 1 << 20,
            compression: None,
            memory: default_memory(),
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            dry_run: false,
            accepted_risk: None,
            store_options: Vec::new(),
            max_line: MAX_LINE,
            cache_dir: None,
            cache_size: CACHE_SIZE,
        }
    }
}

/// A quarter of the machine's memory, at most 1 GiB.
pub fn default_memory() -> u64 {
    (machine_memory().unwrap_or(1024 * MIB) / 4).clamp(64 * MIB, 1024 * MIB)
}

/// The memory this process may use, where the system tells: the machine's, or the control group's if it is less.
fn machine_memory() -> Option<u64> {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    });
    let group =
        std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    match (machine, group) {
        (Some(machine), Some(group)) => Some(machine.min(group)),
        (machine, group) => machine.or(group),
    }
}
