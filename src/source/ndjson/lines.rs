//! Cuts a byte stream into blocks of whole lines.
//!
//! A block holds about as many bytes as asked for, more only if one line needs it; a line over the limit is
//! never held but skipped to its end and reported. How the stream is cut never changes what the lines are.

use super::BadLine;
use std::io::{self, Read};

/// How much of an overlong line is kept.
const KEPT_OF_OVERLONG: usize = 1024;
const BOM: &[u8] = b"\xEF\xBB\xBF";

/// Whole lines of a stream, with their place in it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Block {
    /// The lines, each with its line break (the last of the stream may lack it).
    pub bytes: Vec<u8>,
    /// The number of the first line, from 1.
    pub first_line: u64,
    /// Where the first line begins in the decompressed stream, in bytes.
    pub offset: u64,
    /// Lines over the limit that followed directly after `bytes`.
    pub overlong: Vec<BadLine>,
}

/// One line of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its number in the stream, from 1.
    pub number: u64,
    /// Where it begins in the decompressed stream, in bytes.
    pub offset: u64,
    /// The line without its line break.
    pub bytes: &'a [u8],
}

impl Block {
    /// The same lines in blocks of at most `lines` lines (blank ones included).
    pub fn split(mut self, lines: usize) -> Vec<Self> {
        let mut blocks = Vec::new();
        loop {
            let nth = memchr::memchr_iter(b'\n', &self.bytes).nth(lines.max(1) - 1);
            let Some(end) = nth.map(|at| at + 1).filter(|end| *end < self.bytes.len()) else {
                blocks.push(self);
                return blocks;
            };
            let rest = self.bytes.split_off(end);
            let (first_line, offset) = (self.first_line + lines.max(1) as u64, self.offset + end as u64);
            let overlong = std::mem::take(&mut self.overlong);
            blocks.push(std::mem::replace(&mut self, Self { bytes: rest, first_line, offset, overlong }));
        }
    }

    /// The lines that are not blank, in order.
    pub fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let (mut start, mut number) = (0, self.first_line);
        std::iter::from_fn(move || {
            let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
            let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
            let bytes = without_return(rest.get(..end)?);
            let line = Line { number, offset: self.offset + start as u64, bytes };
            start += end + 1;
            number += 1;
            Some(line)
        })
        .filter(|line| !line.bytes.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r')))
    }
}

/// Reads blocks from a stream that is already decompressed.
#[derive(Debug)]
pub struct Lines<R> {
    reader: R,
    block_bytes: usize,
    max_line: usize,
    /// Bytes read and not yet given out; they begin at a line's start.
    buffer: Vec<u8>,
    /// How much of `buffer` is known to hold no line break.
    searched: usize,
    line: u64,
    offset: u64,
    at_start: bool,
    at_end: bool,
}

impl<R: Read> Lines<R> {
    /// Blocks of about `block_bytes`, lines of at most `max_line` bytes.
    pub fn new(reader: R, block_bytes: usize, max_line: usize) -> Self {
        Self {
            reader,
            block_bytes: block_bytes.max(1),
            max_line,
            buffer: Vec::new(),
            searched: 0,
            line: 1,
            offset: 0,
            at_start: true,
            at_end: false,
        }
    }

    /// The next block, or `None` at the end of the stream.
    pub fn next_block(&mut self) -> io::Result<Option<Block>> {
        loop {
            self.fill(self.block_bytes.max(self.searched + self.block_bytes))?;
            if self.at_end {
                let all = self.buffer.len();
                return Ok((all > 0).then(|| self.cut(all)));
            }
            let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(at) = memchr::memrchr(b'\n', unsearched) {
                return Ok(Some(self.cut(self.searched + at + 1)));
            }
            self.searched = self.buffer.len();
            // One byte may be the `\r` of a line break.
            if self.buffer.len() > self.max_line.max(KEPT_OF_OVERLONG).saturating_add(1) {
                let overlong = self.skip_line()?;
                return Ok(Some(Block {
                    first_line: overlong.line,
                    offset: overlong.offset,
                    overlong: vec![overlong],
                    bytes: Vec::new(),
                }));
            }
        }
    }

    /// Gives out the first `end` bytes, or those before the first overlong line together with that line.
    fn cut(&mut self, end: usize) -> Block {
        let mut block = Block { first_line: self.line, offset: self.offset, ..Block::default() };
        let (mut start, mut next) = (0, end);
        if end > self.max_line {
            let lines = self.buffer.get(..end).unwrap_or_default();
            for stop in memchr::memchr_iter(b'\n', lines).map(|at| at + 1).chain([end]) {
                let line = without_break(lines.get(start..stop).unwrap_or_default());
                if line.len() > self.max_line {
                    next = stop;
                    block.overlong.push(overlong(self.line, self.offset + start as u64, line, self.max_line));
                    break;
                }
                self.line += u64::from(stop > start);
                start = stop;
            }
        } else {
            self.line +=
                memchr::memchr_iter(b'\n', self.buffer.get(..end).unwrap_or_default()).count() as u64;
            start = end;
        }
        self.line += block.overlong.len() as u64;
        self.offset += next as u64;
        let rest = self.buffer.get(next..).unwrap_or_default().to_vec();
        block.bytes = std::mem::replace(&mut self.buffer, rest);
        block.bytes.truncate(start);
        self.searched = 0;
        block
    }

