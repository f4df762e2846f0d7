//! Where each part of a run lies: all offsets follow from three numbers, checked once against overflow.

use crate::index::bloom::LINE_BYTES;
use std::ops::Range;

/// Tokens of a block, the unit that is fetched, checked and decoded.
pub const BLOCK_TOKENS: u64 = 4096;
/// Bytes of a full block.
pub const BLOCK_BYTES: u64 = BLOCK_TOKENS * TOKEN_BYTES;
/// Bytes of the filter under one checksum.
pub const BLOOM_CHUNK: u64 = 1 << 20;
/// Bytes of the header.
pub const HEADER_BYTES: u64 = 16;
/// Bytes of the footer.
pub const FOOTER_BYTES: u64 = 104;

pub(crate) const TOKEN_BYTES: u64 = 16;
pub(crate) const GROUP_BLOCKS: u64 = 64;
const GROUP_TOKENS: u64 = GROUP_BLOCKS * BLOCK_TOKENS;

/// The geometry of one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    count: u64,
    width: u64,
    lines: u64,
}

impl Layout {
    /// The layout of `count` tokens, with commits of `width` bytes (0, 4 or 8) and a filter of `lines` lines.
    /// `None` if there is no such width or no such size of a file.
    pub fn new(count: u64, width: u32, lines: u64) -> Option<Self> {
        let layout = Self { count, width: u64::from(width), lines };
        // Far below 2^64, so that no sum or product below can overflow.
        let size = u128::from(count) * 48 + u128::from(lines) * 48;
        (matches!(width, 0 | 4 | 8) && size < 1 << 62).then_some(layout)
    }

    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of one commit; 0 if there is no such column.
    pub fn commit_width(&self) -> u64 {
        self.width
    }

    /// Number of lines of the filter; 0 if there is none.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.count.div_ceil(BLOCK_TOKENS)
    }

    /// Number of tokens in a block.
    pub fn block_tokens(&self, block: u64) -> u64 {
        self.count.saturating_sub(block.saturating_mul(BLOCK_TOKENS)).min(BLOCK_TOKENS)
    }

    /// Where the tokens of a block lie; empty for a block there is not.
    pub fn block_range(&self, block: u64) -> Range<u64> {
        if block >= self.blocks() {
            return 0..0;
        }
        let start = self.group_start(block) + block % GROUP_BLOCKS * BLOCK_BYTES;
        start..start + self.block_tokens(block) * TOKEN_BYTES
    }

    /// Where the commits of a block lie; empty for a block there is not and in a run without commits.
    pub fn commit_range(&self, block: u64) -> Range<u64> {
        if block >= self.blocks() || self.width == 0 {
            return 0..0;
        }
        let group = block / GROUP_BLOCKS * GROUP_TOKENS;
        let tokens = self.count.saturating_sub(group).min(GROUP_TOKENS);
        let commits = self.group_start(block) + tokens * TOKEN_BYTES;
        let start = commits + block % GROUP_BLOCKS * BLOCK_TOKENS * self.width;
        start..start + self.block_tokens(block) * self.width
    }

    /// Where the filter lies; empty if there is none.
    pub fn bloom_range(&self) -> Range<u64> {
        let start = HEADER_BYTES + self.count * (TOKEN_BYTES + self.width);
        start..start + self.lines * LINE_BYTES
    }

    /// Number of pieces of the filter with a checksum of their own.
    pub fn bloom_chunks(&self) -> u64 {
        (self.lines * LINE_BYTES).div_ceil(BLOOM_CHUNK)
    }

    /// Where directory and footer lie: to the end of the object.
    pub fn tail_range(&self) -> Range<u64> {
        let columns = if self.width == 0 { 2 } else { 3 };
        let start = self.bloom_range().end;
        start..start + (self.blocks() * columns + self.bloom_chunks()) * 8 + FOOTER_BYTES
    }

    /// Size of the object.
    pub fn bytes(&self) -> u64 {
        self.tail_range().end
    }

    fn group_start(&self, block: u64) -> u64 {
        HEADER_BYTES + block / GROUP_BLOCKS * GROUP_TOKENS * (TOKEN_BYTES + self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_tile_the_object_without_gap_or_overlap(
            count in 0u64..2_000_000, width in prop_oneof![Just(0u32), Just(4), Just(8)], lines in 0u64..100_000
        ) {
            let layout = Layout::new(count, width, lines).unwrap();
            let mut parts = vec![0..HEADER_BYTES, layout.bloom_range(), layout.tail_range()];
            for block in 0..layout.blocks() {
                parts.extend([layout.block_range(block), layout.commit_range(block)]);
            }
            parts.retain(|part| !part.is_empty());
            parts.sort_by_key(|part| part.start);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert_eq!(parts.last().unwrap().end, layout.bytes());
        }

        #[test]
        fn no_number_overflows(count in any::<u64>(), width in any::<u32>(), lines in any::<u64>(), block in any::<u64>()) {
            if let Some(layout) = Layout::new(count, width % 9, lines) {
                let ranges = [layout.block_range(block), layout.commit_range(block)];
                prop_assert!(ranges.iter().all(|range| range.end <= layout.bytes()));
            }
        }
    }
}
