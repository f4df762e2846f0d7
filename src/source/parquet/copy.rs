//! The encoded bytes of a row group, to be copied without decoding.
//!
//! Every page header is walked on the way, so that what is copied is whole: pages fill the chunk exactly, hold as many
//! values as the footer says, and match their checksums where they have them. The walk also gives the place of every
//! page, from which an offset index is made where the source has none.

use super::RowGroup;
use super::compact::{DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, INDEX_PAGE, PageHead, Stop, page_head};
use super::guard::{MAX_HEADER, broken};
use super::index::bloom;
use crate::error::Result;
use bytes::Bytes;
use flate2::Crc;
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::ChunkReader;

/// Bytes read at once: few enough to stay in the processor's cache until they are written.
const PIECE: u64 = 512 << 10;

/// The most pages of one column chunk: an empty page takes more memory than bytes in the file.
pub(super) const MAX_PAGES: usize = 1 << 20;

/// One step of a copy.
#[derive(Debug)]
pub enum Piece {
    /// The next bytes of the current column.
    Bytes(Bytes),
    /// The current column is complete; the next piece begins the next column.
    Column(Box<CopiedColumn>),
}

/// What belongs to a copied column chunk besides its bytes.
#[derive(Debug)]
pub struct CopiedColumn {
    /// Its part of the footer, with offsets of the source.
    pub metadata: ColumnChunkMetaData,
    /// Where its bytes began in the source: what offsets are to be counted from.
    pub start: i64,
    /// Its Bloom filter.
    pub bloom: Option<Sbbf>,
    /// Minimum and maximum of its pages, if the source has them.
    pub column_index: Option<ColumnIndexMetaData>,
    /// Places and first rows of its pages, with offsets of the source; none if they cannot be known without decoding.
    pub offset_index: Option<OffsetIndexMetaData>,
}

/// The bytes of one row group, as an iterator of pieces of bounded size. After an error there are no more.
#[derive(Debug)]
pub struct RowGroupCopy<R> {
    group: RowGroup<R>,
    column: usize,
    walk: Option<Walk>,
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> RowGroupCopy<R> {
    pub(super) fn new(group: RowGroup<R>) -> Self {
        Self { group, column: 0, walk: None }
    }

    /// The row group that is copied.
    pub fn group(&self) -> &RowGroup<R> {
        &self.group
    }

    fn step(&mut self) -> Result<Option<Piece>> {
        let url = self.group.file.url();
        let Some(metadata) = self.group.metadata().columns().get(self.column) else {
            return Ok(None);
        };
        let wrong = |reason: String| {
            broken(
                url,
                format!("row group {}, column `{}`: {reason}", self.group.index, metadata.column_path()),
            )
        };
        let mut walk = self.walk.take().unwrap_or_else(|| Walk::new(metadata));
        if walk.at < walk.end {
            let length = PIECE.min(walk.end - walk.at);
            let input = &self.group.file.0.input;
            let bytes = input.get_bytes(walk.at, length as usize).map_err(|error| input.blame(url, error))?;
            if bytes.len() as u64 != length {
                return Err(wrong("the file ends too early".to_owned()));
            }
            walk.push(&bytes).map_err(wrong)?;
            self.walk = Some(walk);
            return Ok(Some(Piece::Bytes(bytes)));
        }
        let pages = walk.finish(metadata).map_err(wrong)?;
        let (column_index, offset_index) = self.page_index(metadata, &pages);
        let column = CopiedColumn {
            metadata: metadata.clone(),
            start: chunk_start(metadata),
            bloom: bloom(&self.group, metadata),
            column_index,
            offset_index,
        };
        self.column += 1;
        Ok(Some(Piece::Column(Box::new(column))))
    }

    /// The source's page index where it agrees with the pages found, else an offset index made of them if their rows
    /// are known.
    fn page_index(
        &self,
        metadata: &ColumnChunkMetaData,
        pages: &[Page],
    ) -> (Option<ColumnIndexMetaData>, Option<OffsetIndexMetaData>) {
        let source = self.group.file.page_index().and_then(|(columns, offsets)| {
            let column_index = columns.get(self.group.index)?.get(self.column)?;
            let offset_index = offsets.get(self.group.index)?.get(self.column)?;
            agrees(offset_index, pages, self.group.num_rows()).then_some((column_index, offset_index))
        });
        if let Some((column_index, offset_index)) = source {
            let whole = !matches!(column_index, ColumnIndexMetaData::NONE)
                && column_index.num_pages() == pages.len() as u64;
            return (whole.then(|| column_index.clone()), Some(offset_index.clone()));
        }
        let flat = metadata.column_descr().max_rep_level() == 0;
        let mut builder = OffsetIndexBuilder::new();
        let mut sum = 0i64;
        for page in pages {
            let Some(rows) = page.rows.or(flat.then_some(page.values)) else {
                return (None, None);
            };
            sum = sum.saturating_add(rows);
            builder.append_row_count(rows);
            builder.append_offset_and_size(page.offset, page.length);
        }
        (None, (sum == self.group.num_rows() as i64).then(|| builder.build()))
    }
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> Iterator for RowGroupCopy<R> {
    type Item = Result<Piece>;

    fn next(&mut self) -> Option<Self::Item> {
        let piece = self.step();
        if piece.is_err() {
            self.column = usize::MAX;
        }
        piece.transpose()
    }
}

/// Whether an offset index of the source tells the pages that are really there.
pub(super) fn agrees(index: &OffsetIndexMetaData, pages: &[Page], rows: usize) -> bool {
    let locations = index.page_locations();
    let ascending = locations.windows(2).all(|pair| match pair {
        [a, b] => a.first_row_index <= b.first_row_index,
        _ => true,
    });
    let sizes = index.unencoded_byte_array_data_bytes().is_none_or(|sizes| sizes.len() == pages.len());
    locations.len() == pages.len()
        && ascending
        && sizes
        && locations.first().is_none_or(|first| first.first_row_index == 0)
        && locations.last().is_none_or(|last| last.first_row_index <= rows as i64)
        && locations.iter().zip(pages).all(|(location, page)| {
            (location.offset, location.compressed_page_size) == (page.offset, page.length)
        })
}

pub(super) fn chunk_start(metadata: &ColumnChunkMetaData) -> i64 {
    metadata.dictionary_page_offset().unwrap_or(metadata.data_page_offset())
}

/// One data page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: i64,
    /// Header included.
    pub(super) length: i32,
    pub(super) values: i64,
    pub(super) rows: Option<i64>,
}

/// Walks the pages of a chunk whose bytes come in pieces.
#[derive(Debug)]
struct Walk {
    at: u64,
    end: u64,
    /// Bytes of a header that is not whole yet.
    header: Vec<u8>,
    /// Bytes left of the current page, and its checksum so far.
    left: u64,
    crc: Option<(u32, Crc)>,
    pages: Vec<Page>,
    dictionary: bool,
}

impl Walk {
    fn new(metadata: &ColumnChunkMetaData) -> Self {
        // Both checked when the footer was read; a chunk without values may lie anywhere.
        let length = if metadata.num_values() == 0 { 0 } else { metadata.compressed_size().max(0) as u64 };
        let at = u64::try_from(chunk_start(metadata)).unwrap_or(0);
        Self {
            at,
            end: at.saturating_add(length),
            header: Vec::new(),
            left: 0,
            crc: None,
            pages: Vec::new(),
            dictionary: false,
        }
    }

