//! Cutting a page that snappy packed without packing all of it again.
//!
//! Snappy's encoders take 64 KiB at a time and never look back beyond them, and offsets are relative: such a block means
//! the same wherever it stands. So blocks from which nothing is dropped are passed on packed. That no element crosses a
//! border and that nothing after it looks back over it is not taken on trust: the elements of the page are walked.
//!
//! The format is that of snappy's `format_description.txt`.

use super::hybrid::{push_varint, varint};
use super::{Fit, unfit};
use std::ops::Range;

/// What encoders take at a time, in bytes before packing.
const BLOCK: usize = 1 << 16;

/// A place where the packed bytes can be taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Border {
    /// Before unpacking, and after.
    packed: usize,
    plain: usize,
}

/// Whether so few pieces of so long a page are dropped that it is worth while to look for blocks to pass on.
pub(super) fn is_worth_while(plain: usize, pieces: usize) -> bool {
    plain >= 3 * BLOCK && pieces * 2 < plain / BLOCK
}

/// Packs `before` and then the `kept` ranges (ascending) of `plain`, which is what `packed` holds.
pub(super) fn splice(packed: &[u8], plain: &[u8], before: &[u8], kept: &[Range<usize>]) -> Fit<Vec<u8>> {
    let borders = borders(packed, plain.len())?;
    let length = before.len() + kept.iter().map(ExactSizeIterator::len).sum::<usize>();
    let mut out = Vec::with_capacity(packed.len() + before.len());
    push_varint(length as u64, &mut out);
    let mut encoder = snap::raw::Encoder::new();
    // What is to be packed anew.
    let mut waiting = before.to_vec();
    let mut ranges = kept.iter().peekable();
    for pair in borders.windows(2) {
        let [from, to] = pair else { continue };
        while ranges.next_if(|range| range.end <= from.plain).is_some() {}
        let whole = ranges.peek().is_some_and(|range| range.start <= from.plain && to.plain <= range.end);
        if whole {
            pack(&mut encoder, &mut waiting, &mut out)?;
            out.extend_from_slice(packed.get(from.packed..to.packed).unwrap_or_default());
            continue;
        }
        for range in ranges.clone().take_while(|range| range.start < to.plain) {
            let part = range.start.max(from.plain)..range.end.min(to.plain);
            waiting.extend_from_slice(plain.get(part).unwrap_or_default());
        }
    }
    pack(&mut encoder, &mut waiting, &mut out)?;
    Ok(out)
}

/// Packs what is waiting, without the length that stands before a whole page.
fn pack(encoder: &mut snap::raw::Encoder, waiting: &mut Vec<u8>, out: &mut Vec<u8>) -> Fit<()> {
    if waiting.is_empty() {
        return Ok(());
    }
    let Ok(packed) = encoder.compress_vec(waiting) else { return unfit("a page that cannot be packed") };
    let (_, elements) = varint(&packed)?;
    out.extend_from_slice(elements);
    waiting.clear();
    Ok(())
}

