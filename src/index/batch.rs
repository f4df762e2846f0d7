//! A batch of tokens, sorted once, that remembers the row of each.
//!
//! Everything that judges a batch works on ascending tokens: runs are then met in their own order,
//! which is several times faster than in row order. Equal tokens stay in row order, so that the first row wins.

use super::top;
use crate::error::{Error, Result};
use crate::token::Token;

/// Tokens of a batch in ascending order, each with the row it came from; equal tokens in row order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SortedBatch {
    tokens: Vec<Token>,
    rows: Vec<u32>,
}

impl SortedBatch {
    /// Sorts `tokens`; the row of a token is its place in the slice.
    pub fn new(tokens: &[Token]) -> Result<Self> {
        let count = u32::try_from(tokens.len())
            .map_err(|_| Error::Internal(format!("a batch of {} rows; at most 2^32-1 fit", tokens.len())))?;
        Ok(Self::sort(tokens.iter().copied().zip(0..count), tokens.len()))
    }

    /// Sorts only the tokens of `rows` (which ascend), for instance the rows that have a key.
    pub fn of_rows(tokens: &[Token], rows: &[u32]) -> Result<Self> {
        if let Some(row) = rows.iter().find(|row| **row as usize >= tokens.len()) {
            return Err(Error::Internal(format!("row {row} of a batch of {} rows", tokens.len())));
        }
        let pairs = rows.iter().filter_map(|row| Some((*tokens.get(*row as usize)?, *row)));
        Ok(Self::sort(pairs, rows.len()))
    }

    /// The tokens, ascending.
    pub fn tokens(&self) -> &[Token] {
        &self.tokens
    }

    /// The row of each token.
    pub fn rows(&self) -> &[u32] {
        &self.rows
    }

    /// How many tokens are left.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Takes out every token that an earlier row has as well; gives the rows taken.
    pub fn take_repeats(&mut self) -> Vec<u32> {
        let mut last = None;
        self.take_where(|_, token| last.replace(token) == Some(token))
    }

    /// Takes out the tokens at `positions` (ascending); gives their rows.
    pub fn take(&mut self, positions: &[u32]) -> Vec<u32> {
        let mut next = positions.iter().copied().peekable();
        self.take_where(|position, _| next.next_if(|p| *p as usize <= position).is_some())
    }

    fn take_where(&mut self, mut goes: impl FnMut(usize, Token) -> bool) -> Vec<u32> {
        let mut taken = Vec::new();
        let mut kept = 0;
        for position in 0..self.tokens.len() {
            let (Some(token), Some(row)) =
                (self.tokens.get(position).copied(), self.rows.get(position).copied())
            else {
                break;
            };
            if goes(position, token) {
                taken.push(row);
            } else {
                if let (Some(t), Some(r)) = (self.tokens.get_mut(kept), self.rows.get_mut(kept)) {
                    (*t, *r) = (token, row);
                }
                kept += 1;
            }
        }
        self.tokens.truncate(kept);
        self.rows.truncate(kept);
        taken
    }

    /// A radix pass over the highest bits deals the pairs out to buckets of a few, which are sorted by insertion; or by the
    /// library, where tokens crowd together.
    fn sort(pairs: impl Iterator<Item = (Token, u32)> + Clone, count: usize) -> Self {
        let bits = (count / BUCKET_ROWS).max(2).ilog2().min(MOST_BITS);
        let bucket = |token: Token| (top(token) >> (64 - bits)) as usize;
        let mut ends = vec![0u32; 1 << bits];
        for (token, _) in pairs.clone() {
            if let Some(end) = ends.get_mut(bucket(token)) {
                *end += 1;
            }
        }
        let mut start = 0;
        for end in &mut ends {
            let size = std::mem::replace(end, start);
            start += size;
        }
        let mut items = vec![Item::default(); start as usize];
        // Each bucket's start moves up to its end while it is filled.
        for (token, row) in pairs {
            if let Some(end) = ends.get_mut(bucket(token)) {
                if let Some(item) = items.get_mut(*end as usize) {
                    *item = Item { high: top(token), low: token.0 as u64, row };
                }
                *end += 1;
            }
        }
        let mut rest = items.as_mut_slice();
        let mut start = 0;
        for end in ends {
            let size = (end - std::mem::replace(&mut start, end)) as usize;
            let (bucket, others) = std::mem::take(&mut rest).split_at_mut_checked(size).unwrap_or_default();
            if size > FEW {
                bucket.sort_unstable()
            } else {
                insertion_sort(bucket)
            }
            rest = others;
        }
        let token = |item: &Item| Token(u128::from(item.high) << 64 | u128::from(item.low));
        Self { tokens: items.iter().map(token).collect(), rows: items.iter().map(|item| item.row).collect() }
    }
}

