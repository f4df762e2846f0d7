//! A table's objects as other libraries read them: through the table's own client and credentials, and nothing else.
//!
//! Objects go by their names within the table, so that nothing outside its folder can be asked for, and nothing can be
//! changed. Errors are explained and redacted as all others: what a client's own error says may hold credentials.

use super::explain::Secrets;
use super::{Inner, Store, check_name};
use crate::error::{Error, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use std::{fmt, ops::Range, sync::Arc};

/// What there is to tell of an object that is not there, by its name.
pub(crate) type Absent = Box<dyn Fn(String) -> BoxFuture<'static, Error> + Send + Sync>;

/// What an answer of the client library is.
type Answer<T> = std::result::Result<T, StoreError>;

impl Store {
    /// The store as other libraries read it. Objects are at their names within it.
    pub(crate) fn reading(&self, absent: Absent) -> Result<Arc<dyn ObjectStore>> {
        let client: Arc<dyn ObjectStore> = match &self.inner {
            Inner::Local(local) => {
                let root = local.path_of("");
                let disk = LocalFileSystem::new_with_prefix(&root);
                Arc::new(disk.map_err(|e| Error::store("open", root.display().to_string(), e))?)
            }
            Inner::Remote(remote) => Arc::clone(&remote.ordinary),
        };
        Ok(Arc::new(Reading { store: self.clone(), client, absent }))
    }

    /// Where the client has the object `name`.
    fn key_of(&self, name: &str) -> Result<Path> {
        match &self.inner {
            Inner::Local(_) => {
                check_name(name)?;
                Path::parse(name).map_err(|e| Error::corrupt(name, e))
            }
            Inner::Remote(remote) => remote.path(name),
        }
    }

    /// What the client's error about `name` says, in words that may be shown.
    fn unread(&self, name: &str, error: StoreError) -> Error {
        match &self.inner {
            Inner::Local(_) => {
                Error::store("read", self.location_of(name), Secrets::default().explain(&error))
            }
            Inner::Remote(remote) => remote.failed("read", name, error),
        }
    }
}

struct Reading {
    store: Store,
    client: Arc<dyn ObjectStore>,
    absent: Absent,
}

impl Reading {
    fn key_of(&self, location: &Path) -> Answer<Path> {
        self.store.key_of(location.as_ref()).map_err(told)
    }

    async fn failed(&self, location: &Path, error: StoreError) -> StoreError {
        let name = location.as_ref();
        match error {
            StoreError::NotFound { .. } if !Secrets::default().tells_of_missing_bucket(&error) => {
                let source = (self.absent)(name.to_owned()).await;
                StoreError::NotFound { path: self.store.location_of(name), source: source.into() }
            }
            error => told(self.store.unread(name, error)),
        }
    }
}

/// An error of ours, as the client library has them.
fn told(error: Error) -> StoreError {
    StoreError::Generic { store: "dedupe table", source: error.into() }
}

fn refused(operation: &str) -> StoreError {
    StoreError::NotImplemented {
        operation: operation.to_owned(),
        implementer: "a table that is being read".to_owned(),
    }
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reading({})", self.store.url())
    }
}

impl fmt::Display for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.store.url())
    }
}

