//! Dropping rows from a column chunk without decoding it to rows.
//!
//! A chunk is a sequence of pages, each compressed on its own. Pages of which every row stays are passed on as they
//! are, pages of which none stays are left out, and of the others the levels and the encoded values of the dropped rows
//! are cut out: most of the work of decoding and encoding is never done. Dictionaries stay whole.
//!
//! Promises: what comes out decodes to exactly the kept rows; of a nested column, if its leaves agree, which
//! [`RowGroup::only_whole`] asks. Statistics stay true: bounds are marked as no longer
//! exact, null counts are recounted or left out. A chunk that has anything unusual about it (a deprecated encoding or
//! codec, pages that contradict the footer) is not cut at all: `None` says that it must be decoded, which also tells
//! what is wrong with it. `docs/format.md` names what is handled.

mod codec;
mod delta;
mod hybrid;
pub(super) mod lengths;
mod lists;
mod page;
mod snappy;
mod stats;
mod values;

use super::RowGroup;
use super::compact::{
    DATA_PAGE, DATA_PAGE_V2, DICTIONARY_PAGE, INDEX_PAGE, PageHead, page_head, write_page_head,
};
use super::copy::{CopiedColumn, MAX_PAGES, Page, agrees, chunk_start};
use super::guard::{MAX_PAGE_BYTES, MAX_PAGE_VALUES};
use super::index::bloom;
use crate::error::Result;
use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use codec::Press;
use flate2::Crc;
pub(super) use lists::{Levels, shared_levels};
use lists::{ListDigests, Lists};
pub(super) use page::Shape;
use page::{Opened, Scratch};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ColumnChunkMetaData, OffsetIndexBuilder};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::reader::ChunkReader;
use stats::{PageFate, PageIndexes};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Ascending ranges of values or entries of a page.
type Runs = Vec<Range<usize>>;

/// Something that is not handled here, and what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unfit(&'static str);

type Fit<T> = std::result::Result<T, Unfit>;

fn unfit<T>(what: &'static str) -> Fit<T> {
    Err(Unfit(what))
}

/// Memory of the cuts of a file that are under way, to be used again by those that come after them.
#[derive(Debug, Default)]
pub(super) struct Spare(Mutex<Vec<(Scratch, Press)>>);

impl Spare {
    /// The most bytes that are kept of one: some pages of the usual size.
    const KEPT: usize = 8 << 20;

    fn with<T>(&self, cut: impl FnOnce(&mut (Scratch, Press)) -> T) -> T {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut memory = lock().pop().unwrap_or_default();
        let done = cut(&mut memory);
        if memory.0.memory() + memory.1.memory() <= Self::KEPT {
            lock().push(memory);
        }
        done
    }
}

/// One column of a row group without some of its rows.
#[derive(Debug)]
pub struct CutColumn {
    /// The encoded chunk, piece by piece.
    pub bytes: Vec<Bytes>,
    /// What belongs to it, with offsets from the beginning of `bytes`.
    pub column: CopiedColumn,
    lists: ListDigests,
}

