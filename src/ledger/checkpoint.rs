//! A state written down, so that a table opens without replaying its whole ledger.
//!
//! An accelerator, never the truth: a checkpoint that is missing, damaged or of another format is passed over and
//! the ledger replayed instead. Its name carries the version and the hash of its content:
//! `<version:020>-<XXH3-128 of the JSON>.json.zst`.

use std::io::Read;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::name;
use super::state::State;
use crate::error::{Error, Result};

/// Every so many versions a writer leaves a checkpoint behind.
pub const INTERVAL: u64 = 32;

/// The format version of checkpoints that this program writes, and the only one it uses. (1 knew no oldest version, 2 named
/// what is live twice.)
const FORMAT: u32 = 3;

/// The largest checkpoint that is unpacked, in bytes: so many, and for each byte of its packed form so many more. Names,
/// checksums and sums hardly compress; what unpacks to more is no checkpoint of ours.
const MAX_UNPACKED: (u64, u64) = (16 << 20, 100);

/// Beyond this no ledger counts: it leaves room for every sum of a version and a small number.
const MAX_ENTRIES: u64 = 1 << 62;

#[derive(Serialize, Deserialize)]
struct Checkpoint<S> {
    format: u32,
    state: S,
}

/// The name and bytes of the checkpoint of `state`, which stands for `version`.
pub fn encode(version: u64, state: &State) -> Result<(String, Bytes)> {
    let json = serde_json::to_vec(&Checkpoint { format: FORMAT, state })
        .map_err(|e| Error::Internal(format!("checkpoint {version} cannot be written: {e}")))?;
    let name = format!("{}/{version:020}-{:032x}.json.zst", name::CHECKPOINTS, xxh3_128(&json));
    let packed = zstd::bulk::compress(&json, 3)
        .map_err(|e| Error::Internal(format!("checkpoint {version} cannot be compressed: {e}")))?;
    Ok((name, packed.into()))
}

/// The version of the checkpoint called `object`, if that is the name of one.
pub fn version_of(object: &str) -> Option<u64> {
    parse_name(object).map(|(version, _)| version)
}

/// Reads a checkpoint. Anything but a whole one of this format is an error, upon which the caller replays.
pub fn decode(object: &str, packed: &[u8]) -> Result<State> {
    let damaged = |reason: String| Error::corrupt(object, reason);
    let (version, hash) = parse_name(object).ok_or_else(|| damaged("it has no checkpoint's name".into()))?;
    let most = MAX_UNPACKED.1.saturating_mul(packed.len() as u64).saturating_add(MAX_UNPACKED.0);
    let mut json = Vec::new();
    zstd::Decoder::new(packed)
        .and_then(|decoder| decoder.take(most).read_to_end(&mut json))
        .map_err(|e| damaged(e.to_string()))?;
    if xxh3_128(&json) != hash {
        return Err(damaged("its content does not have the hash in its name".into()));
    }
    let checkpoint: Checkpoint<State> = serde_json::from_slice(&json).map_err(|e| damaged(e.to_string()))?;
    let sound = version < MAX_ENTRIES && checkpoint.state.version() == Some(version);
    if checkpoint.format != FORMAT || !sound {
        return Err(damaged("it is of another format or version than its name says".into()));
    }
    Ok(checkpoint.state)
}

fn parse_name(object: &str) -> Option<(u64, u128)> {
    let stem = object.strip_prefix(name::CHECKPOINTS)?.strip_prefix('/')?.strip_suffix(".json.zst")?;
    let (version, hash) = stem.split_once('-')?;
    let well_formed = version.len() == 20 && hash.len() == 32;
    well_formed.then_some(())?;
    Some((version.parse().ok()?, u128::from_str_radix(hash, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checkpoint_reads_back_and_damage_is_noticed() {
        let state = State { entries: 33, tip: 5, table: "t".into(), ..State::default() };
        let (name, bytes) = encode(32, &state).unwrap();
        assert_eq!(version_of(&name), Some(32));
        assert_eq!(decode(&name, &bytes).unwrap(), state);
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
        let state = &State { entries, ..State::default() };
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
        ] {
            assert_eq!(version_of(&flawed), None, "{flawed}");
            assert!(decode(&flawed, b"").is_err());
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
}
