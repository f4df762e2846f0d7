//! One data page without some of its rows.

use super::codec::{self, Press};
use super::lists::Lists;
use super::values::{self, length_prefix, pick, with_length_prefix};
use super::{Fit, Runs, hybrid, snappy, unfit};
use crate::source::parquet::compact::{DATA_PAGE_V2, PageHead};
use arrow::buffer::BooleanBuffer;
use parquet::basic::{Compression, ConvertedType, Encoding, LogicalType, Type};
use parquet::schema::types::ColumnDescriptor;

/// What must be known of a column to cut its pages.
#[derive(Debug, Clone, Copy)]
pub(in crate::source::parquet) struct Shape {
    pub(super) kind: Type,
    /// Bytes of a value of fixed length.
    pub(super) length: usize,
    pub(super) max_def: i16,
    pub(super) max_rep: i16,
    pub(super) codec: Compression,
    /// Whether values are text.
    pub(super) text: bool,
}

impl Shape {
    pub(in crate::source::parquet) fn of(column: &ColumnDescriptor, codec: Compression) -> Self {
        Self {
            kind: column.physical_type(),
            length: usize::try_from(column.type_length()).unwrap_or(0),
            max_def: column.max_def_level(),
            max_rep: column.max_rep_level(),
            codec,
            text: matches!(
                column.converted_type(),
                ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM
            ) || matches!(
                column.logical_type_ref(),
                Some(LogicalType::String | LogicalType::Json | LogicalType::Enum)
            ),
        }
    }
}

/// Memory that pages are unpacked in, one after the other.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    plain: Vec<u8>,
    unpacked: snappy::Unpacked,
}

impl Scratch {
    /// Bytes that it keeps.
    pub(super) fn memory(&self) -> usize {
        self.plain.capacity() + self.unpacked.memory()
    }
}

/// A page whose parts are told apart, unpacked.
#[derive(Debug)]
pub(super) struct Opened<'s> {
    /// Repetition levels, if the column has any.
    rep: Option<Vec<u32>>,
    /// Definition levels; none if the column has none, or if all are the same.
    def: Option<Vec<u32>>,
    /// The definition level of all, if they are the same.
    same_def: u32,
    /// What is packed of it, unpacked: of version 1 all, of version 2 the values.
    body: &'s [u8],
    /// The same packed, if that can be edited.
    packed: Option<(&'s [u8], &'s snappy::Unpacked)>,
    /// Where the values begin in `body`.
    values: usize,
    /// Values, nulls included.
    count: usize,
    head: PageHead,
    encoding: Encoding,
}

/// A page that was cut.
#[derive(Debug)]
pub(super) struct CutPage {
    /// Its header, but for sizes and checksum.
    pub(super) head: PageHead,
    /// Its body as stored.
    pub(super) body: Vec<u8>,
    /// Bytes of its body unpacked.
    pub(super) unpacked: usize,
    /// Rows that begin in it.
    pub(super) rows: usize,
    /// Values that are null.
    pub(super) nulls: usize,
}

