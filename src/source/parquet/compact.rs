//! Just enough of Thrift's compact protocol to look at a footer or a page header before a decoder believes it.
//!
//! Promises: never panics, never recurses deeper than a fixed bound, never allocates by a number it has read.

/// How deep skipped values may nest.
const MAX_DEPTH: u8 = 32;

/// Why a structure could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// The bytes end before the structure does.
    Short,
    /// The bytes are no such structure.
    Malformed,
}

type Read<T> = Result<T, Stop>;

/// Wire types.
const TRUE: u8 = 1;
const FALSE: u8 = 2;
const BYTE: u8 = 3;
const I16: u8 = 4;
const I32: u8 = 5;
const I64: u8 = 6;
const DOUBLE: u8 = 7;
const BINARY: u8 = 8;
const LIST: u8 = 9;
const SET: u8 = 10;
const MAP: u8 = 11;
const STRUCT: u8 = 12;
const UUID: u8 = 13;

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    fn byte(&mut self) -> Read<u8> {
        let byte = *self.bytes.get(self.at).ok_or(Stop::Short)?;
        self.at += 1;
        Ok(byte)
    }

    fn advance(&mut self, count: u64) -> Read<()> {
        let count = usize::try_from(count).map_err(|_| Stop::Malformed)?;
        let end = self.at.checked_add(count).ok_or(Stop::Malformed)?;
        if end > self.bytes.len() {
            return Err(Stop::Short);
        }
        self.at = end;
        Ok(())
    }

    fn varint(&mut self) -> Read<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Stop::Malformed)
    }

    fn zigzag(&mut self) -> Read<i64> {
        let value = self.varint()?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    /// The next field of a struct: its id and wire type, or `None` at the struct's end.
    fn field(&mut self, last: &mut i16) -> Read<Option<(i16, u8)>> {
        let head = self.byte()?;
        if head == 0 {
            return Ok(None);
        }
        let id = match head >> 4 {
            0 => i16::try_from(self.zigzag()?).map_err(|_| Stop::Malformed)?,
            delta => last.checked_add(i16::from(delta)).ok_or(Stop::Malformed)?,
        };
        *last = id;
        Ok(Some((id, head & 0x0f)))
    }

    /// The wire type and the number of elements of a list.
    fn list(&mut self) -> Read<(u8, u64)> {
        let head = self.byte()?;
        let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
        Ok((head & 0x0f, count))
    }

    /// A number that must be one of 32 bits.
    fn int32(&mut self, wire: u8) -> Read<i64> {
        if wire != I32 {
            return Err(Stop::Malformed);
        }
        i32::try_from(self.zigzag()?).map(i64::from).map_err(|_| Stop::Malformed)
    }

    fn skip(&mut self, wire: u8, in_list: bool, depth: u8) -> Read<()> {
        let depth = depth.checked_sub(1).ok_or(Stop::Malformed)?;
        match wire {
            // Decoders that skip such a list give its elements no bytes, so that a few bytes keep them busy for hours. No
            // footer or page header has one.
            TRUE | FALSE if in_list => Err(Stop::Malformed),
            TRUE | FALSE => Ok(()),
            BYTE => self.advance(1),
            I16 | I32 | I64 => self.varint().map(drop),
            DOUBLE => self.advance(8),
            UUID => self.advance(16),
            BINARY => {
                let length = self.varint()?;
                self.advance(length)
            }
            LIST | SET => {
                let (element, count) = self.list()?;
                // Every element has at least one byte, so a count cannot make this loop longer than the input.
                (0..count).try_for_each(|_| self.skip(element, true, depth))
            }
            MAP => {
                let count = self.varint()?;
                if count == 0 {
                    return Ok(());
                }
                let kinds = self.byte()?;
                (0..count).try_for_each(|_| {
                    self.skip(kinds >> 4, true, depth)?;
                    self.skip(kinds & 0x0f, true, depth)
                })
            }
            STRUCT => self.fields(|cursor, _, wire| cursor.skip(wire, false, depth)),
            _ => Err(Stop::Malformed),
        }
    }

    /// Reads a struct, giving each field to `visit`, which must consume it.
    fn fields(&mut self, mut visit: impl FnMut(&mut Self, i16, u8) -> Read<()>) -> Read<()> {
        let mut last = 0;
        while let Some((id, wire)) = self.field(&mut last)? {
            visit(self, id, wire)?;
        }
        Ok(())
    }
}

