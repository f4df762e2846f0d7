//! The old 96-bit timestamps reach further than 64 bits of their unit, and the decoder wraps silently what does not
//! fit. So they are looked at first.

use super::guard::Guarded;
use crate::error::{Error, Result};
use arrow::datatypes::{DataType, TimeUnit};
use parquet::column::reader::{get_column_reader, get_typed_column_reader};
use parquet::data_type::{Int96, Int96Type};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::reader::ChunkReader;
use parquet::file::serialized_reader::SerializedPageReader;
use std::sync::Arc;

/// Julian day of 1970-01-01.
const EPOCH: i128 = 2_440_588;
const DAY: i128 = 86_400_000_000_000;
const BATCH: usize = 8192;

/// Refuses the row group if column `leaf` holds an instant that `read_as` cannot.
pub(super) fn check<R: ChunkReader + Clone + 'static>(
    input: &Guarded<R>,
    group: &RowGroupMetaData,
    leaf: usize,
    read_as: &DataType,
    url: &str,
) -> Result<()> {
    let nanoseconds = match read_as {
        DataType::Timestamp(TimeUnit::Second, _) => 1_000_000_000,
        DataType::Timestamp(TimeUnit::Millisecond, _) => 1_000_000,
        DataType::Timestamp(TimeUnit::Microsecond, _) => 1000,
        _ => 1,
    };
    let column = group.column(leaf);
    let wrong = |error| input.blame(url, error);
    let pages = SerializedPageReader::new(Arc::new(input.clone()), column, group.num_rows() as usize, None)
        .map_err(wrong)?;
    let mut reader =
        get_typed_column_reader::<Int96Type>(get_column_reader(column.column_descr_ptr(), Box::new(pages)));
    let (mut values, mut definitions, mut repetitions) = (Vec::new(), Vec::new(), Vec::new());
    loop {
        values.clear();
        definitions.clear();
        repetitions.clear();
        let (records, _, levels) = reader
            .read_records(BATCH, Some(&mut definitions), Some(&mut repetitions), &mut values)
            .map_err(wrong)?;
        for value in &values {
            if i64::try_from(instant(value) / nanoseconds).is_err() {
                return Err(Error::input(
                    url,
                    format!(
                        "column `{}` holds an INT96 timestamp that {read_as} cannot; write it again with 64-bit \
                         timestamps of a coarser unit",
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

/// Nanoseconds since the epoch.
fn instant(value: &Int96) -> i128 {
    let [low, high, day] = match value.data() {
        [low, high, day] => [*low, *high, *day],
        _ => [0; 3],
    };
    (i128::from(day as i32) - EPOCH) * DAY + i128::from(u64::from(high) << 32 | u64::from(low))
}
