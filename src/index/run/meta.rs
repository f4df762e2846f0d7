//! Reads a run without I/O: says which bytes it needs, checks them, and answers from them.
//!
//! The bytes may be anything. All sizes are checked against the size of the object before they are used, and
//! nothing is allocated beyond what is at hand or what the object's size bears out.

use super::layout::{BLOOM_CHUNK, FOOTER_BYTES, HEADER_BYTES, Layout, TOKEN_BYTES};
use super::{MAGIC, RUN_VERSION, RunSummary};
use crate::error::{Error, Result};
use crate::index::bloom::{Bloom, LINE_BYTES, Shape};
use crate::index::{gallop, top};
use crate::token::{Token, TokenSum};
use std::ops::Range;
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Directory and footer of a run: all that is kept of it in memory besides, perhaps, its filter.
#[derive(Debug, Clone)]
pub struct RunMeta {
    object: Arc<str>,
    layout: Layout,
    shape: Option<Shape>,
    summary: RunSummary,
    firsts: Vec<u64>,
    sums: Vec<u64>,
    commit_sums: Vec<u64>,
    bloom_sums: Vec<u64>,
}

/// What [`RunMeta::parse`] made of the end of an object.
#[derive(Debug, Clone)]
pub enum Tail {
    /// The directory was complete.
    Ready(Box<RunMeta>),
    /// The directory begins earlier: call again with these bytes.
    Needs(Range<u64>),
}

impl RunMeta {
    /// The bytes to fetch first of an object of `size` bytes: the whole tail of runs up to some 16 million tokens.
    pub fn first_read(size: u64) -> Range<u64> {
        size.saturating_sub(64 << 10)..size
    }

    /// Reads the tail of `object`, which has `size` bytes and ends with `end`. Whoever then fetches the bytes it asks
    /// for, all of them, is asked at most twice.
    pub fn parse(object: &str, size: u64, end: &[u8]) -> Result<Tail> {
        let corrupt = |reason: &str| Error::corrupt(object, reason);
        if size < HEADER_BYTES + FOOTER_BYTES {
            return Err(corrupt("too short for a token run"));
        }
        let Some((directory, footer)) = end.split_last_chunk::<{ FOOTER_BYTES as usize }>() else {
            return Ok(Tail::Needs(Self::first_read(size)));
        };
        let footer = Footer::parse(footer).map_err(|reason| corrupt(&reason))?;
        let layout = Layout::new(footer.count, footer.width, footer.lines)
            .filter(|layout| layout.bytes() == size)
            .ok_or_else(|| corrupt("its size is not the one its footer implies"))?;
        let tail = layout.tail_range();
        let wanted = (tail.end - tail.start).saturating_sub(FOOTER_BYTES);
        let skipped = match (directory.len() as u64).checked_sub(wanted) {
            Some(more) => more as usize,
            None => return Ok(Tail::Needs(tail)),
        };
        let directory = directory.get(skipped..).unwrap_or_default();
        let covered = end.get(skipped..end.len().saturating_sub(16)).unwrap_or_default();
        if xxh3_64(covered) != footer.checksum {
            return Err(corrupt("the checksum of its footer does not match"));
        }
        Self::assemble(object, layout, &footer, directory).map(Box::new).map(Tail::Ready)
    }

    fn assemble(object: &str, layout: Layout, footer: &Footer, directory: &[u8]) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt(object, reason);
        let (words, _) = directory.as_chunks::<8>();
        let mut words = words.iter();
        let mut column = |n: u64| words.by_ref().take(n as usize).copied().map(u64::from_le_bytes).collect();
        let blocks = layout.blocks();
        let mut firsts: Vec<u64> = column(blocks);
        firsts.iter_mut().for_each(|first| *first = first.swap_bytes());
        let sums = column(blocks);
        let commit_sums = column(if footer.width == 0 { 0 } else { blocks });
        let bloom_sums = column(layout.bloom_chunks());

