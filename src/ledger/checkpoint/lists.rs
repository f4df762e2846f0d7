//! A part of the lists: data and quarantine files, as their manifests name them, each with the version that did. Read
//! whole, by those who need to know which files there are.

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::{LIST_PART, pack, part_name, part_of, unpack};
use crate::error::{Error, Result};
use crate::ledger::entry::{DataFile, QuarantineFile};
use crate::ledger::state::{Live, Part};

/// The format version of these parts.
const FORMAT: u32 = 1;

/// Files that a part names at most.
pub(super) const MOST: usize = 4096;

/// What a part holds, or several.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Lists {
    pub(crate) files: Vec<Live<DataFile>>,
    pub(crate) quarantine: Vec<Live<QuarantineFile>>,
}

/// Each with the version it came with.
type Dated<T> = Vec<(u64, T)>;

#[derive(Serialize, Deserialize)]
struct Stored<F, Q> {
    format: u32,
    files: F,
    quarantine: Q,
}

impl Lists {
    pub(crate) fn len(&self) -> usize {
        self.files.len() + self.quarantine.len()
    }

    pub(crate) fn append(&mut self, other: Self) {
        self.files.extend(other.files);
        self.quarantine.extend(other.quarantine);
    }

    /// In pieces of up to so many files, that keep the order.
    pub(super) fn pieces(mut self, most: usize) -> Vec<Self> {
        let mut pieces = Vec::new();
        while self.len() > 0 {
            let files = self.files.split_off(self.files.len().min(most));
            let room = most - self.files.len();
            let quarantine = self.quarantine.split_off(self.quarantine.len().min(room));
            pieces.push(std::mem::replace(&mut self, Self { files, quarantine }));
        }
        pieces
    }

    /// The part that holds them, written with the checkpoint of `version`, and its bytes.
    pub(super) fn encode(&self, version: u64) -> Result<(Part, Vec<u8>)> {
        fn rows<T>(all: &[Live<T>]) -> Vec<(u64, &T)> {
            all.iter().map(|live| (live.since, &live.item)).collect()
        }
        let stored = Stored { format: FORMAT, files: rows(&self.files), quarantine: rows(&self.quarantine) };
        let json = serde_json::to_vec(&stored)
            .map_err(|e| Error::Internal(format!("a list of files cannot be written: {e}")))?;
        let name = part_name(version, xxh3_128(&json), LIST_PART);
        Ok((Part { name, records: self.len() as u64 }, pack(&json)?))
    }

    /// Reads the bytes of `part`.
    pub(crate) fn decode(part: &Part, packed: &[u8]) -> Result<Self> {
        let damaged = |reason: String| Error::corrupt(&part.name, reason);
        let (_, hash) =
            part_of(&part.name, LIST_PART).ok_or_else(|| damaged("it has no part's name".into()))?;
        let json = unpack(&part.name, packed, hash)?;
        let stored: Stored<Dated<DataFile>, Dated<QuarantineFile>> =
            serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
        fn lives<T>(all: Dated<T>) -> Vec<Live<T>> {
            all.into_iter().map(|(since, item)| Live { since, item }).collect()
        }
        let lists = Self { files: lives(stored.files), quarantine: lives(stored.quarantine) };
        if stored.format != FORMAT || lists.len() as u64 != part.records {
            return Err(damaged("it is of another format or size than its checkpoint says".into()));
        }
        Ok(lists)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TokenSum;

    fn lists(files: u64, kept_out: u64) -> Lists {
        let file = |since| Live {
            since,
            item: DataFile {
                name: format!("data/{since}"),
                rows: since,
                bytes: 1,
                check: "0".into(),
                keyless: 0,
                tokens: TokenSum { count: since, sum: u128::MAX },
                origin: vec![(0, since)],
                key_range: vec![None, Some(("a".into(), "b".into()))],
            },
        };
        let quarantine = |since| Live {
            since,
            item: QuarantineFile { name: format!("kept out/{since}"), rows: since, bytes: 2 },
        };
        Lists { files: (0..files).map(file).collect(), quarantine: (0..kept_out).map(quarantine).collect() }
    }

    #[test]
    fn a_list_reads_back_whole_and_in_pieces() {
        for (files, kept_out) in [(0, 0), (1, 0), (0, 1), (5, 3), (10, 10), (12, 1)] {
            let all = lists(files, kept_out);
            let (part, bytes) = all.encode(7).unwrap();
            assert_eq!(part.records, files + kept_out);
            assert_eq!(Lists::decode(&part, &bytes).unwrap(), all);
            let pieces = all.clone().pieces(4);
            assert!(pieces.iter().all(|piece| (1..=4).contains(&piece.len())));
            assert_eq!(pieces.len() as u64, (files + kept_out).div_ceil(4));
            let mut again = Lists::default();
            pieces.into_iter().for_each(|piece| again.append(piece));
            assert_eq!(again, all);
        }
    }

    #[test]
    fn damage_and_other_sizes_are_refused() {
        let (part, bytes) = lists(20, 3).encode(7).unwrap();
        for cut in [0, 1, bytes.len() - 1] {
            assert!(Lists::decode(&part, &bytes[..cut]).is_err());
        }
        for records in [0, 22, 24, u64::MAX] {
            assert!(Lists::decode(&Part { records, ..part.clone() }, &bytes).is_err());
        }
        let other = part.name.replace("-", "-0").replace("0.list", ".list");
        assert!(Lists::decode(&Part { name: other, ..part }, &bytes).is_err());
    }
}
