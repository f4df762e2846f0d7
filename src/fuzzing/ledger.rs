//! Manifests and checkpoints, as text and as entries built from choices: folding them never fails otherwise than void.

use super::Choices;
use crate::ledger::checkpoint as stored;
use crate::ledger::checkpoint::index;
use crate::ledger::checkpoint::lists::Lists;
use crate::ledger::entry::{
    Batch, Body, Compact, Create, DataFile, Entry, Ingest, InlineTokens, QuarantineFile, RunRef,
    SchemaChange, SourceUse,
};
use crate::ledger::seal::seal;
use crate::ledger::state::{Applied, Part, State, Void};
use crate::policy::{NullKey, Policy};
use crate::token::{Token, TokenSum};
use crate::verdict::Accounting;
use arrow_schema::{DataType, Field, Schema};
use serde::Deserialize;
use serde::de::IgnoredAny;
use std::io::Read;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Of so many long inputs of choices one is followed to its end, whichever that is: a mutant seldom inherits it. Else most
/// time would go into long ledgers.
const LONG: u64 = 16;

/// Manifests one after the other, as JSON between zero bytes (with a seal that fits, unless so chosen) or built from
/// choices, are read and folded.
pub fn manifest(bytes: &[u8]) {
    let Some((flags, rest)) = bytes.split_first() else { return };
    let mut twins = Twins::of(State::default());
    if flags & 1 == 0 {
        for text in rest.split(|byte| *byte == 0).take(64) {
            let sealed = seal(text).filter(|_| flags & 4 == 0);
            let text = sealed.as_deref().unwrap_or(text);
            let Ok(mut entry) = Entry::decode("manifest", text) else { continue };
            let again = entry.encode().unwrap();
            assert_eq!(Entry::decode("manifest", &again).unwrap(), entry, "an entry reads back as itself");
            if flags & 2 == 0 {
                (entry.version, entry.prev) = (twins.state.entries, twins.state.tip);
            }
            twins.apply(&entry, Entry::hash(text));
        }
    } else {
        let mut choices = Choices(rest);
        let most = if xxh3_64(bytes).is_multiple_of(LONG) { 200 } else { 30 };
        for _ in 0..most {
            if choices.is_empty() {
                break;
            }
            let entry = entry(&twins.state, &mut choices);
            twins.apply(&entry, u128::from(choices.number()));
        }
        through_a_checkpoint(&twins.state);
    }
}

/// A checkpoint, packed or as JSON, is read; what it gives is written again and folded upon. Or a part of one, with the name
/// that vouches for it, or another.
pub fn checkpoint(bytes: &[u8]) {
    let Some((flags, rest)) = bytes.split_first() else { return };
    match flags & 12 {
        4 => return index_part(rest, flags & 1 == 0),
        8 => return list_part(rest, flags & 1 == 0),
        _ => {}
    }
    let mut unpacked = Vec::new();
    let (json, packed) = if flags & 1 == 0 {
        let read =
            zstd::Decoder::new(rest).and_then(|decoder| decoder.take(1 << 20).read_to_end(&mut unpacked));
        let _ = read;
        (unpacked.as_slice(), rest.to_vec())
    } else {
        (rest, zstd::bulk::compress(rest, 1).unwrap())
    };
    // The version is part of the name: that of the text, or a chosen one.
    let version = if flags & 2 == 0 {
        #[derive(Deserialize)]
        struct Head {
            state: Counted,
        }
        #[derive(Deserialize)]
        struct Counted {
            entries: u64,
        }
        serde_json::from_slice(json).map_or(0, |head: Head| head.state.entries.saturating_sub(1))
    } else {
        u64::MAX - u64::from(flags >> 4)
    };
    let name = format!("_dedupe/checkpoint/{version:020}-{:032x}.json.zst", xxh3_128(json));
    assert_eq!(stored::version_of(&name), Some(version));
    let Ok(state) = stored::decode(&name, &packed) else { return };
    through_a_checkpoint(&state);
    let (mut twins, mut choices) = (Twins::of(state), Choices(rest));
    for _ in 0..8 {
        let entry = entry(&twins.state, &mut choices);
        twins.apply(&entry, 1);
    }
}

