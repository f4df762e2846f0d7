//! Reads a run without I/O: says which bytes it needs, checks them, and answers from them.
//!
//! The bytes may be anything. All sizes are checked against the size of the object before they are used, and
//! nothing is allocated beyond what is at hand or what the object's size bears out.

use super::block::{self, Maybe, Shape};
use super::layout::{FOOTER_BYTES, HEADER_BYTES, Layout, blocks, directory_bytes};
use super::{MAGIC, RUN_VERSION, RunSummary};
use crate::error::{Error, Result};
use crate::index::{gallop, top};
use crate::token::{Token, TokenSum};
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_64;

/// Directory and footer of a run.
#[derive(Debug, Clone)]
pub struct RunMeta {
    object: Arc<str>,
    layout: Layout,
    summary: RunSummary,
    commits: Option<RangeInclusive<u64>>,
    firsts: Vec<u64>,
    sums: Vec<u64>,
    commit_sums: Vec<u64>,
}

impl RunMeta {
    /// The end of an object of `size` bytes and `count` tokens: what [`Self::parse`] needs.
    pub fn tail(size: u64, count: u64) -> Range<u64> {
        // Not more than there can be, whatever the count.
        let most = directory_bytes(count.min(size), true) + FOOTER_BYTES;
        size.saturating_sub(most)..size
    }

