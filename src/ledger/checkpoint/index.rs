//! A part of the index: what counts once, by key. Searched by its directory and some blocks; read whole only where parts
//! are merged. Laid out as `docs/format.md` says.

use std::ops::Range;

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::part_of;
use crate::error::{Error, Result};
use crate::ledger::state::{Part, Seen};

/// What a part begins with; the last byte is the format version.
const MAGIC: [u8; 8] = *b"dedupIX\x01";

/// Bytes of magic and number of records.
const HEADER: u64 = 16;

/// Bytes of a block's entry in the directory: the highest 8 bytes of its first key, and its checksum.
const ENTRY: u64 = 16;

/// Records of a block.
const BLOCK: u64 = 128;

/// Bytes of a record: key, version, value.
const RECORD: u64 = 40;

/// Above this no part of ours comes: 640 MiB.
const MAX_RECORDS: u64 = 1 << 24;

/// The bytes of a part with these records, which ascend by key.
pub(crate) fn encode(records: &[(u128, Seen)]) -> Vec<u8> {
    let blocks: Vec<Vec<u8>> = records.chunks(BLOCK as usize).map(encode_block).collect();
    let mut bytes = MAGIC.to_vec();
    bytes.extend((records.len() as u64).to_le_bytes());
    for (block, records) in blocks.iter().zip(records.chunks(BLOCK as usize)) {
        let first = records.first().map_or(0, |(key, _)| high(*key));
        bytes.extend(first.to_be_bytes());
        bytes.extend(xxh3_64(block).to_le_bytes());
    }
    blocks.iter().for_each(|block| bytes.extend(block));
    bytes
}

fn encode_block(records: &[(u128, Seen)]) -> Vec<u8> {
    let mut block = Vec::with_capacity(records.len() * RECORD as usize);
    for (key, seen) in records {
        block.extend(key.to_be_bytes());
        block.extend(seen.version.to_le_bytes());
        block.extend(seen.value.to_le_bytes());
    }
    block
}

/// The hash that names a part: of its header and directory, which hold the checksums of all the rest.
pub(crate) fn hash(bytes: &[u8], records: u64) -> u128 {
    let head = usize::try_from(head(records)).unwrap_or(usize::MAX);
    xxh3_128(bytes.get(..head).unwrap_or(bytes))
}

fn high(key: u128) -> u64 {
    (key >> 64) as u64
}

/// Bytes of header and directory.
fn head(records: u64) -> u64 {
    HEADER + ENTRY * records.div_ceil(BLOCK)
}

/// Which bytes of a part are its header and directory, and how many there are in all. An error for more records than a part
/// can have.
pub(crate) fn extent(part: &Part) -> Result<(u64, u64)> {
    if part.records > MAX_RECORDS {
        return Err(Error::corrupt(&part.name, format!("a part cannot have {} records", part.records)));
    }
    Ok((head(part.records), head(part.records) + part.records * RECORD))
}

/// The directory of a part.
#[derive(Debug)]
pub(crate) struct Directory {
    name: String,
    records: u64,
    /// By block: the highest 8 bytes of its first key, and its checksum.
    blocks: Vec<(u64, u64)>,
}

impl Directory {
    /// Reads the header and directory of `part`, as far as [`extent`] says.
    pub(crate) fn decode(part: &Part, bytes: &[u8]) -> Result<Self> {
        let damaged = |reason: &str| Error::corrupt(&part.name, reason);
        let (_, hash) =
            part_of(&part.name, super::INDEX_PART).ok_or_else(|| damaged("it has no part's name"))?;
        if bytes.len() as u64 != extent(part)?.0 || xxh3_128(bytes) != hash {
            return Err(damaged("its directory does not have the hash in its name"));
        }
        let (words, _) = bytes.as_chunks::<8>();
        let [magic, records, blocks @ ..] = words else { return Err(damaged("it is too short")) };
        if *magic != MAGIC || u64::from_le_bytes(*records) != part.records {
            return Err(damaged("it is of another format or size than its checkpoint says"));
        }
        let (blocks, _) = blocks.as_chunks::<2>();
        let entry = |[first, check]: &[[u8; 8]; 2]| (u64::from_be_bytes(*first), u64::from_le_bytes(*check));
        let blocks: Vec<(u64, u64)> = blocks.iter().map(entry).collect();
        if !blocks.is_sorted_by_key(|(first, _)| *first) {
            return Err(damaged("its blocks do not ascend"));
        }
        Ok(Self { name: part.name.clone(), records: part.records, blocks })
    }

    /// The blocks that can hold `key`.
    pub(crate) fn blocks_of(&self, key: u128) -> Range<u64> {
        // Several blocks may begin with the same high bits, and the one before them may end with these.
        let from = self.blocks.partition_point(|(first, _)| *first < high(key)).saturating_sub(1);
        let to = self.blocks.partition_point(|(first, _)| *first <= high(key));
        from as u64..to as u64
    }

    /// All blocks.
    pub(crate) fn blocks(&self) -> Range<u64> {
        0..self.blocks.len() as u64
    }

    /// Where in the part `blocks` lie.
    pub(crate) fn bytes_of(&self, blocks: Range<u64>) -> Range<u64> {
        let at = |block: u64| head(self.records) + (block * BLOCK).min(self.records) * RECORD;
        at(blocks.start)..at(blocks.end)
    }