        let sound = match (firsts.first(), firsts.last()) {
            (Some(first), Some(last)) => {
                firsts.is_sorted()
                    && *first == top(footer.min)
                    && *last <= top(footer.max)
                    && footer.min <= footer.max
            }
            _ => footer.min == Token(u128::MAX) && footer.max == Token(0) && footer.sum == 0,
        };
        if !sound {
            return Err(corrupt("its directory contradicts itself"));
        }
        let shape = match footer.lines {
            0 => None,
            lines => Some(
                Shape::new(footer.serves.0, footer.serves.1, lines)
                    .ok_or_else(|| corrupt("its filter serves no range of tokens"))?,
            ),
        };
        let summary = RunSummary {
            tokens: TokenSum { count: footer.count, sum: footer.sum },
            min: footer.min,
            max: footer.max,
            bytes: layout.bytes(),
            checksum: footer.checksum,
        };
        Ok(Self { object: object.into(), layout, shape, summary, firsts, sums, commit_sums, bloom_sums })
    }

    /// Fails unless the run is the one that the ledger names.
    pub fn expect(&self, named: &RunSummary) -> Result<()> {
        if self.summary == *named {
            return Ok(());
        }
        Err(self.corrupt("it is sound, but not the run that the ledger names"))
    }

    /// Name of the object.
    pub fn object(&self) -> &str {
        &self.object
    }

    /// Count, bounds, sum and size.
    pub fn summary(&self) -> &RunSummary {
        &self.summary
    }

    /// Where everything lies.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// How tokens are spread over its filter; `None` if it has none.
    pub fn bloom_shape(&self) -> Option<Shape> {
        self.shape
    }

    /// Bytes of memory it holds.
    pub fn memory(&self) -> usize {
        let words = self.firsts.len() + self.sums.len() + self.commit_sums.len() + self.bloom_sums.len();
        words * size_of::<u64>() + size_of::<Self>() + self.object.len()
    }

    /// The highest 64 bits of the first token of each block.
    pub(crate) fn firsts(&self) -> &[u64] {
        &self.firsts
    }

    /// The blocks that may hold `token`: none or one, or a few if their tokens share their highest 64 bits.
    pub fn blocks_of(&self, token: Token) -> Range<u64> {
        self.blocks_from(token, 0)
    }

    /// As [`Self::blocks_of`], quicker if they lie soon after block `hint`, wrong if they begin before it.
    pub(crate) fn blocks_from(&self, token: Token, hint: u64) -> Range<u64> {
        if token < self.summary.min || token > self.summary.max {
            return 0..0;
        }
        let top = top(token);
        let at = gallop(&self.firsts, hint as usize, |first| *first < top);
        let end = gallop(&self.firsts, at, |first| *first <= top);
        // The block before the first that begins at or above the token may end with it.
        at.saturating_sub(1) as u64..end as u64
    }

    /// Fails unless `bytes` are the header of a run.
    pub fn check_header(&self, bytes: &[u8]) -> Result<()> {
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&RUN_VERSION.to_le_bytes());
        header.extend_from_slice(&0u32.to_le_bytes());
        if bytes == header { Ok(()) } else { Err(self.corrupt("its header is not that of a token run")) }
    }

    /// The checked tokens of a block, as they lie in the file, from the bytes of [`Layout::block_range`].
    pub(crate) fn check_block<'a>(&self, block: u64, bytes: &'a [u8]) -> Result<&'a [[u8; 16]]> {
        let range = self.layout.block_range(block);
        self.check(bytes, &range, self.sums.get(block as usize), format_args!("token block {block}"))?;
        Ok(bytes.as_chunks::<{ TOKEN_BYTES as usize }>().0)
    }

    /// The tokens of a block, from the bytes of [`Layout::block_range`]: checksum, order and bounds checked.
    pub fn decode_block(&self, block: u64, bytes: &[u8]) -> Result<Vec<Token>> {
        let raw = self.check_block(block, bytes)?;
        let tokens: Vec<Token> = raw.iter().map(|token| Token(u128::from_be_bytes(*token))).collect();
        let next = self.firsts.get(block as usize + 1).copied().unwrap_or(u64::MAX);
        let sound = tokens.is_sorted_by(|a, b| a < b)
            && tokens.first().map(|token| top(*token)) == self.firsts.get(block as usize).copied()
            && tokens.first().is_some_and(|token| *token >= self.summary.min)
            && tokens.last().is_some_and(|token| *token <= self.summary.max && top(*token) <= next);
        if !sound {
            return Err(self.corrupt(format_args!("the tokens of block {block} contradict its directory")));
        }
        Ok(tokens)
    }

    /// The commits of a block, from the bytes of [`Layout::commit_range`]; empty in a run without commits.
    pub fn decode_commits(&self, block: u64, bytes: &[u8]) -> Result<Vec<u64>> {
        let range = self.layout.commit_range(block);
        if self.layout.commit_width() == 0 && bytes.is_empty() {
            return Ok(Vec::new());
        }
        self.check(
            bytes,
            &range,
            self.commit_sums.get(block as usize),
            format_args!("commit block {block}"),
        )?;
        Ok(match self.layout.commit_width() {
            4 => {
                bytes.as_chunks::<4>().0.iter().map(|commit| u64::from(u32::from_le_bytes(*commit))).collect()
            }
            _ => bytes.as_chunks::<8>().0.iter().map(|commit| u64::from_le_bytes(*commit)).collect(),
        })
    }

    /// The filter, from the bytes of [`Layout::bloom_range`]; `None` if the run has none.
    pub fn decode_bloom(&self, bytes: &[u8]) -> Result<Option<Bloom>> {
        let Some(mut load) = self.load_bloom()? else { return Ok(None) };
        load.push(bytes)?;
        load.finish().map(Some)
    }

    /// Begins to load the filter piece by piece, so that it is never held twice; `None` if the run has none.
    pub fn load_bloom(&self) -> Result<Option<BloomLoad<'_>>> {
        self.shape
            .map(|shape| Ok(BloomLoad { meta: self, bloom: Bloom::reserve(shape)?, chunks: 0 }))
            .transpose()
    }

    /// Begins to probe the filter where it lies, piece by piece, for a filter that memory has no room for; `None` if
    /// the run has none.
    pub fn scan_bloom(&self) -> Option<BloomScan<'_>> {
        self.shape.map(|shape| BloomScan { meta: self, shape, chunks: 0 })
    }

    /// The bytes of the filter to fetch next after `chunks` chunks: at most `request`, but never less than one chunk.
    fn bloom_piece(&self, chunks: u64, request: u64) -> Option<Range<u64>> {
        let whole = self.layout.bloom_range();
        let start = whole.start + chunks * BLOOM_CHUNK;
        let most = (request / BLOOM_CHUNK).max(1).saturating_mul(BLOOM_CHUNK);
        (start < whole.end).then(|| start..start.saturating_add(most).min(whole.end))
    }

    /// Adds the checked lines of `bytes`, which begin with chunk `chunk`, to `bloom`; gives how many chunks they were.
    fn push_chunks(&self, chunk: u64, bytes: &[u8], bloom: &mut Bloom) -> Result<u64> {
        let mut next = chunk;
        for bytes in bytes.chunks(BLOOM_CHUNK as usize) {
            let range = self.bloom_piece(next, BLOOM_CHUNK).unwrap_or(0..0);
            self.check(
                bytes,
                &range,
                self.bloom_sums.get(next as usize),
                format_args!("MiB {next} of the filter"),
            )?;
            if !bloom.push_bytes(bytes) {
                return Err(self.corrupt("its filter is not made of whole lines"));
            }
            next += 1;
        }
        Ok(next - chunk)
    }

    fn check(
        &self,
        bytes: &[u8],
        range: &Range<u64>,
        sum: Option<&u64>,
        what: std::fmt::Arguments<'_>,
    ) -> Result<()> {
        if bytes.is_empty() || bytes.len() as u64 != range.end - range.start {
            return Err(self.corrupt(format_args!("{what} has {} bytes", bytes.len())));
        }
        if sum != Some(&xxh3_64(bytes)) {
            return Err(self.corrupt(format_args!("the checksum of {what} does not match")));
        }
        Ok(())
    }

    pub(crate) fn corrupt(&self, reason: impl std::fmt::Display) -> Error {
        Error::corrupt(&*self.object, reason)
    }
}

