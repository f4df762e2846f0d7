//! Moving rows into a contract: members by name, missing ones as null, values by checked casts.

use super::normalise::{element, is_json, join_path};
use super::widen::holds;
use arrow::array::{
    Array, ArrayRef, AsArray, FixedSizeListArray, ListArray, MapArray, RecordBatch, RecordBatchOptions,
    StructArray, new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, SchemaRef};
use std::sync::Arc;

/// The rows of `batch` as rows of `contract`, whose schema the result has exactly (so give the [`viewed`] contract to
/// keep strings as views). Columns are found by name; those that the batch lacks are null.
///
/// Fails, naming the column, on a value that its column cannot hold exactly, on a null or a missing column where the
/// contract wants a value, and on a column that the contract lacks: widen the contract first.
///
/// [`viewed`]: super::viewed
pub fn adapt(batch: &RecordBatch, contract: &SchemaRef) -> Result<RecordBatch, String> {
    if batch.schema_ref().fields() == contract.fields() {
        return batch.clone().with_schema(Arc::clone(contract)).map_err(|error| error.to_string());
    }
    let schema = batch.schema();
    let columns = adapt_members(schema.fields(), batch.columns(), contract.fields(), batch.num_rows(), "")?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(contract), columns, &options)
        .map_err(|error| error.to_string())
}

fn adapt_members(
    fields: &Fields,
    columns: &[ArrayRef],
    wanted: &Fields,
    rows: usize,
    path: &str,
) -> Result<Vec<ArrayRef>, String> {
    if let Some(unknown) = fields.iter().find(|field| wanted.find(field.name()).is_none()) {
        let here = join_path(path, unknown.name());
        return Err(format!("the table has no column `{here}`"));
    }
    wanted
        .iter()
        .map(|to| {
            let here = join_path(path, to.name());
            match fields.find(to.name()).and_then(|(at, from)| Some((from, columns.get(at)?))) {
                Some((from, column)) => adapt_column(from, column, to, &here),
                None if to.is_nullable() => Ok(new_null_array(to.data_type(), rows)),
                None => Err(format!("column `{here}` is missing, and the table wants a value in every row")),
            }
        })
        .collect()
}

fn adapt_column(from: &Field, column: &ArrayRef, to: &Field, path: &str) -> Result<ArrayRef, String> {
    if column.data_type() != &DataType::Null && is_json(from) != is_json(to) {
        let wanted = if is_json(to) { "JSON text" } else { "plain text" };
        return Err(format!("column `{path}` must hold {wanted} in this table"));
    }
    // Nulls where the contract wants values are found by the constructors of the arrays above, which know what is
    // hidden under a null parent.
    adapt_array(column, to.data_type(), path)
}