/// Whether `bytes` begin with a whole structure of lists that are no longer than their bytes. `booleans` is the field
/// that may be a list of booleans, if one may.
pub(super) fn is_whole(bytes: &[u8], booleans: Option<i16>) -> bool {
    let read = Cursor::new(bytes).fields(|cursor, id, wire| {
        if wire != LIST || booleans != Some(id) {
            return cursor.skip(wire, false, MAX_DEPTH);
        }
        match cursor.list()? {
            (TRUE | FALSE, count) => cursor.advance(count),
            (_, 0) => Ok(()),
            _ => Err(Stop::Malformed),
        }
    });
    read.is_ok()
}

/// What a footer says about itself that must be known before it is parsed for good.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct FooterShape {
    /// Depth of the deepest column; a flat table has depth 1.
    pub(super) depth: usize,
    /// Some columns are encrypted.
    pub(super) encrypted: bool,
    /// Elements of the schema: columns, and groups of columns.
    pub(super) columns: u64,
    /// Column chunks of all row groups.
    pub(super) chunks: u64,
}

/// Looks at the shape of a footer.
pub(super) fn footer_shape(bytes: &[u8]) -> Read<FooterShape> {
    let mut shape = FooterShape::default();
    Cursor::new(bytes).fields(|cursor, id, wire| match (id, wire) {
        // A decoder takes known fields for what they should be, whatever their wire types say.
        (1, I32) | (3, I64) | (6 | 9, BINARY) | (5 | 7, LIST) => cursor.skip(wire, false, MAX_DEPTH),
        (2, LIST) => {
            let (depth, columns) = schema_depth(cursor)?;
            // Whichever of two lists a decoder takes.
            (shape.depth, shape.columns) = (shape.depth.max(depth), shape.columns.max(columns));
            Ok(())
        }
        (4, LIST) => {
            shape.chunks = shape.chunks.max(count_chunks(cursor)?);
            Ok(())
        }
        (8, _) => {
            shape.encrypted = true;
            cursor.skip(wire, false, MAX_DEPTH)
        }
        (1..=9, _) => Err(Stop::Malformed),
        _ => cursor.skip(wire, false, MAX_DEPTH),
    })?;
    Ok(shape)
}

/// How many column chunks the row groups have, and at least one for each row group.
fn count_chunks(cursor: &mut Cursor<'_>) -> Read<u64> {
    let (element, groups) = cursor.list()?;
    if element != STRUCT && groups > 0 {
        return Err(Stop::Malformed);
    }
    let mut chunks = 0u64;
    for _ in 0..groups {
        let before = chunks;
        cursor.fields(|cursor, id, wire| match (id, wire) {
            (1, LIST) => {
                let (element, count) = cursor.list()?;
                chunks = chunks.saturating_add(count);
                // Every element has at least one byte, so a count cannot make this loop longer than the input.
                (0..count).try_for_each(|_| cursor.skip(element, true, MAX_DEPTH))
            }
            (1, _) => Err(Stop::Malformed),
            _ => cursor.skip(wire, false, MAX_DEPTH),
        })?;
        chunks = chunks.max(before.saturating_add(1));
    }
    Ok(chunks)
}

/// The schema is a tree flattened depth first; each element says how many children follow. Gives the depth of the
/// deepest leaf, and how many elements there are.
fn schema_depth(cursor: &mut Cursor<'_>) -> Read<(usize, u64)> {
    let (element, count) = cursor.list()?;
    if element != STRUCT {
        return Err(Stop::Malformed);
    }
    let (mut open, mut deepest): (Vec<u64>, usize) = (Vec::new(), 0);
    for _ in 0..count {
        let mut children = 0;
        cursor.fields(|cursor, id, wire| match (id, wire) {
            (5, I32) => {
                // More than there are would be made room for.
                children = u64::try_from(cursor.zigzag()?).map_err(|_| Stop::Malformed)?;
                if children < count { Ok(()) } else { Err(Stop::Malformed) }
            }
            (1..=3 | 6..=9, I32) | (4, BINARY) | (10, STRUCT) => cursor.skip(wire, false, MAX_DEPTH),
            (1..=10, _) => Err(Stop::Malformed),
            _ => cursor.skip(wire, false, MAX_DEPTH),
        })?;
        deepest = deepest.max(open.len());
        if children > 0 {
            open.push(children);
        } else {
            // A leaf ends every ancestor of which it is the last child.
            while let Some(left) = open.last_mut() {
                *left -= 1;
                if *left > 0 {
                    break;
                }
                open.pop();
            }
        }
    }
    Ok((deepest, count))
}

