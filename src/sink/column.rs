//! One column of a row group without some of its rows, decoded and encoded: for a column that cannot be cut in a row
//! group whose other columns can.

use super::encode::{RowGroupEncoder, failed};
use super::{EncodedRowGroup, FileLayout};
use crate::error::{Error, Result};
use crate::schema::{adapt, batch_rows};
use crate::source::parquet::{CopiedColumn, CutColumn, RowGroup};
use arrow::buffer::BooleanBuffer;
use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::ChunkReader;
use parquet::file::writer::{SerializedRowGroupWriter, TrackedWrite};
use std::io::Write;

/// The leaves of the top-level column `root` of `group` with the rows of `keep` only, at least one, as they are written
/// to files of `layout`, which must be one that [`encodes`](FileLayout::encodes).
pub fn encode_column<R: ChunkReader + Clone + Send + Sync + 'static>(
    group: &RowGroup<R>,
    root: usize,
    keep: &BooleanBuffer,
    layout: &FileLayout,
) -> Result<Vec<CutColumn>> {
    let layout = layout.only(root)?;
    let mut encoder = RowGroupEncoder::new(&layout)?;
    for batch in group.column_rows(root, keep, batch_rows(layout.row_schema()))? {
        let batch = adapt(&batch?, encoder.schema());
        encoder.write(&batch.map_err(|reason| Error::input(group.file().url(), reason))?)?;
    }
    into_columns(encoder.finish()?, &layout)
}

/// The columns of an encoded row group one by one.
fn into_columns(group: EncodedRowGroup, layout: &FileLayout) -> Result<Vec<CutColumn>> {
    let mut out = TrackedWrite::new(Vec::with_capacity(group.bytes() + 4));
    // Something must come before the first page: no place is 0.
    out.write_all(b"PAR1").map_err(ParquetError::from).map_err(failed)?;
    let mut closed = None;
    let on_close = |_: &mut TrackedWrite<Vec<u8>>, metadata, blooms, column_indexes, offset_indexes| {
        closed = Some((metadata, blooms, column_indexes, offset_indexes));
        Ok(())
    };
    let mut writer = SerializedRowGroupWriter::new(
        layout.parquet_schema().clone(),
        layout.properties().clone(),
        &mut out,
        0,
        Some(Box::new(on_close)),
    );
    for chunk in group.chunks {
        chunk.append_to_row_group(&mut writer).map_err(failed)?;
    }
    writer.close().map_err(failed)?;
    let Some((metadata, blooms, column_indexes, offset_indexes)) = closed else {
        return Err(Error::Internal("a row group was not closed".to_owned()));
    };
    let bytes = Bytes::from(out.into_inner().map_err(failed)?);
    let parts = metadata.columns().iter().zip(blooms).zip(column_indexes).zip(offset_indexes);
    let column = |(((metadata, bloom), column_index), offset_index): (((&_, _), _), _)| {
        let metadata: &parquet::file::metadata::ColumnChunkMetaData = metadata;
        let (start, length) = metadata.byte_range();
        let place = start as usize..(start + length) as usize;
        if place.end > bytes.len() {
            return Err(Error::Internal("an encoded column is not where it should be".to_owned()));
        }
        let column = CopiedColumn {
            metadata: metadata.clone(),
            start: start as i64,
            bloom,
            column_index,
            offset_index,
        };
        Ok(CutColumn::encoded(bytes.slice(place), column))
    };
    parts.map(column).collect()
}
