//! Cutting a page that snappy packed without packing it again.
//!
//! Packed, a page is a sequence of elements: literals, and copies of bytes that came before. [`unpack`] unpacks it and
//! notes the copies; [`edit`] drops ranges of bytes from the packed form itself. What neither is dropped nor looks back
//! over something that is stays as it is packed, copies over a drop get another offset, and only what was copied from
//! dropped bytes becomes literals. Thin drops so cost next to nothing; of dense ones the page would grow (see
//! [`is_worth_while`]).
//!
//! The format is that of snappy's `format_description.txt`. Nothing is taken on trust: a page whose elements do not add
//! up is refused while it is unpacked.

use super::hybrid::push_varint;
use super::{Fit, hybrid::varint, unfit};
use std::ops::Range;

/// What encoders take at a time, in bytes before packing: copies seldom look back beyond the beginning of such a block.
const BLOCK: usize = 1 << 16;

/// Bytes that may be written beyond the end of a page: elements are copied in whole words.
const SLACK: usize = 64;

/// How many bytes there should be for each range that is kept.
const LEAST_RANGE: usize = 2048;

/// The furthest that a copy of three bytes looks back.
const FURTHEST: usize = (1 << 16) - 1;

const BROKEN: &str = "a snappy page that cannot be unpacked";

/// A page that was unpacked, with what is needed to edit its packed form. To be used again for its memory.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// The page, and some bytes without meaning after it.
    bytes: Vec<u8>,
    size: usize,
    copies: Vec<Copied>,
    blocks: Vec<Block>,
}

/// An element that copies: where what it makes begins, and where it stands itself.
#[derive(Debug, Clone, Copy)]
struct Copied {
    plain: u32,
    packed: u32,
}

/// The copies that begin in a block: the first, and how far they look back.
#[derive(Debug, Clone, Copy)]
struct Block {
    first: usize,
    reach: usize,
}

/// What a tag says of a copy: bytes it makes, bytes of the element, and the bits of its offset that stand in the tag
/// and those that stand after it.
#[derive(Clone, Copy)]
struct Tag {
    makes: u8,
    takes: u8,
    high: u16,
    low: u32,
}

const TAGS: [Tag; 256] = {
    let mut tags = [Tag { makes: 0, takes: 0, high: 0, low: 0 }; 256];
    let mut tag = 0;
    while tag < 256 {
        let upper = (tag >> 2) as u8;
        tags[tag] = match tag & 3 {
            1 => Tag { makes: (upper & 7) + 4, takes: 2, high: (upper as u16 >> 3) << 8, low: 0xff },
            2 => Tag { makes: upper + 1, takes: 3, high: 0, low: 0xffff },
            3 => Tag { makes: upper + 1, takes: 5, high: 0, low: u32::MAX },
            _ => tags[tag],
        };
        tag += 1;
    }
    tags
};

/// A copy, taken apart.
#[derive(Debug, Clone, Copy)]
struct Copy {
    /// Where it stands, and how many bytes it takes.
    packed: usize,
    takes: usize,
    /// Where what it makes begins, and how many bytes that is.
    plain: usize,
    makes: usize,
    /// How far it looks back.
    offset: usize,
}

impl Copy {
    /// The copy whose tag `tag` stands at `packed`.
    #[inline(always)]
    fn read(bytes: &[u8], packed: usize, tag: u8, plain: usize) -> Option<Self> {
        let Tag { makes, takes, high, low } = *TAGS.get(usize::from(tag))?;
        let takes = usize::from(takes);
        let after = match word::<4>(bytes, packed + 1) {
            Some(word) => u32::from_le_bytes(word) & low,
            None => little_endian(bytes.get(packed + 1..packed + takes)?) as u32,
        };
        let offset = (u32::from(high) | after) as usize;
        Some(Self { packed, takes, plain, makes: makes.into(), offset })
    }

    fn end(&self) -> usize {
        self.plain + self.makes
    }
}

/// Whether a page of `plain` bytes of which so many ranges are kept is better edited than packed anew.
pub(super) fn is_worth_while(plain: usize, ranges: usize) -> bool {
    ranges.saturating_mul(LEAST_RANGE) <= plain
}

