//! Where each part of a run lies: all offsets follow from the count and the shapes of its blocks.

use super::block::{BLOCK_TOKENS, Shape};
use std::ops::Range;

/// Bytes of the header.
pub const HEADER_BYTES: u64 = 16;
/// Bytes of the footer.
pub const FOOTER_BYTES: u64 = 96;

/// Blocks of a group.
pub const GROUP_BLOCKS: u64 = 256;

/// The geometry of one run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    count: u64,
    commit_bits: u32,
    /// Width and words of each block.
    shapes: Vec<(u8, u8)>,
    /// Where the suffixes of each block begin.
    suffixes: Vec<u64>,
    /// Where the prefixes of each block begin.
    prefixes: Vec<u64>,
    /// Where the directory begins.
    end: u64,
}

impl Layout {
    /// The layout of `count` tokens in blocks of these shapes (width, words), with commits of `commit_bits` bits.
    /// `None` if there is no such run.
    pub(super) fn new(count: u64, commit_bits: u32, shapes: Vec<(u8, u8)>) -> Option<Self> {
        if shapes.len() as u64 != blocks(count) || commit_bits > 64 {
            return None;
        }
        let (mut suffixes, mut prefixes) =
            (Vec::with_capacity(shapes.len()), Vec::with_capacity(shapes.len()));
        // A block takes less than 2^20 bytes and is one of at most 2^52, and its shape is at hand: no sum overflows.
        let mut end = HEADER_BYTES;
        let mut layout = Self { count, commit_bits, shapes, suffixes: Vec::new(), prefixes: Vec::new(), end };
        for group in (0..blocks(count)).step_by(GROUP_BLOCKS as usize) {
            let group = group..(group + GROUP_BLOCKS).min(blocks(count));
            for block in group.clone() {
                suffixes.push(end);
                end += layout.shape(block).filter(Shape::is_sound)?.suffix_bytes();
            }
            for block in group.clone() {
                prefixes.push(end);
                end += layout.shape(block)?.prefix_bytes();
            }
            end += group.map(|block| layout.commit_bytes(block)).sum::<u64>();
        }
        (layout.suffixes, layout.prefixes, layout.end) = (suffixes, prefixes, end);
        Some(layout)
    }

    /// Number of tokens.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bits of one commit; 0 if there is no such column.
    pub fn commit_bits(&self) -> u32 {
        self.commit_bits
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        blocks(self.count)
    }

    /// Number of tokens in a block.
    pub fn block_tokens(&self, block: u64) -> u64 {
        self.count.saturating_sub(block.saturating_mul(BLOCK_TOKENS)).min(BLOCK_TOKENS)
    }

    /// How a block is laid out.
    pub fn shape(&self, block: u64) -> Option<Shape> {
        let (width, words) = *self.shapes.get(usize::try_from(block).ok()?)?;
        Some(Shape { count: self.block_tokens(block), width, words })
    }

    /// Where the suffixes of a block lie; empty for a block there is not.
    pub fn suffix_range(&self, block: u64) -> Range<u64> {
        range(&self.suffixes, block, self.shape(block).map(|shape| shape.suffix_bytes()))
    }

    /// Where the prefixes of a block lie; empty for a block there is not.
    pub fn prefix_range(&self, block: u64) -> Range<u64> {
        range(&self.prefixes, block, self.shape(block).map(|shape| shape.prefix_bytes()))
    }

    /// Where the commits of a block lie; empty for a block there is not and in a run without commits.
    pub fn commit_range(&self, block: u64) -> Range<u64> {
        if block >= self.blocks() {
            return 0..0;
        }
        let last = (block / GROUP_BLOCKS * GROUP_BLOCKS + GROUP_BLOCKS).min(self.blocks()) - 1;
        let start =
            self.prefix_range(last).end + block % GROUP_BLOCKS * packed_bytes(BLOCK_TOKENS, self.commit_bits);
        start..start + self.commit_bytes(block)
    }

    /// Where directory and footer lie: to the end of the object.
    pub fn tail_range(&self) -> Range<u64> {
        self.end..self.end + directory_bytes(self.count, self.commit_bits > 0) + FOOTER_BYTES
    }

    /// Size of the object.
    pub fn bytes(&self) -> u64 {
        self.tail_range().end
    }

    fn commit_bytes(&self, block: u64) -> u64 {
        packed_bytes(self.block_tokens(block), self.commit_bits)
    }
}

/// Bytes of the directory of so many tokens.
pub(super) fn directory_bytes(count: u64, commits: bool) -> u64 {
    blocks(count) * if commits { 26 } else { 18 }
}

/// Number of blocks that so many tokens take.
pub(super) fn blocks(count: u64) -> u64 {
    count.div_ceil(BLOCK_TOKENS)
}

fn packed_bytes(count: u64, bits: u32) -> u64 {
    (count * u64::from(bits)).div_ceil(8)
}

fn range(starts: &[u64], block: u64, bytes: Option<u64>) -> Range<u64> {
    let start = usize::try_from(block).ok().and_then(|block| starts.get(block));
    start.zip(bytes).map_or(0..0, |(start, bytes)| *start..*start + bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_parts_tile_the_object_without_gap_or_overlap(
            count in 0u64..3_000_000, bits in 0u32..65, widths in proptest::collection::vec(0u8..120, 1..9), extra in 0u8..100
        ) {
            let words = |block: u64| ((count - block * BLOCK_TOKENS).min(BLOCK_TOKENS).div_ceil(64)) as u8;
            let shapes: Vec<(u8, u8)> = (0..blocks(count)).zip(widths.iter().cycle())
                .map(|(block, width)| (*width, if words(block) == 64 { 64 + extra } else { words(block) })).collect();
            let layout = Layout::new(count, bits, shapes).unwrap();
            let mut parts = vec![0..HEADER_BYTES, layout.tail_range()];
            for block in 0..layout.blocks() {
                parts.extend([layout.suffix_range(block), layout.prefix_range(block), layout.commit_range(block)]);
            }
            parts.retain(|part| !part.is_empty());
            parts.sort_by_key(|part| part.start);
            prop_assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            prop_assert_eq!(parts.last().unwrap().end, layout.bytes());
        }

        #[test]
        fn no_number_overflows(count in any::<u64>(), bits in any::<u32>(), shapes in proptest::collection::vec(any::<(u8, u8)>(), 0..4), block in any::<u64>()) {
            for count in [count, count % 20_000] {
                if let Some(layout) = Layout::new(count, bits % 70, shapes.clone()) {
                    let ranges = [layout.suffix_range(block), layout.prefix_range(block), layout.commit_range(block)];
                    prop_assert!(ranges.iter().all(|range| range.end <= layout.bytes()));
                }
            }
        }
    }
}