impl CutColumn {
    /// One that was decoded and encoded, together with all leaves beside it.
    pub fn encoded(bytes: Bytes, column: CopiedColumn) -> Self {
        Self { bytes: vec![bytes], column, lists: ListDigests::default() }
    }
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> RowGroup<R> {
    /// The column `leaf` with the rows of `keep` only, at least one. None if its pages cannot be cut. Whether it fits
    /// the leaves beside it is for [`only_whole`](Self::only_whole) to say.
    pub fn cut_column(&self, leaf: usize, keep: &BooleanBuffer) -> Result<Option<CutColumn>> {
        let Some(metadata) = self.metadata().columns().get(leaf).filter(|_| keep.len() == self.num_rows())
        else {
            return Ok(None);
        };
        let length = usize::try_from(metadata.compressed_size()).unwrap_or(0);
        let start = u64::try_from(chunk_start(metadata)).unwrap_or(0);
        if metadata.num_values() == 0 || length == 0 || !codec::known(metadata.compression()) {
            return Ok(None);
        }
        let (url, input) = (self.file.url(), &self.file.0.input);
        let chunk = input.get_bytes(start, length).map_err(|error| input.blame(url, error))?;
        match self.file.0.spare.with(|memory| self.cut_chunk(leaf, metadata, &chunk, keep, memory)) {
            Ok(cut) => Ok(Some(cut)),
            Err(Unfit(what)) => {
                tracing::debug!(url, leaf, group = self.index, "a column chunk is decoded, not cut: {what}");
                Ok(None)
            }
        }
    }

    fn cut_chunk(
        &self,
        leaf: usize,
        metadata: &ColumnChunkMetaData,
        chunk: &Bytes,
        keep: &BooleanBuffer,
        (scratch, press): &mut (Scratch, Press),
    ) -> Fit<CutColumn> {
        let shape = Shape::of(metadata.column_descr(), metadata.compression());
        let (dictionary, pages) = walk(chunk)?;
        dictionary.as_ref().map_or(Ok(()), |page| page.check(chunk))?;
        let places = self.places(leaf, metadata, &pages);
        let mut cutter = Cutter::new(chunk, dictionary);
        let nulls_matter = metadata.statistics().and_then(|known| known.null_count_opt()) != Some(0);
        // Pages are as dense as their chunk, or nearly: good enough to choose a way by.
        let ranges = keep.set_slices().count();
        let all = usize::try_from(metadata.num_values()).unwrap_or(usize::MAX).max(1);
        let mut lists = Lists::of(&self.file.0.shared_levels, leaf);
        let mut row = 0;
        for (at, page) in pages.iter().enumerate() {
            let share = usize::try_from(page.head.values).unwrap_or(0).saturating_mul(ranges).div_ceil(all);
            let mut opened = None;
            let rows = if shape.max_rep == 0 {
                usize::try_from(page.head.values).unwrap_or(0)
            } else {
                // Where rows begin is looked at, not believed.
                let page = opened.insert(page.open(&shape, chunk, share, scratch)?);
                page.tell(&mut lists);
                match page.rows() {
                    (rows, false) => rows,
                    // Its first values belong to the last row of the page before, whose fate is decided.
                    (_, true) => return unfit("a row that spans pages"),
                }
            };
            let stated = [places.rows(at), page.head.rows];
            if stated.into_iter().flatten().any(|stated| stated != rows as i64) {
                return unfit("a page of another number of rows than its header or index says");
            }
            if row + rows > keep.len() {
                return unfit("more rows than the footer says");
            }
            let slice = keep.slice(row, rows);
            row += rows;
            let kept = slice.count_set_bits();
            if kept == rows {
                if opened.is_none() {
                    page.check(chunk)?;
                }
                cutter.keep(page, rows);
                continue;
            }
            if kept == 0 && (!nulls_matter || places.nulls(at).is_some()) {
                cutter.drop(places.nulls(at).unwrap_or(0));
                continue;
            }
            let opened = match opened {
                Some(opened) => opened,
                None => page.open(&shape, chunk, share, scratch)?,
            };
            let nulls = opened.nulls(&shape);
            match opened.cut(&shape, &slice, press)? {
                Some(cut) => cutter.replace(cut, page.head.crc.is_some(), nulls)?,
                None => cutter.drop(nulls as i64),
            }
        }
        if row != keep.len() {
            return unfit("fewer rows than the footer says");
        }
        // Values that are gone make a Bloom filter no less true.
        cutter.finish(metadata, &places, bloom(self, metadata), lists.finish())
    }

    /// The source's page index, if it tells of exactly these pages.
    fn places(&self, leaf: usize, metadata: &ColumnChunkMetaData, pages: &[SourcePage]) -> PageIndexes<'_> {
        let start = chunk_start(metadata);
        let found: Option<Vec<Page>> = pages.iter().map(|page| page.placed(start)).collect();
        let source = self.file.page_index().and_then(|(columns, offsets)| {
            let column_index = columns.get(self.index)?.get(leaf)?;
            let offset_index = offsets.get(self.index)?.get(leaf)?;
            agrees(offset_index, found.as_deref()?, self.num_rows()).then_some((column_index, offset_index))
        });
        PageIndexes::new(source, self.num_rows(), pages.len())
    }
}

