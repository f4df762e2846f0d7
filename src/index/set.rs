//! The exact set of the tokens that this session itself accepted.
//!
//! The token space is cut into some 375 parts of unequal width, each with a hash table of its own. A batch is dealt
//! out to the parts first, so that a table is met while it is in the cache. Tables double when full; because the
//! widths differ by up to two, they do so at different moments and memory grows evenly: 26 to 30 bytes a token, and
//! never more than one small table twice.

use super::batch::sort_tokens;
use super::top;
use crate::token::Token;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

/// The highest bits of a token that choose its part.
const SLOT_BITS: u32 = 12;
const SLOTS: usize = 1 << SLOT_BITS;

/// Slots of one part after the other; spread evenly over the logarithm, so that doublings are.
const WIDTHS: [usize; 12] = [8, 12, 9, 14, 10, 8, 13, 11, 9, 15, 10, 12];

/// Tokens dealt out at a time: bounds the scratch memory.
const DEAL: usize = 1 << 18;

/// Bytes of one bucket of a table: the token and its tag.
const BUCKET_BYTES: usize = size_of::<Token>() + 1;

/// A set of tokens that is filled batch by batch.
#[derive(Clone)]
pub struct SessionSet {
    parts: Vec<HashTable<Token>>,
    /// The part of each slot.
    part_of: Vec<u16>,
    dealt: Dealt,
}

impl Default for SessionSet {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionSet {
    /// The empty set.
    pub fn new() -> Self {
        let widths = WIDTHS.iter().cycle().zip(0u16..);
        let part_of: Vec<u16> =
            widths.flat_map(|(width, part)| std::iter::repeat_n(part, *width)).take(SLOTS).collect();
        let parts = part_of.last().map_or(0, |last| usize::from(*last) + 1);
        Self { parts: vec![HashTable::new(); parts], part_of, dealt: Dealt::default() }
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.parts.iter().map(HashTable::len).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(HashTable::is_empty)
    }

    /// Bytes of memory it holds.
    pub fn memory(&self) -> usize {
        let tables: usize = self.parts.iter().map(HashTable::allocation_size).sum();
        let fixed = self.parts.capacity() * size_of::<HashTable<Token>>() + self.part_of.capacity() * 2;
        tables + fixed + self.dealt.memory() + size_of::<Self>()
    }

    /// The most memory it will hold while and after `more` evenly spread tokens are inserted.
    pub fn memory_after(&self, more: usize) -> usize {
        let mut memory = self.memory() + more.min(DEAL) * Dealt::BYTES;
        let mut largest = 0;
        for (part, width) in self.parts.iter().zip(WIDTHS.iter().cycle()) {
            let share = more as f64 * *width as f64 / SLOTS as f64;
            let expected = part.len() + (share + 4.0 * share.sqrt()).ceil() as usize;
            if more > 0 && expected > part.capacity() {
                let grown = (expected * 8).div_ceil(7).next_power_of_two().max(4) * BUCKET_BYTES + 16;
                memory += grown.saturating_sub(part.allocation_size());
                largest = largest.max(part.allocation_size());
            }
        }
        memory + largest
    }

    /// Inserts `tokens`; `fresh` becomes, for each, whether it was not there before, neither in the set nor earlier
    /// in the slice.
    pub fn insert_batch(&mut self, tokens: &[Token], fresh: &mut Vec<bool>) {
        fresh.clear();
        fresh.resize(tokens.len(), false);
        for (deal, fresh) in tokens.chunks(DEAL).zip(fresh.chunks_mut(DEAL)) {
            self.dealt.deal(deal, &self.part_of, self.parts.len());
            for (table, (tokens, places)) in self.parts.iter_mut().zip(self.dealt.hands()) {
                for (token, place) in tokens.iter().zip(places) {
                    if let Entry::Vacant(vacant) =
                        table.entry(scramble(token), |held| held == token, scramble)
                    {
                        vacant.insert(*token);
                        if let Some(fresh) = fresh.get_mut(*place as usize) {
                            *fresh = true;
                        }
                    }
                }
            }
        }
    }

