//! An object store with a clock of its own, that a test sets: what it says of its objects' times has nothing to do
//! with the time outside.

use async_trait::async_trait;
use chrono::{DateTime, Duration, Utc};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// The store.
#[derive(Debug)]
pub struct ClockStore {
    inner: Arc<dyn ObjectStore>,
    times: Arc<Mutex<Times>>,
}

#[derive(Debug)]
struct Times {
    now: DateTime<Utc>,
    written: HashMap<Path, DateTime<Utc>>,
}

impl ClockStore {
    /// A store whose clock stands at noon of some day.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        let now = DateTime::UNIX_EPOCH + Duration::days(20_000) + Duration::hours(12);
        Arc::new(Self { inner, times: Arc::new(Mutex::new(Times { now, written: HashMap::new() })) })
    }

    /// Sets the clock forward, or back.
    pub fn pass(&self, seconds: i64) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).now += Duration::seconds(seconds);
    }

    fn wrote(&self, path: &Path) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let now = times.now;
        times.written.insert(path.clone(), now);
    }
}

fn told(times: &Mutex<Times>, mut meta: ObjectMeta) -> ObjectMeta {
    let times = times.lock().unwrap_or_else(PoisonError::into_inner);
    meta.last_modified = times.written.get(&meta.location).copied().unwrap_or(times.now);
    meta
}

impl std::fmt::Display for ClockStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClockStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for ClockStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(path, payload, options).await?;
        self.wrote(path);
        Ok(result)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.wrote(path);
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let mut result = self.inner.get_opts(path, options).await?;
        result.meta = told(&self.times, result.meta);
        Ok(result)
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let times = Arc::clone(&self.times);
        self.inner.list(prefix).map_ok(move |meta| told(&times, meta)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects = listed.objects.into_iter().map(|meta| told(&self.times, meta)).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
