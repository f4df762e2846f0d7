//! A query over what an ingest reads: `dedupe ingest --sql`.

use std::fmt;
use std::sync::Arc;

use arrow_schema::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::Result;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};

use super::failure::{external, told};
use crate::ingest::{Reshape, Reshaped, SourceRows};

/// What the rows of all sources are called in the query.
const SOURCE: &str = "source";

/// Makes of the rows of all sources, which are the table `source`, those that the query `sql` gives. What it sorts or
/// gathers takes up to `memory` bytes, and spills beyond. It runs in one partition, so that rows come in the order of the
/// input, or that which the query says.
pub fn query(sql: &str, memory: u64) -> Reshape {
    let sql = sql.trim().to_owned();
    Reshape::new(format!("sql:{sql}"), move |source| {
        let sql = sql.clone();
        async move { run(&sql, source, memory).await.map_err(told) }.boxed()
    })
}

async fn run(sql: &str, source: SourceRows, memory: u64) -> Result<Reshaped> {
    let pool = FairSpillPool::new(usize::try_from(memory).unwrap_or(usize::MAX));
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(pool)).build_arc()?;
    let config = SessionConfig::new().with_target_partitions(1);
    let context = SessionContext::new_with_config_rt(config, runtime);
    context.register_table(SOURCE, Arc::new(SourceTable(source)))?;
    let reading = SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let rows = context.sql_with_options(sql, reading).await?.execute_stream().await?;
    Ok(Reshaped { schema: rows.schema(), rows: rows.map_err(told).boxed() })
}

/// The sources, as a table.
#[derive(Debug)]
struct SourceTable(SourceRows);

impl TableProvider for SourceTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.0.schema())
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn scan<'a, 'b, 'c, 'd, 'r>(
        &'a self,
        _: &'b dyn Session,
        projection: Option<&'c Vec<usize>>,
        _: &'d [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'r, Result<Arc<dyn ExecutionPlan>>>
    where
        'a: 'r,
        'b: 'r,
        'c: 'r,
        'd: 'r,
    {
        let scan = || {
            let schema = match projection {
                Some(columns) => Arc::new(self.0.schema().project(columns)?),
                None => Arc::clone(self.0.schema()),
            };
            let columns = projection.cloned();
            let whole = Whole { source: self.0.clone(), columns, schema: Arc::clone(&schema) };
            let plan = StreamingTableExec::try_new(schema, vec![Arc::new(whole)], None, [], false, limit)?;
            Ok(Arc::new(plan) as Arc<dyn ExecutionPlan>)
        };
        std::future::ready(scan()).boxed()
    }
}

/// All sources, one after the other.
struct Whole {
    source: SourceRows,
    columns: Option<Vec<usize>>,
    schema: SchemaRef,
}

impl fmt::Debug for Whole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.source)
    }
}

impl PartitionStream for Whole {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = match self.source.read(self.columns.as_deref()) {
            Ok(rows) => rows,
            Err(error) => stream::once(std::future::ready(Err(error))).boxed(),
        };
        Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows.map_err(external)))
    }
}
