//! A state written down, so that a table opens without replaying its whole ledger.
//!
//! An accelerator, never the truth: a checkpoint that is missing, damaged or of another format is passed over and
//! the ledger replayed instead. It consists of a *head* with what every opening needs, and of *parts* with what grows with
//! every commit: `index` parts are searched, `lists` parts are read by those who want to know which files there are. Parts never change and
//! belong to many checkpoints: each checkpoint adds what is new, and merges it with the newest parts where these are
//! hardly larger. So there are few parts, and what stands in them is written a few times in all.
//!
//! A head's name carries the version and the hash of its content, a part's name the version that wrote it and a hash that
//! vouches for its content. Pure: a draft says what to read and what to write, the ledger does it.

pub(crate) mod index;
pub(crate) mod lists;

use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::name;
use super::state::{Beneath, Part, Seen, State};
use crate::error::{Error, Result};
use lists::Lists;

/// Every so many versions a writer leaves a checkpoint behind.
pub const INTERVAL: u64 = 32;

/// The format version of heads that this program writes, and the only one it uses. (1 knew no oldest version, 2 named
/// what is live twice, 3 was all in one piece.)
const FORMAT: u32 = 4;

/// The largest head or list that is unpacked, in bytes: so many, and for each byte of its packed form so many more. Names,
/// checksums and sums hardly compress; what unpacks to more is none of ours.
const MAX_UNPACKED: (u64, u64) = (16 << 20, 100);

/// Beyond this no ledger counts: it leaves room for every sum of a version and a small number.
const MAX_ENTRIES: u64 = 1 << 62;

/// How the names of index parts end.
const INDEX_PART: &str = ".index";

/// How the names of list parts end.
const LIST_PART: &str = ".list.zst";

/// An index part with more records than this is not merged any more: it takes 40 MiB.
const MERGED: u64 = 1 << 20;

#[derive(Serialize, Deserialize)]
struct Checkpoint<S> {
    format: u32,
    state: S,
}

/// A checkpoint that is to be written.
#[derive(Debug)]
pub(crate) struct Draft {
    state: State,
    new_index: Vec<(u128, Seen)>,
    new_lists: Lists,
    /// Parts to be read, because they are written anew together with what is new.
    pub(crate) old_index: Vec<Part>,
    pub(crate) old_lists: Vec<Part>,
}

/// The objects of a checkpoint.
#[derive(Debug)]
pub(crate) struct Written {
    /// What lies beneath its state.
    pub(crate) beneath: Beneath,
    /// New parts first, the head last.
    pub(crate) objects: Vec<(String, Bytes)>,
}

impl Draft {
    /// A checkpoint of `state`. What lies beneath it need not have been read.
    pub(crate) fn of(state: &State) -> Self {
        let (files, quarantine) = state.lists_since();
        let (new_index, new_lists) = (state.index_since(), Lists { files, quarantine });
        let mut draft =
            Self { state: state.clone(), old_index: Vec::new(), old_lists: Vec::new(), new_index, new_lists };
        let Beneath { index, lists, .. } = draft.state.beneath_mut();
        draft.old_index = newest(&mut index.parts, draft.new_index.len() as u64, MERGED);
        draft.old_lists = newest(&mut lists.parts, draft.new_lists.len() as u64, lists::MOST as u64);
        draft
    }

    /// Its objects. `index` and `lists` are what the old parts hold, in their order.
    pub(crate) fn write(mut self, index: Vec<Vec<(u128, Seen)>>, lists: Vec<Lists>) -> Result<Written> {
        let (entries, mut objects) = (self.state.entries, Vec::new());
        let version = self.state.version().unwrap_or_default();
        let mut records = index.concat();
        records.append(&mut self.new_index);
        // Stable, and mostly runs that ascend already. Of two with the same key, which only a forged part has, the first counts.
        records.sort_by_key(|(key, _)| *key);
        records.dedup_by_key(|(key, _)| *key);
        let Beneath { index, lists: listed, .. } = self.state.beneath_mut();
        for records in records.chunks(MERGED as usize) {
            let (bytes, count) = (index::encode(records), records.len() as u64);
            let name = part_name(version, index::hash(&bytes, count), INDEX_PART);
            index.parts.push(Part { name: name.clone(), records: count });
            objects.push((name, Bytes::from(bytes)));
        }
        let mut all = Lists::default();
        lists.into_iter().for_each(|old| all.append(old));
        all.append(self.new_lists);
        for piece in all.pieces(lists::MOST) {
            let (part, bytes) = piece.encode(version)?;
            objects.push((part.name.clone(), bytes.into()));
            listed.parts.push(part);
        }
        (index.entries, listed.entries) = (entries, entries);
        objects.push(encode_head(version, &self.state)?);
        Ok(Written { beneath: self.state.beneath().clone(), objects })
    }
}

