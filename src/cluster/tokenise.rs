//! Any plan's rows, made ready to travel: the map side of a job whose rows come out of a query.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::assignment::Assignment;
use super::failure::failed;
use super::marked::{self, Marker};
use crate::error::Error;
use crate::operator::{external, only};
use crate::schema::adapt;
use crate::session::{NO_KEY, QuarantinedRow, record};

/// The number of the only source of such a job.
const SOURCE: u32 = 0;

/// Adds to each row of its input its token, and the range of the token space that it lies in.
#[derive(Debug)]
pub struct TokeniseExec {
    input: Arc<dyn ExecutionPlan>,
    assignment: Arc<Assignment>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl TokeniseExec {
    pub(crate) fn try_new(input: Arc<dyn ExecutionPlan>, assignment: Arc<Assignment>) -> Result<Self> {
        let schema = marked::schema(&assignment.contract).map_err(external)?;
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        ));
        Ok(Self { input, assignment, schema, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    pub(crate) fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }
}

impl DisplayAs for TokeniseExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokeniseExec: table={}", self.assignment.location)
    }
}

impl ExecutionPlan for TokeniseExec {
    fn name(&self) -> &'static str {
        "TokeniseExec"
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
        // To scatter the rows would leave to chance which of a key is first.
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = only(self.name(), children)?;
        Ok(Arc::new(Self::try_new(input, Arc::clone(&self.assignment))?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, context)?;
        let (assignment, schema) = (Arc::clone(&self.assignment), Arc::clone(&self.schema));
        let metrics = BaselineMetrics::new(&self.metrics, partition);
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let out = stream.tx();
        stream.spawn(async move {
            let spec = assignment.spec().await.map_err(failed)?;
            let contract = Arc::new(assignment.contract.clone());
            let url = assignment.source(SOURCE).map_err(failed)?;
            let key = spec.bind(&contract, url).map_err(failed)?;
            let mut marker = Marker::new(&schema, SOURCE, url, assignment.null_key);
            while let Some(batch) = input.next().await.transpose()? {
                let timer = metrics.elapsed_compute().timer();
                let rows = adapt(&batch, &contract).map_err(|reason| failed(Error::input(url, reason)))?;
                let tokens = key.tokenise(&rows).map_err(failed)?;
                let first = marker.rows();
                let aside = |row: usize| aside(url, first, &rows, row);
                let marked = marker.mark(&rows, &tokens, aside).map_err(failed)?;
                timer.done();
                for batch in marked {
                    metrics.record_output(batch.num_rows());
                    if out.send(Ok(batch)).await.is_err() {
                        return Ok(());
                    }
                }
            }
            // Whoever listens no more does not want to know.
            let _ = out.send(Ok(marker.end().map_err(failed)?)).await;
            Ok(())
        });
        Ok(stream.build())
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// How a row that has no key goes to quarantine; `first` rows of the source came before its batch.
pub(super) fn aside(url: &str, first: u64, rows: &RecordBatch, row: usize) -> QuarantinedRow {
    QuarantinedRow::of_record(url, first + row as u64, NO_KEY.into(), record(&rows.slice(row, 1)))
}
