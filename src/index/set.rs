//! The exact set of the tokens that this session itself accepted.
//!
//! Tokens stand in ascending order with gaps between them: where one belongs is computed from its highest bits, and from
//! there on the first free place, or one that is made by moving its neighbours up, is not far. Batches come in ascending order, so
//! a batch walks through memory once, and the set gives its tokens back in order without sorting them.
//!
//! The token space is cut into some 375 parts of unequal width, each with a table of its own. Tables grow by half when full;
//! because the widths differ by up to two, they do so at different moments and memory grows evenly: 23 to 34 bytes a token, and
//! never more than one small table twice. Where it is known how many are to come, they grow once. Tokens are pseudo-random; should so many crowd together nevertheless that a place is
//! far, they stand aside in a tree.
//!
//! Parts know nothing of one another, so that large batches may be inserted on several threads. The answers are the same.

use super::top;
use crate::token::Token;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// The highest bits of a token that choose its part.
const SLOT_BITS: u32 = 12;
const SLOTS: u64 = 1 << SLOT_BITS;

/// Slots of one part after the other; spread evenly over the logarithm, so that growths are.
const WIDTHS: [u64; 12] = [8, 12, 9, 14, 10, 8, 13, 11, 9, 15, 10, 12];

/// A token that would move more places than this stands aside.
const FAR: usize = 512;

/// Tokens for which a thread is worth its start: they take about a millisecond.
const SHARE: usize = 1 << 14;

/// Places that are looked at beforehand, so that memory is on its way when they are needed.
const AHEAD: usize = 32;

/// What stands in a place that is free. (That token itself stands aside.)
const FREE: Token = Token(0);

/// A set of tokens that is filled batch by batch.
#[derive(Clone)]
pub struct SessionSet {
    parts: Vec<Part>,
    /// How many threads insert at most.
    threads: usize,
}

/// The tokens of some slots.
#[derive(Clone)]
struct Part {
    /// Its first slot, and how many it has.
    slots: (u64, u64),
    /// Tokens, ascending but for free places.
    places: Vec<Token>,
    /// Places a slot.
    density: u64,
    /// Tokens in `places`.
    len: usize,
    /// Tokens that there may be in the end: room for so many is made as soon as there is one.
    expected: usize,
    aside: BTreeSet<Token>,
}

impl Default for SessionSet {
    fn default() -> Self {
        Self::new()
    }
}

impl SessionSet {
    /// The empty set.
    pub fn new() -> Self {
        let (mut parts, mut start) = (Vec::new(), 0);
        for width in WIDTHS.iter().cycle() {
            let width = (*width).min(SLOTS - start);
            if width == 0 {
                break;
            }
            parts.push(Part {
                slots: (start, width),
                places: Vec::new(),
                density: 0,
                len: 0,
                expected: 0,
                aside: BTreeSet::new(),
            });
            start += width;
        }
        Self { parts, threads: 1 }
    }

    /// The same set, into which up to so many threads insert a batch.
    pub fn on_threads(self, threads: usize) -> Self {
        Self { threads, ..self }
    }

    /// From here on it makes room for so many evenly spread tokens at once, where it makes room.
    pub fn expect(&mut self, tokens: usize) {
        self.parts.iter_mut().for_each(|part| part.expected = part.share(tokens));
    }

    /// How many tokens it holds.
    pub fn len(&self) -> usize {
        self.parts.iter().map(Part::count).sum()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.parts.iter().all(|part| part.count() == 0)
    }

    /// Bytes of memory it holds.
    pub fn memory(&self) -> usize {
        let tables: usize = self.parts.iter().map(Part::memory).sum();
        tables + self.parts.capacity() * size_of::<Part>() + size_of::<Self>()
    }

    /// The most memory it will hold while and after `more` evenly spread tokens are inserted.
    pub fn memory_after(&self, more: usize) -> usize {
        let (mut memory, mut largest) = (self.memory(), 0);
        for part in &self.parts {
            if let Some(density) = part.grown(part.share(more)) {
                memory += (part.size(density) * size_of::<Token>()).saturating_sub(part.memory());
                largest = largest.max(part.memory());
            }
        }
        memory + largest
    }

