//! Decoding a row group in batches whose size is bounded by bytes as well as by rows.

use super::guard::{Guarded, broken, shielded};
use super::{RowGroup, int96, interval};
use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::DataType;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder, RowSelection};
use parquet::basic::Type;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::ChunkReader;

/// What a batch should not exceed, by what the footer says about its columns.
const BATCH_BYTES: u64 = 16 << 20;

/// A row group whose rows are larger than this on average is refused.
const MAX_ROW_BYTES: u64 = 256 << 20;

/// The batches of a row group. After an error there are no more.
pub struct Batches<R> {
    reader: Option<ParquetRecordBatchReader>,
    input: Guarded<R>,
    url: String,
    group: usize,
    expected: usize,
    seen: usize,
}

impl<R> std::fmt::Debug for Batches<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { url, group, expected, seen, .. } = self;
        write!(f, "Batches({seen} of {expected} rows of row group {group} of {url})")
    }
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> Batches<R> {
    /// `leaves`: which columns (all if `None`); `keep`: which rows.
    pub(super) fn open(
        group: &RowGroup<R>,
        leaves: Option<Vec<usize>>,
        keep: Option<&BooleanBuffer>,
        batch_rows: usize,
    ) -> Result<Self> {
        let inner = &group.file.0;
        let rows = group.num_rows();
        if let Some(keep) = keep.filter(|keep| keep.len() != rows) {
            return Err(Error::Internal(format!("a mask of {} rows for {rows} rows", keep.len())));
        }
        let expected = keep.map_or(rows, BooleanBuffer::count_set_bits);
        let leaves = leaves.unwrap_or_else(|| (0..group.metadata().num_columns()).collect());
        let batch_rows = bounded_rows(group, &leaves, batch_rows)?;
        let mut batches = Self {
            reader: None,
            input: inner.input.holding(
                leaves.iter().filter_map(|leaf| group.metadata().columns().get(*leaf)),
                inner.page_budget,
            ),
            url: inner.url.clone(),
            group: group.index,
            expected,
            seen: 0,
        };
        if expected == 0 {
            return Ok(batches);
        }
        let reader = shielded(&inner.url, || {
            for (leaf, read_as) in
                leaves.iter().filter_map(|leaf| Some((*leaf, inner.leaf_types.get(*leaf)?)))
            {
                let (input, metadata) = (&inner.input, group.metadata());
                if metadata.column(leaf).column_type() == Type::INT96 {
                    int96::check(input, metadata, leaf, read_as, &inner.url)?;
                }
                if matches!(read_as, DataType::Interval(_)) {
                    interval::check(input, metadata, leaf, read_as, &inner.url)?;
                }
            }
            let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(
                batches.input.clone(),
                inner.reader.clone(),
            )
            .with_row_groups(vec![group.index])
            .with_projection(ProjectionMask::leaves(group.file.parquet_schema(), leaves))
            .with_batch_size(batch_rows);
            let builder = match keep {
                Some(keep) => builder.with_row_selection(RowSelection::from_boolean_buffer(keep.clone())),
                None => builder,
            };
            builder.build().map_err(|error| batches.input.blame(&inner.url, error))
        })?;
        batches.reader = Some(reader);
        Ok(batches)
    }

    /// How many rows all batches together have.
    pub fn num_rows(&self) -> usize {
        self.expected
    }
}

impl<R> Iterator for Batches<R> {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        // Taken out, so that neither an error nor a panic leaves a half-used decoder behind.
        let mut reader = self.reader.take()?;
        let read = shielded(&self.url, || {
            reader.next().transpose().map_err(|error| self.input.blame(&self.url, error))
        });
        match read {
            Ok(Some(batch)) => {
                self.seen += batch.num_rows();
                if self.seen > self.expected {
                    return Some(Err(self.miscounted()));
                }
                self.reader = Some(reader);
                Some(Ok(batch))
            }
            Ok(None) if self.seen == self.expected => None,
            Ok(None) => Some(Err(self.miscounted())),
            Err(error) => Some(Err(error)),
        }
    }
}

impl<R> Batches<R> {
    fn miscounted(&self) -> Error {
        let Self { group, expected, seen, .. } = self;
        broken(&self.url, format!("row group {group} gave {seen} rows where its footer promises {expected}"))
    }
}

/// How many rows a batch may have so that it stays near [`BATCH_BYTES`].
fn bounded_rows<R: ChunkReader + Clone + Send + Sync + 'static>(
    group: &RowGroup<R>,
    leaves: &[usize],
    batch_rows: usize,
) -> Result<usize> {
    let rows = group.num_rows().max(1) as u64;
    let columns = group.metadata().columns();
    let bytes = leaves
        .iter()
        .filter_map(|leaf| Some((columns.get(*leaf)?, group.file.0.leaf_repeats.get(*leaf)?)))
        .fold(0u64, |sum, (column, repeats)| sum.saturating_add(decoded_bytes(column, rows, *repeats)));
    let row = bytes / rows;
    if row > MAX_ROW_BYTES {
        return Err(broken(
            group.file.url(),
            format!("row group {} has {row} bytes a row, more than the {MAX_ROW_BYTES} allowed", group.index),
        ));
    }
    Ok((BATCH_BYTES / row.max(1)).clamp(1, batch_rows.max(1) as u64) as usize)
}

/// About how much memory the decoded column takes: at least its pages, at least its values. `repeats` is how many
/// values a row has by its type: a null list of a fixed size takes as much as a full one.
fn decoded_bytes(column: &ColumnChunkMetaData, rows: u64, repeats: u64) -> u64 {
    let descr = column.column_descr();
    let value = match column.column_type() {
        Type::BOOLEAN => 1,
        Type::INT32 | Type::FLOAT => 4,
        Type::INT64 | Type::DOUBLE => 8,
        Type::INT96 => 12,
        Type::BYTE_ARRAY => 16,
        Type::FIXED_LEN_BYTE_ARRAY => u64::try_from(descr.type_length()).unwrap_or(0),
    };
    let levels = if descr.max_rep_level() > 0 { 4 } else { 0 };
    let values = u64::try_from(column.num_values()).unwrap_or(0).max(rows.saturating_mul(repeats));
    values.saturating_mul(value + levels).max(u64::try_from(column.uncompressed_size()).unwrap_or(0))
}
