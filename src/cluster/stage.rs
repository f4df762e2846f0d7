//! The reduce side: a task judges the rows of its ranges, stages what it accepts, and says what it staged.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::col;
use datafusion::physical_expr::{Distribution, EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::EmissionType;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions,
};
use futures::{StreamExt, stream};
use serde::{Deserialize, Serialize};

use super::assignment::Assignment;
use super::failure::failed;
use super::marked::{self, Arrivals, Arrived, Note};
use super::ranges::Ranges;
use crate::error::Error;
use crate::operator::{external, only};
use crate::options::MIN_MEMORY;
use crate::session::{Rows, Session, Share};
use crate::token::Tokens;
use crate::verdict::Accounting;

/// Of a memory pool that has a limit, a task takes no more than this part: the shuffle needs memory too.
const SHARE: usize = 2;

/// Rows that are judged together, unless there is reason to take more, and the most there are for any reason.
const ROWS: usize = 1 << 16;
const MOST_ROWS: usize = 1 << 20;

/// What one task staged, in its own words.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Staged {
    pub(super) share: Share,
    /// The ranges of the tokens it judged.
    pub(super) ranges: Ranges,
    /// For each source, how many of its parts ended here, and the rows they were said to have.
    pub(super) ends: Vec<(u64, u64)>,
}

impl Staged {
    /// What a row that a task gave says.
    pub(super) fn all_of(batches: &[RecordBatch]) -> crate::Result<Vec<Self>> {
        let strange = |why: String| Error::Internal(format!("what a task says that it staged: {why}"));
        let mut all = Vec::new();
        for batch in batches {
            let text = (batch.columns().first())
                .and_then(|column| column.as_string_opt::<i32>())
                .ok_or_else(|| strange("it is no text".into()))?;
            for text in text.iter().flatten() {
                all.push(serde_json::from_str(text).map_err(|e| strange(e.to_string()))?);
            }
        }
        Ok(all)
    }
}

/// Judges each partition of its input in a session of its own, stages what is accepted, and gives one row a partition that says
/// what was staged. Nothing of it is part of the table until the driver says so.
#[derive(Debug)]
pub struct StageExec {
    input: Arc<dyn ExecutionPlan>,
    assignment: Arc<Assignment>,
    range: Arc<dyn PhysicalExpr>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl StageExec {
    pub(crate) fn try_new(input: Arc<dyn ExecutionPlan>, assignment: Arc<Assignment>) -> Result<Self> {
        let expected = marked::schema(&assignment.contract).map_err(external)?;
        if input.schema().fields() != expected.fields() {
            return Err(DataFusionError::Plan("StageExec stands above TokeniseExec or ReadExec".into()));
        }
        let range = col(marked::RANGE, &expected)?;
        let schema = staged_schema();
        let properties = Arc::new(PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            input.boundedness(),
        ));
        Ok(Self { input, assignment, range, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    pub(crate) fn assignment(&self) -> &Arc<Assignment> {
        &self.assignment
    }
}

/// The schema of the rows that say what was staged.
pub(super) fn staged_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("staged", DataType::Utf8, false)]))
}

impl DisplayAs for StageExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StageExec: table={}, version={}", self.assignment.location, self.assignment.version)
    }
}

impl ExecutionPlan for StageExec {
    fn name(&self) -> &'static str {
        "StageExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        f(&self.range)
    }

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        // Rows of a key must meet.
        InputDistributionRequirements::new(vec![Distribution::KeyPartitioned(vec![Arc::clone(&self.range)])])
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // More than their range the rows need not be scattered by.
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
        let memory = reserve(self.assignment.memory, &context)?;
        let input = self.input.execute(partition, context)?;
        let task = Task {
            assignment: Arc::clone(&self.assignment),
            counts: Counts::new(&self.metrics, partition),
            memory,
        };
        let staged = async move { task.run(input).await };
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::once(staged))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// As much of `wanted` bytes as the pool has, at least what a session needs. Once and for all: the session keeps within what it
/// got, and never waits for more.
fn reserve(wanted: u64, context: &TaskContext) -> Result<MemoryReservation> {
    let pool = context.memory_pool();
    let reservation = MemoryConsumer::new("dedupe task").register(pool);
    let least = MIN_MEMORY as usize;
    let most = match pool.memory_limit() {
        MemoryLimit::Finite(limit) => limit / SHARE,
        _ => usize::MAX,
    };
    let mut bytes = usize::try_from(wanted).unwrap_or(usize::MAX).min(most).max(least);
    while let Err(exhausted) = reservation.try_grow(bytes) {
        if bytes == least {
            return Err(exhausted);
        }
        bytes = (bytes / 2).max(least);
    }
    Ok(reservation)
}

