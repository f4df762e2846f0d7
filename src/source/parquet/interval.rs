//! An interval is stored as months, days and milliseconds; the decoder reads the months or the others, and leaves away
//! silently what it does not read. So what it would leave away is looked at first.

use super::guard::Guarded;
use crate::error::{Error, Result};
use arrow::datatypes::{DataType, IntervalUnit};
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::FixedLenByteArrayType;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use std::sync::Arc;

const BATCH: usize = 8192;

/// Bytes of the months, which come first.
const MONTHS: usize = 4;

/// Refuses the row group if column `leaf` holds an interval of which `read_as` is only a part.
pub(super) fn check<R: ChunkReader + Clone + 'static>(
    input: &Guarded<R>,
    group: &RowGroupMetaData,
    leaf: usize,
    read_as: &DataType,
    url: &str,
) -> Result<()> {
    let column = group.column(leaf);
    let input = input.holding(std::iter::once(column), u64::MAX);
    let wrong = |error| input.blame(url, error);
    let pages = SerializedPageReader::new(Arc::new(input.clone()), column, group.num_rows() as usize, None)
        .map_err(wrong)?;
    let reader = get_column_reader(column.column_descr_ptr(), Box::new(pages));
    let mut reader = get_typed_column_reader::<FixedLenByteArrayType>(reader);
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        values.clear();
        definitions.clear();
        repetitions.clear();
        let (records, _, levels) = reader
            .read_records(BATCH, Some(&mut definitions), Some(&mut repetitions), &mut values)
            .map_err(wrong)?;
        for value in &values {
            let (months, rest) = value.data().split_at_checked(MONTHS).unwrap_or_default();
            let left = if *read_as == DataType::Interval(IntervalUnit::YearMonth) { rest } else { months };
            if left.iter().any(|byte| *byte != 0) {
                return Err(Error::input(
                    url,
                    format!(
                        "column `{}` holds intervals of months together with days or hours, or of months alone, which \
                         can be copied but not decoded; write it again as a number or a duration",
                        column.column_path()
                    ),
                ));
            }
        }
        if records == 0 && levels == 0 {
            return Ok(());
        }
    }
}
