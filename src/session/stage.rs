//! Accepted rows become data files, staged under unique names.
//!
//! Row groups of which every row survives are copied byte for byte; from others the dropped rows are cut out of the
//! encoded pages, or they are decoded, filtered and encoded, several at a time on the workers, and appended in input
//! order. Small pieces are gathered first, so that many small inputs
//! do not become many small row groups. A table with partitions gets a file at a time for each folder.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow_schema::{DataType, SchemaRef};
use parquet::basic::Compression;

use super::cutting::Cutting;
use super::encoding::Encoding;
use super::file::{OpenFile, Stats};
use super::judge::Verdicts;
use crate::error::{Error, Result};
use crate::ledger::entry::DataFile;
use crate::ledger::name::Namer;
use crate::schema;
use crate::sink::{self, EncodedRowGroup, FileLayout, SinkOptions};
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
#[derive(Debug)]
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
#[derive(Debug, Default)]
struct Way {
    gathered: Vec<RecordBatch>,
    gathered_bytes: usize,
    stats: Stats,
    layout: Option<FileLayout>,
    file: Option<OpenFile>,
    used: u64,
}

/// A row group (or a few) to be appended to the file of a folder.
#[derive(Debug)]
struct Job {
    folder: String,
    layout: FileLayout,
    work: Work,
    stats: Stats,
}

enum Work {
    Copy(RowGroup<Input>),
    /// With the layout to encode to if it turns out that no column can be cut.
    Cut(Cutting, FileLayout),
    Encode(Started<(Option<EncodedRowGroup>, Encoding)>),
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Copy(_) => "Copy",
            Self::Cut(..) => "Cut",
            Self::Encode(_) => "Encode",
        })
    }
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
            let job =
                Job { folder: folder.to_owned(), layout: layout.clone(), work: Work::Copy(group), stats };
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
            let work = Work::Cut(Cutting::begin(group, verdicts.keep, &self.workers), layout);
            let job = Job { folder: folder.to_owned(), layout: copied, work, stats };
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
        self.enqueue(store, namer, Job { folder: folder.to_owned(), layout, work, stats }).await
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

    /// Completes all files. They are durable then.
    pub(super) async fn finish(mut self, store: &Store, namer: &mut Namer) -> Result<Vec<DataFile>> {
        self.flush_all(store, namer).await?;
        for (_, way) in std::mem::take(&mut self.ways) {
            if let Some(file) = way.file {
                self.done.push(file.close().await?);
            }
        }
        Ok(self.done)
    }

    /// Files begun so far, and the bytes written to them.
    pub(super) fn staged(&self) -> (u64, u64) {
        let open = self.ways.values().filter_map(|way| way.file.as_ref());
        let (files, bytes) = open.fold((0, 0), |(n, bytes), file| (n + 1, bytes + file.writer.written()));
        (files + self.done.len() as u64, bytes + self.done_bytes)
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
        if way.stats.rows >= self.options.row_group_rows as u64 || way.gathered_bytes >= self.group_memory {
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

    async fn close(&mut self, file: OpenFile) -> Result<()> {
        self.open_files -= 1;
        let file = file.close().await?;
        self.done_bytes += file.bytes;
        self.done.push(file);
        Ok(())
    }

    async fn flush_all(&mut self, store: &Store, namer: &mut Namer) -> Result<()> {
        let folders: Vec<String> = self.ways.keys().cloned().collect();
        for folder in folders {
            self.flush(store, namer, &folder).await?;
        }
        self.drain_jobs(store, namer, 0).await
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
        let encoding = Encoding::of_batches(batches, &layout, &self.options, self.group_memory);
        let work = Work::Encode(self.workers.start(move || encoding?.step()));
        self.enqueue(store, namer, Job { folder: folder.to_owned(), layout, work, stats }).await
    }

    async fn enqueue(&mut self, store: &Store, namer: &mut Namer, job: Job) -> Result<()> {
        self.jobs.push_back(job);
        self.drain_jobs(store, namer, self.workers.count()).await
    }

    /// Appends the oldest jobs' row groups until no more than `left` jobs are on their way.
    async fn drain_jobs(&mut self, store: &Store, namer: &mut Namer, left: usize) -> Result<()> {
        while self.jobs.len() > left {
            let Some(job) = self.jobs.pop_front() else { break };
            self.append(store, namer, job).await?;
        }
        Ok(())
    }

    async fn append(&mut self, store: &Store, namer: &mut Namer, mut job: Job) -> Result<()> {
        let mut cut = None;
        if let Work::Cut(cutting, encoded) = &mut job.work {
            cut = cutting.finish(&job.layout, &self.workers).await?;
            if cut.is_none() {
                let (group, keep) = (cutting.group.clone(), cutting.keep.as_ref().clone());
                job.layout = encoded.clone();
                let encoding =
                    Encoding::of_group(group, Some(keep), encoded, &self.options, self.group_memory);
                job.work = Work::Encode(self.workers.start(move || encoding?.step()));
            }
        }
        self.uses += 1;
        let way = self.ways.entry(job.folder.clone()).or_default();
        way.used = self.uses;
        let mut open = way.file.take();
        if let Some(file) = open.take_if(|file| *file.writer.layout() != job.layout || file.writer.is_full())
        {
            self.close(file).await?;
        }
        let mut file = match open {
            Some(file) => file,
            None => {
                self.open_files += 1;
                OpenFile::begin(store, namer, &job.folder, &job.layout, self.key.paths()).await?
            }
        };
        match job.work {
            Work::Copy(group) => file.copy(group).await?,
            Work::Cut(cutting, _) => {
                file.append_cut(&cutting.group, cut.unwrap_or_default(), job.stats.rows).await?;
            }
            Work::Encode(mut started) => loop {
                let (group, rest) = started.await?;
                let Some(group) = group else { break };
                file.append(group).await?;
                started = self.workers.start(move || rest.step());
            },
        }
        file.stats.add(&job.stats);
        if file.writer.written() >= self.options.target_file_size {
            self.close(file).await?;
        } else if let Some(way) = self.ways.get_mut(&job.folder) {
            way.file = Some(file);
        }
        Ok(())
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
