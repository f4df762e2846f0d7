//! Exit codes: what a script can rely on without reading a word of output.

use std::process::ExitCode;

use crate::error::Error;

/// How the command ended. Codes never change their meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done as asked.
    Done,
    /// Failed, and nothing was committed; or `verify` or `doctor` found problems.
    Failed,
    /// The command line is wrong, or names a table that does not exist.
    Usage,
    /// The table was asked and the answer is no: `outcome` of a batch that is not committed, `explain` of a key that is
    /// not in it.
    No,
    /// Done, and committed if there was anything to commit; only the report could not be written to standard output.
    ReportLost,
    /// A commit was sent and its answer was lost. Running the same command again is safe and finds out.
    Unknown,
    /// Interrupted (Ctrl-C). An ingest stopped before its commit: the table is unchanged.
    Interrupted,
    /// Terminated (SIGTERM). An ingest stopped before its commit: the table is unchanged.
    Terminated,
}

impl Exit {
    /// Every way to end, in the order of the codes.
    pub const ALL: [Self; 8] = [
        Self::Done,
        Self::Failed,
        Self::Usage,
        Self::No,
        Self::ReportLost,
        Self::Unknown,
        Self::Interrupted,
        Self::Terminated,
    ];

    /// The number the system sees.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::No => 3,
            Self::ReportLost => 74,
            Self::Unknown => 75,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// One line for the help.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed, nothing was committed; or `verify` or `doctor` found problems",
            Self::Usage => "wrong use of the command, or there is no such table",
            Self::No => {
                "the answer is no: batch not committed (`outcome`), or key unknown to the table (`explain`)"
            }
            Self::ReportLost => "done, but the report could not be written to standard output",
            Self::Unknown => "a commit's outcome is unknown; running the same command again is safe",
            Self::Interrupted => "interrupted (Ctrl-C); an ingest leaves the table unchanged",
            Self::Terminated => "terminated (SIGTERM); an ingest leaves the table unchanged",
        }
    }

    /// The section of the help that lists them all.
    pub fn help() -> String {
        let lines = Self::ALL.map(|exit| format!("  {:>3}  {}", exit.code(), exit.meaning()));
        format!("Exit codes:\n{}", lines.join("\n"))
    }
}

impl From<&Error> for Exit {
    fn from(error: &Error) -> Self {
        match error {
            Error::Usage(_) => Self::Usage,
            Error::Unknown { .. } => Self::Unknown,
            Error::Interrupted => Self::Interrupted,
            Error::Input { .. }
            | Error::Refused(_)
            | Error::Store { .. }
            | Error::Corrupt { .. }
            | Error::Fenced { .. }
            | Error::Overtaken { .. }
            | Error::SnapshotExpired { .. }
            | Error::Internal(_) => Self::Failed,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// What an error is called in `--output json`.
pub(super) fn kind(error: &Error) -> &'static str {
    match error {
        Error::Usage(_) => "usage",
        Error::Input { .. } => "input",
        Error::Refused(_) => "refused",
        Error::Store { .. } => "store",
        Error::Corrupt { .. } => "corrupt",
        Error::Unknown { .. } => "unknown",
        Error::Fenced { .. } => "fenced",
        Error::Overtaken { .. } => "overtaken",
        Error::SnapshotExpired { .. } => "expired",
        Error::Interrupted => "interrupted",
        Error::Internal(_) => "internal",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_ascending() {
        assert!(Exit::ALL.is_sorted_by_key(|exit| exit.code()));
        assert!(Exit::ALL.windows(2).all(|pair| pair[0].code() != pair[1].code()));
    }

    #[test]
    fn an_unknown_outcome_is_never_reported_as_failed_or_done() {
        let error = Error::Unknown { version: 3, reason: "time-out".into() };
        assert_eq!(Exit::from(&error), Exit::Unknown);
        assert_eq!(Exit::Unknown.code(), 75);
    }

    #[test]
    fn the_help_names_every_code() {
        let help = Exit::help();
        for exit in Exit::ALL {
            assert!(help.contains(&format!("{:>3}  {}", exit.code(), exit.meaning())), "{help}");
        }
    }
}
