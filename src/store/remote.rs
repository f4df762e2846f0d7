//! The store in a bucket: the same calls, over the client library's object stores.
//!
//! There are two handles to one bucket. The ordinary one repeats requests that failed, within bounds. The one for
//! [`Remote::put_once`] never does: a repeated conditional put may meet its own first attempt and report that the
//! name is taken by somebody else, so each call must be exactly one request, and the caller decides what comes next.

use super::{
    Listed, Put, check_name,
    explain::{Secrets, tells_of_unknown_conditions},
    local::{range_length, too_large},
    multipart::PART_SIZE,
};
use crate::error::{Error, Result};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, path::Path,
};
use std::{ops::Range, sync::Arc};

/// What one request fetches at most, so that it ends within its time-out on a slow line too.
const PIECE: u64 = 16 << 20;
/// How many pieces of one object are fetched at a time.
const PIECES_IN_FLIGHT: usize = 4;

/// A folder in a bucket.
#[derive(Debug)]
pub(super) struct Remote {
    /// Repeats failed requests.
    pub(super) ordinary: Arc<dyn ObjectStore>,
    /// Never repeats a request.
    once: Arc<dyn ObjectStore>,
    /// The folder's key, without slashes at its ends.
    pub(super) prefix: String,
    /// What people are shown, without a slash at its end.
    url: String,
    secrets: Secrets,
    /// Bytes of one part of a multipart upload; what is smaller is one plain put.
    pub(super) part_size: usize,
}

impl Remote {
    pub(super) fn new(
        ordinary: Arc<dyn ObjectStore>,
        once: Arc<dyn ObjectStore>,
        prefix: &str,
        url: &str,
        secrets: Secrets,
    ) -> Self {
        let (prefix, url) = (prefix.trim_matches('/').to_owned(), url.trim_end_matches('/').to_owned());
        Self { ordinary, once, prefix, url, secrets, part_size: PART_SIZE }
    }

    pub(super) fn plain(store: Arc<dyn ObjectStore>, prefix: &str, url: &str) -> Self {
        Self::new(Arc::clone(&store), store, prefix, url, Secrets::default())
    }

    pub(super) fn url_of(&self, name: &str) -> String {
        if name.is_empty() { self.url.clone() } else { format!("{}/{name}", self.url) }
    }

    pub(super) async fn put_once(&self, name: &str, bytes: Bytes) -> Put {
        let path = match self.path(name) {
            Ok(path) => path,
            Err(error) => return Put::Failed(error),
        };
        match self.once.put_opts(&path, bytes.into(), PutMode::Create.into()).await {
            Ok(_) => Put::Landed,
            // Azure's client passes a 412 on as it is.
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Put::Taken,
            Err(error) if tells_of_unknown_conditions(&error) => Put::Unknown(Error::Refused(format!(
                "{} does not know conditional writes ({})",
                self.url,
                self.secrets.explain(&error)
            ))),
            Err(error) => Put::Unknown(self.failed("write", name, error)),
        }
    }

    pub(super) async fn get_limited(&self, name: &str, max: u64) -> Result<Option<Bytes>> {
        let result = match self.ordinary.get_opts(&self.path(name)?, GetOptions::default()).await {
            Ok(result) => result,
            Err(error) => return self.absent_or_failed("read", name, error),
        };
        if result.meta.size > max {
            return Err(too_large(name, result.meta.size, max));
        }
        let size = result.meta.size;
        if size > PIECE {
            let etag = result.meta.e_tag.clone();
            drop(result);
            return self.get_range(name, 0..size, etag.as_deref()).await.map(Some);
        }
        let bytes = result.bytes().await.map_err(|e| self.failed("read", name, e))?;
        // A connection cut at the right moment can look like a short object.
        if bytes.len() as u64 != size {
            return Err(Error::corrupt(name, format!("{} of {size} bytes arrived", bytes.len())));
        }
        Ok(Some(bytes))
    }

    /// `etag`: the content that is meant; another one is an error.
    pub(super) async fn get_range(&self, name: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes> {
        let length = range_length(name, &range, u64::MAX)?;
        if length as u64 <= PIECE {
            return self.get_piece(name, range, etag).await;
        }
        let pieces = (range.start..range.end).step_by(PIECE as usize);
        let pieces = pieces.map(|start| self.get_piece(name, start..range.end.min(start + PIECE), etag));
        let mut pieces = futures::stream::iter(pieces).buffered(PIECES_IN_FLIGHT);
        // Grown as pieces arrive: the range may be a damaged file's idea of its own length.
        let mut whole = Vec::new();
        while let Some(piece) = pieces.try_next().await? {
            whole.extend_from_slice(&piece);
        }
        Ok(whole.into())
    }

    async fn get_piece(&self, name: &str, range: Range<u64>, etag: Option<&str>) -> Result<Bytes> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
        let result = self.ordinary.get_opts(&self.path(name)?, options).await;
        let result = result.map_err(|e| self.failed("read", name, e))?;
        // Compared here and not by If-Match, because the stores differ in how they quote their tags.
        if let (Some(old), Some(new)) = (etag, result.meta.e_tag.as_deref())
            && bare_tag(old) != bare_tag(new)
        {
            return Err(Error::input(self.url_of(name), "it was changed while it was being read; run again"));
        }
        let length = range_length(name, &range, result.meta.size)?;
        let bytes = result.bytes().await.map_err(|e| self.failed("read", name, e))?;
        self.expect_length(name, bytes, length)
    }

