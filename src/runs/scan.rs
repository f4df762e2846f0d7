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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::RunSpec;
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
            let mut upload = RunUpload::begin(&store, name.into(), &RunSpec::of(&tokens)).await.unwrap();
            upload.push_all(&tokens).await.unwrap();
            let run = upload.finish().await.unwrap();
            assert_eq!((run.bytes, run.name.as_str()), (store.head(name).await.unwrap().unwrap().size, name));
            assert_eq!((run.min, run.max), (tokens[0].0, tokens[tokens.len() - 1].0));
            let expected: Vec<_> = tokens.iter().map(|token| (*token, 42)).collect();
            assert_eq!(scanned(&store, &run).await, expected);

            let with_commits: Vec<_> = (0..).zip(&tokens).map(|(i, token)| (*token, i * 7 % 5000)).collect();
            let spec = RunSpec { highest_commit: Some(5000), ..RunSpec::new(count) };
            let name = "_dedupe/tokens/commits.run";
            let mut upload = RunUpload::begin(&store, name.into(), &spec).await.unwrap();
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
        let mut upload =
            RunUpload::begin(&store, "_dedupe/tokens/r.run".into(), &RunSpec::new(2)).await.unwrap();
        assert!(upload.push_all(&[Token(9), Token(3)]).await.is_err());
    }
}
