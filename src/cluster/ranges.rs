//! Ranges of the token space: what decides which task judges a row, and how it is proved that no two tasks judged the same.

use base64::Engine;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::token::Token;

/// The leading bits of a token that tell its range. Fine enough for the ranges to come out even among hundreds of tasks,
/// coarse enough for a range to be one stretch of a large run.
const BITS: u32 = 14;

/// How many ranges there are.
const COUNT: usize = 1 << BITS;

/// The range that a token lies in.
pub(super) fn of(token: Token) -> u16 {
    (token.0 >> (u128::BITS - BITS)) as u16
}

/// A set of ranges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ranges(Vec<u64>);

impl Default for Ranges {
    fn default() -> Self {
        Self(vec![0; COUNT / u64::BITS as usize])
    }
}

impl Ranges {
    /// Adds the range of each token.
    pub(super) fn add_tokens(&mut self, tokens: &[Token]) {
        for token in tokens {
            let range = of(*token);
            if let Some(word) = self.0.get_mut(usize::from(range) / u64::BITS as usize) {
                *word |= 1 << (u32::from(range) % u64::BITS);
            }
        }
    }

    /// Adds another set; `false` if the two have a range in common.
    #[must_use]
    pub(super) fn add_disjoint(&mut self, other: &Self) -> bool {
        let disjoint = self.0.iter().zip(&other.0).all(|(ours, theirs)| ours & theirs == 0);
        self.0.iter_mut().zip(&other.0).for_each(|(ours, theirs)| *ours |= theirs);
        disjoint
    }
}

impl Serialize for Ranges {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.0.iter().flat_map(|word| word.to_le_bytes()).collect();
        s.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for Ranges {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(D::Error::custom)?;
        let (words, rest) = bytes.as_chunks::<8>();
        if !rest.is_empty() || bytes.len() * 8 != COUNT {
            return Err(D::Error::custom(format!("a set of ranges has {COUNT} bits")));
        }
        Ok(Self(words.iter().map(|word| u64::from_le_bytes(*word)).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn a_set_knows_whether_it_meets_another(
            ours in proptest::collection::vec(any::<u128>(), 0..200), theirs in proptest::collection::vec(any::<u128>(), 0..200)
        ) {
            let of_all = |tokens: &[u128]| tokens.iter().map(|token| of(Token(*token))).collect::<BTreeSet<_>>();
            let set = |tokens: &[u128]| {
                let mut set = Ranges::default();
                set.add_tokens(&tokens.iter().map(|token| Token(*token)).collect::<Vec<_>>());
                set
            };
            let (mut whole, other) = (set(&ours), set(&theirs));
            prop_assert_eq!(whole.add_disjoint(&other), of_all(&ours).is_disjoint(&of_all(&theirs)));
            prop_assert_eq!(&whole, &set(&[ours, theirs].concat()));
            let json = serde_json::to_string(&whole).unwrap();
            prop_assert_eq!(serde_json::from_str::<Ranges>(&json).unwrap(), whole);
        }
    }

    #[test]
    fn ranges_follow_the_order_of_tokens() {
        assert_eq!((of(Token(0)), of(Token(u128::MAX))), (0, COUNT as u16 - 1));
    }
}