/// The borders of the page, its beginning and its end among them.
fn borders(packed: &[u8], length: usize) -> Fit<Vec<Border>> {
    let broken = "a snappy page that cannot be walked";
    let (stated, elements) = varint(packed)?;
    if usize::try_from(stated) != Ok(length) {
        return unfit(broken);
    }
    let first = packed.len() - elements.len();
    let mut borders = vec![Border { packed: first, plain: 0 }];
    let (mut at, mut plain, mut next) = (first, 0usize, BLOCK);
    while let Some(tag) = packed.get(at) {
        let number = |from: usize, bytes: usize| {
            let bytes = packed.get(from..from + bytes)?;
            Some(bytes.iter().rev().fold(0usize, |sum, byte| sum << 8 | usize::from(*byte)))
        };
        // How long the element is, how much it makes, and how far it looks back.
        let element = match tag & 3 {
            0 => match usize::from(tag >> 2) {
                short @ 0..60 => Some((1 + short + 1, short + 1, 0)),
                long => {
                    let bytes = long - 59;
                    number(at + 1, bytes).map(|length| (1 + bytes + length + 1, length + 1, 0))
                }
            },
            1 => number(at + 1, 1)
                .map(|low| (2, usize::from(tag >> 2 & 7) + 4, usize::from(tag >> 5) << 8 | low)),
            2 => number(at + 1, 2).map(|offset| (3, usize::from(tag >> 2) + 1, offset)),
            _ => number(at + 1, 4).map(|offset| (5, usize::from(tag >> 2) + 1, offset)),
        };
        let Some((bytes, made, back)) = element else { return unfit(broken) };
        let Some(reach) = plain.checked_sub(back) else { return unfit(broken) };
        if back > 0 {
            // The beginning is never popped: nothing reaches before it.
            while borders.last().is_some_and(|border| border.plain > reach) {
                borders.pop();
            }
        }
        at += bytes;
        plain += made;
        if plain >= next {
            if plain == next {
                borders.push(Border { packed: at, plain });
            }
            next = (plain / BLOCK + 1) * BLOCK;
        }
    }
    if at != packed.len() || plain != length {
        return unfit(broken);
    }
    if borders.last().is_some_and(|border| border.plain < length) {
        borders.push(Border { packed: at, plain });
    }
    Ok(borders)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Bytes that pack somewhat, from a seed.
    fn page(length: usize, seed: u64) -> Vec<u8> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as u8
        };
        (0..length).map(|at| if at % 24 < 12 { b'a' + (at % 7) as u8 } else { next() }).collect()
    }

    fn unpack(packed: &[u8]) -> Vec<u8> {
        snap::raw::Decoder::new().decompress_vec(packed).unwrap()
    }

    #[test]
    fn blocks_without_a_drop_are_passed_on() {
        let plain = page(10 * BLOCK + 17, 1);
        let packed = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
        let found = borders(&packed, plain.len()).unwrap();
        assert_eq!(found.len(), 12);
        let hole = 5 * BLOCK + 100..5 * BLOCK + 200;
        let spliced = splice(&packed, &plain, b"levels", &[30..hole.start, hole.end..plain.len()]).unwrap();
        let expected = [b"levels", &plain[30..hole.start], &plain[hole.end..]].concat();
        assert_eq!(unpack(&spliced), expected);
        let passed = &packed[found[1].packed..found[5].packed];
        assert!(spliced.windows(passed.len()).any(|window| window == passed));
    }

    #[test]
    fn a_border_that_is_looked_back_over_is_none() {
        // 64 KiB of literals, then a copy that begins at the border and reaches before it.
        let mut packed = Vec::new();
        push_varint(BLOCK as u64 + 4, &mut packed);
        packed.extend([61 << 2, 0xff, 0xff]);
        packed.extend(page(BLOCK, 2));
        packed.extend([3 << 2 | 2, 100, 0]);
        assert_eq!(unpack(&packed).len(), BLOCK + 4);
        let ends: Vec<usize> =
            borders(&packed, BLOCK + 4).unwrap().iter().map(|border| border.plain).collect();
        assert_eq!(ends, [0, BLOCK + 4]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

        #[test]
        fn what_is_spliced_unpacks_to_what_was_kept(
            length in 0usize..400_000,
            seed: u64,
            mut cuts in prop::collection::vec(0usize..400_000, 0..12),
            twice: bool,
        ) {
            let mut plain = page(length, seed);
            let mut packed = snap::raw::Encoder::new().compress_vec(&plain).unwrap();
            cuts.iter_mut().for_each(|cut| *cut = (*cut).min(length));
            cuts.sort_unstable();
            for _ in 0..1 + usize::from(twice) {
                cuts.iter_mut().for_each(|cut| *cut = (*cut).min(plain.len()));
                let kept: Vec<_> = cuts.chunks_exact(2).map(|pair| pair[0]..pair[1]).filter(|r| !r.is_empty()).collect();
                let expected: Vec<u8> =
                    b"x".iter().copied().chain(kept.iter().flat_map(|range| plain[range.clone()].to_vec())).collect();
                packed = splice(&packed, &plain, b"x", &kept).unwrap();
                plain = unpack(&packed);
                prop_assert_eq!(&plain, &expected);
            }
        }

        #[test]
        fn no_bytes_make_it_panic(packed in prop::collection::vec(any::<u8>(), 0..60), length in 0usize..300) {
            let _ = borders(&packed, length);
        }
    }
}