    /// Drops the line that `buffer` begins with, reading on to its end.
    fn skip_line(&mut self) -> io::Result<BadLine> {
        let start = self.buffer.get(..KEPT_OF_OVERLONG).unwrap_or(&self.buffer);
        let bad = overlong(self.line, self.offset, start, self.max_line);
        loop {
            let found = memchr::memchr(b'\n', &self.buffer);
            let gone = found.map_or(self.buffer.len(), |at| at + 1);
            self.buffer.drain(..gone);
            self.offset += gone as u64;
            if found.is_some() || self.at_end {
                break;
            }
            self.fill(self.block_bytes)?;
        }
        self.searched = 0;
        self.line += 1;
        Ok(bad)
    }

    /// Reads until `buffer` holds `wanted` bytes or the stream ends.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        while !self.at_end && (self.buffer.len() < wanted || self.at_start) {
            // The byte order mark must be seen whole.
            let wanted = if self.at_start { wanted.max(BOM.len()) } else { wanted };
            let missing = wanted.saturating_sub(self.buffer.len());
            self.buffer.reserve_exact(missing);
            let read = self.reader.by_ref().take(missing as u64).read_to_end(&mut self.buffer)?;
            self.at_end = read < missing;
            if self.at_start && self.buffer.starts_with(BOM) {
                self.buffer.drain(..BOM.len());
                self.offset = BOM.len() as u64;
            }
            self.at_start = false;
        }
        Ok(())
    }
}

fn overlong(line: u64, offset: u64, start: &[u8], max_line: usize) -> BadLine {
    let raw = start.get(..KEPT_OF_OVERLONG).unwrap_or(start).to_vec();
    let reason = format!("the line is longer than {max_line} bytes; only its beginning is kept");
    BadLine { line, offset, reason, raw }
}

fn without_break(line: &[u8]) -> &[u8] {
    without_return(line.strip_suffix(b"\n").unwrap_or(line))
}

fn without_return(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_splits_into_blocks_of_few_lines_that_say_the_same() {
        let text = b"{}\n\n{\"a\":1}\n{}\n{\"b\":2}";
        let whole = Lines::new(&text[..], 1 << 20, 1 << 20).next_block().unwrap().unwrap();
        let said = |block: &Block| -> Vec<(u64, u64, Vec<u8>)> {
            block.lines().map(|line| (line.number, line.offset, line.bytes.to_vec())).collect()
        };
        for lines in 1..7 {
            let parts = whole.clone().split(lines);
            assert_eq!(parts.iter().flat_map(said).collect::<Vec<_>>(), said(&whole), "{lines} lines");
            assert!(parts.iter().all(|part| part.bytes.split_inclusive(|b| *b == b'\n').count() <= lines));
        }
    }
    use proptest::prelude::*;

    type Seen = Vec<(u64, u64, Vec<u8>)>;

    /// The lines and the overlong ones, read through blocks.
    fn read(input: &[u8], block: usize, max_line: usize) -> (Seen, Seen) {
        let mut lines = Lines::new(input, block, max_line);
        let (mut good, mut bad) = (vec![], vec![]);
        while let Some(block) = lines.next_block().unwrap() {
            assert!(!block.bytes.is_empty() || !block.overlong.is_empty());
            good.extend(block.lines().map(|l| (l.number, l.offset, l.bytes.to_vec())));
            bad.extend(block.overlong.into_iter().map(|b| (b.line, b.offset, b.raw)));
        }
        (good, bad)
    }

    /// The same, with the plainest means.
    fn expected(input: &[u8], max_line: usize) -> (Seen, Seen) {
        let start = if input.starts_with(BOM) { 3 } else { 0 };
        let (mut good, mut bad, mut offset) = (vec![], vec![], start);
        for (i, line) in input[start..].split(|b| *b == b'\n').enumerate() {
            let bytes = line.strip_suffix(b"\r").unwrap_or(line);
            let seen = (i as u64 + 1, offset as u64, bytes[..bytes.len().min(1024)].to_vec());
            if bytes.len() > max_line {
                bad.push(seen);
            } else if !bytes.iter().all(|b| b" \t\r".contains(b)) {
                good.push(seen);
            }
            offset += line.len() + 1;
        }
        (good, bad)
    }

    #[test]
    fn the_byte_order_mark_blank_lines_returns_and_a_missing_last_break_are_understood() {
        let (lines, bad) = read(b"\xEF\xBB\xBF{}\r\n\r\n  \n[1]\r\n{\"a\":1}", 4096, 100);
        assert_eq!(
            lines,
            vec![(1, 3, b"{}".to_vec()), (4, 12, b"[1]".to_vec()), (5, 17, b"{\"a\":1}".to_vec())]
        );
        assert!(bad.is_empty());
    }

    #[test]
    fn an_overlong_line_is_reported_with_its_first_kib_and_never_held() {
        let mut input = b"{}\n".to_vec();
        input.extend(std::iter::repeat_n(b'x', 1 << 20));
        input.extend(b"\n{\"a\":1}\n");
        let mut lines = Lines::new(&input[..], 4096, 10_000);
        let mut seen = vec![];
        while let Some(block) = lines.next_block().unwrap() {
            assert!(lines.buffer.capacity() < 64 << 10);
            seen.extend(block.overlong);
        }
        assert_eq!(seen.len(), 1);
        assert_eq!((seen[0].line, seen[0].offset, seen[0].raw.len()), (2, 3, 1024));
        assert_eq!(lines.line, 4);
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_stream_is_cut(
            pieces in prop::collection::vec(prop::sample::select(vec![
                &b"\n"[..], b"\r\n", b"\r", b" ", b"a", b"bcd", b"0123456789", b"\xEF\xBB\xBF", b"\xFF",
            ]), 0..60),
            block in 1usize..50,
            max_line in 0usize..30,
        ) {
            let input = pieces.concat();
            prop_assert_eq!(read(&input, block, max_line), expected(&input, max_line));
        }
    }
}
