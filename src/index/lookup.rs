//! Which tokens of a sorted batch a run holds: what to fetch, and what is found there.
//!
//! Exact, with memory bounded by the caller's [`Limits`], and without I/O: [`plan`] cuts a batch into [`Piece`]s;
//! [`prefixes`] names the byte ranges whose prefixes decide a piece, [`probe`] finds in them the tokens that may be
//! there, [`slices`] names the byte ranges that decide those, and [`find`] turns these into hits. Where a batch is dense
//! ranges grow together, and it passes over the prefixes of the whole run; where it is rare it is a look-up of two small
//! ranges a token.

use super::run::{Maybe, RunMeta, SLICE_TOKENS};
use super::{gallop, top};
use crate::error::{Error, Result};
use crate::token::Token;
use std::ops::Range;

/// How a plan may fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one fetch (but never less than a block's prefixes or a slice).
    pub request: u64,
    /// Most bytes that are fetched for nothing to save a fetch of their own.
    pub gap: u64,
}

impl Default for Limits {
    /// For stores that answer in tens of milliseconds: 4 MiB a fetch, gaps of 256 KiB.
    fn default() -> Self {
        Self { request: 4 << 20, gap: 256 << 10 }
    }
}

/// Fetches of one piece at most.
const FETCHES: u64 = 64;

/// A block that is asked for, and the positions in the batch of the tokens that may be in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The block.
    pub block: u64,
    /// Positions in the batch.
    pub tokens: Range<usize>,
}

/// Some blocks of a run, ascending, that are looked at together.
pub type Piece = Vec<Wanted>;

/// A token that may be in a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// The block.
    pub block: u64,
    /// Where it may stand there.
    pub maybe: Maybe,
}

/// Bytes to fetch at once, and the candidates that they decide.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The bytes.
    pub bytes: Range<u64>,
    /// Indices of the candidates.
    pub candidates: Range<usize>,
}

/// A token of the batch that the run holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Its position in the sorted batch.
    pub position: u32,
    /// Its index in the run; the commit of a token has the same index.
    pub index: u64,
}

impl Hit {
    /// The block that holds it, and its place there: where to look for its commit.
    pub fn block(&self) -> (u64, usize) {
        (self.index / super::run::BLOCK_TOKENS, (self.index % super::run::BLOCK_TOKENS) as usize)
    }
}

/// The blocks that decide which of the ascending `tokens` the run holds, in pieces whose prefixes take at most
/// `limits.request` bytes, in a bounded number of fetches each.
pub fn plan(meta: &RunMeta, tokens: &[Token], limits: &Limits) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let (mut bytes, mut next, mut from, mut last) = (0, 0u64, 0, 0u64);
    let mut position = tokens.partition_point(|token| *token < meta.summary().min);
    while let Some(token) = tokens.get(position) {
        let blocks = meta.blocks_from(*token, next.saturating_sub(1));
        if blocks.is_empty() {
            break;
        }
        let first_at = |block: u64| meta.firsts().get(block as usize).copied();
        for block in blocks.start.max(next)..blocks.end {
            from = gallop(tokens, from, |token| first_at(block).is_some_and(|first| top(*token) < first));
            let end = match first_at(block + 1) {
                Some(next) => gallop(tokens, from, |token| top(*token) <= next),
                None => tokens.len(),
            };
            if from == end {
                continue;
            }
            let range = meta.layout().prefix_range(block);
            let near = range.start.checked_sub(last).is_some_and(|gap| gap <= limits.gap);
            last = range.end;
            let size = (range.end - range.start).max(if near { 0 } else { limits.request / FETCHES });
            if pieces.is_empty() || bytes + size > limits.request {
                bytes = 0;
                pieces.push(Vec::new());
            }
            bytes += size;
            if let Some(piece) = pieces.last_mut() {
                piece.push(Wanted { block, tokens: from..end });
            }
        }
        next = blocks.end.max(next);
        // All tokens below the next block were dealt with.
        position = match first_at(next) {
            Some(first) => gallop(tokens, position, |token| top(*token) < first).max(position + 1),
            None => tokens.len(),
        };
    }
    pieces
}

