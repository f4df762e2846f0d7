//! A batch of tokens, sorted once, that remembers the row of each.
//!
//! Everything that judges a batch works on ascending tokens: filters and runs are then met in their own order,
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
        Ok(Self::sort(tokens.iter().zip(0..count).map(|(token, row)| Item::new(*token, row)).collect()))
    }

    /// Sorts only the tokens of `rows` (which ascend), for instance the rows that have a key.
    pub fn of_rows(tokens: &[Token], rows: impl IntoIterator<Item = u32>) -> Result<Self> {
        let items = rows.into_iter().map(|row| match tokens.get(row as usize) {
            Some(token) => Ok(Item::new(*token, row)),
            None => Err(Error::Internal(format!("row {row} of a batch of {} rows", tokens.len()))),
        });
        Ok(Self::sort(items.collect::<Result<_>>()?))
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

    /// All positions: the candidates where no filter narrows them.
    pub fn positions(&self) -> Vec<u32> {
        (0..).take(self.len()).collect()
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

    /// One radix pass over the highest bits makes small buckets of uniform tokens; the library's sort does the
    /// rest, and all of it where tokens crowd together.
    fn sort(items: Vec<Item>) -> Self {
        let mut sorted = items;
        let bits = (sorted.len() / 16).max(1).ilog2().min(13);
        if bits < 4 {
            sorted.sort_unstable();
        } else {
            sorted = scatter(&sorted, bits);
            sorted.chunk_by_mut(|a, b| a.bucket(bits) == b.bucket(bits)).for_each(<[Item]>::sort_unstable);
        }
        let tokens = sorted.iter().map(Item::token).collect();
        Self { tokens, rows: sorted.iter().map(|item| item.row).collect() }
    }
}

/// Sorts tokens in place.
pub fn sort_tokens(tokens: &mut [Token]) {
    tokens.sort_unstable();
}

/// A token and its row; two halves keep it at 24 bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    high: u64,
    low: u64,
    row: u32,
}

impl Item {
    fn new(token: Token, row: u32) -> Self {
        Self { high: top(token), low: token.0 as u64, row }
    }

    fn token(&self) -> Token {
        Token(u128::from(self.high) << 64 | u128::from(self.low))
    }

    /// Its bucket by the highest `bits` (1 to 63).
    fn bucket(&self, bits: u32) -> usize {
        (self.high >> (64 - bits)) as usize
    }
}

/// `items` grouped by bucket, buckets ascending.
fn scatter(items: &[Item], bits: u32) -> Vec<Item> {
    let mut places = vec![0usize; 1 << bits];
    for item in items {
        if let Some(count) = places.get_mut(item.bucket(bits)) {
            *count += 1;
        }
    }
    let mut start = 0;
    for place in &mut places {
        let count = std::mem::replace(place, start);
        start += count;
    }
    let mut out = vec![Item::default(); items.len()];
    for item in items {
        if let Some(place) = places.get_mut(item.bucket(bits)) {
            if let Some(slot) = out.get_mut(*place) {
                *slot = *item;
            }
            *place += 1;
        }
    }
    out
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
        let batch = SortedBatch::of_rows(&tokens, [0, 2]).unwrap();
        assert_eq!(pairs(&batch).into_iter().collect::<BTreeSet<_>>(), [(token(1), 0), (token(3), 2)].into());
        assert!(SortedBatch::of_rows(&tokens, [3]).is_err());
    }
}