// What `async_trait` would make of it, by hand: it is no dependency for this alone.
impl ObjectStore for Reading {
    fn get_opts<'a, 'b, 'r>(
        &'a self,
        location: &'b Path,
        options: GetOptions,
    ) -> BoxFuture<'r, Answer<GetResult>>
    where
        'a: 'r,
        'b: 'r,
    {
        async move {
            let key = self.key_of(location)?;
            let mut result = match self.client.get_opts(&key, options).await {
                Ok(result) => result,
                Err(error) => return Err(self.failed(location, error).await),
            };
            result.meta.location = location.clone();
            if let GetResultPayload::Stream(bytes) = result.payload {
                let (store, name) = (self.store.clone(), location.to_string());
                let bytes = bytes.map_err(move |error| told(store.unread(&name, error)));
                result.payload = GetResultPayload::Stream(bytes.boxed());
            }
            Ok(result)
        }
        .boxed()
    }

    fn get_ranges<'a, 'b, 'c, 'r>(
        &'a self,
        location: &'b Path,
        ranges: &'c [Range<u64>],
    ) -> BoxFuture<'r, Answer<Vec<Bytes>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
    {
        async move {
            let key = self.key_of(location)?;
            match self.client.get_ranges(&key, ranges).await {
                Ok(bytes) => Ok(bytes),
                Err(error) => Err(self.failed(location, error).await),
            }
        }
        .boxed()
    }

    fn put_opts<'a, 'b, 'r>(
        &'a self,
        _: &'b Path,
        _: PutPayload,
        _: PutOptions,
    ) -> BoxFuture<'r, Answer<PutResult>>
    where
        'a: 'r,
        'b: 'r,
    {
        std::future::ready(Err(refused("put"))).boxed()
    }

    fn put_multipart_opts<'a, 'b, 'r>(
        &'a self,
        _: &'b Path,
        _: PutMultipartOptions,
    ) -> BoxFuture<'r, Answer<Box<dyn MultipartUpload>>>
    where
        'a: 'r,
        'b: 'r,
    {
        std::future::ready(Err(refused("put"))).boxed()
    }

    fn delete_stream(&self, _: BoxStream<'static, Answer<Path>>) -> BoxStream<'static, Answer<Path>> {
        stream::once(std::future::ready(Err(refused("delete")))).boxed()
    }

    /// What the ledger names is read, and nothing else is looked for.
    fn list(&self, _: Option<&Path>) -> BoxStream<'static, Answer<ObjectMeta>> {
        stream::once(std::future::ready(Err(refused("list")))).boxed()
    }

    fn list_with_delimiter<'a, 'b, 'r>(&'a self, _: Option<&'b Path>) -> BoxFuture<'r, Answer<ListResult>>
    where
        'a: 'r,
        'b: 'r,
    {
        std::future::ready(Err(refused("list"))).boxed()
    }

    fn copy_opts<'a, 'b, 'c, 'r>(
        &'a self,
        _: &'b Path,
        _: &'c Path,
        _: CopyOptions,
    ) -> BoxFuture<'r, Answer<()>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
    {
        std::future::ready(Err(refused("copy"))).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::scripted::{CLOUDS, Scripted};
    use object_store::ObjectStoreExt;

    fn gone() -> Absent {
        Box::new(|name| std::future::ready(Error::corrupt(name, "planted absence")).boxed())
    }

    #[tokio::test]
    async fn what_is_in_the_table_is_read_and_what_is_not_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let shared = Arc::new(object_store::memory::InMemory::new());
        shared.put(&Path::from("elsewhere.parquet"), "secret".into()).await.unwrap();
        std::fs::write(folder.path().join("elsewhere.parquet"), "secret").unwrap();
        let local = Store::open(folder.path().join("t").to_str().unwrap(), &[]).unwrap();
        for store in [local, Store::from_object_store(shared, "t", "memory://x/t")] {
            let name = "data/at=2026-01-31 10%3A00/ä.parquet";
            store.put(name, "0123456789".into()).await.unwrap();
            let reading = store.reading(gone()).unwrap();
            let at = Path::parse(name).unwrap();
            assert_eq!(reading.get(&at).await.unwrap().bytes().await.unwrap(), "0123456789");
            assert_eq!(reading.get_range(&at, 2..4).await.unwrap(), "23");
            assert_eq!(reading.get_ranges(&at, &[0..1, 8..10]).await.unwrap(), ["0", "89"]);
            let meta = reading.head(&at).await.unwrap();
            assert_eq!((meta.location, meta.size), (at, 10));
            for outside in ["elsewhere.parquet", "t/data", "data/absent"] {
                let outside = Path::parse(outside).unwrap();
                for error in [
                    reading.get(&outside).await.unwrap_err(),
                    reading.get_ranges(&outside, &[0..1]).await.unwrap_err(),
                ] {
                    assert!(error.to_string().contains("planted absence"), "{error}");
                }
            }
            assert!(reading.list(None).next().await.unwrap().is_err());
            assert!(reading.put(&Path::from("x"), "y".into()).await.is_err());
            assert!(reading.delete(&Path::parse(name).unwrap()).await.is_err());
            assert!(store.get(name).await.unwrap().is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_are_explained() {
        for cloud in CLOUDS {
            let bucket = Scripted::new(cloud);
            let reading = bucket.store().reading(gone()).unwrap();
            bucket.play("x", "G403 G403", Bytes::new());
            let at = Path::from("x");
            for error in
                [reading.get(&at).await.unwrap_err(), reading.get_ranges(&at, &[0..1]).await.unwrap_err()]
            {
                let text = error.to_string();
                assert!(text.contains("://bucket/table/x: "), "{text}");
                assert!(text.contains("Check the credentials"), "{text}");
                // Of the answer code and message only.
                assert!(!text.contains('<') && !format!("{error:?}").contains("<Code>"), "{error:?}");
            }
        }
    }
}
