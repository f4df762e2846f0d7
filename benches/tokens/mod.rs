//! Tokens for the benches: evenly spread, distinct, the same in every run.

use dedupe::token::Token;

/// The `i`-th token.
pub(crate) fn token(i: u64) -> Token {
    Token(u128::from(mix(i)) << 64 | u128::from(mix(!i)))
}

/// The `n` tokens from the `from`-th on, ascending.
pub(crate) fn ascending(from: u64, n: u64) -> Vec<Token> {
    let mut tokens: Vec<Token> = (from..from + n).map(token).collect();
    tokens.sort_unstable();
    tokens
}

fn mix(i: u64) -> u64 {
    let z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
