//! The token run: an immutable file of ascending tokens with its filter, its directory and its checksums.
//!
//! Every part of a run is covered by a checksum (XXH3, 64 bits) that leads up to the footer's, which the ledger
//! names; so a reader believes nothing that was not written. Format version 1, numbers little-endian, tokens (and
//! parts of tokens) big-endian:
//!
//! ```text
//! header       16 bytes    magic "dedupRUN" · version u32 = 1 · reserved u32 = 0
//! groups       each of 262 144 tokens (the last may be shorter):
//!                tokens    16 bytes each, strictly ascending
//!                commits   `commit width` bytes each, in the order of the tokens: the ledger version that
//!                          accepted the token (only where the commit width is not 0)
//! filter       `lines` × 32 bytes: a blocked Bloom filter, see `index::bloom`
//! directory    for each block of 4096 tokens (64 KiB; the last may be shorter), all in this order:
//!                firsts    8 bytes each: the highest 8 bytes of the block's first token
//!                checksums u64 each: of the block's tokens
//!                checksums u64 each: of the block's commits (only where there are commits)
//!              for each MiB of the filter (the last may be shorter):
//!                checksums u64 each
//! footer       104 bytes
//!   0  u32     version = 1
//!   4  u32     commit width: 0, 4 or 8
//!   8  u64     count of tokens
//!  16  u64     lines of the filter; 0 = no filter
//!  24  8 bytes highest 8 bytes of the lowest token the filter serves
//!  32  8 bytes highest 8 bytes of the highest token the filter serves
//!  40  token   the first token (of an empty run: all ones)
//!  56  token   the last token (of an empty run: all zeros)
//!  72  16 bytes, big-endian: sum of all tokens modulo 2^128
//!  88  u64     checksum of the directory and of the 88 bytes before this
//!  96  magic   "dedupRUN"
//! ```
//!
//! Nothing states an offset: all follow from count, commit width and lines, and must add up to the size of the
//! object. Groups let a writer keep only 262 144 commits in memory, and a reader fetch tokens without them.

mod layout;
mod meta;
mod writer;

pub use layout::{BLOCK_BYTES, BLOCK_TOKENS, BLOOM_CHUNK, FOOTER_BYTES, HEADER_BYTES, Layout};
pub use meta::{BloomLoad, BloomScan, RunMeta, Tail};
pub use writer::{RunSpec, RunWriter};

use crate::token::{Token, TokenSum, hex128};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format version this program writes and reads.
pub const RUN_VERSION: u32 = 1;

pub(crate) const MAGIC: [u8; 8] = *b"dedupRUN";

/// What the ledger says about a run: enough to know whether the object is the one that was committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSummary {
    /// How many tokens, and their sum.
    #[serde(flatten)]
    pub tokens: TokenSum,
    /// The first token; of an empty run the highest there is.
    #[serde(with = "hex_token")]
    pub min: Token,
    /// The last token; of an empty run the lowest there is.
    #[serde(with = "hex_token")]
    pub max: Token,
    /// Size of the object in bytes.
    pub bytes: u64,
    /// The footer's checksum, which covers all others.
    #[serde(with = "hex64")]
    pub checksum: u64,
}

mod hex_token {
    use super::*;

    pub(super) fn serialize<S: Serializer>(token: &Token, s: S) -> Result<S::Ok, S::Error> {
        hex128::serialize(&token.0, s)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Token, D::Error> {
        hex128::deserialize(d).map(Token)
    }
}

mod hex64 {
    //! 64-bit checksums as 16 hexadecimal digits: JSON numbers are only safe up to 2^53.
    use super::*;
    use serde::de::Error;

    pub(super) fn serialize<S: Serializer>(value: &u64, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&format!("{value:016x}"))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
        let text = String::deserialize(d)?;
        if text.len() != 16 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(D::Error::custom("expected 16 hexadecimal digits"));
        }
        u64::from_str_radix(&text, 16).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests;