/// The runs of consecutive blocks whose prefixes to fetch for those of `piece` that are not at hand. They lie together.
pub fn prefixes(
    meta: &RunMeta,
    piece: &Piece,
    limits: &Limits,
    at_hand: impl Fn(u64) -> bool,
) -> Vec<Range<u64>> {
    let mut fetches: Vec<Range<u64>> = Vec::new();
    for block in piece.iter().map(|wanted| wanted.block).filter(|block| !at_hand(*block)) {
        let bytes = meta.layout().prefix_range(block);
        match fetches.last_mut() {
            Some(last)
                if {
                    let (first, before) =
                        (meta.layout().prefix_range(last.start), meta.layout().prefix_range(last.end - 1));
                    // Of one group, for prefixes of others lie elsewhere.
                    last.start / super::run::GROUP_BLOCKS == block / super::run::GROUP_BLOCKS
                        && bytes.start.saturating_sub(before.end) <= limits.gap
                        && bytes.end.saturating_sub(first.start) <= limits.request
                } =>
            {
                last.end = block + 1
            }
            _ => fetches.push(block..block + 1),
        }
    }
    fetches
}

/// Appends the tokens of the batch that may be in a block, by its checked prefixes.
pub fn probe(
    meta: &RunMeta,
    wanted: &Wanted,
    prefixes: &[u8],
    tokens: &[Token],
    candidates: &mut Vec<Candidate>,
) -> Result<()> {
    let asked = tokens.get(wanted.tokens.clone()).unwrap_or_default();
    let mut found = Vec::new();
    meta.probe(wanted.block, prefixes, asked, wanted.tokens.start as u32, &mut found)?;
    candidates.extend(found.into_iter().map(|maybe| Candidate { block: wanted.block, maybe }));
    Ok(())
}

/// The byte ranges of slices that decide the candidates, ascending.
pub fn slices(meta: &RunMeta, candidates: &[Candidate], limits: &Limits) -> Result<Vec<Fetch>> {
    let mut fetches: Vec<Fetch> = Vec::new();
    for (at, candidate) in candidates.iter().enumerate() {
        let bytes = meta.slice_range(candidate.block, slices_of(&candidate.maybe))?;
        match fetches.last_mut() {
            Some(last)
                if bytes.start.saturating_sub(last.bytes.end) <= limits.gap
                    && bytes.end.max(last.bytes.end) - last.bytes.start
                        <= limits.request.max(bytes.end - bytes.start) =>
            {
                last.bytes.end = bytes.end.max(last.bytes.end);
                last.candidates.end = at + 1;
            }
            _ => fetches.push(Fetch { bytes, candidates: at..at + 1 }),
        }
    }
    Ok(fetches)
}

/// Appends the candidates of `fetch` that the run holds, whose `bytes` were fetched. `prefixes` gives the checked
/// prefixes of a block. Only slices that may hold a candidate are looked at, and checked first.
pub fn find<'a>(
    meta: &RunMeta,
    fetch: &Fetch,
    bytes: &[u8],
    tokens: &[Token],
    candidates: &[Candidate],
    prefixes: impl Fn(u64) -> Option<&'a [u8]>,
    hits: &mut Vec<Hit>,
) -> Result<()> {
    let mut checked = None;
    for candidate in candidates.get(fetch.candidates.clone()).unwrap_or_default() {
        let (block, slices) = (candidate.block, slices_of(&candidate.maybe));
        let part = |range: Range<u64>| {
            let start = range.start.checked_sub(fetch.bytes.start)? as usize;
            bytes.get(start..range.end.checked_sub(fetch.bytes.start)? as usize)
        };
        for slice in slices.clone() {
            // Candidates ascend, and so do their slices.
            if checked.is_some_and(|checked| checked >= (block, slice)) {
                continue;
            }
            let raw = part(meta.slice_range(block, slice..slice + 1)?).unwrap_or_default();
            meta.check_slice(block, slice, prefixes(block).unwrap_or_default(), raw)?;
            checked = Some((block, slice));
        }
        let raw = part(meta.slice_range(block, slices.clone())?).unwrap_or_default();
        let token = *tokens.get(candidate.maybe.position as usize).ok_or_else(|| {
            Error::Internal(format!(
                "candidate {} in a batch of {} tokens",
                candidate.maybe.position,
                tokens.len()
            ))
        })?;
        if let Some(place) = meta.find(block, token, &candidate.maybe, slices.start, raw)? {
            let index = block * super::run::BLOCK_TOKENS + u64::from(place);
            hits.push(Hit { position: candidate.maybe.position, index });
        }
    }
    Ok(())
}