/// A data page of the source, within its chunk.
#[derive(Debug)]
struct SourcePage {
    head: PageHead,
    /// Header and body.
    whole: Range<usize>,
    body: Range<usize>,
}

impl SourcePage {
    fn open<'s>(
        &self,
        shape: &Shape,
        chunk: &'s Bytes,
        ranges: usize,
        scratch: &'s mut Scratch,
    ) -> Fit<Opened<'s>> {
        self.check(chunk)?;
        let body = chunk.get(self.body.clone()).unwrap_or_default();
        page::open(shape, &self.head, body, ranges, scratch)
    }

    /// Holds the body against its checksum, if it has one.
    fn check(&self, chunk: &Bytes) -> Fit<()> {
        let body = chunk.get(self.body.clone()).unwrap_or_default();
        match self.head.crc {
            Some(stated) if checksum(body) != stated => unfit("a page that does not match its checksum"),
            _ => Ok(()),
        }
    }

    fn placed(&self, start: i64) -> Option<Page> {
        Some(Page {
            offset: start + i64::try_from(self.whole.start).ok()?,
            length: i32::try_from(self.whole.len()).ok()?,
            values: self.head.values,
            rows: self.head.rows,
        })
    }
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// The dictionary page, header included, and the data pages of a chunk.
fn walk(chunk: &Bytes) -> Fit<(Option<SourcePage>, Vec<SourcePage>)> {
    let (mut dictionary, mut pages) = (None, Vec::new());
    let mut at = 0;
    while at < chunk.len() {
        let mut head = PageHead::default();
        let Ok(length) = page_head(chunk.get(at..).unwrap_or_default(), &mut head) else {
            return unfit("a page header that cannot be read");
        };
        let start = at + length;
        let end = usize::try_from(head.compressed).ok().and_then(|body| start.checked_add(body));
        let Some(end) = end.filter(|end| *end <= chunk.len()) else {
            return unfit("a page that reaches beyond its chunk");
        };
        let possible =
            (0..=MAX_PAGE_BYTES).contains(&head.uncompressed) && (0..=MAX_PAGE_VALUES).contains(&head.values);
        if !possible {
            return unfit("a page of impossible size");
        }
        let page = SourcePage { head, whole: at..end, body: start..end };
        match head.kind {
            DICTIONARY_PAGE if dictionary.is_none() && pages.is_empty() => dictionary = Some(page),
            DATA_PAGE | DATA_PAGE_V2 if pages.len() < MAX_PAGES => pages.push(page),
            INDEX_PAGE => {}
            _ => return unfit("a page of another kind, or one too many"),
        }
        at = end;
    }
    Ok((dictionary, pages))
}

/// What comes of a chunk, page by page.
struct Cutter<'a> {
    chunk: &'a Bytes,
    out: Vec<Bytes>,
    /// Pages that are passed on as they are and lie side by side in the source.
    passing: Range<usize>,
    stored: usize,
    unpacked: i64,
    dictionary: bool,
    values: i64,
    offsets: OffsetIndexBuilder,
    fates: Vec<PageFate>,
    /// Where the first data page begins.
    first_page: usize,
}

