//! A run as a whole: what is written is what is read, and what was not written is not believed.

use super::*;
use crate::error::{Error, Result};
use crate::index::samples::{any_tokens, ascending, token};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::ops::{Range, RangeInclusive};
use xxhash_rust::xxh3::xxh3_64;

fn write(tokens: &[(Token, u64)], commits: Option<RangeInclusive<u64>>) -> (Vec<u8>, RunSummary) {
    let mut writer = RunWriter::new("tokens/1.run", Vec::new(), commits.clone());
    for (token, commit) in tokens {
        match commits {
            Some(_) => writer.push_with_commit(*token, *commit).unwrap(),
            None => writer.push(*token).unwrap(),
        }
    }
    let (summary, bytes) = writer.finish().unwrap();
    (bytes, summary)
}

/// Reads directory and footer of an object as a caller would.
fn open(object: &[u8], count: u64) -> Result<RunMeta> {
    let size = object.len() as u64;
    RunMeta::parse("tokens/1.run", size, part(object, RunMeta::tail(size, count)))
}

fn part(object: &[u8], range: Range<u64>) -> &[u8] {
    &object[range.start as usize..range.end as usize]
}

/// Reads everything there is in a run.
fn read(object: &[u8], count: u64) -> Result<Vec<(Token, u64)>> {
    let meta = open(object, count)?;
    meta.check_header(part(object, 0..HEADER_BYTES))?;
    let mut all = Vec::new();
    for block in 0..meta.layout().blocks() {
        let layout = meta.layout();
        let mut tokens = Vec::new();
        let (prefixes, suffixes) = (layout.prefix_range(block), layout.suffix_range(block));
        meta.decode_block(block, part(object, prefixes), part(object, suffixes), &mut tokens)?;
        let mut commits = meta.decode_commits(block, part(object, layout.commit_range(block)))?;
        commits.resize(tokens.len(), 0);
        all.extend(tokens.into_iter().zip(commits));
    }
    Ok(all)
}

/// Makes the footer's checksum right again after bytes were changed.
fn reseal(object: &mut [u8], tail: usize) {
    let end = object.len();
    let sum = xxh3_64(&object[tail..end - 16]);
    object[end - 16..end - 8].copy_from_slice(&sum.to_le_bytes());
}

proptest! {
    #[test]
    fn what_is_written_is_what_is_read(
        tokens in any_tokens(300), spread in prop_oneof![Just(None), Just(Some(0)), Just(Some(9)), Just(Some(u64::MAX))], extra in 0u64..999
    ) {
        let run: BTreeMap<Token, u64> =
            tokens.into_iter().zip(0..).map(|(t, i)| (t, spread.map_or(0, |spread: u64| spread - (i % 10).min(spread)))).collect();
        let run: Vec<(Token, u64)> = run.into_iter().collect();
        let (object, summary) = write(&run, spread.map(|spread| 0..=spread));
        prop_assert_eq!(summary.bytes, object.len() as u64);
        let count = run.len() as u64;
        prop_assert_eq!(&read(&object, count).unwrap(), &run);
        let meta = open(&object, count + extra).unwrap();
        meta.expect(&summary).unwrap();
        let tokens: Vec<Token> = run.iter().map(|(token, _)| *token).collect();
        prop_assert_eq!(TokenSum::of(&tokens), summary.tokens);
        let json = serde_json::to_string(&summary).unwrap();
        prop_assert_eq!(serde_json::from_str::<RunSummary>(&json).unwrap(), summary);
    }

    #[test]
    fn one_changed_byte_anywhere_is_noticed(n in 0u64..200, at in any::<prop::sample::Index>(), flip in 1u8..) {
        let run: Vec<(Token, u64)> = ascending(0, n).into_iter().map(|token| (token, 3)).collect();
        let (mut object, _) = write(&run, Some(1..=3));
        let at = at.index(object.len());
        object[at] ^= flip;
        prop_assert!(matches!(read(&object, n), Err(Error::Corrupt { .. })), "byte {}", at);
    }

    #[test]
    fn a_forged_tail_is_never_more_than_an_error(
        n in 0u64..50, edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), seal in any::<bool>()
    ) {
        let run: Vec<(Token, u64)> = ascending(0, n).into_iter().map(|token| (token, 3)).collect();
        let (mut object, summary) = write(&run, Some(1..=3));
        let tail = open(&object, n).unwrap().layout().tail_range().start as usize;
        for (at, byte) in edits {
            let at = tail + at.index(object.len() - tail);
            object[at] = byte;
        }
        if seal {
            reseal(&mut object, tail);
        }
        if let Ok(meta) = open(&object, n) {
            prop_assert!(meta.expect(&summary).is_err() || *meta.summary() == summary);
            let _ = read(&object, n);
            let _ = meta.blocks_of(token(3));
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_more_than_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in any::<u64>(), count in any::<u64>()) {
        let mut bytes = bytes;
        let _ = RunMeta::parse("x", size, &bytes);
        bytes.extend_from_slice(&MAGIC);
        let _ = RunMeta::parse("x", size, &bytes);
        prop_assert!(open(&bytes, count).is_err());
        let tail = RunMeta::tail(size, count);
        prop_assert!(tail.start <= tail.end && tail.end == size);
    }
}

#[test]
fn a_run_of_several_groups_is_read_back_with_its_commits() {
    let n = GROUP_BLOCKS * BLOCK_TOKENS + 5 * BLOCK_TOKENS + 17;
    let run: Vec<(Token, u64)> = ascending(0, n).into_iter().zip((7..1007).cycle()).collect();
    let (object, summary) = write(&run, Some(7..=1006));
    assert_eq!((summary.tokens.count, summary.min, summary.max), (n, run[0].0, run[n as usize - 1].0));
    assert_eq!(read(&object, n).unwrap(), run);
    let bits = object.len() as f64 * 8.0 / n as f64;
    // 128 - log2 n + 2, a checksum for each 128 tokens and a directory entry for each 4096, and 10 bits of commit.
    assert!(bits < 128.0 - 20.0 + 2.1 + 0.55 + 10.0, "{bits} bits a token");
}

