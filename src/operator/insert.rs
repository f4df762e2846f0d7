//! `INSERT INTO`: all partitions of the input are judged side by side, and committed with one ledger entry.

use std::fmt;
use std::sync::Arc;

use arrow::array::{RecordBatch, UInt64Array};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, stream};

use super::exec::DedupeExec;
use super::failure::external;
use super::only;
use super::session::PlanSession;
use crate::session::{Committed, SessionOptions};
use crate::table::Table;

/// Inserts its input's rows into a table, and gives one row with the number that were new. Each run is a commit of its own.
#[derive(Debug)]
pub struct InsertExec {
    input: Arc<dyn ExecutionPlan>,
    session: PlanSession,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl InsertExec {
    /// Inserts the rows of `input` into `table`, which will have at least the columns of `declared`.
    pub fn try_new(
        input: Arc<dyn ExecutionPlan>,
        table: &Table,
        declared: &SchemaRef,
        options: SessionOptions,
    ) -> Result<Self> {
        let session = PlanSession::inserting(table, declared, options);
        Ok(Self::over(Arc::new(DedupeExec::try_new(input, session.clone())?), session))
    }

    fn over(input: Arc<dyn ExecutionPlan>, session: PlanSession) -> Self {
        let schema = Arc::new(Schema::new(vec![Field::new("count", DataType::UInt64, false)]));
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        ));
        Self { input, session, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

impl DisplayAs for InsertExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InsertExec: one commit to {}", self.session.table().ledger().store().url())
    }
}

impl ExecutionPlan for InsertExec {
    fn name(&self) -> &'static str {
        "InsertExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::over(only(self.name(), children)?, self.session.clone())))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition != 0 {
            return Err(DataFusionError::Internal(format!("InsertExec has one partition, not {partition}")));
        }
        let partitions = self.input.output_partitioning().partition_count();
        let inputs: Vec<_> = (0..partitions)
            .map(|partition| self.input.execute(partition, Arc::clone(&context)))
            .collect::<Result<_>>()?;
        let (session, schema, metrics) = (self.session.clone(), self.schema(), self.metrics.clone());
        let result = async move {
            // Dropped, the tasks end, and nothing is committed.
            let tasks: Vec<_> = inputs.into_iter().map(|input| SpawnedTask::spawn(drain(input))).collect();
            for task in tasks {
                task.join_unwind().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
            }
            let timer = MetricBuilder::new(&metrics).subset_time("commit_time", partition);
            let committed = {
                let _timer = timer.timer();
                session.commit().await.map_err(external)?
            };
            count(&metrics, &committed);
            let count = Arc::new(UInt64Array::from(vec![committed.rows.accepted]));
            Ok::<_, DataFusionError>(RecordBatch::try_new(schema, vec![count])?)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(result))))
    }
}

/// What counts in the end: in between, another writer may have been first with rows that were accepted at first.
fn count(metrics: &ExecutionPlanMetricsSet, committed: &Committed) {
    let bytes = committed.files.iter().map(|file| file.bytes).sum();
    for (name, value) in [
        ("accepted", committed.rows.accepted),
        ("duplicate", committed.rows.duplicate),
        ("rejected", committed.rows.rejected),
        ("files", committed.files.len() as u64),
        ("bytes", bytes),
    ] {
        MetricBuilder::new(metrics).global_counter(name).add(value as usize);
    }
}

/// Pulls a partition through: its accepted rows are staged on the way.
async fn drain(mut input: SendableRecordBatchStream) -> Result<()> {
    while let Some(batch) = input.next().await {
        drop(batch?);
    }
    Ok(())
}
