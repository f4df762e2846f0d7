//! A table that a stranger wrote: sound tables are changed, byte by byte and number by number, with the hashes mended
//! as a forger would; then everything that reads or writes a table runs over them. It may fail, in order: no panic, no
//! hang, and no more memory than the table's own size bears out.

use crate::held::{alone, peak};
use crate::seal::sealed;
use bytes::Bytes;
use dedupe::ingest::ingest;
use dedupe::ledger::Ledger;
use dedupe::ledger::seal::seal;
use dedupe::options::IngestOptions;
use dedupe::report::Progress;
use dedupe::source::parquet::is_shielded;
use dedupe::store::Store;
use dedupe::upkeep::compact::compact;
use dedupe::upkeep::doctor::examine;
use dedupe::upkeep::explain::explain;
use dedupe::upkeep::history::history;
use dedupe::upkeep::verify::{VerifyOptions, verify};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

const MIB: usize = 1 << 20;

/// What any of the calls may hold, beyond some times the size of the table.
const CEILING: usize = 160 * MIB;

/// Objects by name.
type Table = BTreeMap<String, Vec<u8>>;

static PANICS: AtomicUsize = AtomicUsize::new(0);

/// A reproducible stream of choices.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        let mixed = self.0 ^ self.0 >> 29;
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

fn options() -> IngestOptions {
    let mut options = IngestOptions::default();
    options.key = Some(vec!["id".into()]);
    options.memory = 32 << 20;
    options.threads = NonZeroUsize::new(2).unwrap();
    options
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

/// A small table with something of everything: inline tokens, runs, a compaction, quarantine, a batch, a checkpoint.
fn sound(scratch: &Path) -> Table {
    let table = scratch.join("sound");
    let go = |name: &str, text: String, options: &IngestOptions| {
        let source = scratch.join(name);
        std::fs::write(&source, text).unwrap();
        let source = source.to_str().unwrap().to_owned();
        let into = table.to_str().unwrap();
        runtime().block_on(ingest(&[source], into, options, &Progress::default())).unwrap()
    };
    let rows = |from: u32, to: u32| {
        (from..to).map(|n| format!("{{\"id\":\"e{n}\",\"n\":{n}}}\n")).collect::<String>()
    };
    go("a.ndjson", rows(0, 400), &options());
    let mut batch = options();
    batch.batch_id = Some("b".into());
    go("b.ndjson", rows(300, 900) + "{broken\n{\"n\":1}\n", &batch);
    for n in 0..34 {
        go(&format!("c{n}.ndjson"), rows(1000 + n, 1003 + n), &options());
    }
    read(&table)
}

fn read(folder: &Path) -> Table {
    let mut table = Table::new();
    for entry in walkdir::WalkDir::new(folder) {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            let name = entry.path().strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
            table.insert(name, std::fs::read(entry.path()).unwrap());
        }
    }
    table
}

