//! Chunks of rows with their tokens, prepared ahead of their judgement and handed over in input order.
//!
//! One task walks through the sources in order and starts the work on each chunk; a bounded channel holds the
//! results to come. So reading, decoding and hashing overlap with everything behind them, a fixed number of chunks
//! is in memory at a time, and no timing can change the order.

use std::io::{Cursor, Read};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::BooleanBufferBuilder;
use arrow_schema::{Schema, SchemaRef};
use futures::FutureExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::plan::{Head, Planned};
use crate::error::{Error, Result};
use crate::schema::null_bytes;
use crate::source::discover::{Format, SourceFile};
use crate::source::input::Input;
use crate::source::ndjson::{BLOCK_BYTES, Block, Decoded, Decoder, Inference, Lines};
use crate::source::parquet::{ParquetFile, RowGroup};
use crate::store::compute;
use crate::token::{BoundKey, TokenSpec, Tokens};
use crate::workers::{Started, Workers, alongside};

/// What a Parquet file begins with.
const PARQUET: [u8; 4] = *b"PAR1";

/// Rows of one Parquet chunk at most, where memory allows: what a larger row group is cut into.
const PIECE_ROWS: usize = 1 << 20;

/// Bytes a row costs while its chunk waits (its token), and more while it is judged (sorted, with its place).
const WAITING: usize = 16;
const JUDGED: usize = 48;

/// Parts of a block by which the room for text is measured.
const UNITS: usize = 32;

/// Rows of key columns decoded at a time.
const KEY_BATCH: usize = 8192;

/// One chunk, ready to be judged.
pub(super) enum Prepared {
    /// Rows of a row group, after those of the piece before; the last piece of the group if `last`.
    RowGroup { group: RowGroup<Input>, tokens: Tokens, last: bool },
    /// Lines of text.
    Block { block: Arc<Block>, decoded: Decoded, tokens: Tokens, contract: SchemaRef },
    /// Lines of text that are too many to be decoded together, since the contract grew wide meanwhile.
    Wide { block: Arc<Block> },
    /// The source has ended, unchanged since it was opened.
    End,
}

/// The schema that text is decoded to: grows while a run goes on.
#[derive(Debug, Clone)]
pub(super) struct Contract(Arc<Mutex<SchemaRef>>);

impl Contract {
    pub(super) fn new(schema: SchemaRef) -> Self {
        Self(Arc::new(Mutex::new(schema)))
    }

    pub(super) fn get(&self) -> SchemaRef {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set(&self, schema: SchemaRef) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = schema;
    }
}

/// What every chunk is prepared with.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) spec: Arc<TokenSpec>,
    pub(super) contract: Contract,
    /// The inference that the contract is of, if it was not of all rows.
    pub(super) known: Option<Arc<Inference>>,
    pub(super) workers: Workers,
    pub(super) max_line: usize,
    pub(super) piece_rows: usize,
    pub(super) block_lines: usize,
    /// What the whole run may take, in bytes.
    pub(super) memory: u64,
}

/// A chunk to come: the number of its source, the chunk, and the room it takes until it was judged.
pub(super) type Coming = (usize, Started<Prepared>, Option<Arc<OwnedSemaphorePermit>>);

/// The chunks to come.
pub(super) type Chunks = mpsc::Receiver<Coming>;

/// Starts to prepare the chunks of `sources`. Ends when all are done, when one fails, or when nobody listens.
pub(super) fn start(sources: Arc<Vec<Planned>>, recipe: Recipe) -> Chunks {
    let (sender, receiver) = mpsc::channel(recipe.workers.count().max(1));
    // A line of the largest size takes all of it: then no other block is under way.
    let room = Arc::new(Semaphore::new((2 * recipe.workers.count() + 3) * UNITS));
    let feed = async move {
        for (number, planned) in sources.iter().enumerate() {
            let Planned::Read { file, head, .. } = planned else { continue };
            let (file, head) = (file.clone(), head.clone());
            let feeder = Feeder { number, file, head, recipe: &recipe, sender: &sender, room: &room };
            if let Err(error) = feeder.feed().await {
                let _ = sender.send((number, async move { Err(error) }.boxed(), None)).await;
                return;
            }
        }
    };
    tokio::spawn(feed);
    receiver
}

