//! A run as a whole: what is written is what is read, and what was not written is not believed.

use super::*;
use crate::error::{Error, Result};
use crate::index::samples::{any_tokens, ascending, token};
use proptest::prelude::*;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

fn write(tokens: &[(Token, u64)], spec: &RunSpec) -> (Vec<u8>, RunSummary) {
    let mut writer = RunWriter::new("tokens/1.run", Vec::new(), spec).unwrap();
    for (token, commit) in tokens {
        match spec.highest_commit {
            Some(_) => writer.push_with_commit(*token, *commit).unwrap(),
            None => writer.push(*token).unwrap(),
        }
    }
    let (summary, bytes) = writer.finish().unwrap();
    (bytes, summary)
}

/// Reads directory and footer of an object as a caller would, beginning with its last `first` bytes.
fn open(object: &[u8], first: usize) -> Result<RunMeta> {
    let size = object.len() as u64;
    let mut end = object.len().saturating_sub(first)..object.len();
    for _ in 0..3 {
        match RunMeta::parse("tokens/1.run", size, &object[end.clone()])? {
            Tail::Ready(meta) => return Ok(*meta),
            Tail::Needs(range) => end = range.start as usize..range.end as usize,
        }
    }
    panic!("it keeps asking");
}

fn part(object: &[u8], range: std::ops::Range<u64>) -> &[u8] {
    &object[range.start as usize..range.end as usize]
}

/// Reads everything there is in a run.
fn read(object: &[u8], first: usize) -> Result<Vec<(Token, u64)>> {
    let meta = open(object, first)?;
    meta.check_header(part(object, 0..HEADER_BYTES))?;
    let mut all = Vec::new();
    for block in 0..meta.layout().blocks() {
        let tokens = meta.decode_block(block, part(object, meta.layout().block_range(block)))?;
        let mut commits = meta.decode_commits(block, part(object, meta.layout().commit_range(block)))?;
        commits.resize(tokens.len(), 0);
        all.extend(tokens.into_iter().zip(commits));
    }
    meta.decode_bloom(part(object, meta.layout().bloom_range()))?;
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
        tokens in any_tokens(300), bits in 0u32..16, highest in prop_oneof![Just(None), Just(Some(9)), Just(Some(u64::MAX))],
        expected in 0u64..500, first in 0usize..2000
    ) {
        let run: BTreeMap<Token, u64> =
            tokens.into_iter().zip(0..).map(|(t, i)| (t, highest.map_or(0, |highest: u64| highest - i % 10))).collect();
        let run: Vec<(Token, u64)> = run.into_iter().collect();
        let spec = RunSpec { expected, bits_per_token: bits, highest_commit: highest, ..RunSpec::new(0) };
        let (object, summary) = write(&run, &spec);
        prop_assert_eq!(summary.bytes, object.len() as u64);
        prop_assert_eq!(&read(&object, first).unwrap(), &run);
        let meta = open(&object, first).unwrap();
        meta.expect(&summary).unwrap();
        let tokens: Vec<Token> = run.iter().map(|(token, _)| *token).collect();
        prop_assert_eq!(TokenSum::of(&tokens), summary.tokens);
        let bloom = meta.decode_bloom(part(&object, meta.layout().bloom_range())).unwrap();
        prop_assert_eq!(bloom.is_some(), bits > 0);
        prop_assert!(tokens.iter().all(|token| bloom.as_ref().is_none_or(|bloom| bloom.may_hold(*token))));
        let json = serde_json::to_string(&summary).unwrap();
        prop_assert_eq!(serde_json::from_str::<RunSummary>(&json).unwrap(), summary);
    }

    #[test]
    fn one_changed_byte_anywhere_is_noticed(n in 0u64..200, at in any::<prop::sample::Index>(), flip in 1u8..) {
        let run: Vec<(Token, u64)> = ascending(0, n).into_iter().map(|token| (token, 3)).collect();
        let (mut object, _) = write(&run, &RunSpec { highest_commit: Some(3), ..RunSpec::new(n) });
        let at = at.index(object.len());
        object[at] ^= flip;
        prop_assert!(matches!(read(&object, 64), Err(Error::Corrupt { .. })), "byte {}", at);
    }

    #[test]
    fn a_forged_tail_is_never_more_than_an_error(
        n in 0u64..50, edits in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12), seal in any::<bool>()
    ) {
        let run: Vec<(Token, u64)> = ascending(0, n).into_iter().map(|token| (token, 3)).collect();
        let (mut object, summary) = write(&run, &RunSpec { highest_commit: Some(3), ..RunSpec::new(n) });
        let tail = open(&object, 0).unwrap().layout().tail_range().start as usize;
        for (at, byte) in edits {
            let at = tail + at.index(object.len() - tail);
            object[at] = byte;
        }
        if seal {
            reseal(&mut object, tail);
        }
        if let Ok(meta) = open(&object, 64) {
            prop_assert!(meta.expect(&summary).is_err() || *meta.summary() == summary);
            let _ = read(&object, 64);
            let _ = meta.blocks_of(token(3));
        }
    }

    #[test]
    fn arbitrary_bytes_are_never_more_than_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
        let mut bytes = bytes;
        let _ = RunMeta::parse("x", size, &bytes);
        bytes.extend_from_slice(&MAGIC);
        let _ = RunMeta::parse("x", size, &bytes);
        prop_assert!(open(&bytes, 64).is_err());
    }
}

