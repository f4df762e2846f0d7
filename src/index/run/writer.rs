//! Writes a run in one pass, in bounded memory whatever its size.
//!
//! It holds one block, the prefixes and commits of one group (some MiB), and 18 to 26 bytes of directory for each
//! block. Nothing is written out of order, so any sink of bytes will do, and nothing need be known of a run before.

use super::block::{self, BLOCK_TOKENS};
use super::layout::{GROUP_BLOCKS, Layout};
use super::{MAGIC, RUN_VERSION, RunSummary, meta};
use crate::error::{Error, Result};
use crate::index::top;
use crate::token::{Token, TokenSum};
use std::io::Write;
use std::ops::RangeInclusive;
use xxhash_rust::xxh3::xxh3_64;

/// Writes one run into `W`.
#[derive(Debug)]
pub struct RunWriter<W> {
    name: String,
    out: W,
    /// The lowest and highest commit, if each token is to be stored with its own.
    commits: Option<RangeInclusive<u64>>,
    /// Tokens and commits of the block under way.
    block: Vec<Token>,
    block_commits: Vec<u64>,
    /// Prefixes and commits of the group under way, and its blocks so far.
    prefixes: Vec<u8>,
    packed_commits: Vec<u8>,
    /// Of each block so far.
    firsts: Vec<u64>,
    sums: Vec<u64>,
    shapes: Vec<(u8, u8)>,
    commit_sums: Vec<u64>,
    tokens: TokenSum,
    min: Token,
    max: Token,
    begun: bool,
}

impl<W: Write> RunWriter<W> {
    /// Begins the run `name` (for messages only). `commits`: the lowest and the highest commit that may come, if each
    /// token is to be stored with its own.
    pub fn new(name: impl Into<String>, out: W, commits: Option<RangeInclusive<u64>>) -> Self {
        Self {
            name: name.into(),
            out,
            commits,
            block: Vec::with_capacity(BLOCK_TOKENS as usize),
            block_commits: Vec::new(),
            prefixes: Vec::new(),
            packed_commits: Vec::new(),
            firsts: Vec::new(),
            sums: Vec::new(),
            shapes: Vec::new(),
            commit_sums: Vec::new(),
            tokens: TokenSum::default(),
            min: Token(u128::MAX),
            max: Token(0),
            begun: false,
        }
    }

    /// Adds the next token of a run without commits. It must be above all before it.
    pub fn push(&mut self, token: Token) -> Result<()> {
        if self.commits.is_some() {
            return Err(self.misuse("a token without its commit"));
        }
        self.add(token)
    }

    /// Adds the next token and the ledger version that accepted it.
    pub fn push_with_commit(&mut self, token: Token, commit: u64) -> Result<()> {
        if !self.commits.as_ref().is_some_and(|commits| commits.contains(&commit)) {
            return Err(self.misuse(format_args!("commit {commit}, which was not announced")));
        }
        self.block_commits.push(commit);
        self.add(token)
    }

    /// Adds ascending tokens to a run without commits.
    pub fn push_all(&mut self, tokens: &[Token]) -> Result<()> {
        tokens.iter().try_for_each(|token| self.push(*token))
    }

    /// Where the bytes go. A caller that takes them from here between calls keeps memory bounded.
    pub fn sink(&mut self) -> &mut W {
        &mut self.out
    }

    /// Bytes of memory it holds, without its sink.
    pub fn memory(&self) -> usize {
        let words = self.firsts.capacity() + self.sums.capacity() + self.commit_sums.capacity();
        self.block.capacity() * size_of::<Token>()
            + self.prefixes.capacity()
            + self.packed_commits.capacity()
            + (words + self.block_commits.capacity()) * size_of::<u64>()
            + self.shapes.capacity() * 2
    }

    /// Writes all that is left and gives what the ledger must say about the run, and the sink.
    pub fn finish(mut self) -> Result<(RunSummary, W)> {
        Ok((self.complete()?, self.out))
    }

    /// As [`Self::finish`], for those who take the bytes from the sink.
    pub fn complete(&mut self) -> Result<RunSummary> {
        self.begin()?;
        self.end_block()?;
        self.end_group()?;
        self.write_tail()
    }

