//! Token runs: a sound one answers exactly, a changed one is refused or answers without harm.

use super::Choices;
use crate::index::lookup::{self, Limits};
use crate::index::run::{BLOCK_TOKENS, FOOTER_BYTES};
use crate::index::{RunMeta, RunWriter};
use crate::token::{Token, TokenSum};
use xxhash_rust::xxh3::xxh3_64;

/// Of so many inputs that ask for several blocks one gets them, whichever that is: a mutant seldom inherits it. Else most
/// time would go into large runs, one of which costs as much as dozens of others.
const LARGE: u64 = 16;

/// A run of chosen tokens, changed in chosen places, its checksums mended if so chosen, is opened, scanned and asked.
pub fn token_run(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let (flags, spread) = (choices.byte(), choices.byte());
    let large = flags & 0x70 == 0x70 && xxh3_64(bytes).is_multiple_of(LARGE);
    let count = choices.below(if large { 9_000 } else { 300 });
    let mut tokens: Vec<Token> = (0..count).map(|i| token(i, spread)).collect();
    tokens.sort_unstable();
    tokens.dedup();
    let commits = match flags & 3 {
        0 => None,
        1 => Some(7..=7),
        2 => Some(3..=2_000),
        _ => Some(0..=u64::MAX),
    };
    let mut writer = RunWriter::new("run", Vec::new(), commits.clone());
    for (at, token) in (0..).zip(&tokens) {
        match &commits {
            Some(commits) => {
                writer.push_with_commit(*token, (*commits.start() + at).min(*commits.end())).unwrap();
            }
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
    let Some(meta) = open(&object, summary.tokens.count) else {
        assert!(!whole, "a sound run cannot be opened");
        return;
    };
    assert!(meta.memory() <= 4 * object.len() + 4096, "{} bytes for {}", meta.memory(), object.len());
    assert!(!whole || meta.expect(&summary).is_ok());
    let _ = meta.check_header(part(&object, 0..16));

    let layout = meta.layout();
    let mut read = Vec::new();
    for block in 0..layout.blocks() {
        let before = read.len();
        let (prefixes, suffixes) = (layout.prefix_range(block), layout.suffix_range(block));
        match meta.decode_block(block, part(&object, prefixes), part(&object, suffixes), &mut read) {
            Ok(()) => assert_eq!((read.len() - before) as u64, layout.block_tokens(block)),
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
    let known: Option<Vec<Token>> =
        whole.then(|| asked.iter().filter(|token| tokens.binary_search(token).is_ok()).copied().collect());
    for limits in [Limits::default(), Limits { request: 1, gap: 0 }] {
        match look_up(&meta, &object, &asked, &limits) {
            Ok(hits) => {
                assert!(
                    hits.iter()
                        .all(|hit| (hit.position as usize) < asked.len() && hit.index < layout.count())
                );
                let mut found = hits.iter().map(|hit| asked[hit.position as usize]);
                assert!(known.as_ref().is_none_or(|known| found.by_ref().eq(known.iter().copied())));
            }
            Err(_) => assert!(!whole),
        }
    }
}

/// Looks tokens up as a store's reader does.
fn look_up(
    meta: &RunMeta,
    object: &[u8],
    asked: &[Token],
    limits: &Limits,
) -> crate::Result<Vec<lookup::Hit>> {
    let prefixes = |block| part(object, meta.layout().prefix_range(block));
    let mut hits = Vec::new();
    for piece in lookup::plan(meta, asked, limits) {
        let mut candidates = Vec::new();
        for wanted in &piece {
            meta.check_prefixes(wanted.block, prefixes(wanted.block))?;
            lookup::probe(meta, wanted, prefixes(wanted.block), asked, &mut candidates)?;
        }
        for fetch in lookup::slices(meta, &candidates, limits)? {
            assert!(fetch.bytes.end <= object.len() as u64);
            let bytes = part(object, fetch.bytes.clone());
            lookup::find(meta, &fetch, bytes, asked, &candidates, |block| Some(prefixes(block)), &mut hits)?;
        }
    }
    Ok(hits)
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

/// Makes the checksums fit what stands there now, as somebody would who forges a run: those of prefixes and commits where
/// the sizes still add up, and the footer's.
fn mend(object: &mut [u8]) {
    let size = object.len();
    let Some(footer) = size.checked_sub(FOOTER_BYTES as usize) else { return };
    let word = |object: &[u8], at: usize| {
        object.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
    };
    let (count, lowest, highest) =
        (word(object, footer + 8), word(object, footer + 16), word(object, footer + 24));
    let blocks = count.div_ceil(BLOCK_TOKENS);
    let each = if lowest < highest { 26 } else { 18 };
    let Some(directory) = blocks.checked_mul(each).and_then(|bytes| footer.checked_sub(bytes as usize))
    else {
        return;
    };
    for _ in 0..2 {
        let checksum = xxh3_64(&object[directory..size - 16]);
        object[size - 16..size - 8].copy_from_slice(&checksum.to_le_bytes());
        let Some(meta) = open(object, count) else { return };
        let blocks = blocks as usize;
        for block in 0..blocks {
            let prefixes = xxh3_64(part(object, meta.layout().prefix_range(block as u64)));
            let at = directory + (blocks + block) * 8;
            object[at..at + 8].copy_from_slice(&prefixes.to_le_bytes());
            if each == 26 {
                let commits = xxh3_64(part(object, meta.layout().commit_range(block as u64)));
                let at = directory + blocks * 18 + block * 8;
                object[at..at + 8].copy_from_slice(&commits.to_le_bytes());
            }
        }
    }
}

/// Opens a run as a store's reader does.
fn open(object: &[u8], count: u64) -> Option<RunMeta> {
    let size = object.len() as u64;
    RunMeta::parse("run", size, part(object, RunMeta::tail(size, count))).ok()
}

fn part(object: &[u8], range: std::ops::Range<u64>) -> &[u8] {
    object.get(range.start as usize..range.end as usize).unwrap_or_default()
}
