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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_token_shows_as_32_digits() {
        let digits = format!("{}f7", "0".repeat(30));
        assert_eq!(
            (format!("{}", Token(0xf7)), format!("{:?}", Token(0xf7))),
            (digits.clone(), format!("Token({digits})"))
        );
    }

    proptest! {
        #[test]
        fn sums_of_tokens_add_up_in_any_order(tokens in prop::collection::vec(any::<u128>(), 0..20), at in any::<prop::sample::Index>()) {
            let tokens: Vec<Token> = tokens.into_iter().map(Token).collect();
            let (one, other) = tokens.split_at(at.index(tokens.len() + 1));
            let sum = TokenSum::of(&tokens);
            prop_assert_eq!(sum.count, tokens.len() as u64);
            prop_assert_eq!(sum.sum, tokens.iter().fold(0u128, |sum, token| sum.wrapping_add(token.0)));
            prop_assert_eq!(TokenSum::of(other).plus(TokenSum::of(one)), sum);
        }

        #[test]
        fn a_number_of_128_bits_is_exactly_32_digits(number in any::<u128>()) {
            let sum = TokenSum { count: 1, sum: number };
            let json = serde_json::to_string(&sum).unwrap();
            prop_assert_eq!(&json, &format!("{{\"count\":1,\"sum\":\"{number:032x}\"}}"));
            prop_assert_eq!(serde_json::from_str::<TokenSum>(&json).unwrap(), sum);
        }
    }

    #[test]
    fn what_is_not_32_digits_is_no_number_of_128_bits() {
        let of =
            |digits: &str| serde_json::from_str::<TokenSum>(&format!("{{\"count\":0,\"sum\":\"{digits}\"}}"));
        assert!(of(&"F".repeat(32)).is_ok());
        for wrong in ["0".repeat(31), "0".repeat(33), format!("+{}", "0".repeat(31)), "g".repeat(32)] {
            assert!(of(&wrong).is_err(), "{wrong}");
        }
    }
}