    fn add(&mut self, token: Token) -> Result<()> {
        if self.tokens.count > 0 && token <= self.max {
            return Err(self.misuse(format_args!("token {token} after {}: they must ascend", self.max)));
        }
        if self.tokens.count == 0 {
            self.begin()?;
            self.min = token;
        }
        self.max = token;
        self.tokens = self.tokens.plus(TokenSum { count: 1, sum: token.0 });
        self.block.push(token);
        if self.block.len() as u64 >= BLOCK_TOKENS {
            self.end_block()?;
            if (self.sums.len() as u64).is_multiple_of(GROUP_BLOCKS) {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&RUN_VERSION.to_le_bytes());
        header.extend_from_slice(&0u32.to_le_bytes());
        self.write(&header)
    }

    fn end_block(&mut self) -> Result<()> {
        let Some(first) = self.block.first() else { return Ok(()) };
        self.firsts.push(top(*first));
        let (start, mut suffixes) = (self.prefixes.len(), Vec::new());
        let shape = block::encode(&self.block, &mut self.prefixes, &mut suffixes);
        self.shapes.push((shape.width, shape.words));
        self.sums.push(xxh3_64(self.prefixes.get(start..).unwrap_or_default()));
        self.block.clear();
        let bits = meta::commit_bits(self.commits.as_ref());
        if let Some(commits) = &self.commits
            && bits > 0
        {
            let start = self.packed_commits.len();
            pack(
                self.block_commits.iter().map(|commit| commit - commits.start()),
                bits,
                &mut self.packed_commits,
            );
            self.commit_sums.push(xxh3_64(self.packed_commits.get(start..).unwrap_or_default()));
        }
        self.block_commits.clear();
        self.write(&suffixes)
    }

    fn end_group(&mut self) -> Result<()> {
        for mut column in [std::mem::take(&mut self.prefixes), std::mem::take(&mut self.packed_commits)] {
            self.write(&column)?;
            column.clear();
        }
        Ok(())
    }

    fn write_tail(&mut self) -> Result<RunSummary> {
        let bits = meta::commit_bits(self.commits.as_ref());
        let mut tail: Vec<u8> = self.firsts.iter().flat_map(|first| first.to_be_bytes()).collect();
        tail.extend(self.sums.iter().flat_map(|sum| sum.to_le_bytes()));
        tail.extend(self.shapes.iter().map(|(width, _)| *width));
        tail.extend(self.shapes.iter().map(|(_, words)| *words));
        tail.extend(self.commit_sums.iter().flat_map(|sum| sum.to_le_bytes()));
        let layout = Layout::new(self.tokens.count, bits, std::mem::take(&mut self.shapes))
            .ok_or_else(|| self.misuse("more tokens than a file can hold"))?;
        tail.extend_from_slice(&RUN_VERSION.to_le_bytes());
        tail.extend_from_slice(&0u32.to_le_bytes());
        tail.extend_from_slice(&self.tokens.count.to_le_bytes());
        let (lowest, highest) = self.commits.as_ref().map_or((1, 0), |range| (*range.start(), *range.end()));
        tail.extend_from_slice(&lowest.to_le_bytes());
        tail.extend_from_slice(&highest.to_le_bytes());
        tail.extend_from_slice(&self.min.0.to_be_bytes());
        tail.extend_from_slice(&self.max.0.to_be_bytes());
        tail.extend_from_slice(&self.tokens.sum.to_be_bytes());
        let checksum = xxh3_64(&tail);
        tail.extend_from_slice(&checksum.to_le_bytes());
        tail.extend_from_slice(&MAGIC);
        self.write(&tail)?;
        self.out.flush().map_err(|e| Error::store("write", &self.name, e))?;
        let (min, max) = (self.min, self.max);
        Ok(RunSummary { tokens: self.tokens, min, max, bytes: layout.bytes(), checksum })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).map_err(|e| Error::store("write", &self.name, e))
    }

    fn misuse(&self, what: impl std::fmt::Display) -> Error {
        Error::Internal(format!("token run {} was given {what}", self.name))
    }
}

/// Appends numbers of `bits` bits each, bit-packed.
fn pack(numbers: impl Iterator<Item = u64>, bits: u32, bytes: &mut Vec<u8>) {
    let (mut held, mut fill) = (0u128, 0u32);
    for number in numbers {
        held |= u128::from(number) << fill;
        fill += bits;
        let whole = fill / 8;
        bytes.extend(held.to_le_bytes().iter().take(whole as usize));
        held >>= whole * 8;
        fill %= 8;
    }
    if fill > 0 {
        bytes.push(held as u8);
    }
}
