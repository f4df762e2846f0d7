//! A run read from its first token to its last, in pieces.

use std::ops::Range;
use std::sync::Arc;

use super::cached;
use crate::error::Result;
use crate::index::RunMeta;
use crate::index::merge::{Commits, Piece};
use crate::index::run::BLOCK_TOKENS;
use crate::store::{Store, compute};
use crate::token::Token;

/// Blocks read at a time: some 800 KiB of tokens. Divides a group, so that a piece's bytes lie together.
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
        Ok(self.next(store, None).await?.map(|piece| piece.tokens))
    }

    /// The next tokens with the versions that accepted them: `since` for all, if the run does not say.
    pub(crate) async fn next_piece(&mut self, store: &Store, since: u64) -> Result<Option<Piece>> {
        self.next(store, Some(since)).await
    }

    async fn next(&mut self, store: &Store, since: Option<u64>) -> Result<Option<Piece>> {
        let layout = self.meta.layout();
        let (first, end) = (self.next, (self.next + BLOCKS).min(layout.blocks()));
        if first >= end {
            return Ok(None);
        }
        let (last, each) = (end - 1, since.is_some() && self.meta.commits().is_some());
        let mut ranges = vec![
            layout.prefix_range(first).start..layout.prefix_range(last).end,
            layout.suffix_range(first).start..layout.suffix_range(last).end,
        ];
        let commits = layout.commit_range(first).start..layout.commit_range(last).end;
        if each && !commits.is_empty() {
            ranges.push(commits);
        }
        let bytes = cached::from_store(store, self.meta.object(), ranges.clone()).await?;
        let meta = Arc::clone(&self.meta);
        self.next = end;
        compute(move || {
            let part = |column: usize, range: Range<u64>| {
                let start = ranges.get(column).map_or(0, |whole| whole.start);
                let range =
                    range.start.saturating_sub(start) as usize..range.end.saturating_sub(start) as usize;
                bytes.get(column).and_then(|bytes| bytes.get(range)).unwrap_or_default()
            };
            let mut tokens = Vec::with_capacity(((end - first) * BLOCK_TOKENS) as usize);
            let mut commits = Vec::new();
            for block in first..end {
                let prefixes = part(0, meta.layout().prefix_range(block));
                let suffixes = part(1, meta.layout().suffix_range(block));
                meta.decode_block(block, prefixes, suffixes, &mut tokens)?;
                if each {
                    commits.extend(meta.decode_commits(block, part(2, meta.layout().commit_range(block)))?);
                }
            }
            let commits = if each { Commits::Each(commits) } else { Commits::All(since.unwrap_or_default()) };
            Ok(Some(Piece { tokens, commits }))
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::ascending;
    use crate::runs::open::OpenRun;
    use crate::runs::write::RunUpload;
    use object_store::memory::InMemory;

    fn memory() -> Store {
        Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:")
    }

    /// What a scan reads of a run, each token with its version.
    async fn scanned(store: &Store, run: &crate::ledger::entry::RunRef) -> Vec<(Token, u64)> {
        let open = OpenRun::open(store, run).await.unwrap();
        let mut scan = Scan::new(Arc::clone(open.meta()));
        let mut all = Vec::new();
        while let Some(piece) = scan.next_piece(store, 42).await.unwrap() {
            let commits = match piece.commits {
                Commits::All(since) => vec![since; piece.tokens.len()],
                Commits::Each(commits) => commits,
            };
            assert_eq!(commits.len(), piece.tokens.len());
            all.extend(piece.tokens.into_iter().zip(commits));
        }
        all
    }

    #[tokio::test]
    async fn a_run_is_read_as_it_was_written_whatever_its_length() {
        // Blocks hold 4096 tokens, pieces 16 blocks.
        for count in [1, 4095, 4096, 4097, 65_536, 65_537, 150_000] {
            let (store, tokens) = (memory(), ascending(0, count));
            let name = "_dedupe/tokens/plain.run";
            let mut upload = RunUpload::begin(&store, name.into(), None).await.unwrap();
            upload.push_all(&tokens).await.unwrap();
            let run = upload.finish().await.unwrap();
            assert_eq!((run.bytes, run.name.as_str()), (store.head(name).await.unwrap().unwrap().size, name));
            assert_eq!((run.min, run.max), (tokens[0].0, tokens[tokens.len() - 1].0));
            let expected: Vec<_> = tokens.iter().map(|token| (*token, 42)).collect();
            assert_eq!(scanned(&store, &run).await, expected);

            let with_commits: Vec<_> = (0..).zip(&tokens).map(|(i, token)| (*token, i * 7 % 5000)).collect();
            let name = "_dedupe/tokens/commits.run";
            let mut upload = RunUpload::begin(&store, name.into(), Some(0..=5000)).await.unwrap();
            for piece in with_commits.chunks(1_000) {
                upload.push_with_commits(piece).await.unwrap();
            }
            let run = upload.finish().await.unwrap();
            assert_eq!(scanned(&store, &run).await, with_commits);
        }
    }

    #[tokio::test]
    async fn tokens_out_of_order_are_not_written() {
        let store = memory();
        let mut upload = RunUpload::begin(&store, "_dedupe/tokens/r.run".into(), None).await.unwrap();
        assert!(upload.push_all(&[Token(9), Token(3)]).await.is_err());
    }
}
