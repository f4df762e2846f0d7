//! The canonical key encoding, version 1: the bytes that are hashed.
//!
//! Promise: two keys have the same bytes exactly when they are the same key. Every value starts with a tag and tells
//! its own length, so values can be put one after the other without two lists of values ever running together.
//! Nothing here may change under version 1: tables that exist would forget what they have seen. The golden vectors in
//! `testdata/golden/tokens-v1.json` hold it in place.
//!
//! A key is its columns' values in the order of the key, with nothing before, between or after them. All numbers are
//! little-endian. A *length* or *count* is one byte below 255; from 255 on it is the byte `ff` and a `u64`. A *whole*
//! number is an `i64`; where it does not fit, `80` is added to the tag and an `i128` follows. (Short, because the time
//! of a SipHash goes by 8-byte words.)
//!
//! | tag | kind | payload |
//! |---|---|---|
//! | `00` | null, of every kind | none |
//! | `01` | boolean | 1 byte: 0 or 1 |
//! | `02` | integer, signed or unsigned, any width | whole |
//! | `03` | float, any width | the bits of the `f64`; NaN is `7ff8000000000000`, -0.0 is 0.0 |
//! | `04` | decimal, any width | `i32` scale, then the 256-bit unscaled value, with trailing zeros stripped (the scale may become negative); zero has scale 0 |
//! | `05` | text | length, UTF-8 bytes |
//! | `06` | binary, fixed size or not | length, bytes |
//! | `07` | date | whole: milliseconds since 1970-01-01 (a Date64 that is not a whole day stays distinct) |
//! | `08` | time of day | whole: nanoseconds since midnight |
//! | `09` | instant (timestamp with a zone, whichever) | whole: nanoseconds since 1970-01-01T00:00:00Z |
//! | `0a` | timestamp without a zone | whole: nanoseconds since 1970-01-01T00:00:00 |
//! | `0b` | duration | whole: nanoseconds |
//! | `0c` | JSON (text of the extension type `arrow.json`) | length, canonical JSON text; the JSON value `null` is tag `00` |
//! | `0d` | JSON column whose text is not JSON | length, the text as it is |
//! | `0e` | struct | count of the members that are not null, then for each of them, sorted by the bytes of its name: length, name, value |
//! | `0f` | list of any layout | count, then each element's value (tag `00` where null) |
//! | `10` | map | count, then for each entry, sorted by the bytes of its encoded key: key, value |
//!
//! Dictionary and run-end encoded columns are encoded as the values they stand for. A struct leaves its null members
//! out so that a new nullable member never changes a token.
//!
//! *Canonical JSON*: no white space; members of an object sorted by the UTF-8 bytes of their unescaped names (members
//! of the same name keep their order); strings unescaped but for `\"`, `\\` and `\u00xx` (lower case) below U+0020;
//! numbers by their decimal value: `0`, or an optional `-`, the significant digits without leading and trailing
//! zeros, `e` and the exponent (`1.50` is `15e-1`, `100` is `1e2`, `-0.0` is `0`). Text that is no JSON document,
//! holds a lone surrogate, nests deeper than 256 or has an exponent of more than 30 digits takes tag `0d`.

use arrow::datatypes::i256;

/// The version of the encoding that this program writes.
pub const ENCODING: u32 = 1;

pub(super) const NULL: u8 = 0x00;
pub(super) const BOOLEAN: u8 = 0x01;
pub(super) const INTEGER: u8 = 0x02;
pub(super) const FLOAT: u8 = 0x03;
pub(super) const DECIMAL: u8 = 0x04;
pub(super) const TEXT: u8 = 0x05;
pub(super) const BINARY: u8 = 0x06;
pub(super) const DATE: u8 = 0x07;
pub(super) const TIME: u8 = 0x08;
pub(super) const INSTANT: u8 = 0x09;
pub(super) const TIMESTAMP: u8 = 0x0a;
pub(super) const DURATION: u8 = 0x0b;
pub(super) const JSON: u8 = 0x0c;
pub(super) const NOT_JSON: u8 = 0x0d;
pub(super) const STRUCT: u8 = 0x0e;
pub(super) const LIST: u8 = 0x0f;
pub(super) const MAP: u8 = 0x10;
/// Added to the tag of a whole number that does not fit in an `i64`.
const WIDE: u8 = 0x80;
/// Says that a length follows as a `u64`.
const LONG: u8 = 0xff;

pub(super) fn null(out: &mut Vec<u8>) {
    out.push(NULL);
}

pub(super) fn boolean(out: &mut Vec<u8>, value: bool) {
    out.extend_from_slice(&[BOOLEAN, u8::from(value)]);
}

