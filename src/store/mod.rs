//! Bytes under names: the only room that knows how objects are stored.
//!
//! A [`Store`] is one table's folder on a local disk or in a bucket. Names are relative to it and separated by `/`.
//! It promises one conditional primitive, [`Store::put_once`], which every commit rests on; everything else is
//! plain get, list, put and delete. What it reports as done on a local disk survives a power cut. Credentials never
//! show in `Debug`, in errors or in logs.

mod alone;
pub(crate) mod aside;
pub(crate) mod cache;
pub mod certify;
mod compute;
mod connect;
mod explain;
mod local;
mod location;
mod multipart;
pub(crate) mod passing;
#[cfg(any(test, feature = "datafusion"))]
mod reading;
mod remote;
mod upload;

#[cfg(test)]
mod conformance;
#[cfg(test)]
pub(crate) mod loopback;
#[cfg(test)]
pub(crate) mod scripted;

pub use compute::compute;
pub(crate) use explain::redacted;
pub(crate) use location::{Place, absolute, display_safe};
pub(crate) use remote::bare_tag;
pub use upload::Upload;

use crate::error::{Error, Result};
use bytes::Bytes;
use cache::Cache;
use chrono::{DateTime, Utc};
use local::Local;
use object_store::ObjectStore;
use remote::Remote;
use std::{
    fmt,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Names that start like this (after the last `/`) are files that a crash left half-written on a local disk. They
/// are not objects: no listing shows them.
pub const TEMPORARY_PREFIX: &str = ".dedupe-tmp-";

/// One folder of objects, on a local disk or in a bucket. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Inner,
    /// Whether one writer at a time is all there is, so that conditions can be done without.
    alone: bool,
    /// Where parts of objects that never change are kept nearby.
    cache: Option<Arc<Cache>>,
}

#[derive(Clone)]
enum Inner {
    Local(Arc<Local>),
    Remote(Arc<Remote>),
}

/// What is known after [`Store::put_once`].
#[derive(Debug)]
pub enum Put {
    /// The store said directly that this call created the object, and the object is durable.
    Landed,
    /// The store said that the name is occupied, possibly by these very bytes: read it. (S3 may also say so where
    /// nothing is stored, when two writers meet.)
    Taken,
    /// This call certainly stored nothing, and nothing of it can appear later: a local disk that is full, say.
    /// ([`Error::Refused`] if the store does not know conditional writes.)
    Failed(Error),
    /// Anything else. The object may or may not be there, now or a moment later: read it. ([`Error::Refused`] if
    /// the store does not know conditional writes.)
    Unknown(Error),
}

/// One object as a listing shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name, relative to the store.
    pub name: String,
    /// Its length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock: information only.
    pub modified: DateTime<Utc>,
    /// The store's tag of its content, where there is one.
    pub etag: Option<String>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.url())
    }
}

impl Store {
    /// Opens the folder at `location`: a plain path, `file://`, `s3://`, `gs://`, `az://`, `abfss://` or `memory:`
    /// (`memory://name` is one store for the whole process). Nothing is read or written yet.
    ///
    /// Credentials and endpoints come from each cloud's usual environment variables. `options` go before them; their
    /// names are the client library's (`region`, `endpoint`, `access_key_id`, `account_name`, `allow_http`, …), and
    /// `timeout` (of one request, 30 s), `connect_timeout` (5 s), `retry_timeout` (how long a failing request is
    /// repeated, 10 s) and `max_retries` (5): a dead or silent endpoint is an error after about 30 s.
    pub fn open(location: &str, options: &[(String, String)]) -> Result<Self> {
        Place::parse(location)?.open(options)
    }