/// Takes the newest parts that are hardly larger than what is to be added, so that each part that stays is at least twice as
/// large as the one after it; none that would have more than `most` records.
fn newest(parts: &mut Vec<Part>, new: u64, most: u64) -> Vec<Part> {
    let (mut from, mut sum) = (parts.len(), new);
    while let Some(part) = from.checked_sub(1).and_then(|last| parts.get(last)) {
        let together = sum.saturating_add(part.records);
        if new == 0 || part.records / 2 >= sum || together > most {
            break;
        }
        (from, sum) = (from - 1, together);
    }
    parts.split_off(from)
}

/// The objects of a checkpoint of `state`: names and bytes, the head last. An error if what lies beneath it was not read.
pub fn encode(state: &State) -> Result<Vec<(String, Bytes)>> {
    // Both were read, or this is no whole state.
    state.files()?;
    state.source(0)?;
    let mut anew = state.clone();
    *anew.beneath_mut() = Beneath::default();
    Ok(Draft::of(&anew).write(Vec::new(), Vec::new())?.objects)
}

/// Takes into `state` all that lies beneath it; `get` gives the bytes of a part.
pub fn take_parts(state: &mut State, mut get: impl FnMut(&str) -> Option<Bytes>) -> Result<()> {
    let Beneath { index, lists, .. } = state.beneath().clone();
    let mut bytes = |part: &Part| get(&part.name).ok_or_else(|| Error::corrupt(&part.name, "it is absent"));
    if index.unread {
        let mut records = Vec::new();
        for part in &index.parts {
            records.extend(index::decode(part, &bytes(part)?)?);
        }
        state.take_index(records);
    }
    if lists.unread {
        let mut all = Lists::default();
        for part in &lists.parts {
            all.append(Lists::decode(part, &bytes(part)?)?);
        }
        state.take_lists(all.files, all.quarantine);
    }
    Ok(())
}

fn encode_head(version: u64, state: &State) -> Result<(String, Bytes)> {
    let json = serde_json::to_vec(&Checkpoint { format: FORMAT, state })
        .map_err(|e| Error::Internal(format!("checkpoint {version} cannot be written: {e}")))?;
    let name = format!("{}/{version:020}-{:032x}.json.zst", name::CHECKPOINTS, xxh3_128(&json));
    Ok((name, pack(&json)?.into()))
}

fn pack(json: &[u8]) -> Result<Vec<u8>> {
    zstd::bulk::compress(json, 3)
        .map_err(|e| Error::Internal(format!("a checkpoint cannot be compressed: {e}")))
}

fn unpack(object: &str, packed: &[u8], hash: u128) -> Result<Vec<u8>> {
    let most = MAX_UNPACKED.1.saturating_mul(packed.len() as u64).saturating_add(MAX_UNPACKED.0);
    let mut json = Vec::new();
    zstd::Decoder::new(packed)
        .and_then(|decoder| decoder.take(most).read_to_end(&mut json))
        .map_err(|e| Error::corrupt(object, e.to_string()))?;
    if xxh3_128(&json) != hash {
        return Err(Error::corrupt(object, "its content does not have the hash in its name"));
    }
    Ok(json)
}

/// The version of the checkpoint whose head is called `object`, if that is the name of one.
pub fn version_of(object: &str) -> Option<u64> {
    parse_name(object, name::CHECKPOINTS, ".json.zst").map(|(version, _)| version)
}

