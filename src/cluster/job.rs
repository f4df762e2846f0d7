//! The driver of a job: it pins a version, has an engine run a plan, and commits what the tasks staged.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::Schema;
use datafusion::dataframe::DataFrame;
use datafusion::error::Result as EngineResult;
use datafusion::logical_expr::{Extension, LogicalPlan};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::repartition::RepartitionExec;
use tracing::warn;

use super::assignment::Assignment;
use super::logical::StageNode;
use super::marked;
use super::ranges::Ranges;
use super::read::ReadExec;
use super::reading::Part;
use super::stage::{StageExec, Staged};
use super::tokenise::TokeniseExec;
use crate::error::{Error, Result};
use crate::session::{Committed, Prepared, Session, SessionOptions};
use crate::table::Table;
use crate::upkeep::compact;

/// One job: many tasks judge rows against the version at which it began, and one commit makes what they staged part of the table.
///
/// ```
/// # use std::sync::Arc;
/// # use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch};
/// # use datafusion::execution::SessionStateBuilder;
/// # use datafusion::prelude::SessionContext;
/// use dedupe::cluster::{Job, StagePlanner};
/// use dedupe::session::SessionOptions;
/// # use dedupe::store::Store;
/// # use dedupe::table::{NewTable, Table};
///
/// # #[tokio::main]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let at = folder.path().join("events").display().to_string();
/// # let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1]));
/// # let batch = RecordBatch::try_from_iter([("id", ids)])?;
/// # let table = Table::open_or_create(Store::open(&at, &[])?, &batch.schema(), &NewTable::keyed_by(["id"])).await?;
/// // Here the engine is DataFusion itself, in this process.
/// let state = SessionStateBuilder::new().with_default_features().with_query_planner(Arc::new(StagePlanner)).build();
/// let context = SessionContext::new_with_state(state);
/// let frame = context.read_batch(batch)?;
///
/// let job = Job::begin(&table, frame.schema().as_arrow(), SessionOptions::default(), Vec::new()).await?;
/// let staged = job.stage(frame)?.collect().await?;
/// // Until here nothing is to be seen.
/// let committed = job.commit(&staged).await?;
/// assert_eq!((committed.rows.accepted, committed.rows.duplicate), (2, 1));
/// # Ok(())
/// # }
/// ```
///
/// Dropped, it leaves the table as it was; what tasks staged, or still stage, is garbage for the next vacuum.
pub struct Job {
    session: Session,
    assignment: Arc<Assignment>,
    /// How many parts each source has, where the driver knows.
    parts: Option<Vec<u64>>,
}

impl Job {
    /// Begins a job for rows of `schema` on the table as it is now. `store_options` are those that every task opens the table's
    /// store with; they travel with the plan, so credentials are better found by each executor in its own environment. The
    /// memory of `options` is that of one task. [`Error::Refused`] if such rows cannot be of the table.
    pub async fn begin(
        table: &Table,
        schema: &Schema,
        options: SessionOptions,
        store_options: Vec<(String, String)>,
    ) -> Result<Self> {
        if options.dry_run {
            return Err(Error::Usage("a distributed job has no dry run".into()));
        }
        let location = table.ledger().store().url();
        let mut session = table.begin(schema, options).await?;
        session.source("the rows of a plan")?;
        let assignment = Arc::new(Assignment::of(&session, location, store_options)?);
        Ok(Self { session, assignment, parts: None })
    }

    /// A job for sources that `session` knows and that are to be read in these parts.
    pub(super) fn of_parts(session: Session, assignment: Assignment, parts: &[Part]) -> Self {
        let mut counts = vec![0; session.sources().len()];
        for part in parts {
            counts.get_mut(part.source as usize).into_iter().for_each(|count| *count += 1);
        }
        Self { session, assignment: Arc::new(assignment), parts: Some(counts) }
    }

    /// Has the rows of `frame` judged and staged, by the engine of its context: to be collected, and given to
    /// [`Self::commit`]. The context's query planner must be [`StagePlanner`](super::StagePlanner), or have it among its extension
    /// planners.
    pub fn stage(&self, frame: DataFrame) -> EngineResult<DataFrame> {
        let (state, plan) = frame.into_parts();
        let node = Arc::new(StageNode::try_new(plan, Arc::clone(&self.assignment))?);
        Ok(DataFrame::new(state, LogicalPlan::Extension(Extension { node })))
    }

