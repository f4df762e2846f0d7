//! Parquet's delta encodings: DELTA_BINARY_PACKED, which the two for byte arrays are made of.
//!
//! The format is that of the Parquet specification, "Encodings". Numbers wrap around in their own width, as the
//! specification asks.

use super::hybrid::{push_varint, varint};
use super::{Fit, unfit};

/// Values in a block, and in each of its miniblocks, as written here.
const BLOCK: usize = 128;
const MINIBLOCKS: usize = 4;

/// The most miniblocks of a block, and values of a miniblock, that are believed.
const MOST: u64 = 1 << 16;

/// Decodes all values, at most `most`, and gives the bytes after them. Numbers are 32-bit ones sign-extended, or 64-bit.
pub(super) fn decode(bytes: &[u8], most: usize) -> Fit<(Vec<i64>, &[u8])> {
    let (block, rest) = varint(bytes)?;
    let (miniblocks, rest) = varint(rest)?;
    let (count, rest) = varint(rest)?;
    let (first, mut rest) = varint(rest)?;
    if count > most as u64 {
        return unfit("more delta-encoded values than the page has");
    }
    if miniblocks == 0
        || miniblocks > MOST
        || block == 0
        || block % miniblocks != 0
        || block / miniblocks > MOST
    {
        return unfit("impossible sizes of delta-encoded blocks");
    }
    let (count, miniblocks, size) = (count as usize, miniblocks as usize, (block / miniblocks) as usize);
    let mut values = Vec::with_capacity(count);
    if count == 0 {
        return Ok((values, rest));
    }
    let mut last = unzigzag(first);
    values.push(last);
    while values.len() < count {
        let (least, after) = varint(rest)?;
        let least = unzigzag(least);
        let Some((widths, after)) = after.split_at_checked(miniblocks) else {
            return unfit("a delta-encoded block is cut off");
        };
        rest = after;
        for width in widths {
            if values.len() == count {
                // Miniblocks after the last value have no bytes, whatever their width says.
                break;
            }
            let width = usize::from(*width);
            let Some((packed, after)) =
                rest.split_at_checked((size * width).div_ceil(8)).filter(|_| width <= 64)
            else {
                return unfit("a delta-encoded miniblock is cut off");
            };
            rest = after;
            for at in 0..size.min(count - values.len()) {
                last = last.wrapping_add(least).wrapping_add(bits(packed, at * width, width) as i64);
                values.push(last);
            }
        }
    }
    Ok((values, rest))
}

/// Encodes values of 32 or 64 bits.
pub(super) fn encode(values: &[i64], narrow: bool, out: &mut Vec<u8>) {
    push_varint(BLOCK as u64, out);
    push_varint(MINIBLOCKS as u64, out);
    push_varint(values.len() as u64, out);
    // Sums of deltas may have left the 32 bits in which they wrap around; a decoder takes no first value that has.
    let first = values.first().copied().unwrap_or(0);
    push_varint(zigzag(if narrow { i64::from(first as i32) } else { first }), out);
    let delta = |pair: &[i64]| match pair {
        [a, b] if narrow => i64::from((*b as i32).wrapping_sub(*a as i32)),
        [a, b] => b.wrapping_sub(*a),
        _ => 0,
    };
    let deltas: Vec<i64> = values.windows(2).map(delta).collect();
    for block in deltas.chunks(BLOCK) {
        let least = block.iter().copied().min().unwrap_or(0);
        push_varint(zigzag(least), out);
        let above = |delta: &i64| match narrow {
            true => u64::from((*delta as i32).wrapping_sub(least as i32) as u32),
            false => delta.wrapping_sub(least) as u64,
        };
        let miniblocks: Vec<Vec<u64>> =
            block.chunks(BLOCK / MINIBLOCKS).map(|part| part.iter().map(above).collect()).collect();
        let widths =
            miniblocks.iter().map(|part| 64 - part.iter().fold(0, |all, value| all | value).leading_zeros());
        let widths: Vec<u8> = widths.map(|width| width as u8).collect();
        out.extend(widths.iter().copied().chain(std::iter::repeat(0)).take(MINIBLOCKS));
        for (part, width) in miniblocks.iter().zip(widths) {
            pack(part, usize::from(width), out);
        }
    }
}

/// Appends a miniblock, filled up with zeros.
fn pack(values: &[u64], width: usize, out: &mut Vec<u8>) {
    let length = width * (BLOCK / MINIBLOCKS) / 8;
    let start = out.len();
    let (mut gathered, mut bits) = (0u128, 0);
    for value in values {
        gathered |= u128::from(*value) << bits;
        bits += width;
        while bits >= 8 {
            out.push(gathered as u8);
            gathered >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push(gathered as u8);
    }
    out.resize(start + length, 0);
}

/// `width` bits from bit `at` on, of which `packed` has enough.
fn bits(packed: &[u8], at: usize, width: usize) -> u64 {
    let mut bytes = [0u8; 16];
    let from = packed.get(at / 8..).unwrap_or_default();
    bytes.iter_mut().zip(from.iter().take(9)).for_each(|(to, from)| *to = *from);
    let word = (u128::from_le_bytes(bytes) >> (at % 8)) as u64;
    if width == 64 { word } else { word & ((1u64 << width) - 1) }
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn values_read_back(values in prop::collection::vec(prop_oneof![any::<i64>(), -100i64..100], 0..400)) {
            let mut bytes = Vec::new();
            encode(&values, false, &mut bytes);
            bytes.push(7);
            prop_assert_eq!(decode(&bytes, values.len()).unwrap(), (values, &[7u8][..]));
        }

        #[test]
        fn narrow_values_read_back(values in prop::collection::vec(prop_oneof![any::<i32>(), -100i32..100], 0..400)) {
            let wide: Vec<i64> = values.iter().map(|value| i64::from(*value)).collect();
            let mut bytes = Vec::new();
            encode(&wide, true, &mut bytes);
            let (decoded, rest) = decode(&bytes, values.len()).unwrap();
            prop_assert_eq!(decoded.iter().map(|value| *value as i32).collect::<Vec<_>>(), values);
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn what_is_left_of_narrow_values_begins_within_32_bits(values in prop::collection::vec(any::<i32>(), 1..40), skip in 0usize..40) {
            let wide: Vec<i64> = values.iter().map(|value| i64::from(*value)).collect();
            let mut bytes = Vec::new();
            encode(&wide, true, &mut bytes);
            let (decoded, _) = decode(&bytes, values.len()).unwrap();
            let left = decoded.get(skip..).unwrap_or_default();
            let mut again = Vec::new();
            encode(left, true, &mut again);
            let (decoded, _) = decode(&again, left.len()).unwrap();
            prop_assert!(decoded.first().is_none_or(|first| i32::try_from(*first).is_ok()));
            let left: Vec<i32> = decoded.iter().map(|value| *value as i32).collect();
            prop_assert_eq!(left.as_slice(), values.get(skip..).unwrap_or_default());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), most in 0usize..300) {
            let _ = decode(&bytes, most);
        }
    }
}