/// The version that wrote the part called `object`, if that is the name of one.
pub fn part_version_of(object: &str) -> Option<u64> {
    part_of(object, INDEX_PART).or_else(|| part_of(object, LIST_PART)).map(|(version, _)| version)
}

/// The names of the parts that lie beneath `state`.
pub fn parts_of(state: &State) -> impl Iterator<Item = &str> {
    let Beneath { index, lists, .. } = state.beneath();
    index.parts.iter().chain(&lists.parts).map(|part| part.name.as_str())
}

/// Reads a head. Anything but a whole one of this format is an error, upon which the caller replays. What lies in its parts
/// was not read then.
pub fn decode(object: &str, packed: &[u8]) -> Result<State> {
    let damaged = |reason: String| Error::corrupt(object, reason);
    let (version, hash) = parse_name(object, name::CHECKPOINTS, ".json.zst")
        .ok_or_else(|| damaged("it has no checkpoint's name".into()))?;
    let json = unpack(object, packed, hash)?;
    let checkpoint: Checkpoint<State> = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    let mut state = checkpoint.state;
    let entries = state.entries;
    let sound = version < MAX_ENTRIES && state.version() == Some(version);
    if checkpoint.format != FORMAT || !sound {
        return Err(damaged("it is of another format or version than its name says".into()));
    }
    let Beneath { index, lists, .. } = state.beneath_mut();
    for (parts, kind) in [(&mut *index, INDEX_PART), (lists, LIST_PART)] {
        let ours = |part: &Part| part_of(&part.name, kind).is_some_and(|(written, _)| written <= version);
        if parts.entries != entries || !parts.parts.iter().all(ours) {
            return Err(damaged("it names parts that cannot be its own".into()));
        }
        parts.unread = !parts.parts.is_empty();
    }
    Ok(state)
}

fn part_name(version: u64, hash: u128, kind: &str) -> String {
    format!("{}/{version:020}-{hash:032x}{kind}", name::PARTS)
}

/// The version and hash in the name of a part of that kind.
fn part_of(object: &str, kind: &str) -> Option<(u64, u128)> {
    parse_name(object, name::PARTS, kind)
}

