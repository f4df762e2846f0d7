//! Does this store keep what a table rests on?
//!
//! A [`Certifier`] tries each [`Promise`] on objects of its own, in one folder with a name that was never used, and
//! says of each whether it was kept, broken or could not be checked, and what was seen. A promise that was kept was
//! kept this time: a race can be lost by a faulty store and still look fair. Nothing of it stays behind, unless the
//! store does not delete; then the rest is named.

mod checks;
mod race;
#[cfg(test)]
mod tests;

use super::{Inner, Store};
use crate::error::{Error, Result};
use crate::report::Progress;
use futures::stream::{self, StreamExt};
use serde::Serialize;
use std::{
    collections::BTreeSet,
    fmt,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

/// What is asked of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Promise {
    /// Of two creates of one name the second is refused.
    CreateOnce,
    /// A refused create changes nothing.
    RefusedWrite,
    /// Of many creates of one name at the same moment exactly one succeeds, and everybody reads what it wrote.
    Race,
    /// What was written is read back at once, also by those who had just seen that it is absent.
    ReadAfterWrite,
    /// What was deleted is not read any more.
    ReadAfterDelete,
    /// A name can be created again once its object was deleted.
    CreateAfterDelete,
    /// A listing shows what was written, with its size.
    ListAfterWrite,
    /// A listing does not show what was deleted.
    ListAfterDelete,
    /// Ranges of an object are its bytes, and all ways to ask agree on its size.
    Ranges,
    /// An object that is uploaded in parts appears whole, and not before its end.
    LargeObject,
}

/// Whether a promise was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It was, every time.
    Kept,
    /// It was not.
    Broken,
    /// It could not be found out.
    NotChecked,
}

/// What was seen of one promise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which promise.
    pub promise: Promise,
    /// Whether it was kept.
    pub answer: Answer,
    /// What was seen, or why nothing was.
    pub seen: String,
}

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// How often each promise is tried.
    pub rounds: usize,
    /// Whether the promises that no commit rests on are tried as well.
    pub everything: bool,
}

impl Extent {
    /// Before a table is created: what commits rest on, once.
    pub const QUICK: Self = Self { rounds: 1, everything: false };
    /// Everything, several times.
    pub const FULL: Self = Self { rounds: 5, everything: true };
}

/// How many clients race before a table is created.
const QUICK_RACERS: usize = 8;

/// How many probes are deleted at a time.
const DELETED_AT_A_TIME: usize = 16;

/// How long one kind of request took: information only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many requests were timed, one after the other.
    pub requests: usize,
    /// Half of them took less, in milliseconds.
    pub median_ms: f64,
    /// The slowest, in milliseconds.
    pub worst_ms: f64,
}

/// What was found out about a store.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Certificate {
    /// One for each promise that was to be checked.
    pub findings: Vec<Finding>,
    /// How many clients raced.
    pub clients: usize,
    /// How many races there were, and how often the other promises were tried.
    pub rounds: usize,
    /// Conditional puts of small objects.
    pub put: Latency,
    /// Gets of small objects.
    pub get: Latency,
    /// Listings of a small folder.
    pub list: Latency,
    /// How far the store's clock is ahead of ours, in seconds: information only, nothing compares clocks.
    pub clock_ahead_seconds: Option<f64>,
}

/// Certifies one store.
#[derive(Debug)]
pub struct Certifier {
    /// The one that does what needs no rival.
    client: Store,
    /// All of them. They share no connection, where the caller could make such.
    clients: Vec<Store>,
    extent: Extent,
    /// The folder of everything that is written.
    folder: String,
    /// What may exist there.
    written: Mutex<BTreeSet<String>>,
    times: Mutex<checks::Times>,
    /// Says when to stop.
    progress: Progress,
    /// Local folders that did not exist before, the innermost first.
    folders: Vec<PathBuf>,
}