    /// As [`Self::stage`], for engines that take a physical plan: the rows of `input` are judged by so many tasks.
    pub fn plan(&self, input: Arc<dyn ExecutionPlan>, tasks: usize) -> EngineResult<Arc<dyn ExecutionPlan>> {
        self.staged(Arc::new(TokeniseExec::try_new(input, Arc::clone(&self.assignment))?), tasks)
    }

    /// Reads the parts of sources in as many tasks as there are lists of them, and judges their rows in `tasks` tasks.
    pub(super) fn plan_parts(
        &self,
        parts: &[Vec<Part>],
        tasks: usize,
    ) -> EngineResult<Arc<dyn ExecutionPlan>> {
        self.staged(Arc::new(ReadExec::of_parts(parts, Arc::clone(&self.assignment))?), tasks)
    }

    fn staged(&self, rows: Arc<dyn ExecutionPlan>, tasks: usize) -> EngineResult<Arc<dyn ExecutionPlan>> {
        let range = col(marked::RANGE, &rows.schema())?;
        let shuffled = RepartitionExec::try_new(rows, Partitioning::Hash(vec![range], tasks.max(1)))?;
        Ok(Arc::new(StageExec::try_new(Arc::new(shuffled), Arc::clone(&self.assignment))?))
    }

    /// Commits what the tasks staged, as they tell in `staged`, as the version after all others, judged against whatever was
    /// committed since the job began. [`Error::Refused`] if it is not all that there was to judge, or some of it twice;
    /// [`Error::Corrupt`] if something that was staged is not there; [`Error::Fenced`] if a vacuum took the job for dead. Then nothing was
    /// committed, and it can be run again.
    pub async fn commit(self, staged: &[RecordBatch]) -> Result<Committed> {
        let memory = self.session.memory();
        let (committed, mut ledger) = self.adopt(staged).await?.commit().await?;
        if let Err(error) = compact::compact_if_due(&mut ledger, memory).await {
            warn!("the index could not be compacted: {error}");
        }
        Ok(committed)
    }

    /// As [`Self::commit`], in two phases: see [`Session::prepare`].
    pub async fn prepare(self, staged: &[RecordBatch]) -> Result<Prepared> {
        self.adopt(staged).await?.prepare().await
    }

    /// The session, which has staged what its tasks have.
    pub(super) async fn adopt(mut self, staged: &[RecordBatch]) -> Result<Session> {
        let mut all = Staged::all_of(staged)?;
        let mut known = BTreeSet::new();
        all.retain(|staged| known.insert(staged.share.session().to_owned()));
        self.check(&all)?;
        self.session.adopt(all.into_iter().map(|staged| staged.share).collect()).await?;
        Ok(self.session)
    }

    /// Whether each row was judged, and no key by two tasks. What an engine says of itself does not count.
    fn check(&self, all: &[Staged]) -> Result<()> {
        let mut ranges = Ranges::default();
        for staged in all {
            if !ranges.add_disjoint(&staged.ranges) {
                return Err(Error::Refused(
                    "two tasks judged keys of one range, so some key may have been accepted twice: the output of a task was \
                     delivered twice, or the rows were not shuffled by their range. Nothing was committed; run again"
                        .into(),
                ));
            }
        }
        for (number, source) in self.session.sources().iter().enumerate() {
            let judged: u64 =
                all.iter().filter_map(|staged| staged.share.sources.get(number)).map(|rows| rows.read).sum();
            let (ended, read) = (all.iter().filter_map(|staged| staged.ends.get(number)))
                .fold((0, 0), |(parts, rows), end| (parts + end.0, rows + end.1));
            let whole = match &self.parts {
                Some(parts) => parts.get(number) == Some(&ended),
                None => ended > 0,
            };
            if judged != read || !whole {
                return Err(Error::Refused(format!(
                    "of {} {read} rows were read and {judged} judged, in {ended} parts: the output of some task was lost, or \
                     delivered twice. Nothing was committed; run again",
                    source.url
                )));
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Job({:?})", self.assignment)
    }
}
