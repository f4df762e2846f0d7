//! Bytes of runs, from the store or from the cache nearby: many ranges at the same time.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::error::Result;
use crate::store::{Store, compute};

/// Ranges of up to this many bytes are fetched many at a time: it is the wait that they cost.
const SMALL: u64 = 64 << 10;

/// How many small, and how many large ranges are fetched at a time.
const SMALL_AT_ONCE: usize = 64;
const LARGE_AT_ONCE: usize = 4;

/// The bytes of each range of the run `name`, in the order asked for, from the store.
pub(super) async fn from_store(store: &Store, name: &str, ranges: Vec<Range<u64>>) -> Result<Vec<Bytes>> {
    if store.local_path("").is_some() {
        return store.get_ranges(name, &ranges).await;
    }
    let large = ranges.iter().any(|range| range.end.saturating_sub(range.start) > SMALL);
    let at_once = if large { LARGE_AT_ONCE } else { SMALL_AT_ONCE };
    stream::iter(ranges).map(|range| store.get_range(name, range)).buffered(at_once).try_collect().await
}

/// As [`from_store`], but what the cache has, and is `sound` (told by the number of the range and its bytes), is taken from
/// there; the rest is fetched and put there.
pub(super) async fn ranges(
    store: &Store,
    name: &str,
    ranges: Vec<Range<u64>>,
    sound: impl Fn(usize, &[u8]) -> bool + Send + 'static,
) -> Result<Vec<Bytes>> {
    let Some(cache) = store.cache() else { return from_store(store, name, ranges).await };
    let (near, object, wanted) = (Arc::clone(cache), name.to_owned(), ranges.clone());
    let mut all = compute(move || {
        let mut all = near.read(&object, &wanted);
        for (at, part) in all.iter_mut().enumerate() {
            part.take_if(|part| !sound(at, part));
        }
        Ok(all)
    })
    .await?;
    let absent: Vec<usize> =
        all.iter().enumerate().filter(|(_, part)| part.is_none()).map(|(at, _)| at).collect();
    if !absent.is_empty() {
        let missing: Vec<Range<u64>> = absent.iter().filter_map(|at| ranges.get(*at)).cloned().collect();
        let came = from_store(store, name, missing.clone()).await?;
        let parts: Vec<(u64, Bytes)> =
            missing.iter().map(|range| range.start).zip(came.iter().cloned()).collect();
        let (near, object) = (Arc::clone(cache), name.to_owned());
        compute(move || {
            near.write(&object, &parts);
            Ok(())
        })
        .await?;
        for (at, part) in absent.into_iter().zip(came) {
            if let Some(slot) = all.get_mut(at) {
                *slot = Some(part);
            }
        }
    }
    Ok(all.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{ascending, token};
    use crate::ledger::entry::RunRef;
    use crate::runs::write::RunUpload;
    use crate::runs::{Budget, OpenRun};
    use crate::store::cache::Cache;
    use crate::token::Token;
    use object_store::ObjectStore;
    use object_store::memory::InMemory;

    const NAME: &str = "_dedupe/tokens/00000000000000000001-r-0.run";

    async fn written(store: &Store, tokens: &[Token]) -> RunRef {
        let mut upload = RunUpload::begin(store, NAME.into(), None).await.unwrap();
        upload.push_all(tokens).await.unwrap();
        upload.finish().await.unwrap()
    }

    async fn found(store: &Store, run: &RunRef, tokens: &[Token]) -> Result<Vec<u32>> {
        OpenRun::open(store, run).await?.find(store, tokens, &Budget::new(0)).await
    }

    #[tokio::test]
    async fn what_was_asked_for_once_needs_no_store_and_damage_in_the_cache_is_mended() {
        let folder = tempfile::tempdir().unwrap();
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let plain = Store::from_object_store(Arc::clone(&bucket), "table", "memory:");
        let store = plain.clone().with_cache(folder.path(), 1 << 30).unwrap();
        let run = written(&store, &ascending(0, 60_000)).await;
        let mut tokens: Vec<Token> = (0..120_000).step_by(97).map(token).collect();
        tokens.sort_unstable();
        let expected = found(&plain, &run, &tokens).await.unwrap();
        assert!(expected.len() > 500);
        assert_eq!(found(&store, &run, &tokens).await.unwrap(), expected);

        // The same without the store, by another process.
        let bytes = plain.get(NAME).await.unwrap().unwrap();
        plain.delete(NAME).await.unwrap();
        let other = plain.clone().with_cache(folder.path(), 1 << 30).unwrap();
        assert_eq!(found(&other, &run, &tokens).await.unwrap(), expected);
        assert!(found(&plain, &run, &tokens).await.is_err());

        // Damaged, cut, or emptied under our hands: fetched again, and then there again.
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap().path();
        let kept = std::fs::read(&file).unwrap();
        for damage in 0..6usize {
            let mut damaged = kept.clone();
            match damage {
                0 => damaged.clear(),
                1 => damaged.truncate(kept.len() / 2),
                2 => damaged.fill(0),
                _ => damaged.iter_mut().skip(damage).step_by(1009).for_each(|byte| *byte ^= 1 << damage),
            }
            std::fs::write(&file, &damaged).unwrap();
            assert!(found(&store, &run, &tokens).await.is_err(), "damage {damage} was believed");
            plain.put(NAME, bytes.clone()).await.unwrap();
            assert_eq!(found(&store, &run, &tokens).await.unwrap(), expected);
            plain.delete(NAME).await.unwrap();
            assert_eq!(found(&store, &run, &tokens).await.unwrap(), expected);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn many_share_a_cache_that_is_too_small_for_them() {
        let folder = tempfile::tempdir().unwrap();
        let plain = Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:");
        let run = written(&plain, &ascending(0, 60_000)).await;
        let mut tokens: Vec<Token> = (0..120_000).step_by(97).map(token).collect();
        tokens.sort_unstable();
        let expected = found(&plain, &run, &tokens).await.unwrap();
        let all = (0..8u32).map(|i| {
            let store = plain.clone().with_cache(folder.path(), 100_000 * u64::from(i + 1)).unwrap();
            let (run, tokens, expected) = (run.clone(), tokens.clone(), expected.clone());
            tokio::spawn(async move {
                for _ in 0..5 {
                    assert_eq!(found(&store, &run, &tokens).await.unwrap(), expected);
                    store.cache().unwrap().write("other.run", &[(0, vec![1; 50_000].into())]);
                }
            })
        });
        futures::future::try_join_all(all).await.unwrap();
        assert!(
            Cache::open(folder.path(), 1).unwrap().read(NAME, &[0..1])[0].is_none(),
            "emptied for lack of room"
        );
    }
}