impl Promise {
    /// All promises, in the order in which they are checked.
    pub const ALL: [Self; 10] = [
        Self::CreateOnce,
        Self::RefusedWrite,
        Self::Race,
        Self::ReadAfterWrite,
        Self::ReadAfterDelete,
        Self::CreateAfterDelete,
        Self::ListAfterWrite,
        Self::ListAfterDelete,
        Self::Ranges,
        Self::LargeObject,
    ];

    /// Its name, as it stands in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateOnce => "create-once",
            Self::RefusedWrite => "refused-write",
            Self::Race => "race",
            Self::ReadAfterWrite => "read-after-write",
            Self::ReadAfterDelete => "read-after-delete",
            Self::CreateAfterDelete => "create-after-delete",
            Self::ListAfterWrite => "list-after-write",
            Self::ListAfterDelete => "list-after-delete",
            Self::Ranges => "ranges",
            Self::LargeObject => "large-object",
        }
    }

    /// The promise in words.
    pub fn meaning(self) -> &'static str {
        match self {
            Self::CreateOnce => "of two creates of one name the second is refused",
            Self::RefusedWrite => "a refused create changes nothing",
            Self::Race => "of many creates of one name at the same moment exactly one succeeds",
            Self::ReadAfterWrite => "what was written is read back at once",
            Self::ReadAfterDelete => "what was deleted is not read any more",
            Self::CreateAfterDelete => "a deleted name can be created again",
            Self::ListAfterWrite => "a listing shows what was written",
            Self::ListAfterDelete => "a listing does not show what was deleted",
            Self::Ranges => "ranges and sizes of an object agree with its bytes",
            Self::LargeObject => "an upload in parts appears whole, and not before its end",
        }
    }

    /// Whether it only protects writers from each other: a writer that is alone could do without.
    pub fn protects_from_others(self) -> bool {
        matches!(self, Self::CreateOnce | Self::RefusedWrite | Self::Race)
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Certificate {
    /// The promises that were broken.
    pub fn broken(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.answer == Answer::Broken)
    }

    /// Whether every promise was checked and kept.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.answer == Answer::Kept)
    }
}

impl Certifier {
    /// `clients` are handles on one folder. For a fair race each should have connections of its own, as those have
    /// that were [opened](Store::open) one by one; the first also does what needs no rival. They should not be used
    /// for anything else afterwards: on a local disk, folders that did not exist before are removed at the end.
    pub fn new(clients: Vec<Store>, extent: Extent) -> Result<Self> {
        let Some(first) = clients.first() else {
            return Err(Error::Usage("a store is certified by at least one client".into()));
        };
        let folder = format!("_dedupe/probe-{}", crate::random::identity()?);
        let folders = first.local_path(&folder).map_or_else(Vec::new, |path| {
            path.ancestors().take_while(|path| !path.exists()).map(PathBuf::from).collect()
        });
        let client = first.clone();
        Ok(Self {
            client,
            clients,
            extent,
            folder,
            written: Mutex::default(),
            times: Mutex::default(),
            progress: Progress::default(),
            folders,
        })
    }

    /// Stops between two rounds once `progress` is cancelled. To drop [`run`](Self::run) half-way is possible too, but
    /// what is under way then may land after everything was cleaned up.
    pub fn stop_with(&mut self, progress: &Progress) {
        self.progress = progress.clone();
    }

    /// Checks everything. Call [`clean_up`](Self::clean_up) afterwards, also if this was dropped half-way.
    pub async fn run(&self) -> Certificate {
        checks::run(self).await
    }

