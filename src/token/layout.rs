//! From an Arrow array to a [`Column`].
//!
//! The field that the key was bound to says how to read the array, and the array may lie in any layout of that kind;
//! an array that does not fit is an error. Work is in proportion to the rows of the slice, not to what lies behind it
//! (but for the values of a dictionary).

use super::{
    column::{Bytes, Column, Indexed, Values},
    encode,
    kind::{KeyKind, plain},
};
use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, GenericListArray, GenericListViewArray,
        OffsetSizeTrait, RunArray,
    },
    buffer::{NullBuffer, ScalarBuffer},
    datatypes::{
        ArrowNativeType, Date32Type, Date64Type, Decimal32Type, Decimal64Type, Decimal128Type,
        Decimal256Type, DurationMicrosecondType, DurationMillisecondType, DurationNanosecondType,
        DurationSecondType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type,
        RunEndIndexType, Time32MillisecondType, Time32SecondType, Time64MicrosecondType,
        Time64NanosecondType, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
        TimestampSecondType, UInt8Type, UInt16Type, UInt32Type, UInt64Type,
    },
};
use arrow_schema::{DataType, Field, TimeUnit};
use std::ops::Range;

/// Lays out `array`, read as `field`; the error says what does not fit.
pub(super) fn column(field: &Field, array: &ArrayRef) -> Result<Column, String> {
    let field = plain(field);
    let kind = KeyKind::of(&field)?;
    Ok(Column::new(array.nulls().cloned(), lay_out(&field, kind, array)?))
}

/// `field` is free of dictionary and run-end encoding; `array` may have any of them.
fn lay_out(field: &Field, kind: Option<KeyKind>, array: &ArrayRef) -> Result<Values, String> {
    match array.data_type() {
        DataType::Null => return Ok(Values::Null),
        DataType::Dictionary(..) => return dictionary(field, array),
        DataType::RunEndEncoded(ends, _) => {
            return match ends.data_type() {
                DataType::Int16 => runs(field, array.as_run::<Int16Type>()),
                DataType::Int32 => runs(field, array.as_run::<Int32Type>()),
                _ => runs(field, array.as_run::<Int64Type>()),
            };
        }
        _ => {}
    }
    let unfit =
        || format!("\"{}\" was {} and is {} here", field.name(), field.data_type(), array.data_type());
    match kind.ok_or_else(unfit)? {
        KeyKind::Boolean => array.as_boolean_opt().cloned().map(Values::Boolean),
        KeyKind::Integer => integers(array),
        KeyKind::Float => floats(array),
        KeyKind::Decimal => decimals(array),
        KeyKind::Text => text(array).map(|bytes| Values::Bytes(encode::TEXT, bytes)),
        KeyKind::Json => text(array).map(Values::Json),
        KeyKind::Binary => binary(array).map(|bytes| Values::Bytes(encode::BINARY, bytes)),
        KeyKind::Date | KeyKind::Time | KeyKind::Instant | KeyKind::Timestamp | KeyKind::Duration => {
            // Zoned and not zoned differ in nothing but the field; the array must agree with it.
            let same = KeyKind::of(&Field::new(field.name(), array.data_type().clone(), true))? == kind;
            if same { times(array) } else { None }
        }
        KeyKind::Struct => return members(field, array)?.ok_or_else(unfit),
        KeyKind::List => return list(field, array)?.ok_or_else(unfit),
        KeyKind::Map => return map(field, array)?.ok_or_else(unfit),
    }
    .ok_or_else(unfit)
}

fn integers(array: &ArrayRef) -> Option<Values> {
    let values = match array.data_type() {
        DataType::Int8 => widened::<Int8Type, i64>(array),
        DataType::Int16 => widened::<Int16Type, i64>(array),
        DataType::Int32 => widened::<Int32Type, i64>(array),
        DataType::Int64 => array.as_primitive::<Int64Type>().values().clone(),
        DataType::UInt8 => widened::<UInt8Type, i64>(array),
        DataType::UInt16 => widened::<UInt16Type, i64>(array),
        DataType::UInt32 => widened::<UInt32Type, i64>(array),
        DataType::UInt64 => {
            return Some(Values::Unsigned(array.as_primitive::<UInt64Type>().values().clone()));
        }
        _ => return None,
    };
    Some(Values::Whole { tag: encode::INTEGER, values, factor: 1 })
}

fn floats(array: &ArrayRef) -> Option<Values> {
    Some(Values::Float(match array.data_type() {
        DataType::Float16 => widened::<Float16Type, f64>(array),
        DataType::Float32 => widened::<Float32Type, f64>(array),
        DataType::Float64 => array.as_primitive::<Float64Type>().values().clone(),
        _ => return None,
    }))
}

