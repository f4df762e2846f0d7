//! Which tokens of a sorted batch a run holds: what to fetch, and what is found there.
//!
//! Exact, with memory bounded by the caller's [`Limits`]: [`plan`] names byte ranges of at most that many bytes,
//! [`find`] turns the bytes of one range into hits. Where candidates are dense the ranges grow together and the
//! plan is a sweep over the run; where they are rare it is a point look-up of one block each.

use super::run::RunMeta;
use super::{gallop, top};
use crate::error::{Error, Result};
use crate::token::Token;
use std::ops::Range;

/// A block is searched, not swept, for fewer candidates than one in so many of its tokens.
const SPARSE: usize = 24;

/// How a plan may fetch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most bytes of one fetch (but never less than a block).
    pub request: u64,
    /// Most bytes that are fetched for nothing to save a fetch of their own.
    pub gap: u64,
}

impl Default for Limits {
    /// For stores that answer in tens of milliseconds: 8 MiB a fetch, gaps of 512 KiB.
    fn default() -> Self {
        Self { request: 8 << 20, gap: 512 << 10 }
    }
}

/// Bytes of a run to fetch at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetch {
    /// The bytes.
    pub bytes: Range<u64>,
    /// The blocks in them, wanted ones and those between.
    pub blocks: Range<u64>,
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

/// What to fetch of a run to decide the `candidates`: ascending positions in the ascending `tokens`. Ranges ascend
/// and do not overlap.
pub fn plan(meta: &RunMeta, tokens: &[Token], candidates: &[u32], limits: &Limits) -> Result<Vec<Fetch>> {
    let mut fetches: Vec<Fetch> = Vec::new();
    let mut next = 0u64;
    for candidate in candidates {
        let token = token_at(tokens, *candidate)?;
        // Most candidates of a dense batch lie in the block planned last.
        if next > 0 && meta.firsts().get(next as usize).is_none_or(|first| top(token) < *first) {
            continue;
        }
        let blocks = meta.blocks_from(token, next.saturating_sub(1));
        for block in blocks.start.max(next)..blocks.end {
            let bytes = meta.layout().block_range(block);
            match fetches.last_mut() {
                Some(last)
                    if bytes.start.saturating_sub(last.bytes.end) <= limits.gap
                        && bytes.end.saturating_sub(last.bytes.start) <= limits.request =>
                {
                    last.bytes.end = bytes.end;
                    last.blocks.end = block + 1;
                }
                _ => fetches.push(Fetch { bytes, blocks: block..block + 1 }),
            }
        }
        next = blocks.end.max(next);
    }
    Ok(fetches)
}

