//! The physical operator: any plan's rows in, the first of each key out.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use datafusion::common::Statistics;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{Distribution, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::CardinalityEffect;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    ChildStats, ChildrenPropertiesMode, DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties,
    InputDistributionRequirements, PlanProperties, ReplaceChildrenOptions, StatisticsArgs,
};
use futures::{FutureExt, StreamExt, stream};

use super::failure::external;
use super::only;
use super::run::{Judged, Member};
use super::session::{Keep, PlanSession};
use crate::token::BoundKey;

/// Rows that are judged together where they are there, and the most there are for any reason.
const ROWS: usize = 1 << 16;
const MOST_ROWS: usize = 1 << 20;

/// Lets the first row of each key through, judged against the table of a [`PlanSession`] and against all other rows of
/// the plan.
///
/// - Rows of a partition keep their order. Where the input has an order, its partitions are merged by it, so that "first"
///   means first in that order; where it has none, partitions run side by side, and which of two rows in different
///   partitions is first is left to chance.
/// - No filter, projection or limit moves below it: a row that is not judged is not seen.
/// - Of a memory pool with a limit it reserves up to a quarter when a run begins, at least 4 MiB, and keeps within that
///   by spilling to the table's folder. If not even that is to be had the run ends with "resources exhausted".
#[derive(Debug)]
pub struct DedupeExec {
    input: Arc<dyn ExecutionPlan>,
    session: PlanSession,
    key: BoundKey,
    /// The columns that the table keeps.
    columns: Vec<usize>,
    /// The order by which a row is first.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl DedupeExec {
    /// Deduplicates the rows of `input` in `session`. Fails if the key is not among its columns, or if its rows cannot be
    /// of the session's table.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, session: PlanSession) -> Result<Self> {
        let order = input.output_ordering().cloned();
        Self::with_order(input, session, order)
    }

    fn with_order(
        input: Arc<dyn ExecutionPlan>,
        session: PlanSession,
        order: Option<LexOrdering>,
    ) -> Result<Self> {
        let schema = input.schema();
        let key = session.bind(&schema).map_err(external)?;
        let columns = session.kept_columns(&schema, &key);
        // It is a filter: whatever holds of the rows that come in holds of those that go out.
        let properties = Arc::clone(input.properties());
        Ok(Self { input, session, key, columns, order, properties, metrics: ExecutionPlanMetricsSet::new() })
    }

    /// The session in which the rows are judged.
    pub fn session(&self) -> &PlanSession {
        &self.session
    }
}

impl DisplayAs for DedupeExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.session.table();
        let key = table.key().join(", ");
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "DedupeExec: key=[{key}], table={}", table.ledger().store().url())?;
                if self.session.keep() == Keep::Keys {
                    f.write_str(", keep=keys")?;
                }
                match &self.order {
                    Some(order) => write!(f, ", first_by=[{order}]"),
                    None => Ok(()),
                }
            }
            DisplayFormatType::TreeRender => write!(f, "key={key}"),
        }
    }
}

impl ExecutionPlan for DedupeExec {
    fn name(&self) -> &'static str {
        "DedupeExec"
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

    fn input_distribution_requirements(&self) -> InputDistributionRequirements {
        InputDistributionRequirements::new(vec![match self.order {
            Some(_) => Distribution::SinglePartition,
            None => Distribution::UnspecifiedDistribution,
        }])
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        // It does always; but where it is said of an input without an order, a sort above moves below, and changes which row of a
        // key is first.
        vec![self.order.is_some()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        // Rows in one partition are deduplicated in their order: to scatter them would leave to chance which is first.
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let input = only(self.name(), children)?;
        Ok(Arc::new(Self::with_order(input, self.session.clone(), self.order.clone())?))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.replace_children(children, ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let partitions = self.input.output_partitioning().partition_count();
        let member = self.session.join(partition, partitions, &context)?;
        let input = self.input.execute(partition, context)?;
        let schema = self.schema();
        member.begin(&schema, &self.key);
        let part = Part {
            input,
            member,
            session: self.session.clone(),
            key: self.key.clone(),
            columns: self.columns.clone(),
            counts: Counts::new(&self.metrics, partition),
            ended: false,
            together: ROWS,
            accepted: VecDeque::new(),
        };
        let batches = stream::try_unfold(part, |mut part| async move {
            Ok::<_, DataFusionError>(part.next().await?.map(|batch| (batch, part)))
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(
        &self,
        inputs: &[Arc<Statistics>],
        _: &StatisticsArgs,
    ) -> Result<Arc<Statistics>> {
        Ok(match inputs {
            [input] => Arc::new(input.as_ref().clone().to_inexact()),
            _ => Arc::new(Statistics::new_unknown(&self.schema())),
        })
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }
}

/// One partition on its way.
struct Part {
    input: SendableRecordBatchStream,
    member: Member,
    session: PlanSession,
    key: BoundKey,
    columns: Vec<usize>,
    counts: Counts,
    /// Whether the input has ended.
    ended: bool,
    /// How many rows are to be judged together.
    together: usize,
    /// Accepted rows that nobody has taken yet.
    accepted: VecDeque<RecordBatch>,
}

impl Part {
    /// The next batch of rows that are accepted.
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.accepted.pop_front() {
                self.counts.baseline.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            let batches = self.gather().await?;
            if batches.is_empty() {
                self.member.end();
                self.counts.baseline.done();
                return Ok(None);
            }
            let _timer = self.counts.baseline.elapsed_compute().timer();
            let judged = self.member.take(&self.session, &self.key, &self.columns, batches).await?;
            self.counts.add(&judged);
            self.together = usize::try_from(judged.best).unwrap_or(usize::MAX).clamp(ROWS, MOST_ROWS);
            self.accepted.extend(judged.accepted);
        }
    }

    /// Batches that are to be judged together, none of them empty: the next one, and those that are there already, as many as
    /// there is reason to take and room for. No row waits here for others to come. None once all were taken.
    async fn gather(&mut self) -> Result<Vec<RecordBatch>> {
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        let limit = self.member.gather_limit();
        while !self.ended && rows < self.together && bytes < limit {
            let next = match batches.is_empty() {
                true => self.input.next().await,
                false => match self.input.next().now_or_never() {
                    Some(next) => next,
                    None => break,
                },
            };
            match next.transpose()? {
                None => self.ended = true,
                Some(batch) if batch.num_rows() == 0 => {}
                Some(batch) => {
                    rows += batch.num_rows();
                    bytes += batch.get_array_memory_size();
                    batches.push(batch);
                }
            }
        }
        Ok(batches)
    }
}

/// The metrics of one partition.
struct Counts {
    baseline: BaselineMetrics,
    accepted: Count,
    duplicate: Count,
    rejected: Count,
    filter_hits: Count,
    exact_lookups: Count,
    spills: Count,
}

impl Counts {
    fn new(metrics: &ExecutionPlanMetricsSet, partition: usize) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            baseline: BaselineMetrics::new(metrics, partition),
            accepted: count("accepted"),
            duplicate: count("duplicate"),
            rejected: count("rejected"),
            filter_hits: count("filter_hits"),
            exact_lookups: count("exact_lookups"),
            spills: count("spills"),
        }
    }

    fn add(&self, judged: &Judged) {
        self.accepted.add(judged.accepted.iter().map(RecordBatch::num_rows).sum());
        self.duplicate.add(judged.duplicate as usize);
        self.rejected.add(judged.rejected as usize);
        self.filter_hits.add(judged.lookups.filter_hits as usize);
        self.exact_lookups.add(judged.lookups.exact_lookups as usize);
        self.spills.add(judged.lookups.spills as usize);
    }
}