fn write(table: &Table, folder: &Path) {
    for (name, bytes) in table {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// Numbers, texts and structures at which things break.
fn edge(dice: &mut Dice) -> Value {
    let wide: Vec<Value> = vec![json!({"since": 1}); 2000];
    let mut deep = json!(1);
    for _ in 0..100 {
        deep = json!([deep]);
    }
    let values = [
        json!(0),
        json!(1),
        json!(-1),
        json!(u64::MAX),
        json!(u64::MAX - 1),
        json!(1u64 << 62),
        json!(1u64 << 40),
        json!(u32::MAX),
        json!(1_000_000_000u64),
        json!(1e308),
        json!(null),
        json!(true),
        json!(""),
        json!("../../../../etc/passwd"),
        json!("/etc/passwd"),
        json!("data/../../00000000000000000000-00000000000000000000000000000000-0.parquet"),
        json!("../canary/00000000000000000000-00000000000000000000000000000000-0.parquet"),
        json!("_dedupe/tokens/00000000000000000001-00000000000000000000000000000000-0.run"),
        json!("f".repeat(32)),
        json!("0".repeat(32)),
        json!("f".repeat(16)),
        json!("x".repeat(100_000)),
        json!("0:18446744073709551615 4294967295:18446744073709551615"),
        json!("\u{1b}[31m\0\u{202e}"),
        json!([]),
        json!({}),
        Value::Array(wide),
        deep,
    ];
    dice.pick(&values).clone()
}

/// Puts an edge in the place of some value, or takes it away, or doubles it.
fn bend(value: &mut Value, dice: &mut Dice) {
    let inside = dice.below(6) > 0;
    match value {
        Value::Object(members) if inside && !members.is_empty() => {
            let names: Vec<String> = members.keys().cloned().collect();
            let name = dice.pick(&names).clone();
            match dice.below(12) {
                0 => drop(members.remove(&name)),
                1 => drop(members.insert(format!("{name}x"), edge(dice))),
                _ => bend(members.get_mut(&name).unwrap(), dice),
            }
        }
        Value::Array(items) if inside && !items.is_empty() => match dice.below(8) {
            0 => {
                let twice = dice.pick(items).clone();
                items.push(twice);
            }
            1 => drop(items.pop()),
            _ => {
                let at = dice.below(items.len());
                bend(&mut items[at], dice);
            }
        },
        _ => *value = edge(dice),
    }
}

fn json_of(bytes: &[u8]) -> Option<Value> {
    serde_json::from_slice(bytes).ok()
}

const LEDGER: &str = "_dedupe/ledger/";
const CHECKPOINTS: &str = "_dedupe/checkpoint/";
const PARTS: &str = "_dedupe/parts/";

/// Makes each manifest follow from the one before it again.
fn chain(table: &mut Table) {
    let names: Vec<String> = table.keys().filter(|name| name.starts_with(LEDGER)).cloned().collect();
    let mut before = 0u128;
    for name in names {
        let bytes = table.get_mut(&name).unwrap();
        if let Some(mut entry) = json_of(bytes)
            && entry.is_object()
        {
            entry["prev"] = json!(format!("{before:032x}"));
            *bytes = sealed(entry);
        }
        before = xxh3_128(bytes);
    }
}

/// Puts `bytes` in the place of a part, under a name that vouches for them.
fn replace_part(table: &mut Table, checkpoint: &mut Value, kind: &str, bytes: Vec<u8>, hash: u128) {
    let Some(part) = checkpoint.pointer_mut(&format!("/state/beneath/{kind}/parts/0/name")) else { return };
    let Some(old) = part.as_str().map(str::to_owned) else { return };
    let (Some(start), Some(end)) = (old.get(..PARTS.len() + 21), old.get(PARTS.len() + 53..)) else { return };
    let name = format!("{start}{hash:032x}{end}");
    *part = json!(name);
    table.remove(&old);
    table.insert(name, bytes);
}

/// Bends what a checkpoint's parts say, and mends their checksums.
fn forge_part(table: &mut Table, checkpoint: &mut Value, dice: &mut Dice) {
    let part = |kind: &str| {
        let name = checkpoint["state"]["beneath"][kind]["parts"][0]["name"].as_str()?;
        table.get(name).cloned()
    };
    if dice.below(2) == 0 {
        let Some(packed) = part("lists") else { return };
        let Some(mut list) = zstd::decode_all(packed.as_slice()).ok().and_then(|json| json_of(&json)) else {
            return;
        };
        for _ in 0..1 + dice.below(3) {
            bend(&mut list, dice);
        }
        let json = serde_json::to_vec(&list).unwrap();
        let count = |what: &str| list[what].as_array().map_or(0, Vec::len);
        if let Some(records) = checkpoint.pointer_mut("/state/beneath/lists/parts/0/records") {
            *records = json!(count("files") + count("quarantine"));
        }
        replace_part(table, checkpoint, "lists", zstd::bulk::compress(&json, 1).unwrap(), xxh3_128(&json));
        return;
    }
    let Some(mut bytes) = part("index").filter(|bytes| bytes.len() > 16) else { return };
    for _ in 0..1 + dice.below(40) {
        let at = dice.below(bytes.len());
        bytes[at] = dice.below(256) as u8;
    }
    let records = checkpoint["state"]["beneath"]["index"]["parts"][0]["records"].as_u64();
    let records = records.unwrap_or_default().min(1 << 20) as usize;
    let head = 16 + 16 * records.div_ceil(128);
    if bytes.len() == head + 40 * records {
        bytes[..8].copy_from_slice(b"dedupIX\x01");
        bytes[8..16].copy_from_slice(&(records as u64).to_le_bytes());
        let (directory, blocks) = bytes.split_at_mut(head);
        for (entry, block) in directory[16..].chunks_mut(16).zip(blocks.chunks(5120)) {
            entry[8..].copy_from_slice(&xxh3_64(block).to_le_bytes());
        }
    }
    let hash = xxh3_128(&bytes[..head.min(bytes.len())]);
    replace_part(table, checkpoint, "index", bytes, hash);
}

/// Bends the checkpoint's state or its parts, and gives it the name and the tip that make it look sound.
fn forge_checkpoint(table: &mut Table, dice: &mut Dice) {
    let Some(name) = table.keys().find(|name| name.starts_with(CHECKPOINTS)).cloned() else { return };
    let packed = table.remove(&name).unwrap();
    let Some(mut checkpoint) = zstd::decode_all(packed.as_slice()).ok().and_then(|json| json_of(&json))
    else {
        return;
    };
    if dice.below(2) == 0 {
        forge_part(table, &mut checkpoint, dice);
    } else {
        for _ in 0..1 + dice.below(3) {
            bend(&mut checkpoint["state"], dice);
        }
    }
    let entries = match dice.below(4) {
        0 => *dice.pick(&[u64::MAX, u64::MAX - 1, (1 << 62) + 1, 1 << 61]),
        _ => checkpoint["state"]["entries"].as_u64().unwrap_or(33),
    };
    if checkpoint["state"].is_object() {
        checkpoint["state"]["entries"] = json!(entries);
        for kind in ["index", "lists"] {
            if checkpoint["state"]["beneath"][kind].is_object() {
                checkpoint["state"]["beneath"][kind]["entries"] = json!(entries);
            }
        }
    }
    let version = entries.wrapping_sub(1);
    let tip = format!("{LEDGER}{version:020}.json");
    let tip = table.entry(tip).or_insert_with(|| b"{}".to_vec());
    if checkpoint["state"].is_object() {
        checkpoint["state"]["tip"] = json!(format!("{:032x}", xxh3_128(tip)));
    }
    let json = serde_json::to_vec(&checkpoint).unwrap();
    let name = format!("{CHECKPOINTS}{version:020}-{:032x}.json.zst", xxh3_128(&json));
    table.insert(name, zstd::bulk::compress(&json, 1).unwrap());
}

/// One change or a few, as somebody might make who can write to the bucket.
fn change(table: &mut Table, dice: &mut Dice) -> String {
    let mut told = Vec::new();
    for _ in 0..1 + dice.below(2) {
        let names: Vec<String> = table.keys().cloned().collect();
        let name = dice.pick(&names).clone();
        let kind = dice.below(10);
        told.push(format!("{kind} {name}"));
        let bytes = table.get_mut(&name).unwrap();
        match kind {
            0..=4 => {
                // A manifest, the identity or a checkpoint, value by value.
                let structured: Vec<&String> = names.iter().filter(|name| name.ends_with(".json")).collect();
                let name = (*dice.pick(&structured)).clone();
                let bytes = table.get_mut(&name).unwrap();
                if let Some(mut value) = json_of(bytes) {
                    for _ in 0..1 + dice.below(3) {
                        bend(&mut value, dice);
                    }
                    *bytes = sealed(value);
                }
                told.push(name);
                chain(table);
            }
            5 => forge_checkpoint(table, dice),
            6 => {
                for _ in 0..1 + dice.below(4) {
                    let at = dice.below(bytes.len());
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte ^= 1 << dice.below(8);
                    }
                }
            }
            7 => bytes.truncate(dice.below(bytes.len())),
            8 => drop(table.remove(&name)),
            _ => {
                let other = dice.pick(&names).clone();
                let bytes = table[&other].clone();
                table.insert(name, bytes);
            }
        }
    }
    told.join(", ")
}

/// Everything that is done with tables, one after the other. Errors are what is expected.
async fn use_it(place: &str, source: &str) -> Vec<String> {
    let mut ends = Vec::new();
    let mut note = |what: &str, end: Result<(), String>| {
        ends.push(format!("{what}: {}", end.err().unwrap_or_else(|| "done".into())));
    };
    let open = || Store::open(place, &[]).map_err(|error| error.to_string());
    let ledger = match open() {
        Ok(store) => Ledger::open(store).await,
        Err(error) => return vec![error],
    };
    match ledger {
        Ok(Some(mut ledger)) => {
            let _ = format!("{:?}", ledger.state().total);
            let entries = ledger.state().entries;
            let told = history(&ledger, 0..entries.min(50), |_, _| {}).await;
            note("history", told.map(drop).map_err(|e| e.to_string()));
            let mut options = VerifyOptions::default();
            options.memory = 32 << 20;
            let verified = verify(&ledger, &options).await;
            note("verify", verified.map(drop).map_err(|e| e.to_string()));
            for key in ["e1", "e1001", "nobody"] {
                let key = vec![("id".to_owned(), Some(key.to_owned()))];
                let explained = explain(&ledger, &key).await;
                note("explain", explained.map(drop).map_err(|e| e.to_string()));
            }
            let compacted = compact(&mut ledger, 32 << 20).await;
            note("compact", compacted.map(drop).map_err(|e| e.to_string()));
        }
        Ok(None) => note("open", Err("no table".into())),
        Err(error) => note("open", Err(error.to_string())),
    }
    if let Ok(store) = open() {
        let old = Ledger::open_at(store, 3).await;
        note("open at 3", old.map(drop).map_err(|e| e.to_string()));
    }
    let mut options = options();
    options.key = None;
    let ingested = ingest(&[source.to_owned()], place, &options, &Progress::default()).await;
    note("ingest", ingested.map(drop).map_err(|e| e.to_string()));
    ends
}

/// Runs everything over a table in a folder; gives how it ended, and the most that was held.
fn survive(table: &Table, scratch: &Path, what: &str) -> Vec<String> {
    let home = tempfile::tempdir_in(scratch).unwrap();
    let place = home.path().join("t");
    write(table, &place);
    std::fs::create_dir(home.path().join("canary")).unwrap();
    let canary = home.path().join("canary/00000000000000000000-00000000000000000000000000000000-0.parquet");
    std::fs::write(&canary, b"sings").unwrap();
    let source = home.path().join("new.ndjson");
    std::fs::write(&source, "{\"id\":\"e1\",\"n\":1}\n{\"id\":\"new\",\"n\":2}\n").unwrap();
    let before = PANICS.load(Ordering::SeqCst);
    let (place, source) = (place.to_str().unwrap().to_owned(), source.to_str().unwrap().to_owned());
    let runtime = runtime();
    let (ends, held) = peak(|| {
        runtime.block_on(async {
            let task = tokio::spawn(async move { use_it(&place, &source).await });
            tokio::time::timeout(Duration::from_secs(120), task).await
        })
    });
    runtime.shutdown_background();
    let ends = ends.unwrap_or_else(|_| panic!("{what}: it never ends"));
    let ends = ends.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(PANICS.load(Ordering::SeqCst), before, "{what}: a panic: {ends:?}");
    let size: usize = table.values().map(Vec::len).sum();
    assert!(held <= CEILING + 16 * size, "{what}: {} MiB for {size} bytes: {ends:?}", held / MIB);
    assert_eq!(std::fs::read(&canary).unwrap(), b"sings", "{what}: something outside was touched");
    for end in &ends {
        assert!(!end.contains("internal error"), "{what}: {end}");
    }
    ends
}

fn count_panics() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            // What a decoder gives up over is caught and told as an error.
            if !is_shielded() {
                PANICS.fetch_add(1, Ordering::SeqCst);
                tell(info);
            }
        }));
    });
}

