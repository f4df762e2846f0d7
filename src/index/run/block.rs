//! One block of a run: up to 4096 ascending tokens in two parts, so that most questions are answered by the small one.
//!
//! A token's distance from the block's base is cut at `width` bits. The **suffix** (the low bits, most of the token)
//! stands bit-packed in one part; the **prefix** in the other, as eight bits of its own and the rest in unary (the
//! Elias-Fano code). `width` is chosen so that neighbours are some 2^8 prefixes apart. Then
//!
//! - no bit is stored twice: a token takes 128 - log2 N + 2 bits or less, N being the tokens of the run;
//! - the prefixes alone, 10 bits a token, tell for all but 1 of some 250 tokens that are not there that they are not
//!   (a Bloom filter needs 12 bits for that, on top of the tokens), and where in the block one that is there must lie;
//! - a *slice* of 128 suffixes takes whole bytes (16 × width), and has a checksum of its own among the prefixes. So a
//!   hit costs one slice, not a block.

use crate::index::top;
use crate::token::Token;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// Tokens of a block.
pub const BLOCK_TOKENS: u64 = 4096;

/// Tokens of a slice, the unit in which suffixes are fetched and checked.
pub const SLICE_TOKENS: u64 = 128;

/// Bits of the prefix that stand as they are; the rest is in unary.
const LOW_BITS: u32 = 8;

/// The widest suffix: two tokens at the ends of all there are.
pub(super) const MAX_WIDTH: u8 = 119;

/// Most 64-bit words of unary code: a bit for each token, and less than two more for the steps between them.
pub(super) const MAX_WORDS: u8 = 192;

/// How a block is laid out: all sizes follow from these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Tokens in it.
    pub count: u64,
    /// Bits of a suffix.
    pub width: u8,
    /// 64-bit words of unary code.
    pub words: u8,
}

/// Positions in a block where a token may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maybe {
    /// The token's position in the batch.
    pub position: u32,
    /// The first place.
    pub first: u16,
    /// The end of the places: mostly the next.
    pub end: u16,
}

impl Shape {
    /// Whether a block can have this shape.
    pub(super) fn is_sound(&self) -> bool {
        let bits = u64::from(self.words) * 64;
        self.width <= MAX_WIDTH && self.words <= MAX_WORDS && bits >= self.count && bits < self.count * 3 + 64
    }

    /// Slices in it.
    pub fn slices(&self) -> u64 {
        self.count.div_ceil(SLICE_TOKENS)
    }

    /// Bytes of its prefixes, the slices' checksums included.
    pub fn prefix_bytes(&self) -> u64 {
        (self.slices() + u64::from(self.words)) * 8 + self.count
    }

    /// Bytes of its suffixes.
    pub fn suffix_bytes(&self) -> u64 {
        (self.count * u64::from(self.width)).div_ceil(8)
    }

    /// Where the suffixes of some slices lie, within those of the block.
    pub fn slice_bytes(&self, slices: Range<u64>) -> Range<u64> {
        let at = |slice: u64| (slice * SLICE_TOKENS * u64::from(self.width) / 8).min(self.suffix_bytes());
        at(slices.start)..at(slices.end)
    }