/// Unpacks a data page and finds its parts. `ranges` is how many ranges of its rows are going to be kept.
pub(super) fn open<'s>(
    shape: &Shape,
    head: &PageHead,
    stored: &'s [u8],
    ranges: usize,
    scratch: &'s mut Scratch,
) -> Fit<Opened<'s>> {
    let count = usize::try_from(head.values).unwrap_or(0);
    let size = usize::try_from(head.uncompressed).unwrap_or(0);
    let Some(encoding) = encoding_of(head.encoding).filter(|encoding| values::can_cut(*encoding, shape.kind))
    else {
        return unfit("an encoding that cannot be cut");
    };
    let version_2 = head.kind == DATA_PAGE_V2;
    let (mut rep, mut def) = (0..0, 0..0);
    if version_2 {
        let part = |length: i64| usize::try_from(length).unwrap_or(usize::MAX);
        rep = 0..part(head.rep_length);
        def = rep.end..rep.end.saturating_add(part(head.def_length));
    }
    let levels_2 = def.end;
    let Some((before, stored)) = stored.split_at_checked(levels_2).filter(|_| levels_2 <= size) else {
        return unfit("levels longer than their page");
    };
    let size = size - levels_2;
    let is_packed = shape.codec != Compression::UNCOMPRESSED && (!version_2 || head.is_compressed);
    let fixed_places = encoding == Encoding::PLAIN && shape.kind != Type::BOOLEAN;
    let mut packed = None;
    let body: &[u8] = if !is_packed {
        if stored.len() != size {
            return unfit("a page of another length than its header says");
        }
        stored
    } else if version_2 && stored.is_empty() && size == 0 {
        &[]
    } else if fixed_places && shape.codec == Compression::SNAPPY && snappy::is_worth_while(size, ranges) {
        snappy::unpack(stored, size, &mut scratch.unpacked)?;
        packed = Some((stored, &scratch.unpacked));
        scratch.unpacked.bytes()
    } else {
        codec::decompress(shape.codec, stored, size, &mut scratch.plain)?;
        &scratch.plain
    };
    let mut values = 0;
    if !version_2 {
        let mut section = |max: i16, encoding: i64| {
            if max == 0 {
                return Ok(values..values);
            }
            if encoding_of(encoding) != Some(Encoding::RLE) {
                return unfit("levels in a deprecated encoding");
            }
            let (length, _) = length_prefix(body.get(values..).unwrap_or_default())?;
            let section = values + 4..(values + 4).saturating_add(length);
            values = section.end;
            Ok(section)
        };
        rep = section(shape.max_rep, head.rep_encoding)?;
        def = section(shape.max_def, head.def_encoding)?;
    }
    let levels = if version_2 { before } else { body };
    let (Some(rep_bytes), Some(def_bytes), true) = (levels.get(rep), levels.get(def), values <= body.len())
    else {
        return unfit("levels longer than their page");
    };
    let (rep_width, def_width) = (level_width(shape.max_rep), level_width(shape.max_def));
    let rep = (shape.max_rep > 0).then(|| hybrid::decode(rep_bytes, rep_width, count)).transpose()?;
    let (mut def, mut same_def) = (None, 0);
    if shape.max_def > 0 {
        match hybrid::single_run(def_bytes, def_width, count) {
            Some(level) => same_def = level,
            None => def = Some(hybrid::decode(def_bytes, def_width, count)?),
        }
    }
    let within = |levels: &Option<Vec<u32>>, max: i16| {
        let max = u32::from(max.cast_unsigned());
        levels.as_ref().is_none_or(|levels| levels.iter().all(|level| *level <= max))
    };
    let same_within = same_def <= u32::from(shape.max_def.cast_unsigned());
    if !(within(&rep, shape.max_rep) && within(&def, shape.max_def) && same_within) {
        return unfit("a level that its column does not have");
    }
    Ok(Opened { rep, def, same_def, body, packed, values, count, head: *head, encoding })
}

/// Bits of a level.
fn level_width(max: i16) -> u8 {
    (u16::BITS - max.cast_unsigned().leading_zeros()) as u8
}

