//! The rows of all sources, one after the other, as record batches of one schema: what a [`Reshape`](super::Reshape) is
//! given.
//!
//! As for a plain ingest, text is decoded ahead on the workers and handed over in the order of the input; lines that give
//! no row go to quarantine, a source that changes while it is read is an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow_schema::{Schema, SchemaRef};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use tokio::sync::mpsc;

use super::feed::{block_lines, lines_of, read_error};
use super::plan::{Head, Planned};
use crate::error::{Error, Result};
use crate::options::IngestOptions;
use crate::report::Progress;
use crate::schema;
use crate::source::discover::{Compression, Format, SourceFile};
use crate::source::input::Input;
use crate::source::ndjson::{BadLine, Decoded, Decoder};
use crate::source::parquet::{ParquetFile, RowGroup};
use crate::store::compute;
use crate::workers::{Started, Workers};

/// Rows of Parquet that are decoded at a time.
const BATCH: usize = 8192;

/// Record batches, until the first error.
pub type RowStream = BoxStream<'static, Result<RecordBatch>>;

/// Lines of a source that gave no row.
pub(super) type Bad = (usize, Vec<BadLine>);

/// The rows of all sources of a run, to be read as often as they are wanted (but standard input only once).
#[derive(Clone)]
pub struct SourceRows(Arc<Inner>);

struct Inner {
    planned: Arc<Vec<Planned>>,
    schema: SchemaRef,
    workers: Workers,
    max_line: usize,
    memory: u64,
    bad: mpsc::Sender<Bad>,
    progress: Progress,
    /// Whether they were read before: what is to be told of them is told once.
    told: AtomicBool,
}

impl std::fmt::Debug for SourceRows {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SourceRows({} sources)", self.0.planned.len())
    }
}

/// A piece of a source.
enum Piece {
    Rows(RecordBatch),
    Lines(Decoded),
    End,
}

impl SourceRows {
    /// The rows of `planned`, as `schema` has them. Lines that give no row are sent to `bad`, with the place of their source
    /// among the planned.
    pub(super) fn new(
        planned: Arc<Vec<Planned>>,
        schema: SchemaRef,
        options: &IngestOptions,
        workers: &Workers,
        progress: &Progress,
        bad: mpsc::Sender<Bad>,
    ) -> Self {
        Self(Arc::new(Inner {
            planned,
            schema,
            workers: workers.clone(),
            max_line: options.max_line,
            memory: options.memory,
            bad,
            progress: progress.clone(),
            told: AtomicBool::new(false),
        }))
    }

    /// The schema of all rows: every column of any source.
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// The rows, with these columns of the schema or all, in that order. Nothing is read before the first is asked for.
    pub fn read(&self, columns: Option<&[usize]>) -> Result<RowStream> {
        let schema = match columns {
            Some(columns) => self.0.schema.project(columns),
            None => Ok(self.0.schema.as_ref().clone()),
        };
        let schema = schema.map_err(|e| Error::Usage(format!("there are no such columns: {e}")))?;
        let (schema, inner) = (Arc::new(schema), Arc::clone(&self.0));
        Ok(stream::once(async move { inner.rows(schema) }).flatten().boxed())
    }
}

impl Inner {
    fn rows(self: Arc<Self>, schema: SchemaRef) -> RowStream {
        let (sender, receiver) = mpsc::channel::<(usize, Started<Piece>)>(self.workers.count().max(1));
        let tells = !self.told.swap(true, Ordering::Relaxed);
        let feed = Feed { inner: Arc::clone(&self), schema: Arc::clone(&schema), sender, tells };
        tokio::spawn(feed.run());
        let all = self.planned.iter().filter(|planned| matches!(planned, Planned::Read { .. })).count();
        let rows = stream::try_unfold((receiver, 0), move |(mut coming, mut ended)| {
            let (inner, schema) = (Arc::clone(&self), Arc::clone(&schema));
            async move {
                while let Some((number, piece)) = coming.recv().await {
                    let rows = match piece.await? {
                        Piece::Rows(rows) => rows,
                        Piece::Lines(decoded) => inner.decoded(number, decoded, &schema, tells).await?,
                        Piece::End => {
                            ended += 1;
                            continue;
                        }
                    };
                    if rows.num_rows() > 0 {
                        return Ok(Some((rows, (coming, ended))));
                    }
                }
                // The feed falling silent is not the same as the input being at its end.
                if ended == all {
                    return Ok(None);
                }
                Err(Error::Internal("the reading of a source ended before the source did".into()))
            }
        });
        rows.boxed()
    }

    /// The rows of decoded lines, and of the others what is to be told.
    async fn decoded(
        &self,
        number: usize,
        decoded: Decoded,
        schema: &SchemaRef,
        tells: bool,
    ) -> Result<RecordBatch> {
        if decoded.unknown_fields {
            let url = self.planned.get(number).and_then(Planned::url).unwrap_or_default();
            let line = decoded.lines.first().copied().unwrap_or_default();
            return Err(Error::input(
                url,
                format!(
                    "from line {line} on it has columns that the rows before do not have, by which the query was planned. \
                     Leave out --sample-rows, so that all rows are looked at first (standard input: save it to a file)"
                ),
            ));
        }
        if tells && !decoded.bad.is_empty() {
            // Nobody listens any more once the run has ended.
            let _ = self.bad.send((number, decoded.bad)).await;
        }
        let columns: Option<Vec<usize>> =
            schema.fields().iter().map(|field| self.schema.index_of(field.name()).ok()).collect();
        let columns = columns.ok_or_else(|| Error::Internal("a column of the sources got lost".into()))?;
        decoded
            .batch
            .project(&columns)
            .map_err(|e| Error::Internal(format!("lines cannot be picked from: {e}")))
    }
}