    /// Reads directory and footer of `object`, which has `size` bytes and ends with `end`.
    pub fn parse(object: &str, size: u64, end: &[u8]) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt(object, reason);
        if size < HEADER_BYTES + FOOTER_BYTES {
            return Err(corrupt("too short for a token run"));
        }
        let Some((directory, footer)) = end.split_last_chunk::<{ FOOTER_BYTES as usize }>() else {
            return Err(corrupt("its footer is incomplete"));
        };
        let footer = Footer::parse(footer).map_err(|reason| corrupt(&reason))?;
        // A token takes a byte at least.
        if footer.count > size {
            return Err(corrupt("its footer counts more tokens than it has room for"));
        }
        let wanted = directory_bytes(footer.count, footer.commit_bits() > 0);
        let Some(skipped) = (directory.len() as u64).checked_sub(wanted) else {
            return Err(corrupt("its directory is longer than its count bears out"));
        };
        let directory = directory.get(skipped as usize..).unwrap_or_default();
        let covered = end.get(skipped as usize..end.len().saturating_sub(16)).unwrap_or_default();
        if xxh3_64(covered) != footer.checksum {
            return Err(corrupt("the checksum of its footer does not match"));
        }
        Self::assemble(object, size, &footer, directory)
    }

    fn assemble(object: &str, size: u64, footer: &Footer, directory: &[u8]) -> Result<Self> {
        let corrupt = |reason: &str| Error::corrupt(object, reason);
        let blocks = blocks(footer.count) as usize;
        let (firsts, rest) = directory.split_at_checked(blocks * 8).unwrap_or_default();
        let (sums, rest) = rest.split_at_checked(blocks * 8).unwrap_or_default();
        let (widths, rest) = rest.split_at_checked(blocks).unwrap_or_default();
        let (words, commit_sums) = rest.split_at_checked(blocks).unwrap_or_default();
        let shapes = widths.iter().copied().zip(words.iter().copied()).collect();
        let layout = Layout::new(footer.count, footer.commit_bits(), shapes)
            .filter(|layout| layout.bytes() == size)
            .ok_or_else(|| corrupt("its size is not the one its directory implies"))?;
        let numbers = |bytes: &[u8]| bytes.as_chunks().0.iter().copied().map(u64::from_le_bytes).collect();
        let firsts: Vec<u64> = firsts.as_chunks().0.iter().copied().map(u64::from_be_bytes).collect();
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
        let summary = RunSummary {
            tokens: TokenSum { count: footer.count, sum: footer.sum },
            min: footer.min,
            max: footer.max,
            bytes: size,
            checksum: footer.checksum,
        };
        let (sums, commit_sums) = (numbers(sums), numbers(commit_sums));
        let commits = footer.commits();
        Ok(Self { object: object.into(), layout, summary, commits, firsts, sums, commit_sums })
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

    /// The lowest and the highest commit, if each token stands with its own.
    pub fn commits(&self) -> Option<RangeInclusive<u64>> {
        self.commits.clone()
    }

    /// Bytes of memory it holds.
    pub fn memory(&self) -> usize {
        let words = 3 * self.firsts.len() + self.sums.len() + self.commit_sums.len();
        words * size_of::<u64>() + 2 * self.firsts.len() + size_of::<Self>() + self.object.len()
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

    /// Fails unless `bytes`, those of [`Layout::prefix_range`], are the prefixes of the block.
    pub fn check_prefixes(&self, block: u64, bytes: &[u8]) -> Result<()> {
        let (range, sum) = (self.layout.prefix_range(block), self.sums.get(block as usize));
        self.check(bytes, &range, sum, format_args!("the prefixes of block {block}"))
    }

    /// Where each of the ascending `tokens` (the first is at position `from` of the batch) may stand in a block, by its
    /// checked prefixes.
    pub(crate) fn probe(
        &self,
        block: u64,
        prefixes: &[u8],
        tokens: &[Token],
        from: u32,
        found: &mut Vec<Maybe>,
    ) -> Result<()> {
        self.shape(block)?.probe(self.base(block)?, prefixes, tokens, from, found);
        Ok(())
    }

    /// Where some slices of a block lie in the object.
    pub(crate) fn slice_range(&self, block: u64, slices: Range<u64>) -> Result<Range<u64>> {
        let (start, within) = (self.layout.suffix_range(block).start, self.shape(block)?.slice_bytes(slices));
        Ok(start + within.start..start + within.end)
    }

    /// Fails unless `bytes` are those of the slice.
    pub(crate) fn check_slice(&self, block: u64, slice: u64, prefixes: &[u8], bytes: &[u8]) -> Result<()> {
        if self.shape(block)?.check_slice(slice, prefixes, bytes) {
            return Ok(());
        }
        Err(self.corrupt(format_args!("the checksum of slice {slice} of block {block} does not match")))
    }

    /// The place of `token` in a block, one of those of `maybe`, by the checked suffixes from `slice` on.
    pub(crate) fn find(
        &self,
        block: u64,
        token: Token,
        maybe: &Maybe,
        slice: u64,
        bytes: &[u8],
    ) -> Result<Option<u16>> {
        Ok(self.shape(block)?.find(self.base(block)?, token, maybe, slice, bytes))
    }

    /// Appends the tokens of a block, from the bytes of [`Layout::prefix_range`] and [`Layout::suffix_range`]:
    /// checksums, order and bounds checked.
    pub fn decode_block(
        &self,
        block: u64,
        prefixes: &[u8],
        suffixes: &[u8],
        tokens: &mut Vec<Token>,
    ) -> Result<()> {
        self.check_prefixes(block, prefixes)?;
        let (shape, base, start) = (self.shape(block)?, self.base(block)?, tokens.len());
        for slice in 0..shape.slices() {
            let range = shape.slice_bytes(slice..slice + 1);
            let bytes = suffixes.get(range.start as usize..range.end as usize).unwrap_or_default();
            self.check_slice(block, slice, prefixes, bytes)?;
        }
        let ascends = shape.decode(base, prefixes, suffixes, tokens);
        let next = self.firsts.get(block as usize + 1).copied().unwrap_or(u64::MAX);
        let (first, last) = (tokens.get(start), tokens.last());
        let sound = ascends
            && first.map(|token| u128::from(top(*token)) << 64) == Some(base)
            && first.is_some_and(|token| *token >= self.summary.min)
            && last.is_some_and(|token| *token <= self.summary.max && top(*token) <= next);
        if !sound {
            return Err(self.corrupt(format_args!("the tokens of block {block} contradict its directory")));
        }
        Ok(())
    }

    /// The commits of a block, from the bytes of [`Layout::commit_range`]; empty in a run without commits.
    pub fn decode_commits(&self, block: u64, bytes: &[u8]) -> Result<Vec<u64>> {
        let range = self.layout.commit_range(block);
        let Some(commits) = &self.commits else { return Ok(Vec::new()) };
        let (bits, count) = (self.layout.commit_bits(), self.layout.block_tokens(block) as usize);
        if bits > 0 {
            self.check(
                bytes,
                &range,
                self.commit_sums.get(block as usize),
                format_args!("the commits of block {block}"),
            )?;
        }
        let commit = |at: usize| {
            commits.start().saturating_add(block::packed(bytes, at * bits as usize, bits as u8) as u64)
        };
        let decoded: Vec<u64> = (0..count).map(commit).collect();
        if decoded.iter().any(|commit| commit > commits.end()) {
            return Err(self.corrupt(format_args!("a commit of block {block} is above the highest")));
        }
        Ok(decoded)
    }

    fn shape(&self, block: u64) -> Result<Shape> {
        self.layout.shape(block).ok_or_else(|| self.corrupt(format_args!("it has no block {block}")))
    }

    fn base(&self, block: u64) -> Result<u128> {
        let first = self.firsts.get(block as usize);
        first
            .map(|first| block::base(*first))
            .ok_or_else(|| self.corrupt(format_args!("it has no block {block}")))
    }

    fn check(
        &self,
        bytes: &[u8],
        range: &Range<u64>,
        sum: Option<&u64>,
        what: std::fmt::Arguments<'_>,
    ) -> Result<()> {
        if bytes.is_empty() || bytes.len() as u64 != range.end - range.start {
            return Err(self.corrupt(format_args!("{} bytes came for {what}", bytes.len())));
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

/// The bits that tell these commits apart.
pub(super) fn commit_bits(commits: Option<&RangeInclusive<u64>>) -> u32 {
    commits.map_or(0, |commits| 64 - commits.end().saturating_sub(*commits.start()).leading_zeros())
}

/// The fields of a footer, not yet believed.
struct Footer {
    count: u64,
    lowest: u64,
    highest: u64,
    min: Token,
    max: Token,
    sum: u128,
    checksum: u64,
}

impl Footer {
    fn parse(bytes: &[u8; FOOTER_BYTES as usize]) -> Result<Self, String> {
        let mut fields = Fields(bytes);
        let version = u32::from_le_bytes(fields.next());
        let reserved = u32::from_le_bytes(fields.next());
        let footer = Self {
            count: u64::from_le_bytes(fields.next()),
            lowest: u64::from_le_bytes(fields.next()),
            highest: u64::from_le_bytes(fields.next()),
            min: Token(u128::from_be_bytes(fields.next())),
            max: Token(u128::from_be_bytes(fields.next())),
            sum: u128::from_be_bytes(fields.next()),
            checksum: u64::from_le_bytes(fields.next()),
        };
        if fields.next() != MAGIC {
            return Err("it does not end as a token run does".to_owned());
        }
        if version != RUN_VERSION || reserved != 0 {
            return Err(format!(
                "it is a token run of format version {version}; this program reads version {RUN_VERSION}"
            ));
        }
        Ok(footer)
    }

    fn commits(&self) -> Option<RangeInclusive<u64>> {
        (self.lowest <= self.highest).then_some(self.lowest..=self.highest)
    }

    fn commit_bits(&self) -> u32 {
        commit_bits(self.commits().as_ref())
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