/// One partition of one run.
struct Task {
    assignment: Arc<Assignment>,
    counts: Counts,
    memory: MemoryReservation,
}

impl Task {
    async fn run(self, mut input: SendableRecordBatchStream) -> Result<RecordBatch> {
        let session = self.assignment.begin(self.memory.size() as u64).await.map_err(failed)?;
        let mut judging = Judging {
            ends: vec![(0, 0); session.sources().len()],
            session,
            ranges: Ranges::default(),
            waiting: Vec::new(),
            rows: 0,
            bytes: 0,
        };
        while let Some(batch) = input.next().await.transpose()? {
            let _timer = self.counts.baseline.elapsed_compute().timer();
            judging.take(&batch).await.map_err(failed)?;
            let most = (judging.session.best_batch() as usize).clamp(ROWS, MOST_ROWS);
            if judging.rows >= most || judging.bytes >= self.memory.size() / 8 {
                judging.judge().await.map_err(failed)?;
            }
        }
        let _timer = self.counts.baseline.elapsed_compute().timer();
        let staged = judging.end().await.map_err(failed)?;
        self.counts.add(&staged.share.sources);
        let json = serde_json::to_string(&staged).map_err(|e| DataFusionError::External(Box::new(e)))?;
        self.counts.baseline.record_output(1);
        Ok(RecordBatch::try_new(staged_schema(), vec![Arc::new(StringArray::from(vec![json]))])?)
    }
}

struct Judging {
    session: Session,
    ranges: Ranges,
    ends: Vec<(u64, u64)>,
    /// What arrived and is not judged yet: so many rows and bytes.
    waiting: Vec<Arrived>,
    rows: usize,
    bytes: usize,
}

impl Judging {
    async fn take(&mut self, batch: &RecordBatch) -> crate::Result<()> {
        let arrivals = Arrivals::of(batch)?;
        for (source, note) in arrivals.notes {
            match note {
                Note::Rejected(row) => self.session.reject(source, &row).await?,
                Note::End(rows) => {
                    let end = self.ends.get_mut(source as usize);
                    let end = end.ok_or_else(|| Error::Internal(format!("there is no source {source}")))?;
                    *end = (end.0 + 1, end.1 + rows);
                }
            }
        }
        for arrived in arrivals.rows {
            self.rows += arrived.rows.num_rows();
            self.bytes += arrived.rows.get_array_memory_size();
            self.waiting.push(arrived);
        }
        Ok(())
    }

    async fn judge(&mut self) -> crate::Result<()> {
        let mut waiting = std::mem::take(&mut self.waiting);
        (self.rows, self.bytes) = (0, 0);
        // As far as what has arrived tells, the first is the one whose source comes first.
        waiting.sort_by_key(|arrived| arrived.source);
        let chunks: Vec<(u32, &Tokens)> =
            waiting.iter().map(|arrived| (arrived.source, &arrived.tokens)).collect();
        let all = self.session.judge_together(&chunks).await?;
        for (Arrived { source, rows, tokens }, verdicts) in waiting.into_iter().zip(all) {
            match &tokens.keyless {
                None => self.ranges.add_tokens(&tokens.tokens),
                Some(keyless) => {
                    let keyed = (!keyless).set_indices().collect::<Vec<_>>();
                    let keyed: Vec<_> =
                        keyed.into_iter().filter_map(|row| tokens.tokens.get(row)).copied().collect();
                    self.ranges.add_tokens(&keyed);
                }
            }
            if verdicts.accepted > 0 {
                self.session.write(Rows::of_batch(source, rows, verdicts)).await?;
            }
        }
        Ok(())
    }

    async fn end(mut self) -> crate::Result<Staged> {
        self.judge().await?;
        let Self { session, ranges, ends, .. } = self;
        Ok(Staged { share: session.share().await?, ranges, ends })
    }
}

/// The metrics of one partition.
struct Counts {
    baseline: BaselineMetrics,
    accepted: Count,
    duplicate: Count,
    rejected: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            baseline: BaselineMetrics::new(metrics, partition),
            accepted: count("accepted"),
            duplicate: count("duplicate"),
            rejected: count("rejected"),
        }
    }

    fn add(&self, sources: &[Accounting]) {
        for rows in sources {
            self.accepted.add(rows.accepted as usize);
            self.duplicate.add(rows.duplicate as usize);
            self.rejected.add(rows.rejected as usize);
        }
    }
}