/// Kinds of pages, as their headers number them.
pub(super) const DATA_PAGE: i64 = 0;
pub(super) const INDEX_PAGE: i64 = 1;
pub(super) const DICTIONARY_PAGE: i64 = 2;
pub(super) const DATA_PAGE_V2: i64 = 3;

/// The parts of a page header that are needed to walk and to bound pages.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct PageHead {
    /// One of the page kinds above.
    pub(super) kind: i64,
    /// Bytes after decompression.
    pub(super) uncompressed: i64,
    /// Bytes in the file, without the header.
    pub(super) compressed: i64,
    /// Checksum of the bytes in the file.
    pub(super) crc: Option<u32>,
    /// Values, nulls included; of a dictionary, its entries.
    pub(super) values: i64,
    /// Rows, where the page says so (version 2 only).
    pub(super) rows: Option<i64>,
    /// How values and levels are encoded, as the format numbers it.
    pub(super) encoding: i64,
    pub(super) def_encoding: i64,
    pub(super) rep_encoding: i64,
    /// Of version 2: values that are null, bytes of the levels, and whether the values after them are compressed.
    pub(super) nulls: i64,
    pub(super) def_length: i64,
    pub(super) rep_length: i64,
    pub(super) is_compressed: bool,
}

/// Reads a page header into `head`, as far as the bytes go, and gives its length.
///
/// A decoder takes the fields it knows for what they should be, whatever their wire types say, and the part of the header
/// that its kind asks for: a header that could be read in two ways is malformed.
pub(super) fn page_head(bytes: &[u8], head: &mut PageHead) -> Read<usize> {
    let mut cursor = Cursor::new(bytes);
    let (mut sizes, mut parts) = (0, 0);
    cursor.fields(|cursor, id, wire| {
        match id {
            1 => (head.kind, sizes) = (cursor.int32(wire)?, sizes | 1),
            2 => (head.uncompressed, sizes) = (cursor.int32(wire)?, sizes | 2),
            3 => (head.compressed, sizes) = (cursor.int32(wire)?, sizes | 4),
            4 => head.crc = Some(cursor.int32(wire)? as u32),
            5..=8 if wire != STRUCT => return Err(Stop::Malformed),
            5 => {
                parts |= 1 << DATA_PAGE;
                cursor.fields(|cursor, id, wire| {
                    match id {
                        1 => head.values = cursor.int32(wire)?,
                        2 => head.encoding = cursor.int32(wire)?,
                        3 => head.def_encoding = cursor.int32(wire)?,
                        4 => head.rep_encoding = cursor.int32(wire)?,
                        _ => cursor.skip(wire, false, MAX_DEPTH)?,
                    }
                    Ok(())
                })?;
            }
            7 => {
                parts |= 1 << DICTIONARY_PAGE;
                cursor.fields(|cursor, id, wire| {
                    match id {
                        1 => head.values = cursor.int32(wire)?,
                        2 => head.encoding = cursor.int32(wire)?,
                        _ => cursor.skip(wire, false, MAX_DEPTH)?,
                    }
                    Ok(())
                })?;
            }
            8 => {
                parts |= 1 << DATA_PAGE_V2;
                head.is_compressed = true;
                cursor.fields(|cursor, id, wire| {
                    match id {
                        1 => head.values = cursor.int32(wire)?,
                        2 => head.nulls = cursor.int32(wire)?,
                        3 => head.rows = Some(cursor.int32(wire)?),
                        4 => head.encoding = cursor.int32(wire)?,
                        5 => head.def_length = cursor.int32(wire)?,
                        6 => head.rep_length = cursor.int32(wire)?,
                        7 => {
                            head.is_compressed = match wire {
                                TRUE => true,
                                FALSE => false,
                                _ => return Err(Stop::Malformed),
                            }
                        }
                        _ => cursor.skip(wire, false, MAX_DEPTH)?,
                    }
                    Ok(())
                })?;
            }
            _ => cursor.skip(wire, false, MAX_DEPTH)?,
        }
        Ok(())
    })?;
    let right_part = match head.kind {
        DATA_PAGE | DICTIONARY_PAGE | DATA_PAGE_V2 => parts == 1 << head.kind,
        _ => true,
    };
    if sizes != 7 || !right_part {
        return Err(Stop::Malformed);
    }
    Ok(cursor.at)
}