/// The slices that hold the suffixes of a candidate.
fn slices_of(maybe: &Maybe) -> Range<u64> {
    u64::from(maybe.first) / SLICE_TOKENS..u64::from(maybe.end).div_ceil(SLICE_TOKENS)
}

/// The positions in ascending `tokens` that ascending `others` hold as well.
pub fn common(tokens: &[Token], others: &[Token]) -> Vec<u32> {
    let mut found = Vec::new();
    let mut at = 0;
    for (position, token) in (0..).zip(tokens) {
        at = gallop(others, at, |other| other < token);
        if others.get(at) == Some(token) {
            found.push(position);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::SortedBatch;
    use crate::index::run::{BLOCK_TOKENS, RunWriter};
    use crate::index::samples::{any_tokens, ascending};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn run(tokens: &[Token], highest_commit: Option<u64>) -> (RunMeta, Vec<u8>) {
        let mut writer = RunWriter::new("r", Vec::new(), highest_commit.map(|highest| 0..=highest));
        for (token, commit) in tokens.iter().zip(0..) {
            match highest_commit {
                Some(_) => writer.push_with_commit(*token, commit).unwrap(),
                None => writer.push(*token).unwrap(),
            }
        }
        let (summary, object) = writer.finish().unwrap();
        let tail = RunMeta::tail(summary.bytes, summary.tokens.count);
        (RunMeta::parse("r", summary.bytes, &object[tail.start as usize..]).unwrap(), object)
    }

    fn part(object: &[u8], range: Range<u64>) -> &[u8] {
        &object[range.start as usize..range.end as usize]
    }

    /// Looks a batch up as a caller does. Gives the hits, and how many bytes of prefixes and of slices were fetched.
    fn look_up(
        meta: &RunMeta,
        object: &[u8],
        batch: &[Token],
        limits: &Limits,
    ) -> Result<(Vec<Hit>, u64, u64)> {
        let (mut hits, mut prefix_bytes, mut slice_bytes) = (Vec::new(), 0, 0);
        for piece in plan(meta, batch, limits) {
            for fetch in prefixes(meta, &piece, limits, |_| false) {
                let bytes = meta.layout().prefix_range(fetch.start).start
                    ..meta.layout().prefix_range(fetch.end - 1).end;
                assert!(bytes.end - bytes.start <= limits.request.max(7000), "{bytes:?}");
                prefix_bytes += bytes.end - bytes.start;
                for block in fetch {
                    assert!(
                        part(object, bytes.clone()).len()
                            >= part(object, meta.layout().prefix_range(block)).len()
                    );
                }
            }
            let mut candidates = Vec::new();
            for wanted in &piece {
                let bytes = part(object, meta.layout().prefix_range(wanted.block));
                meta.check_prefixes(wanted.block, bytes)?;
                probe(meta, wanted, bytes, batch, &mut candidates)?;
            }
            let mut last = 0;
            for fetch in slices(meta, &candidates, limits)? {
                assert!(fetch.bytes.start >= last, "{fetch:?} after {last}");
                last = fetch.bytes.start;
                slice_bytes += fetch.bytes.end - fetch.bytes.start;
                let prefixes = |block| Some(part(object, meta.layout().prefix_range(block)));
                find(
                    meta,
                    &fetch,
                    part(object, fetch.bytes.clone()),
                    batch,
                    &candidates,
                    prefixes,
                    &mut hits,
                )?;
            }
        }
        Ok((hits, prefix_bytes, slice_bytes))
    }

    /// A run that is uniform here, and there holds more than a block of tokens with the same highest bits.
    fn uneven() -> Vec<Token> {
        let mut tokens = ascending(0, 30_000);
        tokens.extend((0..14_000).map(|i| Token(77 << 120 | i)));
        tokens.extend([Token(0), Token(u128::MAX)]);
        tokens.sort_unstable();
        tokens
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn exactly_the_tokens_of_the_run_are_found(
            others in any_tokens(60), picks in proptest::collection::vec(0usize..44_002, 0..300), crowd in any::<bool>(),
            request in 0u64..600_000, gap in 0u64..300_000, commits in any::<bool>()
        ) {
            let tokens = uneven();
            let (meta, object) = run(&tokens, commits.then_some(50_000));
            let held: BTreeSet<Token> = tokens.iter().copied().collect();
            let mut batch = others;
            batch.extend(picks.iter().map(|i| tokens[*i]));
            if crowd {
                batch.extend((0..20_000).map(|i| Token(77 << 120 | i)));
            }
            let mut batch = SortedBatch::new(&batch).unwrap();
            batch.take_repeats();
            let (hits, _, _) = look_up(&meta, &object, batch.tokens(), &Limits { request, gap }).unwrap();
            let positions: Vec<u32> = hits.iter().map(|hit| hit.position).collect();
            let expected: Vec<u32> = (0..).zip(batch.tokens()).filter(|(_, t)| held.contains(t)).map(|(i, _)| i).collect();
            prop_assert_eq!(positions, expected);
            for hit in &hits {
                prop_assert_eq!(tokens[hit.index as usize], batch.tokens()[hit.position as usize]);
            }
            if let (true, Some(hit)) = (commits, hits.last()) {
                let (block, slot) = hit.block();
                let commits = meta.decode_commits(block, part(&object, meta.layout().commit_range(block))).unwrap();
                prop_assert_eq!(commits[slot], hit.index);
            }
        }

        #[test]
        fn common_is_the_intersection(a in any_tokens(80), b in any_tokens(80)) {
            let (a, b) = (SortedBatch::new(&a).unwrap(), SortedBatch::new(&b).unwrap());
            let held: BTreeSet<Token> = b.tokens().iter().copied().collect();
            let expected: Vec<u32> = (0..).zip(a.tokens()).filter(|(_, t)| held.contains(t)).map(|(i, _)| i).collect();
            prop_assert_eq!(common(a.tokens(), b.tokens()), expected);
        }
    }

    #[test]
    fn few_bytes_decide_a_token() {
        let tokens = ascending(0, 200_000);
        let (meta, object) = run(&tokens, None);
        let mut batch = ascending(1 << 40, 1000);
        batch.extend([tokens[5], tokens[99_999]]);
        batch.sort_unstable();
        let limits = Limits { request: 1 << 20, gap: 0 };
        let (hits, prefixes, slices) = look_up(&meta, &object, &batch, &limits).unwrap();
        assert_eq!(hits.len(), 2);
        assert!(prefixes < 200_000 * 3 / 2 && slices < 20 * 1700, "{prefixes} and {slices} bytes");
        assert!(plan(&meta, &[], &limits).is_empty());
    }

    #[test]
    fn dense_batches_pass_over_the_prefixes_in_few_fetches() {
        let tokens = ascending(0, 100_000);
        let (meta, _) = run(&tokens, None);
        let limits = Limits { request: 1 << 20, gap: 0 };
        let pieces = plan(&meta, &tokens, &limits);
        assert_eq!(pieces.len(), 1);
        assert_eq!(prefixes(&meta, &pieces[0], &limits, |_| false), [0..100_000u64.div_ceil(BLOCK_TOKENS)]);
        assert_eq!(prefixes(&meta, &pieces[0], &limits, |block| block != 3), [3..4]);
    }

    #[test]
    fn damaged_bytes_are_errors() {
        let tokens = ascending(0, 10_000);
        let (meta, object) = run(&tokens, None);
        let limits = Limits::default();
        let sound = look_up(&meta, &object, &tokens[..1], &limits).unwrap().0;
        assert_eq!(sound, [Hit { position: 0, index: 0 }]);
        for range in [meta.layout().prefix_range(0), meta.layout().suffix_range(0)] {
            let mut damaged = object.clone();
            damaged[range.start as usize + 8] ^= 1;
            let error = look_up(&meta, &damaged, &tokens[..1], &limits).unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
        let candidate = Candidate { block: 9, maybe: Maybe { position: 0, first: 0, end: 1 } };
        assert!(slices(&meta, &[candidate], &limits).is_err());
    }
}
