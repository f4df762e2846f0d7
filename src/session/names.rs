//! Names for what a session stages: never used before, never used again.

use crate::ledger::name::StagedName;

/// Hands out the names of one session.
#[derive(Debug, Clone)]
pub(crate) struct Namer {
    session: String,
    stage: u64,
    number: u64,
}

impl Namer {
    /// Names for `session`, whose writer has seen `entries` ledger entries.
    pub(crate) fn new(session: &str, entries: u64) -> Self {
        Self { session: session.to_owned(), stage: entries, number: 0 }
    }

    /// From here on, names say that the writer has seen `entries` ledger entries.
    pub(crate) fn advance(&mut self, entries: u64) {
        self.stage = self.stage.max(entries);
    }

    /// A new name in `folder`, with `extension`.
    pub(crate) fn next(&mut self, folder: &str, extension: &str) -> String {
        let name = StagedName {
            stage: self.stage,
            session: self.session.clone(),
            number: self.number,
            extension: extension.to_owned(),
        };
        self.number += 1;
        format!("{folder}/{name}")
    }
}
