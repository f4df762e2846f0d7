//! Sources, read on the executors: the map side of `dedupe ingest` on a cluster.
//!
//! Which parts of which sources there are to read are rows themselves, which come in from below: so an engine spreads the work
//! over its tasks as it does any rows in memory, without knowing what they stand for.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchReceiverStream;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    PlanProperties, ReplaceChildrenOptions,
};
use futures::StreamExt;

use super::assignment::Assignment;
use super::failure::failed;
use super::marked;
use super::reading::{Part, Reading};
use crate::operator::{external, only};

/// Reads the parts of sources that its input names, and gives their rows with their tokens.
#[derive(Debug)]
pub struct ReadExec {
    input: Arc<dyn ExecutionPlan>,
    assignment: Arc<Assignment>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl ReadExec {
    pub(crate) fn try_new(input: Arc<dyn ExecutionPlan>, assignment: Arc<Assignment>) -> Result<Self> {
        let schema = marked::schema(&assignment.contract).map_err(external)?;
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Incremental,
            Boundedness::Bounded,
        ));
        Ok(Self { input, assignment, schema, properties })
    }

    /// Reads these parts, in so many tasks.
    pub(super) fn of_parts(tasks: &[Vec<Part>], assignment: Arc<Assignment>) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![Field::new("part", DataType::Utf8, false)]));
        let partition = |parts: &Vec<Part>| -> Result<Vec<RecordBatch>> {
            let text: Vec<String> = parts
                .iter()
                .map(serde_json::to_string)
                .collect::<Result<_, _>>()
                .map_err(|e| DataFusionError::External(Box::new(e)))?;
            let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(StringArray::from(text))]);
            Ok(vec![batch?])
        };
        let partitions = tasks.iter().map(partition).collect::<Result<Vec<_>>>()?;
        let input = MemorySourceConfig::try_new_exec(&partitions, Arc::clone(&schema), None)?;
        Self::try_new(input, assignment)
    }

    pub(crate) fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }
}

impl DisplayAs for ReadExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadExec: sources={}", self.assignment.sources.len())
    }
}

impl ExecutionPlan for ReadExec {
    fn name(&self) -> &'static str {
        "ReadExec"
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
        // Which task reads what is settled.
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
        let (assignment, marked) = (Arc::clone(&self.assignment), Arc::clone(&self.schema));
        let mut stream = RecordBatchReceiverStream::builder(Arc::clone(&self.schema), 2);
        let out = stream.tx();
        stream.spawn(async move {
            let spec = assignment.spec().await.map_err(failed)?;
            let contract = Arc::new(assignment.contract.clone());
            let reading = Reading {
                assignment: &assignment,
                spec: &spec,
                contract: &contract,
                marked: &marked,
                out: &out,
            };
            while let Some(batch) = input.next().await.transpose()? {
                for part in parts_of(&batch)? {
                    if !reading.read(&part).await.map_err(failed)? {
                        return Ok(());
                    }
                }
            }
            Ok(())
        });
        Ok(stream.build())
    }
}

fn parts_of(batch: &RecordBatch) -> Result<Vec<Part>> {
    let strange = || DataFusionError::Internal("the input of ReadExec names no parts of sources".into());
    let column = batch.columns().first().and_then(|column| column.as_string_opt::<i32>());
    let text = column.ok_or_else(strange)?.iter().flatten();
    text.map(|text| serde_json::from_str(text).map_err(|_| strange())).collect()
}
