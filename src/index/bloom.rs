//! A blocked Bloom filter of tokens: never a false "no", a false "yes" for about 1 token in 180 at 12 bits each.
//!
//! The filter is an array of 256-bit lines (any number of them); a token sets one bit in each of the eight 32-bit
//! words of one line. Tokens are already pseudo-random, so nothing is hashed again:
//!
//! - the **line** comes from the 64 highest bits, scaled from the range of tokens the filter serves onto its lines.
//!   Lines therefore ascend with tokens: a sorted batch walks the filter in order (2-3 times faster than at random
//!   on filters beyond the cache), and a run's filter is filled in order while the run is written;
//! - the **bits** come from the 40 lowest bits, five for each word.
//!
//! As raw bytes (little-endian words) it has no header; its [`Shape`] travels in the footer of the run.

use super::top;
use crate::error::{Error, Result};
use crate::token::Token;
use std::ops::RangeInclusive;

/// Bytes of one line.
pub const LINE_BYTES: u64 = 32;

/// Bits per token unless told otherwise: a false "yes" for 0.54 % of the tokens that are not there.
pub const BITS_PER_TOKEN: u32 = 12;

/// Tokens looked at together: their lines are fetched from memory at the same time.
const TOGETHER: usize = 32;

/// How tokens are spread over the lines of a filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    first: u64,
    last: u64,
    lines: u64,
    shift: u32,
    scale: u64,
}

impl Shape {
    /// `lines` lines that serve tokens whose 64 highest bits lie in `first..=last` (others share the lines at the
    /// edges: allowed, only less selective). `None` if there is no line, too many, or `first > last`.
    pub fn new(first: u64, last: u64, lines: u64) -> Option<Self> {
        let span = last.checked_sub(first)?.max(1);
        if lines == 0 || lines > 1 << 56 {
            return None;
        }
        // With the span shifted up to fill 64 bits, `place * scale >> 64` is below `lines` and uses all of them.
        let shift = span.leading_zeros();
        let scale = (u128::from(lines) << 64) / (u128::from(span << shift) + 1);
        Some(Self { first, last, lines, shift, scale: u64::try_from(scale).ok()? })
    }

    /// The shape for `expected` tokens within `within` at `bits_per_token`.
    pub fn for_tokens(expected: u64, bits_per_token: u32, within: &RangeInclusive<Token>) -> Option<Self> {
        let lines = (u128::from(expected) * u128::from(bits_per_token)).div_ceil(256).max(1);
        Self::new(top(*within.start()), top(*within.end()), u64::try_from(lines).ok()?)
    }

    /// The 64 highest bits of the lowest and highest token it serves.
    pub fn served(&self) -> (u64, u64) {
        (self.first, self.last)
    }

    /// Number of lines.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Size in bytes, in memory as in the file.
    pub fn bytes(&self) -> u64 {
        self.lines * LINE_BYTES
    }

    fn line_of(&self, token: Token) -> usize {
        let place = top(token).clamp(self.first, self.last) - self.first;
        ((u128::from(place << self.shift) * u128::from(self.scale)) >> 64) as usize
    }
}

/// A Bloom filter in memory.
#[derive(Clone, PartialEq, Eq)]
pub struct Bloom {
    shape: Shape,
    lines: Vec<Line>,
}

/// 256 bits that never straddle two cache lines. Each half of a word is one 32-bit word of the format.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[repr(align(32))]
struct Line([u64; 4]);

impl Bloom {
    /// An empty filter for `expected` tokens within `within`. More tokens, or tokens beyond, are never missed but
    /// make it less selective.
    pub fn new(expected: u64, bits_per_token: u32, within: &RangeInclusive<Token>) -> Result<Self> {
        let shape = Shape::for_tokens(expected, bits_per_token, within).ok_or_else(|| {
            Error::Internal(format!("no Bloom filter for {expected} tokens within {within:?} can be made"))
        })?;
        let mut bloom = Self::reserve(shape)?;
        bloom.lines.resize(shape.lines as usize, Line::default());
        Ok(bloom)
    }

    /// The filter of ascending `tokens`.
    pub fn build(tokens: &[Token], bits_per_token: u32) -> Result<Self> {
        let within = match tokens {
            [first, .., last] if first <= last => *first..=*last,
            [only] => *only..=*only,
            _ => Token(0)..=Token(u128::MAX),
        };
        let mut bloom = Self::new(tokens.len() as u64, bits_per_token, &within)?;
        tokens.iter().for_each(|token| bloom.insert(*token));
        Ok(bloom)
    }