struct Feeder<'a> {
    number: usize,
    file: SourceFile,
    head: Option<Head>,
    recipe: &'a Recipe,
    sender: &'a mpsc::Sender<Coming>,
    room: &'a Arc<Semaphore>,
}

impl Feeder<'_> {
    async fn feed(&self) -> Result<()> {
        let file = self.file.clone();
        let input = compute(move || file.open()).await?;
        match self.file.format {
            Format::Parquet => self.feed_parquet(&input).await?,
            Format::Ndjson => self.feed_ndjson(&input).await?,
        }
        // No work for a worker: in a bucket it waits for an answer.
        let unchanged = compute(move || input.unchanged().map(|()| Prepared::End));
        self.send(alongside(unchanged).await).await
    }

    async fn feed_parquet(&self, input: &Input) -> Result<()> {
        let (input, url) = (input.clone(), self.file.url.clone());
        let memory = self.recipe.memory;
        let file = compute(move || {
            let _ahead = input.fetch_end_ahead();
            ParquetFile::open_within(input, &url, memory)
        })
        .await?;
        let key = self.recipe.spec.bind(file.schema(), &self.file.url)?;
        for group in file.row_groups() {
            if group.num_rows() <= self.recipe.piece_rows {
                let key = key.clone();
                // As many as may be on their way at a time.
                let share = self.recipe.memory / 8 / (self.recipe.workers.count() as u64 + 2);
                let ahead = Arc::new(group.fetch_keys_ahead(&key.paths(), share));
                let until_read = Arc::clone(&ahead);
                let work = move || {
                    let batches = group.key_batches(&key.paths(), KEY_BATCH)?;
                    let tokens = tokenise(batches, &key, usize::MAX)?.0;
                    drop(until_read);
                    Ok(Prepared::RowGroup { group, tokens, last: true })
                };
                let ready = async move { ahead.arrived().await };
                self.send(self.recipe.workers.start_after(ready, work)).await?;
            } else {
                self.feed_large_row_group(&group, &key).await?;
            }
        }
        Ok(())
    }

    /// A row group too large to be one chunk is read piece by piece, each once the one before was taken.
    async fn feed_large_row_group(&self, group: &RowGroup<Input>, key: &BoundKey) -> Result<()> {
        let mut left = group.num_rows();
        let (first, paths) = (group.clone(), key.paths());
        let mut batches = compute(move || first.key_batches(&paths, KEY_BATCH)).await?;
        loop {
            let (key, rows) = (key.clone(), self.recipe.piece_rows);
            let (tokens, rest) = compute(move || tokenise(batches, &key, rows)).await?;
            batches = rest;
            left = left.saturating_sub(tokens.tokens.len());
            let last = left == 0 || tokens.tokens.is_empty();
            let piece = Prepared::RowGroup { group: group.clone(), tokens, last };
            self.send(async move { Ok(piece) }.boxed()).await?;
            if last {
                return Ok(());
            }
        }
    }

    async fn feed_ndjson(&self, input: &Input) -> Result<()> {
        let (input, max_line) = (input.clone(), self.recipe.max_line);
        let head = self.head.clone();
        let mut lines = compute(move || {
            let reader = match head {
                Some(head) => head.whole()?,
                None => input.reader()?,
            };
            // Always the same blocks, because a new column's type may be decided by the block it appears in.
            lines_of(input.url(), reader, max_line)
        })
        .await?;
        loop {
            let url = self.file.url.clone();
            let (block, rest) = compute(move || {
                let block = lines.next_block().map_err(|e| read_error(&url, &e))?;
                Ok((block, lines))
            })
            .await?;
            lines = rest;
            let Some(block) = block else { return Ok(()) };
            let room = Some(self.room_for(block.bytes.len()).await?);
            for block in block.split(self.recipe.block_lines) {
                let (recipe, url) = (self.recipe.clone(), self.file.url.clone());
                let contract = self.recipe.contract.get();
                let work = move || prepare_block(Arc::new(block), contract, &recipe, &url);
                self.send_in(self.recipe.workers.start(work), room.clone()).await?;
            }
        }
    }

    /// Room for a block of so many bytes, once there is: what long lines decode to is many times their length.
    async fn room_for(&self, bytes: usize) -> Result<Arc<OwnedSemaphorePermit>> {
        let all = (2 * self.recipe.workers.count() + 3) * UNITS;
        let units = bytes.div_ceil(BLOCK_BYTES / UNITS).clamp(1, all);
        let permit = Arc::clone(self.room).acquire_many_owned(units as u32).await;
        permit.map(Arc::new).map_err(|_| Error::Interrupted)
    }

    async fn send(&self, chunk: Started<Prepared>) -> Result<()> {
        self.send_in(chunk, None).await
    }

    async fn send_in(&self, chunk: Started<Prepared>, room: Option<Arc<OwnedSemaphorePermit>>) -> Result<()> {
        self.sender.send((self.number, chunk, room)).await.map_err(|_| Error::Interrupted)
    }
}

