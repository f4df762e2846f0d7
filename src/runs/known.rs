//! What a table knows at a version: the tokens of all its live runs, and those inline in manifests.

use std::sync::atomic::{AtomicU64, Ordering};

use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Budget, OpenRun, open};
use crate::error::{Error, Result};
use crate::index::lookup::{self, Piece};
use crate::ledger::State;
use crate::store::Store;
use crate::token::Token;
use crate::verdict::Lookups;

/// Bytes of a run that are passed over in the time that one more row of a batch takes.
const BYTES_A_ROW: u64 = 64;

/// How many runs are opened at a time.
const OPENED_AT_ONCE: usize = 32;

/// The exact set of the tokens accepted up to a version. Several may look tokens up in it at a time.
#[derive(Debug)]
pub(crate) struct Known {
    runs: Vec<OpenRun>,
    /// All inline tokens, ascending.
    inline: Vec<Token>,
    budget: Budget,
    memory: u64,
    /// Bytes that the last batch passed over for its exact look-ups.
    passed: AtomicU64,
}

impl Known {
    /// Opens the live runs of `state`. Prefixes and tokens kept in memory stay within `memory` bytes.
    pub(crate) async fn open(store: &Store, state: &State, memory: u64) -> Result<Self> {
        let opened: Vec<_> = state.runs.values().map(|run| OpenRun::open(store, &run.item)).collect();
        let runs = stream::iter(opened).buffered(OPENED_AT_ONCE).try_collect().await?;
        let mut inline: Vec<Token> =
            state.inline.values().flat_map(|tokens| tokens.0.iter().copied()).collect();
        inline.sort_unstable();
        Ok(Self { runs, inline, budget: Budget::new(memory), memory, passed: AtomicU64::new(0) })
    }

    /// Knows nothing: a table that does not exist yet.
    pub(crate) fn nothing() -> Self {
        let (budget, passed) = (Budget::new(0), AtomicU64::new(0));
        Self { runs: Vec::new(), inline: Vec::new(), budget, memory: 0, passed }
    }

    /// How many rows of those to come are best judged together. More than a chunk where each batch passes over the same bytes
    /// anew, so that one large batch is cheaper than many small ones: over the prefixes of all runs where they do not fit into
    /// memory, and over most of the rest where as many rows are known as were in the last batch.
    pub(crate) fn best_batch(&self) -> u64 {
        let (mut prefixes, mut all) = (0, 0);
        for run in &self.runs {
            prefixes += run.prefix_bytes();
            all += run.bytes();
        }
        let anew = if prefixes <= self.memory { 0 } else { prefixes };
        let passed = self.passed.load(Ordering::Relaxed);
        let most = if passed > all / 2 { passed } else { 0 };
        (anew + most) / BYTES_A_ROW
    }

    /// What looking tokens up has taken so far.
    pub(crate) fn lookups(&self) -> Lookups {
        self.runs.iter().map(OpenRun::lookups).fold(Lookups::default(), Lookups::plus)
    }

    /// The positions in ascending `tokens` that are known, ascending; and what finding that out took.
    pub(crate) async fn find(&self, store: &Store, tokens: &[Token]) -> Result<(Vec<u32>, Lookups)> {
        let mut found = lookup::common(tokens, &self.inline);
        let mut pieces = Vec::new();
        for (at, run) in self.runs.iter().enumerate() {
            pieces.extend(run.plan(store, tokens).into_iter().map(|piece| (at, piece)));
        }
        // The pieces of all runs are on their way at the same time: so many runs cost one wait together.
        let runs = &self.runs;
        let search = |(at, piece): (usize, Piece)| async move {
            match runs.get(at) {
                Some(run) => Ok((at, run.search(store, tokens, piece).await?)),
                None => Err(Error::Internal(format!("run {at} is not open"))),
            }
        };
        let mut searches = stream::iter(pieces).map(search).buffered(open::at_once(store));
        let (mut kept, mut passed, mut lookups) = (Vec::new(), 0, Lookups::default());
        let mut left = self.budget.left();
        while let Some((at, mut piece)) = searches.try_next().await? {
            found.extend(piece.hits.iter().map(|hit| hit.position));
            passed += piece.passed;
            lookups = lookups.plus(piece.lookups);
            piece.shrink(&mut left);
            kept.push((at, piece));
        }
        self.passed.store(passed, Ordering::Relaxed);
        for (at, piece) in kept {
            if let Some(run) = self.runs.get(at) {
                run.keep(piece, &self.budget);
            }
        }
        found.sort_unstable();
        found.dedup();
        Ok((found, lookups))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;
    use std::time::Duration;

    use crate::index::samples::{ascending, token};
    use crate::ledger::entry::InlineTokens;
    use crate::ledger::state::Live;
    use crate::runs::write::RunUpload;
    use object_store::ObjectStore;
    use object_store::memory::InMemory;
    use object_store::throttle::{ThrottleConfig, ThrottledStore};

    #[tokio::test]
    async fn tokens_of_runs_and_of_manifests_are_known_and_no_others() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:");
        let mut state = State::default();
        let mut held = BTreeSet::new();
        for (since, from) in [(1, 0), (2, 10_000), (5, 20_000)] {
            let tokens = ascending(from, 3_000 * since);
            let name = format!("_dedupe/tokens/{since}.run");
            let mut upload = RunUpload::begin(&store, name.clone(), None).await.unwrap();
            upload.push_all(&tokens).await.unwrap();
            let item = upload.finish().await.unwrap();
            state.runs.insert(name, Live { since, item });
            held.extend(tokens);
        }
        for (version, from) in [(3, 50_000), (4, 60_000)] {
            let tokens = ascending(from, 200);
            held.extend(tokens.iter().copied());
            state.inline.insert(version, InlineTokens(tokens));
        }
        for memory in [0, 10_000, u64::MAX] {
            let known = Known::open(&store, &state, memory).await.unwrap();
            for step in [1, 7, 1000, 1] {
                let mut tokens: Vec<_> = (0..70_000).step_by(step).map(token).collect();
                tokens.sort_unstable();
                let places = (0..).zip(&tokens).filter(|(_, token)| held.contains(token));
                let expected: Vec<u32> = places.map(|(place, _)| place).collect();
                assert_eq!(known.find(&store, &tokens).await.unwrap().0, expected);
            }
        }
        assert!(Known::nothing().find(&store, &ascending(0, 10)).await.unwrap().0.is_empty());
    }

