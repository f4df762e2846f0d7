//! Rows without a key: they have no identity, so no promise can be kept about them. They go to quarantine as JSON objects,
//! or stop the run.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use arrow::json::LineDelimitedWriter;
use arrow::util::display::{ArrayFormatter, FormatOptions};

use super::{QuarantinedRow, Session, Verdicts};
use crate::error::{Error, Result};

/// Why a row without a key is kept out.
pub(crate) const NO_KEY: &str = "all key columns are null: the row has no identity";

/// What to tell of a row that stops the run, at `place` of the source `url`.
pub(crate) fn without_key(url: &str, place: &str) -> Error {
    let advice = "use --null-key quarantine to set such rows aside, or keep to keep them all";
    Error::input(url, format!("{place} has no key: all its key columns are null; {advice}"))
}

impl Session {
    /// Sets the rows of a batch aside that have no key, or stops at the first. `before` rows of the source came before.
    pub(super) async fn set_aside_keyless(
        &mut self,
        source: u32,
        before: u64,
        rows: &RecordBatch,
        verdicts: &Verdicts,
    ) -> Result<()> {
        let Some(first) = verdicts.no_key.first() else { return Ok(()) };
        let url = self.source_of(source)?.url.clone();
        if self.fails_without_key() {
            return Err(without_key(&url, &format!("row {}", before + u64::from(*first))));
        }
        for row in &verdicts.no_key {
            let shown = record(&rows.slice(*row as usize, 1));
            let place = before + u64::from(*row);
            self.set_aside(&QuarantinedRow::of_record(&url, place, NO_KEY.into(), shown)).await?;
        }
        Ok(())
    }
}

/// A row as a JSON object. Numbers that JSON has no notation for stand as text, and so does every value of a row that
/// cannot be shown otherwise: no row is too strange for quarantine.
pub(crate) fn record(row: &RecordBatch) -> String {
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