    /// Appends to `found` the position of each token that the set holds. Fastest on ascending tokens.
    pub fn find_batch(&self, tokens: &[Token], found: &mut Vec<u32>) {
        for (position, token) in (0..).zip(tokens) {
            if self.contains(*token) {
                found.push(position);
            }
        }
    }

    /// Whether the set holds the token.
    pub fn contains(&self, token: Token) -> bool {
        let table = self.parts.get(part_of(&self.part_of, token));
        table.is_some_and(|table| table.find(scramble(&token), |held| *held == token).is_some())
    }

    /// Removes `tokens`, for instance those that another writer was first to commit; gives how many it held.
    pub fn remove_batch(&mut self, tokens: &[Token]) -> usize {
        let mut removed = 0;
        for token in tokens {
            let table = self.parts.get_mut(part_of(&self.part_of, *token));
            if let Some(Ok(entry)) =
                table.map(|table| table.find_entry(scramble(token), |held| held == token))
            {
                entry.remove();
                removed += 1;
            }
        }
        removed
    }

    /// Empties the set, part by part: ascending pieces of ascending tokens. Each part's memory is freed as it is
    /// taken, so a run can be written from here without ever holding all tokens twice.
    pub fn drain_sorted(&mut self) -> impl Iterator<Item = Vec<Token>> + '_ {
        self.dealt = Dealt::default();
        self.parts.iter_mut().map(|part| {
            let mut tokens: Vec<Token> = std::mem::take(part).into_iter().collect();
            sort_tokens(&mut tokens);
            tokens
        })
    }

    /// Empties the set into one ascending list. Memory in use does not rise: 16 bytes a token come for 28 that go.
    pub fn take_sorted(&mut self) -> Vec<Token> {
        let mut all = Vec::with_capacity(self.len());
        for tokens in self.drain_sorted() {
            all.extend_from_slice(&tokens);
        }
        all
    }
}

impl std::fmt::Debug for SessionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSet").field("len", &self.len()).field("memory", &self.memory()).finish()
    }
}

fn part_of(parts: &[u16], token: Token) -> usize {
    parts.get((top(token) >> (64 - SLOT_BITS)) as usize).map_or(0, |part| usize::from(*part))
}

/// A hash of all bits of the token. Tokens are pseudo-random already; this keeps tables fast if they are not.
fn scramble(token: &Token) -> u64 {
    let (high, low) = (top(*token) ^ 0x9e37_79b9_7f4a_7c15, token.0 as u64 ^ 0xc2b2_ae3d_27d4_eb4f);
    let product = u128::from(high) * u128::from(low);
    (product >> 64) as u64 ^ product as u64
}

/// A batch dealt out to the parts, each hand in the order of the batch.
#[derive(Clone, Default)]
struct Dealt {
    tokens: Vec<Token>,
    places: Vec<u32>,
    /// End of each part's hand.
    ends: Vec<u32>,
}

impl Dealt {
    /// Scratch memory for one token.
    const BYTES: usize = size_of::<Token>() + size_of::<u32>();

    fn deal(&mut self, tokens: &[Token], parts: &[u16], count: usize) {
        self.ends.clear();
        self.ends.resize(count, 0);
        for token in tokens {
            if let Some(end) = self.ends.get_mut(part_of(parts, *token)) {
                *end += 1;
            }
        }
        let mut start = 0;
        for end in &mut self.ends {
            let hand = std::mem::replace(end, start);
            start += hand;
        }
        if self.tokens.len() < tokens.len() {
            self.tokens.reserve_exact(tokens.len() - self.tokens.len());
            self.places.reserve_exact(tokens.len() - self.places.len());
        }
        self.tokens.resize(tokens.len(), Token::default());
        self.places.resize(tokens.len(), 0);
        // Each start moves up to its end while its hand is filled.
        for (place, token) in (0..).zip(tokens) {
            if let Some(end) = self.ends.get_mut(part_of(parts, *token)) {
                let to = *end as usize;
                if let (Some(t), Some(p)) = (self.tokens.get_mut(to), self.places.get_mut(to)) {
                    (*t, *p) = (*token, place);
                }
                *end += 1;
            }
        }
    }

