//! A run read from its first token to its last, in pieces.

use std::sync::Arc;

use crate::error::Result;
use crate::index::RunMeta;
use crate::index::merge::{Commits, Piece};
use crate::store::Store;
use crate::token::Token;

/// Blocks read at a time: 1 MiB of tokens. Divides a group, so that a piece's bytes lie together.
const BLOCKS: u64 = 16;

/// Where a reader stands in a run.
#[derive(Debug)]
pub(crate) struct Scan {
    meta: Arc<RunMeta>,
    next: u64,
}

impl Scan {
    /// Stands before the first token.
    pub(crate) fn new(meta: Arc<RunMeta>) -> Self {
        Self { meta, next: 0 }
    }

    /// The next tokens, ascending; `None` after the last.
    pub(crate) async fn next_tokens(&mut self, store: &Store) -> Result<Option<Vec<Token>>> {
        let (first, end) = (self.next, (self.next + BLOCKS).min(self.meta.layout().blocks()));
        if first >= end {
            return Ok(None);
        }
        let layout = self.meta.layout();
        let start = layout.block_range(first).start;
        let bytes = store.get_range(self.meta.object(), start..layout.block_range(end - 1).end).await?;
        let mut tokens = Vec::new();
        for block in first..end {
            let range = layout.block_range(block);
            let piece =
                bytes.get((range.start - start) as usize..(range.end - start) as usize).unwrap_or_default();
            tokens.extend(self.meta.decode_block(block, piece)?);
        }
        self.next = end;
        Ok(Some(tokens))
    }

    /// The next tokens with the versions that accepted them: `since` for all, if the run does not say.
    pub(crate) async fn next_piece(&mut self, store: &Store, since: u64) -> Result<Option<Piece>> {
        let first = self.next;
        let Some(tokens) = self.next_tokens(store).await? else { return Ok(None) };
        if self.meta.layout().commit_width() == 0 {
            return Ok(Some(Piece { tokens, commits: Commits::All(since) }));
        }
        let layout = self.meta.layout();
        let start = layout.commit_range(first).start;
        let bytes =
            store.get_range(self.meta.object(), start..layout.commit_range(self.next - 1).end).await?;
        let mut commits = Vec::with_capacity(tokens.len());
        for block in first..self.next {
            let range = layout.commit_range(block);
            let piece =
                bytes.get((range.start - start) as usize..(range.end - start) as usize).unwrap_or_default();
            commits.extend(self.meta.decode_commits(block, piece)?);
        }
        Ok(Some(Piece { tokens, commits: Commits::Each(commits) }))
    }
}
