//! Identity: the key columns of a row become one 128-bit token.
//!
//! A [`TokenSpec`] (pinned in `table.json`) says which columns make up the key, of what kind each is, and which keyed
//! hash is used. It is bound to the schema of each input once ([`TokenSpec::bind`]); the [`BoundKey`] then turns record
//! batches into tokens. Promises: the same value gives the same token from every Arrow type that can carry it;
//! different keys have different canonical bytes ([`encode`]); no input can make it panic, and there is no I/O here.

mod bound;
mod column;
pub mod encode;
#[cfg(test)]
mod golden;
mod hash;
mod json;
mod key;
mod kind;
mod layout;
#[cfg(test)]
mod properties;
mod sip;
mod text;

pub use bound::{BoundKey, Tokens};
pub use hash::{TokenHash, TokenKey};
pub(crate) use key::resolve;
pub use key::{KeyColumn, TokenSpec};
pub use kind::KeyKind;

use serde::{Deserialize, Serialize};
use std::fmt;

/// The 128-bit keyed digest of a key. Ordered as an unsigned number, which is also the order of its 16
/// big-endian bytes in a token run.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Token(pub u128);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token({self})")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The running multiset hash of tokens: how many, and their sum modulo 2^128. Tokens are pseudo-random, so two
/// multisets with the same count and sum are, short of a chance of 2^-128, the same; adding and taking away commute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct TokenSum {
    /// How many tokens.
    pub count: u64,
    /// Their sum modulo 2^128, as 32 hexadecimal digits in JSON.
    #[serde(with = "hex128")]
    pub sum: u128,
}

impl TokenSum {
    /// The sum of `tokens`.
    pub fn of(tokens: &[Token]) -> Self {
        tokens.iter().fold(Self::default(), |sum, token| sum.plus(Self { count: 1, sum: token.0 }))
    }

    /// This multiset together with another.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { count: self.count.wrapping_add(other.count), sum: self.sum.wrapping_add(other.sum) }
    }
}

/// 128-bit numbers as 32 hexadecimal digits in JSON.
pub(crate) mod hex128 {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(value: &u128, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{value:032x}"))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u128, D::Error> {
        let text = String::deserialize(d)?;
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(D::Error::custom("expected 32 hexadecimal digits"));
        }
        u128::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}