#[test]
fn a_run_of_many_groups_is_read_back_with_its_commits() {
    let n = 2 * 64 * BLOCK_TOKENS + 5 * BLOCK_TOKENS + 17;
    let run: Vec<(Token, u64)> = ascending(0, n).into_iter().zip((0..1000).cycle()).collect();
    let spec = RunSpec { highest_commit: Some(999), bits_per_token: 40, ..RunSpec::of(&ascending(0, n)) };
    let (object, summary) = write(&run, &spec);
    assert_eq!((summary.tokens.count, summary.min, summary.max), (n, run[0].0, run[n as usize - 1].0));
    assert_eq!(read(&object, 100).unwrap(), run);

    let meta = open(&object, 100).unwrap();
    let whole = meta.decode_bloom(part(&object, meta.layout().bloom_range())).unwrap().unwrap();
    let mut load = meta.load_bloom().unwrap().unwrap();
    while let Some(range) = load.wants(1) {
        assert!(range.end - range.start <= BLOOM_CHUNK);
        load.push(part(&object, range)).unwrap();
    }
    assert_eq!(load.finish().unwrap(), whole);

    let mut asked = ascending(n - 1000, 50_000);
    asked.splice(0..0, [Token(0)]);
    asked.push(Token(u128::MAX));
    let (mut at_once, mut in_passing) = (Vec::new(), Vec::new());
    whole.probe_batch(&asked, &mut at_once);
    let mut scan = meta.scan_bloom().unwrap();
    while let Some(range) = scan.wants(1) {
        scan.probe(part(&object, range), &asked, &mut in_passing).unwrap();
    }
    assert_eq!(in_passing, at_once);
    assert!(meta.scan_bloom().unwrap().probe(&[0; 32], &asked, &mut in_passing).is_err());
    assert!(matches!(meta.load_bloom().unwrap().unwrap().finish(), Err(Error::Corrupt { .. })));
    assert!(matches!(meta.decode_bloom(&[0; 32]), Err(Error::Corrupt { .. })));
}

#[test]
fn a_block_in_the_place_of_another_is_noticed() {
    let tokens = ascending(0, 3 * BLOCK_TOKENS);
    let run: Vec<(Token, u64)> = tokens.iter().map(|token| (*token, 0)).collect();
    let (object, _) = write(&run, &RunSpec::of(&tokens));
    let meta = open(&object, 0).unwrap();
    assert!(meta.decode_block(0, part(&object, meta.layout().block_range(1))).is_err());
    assert!(meta.decode_block(3, &[]).is_err());
    assert!(meta.decode_block(u64::MAX, &[0; 16]).is_err());
    assert!(meta.decode_commits(0, &[0; 4]).is_err());
    assert!(meta.check_header(&object[..8]).is_err());
}

