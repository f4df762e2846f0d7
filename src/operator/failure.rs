//! Errors on their way out, into DataFusion's.

use std::io;

use datafusion::error::DataFusionError;

use crate::error::Error;

/// A failure of the store may pass: engines repeat a task whose error is one of I/O. Everything else stays what it is, and
/// can be found again with `DataFusionError::find_root` and a downcast.
pub(crate) fn external(error: Error) -> DataFusionError {
    match error {
        Error::Usage(reason) => DataFusionError::Plan(reason),
        error @ Error::Store { .. } => DataFusionError::IoError(io::Error::other(error)),
        error => DataFusionError::External(Box::new(error)),
    }
}
