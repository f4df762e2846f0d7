//! Which files cannot hold a row that a query asks for, by what the ledger says of them: the folder that a file lies in
//! tells the value of each partition, its manifest the range of each key column.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Date32Array, Int64Array, StringArray, UInt64Array};
use arrow::compute::cast;
use arrow_schema::{DataType, Schema, SchemaRef, TimeUnit};
use chrono::NaiveDate;
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, utils::conjunction};
use datafusion::physical_optimizer::pruning::{PruningPredicate, PruningPredicateBuilder};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder};

use crate::ledger::Ledger;
use crate::ledger::entry::DataFile;
use crate::sink::{FolderValue, NO_VALUE, Partition, values_of};

/// The files that are to be read, and how many were left out by what.
pub(super) struct Kept<'a> {
    pub(super) files: Vec<&'a DataFile>,
    by_partition: usize,
    by_key_range: usize,
}

impl Kept<'_> {
    /// Says in a scan's metrics how many files were left out.
    pub(super) fn count(&self, metrics: &ExecutionPlanMetricsSet) {
        for (name, files) in [
            ("files_pruned_by_partition", self.by_partition),
            ("files_pruned_by_key_range", self.by_key_range),
        ] {
            MetricBuilder::new(metrics).global_counter(name).add(files);
        }
    }
}

/// Those of `files` that may hold rows that match all `filters`.
pub(super) fn keep<'a>(
    ledger: &Ledger,
    schema: &SchemaRef,
    files: Vec<&'a DataFile>,
    filters: &[Expr],
    state: &dyn Session,
) -> Result<Kept<'a>> {
    let all = Kept { files, by_partition: 0, by_key_range: 0 };
    let Some(filter) = conjunction(filters.to_vec()) else { return Ok(all) };
    let named = DFSchema::try_from(Arc::clone(schema))?;
    let filter = state.create_physical_expr(filter, &named)?;
    let predicate = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(filter)?;
    if predicate.always_true() {
        return Ok(all);
    }
    // What cannot be read tells nothing.
    let partitions = Partition::parse_all(&ledger.state().policy.partition_by).unwrap_or_default();
    let (files, by_partition) =
        without(&predicate, all.files, |files| Known::by_folders(&partitions, schema, files))?;
    let (files, by_key_range) = without(&predicate, files, |files| Known::by_keys(ledger, schema, files))?;
    Ok(Kept { files, by_partition, by_key_range })
}

/// `files` without those that `predicate` rules out by what is `known` of them, and how many those were.
fn without<'a>(
    predicate: &PruningPredicate,
    files: Vec<&'a DataFile>,
    known: impl Fn(&[&DataFile]) -> Known,
) -> Result<(Vec<&'a DataFile>, usize)> {
    let before = files.len();
    let may_match = predicate.prune(&known(&files))?;
    let kept: Vec<_> =
        files.into_iter().zip(may_match).filter(|(_, may)| *may).map(|(file, _)| file).collect();
    let left_out = before - kept.len();
    Ok((kept, left_out))
}

/// What is known of the values in each of some files, by column.
struct Known {
    columns: HashMap<String, Values>,
    rows: ArrayRef,
}

/// What is known of one column's values in each file; null where nothing is.
struct Values {
    least: Option<ArrayRef>,
    greatest: Option<ArrayRef>,
    nulls: Option<ArrayRef>,
    /// The texts that are all there can be in a file.
    texts: Option<Vec<Option<Vec<String>>>>,
}

impl Known {
    fn of(files: &[&DataFile], columns: HashMap<String, Values>) -> Self {
        Self { columns, rows: Arc::new(UInt64Array::from_iter_values(files.iter().map(|file| file.rows))) }
    }

    /// The range of each key column.
    fn by_keys(ledger: &Ledger, schema: &Schema, files: &[&DataFile]) -> Self {
        let key = ledger.identity().token.columns.iter().enumerate();
        let columns = key.filter_map(|(at, column)| {
            let [name] = column.path.as_slice() else { return None };
            let kind = schema.field_with_name(name).ok()?.data_type();
            let bounds = |greatest: bool| {
                let text = files.iter().map(|file| {
                    let (least, most) = file.key_range.get(at)?.as_ref()?;
                    Some(if greatest { most.as_str() } else { least.as_str() })
                });
                of_text(&text.collect(), kind)
            };
            Some((
                name.clone(),
                Values { least: bounds(false), greatest: bounds(true), nulls: None, texts: None },
            ))
        });
        Self::of(files, columns.collect())
    }