fn parse_name(object: &str, folder: &str, ending: &str) -> Option<(u64, u128)> {
    let stem = object.strip_prefix(folder)?.strip_prefix('/')?.strip_suffix(ending)?;
    let (version, hash) = stem.split_once('-')?;
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let well_formed = version.len() == 20 && version.bytes().all(|byte| byte.is_ascii_digit());
    (well_formed && hash.len() == 32 && hash.bytes().all(hex)).then_some(())?;
    Some((version.parse().ok()?, u128::from_str_radix(hash, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn head(state: &State) -> (String, Bytes) {
        encode(state).unwrap().pop().unwrap()
    }

    #[test]
    fn a_checkpoint_reads_back_and_damage_is_noticed() {
        let mut state = State::default();
        (state.entries, state.tip, state.table) = (33, 5, "t".into());
        let (name, bytes) = head(&state);
        assert_eq!(version_of(&name), Some(32));
        assert_eq!(decode(&name, &bytes).unwrap(), state);
        assert_eq!(encode(&state).unwrap().len(), 1, "nothing needs no parts");
        for cut in [0, 1, bytes.len() - 1] {
            assert!(decode(&name, &bytes[..cut]).is_err());
        }
        let other = name.replace("00032-", "00031-");
        assert!(decode(&other, &bytes).is_err());
    }

    /// The name and bytes of a checkpoint of `version` whose JSON is `json`.
    fn packed(version: u64, json: &[u8]) -> (String, Vec<u8>) {
        let name = format!("{}/{version:020}-{:032x}.json.zst", name::CHECKPOINTS, xxh3_128(json));
        (name, zstd::bulk::compress(json, 3).unwrap())
    }

    fn json(format: u32, entries: u64) -> Vec<u8> {
        let mut state = State::default();
        state.entries = entries;
        let beneath = state.beneath_mut();
        (beneath.index.entries, beneath.lists.entries) = (entries, entries);
        serde_json::to_vec(&Checkpoint { format, state }).unwrap()
    }

    #[test]
    fn a_name_must_be_as_it_is_given() {
        let (name, _) = packed(32, b"{}");
        assert_eq!(version_of(&name), Some(32));
        let folder = format!("{}/", name::CHECKPOINTS);
        for flawed in [
            name.replace(&folder, "_dedupe/tokens/"),
            name.replace(&folder, &format!("{folder}0")),
            name.replace(".json.zst", "0.json.zst"),
            name.replace(".zst", ""),
            name.replace('-', "_"),
            name.replace("/0", "/+"),
        ] {
            assert_eq!(version_of(&flawed), None, "{flawed}");
            assert!(decode(&flawed, b"").is_err());
        }
        assert_eq!(part_version_of(&name), None);
        for kind in [INDEX_PART, LIST_PART] {
            let name = part_name(64, 7, kind);
            assert_eq!((part_version_of(&name), version_of(&name)), (Some(64), None));
            assert_eq!(part_version_of(&name.replace("parts", "checkpoint")), None);
        }
    }

    #[test]
    fn another_format_another_version_or_an_absurd_one_is_refused() {
        let sound = |version, json: &[u8]| {
            let (name, bytes) = packed(version, json);
            decode(&name, &bytes).is_ok()
        };
        assert!(sound(32, &json(FORMAT, 33)));
        assert!(!sound(32, &json(FORMAT + 1, 33)) && !sound(32, &json(FORMAT - 1, 33)));
        assert!(!sound(32, &json(FORMAT, 32)) && !sound(32, &json(FORMAT, 34)));
        assert!(sound(MAX_ENTRIES - 1, &json(FORMAT, MAX_ENTRIES)));
        assert!(!sound(MAX_ENTRIES, &json(FORMAT, MAX_ENTRIES + 1)));
    }

    #[test]
    fn parts_of_another_place_kind_or_later_version_are_refused() {
        let sound = |part: &str| {
            let text = String::from_utf8(json(FORMAT, 33)).unwrap();
            let parts =
                format!("\"index\":{{\"entries\":33,\"parts\":[{{\"name\":\"{part}\",\"records\":1}}]}}");
            let text = text.replace("\"index\":{\"entries\":33,\"parts\":[]}", &parts);
            assert!(text.contains(part));
            let (name, bytes) = packed(32, text.as_bytes());
            let read = decode(&name, &bytes);
            // Whoever deletes what is not needed has to spare the parts that are.
            read.is_ok_and(|state| parts_of(&state).eq([part]))
        };
        assert!(sound(&part_name(32, 1, INDEX_PART)) && sound(&part_name(0, 1, INDEX_PART)));
        assert!(!sound(&part_name(33, 1, INDEX_PART)) && !sound(&part_name(32, 1, LIST_PART)));
        assert!(!sound("_dedupe/table.json") && !sound("../secret"));
    }

    #[test]
    fn what_unpacks_to_much_more_than_a_state_is_refused() {
        let padded = |bytes: usize| {
            let mut json = json(FORMAT, 33);
            json.resize(bytes, b' ');
            let (name, packed) = packed(32, &json);
            assert!(packed.len() < 20_000, "{}", packed.len());
            decode(&name, &packed).is_ok()
        };
        assert!(padded(15 << 20) && padded(16 << 20));
        assert!(!padded(20 << 20));
    }

    proptest! {
        #[test]
        fn parts_stay_few_and_are_written_few_times(adds in prop::collection::vec(1u64..200, 1..300)) {
            let (mut parts, mut sum, mut written) = (Vec::new(), 0, 0);
            for new in adds {
                let before: u64 = parts.iter().map(|part: &Part| part.records).sum();
                let taken: u64 = newest(&mut parts, new, 1 << 13).iter().map(|part| part.records).sum();
                let kept: u64 = parts.iter().map(|part: &Part| part.records).sum();
                prop_assert_eq!(kept + taken, before);
                prop_assert!(taken + new <= 1 << 13);
                parts.push(Part { name: String::new(), records: taken + new });
                (sum, written) = (sum + new, written + new + taken);
                let full = sum as usize / (1 << 12) + 1;
                prop_assert!(parts.len() <= full + 14, "{} parts of {sum}", parts.len());
            }
            prop_assert!(written <= sum * 22);
        }
    }
}