/// Appends the candidates that the run holds within `fetch`, whose `bytes` were fetched. Only blocks that may hold
/// a candidate are looked at, and their checksums are checked first.
pub fn find(
    meta: &RunMeta,
    fetch: &Fetch,
    bytes: &[u8],
    tokens: &[Token],
    candidates: &[u32],
    hits: &mut Vec<Hit>,
) -> Result<()> {
    if bytes.len() as u64 != fetch.bytes.end.saturating_sub(fetch.bytes.start) {
        return Err(meta.corrupt(format_args!(
            "{} bytes came for its bytes {} to {}",
            bytes.len(),
            fetch.bytes.start,
            fetch.bytes.end
        )));
    }
    let top_at = |position: &u32| tokens.get(*position as usize).map_or(u64::MAX, |token| top(*token));
    let mut from = 0;
    for block in fetch.blocks.clone() {
        let Some(first) = meta.firsts().get(block as usize) else { break };
        from = gallop(candidates, from, |position| top_at(position) < *first);
        let to = match meta.firsts().get(block as usize + 1) {
            Some(next) => gallop(candidates, from, |position| top_at(position) <= *next),
            None => candidates.len(),
        };
        let here = candidates.get(from..to).unwrap_or_default();
        if here.is_empty() {
            continue;
        }
        let range = meta.layout().block_range(block);
        let block_bytes =
            offset(&range, fetch.bytes.start).and_then(|range| bytes.get(range)).unwrap_or_default();
        let raw = meta.check_block(block, block_bytes)?;
        search(raw, block * super::run::BLOCK_TOKENS, tokens, here, hits)?;
    }
    Ok(())
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

/// Whether fetching the filter of a run and then the blocks of its survivors is expected to cost fewer bytes than
/// fetching at once the blocks of all `asked` tokens.
pub fn filter_pays(meta: &RunMeta, asked: usize) -> bool {
    const FALSE_ALARMS: f64 = 0.0054;
    let blocks = meta.layout().blocks() as f64;
    let bytes = |asked: f64| blocks * -(-asked / blocks).exp_m1() * super::run::BLOCK_BYTES as f64;
    let asked = asked as f64;
    meta.bloom_shape().is_some_and(|shape| shape.bytes() as f64 + bytes(asked * FALSE_ALARMS) < bytes(asked))
}

fn search(raw: &[[u8; 16]], base: u64, tokens: &[Token], here: &[u32], hits: &mut Vec<Hit>) -> Result<()> {
    let sparse = here.len().saturating_mul(SPARSE) < raw.len();
    let mut at = 0;
    for position in here {
        let token = token_at(tokens, *position)?.0;
        let rest = raw.get(at..).unwrap_or_default();
        at += if sparse {
            rest.partition_point(|held| u128::from_be_bytes(*held) < token)
        } else {
            rest.iter().position(|held| u128::from_be_bytes(*held) >= token).unwrap_or(rest.len())
        };
        if raw.get(at).is_some_and(|held| u128::from_be_bytes(*held) == token) {
            hits.push(Hit { position: *position, index: base + at as u64 });
        }
    }
    Ok(())
}

fn token_at(tokens: &[Token], position: u32) -> Result<Token> {
    tokens
        .get(position as usize)
        .copied()
        .ok_or_else(|| Error::Internal(format!("candidate {position} in a batch of {} tokens", tokens.len())))
}

/// `range` counted from `start`.
fn offset(range: &Range<u64>, start: u64) -> Option<Range<usize>> {
    Some(
        usize::try_from(range.start.checked_sub(start)?).ok()?
            ..usize::try_from(range.end.checked_sub(start)?).ok()?,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::run::{BLOCK_BYTES, RunSpec, RunWriter, Tail};
    use crate::index::samples::{any_tokens, ascending};
    use crate::index::{SortedBatch, bloom::Bloom};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn run(tokens: &[Token], highest_commit: Option<u64>) -> (RunMeta, Vec<u8>) {
        let spec = RunSpec { highest_commit, ..RunSpec::of(tokens) };
        let mut writer = RunWriter::new("r", Vec::new(), &spec).unwrap();
        for (token, commit) in tokens.iter().zip(0..) {
            match highest_commit {
                Some(_) => writer.push_with_commit(*token, commit).unwrap(),
                None => writer.push(*token).unwrap(),
            }
        }
        let (_, object) = writer.finish().unwrap();
        match RunMeta::parse("r", object.len() as u64, &object).unwrap() {
            Tail::Ready(meta) => (*meta, object),
            Tail::Needs(range) => panic!("the whole object was given, and it needs {range:?}"),
        }
    }

    /// Looks a batch up as a caller does.
    fn look_up(
        meta: &RunMeta,
        object: &[u8],
        batch: &[Token],
        candidates: &[u32],
        limits: &Limits,
    ) -> Vec<Hit> {
        let mut hits = Vec::new();
        let mut last = 0;
        for fetch in plan(meta, batch, candidates, limits).unwrap() {
            assert!(fetch.bytes.start >= last && fetch.bytes.end > fetch.bytes.start);
            assert!(fetch.bytes.end - fetch.bytes.start <= limits.request.max(BLOCK_BYTES));
            last = fetch.bytes.end;
            let bytes = &object[fetch.bytes.start as usize..fetch.bytes.end as usize];
            find(meta, &fetch, bytes, batch, candidates, &mut hits).unwrap();
        }
        hits
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
            let batch = SortedBatch::new(&batch).unwrap();
            let hits = look_up(&meta, &object, batch.tokens(), &batch.positions(), &Limits { request, gap });
            let positions: Vec<u32> = hits.iter().map(|hit| hit.position).collect();
            let expected: Vec<u32> = (0..).zip(batch.tokens()).filter(|(_, t)| held.contains(t)).map(|(i, _)| i).collect();
            prop_assert_eq!(positions, expected);
            for hit in &hits {
                prop_assert_eq!(tokens[hit.index as usize], batch.tokens()[hit.position as usize]);
            }
            if let (true, Some(hit)) = (commits, hits.last()) {
                let (block, slot) = hit.block();
                let range = meta.layout().commit_range(block);
                let commits = meta.decode_commits(block, &object[range.start as usize..range.end as usize]).unwrap();
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
    fn a_filter_before_the_look_up_loses_nothing_and_saves_fetches() {
        let tokens = ascending(0, 100_000);
        let (meta, object) = run(&tokens, None);
        let range = meta.layout().bloom_range();
        let bloom: Bloom =
            meta.decode_bloom(&object[range.start as usize..range.end as usize]).unwrap().unwrap();
        let mut batch = ascending(1 << 40, 1000);
        batch.extend([tokens[5], tokens[99_999]]);
        batch.sort_unstable();
        let mut survivors = Vec::new();
        bloom.probe_batch(&batch, &mut survivors);
        let limits = Limits { request: 1 << 20, gap: 0 };
        assert_eq!(look_up(&meta, &object, &batch, &survivors, &limits).len(), 2);
        let fetched = |candidates: &[u32]| -> u64 {
            plan(&meta, &batch, candidates, &limits)
                .unwrap()
                .iter()
                .map(|f| f.bytes.end - f.bytes.start)
                .sum()
        };
        let everything: Vec<u32> = (0..batch.len() as u32).collect();
        assert!(fetched(&survivors) * 2 < fetched(&everything));
        assert!(filter_pays(&meta, batch.len()) && !filter_pays(&meta, 1));
    }

    #[test]
    fn dense_candidates_become_a_sweep_in_few_fetches() {
        let tokens = ascending(0, 100_000);
        let (meta, _) = run(&tokens, None);
        let everything: Vec<u32> = (0..100_000).collect();
        let fetches = plan(&meta, &tokens, &everything, &Limits { request: 1 << 20, gap: 0 }).unwrap();
        assert_eq!(fetches.len(), 2);
        assert_eq!(fetches[0].bytes.end, fetches[1].bytes.start);
    }

    #[test]
    fn wrong_bytes_and_wrong_candidates_are_errors() {
        let tokens = ascending(0, 10_000);
        let (meta, object) = run(&tokens, None);
        let fetch = &plan(&meta, &tokens, &[5, 9_000], &Limits::default()).unwrap()[0];
        let mut bytes = object[fetch.bytes.start as usize..fetch.bytes.end as usize].to_vec();
        let mut hits = Vec::new();
        assert!(matches!(
            find(&meta, fetch, &bytes[1..], &tokens, &[5], &mut hits),
            Err(Error::Corrupt { .. })
        ));
        bytes[100] ^= 1;
        assert!(matches!(find(&meta, fetch, &bytes, &tokens, &[5], &mut hits), Err(Error::Corrupt { .. })));
        assert!(hits.is_empty());
        assert!(matches!(plan(&meta, &tokens, &[10_000], &Limits::default()), Err(Error::Internal(_))));
        let forged = Fetch { bytes: 0..0, blocks: 0..u64::MAX };
        assert!(find(&meta, &forged, &[], &tokens, &[5], &mut hits).is_err());
    }
}