    /// The value of each partition, or its day.
    fn by_folders(partitions: &[Partition], schema: &Schema, files: &[&DataFile]) -> Self {
        let folders: Vec<_> = files.iter().map(|file| values_of(partitions, &file.name)).collect();
        let mut columns = HashMap::new();
        for (at, partition) in partitions.iter().enumerate() {
            // A path into structs; filters on members prune nothing.
            let field = schema.field_with_name(partition.column()).ok();
            let Some(field) = field.filter(|field| !field.name().contains('.')) else { continue };
            let values: Vec<_> = folders.iter().map(|folder| folder.as_ref()?.get(at)).collect();
            // Both of a column and its day may be partitions: then the folder of its value says more.
            if !partition.is_day() || !columns.contains_key(field.name()) {
                let values = match partition.is_day() {
                    true => Values::of_days(&values, field.data_type()),
                    false => Values::of_folders(&values, field.data_type()),
                };
                columns.insert(field.name().clone(), values);
            }
        }
        Self::of(files, columns)
    }
}

impl Values {
    /// By folders that are called by the value.
    fn of_folders(folders: &[Option<&FolderValue>], kind: &DataType) -> Self {
        let bounds = |absent: &str| -> Option<ArrayRef> {
            let text = folders.iter().map(|folder| match folder {
                // Of text, null is not the only value that goes there.
                Some(FolderValue::Absent) if *kind == DataType::Utf8 => Some(absent.to_owned()),
                // The folder of an instant is called by what it is in UTC.
                Some(FolderValue::Text(text)) if matches!(kind, DataType::Timestamp(_, Some(_))) => {
                    Some(format!("{text}Z"))
                }
                Some(FolderValue::Text(text)) => Some(text.clone()),
                _ => None,
            });
            of_text(&text.collect(), kind)
        };
        let texts = |folder: &Option<&FolderValue>| match folder {
            Some(FolderValue::Absent) => Some(vec![String::new(), NO_VALUE.to_owned()]),
            Some(FolderValue::Text(text)) => Some(vec![text.clone()]),
            _ => None,
        };
        let texts = (*kind == DataType::Utf8).then(|| folders.iter().map(texts).collect());
        Self { least: bounds(""), greatest: bounds(NO_VALUE), nulls: no_nulls(folders), texts }
    }

    /// By folders that are called by the value's day.
    fn of_days(folders: &[Option<&FolderValue>], kind: &DataType) -> Self {
        let days = || {
            folders.iter().map(|folder| match folder {
                Some(FolderValue::Text(text)) => text
                    .parse::<NaiveDate>()
                    .ok()
                    .map(|day| day.signed_duration_since(NaiveDate::default()).num_days()),
                _ => None,
            })
        };
        let bounds = |last: bool| -> Option<ArrayRef> {
            match kind {
                DataType::Date32 => {
                    let days = days().map(|day| day.and_then(|day| i32::try_from(day).ok()));
                    Some(Arc::new(days.collect::<Date32Array>()))
                }
                DataType::Timestamp(unit, _) => {
                    let second = match unit {
                        TimeUnit::Second => 1,
                        TimeUnit::Millisecond => 1_000,
                        TimeUnit::Microsecond => 1_000_000,
                        TimeUnit::Nanosecond => 1_000_000_000i64,
                    };
                    let bound = |day: i64| {
                        let first = day.checked_mul(86_400 * second)?;
                        if last { first.checked_add(86_400 * second - 1) } else { Some(first) }
                    };
                    let instants: Int64Array = days().map(|day| day.and_then(bound)).collect();
                    cast(&instants, kind).ok()
                }
                // Dates as text do not sort by their day.
                _ => None,
            }
        };
        Self { least: bounds(false), greatest: bounds(true), nulls: no_nulls(folders), texts: None }
    }
}

/// Rows in a folder that is called by a value have one.
fn no_nulls(folders: &[Option<&FolderValue>]) -> Option<ArrayRef> {
    let has_value = |folder: &&FolderValue| **folder != FolderValue::Absent;
    let nulls: UInt64Array = folders.iter().map(|folder| folder.filter(has_value).map(|_| 0)).collect();
    Some(Arc::new(nulls))
}

/// Values as they stand in a manifest or in the name of a folder; `None` for types whose text is not sure to give the value
/// again.
fn of_text(text: &StringArray, kind: &DataType) -> Option<ArrayRef> {
    let exact = kind.is_integer()
        || matches!(kind, DataType::Utf8 | DataType::Date32 | DataType::Timestamp(..) | DataType::Boolean);
    // What cannot be read is null: not known.
    if exact { cast(text, kind).ok() } else { None }
}

impl PruningStatistics for Known {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(column.name())?.least.clone()
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(column.name())?.greatest.clone()
    }

    fn num_containers(&self) -> usize {
        self.rows.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(column.name())?.nulls.clone()
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::clone(&self.rows))
    }

    fn contained(&self, column: &Column, values: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        let texts = self.columns.get(column.name())?.texts.as_ref()?;
        let asked: HashSet<&str> =
            values.iter().map(|value| value.try_as_str().flatten()).collect::<Option<_>>()?;
        let rules_out = |texts: &Vec<String>| texts.iter().all(|text| !asked.contains(text.as_str()));
        let file = |texts: &Option<Vec<String>>| texts.as_ref().is_some_and(rules_out).then_some(false);
        Some(texts.iter().map(file).collect())
    }
}
