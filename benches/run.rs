//! Token runs: writing, sweeping, looking up survivors, merging, and sorting a batch; per token.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dedupe::index::lookup::{self, Limits};
use dedupe::index::merge::{Commits, Merge, Piece, Step};
use dedupe::index::run::{RunMeta, RunWriter};
use dedupe::index::{Hit, SortedBatch};
use dedupe::token::Token;
use std::hint::black_box;
use std::ops::Range;
use std::time::Duration;

mod tokens;

const HELD: u64 = 10_000_000;

fn look_up(meta: &RunMeta, object: &[u8], batch: &[Token], limits: &Limits) -> Vec<Hit> {
    let part = |range: Range<u64>| &object[range.start as usize..range.end as usize];
    let prefixes = |block| part(meta.layout().prefix_range(block));
    let mut hits = Vec::new();
    for piece in lookup::plan(meta, batch, limits) {
        let mut candidates = Vec::new();
        for wanted in &piece {
            meta.check_prefixes(wanted.block, prefixes(wanted.block)).unwrap();
            lookup::probe(meta, wanted, prefixes(wanted.block), batch, &mut candidates).unwrap();
        }
        for fetch in lookup::slices(meta, &candidates, limits).unwrap() {
            let bytes = part(fetch.bytes.clone());
            lookup::find(meta, &fetch, bytes, batch, &candidates, |block| Some(prefixes(block)), &mut hits)
                .unwrap();
        }
    }
    hits
}

fn merge(inputs: &[&[Token]]) -> u128 {
    let mut merge = Merge::new(inputs.iter().map(|_| String::new()));
    let mut rest: Vec<std::slice::Chunks<'_, Token>> =
        inputs.iter().map(|input| input.chunks(4096)).collect();
    let mut sum = 0u128;
    loop {
        let step = merge.step(65_536, |token, _| {
            sum = sum.wrapping_add(token.0);
            Ok(())
        });
        match step.unwrap() {
            Step::Needs(input) => match rest[input].next() {
                Some(tokens) => {
                    merge.feed(input, Piece { tokens: tokens.to_vec(), commits: Commits::All(1) }).unwrap();
                }
                None => merge.end(input),
            },
            Step::Paused => {}
            Step::Done => return sum,
        }
    }
}

fn run(c: &mut Criterion) {
    let mut group = c.benchmark_group("run");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));

    let held = tokens::ascending(0, HELD);
    group.throughput(Throughput::Elements(HELD));
    group.bench_function("write 10 M", |b| {
        b.iter(|| {
            let mut writer = RunWriter::new("run", std::io::sink(), None);
            writer.push_all(&held).unwrap();
            writer.finish().unwrap().0
        });
    });

    let mut writer = RunWriter::new("run", Vec::new(), None);
    writer.push_all(&held).unwrap();
    let (summary, object) = writer.finish().unwrap();
    let tail = RunMeta::tail(summary.bytes, HELD);
    let meta = RunMeta::parse("run", summary.bytes, &object[tail.start as usize..]).unwrap();
    group.bench_function("decode every block of 10 M, per held token", |b| {
        let part = |range: Range<u64>| &object[range.start as usize..range.end as usize];
        let layout = meta.layout();
        b.iter(|| {
            for block in 0..layout.blocks() {
                let mut tokens = Vec::with_capacity(4096);
                let (prefixes, suffixes) =
                    (part(layout.prefix_range(block)), part(layout.suffix_range(block)));
                meta.decode_block(block, prefixes, suffixes, &mut tokens).unwrap();
                black_box(tokens);
            }
        });
    });
    // What a format that keeps whole tokens would cost at least: their bytes are checked and read.
    let raw: Vec<u8> = held.iter().flat_map(|token| token.0.to_be_bytes()).collect();
    group.bench_function("read 10 M raw tokens, per token", |b| {
        b.iter(|| {
            for block in raw.chunks(65_536) {
                black_box(xxhash_rust::xxh3::xxh3_64(block));
                let tokens: Vec<Token> =
                    block.as_chunks().0.iter().map(|bytes| Token(u128::from_be_bytes(*bytes))).collect();
                assert!(tokens.is_sorted_by(|a, b| a < b));
                black_box(tokens);
            }
        });
    });
    for asked in [8_192u64, 100_000, 1_000_000] {
        let batch =
            SortedBatch::new(&(HELD - asked / 2..HELD + asked / 2).map(tokens::token).collect::<Vec<_>>());
        let batch = batch.unwrap();
        let limits = Limits { gap: 0, ..Limits::default() };
        group.throughput(Throughput::Elements(asked));
        group.bench_function(format!("look-up of {asked} in 10 M, half there, per token asked"), |b| {
            b.iter(|| look_up(&meta, &object, batch.tokens(), &limits).len());
        });
        let fresh = tokens::ascending(1 << 40, asked);
        group.bench_function(format!("look-up of {asked} in 10 M, none there, per token asked"), |b| {
            b.iter(|| look_up(&meta, &object, &fresh, &limits).len());
        });
    }

    for k in [2, 16, 128] {
        let inputs: Vec<Vec<Token>> =
            (0..k).map(|i| tokens::ascending(i * (2_000_000 / k), 2_000_000 / k)).collect();
        let inputs: Vec<&[Token]> = inputs.iter().map(Vec::as_slice).collect();
        group.throughput(Throughput::Elements(2_000_000));
        group.bench_function(format!("merge {k} inputs"), |b| b.iter(|| merge(&inputs)));
    }
    for size in [8_192u64, 100_000, 1_000_000] {
        let batch: Vec<Token> = (0..size).map(tokens::token).collect();
        group.throughput(Throughput::Elements(size));
        group.bench_function(format!("sort a batch of {size} with its rows"), |b| {
            b.iter(|| SortedBatch::new(&batch).unwrap());
        });
    }
    group.finish();
}

criterion_group!(benches, run);
criterion_main!(benches);