/// Writes the header of a data page, without statistics.
pub(super) fn write_page_head(head: &PageHead, out: &mut Vec<u8>) {
    let mut page = Struct::default();
    page.int(1, head.kind, out);
    page.int(2, head.uncompressed, out);
    page.int(3, head.compressed, out);
    if let Some(crc) = head.crc {
        page.int(4, i64::from(crc.cast_signed()), out);
    }
    let mut inner = Struct::default();
    if head.kind == DATA_PAGE_V2 {
        page.begin(8, STRUCT, out);
        inner.int(1, head.values, out);
        inner.int(2, head.nulls, out);
        inner.int(3, head.rows.unwrap_or(head.values), out);
        inner.int(4, head.encoding, out);
        inner.int(5, head.def_length, out);
        inner.int(6, head.rep_length, out);
        inner.begin(7, if head.is_compressed { TRUE } else { FALSE }, out);
    } else {
        page.begin(5, STRUCT, out);
        inner.int(1, head.values, out);
        inner.int(2, head.encoding, out);
        inner.int(3, head.def_encoding, out);
        inner.int(4, head.rep_encoding, out);
    }
    // The ends of both structs.
    out.extend([0, 0]);
}

/// A struct that is being written: remembers its last field.
#[derive(Default)]
struct Struct(u8);

impl Struct {
    /// Field ids are at most 15 apart here.
    fn begin(&mut self, id: u8, wire: u8, out: &mut Vec<u8>) {
        out.push((id - self.0) << 4 | wire);
        self.0 = id;
    }