/// A filter on its way into memory.
#[derive(Debug)]
pub struct BloomLoad<'a> {
    meta: &'a RunMeta,
    bloom: Bloom,
    chunks: u64,
}

impl BloomLoad<'_> {
    /// The next bytes to fetch, at most `request` (but never less than a MiB); `None` when all are there.
    pub fn wants(&self, request: u64) -> Option<Range<u64>> {
        self.meta.bloom_piece(self.chunks, request)
    }

    /// Adds the bytes that [`Self::wants`] asked for.
    pub fn push(&mut self, bytes: &[u8]) -> Result<()> {
        self.chunks += self.meta.push_chunks(self.chunks, bytes, &mut self.bloom)?;
        Ok(())
    }

    /// The filter, once all bytes are there.
    pub fn finish(self) -> Result<Bloom> {
        if self.chunks != self.meta.layout.bloom_chunks() {
            return Err(self.meta.corrupt("its filter is incomplete"));
        }
        Ok(self.bloom)
    }
}

/// A filter that is probed while it passes by.
#[derive(Debug)]
pub struct BloomScan<'a> {
    meta: &'a RunMeta,
    shape: Shape,
    chunks: u64,
}

impl BloomScan<'_> {
    /// The next bytes to fetch, at most `request` (but never less than a MiB); `None` when all have passed by.
    pub fn wants(&self, request: u64) -> Option<Range<u64>> {
        self.meta.bloom_piece(self.chunks, request)
    }

    /// Takes the bytes that [`Self::wants`] asked for and appends to `survivors` the positions of those of the
    /// ascending `tokens` that may be in the run, as far as these bytes decide. `tokens` are the same at each call.
    pub fn probe(&mut self, bytes: &[u8], tokens: &[Token], survivors: &mut Vec<u32>) -> Result<()> {
        let mut piece = Bloom::piece(self.shape);
        let from = self.chunks * (BLOOM_CHUNK / LINE_BYTES);
        self.chunks += self.meta.push_chunks(self.chunks, bytes, &mut piece)?;
        piece.probe_piece(from, tokens, survivors);
        Ok(())
    }
}