    #[tokio::test]
    async fn rows_of_which_most_are_known_are_best_judged_many_at_a_time() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:");
        let mut state = State::default();
        let name = "_dedupe/tokens/1.run".to_owned();
        let mut upload = RunUpload::begin(&store, name.clone(), None).await.unwrap();
        upload.push_all(&ascending(0, 100_000)).await.unwrap();
        state.runs.insert(name, Live { since: 1, item: upload.finish().await.unwrap() });
        let known = Known::open(&store, &state, u64::MAX).await.unwrap();
        assert_eq!(known.best_batch(), 0);
        known.find(&store, &ascending(0, 20_000)).await.unwrap();
        // All suffixes, more than 10 bytes a token, were passed over.
        assert!(known.best_batch() > 100_000 * 10 / BYTES_A_ROW, "{}", known.best_batch());
        known.find(&store, &ascending(1_000_000, 100)).await.unwrap();
        assert_eq!(known.best_batch(), 0);
    }

    /// Time stands still but for the waits of the store, so that it counts them.
    #[tokio::test(start_paused = true)]
    async fn a_small_batch_costs_a_handful_of_waits_however_many_runs_there_are() {
        let wait = Duration::from_millis(50);
        let bucket: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let config = ThrottleConfig { wait_get_per_call: wait, ..ThrottleConfig::default() };
        let slow = ThrottledStore::new(Arc::clone(&bucket), config);
        let slow = Store::from_object_store(Arc::new(slow), "table", "memory:");
        let store = Store::from_object_store(bucket, "table", "memory:");
        let mut state = State::default();
        let ranges = (0..20).map(|i| (i * 20_000, 20_000)).chain([(400_000, 600_000)]);
        for (since, (from, count)) in (1..).zip(ranges) {
            let name = format!("_dedupe/tokens/{since}.run");
            let mut upload = RunUpload::begin(&store, name.clone(), None).await.unwrap();
            upload.push_all(&ascending(from, count)).await.unwrap();
            state.runs.insert(name, Live { since, item: upload.finish().await.unwrap() });
        }
        let mut tokens: Vec<_> = (0..1_000).map(|i| token(i * 1_100)).collect();
        tokens.sort_unstable();
        let begun = crate::clock::timer();
        let known = Known::open(&slow, &state, 1 << 30).await.unwrap();
        let opened = begun.elapsed().div_duration_f64(wait);
        let (found, took) = known.find(&slow, &tokens).await.unwrap();
        assert_eq!(took, known.lookups());
        let waits = begun.elapsed().div_duration_f64(wait);
        assert_eq!(found.len(), 910, "those below a million");
        assert!(opened < 2.0 && waits < 9.0, "{opened} waits to open 21 runs, {waits} in all");
        known.find(&slow, &tokens).await.unwrap();
        let again = begun.elapsed().div_duration_f64(wait) - waits;
        assert!(again < 4.0, "{again} waits where the prefixes are at hand");
        let (lookups, all) = (known.lookups(), 2 * found.len() as u64);
        // Besides them, few get past the filter.
        assert!((all..all + all / 10).contains(&lookups.filter_hits), "{lookups:?}");
        assert!((1..=lookups.filter_hits).contains(&lookups.exact_lookups), "{lookups:?}");
    }
}