fn adapt_array(array: &ArrayRef, to: &DataType, path: &str) -> Result<ArrayRef, String> {
    let failed = |error: arrow::error::ArrowError| format!("column `{path}`: {error}");
    match (array.data_type(), to) {
        (from, to) if from == to => Ok(Arc::clone(array)),
        (DataType::Null, _) => Ok(new_null_array(to, array.len())),
        (DataType::Dictionary(_, values), _) => adapt_array(&checked_cast(array, values, path)?, to, path),
        (DataType::RunEndEncoded(_, values), _) => {
            adapt_array(&checked_cast(array, values.data_type(), path)?, to, path)
        }
        (DataType::Struct(fields), DataType::Struct(wanted)) => {
            let rows = array.as_struct();
            let columns: Vec<ArrayRef> =
                rows.columns().iter().map(|column| masked(column, rows.nulls())).collect();
            let members = adapt_members(fields, &columns, wanted, rows.len(), path)?;
            let nulls = rows.nulls().cloned();
            let adapted = StructArray::try_new_with_length(wanted.clone(), members, nulls, rows.len());
            Ok(Arc::new(adapted.map_err(failed)?))
        }
        (DataType::Map(from, _), DataType::Map(to, sorted)) => {
            let map = array.as_map();
            let entries = adapt_entries(from, map.entries(), to, path)?;
            let adapted = MapArray::try_new(
                Arc::clone(to),
                map.offsets().clone(),
                entries,
                map.nulls().cloned(),
                *sorted,
            );
            Ok(Arc::new(adapted.map_err(failed)?))
        }
        (DataType::List(from), DataType::List(to)) => {
            let list = array.as_list::<i32>();
            let values = adapt_column(from, list.values(), to, &join_path(path, "[]"))?;
            let adapted =
                ListArray::try_new(Arc::clone(to), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(adapted.map_err(failed)?))
        }
        (DataType::FixedSizeList(_, a), DataType::FixedSizeList(to, b)) if a == b => {
            let list = array.as_fixed_size_list();
            // Elements under a null list are no values of the column: only their place counts.
            let values = adapt_array(list.values(), to.data_type(), &join_path(path, "[]"))?;
            let nulls = list.nulls().cloned();
            let adapted =
                FixedSizeListArray::try_new_with_length(Arc::clone(to), *b, values, nulls, list.len());
            Ok(Arc::new(adapted.map_err(failed)?))
        }
        (from, DataType::List(_)) if element(from).is_some() => {
            let item = element(from)
                .map(Arc::clone)
                .unwrap_or_else(|| Arc::new(Field::new_list_field(DataType::Null, true)));
            adapt_array(&checked_cast(array, &DataType::List(item), path)?, to, path)
        }
        (from, to) if holds(&plain(to), &plain(from)) => checked_cast(array, to, path),
        (from, to) => Err(format!("column `{path}` is {from} here and {to} in the table")),
    }
}

/// A struct within a struct is null where the outer one is: a reader may leave that unsaid in a struct that is never
/// null by itself, whose members then seem to lack values.
fn masked(column: &ArrayRef, outer: Option<&NullBuffer>) -> ArrayRef {
    let (Some(inner), Some(_)) = (column.as_struct_opt(), outer) else { return Arc::clone(column) };
    let nulls = NullBuffer::union(inner.nulls(), outer);
    let (fields, columns, _) = inner.clone().into_parts();
    match StructArray::try_new_with_length(fields, columns, nulls, inner.len()) {
        Ok(masked) => Arc::new(masked),
        // What is wrong with it is told by whoever uses it.
        Err(_) => Arc::clone(column),
    }
}

/// Keys and values of a map's entries, by their place: writers name them as they like.
fn adapt_entries(
    from: &FieldRef,
    entries: &StructArray,
    to: &FieldRef,
    path: &str,
) -> Result<StructArray, String> {
    let (DataType::Struct(fields), DataType::Struct(wanted)) = (from.data_type(), to.data_type()) else {
        return Err(format!("column `{path}` is a map without entries"));
    };
    let members = fields
        .iter()
        .zip(entries.columns())
        .zip(wanted)
        .map(|((from, column), to)| adapt_column(from, column, to, &join_path(path, to.name())))
        .collect::<Result<Vec<_>, String>>()?;
    StructArray::try_new_with_length(wanted.clone(), members, entries.nulls().cloned(), entries.len())
        .map_err(|error| format!("column `{path}`: {error}"))
}

fn checked_cast(array: &ArrayRef, to: &DataType, path: &str) -> Result<ArrayRef, String> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, to, &options)
        .map_err(|error| format!("column `{path}` holds a value that {to} cannot: {error}"))
}