/// The fields of a footer, not yet believed.
struct Footer {
    width: u32,
    count: u64,
    lines: u64,
    serves: (u64, u64),
    min: Token,
    max: Token,
    sum: u128,
    checksum: u64,
}

impl Footer {
    fn parse(bytes: &[u8; FOOTER_BYTES as usize]) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        let version = u32::from_le_bytes(fields.next());
        let footer = Self {
            width: u32::from_le_bytes(fields.next()),
            count: u64::from_le_bytes(fields.next()),
            lines: u64::from_le_bytes(fields.next()),
            serves: (u64::from_be_bytes(fields.next()), u64::from_be_bytes(fields.next())),
            min: Token(u128::from_be_bytes(fields.next())),
            max: Token(u128::from_be_bytes(fields.next())),
            sum: u128::from_be_bytes(fields.next()),
            checksum: u64::from_le_bytes(fields.next()),
        };
        if fields.next() != MAGIC {
            return Err("it does not end as a token run does".to_owned());
        }
        if version != RUN_VERSION {
            return Err(format!(
                "it is a token run of format version {version}; this program reads version {RUN_VERSION}"
            ));
        }
        Ok(footer)
    }
}

/// Takes fixed-size fields off the front; zeros beyond the end.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn next<const N: usize>(&mut self) -> [u8; N] {
        match self.0.split_first_chunk::<N>() {
            Some((field, rest)) => {
                self.0 = rest;
                *field
            }
            None => [0; N],
        }
    }
}