    /// The checksums of the slices, the low prefix bits, and the unary code.
    fn parts<'a>(&self, prefix: &'a [u8]) -> (&'a [[u8; 8]], &'a [u8], &'a [[u8; 8]]) {
        let (checks, rest) = prefix.split_at_checked(self.slices() as usize * 8).unwrap_or_default();
        let (lows, unary) = rest.split_at_checked(self.count as usize).unwrap_or_default();
        (checks.as_chunks().0, lows, unary.as_chunks().0)
    }

    /// Whether `bytes` are the suffixes of the slice.
    pub(super) fn check_slice(&self, slice: u64, prefix: &[u8], bytes: &[u8]) -> bool {
        self.parts(prefix).0.get(slice as usize).is_some_and(|sum| *sum == xxh3_64(bytes).to_le_bytes())
    }

    /// Where each of the ascending `tokens` (the first is at position `from` of the batch) may stand in a block.
    pub(super) fn probe(
        &self,
        base: u128,
        prefix: &[u8],
        tokens: &[Token],
        from: u32,
        found: &mut Vec<Maybe>,
    ) {
        let (_, lows, unary) = self.parts(prefix);
        let mut cursor = Cursor { unary, word: 0, zeros: 0 };
        for (position, token) in (from..).zip(tokens) {
            let Some(distance) = token.0.checked_sub(base) else { continue };
            let place = distance >> self.width;
            let (Ok(upper), low) = (u32::try_from(place >> LOW_BITS), place as u8) else { break };
            let Some(run) = cursor.find(upper) else { break };
            let start = run.start.wrapping_sub(upper as usize);
            let crowd = lows.get(start..start + run.len()).unwrap_or_default();
            // One or two, mostly; a crowd shares all its prefix bits but these.
            let (first, end) = if crowd.len() < 16 {
                let first = crowd.iter().position(|held| *held >= low).unwrap_or(crowd.len());
                let same = crowd.iter().skip(first).take_while(|held| **held == low).count();
                (first, first + same)
            } else {
                (crowd.partition_point(|held| *held < low), crowd.partition_point(|held| *held <= low))
            };
            if first < end {
                found.push(Maybe { position, first: (start + first) as u16, end: (start + end) as u16 });
            }
        }
    }

    /// The place of `token` among those of `maybe`, whose suffixes are among `bytes`, which begin with slice `slice`.
    pub(super) fn find(
        &self,
        base: u128,
        token: Token,
        maybe: &Maybe,
        slice: u64,
        bytes: &[u8],
    ) -> Option<u16> {
        let wanted = token.0.checked_sub(base)? & mask(self.width);
        let skipped = u64::from(self.width) * slice * SLICE_TOKENS;
        let at = |place: u16| {
            let bit = (u64::from(place) * u64::from(self.width)).wrapping_sub(skipped);
            packed(bytes, bit as usize, self.width)
        };
        let (mut low, mut high) = (maybe.first, maybe.end);
        while low < high {
            let middle = low + (high - low) / 2;
            if at(middle) < wanted { low = middle + 1 } else { high = middle }
        }
        (low < maybe.end && at(low) == wanted).then_some(low)
    }

    /// Appends all its tokens; `false` if they do not ascend.
    pub(super) fn decode(&self, base: u128, prefix: &[u8], suffix: &[u8], tokens: &mut Vec<Token>) -> bool {
        let (_, lows, unary) = self.parts(prefix);
        let (mut place, mut bit, mut ascends, mut last) = (0usize, 0usize, true, None);
        let mut lows = lows.iter();
        for (at, word) in unary.iter().enumerate() {
            let mut word = u64::from_le_bytes(*word);
            while word != 0 {
                let upper = (at * 64 + word.trailing_zeros() as usize).wrapping_sub(place);
                word &= word - 1;
                let Some(low) = lows.next() else { return false };
                let high = (upper as u128) << LOW_BITS | u128::from(*low);
                let distance = high << self.width | packed(suffix, bit, self.width);
                let token = Token(base.wrapping_add(distance));
                ascends &= last.is_none_or(|last| last < token);
                last = Some(token);
                tokens.push(token);
                place += 1;
                bit += usize::from(self.width);
            }
        }
        ascends && place as u64 == self.count
    }
}

/// What a block's distances are counted from: the highest 64 bits of its first token.
pub(super) fn base(first: u64) -> u128 {
    u128::from(first) << 64
}

/// Appends the two parts of a block of ascending `tokens`; gives its shape.
pub(super) fn encode(tokens: &[Token], prefixes: &mut Vec<u8>, suffixes: &mut Vec<u8>) -> Shape {
    let base = tokens.first().map_or(0, |first| self::base(top(*first)));
    let span = tokens.last().map_or(0, |last| last.0.wrapping_sub(base));
    let apart = span / (tokens.len() as u128).max(1);
    let width = apart.checked_ilog2().unwrap_or(0).saturating_sub(LOW_BITS) as u8;
    let start = suffixes.len();
    let mut lows = Vec::with_capacity(tokens.len());
    let mut unary: Vec<u64> = Vec::new();
    let (mut held, mut fill) = (0u128, 0u32);
    for (index, token) in tokens.iter().enumerate() {
        let distance = token.0.wrapping_sub(base);
        let place = distance >> width;
        lows.push(place as u8);
        let bit = index + (place >> LOW_BITS) as usize;
        unary.resize(unary.len().max(bit / 64 + 1), 0);
        if let Some(word) = unary.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
        // Less than a byte is held, and a suffix has at most 119 bits.
        held |= (distance & mask(width)) << fill;
        fill += u32::from(width);
        let whole = fill / 8;
        suffixes.extend(held.to_le_bytes().iter().take(whole as usize));
        held >>= whole * 8;
        fill %= 8;
    }
    if fill > 0 {
        suffixes.push(held as u8);
    }
    let shape = Shape { count: tokens.len() as u64, width, words: unary.len() as u8 };
    let written = suffixes.get(start..).unwrap_or_default();
    for slice in 0..shape.slices() {
        let range = shape.slice_bytes(slice..slice + 1);
        let bytes = written.get(range.start as usize..range.end as usize).unwrap_or_default();
        prefixes.extend_from_slice(&xxh3_64(bytes).to_le_bytes());
    }
    prefixes.extend_from_slice(&lows);
    prefixes.extend(unary.iter().flat_map(|word| word.to_le_bytes()));
    shape
}

