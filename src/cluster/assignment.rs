//! What every task of a job is told: plain data, which travels with the plan.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow_schema::Schema;
use serde::{Deserialize, Serialize};

use super::marked;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::entry::SourceUse;
use crate::ledger::log::read::read_identity;
use crate::policy::NullKey;
use crate::session::{Session, SessionOptions};
use crate::sink::SinkOptions;
use crate::store::Store;
use crate::token::TokenSpec;
use crate::workers::Workers;

/// The table, the version that was pinned, and how rows are judged and written. (The key that makes tokens is not in it: tasks
/// read it from the table.)
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Assignment {
    /// Where the table lies, for every task.
    pub(super) location: String,
    pub(super) store_options: Vec<(String, String)>,
    pub(super) table: String,
    /// The version that rows are judged against.
    pub(super) version: u64,
    /// The schema that all rows fit.
    pub(super) contract: Schema,
    /// The sources by their numbers.
    pub(super) sources: Vec<Source>,
    pub(super) null_key: NullKey,
    /// Whether a line that cannot be read ends the job.
    pub(super) fail_on_bad_row: bool,
    pub(super) max_line: usize,
    /// Bytes a task may take.
    pub(super) memory: u64,
    pub(super) target_file_size: u64,
    pub(super) row_group_rows: usize,
    pub(super) compression: String,
}

/// A source, as tasks know it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Source {
    /// As quarantine names it.
    url: String,
    /// The version that consumed it before, if one did.
    replay_of: Option<u64>,
}

impl Assignment {
    /// The tasks' part in what `session`, the driver's, is to commit.
    pub(super) fn of(
        session: &Session,
        location: String,
        store_options: Vec<(String, String)>,
    ) -> Result<Self> {
        let sink = session.sink();
        marked::schema(session.schema())?;
        Ok(Self {
            location,
            store_options,
            table: session.identity().table.clone(),
            version: session.stage().saturating_sub(1),
            contract: session.schema().as_ref().clone(),
            sources: (session.sources().iter())
                .map(|source| Source { url: source.url.clone(), replay_of: source.replay_of })
                .collect(),
            null_key: session.null_key(),
            fail_on_bad_row: false,
            max_line: crate::source::ndjson::MAX_LINE,
            memory: session.memory(),
            target_file_size: sink.target_file_size,
            row_group_rows: sink.row_group_rows,
            compression: sink.compression.to_string(),
        })
    }

    /// The name of source `number`.
    pub(super) fn source(&self, number: u32) -> Result<&str> {
        self.sources
            .get(number as usize)
            .map(|source| source.url.as_str())
            .ok_or_else(|| Error::Internal(format!("there is no source {number} in this job")))
    }

    fn store(&self) -> Result<Store> {
        Store::open(&self.location, &self.store_options)
    }

    fn is_absent(&self) -> Error {
        Error::Refused(format!(
            "table {} of this job is not at {}: do all executors see the same store?",
            self.table, self.location
        ))
    }

    /// How the table's tokens are made.
    pub(super) async fn spec(&self) -> Result<TokenSpec> {
        let identity = read_identity(&self.store()?).await?;
        let identity = identity.filter(|identity| identity.table == self.table);
        identity.map(|identity| identity.token).ok_or_else(|| self.is_absent())
    }

    /// A session that judges a share of the job's rows, with `memory` bytes.
    pub(super) async fn begin(&self, memory: u64) -> Result<Session> {
        let ledger = Ledger::open_at(self.store()?, self.version).await?;
        let ledger = ledger.filter(|ledger| ledger.identity().table == self.table);
        let ledger = ledger.ok_or_else(|| self.is_absent())?;
        let options = SessionOptions {
            null_key: Some(self.null_key),
            sink: SinkOptions {
                target_file_size: self.target_file_size,
                row_group_rows: self.row_group_rows,
                compression: self.compression.parse()?,
                ..SinkOptions::default()
            },
            memory,
            ..SessionOptions::default()
        };
        // An executor runs as many tasks as it has processors.
        let workers = Workers::new(NonZeroUsize::MIN);
        let mut session =
            Session::begin_share(ledger, Arc::new(self.contract.clone()), options, &workers).await?;
        for source in &self.sources {
            let Source { url, replay_of } = source.clone();
            session.add_source(SourceUse { url, replay_of, ..SourceUse::default() })?;
        }
        Ok(session)
    }
}

impl fmt::Debug for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values of store options may be secrets.
        write!(f, "Assignment({}, version {})", self.location, self.version)
    }
}
