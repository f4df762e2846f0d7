//! Writes a run in one pass, in bounded memory whatever its size.
//!
//! It holds the filter (its size is known beforehand), 16 to 24 bytes of directory for each 64 KiB written, one
//! block, and at most 262 144 commits. Nothing is written out of order, so any sink of bytes will do.

use super::layout::{BLOCK_BYTES, BLOCK_TOKENS, BLOOM_CHUNK, GROUP_BLOCKS, Layout};
use super::{MAGIC, RUN_VERSION, RunSummary};
use crate::error::{Error, Result};
use crate::index::bloom::{BITS_PER_TOKEN, Bloom, LINE_BYTES, Shape};
use crate::index::top;
use crate::token::{Token, TokenSum};
use std::io::Write;
use std::ops::RangeInclusive;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// What is known of a run before it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSpec {
    /// How many tokens will come; sizes the filter, nothing else.
    pub expected: u64,
    /// Bits of the filter per token; 0 = no filter.
    pub bits_per_token: u32,
    /// Where the tokens lie; spreads them over the filter. The lowest and highest of all inputs, or everything.
    pub within: RangeInclusive<Token>,
    /// The highest commit that will come, if each token is to be stored with its commit.
    pub highest_commit: Option<u64>,
}

impl RunSpec {
    /// A run of about `expected` tokens from everywhere, with a filter of the usual size and without commits.
    pub fn new(expected: u64) -> Self {
        let within = Token(0)..=Token(u128::MAX);
        Self { expected, bits_per_token: BITS_PER_TOKEN, within, highest_commit: None }
    }

    /// The run of exactly these ascending tokens.
    pub fn of(tokens: &[Token]) -> Self {
        let mut spec = Self::new(tokens.len() as u64);
        if let (Some(min), Some(max)) = (tokens.first(), tokens.last()) {
            spec.within = *min..=*max;
        }
        spec
    }

    /// Bytes of memory that the filter will take.
    pub fn bloom_bytes(&self) -> u64 {
        self.shape().map_or(0, |shape| shape.bytes())
    }

    fn shape(&self) -> Option<Shape> {
        (self.bits_per_token > 0)
            .then(|| Shape::for_tokens(self.expected, self.bits_per_token, &self.within))
            .flatten()
    }

    fn commit_width(&self) -> u32 {
        match self.highest_commit {
            None => 0,
            Some(highest) if u32::try_from(highest).is_ok() => 4,
            Some(_) => 8,
        }
    }
}

/// Writes one run into `W`.
#[derive(Debug)]
pub struct RunWriter<W> {
    name: String,
    out: W,
    width: u32,
    bloom: Option<Bloom>,
    /// Tokens of the block under way.
    block: Vec<u8>,
    /// Commits of the group under way, and how many of their bytes have their checksum.
    commits: Vec<u8>,
    commits_summed: usize,
    firsts: Vec<u64>,
    sums: Vec<u64>,
    commit_sums: Vec<u64>,
    bloom_sums: Vec<u64>,
    tokens: TokenSum,
    min: Token,
    max: Token,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    Tokens,
    Filter,
    Done,
}

impl<W: Write> RunWriter<W> {
    /// Begins the run `name` (for messages only).
    pub fn new(name: impl Into<String>, out: W, spec: &RunSpec) -> Result<Self> {
        let bloom = match spec.bits_per_token {
            0 => None,
            bits => Some(Bloom::new(spec.expected, bits, &spec.within)?),
        };
        Ok(Self {
            name: name.into(),
            out,
            width: spec.commit_width(),
            bloom,
            block: Vec::with_capacity(BLOCK_BYTES as usize),
            commits: Vec::new(),
            commits_summed: 0,
            firsts: Vec::new(),
            sums: Vec::new(),
            commit_sums: Vec::new(),
            bloom_sums: Vec::new(),
            tokens: TokenSum::default(),
            min: Token(u128::MAX),
            max: Token(0),
            stage: Stage::Header,
        })
    }

    /// Adds the next token of a run without commits. It must be above all before it.
    pub fn push(&mut self, token: Token) -> Result<()> {
        if self.width != 0 {
            return Err(self.misuse("a token without its commit"));
        }
        self.add(token)
    }

    /// Adds the next token and the ledger version that accepted it.
    pub fn push_with_commit(&mut self, token: Token, commit: u64) -> Result<()> {
        match (self.width, u32::try_from(commit)) {
            (4, Ok(commit)) => self.commits.extend_from_slice(&commit.to_le_bytes()),
            (8, _) => self.commits.extend_from_slice(&commit.to_le_bytes()),
            _ => return Err(self.misuse(format_args!("commit {commit}, which was not announced"))),
        }
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
        self.bloom.as_ref().map_or(0, Bloom::memory)
            + self.block.capacity()
            + self.commits.capacity()
            + (words + self.bloom_sums.capacity()) * size_of::<u64>()
    }

    /// Writes all that is left and gives what the ledger must say about the run, and the sink.
    pub fn finish(mut self) -> Result<(RunSummary, W)> {
        loop {
            if let Some(summary) = self.finish_step()? {
                return Ok((summary, self.out));
            }
        }
    }