/// Walks through a unary code: ones are tokens, zeros steps of the prefix.
struct Cursor<'a> {
    unary: &'a [[u8; 8]],
    /// The word it stands at, and the zeros before that.
    word: usize,
    zeros: u32,
}

impl Cursor<'_> {
    /// The ones that stand behind `upper` zeros, as positions in the code; `None` beyond the end. `upper` never falls.
    fn find(&mut self, upper: u32) -> Option<Range<usize>> {
        let start = loop {
            let word = self.unary.get(self.word).copied().map(u64::from_le_bytes)?;
            let here = word.count_zeros();
            let Some(wanted) = upper.checked_sub(self.zeros).filter(|wanted| *wanted > 0) else {
                // Only the very first tokens have no zero before them.
                break self.word * 64;
            };
            if here >= wanted {
                let mut zeros = !word;
                for _ in 1..wanted {
                    zeros &= zeros - 1;
                }
                break self.word * 64 + zeros.trailing_zeros() as usize + 1;
            }
            self.zeros += here;
            self.word += 1;
        };
        let mut end = start;
        while let Some(word) = self.unary.get(end / 64) {
            let ones = (u64::from_le_bytes(*word) >> (end % 64)).trailing_ones() as usize;
            end += ones;
            if ones == 0 || !end.is_multiple_of(64) {
                break;
            }
        }
        Some(start..end)
    }
}

fn mask(width: u8) -> u128 {
    (1 << width) - 1
}

