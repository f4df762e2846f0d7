//! Errors of tasks on their way to the driver. Engines pass them on as text, wrapped in their own words more than once; so that the
//! driver knows what happened, and what can be done about it, the error itself stands at the end of its text in a form that
//! survives that.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::operator::external;

const BEGIN: &str = "[dedupe:";
const END: char = ']';

/// The errors that mean something to a driver.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Told {
    Usage(String),
    Input { source_url: String, reason: String },
    Refused(String),
    Corrupt { object: String, reason: String },
    Fenced { object: String, stage: u64, floor: u64 },
    SnapshotExpired { version: u64, oldest: u64 },
}

/// The error of a task, as an engine gets it. A failure of the store, which may pass, is one of I/O, which engines try again.
pub(super) fn failed(error: Error) -> DataFusionError {
    let text = error.to_string();
    let told = match error {
        Error::Usage(reason) => Told::Usage(reason),
        Error::Input { source_url, reason } => Told::Input { source_url, reason },
        Error::Refused(reason) => Told::Refused(reason),
        Error::Corrupt { object, reason } => Told::Corrupt { object, reason },
        Error::Fenced { object, stage, floor } => Told::Fenced { object, stage, floor },
        Error::SnapshotExpired { version, oldest } => Told::SnapshotExpired { version, oldest },
        other => return external(other),
    };
    let json = serde_json::to_vec(&told).unwrap_or_default();
    DataFusionError::Execution(format!("{text} {BEGIN}{}{END}", URL_SAFE_NO_PAD.encode(json)))
}

/// What a task failed with, if what its engine says of it tells.
pub fn cause(error: &DataFusionError) -> Option<Error> {
    let text = error.to_string();
    let (_, told) = text.rsplit_once(BEGIN)?;
    let (told, _) = told.split_once(END)?;
    Some(match serde_json::from_slice(&URL_SAFE_NO_PAD.decode(told).ok()?).ok()? {
        Told::Usage(reason) => Error::Usage(reason),
        Told::Input { source_url, reason } => Error::Input { source_url, reason },
        Told::Refused(reason) => Error::Refused(reason),
        Told::Corrupt { object, reason } => Error::Corrupt { object, reason },
        Told::Fenced { object, stage, floor } => Error::Fenced { object, stage, floor },
        Told::SnapshotExpired { version, oldest } => Error::SnapshotExpired { version, oldest },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_task_says_survives_its_engine() {
        let told = [
            Error::Usage("a \"quoted\" word".into()),
            Error::input("/a/b.ndjson", "line 3: [no] JSON\n"),
            Error::Refused("no".into()),
            Error::corrupt("data/x", "gone"),
            Error::Fenced { object: "x".into(), stage: 3, floor: 7 },
            Error::SnapshotExpired { version: 1, oldest: 2 },
        ];
        for error in told {
            let (kind, text) = (std::mem::discriminant(&error), error.to_string());
            let wrapped = format!("Job x failed: Task failed: {:?}", Some(failed(error)));
            let cause = cause(&DataFusionError::Execution(wrapped)).unwrap();
            assert_eq!((std::mem::discriminant(&cause), cause.to_string()), (kind, text));
        }
    }

    #[test]
    fn only_failures_of_the_store_are_tried_again() {
        let store = failed(Error::store("read", "x", "503"));
        assert!(matches!(store.find_root(), DataFusionError::IoError(_)), "{store:?}");
        assert!(cause(&store).is_none());
        assert!(!matches!(failed(Error::Refused("no".into())).find_root(), DataFusionError::IoError(_)));
    }
}