/// The type without its layout, for flat types.
fn plain(data_type: &DataType) -> DataType {
    match data_type {
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        other => other.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::arbitrary::{Dice, any_schema, random_batch};
    use super::super::{normalise, viewed, widen};
    use super::*;
    use arrow::array::{Int32Array, Int64Array, StringArray, TimestampSecondArray};
    use arrow::compute::cast;
    use arrow::datatypes::{Schema, TimeUnit};
    use proptest::prelude::*;

    fn batch(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap()
    }

    fn contract(data_type: DataType) -> SchemaRef {
        Arc::new(Schema::new(vec![Field::new("a", data_type, true)]))
    }

    #[test]
    fn a_missing_column_is_null_and_an_unknown_one_an_error() {
        let rows = batch(Arc::new(Int32Array::from(vec![1, 2])));
        let fields = vec![Field::new("b", DataType::Utf8, true), Field::new("a", DataType::Int64, true)];
        let adapted = adapt(&rows, &Arc::new(Schema::new(fields))).unwrap();
        assert_eq!(adapted.column(0).null_count(), 2);
        assert_eq!(adapted.column(1).as_ref(), &Int64Array::from(vec![1, 2]));
        let other = Arc::new(Schema::new(vec![Field::new("b", DataType::Utf8, true)]));
        assert!(adapt(&rows, &other).unwrap_err().contains("`a`"));
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error_never_a_null() {
        let seconds = batch(Arc::new(TimestampSecondArray::from(vec![i64::MAX / 2])));
        let nanoseconds = contract(DataType::Timestamp(TimeUnit::Nanosecond, None));
        assert!(adapt(&seconds, &nanoseconds).unwrap_err().contains("`a`"));
        let text = batch(Arc::new(StringArray::from(vec!["12"])));
        assert!(adapt(&text, &contract(DataType::Int64)).unwrap_err().contains("Utf8"));
        let wide = batch(Arc::new(Int64Array::from(vec![1])));
        assert!(adapt(&wide, &contract(DataType::Int32)).is_err(), "narrowing is no adapting");
    }

    #[test]
    fn a_null_where_the_contract_wants_a_value_is_an_error() {
        let rows = batch(Arc::new(Int32Array::from(vec![Some(1), None])));
        let strict = Arc::new(Schema::new(vec![Field::new("a", DataType::Int32, false)]));
        assert!(adapt(&rows, &strict).unwrap_err().contains('a'));
    }

    #[test]
    fn a_required_member_under_a_null_struct_is_no_null() {
        let member = Fields::from(vec![Field::new("m", DataType::Int32, false)]);
        let column = StructArray::new(
            member,
            vec![Arc::new(Int32Array::from(vec![1, 0]))],
            Some(vec![true, false].into()),
        );
        let wanted = Fields::from(vec![
            Field::new("m", DataType::Int64, false),
            Field::new("n", DataType::Int8, true),
        ]);
        let adapted = adapt(&batch(Arc::new(column)), &contract(DataType::Struct(wanted))).unwrap();
        assert_eq!(adapted.column(0).null_count(), 1);
    }

    proptest! {
        #[test]
        fn adapting_keeps_every_value(schema in any_schema(), seed: u64, rows in 0usize..40) {
            let rows = random_batch(&schema, rows, &mut Dice::new(seed));
            let target = Arc::new(viewed(&normalise(&schema)));
            let adapted = adapt(&rows, &target).unwrap();
            prop_assert_eq!(adapted.schema(), target.clone());
            let oracle: Vec<_> =
                rows.columns().iter().zip(target.fields()).map(|(c, f)| cast(c, f.data_type()).unwrap()).collect();
            prop_assert_eq!(adapted.columns(), &oracle[..]);
            // And back into the layout it came from.
            for (column, before) in adapted.columns().iter().zip(rows.columns()) {
                prop_assert_eq!(&cast(column, before.data_type()).unwrap(), before);
            }
        }

        #[test]
        fn rows_of_both_sides_fit_the_widened_contract(a in any_schema(), b in any_schema(), seed: u64) {
            if let Ok(wider) = widen(&a, &b) {
                let wider = Arc::new(wider);
                for schema in [a, b] {
                    let rows = random_batch(&schema, 20, &mut Dice::new(seed));
                    let adapted = adapt(&rows, &wider).unwrap();
                    for (field, column) in rows.schema().fields().iter().zip(rows.columns()) {
                        let (_, to) = wider.column_with_name(field.name()).unwrap();
                        if matches!(column.data_type(), DataType::Struct(_) | DataType::List(_) | DataType::Map(_, _)) {
                            continue; // arrow's own cast knows no added members
                        }
                        let oracle = cast(column, to.data_type()).unwrap();
                        prop_assert_eq!(adapted.column_by_name(field.name()).unwrap(), &oracle);
                    }
                }
            }
        }
    }
}
