//! Assembling one Parquet file in memory, piece by piece. The caller takes the bytes out as they come.

use super::copyable::ordered;
use super::encode::{EncodedRowGroup, failed};
use super::layout::CREATED_BY;
use super::range::{ColumnRange, range_of};
use super::{FileLayout, copyable};
use crate::error::{Error, Result};
use crate::source::parquet::{CopiedColumn, CutColumn, Piece, RowGroup, RowGroupCopy};
use bytes::Bytes;
use parquet::basic::{SortOrder, Type};
use parquet::bloom_filter::Sbbf;
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, FileMetaData, ParquetMetaDataBuilder, ParquetMetaDataWriter, RowGroupMetaData,
};
use parquet::file::page_index::column_index::ColumnIndexMetaData;
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::statistics::Statistics;
use parquet::file::writer::{SerializedRowGroupWriter, TrackedWrite};
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};

/// Builds one Parquet file. Row groups are appended encoded, or copied from a source; bytes are taken out at any
/// time. After an error the file is worthless and every further call fails.
pub struct FileWriter {
    layout: FileLayout,
    keys: Vec<Vec<String>>,
    buffer: Buffer,
    /// `None` once closed or broken.
    out: Option<TrackedWrite<Buffer>>,
    groups: Vec<WrittenGroup>,
    /// Columns of the row group that is being copied.
    copying: Option<Vec<WrittenColumn>>,
    rows: u64,
}

impl std::fmt::Debug for FileWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FileWriter({} rows, {} bytes)", self.rows, self.written())
    }
}

/// What a finished file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSummary {
    /// Rows.
    pub rows: u64,
    /// Bytes, as stored.
    pub bytes: u64,
    /// Row groups.
    pub row_groups: usize,
    /// Range of each key column.
    pub ranges: Vec<ColumnRange>,
}

#[derive(Debug)]
struct WrittenGroup {
    metadata: RowGroupMetaData,
    column_indexes: Vec<ColumnIndexMetaData>,
    /// None if the pages of some column are not known.
    offset_indexes: Option<Vec<OffsetIndexMetaData>>,
}

#[derive(Debug)]
struct WrittenColumn {
    metadata: ColumnChunkMetaData,
    bloom: Option<Sbbf>,
    column_index: Option<ColumnIndexMetaData>,
    offset_index: Option<OffsetIndexMetaData>,
}

impl FileWriter {
    /// Begins a file of `layout`. `keys` are the columns whose ranges the summary shall tell.
    pub fn new(layout: FileLayout, keys: Vec<Vec<String>>) -> Result<Self> {
        let buffer = Buffer::default();
        let mut out = TrackedWrite::new(buffer.clone());
        out.write_all(b"PAR1").map_err(ParquetError::from).map_err(failed)?;
        Ok(Self { layout, keys, buffer, out: Some(out), groups: Vec::new(), copying: None, rows: 0 })
    }

    /// The file's layout.
    pub fn layout(&self) -> &FileLayout {
        &self.layout
    }

    /// Bytes of the file so far, whether taken out or not.
    pub fn written(&self) -> u64 {
        self.out.as_ref().map_or(0, |out| out.bytes_written() as u64)
    }

    /// Rows of the file so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Whether Parquet allows no further row group in this file.
    pub fn is_full(&self) -> bool {
        self.groups.len() >= i16::MAX as usize
    }

    /// Takes out the bytes written since the last call, in the order of the file. What was copied from a source, or
    /// cut, comes as it was given.
    pub fn take_pieces(&mut self) -> Result<Vec<Bytes>> {
        if let Some(out) = &mut self.out {
            out.flush().map_err(ParquetError::from).map_err(failed)?;
        }
        let mut pending = self.buffer.lock();
        pending.end_piece();
        Ok(std::mem::take(&mut pending.pieces))
    }

    /// The same in one piece.
    pub fn take_bytes(&mut self) -> Result<Bytes> {
        Ok(self.take_pieces()?.concat().into())
    }

