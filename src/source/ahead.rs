//! Bytes that are fetched from a bucket before anybody reads them.
//!
//! Whoever knows what will be read says so (`Input::fetch_ahead`) and holds on to the
//! [`Ahead`] he is given: as long as he does, reads of those bytes wait for them if need be, and cost no request of
//! their own. A fetch that fails is no error: whoever reads fetches again, and learns the reason.

use bytes::Bytes;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use tokio::sync::Notify;

/// Fetches that are under way or done, of one input. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Fetches(Arc<Mutex<Vec<Arc<Fetch>>>>);

/// One range that is being fetched.
#[derive(Debug)]
pub(super) struct Fetch {
    range: Range<u64>,
    /// `None` until it ended; `Some(None)` if it failed.
    ended: Mutex<Option<Option<Bytes>>>,
    waiting: Condvar,
    notify: Notify,
}

/// A hold on bytes that are fetched ahead: when it is dropped they are kept no longer.
#[derive(Debug, Default)]
pub struct Ahead {
    fetches: Vec<Arc<Fetch>>,
    of: Fetches,
}

impl Fetches {
    /// Notes that `range` is being fetched.
    pub(super) fn begin(&self, range: Range<u64>) -> Arc<Fetch> {
        let fetch = Fetch { range, ended: Mutex::default(), waiting: Condvar::new(), notify: Notify::new() };
        let fetch = Arc::new(fetch);
        self.lock().push(Arc::clone(&fetch));
        fetch
    }

    /// A hold on `fetches`, which were begun here.
    pub(super) fn hold(&self, fetches: Vec<Arc<Fetch>>) -> Ahead {
        Ahead { fetches, of: self.clone() }
    }

    /// The bytes from the beginning of `range` on, as far as one fetch goes, once they are there. None if nobody fetches them.
    pub(super) fn find(&self, range: &Range<u64>) -> Option<Bytes> {
        let holds = |fetch: &&Arc<Fetch>| fetch.range.contains(&range.start);
        let fetch = Arc::clone(self.lock().iter().find(holds)?);
        let bytes = fetch.wait()?;
        let from = usize::try_from(range.start - fetch.range.start).ok()?;
        let wanted = usize::try_from(range.end.saturating_sub(range.start)).ok()?;
        let bytes = bytes.get(from..).map(|_| bytes.slice(from..))?;
        Some(bytes.slice(..wanted.min(bytes.len())))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Fetch>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fetch {
    pub(super) fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    fn end(&self, bytes: Option<Bytes>) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        self.waiting.notify_all();
        self.notify.notify_waiters();
    }

    fn has_ended(&self) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    fn wait(&self) -> Option<Bytes> {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match &*ended {
                Some(bytes) => return bytes.clone(),
                None => ended = self.waiting.wait(ended).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// Whoever fetches holds this. Dropped before it was told the bytes, the fetch has failed.
#[derive(Debug)]
pub(super) struct Fetching(Arc<Fetch>);

impl Fetching {
    pub(super) fn of(fetch: &Arc<Fetch>) -> Self {
        Self(Arc::clone(fetch))
    }

    /// It ended, with its bytes or without.
    pub(super) fn end(self, bytes: Option<Bytes>) {
        self.0.end(bytes);
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        if !self.0.has_ended() {
            self.0.end(None);
        }
    }
}

impl Ahead {
    /// Bytes that are fetched.
    pub fn bytes(&self) -> u64 {
        self.fetches.iter().map(|fetch| fetch.range.end - fetch.range.start).sum()
    }

    /// Whether all bytes are there.
    pub fn has_arrived(&self) -> bool {
        self.fetches.iter().all(|fetch| fetch.has_ended())
    }

    /// Waits until all bytes are there.
    pub async fn arrived(&self) {
        for fetch in &self.fetches {
            loop {
                // Before looking, so that an end in between is not missed.
                let notified = fetch.notify.notified();
                if fetch.has_ended() {
                    break;
                }
                notified.await;
            }
        }
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let own = |fetch: &Arc<Fetch>| self.fetches.iter().any(|own| Arc::ptr_eq(own, fetch));
        self.of.lock().retain(|fetch| !own(fetch));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::{discover::Compression, input::Input};
    use crate::store::Store;
    use parquet::file::reader::ChunkReader;
    use proptest::prelude::*;
    use std::io::Read;

    #[test]
    fn whoever_reads_waits_for_the_bytes() {
        let fetches = Fetches::default();
        let fetch = fetches.begin(100..110);
        let hold = fetches.hold(vec![Arc::clone(&fetch)]);
        assert_eq!(fetches.find(&(90..95)), None);
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| fetches.find(&(103..200)));
            let async_reader = scope.spawn(|| futures::executor::block_on(hold.arrived()));
            Fetching::of(&fetch).end(Some(Bytes::from_static(b"0123456789")));
            assert_eq!(reader.join().unwrap().unwrap(), &b"3456789"[..]);
            async_reader.join().unwrap();
        });
        assert_eq!(fetches.find(&(100..102)).unwrap(), &b"01"[..]);
        drop(hold);
        assert_eq!(fetches.find(&(100..102)), None);
    }

    #[test]
    fn one_that_failed_is_none() {
        let fetches = Fetches::default();
        let fetch = fetches.begin(0..4);
        let _hold = fetches.hold(vec![Arc::clone(&fetch)]);
        drop(Fetching::of(&fetch));
        assert_eq!(fetches.find(&(0..4)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        #[test]
        fn bytes_are_the_same_whether_they_were_fetched_ahead_or_not(
            fetched in prop::collection::vec((0u64..3000, 0u64..1500), 0..6),
            reads in prop::collection::vec((0u64..2999, 1usize..1500, any::<bool>()), 1..12),
            dropped_after in 0usize..12,
        ) {
            let bytes: Bytes = (0..3000u32).map(|at| (at * at / 7) as u8).collect();
            let store = Store::from_object_store(Arc::new(object_store::memory::InMemory::new()), "", "memory:");
            futures::executor::block_on(store.put("x", bytes.clone())).unwrap();
            let input = Input::bucket("memory:/x", Compression::None, store, "x", 3000, None);
            let ranges: Vec<_> = fetched.iter().map(|(start, length)| *start..(start + length).min(3000)).collect();
            let mut ahead = Some(input.fetch_ahead(ranges));
            for (number, (start, length, in_order)) in reads.into_iter().enumerate() {
                if number == dropped_after {
                    ahead = None;
                }
                let length = length.min(3000 - start as usize);
                let wanted = &bytes[start as usize..start as usize + length];
                if in_order {
                    let mut read = Vec::new();
                    input.get_read(start).unwrap().take(length as u64).read_to_end(&mut read).unwrap();
                    prop_assert_eq!(&read[..], wanted);
                } else {
                    prop_assert_eq!(&input.get_bytes(start, length).unwrap()[..], wanted);
                }
            }
            drop(ahead);
        }
    }
}
