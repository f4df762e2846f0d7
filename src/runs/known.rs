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
        let runs = stream::iter(state.runs.values().map(|run| OpenRun::open(store, &run.item)))
            .buffered(OPENED_AT_ONCE)
            .try_collect()
            .await?;
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