    /// Appends an encoded row group; one without rows adds nothing.
    pub fn append_encoded(&mut self, group: EncodedRowGroup) -> Result<()> {
        if group.rows == 0 {
            return Ok(());
        }
        let ordinal = self.ready()?;
        let mut out = self.take_out()?;
        if group.parquet.root_schema() != self.layout.parquet_schema().root_schema() {
            return Err(Error::Internal("an encoded row group has another layout than its file".to_owned()));
        }
        self.buffer.lock().last.reserve(group.bytes());
        let rows = group.rows as u64;
        let mut closed = None;
        let on_close = |_: &mut TrackedWrite<Buffer>, metadata, blooms, column_indexes, offset_indexes| {
            closed = Some((metadata, blooms, column_indexes, offset_indexes));
            Ok(())
        };
        let mut writer = SerializedRowGroupWriter::new(
            self.layout.parquet_schema().clone(),
            self.layout.properties().clone(),
            &mut out,
            ordinal,
            Some(Box::new(on_close)),
        );
        for chunk in group.chunks {
            chunk.append_to_row_group(&mut writer).map_err(failed)?;
        }
        writer.close().map_err(failed)?;
        let Some((mut metadata, blooms, column_indexes, offset_indexes)) = closed else {
            return Err(Error::Internal("a row group was not closed".to_owned()));
        };
        write_blooms(&mut out, &mut metadata, blooms)?;
        self.groups.push(WrittenGroup {
            metadata,
            column_indexes: without_gaps(column_indexes),
            offset_indexes: offset_indexes.into_iter().collect(),
        });
        self.rows += rows;
        self.out = Some(out);
        Ok(())
    }

