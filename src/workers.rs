//! How much work runs at a time: a fixed number of workers on the runtime's blocking threads.
//!
//! Order is never left to chance: callers hold the futures of what they started in the order in which they need the
//! results. On a single-threaded runtime work runs in place when it is awaited, so that a run is deterministic.

use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// The result of work that was started, to be awaited. Work that was not awaited may or may not have run.
pub(crate) type Started<T> = BoxFuture<'static, Result<T>>;

/// A fixed number of workers. Cloning shares them.
#[derive(Debug, Clone)]
pub struct Workers {
    permits: Arc<Semaphore>,
    count: usize,
}

impl Workers {
    /// So many workers.
    pub fn new(count: NonZeroUsize) -> Self {
        Self { permits: Arc::new(Semaphore::new(count.get())), count: count.get() }
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Starts `work` as soon as a worker is free.
    pub(crate) fn start<T, F>(&self, work: F) -> Started<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                let permits = Arc::clone(&self.permits);
                let task = handle.spawn(async move {
                    let _permit = permits.acquire_owned().await.map_err(|_| Error::Interrupted)?;
                    crate::store::compute(work).await
                });
                async move {
                    match task.await {
                        Ok(result) => result,
                        Err(join) if join.is_cancelled() => Err(Error::Interrupted),
                        Err(join) => Err(Error::Internal(format!("a worker failed: {join}"))),
                    }
                }
                .boxed()
            }
            _ => async move { work() }.boxed(),
        }
    }
}
