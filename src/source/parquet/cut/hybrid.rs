//! Parquet's run-length and bit-packing hybrid: levels, dictionary indices and version 2 booleans.
//!
//! The format is that of the Parquet specification, "Encodings", RLE/Bit-Packing Hybrid. Decoding never allocates by a
//! number that it has read: callers say how many values there are.

use super::{Fit, unfit};

/// The shortest run that is worth leaving bit-packing for.
const SHORTEST_RUN: usize = 16;

/// Decodes exactly `count` values of `width` bits (at most 32).
pub(super) fn decode(bytes: &[u8], width: u8, count: usize) -> Fit<Vec<u32>> {
    if width > 32 {
        return unfit("a bit width above 32");
    }
    let mut values = Vec::with_capacity(count.min(bytes.len().saturating_mul(8).max(1 << 20)));
    let mut rest = bytes;
    while values.len() < count {
        let (head, after) = varint(rest)?;
        let missing = count - values.len();
        if head & 1 == 1 {
            let groups = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            let length = groups.saturating_mul(usize::from(width));
            // The last group may be cut off where its values are not needed.
            let wanted = groups.saturating_mul(8).min(missing);
            let needed = (wanted * usize::from(width)).div_ceil(8);
            let Some(packed) = after.get(..length.min(after.len())).filter(|packed| packed.len() >= needed)
            else {
                return unfit("bit-packed values are cut off");
            };
            if wanted == 0 {
                return unfit("an empty bit-packed run");
            }
            unpack(packed, width, wanted, &mut values);
            rest = after.get(packed.len()..).unwrap_or_default();
        } else {
            let (value, after) = run_value(after, width)?;
            let length = usize::try_from(head >> 1).unwrap_or(usize::MAX);
            if length == 0 {
                return unfit("an empty run");
            }
            values.resize(values.len() + length.min(missing), value);
            rest = after;
        }
    }
    Ok(values)
}

/// The one value of all `count` values, if they are a single run of the encoding.
pub(super) fn single_run(bytes: &[u8], width: u8, count: usize) -> Option<u32> {
    let (head, after) = varint(bytes).ok()?;
    let long = head & 1 == 0 && head >> 1 >= count as u64;
    let (value, _) = run_value(after, width).ok()?;
    long.then_some(value)
}

/// Encodes values of `width` bits; all must fit.
pub(super) fn encode(values: &[u32], width: u8, out: &mut Vec<u8>) {
    let mut at = 0;
    while at < values.len() {
        let run = run_length(values.get(at..).unwrap_or_default());
        if run >= SHORTEST_RUN {
            push_run(values.get(at).copied().unwrap_or(0), run, width, out);
            at += run;
            continue;
        }
        // Whole groups of eight, until a group begins with a run that is long enough.
        let mut end = at;
        while end < values.len() && (end == at || run_length_at_least(values, end) < SHORTEST_RUN) {
            end = (end + 8).min(values.len());
        }
        let literal = values.get(at..end).unwrap_or_default();
        push_varint((literal.len().div_ceil(8) as u64) << 1 | 1, out);
        pack(literal, width, out);
        at = end;
    }
}

/// Encodes `count` times `value`.
pub(super) fn push_run(value: u32, count: usize, width: u8, out: &mut Vec<u8>) {
    push_varint((count as u64) << 1, out);
    out.extend_from_slice(value.to_le_bytes().get(..usize::from(width).div_ceil(8)).unwrap_or_default());
}

/// How many values at the beginning are the same.
fn run_length(values: &[u32]) -> usize {
    let Some(first) = values.first() else { return 0 };
    values.iter().take_while(|value| *value == first).count()
}

/// As [`run_length`] from `at` on, but looks no further than it must.
fn run_length_at_least(values: &[u32], at: usize) -> usize {
    let end = (at + SHORTEST_RUN).min(values.len());
    run_length(values.get(at..end).unwrap_or_default())
}

fn run_value(bytes: &[u8], width: u8) -> Fit<(u32, &[u8])> {
    let length = usize::from(width).div_ceil(8);
    let Some((value, rest)) = bytes.split_at_checked(length) else { return unfit("a run is cut off") };
    let value = value.iter().rev().fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
    if width < 32 && value >> width != 0 {
        return unfit("a run of values that do not fit their width");
    }
    Ok((value, rest))
}

