//! A new object in a bucket: one plain put if it is small, a multipart upload otherwise.

use super::remote::Remote;
use crate::error::{Error, Result};
use bytes::Bytes;
use object_store::{Error as StoreError, MultipartUpload, ObjectStoreExt, PutPayload, path::Path};
use std::{fmt, sync::Arc};
use tokio::task::JoinSet;

/// The size of one part: above every store's minimum, and the same for all parts, as R2 wants it.
pub(super) const PART_SIZE: usize = 8 << 20;
/// How many parts are on their way at a time.
pub(super) const PARTS_IN_FLIGHT: usize = 3;
/// How many parts the stores allow.
const MAX_PARTS: usize = 10_000;

/// An object on its way into a bucket.
pub(super) struct RemoteUpload {
    store: Arc<Remote>,
    name: String,
    path: Path,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
    multipart: Option<Box<dyn MultipartUpload>>,
    in_flight: JoinSet<Result<(), StoreError>>,
    parts: usize,
    written: u64,
}

impl fmt::Debug for RemoteUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteUpload({}, {} bytes)", self.store.url_of(&self.name), self.written)
    }
}

impl RemoteUpload {
    pub(super) fn new(store: Arc<Remote>, name: &str) -> Result<Self> {
        let path = store.path(name)?;
        Ok(Self {
            store,
            name: name.to_owned(),
            path,
            gathered: Vec::new(),
            gathered_bytes: 0,
            multipart: None,
            in_flight: JoinSet::new(),
            parts: 0,
            written: 0,
        })
    }

    pub(super) async fn write(&mut self, mut bytes: Bytes) -> Result<()> {
        self.written += bytes.len() as u64;
        let part = self.store.part_size;
        while self.gathered_bytes + bytes.len() >= part {
            let piece = bytes.split_to(part - self.gathered_bytes);
            self.gather(piece);
            self.send_part().await?;
        }
        self.gather(bytes);
        Ok(())
    }

    pub(super) async fn finish(mut self) -> Result<u64> {
        if self.multipart.is_none() {
            let payload = PutPayload::from_iter(std::mem::take(&mut self.gathered));
            let put = self.store.ordinary.put(&self.path, payload).await;
            put.map_err(|e| self.failed(e))?;
            return Ok(self.written);
        }
        if self.gathered_bytes > 0 {
            self.send_part().await?;
        }
        while !self.in_flight.is_empty() {
            self.part_done().await?;
        }
        if let Some(multipart) = &mut self.multipart {
            let completed = multipart.complete().await;
            completed.map_err(|e| self.failed(e))?;
        }
        self.multipart = None;
        Ok(self.written)
    }

    fn gather(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.gathered_bytes += piece.len();
            self.gathered.push(piece);
        }
    }

    async fn send_part(&mut self) -> Result<()> {
        if self.parts == MAX_PARTS {
            let reason =
                format!("an object may have at most {} GiB", (MAX_PARTS * self.store.part_size) >> 30);
            return Err(Error::store("write", self.store.url_of(&self.name), reason));
        }
        let payload = PutPayload::from_iter(std::mem::take(&mut self.gathered));
        self.gathered_bytes = 0;
        self.parts += 1;
        while self.in_flight.len() >= PARTS_IN_FLIGHT {
            self.part_done().await?;
        }
        if self.multipart.is_none() {
            let begun = self.store.ordinary.put_multipart(&self.path).await;
            self.multipart = Some(begun.map_err(|e| self.failed(e))?);
        }
        if let Some(multipart) = &mut self.multipart {
            self.in_flight.spawn(multipart.put_part(payload));
        }
        Ok(())
    }

    /// Waits until one of the parts on their way has arrived.
    async fn part_done(&mut self) -> Result<()> {
        match self.in_flight.join_next().await {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(self.failed(error)),
            Some(Err(join)) => Err(self.failed(join.into())),
        }
    }

    fn failed(&self, error: StoreError) -> Error {
        self.store.failed("write", &self.name, error)
    }
}

impl Drop for RemoteUpload {
    fn drop(&mut self) {
        let Some(mut multipart) = self.multipart.take() else { return };
        self.in_flight.abort_all();
        // Best effort: what stays behind is invisible, and buckets can expire it by a lifecycle rule.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let _ = multipart.abort().await;
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn more_parts_than_the_stores_allow_are_refused_with_the_size_that_they_make() {
        let remote = Remote::plain(Arc::new(InMemory::new()), "", "memory:");
        let mut upload = RemoteUpload::new(Arc::new(remote), "x").unwrap();
        upload.parts = MAX_PARTS - 1;
        upload.write(vec![1; PART_SIZE].into()).await.unwrap();
        let error = upload.write(vec![1; PART_SIZE].into()).await.unwrap_err().to_string();
        assert!(error.contains("an object may have at most 78 GiB"), "{error}");
    }
}