/// Reads source after source, and starts the work on each piece.
struct Feed {
    inner: Arc<Inner>,
    schema: SchemaRef,
    sender: mpsc::Sender<(usize, Started<Piece>)>,
    /// Whether progress is to be told.
    tells: bool,
}

impl Feed {
    async fn run(self) {
        for (number, planned) in self.inner.planned.iter().enumerate() {
            let Planned::Read { file, head, .. } = planned else { continue };
            if let Err(error) = self.feed(number, file, head.clone()).await {
                let _ = self.send(number, async move { Err(error) }.boxed()).await;
                return;
            }
        }
    }

    async fn feed(&self, number: usize, file: &SourceFile, head: Option<Head>) -> Result<()> {
        let source = file.clone();
        let input = compute(move || source.open()).await?;
        match file.format {
            Format::Parquet => self.feed_parquet(number, file, &input).await?,
            Format::Ndjson => self.feed_ndjson(number, file, &input, head).await?,
        }
        let end = self.inner.workers.start(move || input.unchanged().map(|()| Piece::End));
        self.send(number, end).await
    }

    async fn feed_parquet(&self, number: usize, file: &SourceFile, input: &Input) -> Result<()> {
        let (input, url, memory) = (input.clone(), file.url.clone(), self.inner.memory);
        let opened = compute(move || ParquetFile::open_within(input, &url, memory)).await?;
        let wanted = self.schema.fields().iter().map(|field| field.name());
        let paths: Vec<Vec<String>> = wanted
            .filter(|name| opened.schema().column_with_name(name).is_some())
            .map(|name| vec![name.clone()])
            .collect();
        for group in opened.row_groups() {
            let (bytes, rows) = (group.compressed_bytes(), group.num_rows());
            if paths.is_empty() {
                let (schema, url) = (Arc::clone(&self.schema), file.url.clone());
                let none = self.inner.workers.start(move || rows_without_columns(rows, &schema, &url));
                self.send(number, none).await?;
            } else {
                self.feed_row_group(number, file, group, &paths).await?;
            }
            if self.tells {
                self.inner.progress.advance(bytes);
            }
        }
        Ok(())
    }

    /// One batch after the other, of which the next is decoded while those before are on their way.
    async fn feed_row_group(
        &self,
        number: usize,
        file: &SourceFile,
        group: RowGroup<Input>,
        paths: &[Vec<String>],
    ) -> Result<()> {
        let paths = paths.to_vec();
        let mut batches = compute(move || group.key_batches(&paths, BATCH)).await?;
        loop {
            let (schema, url) = (Arc::clone(&self.schema), file.url.clone());
            let decoded = compute(move || {
                let Some(batch) = batches.next().transpose()? else { return Ok((None, batches)) };
                Ok((Some(adapted(&batch, &schema, &url)?), batches))
            });
            let (batch, rest) = decoded.await?;
            batches = rest;
            let Some(batch) = batch else { return Ok(()) };
            self.send(number, async move { Ok(Piece::Rows(batch)) }.boxed()).await?;
        }
    }

    async fn feed_ndjson(
        &self,
        number: usize,
        file: &SourceFile,
        input: &Input,
        head: Option<Head>,
    ) -> Result<()> {
        let (input, max_line) = (input.clone(), self.inner.max_line);
        let mut lines = compute(move || {
            let reader = match head {
                Some(head) => head.whole()?,
                None => input.reader()?,
            };
            lines_of(input.url(), reader, max_line)
        })
        .await?;
        // By all columns, so that what is a bad line does not depend on what is wanted of it.
        let decoder = Arc::new(Decoder::new(Arc::clone(&self.inner.schema))?);
        loop {
            let url = file.url.clone();
            let (block, rest) = compute(move || {
                let block = lines.next_block().map_err(|e| read_error(&url, &e))?;
                Ok((block, lines))
            })
            .await?;
            lines = rest;
            let Some(block) = block else { return Ok(()) };
            if self.tells && file.compression == Compression::None {
                self.inner.progress.advance(block.bytes.len() as u64);
            }
            for block in block.split(block_lines(&self.inner.schema)) {
                let decoder = Arc::clone(&decoder);
                let work = move || Ok(Piece::Lines(decoder.decode(&block)?));
                self.send(number, self.inner.workers.start(work)).await?;
            }
        }
    }

    async fn send(&self, number: usize, piece: Started<Piece>) -> Result<()> {
        self.sender.send((number, piece)).await.map_err(|_| Error::Interrupted)
    }
}

fn adapted(batch: &RecordBatch, schema: &SchemaRef, url: &str) -> Result<RecordBatch> {
    schema::adapt(batch, schema).map_err(|reason| Error::input(url, reason))
}

/// So many rows of a file that has none of the columns.
fn rows_without_columns(rows: usize, schema: &SchemaRef, url: &str) -> Result<Piece> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let none = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
    let none = none.map_err(|e| Error::Internal(format!("rows without columns: {e}")))?;
    Ok(Piece::Rows(adapted(&none, schema, url)?))
}
