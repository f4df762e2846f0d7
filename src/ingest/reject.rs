//! Rows that are kept out: each goes to quarantine with its origin and reason, or stops the run, as asked.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::json::LineDelimitedWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};
use crate::options::{IngestOptions, OnBadRow};
use crate::session::{QuarantinedRow, Session, Verdicts};
use crate::source::input::Input;
use crate::source::ndjson::{Block, Decoded};
use crate::source::parquet::RowGroup;
use crate::store::compute;

/// Why a row without a key is kept out.
const NO_KEY: &str = "all key columns are null: the row has no identity";

fn without_key(url: &str, place: &str) -> Error {
    let advice = "use --null-key quarantine to set such rows aside, or keep to keep them all";
    Error::input(url, format!("{place} has no key: all its key columns are null; {advice}"))
}

/// Rejects the lines of a block that gave no row, in order. Returns how many there were.
pub(super) async fn bad_lines(
    session: &mut Session,
    source: u32,
    url: &str,
    decoded: &Decoded,
    options: &IngestOptions,
) -> Result<u64> {
    for bad in &decoded.bad {
        if options.on_bad_row == OnBadRow::Fail {
            return Err(Error::input(
                url,
                format!(
                    "line {} (byte {}): {}. Mend it, or use --on-bad-row quarantine to set such lines aside",
                    bad.line, bad.offset, bad.reason
                ),
            ));
        }
        let row = QuarantinedRow::of_line(url, bad.line, bad.offset, bad.reason.clone(), &bad.raw);
        session.reject(source, &row).await?;
    }
    Ok(decoded.bad.len() as u64)
}

/// Sets the lines aside whose rows have no key.
pub(super) async fn keyless_lines(
    session: &mut Session,
    url: &str,
    block: &Block,
    decoded: &Decoded,
    verdicts: &Verdicts,
) -> Result<()> {
    let wanted: Vec<u64> =
        verdicts.no_key.iter().filter_map(|row| decoded.lines.get(*row as usize)).copied().collect();
    let Some(first) = wanted.first() else { return Ok(()) };
    if session.fails_without_key() {
        return Err(without_key(url, &format!("line {first}")));
    }
    let mut wanted = wanted.into_iter().peekable();
    for line in block.lines() {
        if wanted.next_if_eq(&line.number).is_some() {
            let row = QuarantinedRow::of_line(url, line.number, line.offset, NO_KEY.into(), line.bytes);
            session.set_aside(&row).await?;
        }
    }
    Ok(())
}

/// Sets the rows of a row group aside that have no key: `keyless`, counted from the group's first, which is row `first`
/// of the file. The group is decoded for it.
pub(super) async fn keyless_rows(
    session: &mut Session,
    group: &RowGroup<Input>,
    first: u64,
    keyless: Vec<usize>,
) -> Result<()> {
    let Some(row) = keyless.first() else { return Ok(()) };
    let url = group.file().url().to_owned();
    if session.fails_without_key() {
        return Err(without_key(&url, &format!("row {}", first + *row as u64)));
    }
    let mut mask = BooleanBufferBuilder::new(group.num_rows());
    mask.append_n(group.num_rows(), false);
    keyless.iter().for_each(|row| mask.set_bit(*row, true));
    let (mask, whole) = (mask.finish(), group.clone());
    let mut batches = compute(move || whole.rows(Some(&mask), 1024)).await?;
    let mut places = keyless.into_iter();
    loop {
        let (batch, rest) = compute(move || Ok((batches.next().transpose()?, batches))).await?;
        batches = rest;
        let Some(batch) = batch else { return Ok(()) };
        for at in 0..batch.num_rows() {
            let record = record(&batch.slice(at, 1));
            let place = first + places.next().unwrap_or_default() as u64;
            session.set_aside(&QuarantinedRow::of_record(&url, place, NO_KEY.into(), record)).await?;
        }
    }
}

/// A row as a JSON object. Numbers that JSON has no notation for stand as text, and so does every value of a row that
/// cannot be shown otherwise: no row is too strange for quarantine.
fn record(row: &RecordBatch) -> String {
    let finite = |column: &ArrayRef| match column.data_type() {
        DataType::Float32 => column.as_primitive::<Float32Type>().iter().flatten().all(f32::is_finite),
        DataType::Float64 => column.as_primitive::<Float64Type>().iter().flatten().all(f64::is_finite),
        _ => true,
    };
    let spelled = |column: &ArrayRef| match finite(column) {
        true => Arc::clone(column),
        false => cast(column, &DataType::Utf8).unwrap_or_else(|_| Arc::clone(column)),
    };
    let names = row.schema_ref().fields().iter().map(|field| field.name());
    let spelled = RecordBatch::try_from_iter(names.zip(row.columns().iter().map(spelled)));
    let written = spelled.and_then(|row| {
        let mut writer = LineDelimitedWriter::new(Vec::new());
        writer.write(&row)?;
        writer.finish()?;
        Ok(writer.into_inner())
    });
    match written {
        Ok(bytes) => String::from_utf8_lossy(&bytes).trim_end().to_owned(),
        Err(_) => {
            let options = FormatOptions::default().with_display_error(true);
            let text = |column: &ArrayRef| array_value(column, &options);
            let names = row.schema_ref().fields().iter().map(|field| field.name().clone());
            let values = names.zip(row.columns().iter().map(text));
            serde_json::Value::Object(values.collect()).to_string()
        }
    }
}

/// The first value of a column as JSON text; null if it is null.
fn array_value(column: &ArrayRef, options: &FormatOptions<'_>) -> serde_json::Value {
    let text = ArrayFormatter::try_new(column.as_ref(), options).map(|format| format.value(0).to_string());
    match text {
        _ if column.is_null(0) => serde_json::Value::Null,
        Ok(text) => serde_json::Value::String(text),
        Err(error) => serde_json::Value::String(format!("(not shown: {error})")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Builder, MapBuilder};

    #[test]
    fn any_row_can_be_shown() {
        let mut map = MapBuilder::new(None, Int32Builder::new(), Int32Builder::new());
        map.keys().append_value(1);
        map.values().append_value(2);
        map.append(true).unwrap();
        let strange: ArrayRef = Arc::new(map.finish());
        let float: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN]));
        let row = RecordBatch::try_from_iter([("f", Arc::clone(&float)), ("m", strange)]).unwrap();
        assert_eq!(record(&row), r#"{"f":"NaN","m":"{1: 2}"}"#);
        let row = RecordBatch::try_from_iter([("f", float)]).unwrap();
        assert_eq!(record(&row), r#"{"f":"NaN"}"#);
    }
}