    fn int(&mut self, id: u8, value: i64, out: &mut Vec<u8>) {
        self.begin(id, I32, out);
        let mut rest = ((value << 1) ^ (value >> 63)) as u64;
        while rest >= 0x80 {
            out.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        out.push(rest as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A footer whose schema is the given list of child counts.
    fn footer(children: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x15, 0x02, 0x19, 0xfc, children.len() as u8];
        for count in children {
            // name (4), then num_children (5)
            bytes.extend([0x48, 0x01, b'x', 0x15, count * 2, 0x00]);
        }
        bytes.push(0);
        bytes
    }

    #[test]
    fn the_depth_of_a_schema_is_that_of_its_deepest_leaf() {
        assert_eq!(footer_shape(&footer(&[2, 0, 0])).unwrap().depth, 1);
        assert_eq!(footer_shape(&footer(&[2, 1, 1, 0, 0])).unwrap().depth, 3);
        assert_eq!(footer_shape(&footer(&[1; 50])).unwrap().depth, 49);
    }

    #[test]
    fn a_cut_footer_is_short_and_a_wild_one_malformed() {
        let whole = footer(&[2, 0, 0]);
        assert_eq!(footer_shape(&whole[..whole.len() - 1]), Err(Stop::Short));
        assert_eq!(footer_shape(&[0x1f]), Err(Stop::Malformed));
    }

    #[test]
    fn a_list_of_booleans_stops_where_decoders_would_take_no_bytes_for_it() {
        // In field 1: a list of two booleans, and one of two billion of them.
        let (two, billions) =
            ([0x19, 0x21, 0x01, 0x02, 0x00], [0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00]);
        assert!(is_whole(&two, Some(1)) && !is_whole(&two, None) && !is_whole(&two, Some(2)));
        assert!(!is_whole(&billions, Some(1)) && !is_whole(&billions, None));
        assert_eq!(page_head(&billions, &mut PageHead::default()), Err(Stop::Malformed));
        assert!(is_whole(&[0x15, 0x02, 0x00], None) && !is_whole(&[0x15, 0x02], None));
    }

    #[test]
    fn a_header_that_can_be_read_in_two_ways_is_malformed() {
        let good = [0x15, 0x00, 0x15, 0x08, 0x15, 0x08, 0x2c, 0x15, 0x0e, 0x00, 0x00];
        assert!(page_head(&good, &mut PageHead::default()).is_ok());
        let malformed = |bytes: &[u8]| page_head(bytes, &mut PageHead::default()) == Err(Stop::Malformed);
        // Nothing; a size of 64 bits; one of more than 32; no part; the part of a dictionary; two parts.
        assert!(malformed(&[0x00]));
        assert!(malformed(&[0x15, 0x00, 0x16, 0x08, 0x15, 0x08, 0x2c, 0x15, 0x0e, 0x00, 0x00]));
        assert!(malformed(&[
            0x15, 0x00, 0x15, 0x81, 0x80, 0x80, 0x80, 0x10, 0x15, 0x08, 0x2c, 0x15, 0x0e, 0x00, 0x00
        ]));
        assert!(malformed(&[0x15, 0x00, 0x15, 0x08, 0x15, 0x08, 0x00]));
        assert!(malformed(&[0x15, 0x00, 0x15, 0x08, 0x15, 0x08, 0x4c, 0x15, 0x0e, 0x00, 0x00]));
        assert!(malformed(&[
            0x15, 0x00, 0x15, 0x08, 0x15, 0x08, 0x2c, 0x15, 0x0e, 0x00, 0x3c, 0x15, 0x0e, 0x00, 0x00
        ]));
    }

    #[test]
    fn a_schema_in_disguise_is_malformed() {
        // The schema as a set, more children than elements, and their number in 64 bits.
        let mut set = footer(&[2, 0, 0]);
        set[2] = 0x1a;
        assert_eq!(footer_shape(&set), Err(Stop::Malformed));
        assert_eq!(footer_shape(&footer(&[3, 0, 0])), Err(Stop::Malformed));
        let mut wide = footer(&[2, 0, 0]);
        let at = wide.windows(2).position(|pair| pair == [b'x', 0x15]).unwrap() + 1;
        wide[at] = 0x16;
        assert_eq!(footer_shape(&wide), Err(Stop::Malformed));
    }

    #[test]
    fn a_page_header_is_read_as_far_as_it_goes() {
        // kind 0, uncompressed 100, compressed 50, data page header with 7 values
        let bytes = [0x15, 0x00, 0x15, 0xc8, 0x01, 0x15, 0x64, 0x2c, 0x15, 0x0e, 0x00, 0x00];
        let mut head = PageHead::default();
        assert_eq!(page_head(&bytes, &mut head), Ok(bytes.len()));
        assert_eq!((head.uncompressed, head.compressed, head.values), (100, 50, 7));
        let mut cut = PageHead::default();
        assert_eq!(page_head(&bytes[..6], &mut cut), Err(Stop::Short));
        assert_eq!(cut.uncompressed, 100);
    }

    proptest! {
        #[test]
        fn a_page_header_reads_back(
            numbers in prop::array::uniform8(any::<i32>()),
            crc in prop::option::of(any::<u32>()),
            (version_2, is_compressed) in any::<(bool, bool)>(),
        ) {
            let [uncompressed, compressed, values, rows, def_length, rep_length, nulls, encoding] =
                numbers.map(i64::from);
            let head = if version_2 {
                let rows = Some(rows);
                let base = PageHead { kind: DATA_PAGE_V2, uncompressed, compressed, crc, ..PageHead::default() };
                PageHead { values, rows, encoding, nulls, def_length, rep_length, is_compressed, ..base }
            } else {
                let (def_encoding, rep_encoding) = (def_length, rep_length);
                let base = PageHead { kind: DATA_PAGE, uncompressed, compressed, crc, ..PageHead::default() };
                PageHead { values, encoding, def_encoding, rep_encoding, ..base }
            };
            let mut bytes = Vec::new();
            write_page_head(&head, &mut bytes);
            let mut found = PageHead::default();
            prop_assert_eq!(page_head(&bytes, &mut found), Ok(bytes.len()));
            prop_assert_eq!(found, head);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = footer_shape(&bytes);
            let _ = page_head(&bytes, &mut PageHead::default());
        }
    }
}
