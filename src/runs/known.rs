//! What a table knows at a version: the tokens of all its live runs, and those inline in manifests.

use futures::stream::{self, StreamExt, TryStreamExt};

use super::{Budget, OpenRun};
use crate::error::Result;
use crate::index::lookup;
use crate::ledger::State;
use crate::store::Store;
use crate::token::Token;

/// How many runs are opened at a time.
const OPENED_AT_ONCE: usize = 8;

/// The exact set of the tokens accepted up to a version.
#[derive(Debug)]
pub(crate) struct Known {
    runs: Vec<OpenRun>,
    /// All inline tokens, ascending.
    inline: Vec<Token>,
    budget: Budget,
}

impl Known {
    /// Opens the live runs of `state`. Filters and tokens kept in memory stay within `memory` bytes.
    pub(crate) async fn open(store: &Store, state: &State, memory: u64) -> Result<Self> {
        let opened: Vec<_> = state.runs.values().map(|run| OpenRun::open(store, &run.item)).collect();
        let runs = stream::iter(opened).buffered(OPENED_AT_ONCE).try_collect().await?;
        let mut inline: Vec<Token> =
            state.inline.values().flat_map(|tokens| tokens.0.iter().copied()).collect();
        inline.sort_unstable();
        Ok(Self { runs, inline, budget: Budget(memory) })
    }

    /// Knows nothing: a table that does not exist yet.
    pub(crate) fn nothing() -> Self {
        Self { runs: Vec::new(), inline: Vec::new(), budget: Budget(0) }
    }

    /// The positions in ascending `tokens` that are known, ascending.
    pub(crate) async fn find(&mut self, store: &Store, tokens: &[Token]) -> Result<Vec<u32>> {
        let mut found = lookup::common(tokens, &self.inline);
        for run in &mut self.runs {
            found.extend(run.find(store, tokens, &mut self.budget).await?);
        }
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use crate::index::RunSpec;
    use crate::index::samples::{ascending, token};
    use crate::ledger::entry::InlineTokens;
    use crate::ledger::state::Live;
    use crate::runs::write::RunUpload;
    use object_store::memory::InMemory;

    #[tokio::test]
    async fn tokens_of_runs_and_of_manifests_are_known_and_no_others() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:");
        let mut state = State::default();
        let mut held = BTreeSet::new();
        for (since, from) in [(1, 0), (2, 10_000), (5, 20_000)] {
            let tokens = ascending(from, 3_000 * since);
            let name = format!("_dedupe/tokens/{since}.run");
            let mut upload = RunUpload::begin(&store, name.clone(), &RunSpec::of(&tokens)).await.unwrap();
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
            let mut known = Known::open(&store, &state, memory).await.unwrap();
            for step in [1, 7, 1000, 1] {
                let mut tokens: Vec<_> = (0..70_000).step_by(step).map(token).collect();
                tokens.sort_unstable();
                let places = (0..).zip(&tokens).filter(|(_, token)| held.contains(token));
                let expected: Vec<u32> = places.map(|(place, _)| place).collect();
                assert_eq!(known.find(&store, &tokens).await.unwrap(), expected);
            }
        }
        assert!(Known::nothing().find(&store, &ascending(0, 10)).await.unwrap().is_empty());
    }
}
