//! The session's own set: filling it, and meeting what it holds, per token.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dedupe::index::SessionSet;
use dedupe::token::Token;
use std::time::Duration;

mod tokens;

fn fill(all: &[Token], batch: usize) -> SessionSet {
    let (mut set, mut fresh) = (SessionSet::new(), Vec::new());
    all.chunks(batch).for_each(|batch| set.insert_batch(batch, &mut fresh));
    set
}

fn set(c: &mut Criterion) {
    let mut group = c.benchmark_group("set");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    let all: Vec<Token> = (0..10_000_000).map(tokens::token).collect();
    group.throughput(Throughput::Elements(all.len() as u64));
    for batch in [8_192, 131_072, 1_000_000] {
        let mut all = all.clone();
        all.chunks_mut(batch).for_each(<[Token]>::sort_unstable);
        group.bench_function(format!("insert 10 M in batches of {batch}"), |b| b.iter(|| fill(&all, batch)));
    }
    let mut sorted = all;
    sorted.sort_unstable();
    let full = fill(&sorted, 1_000_000);
    group.bench_function("take 10 M sorted", |b| {
        b.iter_batched(|| full.clone(), |mut set| set.take_sorted(), BatchSize::PerIteration);
    });
    for (kind, from) in [("held", 0), ("absent", 1 << 40)] {
        let asked = tokens::ascending(from, 1_000_000);
        group.throughput(Throughput::Elements(asked.len() as u64));
        group.bench_function(format!("find 1 M {kind} tokens among 10 M"), |b| {
            b.iter(|| {
                let mut found = Vec::new();
                full.find_batch(&asked, &mut found);
                found.len()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, set);
criterion_main!(benches);