    /// Deletes everything that was written. Returns what could not be deleted, each with the reason.
    pub async fn clean_up(&self) -> Vec<String> {
        let written = self.written.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut left = self.delete(written.clone()).await;
        // A request that was given up may land after its object was deleted.
        if let Ok(listed) = self.client.list(&self.folder).await
            && !listed.is_empty()
        {
            left = self.delete(listed.into_iter().map(|object| object.name).chain(written).collect()).await;
        }
        for folder in &self.folders {
            // Somebody else may have begun to use it.
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        left
    }

    /// Cleans up, which has to work where everything else does.
    async fn leave_nothing(&self, certificate: &Certificate) -> Result<()> {
        match self.clean_up().await.into_iter().next() {
            Some(left) if certificate.is_clean() => Err(Error::Refused(format!(
                "a probe could not be deleted again: {left}. Whoever creates a table must be allowed to delete"
            ))),
            _ => Ok(()),
        }
    }

    async fn delete(&self, names: BTreeSet<String>) -> Vec<String> {
        let deleting = names.into_iter().map(|name| async move {
            let deleted = self.client.delete(&name).await;
            deleted.err().map(|error| format!("{}: {error}", self.client.location_of(&name)))
        });
        stream::iter(deleting).buffered(DELETED_AT_A_TIME).filter_map(std::future::ready).collect().await
    }
}

impl Store {
    /// Shows that the store keeps the promises that commits rest on, or refuses it by naming the broken one.
    pub async fn probe(&self) -> Result<()> {
        self.probe_and_tell(|| ()).await
    }

    /// As [`probe`](Self::probe), but tells as soon as nothing is left to do but to clean up, if all promises were kept.
    pub(crate) async fn probe_and_tell(&self, tell: impl FnOnce()) -> Result<()> {
        let certifier = self.quick_certifier()?;
        let certificate = certifier.run().await;
        let kept = self.refuse_broken(&certificate, |_| true);
        if kept.is_ok() {
            tell();
        }
        certifier.leave_nothing(&certificate).await?;
        kept
    }

    /// As [`probe`](Self::probe), for a table that only one writer at a time will ever commit to: the promises that
    /// protect writers from each other may be broken, and `true` says that one is.
    pub async fn probe_for_one_writer(&self) -> Result<bool> {
        let certifier = self.quick_certifier()?;
        let certificate = certifier.run().await;
        certifier.leave_nothing(&certificate).await?;
        // A local disk is refused where it cannot link; its uploads could not be either.
        let waived = |promise: Promise| promise.protects_from_others() && self.local_path("").is_none();
        self.refuse_broken(&certificate, |promise| !waived(promise))?;
        Ok(certificate.broken().next().is_some())
    }

    fn quick_certifier(&self) -> Result<Certifier> {
        let mut certifier = Certifier::new(vec![self.clone(); QUICK_RACERS], Extent::QUICK)?;
        // The table is about to be created there.
        certifier.folders.truncate(1);
        Ok(certifier)
    }

    /// `matters`: whether the table needs this promise.
    fn refuse_broken(&self, certificate: &Certificate, matters: impl Fn(Promise) -> bool) -> Result<()> {
        let broken = certificate.broken().find(|finding| matters(finding.promise));
        if let Some(finding) = broken {
            let alone = finding.promise.protects_from_others() && matches!(self.inner, Inner::Remote(_));
            let brave = if alone {
                ". If only one writer at a time will ever run: --i-know-the-risk single-writer"
            } else {
                ""
            };
            return Err(Error::Refused(format!(
                "{} cannot hold a table, because it breaks the promise {} ({}): {}. Writers could overwrite each \
                 other's commits without notice, or miss them; use a store with conditional writes and consistent \
                 reads (S3, GCS, Azure, R2, MinIO, a local disk){brave}",
                self.url(),
                finding.promise,
                finding.promise.meaning(),
                finding.seen,
            )));
        }
        match certificate.findings.iter().find(|finding| finding.answer == Answer::NotChecked) {
            // What could not be checked because of a broken promise that does not matter, does not matter either.
            Some(finding) if matters(finding.promise) => Err(Error::store(
                "probe",
                self.url(),
                format!("whether {} could not be found out: {}", finding.promise.meaning(), finding.seen),
            )),
            _ => Ok(()),
        }
    }
}
