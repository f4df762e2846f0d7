//! Accepted rows become data files, staged under unique names.
//!
//! Row groups of which every row survives are copied byte for byte; from others the dropped rows are cut out of the
//! encoded pages, or they are decoded, filtered and encoded, several at a time on the workers, and appended in input
//! order. Small pieces are gathered first, so that many small inputs
//! do not become many small row groups. A table with partitions gets a file at a time for each folder.

mod append;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow_schema::{DataType, SchemaRef};
use parquet::basic::Compression;

use append::{Job, Work};

use super::cutting::Cutting;
use super::encoding::{Columns, Encoding};
use super::file::{OpenFile, Stats};
use super::judge::Verdicts;
use crate::error::{Error, Result};
use crate::ledger::entry::DataFile;
use crate::ledger::name::Namer;
use crate::schema;
use crate::sink::{self, FileLayout, SinkOptions};
use crate::source::input::Input;
use crate::source::parquet::RowGroup;
use crate::store::{Store, Upload, compute};
use crate::token::{BoundKey, Token, TokenSpec, TokenSum};
use crate::workers::{Started, Workers};

/// Row groups below both of these are gathered into larger ones rather than kept as they are.
const SMALL_ROWS: usize = 10_000;
const SMALL_BYTES: u64 = 1 << 20;

/// Files that are open at a time in a table with partitions, by what memory allows.
const MIN_OPEN_FILES: usize = 4;
const MAX_OPEN_FILES: usize = 64;

/// Judged rows of one source.
#[derive(Debug)]
pub struct Rows {
    /// The number of the source.
    pub source: u32,
    /// Where the rows are.
    pub chunk: Chunk,
    /// Which of them are accepted.
    pub verdicts: Verdicts,
}

impl Rows {
    /// Judged rows in memory.
    pub fn of_batch(source: u32, batch: RecordBatch, verdicts: Verdicts) -> Self {
        Self { source, chunk: Chunk::Batch(batch), verdicts }
    }
}

/// Rows, in memory or still in a file.
#[derive(Debug)]
pub enum Chunk {
    /// A whole row group of a Parquet file, of which nothing but the key was read.
    RowGroup(RowGroup<Input>),
    /// Rows in memory.
    Batch(RecordBatch),
}

/// Turns accepted rows into staged files.
pub(super) struct Stager {
    contract: SchemaRef,
    key: BoundKey,
    spec: TokenSpec,
    options: SinkOptions,
    workers: Workers,
    /// Bytes that one row group may take while it is made.
    group_memory: usize,
    /// What is on its way, by folder.
    ways: BTreeMap<String, Way>,
    jobs: VecDeque<Job>,
    /// The file that a row group is being appended to, with its folder and the bytes it had before.
    appending: Option<(String, u64, Started<OpenFile>)>,
    /// Files that are being completed, in order.
    closing: VecDeque<Started<DataFile>>,
    source_layout: Option<(String, Option<FileLayout>)>,
    contract_layouts: Vec<(Option<Compression>, FileLayout)>,
    done: Vec<DataFile>,
    done_bytes: u64,
    /// Bytes gathered in all ways.
    gathered_bytes: usize,
    open_files: usize,
    /// Counts uses of ways, to find the one that was not used for longest.
    uses: u64,
}

/// The rows gathered for a folder, and its open file.
#[derive(Default)]
struct Way {
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    stats: Stats,
    layout: Option<FileLayout>,
    file: Option<OpenFile>,
    used: u64,
}

impl Stager {
    pub(super) fn new(
        contract: &SchemaRef,
        spec: &TokenSpec,
        options: &SinkOptions,
        workers: &Workers,
        memory: u64,
    ) -> Result<Self> {
        options.partition_by.iter().try_for_each(|partition| partition.check(contract))?;
        Ok(Self {
            contract: Arc::clone(contract),
            key: spec.bind(contract, "the table's schema")?,
            spec: spec.clone(),
            options: options.clone(),
            workers: workers.clone(),
            group_memory: (memory as usize / (workers.count() + 1)).max(1 << 20),
            ways: BTreeMap::new(),
            jobs: VecDeque::new(),
            appending: None,
            closing: VecDeque::new(),
            source_layout: None,
            contract_layouts: Vec::new(),
            done: Vec::new(),
            done_bytes: 0,
            gathered_bytes: 0,
            open_files: 0,
            uses: 0,
        })
    }

