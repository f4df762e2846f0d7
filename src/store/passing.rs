//! What this process wrote only for a while (a lease, a probe) and takes away itself: it waits for that before it ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How much of this process is not taken away yet.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

/// Counts something as written while it lives.
#[derive(Debug)]
pub(crate) struct Passing(());

impl Passing {
    /// It is about to be written.
    pub(crate) fn new() -> Self {
        WRITTEN.fetch_add(1, Ordering::Relaxed);
        Self(())
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        WRITTEN.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Waits until all of it is taken away, but no longer than `most`: for a process that ends because it was told to.
pub(crate) async fn taken_away(most: Duration) {
    let all = async {
        while WRITTEN.load(Ordering::Relaxed) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(most, all).await;
}