    /// Inserts ascending `tokens`; `fresh` becomes, for each, whether it was not there before, neither in the set nor earlier
    /// in the slice.
    pub fn insert_batch(&mut self, tokens: &[Token], fresh: &mut Vec<bool>) {
        debug_assert!(tokens.is_sorted());
        fresh.clear();
        fresh.resize(tokens.len(), false);
        let threads = (tokens.len() / SHARE).clamp(1, self.threads.max(1));
        let mut all = Insertion { parts: &mut self.parts, tokens, fresh };
        let size = all.parts.len().div_ceil(threads);
        let shares: Vec<Insertion<'_>> = (0..threads).map(|_| all.take(size)).collect();
        let shares = Mutex::new(shares.into_iter());
        let next = || shares.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || std::iter::from_fn(next).for_each(Insertion::run);
        std::thread::scope(|scope| {
            for _ in 1..threads {
                // Where there is no thread to be had, this one does it all.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
    }

    /// Appends to `found` the position of each of the ascending `tokens` that the set holds.
    pub fn find_batch(&self, tokens: &[Token], found: &mut Vec<u32>) {
        let (mut rest, mut first) = (tokens, 0);
        for part in &self.parts {
            let (mine, others) = rest.split_at_checked(part.of(rest)).unwrap_or_default();
            for some in mine.chunks(AHEAD) {
                part.look_ahead(some);
                found.extend((first..).zip(some).filter(|(_, token)| part.holds(**token)).map(|(at, _)| at));
                first += some.len() as u32;
            }
            rest = others;
        }
    }

    /// Empties the set, part by part: ascending pieces of ascending tokens. Each part's memory is freed as it is
    /// taken, so a run can be written from here without ever holding all tokens twice.
    pub fn drain_sorted(&mut self) -> impl Iterator<Item = Vec<Token>> + '_ {
        self.parts.iter_mut().map(Part::take)
    }

    /// Empties the set into one ascending list. Memory in use hardly rises: 16 bytes a token come for 28 that go.
    pub fn take_sorted(&mut self) -> Vec<Token> {
        let mut all = Vec::with_capacity(self.len());
        for tokens in self.drain_sorted() {
            all.extend_from_slice(&tokens);
        }
        all
    }
}

/// Ascending tokens, and the parts into which they are to be inserted.
struct Insertion<'a> {
    parts: &'a mut [Part],
    tokens: &'a [Token],
    fresh: &'a mut [bool],
}

impl Insertion<'_> {
    /// Takes the first so many parts away, with their tokens.
    fn take(&mut self, parts: usize) -> Self {
        let most = self.parts.len();
        let mine = self.parts.split_off_mut(..parts.min(most)).unwrap_or_default();
        let here = mine.last().map_or(0, |part| part.of(self.tokens));
        Self {
            parts: mine,
            tokens: self.tokens.split_off(..here).unwrap_or_default(),
            fresh: self.fresh.split_off_mut(..here).unwrap_or_default(),
        }
    }

    fn run(self) {
        let (mut tokens, mut fresh) = (self.tokens, self.fresh);
        for part in self.parts {
            let here = part.of(tokens);
            let mine = tokens.split_off(..here).unwrap_or_default();
            part.insert(mine, fresh.split_off_mut(..here).unwrap_or_default());
        }
    }
}

impl std::fmt::Debug for SessionSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SessionSet").field("len", &self.len()).field("memory", &self.memory()).finish()
    }
}

impl Part {
    fn count(&self) -> usize {
        self.len + self.aside.len()
    }

    /// How many of evenly spread tokens belong to it, with what chance may add.
    fn share(&self, tokens: usize) -> usize {
        let share = tokens as f64 * self.slots.1 as f64 / SLOTS as f64;
        (share + 4.0 * share.sqrt()).ceil() as usize
    }

    fn memory(&self) -> usize {
        // A tree's nodes are half full at worst.
        (self.places.capacity() + 2 * self.aside.len()) * size_of::<Token>()
    }

    /// How many of the ascending `tokens` belong to it, or to a part before.
    fn of(&self, tokens: &[Token]) -> usize {
        let end = self.slots.0 + self.slots.1;
        super::gallop(tokens, 0, |token| top(*token) >> (64 - SLOT_BITS) < end)
    }

    /// The place where `token` belongs: between those of all lower and all higher tokens.
    fn home(&self, token: Token) -> usize {
        let offset = top(token).wrapping_sub(self.slots.0 << (64 - SLOT_BITS));
        ((u128::from(offset) * u128::from(self.density)) >> (64 - SLOT_BITS)) as usize
    }

    /// Places at such a density. Some follow the last home, so that no token wraps around.
    fn size(&self, density: u64) -> usize {
        (density * self.slots.1) as usize + FAR / 4
    }