/// Decodes a block to `contract` and makes its tokens.
pub(super) fn prepare_block(
    block: Arc<Block>,
    contract: SchemaRef,
    recipe: &Recipe,
    url: &str,
) -> Result<Prepared> {
    if has_more_lines(&block, block_lines(&contract)) {
        return Ok(Prepared::Wide { block });
    }
    let decoded = Decoder::new(Arc::clone(&contract))?.of(recipe.known.clone()).decode(&block)?;
    let tokens = recipe.spec.bind(&contract, url)?.tokenise(&decoded.batch)?;
    Ok(Prepared::Block { block, decoded, tokens, contract })
}

/// Lines of a block: short lines under a wide schema would decode to many times their size, and short bad lines take
/// many times their size until they are written down.
pub(crate) fn block_lines(schema: &Schema) -> usize {
    const BYTES: u64 = 16 << 20;
    const LINES: u64 = 1 << 16;
    (BYTES / null_bytes(schema)).clamp(1, LINES) as usize
}

fn has_more_lines(block: &Block, most: usize) -> bool {
    memchr::memchr_iter(b'\n', &block.bytes).nth(most).is_some()
}

/// The rows of a chunk that keep a run's tokens within their share of `memory`.
pub(super) fn piece_rows(memory: u64, workers: &Workers) -> usize {
    let row = WAITING * (2 * workers.count() + 1) + JUDGED;
    (memory as usize / 8 / row).clamp(KEY_BATCH, PIECE_ROWS)
}

/// A reader's error as one about the source, which it may have named already.
/// The lines of a text, which a Parquet file is not, whatever it is called: all of it would be bad lines.
pub(crate) fn lines_of(
    url: &str,
    mut reader: Box<dyn Read + Send>,
    max_line: usize,
) -> Result<Lines<Box<dyn Read + Send>>> {
    let mut start = Vec::with_capacity(PARQUET.len());
    let begun = reader.by_ref().take(PARQUET.len() as u64).read_to_end(&mut start);
    begun.map_err(|error| read_error(url, &error))?;
    if start == PARQUET {
        return Err(Error::input(
            url,
            "it is a Parquet file, but was to be read as text; end its name in .parquet, or say --format parquet",
        ));
    }
    Ok(Lines::new(Box::new(Cursor::new(start).chain(reader)), BLOCK_BYTES, max_line))
}

pub(crate) fn read_error(url: &str, error: &std::io::Error) -> Error {
    let text = error.to_string();
    let reason = text.strip_prefix(url).map_or(text.as_str(), |rest| rest.trim_start_matches([':', ' ']));
    Error::input(url, reason)
}

/// Tokens of up to `rows` rows, and the batches that are left.
fn tokenise<B>(mut batches: B, key: &BoundKey, rows: usize) -> Result<(Tokens, B)>
where
    B: Iterator<Item = Result<arrow::array::RecordBatch>>,
{
    let mut all = Vec::new();
    let mut keyless: Option<BooleanBufferBuilder> = None;
    while all.len() < rows {
        let Some(batch) = batches.next() else { break };
        let tokens = key.tokenise(&batch?)?;
        if let Some(mask) = &tokens.keyless {
            let keyless = keyless.get_or_insert_with(|| {
                let mut builder = BooleanBufferBuilder::new(all.len() + mask.len());
                builder.append_n(all.len(), false);
                builder
            });
            keyless.append_buffer(mask);
        } else if let Some(keyless) = &mut keyless {
            keyless.append_n(tokens.tokens.len(), false);
        }
        if all.is_empty() {
            all = tokens.tokens;
        } else {
            all.extend_from_slice(&tokens.tokens);
        }
    }
    Ok((Tokens { tokens: all, keyless: keyless.map(|mut builder| builder.finish()) }, batches))
}
