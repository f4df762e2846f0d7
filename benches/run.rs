//! Token runs: writing, sweeping, looking up survivors, merging, and sorting a batch; per token.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dedupe::index::lookup::{self, Limits};
use dedupe::index::merge::{Commits, Merge, Piece, Step};
use dedupe::index::run::{RunMeta, RunSpec, RunWriter, Tail};
use dedupe::index::{Hit, SortedBatch};
use dedupe::token::Token;
use std::hint::black_box;
use std::time::Duration;

mod tokens;

const HELD: u64 = 10_000_000;

fn look_up(meta: &RunMeta, object: &[u8], batch: &[Token], candidates: &[u32], limits: &Limits) -> Vec<Hit> {
    let mut hits = Vec::new();
    for fetch in lookup::plan(meta, batch, candidates, limits).unwrap() {
        let bytes = &object[fetch.bytes.start as usize..fetch.bytes.end as usize];
        lookup::find(meta, &fetch, bytes, batch, candidates, &mut hits).unwrap();
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
            let mut writer = RunWriter::new("run", std::io::sink(), &RunSpec::of(&held)).unwrap();
            writer.push_all(&held).unwrap();
            writer.finish().unwrap().0
        });
    });

    let mut writer = RunWriter::new("run", Vec::new(), &RunSpec::of(&held)).unwrap();
    writer.push_all(&held).unwrap();
    let (_, object) = writer.finish().unwrap();
    let Ok(Tail::Ready(meta)) = RunMeta::parse("run", object.len() as u64, &object) else { return };
    group.bench_function("decode every block of 10 M, per held token", |b| {
        b.iter(|| {
            for block in 0..meta.layout().blocks() {
                let range = meta.layout().block_range(block);
                black_box(
                    meta.decode_block(block, &object[range.start as usize..range.end as usize]).unwrap(),
                );
            }
        });
    });
    for asked in [8_192u64, 100_000, 1_000_000] {
        let batch =
            SortedBatch::new(&(HELD - asked / 2..HELD + asked / 2).map(tokens::token).collect::<Vec<_>>());
        let batch = batch.unwrap();
        let all = batch.positions();
        group.throughput(Throughput::Elements(asked));
        group.bench_function(
            format!("exact look-up of {asked} in 10 M without filter, per token asked"),
            |b| {
                b.iter(|| look_up(&meta, &object, batch.tokens(), &all, &Limits::default()).len());
            },
        );
        let range = meta.layout().bloom_range();
        let bloom = meta.decode_bloom(&object[range.start as usize..range.end as usize]).unwrap().unwrap();
        let fresh = tokens::ascending(1 << 40, asked);
        group.bench_function(
            format!("filter, then exact look-up of {asked} absent tokens, per token asked"),
            |b| {
                b.iter(|| {
                    let mut survivors = Vec::new();
                    bloom.probe_batch(&fresh, &mut survivors);
                    look_up(&meta, &object, &fresh, &survivors, &Limits { gap: 0, ..Limits::default() }).len()
                });
            },
        );
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