#[test]
fn every_token_lies_in_a_block_that_the_directory_names() {
    let mut tokens = ascending(0, 20_000);
    tokens.extend((0..9_000).map(|i| Token(77 << 64 | i)));
    tokens.extend([Token(0), Token(u128::MAX)]);
    tokens.sort();
    let run: Vec<(Token, u64)> = tokens.iter().map(|token| (*token, 0)).collect();
    let (object, _) = write(&run, &RunSpec::of(&tokens));
    let meta = open(&object, 0).unwrap();
    for (index, token) in (0..).zip(&tokens) {
        assert!(meta.blocks_of(*token).contains(&(index / BLOCK_TOKENS)), "{token} at {index}");
    }
    let (empty, summary) = write(&[], &RunSpec::new(0));
    assert_eq!(summary.tokens, TokenSum::default());
    assert!(open(&empty, 0).unwrap().blocks_of(Token(0)).is_empty());
}

#[test]
fn tokens_that_do_not_ascend_are_refused() {
    for (first, second) in [(5, 5), (5, 4), (0, 0)] {
        let mut writer = RunWriter::new("x", Vec::new(), &RunSpec::new(2)).unwrap();
        writer.push(Token(first)).unwrap();
        assert!(matches!(writer.push(Token(second)), Err(Error::Internal(_))));
    }
    let mut writer = RunWriter::new("x", Vec::new(), &RunSpec::new(2)).unwrap();
    assert!(writer.push_with_commit(Token(1), 1).is_err());
    let spec = RunSpec { highest_commit: Some(7), ..RunSpec::new(2) };
    let mut writer = RunWriter::new("x", Vec::new(), &spec).unwrap();
    assert!(writer.push(Token(1)).is_err());
    assert!(writer.push_with_commit(Token(1), 1 << 40).is_err());
}

#[test]
fn writing_takes_little_memory_beyond_the_filter() {
    let n = 300_000;
    let spec = RunSpec { highest_commit: Some(9), ..RunSpec::new(n) };
    let mut writer = RunWriter::new("x", std::io::sink(), &spec).unwrap();
    for token in ascending(0, n) {
        writer.push_with_commit(token, 9).unwrap();
        assert!(writer.memory() < spec.bloom_bytes() as usize + (3 << 20));
    }
    writer.finish().unwrap();
}

#[test]
fn a_full_sink_is_the_stores_failure() {
    let mut room = [0u8; 20];
    let mut writer = RunWriter::new("x", &mut room[..], &RunSpec::new(2)).unwrap();
    writer.push(Token(1)).unwrap();
    assert!(matches!(writer.finish(), Err(Error::Store { .. })));
}

#[test]
fn the_format_stays_as_it_is() {
    let run = [(Token(1), 5), (Token(u128::MAX), 6)];
    let (object, summary) = write(&run, &RunSpec { highest_commit: Some(6), ..RunSpec::new(2) });
    assert_eq!(object.len(), 16 + 2 * 16 + 2 * 4 + 32 + 4 * 8 + 104);
    assert_eq!(object[..16], *b"dedupRUN\x01\0\0\0\0\0\0\0");
    assert_eq!(object[16..32], Token(1).0.to_be_bytes());
    assert_eq!(object[48..56], [5, 0, 0, 0, 6, 0, 0, 0]);
    // The filter of one line: token 1 sets bit 1 of the first word and bit 0 of all others, the other bit 31 of all.
    let words = [[2, 0, 0, 0x80], [1, 0, 0, 0x80], [1, 0, 0, 0x80], [1, 0, 0, 0x80]].concat();
    assert_eq!(object[56..88], [words, [1, 0, 0, 0x80].repeat(4)].concat());
    assert_eq!(object[88..96], [0; 8], "the directory begins with the highest 8 bytes of token 1");
    assert_eq!(object[96..104], xxh3_64(&object[16..48]).to_le_bytes());
    assert_eq!(object[104..112], xxh3_64(&object[48..56]).to_le_bytes());
    assert_eq!(object[112..120], xxh3_64(&object[56..88]).to_le_bytes());
    let mut footer = vec![1, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    footer.extend(
        [[0; 8], [0xff; 8], [0; 8], [0, 0, 0, 0, 0, 0, 0, 1], [0xff; 8], [0xff; 8], [0; 8], [0; 8]].concat(),
    );
    assert_eq!(object[120..208], footer);
    assert_eq!(summary.checksum, xxh3_64(&object[88..208]));
    assert_eq!(object[208..216], summary.checksum.to_le_bytes());
    assert_eq!(object[216..], *b"dedupRUN");
    assert_eq!(summary.checksum, 0x4b9c_9b35_1cdb_783c);
}
