//! A session whose rows come out of a query plan, and are committed by the program that runs it.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_schema::{Schema, SchemaRef};
use datafusion::execution::TaskContext;
use tracing::warn;

use super::run::{Member, Run};
use crate::error::{Error, Result};
use crate::schema;
use crate::session::{Committed, Prepared, Session, SessionOptions};
use crate::table::Table;
use crate::token::BoundKey;
use crate::upkeep::compact;

/// What the table keeps of the rows that a plan hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Keep {
    /// The whole rows: the table is where they are kept.
    #[default]
    Rows,
    /// Only the key columns: the rows are kept by somebody else, and the table remembers which were seen.
    Keys,
}

/// A session for the rows of one plan. Each run of the plan is judged anew, against the table alone: what an earlier run
/// found is forgotten, so that a plan that failed can be run again. [`Self::commit`] commits the last run, if it went to
/// its end.
#[derive(Clone)]
pub struct PlanSession(Arc<Inner>);

struct Inner {
    table: Table,
    options: SessionOptions,
    keep: Keep,
    /// Columns that the table is to have besides those of the rows.
    declared: Option<SchemaRef>,
    run: Mutex<Option<Arc<Run>>>,
}

impl PlanSession {
    /// A session on `table`, which keeps the whole rows.
    pub fn new(table: &Table, options: SessionOptions) -> Self {
        Self::keeping(table, options, Keep::Rows)
    }

    /// A session on `table`, which keeps as much of each row as `keep` says.
    pub fn keeping(table: &Table, mut options: SessionOptions, keep: Keep) -> Self {
        // What came out of the plan went somewhere.
        options.handed_on = true;
        Self::of(table, options, keep, None)
    }

    /// A session whose rows go nowhere but into the table, so that what another writer was first with can be taken back.
    pub(super) fn inserting(table: &Table, declared: &SchemaRef, options: SessionOptions) -> Self {
        Self::of(table, options, Keep::Rows, Some(Arc::clone(declared)))
    }

    fn of(table: &Table, options: SessionOptions, keep: Keep, declared: Option<SchemaRef>) -> Self {
        Self(Arc::new(Inner { table: table.clone(), options, keep, declared, run: Mutex::default() }))
    }

    /// The table.
    pub fn table(&self) -> &Table {
        &self.0.table
    }

    /// What the table keeps of the rows.
    pub fn keep(&self) -> Keep {
        self.0.keep
    }

    /// Commits the run that ended last, as the version after all others: from then on its rows are seen for everybody. Call
    /// it when whoever gets the rows has them for good.
    /// [`Error::Usage`] if no run has ended, also if its consumer stopped before the end: what it did not take would count
    /// as seen. [`Error::Overtaken`] if another writer committed some of the keys meanwhile: the rows that came out of the
    /// plan are not first-seen any more; discard them, and run it again.
    pub async fn commit(&self) -> Result<Committed> {
        // It holds the reservation of what the session takes.
        let run = self.take()?;
        let session = run.session(self).await?;
        let (committed, mut ledger) = session.commit().await?;
        if let Err(error) = compact::compact_if_due(&mut ledger, self.0.options.memory).await {
            warn!("the index could not be compacted: {error}");
        }
        Ok(committed)
    }

    /// As [`Self::commit`], in two phases: see [`Session::prepare`].
    pub async fn prepare(&self) -> Result<Prepared> {
        let run = self.take()?;
        run.session(self).await?.prepare().await
    }

    fn take(&self) -> Result<Arc<Run>> {
        let run = self.0.run.lock().unwrap_or_else(PoisonError::into_inner).take();
        run.ok_or_else(|| {
            Error::Usage("no plan was run in this session since its last commit: nothing to commit".into())
        })
    }

    /// Takes part in a run of `partitions` partitions: the present one, or a new one if `partition` had its turn in that.
    pub(super) fn join(
        &self,
        partition: usize,
        partitions: usize,
        context: &TaskContext,
    ) -> datafusion::error::Result<Member> {
        let mut run = self.0.run.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = run.as_ref()
            && let Some(member) = Run::join(present, partition, partitions)
        {
            return Ok(member);
        }
        if let Some(before) = run.take() {
            before.supersede();
        }
        let next = Arc::new(Run::new(partitions, self.0.options.memory, context)?);
        let member = Run::join(&next, partition, partitions);
        *run = Some(next);
        member.ok_or_else(|| {
            datafusion::error::DataFusionError::Internal(format!(
                "there is no partition {partition} of {partitions}"
            ))
        })
    }

    /// The table's key, bound to rows of `schema`. Fails if these rows cannot be of the table.
    pub(super) fn bind(&self, schema: &SchemaRef) -> Result<BoundKey> {
        let key = self.0.table.ledger().identity().token.bind(schema, "the plan")?;
        self.0.table.contract(&self.kept(schema, &key)?)?;
        Ok(key)
    }

    /// The columns of `schema` that the table keeps.
    pub(super) fn kept_columns(&self, schema: &Schema, key: &BoundKey) -> Vec<usize> {
        match self.0.keep {
            Keep::Rows => (0..schema.fields().len()).collect(),
            Keep::Keys => key.roots(),
        }
    }

    fn kept(&self, schema: &Schema, key: &BoundKey) -> Result<Schema> {
        let kept = schema.project(&self.kept_columns(schema, key));
        let kept = kept.map_err(|e| Error::Internal(format!("the key columns cannot be picked out: {e}")))?;
        if self.0.keep == Keep::Keys
            && let Some(table) = &self.0.table.ledger().state().schema
            && let Some(other) =
                table.fields().iter().find(|field| kept.column_with_name(field.name()).is_none())
        {
            return Err(Error::Refused(format!(
                "the table has a column \"{}\", which is not of its key: where whole rows are kept, rows of keys alone \
                 would be incomplete. Keep the keys in a table of their own",
                other.name()
            )));
        }
        match &self.0.declared {
            Some(declared) => schema::widen(declared, &schema::normalise(&kept))
                .map_err(|reason| Error::Refused(format!("these rows cannot be of this table: {reason}"))),
            None => Ok(kept),
        }
    }

    /// Begins the session of a run, with as much memory as it was granted.
    pub(super) async fn begin(&self, schema: &Schema, key: &BoundKey, memory: u64) -> Result<Session> {
        let mut options = self.0.options.clone();
        options.memory = memory;
        self.0.table.begin(&self.kept(schema, key)?, options).await
    }
}

impl fmt::Debug for PlanSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlanSession({:?}, {:?})", self.0.table.ledger().store(), self.0.keep)
    }
}

/// The same session, not one like it.
impl PartialEq for PlanSession {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PlanSession {}

impl Hash for PlanSession {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}