#[test]
fn a_changed_table_fails_in_order_or_works() {
    let _alone = alone();
    count_panics();
    let scratch = tempfile::tempdir().unwrap();
    let sound = sound(scratch.path());
    assert!(sound.keys().any(|name| name.starts_with(CHECKPOINTS)), "{:?}", sound.keys());
    assert!(sound.keys().any(|name| name.ends_with(".run")));
    let ends = survive(&sound, scratch.path(), "unchanged");
    assert!(ends.iter().all(|end| end.ends_with(": done")), "{ends:?}");
    let cases: u64 = std::env::var("DEDUPE_HOSTILE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let first: u64 = std::env::var("DEDUPE_HOSTILE_SEED").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let (mut failed, mut worked) = (0, 0);
    for seed in first..first + cases {
        let mut table = sound.clone();
        let what = format!("DEDUPE_HOSTILE_SEED={seed} ({})", change(&mut table, &mut Dice(seed)));
        let ends = survive(&table, scratch.path(), &what);
        if ends.iter().all(|end| end.ends_with(": done")) { worked += 1 } else { failed += 1 }
    }
    println!("{worked} still worked, {failed} failed in order");
    assert!(failed > cases / 4);
}

#[test]
fn a_checkpoint_that_unpacks_without_end_is_passed_over() {
    let _alone = alone();
    count_panics();
    let scratch = tempfile::tempdir().unwrap();
    let mut table = sound(scratch.path());
    table.retain(|name, _| !name.starts_with(CHECKPOINTS));
    let mut packed = zstd::Encoder::new(Vec::new(), 3).unwrap();
    std::io::Write::write_all(&mut packed, b"{\"format\":1,\"state\":{\"table\":\"").unwrap();
    std::io::copy(&mut std::io::Read::take(std::io::repeat(b'x'), 3 << 30), &mut packed).unwrap();
    let name = format!("{CHECKPOINTS}{:020}-{:032x}.json.zst", 32, 7);
    table.insert(name, packed.finish().unwrap());
    let ends = survive(&table, scratch.path(), "a checkpoint of 3 GiB");
    assert!(ends.iter().any(|end| end == "ingest: done"), "{ends:?}");
}

#[test]
fn large_manifests_are_held_one_at_a_time() {
    let _alone = alone();
    let scratch = tempfile::tempdir().unwrap();
    let mut table = sound(scratch.path());
    table.retain(|name, _| !name.starts_with(CHECKPOINTS));
    let names: Vec<String> = table.keys().filter(|name| name.starts_with(LEDGER)).cloned().collect();
    for name in &names[1..17] {
        let mut entry = json_of(&table[name]).unwrap();
        entry["writer"] = json!("w".repeat(8 * MIB));
        table.insert(name.clone(), sealed(entry));
    }
    chain(&mut table);
    let place = scratch.path().join("large");
    write(&table, &place);
    let entries = names.len() as u64;
    drop(table);
    let store = Store::open(place.to_str().unwrap(), &[]).unwrap();
    let ((told, ills), held) = peak(|| {
        runtime().block_on(async {
            let ledger = Ledger::open(store.clone()).await.unwrap().unwrap();
            let mut told = 0;
            history(&ledger, 0..entries, |entry, _| told += entry.writer.len()).await.unwrap();
            (told, examine(&store).await.unwrap().problems)
        })
    });
    assert!(told >= 16 * 8 * MIB && ills.is_empty(), "{told} {ills:?}");
    assert!(held < 64 * MIB, "{} MiB", held / MIB);
}

#[test]
fn claims_of_billions_cost_nothing() {
    let _alone = alone();
    count_panics();
    let scratch = tempfile::tempdir().unwrap();
    let sound = sound(scratch.path());
    // Sizes, counts and versions of everything that the second entry names.
    for (pointer, value) in [
        ("/runs/0/bytes", json!(u64::MAX)),
        ("/runs/0/bytes", json!(1u64 << 40)),
        ("/runs/0/tokens/count", json!(u64::MAX)),
        ("/files/0/bytes", json!(1u64 << 50)),
        ("/files/0/rows", json!(u64::MAX)),
        ("/rows/read", json!(u64::MAX)),
        ("/sources/0/rows/read", json!(u64::MAX)),
        ("/total/count", json!(u64::MAX)),
        ("/added/count", json!(1_000_000_000u64)),
        ("/files/0/origin", json!("0:1 ".repeat(500_000))),
        (
            "/files/0/name",
            json!("data/../../canary/00000000000000000000-00000000000000000000000000000000-0.parquet"),
        ),
        ("/runs/0/name", json!("../canary/00000000000000000000-00000000000000000000000000000000-0.parquet")),
        ("/inline", json!("A".repeat(1 << 22))),
    ] {
        let mut table = sound.clone();
        let name = format!("{LEDGER}{:020}.json", 1);
        let mut entry = json_of(&table[&name]).unwrap();
        match entry.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => entry[pointer.trim_start_matches('/')] = value,
        }
        table.insert(name, sealed(entry));
        chain(&mut table);
        survive(&table, scratch.path(), pointer);
    }
}

