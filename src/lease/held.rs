//! Holding a lease: a task that writes it, renews it, and takes it back when its session ends.
//!
//! The first second costs nothing, so that short commits make no request for it. Trouble with a lease is logged and
//! forgotten. The task sleeps on the runtime's timer and draws nothing at random: on a single-threaded runtime with
//! paused time one order of events gives one history.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::debug;

use super::{Done, Lease};
use crate::store::Store;
use crate::store::passing::Passing;

/// A session that is over before has no lease.
const FIRST: Duration = Duration::from_secs(1);

/// How long the end of a session waits for its lease to be taken back.
const LAST: Duration = Duration::from_secs(5);

/// A lease while its session lives. Dropped, it is taken back in the background.
#[derive(Debug, Default)]
pub(crate) struct Held {
    done: Arc<Mutex<Done>>,
    /// Dropping it tells the task to end.
    over: Option<oneshot::Sender<()>>,
    task: Option<JoinHandle<()>>,
}

impl Held {
    /// Holds `lease` from now on, but writes it only if its session lives for a second.
    pub(crate) fn begin(store: &Store, lease: Lease) -> Self {
        Self::start(store, lease, None)
    }

    /// Holds `lease`, which was just written.
    pub(crate) fn written(store: &Store, lease: Lease) -> Self {
        Self::start(store, lease, Some(Passing::new()))
    }

    /// No lease: for those who write nothing.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    fn start(store: &Store, lease: Lease, written: Option<Passing>) -> Self {
        let done = Arc::<Mutex<Done>>::default();
        let (over, ended) = oneshot::channel();
        let task = Handle::try_current()
            .ok()
            .map(|runtime| runtime.spawn(hold(store.clone(), lease, written, Arc::clone(&done), ended)));
        Self { done, over: Some(over), task }
    }

    /// Takes note of what the session has done so far; the next renewal tells it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Done)) {
        change(&mut self.done.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Takes the lease back, and waits a little until that is done.
    pub(crate) async fn end(&mut self) {
        drop(self.over.take());
        if let Some(task) = self.task.take() {
            // Whatever keeps it from ending goes on in the background.
            let _ = tokio::time::timeout(LAST, task).await;
        }
    }
}

async fn hold(
    store: Store,
    mut lease: Lease,
    mut written: Option<Passing>,
    done: Arc<Mutex<Done>>,
    mut ended: oneshot::Receiver<()>,
) {
    let renewal = Duration::from_secs(lease.lease_seconds.max(3)) / 3;
    let mut pause = if written.is_some() { renewal } else { FIRST };
    loop {
        tokio::select! {
            // Never by chance.
            biased;
            _ = &mut ended => break,
            () = tokio::time::sleep(pause) => {}
        }
        lease.done = *done.lock().unwrap_or_else(PoisonError::into_inner);
        // Also if it fails: it may be there all the same.
        written.get_or_insert_with(Passing::new);
        // Not broken off when the session ends: a put that lands after the delete would leave the lease behind.
        if let Err(error) = lease.write(&store).await {
            debug!("the lease could not be written: {error}");
        }
        pause = renewal;
    }
    if written.is_some()
        && let Err(error) = store.delete(&lease.object()).await
    {
        debug!("the lease could not be taken back: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Kind, leases};
    use super::*;
    use crate::store::passing::taken_away;
    use object_store::memory::InMemory;

    fn store() -> Store {
        Store::from_object_store(Arc::new(InMemory::new()), "t", "memory:")
    }

    fn lease() -> Lease {
        Lease::new(&"0f".repeat(16), "host:1", Kind::Ingest, 7)
    }

    async fn found(store: &Store) -> Option<Done> {
        let found = leases(store).await.unwrap().pop()?;
        Some(found.lease.unwrap().done)
    }

    #[tokio::test(start_paused = true)]
    async fn a_short_session_has_no_lease_and_a_long_one_renews_it_with_its_numbers() {
        let store = store();
        let mut held = Held::begin(&store, lease());
        tokio::time::sleep(Duration::from_millis(990)).await;
        assert_eq!(found(&store).await, None);
        held.update(|done| done.rows = 5);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(found(&store).await, Some(Done { rows: 5, ..Done::default() }));
        held.update(|done| done.rows = 9);
        tokio::time::sleep(Duration::from_secs(19)).await;
        assert_eq!(found(&store).await.unwrap().rows, 5);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(found(&store).await.unwrap().rows, 9);
        held.end().await;
        assert_eq!(found(&store).await, None);
        // It does not come back.
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(found(&store).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_dropped_leaves_no_lease() {
        let store = store();
        let held = Held::begin(&store, lease());
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(found(&store).await.is_some());
        drop(held);
        taken_away(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
        assert_eq!(found(&store).await, None);
        // One that was over at once writes nothing later.
        drop(Held::begin(&store, lease()));
        Held::begin(&store, lease()).end().await;
        tokio::time::sleep(Duration::from_secs(100)).await;
        assert_eq!(found(&store).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_lease_that_was_written_before_is_taken_back_however_soon() {
        let store = store();
        lease().write(&store).await.unwrap();
        Held::written(&store, lease()).end().await;
        assert_eq!(found(&store).await, None);
    }

    #[test]
    fn without_a_runtime_there_is_no_lease() {
        futures::executor::block_on(async { Held::begin(&store(), lease()).end().await });
    }
}
