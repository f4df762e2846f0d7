//! How much work runs at a time: a fixed number of workers on the runtime's blocking threads.
//!
//! Order is never left to chance: callers hold the futures of what they started in the order in which they need the
//! results. On a single-threaded runtime work runs in place when it is awaited, so that a run is deterministic.

use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

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
        self.start_after(std::future::ready(()), work)
    }

    /// Starts `work` once `ready` is done and a worker is free.
    pub(crate) fn start_after<T, F>(
        &self,
        ready: impl Future<Output = ()> + Send + 'static,
        work: F,
    ) -> Started<T>
    where
        T: Send + 'static,
        F: FnOnce() -> Result<T> + Send + 'static,
    {
        match Handle::try_current() {
            Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
                let permits = Arc::clone(&self.permits);
                let task = handle.spawn(async move {
                    ready.await;
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
            _ => async move {
                ready.await;
                work()
            }
            .boxed(),
        }
    }
}

/// Does `work` alongside what the caller does next, where the runtime has several threads; in place otherwise. Dropped before
/// it is done, it is stopped.
pub(crate) async fn alongside<T, F>(work: F) -> Started<T>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            // A set of tasks, because it stops them when it is dropped.
            let mut task = JoinSet::new();
            task.spawn(work);
            async move {
                match task.join_next().await {
                    Some(Ok(result)) => result,
                    Some(Err(join)) if !join.is_cancelled() => {
                        Err(Error::Internal(format!("a task failed: {join}")))
                    }
                    _ => Err(Error::Interrupted),
                }
            }
            .boxed()
        }
        _ => futures::future::ready(work.await).boxed(),
    }
}