/// `width` bits from bit `bit` on; zeros beyond the end.
pub(super) fn packed(bytes: &[u8], bit: usize, width: u8) -> u128 {
    let rest = bytes.get(bit / 8..).unwrap_or_default();
    let word = match rest.first_chunk() {
        Some(word) => u128::from_le_bytes(*word),
        None => {
            let mut word = [0; 16];
            word.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
            u128::from_le_bytes(word)
        }
    };
    word >> (bit % 8) & mask(width)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{any_token, any_tokens, ascending, token};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn encoded(tokens: &[Token]) -> (Shape, Vec<u8>, Vec<u8>) {
        let (mut prefixes, mut suffixes) = (Vec::new(), Vec::new());
        let shape = encode(tokens, &mut prefixes, &mut suffixes);
        assert!(shape.is_sound(), "{shape:?}");
        assert_eq!(
            (prefixes.len() as u64, suffixes.len() as u64),
            (shape.prefix_bytes(), shape.suffix_bytes())
        );
        (shape, prefixes, suffixes)
    }

    /// The tokens asked for that the block holds, as a reader finds them.
    fn known(tokens: &[Token], asked: &[Token]) -> Vec<Token> {
        let (shape, prefixes, suffixes) = encoded(tokens);
        let base = base(top(tokens[0]));
        let mut found = Vec::new();
        shape.probe(base, &prefixes, asked, 0, &mut found);
        let place = |maybe: &Maybe| {
            let slice = u64::from(maybe.first) / SLICE_TOKENS;
            let bytes = &suffixes[shape.slice_bytes(slice..slice + 1).start as usize..];
            let place = shape.find(base, asked[maybe.position as usize], maybe, slice, bytes)?;
            assert_eq!(tokens[usize::from(place)], asked[maybe.position as usize]);
            Some(tokens[usize::from(place)])
        };
        found.iter().filter_map(place).collect()
    }

    proptest! {
        #[test]
        fn a_block_holds_exactly_what_was_put_into_it(
            held in any_tokens(300), others in any_tokens(100), near in proptest::collection::vec((any::<prop::sample::Index>(), -300i64..300), 0..50)
        ) {
            let held: BTreeSet<Token> = held.into_iter().collect();
            prop_assume!(!held.is_empty());
            let tokens: Vec<Token> = held.iter().copied().collect();
            let (shape, prefixes, suffixes) = encoded(&tokens);
            let mut decoded = Vec::new();
            prop_assert!(shape.decode(base(top(tokens[0])), &prefixes, &suffixes, &mut decoded));
            prop_assert_eq!(&decoded, &tokens);
            let near = near.iter().map(|(at, off)| Token(at.get(&tokens).0.wrapping_add_signed(i128::from(*off))));
            let asked: BTreeSet<Token> = tokens.iter().step_by(2).copied().chain(others).chain(near).collect();
            let asked: Vec<Token> = asked.into_iter().collect();
            let expected: Vec<Token> = asked.iter().filter(|token| held.contains(token)).copied().collect();
            prop_assert_eq!(known(&tokens, &asked), expected);
        }

        #[test]
        fn any_two_tokens_make_a_block(a in any_token(), b in any_token()) {
            prop_assume!(a != b);
            let tokens = [a.min(b), a.max(b)];
            prop_assert_eq!(known(&tokens, &tokens), tokens);
        }

        #[test]
        fn no_bytes_are_more_than_a_wrong_answer(
            count in 1u64..4097, width in 0u8..120, words in 0u8..193, bytes in proptest::collection::vec(any::<u8>(), 0..8000),
            asked in any_tokens(30), first in any::<u64>()
        ) {
            let shape = Shape { count, width, words };
            let mut asked = asked;
            asked.sort_unstable();
            let (mut found, mut tokens) = (Vec::new(), Vec::new());
            shape.probe(base(first), &bytes, &asked, 0, &mut found);
            for maybe in &found {
                let _ = shape.find(base(first), Token(3), maybe, 0, &bytes);
            }
            shape.decode(base(first), &bytes, &bytes, &mut tokens);
            prop_assert!(tokens.len() as u64 <= count);
        }
    }

    #[test]
    fn crowds_and_full_blocks_are_found_too() {
        let uniform = ascending(0, BLOCK_TOKENS);
        let mut crowd: Vec<Token> = (0..4094).map(|i| Token((77 << 120) | (i * i))).collect();
        crowd.extend([Token(5), Token(u128::MAX)]);
        crowd.sort_unstable();
        for tokens in [uniform, crowd] {
            let mut asked: Vec<Token> = tokens.iter().map(|token| Token(token.0 ^ 2)).collect();
            asked.extend(&tokens);
            asked.sort_unstable();
            asked.dedup();
            let held: BTreeSet<Token> = tokens.iter().copied().collect();
            let expected: Vec<Token> = asked.iter().filter(|token| held.contains(token)).copied().collect();
            assert_eq!(known(&tokens, &asked), expected);
        }
    }

    #[test]
    fn prefixes_are_few_bits_and_decide_most_strangers() {
        // A block of a run of 2^24 tokens.
        let tokens: Vec<Token> =
            ascending(0, 1 << 17).into_iter().map(|token| Token(token.0 >> 7)).take(4096).collect();
        let (shape, prefixes, suffixes) = encoded(&tokens);
        let bits = (prefixes.len() + suffixes.len()) as f64 * 8.0 / 4096.0;
        assert!(bits < 128.0 - 24.0 + 2.6, "{bits} bits a token");
        assert!(prefixes.len() as f64 * 8.0 / 4096.0 < 11.6);
        let span = tokens[4095].0 - tokens[0].0;
        let mut strangers: Vec<Token> =
            (0..100_000).map(|i| Token(tokens[0].0 + token(i + 1_000_000).0 % span)).collect();
        strangers.sort_unstable();
        let mut found = Vec::new();
        shape.probe(base(top(tokens[0])), &prefixes, &strangers, 0, &mut found);
        let share = found.len() as f64 / strangers.len() as f64;
        assert!((0.001..0.006).contains(&share), "{share} of the strangers passed");
    }
}