impl Opened<'_> {
    /// How many rows begin in this page, and whether its first value belongs to a row that began before.
    pub(super) fn rows(&self) -> (usize, bool) {
        match &self.rep {
            None => (self.count, false),
            Some(rep) => {
                (rep.iter().filter(|level| **level == 0).count(), rep.first().is_some_and(|level| *level > 0))
            }
        }
    }

    /// The values as they are encoded, and how many there can be: none for nulls.
    pub(super) fn stored_values(&self) -> (&[u8], usize) {
        (self.body.get(self.values..).unwrap_or_default(), self.count)
    }

    /// How its values are encoded.
    pub(super) fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Adds what it tells of the lists that its column shares with others.
    pub(super) fn tell(&self, lists: &mut Lists) {
        let Some(rep) = &self.rep else { return };
        match &self.def {
            Some(def) => lists.add(rep, def.iter().copied()),
            None => lists.add(rep, std::iter::repeat(self.same_def)),
        }
    }

    /// Values that are null.
    pub(super) fn nulls(&self, shape: &Shape) -> usize {
        let max_def = shape.max_def.cast_unsigned().into();
        match &self.def {
            Some(levels) => levels.iter().filter(|level| **level < max_def).count(),
            None if self.same_def < max_def => self.count,
            None => 0,
        }
    }

    /// The page with the rows of `keep` only, one bit for each row with a value in it. None if nothing is left.
    pub(super) fn cut(self, shape: &Shape, keep: &BooleanBuffer, press: &mut Press) -> Fit<Option<CutPage>> {
        let entries = self.entries(keep);
        let count: usize = entries.iter().map(ExactSizeIterator::len).sum();
        if count == 0 {
            return Ok(None);
        }
        let max_def = shape.max_def.cast_unsigned().into();
        let (stored_values, kept, values) = self.values(&entries, max_def);
        let rep = self.rep.as_ref().map(|levels| pick(levels, &entries));
        let def = self.def.as_ref().map(|levels| pick(levels, &entries));
        let rows = rep.as_ref().map_or(count, |levels| levels.iter().filter(|level| **level == 0).count());
        let write_rep = |out: &mut Vec<u8>| {
            hybrid::encode(rep.as_deref().unwrap_or_default(), level_width(shape.max_rep), out)
        };
        let write_def = |out: &mut Vec<u8>| match &def {
            Some(levels) => hybrid::encode(levels, level_width(shape.max_def), out),
            None => hybrid::push_run(self.same_def, count, level_width(shape.max_def), out),
        };
        let version_2 = self.head.kind == DATA_PAGE_V2;
        let mut head = self.head;
        let mut out = std::mem::take(&mut press.plain);
        out.clear();
        if version_2 {
            if shape.max_rep > 0 {
                write_rep(&mut out);
            }
            head.rep_length = out.len() as i64;
            if shape.max_def > 0 {
                write_def(&mut out);
            }
            head.def_length = out.len() as i64 - head.rep_length;
            head.nulls = (count - values) as i64;
            head.rows = Some(rows as i64);
        } else {
            if shape.max_rep > 0 {
                with_length_prefix(&mut out, write_rep)?;
            }
            if shape.max_def > 0 {
                with_length_prefix(&mut out, write_def)?;
            }
        }
        let levels = out.len();
        head.values = count as i64;
        let values_of = self.body.get(self.values..).unwrap_or_default();
        if let Some((packed, unpacked)) = self.packed.filter(|_| stored_values > 0) {
            let mut pieces = values::plain((shape.kind, shape.length), values_of, stored_values, &kept)?;
            let unpacked_bytes = levels + pieces.iter().map(ExactSizeIterator::len).sum::<usize>();
            for piece in &mut pieces {
                *piece = piece.start + self.values..piece.end + self.values;
            }
            // Version 2 packs the values only, version 1 the levels with them.
            let body = if version_2 {
                [&out[..], &snappy::edit(packed, unpacked, &[], &pieces)?].concat()
            } else {
                snappy::edit(packed, unpacked, &out, &pieces)?
            };
            press.plain = out;
            return Ok(Some(CutPage { head, body, unpacked: unpacked_bytes, rows, nulls: count - values }));
        }
        let kind = (self.encoding, shape.kind, shape.length);
        values::cut(kind, values_of, stored_values, &kept, &mut out)?;
        let unpacked = out.len();
        let (before, rest) = out.split_at(if version_2 { levels } else { 0 });
        let body = match version_2 {
            true if head.is_compressed => [before, &press.pack(shape.codec, rest)?].concat(),
            true => out.clone(),
            false => press.pack(shape.codec, rest)?,
        };
        press.plain = out;
        Ok(Some(CutPage { head, body, unpacked, rows, nulls: count - values }))
    }

    /// The runs of entries (values, nulls included) that belong to kept rows.
    fn entries(&self, keep: &BooleanBuffer) -> Runs {
        let Some(rep) = &self.rep else { return keep.set_slices().map(|(start, end)| start..end).collect() };
        let mut runs: Runs = Vec::new();
        let mut row = 0;
        for (at, level) in rep.iter().enumerate() {
            if *level == 0 && at > 0 {
                row += 1;
            }
            if row < keep.len() && keep.value(row) {
                extend(&mut runs, at);
            }
        }
        runs
    }

    /// How many values the page stores, which of them are kept, and how many that is.
    fn values(&self, entries: &Runs, max_def: u32) -> (usize, Runs, usize) {
        let Some(def) = &self.def else {
            // All are there, or none is.
            return if self.same_def == max_def {
                (self.count, entries.clone(), entries.iter().map(ExactSizeIterator::len).sum())
            } else {
                (0, Vec::new(), 0)
            };
        };
        let mut runs: Runs = Vec::new();
        let (mut value, mut kept, mut entry) = (0, 0, 0);
        let stored = |from: usize, to: usize| {
            def.get(from..to).unwrap_or_default().iter().filter(|level| **level == max_def).count()
        };
        for run in entries {
            value += stored(entry, run.start);
            let length = stored(run.start, run.end);
            match runs.last_mut() {
                Some(last) if last.end == value => last.end += length,
                _ if length > 0 => runs.push(value..value + length),
                _ => {}
            }
            value += length;
            kept += length;
            entry = run.end;
        }
        value += stored(entry, def.len());
        (value, runs, kept)
    }
}

/// Adds one entry to ascending runs.
fn extend(runs: &mut Runs, at: usize) {
    match runs.last_mut() {
        Some(last) if last.end == at => last.end += 1,
        _ => runs.push(at..at + 1),
    }
}

/// The encoding that a page header numbers so.
pub(super) fn encoding_of(number: i64) -> Option<Encoding> {
    Some(match number {
        0 => Encoding::PLAIN,
        2 => Encoding::PLAIN_DICTIONARY,
        3 => Encoding::RLE,
        5 => Encoding::DELTA_BINARY_PACKED,
        6 => Encoding::DELTA_LENGTH_BYTE_ARRAY,
        7 => Encoding::DELTA_BYTE_ARRAY,
        8 => Encoding::RLE_DICTIONARY,
        9 => Encoding::BYTE_STREAM_SPLIT,
        _ => return None,
    })
}
