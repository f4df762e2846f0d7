//! The values of a page without some of them, in every encoding that Parquet has.

use super::{Fit, Runs, delta, hybrid, unfit};
use crate::source::parquet::guard::MAX_PAGE_BYTES;
use parquet::basic::{Encoding, Type};

/// Whether values of this encoding and type can be cut.
pub(super) fn can_cut(encoding: Encoding, kind: Type) -> bool {
    match encoding {
        Encoding::PLAIN | Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => true,
        Encoding::RLE => kind == Type::BOOLEAN,
        Encoding::DELTA_BINARY_PACKED => matches!(kind, Type::INT32 | Type::INT64),
        Encoding::DELTA_LENGTH_BYTE_ARRAY => kind == Type::BYTE_ARRAY,
        Encoding::DELTA_BYTE_ARRAY => matches!(kind, Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY),
        Encoding::BYTE_STREAM_SPLIT => !matches!(kind, Type::BOOLEAN | Type::BYTE_ARRAY | Type::INT96),
        _ => false,
    }
}

/// Appends to `out` those of the `count` values in `bytes` that `kept` names.
pub(super) fn cut(
    (encoding, kind, length): (Encoding, Type, usize),
    bytes: &[u8],
    count: usize,
    kept: &Runs,
    out: &mut Vec<u8>,
) -> Fit<()> {
    match encoding {
        // Nothing but nulls: some writers leave out even the bit width.
        _ if count == 0 => {
            out.extend_from_slice(bytes);
            Ok(())
        }
        Encoding::PLAIN if kind == Type::BOOLEAN => plain_bits(bytes, count, kept, out),
        Encoding::PLAIN => {
            let pieces = plain((kind, length), bytes, count, kept)?;
            pieces
                .iter()
                .for_each(|piece| out.extend_from_slice(bytes.get(piece.clone()).unwrap_or_default()));
            Ok(())
        }
        Encoding::PLAIN_DICTIONARY | Encoding::RLE_DICTIONARY => dictionary(bytes, count, kept, out),
        Encoding::RLE => run_length_bits(bytes, count, kept, out),
        Encoding::DELTA_BINARY_PACKED => {
            let (values, _) = exactly(delta::decode(bytes, count)?, count)?;
            delta::encode(&pick(&values, kept), kind == Type::INT32, out);
            Ok(())
        }
        Encoding::DELTA_LENGTH_BYTE_ARRAY => delta_length(bytes, count, kept, out),
        Encoding::DELTA_BYTE_ARRAY => delta_bytes(bytes, count, kept, out),
        Encoding::BYTE_STREAM_SPLIT => split_streams(bytes, width(kind, length), count, kept, out),
        _ => unfit("an encoding that cannot be cut"),
    }
}

/// Where in `bytes` those of the `count` plain values are that `kept` names. (Not of booleans, which are bits.)
pub(super) fn plain((kind, length): (Type, usize), bytes: &[u8], count: usize, kept: &Runs) -> Fit<Runs> {
    if kind == Type::BYTE_ARRAY {
        plain_bytes(bytes, kept)
    } else {
        fixed(bytes, width(kind, length), count, kept)
    }
}

/// Bytes of one value of a fixed size.
fn width(kind: Type, length: usize) -> usize {
    match kind {
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        _ => length,
    }
}

fn fixed(bytes: &[u8], width: usize, count: usize, kept: &Runs) -> Fit<Runs> {
    if width.checked_mul(count) != Some(bytes.len()) {
        return unfit("plain values of another length than their number says");
    }
    Ok(kept.iter().map(|run| run.start * width..run.end * width).collect())
}

fn plain_bytes(bytes: &[u8], kept: &Runs) -> Fit<Runs> {
    let (mut at, mut value) = (0, 0);
    let mut walk_to = |to: usize| {
        while value < to {
            let Some(length) = bytes.get(at..at + 4).and_then(|head| <[u8; 4]>::try_from(head).ok()) else {
                return unfit("plain values are cut off");
            };
            at = at + 4 + u32::from_le_bytes(length) as usize;
            value += 1;
        }
        Ok(at)
    };
    let mut pieces = Vec::with_capacity(kept.len());
    for run in kept {
        let piece = walk_to(run.start)?..walk_to(run.end)?;
        if piece.end > bytes.len() {
            return unfit("plain values are cut off");
        }
        pieces.push(piece);
    }
    Ok(pieces)
}

fn plain_bits(bytes: &[u8], count: usize, kept: &Runs, out: &mut Vec<u8>) -> Fit<()> {
    if bytes.len() < count.div_ceil(8) {
        return unfit("plain values are cut off");
    }
    let bit = |at: usize| u32::from(bytes.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1));
    let bits: Vec<u32> = kept.iter().flat_map(Clone::clone).map(bit).collect();
    // Eight values make a byte, least significant bit first: as bit-packing does.
    hybrid::pack(&bits, 1, out);
    Ok(())
}

fn run_length_bits(bytes: &[u8], count: usize, kept: &Runs, out: &mut Vec<u8>) -> Fit<()> {
    let (length, rest) = length_prefix(bytes)?;
    let Some(runs) = rest.get(..length) else { return unfit("run-length values are cut off") };
    let values = pick(&hybrid::decode(runs, 1, count)?, kept);
    with_length_prefix(out, |out| hybrid::encode(&values, 1, out))
}