    fn push(&mut self, bytes: &[u8]) -> Result<(), String> {
        let mut rest = bytes;
        while !rest.is_empty() {
            if self.left > 0 {
                let (body, after) =
                    rest.split_at(rest.len().min(usize::try_from(self.left).unwrap_or(usize::MAX)));
                if let Some((_, crc)) = &mut self.crc {
                    crc.update(body);
                }
                self.left -= body.len() as u64;
                self.at += body.len() as u64;
                rest = after;
                if self.left == 0 {
                    self.close_page()?;
                }
                continue;
            }
            let known = self.header.len();
            let mut head = PageHead::default();
            // Headers are small, and mostly whole in this piece: only one that is cut is gathered.
            let parsed = if known == 0 {
                page_head(rest, &mut head)
            } else {
                let room = MAX_HEADER.saturating_sub(known).min(rest.len());
                self.header.extend_from_slice(rest.get(..room).unwrap_or_default());
                page_head(&self.header, &mut head)
            };
            match parsed {
                Ok(length) => {
                    let used = length.saturating_sub(known);
                    self.header.clear();
                    self.open_page(&head, length, used)?;
                    rest = rest.get(used..).unwrap_or_default();
                    if self.left == 0 {
                        self.close_page()?;
                    }
                }
                Err(Stop::Short) if known + rest.len() < MAX_HEADER => {
                    if known == 0 {
                        self.header.extend_from_slice(rest);
                    }
                    self.at += rest.len() as u64;
                    rest = &[];
                }
                Err(_) => return Err(format!("no page header at byte {}", self.at - known as u64)),
            }
        }
        Ok(())
    }