    /// Stages accepted rows after all others.
    pub(super) async fn push(&mut self, store: &Store, namer: &mut Namer, rows: Rows) -> Result<()> {
        let Rows { source, chunk, verdicts } = rows;
        let stats = Stats {
            rows: verdicts.accepted,
            keyless: verdicts.keyless,
            tokens: verdicts.tokens,
            origin: vec![(source, verdicts.accepted)],
        };
        match chunk {
            _ if verdicts.accepted == 0 => Ok(()),
            Chunk::Batch(batch) => {
                let batch = filter_record_batch(&batch, &verdicts.keep.into())
                    .map_err(|e| Error::Internal(format!("rows cannot be filtered: {e}")))?;
                let layout = self.contract_layout(None)?;
                self.scatter(store, namer, source, batch, stats, &layout).await
            }
            Chunk::RowGroup(group) if self.options.partition_by.is_empty() => {
                self.push_group(store, namer, "", group, verdicts, stats).await
            }
            Chunk::RowGroup(group) => {
                let layout = self.contract_layout(group.file().codec())?;
                let keep = (!verdicts.all_accepted()).then_some(verdicts.keep);
                let rows = schema::batch_rows(layout.row_schema());
                let mut batches = compute(move || group.rows(keep.as_ref(), rows)).await?;
                loop {
                    let (batch, rest) = compute(move || Ok((batches.next().transpose()?, batches))).await?;
                    batches = rest;
                    let Some(batch) = batch else { return Ok(()) };
                    self.scatter(store, namer, source, batch, Stats::default(), &layout).await?;
                }
            }
        }
    }

    /// Stages the accepted rows of a row group in `folder`.
    pub(super) async fn push_group(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        folder: &str,
        group: RowGroup<Input>,
        verdicts: Verdicts,
        stats: Stats,
    ) -> Result<()> {
        let source = self.source_layout(&group);
        let small = stats.rows < SMALL_ROWS as u64 && group.compressed_bytes() < SMALL_BYTES;
        if let Some(layout) = &source
            && verdicts.all_accepted()
            && !small
            && sink::copyable(&group, layout)
        {
            self.flush(store, namer, folder).await?;
            let ahead = Arc::new(group.fetch_all_ahead(self.group_memory as u64));
            let (folder, layout) = (folder.to_owned(), layout.clone());
            let job = Job { folder, layout, work: Work::Copy(group), stats, ahead };
            return self.enqueue(store, namer, job).await;
        }
        let copyable = source.clone().filter(|layout| sink::copyable(&group, layout));
        let layout = match source.filter(FileLayout::encodes) {
            Some(layout) => layout,
            None => self.contract_layout(group.file().codec())?,
        };
        if let Some(copied) = copyable
            && !verdicts.all_accepted()
            && stats.rows >= SMALL_ROWS as u64
            && Cutting::is_worth_while(&group, stats.rows, self.group_memory)
        {
            self.flush(store, namer, folder).await?;
            let ahead = Arc::new(group.fetch_all_ahead(self.group_memory as u64));
            let work = Work::Cut(Cutting::begin(group, verdicts.keep, &ahead, &self.workers), layout);
            let job = Job { folder: folder.to_owned(), layout: copied, work, stats, ahead };
            return self.enqueue(store, namer, job).await;
        }
        let keep = (!verdicts.all_accepted()).then_some(verdicts.keep);
        if small {
            // One batch at a time: few rows and few bytes may still be much once they are decoded.
            let url = group.file().url().to_owned();
            let mut stats = stats;
            let rows = schema::batch_rows(layout.row_schema());
            let mut batches = compute(move || group.rows(keep.as_ref(), rows)).await?;
            loop {
                let (batch, rest) = compute(move || Ok((batches.next().transpose()?, batches))).await?;
                batches = rest;
                let Some(batch) = batch else { return Ok(()) };
                let batch = schema::adapt(&batch, layout.row_schema()).map_err(|e| Error::input(&url, e))?;
                let part =
                    Stats { origin: stats.take_origin(batch.num_rows() as u64), ..self.count(&batch)? };
                self.gather(store, namer, folder, batch, part, &layout).await?;
            }
        }
        self.flush(store, namer, folder).await?;
        let encoding = Encoding::of_group(group, keep, &layout, &self.options, self.group_memory);
        let work = Work::Encode(self.workers.start(move || encoding?.step()));
        self.enqueue(
            store,
            namer,
            Job { folder: folder.to_owned(), layout, work, stats, ahead: Arc::default() },
        )
        .await
    }