fn decimals(array: &ArrayRef) -> Option<Values> {
    Some(match array.data_type() {
        DataType::Decimal32(_, scale) => {
            Values::Decimal(widened::<Decimal32Type, i128>(array), (*scale).into())
        }
        DataType::Decimal64(_, scale) => {
            Values::Decimal(widened::<Decimal64Type, i128>(array), (*scale).into())
        }
        DataType::Decimal128(_, scale) => {
            Values::Decimal(array.as_primitive::<Decimal128Type>().values().clone(), (*scale).into())
        }
        DataType::Decimal256(_, scale) => {
            Values::WideDecimal(array.as_primitive::<Decimal256Type>().values().clone(), (*scale).into())
        }
        _ => return None,
    })
}

fn times(array: &ArrayRef) -> Option<Values> {
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let (tag, values) = match array.data_type() {
        DataType::Date32 => {
            let values = widened::<Date32Type, i64>(array);
            return Some(Values::Whole { tag: encode::DATE, values, factor: 86_400_000 });
        }
        DataType::Date64 => {
            let values = array.as_primitive::<Date64Type>().values().clone();
            return Some(Values::Whole { tag: encode::DATE, values, factor: 1 });
        }
        DataType::Time32(Second) => (encode::TIME, widened::<Time32SecondType, i64>(array)),
        DataType::Time32(_) => (encode::TIME, widened::<Time32MillisecondType, i64>(array)),
        DataType::Time64(Nanosecond) => (encode::TIME, widened::<Time64NanosecondType, i64>(array)),
        DataType::Time64(_) => (encode::TIME, widened::<Time64MicrosecondType, i64>(array)),
        DataType::Duration(unit) => {
            let values = match unit {
                Second => widened::<DurationSecondType, i64>(array),
                Millisecond => widened::<DurationMillisecondType, i64>(array),
                Microsecond => widened::<DurationMicrosecondType, i64>(array),
                Nanosecond => widened::<DurationNanosecondType, i64>(array),
            };
            (encode::DURATION, values)
        }
        DataType::Timestamp(unit, zone) => {
            let values = match unit {
                Second => widened::<TimestampSecondType, i64>(array),
                Millisecond => widened::<TimestampMillisecondType, i64>(array),
                Microsecond => widened::<TimestampMicrosecondType, i64>(array),
                Nanosecond => widened::<TimestampNanosecondType, i64>(array),
            };
            (if zone.is_some() { encode::INSTANT } else { encode::TIMESTAMP }, values)
        }
        _ => return None,
    };
    let factor = match array.data_type() {
        DataType::Time32(unit)
        | DataType::Time64(unit)
        | DataType::Duration(unit)
        | DataType::Timestamp(unit, _) => match unit {
            Second => 1_000_000_000,
            Millisecond => 1_000_000,
            Microsecond => 1_000,
            Nanosecond => 1,
        },
        _ => return None,
    };
    Some(Values::Whole { tag, values, factor })
}

fn text(array: &ArrayRef) -> Option<Bytes> {
    Some(match array.data_type() {
        DataType::Utf8 => Bytes::Small(array.as_string::<i32>().clone().into()),
        DataType::LargeUtf8 => Bytes::Large(array.as_string::<i64>().clone().into()),
        DataType::Utf8View => Bytes::View(array.as_string_view().clone().to_binary_view()),
        _ => return None,
    })
}

fn binary(array: &ArrayRef) -> Option<Bytes> {
    Some(match array.data_type() {
        DataType::Binary => Bytes::Small(array.as_binary::<i32>().clone()),
        DataType::LargeBinary => Bytes::Large(array.as_binary::<i64>().clone()),
        DataType::BinaryView => Bytes::View(array.as_binary_view().clone()),
        DataType::FixedSizeBinary(_) => Bytes::Fixed(array.as_fixed_size_binary().clone()),
        _ => return None,
    })
}

fn members(field: &Field, array: &ArrayRef) -> Result<Option<Values>, String> {
    let (DataType::Struct(bound), Some(array)) = (field.data_type(), array.as_struct_opt()) else {
        return Ok(None);
    };
    // A member more or less would change the key without a word.
    if bound.len() != array.num_columns() {
        return Ok(None);
    }
    let mut members = Vec::with_capacity(bound.len());
    let mut sorted: Vec<_> = bound.iter().collect();
    sorted.sort_by(|a, b| a.name().cmp(b.name()));
    for member in sorted {
        let Some(values) = array.column_by_name(member.name()) else { return Ok(None) };
        let mut name = Vec::new();
        encode::name(&mut name, member.name().as_bytes());
        members.push((name, column(member, values)?));
    }
    Ok(Some(Values::Struct(members)))
}

