//! Token runs and filters: a sound one answers exactly, a changed one is refused or answers without harm.

use super::Choices;
use crate::index::bloom::Shape;
use crate::index::lookup::{self, Limits};
use crate::index::run::{BLOCK_TOKENS, BLOOM_CHUNK, FOOTER_BYTES, Layout, Tail};
use crate::index::{Bloom, RunMeta, RunSpec, RunWriter};
use crate::token::{Token, TokenSum};
use xxhash_rust::xxh3::xxh3_64;

/// A run of chosen tokens, changed in chosen places, its checksums mended if so chosen, is opened, scanned and asked.
pub fn token_run(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let (flags, spread) = (choices.byte(), choices.byte());
    let count = if flags & 0x70 == 0x70 { choices.below(9_000) } else { choices.below(300) };
    let mut tokens: Vec<Token> = (0..count).map(|i| token(i, spread)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let commits = match flags & 3 {
        0 => None,
        1 => Some(7),
        _ => Some(u64::from(u32::MAX) + 9),
    };
    let bits = u32::from(choices.byte() % 20);
    let spec = RunSpec { highest_commit: commits, bits_per_token: bits, ..RunSpec::of(&tokens) };
    let mut writer = RunWriter::new("run", Vec::new(), &spec).unwrap();
    for (at, token) in (0..).zip(&tokens) {
        match commits {
            Some(highest) => writer.push_with_commit(*token, highest.min(at)).unwrap(),
            None => writer.push(*token).unwrap(),
        }
    }
    let (summary, mut object) = writer.finish().unwrap();
    let sound = object.clone();
    let repair = flags & 4 != 0;
    while !choices.is_empty() {
        change(&mut object, &mut choices);
    }
    if repair {
        mend(&mut object);
    }
    let whole = object == sound;
    let Some(meta) = open(&object) else {
        assert!(!whole, "a sound run cannot be opened");
        return;
    };
    assert!(meta.memory() <= 2 * object.len() + 4096, "{} bytes for {}", meta.memory(), object.len());
    assert!(!whole || meta.expect(&summary).is_ok());
    let _ = meta.check_header(part(&object, 0..16));

    let layout = *meta.layout();
    let mut read = Vec::new();
    for block in 0..layout.blocks() {
        match meta.decode_block(block, part(&object, layout.block_range(block))) {
            Ok(some) => read.extend(some),
            Err(_) => assert!(!whole),
        }
        if let Ok(commits) = meta.decode_commits(block, part(&object, layout.commit_range(block))) {
            assert!(commits.is_empty() || commits.len() as u64 == layout.block_tokens(block));
        }
    }
    assert!(!whole || read == tokens);
    assert!(!whole || TokenSum::of(&read) == summary.tokens);

    // Known ones, strangers, and the extremes.
    let strangers = (0..100).map(|i| token(i + 1_000_000, spread.rotate_left(3)));
    let mut asked: Vec<Token> = tokens.iter().step_by(3).copied().chain(strangers).collect();
    asked.extend([Token(0), Token(u128::MAX)]);
    asked.sort_unstable();
    asked.dedup();
    let loaded = meta.decode_bloom(part(&object, layout.bloom_range()));
    assert!(!whole || loaded.is_ok());
    let mut survivors: Vec<u32> = (0..asked.len() as u32).collect();
    if let Ok(Some(bloom)) = loaded {
        survivors.clear();
        bloom.probe_batch(&asked, &mut survivors);
        let mut scanned = Vec::new();
        if let Some(mut scan) = meta.scan_bloom() {
            while let Some(range) = scan.wants(1) {
                scan.probe(part(&object, range), &asked, &mut scanned).unwrap();
            }
        }
        assert_eq!(scanned, survivors, "a filter that passes by answers as one that is loaded");
    }
    for limits in [Limits::default(), Limits { request: 1, gap: 0 }] {
        let fetches = lookup::plan(&meta, &asked, &survivors, &limits).unwrap();
        let mut hits = Vec::new();
        let mut end = 0;
        for fetch in &fetches {
            assert!(fetch.bytes.start >= end && fetch.bytes.end <= object.len() as u64);
            end = fetch.bytes.end;
            let bytes = part(&object, fetch.bytes.clone());
            let found = lookup::find(&meta, fetch, bytes, &asked, &survivors, &mut hits);
            assert!(!whole || found.is_ok());
        }
        assert!(hits.iter().all(|hit| (hit.position as usize) < asked.len() && hit.index < layout.count()));
        if whole {
            let found: Vec<Token> = hits.iter().map(|hit| asked[hit.position as usize]).collect();
            let known: Vec<Token> =
                asked.iter().filter(|token| tokens.binary_search(token).is_ok()).copied().collect();
            assert_eq!(found, known);
        }
    }
}

/// A filter of chosen shape and bytes: never a panic, never a "no" to what was put in, and one answer whichever way.
pub fn bloom(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let (first, last, lines) = (choices.number(), choices.number(), choices.edge());
    let Some(shape) = Shape::new(first, last, lines) else { return };
    let asked: Vec<Token> = {
        let mut asked: Vec<Token> = (0..choices.below(200)).map(|i| token(i, choices.byte())).collect();
        asked.extend([u128::from(first) << 64, u128::from(last) << 64, 0, u128::MAX].map(Token));
        asked.sort_unstable();
        asked
    };
    let given = Bloom::from_bytes(shape, choices.0);
    assert!(given.is_ok(), "no more is taken than was given");
    let mut size = choices.0.to_vec();
    let small = shape.bytes() <= 1 << 16;
    if small {
        size.resize(shape.bytes() as usize, 0);
    }
    let Ok(Some(mut bloom)) = Bloom::from_bytes(shape, &size) else {
        assert!(!small && size.len() as u64 != shape.bytes());
        return;
    };
    assert_eq!(bloom.bytes(0, usize::MAX), size);
    let mut survivors = Vec::new();
    bloom.probe_batch(&asked, &mut survivors);
    let single = (0..).zip(&asked).filter(|(_, token)| bloom.may_hold(**token)).map(|(at, _)| at);
    assert_eq!(survivors, single.collect::<Vec<u32>>());
    asked.iter().for_each(|token| bloom.insert(*token));
    assert!(asked.iter().all(|token| bloom.may_hold(*token)));
}

fn token(i: u64, spread: u8) -> Token {
    let mix = |i: u64| (i ^ i >> 31).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ i << 7;
    let (high, low) = (mix(i + 1), mix(!i));
    match spread % 5 {
        0 => Token(u128::from(high) << 64 | u128::from(low)),
        // Crowds that share their highest or their lowest bits.
        1 => Token(7 << 64 | u128::from(low)),
        2 => Token(u128::from(high >> 56) << 64 | u128::from(low)),
        3 => Token(u128::from(high) << 64 | 7),
        _ => Token(u128::MAX - u128::from(i)),
    }
}

fn change(object: &mut Vec<u8>, choices: &mut Choices<'_>) {
    let (kind, at, value) = (choices.byte(), choices.below(1 << 16) as usize, choices.byte());
    let length = object.len();
    // Most that matters lies at the end.
    let at = if kind & 0x80 == 0 { length.saturating_sub(1 + at % 240) } else { at % length.max(1) };
    match kind & 7 {
        0 | 1 => {
            if let Some(byte) = object.get_mut(at) {
                *byte ^= value.max(1);
            }
        }
        2 | 3 => {
            if let Some(byte) = object.get_mut(at) {
                *byte = value;
            }
        }
        4 => {
            let wide = choices.edge().to_le_bytes();
            for (offset, new) in wide.iter().enumerate() {
                if let Some(byte) = object.get_mut(at + offset) {
                    *byte = *new;
                }
            }
        }
        5 => object.truncate(at),
        6 => object.extend(std::iter::repeat_n(value, usize::from(value))),
        _ => {
            object.remove(at.min(length.saturating_sub(1)).min(length.wrapping_sub(1)));
        }
    }
    if object.is_empty() {
        object.push(value);
    }
}

/// Makes the checksums fit what stands there now, as somebody would who forges a run.
fn mend(object: &mut [u8]) {
    let size = object.len();
    let Some(footer) = size.checked_sub(FOOTER_BYTES as usize) else { return };
    let word = |object: &[u8], at: usize| {
        object.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let (count, lines) = (word(object, footer + 8), word(object, footer + 16));
    let width = word(object, footer) >> 32;
    let Some(layout) = Layout::new(count, width as u32, lines).filter(|layout| layout.bytes() == size as u64)
    else {
        return;
    };
    let blocks = layout.blocks() as usize;
    let mut sums: Vec<u64> = Vec::new();
    sums.extend((0..layout.blocks()).map(|block| xxh3_64(part(object, layout.block_range(block)))));
    if width != 0 {
        sums.extend((0..layout.blocks()).map(|block| xxh3_64(part(object, layout.commit_range(block)))));
    }
    sums.extend(part(object, layout.bloom_range()).chunks(BLOOM_CHUNK as usize).map(xxh3_64));
    let directory = layout.tail_range().start as usize;
    for (at, sum) in sums.iter().enumerate() {
        let place = directory + (blocks + at) * 8;
        object[place..place + 8].copy_from_slice(&sum.to_le_bytes());
    }
    let checksum = xxh3_64(&object[directory..size - 16]);
    object[size - 16..size - 8].copy_from_slice(&checksum.to_le_bytes());
    assert!(count.div_ceil(BLOCK_TOKENS) == layout.blocks());
}

/// Opens a run as a store's reader does.
fn open(object: &[u8]) -> Option<RunMeta> {
    let size = object.len() as u64;
    let mut range = RunMeta::first_read(size);
    for _ in 0..2 {
        match RunMeta::parse("run", size, part(object, range.clone())).ok()? {
            Tail::Ready(meta) => return Some(*meta),
            Tail::Needs(more) => {
                assert!(more.start <= more.end && more.end <= size && more != range);
                range = more;
            }
        }
    }
    panic!("a third read of a run's end")
}

fn part(object: &[u8], range: std::ops::Range<u64>) -> &[u8] {
    object.get(range.start as usize..range.end as usize).unwrap_or_default()
}