    pub(super) async fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let lengths = ranges.iter().map(|range| range_length(name, range, u64::MAX));
        let lengths: Vec<usize> = lengths.collect::<Result<_>>()?;
        // Empty ranges are errors to the client library; here they are empty answers.
        let asked: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
        if asked.is_empty() {
            return Ok(vec![Bytes::new(); ranges.len()]);
        }
        let got = self.ordinary.get_ranges(&self.path(name)?, &asked).await;
        let mut got = got.map_err(|e| self.failed("read", name, e))?.into_iter();
        let mut answer = Vec::with_capacity(ranges.len());
        for length in lengths {
            let bytes = if length == 0 { Bytes::new() } else { got.next().unwrap_or_default() };
            answer.push(self.expect_length(name, bytes, length)?);
        }
        Ok(answer)
    }

    pub(super) async fn head(&self, name: &str) -> Result<Option<Listed>> {
        match self.ordinary.head(&self.path(name)?).await {
            Ok(meta) => Ok(Some(Listed { name: name.to_owned(), ..listed(meta) })),
            Err(error) => self.absent_or_failed("read", name, error),
        }
    }

    pub(super) async fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>> {
        let folder = prefix.trim_matches('/');
        let path = match (self.prefix.is_empty(), folder.is_empty()) {
            (true, true) => None,
            (false, true) => Some(self.parse(&self.prefix)?),
            (_, false) => Some(self.path(folder)?),
        };
        let mut found = Vec::new();
        let mut objects = match after {
            Some(after) => self.ordinary.list_with_offset(path.as_ref(), &self.path(after)?),
            None => self.ordinary.list(path.as_ref()),
        };
        while let Some(meta) = objects.try_next().await.map_err(|e| self.failed("list", folder, e))? {
            let mut object = listed(meta);
            if let Some(name) = self.name_of(&object.name) {
                object.name = name;
                found.push(object);
            }
        }
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) async fn delete(&self, name: &str) -> Result<()> {
        match self.ordinary.delete(&self.path(name)?).await {
            Ok(()) => Ok(()),
            Err(error) => self.absent_or_failed::<()>("delete", name, error).map(|_| ()),
        }
    }

    pub(super) async fn put(&self, name: &str, bytes: Bytes) -> Result<()> {
        let result = self.ordinary.put(&self.path(name)?, bytes.into()).await;
        result.map(|_| ()).map_err(|e| self.failed("write", name, e))
    }

    /// The key of `name` in the bucket.
    pub(super) fn path(&self, name: &str) -> Result<Path> {
        check_name(name)?;
        if self.prefix.is_empty() { self.parse(name) } else { self.parse(&format!("{}/{name}", self.prefix)) }
    }

    /// Taken as it stands: `Path::from` would percent-encode, and a name must list back as it was given.
    fn parse(&self, key: &str) -> Result<Path> {
        Path::parse(key).map_err(|e| Error::corrupt(key, e))
    }

    fn name_of(&self, key: &str) -> Option<String> {
        if self.prefix.is_empty() {
            return Some(key.to_owned());
        }
        key.strip_prefix(&self.prefix)?.strip_prefix('/').map(str::to_owned)
    }

    fn expect_length(&self, name: &str, bytes: Bytes, length: usize) -> Result<Bytes> {
        if bytes.len() == length {
            return Ok(bytes);
        }
        Err(Error::corrupt(name, format!("{length} bytes were expected, and {} arrived", bytes.len())))
    }

    fn absent_or_failed<T>(&self, action: &'static str, name: &str, error: StoreError) -> Result<Option<T>> {
        match error {
            // A bucket that is not there is no empty bucket.
            StoreError::NotFound { .. } if !self.secrets.tells_of_missing_bucket(&error) => Ok(None),
            error => Err(self.failed(action, name, error)),
        }
    }

    pub(super) fn failed(&self, action: &'static str, name: &str, error: StoreError) -> Error {
        Error::store(action, self.url_of(name), self.secrets.explain(&error))
    }
}

/// A tag without its quotes, which listings and answers of one store may write differently.
pub(crate) fn bare_tag(tag: &str) -> &str {
    tag.trim_matches('"')
}

fn listed(meta: ObjectMeta) -> Listed {
    Listed { name: meta.location.into(), size: meta.size, modified: meta.last_modified, etag: meta.e_tag }
}