    /// A filter without lines yet, to be filled by [`Self::push_bytes`].
    pub(crate) fn reserve(shape: Shape) -> Result<Self> {
        let mut lines = Vec::new();
        usize::try_from(shape.lines).ok().and_then(|n| lines.try_reserve_exact(n).ok()).ok_or_else(|| {
            Error::Refused(format!(
                "a Bloom filter of {} bytes does not fit into memory; lower the bits per token",
                shape.bytes()
            ))
        })?;
        Ok(Self { shape, lines })
    }

    /// As [`Self::reserve`], for only some of the lines.
    pub(crate) fn piece(shape: Shape) -> Self {
        Self { shape, lines: Vec::new() }
    }

    /// Adds the next lines; `false` if they are not whole lines or too many.
    pub(crate) fn push_bytes(&mut self, bytes: &[u8]) -> bool {
        let (words, rest) = bytes.as_chunks::<8>();
        let (lines, over) = words.as_chunks::<4>();
        let fits = (self.lines.len() as u64).saturating_add(lines.len() as u64) <= self.shape.lines;
        if !rest.is_empty() || !over.is_empty() || !fits {
            return false;
        }
        self.lines.extend(lines.iter().map(|line| Line(line.map(u64::from_le_bytes))));
        true
    }

    /// A filter from its raw bytes; `None` if they are not exactly as many as `shape` has.
    pub fn from_bytes(shape: Shape, bytes: &[u8]) -> Result<Option<Self>> {
        if bytes.len() as u64 != shape.bytes() {
            return Ok(None);
        }
        let mut bloom = Self::reserve(shape)?;
        Ok(bloom.push_bytes(bytes).then_some(bloom))
    }

    /// The raw bytes of at most `lines` lines from line `from` on, so that a large filter is never held twice;
    /// empty beyond its end.
    pub fn bytes(&self, from: usize, lines: usize) -> Vec<u8> {
        let piece = self.lines.get(from..).unwrap_or_default();
        let piece = piece.get(..lines).unwrap_or(piece);
        let mut bytes = Vec::with_capacity(size_of_val(piece));
        for word in piece.iter().flat_map(|line| line.0) {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// How tokens are spread over its lines.
    pub fn shape(&self) -> Shape {
        self.shape
    }

    /// Bytes of memory it holds.
    pub fn memory(&self) -> usize {
        self.lines.capacity() * size_of::<Line>() + size_of::<Self>()
    }

    /// Remembers a token.
    pub fn insert(&mut self, token: Token) {
        let line = self.shape.line_of(token);
        if let Some(Line(words)) = self.lines.get_mut(line) {
            for (word, mask) in words.iter_mut().zip(masks(token)) {
                *word |= mask;
            }
        }
    }

    /// Whether the token may have been inserted; `false` is certain.
    pub fn may_hold(&self, token: Token) -> bool {
        self.lines.get(self.shape.line_of(token)).is_none_or(|line| line.has_all(masks(token)))
    }

    /// Appends to `survivors` the position of each token that may have been inserted. Fastest on ascending tokens.
    pub fn probe_batch(&self, tokens: &[Token], survivors: &mut Vec<u32>) {
        self.probe(0, tokens, 0, survivors);
    }

    /// As [`Self::probe_batch`] with ascending `tokens`, but these lines are only those from line `from` on: looks at
    /// the tokens whose line is among them and leaves out all others.
    pub(crate) fn probe_piece(&self, from: u64, tokens: &[Token], survivors: &mut Vec<u32>) {
        let from = from as usize;
        let end = from.saturating_add(self.lines.len());
        let start = tokens.partition_point(|token| self.shape.line_of(*token) < from);
        let end = tokens.partition_point(|token| self.shape.line_of(*token) < end);
        self.probe(from, tokens.get(start..end).unwrap_or_default(), start as u32, survivors);
    }

    /// Probes lines that begin with line `from`; the first token is at position `base`.
    fn probe(&self, from: usize, tokens: &[Token], base: u32, survivors: &mut Vec<u32>) {
        let line = |token: &Token| self.lines.get(self.shape.line_of(*token).wrapping_sub(from));
        let mut base = base;
        for together in tokens.chunks(TOGETHER) {
            // Half of each line without a branch, so that the processor fetches many lines at a time; few survive
            // it, and their line is at hand then.
            let mut maybe = 0u32;
            for (bit, token) in together.iter().enumerate() {
                let half = line(token).is_none_or(|line| line.has_half(masks(*token)));
                maybe |= u32::from(half) << bit;
            }
            while maybe != 0 {
                let bit = maybe.trailing_zeros();
                maybe &= maybe - 1;
                let token = together.get(bit as usize);
                if token.is_some_and(|token| line(token).is_none_or(|line| line.has_all(masks(*token)))) {
                    survivors.push(base.wrapping_add(bit));
                }
            }
            base = base.wrapping_add(TOGETHER as u32);
        }
    }
}

impl std::fmt::Debug for Bloom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bloom").field("shape", &self.shape).finish_non_exhaustive()
    }
}