/// An index part: what is read of it whole is what is found in it key by key.
fn index_part(bytes: &[u8], named_right: bool) {
    let records = bytes.get(8..16).map_or(0, |count| u64::from_le_bytes(count.try_into().unwrap()));
    let hash = if named_right { index::hash(bytes, records.min(1 << 24)) } else { 7 };
    let part = Part { name: format!("_dedupe/parts/{:020}-{hash:032x}.index", 1), records };
    let Ok(all) = index::decode(&part, bytes) else { return };
    let head = index::extent(&part).unwrap().0 as usize;
    let directory = index::Directory::decode(&part, &bytes[..head]).unwrap();
    for (key, seen) in &all {
        let mut found = directory.blocks_of(*key).flat_map(|block| {
            let range = directory.bytes_of(block..block + 1);
            directory.records(block, &bytes[range.start as usize..range.end as usize]).unwrap()
        });
        // In a part of ours keys ascend; in any other some may not be found, and nothing else than is there.
        assert!(found.any(|record| record == (*key, *seen)) || !all.is_sorted_by_key(|(key, _)| *key));
    }
}

/// A list part, packed or as JSON.
fn list_part(bytes: &[u8], packed: bool) {
    let (mut json, mut part) = (Vec::new(), bytes.to_vec());
    if packed {
        let _ = zstd::Decoder::new(bytes).and_then(|decoder| decoder.take(1 << 20).read_to_end(&mut json));
    } else {
        (json, part) = (part, zstd::bulk::compress(bytes, 1).unwrap());
    }
    #[derive(Deserialize)]
    struct Counted {
        files: Vec<IgnoredAny>,
        quarantine: Vec<IgnoredAny>,
    }
    let counted = serde_json::from_slice(&json);
    let records = counted.map_or(0, |counted: Counted| counted.files.len() + counted.quarantine.len());
    let name = format!("_dedupe/parts/{:020}-{:032x}.list.zst", 1, xxh3_128(&json));
    let named = Part { name, records: records as u64 };
    let Ok(lists) = Lists::decode(&named, &part) else { return };
    assert_eq!(lists.len() as u64, named.records);
}

/// A state to which all entries are applied, and one that void entries never reach: they stay equal. (Copies to compare with
/// cost more than all else.)
struct Twins {
    state: State,
    unharmed: State,
}

impl Twins {
    fn of(state: State) -> Self {
        Self { unharmed: state.clone(), state }
    }

    fn apply(&mut self, entry: &Entry, hash: u128) {
        let Self { state, unharmed } = self;
        let allowed = state.check(entry);
        let (entries, floor, oldest) = (state.entries, state.floor, state.oldest);
        match state.apply(entry, hash) {
            Applied::Valid => {
                assert!(allowed.is_ok());
                assert_eq!(unharmed.apply(entry, hash), Applied::Valid);
            }
            Applied::Void(Void::Unread(what)) => {
                assert_eq!(allowed, Err(Void::Unread(what)));
                assert_eq!(state, unharmed, "what cannot be judged has no effect at all");
                return;
            }
            Applied::Void(void) => {
                assert_eq!(allowed, Err(void));
                (unharmed.entries, unharmed.tip) = (state.entries, state.tip);
                assert_eq!(state, unharmed, "a void entry has no effect");
            }
        }
        assert_eq!(state.entries, entries.saturating_add(1));
        assert_eq!(state.tip, hash);
        assert!(state.floor >= floor && state.oldest >= oldest);
        let _ = state.inline_count();
    }
}

fn through_a_checkpoint(state: &State) {
    if state.version().is_none_or(|version| version >= 1 << 60) {
        return;
    }
    let Ok(objects) = stored::encode(state) else { return };
    let (name, bytes) = objects.last().unwrap();
    let mut read = stored::decode(name, bytes).unwrap();
    let part = |name: &str| objects.iter().find(|(part, _)| part == name).map(|(_, bytes)| bytes.clone());
    stored::take_parts(&mut read, part).unwrap();
    assert_eq!(read, *state, "a state reads back as itself");
}

/// An entry that would be valid mostly, with this or that changed.
fn entry(state: &State, choices: &mut Choices<'_>) -> Entry {
    let body = match choices.byte() % 16 {
        _ if state.table.is_empty() && !choices.one_in(8) => {
            Body::Create(Create { table: "t".into(), policy: Policy::default() })
        }
        0 => Body::Create(Create { table: String::new(), policy: Policy::default() }),
        1 => Body::Policy { policy: Policy { null_key: NullKey::Keep, partition_by: Vec::new() } },
        2 => Body::Fence { floor: pick(state.entries, choices), oldest: pick(state.oldest, choices) },
        3..=6 => Body::Compact(compact(state, choices)),
        _ => Body::Ingest(Box::new(ingest(state, choices))),
    };
    let misplaced = choices.byte() == 255;
    Entry {
        format: 1,
        version: if misplaced { choices.edge() } else { state.entries },
        id: u128::from(choices.number()),
        prev: if misplaced { 0 } else { state.tip },
        time: String::new(),
        session: "0".repeat(32),
        writer: String::new(),
        body,
    }
}