    fn hands(&self) -> impl Iterator<Item = (&[Token], &[u32])> {
        let mut start = 0;
        self.ends.iter().map(move |end| {
            let hand = std::mem::replace(&mut start, *end as usize)..*end as usize;
            (self.tokens.get(hand.clone()).unwrap_or_default(), self.places.get(hand).unwrap_or_default())
        })
    }

    fn memory(&self) -> usize {
        self.tokens.capacity() * size_of::<Token>()
            + (self.places.capacity() + self.ends.capacity()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{any_tokens, ascending, token};
    use proptest::prelude::*;
    use std::collections::{BTreeSet, HashSet};

    proptest! {
        #[test]
        fn it_agrees_with_a_plain_set(batches in proptest::collection::vec(any_tokens(80), 0..8), gone in any_tokens(40)) {
            let (mut set, mut oracle, mut fresh) = (SessionSet::new(), HashSet::new(), Vec::new());
            for batch in &batches {
                set.insert_batch(batch, &mut fresh);
                let expected: Vec<bool> = batch.iter().map(|token| oracle.insert(*token)).collect();
                prop_assert_eq!(&fresh, &expected);
                prop_assert_eq!(set.len(), oracle.len());
            }
            prop_assert_eq!(set.remove_batch(&gone), gone.iter().filter(|token| oracle.remove(token)).count());
            let mut found = Vec::new();
            set.find_batch(&gone, &mut found);
            prop_assert!(found.is_empty());
            let sorted: Vec<Token> = oracle.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            set.find_batch(&sorted, &mut found);
            prop_assert_eq!(found.len(), sorted.len());
            prop_assert_eq!(set.take_sorted(), sorted);
            prop_assert!(set.is_empty());
        }
    }

    #[test]
    fn a_batch_beyond_one_deal_still_has_its_first_row_win() {
        let tokens: Vec<Token> = (0..DEAL as u64 * 2).map(|i| token(i % (DEAL as u64 + 77))).collect();
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        set.insert_batch(&tokens, &mut fresh);
        assert!(fresh.iter().enumerate().all(|(i, fresh)| *fresh == (i < DEAL + 77)));
        assert_eq!(set.take_sorted(), ascending(0, DEAL as u64 + 77));
    }

    #[test]
    fn memory_grows_evenly_and_as_foreseen() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        let mut worst = 0.0f64;
        for step in 0..100u64 {
            let tokens: Vec<Token> = (step * 5_000..(step + 1) * 5_000).map(token).collect();
            let (before, foreseen) = (set.memory(), set.memory_after(tokens.len()));
            set.insert_batch(&tokens, &mut fresh);
            assert!(set.memory() <= foreseen, "step {step}: {} > {foreseen}", set.memory());
            assert!(foreseen < before * 2 + (1 << 20), "step {step}: {foreseen} foreseen at {before}");
            if step >= 40 {
                worst = worst.max(set.memory() as f64 / set.len() as f64);
            }
        }
        assert!(worst < 31.0, "{worst} bytes a token");
    }

    #[test]
    fn crowded_tokens_do_not_slow_it_down_beyond_reason() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        let crowd: Vec<Token> =
            (0..100_000u128).flat_map(|i| [Token(i), Token(i << 64), Token(i << 100)]).collect();
        set.insert_batch(&crowd, &mut fresh);
        assert_eq!(set.len(), crowd.iter().collect::<HashSet<_>>().len());
    }

    #[test]
    fn draining_gives_ascending_pieces() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        set.insert_batch(&[Token(u128::MAX), Token(0), Token(5 << 120)], &mut fresh);
        let pieces: Vec<Token> = set.drain_sorted().flatten().collect();
        assert_eq!(pieces, [Token(0), Token(5 << 120), Token(u128::MAX)]);
    }
}