    /// From here on rows may have the columns of `contract`.
    pub(super) async fn widen(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        contract: &SchemaRef,
    ) -> Result<()> {
        self.flush_all(store, namer).await?;
        self.contract = Arc::clone(contract);
        self.key = self.spec.bind(contract, "the table's schema")?;
        self.source_layout = None;
        self.contract_layouts.clear();
        Ok(())
    }

    /// Ends all files. They are being completed then, alongside whatever comes next.
    pub(super) async fn end(mut self, store: &Store, namer: &mut Namer) -> Result<Ending> {
        self.flush_all(store, namer).await?;
        for (_, way) in std::mem::take(&mut self.ways) {
            if let Some(file) = way.file {
                self.close(file).await?;
            }
        }
        Ok(Ending { done: self.done, closing: self.closing })
    }

    /// Completes all files. They are durable then.
    pub(super) async fn finish(self, store: &Store, namer: &mut Namer) -> Result<Vec<DataFile>> {
        self.end(store, namer).await?.files().await
    }

    /// Files begun so far, and the bytes written to them.
    pub(super) fn staged(&self) -> (u64, u64) {
        let open = self.ways.values().filter_map(|way| way.file.as_ref());
        let open = open.map(|file| file.writer.written());
        let open = open.chain(self.appending.as_ref().map(|(_, bytes, _)| *bytes));
        let (files, bytes) = open.fold((0, 0), |(files, sum), bytes| (files + 1, sum + bytes));
        (files + (self.done.len() + self.closing.len()) as u64, bytes + self.done_bytes)
    }

    /// Splits rows by folder, where there are partitions, and gathers them.
    async fn scatter(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        source: u32,
        batch: RecordBatch,
        stats: Stats,
        layout: &FileLayout,
    ) -> Result<()> {
        let batch = schema::adapt(&batch, layout.row_schema())
            .map_err(|e| Error::Refused(format!("rows do not fit the table: {e}")))?;
        if self.options.partition_by.is_empty() {
            return self.gather(store, namer, "", batch, stats, layout).await;
        }
        for (folder, batch) in sink::split(&self.options.partition_by, &batch)? {
            let stats = Stats { origin: vec![(source, batch.num_rows() as u64)], ..self.count(&batch)? };
            self.gather(store, namer, &folder, without_slack(batch)?, stats, layout).await?;
        }
        Ok(())
    }

    /// What the manifest will say of some rows, but for their origin.
    fn count(&self, batch: &RecordBatch) -> Result<Stats> {
        let tokens = self.key.tokenise(batch)?;
        let keyless = |row: usize| tokens.keyless.as_ref().is_some_and(|mask| mask.value(row));
        let with_key = tokens.tokens.iter().enumerate().filter(|(row, _)| !keyless(*row));
        let one = |token: &Token| TokenSum { count: 1, sum: token.0 };
        let sum = with_key.fold(TokenSum::default(), |sum, (_, token)| sum.plus(one(token)));
        let rows = batch.num_rows() as u64;
        Ok(Stats { rows, keyless: rows - sum.count, tokens: sum, origin: Vec::new() })
    }

    /// Adds adapted rows to those gathered for a folder.
    async fn gather(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        folder: &str,
        batch: RecordBatch,
        stats: Stats,
        layout: &FileLayout,
    ) -> Result<()> {
        if self.ways.get(folder).is_some_and(|way| way.layout.as_ref().is_some_and(|before| before != layout))
        {
            self.flush(store, namer, folder).await?;
        }
        self.uses += 1;
        let way = self.ways.entry(folder.to_owned()).or_default();
        way.used = self.uses;
        way.layout = Some(layout.clone());
        way.stats.add(&stats);
        let bytes = batch.get_array_memory_size();
        way.gathered_bytes += bytes;
        way.gathered.push(batch);
        self.gathered_bytes += bytes;
        let full = self.group_memory.min(self.options.target_file_size as usize);
        if way.stats.rows >= self.options.row_group_rows as u64 || way.gathered_bytes >= full {
            self.flush(store, namer, folder).await?;
        }
        self.keep_within_bounds(store, namer).await
    }