/// Unpacks exactly `size` bytes.
pub(super) fn unpack(packed: &[u8], size: usize, into: &mut Unpacked) -> Fit<()> {
    let (stated, elements) = varint(packed)?;
    if usize::try_from(stated) != Ok(size) || u32::try_from(packed.len().max(size)).is_err() {
        return unfit(BROKEN);
    }
    let first = packed.len() - elements.len();
    if into.bytes.len() < size + SLACK {
        into.bytes.resize(size + SLACK, 0);
    }
    into.size = size;
    into.copies.clear();
    into.blocks.clear();
    match elements_of(packed, first, size, into) {
        Some(()) => Ok(()),
        None => unfit(BROKEN),
    }
}

/// None if the elements do not add up.
fn elements_of(packed: &[u8], first: usize, size: usize, into: &mut Unpacked) -> Option<()> {
    let Unpacked { bytes, copies, blocks, .. } = into;
    let plain = bytes.get_mut(..size + SLACK)?;
    let (mut from, mut to) = (first, 0);
    while to < size {
        let end = ((to / BLOCK + 1) * BLOCK).min(size);
        // Elements that reach beyond their block leave nothing to begin in those that they fill.
        while blocks.len() < to / BLOCK {
            blocks.push(Block { first: copies.len(), reach: to });
        }
        let mut block = Block { first: copies.len(), reach: to };
        while to < end {
            let tag = *packed.get(from)?;
            if tag & 3 == 0 {
                let (start, length) = literal_at(packed, from, tag)?;
                // Most are short: whole words, of which what is too much is written over later.
                if length <= 16
                    && let Some(word) = word::<16>(packed, start)
                {
                    put(plain, to, word)?;
                } else if length <= 60
                    && let Some(word) = word::<64>(packed, start)
                {
                    put(plain, to, word)?;
                } else {
                    let literal = packed.get(start..start.checked_add(length)?)?;
                    plain.get_mut(to..to + length)?.copy_from_slice(literal);
                }
                from = start + length;
                to += length;
            } else {
                let copy = Copy::read(packed, from, tag, to)?;
                copies.push(Copied { plain: to as u32, packed: from as u32 });
                let back = to.checked_sub(copy.offset).filter(|back| *back < to)?;
                block.reach = block.reach.min(back);
                repeat(plain, back, to, copy.makes)?;
                from += copy.takes;
                to += copy.makes;
            }
        }
        blocks.push(block);
    }
    (from == packed.len() && to == size).then_some(())
}

/// Where the bytes of a literal begin, and how many they are.
#[inline(always)]
fn literal_at(packed: &[u8], at: usize, tag: u8) -> Option<(usize, usize)> {
    let short = usize::from(tag >> 2);
    match short.checked_sub(59) {
        None | Some(0) => Some((at + 1, short + 1)),
        Some(bytes) => {
            let start = at + 1 + bytes;
            Some((start, little_endian(packed.get(at + 1..start)?) + 1))
        }
    }
}

/// Writes the bytes from `back` on once more, to `to`; the two may overlap, and then repeat.
#[inline(always)]
fn repeat(plain: &mut [u8], back: usize, to: usize, length: usize) -> Option<()> {
    match to - back {
        16.. => {
            put(plain, to, word::<16>(plain, back)?)?;
            if length > 16 {
                put(plain, to + 16, word::<16>(plain, back + 16)?)?;
                if length > 32 {
                    put(plain, to + 32, word::<16>(plain, back + 32)?)?;
                    put(plain, to + 48, word::<16>(plain, back + 48)?)?;
                }
            }
        }
        8.. => {
            for step in (0..length).step_by(8) {
                put(plain, to + step, word::<8>(plain, back + step)?)?;
            }
        }
        _ => {
            for step in 0..length {
                put(plain, to + step, word::<1>(plain, back + step)?)?;
            }
        }
    }
    Some(())
}

#[inline(always)]
fn word<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[inline(always)]
fn put<const N: usize>(bytes: &mut [u8], at: usize, word: [u8; N]) -> Option<()> {
    *bytes.get_mut(at..)?.first_chunk_mut()? = word;
    Some(())
}

fn little_endian(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

impl Unpacked {
    /// Bytes that it keeps.
    pub(super) fn memory(&self) -> usize {
        let (copied, block) = (size_of::<Copied>(), size_of::<Block>());
        self.bytes.capacity() + self.copies.capacity() * copied + self.blocks.capacity() * block
    }

    /// The page.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.size).unwrap_or_default()
    }

    fn copy(&self, packed: &[u8], at: usize) -> Option<Copy> {
        let copied = self.copies.get(at)?;
        let place = copied.packed as usize;
        Copy::read(packed, place, *packed.get(place)?, copied.plain as usize)
    }
}

