//! The token run: an immutable file of ascending tokens with its directory and its checksums.
//!
//! Every part of a run is covered by a checksum (XXH3, 64 bits) that leads up to the footer's, which the ledger
//! names; so a reader believes nothing that was not written. Format version 2, numbers little-endian, tokens (and
//! parts of tokens) big-endian in directory and footer:
//!
//! ```text
//! header       16 bytes    magic "dedupRUN" · version u32 = 2 · reserved u32 = 0
//! groups       each of 256 blocks of 4096 tokens (the last of each may be shorter):
//!                suffixes  of each block: the low `width` bits of each token, bit-packed
//!                prefixes  of each block: a u64 checksum for each 128 suffixes · 8 bits of each token · the rest of
//!                          each token's prefix, in unary, in u64 words: see `block`
//!                commits   of each block: the ledger version that accepted each token, less the lowest of all,
//!                          bit-packed (only in runs that have commits, and more than one)
//! directory    for each block, all in this order:
//!                firsts    8 bytes each: the highest 8 bytes of the block's first token
//!                checksums u64 each: of the block's prefixes
//!                widths    u8 each: bits of a suffix
//!                words     u8 each: words of unary code
//!                checksums u64 each: of the block's commits (only where there are commits)
//! footer       96 bytes
//!   0  u32     version = 2
//!   4  u32     reserved = 0
//!   8  u64     count of tokens
//!  16  u64     lowest commit } of a run without commits: 1 and 0
//!  24  u64     highest commit}
//!  32  token   the first token (of an empty run: all ones)
//!  48  token   the last token (of an empty run: all zeros)
//!  64  16 bytes, big-endian: sum of all tokens modulo 2^128
//!  80  u64     checksum of the directory and of the 80 bytes before this
//!  88  magic   "dedupRUN"
//! ```
//!
//! Nothing states an offset: all follow from the count, the commits and the blocks' widths and words, and must add up
//! to the size of the object. A look-up reads prefixes, and suffixes only where those say "perhaps".

mod block;
mod layout;
mod meta;
mod writer;

pub use block::{BLOCK_TOKENS, Maybe, SLICE_TOKENS, Shape};
pub use layout::{FOOTER_BYTES, GROUP_BLOCKS, HEADER_BYTES, Layout};
pub use meta::RunMeta;
pub use writer::RunWriter;

use crate::token::{Token, TokenSum, hex128};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The format version this program writes and reads.
pub const RUN_VERSION: u32 = 2;

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
