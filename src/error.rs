//! The one error type of the library.
//!
//! A variant is named after what the caller can do about it, and every message says what happened, to which
//! object, file or row, and what to do next. Credentials and token keys never enter a message.

/// Result with [`Error`] as its default error.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong, by what the caller can do about it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The request itself is wrong: change the call or the flags. Nothing was written.
    #[error("{0}")]
    Usage(String),

    /// An input cannot be read as what it claims to be: fix or leave out that source. Nothing was committed.
    #[error("{source_url}: {reason}")]
    Input {
        /// Where the input lies (path or URL, without credentials).
        source_url: String,
        /// What is wrong with it, and what can be done.
        reason: String,
    },

    /// The table's contract (key, schema, policy, format version) forbids what was asked. Nothing was committed.
    #[error("{0}")]
    Refused(String),

    /// The store failed: check credentials, network, disk space; running again is safe.
    #[error("{action} {object}: {source}")]
    Store {
        /// What was being done, as a verb in the imperative: `read`, `write`, `list`.
        action: &'static str,
        /// The object it was done to.
        object: String,
        /// The store's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// An object of the table does not hold what it must: nothing is guessed or skipped; see the runbook.
    #[error("{object} is damaged: {reason}")]
    Corrupt {
        /// The object's name within the table.
        object: String,
        /// How that was noticed.
        reason: String,
    },

    /// The commit was sent but its answer was lost and cannot be read back yet. Running again is safe.
    #[error("the outcome of version {version} is unknown ({reason}); re-running is safe")]
    Unknown {
        /// The version that was proposed.
        version: u64,
        /// What kept the answer from being read.
        reason: String,
    },

    /// A vacuum ran while this session was under way and took it for dead: what it staged can no longer become part
    /// of the table. Nothing was committed; run again.
    #[error(
        "{object} was begun at stage {stage}, and a vacuum has meanwhile fenced off everything below stage {floor}: \
         nothing was committed; run again"
    )]
    Fenced {
        /// What was begun too long ago: the name of a staged object, or the session.
        object: String,
        /// How many ledger entries had been seen when it was begun.
        stage: u64,
        /// The lowest stage that is still welcome.
        floor: u64,
    },

    /// Rows were accepted and handed on, and meanwhile another writer committed some of their keys: they are its rows
    /// now. Nothing was committed; discard what was handed on, and run again.
    #[error(
        "other writers committed {keys} of the keys that were accepted here, by version {version}, and the rows were \
         handed on already: nothing was committed. Discard them, and run again"
    )]
    Overtaken {
        /// How many keys.
        keys: u64,
        /// The last version that was compared with.
        version: u64,
    },

    /// The version asked for, or being read, is older than what vacuums keep readable.
    #[error(
        "snapshot expired: version {version} can no longer be read, a vacuum has kept versions from {oldest} on. Read \
         a newer one (a query is to be planned again); a longer --grace of `dedupe vacuum` keeps versions readable for longer"
    )]
    SnapshotExpired {
        /// The version that was to be read.
        version: u64,
        /// The oldest version that can be read.
        oldest: u64,
    },

    /// The run was interrupted before its commit: the table is unchanged.
    #[error("interrupted before the commit; the table is unchanged")]
    Interrupted,

    /// A rule that this program promises itself does not hold: a bug. Nothing was committed.
    #[error("internal error (please report it): {0}")]
    Internal(String),
}

impl Error {
    /// An [`Error::Input`] about the source at `url`.
    pub fn input(url: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Input { source_url: url.into(), reason: reason.to_string() }
    }

    /// An [`Error::Store`] about `object`.
    pub fn store(
        action: &'static str,
        object: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Store { action, object: object.into(), source: source.into() }
    }

    /// An [`Error::Corrupt`] about `object`.
    pub fn corrupt(object: impl Into<String>, reason: impl std::fmt::Display) -> Self {
        Self::Corrupt { object: object.into(), reason: reason.to_string() }
    }
}