impl<'a> Cutter<'a> {
    fn new(chunk: &'a Bytes, dictionary: Option<SourcePage>) -> Self {
        let mut cutter = Self {
            chunk,
            out: Vec::new(),
            passing: 0..0,
            stored: 0,
            unpacked: 0,
            dictionary: dictionary.is_some(),
            values: 0,
            offsets: OffsetIndexBuilder::new(),
            fates: Vec::new(),
            first_page: 0,
        };
        if let Some(page) = dictionary {
            cutter.pass(&page);
        }
        cutter.first_page = cutter.stored;
        cutter
    }

    fn pass(&mut self, page: &SourcePage) {
        if self.passing.end == page.whole.start && !self.passing.is_empty() {
            self.passing.end = page.whole.end;
        } else {
            self.flush();
            self.passing = page.whole.clone();
        }
        self.stored += page.whole.len();
        self.unpacked += page.head.uncompressed + (page.whole.len() - page.body.len()) as i64;
    }

    fn flush(&mut self) {
        let passing = std::mem::take(&mut self.passing);
        if !passing.is_empty() {
            self.out.push(self.chunk.slice(passing));
        }
    }

    fn keep(&mut self, page: &SourcePage, rows: usize) {
        self.place(rows, page.whole.len());
        self.values += page.head.values;
        self.fates.push(PageFate::Kept);
        self.pass(page);
    }

    fn drop(&mut self, nulls: i64) {
        self.fates.push(PageFate::Dropped { nulls });
    }

    fn replace(&mut self, cut: page::CutPage, with_checksum: bool, nulls_before: usize) -> Fit<()> {
        let mut head = cut.head;
        let sizes = (i32::try_from(cut.unpacked), i32::try_from(cut.body.len()));
        let (Ok(uncompressed), Ok(compressed)) = sizes else { return unfit("a page of more than 2 GiB") };
        (head.uncompressed, head.compressed) = (uncompressed.into(), compressed.into());
        head.crc = with_checksum.then(|| checksum(&cut.body));
        let mut header = Vec::new();
        write_page_head(&head, &mut header);
        let length = header.len() + cut.body.len();
        self.flush();
        self.place(cut.rows, length);
        self.stored += length;
        self.unpacked += head.uncompressed + header.len() as i64;
        self.values += head.values;
        let (nulls, before) = (cut.nulls as i64, nulls_before as i64);
        self.fates.push(PageFate::Cut { nulls, before, all_null: nulls == head.values });
        self.out.extend([header.into(), cut.body.into()]);
        Ok(())
    }

    fn place(&mut self, rows: usize, length: usize) {
        self.offsets.append_row_count(rows as i64);
        self.offsets.append_offset_and_size(self.stored as i64, i32::try_from(length).unwrap_or(i32::MAX));
    }

    fn finish(
        mut self,
        source: &ColumnChunkMetaData,
        places: &PageIndexes<'_>,
        bloom: Option<Sbbf>,
        lists: ListDigests,
    ) -> Fit<CutColumn> {
        self.flush();
        if self.values == 0 {
            return unfit("no row is left");
        }
        let statistics = stats::of_chunk(source, &self.fates, self.values);
        let mut metadata = ColumnChunkMetaData::builder(source.column_descr_ptr())
            .set_compression_codec(source.compression_codec())
            .set_encodings_mask(*source.encodings_mask())
            .set_total_compressed_size(self.stored as i64)
            .set_total_uncompressed_size(self.unpacked)
            .set_num_values(self.values)
            .set_data_page_offset(self.first_page as i64)
            .set_dictionary_page_offset(self.dictionary.then_some(0));
        if let Some(statistics) = statistics {
            metadata = metadata.set_statistics(statistics);
        }
        let Ok(metadata) = metadata.build() else { return unfit("metadata that cannot be built") };
        let column_index: Option<ColumnIndexMetaData> = places.cut(source, &self.fates);
        let column = CopiedColumn {
            metadata,
            start: 0,
            bloom,
            column_index,
            offset_index: Some(self.offsets.build()),
        };
        Ok(CutColumn { bytes: self.out, column, lists })
    }
}

#[cfg(test)]
mod tests;