#[test]
fn a_block_in_the_place_of_another_is_noticed() {
    let tokens = ascending(0, 3 * BLOCK_TOKENS);
    let run: Vec<(Token, u64)> = tokens.iter().map(|token| (*token, 0)).collect();
    let (object, _) = write(&run, None);
    let meta = open(&object, run.len() as u64).unwrap();
    let layout = meta.layout();
    let block =
        |block| (part(&object, layout.prefix_range(block)), part(&object, layout.suffix_range(block)));
    let mut tokens = Vec::new();
    assert!(meta.decode_block(0, block(1).0, block(1).1, &mut tokens).is_err());
    assert!(meta.decode_block(0, block(0).0, block(1).1, &mut tokens).is_err());
    assert!(meta.decode_block(3, &[], &[], &mut tokens).is_err());
    assert!(meta.decode_block(u64::MAX, &[0; 16], &[], &mut tokens).is_err());
    assert!(meta.check_header(&object[..8]).is_err());
    assert!(meta.decode_block(0, block(0).0, block(0).1, &mut tokens).is_ok());
}

#[test]
fn every_token_lies_in_a_block_that_the_directory_names() {
    let mut tokens = ascending(0, 20_000);
    tokens.extend((0..9_000).map(|i| Token(77 << 64 | i)));
    tokens.extend([Token(0), Token(u128::MAX)]);
    tokens.sort();
    let run: Vec<(Token, u64)> = tokens.iter().map(|token| (*token, 0)).collect();
    let (object, _) = write(&run, None);
    let meta = open(&object, run.len() as u64).unwrap();
    for (index, token) in (0..).zip(&tokens) {
        assert!(meta.blocks_of(*token).contains(&(index / BLOCK_TOKENS)), "{token} at {index}");
    }
    let (empty, summary) = write(&[], None);
    assert_eq!(summary.tokens, TokenSum::default());
    assert!(open(&empty, 0).unwrap().blocks_of(Token(0)).is_empty());
}

#[test]
fn tokens_that_do_not_ascend_are_refused() {
    for (first, second) in [(5, 5), (5, 4), (0, 0)] {
        let mut writer = RunWriter::new("x", Vec::new(), None);
        writer.push(Token(first)).unwrap();
        assert!(matches!(writer.push(Token(second)), Err(Error::Internal(_))));
    }
    let mut writer = RunWriter::new("x", Vec::new(), None);
    assert!(writer.push_with_commit(Token(1), 1).is_err());
    let mut writer = RunWriter::new("x", Vec::new(), Some(3..=7));
    assert!(writer.push(Token(1)).is_err());
    assert!(writer.push_with_commit(Token(1), 8).is_err());
    assert!(writer.push_with_commit(Token(1), 2).is_err());
}

#[test]
fn writing_takes_little_memory() {
    let n = 2 * GROUP_BLOCKS * BLOCK_TOKENS;
    let mut writer = RunWriter::new("x", std::io::sink(), Some(0..=9));
    for token in ascending(0, n) {
        writer.push_with_commit(token, 9).unwrap();
        assert!(writer.memory() < 6 << 20);
    }
    writer.finish().unwrap();
}

#[test]
fn a_full_sink_is_the_stores_failure() {
    let mut room = [0u8; 20];
    let mut writer = RunWriter::new("x", &mut room[..], None);
    writer.push(Token(1)).unwrap();
    assert!(matches!(writer.finish(), Err(Error::Store { .. })));
}

#[test]
fn the_format_stays_as_it_is() {
    // Distances from 3 << 64: 5, and 2^72 + 2^65 + 6. Half of the latter's 73 bits less 8: suffixes of 63 bits.
    let first = Token(3 << 64 | 5);
    let second = Token((3 << 64) + (1 << 72) + (1 << 65) + 6);
    let (object, summary) = write(&[(first, 5), (second, 6)], Some(5..=6));
    assert_eq!(object[..16], *b"dedupRUN\x02\0\0\0\0\0\0\0");
    // 126 bits: 5, and above it 6.
    assert_eq!(object[16..32], (5u128 | 6 << 63).to_le_bytes());
    assert_eq!(object[32..40], xxh3_64(&object[16..32]).to_le_bytes());
    // Prefixes 0 and 2^9 + 4: low bits 0 and 4; upper bits 0 and 2, so a one, two zeros and a one.
    assert_eq!(object[40..42], [0, 4]);
    assert_eq!(object[42..50], [0b1001, 0, 0, 0, 0, 0, 0, 0]);
    // Commits 5 and 6 as 0 and 1, one bit each.
    assert_eq!(object[50..51], [0b10]);
    assert_eq!(object[51..59], [0, 0, 0, 0, 0, 0, 0, 3]);
    assert_eq!(object[59..67], xxh3_64(&object[32..50]).to_le_bytes());
    assert_eq!(object[67..69], [63, 1], "bits of a suffix, words of unary code");
    assert_eq!(object[69..77], xxh3_64(&object[50..51]).to_le_bytes());
    let mut footer =
        vec![2, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0];
    footer.extend([first.0, second.0, first.0 + second.0].map(u128::to_be_bytes).concat());
    assert_eq!(object[77..157], footer);
    assert_eq!(summary.checksum, xxh3_64(&object[51..157]));
    assert_eq!(object[157..165], summary.checksum.to_le_bytes());
    assert_eq!(object[165..], *b"dedupRUN");
}
