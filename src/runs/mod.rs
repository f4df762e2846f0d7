//! Token runs on a store: the index with its I/O.
//!
//! [`open`] reads a run and finds tokens in it, [`scan`] reads one from end to end, [`write`] makes one,
//! [`known`] is what a table knows at a version, [`own`] what a session has accepted itself. What is kept in memory
//! stays within the budget given; every byte used was checked against the checksum that the ledger vouches for.

mod cached;
pub(crate) mod known;
pub(crate) mod open;
pub(crate) mod own;
pub(crate) mod scan;
pub(crate) mod write;

pub(crate) use known::Known;
pub(crate) use open::{Budget, OpenRun};
pub(crate) use own::{Own, Tokens, run_name};
pub(crate) use scan::Scan;

use crate::error::{Error, Result};
use crate::index::RunSummary;
use crate::ledger::entry::RunRef;
use crate::token::Token;

/// What the ledger says of a run that was just written under `name`.
pub(crate) fn reference(name: String, summary: &RunSummary) -> RunRef {
    RunRef {
        name,
        bytes: summary.bytes,
        min: summary.min.0,
        max: summary.max.0,
        tokens: summary.tokens,
        check: format!("{:016x}", summary.checksum),
    }
}

/// What a run must be, by the ledger.
pub(crate) fn summary(run: &RunRef) -> Result<RunSummary> {
    let checksum = u64::from_str_radix(&run.check, 16).map_err(|_| {
        Error::corrupt(&run.name, format!("the ledger gives {:?} as its checksum", run.check))
    })?;
    Ok(RunSummary {
        tokens: run.tokens,
        min: Token(run.min),
        max: Token(run.max),
        bytes: run.bytes,
        checksum,
    })
}