    /// The density that is needed for so many tokens more, if it is not that of now.
    fn grown(&self, more: usize) -> Option<u64> {
        let wanted = (self.len + more) as u64;
        let room = self.density * self.slots.1;
        if more == 0 || wanted * 10 <= room * 7 {
            return None;
        }
        // Not more than is needed or expected, so that what comes is a half more than what was.
        let least = (wanted.max(self.expected as u64) * 10).div_ceil(7);
        Some(least.max(room * 3 / 2).div_ceil(self.slots.1).max(1))
    }

    fn grow(&mut self, density: u64) {
        let old = self.close_up();
        self.density = density;
        self.places = vec![FREE; self.size(density)];
        let mut next = 0;
        for token in old {
            let place = self.home(token).max(next);
            match self.places.get_mut(place) {
                Some(free) => *free = token,
                None => {
                    self.len -= 1;
                    self.aside.insert(token);
                }
            }
            next = place + 1;
        }
    }

    /// Takes its tokens out of their places. Without a branch, because whether a place is free cannot be foretold.
    fn close_up(&mut self) -> Vec<Token> {
        let mut places = std::mem::take(&mut self.places);
        let mut next = 0;
        for at in 0..places.len() {
            let Some(token) = places.get(at).copied() else { break };
            if let Some(place) = places.get_mut(next) {
                *place = token;
            }
            next += usize::from(token != FREE);
        }
        places.truncate(next);
        places
    }

    /// Reads the places where these tokens belong, for no other purpose than to have them at hand.
    fn look_ahead(&self, tokens: &[Token]) {
        let read = |token: &Token| self.places.get(self.home(*token)).map_or(0, |token| token.0 as u64);
        std::hint::black_box(tokens.iter().map(read).fold(0, |a, b| a ^ b));
    }

    fn insert(&mut self, tokens: &[Token], fresh: &mut [bool]) {
        if let Some(density) = self.grown(tokens.len()) {
            self.grow(density);
        }
        for (tokens, fresh) in tokens.chunks(AHEAD).zip(fresh.chunks_mut(AHEAD)) {
            self.look_ahead(tokens);
            for (token, fresh) in tokens.iter().zip(fresh) {
                *fresh = self.insert_one(*token);
            }
        }
    }

    fn insert_one(&mut self, token: Token) -> bool {
        if token == FREE {
            return self.aside.insert(token);
        }
        let home = self.home(token);
        let near = self.places.get_mut(home..).unwrap_or_default();
        let at = near.iter().position(|held| *held == FREE || *held >= token).unwrap_or(near.len());
        if near.get(at) == Some(&token) || !self.aside.is_empty() && self.aside.contains(&token) {
            return false;
        }
        // Those from here up to the next free place move up by one.
        let above = near.get_mut(at..).unwrap_or_default();
        let free = above.iter().take(FAR.saturating_sub(at)).position(|held| *held == FREE);
        let Some(moved) = free.and_then(|free| above.get_mut(..=free)) else {
            return self.aside.insert(token);
        };
        moved.iter_mut().fold(token, |token, place| std::mem::replace(place, token));
        self.len += 1;
        true
    }

    fn holds(&self, token: Token) -> bool {
        let near = self.places.get(self.home(token)..).unwrap_or_default();
        let at = near.iter().find(|held| **held == FREE || **held >= token);
        token != FREE && at == Some(&token) || !self.aside.is_empty() && self.aside.contains(&token)
    }

    fn take(&mut self) -> Vec<Token> {
        let mut tokens = self.close_up();
        (self.density, self.len) = (0, 0);
        if !self.aside.is_empty() {
            tokens.extend(std::mem::take(&mut self.aside));
            tokens.sort_unstable();
        }
        tokens
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
        fn it_agrees_with_a_plain_set(
            batches in proptest::collection::vec((any_tokens(80), 0..2000u64, 0..2000u64), 0..8), asked in any_tokens(40)
        ) {
            let (mut set, mut oracle, mut fresh) = (SessionSet::new(), HashSet::new(), Vec::new());
            for (batch, from, more) in batches {
                let mut batch = batch;
                batch.extend((from..from + more).map(token));
                batch.sort_unstable();
                let batch = &batch;
                set.insert_batch(batch, &mut fresh);
                let expected: Vec<bool> = batch.iter().map(|token| oracle.insert(*token)).collect();
                prop_assert_eq!(&fresh, &expected);
                prop_assert_eq!(set.len(), oracle.len());
            }
            let mut asked = asked;
            asked.sort_unstable();
            let mut found = Vec::new();
            set.find_batch(&asked, &mut found);
            let held = (0..).zip(&asked).filter(|(_, token)| oracle.contains(token));
            prop_assert_eq!(&found, &held.map(|(at, _)| at).collect::<Vec<u32>>());
            found.clear();
            let sorted: Vec<Token> = oracle.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            set.find_batch(&sorted, &mut found);
            prop_assert_eq!(found.len(), sorted.len());
            prop_assert_eq!(set.take_sorted(), sorted);
            prop_assert!(set.is_empty());
        }
    }

