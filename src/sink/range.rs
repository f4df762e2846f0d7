//! The least and greatest value of a column in a file, read off its statistics.

use arrow::array::{Array, ArrayRef, make_array};
use arrow::compute::{SortOptions, sort_to_indices};
use arrow::datatypes::{DataType, Field, Schema};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::statistics::StatisticsConverter;
use parquet::basic::Type;
use parquet::file::metadata::RowGroupMetaData;
use parquet::schema::types::SchemaDescriptor;
use serde::{Deserialize, Serialize};

/// Bounds of a column in one file: no value is less than `min` or greater than `max` (a long text's bounds may be
/// shortened). Absent where the file has no statistics to tell, or no value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRange {
    /// The column, as a path of names.
    pub path: Vec<String>,
    /// Lower bound, as text.
    pub min: Option<String>,
    /// Upper bound, as text.
    pub max: Option<String>,
}

/// The range of the column at `path` over `groups`.
pub(super) fn range_of(
    path: &[String],
    schema: &Schema,
    parquet: &SchemaDescriptor,
    groups: &[RowGroupMetaData],
) -> ColumnRange {
    let bounds = bounds(path, schema, parquet, groups);
    let (min, max) = bounds.map_or((None, None), |(min, max)| (Some(min), Some(max)));
    ColumnRange { path: path.to_vec(), min, max }
}

fn bounds(
    path: &[String],
    schema: &Schema,
    parquet: &SchemaDescriptor,
    groups: &[RowGroupMetaData],
) -> Option<(String, String)> {
    let leaf = parquet.columns().iter().position(|column| column.path().parts() == path)?;
    let field = field_at(path, schema)?;
    if parquet.column(leaf).physical_type() == Type::INT96 {
        return None; // its statistics have no defined order
    }
    // A chunk of nulls only has no bounds, and needs none.
    let groups: Vec<_> = groups
        .iter()
        .filter(|group| {
            let column = group.column(leaf);
            column.statistics().and_then(|s| s.null_count_opt()) != u64::try_from(column.num_values()).ok()
        })
        .collect();
    let converter = StatisticsConverter::from_column_index(leaf, field, parquet).ok()?;
    let mins = converter.row_group_mins(groups.iter().copied()).ok()?;
    let maxes = converter.row_group_maxes(groups.iter().copied()).ok()?;
    Some((extreme(&mins, false)?, extreme(&maxes, true)?))
}

fn field_at<'a>(path: &[String], schema: &'a Schema) -> Option<&'a Field> {
    let (first, rest) = path.split_first()?;
    let root = schema.fields().find(first)?.1.as_ref();
    rest.iter().try_fold(root, |field, name| match field.data_type() {
        DataType::Struct(members) => members.find(name).map(|(_, member)| member.as_ref()),
        _ => None,
    })
}

/// The first value in ascending (or descending) order, as text; none if any is missing.
fn extreme(values: &ArrayRef, descending: bool) -> Option<String> {
    if values.is_empty() || values.null_count() > 0 {
        return None;
    }
    let options = SortOptions { descending, nulls_first: false };
    let first = sort_to_indices(values, Some(options), Some(1)).ok()?;
    let at = first.values().first().copied()? as usize;
    let format = FormatOptions::default();
    if let DataType::Timestamp(unit, Some(_)) = values.data_type() {
        // An instant is shown in UTC, whatever the column's zone; the stored number is just that.
        let utc = values.to_data().into_builder().data_type(DataType::Timestamp(*unit, None)).build().ok()?;
        let text = ArrayFormatter::try_new(make_array(utc).as_ref(), &format).ok()?.value(at).try_to_string();
        return text.ok().map(|text| format!("{text}Z"));
    }
    ArrayFormatter::try_new(values.as_ref(), &format).ok()?.value(at).try_to_string().ok()
}