/// Appends `count` values of `width` bits, of which `packed` has enough bytes.
fn unpack(packed: &[u8], width: u8, count: usize, values: &mut Vec<u32>) {
    let width = usize::from(width);
    let mask = (1u64 << width) - 1;
    // Whole words as long as eight bytes can be read, the rest from a padded copy.
    let whole = match packed.len().checked_sub(8) {
        Some(last) if width > 0 => ((last * 8 + 8) / width).min(count),
        _ => 0,
    };
    let word = |bytes: &[u8], bit: usize| {
        let bytes = bytes.get(bit / 8..bit / 8 + 8).and_then(|bytes| <[u8; 8]>::try_from(bytes).ok());
        ((u64::from_le_bytes(bytes.unwrap_or_default()) >> (bit % 8)) & mask) as u32
    };
    values.extend((0..whole).map(|at| word(packed, at * width)));
    let first = whole * width / 8;
    let mut tail = [0u8; 8 + 64];
    let left = packed.get(first..).unwrap_or_default();
    let mut done = whole;
    let mut offset = 0;
    while done < count {
        // A tail longer than the padded copy is taken in several steps (only where `packed` is short of eight bytes).
        let part = left.get(offset..).unwrap_or_default();
        let part = part.get(..part.len().min(64)).unwrap_or_default();
        tail.fill(0);
        tail.iter_mut().zip(part).for_each(|(to, from)| *to = *from);
        let start = first + offset;
        while done < count && done * width / 8 - start < 60 {
            values.push(word(&tail, done * width - start * 8));
            done += 1;
        }
        offset = (done * width / 8).saturating_sub(first);
    }
}

/// Appends values packed, the last group of eight filled up with zeros.
pub(super) fn pack(values: &[u32], width: u8, out: &mut Vec<u8>) {
    let width = u32::from(width);
    out.reserve(values.len().div_ceil(8) * width as usize);
    let (mut gathered, mut bits) = (0u64, 0u32);
    let padding = values.len().next_multiple_of(8) - values.len();
    for value in values.iter().copied().chain(std::iter::repeat_n(0, padding)) {
        gathered |= u64::from(value) << bits;
        bits += width;
        if bits >= 32 {
            out.extend_from_slice(&(gathered as u32).to_le_bytes());
            gathered >>= 32;
            bits -= 32;
        }
    }
    // Eight values fill whole bytes.
    out.extend_from_slice(gathered.to_le_bytes().get(..bits as usize / 8).unwrap_or_default());
}

/// An unsigned number in groups of seven bits, and what comes after it.
pub(super) fn varint(bytes: &[u8]) -> Fit<(u64, &[u8])> {
    let mut value = 0u64;
    for (at, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Ok((value, bytes.get(at + 1..).unwrap_or_default()));
        }
    }
    unfit("a number is cut off")
}

pub(super) fn push_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn fits(width: u8) -> u32 {
        (((1u64 << width) - 1) & u64::from(u32::MAX)) as u32
    }

    /// Values with runs of every length.
    fn values() -> impl Strategy<Value = (u8, Vec<u32>)> {
        let runs = prop::collection::vec((any::<u32>(), prop_oneof![4 => 1usize..4, 1 => 1usize..60]), 0..60);
        (0u8..=32, runs).prop_map(|(width, runs)| {
            let run = |(value, count): (u32, usize)| std::iter::repeat_n(value & fits(width), count);
            (width, runs.into_iter().flat_map(run).collect())
        })
    }

    proptest! {
        #[test]
        fn values_read_back((width, values) in values()) {
            let mut bytes = Vec::new();
            encode(&values, width, &mut bytes);
            prop_assert_eq!(decode(&bytes, width, values.len()).unwrap(), values);
        }

        #[test]
        fn a_prefix_reads_back((width, values) in values(), part in 0.0..1.0f64) {
            let mut bytes = Vec::new();
            encode(&values, width, &mut bytes);
            let count = (values.len() as f64 * part) as usize;
            prop_assert_eq!(decode(&bytes, width, count).unwrap(), &values[..count]);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..80), width in 0u8..40, count in 0usize..400) {
            if let Ok(values) = decode(&bytes, width, count) {
                prop_assert_eq!(values.len(), count);
            }
            let _ = single_run(&bytes, width, count);
        }
    }

    #[test]
    fn a_single_run_is_known_without_decoding() {
        let mut bytes = Vec::new();
        encode(&[1; 20_000], 1, &mut bytes);
        assert_eq!(bytes.len(), 4);
        assert_eq!(single_run(&bytes, 1, 20_000), Some(1));
        assert_eq!(single_run(&bytes, 1, 20_001), None);
    }
}
