//! The Bloom filter: building, and probing sorted and unsorted batches, per token.

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dedupe::index::bloom::{BITS_PER_TOKEN, Bloom};
use dedupe::token::Token;
use std::hint::black_box;
use std::time::Duration;

mod tokens;

fn bloom(c: &mut Criterion) {
    let mut group = c.benchmark_group("bloom");
    group.sample_size(10).warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(2));
    for held in [1_000_000, 10_000_000, 100_000_000] {
        let filter = {
            let held = tokens::ascending(0, held);
            if held.len() <= 10_000_000 {
                group.throughput(Throughput::Elements(held.len() as u64));
                group.bench_function(format!("build {} M", held.len() / 1_000_000), |b| {
                    b.iter_batched(
                        || (),
                        |()| Bloom::build(&held, BITS_PER_TOKEN).unwrap(),
                        BatchSize::PerIteration,
                    );
                });
            }
            Bloom::build(&held, BITS_PER_TOKEN).unwrap()
        };
        for (size, sorted) in [(8_192, true), (1_000_000, true), (1_000_000, false)] {
            let mut queries: Vec<Token> = (1 << 40..(1 << 40) + 2_000_000).map(tokens::token).collect();
            if sorted {
                queries.chunks_mut(size).for_each(<[Token]>::sort_unstable);
            }
            let order = if sorted { "sorted" } else { "unsorted" };
            group.throughput(Throughput::Elements(queries.len() as u64));
            group.bench_function(format!("probe {} M, {order} batches of {size}", held / 1_000_000), |b| {
                let mut survivors = Vec::new();
                b.iter(|| {
                    for batch in queries.chunks(size) {
                        survivors.clear();
                        filter.probe_batch(batch, &mut survivors);
                        black_box(&survivors);
                    }
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, bloom);
criterion_main!(benches);
