//! A `dedupe` table in SQL: its live files to be read, and `INSERT INTO`.

use std::fmt;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::{Statistics, stats::Precision};
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::dml::InsertOp;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::empty::EmptyExec;
use futures::FutureExt;
use futures::future::BoxFuture;

use super::failure::external;
use super::insert::InsertExec;
use super::prune;
use crate::ledger::Ledger;
use crate::ledger::entry::DataFile;
use crate::ledger::name::StagedName;
use crate::session::SessionOptions;
use crate::store::Store;
use crate::table::Table;

/// A table that DataFusion can read and insert into.
///
/// A scan reads the files that are live when it is planned, in the order in which their rows were committed, or those of
/// the version that the table was opened at. Files whose key range cannot match a filter are left out by what the ledger
/// says of them; the rest is pruned by Parquet's own statistics.
pub struct DedupeTable {
    table: Table,
    schema: SchemaRef,
    pinned: bool,
    options: SessionOptions,
}

impl DedupeTable {
    /// The table as it is at the time of each query. Its columns are those that it has now; `declared` ones if it has no
    /// rows yet. An error if it has neither.
    pub fn try_new(table: Table, declared: Option<&Schema>, options: SessionOptions) -> crate::Result<Self> {
        let schema = match (&table.ledger().state().schema, declared) {
            (Some(schema), _) => Arc::new(schema.clone()),
            (None, Some(declared)) => table.contract(declared)?,
            (None, None) => {
                return Err(crate::Error::Usage(format!(
                    "the table at {} has no rows yet, and so no columns: declare them",
                    table.ledger().store().url()
                )));
            }
        };
        Ok(Self { table, schema, pinned: false, options })
    }

    /// The table as it was at `version`, for reading. [`crate::Error::SnapshotExpired`] if a vacuum has given that up.
    pub async fn at(store: Store, version: u64) -> crate::Result<Self> {
        let table = Table::open_at(store.clone(), version).await?;
        let table = table.ok_or_else(|| crate::Error::Usage(format!("{} is not a table", store.url())))?;
        Ok(Self { pinned: true, ..Self::try_new(table, None, SessionOptions::default())? })
    }

    async fn plan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let mut ledger = self.table.ledger().clone();
        if self.pinned {
            ledger.check_readable().await.map_err(external)?;
        } else {
            ledger.refresh().await.map_err(external)?;
        }
        ledger.read_files().await.map_err(external)?;
        let files = live(&ledger).map_err(external)?;
        let files = prune::keep(&ledger, &self.schema, files, filters, state)?;
        if files.is_empty() {
            let schema = match projection {
                Some(projection) => Arc::new(self.schema.project(projection)?),
                None => Arc::clone(&self.schema),
            };
            return Ok(Arc::new(EmptyExec::new(schema)));
        }
        // The engine reads through the table's own store, with its credentials, under a name of its own.
        let url = ObjectStoreUrl::parse(format!("dedupe://{}", ledger.identity().table))?;
        let (store, prefix) = ledger.store().reading().map_err(external)?;
        state.runtime_env().register_object_store(url.as_ref(), store);
        let files = files.into_iter().map(|file| {
            let path = if prefix.is_empty() { file.name.clone() } else { format!("{prefix}/{}", file.name) };
            let mut part = PartitionedFile::new("", file.bytes);
            part.object_meta.location =
                object_store::path::Path::parse(path).map_err(|e| DataFusionError::External(Box::new(e)))?;
            let statistics = Statistics {
                num_rows: Precision::Exact(file.rows as usize),
                total_byte_size: Precision::Inexact(file.bytes as usize),
                column_statistics: Statistics::unknown_column(&self.schema),
            };
            Ok(part.with_statistics(Arc::new(statistics)))
        });
        let files = files.collect::<Result<Vec<_>>>()?;
        let rows = files.iter().filter_map(|file| file.statistics.as_ref()?.num_rows.get_value()).sum();
        let bytes = files.iter().map(|file| file.object_meta.size as usize).sum();
        let statistics = Statistics {
            num_rows: Precision::Exact(rows),
            total_byte_size: Precision::Inexact(bytes),
            column_statistics: Statistics::unknown_column(&self.schema),
        };
        let groups = in_order(files, state.config().target_partitions());
        let options = state.table_options().parquet.clone();
        let source = ParquetSource::new(Arc::clone(&self.schema)).with_table_parquet_options(options);
        let scan = FileScanConfigBuilder::new(url, Arc::new(source))
            .with_file_groups(groups)
            .with_statistics(statistics)
            .with_projection_indices(projection.cloned())?
            .with_limit(limit)
            .build();
        Ok(DataSourceExec::from_data_source(scan))
    }
}

/// The live files, in the order in which their rows were committed.
fn live(ledger: &Ledger) -> crate::Result<Vec<&DataFile>> {
    let mut files: Vec<_> = ledger.state().files()?.values().collect();
    let number = |name: &str| StagedName::parse(name).map_or(0, |name| name.number);
    files.sort_by_key(|file| (file.since, number(&file.item.name)));
    Ok(files.into_iter().map(|file| &file.item).collect())
}

/// At most so many groups of neighbours, of about the same size.
fn in_order(files: Vec<PartitionedFile>, groups: usize) -> Vec<FileGroup> {
    let total: u64 = files.iter().map(|file| file.object_meta.size).sum();
    let share = (total / groups.max(1) as u64).max(1);
    let (mut grouped, mut group, mut bytes) = (Vec::new(), Vec::new(), 0);
    for file in files {
        bytes += file.object_meta.size;
        group.push(file);
        if bytes >= share * (grouped.len() as u64 + 1) && grouped.len() + 1 < groups {
            grouped.push(FileGroup::new(std::mem::take(&mut group)));
        }
    }
    if !group.is_empty() {
        grouped.push(FileGroup::new(group));
    }
    grouped
}

impl fmt::Debug for DedupeTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DedupeTable({:?}, version {})", self.table.ledger().store(), self.table.ledger().version())
    }
}

// What `async_trait` would make of it, by hand: its own form takes the compiler several times as long.
impl TableProvider for DedupeTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        // They prune; which rows match is decided above.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    fn scan<'a, 'b, 'c, 'd, 'r>(
        &'a self,
        state: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        filters: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'r, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        'd: 'r,
    {
        self.plan(state, projection, filters, limit).boxed()
    }

    fn insert_into<'a, 'b, 'r>(
        &'a self,
        _: &'b dyn Session,
        input: Arc<dyn ExecutionPlan>,
        operation: InsertOp,
    ) -> BoxFuture<'r, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'r,
        'b: 'r,
    {
        let planned = match operation {
            _ if self.pinned => Err(DataFusionError::Plan(format!(
                "this is the table as it was at version {}: it can only be read",
                self.table.ledger().version()
            ))),
            InsertOp::Append => InsertExec::try_new(input, &self.table, &self.schema, self.options.clone())
                .map(|exec| Arc::new(exec) as Arc<dyn ExecutionPlan>),
            other => Err(DataFusionError::NotImplemented(format!(
                "{other} on a dedupe table: the first row of a key stays, so rows are only ever added"
            ))),
        };
        std::future::ready(planned).boxed()
    }
}