fn dictionary(bytes: &[u8], count: usize, kept: &Runs, out: &mut Vec<u8>) -> Fit<()> {
    let Some((width, runs)) = bytes.split_first() else { return unfit("indices without a bit width") };
    let indices = pick(&hybrid::decode(runs, *width, count)?, kept);
    out.push(*width);
    hybrid::encode(&indices, *width, out);
    Ok(())
}

fn delta_length(bytes: &[u8], count: usize, kept: &Runs, out: &mut Vec<u8>) -> Fit<()> {
    let (lengths, data) = exactly(delta::decode(bytes, count)?, count)?;
    let ends = ends(&lengths, data)?;
    delta::encode(&pick(&lengths, kept), true, out);
    for run in kept {
        out.extend_from_slice(
            data.get(start_of(&ends, run.start)..start_of(&ends, run.end)).unwrap_or_default(),
        );
    }
    Ok(())
}

fn delta_bytes(bytes: &[u8], count: usize, kept: &Runs, out: &mut Vec<u8>) -> Fit<()> {
    let (prefixes, rest) = exactly(delta::decode(bytes, count)?, count)?;
    let (lengths, data) = exactly(delta::decode(rest, count)?, count)?;
    let ends = ends(&lengths, data)?;
    // Each text is put together in full, and one of many may repeat a long one in no bytes at all.
    let total = prefixes.iter().chain(&lengths).fold(0i64, |sum, length| sum.saturating_add(*length));
    if total > MAX_PAGE_BYTES {
        return unfit("texts that share their beginnings and are long");
    }
    let (mut new_prefixes, mut new_lengths, mut new_data) = (Vec::new(), Vec::new(), Vec::new());
    // The value at hand, and the one that was kept last.
    let (mut value, mut last) = (Vec::new(), Vec::new());
    let mut runs = kept.iter().peekable();
    for (at, prefix) in prefixes.iter().enumerate() {
        let suffix = data.get(start_of(&ends, at)..start_of(&ends, at + 1)).unwrap_or_default();
        let Some(prefix) = usize::try_from(*prefix).ok().filter(|prefix| *prefix <= value.len()) else {
            return unfit("a prefix longer than the value before");
        };
        value.truncate(prefix);
        value.extend_from_slice(suffix);
        while runs.next_if(|run| run.end <= at).is_some() {}
        if runs.peek().is_some_and(|run| run.contains(&at)) {
            let common = value.iter().zip(&last).take_while(|(a, b)| a == b).count();
            new_prefixes.push(common as i64);
            new_lengths.push((value.len() - common) as i64);
            new_data.extend_from_slice(value.get(common..).unwrap_or_default());
            last.clone_from(&value);
        }
    }
    delta::encode(&new_prefixes, true, out);
    delta::encode(&new_lengths, true, out);
    out.extend(new_data);
    Ok(())
}

fn split_streams(bytes: &[u8], width: usize, count: usize, kept: &Runs, out: &mut Vec<u8>) -> Fit<()> {
    if width == 0 || width.checked_mul(count) != Some(bytes.len()) {
        return unfit("split streams of another length than their number says");
    }
    for stream in bytes.chunks_exact(count) {
        for run in kept {
            out.extend_from_slice(stream.get(run.clone()).unwrap_or_default());
        }
    }
    Ok(())
}

/// Where each of the values with these lengths ends in `data`; all must lie within it.
fn ends(lengths: &[i64], data: &[u8]) -> Fit<Vec<usize>> {
    let mut end = 0usize;
    let ends = lengths.iter().map(|length| {
        end = end.saturating_add(usize::try_from(*length).unwrap_or(usize::MAX));
        end
    });
    let ends: Vec<usize> = ends.collect();
    if end > data.len() { unfit("delta-encoded values are cut off") } else { Ok(ends) }
}

fn start_of(ends: &[usize], value: usize) -> usize {
    value.checked_sub(1).and_then(|before| ends.get(before)).copied().unwrap_or(0)
}

fn exactly((values, rest): (Vec<i64>, &[u8]), count: usize) -> Fit<(Vec<i64>, &[u8])> {
    if values.len() == count {
        Ok((values, rest))
    } else {
        unfit("fewer delta-encoded values than the page has")
    }
}

/// The values that `kept` names.
pub(super) fn pick<T: Copy>(values: &[T], kept: &Runs) -> Vec<T> {
    let mut picked = Vec::with_capacity(kept.iter().map(ExactSizeIterator::len).sum());
    kept.iter().for_each(|run| picked.extend_from_slice(values.get(run.clone()).unwrap_or_default()));
    picked
}

/// The length that four bytes tell, and what comes after them.
pub(super) fn length_prefix(bytes: &[u8]) -> Fit<(usize, &[u8])> {
    match bytes.split_first_chunk() {
        Some((length, rest)) => Ok((u32::from_le_bytes(*length) as usize, rest)),
        None => unfit("a length is cut off"),
    }
}

/// Appends what `write` appends, after its length in four bytes.
pub(super) fn with_length_prefix(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) -> Fit<()> {
    let start = out.len();
    out.extend([0; 4]);
    write(out);
    let Ok(length) = u32::try_from(out.len() - start - 4) else { return unfit("levels of more than 4 GiB") };
    if let Some(place) = out.get_mut(start..start + 4) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}
