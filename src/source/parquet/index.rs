//! The page index of a file, and the Bloom filters of its columns: what only saves work, so that one which is missing or
//! damaged is none.
//!
//! Both are looked at before a decoder believes them, as footers and page headers are.

use super::compact::is_whole;
use super::guard::{broken, shielded};
use super::{ParquetFile, RowGroup};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{
    ColumnChunkMetaData, PageIndexPolicy, ParquetColumnIndex, ParquetMetaDataReader, ParquetOffsetIndex,
    RowGroupMetaData,
};
use parquet::file::reader::{ChunkReader, Length};
use std::ops::Range;

/// The largest Bloom filter that is carried over (Parquet's own limit).
const MAX_BLOOM: i32 = 128 << 20;

/// The most bytes of a page index: several times as much in memory, and one of many pages has some 100 bytes for each.
const MAX_INDEX: u64 = 64 << 20;

/// More bytes than the header of a Bloom filter has.
const BLOOM_HEADER: u64 = 64;

/// The field of a column index that is a list of booleans: which pages are null.
const NULL_PAGES: i16 = 1;

impl<R: ChunkReader + Clone + Send + Sync + 'static> ParquetFile<R> {
    /// The page index, fetched when first asked for.
    pub(super) fn page_index(&self) -> Option<&(ParquetColumnIndex, ParquetOffsetIndex)> {
        self.0.page_index.get_or_init(|| self.read_page_index()).as_ref()
    }

    fn read_page_index(&self) -> Option<(ParquetColumnIndex, ParquetOffsetIndex)> {
        let chunks = self.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns);
        let mut parts: Vec<_> = chunks.flat_map(parts_of).flatten().collect();
        let start = parts.iter().map(|(place, _)| place.start).min()?;
        // The reader wants one byte beyond them: the footer comes after them.
        let end = parts.iter().map(|(place, _)| place.end).max()?.checked_add(1)?;
        let input = &self.0.input;
        parts.sort_unstable_by_key(|(place, _)| place.start);
        let apart = parts.iter().zip(parts.iter().skip(1)).all(|((a, _), (b, _))| a.end <= b.start);
        if end > input.len() || end - start > MAX_INDEX || !apart {
            return None;
        }
        let bytes = input.get_bytes(start, usize::try_from(end - start).ok()?).ok()?;
        let whole = |(place, booleans): &(Range<u64>, Option<i16>)| {
            let place = (place.start - start) as usize..(place.end - start) as usize;
            bytes.get(place).is_some_and(|part| is_whole(part, *booleans))
        };
        if !parts.iter().all(whole) {
            return None;
        }
        let read = shielded(self.url(), || {
            let mut reader = ParquetMetaDataReader::new_with_metadata(self.metadata().as_ref().clone())
                .with_page_index_policy(PageIndexPolicy::Optional);
            let read = reader.read_page_indexes_sized(&bytes, end).and_then(|()| reader.finish());
            let mut builder = read.map_err(|error| broken(self.url(), error))?.into_builder();
            Ok(builder.take_column_index().zip(builder.take_offset_index()))
        });
        read.ok().flatten()
    }
}

/// Where the column index and the offset index of a chunk lie, and which of their fields is a list of booleans.
fn parts_of(chunk: &ColumnChunkMetaData) -> [Option<(Range<u64>, Option<i16>)>; 2] {
    let part = |offset: Option<i64>, length: Option<i32>, booleans| {
        let (start, length) = (u64::try_from(offset?).ok()?, u64::try_from(length?).ok()?);
        Some((start..start.checked_add(length)?, booleans))
    };
    [
        part(chunk.column_index_offset(), chunk.column_index_length(), Some(NULL_PAGES)),
        part(chunk.offset_index_offset(), chunk.offset_index_length(), None),
    ]
}

/// The Bloom filter of a column.
pub(super) fn bloom<R: ChunkReader + Clone + Send + Sync + 'static>(
    group: &RowGroup<R>,
    metadata: &ColumnChunkMetaData,
) -> Option<Sbbf> {
    let input = &group.file.0.input;
    let start = u64::try_from(metadata.bloom_filter_offset()?).ok()?;
    let length = metadata.bloom_filter_length();
    let end = start.checked_add(u64::try_from(length.unwrap_or(0)).ok()?)?;
    if length.unwrap_or(0) > MAX_BLOOM || end > input.len() {
        return None;
    }
    let first = if length.is_some() { end - start } else { BLOOM_HEADER.min(input.len() - start) };
    let bytes = input.get_bytes(start, usize::try_from(first).ok()?).ok()?;
    if !is_whole(&bytes, None) {
        return None;
    }
    let url = group.file.url();
    let read = shielded(url, || {
        let read = match length {
            Some(_) => Sbbf::from_bytes(&bytes).map(Some),
            None => Sbbf::read_from_column_chunk(metadata, input),
        };
        read.map_err(|error| broken(url, error))
    });
    read.ok().flatten().filter(|bloom| bloom.num_blocks() > 0)
}
