//! A small runtime aside, for threads that must wait for a bucket.
//!
//! Parquet's readers pull bytes from blocking code, wherever that happens to run: on a blocking thread, or in place
//! on a single-threaded runtime, where waiting for that same runtime would never end. So whatever they wait for runs
//! on two threads of its own, and so do the connections it uses.

use crate::error::{Error, Result};
use std::{
    future::Future,
    sync::{LazyLock, mpsc},
};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<std::io::Result<Runtime>> = LazyLock::new(|| {
    Builder::new_multi_thread().worker_threads(2).thread_name("sources").enable_all().build()
});

/// An answer that is on its way.
#[derive(Debug)]
pub(crate) struct Pending<T>(mpsc::Receiver<Result<T>>);

impl<T> Pending<T> {
    /// Waits for it, on any thread.
    pub(crate) fn wait(self) -> Result<T> {
        self.0.recv().unwrap_or_else(|_| Err(stopped()))
    }
}

/// Starts `work` aside.
pub(crate) fn start<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<Pending<T>> {
    let (sender, receiver) = mpsc::channel();
    runtime()?.spawn(async move {
        // The receiver may have lost interest.
        let _ = sender.send(work.await);
    });
    Ok(Pending(receiver))
}

/// Runs `work` aside without blocking the caller's runtime.
pub(crate) async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    runtime()?.spawn(work).await.unwrap_or_else(|_| Err(stopped()))
}

fn runtime() -> Result<&'static Runtime> {
    RUNTIME.as_ref().map_err(|e| Error::store("start", "the threads that read from buckets", e.to_string()))
}

fn stopped() -> Error {
    Error::Internal("a task that read from a bucket failed".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_can_wait_from_any_thread() {
        async fn nap() -> Result<()> {
            tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            Ok(())
        }
        let wait = || start(nap()).unwrap().wait();
        wait().unwrap();
        let single = Builder::new_current_thread().enable_all().build().unwrap();
        single.block_on(async { wait() }).unwrap();
        single.block_on(async { run(async { Ok(()) }).await }).unwrap();
        let multi = Builder::new_multi_thread().worker_threads(1).build().unwrap();
        multi.block_on(crate::store::compute(wait)).unwrap();
    }

    #[test]
    fn a_panic_aside_is_an_error_here() {
        assert!(start::<()>(async { panic!("planted") }).unwrap().wait().is_err());
    }
}
