//! Reading the table as it was: which versions can be read, and what to tell a reader whose version expired.
//!
//! The manifests of all versions stay for ever, so what a version *was* can always be told. What it *held* can be read
//! from the oldest version on that the last fence retained: below it a vacuum may have deleted objects.

use super::read::{newest_checkpoint, read_entry, read_identity};
use super::{Ledger, Patience, store_of};
use crate::error::{Error, Result};
use crate::ledger::entry::{Entry, MAX_MANIFEST};
use crate::ledger::name;
use crate::ledger::state::{Applied, State};
use crate::store::Store;

impl Ledger {
    /// Opens the table as it was at `version`, to be read; `None` if there is no table. A version that is no longer
    /// whole is [`Error::SnapshotExpired`].
    pub async fn open_at(store: Store, version: u64) -> Result<Option<Self>> {
        let now = match Self::open(store.clone()).await {
            // What lies before a damaged entry can still be read: what it says of the oldest version is all there is.
            Err(Error::Corrupt { .. } | Error::Refused(_)) => {
                match Self::folded_at(store.clone(), version).await? {
                    Some(mut ahead) => {
                        let _ = ahead.catch_up().await;
                        Some(ahead)
                    }
                    None => None,
                }
            }
            opened => opened?,
        };
        match now {
            Some(now) if version < now.state.oldest => {
                Err(Error::SnapshotExpired { version, oldest: now.state.oldest })
            }
            Some(now) if version != now.version() => Self::folded_at(store, version).await,
            now => Ok(now),
        }
    }

    /// What the entries up to `version` add up to, whether or not its objects are still there: for telling, not for
    /// reading.
    pub async fn folded_at(store: Store, version: u64) -> Result<Option<Self>> {
        let Some(identity) = read_identity(&store).await? else {
            return Ok(None);
        };
        let store = store_of(&identity, store);
        let state = newest_checkpoint(&store, &identity, version).await?.unwrap_or_default();
        let mut ledger = Self { store, identity, state, patience: Patience::default() };
        while ledger.state.entries <= version {
            let next = ledger.state.entries;
            let Some((entry, hash)) = read_entry(&ledger.store, next, MAX_MANIFEST).await? else {
                let newest = next.saturating_sub(1);
                return Err(Error::Refused(format!(
                    "version {version} does not exist: the newest is {newest}"
                )));
            };
            let _ = ledger.admit(&entry, hash).await?;
        }
        Ok(Some(ledger))
    }

    /// [`Error::SnapshotExpired`] if this ledger's version is one that a vacuum has given up by now.
    pub async fn check_readable(&self) -> Result<()> {
        let mut now = self.clone();
        now.refresh().await?;
        match self.state.version() {
            Some(version) if version < now.state.oldest => {
                Err(Error::SnapshotExpired { version, oldest: now.state.oldest })
            }
            _ => Ok(()),
        }
    }

    /// The result of reading what this ledger's version names. If that failed and the version has expired meanwhile,
    /// that is the reason to tell, and not that some object is absent.
    pub async fn or_expired<T>(&self, result: Result<T>) -> Result<T> {
        let Err(error @ (Error::Store { .. } | Error::Corrupt { .. } | Error::Input { .. })) = result else {
            return result;
        };
        match self.check_readable().await {
            Err(expired @ Error::SnapshotExpired { .. }) => Err(expired),
            // Whatever else keeps us from finding out, the first error is the one to tell.
            _ => Err(error),
        }
    }

    /// This ledger before its first entry.
    pub(crate) fn before_the_first(&self) -> Self {
        Self { state: State::default(), ..self.clone() }
    }

    /// Folds the ledger anew from its beginning up to its tip, without any checkpoint, and shows `each` entry with the
    /// state after it.
    pub(crate) async fn replay(&mut self, each: impl FnMut(&State, Entry, Applied)) -> Result<()> {
        let mut anew = self.before_the_first();
        anew.advance(u64::MAX, each).await?;
        let reached = anew.state.entries;
        if reached < self.state.entries {
            let reason =
                format!("it is absent, but version {} was there: a manifest was lost", self.version());
            return Err(Error::corrupt(name::manifest(reached), reason));
        }
        self.state = anew.state;
        Ok(())
    }
}