fn list(field: &Field, array: &ArrayRef) -> Result<Option<Values>, String> {
    let element = match field.data_type() {
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::FixedSizeList(element, _) => element,
        _ => return Ok(None),
    };
    let (ranges, values) = match array.data_type() {
        DataType::List(_) => offsets(array.as_list::<i32>()),
        DataType::LargeList(_) => offsets(array.as_list::<i64>()),
        DataType::ListView(_) => views(array.as_list_view::<i32>()),
        DataType::LargeListView(_) => views(array.as_list_view::<i64>()),
        DataType::FixedSizeList(_, size) => {
            let array = array.as_fixed_size_list();
            let size = usize::try_from(*size).unwrap_or(0);
            let ranges = (0..array.len()).map(|row| row * size..(row + 1) * size).collect();
            (ranges, array.values().clone())
        }
        _ => return Ok(None),
    };
    let (ranges, values) = needed(ranges, array.nulls(), &values);
    Ok(Some(Values::List(ranges, Box::new(column(element, &values)?))))
}

fn map(field: &Field, array: &ArrayRef) -> Result<Option<Values>, String> {
    let (DataType::Map(entries, _), Some(array)) = (field.data_type(), array.as_map_opt()) else {
        return Ok(None);
    };
    let DataType::Struct(pair) = entries.data_type() else { return Ok(None) };
    let [key, value] = pair.as_ref() else { return Ok(None) };
    let ranges = spans(array.value_offsets());
    let (_, keys) = needed(ranges.clone(), array.nulls(), array.keys());
    let (ranges, values) = needed(ranges, array.nulls(), array.values());
    let keys = Box::new(column(key, &keys)?);
    Ok(Some(Values::Map(ranges, keys, Box::new(column(value, &values)?))))
}

fn dictionary(field: &Field, array: &ArrayRef) -> Result<Values, String> {
    let array = array.as_any_dictionary();
    let values = array.values();
    if values.is_empty() {
        // All keys are null, or it would not be a dictionary.
        return Ok(Values::Null);
    }
    Ok(Values::Indexed(Indexed {
        index: array.normalized_keys(),
        values: Box::new(column(field, values)?),
        len: values.len(),
    }))
}

fn runs<R: RunEndIndexType>(field: &Field, array: &RunArray<R>) -> Result<Values, String> {
    let ends = array.run_ends();
    if array.is_empty() {
        return Ok(Values::Null);
    }
    let first = ends.get_physical_index(0);
    let mut index = Vec::with_capacity(array.len());
    let mut run = 0;
    let mut end = ends.values().iter().skip(first).map(|end| end.as_usize() - ends.offset());
    let mut until = end.next();
    for row in 0..array.len() {
        while until.is_some_and(|until| until <= row) {
            until = end.next();
            run += 1;
        }
        index.push(run);
    }
    // A slice keeps all the values of the array it was cut from.
    let values = array.values().slice(first, run + 1);
    Ok(Values::Indexed(Indexed { index, len: values.len(), values: Box::new(column(field, &values)?) }))
}

fn widened<T, W>(array: &ArrayRef) -> ScalarBuffer<W>
where
    T: ArrowPrimitiveType<Native: Into<W>>,
    W: ArrowNativeType,
{
    array.as_primitive::<T>().values().iter().map(|&value| value.into()).collect()
}

fn offsets<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> (Vec<Range<usize>>, ArrayRef) {
    (spans(array.value_offsets()), array.values().clone())
}

fn spans<O: OffsetSizeTrait>(offsets: &[O]) -> Vec<Range<usize>> {
    offsets.iter().zip(offsets.iter().skip(1)).map(|(from, to)| from.as_usize()..to.as_usize()).collect()
}

fn views<O: OffsetSizeTrait>(array: &GenericListViewArray<O>) -> (Vec<Range<usize>>, ArrayRef) {
    let starts = array.value_offsets().iter().map(|start| start.as_usize());
    let sizes = array.value_sizes().iter().map(|size| size.as_usize());
    (starts.zip(sizes).map(|(start, size)| start..start + size).collect(), array.values().clone())
}

/// Cuts the elements down to those that some row uses: a small slice of a long list column must not cost the whole.
fn needed(
    mut ranges: Vec<Range<usize>>,
    nulls: Option<&NullBuffer>,
    values: &ArrayRef,
) -> (Vec<Range<usize>>, ArrayRef) {
    for (row, range) in ranges.iter_mut().enumerate() {
        if Range::is_empty(range) || nulls.is_some_and(|nulls| nulls.is_null(row)) {
            *range = 0..0;
        }
    }
    let used = || ranges.iter().filter(|range| !Range::is_empty(range));
    let first = used().map(|range| range.start).min().unwrap_or(0);
    let last = used().map(|range| range.end).max().unwrap_or(0);
    for range in &mut ranges {
        *range = range.start.saturating_sub(first)..range.end.saturating_sub(first);
    }
    (ranges, values.slice(first, last - first))
}
