//! Where blocking work runs: on the runtime's blocking threads if it has several, in place otherwise.
//!
//! In place is right for a single-threaded runtime (tests, deterministic simulation, embedding): nothing else
//! could run there anyway, and the order of steps stays the same from run to run.

use crate::error::{Error, Result};
use tokio::runtime::{Handle, RuntimeFlavor};

/// Runs `work`, which may block on disk or on the processor, without holding up other tasks where that is possible.
///
/// On a multi-threaded runtime the work finishes even if the returned future is dropped.
pub async fn compute<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            match handle.spawn_blocking(work).await {
                Ok(result) => result,
                Err(join) if join.is_cancelled() => Err(Error::Interrupted),
                Err(join) => Err(Error::Internal(format!("a blocking task failed: {join}"))),
            }
        }
        _ => work(),
    }
}

/// Starts `work` on a blocking thread if the runtime has several, and says whether it did.
pub(super) fn started(work: impl FnOnce() + Send + 'static) -> bool {
    match Handle::try_current() {
        Ok(handle) if handle.runtime_flavor() == RuntimeFlavor::MultiThread => {
            drop(handle.spawn_blocking(work));
            true
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtimes() -> Vec<tokio::runtime::Runtime> {
        vec![
            tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
        ]
    }

    #[test]
    fn work_runs_on_every_kind_of_runtime_and_without_one() {
        for runtime in runtimes() {
            assert_eq!(runtime.block_on(compute(|| Ok(7))).unwrap(), 7);
        }
        assert_eq!(futures::executor::block_on(compute(|| Ok(7))).unwrap(), 7);
    }

    #[test]
    fn a_panic_on_a_blocking_thread_becomes_an_error() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let result: Result<()> = runtime.block_on(compute(|| panic!("planted")));
        assert!(matches!(result, Err(Error::Internal(_))), "{result:?}");
    }
}
