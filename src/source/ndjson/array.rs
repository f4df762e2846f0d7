//! Finished columns as Arrow arrays.

use super::column::{Column, Data};
use super::plan::Width;
use arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, BooleanArray, FixedSizeListArray, ListArray, MapArray,
    PrimitiveArray, StringArray, StructArray, new_null_array,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes as types;
use arrow::datatypes::{DataType, Field, Fields, TimeUnit};
use arrow::error::ArrowError;
use std::sync::Arc;

type Built = Result<ArrayRef, ArrowError>;

impl Column<'_> {
    /// The column as an array of `len` values and of its field's type.
    pub(super) fn finish(mut self, len: usize) -> Built {
        self.pad(len);
        let field = &self.plan.field;
        let nulls = self.nulls.finish();
        let built = match self.data {
            Data::Bool(values) => Arc::new(BooleanArray::new(values.into(), nulls)) as ArrayRef,
            Data::Long(values, _) => long(values, nulls, field.data_type())?,
            Data::Unsigned(values) => primitive::<types::UInt64Type>(values, nulls)?,
            Data::Double(values, width) => match width {
                Width::Double => primitive::<types::Float64Type>(values, nulls)?,
                Width::Single => narrow::<f64, types::Float32Type>(values, nulls, |v| v as f32)?,
                Width::Half => narrow::<f64, types::Float16Type>(values, nulls, half::f16::from_f64)?,
            },
            Data::Decimal(values, p, s) => match field.data_type() {
                DataType::Decimal32(..) => {
                    decimal::<i128, types::Decimal32Type>(values, nulls, |v| v as i32, p, s)?
                }
                DataType::Decimal64(..) => {
                    decimal::<i128, types::Decimal64Type>(values, nulls, |v| v as i64, p, s)?
                }
                _ => decimal::<i128, types::Decimal128Type>(values, nulls, |v| v, p, s)?,
            },
            Data::Decimal256(values, p, s) => {
                decimal::<_, types::Decimal256Type>(values, nulls, |v| v, p, s)?
            }
            Data::Text(bytes, ends, _) => Arc::new(StringArray::try_new(offsets(ends), bytes.into(), nulls)?),
            Data::Struct(columns, level) => {
                let fields: Fields = level.plans.iter().map(|plan| plan.field.clone()).collect();
                let arrays = columns.into_iter().map(|c| c.finish(len)).collect::<Result<_, _>>()?;
                Arc::new(StructArray::try_new_with_length(fields, arrays, nulls, len)?)
            }
            Data::List(ends, items) => {
                let (field, count) = (items.plan.field.clone(), items.len());
                Arc::new(ListArray::try_new(field, offsets(ends), items.finish(count)?, nulls)?)
            }
            Data::FixedList(items, size) => {
                let (field, size) = (items.plan.field.clone(), size);
                let width = i32::try_from(size).unwrap_or(i32::MAX);
                let items = items.finish(len * size)?;
                Arc::new(FixedSizeListArray::try_new_with_length(field, width, items, nulls, len)?)
            }
            Data::Map(ends, keys, values) => map(field, offsets(ends), *keys, *values, nulls)?,
            Data::Nothing => new_null_array(field.data_type(), len),
        };
        // Only the large and view layouts still differ.
        if built.data_type() == field.data_type() { Ok(built) } else { cast(&built, field.data_type()) }
    }
}

fn map(
    field: &Field,
    ends: OffsetBuffer<i32>,
    keys: Column<'_>,
    values: Column<'_>,
    nulls: Option<NullBuffer>,
) -> Built {
    let DataType::Map(entries, sorted) = field.data_type() else {
        return Err(ArrowError::SchemaError(format!("column {} is no map", field.name())));
    };
    let fields = Fields::from(vec![keys.plan.field.clone(), values.plan.field.clone()]);
    let count = keys.len();
    let arrays = vec![keys.finish(count)?, values.finish(count)?];
    let pairs = StructArray::try_new(fields, arrays, None)?;
    Ok(Arc::new(MapArray::try_new(entries.clone(), ends, pairs, nulls, *sorted)?))
}

/// Ends only grow, because values are only appended.
fn offsets(ends: Vec<i32>) -> OffsetBuffer<i32> {
    OffsetBuffer::new(ScalarBuffer::from(ends))
}

fn primitive<T: ArrowPrimitiveType>(values: Vec<T::Native>, nulls: Option<NullBuffer>) -> Built {
    Ok(Arc::new(PrimitiveArray::<T>::try_new(values.into(), nulls)?))
}

/// Stored wider than the column's type; each value was checked to fit when it came.
fn narrow<W, T: ArrowPrimitiveType>(
    values: Vec<W>,
    nulls: Option<NullBuffer>,
    to: impl Fn(W) -> T::Native,
) -> Built {
    primitive::<T>(values.into_iter().map(to).collect(), nulls)
}

fn decimal<W, T: types::DecimalType>(
    values: Vec<W>,
    nulls: Option<NullBuffer>,
    to: impl Fn(W) -> T::Native,
    precision: u8,
    scale: i8,
) -> Built {
    let array = PrimitiveArray::<T>::try_new(values.into_iter().map(to).collect(), nulls)?;
    Ok(Arc::new(array.with_precision_and_scale(precision, scale)?))
}

fn long(values: Vec<i64>, nulls: Option<NullBuffer>, kind: &DataType) -> Built {
    match kind {
        DataType::Int8 => narrow::<i64, types::Int8Type>(values, nulls, |v| v as i8),
        DataType::Int16 => narrow::<i64, types::Int16Type>(values, nulls, |v| v as i16),
        DataType::Int32 => narrow::<i64, types::Int32Type>(values, nulls, |v| v as i32),
        DataType::UInt8 => narrow::<i64, types::UInt8Type>(values, nulls, |v| v as u8),
        DataType::UInt16 => narrow::<i64, types::UInt16Type>(values, nulls, |v| v as u16),
        DataType::UInt32 => narrow::<i64, types::UInt32Type>(values, nulls, |v| v as u32),
        DataType::Date32 => narrow::<i64, types::Date32Type>(values, nulls, |v| v as i32),
        DataType::Date64 => primitive::<types::Date64Type>(values, nulls),
        DataType::Time32(TimeUnit::Second) => {
            narrow::<i64, types::Time32SecondType>(values, nulls, |v| v as i32)
        }
        DataType::Time32(_) => narrow::<i64, types::Time32MillisecondType>(values, nulls, |v| v as i32),
        DataType::Time64(TimeUnit::Microsecond) => primitive::<types::Time64MicrosecondType>(values, nulls),
        DataType::Time64(_) => primitive::<types::Time64NanosecondType>(values, nulls),
        DataType::Timestamp(unit, zone) => match unit {
            TimeUnit::Second => zoned::<types::TimestampSecondType>(values, nulls, zone),
            TimeUnit::Millisecond => zoned::<types::TimestampMillisecondType>(values, nulls, zone),
            TimeUnit::Microsecond => zoned::<types::TimestampMicrosecondType>(values, nulls, zone),
            TimeUnit::Nanosecond => zoned::<types::TimestampNanosecondType>(values, nulls, zone),
        },
        _ => primitive::<types::Int64Type>(values, nulls),
    }
}

fn zoned<T: types::ArrowTimestampType>(
    values: Vec<i64>,
    nulls: Option<NullBuffer>,
    zone: &Option<Arc<str>>,
) -> Built {
    let array = PrimitiveArray::<T>::try_new(values.into(), nulls)?;
    Ok(Arc::new(array.with_timezone_opt(zone.clone())))
}
