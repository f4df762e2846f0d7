//! Errors on their way into DataFusion's, and out of them again.

use std::error::Error as StdError;
use std::io;

use datafusion::error::DataFusionError;

use crate::error::Error;

/// A failure of the store may pass: engines repeat a task whose error is one of I/O. Everything else stays what it is, and
/// can be found again with [`error_of`].
pub(crate) fn external(error: Error) -> DataFusionError {
    match error {
        Error::Usage(reason) => DataFusionError::Plan(reason),
        error @ Error::Store { .. } => DataFusionError::IoError(io::Error::other(error)),
        error => DataFusionError::External(Box::new(error)),
    }
}

/// The error of this library that made a query fail, if one did: [`Error::SnapshotExpired`], say, where a vacuum deleted
/// what the query was about to read, so that it is to be planned again.
pub fn error_of(failed: &DataFusionError) -> Option<&Error> {
    let mut next: Option<&(dyn StdError + 'static)> = Some(failed);
    while let Some(cause) = next {
        if let Some(ours) = cause.downcast_ref() {
            return Some(ours);
        }
        next = match cause.downcast_ref::<io::Error>() {
            // Its own source is that of what it holds.
            Some(io) => io.get_ref().map(|held| held as &(dyn StdError + 'static)),
            None => cause.source(),
        };
    }
    None
}

/// What a query's failure is for those who asked: an error of ours as it was, a query that makes no sense as wrong usage,
/// anything else in the engine's words.
pub(crate) fn told(failed: DataFusionError) -> Error {
    if let Some(ours) = error_of(&failed).and_then(copied) {
        return ours;
    }
    match failed {
        DataFusionError::External(inner) => match inner.downcast::<Error>() {
            Ok(ours) => *ours,
            Err(other) => Error::Refused(other.to_string()),
        },
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => told(*inner),
        error @ (DataFusionError::SQL(..) | DataFusionError::Plan(_) | DataFusionError::SchemaError(..)) => {
            Error::Usage(error.strip_backtrace())
        }
        other => Error::Refused(other.strip_backtrace()),
    }
}

/// The same error again, if it is one that can be told twice.
fn copied(error: &Error) -> Option<Error> {
    Some(match error {
        Error::Usage(reason) => Error::Usage(reason.clone()),
        Error::Input { source_url, reason } => Error::input(source_url, reason),
        Error::Refused(reason) => Error::Refused(reason.clone()),
        Error::Store { action, object, source } => Error::store(action, object, source.to_string()),
        Error::Corrupt { object, reason } => Error::corrupt(object, reason),
        Error::SnapshotExpired { version, oldest } => {
            Error::SnapshotExpired { version: *version, oldest: *oldest }
        }
        Error::Interrupted => Error::Interrupted,
        _ => return None,
    })
}
