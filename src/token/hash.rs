//! The keyed hash that turns canonical key bytes into a token.
//!
//! Promise: for one table key the same bytes give the same token on every machine, for ever. Without the key nobody can
//! prepare two keys that collide under SipHash; XXH3 is faster and gives no such promise.

use super::{Token, sip::Sip};
use crate::{error::Result, random};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use siphasher::sip128::SipHasher24;
use std::{fmt, str::FromStr};
use xxhash_rust::xxh3::xxh3_128_with_secret;

/// Which keyed hash makes a table's tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum TokenHash {
    /// SipHash-2-4 with 128 bits: a keyed pseudo-random function, safe against keys made to collide.
    #[default]
    #[serde(rename = "siphash-2-4-128")]
    SipHash24,
    /// XXH3 with 128 bits and a secret drawn from the table's key: faster, for producers that one trusts.
    #[serde(rename = "xxh3-128")]
    Xxh3,
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SipHash24 => "siphash-2-4-128",
            Self::Xxh3 => "xxh3-128",
        })
    }
}

impl FromStr for TokenHash {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "siphash-2-4-128" => Ok(Self::SipHash24),
            "xxh3-128" => Ok(Self::Xxh3),
            other => Err(format!("unknown token hash \"{other}\"; there are siphash-2-4-128 and xxh3-128")),
        }
    }
}

/// The random key of a table's tokens. It is kept in `table.json` and never shown.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenKey([u8; 16]);

impl TokenKey {
    /// A fresh random key.
    pub fn random() -> Result<Self> {
        Ok(Self(random::bits128()?.to_be_bytes()))
    }

    /// The key of these bytes, for tests and for tables made elsewhere.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey(…)")
    }
}

impl Serialize for TokenKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&format!("{:032x}", u128::from_be_bytes(self.0)))
    }
}

impl<'de> Deserialize<'de> for TokenKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The message of the failure must not repeat the text: it may be a key with a slip of the hand.
        let key = super::hex128::deserialize(deserializer)
            .map_err(|_| de::Error::custom("a token key is 32 hexadecimal digits"))?;
        Ok(Self(key.to_be_bytes()))
    }
}

/// A hash with its key, ready for use.
#[derive(Clone)]
pub(super) enum Hasher {
    Sip(SipHasher24, Sip),
    Xxh3(Box<[u8; 192]>),
}

impl Hasher {
    pub(super) fn new(hash: TokenHash, key: &TokenKey) -> Self {
        let sip = SipHasher24::new_with_key(&key.0);
        match hash {
            TokenHash::SipHash24 => Self::Sip(sip, Sip::new(&sip)),
            TokenHash::Xxh3 => Self::Xxh3(Box::new(secret(&sip))),
        }
    }

    #[inline]
    pub(super) fn token(&self, bytes: &[u8]) -> Token {
        match self {
            Self::Sip(sip, _) => Token(sip.hash(bytes).into()),
            Self::Xxh3(secret) => Token(xxh3_128_with_secret(bytes, secret.as_slice())),
        }
    }

    /// The hash that takes a value without a buffer, where there is one.
    #[inline]
    pub(super) fn direct(&self) -> Option<Sip> {
        match self {
            Self::Sip(_, sip) => Some(*sip),
            Self::Xxh3(_) => None,
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sip(..) => "Sip(…)",
            Self::Xxh3(_) => "Xxh3(…)",
        })
    }
}

/// XXH3 takes a seed of 64 bits or a secret of any size. The secret is the table's key stretched: block `i` of 16 bytes is
/// the SipHash-2-4-128 of `dedupe xxh3 secret` followed by the byte `i`, little-endian.
fn secret(sip: &SipHasher24) -> [u8; 192] {
    let mut secret = [0; 192];
    for (i, block) in (0_u8..).zip(secret.chunks_exact_mut(16)) {
        let mut message = b"dedupe xxh3 secret".to_vec();
        message.push(i);
        block.copy_from_slice(&u128::from(sip.hash(&message)).to_le_bytes());
    }
    secret
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn counting() -> TokenKey {
        TokenKey::from_bytes(std::array::from_fn(|i| i as u8))
    }

    #[test]
    fn siphash_gives_the_published_vectors() {
        let hasher = Hasher::new(TokenHash::SipHash24, &counting());
        let bytes = |input: &[u8]| hasher.token(input).0.to_le_bytes();
        // The first two of `vectors_sip128` of the reference implementation, as its output bytes.
        let empty = 0xa381_7f04_ba25_a8e6_6df6_7214_c755_0293_u128.to_be_bytes();
        let zero = 0xda87_c1d8_6b99_af44_3476_5911_9b22_fc45_u128.to_be_bytes();
        assert_eq!(bytes(&[]), empty);
        assert_eq!(bytes(&[0]), zero);
    }

    #[test]
    fn what_collides_under_a_public_xxh3_does_not_under_a_tables_key() {
        // XXH3-64 multiplies by the difference of a word of the input and one of its public secret.
        let word = 0xbe4b_a423_396c_feb8_u64.to_le_bytes();
        let inputs: Vec<Vec<u8>> =
            (0..1000_u64).map(|n| [&word[..], &n.to_le_bytes(), &[7; 16]].concat()).collect();
        let plain: BTreeSet<u64> = inputs.iter().map(|input| xxhash_rust::xxh3::xxh3_64(input)).collect();
        assert_eq!(plain.len(), 1);
        for hash in [TokenHash::SipHash24, TokenHash::Xxh3] {
            let hasher = Hasher::new(hash, &counting());
            let tokens: BTreeSet<Token> = inputs.iter().map(|input| hasher.token(input)).collect();
            assert_eq!(tokens.len(), inputs.len(), "{hash}");
        }
    }

    #[test]
    fn another_key_gives_another_token_under_both_hashes() {
        for hash in [TokenHash::SipHash24, TokenHash::Xxh3] {
            for length in [0, 1, 8, 16, 100, 200, 1000] {
                let input = vec![7; length];
                let mut other = counting();
                let one = Hasher::new(hash, &other).token(&input);
                other.0[15] ^= 1;
                assert_ne!(one, Hasher::new(hash, &other).token(&input), "{hash} of {length} bytes");
            }
        }
    }

    #[test]
    fn a_key_goes_through_json_but_never_into_debug_output_or_messages() {
        let key = counting();
        assert_eq!(format!("{key:?}"), "TokenKey(…)");
        let json = serde_json::to_string(&key).unwrap();
        assert_eq!(json, "\"000102030405060708090a0b0c0d0e0f\"");
        assert_eq!(serde_json::from_str::<TokenKey>(&json).unwrap(), key);
        let message = serde_json::from_str::<TokenKey>("\"00010203zz\"").unwrap_err().to_string();
        assert!(!message.contains("00010203"), "{message}");
    }

    #[test]
    fn the_names_of_the_hashes_are_the_same_everywhere() {
        for hash in [TokenHash::SipHash24, TokenHash::Xxh3] {
            assert_eq!(serde_json::to_string(&hash).unwrap(), format!("\"{hash}\""));
            assert_eq!(hash.to_string().parse(), Ok(hash));
        }
    }
}