/// `before` and then the `kept` ranges (ascending, none empty) of a page, packed. The page was unpacked from `packed`.
pub(super) fn edit(packed: &[u8], page: &Unpacked, before: &[u8], kept: &[Range<usize>]) -> Fit<Vec<u8>> {
    let mut begins = Vec::with_capacity(kept.len());
    let mut length = before.len();
    for range in kept {
        begins.push(length);
        length += range.len();
    }
    let out = Vec::with_capacity(packed.len() + before.len() + 16);
    let mut editor = Editor { packed, page, kept, begins, out };
    push_varint(length as u64, &mut editor.out);
    editor.literal(before);
    match (0..kept.len()).try_for_each(|at| editor.range(at)) {
        Some(()) => Ok(editor.out),
        None => unfit("a snappy page that cannot be edited"),
    }
}

struct Editor<'a> {
    packed: &'a [u8],
    page: &'a Unpacked,
    kept: &'a [Range<usize>],
    /// Where each kept range begins in what is left.
    begins: Vec<usize>,
    out: Vec<u8>,
}

impl Editor<'_> {
    /// Packs the kept range `at`. None if it does not lie within the page.
    fn range(&mut self, at: usize) -> Option<()> {
        let Range { start, end } = self.kept.get(at)?.clone();
        let mut done = start;
        let mut next = self.page.copies.partition_point(|copy| (copy.plain as usize) < start);
        if let Some(copy) = next.checked_sub(1).and_then(|before| self.page.copy(self.packed, before))
            && copy.end() > start
        {
            done = copy.end().min(end);
            self.borrow(at, start - copy.offset, start..done)?;
        }
        while let Some(copy) = self.page.copy(self.packed, next).filter(|copy| copy.plain < end) {
            self.literal(self.page.bytes().get(done..copy.plain)?);
            let after = self.stretch(next, start, end);
            if let Some(last) = after.checked_sub(1).filter(|last| *last >= next) {
                let last = self.page.copy(self.packed, last)?;
                self.out.extend_from_slice(self.packed.get(copy.packed..last.packed + last.takes)?);
                (done, next) = (last.end(), after);
            } else {
                done = copy.end().min(end);
                self.borrow(at, copy.plain - copy.offset, copy.plain..done)?;
                next += 1;
            }
        }
        self.literal(self.page.bytes().get(done..end)?);
        Some(())
    }

    /// The end of the copies from `next` on that may stay as they are within `start..end`.
    fn stretch(&self, mut next: usize, start: usize, end: usize) -> usize {
        while let Some(copied) = self.page.copies.get(next) {
            let block = copied.plain as usize / BLOCK;
            let after = self.page.blocks.get(block + 1);
            // A whole block that does not look back to before the range. (The last element may reach beyond its block.)
            if let (Some(this), Some(after)) = (self.page.blocks.get(block), after)
                && this.first == next
                && this.reach >= start
                && (block + 1) * BLOCK + SLACK <= end
                && after.first > next
            {
                next = after.first;
                continue;
            }
            match self.page.copy(self.packed, next) {
                Some(copy) if copy.end() <= end && copy.plain - copy.offset >= start => next += 1,
                _ => break,
            }
        }
        next
    }

    /// Packs the bytes `target` of the kept range `at`, which are those from `source` on once more.
    fn borrow(&mut self, at: usize, mut source: usize, target: Range<usize>) -> Option<()> {
        let begin = *self.begins.get(at)? + target.start - self.kept.get(at)?.start;
        let mut done = 0;
        while done < target.len() {
            let left = target.len() - done;
            let (range, from) = self.range_that_ends_after(at, source)?;
            let length = if source < range.start {
                // Dropped.
                let length = left.min(range.start - source);
                self.literal(self.page.bytes().get(source..source + length)?);
                length
            } else {
                let length = left.min(range.end - source);
                let offset = begin + done - (from + source - range.start);
                // Of three bytes a copy takes as many.
                if length > 3 && offset <= FURTHEST {
                    self.copied(offset, length);
                } else {
                    self.literal(self.page.bytes().get(source..source + length)?);
                }
                length
            };
            done += length;
            source += length;
        }
        Some(())
    }

    /// The first kept range that ends after `place`, which lies in the range `at` or before, and where it begins in
    /// what is left. Mostly it is `at` or the one before.
    fn range_that_ends_after(&self, at: usize, place: usize) -> Option<(Range<usize>, usize)> {
        let ends_before = |at: usize| self.kept.get(at).is_none_or(|range| range.end <= place);
        let found = match at.checked_sub(1) {
            None => at,
            Some(before) if ends_before(before) => at,
            Some(before) if before.checked_sub(1).is_none_or(ends_before) => before,
            Some(_) => self.kept.partition_point(|range| range.end <= place),
        };
        Some((self.kept.get(found)?.clone(), *self.begins.get(found)?))
    }

    fn copied(&mut self, offset: usize, length: usize) {
        let [low, high, ..] = offset.to_le_bytes();
        if (4..=11).contains(&length) && offset < 1 << 11 {
            self.out.extend([high << 5 | (length as u8 - 4) << 2 | 1, low]);
        } else {
            // A copy is of 64 bytes at most.
            self.out.extend([(length as u8 - 1) << 2 | 2, low, high]);
        }
    }

    fn literal(&mut self, bytes: &[u8]) {
        let Some(last) = bytes.len().checked_sub(1) else { return };
        if last < 60 {
            self.out.push((last as u8) << 2);
        } else {
            let number = (last as u32).to_le_bytes();
            let count = 4 - (last as u32).leading_zeros() as usize / 8;
            self.out.push((59 + count as u8) << 2);
            self.out.extend_from_slice(number.get(..count).unwrap_or_default());
        }
        self.out.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that pack somewhat, from a seed: near repeats, far ones, and patterns that repeat themselves.
    fn page(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let mut out: Vec<u8> = Vec::new();
        while out.len() < length {
            let count = 1 + next(90);
            match next(5) {
                0 => out.extend((0..count).map(|_| next(256) as u8)),
                1 => out.extend((0..count).map(|at| b'a' + (at % 7) as u8)),
                2 => out.extend(std::iter::repeat_n(next(3) as u8, count)),
                _ => {
                    let back = (1 + next(out.len().max(1).min(if count % 2 == 0 { 100 } else { 90_000 })))
                        .min(out.len());
                    let from = out.len() - back;
                    (from..from + count).for_each(|at| out.push(out.get(at).copied().unwrap_or(7)));
                }
            }
        }
        out.truncate(length);
        out
    }

    fn packed(plain: &[u8]) -> Vec<u8> {
        snap::raw::Encoder::new().compress_vec(plain).unwrap()
    }

    fn unpacked(packed: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(packed).unwrap()
    }

    /// Ranges between the cuts, every second one.
    fn ranges(cuts: &[usize], length: usize) -> Vec<Range<usize>> {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| (*cut).min(length)).collect();
        cuts.sort_unstable();
        cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).filter(|range| !range.is_empty()).collect()
    }

    fn kept(plain: &[u8], before: &[u8], ranges: &[Range<usize>]) -> Vec<u8> {
        before.iter().copied().chain(ranges.iter().flat_map(|range| plain[range.clone()].to_vec())).collect()
    }

    #[test]
    fn what_is_far_from_a_drop_stays_as_it_was_packed() {
        let plain = page(10 * BLOCK + 17, 1);
        let before = packed(&plain);
        let mut page = Unpacked::default();
        unpack(&before, plain.len(), &mut page).unwrap();
        let hole = 5 * BLOCK + 100..5 * BLOCK + 200;
        let ranges = [30..hole.start, hole.end..plain.len()];
        let edited = edit(&before, &page, b"levels", &ranges).unwrap();
        assert_eq!(unpacked(&edited), kept(&plain, b"levels", &ranges));
        // Of ten blocks two are touched; of the others every byte stands there still.
        let third = page.copies[page.blocks[2].first].packed as usize
            ..page.copies[page.blocks[4].first].packed as usize;
        assert!(edited.windows(third.len()).any(|window| window == &before[third.clone()]));
        assert!(edited.len() < before.len() + before.len() / 50);
    }

    #[test]
    fn copies_that_reach_over_a_border_of_blocks_are_followed() {
        // 64 KiB of literals, then a copy that begins at the border and reaches before it, and one that repeats itself.
        let mut packed = Vec::new();
        push_varint(BLOCK as u64 + 4 + 60, &mut packed);
        packed.extend([61 << 2, 0xff, 0xff]);
        packed.extend(page(BLOCK, 2));
        packed.extend([3 << 2 | 2, 100, 0, 59 << 2 | 2, 2, 0]);
        let plain = unpacked(&packed);
        let mut page = Unpacked::default();
        unpack(&packed, plain.len(), &mut page).unwrap();
        assert_eq!(page.bytes(), plain);
        for hole in
            [BLOCK - 99..BLOCK - 97, BLOCK - 50..BLOCK + 1, BLOCK + 3..BLOCK + 5, BLOCK + 10..BLOCK + 20]
        {
            let ranges = [0..hole.start, hole.end..plain.len()];
            assert_eq!(unpacked(&edit(&packed, &page, &[], &ranges).unwrap()), kept(&plain, &[], &ranges));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

        #[test]
        fn what_is_edited_unpacks_to_what_was_kept(
            length in prop_oneof![0usize..400, 0usize..300_000],
            seed: u64,
            cuts in prop::collection::vec(0usize..300_000, 0..40),
            near in prop::collection::vec(0usize..400, 0..40),
            twice: bool,
        ) {
            let mut plain = page(length, seed);
            let mut packed = packed(&plain);
            // An edited page can be edited again.
            for cuts in if twice { vec![&cuts, &near] } else { vec![&near] } {
                let ranges = ranges(cuts, plain.len());
                let mut page = Unpacked::default();
                unpack(&packed, plain.len(), &mut page).unwrap();
                prop_assert_eq!(page.bytes(), &plain);
                packed = edit(&packed, &page, b"x", &ranges).unwrap();
                plain = kept(&plain, b"x", &ranges);
                prop_assert_eq!(&unpacked(&packed), &plain);
            }
        }

        #[test]
        fn bytes_are_unpacked_as_by_the_library_or_refused_as_by_it(
            length in 0u64..300,
            elements in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..40], 0..80),
        ) {
            let mut packed = Vec::new();
            push_varint(length, &mut packed);
            packed.extend(elements);
            let mut page = Unpacked::default();
            let ours = unpack(&packed, length as usize, &mut page).map(|()| page.bytes().to_vec());
            let theirs = snap::raw::Decoder::new().decompress_vec(&packed);
            prop_assert_eq!(ours.ok(), theirs.ok());
        }

        #[test]
        fn elements_of_every_kind_are_edited(
            seed in prop::collection::vec((0u8..4, 1usize..64, 1usize..70_000), 1..200),
            cuts in prop::collection::vec(0usize..8_000, 0..12),
        ) {
            // Written by hand: long offsets, copies of one byte, copies that repeat themselves.
            let (mut plain, mut elements) = (Vec::<u8>::new(), Vec::new());
            for (kind, length, offset) in seed {
                let offset = offset.min(plain.len());
                match kind {
                    1 if (4..=11).contains(&length) && (1..2048).contains(&offset) => {
                        elements.extend([(offset >> 8 << 5) as u8 | (length as u8 - 4) << 2 | 1, offset as u8]);
                    }
                    2 if (1..65_536).contains(&offset) => {
                        elements.extend([(length as u8 - 1) << 2 | 2, offset as u8, (offset >> 8) as u8]);
                    }
                    3 if offset > 0 => {
                        elements.push((length as u8 - 1) << 2 | 3);
                        elements.extend((offset as u32).to_le_bytes());
                    }
                    _ => {
                        let bytes: Vec<u8> = (0..length).map(|at| (at * 31 + offset) as u8).collect();
                        let mut editor = Editor { packed: &[], page: &Unpacked::default(), kept: &[], begins: vec![], out: vec![] };
                        editor.literal(&bytes);
                        elements.extend(editor.out);
                        plain.extend(bytes);
                        continue;
                    }
                }
                (0..length).for_each(|_| plain.push(plain[plain.len() - offset]));
            }
            let mut packed = Vec::new();
            push_varint(plain.len() as u64, &mut packed);
            packed.extend(elements);
            prop_assert_eq!(&unpacked(&packed), &plain);
            let mut page = Unpacked::default();
            unpack(&packed, plain.len(), &mut page).unwrap();
            prop_assert_eq!(page.bytes(), &plain);
            let ranges = ranges(&cuts, plain.len());
            let edited = edit(&packed, &page, b"", &ranges).unwrap();
            prop_assert_eq!(unpacked(&edited), kept(&plain, b"", &ranges));
        }
    }
}