/// Integers and all times: one whole number under its tag.
#[inline]
pub(super) fn whole(out: &mut Vec<u8>, tag: u8, value: i128) {
    if let Ok(value) = i64::try_from(value) {
        small_whole(out, tag, value);
    } else {
        out.push(tag | WIDE);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[inline]
pub(super) fn small_whole(out: &mut Vec<u8>, tag: u8, value: i64) {
    let mut bytes = [tag; 9];
    bytes[1..].copy_from_slice(&value.to_le_bytes());
    out.extend_from_slice(&bytes);
}

pub(super) fn float(out: &mut Vec<u8>, value: f64) {
    let bits = if value.is_nan() {
        0x7ff8_0000_0000_0000
    } else if value == 0.0 {
        0
    } else {
        value.to_bits()
    };
    let mut bytes = [FLOAT; 9];
    bytes[1..].copy_from_slice(&bits.to_le_bytes());
    out.extend_from_slice(&bytes);
}

pub(super) fn decimal(out: &mut Vec<u8>, unscaled: i128, scale: i32) {
    let (unscaled, scale) = strip(unscaled, scale);
    put_decimal(out, i256::from_i128(unscaled), scale);
}

pub(super) fn wide_decimal(out: &mut Vec<u8>, mut unscaled: i256, mut scale: i32) {
    let ten = i256::from_i128(10);
    loop {
        if let Some(narrow) = unscaled.to_i128() {
            return decimal(out, narrow, scale);
        }
        if unscaled.wrapping_rem(ten) != i256::ZERO {
            return put_decimal(out, unscaled, scale);
        }
        unscaled = unscaled.wrapping_div(ten);
        scale -= 1;
    }
}

/// Bytes under a tag, after their length.
#[inline]
pub(super) fn bytes(out: &mut Vec<u8>, tag: u8, value: &[u8]) {
    match short(value.len()) {
        Some(length) => out.extend_from_slice(&[tag, length]),
        None => {
            out.extend_from_slice(&[tag, LONG]);
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
    }
    out.extend_from_slice(value);
}

/// Bytes after their length, without a tag: the name of a struct member.
pub(super) fn name(out: &mut Vec<u8>, value: &[u8]) {
    let mut tagged = Vec::with_capacity(value.len() + 10);
    bytes(&mut tagged, NULL, value);
    out.extend_from_slice(tagged.get(1..).unwrap_or_default());
}

/// Begins something whose count or length comes later; give the result to [`close`].
pub(super) fn open(out: &mut Vec<u8>, tag: u8) -> usize {
    out.extend_from_slice(&[tag, 0]);
    out.len()
}

/// Writes the count or length into what [`open`] began.
pub(super) fn close(out: &mut Vec<u8>, opened: usize, count: usize) {
    if let Some(place) = out.get_mut(opened - 1) {
        *place = short(count).unwrap_or(LONG);
    }
    if short(count).is_none() {
        out.splice(opened..opened, (count as u64).to_le_bytes());
    }
}

/// A length in its one-byte form, if it has one.
#[inline]
pub(super) fn short(length: usize) -> Option<u8> {
    u8::try_from(length).ok().filter(|length| *length != LONG)
}

fn put_decimal(out: &mut Vec<u8>, unscaled: i256, scale: i32) {
    out.push(DECIMAL);
    out.extend_from_slice(&scale.to_le_bytes());
    out.extend_from_slice(&unscaled.to_le_bytes());
}

fn strip(mut unscaled: i128, mut scale: i32) -> (i128, i32) {
    if unscaled == 0 {
        return (0, 0);
    }
    loop {
        // Division of 128-bit numbers is several times slower, and most decimals are small.
        if let Ok(mut small) = i64::try_from(unscaled) {
            while small % 10 == 0 {
                small /= 10;
                scale -= 1;
            }
            return (i128::from(small), scale);
        }
        if unscaled % 10 != 0 {
            return (unscaled, scale);
        }
        unscaled /= 10;
        scale -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(put: impl Fn(&mut Vec<u8>)) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out);
        out
    }

    #[test]
    fn decimals_are_the_same_by_value_whatever_their_scale_and_width() {
        let plain = written(|out| decimal(out, 15, 1));
        assert_eq!(plain, written(|out| decimal(out, 1_500_000_000_000_000_000_000_000, 24)));
        assert_eq!(plain, written(|out| wide_decimal(out, i256::from_i128(150), 2)));
        let long = i256::from_string(&format!("15{}", "0".repeat(70))).unwrap();
        assert_eq!(plain, written(|out| wide_decimal(out, long, 71)));
        assert_ne!(plain, written(|out| decimal(out, 15, 2)));
        assert_eq!(written(|out| decimal(out, 0, 7)), written(|out| wide_decimal(out, i256::ZERO, -7)));
    }

    #[test]
    fn extremes_of_decimals_neither_overflow_nor_loop() {
        for value in [i256::MIN, i256::MAX, i256::from_i128(i128::MIN), i256::from_i128(i128::MAX)] {
            assert_eq!(written(|out| wide_decimal(out, value, -128)).len(), 37);
        }
        assert_eq!(written(|out| decimal(out, i128::MIN, 127)).len(), 37);
    }

    #[test]
    fn a_length_of_255_takes_the_long_form_wherever_it_stands() {
        for (length, head) in [(254, vec![TEXT, 254]), (255, vec![TEXT, 255, 255, 0, 0, 0, 0, 0, 0, 0])] {
            let text = "x".repeat(length);
            let at_once = written(|out| bytes(out, TEXT, text.as_bytes()));
            assert_eq!(at_once[..head.len()], head);
            assert_eq!(written(|out| name(out, text.as_bytes())), at_once[1..]);
            let later = written(|out| {
                let opened = open(out, TEXT);
                out.extend_from_slice(text.as_bytes());
                close(out, opened, length);
            });
            assert_eq!(later, at_once);
        }
    }

    #[test]
    fn whole_numbers_have_one_form_each() {
        assert_eq!(written(|out| whole(out, INTEGER, i64::MAX.into())).len(), 9);
        let wide = written(|out| whole(out, INTEGER, i128::from(i64::MAX) + 1));
        assert_eq!((wide.len(), wide[0]), (17, 0x82));
    }

    #[test]
    fn there_is_one_nan_and_one_zero() {
        let nan = written(|out| float(out, f64::NAN));
        assert_eq!(nan, written(|out| float(out, f64::from_bits(0xfff0_0000_0000_0001))));
        assert_eq!(written(|out| float(out, 0.0)), written(|out| float(out, -0.0)));
        assert_ne!(written(|out| float(out, 0.0)), written(|out| float(out, f64::from_bits(1))));
    }
}