#[test]
fn a_manifest_of_bottomless_json_closes_the_table_and_nothing_else() {
    let _alone = alone();
    count_panics();
    let scratch = tempfile::tempdir().unwrap();
    let sound = sound(scratch.path());
    let tip = sound.keys().filter(|name| name.starts_with(LEDGER)).count();
    for text in [
        "[".repeat(1_000_000),
        "{\"a\":".repeat(500_000),
        format!("{{\"format\":1,\"kind\":\"ingest\",\"x\":{}}}", "[".repeat(200_000)),
    ] {
        let mut table = sound.clone();
        let sealed = seal(text.as_bytes()).unwrap_or(text.into_bytes());
        table.insert(format!("{LEDGER}{tip:020}.json"), sealed);
        let ends = survive(&table, scratch.path(), "bottomless");
        assert!(ends.iter().all(|end| !end.starts_with("ingest: done")), "{ends:?}");
    }
}

#[test]
fn a_data_file_that_is_a_bomb_is_told_by_verify() {
    let _alone = alone();
    count_panics();
    let scratch = tempfile::tempdir().unwrap();
    let sound = sound(scratch.path());
    for bomb in crate::bombs::parquet() {
        let mut table = sound.clone();
        let name = table.keys().find(|name| name.ends_with(".parquet")).unwrap().clone();
        table.insert(name.clone(), bomb.bytes);
        let _ = Bytes::new();
        let ends = survive(&table, scratch.path(), bomb.name);
        assert!(ends.iter().any(|end| end == "verify: done"), "{ends:?}");
    }
}