    #[test]
    fn of_equal_tokens_in_a_large_batch_the_first_is_fresh() {
        let tokens: Vec<Token> = ascending(0, 300_000).into_iter().flat_map(|token| [token; 2]).collect();
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        set.insert_batch(&tokens, &mut fresh);
        assert!(fresh.iter().enumerate().all(|(i, fresh)| *fresh == (i % 2 == 0)));
        set.insert_batch(&tokens, &mut fresh);
        assert!(!fresh.contains(&true));
        assert_eq!(set.take_sorted(), ascending(0, 300_000));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]

        #[test]
        fn on_any_number_of_threads_it_is_the_same_set(
            crowd in any_tokens(200), threads in 0usize..9, batches in proptest::collection::vec((0..60_000u64, 0..60_000u64), 1..5)
        ) {
            let (mut set, mut alone) = (SessionSet::new().on_threads(threads), SessionSet::new());
            let (mut fresh, mut expected) = (Vec::new(), Vec::new());
            for (from, more) in batches {
                let mut batch = ascending(from, more);
                batch.extend(&crowd);
                batch.sort_unstable();
                set.insert_batch(&batch, &mut fresh);
                alone.insert_batch(&batch, &mut expected);
                prop_assert_eq!(&fresh, &expected);
                prop_assert_eq!(set.memory(), alone.memory());
            }
            prop_assert_eq!(set.take_sorted(), alone.take_sorted());
        }
    }

    #[test]
    fn where_it_is_known_how_many_come_room_is_made_once_and_as_foreseen() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        set.expect(500_000);
        assert_eq!(set.memory(), SessionSet::new().memory(), "nothing before there is a token");
        let foreseen = set.memory_after(100_000);
        for step in 0..5 {
            set.insert_batch(&ascending(step * 100_000, 100_000), &mut fresh);
            assert!(fresh.iter().all(|fresh| *fresh));
            assert!((foreseen / 2..=foreseen).contains(&set.memory()), "{} of {foreseen}", set.memory());
        }
        let exact = set.memory() as f64 / set.len() as f64;
        assert!(exact < 28.0, "{exact} bytes a token");
        assert_eq!(set.take_sorted(), ascending(0, 500_000));
    }

    #[test]
    fn memory_grows_evenly_and_as_foreseen() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        let mut worst = 0.0f64;
        for step in 0..100u64 {
            let tokens = ascending(step * 5_000, 5_000);
            let (before, foreseen) = (set.memory(), set.memory_after(tokens.len()));
            set.insert_batch(&tokens, &mut fresh);
            assert!(set.memory() <= foreseen, "step {step}: {} > {foreseen}", set.memory());
            assert!(foreseen < before * 2 + (1 << 20), "step {step}: {foreseen} foreseen at {before}");
            if step >= 40 {
                worst = worst.max(set.memory() as f64 / set.len() as f64);
            }
        }
        assert!(worst < 34.0, "{worst} bytes a token");
    }

    #[test]
    fn crowded_tokens_do_not_slow_it_down_beyond_reason() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        let mut crowd: Vec<Token> =
            (0..100_000u128).flat_map(|i| [Token(i), Token(i << 64), Token(i << 100)]).collect();
        crowd.sort_unstable();
        set.insert_batch(&crowd, &mut fresh);
        assert_eq!(set.len(), crowd.iter().collect::<HashSet<_>>().len());
    }

    #[test]
    fn draining_gives_ascending_pieces() {
        let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
        set.insert_batch(&[Token(0), Token(5 << 120), Token(u128::MAX)], &mut fresh);
        let pieces: Vec<Token> = set.drain_sorted().flatten().collect();
        assert_eq!(pieces, [Token(0), Token(5 << 120), Token(u128::MAX)]);
    }
}
