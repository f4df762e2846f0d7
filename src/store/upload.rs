//! A new object of any size, written piece by piece.

use super::{
    compute,
    local::LocalUpload,
    multipart::{PART_SIZE, PARTS_IN_FLIGHT, RemoteUpload},
    remote::Remote,
};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::sync::Arc;

/// How much a local upload gathers before it writes.
const LOCAL_BLOCK: usize = 1 << 20;

/// An object on its way into the store. It appears, whole and durable, when [`Upload::finish`] returns; dropped
/// before, it never does (what was sent is taken back as well as possible).
#[derive(Debug)]
pub struct Upload {
    inner: Inner,
    gathered: Vec<Bytes>,
    gathered_bytes: usize,
}

#[derive(Debug)]
enum Inner {
    Local(LocalUpload),
    Remote(RemoteUpload),
    Failed,
}

impl Upload {
    /// The most memory that one upload holds at a time, beyond the piece it was just given.
    pub const MEMORY: usize = (PARTS_IN_FLIGHT + 1) * PART_SIZE;

    pub(super) fn local(upload: LocalUpload) -> Self {
        Self { inner: Inner::Local(upload), gathered: Vec::new(), gathered_bytes: 0 }
    }

    pub(super) fn remote(store: Arc<Remote>, name: &str) -> Result<Self> {
        let upload = RemoteUpload::new(store, name)?;
        Ok(Self { inner: Inner::Remote(upload), gathered: Vec::new(), gathered_bytes: 0 })
    }

    /// Appends `bytes`. After an error the upload is void.
    pub async fn write(&mut self, bytes: Bytes) -> Result<()> {
        if let Inner::Remote(upload) = &mut self.inner {
            let result = upload.write(bytes).await;
            if result.is_err() {
                self.inner = Inner::Failed;
            }
            return result;
        }
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes >= LOCAL_BLOCK { self.flush().await } else { Ok(()) }
    }

    /// Appends `bytes` on the calling thread, which it blocks, if the object lies on a local disk; gives them back if not.
    pub(crate) fn write_here(&mut self, bytes: Bytes) -> Result<Option<Bytes>> {
        if !matches!(self.inner, Inner::Local(_)) {
            return Ok(Some(bytes));
        }
        self.gathered_bytes += bytes.len();
        self.gathered.push(bytes);
        if self.gathered_bytes >= LOCAL_BLOCK {
            // Taken out while it is written to, so that a failed write leaves the upload void, not torn.
            if let Inner::Local(mut upload) = std::mem::replace(&mut self.inner, Inner::Failed) {
                upload.write(&std::mem::take(&mut self.gathered))?;
                self.gathered_bytes = 0;
                self.inner = Inner::Local(upload);
            }
        }
        Ok(None)
    }

    /// Makes the object appear and returns its length in bytes. It is durable then.
    pub async fn finish(mut self) -> Result<u64> {
        self.flush().await?;
        match self.inner {
            Inner::Local(upload) => compute(move || upload.finish()).await,
            Inner::Remote(upload) => upload.finish().await,
            Inner::Failed => Err(void()),
        }
    }

    /// Hands what was gathered to the local file, if that is what this is.
    async fn flush(&mut self) -> Result<()> {
        // Taken out while it is elsewhere, so that a failed or abandoned write leaves the upload void, not torn.
        let mut upload = match std::mem::replace(&mut self.inner, Inner::Failed) {
            Inner::Local(upload) => upload,
            Inner::Failed => return Err(void()),
            remote => {
                self.inner = remote;
                return Ok(());
            }
        };
        let chunks = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        let write = move || upload.write(&chunks).map(|()| upload);
        self.inner = Inner::Local(compute(write).await?);
        Ok(())
    }
}

fn void() -> Error {
    Error::Internal("an upload was used after it had failed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_local_file_gets_whole_blocks_and_at_its_end_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).unwrap();
        let mut upload = store.create("x").await.unwrap();
        let piece = Bytes::from(vec![7; LOCAL_BLOCK / 2 - 1]);
        let mut held = Vec::new();
        for _ in 0..6 {
            upload.write(piece.clone()).await.unwrap();
            held.push((upload.gathered.len(), upload.gathered_bytes));
        }
        let size = piece.len();
        assert_eq!(held, [(1, size), (2, 2 * size), (0, 0), (1, size), (2, 2 * size), (0, 0)]);
        upload.write(Bytes::from(vec![7; LOCAL_BLOCK])).await.unwrap();
        assert_eq!(upload.gathered_bytes, 0);
        upload.write("end".into()).await.unwrap();
        assert_eq!(upload.finish().await.unwrap(), (6 * size + LOCAL_BLOCK + 3) as u64);
    }

    #[tokio::test]
    async fn on_the_spot_the_same_blocks_are_written_and_what_lies_far_away_is_given_back() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap(), &[]).unwrap();
        let mut upload = store.create("x").await.unwrap();
        let piece = Bytes::from(vec![7; LOCAL_BLOCK / 2]);
        let mut held = Vec::new();
        for _ in 0..4 {
            assert_eq!(upload.write_here(piece.clone()).unwrap(), None);
            held.push((upload.gathered.len(), upload.gathered_bytes));
        }
        assert_eq!(held, [(1, LOCAL_BLOCK / 2), (0, 0), (1, LOCAL_BLOCK / 2), (0, 0)]);
        assert_eq!(upload.write_here("end".into()).unwrap(), None);
        assert_eq!(upload.finish().await.unwrap(), 2 * LOCAL_BLOCK as u64 + 3);
        assert!(store.get("x").await.unwrap().unwrap().ends_with(b"\x07end"));
        let mut upload = Store::open("memory:", &[]).unwrap().create("x").await.unwrap();
        assert_eq!(upload.write_here(piece.clone()).unwrap(), Some(piece));
        assert_eq!(upload.finish().await.unwrap(), 0);
    }

    #[test]
    fn an_upload_holds_three_parts_on_their_way_and_one_that_grows() {
        assert_eq!(Upload::MEMORY, 32 << 20);
    }
}
