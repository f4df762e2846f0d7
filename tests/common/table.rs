//! Tables in temporary folders: rows in, runs, rows out. Every test uses some of it.
#![allow(dead_code)]

use std::collections::HashSet;
use std::fs::File;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Int64Type};
use dedupe::ingest::ingest;
use dedupe::ledger::Ledger;
use dedupe::options::IngestOptions;
use dedupe::report::{IngestReport, Progress};
use dedupe::store::Store;
use dedupe::upkeep::verify::{VerifyOptions, verify};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::properties::WriterProperties;

/// One event: its key, and a payload that tells it from its repeats.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    pub id: Option<String>,
    pub n: i64,
}

/// How a source is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    Parquet { group: usize },
    Ndjson,
    NdjsonGzip,
    NdjsonZstd,
}

pub fn write(folder: &Path, name: &str, shape: Shape, events: &[Event]) -> PathBuf {
    // A source that never names its key is refused, so the first line without one says so.
    let first_null = events.iter().position(|event| event.id.is_none());
    let line = |(at, event): (usize, &Event)| match &event.id {
        Some(id) => format!("{{\"id\":{},\"n\":{}}}\n", serde_json::to_string(id).unwrap(), event.n),
        None if first_null == Some(at) => format!("{{\"id\":null,\"n\":{}}}\n", event.n),
        None => format!("{{\"n\":{}}}\n", event.n),
    };
    let text = || events.iter().enumerate().map(line).collect::<String>().into_bytes();
    let (extension, bytes) = match shape {
        Shape::Parquet { group } => ("parquet", parquet_bytes(events, group)),
        Shape::Ndjson => ("ndjson", text()),
        Shape::NdjsonGzip => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(&text()).unwrap();
            ("ndjson.gz", gzip.finish().unwrap())
        }
        Shape::NdjsonZstd => ("jsonl.zst", zstd::encode_all(text().as_slice(), 1).unwrap()),
    };
    let path = folder.join(format!("{name}.{extension}"));
    std::fs::write(&path, bytes).unwrap();
    path
}

fn parquet_bytes(events: &[Event], group: usize) -> Vec<u8> {
    let ids = StringArray::from_iter(events.iter().map(|event| event.id.as_deref()));
    let numbers = Int64Array::from_iter_values(events.iter().map(|event| event.n));
    let batch = RecordBatch::try_from_iter_with_nullable([
        ("id", Arc::new(ids) as Arc<dyn Array>, true),
        ("n", Arc::new(numbers) as Arc<dyn Array>, true),
    ])
    .unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group.max(1))).build();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

/// Options for a run on `memory` bytes and `threads` threads.
pub fn options(memory: u64, threads: usize) -> IngestOptions {
    let mut options = IngestOptions::default();
    options.key = Some(vec!["id".into()]);
    options.memory = memory;
    options.threads = NonZeroUsize::new(threads).unwrap();
    options
}

/// A runtime as the command has.
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub fn run(table: &Path, sources: &[PathBuf], options: &IngestOptions) -> dedupe::Result<IngestReport> {
    let sources: Vec<String> = sources.iter().map(|path| path.to_str().unwrap().to_owned()).collect();
    runtime().block_on(ingest(&sources, table.to_str().unwrap(), options, &Progress::default()))
}

/// The live data files, in the order in which their rows were added.
pub fn files(table: &Path) -> Vec<PathBuf> {
    let ledger = open(table);
    let mut files: Vec<_> = ledger.state().files().unwrap().values().collect();
    files.sort_by_key(|file| (file.since, number(&file.item.name)));
    files.into_iter().map(|file| table.join(&file.item.name)).collect()
}

/// All rows, in the order in which they were added.
pub fn rows(table: &Path) -> Vec<Event> {
    files(table).iter().flat_map(|file| events(file)).collect()
}

pub fn events(file: &Path) -> Vec<Event> {
    let reader =
        ParquetRecordBatchReaderBuilder::try_new(File::open(file).unwrap()).unwrap().build().unwrap();
    let mut all = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let ids = arrow::compute::cast(batch.column_by_name("id").unwrap(), &DataType::Utf8).unwrap();
        let numbers = batch.column_by_name("n").unwrap().as_primitive::<Int64Type>();
        for (id, n) in ids.as_string::<i32>().iter().zip(numbers.values()) {
            all.push(Event { id: id.map(str::to_owned), n: *n });
        }
    }
    all
}

/// The events of an NDJSON file.
pub fn events_of_text(file: &Path) -> Vec<Event> {
    let text = std::fs::read_to_string(file).unwrap();
    let event = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        Event { id: value["id"].as_str().map(str::to_owned), n: value["n"].as_i64().unwrap() }
    };
    text.lines().map(event).collect()
}

pub fn open(table: &Path) -> Ledger {
    let store = Store::open(table.to_str().unwrap(), &[]).unwrap();
    let mut ledger = runtime().block_on(Ledger::open(store)).unwrap().unwrap();
    runtime().block_on(ledger.read_files()).unwrap();
    ledger
}

/// Everything that is wrong with a table.
pub fn problems(table: &Path) -> Vec<String> {
    let ledger = open(table);
    runtime().block_on(verify(&ledger, &VerifyOptions::default())).unwrap().problems
}

/// The plain oracle: first wins, rows without a key are not kept.
pub fn first_of_each<'a>(
    known: &mut HashSet<String>,
    events: impl IntoIterator<Item = &'a Event>,
) -> Vec<Event> {
    let first = |event: &&Event| event.id.as_ref().is_some_and(|id| known.insert(id.clone()));
    events.into_iter().filter(first).cloned().collect()
}

fn number(name: &str) -> u64 {
    let stem = name.rsplit('/').next().unwrap().split('.').next().unwrap();
    stem.rsplit('-').next().unwrap().parse().unwrap()
}
