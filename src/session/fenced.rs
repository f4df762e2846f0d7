//! What to tell a session that was fenced off while it was under way.
//!
//! A vacuum that takes a session for dead may delete what it stages and what it reads. Then some read fails, and the
//! reason to tell is the fence, not that an object is absent. (What a session reads of the table is retained as long as the
//! session's stage is not below the floor, see [`crate::ledger::state::Void::Oldest`].)

use super::{Session, Table};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::name::StagedName;
use crate::store::Store;

/// Who asks, and since when.
pub(super) struct Watch {
    store: Store,
    ledger: Option<Ledger>,
    stage: u64,
    dry_run: bool,
}

impl Session {
    /// A copy of what is needed to find out whether this session was fenced off.
    pub(super) fn watch(&self) -> Watch {
        let ledger = match &self.table {
            Table::Existing(ledger) => Some(ledger.as_ref().clone()),
            Table::Planned(..) => None,
        };
        Watch { store: self.store.clone(), ledger, stage: self.stage, dry_run: self.dry_run }
    }

    /// The reason to tell for `error`, which some step of this session ended with.
    pub(crate) async fn reason(&mut self, error: Error) -> Error {
        self.watch().reason(error).await
    }
}

impl Watch {
    /// For a session that began at `stage` and is not there any more.
    pub(super) fn of(ledger: &Ledger, stage: u64) -> Self {
        Self { store: ledger.store().clone(), ledger: Some(ledger.clone()), stage, dry_run: false }
    }

    /// The reason to tell for `error`, which some step of the session ended with.
    pub(super) async fn reason(self, error: Error) -> Error {
        if !matches!(error, Error::Store { .. } | Error::Corrupt { .. } | Error::Input { .. }) {
            return error;
        }
        match self.fenced().await {
            Ok(Some(fenced)) => fenced,
            Ok(None) => error,
            // Damage is only claimed where a fence was ruled out.
            Err(unread) if !matches!(error, Error::Store { .. }) => {
                tracing::warn!(
                    "{error}; whether this session was fenced off meanwhile could not be found out"
                );
                unread
            }
            Err(_) => error,
        }
    }

    async fn fenced(self) -> Result<Option<Error>> {
        let ledger = match self.ledger {
            Some(mut ledger) => {
                ledger.refresh().await?;
                Some(ledger)
            }
            None => Ledger::open(self.store).await?,
        };
        let Some(state) = ledger.as_ref().map(Ledger::state) else { return Ok(None) };
        let (stage, floor, oldest) = (self.stage, state.floor, state.oldest);
        Ok(match stage.checked_sub(1) {
            Some(version) if self.dry_run && version < oldest => {
                Some(Error::SnapshotExpired { version, oldest })
            }
            _ if !self.dry_run && stage < floor => {
                Some(Error::Fenced { object: "this session".into(), stage, floor })
            }
            _ => None,
        })
    }
}

/// The object called `name` was staged below the floor.
pub(super) fn below_floor(name: &str, floor: u64) -> Error {
    let stage = StagedName::parse(name).map_or(0, |staged| staged.stage);
    Error::Fenced { object: name.to_owned(), stage, floor }
}