/// Rows of a bucket, if tokens are spread evenly.
const BUCKET_ROWS: usize = 4;

/// The most bits that choose a bucket.
const MOST_BITS: u32 = 16;

/// So many are sorted by insertion.
const FEW: usize = 24;

/// A token and its row; two halves keep it at 24 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    high: u64,
    low: u64,
    row: u32,
}

fn insertion_sort(items: &mut [Item]) {
    for sorted in 1..items.len() {
        let Some((last, before)) = items.get_mut(..=sorted).and_then(|items| items.split_last_mut()) else {
            return;
        };
        let moving = *last;
        let mut hole = last;
        for item in before.iter_mut().rev().take_while(|item| **item > moving) {
            *hole = *item;
            hole = item;
        }
        *hole = moving;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{any_tokens, token};
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn pairs(batch: &SortedBatch) -> Vec<(Token, u32)> {
        batch.tokens().iter().copied().zip(batch.rows().iter().copied()).collect()
    }

    proptest! {
        #[test]
        fn sorting_is_stable_and_loses_nothing(mut tokens in any_tokens(300), copies in 1usize..6) {
            tokens = tokens.repeat(copies);
            let mut expected: Vec<(Token, u32)> = tokens.iter().copied().zip(0..).collect();
            expected.sort();
            prop_assert_eq!(pairs(&SortedBatch::new(&tokens).unwrap()), expected);
        }

        #[test]
        fn crowds_are_sorted_too(high in 0u32..128, low in 0u32..128, count in 0usize..3000, seed in any::<u64>()) {
            // Tokens that differ in some bits only: above those that choose a bucket, among them, or far below.
            let mask = u128::MAX >> high.min(low) & u128::MAX << (127 - high.max(low));
            let tokens: Vec<Token> =
                (0..count as u64).map(|i| Token(token((i * 7) % 1000 + (seed >> 1)).0 & mask)).collect();
            let mut expected: Vec<(Token, u32)> = tokens.iter().copied().zip(0..).collect();
            expected.sort();
            prop_assert_eq!(pairs(&SortedBatch::new(&tokens).unwrap()), expected);
        }

        #[test]
        fn the_first_row_of_each_token_stays(tokens in any_tokens(300)) {
            let mut batch = SortedBatch::new(&tokens).unwrap();
            let repeats: BTreeSet<u32> = batch.take_repeats().into_iter().collect();
            let mut first = BTreeMap::new();
            for (row, token) in (0..).zip(&tokens) {
                first.entry(*token).or_insert(row);
            }
            prop_assert_eq!(pairs(&batch), first.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(batch.len() + repeats.len(), tokens.len());
        }

        #[test]
        fn what_is_taken_out_is_exactly_what_was_named(tokens in any_tokens(100), pick in any::<u128>()) {
            let mut batch = SortedBatch::new(&tokens).unwrap();
            let before = pairs(&batch);
            let positions: Vec<u32> = (0..tokens.len() as u32).filter(|p| pick >> p & 1 == 1).collect();
            let taken = batch.take(&positions);
            let (gone, kept): (Vec<_>, Vec<_>) = (0..).zip(before).partition(|(p, _)| positions.contains(p));
            prop_assert_eq!(taken, gone.into_iter().map(|(_, (_, row))| row).collect::<Vec<_>>());
            prop_assert_eq!(pairs(&batch), kept.into_iter().map(|(_, pair)| pair).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_large_batch_is_sorted_through_the_radix_pass() {
        let tokens: Vec<Token> = (0..40_000).map(|i| token(i % 30_000)).collect();
        let mut expected: Vec<(Token, u32)> = tokens.iter().copied().zip(0..).collect();
        expected.sort();
        assert_eq!(pairs(&SortedBatch::new(&tokens).unwrap()), expected);
        let crowd: Vec<Token> = (0..40_000u128).map(|i| Token(9 << 100 | (i * 7919 % 40_000))).collect();
        assert!(SortedBatch::new(&crowd).unwrap().tokens().is_sorted());
    }

    #[test]
    fn rows_can_be_left_out_but_not_made_up() {
        let tokens = [token(1), token(2), token(3)];
        let batch = SortedBatch::of_rows(&tokens, &[0, 2]).unwrap();
        assert_eq!(pairs(&batch).into_iter().collect::<BTreeSet<_>>(), [(token(1), 0), (token(3), 2)].into());
        assert!(SortedBatch::of_rows(&tokens, &[3]).is_err());
    }
}
