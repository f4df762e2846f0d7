//! One run of a plan: all its partitions judge their rows in one session.
//!
//! The partitions make tokens, filter and encode side by side; the session itself is held by one of them at a time, which
//! waits for nothing but the table's store and the workers while it holds it, so that no partition can keep another from
//! going on. Rows of one partition are judged in their order; which of two partitions is first with a key is decided by
//! who comes first.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow_schema::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};

use super::PlanSession;
use super::failure::external;
use crate::error::Error;
use crate::options::MIN_MEMORY;
use crate::session::{Rows, Session};
use crate::token::BoundKey;
use crate::verdict::Lookups;

/// Of a pool that has a limit, a session takes no more than this part: what else the plan does needs memory too.
const SHARE: usize = 4;

/// One run of a plan.
pub(super) struct Run {
    /// `None` before the first rows, and once it is taken out to be committed.
    session: tokio::sync::Mutex<Option<Session>>,
    progress: Mutex<Progress>,
    memory: MemoryReservation,
}

/// How far the partitions are.
struct Progress {
    state: Vec<State>,
    superseded: bool,
    /// What the rows look like, once any partition has begun.
    rows: Option<(SchemaRef, BoundKey)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running,
    Ended,
    /// It failed, or its consumer did not want all of it.
    BrokenOff,
}

/// What became of a batch.
pub(super) struct Judged {
    /// The rows that are the first of their key, in their order.
    pub(super) accepted: RecordBatch,
    pub(super) duplicate: u64,
    pub(super) rejected: u64,
    /// What finding that out took.
    pub(super) lookups: Lookups,
}

impl Run {
    /// A run of so many partitions, with up to `memory` bytes, as far as the pool has them.
    pub(super) fn new(partitions: usize, memory: u64, context: &TaskContext) -> Result<Self> {
        let pool = context.memory_pool();
        let reservation = MemoryConsumer::new("dedupe session").register(pool);
        let least = MIN_MEMORY as usize;
        let most = match pool.memory_limit() {
            MemoryLimit::Finite(limit) => limit / SHARE,
            _ => usize::MAX,
        };
        let mut bytes = usize::try_from(memory).unwrap_or(usize::MAX).min(most).max(least);
        // Once and for all: the session keeps within what it got, and never waits for more.
        while let Err(exhausted) = reservation.try_grow(bytes) {
            if bytes == least {
                return Err(exhausted);
            }
            bytes = (bytes / 2).max(least);
        }
        let progress = Progress { state: vec![State::Waiting; partitions], superseded: false, rows: None };
        Ok(Self { session: Default::default(), progress: Mutex::new(progress), memory: reservation })
    }

    /// Takes part as `partition`; `None` if that had its turn, or the run is another one.
    pub(super) fn join(run: &Arc<Self>, partition: usize, partitions: usize) -> Option<Member> {
        let mut progress = run.progress();
        let same = progress.state.len() == partitions;
        let state = progress.state.get_mut(partition).filter(|state| same && **state == State::Waiting)?;
        *state = State::Running;
        Some(Member { run: Arc::clone(run), partition })
    }

    /// Another run begins: this one is not to be gone on with.
    pub(super) fn supersede(&self) {
        self.progress().superseded = true;
    }

    /// The session, to be committed.
    pub(super) async fn session(&self, of: &PlanSession) -> crate::Result<Session> {
        let (ended, all, rows) = {
            let progress = self.progress();
            let ended = progress.state.iter().filter(|state| **state == State::Ended).count();
            (ended, progress.state.len(), progress.rows.clone())
        };
        if ended < all {
            return Err(Error::Usage(format!(
                "the plan did not run to its end ({ended} of {all} partitions did), and rows that nobody took must not \
                 count as seen: nothing was committed. Run it again, without a limit above the deduplication"
            )));
        }
        match (self.session.lock().await.take(), rows) {
            (Some(session), _) => Ok(session),
            (None, Some((schema, key))) => of.begin(&schema, &key, self.memory.size() as u64).await,
            (None, None) => Err(Error::Internal("a run has ended that never began".into())),
        }
    }

    fn progress(&self) -> std::sync::MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A partition's part in a run. Dropped before its [end](Member::end), it makes the run one that cannot be committed.
pub(super) struct Member {
    run: Arc<Run>,
    partition: usize,
}

impl Member {
    /// Says what the rows look like.
    pub(super) fn begin(&self, schema: &SchemaRef, key: &BoundKey) {
        self.run.progress().rows = Some((Arc::clone(schema), key.clone()));
    }

    /// All rows were taken.
    pub(super) fn end(&self) {
        if let Some(state) = self.run.progress().state.get_mut(self.partition) {
            *state = State::Ended;
        }
    }

    /// Judges a batch, and stages what is accepted.
    pub(super) async fn take(
        &self,
        of: &PlanSession,
        key: &BoundKey,
        columns: &[usize],
        batch: RecordBatch,
    ) -> Result<Judged> {
        let tokens = key.tokenise(&batch).map_err(external)?;
        let source = self.partition as u32;
        let (verdicts, lookups) = {
            let mut held = self.run.session.lock().await;
            self.check()?;
            let session = match held.as_mut() {
                Some(session) => session,
                None => held.insert(self.start(of, key, &batch).await.map_err(external)?),
            };
            let before = session.lookups();
            let verdicts = session.judge_tokenised(source, &batch, &tokens).await.map_err(external)?;
            (verdicts, session.lookups().since(before))
        };
        let (duplicate, rejected) = (verdicts.duplicate, verdicts.no_key.len() as u64);
        if verdicts.accepted == 0 {
            return Ok(Judged { accepted: batch.slice(0, 0), duplicate, rejected, lookups });
        }
        let accepted = match verdicts.all_accepted() {
            true => batch,
            false => filter_record_batch(&batch, &verdicts.keep.clone().into())?,
        };
        let kept = accepted.project(columns)?;
        let mut held = self.run.session.lock().await;
        self.check()?;
        let session = held.as_mut().ok_or_else(superseded)?;
        session.write(Rows::of_batch(source, kept, verdicts.of_accepted())).await.map_err(external)?;
        Ok(Judged { accepted, duplicate, rejected, lookups })
    }

    /// Begins the run's session. Each partition is a source of its own in the manifest.
    async fn start(&self, of: &PlanSession, key: &BoundKey, batch: &RecordBatch) -> crate::Result<Session> {
        let mut session = of.begin(batch.schema_ref(), key, self.run.memory.size() as u64).await?;
        let partitions = self.run.progress().state.len();
        for partition in 0..partitions {
            session.source(&format!("partition {partition} of {partitions} of a plan"))?;
        }
        Ok(session)
    }

    fn check(&self) -> Result<()> {
        if self.run.progress().superseded { Err(superseded()) } else { Ok(()) }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if let Some(state) = self.run.progress().state.get_mut(self.partition)
            && *state == State::Running
        {
            *state = State::BrokenOff;
        }
    }
}

fn superseded() -> DataFusionError {
    DataFusionError::Execution(
        "the plan was run again, or its session was committed, while it ran: one session is one run of one plan at a time"
            .into(),
    )
}
