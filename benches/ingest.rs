//! The whole way: generated files into a table, and the same files merely decoded and encoded again.
//!
//! `cargo bench --bench ingest`. What counts is the ratio between the groups of one run, not the figures themselves.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use dedupe::ingest::ingest;
use dedupe::options::IngestOptions;
use dedupe::report::Progress;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::Compression;
use parquet::file::properties::WriterProperties;
use tempfile::TempDir;

const ROWS: u64 = 500_000;

/// A bijective scrambling of 64 bits: rows that look random and are the same in every run.
fn mix(i: u64) -> u64 {
    let z = i.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Events `ids`, of which one in `repeat` has the key of an earlier one (0 = none).
fn events(from: u64, rows: u64, repeat: u64) -> RecordBatch {
    let ids: Vec<u64> = (from..from + rows)
        .map(|i| if repeat > 0 && i % repeat == repeat - 1 { mix(i) % i.max(1) } else { i })
        .collect();
    let uuid = |i: &u64| {
        let (a, b) = (mix(*i), mix(!*i));
        format!(
            "{:08x}-{:04x}-4{:03x}-a{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    };
    let column = |values: Vec<String>| Arc::new(StringArray::from(values)) as ArrayRef;
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("event_id", column(ids.iter().map(uuid).collect())),
        ("user_id", Arc::new(Int64Array::from_iter_values(ids.iter().map(|i| (mix(*i) % 100_000) as i64)))),
        ("kind", column(ids.iter().map(|i| format!("kind-{}", mix(*i) % 20)).collect())),
        (
            "ts",
            Arc::new(TimestampMicrosecondArray::from_iter_values(
                ids.iter().map(|i| 1_700_000_000_000_000 + *i as i64 * 997),
            )),
        ),
        ("session", column(ids.iter().map(|i| format!("s-{:08x}", mix(*i / 12) as u32)).collect())),
        (
            "amount",
            Arc::new(Float64Array::from_iter_values(
                ids.iter().map(|i| (mix(*i) % 1_000_000) as f64 / 100.0),
            )),
        ),
        ("country", column(ids.iter().map(|i| format!("C{}", mix(*i / 3) % 60)).collect())),
        (
            "url",
            column(
                ids.iter()
                    .map(|i| format!("https://example.org/{}/{:x}", mix(*i) % 500, mix(*i / 2) as u32))
                    .collect(),
            ),
        ),
        (
            "payload",
            column(
                ids.iter()
                    .map(|i| format!("{:016x}{:016x}{:016x}", mix(*i), mix(i + 1), mix(i + 2)))
                    .collect(),
            ),
        ),
        ("seq", Arc::new(Int64Array::from_iter_values(ids.iter().map(|i| *i as i64)))),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn properties() -> WriterProperties {
    WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_max_row_group_row_count(Some(131_072))
        .build()
}

fn write_parquet(path: &Path, rows: &RecordBatch) {
    let mut writer =
        ArrowWriter::try_new(File::create(path).unwrap(), rows.schema(), Some(properties())).unwrap();
    writer.write(rows).unwrap();
    writer.close().unwrap();
}

fn write_ndjson(path: &Path, rows: &RecordBatch) {
    let mut writer = arrow::json::LineDelimitedWriter::new(File::create(path).unwrap());
    writer.write(rows).unwrap();
    writer.finish().unwrap();
}

/// Decodes and encodes a file: what everybody pays who rewrites rows.
fn copy(source: &Path, target: &Path) {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(source).unwrap()).unwrap();
    let schema = Arc::clone(reader.schema());
    let mut writer = ArrowWriter::try_new(File::create(target).unwrap(), schema, Some(properties())).unwrap();
    for batch in reader.build().unwrap() {
        writer.write(&batch.unwrap()).unwrap();
    }
    writer.close().unwrap();
}

fn run(source: &Path, table: &Path) -> u64 {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let mut options = IngestOptions::default();
    options.key = Some(vec!["event_id".into()]);
    let sources = [source.to_str().unwrap().to_owned()];
    let report = runtime.block_on(ingest(&sources, table.to_str().unwrap(), &options, &Progress::default()));
    report.unwrap().rows.accepted
}

fn first_loads(c: &mut Criterion) {
    let folder = TempDir::new().unwrap();
    let source = |name: &str, repeat| -> PathBuf {
        let path = folder.path().join(name);
        write_parquet(&path, &events(0, ROWS, repeat));
        path
    };
    let (unique, thin, tenth) =
        (source("u.parquet", 0), source("t.parquet", 10_000), source("d.parquet", 10));
    let text = folder.path().join("d.ndjson");
    write_ndjson(&text, &events(0, ROWS, 10));
    let mut group = c.benchmark_group("first load");
    group.sample_size(10).throughput(Throughput::Elements(ROWS));
    group.bench_function("copy: decode and encode", |b| {
        b.iter_batched(
            || TempDir::new().unwrap(),
            |to| copy(&unique, &to.path().join("c.parquet")),
            BatchSize::PerIteration,
        );
    });
    for (name, path) in [
        ("no duplicates", &unique),
        ("0.01 % duplicates", &thin),
        ("10 % duplicates", &tenth),
        ("NDJSON, 10 %", &text),
    ] {
        group.bench_function(name, |b| {
            b.iter_batched(
                || TempDir::new().unwrap(),
                |to| run(path, &to.path().join("table")),
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

fn repeats(c: &mut Criterion) {
    let folder = TempDir::new().unwrap();
    let (first, again) = (folder.path().join("first.parquet"), folder.path().join("again.parquet"));
    write_parquet(&first, &events(0, ROWS, 0));
    std::fs::copy(&first, &again).unwrap();
    let table = folder.path().join("table");
    run(&first, &table);
    let mut group = c.benchmark_group("second load");
    group.sample_size(10).throughput(Throughput::Elements(ROWS));
    group.bench_function("the same file: recognised", |b| b.iter(|| run(&first, &table)));
    let mut number = 0;
    group.bench_function("a renamed copy: every row judged", |b| {
        b.iter_batched(
            || {
                number += 1;
                let renamed = folder.path().join(format!("copy-{number}.parquet"));
                std::fs::hard_link(&again, &renamed).unwrap();
                renamed
            },
            |renamed| run(&renamed, &table),
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, first_loads, repeats);
criterion_main!(benches);
