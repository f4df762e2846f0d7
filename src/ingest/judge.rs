//! Prepared chunks, in order, are judged and passed on; new columns that turn up widen the contract.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;

use super::feed::{self, Prepared, Recipe};
use super::look;
use super::plan::Planned;
use super::presence::Presence;
use super::{Run, reject};
use crate::error::Result;
use crate::session::{Chunk, Rows, Session, Verdicts};
use crate::source::discover::{self, Format};
use crate::source::input::Input;
use crate::source::ndjson::{Block, Decoded, Inference};
use crate::source::parquet::RowGroup;
use crate::token::Tokens;

/// Pieces of row groups that wait at most, however small they are.
const WAITING: usize = 1024;

/// Takes prepared chunks in order, has them judged, and passes on what survives.
pub(super) struct Judge<'a> {
    run: &'a Run<'a>,
    pub(super) session: Session,
    pub(super) planned: Arc<Vec<Planned>>,
    recipe: Recipe,
    /// Pieces of row groups that are to be judged together, in order.
    waiting: Vec<Waiting>,
    waiting_rows: usize,
    /// The verdicts on the pieces of the row group under way.
    pieces: Vec<Verdicts>,
    /// Its rows without a key, counted from its first.
    keyless: Vec<usize>,
    /// Rows of the Parquet source under way before the row group to come.
    row: u64,
    /// Which key columns the text source under way has shown.
    presence: Presence,
    /// Whether all text was looked through for new columns.
    inferred: bool,
    /// A row told what was not known when the contract was made: of what is known now another might be made.
    pub(super) surprised: bool,
}

/// A piece of a row group, not judged yet.
struct Waiting {
    source: u32,
    group: RowGroup<Input>,
    tokens: Tokens,
    /// Whether it is the last of its group.
    last: bool,
    /// Rows of the file before its group.
    row: u64,
}