    fn open_page(&mut self, head: &PageHead, length: usize, used: usize) -> Result<(), String> {
        let offset = (self.at + used as u64).saturating_sub(length as u64);
        self.at += used as u64;
        let wrong = |what: &str| Err(format!("the page at byte {offset} {what}"));
        let Some(body) =
            u64::try_from(head.compressed).ok().filter(|body| *body <= self.end - self.at.min(self.end))
        else {
            return wrong("reaches beyond its column chunk");
        };
        if head.uncompressed < 0 || head.values < 0 {
            return wrong("has an impossible size");
        }
        match head.kind {
            DICTIONARY_PAGE if self.dictionary || !self.pages.is_empty() => {
                return wrong("is a second dictionary");
            }
            DICTIONARY_PAGE => self.dictionary = true,
            DATA_PAGE | DATA_PAGE_V2 => {
                let Ok(length) = i32::try_from(body + length as u64) else {
                    return wrong("is too long");
                };
                if self.pages.len() >= MAX_PAGES {
                    return wrong(&format!("is one more than the {MAX_PAGES} that are allowed"));
                }
                self.pages.push(Page { offset: offset as i64, length, values: head.values, rows: head.rows });
            }
            INDEX_PAGE => {}
            kind => return wrong(&format!("is of unknown kind {kind}")),
        }
        self.left = body;
        self.crc = head.crc.map(|crc| (crc, Crc::new()));
        Ok(())
    }

    fn close_page(&mut self) -> Result<(), String> {
        match self.crc.take() {
            Some((stated, crc)) if crc.sum() != stated => {
                Err(format!("the page that ends at byte {} does not match its checksum", self.at))
            }
            _ => Ok(()),
        }
    }

    /// The data pages, once all bytes were pushed.
    fn finish(self, metadata: &ColumnChunkMetaData) -> Result<Vec<Page>, String> {
        if self.left > 0 || !self.header.is_empty() {
            return Err("its last page is cut off".to_owned());
        }
        let values = self.pages.iter().fold(0i64, |sum, page| sum.saturating_add(page.values));
        if values != metadata.num_values() {
            return Err(format!("its pages hold {values} values, its footer says {}", metadata.num_values()));
        }
        Ok(self.pages)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number(field: u8, value: u64, into: &mut Vec<u8>) {
        into.push(field << 4 | 5);
        let mut zigzag = value << 1;
        while zigzag >= 0x80 {
            into.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        into.push(zigzag as u8);
    }

    /// A version 1 data page of `values` values, with its checksum.
    fn page(values: u64, body: &[u8], into: &mut Vec<u8>) {
        let mut crc = Crc::new();
        crc.update(body);
        number(1, 0, into);
        number(1, body.len() as u64, into);
        number(1, body.len() as u64, into);
        // A checksum is a signed number.
        into.push(1 << 4 | 5);
        let signed = crc.sum() as i32;
        let mut zigzag = ((signed << 1) ^ (signed >> 31)) as u32;
        while zigzag >= 0x80 {
            into.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        into.push(zigzag as u8);
        into.push(1 << 4 | 12);
        number(1, values, into);
        into.extend([0, 0]);
        into.extend_from_slice(body);
    }

    fn walk(chunk: &[u8], piece: usize) -> Result<Vec<Page>, String> {
        let mut walk = Walk {
            at: 0,
            end: chunk.len() as u64,
            header: Vec::new(),
            left: 0,
            crc: None,
            pages: Vec::new(),
            dictionary: false,
        };
        chunk.chunks(piece).try_for_each(|bytes| walk.push(bytes))?;
        if walk.left > 0 || !walk.header.is_empty() {
            return Err("cut".to_owned());
        }
        assert_eq!(walk.at, chunk.len() as u64);
        Ok(walk.pages)
    }

    #[test]
    fn a_changed_byte_under_a_checksum_is_found() {
        let mut chunk = Vec::new();
        page(3, b"some bytes", &mut chunk);
        assert_eq!(walk(&chunk, 100).unwrap().len(), 1);
        *chunk.last_mut().unwrap() ^= 1;
        assert!(walk(&chunk, 100).unwrap_err().contains("checksum"));
    }

    #[test]
    fn a_page_that_reaches_beyond_its_chunk_is_found() {
        let mut chunk = Vec::new();
        page(3, b"some bytes", &mut chunk);
        chunk.pop();
        assert!(walk(&chunk, 100).unwrap_err().contains("beyond"));
    }

    proptest! {
        #[test]
        fn pages_are_the_same_in_whatever_pieces_they_come(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6),
            piece in 1usize..100,
        ) {
            let mut chunk = Vec::new();
            let mut expected = Vec::new();
            for (values, body) in bodies.iter().enumerate() {
                let offset = chunk.len();
                page(values as u64, body, &mut chunk);
                let length = (chunk.len() - offset) as i32;
                expected.push(Page { offset: offset as i64, length, values: values as i64, rows: None });
            }
            prop_assert_eq!(walk(&chunk, piece).unwrap(), expected);
        }

        #[test]
        fn no_bytes_make_the_walk_panic(chunk in prop::collection::vec(any::<u8>(), 0..200), piece in 1usize..50) {
            let _ = walk(&chunk, piece);
        }
    }
}