/// The usual number, or seldom another.
fn pick(usual: u64, choices: &mut Choices<'_>) -> u64 {
    if choices.byte() < 240 { usual } else { choices.edge() }
}

fn name(folder: &str, extension: &str, state: &State, choices: &mut Choices<'_>) -> String {
    let stage = pick(state.entries, choices);
    match choices.byte() {
        250 => format!("../../{folder}/{stage:020}-{}-0.{extension}", "0".repeat(32)),
        251 => format!("{folder}/part-{stage}"),
        252 => String::new(),
        byte => format!("{folder}/{stage:020}-{:032x}-{byte}.{extension}", choices.byte()),
    }
}

fn tokens(choices: &mut Choices<'_>) -> TokenSum {
    let sum = u128::from(choices.byte()) << 120 | u128::from(choices.byte());
    TokenSum { count: pick(u64::from(choices.byte() % 4), choices), sum }
}

fn ingest(state: &State, choices: &mut Choices<'_>) -> Ingest {
    let mut ingest = Ingest { policy: pick(state.policy_version, choices), ..Ingest::default() };
    for _ in 0..choices.byte() % 3 {
        let (tokens, keyless) = (tokens(choices), pick(u64::from(choices.byte() % 3), choices));
        let rows = pick(tokens.count.wrapping_add(keyless), choices);
        let name = name("data", "parquet", state, choices);
        ingest.files.push(DataFile {
            name,
            rows,
            bytes: choices.edge(),
            check: String::new(),
            keyless,
            tokens,
            origin: vec![(0, rows)],
            key_range: Vec::new(),
        });
        ingest.added = ingest.added.plus(tokens);
        ingest.keyless = ingest.keyless.wrapping_add(keyless);
        let run = run(tokens, self::name("_dedupe/tokens", "run", state, choices));
        ingest.runs.push(run);
        ingest.rows.accepted = ingest.rows.accepted.wrapping_add(rows);
    }
    if choices.one_in(4) {
        let inline: Vec<Token> = (0..u128::from(choices.byte() % 4)).map(Token).collect();
        let sum = TokenSum::of(&inline);
        if let Some(file) = ingest.files.first_mut() {
            file.tokens = file.tokens.plus(sum);
            file.rows = file.rows.wrapping_add(sum.count);
            ingest.rows.accepted = ingest.rows.accepted.wrapping_add(sum.count);
        }
        ingest.added = ingest.added.plus(sum);
        ingest.inline = InlineTokens(inline);
    }
    ingest.rows.duplicate = choices.edge();
    ingest.rows.read = pick(ingest.rows.accepted.wrapping_add(ingest.rows.duplicate), choices);
    for part in 0..choices.byte() % 3 {
        let rows = if part == 0 { ingest.rows } else { Accounting::default() };
        let id = (choices.one_in(2)).then(|| u128::from(choices.byte() % 8));
        let seen = id.and_then(|id| state.source(id).ok().flatten()).map(|seen| seen.version);
        let replay_of = seen.map(|version| pick(version, choices));
        ingest.sources.push(SourceUse { url: "s".into(), id, replay_of, rows, ..SourceUse::default() });
    }
    ingest.total = state.total.plus(ingest.added);
    if state.schema.is_none() || choices.one_in(16) {
        let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
        ingest.schema = Some(SchemaChange { base: pick(state.schema_version, choices), schema });
    }
    if choices.one_in(8) {
        ingest.batch = Some(Batch { id: format!("b{}", choices.byte() % 4), digest: 1 });
    }
    if choices.one_in(8) {
        let name = name("_dedupe/quarantine", "ndjson", state, choices);
        ingest.quarantine.push(QuarantineFile { name, rows: choices.edge(), bytes: choices.edge() });
    }
    ingest
}

fn compact(state: &State, choices: &mut Choices<'_>) -> Compact {
    let mut compact = Compact::default();
    let mut sum = TokenSum::default();
    for (run, live) in &state.runs {
        if choices.one_in(2) {
            compact.runs_removed.push(run.clone());
            sum = sum.plus(live.item.tokens);
        }
    }
    for (version, inline) in &state.inline {
        if choices.one_in(2) {
            compact.inline_removed.push(*version);
            sum = sum.plus(TokenSum::of(&inline.0));
        }
    }
    if choices.one_in(16) {
        compact.runs_removed.push("_dedupe/tokens/none.run".into());
    }
    let name = name("_dedupe/tokens", "run", state, choices);
    let tokens = if choices.byte() < 240 { sum } else { tokens(choices) };
    compact.runs_added.push(run(tokens, name));
    compact
}

fn run(tokens: TokenSum, name: String) -> RunRef {
    RunRef { name, bytes: 9, min: 0, max: 1, tokens, check: "0".repeat(16) }
}