    /// A store over any [`ObjectStore`], for tests, embedding and fault injection. `url` is what people are shown.
    pub fn from_object_store(store: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Self {
        Self {
            inner: Inner::Remote(Arc::new(Remote::plain(store, prefix, &display_safe(url)))),
            alone: false,
            cache: None,
        }
    }

    /// As [`Self::from_object_store`], but what is longer than `part_size` bytes is uploaded in parts of that many: so
    /// tests reach with small objects what otherwise takes large ones.
    pub fn in_small_parts(
        store: Arc<dyn ObjectStore>,
        prefix: &str,
        url: &str,
        part_size: std::num::NonZeroUsize,
    ) -> Self {
        let mut remote = Remote::plain(store, prefix, &display_safe(url));
        remote.part_size = part_size.get();
        Self { inner: Inner::Remote(Arc::new(remote)), alone: false, cache: None }
    }

    /// This store with a cache in `folder` of up to `size` bytes, for the parts of token runs that look-ups read. A table on
    /// a local disk needs none, and gets none.
    pub fn with_cache(mut self, folder: &Path, size: u64) -> Result<Self> {
        if matches!(self.inner, Inner::Remote(_)) {
            let cache = Cache::open(folder, size)
                .map_err(|e| Error::store("use the cache folder", folder.display().to_string(), e))?;
            self.cache = Some(Arc::new(cache));
        }
        Ok(self)
    }

    /// The cache, if there is one.
    pub(crate) fn cache(&self) -> Option<&Arc<Cache>> {
        self.cache.as_ref()
    }

    /// Creates the object `name` if nobody has, in one request, and says what is known about the outcome.
    pub async fn put_once(&self, name: &str, bytes: Bytes) -> Put {
        if self.alone {
            return self.put_alone(name, bytes).await;
        }
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || Ok(local.put_once(&name, &bytes))).await.unwrap_or_else(Put::Unknown)
            }
            Inner::Remote(remote) => remote.put_once(name, bytes).await,
        }
    }

    /// The whole object, or `None` where there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        self.get_limited(name, u64::MAX).await
    }

    /// The whole object, or `None` where there is none; one larger than `max` bytes is [`Error::Corrupt`] and is
    /// not read.
    pub async fn get_limited(&self, name: &str, max: u64) -> Result<Option<Bytes>> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || local.get_limited(&name, max)).await
            }
            Inner::Remote(remote) => remote.get_limited(name, max).await,
        }
    }

    /// Exactly the bytes of `range`; an object that ends before is [`Error::Corrupt`].
    pub async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes> {
        self.get_range_of(name, range, None).await
    }

    /// As [`Self::get_range`], but an error if the object's tag is no longer `etag`.
    pub(crate) async fn get_range_of(
        &self,
        name: &str,
        range: Range<u64>,
        etag: Option<&str>,
    ) -> Result<Bytes> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || {
                    local.get_ranges(&name, &[range]).map(|all| all.into_iter().next().unwrap_or_default())
                })
                .await
            }
            Inner::Remote(remote) => remote.get_range(name, range, etag).await,
        }
    }

    /// Exactly the bytes of each range, in the order asked for; close ranges cost one request together.
    pub async fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name, ranges) = (Arc::clone(local), name.to_owned(), ranges.to_vec());
                compute(move || local.get_ranges(&name, &ranges)).await
            }
            Inner::Remote(remote) => remote.get_ranges(name, ranges).await,
        }
    }

    /// Size, time and tag of the object, or `None` where there is none.
    pub async fn head(&self, name: &str) -> Result<Option<Listed>> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || local.head(&name)).await
            }
            Inner::Remote(remote) => remote.head(name).await,
        }
    }

    /// All objects in the folder `prefix` and below (`""` for all), sorted by name.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.list_after(prefix, None).await
    }

    /// As [`Self::list`], but only names greater than `after` (a whole name): cheap on a long ledger.
    pub async fn list_after(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, prefix, after) = (Arc::clone(local), prefix.to_owned(), after.map(str::to_owned));
                compute(move || local.list(&prefix, after.as_deref())).await
            }
            Inner::Remote(remote) => remote.list(prefix, after).await,
        }
    }

    /// What crashes left half-written on a local disk, anywhere in the store: never part of a table, safe to delete
    /// once no writer is alive (a live one would fail cleanly). Empty for buckets.
    pub async fn leftovers(&self) -> Result<Vec<Listed>> {
        match &self.inner {
            Inner::Local(local) => {
                let local = Arc::clone(local);
                compute(move || local.leftovers()).await
            }
            Inner::Remote(_) => Ok(Vec::new()),
        }
    }

    /// Makes sure that what was found in `folder` survives a power cut. A bucket's objects do; on a local disk
    /// another writer may have been killed after it named an object, and before it synced the folder.
    pub(crate) async fn settle(&self, folder: &str) -> Result<()> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, folder) = (Arc::clone(local), folder.to_owned());
                compute(move || local.settle_names(&folder)).await
            }
            Inner::Remote(_) => Ok(()),
        }
    }

    /// Whether the disk failed to keep a write of this process, so that nothing read there can be trusted any more.
    pub(crate) fn is_poisoned(&self) -> bool {
        matches!(&self.inner, Inner::Local(local) if local.is_poisoned())
    }

    /// Deletes the object; one that is not there counts as deleted.
    pub async fn delete(&self, name: &str) -> Result<()> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || local.delete(&name)).await
            }
            Inner::Remote(remote) => remote.delete(name).await,
        }
    }

    /// Writes the object, over an older one if need be: for hints and leases only, never for truth.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || local.put(&name, &bytes)).await
            }
            Inner::Remote(remote) => remote.put(name, bytes).await,
        }
    }

    /// Begins a new object of any size under a name that was never used. It appears when [`Upload::finish`] returns.
    pub async fn create(&self, name: &str) -> Result<Upload> {
        match &self.inner {
            Inner::Local(local) => {
                let (local, name) = (Arc::clone(local), name.to_owned());
                compute(move || local.create(&name)).await.map(Upload::local)
            }
            Inner::Remote(remote) => Upload::remote(Arc::clone(remote), name),
        }
    }

    /// Where the object lies, for people and foreign readers: an absolute path or a URL.
    pub fn location_of(&self, name: &str) -> String {
        match &self.inner {
            Inner::Local(local) => local.path_of(name).display().to_string(),
            Inner::Remote(remote) => remote.url_of(name),
        }
    }

    /// The object's path on the local disk, if that is where the store is.
    pub fn local_path(&self, name: &str) -> Option<PathBuf> {
        match &self.inner {
            Inner::Local(local) => Some(local.path_of(name)),
            Inner::Remote(_) => None,
        }
    }

    /// The folder itself, for people: an absolute path or a URL without credentials.
    pub fn url(&self) -> String {
        self.location_of("")
    }
}

/// Refuses names that could lead out of the store or that some store would change.
fn check_name(name: &str) -> Result<()> {
    let sound = |part: &str| {
        !part.is_empty() && part != "." && part != ".." && !part.chars().any(|c| c.is_ascii_control())
    };
    if name.split('/').all(sound) {
        return Ok(());
    }
    Err(Error::corrupt(name.escape_debug().to_string(), "this is not a sound object name"))
}
