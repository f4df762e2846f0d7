//! The index: the exact set of all accepted tokens, as sorted files and tables in memory.
//!
//! Pure and synchronous: bytes come in, bytes and plans go out; no I/O, no clock, no randomness. The floor above
//! fetches what a plan asks for and hands the bytes back. One batch of rows is judged like this:
//!
//! 1. [`SortedBatch`] sorts its tokens once, with their rows; repeats within the batch fall out.
//! 2. [`lookup`]: the prefixes of each live run name the candidates, a superset of what the run holds, and the suffixes of
//!    these decide them.
//! 3. [`set`]: what is left is new; the session's own set remembers it.
//!
//! A prefix alone never drops a row, every byte of a run is checked before it is believed, and bytes that are
//! not what they must be are an [`Error::Corrupt`](crate::Error::Corrupt), never a panic.

pub mod batch;
pub mod lookup;
pub mod merge;
pub mod run;
pub mod set;

pub use batch::SortedBatch;
pub use lookup::{Hit, Limits};
pub use merge::Merge;
pub use run::{RunMeta, RunSummary, RunWriter};
pub use set::SessionSet;

use crate::token::Token;

/// The 64 highest bits of a token: they choose its place in a run and a table.
pub(crate) fn top(token: Token) -> u64 {
    (token.0 >> 64) as u64
}

/// The first index from `from` on whose item is not `below`, quick if it is near; items are `below` up to a point.
pub(crate) fn gallop<T>(items: &[T], from: usize, below: impl Fn(&T) -> bool) -> usize {
    let rest = items.get(from..).unwrap_or_default();
    let mut step = 1;
    while rest.get(step - 1).is_some_and(&below) {
        step *= 2;
    }
    let (low, high) = (step / 2, step.min(rest.len()));
    from + low + rest.get(low..high).unwrap_or_default().partition_point(below)
}

#[cfg(test)]
pub(crate) mod samples {
    //! Tokens for tests: uniform ones, and those that break what holds for uniform ones.

    use crate::token::Token;
    use proptest::prelude::*;

    /// The `i`-th of a sequence of distinct, evenly spread tokens.
    pub(crate) fn token(i: u64) -> Token {
        Token(u128::from(mix(i)) << 64 | u128::from(mix(!i)))
    }

    /// A bijective scrambling of 64 bits.
    fn mix(i: u64) -> u64 {
        let z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// `n` distinct tokens, ascending, the first of the sequence from `from`.
    pub(crate) fn ascending(from: u64, n: u64) -> Vec<Token> {
        let mut tokens: Vec<Token> = (from..from + n).map(token).collect();
        tokens.sort_unstable();
        tokens
    }

    /// One token: uniform, extreme, or from a crowd that shares its high or its low bits.
    pub(crate) fn any_token() -> impl Strategy<Value = Token> {
        prop_oneof![
            4 => any::<u128>(),
            1 => Just(0u128),
            1 => Just(u128::MAX),
            2 => (0u128..64).prop_map(|low| 7 << 64 | low),
            2 => (0u128..64).prop_map(|high| high << 64 | 7),
            1 => (0u128..64).prop_map(|high| high << 116),
        ]
        .prop_map(Token)
    }

    /// Up to `n` tokens, repeats included.
    pub(crate) fn any_tokens(n: usize) -> impl Strategy<Value = Vec<Token>> {
        proptest::collection::vec(any_token(), 0..n)
    }
}