    /// Copies the next piece of a row group that is [`copyable`](super::copyable) into this file. Returns
    /// whether there is more: call again, with bytes taken out in between, until there is not.
    pub fn copy_some<R: ChunkReader + Clone + Send + Sync + 'static>(
        &mut self,
        copy: &mut RowGroupCopy<R>,
    ) -> Result<bool> {
        if self.copying.is_none() {
            self.ready()?;
            if !copyable(copy.group(), &self.layout) {
                return Err(Error::Internal("a row group was to be copied that cannot be".to_owned()));
            }
            self.copying = Some(Vec::new());
        }
        let mut out = self.take_out()?;
        let mut columns = self.copying.take().unwrap_or_default();
        let more = match copy.next().transpose()? {
            Some(Piece::Bytes(bytes)) => {
                self.buffer.pass(&mut out, &bytes)?;
                true
            }
            Some(Piece::Column(column)) => {
                let sorted = ordered(copy.group(), columns.len());
                columns.push(moved(*column, out.bytes_written(), sorted).map_err(failed)?);
                true
            }
            None => false,
        };
        if more {
            self.copying = Some(columns);
        } else {
            let rows = copy.group().num_rows() as u64;
            self.end_columns(&mut out, copy.group().metadata(), rows, columns)?;
        }
        self.out = Some(out);
        Ok(more)
    }

    /// Appends the next column of a [`copyable`](super::copyable) row group that was cut. After the last one comes
    /// [`end_cut`](Self::end_cut); bytes are taken out in between.
    pub fn append_cut<R: ChunkReader + Clone + Send + Sync + 'static>(
        &mut self,
        group: &RowGroup<R>,
        column: CutColumn,
    ) -> Result<()> {
        let mut columns = match self.copying.take() {
            Some(columns) => columns,
            None => {
                self.ready()?;
                Vec::new()
            }
        };
        let mut out = self.take_out()?;
        for bytes in &column.bytes {
            self.buffer.pass(&mut out, bytes)?;
        }
        let sorted = ordered(group, columns.len());
        columns.push(moved(column.column, out.bytes_written(), sorted).map_err(failed)?);
        self.copying = Some(columns);
        self.out = Some(out);
        Ok(())
    }

    /// Ends a row group that was cut, of which `rows` rows are left.
    pub fn end_cut<R: ChunkReader + Clone + Send + Sync + 'static>(
        &mut self,
        group: &RowGroup<R>,
        rows: u64,
    ) -> Result<()> {
        let columns = self.copying.take().unwrap_or_default();
        if columns.len() != group.metadata().num_columns() {
            return Err(Error::Internal("a row group was cut to fewer columns than it has".to_owned()));
        }
        let mut out = self.take_out()?;
        self.end_columns(&mut out, group.metadata(), rows, columns)?;
        self.out = Some(out);
        Ok(())
    }

    fn end_columns(
        &mut self,
        out: &mut TrackedWrite<Buffer>,
        source: &RowGroupMetaData,
        rows: u64,
        columns: Vec<WrittenColumn>,
    ) -> Result<()> {
        let mut chunks = Vec::with_capacity(columns.len());
        let (mut blooms, mut column_indexes, mut offset_indexes) = (Vec::new(), Vec::new(), Vec::new());
        for column in columns {
            chunks.push(column.metadata);
            blooms.push(column.bloom);
            column_indexes.push(column.column_index);
            offset_indexes.push(column.offset_index);
        }
        let start = chunks.iter().map(|chunk| chunk.byte_range().0).min().unwrap_or(0);
        let mut metadata = RowGroupMetaData::builder(self.layout.parquet_schema().clone())
            .set_total_byte_size(chunks.iter().map(ColumnChunkMetaData::uncompressed_size).sum())
            .set_column_metadata(chunks)
            .set_num_rows(i64::try_from(rows).unwrap_or(i64::MAX))
            .set_sorting_columns(source.sorting_columns().cloned())
            .set_ordinal(i16::try_from(self.groups.len()).unwrap_or(i16::MAX))
            .set_file_offset(i64::try_from(start).unwrap_or(0))
            .build()
            .map_err(failed)?;
        write_blooms(out, &mut metadata, blooms)?;
        self.rows += rows;
        self.groups.push(WrittenGroup {
            metadata,
            column_indexes: without_gaps(column_indexes),
            offset_indexes: offset_indexes.into_iter().collect(),
        });
        Ok(())
    }

    /// Ends the file. Its last bytes are still to be taken out.
    pub fn close(&mut self) -> Result<FileSummary> {
        if self.copying.is_some() {
            return Err(Error::Internal("a file was closed within a row group".to_owned()));
        }
        let out = self.take_out()?;
        let descriptor = self.layout.parquet_schema();
        let key_values = self.layout.key_value_metadata();
        let file = FileMetaData::new(
            self.layout.properties().writer_version().as_num(),
            i64::try_from(self.rows).unwrap_or(i64::MAX),
            Some(CREATED_BY.to_owned()),
            (!key_values.is_empty()).then(|| key_values.to_vec()),
            descriptor.clone(),
            None, // the writer states the order of every column
        );
        // Readers take an index for the whole file or not at all, and the writer knows no gaps.
        let indexed =
            self.groups.iter().all(|group| group.offset_indexes.is_some()) && !self.groups.is_empty();
        let (mut groups, mut column_indexes, mut offset_indexes) = (Vec::new(), Vec::new(), Vec::new());
        for group in std::mem::take(&mut self.groups) {
            groups.push(group.metadata);
            column_indexes.push(group.column_indexes);
            offset_indexes.extend(group.offset_indexes);
        }
        let ranges =
            self.keys.iter().map(|key| range_of(key, self.layout.schema(), descriptor, &groups)).collect();
        let row_groups = groups.len();
        let metadata = ParquetMetaDataBuilder::new(file)
            .set_row_groups(groups)
            .set_column_index(indexed.then_some(column_indexes))
            .set_offset_index(indexed.then_some(offset_indexes))
            .build();
        ParquetMetaDataWriter::new_with_tracked(out, &metadata).finish().map_err(failed)?;
        let bytes = self.buffer.lock().total;
        Ok(FileSummary { rows: self.rows, bytes, row_groups, ranges })
    }

    /// The ordinal of the next row group, if one may begin.
    fn ready(&self) -> Result<i16> {
        if self.copying.is_some() {
            return Err(Error::Internal("a row group was begun within another".to_owned()));
        }
        i16::try_from(self.groups.len())
            .ok()
            .filter(|_| !self.is_full())
            .ok_or_else(|| Error::Internal("a file has no room for another row group".to_owned()))
    }

    /// Takes the output; whoever fails does not give it back, and so ends the file.
    fn take_out(&mut self) -> Result<TrackedWrite<Buffer>> {
        self.out.take().ok_or_else(|| Error::Internal("a file was written to after its end".to_owned()))
    }
}