impl Line {
    fn has_half(&self, masks: [u64; 4]) -> bool {
        (!self.0[0] & masks[0]) | (!self.0[1] & masks[1]) == 0
    }

    fn has_all(&self, masks: [u64; 4]) -> bool {
        self.0.iter().zip(masks).fold(0, |missing, (word, mask)| missing | (!word & mask)) == 0
    }
}

/// The token's bits: one in each half of each word, from five bits of the token each.
fn masks(token: Token) -> [u64; 4] {
    let bits = token.0 as u64;
    let pair = |at: u32| 1 << (bits >> at & 31) | 1 << (32 + (bits >> (at + 5) & 31));
    [pair(0), pair(10), pair(20), pair(30)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{any_token, any_tokens, ascending, token};
    use proptest::prelude::*;

    fn survivors(bloom: &Bloom, tokens: &[Token]) -> Vec<u32> {
        let mut found = Vec::new();
        bloom.probe_batch(tokens, &mut found);
        found
    }

    proptest! {
        #[test]
        fn what_was_inserted_is_never_denied(mut tokens in any_tokens(200), bits in 1u32..20) {
            tokens.sort();
            let bloom = Bloom::build(&tokens, bits).unwrap();
            prop_assert_eq!(survivors(&bloom, &tokens).len(), tokens.len());
        }

        #[test]
        fn what_lies_beyond_the_served_range_is_never_denied_either(
            tokens in any_tokens(200), a in any_token(), b in any_token()
        ) {
            let mut bloom = Bloom::new(9, 12, &(a.min(b)..=a.max(b))).unwrap();
            tokens.iter().for_each(|token| bloom.insert(*token));
            prop_assert_eq!(survivors(&bloom, &tokens).len(), tokens.len());
        }

        #[test]
        fn a_batch_is_answered_as_its_tokens_are_one_by_one(mut held in any_tokens(60), asked in any_tokens(200)) {
            held.sort();
            let bloom = Bloom::build(&held, 4).unwrap();
            let single: Vec<u32> = (0..).zip(&asked).filter(|(_, t)| bloom.may_hold(**t)).map(|(i, _)| i).collect();
            prop_assert_eq!(survivors(&bloom, &asked), single);
        }

        #[test]
        fn every_line_is_within_the_filter_and_lines_ascend(
            a in any::<u64>(), b in any::<u64>(), lines in 1u64..1 << 40, mut tokens in any_tokens(50)
        ) {
            let shape = Shape::new(a.min(b), a.max(b), lines).unwrap();
            tokens.sort();
            let at: Vec<usize> = tokens.iter().map(|token| shape.line_of(*token)).collect();
            prop_assert!(at.is_sorted());
            prop_assert!(at.iter().all(|line| (*line as u64) < lines));
        }

        #[test]
        fn bytes_and_back_is_the_same_filter(mut tokens in any_tokens(200), cut in 0usize..40) {
            tokens.sort();
            let bloom = Bloom::build(&tokens, 12).unwrap();
            let bytes = [bloom.bytes(0, cut), bloom.bytes(cut, usize::MAX)].concat();
            prop_assert_eq!(bytes.len() as u64, bloom.shape().bytes());
            prop_assert_eq!(Bloom::from_bytes(bloom.shape(), &bytes).unwrap(), Some(bloom.clone()));
            prop_assert!(Bloom::from_bytes(bloom.shape(), &bytes[1..]).unwrap().is_none());
        }
    }

    #[test]
    fn false_alarms_are_as_rare_as_promised_in_wide_and_narrow_ranges() {
        let wide = ascending(0, 100_000);
        let narrow: Vec<Token> = wide.iter().map(|t| Token(5 << 120 | t.0 >> 29)).collect();
        for (held, narrow) in [(wide, false), (narrow, true)] {
            let bloom = Bloom::build(&held, BITS_PER_TOKEN).unwrap();
            let mut others: Vec<Token> = (1 << 40..(1 << 40) + 200_000).map(token).collect();
            if narrow {
                others.iter_mut().for_each(|t| *t = Token(5 << 120 | t.0 >> 29));
            }
            let share = survivors(&bloom, &others).len() as f64 / others.len() as f64;
            assert!((0.004..0.007).contains(&share), "{share} of absent tokens passed");
        }
    }

    #[test]
    fn hostile_shapes_are_refused() {
        assert_eq!(Shape::new(0, 9, 0), None);
        assert_eq!(Shape::new(9, 0, 1), None);
        assert_eq!(Shape::new(0, 9, u64::MAX), None);
        assert!(Bloom::reserve(Shape::new(0, 9, 1 << 56).unwrap()).is_err());
        assert!(Bloom::new(u64::MAX, u32::MAX, &(Token(0)..=Token(u128::MAX))).is_err());
    }
}