    /// With many folders the gathered rows of all together, and the open files, stay within bounds.
    async fn keep_within_bounds(&mut self, store: &Store, namer: &mut Namer) -> Result<()> {
        while self.gathered_bytes > 2 * self.group_memory {
            let largest = self.ways.iter().max_by_key(|(_, way)| way.gathered_bytes);
            let Some(folder) = largest.map(|(folder, _)| folder.clone()) else { break };
            self.flush(store, namer, &folder).await?;
        }
        let upload = if store.local_path("").is_some() { 1 << 20 } else { Upload::MEMORY };
        let most = (self.group_memory / upload).clamp(MIN_OPEN_FILES, MAX_OPEN_FILES);
        while self.open_files > most {
            self.drain_jobs(store, namer, 0).await?;
            self.settle().await?;
            let open = self.ways.iter().filter(|(_, way)| way.file.is_some());
            let Some(folder) = open.min_by_key(|(_, way)| way.used).map(|(folder, _)| folder.clone()) else {
                break;
            };
            if let Some(file) = self.ways.get_mut(&folder).and_then(|way| way.file.take()) {
                self.close(file).await?;
            }
            // Folders that have neither rows nor a file need not be remembered.
            self.ways.retain(|_, way| way.file.is_some() || !way.gathered.is_empty());
        }
        Ok(())
    }

    async fn flush_all(&mut self, store: &Store, namer: &mut Namer) -> Result<()> {
        let folders: Vec<String> = self.ways.keys().cloned().collect();
        for folder in folders {
            self.flush(store, namer, &folder).await?;
        }
        self.drain_jobs(store, namer, 0).await?;
        self.settle().await
    }

    /// Has the rows gathered for a folder encoded.
    async fn flush(&mut self, store: &Store, namer: &mut Namer, folder: &str) -> Result<()> {
        let Some(way) = self.ways.get_mut(folder).filter(|way| !way.gathered.is_empty()) else {
            return Ok(());
        };
        let batches = std::mem::take(&mut way.gathered);
        let stats = std::mem::take(&mut way.stats);
        self.gathered_bytes -= std::mem::take(&mut way.gathered_bytes);
        let Some(layout) = way.layout.take() else { return Ok(()) };
        let rows = self.options.row_group_rows;
        let work = Work::Columns(Columns::begin(batches, &layout, rows, &self.workers)?);
        self.enqueue(
            store,
            namer,
            Job { folder: folder.to_owned(), layout, work, stats, ahead: Arc::default() },
        )
        .await
    }

    fn contract_layout(&mut self, codec: Option<Compression>) -> Result<FileLayout> {
        if let Some((_, layout)) = self.contract_layouts.iter().find(|(known, _)| *known == codec) {
            return Ok(layout.clone());
        }
        let layout = FileLayout::of_contract(&self.contract, self.options.compression, codec)?;
        self.contract_layouts.push((codec, layout.clone()));
        Ok(layout)
    }

    fn source_layout(&mut self, group: &RowGroup<Input>) -> Option<FileLayout> {
        let url = group.file().url();
        if let Some((known, layout)) = &self.source_layout
            && known == url
        {
            return layout.clone();
        }
        let layout = FileLayout::of_source(group.file(), &self.contract, self.options.compression);
        self.source_layout = Some((url.to_owned(), layout.clone()));
        layout
    }
}

/// Files that are being completed.
pub(super) struct Ending {
    done: Vec<DataFile>,
    closing: VecDeque<Started<DataFile>>,
}

impl Ending {
    /// The files, in order, once all of them are durable.
    pub(super) async fn files(self) -> Result<Vec<DataFile>> {
        let mut done = self.done;
        for file in self.closing {
            done.push(file.await?);
        }
        Ok(done)
    }
}

/// Rows that were picked out of a larger batch share its buffers of text whole: here they get buffers of their own.
fn without_slack(batch: RecordBatch) -> Result<RecordBatch> {
    let own = |column: &ArrayRef| -> ArrayRef {
        match column.data_type() {
            DataType::Utf8View => Arc::new(column.as_string_view().gc()),
            DataType::BinaryView => Arc::new(column.as_binary_view().gc()),
            _ => Arc::clone(column),
        }
    };
    RecordBatch::try_new(batch.schema(), batch.columns().iter().map(own).collect())
        .map_err(|e| Error::Internal(format!("rows cannot be put together again: {e}")))
}