/// The footer entry of a copied chunk, whose bytes were just written and end at `end`.
fn moved(column: CopiedColumn, end: usize, sorted: bool) -> Result<WrittenColumn, ParquetError> {
    let CopiedColumn { metadata: old, start, bloom, column_index, offset_index } = column;
    let shift = end as i64 - old.compressed_size() - start;
    let mut new = ColumnChunkMetaData::builder(old.column_descr_ptr())
        .set_compression_codec(old.compression_codec())
        .set_encodings_mask(*old.encodings_mask())
        .set_total_compressed_size(old.compressed_size())
        .set_total_uncompressed_size(old.uncompressed_size())
        .set_num_values(old.num_values())
        .set_data_page_offset(old.data_page_offset() + shift)
        .set_dictionary_page_offset(old.dictionary_page_offset().map(|offset| offset + shift))
        .set_unencoded_byte_array_data_bytes(old.unencoded_byte_array_data_bytes())
        .set_repetition_level_histogram(old.repetition_level_histogram().cloned())
        .set_definition_level_histogram(old.definition_level_histogram().cloned());
    // Bounds in the deprecated fields are worth nothing where bytes were compared as signed ones, or not as a whole. Readers
    // that know which writers did so would no longer see who wrote them.
    let plain_order = matches!(old.column_type(), Type::INT32 | Type::INT64 | Type::FLOAT | Type::DOUBLE)
        && old.column_descr().sort_order() == SortOrder::SIGNED;
    let believed = |known: &&Statistics| if known.is_min_max_deprecated() { plain_order } else { sorted };
    if let Some(statistics) = old.statistics().filter(believed) {
        new = new.set_statistics(statistics.clone());
    }
    if let Some(statistics) = old.geo_statistics() {
        new = new.set_geo_statistics(Box::new(statistics.clone()));
    }
    if let Some(statistics) = old.page_encoding_stats() {
        new = new.set_page_encoding_stats(statistics.clone());
    }
    let offset_index = offset_index.map(|mut index| {
        index.page_locations.iter_mut().for_each(|page| page.offset += shift);
        index
    });
    let column_index = column_index.filter(|_| sorted);
    Ok(WrittenColumn { metadata: new.build()?, bloom, column_index, offset_index })
}

fn write_blooms(
    out: &mut TrackedWrite<Buffer>,
    group: &mut RowGroupMetaData,
    blooms: Vec<Option<Sbbf>>,
) -> Result<()> {
    for (column, bloom) in group.columns_mut().iter_mut().zip(blooms) {
        let Some(bloom) = bloom else { continue };
        let start = out.bytes_written();
        bloom.write(&mut *out).map_err(failed)?;
        let length = i32::try_from(out.bytes_written() - start).ok();
        let told = column.clone().into_builder().set_bloom_filter_offset(Some(start as i64));
        *column = told.set_bloom_filter_length(length).build().map_err(failed)?;
    }
    Ok(())
}

fn without_gaps(indexes: Vec<Option<ColumnIndexMetaData>>) -> Vec<ColumnIndexMetaData> {
    indexes.into_iter().map(|index| index.unwrap_or(ColumnIndexMetaData::NONE)).collect()
}

/// Bytes written and not yet taken out, shared by the writer that fills it and the one that empties it.
#[derive(Debug, Clone, Default)]
struct Buffer(Arc<Mutex<Pending>>);

/// Bytes from here on are passed on as they are rather than copied together with others.
const LARGE: usize = 64 << 10;

#[derive(Debug, Default)]
struct Pending {
    pieces: Vec<Bytes>,
    /// What comes after the pieces, growing.
    last: Vec<u8>,
    /// What the next write is of, if it is not to be copied.
    passing: Option<Bytes>,
    total: u64,
}

impl Pending {
    fn end_piece(&mut self) {
        if !self.last.is_empty() {
            self.pieces.push(std::mem::take(&mut self.last).into());
        }
    }
}

impl Buffer {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `out`, which writes here, write `bytes`; large ones are not copied on the way.
    fn pass(&self, out: &mut TrackedWrite<Self>, bytes: &Bytes) -> Result<()> {
        self.lock().passing = (bytes.len() >= LARGE).then(|| bytes.clone());
        out.write_all(bytes).map_err(ParquetError::from).map_err(failed)?;
        self.lock().passing = None;
        Ok(())
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let mut pending = self.lock();
        // What was buffered before them comes first, by another write.
        let is_it = |passing: &mut Bytes| passing.as_ptr() == bytes.as_ptr() && passing.len() == bytes.len();
        if let Some(passing) = pending.passing.take_if(is_it) {
            pending.end_piece();
            pending.pieces.push(passing);
        } else {
            pending.last.extend_from_slice(bytes);
        }
        pending.total += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