impl<'a> Judge<'a> {
    pub(super) fn new(
        run: &'a Run<'a>,
        session: Session,
        planned: Arc<Vec<Planned>>,
        recipe: Recipe,
    ) -> Self {
        let inferred = run.options.sample_rows.is_some();
        let presence = Presence::default();
        let (waiting, pieces, keyless) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            run,
            session,
            planned,
            recipe,
            waiting,
            waiting_rows: 0,
            pieces,
            keyless,
            row: 0,
            presence,
            inferred,
            surprised: false,
        }
    }

    pub(super) async fn take(&mut self, number: usize, source: u32, chunk: Prepared) -> Result<()> {
        let (rows, dropped) = match chunk {
            Prepared::RowGroup { group, tokens, last } => {
                let row = self.row;
                self.row += if last { group.num_rows() as u64 } else { 0 };
                self.waiting_rows += tokens.tokens.len();
                self.waiting.push(Waiting { source, group, tokens, last, row });
                if self.waiting_rows >= self.together() || self.waiting.len() >= WAITING {
                    self.judge_waiting().await?;
                }
                return Ok(());
            }
            block @ (Prepared::Block { .. } | Prepared::Wide { .. }) => {
                self.judge_waiting().await?;
                self.take_text(number, source, block).await?
            }
            Prepared::End => {
                self.row = 0;
                if let Some(Planned::Read { file, .. }) = self.planned.get(number)
                    && file.format == Format::Ndjson
                {
                    self.presence.end(&file.url, &self.recipe.spec)?;
                }
                (0, 0)
            }
        };
        self.run.progress.count(rows, dropped);
        Ok(())
    }

    /// How many rows are judged together: at most as many as one chunk may have, for which memory has room.
    fn together(&self) -> usize {
        self.session.best_batch().min(self.recipe.piece_rows as u64) as usize
    }

    /// Has all that wait judged, and passes on what survives.
    pub(super) async fn judge_waiting(&mut self) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting_rows = 0;
        if waiting.is_empty() {
            return Ok(());
        }
        let chunks: Vec<(u32, &Tokens)> =
            waiting.iter().map(|waiting| (waiting.source, &waiting.tokens)).collect();
        let all = self.session.judge_together(&chunks).await?;
        for (Waiting { source, group, last, row, .. }, verdicts) in waiting.into_iter().zip(all) {
            let (rows, accepted) = (verdicts.keep.len() as u64, verdicts.accepted);
            let before = self.rows_before();
            self.keyless.extend(verdicts.no_key.iter().map(|row| before + *row as usize));
            self.pieces.push(verdicts);
            // Once for the whole group, which is decoded for it; a run that ends at such a row ends at the first.
            if last || self.session.fails_without_key() {
                let keyless = std::mem::take(&mut self.keyless);
                reject::keyless_rows(&mut self.session, &group, row, keyless).await?;
            }
            if last {
                self.run.progress.advance(group.compressed_bytes());
                self.write_row_group(source, group).await?;
            }
            self.run.progress.count(rows, rows - accepted);
        }
        Ok(())
    }

    /// Rows of the row group under way that were judged before the piece at hand.
    fn rows_before(&self) -> usize {
        self.pieces.iter().map(|verdicts| verdicts.keep.len()).sum()
    }

    async fn write_row_group(&mut self, source: u32, group: RowGroup<Input>) -> Result<()> {
        let verdicts = merge(std::mem::take(&mut self.pieces));
        if verdicts.accepted == 0 {
            return Ok(());
        }
        self.session.write(Rows { source, chunk: Chunk::RowGroup(group), verdicts }).await
    }

    /// Takes a block of text, in pieces if the contract has grown so wide that its rows would take too much memory
    /// together. How it is cut depends on the contract as it is in the order of the input, never on timing.
    async fn take_text(&mut self, number: usize, source: u32, chunk: Prepared) -> Result<(u64, u64)> {
        let url = self.session.sources().get(source as usize).map(|s| s.url.clone()).unwrap_or_default();
        let (mut rows, mut dropped) = (0, 0);
        let mut waiting = VecDeque::from([chunk]);
        while let Some(chunk) = waiting.pop_front() {
            let mut now = self.recipe.contract.get();
            let block = match chunk {
                Prepared::Block { decoded, .. } if decoded.news => {
                    self.surprised = true;
                    break;
                }
                Prepared::Block { block, decoded, tokens, contract } => {
                    if decoded.unknown_fields && contract == now {
                        self.widen(&block, &decoded).await?;
                        now = self.recipe.contract.get();
                    }
                    if contract == now {
                        let counts =
                            self.take_block(number, source, &url, (&block, decoded, &tokens)).await?;
                        (rows, dropped) = (rows + counts.0, dropped + counts.1);
                        continue;
                    }
                    block
                }
                Prepared::Wide { block } => block,
                Prepared::RowGroup { .. } | Prepared::End => continue,
            };
            // Prepared ahead of a widening, it is prepared again, and may hold more that is new.
            let mut parts =
                Arc::unwrap_or_clone(block).split(feed::block_lines(&now)).into_iter().map(Arc::new);
            if let Some(first) = parts.next() {
                let rest: Vec<_> = parts.map(|block| Prepared::Wide { block }).collect();
                rest.into_iter().rev().for_each(|part| waiting.push_front(part));
                waiting.push_front(feed::prepare_block(first, now, &self.recipe, &url)?);
            }
        }
        Ok((rows, dropped))
    }

    async fn take_block(
        &mut self,
        number: usize,
        source: u32,
        url: &str,
        (block, decoded, tokens): (&Block, Decoded, &Tokens),
    ) -> Result<(u64, u64)> {
        if self.planned.get(number).is_some_and(|planned| {
            matches!(planned, Planned::Read { file, .. } if file.compression == discover::Compression::None)
        }) {
            self.run.progress.advance(block.bytes.len() as u64);
        }
        let bad = reject::bad_lines(&mut self.session, source, url, &decoded.bad, self.run.options).await?;
        self.presence.observe(block, &decoded, &self.recipe.spec)?;
        let verdicts = self.session.judge_tokens(source, tokens).await?;
        reject::keyless_lines(&mut self.session, url, block, &decoded, &verdicts).await?;
        let rows = verdicts.keep.len() as u64;
        let counts = (rows + bad, rows - verdicts.accepted + bad);
        if verdicts.accepted > 0 {
            self.session.write(Rows { source, chunk: Chunk::Batch(decoded.batch), verdicts }).await?;
        }
        Ok(counts)
    }

    /// Widens the contract by the columns that `block` has and the contract lacks. The first time all text of the
    /// run is looked through, so that a new column's type fits all rows to come, not just those of this block.
    async fn widen(&mut self, block: &Block, decoded: &Decoded) -> Result<()> {
        let contract = self.recipe.contract.get();
        let mut wider = contract.as_ref().clone();
        if !std::mem::replace(&mut self.inferred, true) {
            let found = look::infer(&self.planned, self.run.options, &self.recipe.workers).await?;
            wider = found.widen_loosely(&wider)?;
        }
        let mut found = Inference::new();
        found.observe_accepted(block, decoded);
        let wider = Arc::new(found.widen(&wider)?);
        self.session.widen(Arc::clone(&wider)).await?;
        self.recipe.contract.set(wider);
        Ok(())
    }
}

/// The verdicts on a whole row group, from those on its pieces.
fn merge(mut pieces: Vec<Verdicts>) -> Verdicts {
    if pieces.len() == 1
        && let Some(only) = pieces.pop()
    {
        return only;
    }
    let mut keep = BooleanBufferBuilder::new(pieces.iter().map(|piece| piece.keep.len()).sum());
    let mut whole = Verdicts::none();
    for piece in pieces {
        keep.append_buffer(&piece.keep);
        whole.accepted += piece.accepted;
        whole.keyless += piece.keyless;
        whole.duplicate += piece.duplicate;
        whole.tokens = whole.tokens.plus(piece.tokens);
    }
    whole.keep = keep.finish();
    whole
}
