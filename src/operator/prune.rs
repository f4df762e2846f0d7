//! Which files cannot hold a row that a query asks for, by what the ledger says of them.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, StringArray, UInt64Array};
use arrow::compute::cast;
use arrow_schema::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session;
use datafusion::common::pruning::PruningStatistics;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, utils::conjunction};
use datafusion::physical_optimizer::pruning::PruningPredicateBuilder;

use crate::ledger::Ledger;
use crate::ledger::entry::DataFile;

/// Those of `files` that may hold rows that match all `filters`.
pub(super) fn keep<'a>(
    ledger: &Ledger,
    schema: &SchemaRef,
    files: Vec<&'a DataFile>,
    filters: &[Expr],
    state: &dyn Session,
) -> Result<Vec<&'a DataFile>> {
    let Some(filter) = conjunction(filters.to_vec()) else { return Ok(files) };
    let named = DFSchema::try_from(Arc::clone(schema))?;
    let filter = state.create_physical_expr(filter, &named)?;
    let predicate = PruningPredicateBuilder::new().with_file_schema(Arc::clone(schema)).try_build(filter)?;
    if predicate.always_true() {
        return Ok(files);
    }
    let may_match = predicate.prune(&Ranges::of(ledger, schema, &files))?;
    Ok(files.into_iter().zip(may_match).filter(|(_, may)| *may).map(|(file, _)| file).collect())
}

/// The range of each key column in each file.
struct Ranges {
    files: usize,
    /// Least and greatest by column; null where they are not known.
    columns: HashMap<String, (ArrayRef, ArrayRef)>,
    rows: ArrayRef,
}

impl Ranges {
    fn of(ledger: &Ledger, schema: &Schema, files: &[&DataFile]) -> Self {
        let key = ledger.identity().token.columns.iter().enumerate();
        let columns = key.filter_map(|(at, column)| {
            let [name] = column.path.as_slice() else { return None };
            let kind = schema.field_with_name(name).ok()?.data_type();
            let bounds = |greatest: bool| {
                let text = files.iter().map(|file| {
                    let (least, most) = file.key_range.get(at)?.as_ref()?;
                    Some(if greatest { most.as_str() } else { least.as_str() })
                });
                of_text(StringArray::from_iter(text), kind)
            };
            Some((name.clone(), (bounds(false)?, bounds(true)?)))
        });
        let rows = Arc::new(UInt64Array::from_iter_values(files.iter().map(|file| file.rows)));
        Self { files: files.len(), columns: columns.collect(), rows }
    }
}

/// Bounds as they stand in a manifest, as values; `None` for types whose text is not sure to give the value again.
fn of_text(text: StringArray, kind: &DataType) -> Option<ArrayRef> {
    let exact = kind.is_integer()
        || matches!(kind, DataType::Utf8 | DataType::Date32 | DataType::Timestamp(..) | DataType::Boolean);
    // What cannot be read is null: not known.
    if exact { cast(&text, kind).ok() } else { None }
}

impl PruningStatistics for Ranges {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(column.name()).map(|(least, _)| Arc::clone(least))
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.columns.get(column.name()).map(|(_, greatest)| Arc::clone(greatest))
    }

    fn num_containers(&self) -> usize {
        self.files
    }

    fn null_counts(&self, _: &Column) -> Option<ArrayRef> {
        None
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        Some(Arc::clone(&self.rows))
    }

    fn contained(&self, _: &Column, _: &std::collections::HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
