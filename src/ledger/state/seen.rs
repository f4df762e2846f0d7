//! What counts once: the name of an object, a consumed source, a committed batch. Each is remembered for ever, under a key
//! of 128 bits, in few bytes of the same form, so that millions of them can be searched without being read.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::token::hex128;

/// What is remembered of a consumed source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceSeen {
    /// The version that consumed it.
    pub version: u64,
    /// Rows it held.
    pub rows: u64,
}

/// What is remembered of a committed batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSeen {
    /// The version that committed it.
    pub version: u64,
    /// What it stood for, see [`Batch::digest`](crate::ledger::entry::Batch::digest).
    #[serde(with = "hex128")]
    pub digest: u128,
}

/// What something is remembered by: XXH3-128 of a letter for its kind and what identifies it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(pub(in crate::ledger) u128);

impl Key {
    /// An object that an entry named.
    pub(crate) fn name(name: &str) -> Self {
        Self::of(b'n', name.as_bytes())
    }

    /// A source with an identity.
    pub(crate) fn source(id: u128) -> Self {
        Self::of(b's', &id.to_be_bytes())
    }

    /// A batch with an id.
    pub(crate) fn batch(id: &str) -> Self {
        Self::of(b'b', id.as_bytes())
    }

    fn of(kind: u8, what: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(1 + what.len());
        bytes.push(kind);
        bytes.extend_from_slice(what);
        Self(xxh3_128(&bytes))
    }
}

/// What is remembered of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The version that it came with.
    pub(crate) version: u64,
    /// The rows of a source, the digest of a batch, nothing of a name.
    pub(crate) value: u128,
}
