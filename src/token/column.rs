//! A column of values, ready to be appended row by row as canonical bytes.
//!
//! An array is laid out once a batch ([`super::layout`]): numbers widened, encodings and list layouts taken off, struct
//! members sorted. After that any row is appended in a few nanoseconds. Values under a null are never looked at.

use super::{encode, json, sip::Sip};
use arrow::{
    array::{BinaryArray, BinaryViewArray, BooleanArray, FixedSizeBinaryArray, LargeBinaryArray},
    buffer::{NullBuffer, ScalarBuffer},
    datatypes::i256,
};
use std::ops::Range;

/// An array laid out so that its rows can be appended one by one.
#[derive(Debug)]
pub(super) struct Column {
    nulls: Option<NullBuffer>,
    values: Values,
}

/// The values of a column, by the way they are encoded.
#[derive(Debug)]
pub(super) enum Values {
    /// Nothing but nulls.
    Null,
    Boolean(BooleanArray),
    /// Whole numbers under their tag, to be multiplied: integers and all times.
    Whole {
        tag: u8,
        values: ScalarBuffer<i64>,
        factor: i64,
    },
    Unsigned(ScalarBuffer<u64>),
    Float(ScalarBuffer<f64>),
    /// Unscaled values and their scale.
    Decimal(ScalarBuffer<i128>, i32),
    WideDecimal(ScalarBuffer<i256>, i32),
    /// Text or binary under its tag.
    Bytes(u8, Bytes),
    Json(Bytes),
    /// Members sorted by name, each with its encoded name.
    Struct(Vec<(Vec<u8>, Column)>),
    /// The elements of each row.
    List(Vec<Range<usize>>, Box<Column>),
    /// The entries of each row: keys, values.
    Map(Vec<Range<usize>>, Box<Column>, Box<Column>),
    Indexed(Indexed),
}

/// Rows that point into values: dictionary and run-end encoding.
#[derive(Debug)]
pub(super) struct Indexed {
    pub(super) index: Vec<usize>,
    pub(super) values: Box<Column>,
    /// How many values there are.
    pub(super) len: usize,
}

/// Byte strings in any layout.
#[derive(Debug)]
pub(super) enum Bytes {
    Small(BinaryArray),
    Large(LargeBinaryArray),
    View(BinaryViewArray),
    Fixed(FixedSizeBinaryArray),
}

impl Column {
    pub(super) fn new(nulls: Option<NullBuffer>, values: Values) -> Self {
        Self { nulls, values }
    }

    /// This column with the rows that `mask` marks as null taken for null too.
    pub(super) fn masked(self, mask: Option<&NullBuffer>) -> Self {
        Self { nulls: NullBuffer::union(self.nulls.as_ref(), mask), values: self.values }
    }

    /// The index and the values of a column that is dictionary or run-end encoded.
    pub(super) fn indexed(&self) -> Option<&Indexed> {
        match &self.values {
            Values::Indexed(indexed) => Some(indexed),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn is_null(&self, row: usize) -> bool {
        self.nulls.as_ref().is_some_and(|nulls| nulls.is_null(row))
    }

    /// The digest of one row's canonical bytes where they need not be written first; the commonest kinds of key.
    #[inline]
    pub(super) fn direct(&self, row: usize, sip: Sip) -> Option<u128> {
        if self.is_null(row) {
            return None;
        }
        match &self.values {
            Values::Bytes(tag, bytes) => {
                let value = bytes.value(row);
                Some(sip.bytes([*tag, encode::short(value.len())?], value))
            }
            Values::Whole { tag, values, factor } => Some(sip.whole(*tag, values[row].checked_mul(*factor)?)),
            _ => None,
        }
    }

    /// Appends the canonical bytes of one row; says whether it is anything but null.
    #[inline]
    pub(super) fn append(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.is_null(row) {
            encode::null(out);
            return false;
        }
        match &self.values {
            Values::Null => {
                encode::null(out);
                return false;
            }
            Values::Boolean(values) => encode::boolean(out, values.value(row)),
            Values::Whole { tag, values, factor } => match values[row].checked_mul(*factor) {
                Some(value) => encode::small_whole(out, *tag, value),
                None => encode::whole(out, *tag, i128::from(values[row]) * i128::from(*factor)),
            },
            Values::Unsigned(values) => encode::whole(out, encode::INTEGER, i128::from(values[row])),
            Values::Float(values) => encode::float(out, values[row]),
            Values::Decimal(values, scale) => encode::decimal(out, values[row], *scale),
            Values::WideDecimal(values, scale) => encode::wide_decimal(out, values[row], *scale),
            Values::Bytes(tag, bytes) => encode::bytes(out, *tag, bytes.value(row)),
            Values::Json(bytes) => return json::append(out, bytes.value(row)),
            Values::Struct(members) => {
                let opened = encode::open(out, encode::STRUCT);
                let mut count = 0;
                for (name, member) in members {
                    let before = out.len();
                    out.extend_from_slice(name);
                    if member.append(row, out) {
                        count += 1;
                    } else {
                        out.truncate(before);
                    }
                }
                encode::close(out, opened, count);
            }
            Values::List(ranges, elements) => {
                let opened = encode::open(out, encode::LIST);
                let range = ranges[row].clone();
                encode::close(out, opened, range.len());
                range.for_each(|element| {
                    elements.append(element, out);
                });
            }
            Values::Map(ranges, keys, values) => {
                let opened = encode::open(out, encode::MAP);
                let mut entries: Vec<(Vec<u8>, usize)> = Vec::with_capacity(ranges[row].len());
                for entry in ranges[row].clone() {
                    let mut key = Vec::new();
                    keys.append(entry, &mut key);
                    entries.push((key, entry));
                }
                entries.sort_by(|a, b| a.0.cmp(&b.0));
                encode::close(out, opened, entries.len());
                for (key, entry) in &entries {
                    out.extend_from_slice(key);
                    values.append(*entry, out);
                }
            }
            Values::Indexed(indexed) => return indexed.values.append(indexed.index[row], out),
        }
        true
    }
}

impl Bytes {
    #[inline]
    fn value(&self, row: usize) -> &[u8] {
        match self {
            Self::Small(array) => array.value(row),
            Self::Large(array) => array.value(row),
            Self::View(array) => array.value(row),
            Self::Fixed(array) => array.value(row),
        }
    }
}