    /// The records of a block, whose bytes are these.
    pub(crate) fn records(&self, block: u64, bytes: &[u8]) -> Result<Vec<(u128, Seen)>> {
        let check =
            usize::try_from(block).ok().and_then(|block| self.blocks.get(block)).map(|(_, check)| *check);
        if check != Some(xxh3_64(bytes)) {
            return Err(Error::corrupt(&self.name, format!("block {block} does not have its checksum")));
        }
        let (words, _) = bytes.as_chunks::<8>();
        let (records, _) = words.as_chunks::<5>();
        let wide = |low: &[u8; 8], high: &[u8; 8]| {
            u128::from(u64::from_le_bytes(*high)) << 64 | u128::from(u64::from_le_bytes(*low))
        };
        let record = |[high, low, version, value, top]: &[[u8; 8]; 5]| {
            let key = u128::from(u64::from_be_bytes(*high)) << 64 | u128::from(u64::from_be_bytes(*low));
            (key, Seen { version: u64::from_le_bytes(*version), value: wide(value, top) })
        };
        Ok(records.iter().map(record).collect())
    }
}

/// The records of a part that is held whole.
pub(crate) fn decode(part: &Part, bytes: &[u8]) -> Result<Vec<(u128, Seen)>> {
    let (head, size) = extent(part)?;
    let split = usize::try_from(head).ok().filter(|_| bytes.len() as u64 == size);
    let Some((head, blocks)) = split.and_then(|split| bytes.split_at_checked(split)) else {
        return Err(Error::corrupt(&part.name, format!("it has {} bytes instead of {size}", bytes.len())));
    };
    let directory = Directory::decode(part, head)?;
    let mut records = Vec::new();
    for (at, block) in directory.blocks().zip(blocks.chunks((BLOCK * RECORD) as usize)) {
        records.extend(directory.records(at, block)?);
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn part(records: &[(u128, Seen)]) -> (Part, Vec<u8>) {
        let bytes = encode(records);
        let count = records.len() as u64;
        let name = super::super::part_name(7, hash(&bytes, count), super::super::INDEX_PART);
        (Part { name, records: count }, bytes)
    }

    fn directory(part: &Part, bytes: &[u8]) -> Result<Directory> {
        Directory::decode(part, &bytes[..extent(part).unwrap().0 as usize])
    }

    fn block(directory: &Directory, bytes: &[u8], block: u64) -> Result<Vec<(u128, Seen)>> {
        let range = directory.bytes_of(block..block + 1);
        directory.records(block, &bytes[range.start as usize..range.end as usize])
    }

    /// Keys of which some share their high bits, as an enemy could make them.
    fn keys() -> impl Strategy<Value = BTreeMap<u128, (u64, u128)>> {
        let key = prop_oneof![3 => any::<u128>(), 2 => (0..3u128, 0..600u128).prop_map(|(high, low)| high << 64 | low)];
        prop::collection::btree_map(key, any::<(u64, u128)>(), 0..700)
    }

    proptest! {
        #[test]
        fn what_was_put_in_is_found_and_nothing_else(
            all in keys(), strangers in prop::collection::vec(any::<u128>(), 20)
        ) {
            let records: Vec<(u128, Seen)> =
                all.iter().map(|(key, (version, value))| (*key, Seen { version: *version, value: *value })).collect();
            let (part, bytes) = part(&records);
            prop_assert_eq!(extent(&part).unwrap().1, bytes.len() as u64);
            let directory = directory(&part, &bytes).unwrap();
            let read: Vec<_> = directory.blocks().flat_map(|at| block(&directory, &bytes, at).unwrap()).collect();
            prop_assert_eq!(&read, &records);
            prop_assert_eq!(&decode(&part, &bytes).unwrap(), &records);
            for key in all.keys().chain(&strangers) {
                let found = directory.blocks_of(*key).flat_map(|at| block(&directory, &bytes, at).unwrap());
                let found: Vec<Seen> = found.filter(|(found, _)| found == key).map(|(_, seen)| seen).collect();
                let wanted: Vec<Seen> =
                    all.get(key).map(|(version, value)| Seen { version: *version, value: *value }).into_iter().collect();
                prop_assert_eq!(found, wanted);
            }
        }

        #[test]
        fn every_flipped_bit_is_noticed(all in keys(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
            let records: Vec<(u128, Seen)> =
                all.iter().map(|(key, (version, value))| (*key, Seen { version: *version, value: *value })).collect();
            let (part, mut bytes) = part(&records);
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&part, &bytes).is_err());
            let noticed = match directory(&part, &bytes) {
                Err(_) => true,
                Ok(directory) => directory.blocks().any(|at| block(&directory, &bytes, at).is_err()),
            };
            prop_assert!(noticed);
        }
    }

    #[test]
    fn a_part_that_is_not_what_it_is_called_is_refused() {
        let records: Vec<(u128, Seen)> =
            (0..300).map(|key| (key << 90, Seen { version: 1, value: 2 })).collect();
        let (part, bytes) = part(&records);
        assert!(directory(&part, &bytes).is_ok());
        for records in [0, 1, 299, 301, MAX_RECORDS] {
            let other = Part { records, ..part.clone() };
            let end = bytes.len().min(extent(&other).unwrap().0 as usize);
            assert!(Directory::decode(&other, &bytes[..end]).is_err(), "{records}");
        }
        for records in [MAX_RECORDS + 1, u64::MAX] {
            assert!(extent(&Part { records, ..part.clone() }).is_err());
        }
        let renamed = Part { name: part.name.replace(".index", ".list.zst"), ..part };
        assert!(directory(&renamed, &bytes).is_err());
    }
}