    /// Writes about one MiB of what is left: to be called until it gives the summary.
    pub fn finish_step(&mut self) -> Result<Option<RunSummary>> {
        match self.stage {
            Stage::Header | Stage::Tokens => {
                self.end_block()?;
                self.end_group()?;
                self.stage = Stage::Filter;
                Ok(None)
            }
            Stage::Filter => {
                let lines = (BLOOM_CHUNK / LINE_BYTES) as usize;
                let from = self.bloom_sums.len() * lines;
                match self
                    .bloom
                    .as_ref()
                    .map(|bloom| bloom.bytes(from, lines))
                    .filter(|chunk| !chunk.is_empty())
                {
                    Some(chunk) => {
                        self.bloom_sums.push(xxh3_64(&chunk));
                        self.write(&chunk)?;
                        Ok(None)
                    }
                    None => self.write_tail().map(Some),
                }
            }
            Stage::Done => Err(self.misuse("more after its end")),
        }
    }

    fn add(&mut self, token: Token) -> Result<()> {
        match self.stage {
            Stage::Tokens if token > self.max => {}
            Stage::Header => {
                self.begin()?;
                self.min = token;
            }
            Stage::Tokens => {
                return Err(self.misuse(format_args!("token {token} after {}: they must ascend", self.max)));
            }
            Stage::Filter | Stage::Done => return Err(self.misuse("a token after its end")),
        }
        if self.block.is_empty() {
            self.firsts.push(top(token));
        }
        self.max = token;
        self.tokens = self.tokens.plus(TokenSum { count: 1, sum: token.0 });
        if let Some(bloom) = &mut self.bloom {
            bloom.insert(token);
        }
        self.block.extend_from_slice(&token.0.to_be_bytes());
        if self.block.len() as u64 >= BLOCK_BYTES {
            self.end_block()?;
            if (self.sums.len() as u64).is_multiple_of(GROUP_BLOCKS) {
                self.end_group()?;
            }
        }
        Ok(())
    }

    fn begin(&mut self) -> Result<()> {
        self.stage = Stage::Tokens;
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&RUN_VERSION.to_le_bytes());
        header.extend_from_slice(&0u32.to_le_bytes());
        self.write(&header)
    }

    fn end_block(&mut self) -> Result<()> {
        if self.stage == Stage::Header {
            self.begin()?;
        }
        if self.block.is_empty() {
            return Ok(());
        }
        self.sums.push(xxh3_64(&self.block));
        if self.width != 0 {
            self.commit_sums.push(xxh3_64(self.commits.get(self.commits_summed..).unwrap_or_default()));
            self.commits_summed = self.commits.len();
        }
        let mut block = std::mem::take(&mut self.block);
        self.write(&block)?;
        block.clear();
        self.block = block;
        Ok(())
    }

    fn end_group(&mut self) -> Result<()> {
        let mut commits = std::mem::take(&mut self.commits);
        self.write(&commits)?;
        commits.clear();
        self.commits = commits;
        self.commits_summed = 0;
        Ok(())
    }

    fn write_tail(&mut self) -> Result<RunSummary> {
        let shape = self.bloom.take().map(|bloom| bloom.shape());
        let lines = shape.map_or(0, |shape| shape.lines());
        let (first, last) = shape.map_or((0, 0), |shape| shape.served());
        let layout = Layout::new(self.tokens.count, self.width, lines)
            .ok_or_else(|| self.misuse("more tokens than a file can hold"))?;

        let mut hash = Xxh3::new();
        // Parts of tokens are big-endian.
        self.firsts.iter_mut().for_each(|first| *first = first.swap_bytes());
        let columns = [&mut self.firsts, &mut self.sums, &mut self.commit_sums, &mut self.bloom_sums];
        for column in columns.map(std::mem::take) {
            for words in column.chunks(BLOCK_TOKENS as usize) {
                let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
                hash.update(&bytes);
                self.write(&bytes)?;
            }
        }
        let mut footer = Vec::with_capacity(super::FOOTER_BYTES as usize);
        footer.extend_from_slice(&RUN_VERSION.to_le_bytes());
        footer.extend_from_slice(&self.width.to_le_bytes());
        footer.extend_from_slice(&self.tokens.count.to_le_bytes());
        footer.extend_from_slice(&lines.to_le_bytes());
        footer.extend_from_slice(&first.to_be_bytes());
        footer.extend_from_slice(&last.to_be_bytes());
        footer.extend_from_slice(&self.min.0.to_be_bytes());
        footer.extend_from_slice(&self.max.0.to_be_bytes());
        footer.extend_from_slice(&self.tokens.sum.to_be_bytes());
        hash.update(&footer);
        let checksum = hash.digest();
        footer.extend_from_slice(&checksum.to_le_bytes());
        footer.extend_from_slice(&MAGIC);
        self.write(&footer)?;
        self.out.flush().map_err(|e| Error::store("write", &self.name, e))?;
        self.stage = Stage::Done;
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
