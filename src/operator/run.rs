//! One run of a plan: all its partitions judge their rows in one session.
//!
//! The partitions make tokens, look them up in what the table knows, filter and encode side by side; the session itself,
//! which remembers what is new, is held by one of them at a time, which waits for nothing but the table's store and the
//! workers while it holds it, so that no partition can keep another from going on. Rows of one partition are judged in
//! their order; which of two partitions is first with a key is decided by who comes first.

use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::compute::filter_record_batch;
use arrow_schema::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryLimit, MemoryReservation};
use tokio::sync::Semaphore;

use super::PlanSession;
use super::failure::external;
use crate::error::Error;
use crate::index::SortedBatch;
use crate::options::MIN_MEMORY;
use crate::session::{Rows, Session, Sieve, Sifted, sorted};
use crate::store::compute;
use crate::token::BoundKey;
use crate::verdict::Lookups;

/// Of a pool that has a limit, a session takes no more than this part: what else the plan does needs memory too.
const SHARE: usize = 4;

/// Of what a run reserved, batches that are gathered take up to this part; the rest is the session's.
const GATHERED: usize = 8;

/// What of the table's index may be on its way at a time for one batch that is looked up, in bytes.
const LOOK_UP: u64 = 64 << 20;

/// One run of a plan.
pub(super) struct Run {
    /// `None` before the first rows, and once it is taken out to be committed.
    session: tokio::sync::Mutex<Option<Session>>,
    progress: Mutex<Progress>,
    memory: MemoryReservation,
    /// How many partitions may look keys up at a time.
    sifting: Semaphore,
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

/// What became of some batches.
pub(super) struct Judged {
    /// The rows that are the first of their key, in their order; no batch of them is empty.
    pub(super) accepted: Vec<RecordBatch>,
    pub(super) duplicate: u64,
    pub(super) rejected: u64,
    /// What finding that out took.
    pub(super) lookups: Lookups,
    /// How many rows are best judged together from here on.
    pub(super) best: u64,
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
        let at_a_time = (session_memory(&reservation) / LOOK_UP).clamp(1, partitions.max(1) as u64);
        Ok(Self {
            session: Default::default(),
            progress: Mutex::new(progress),
            memory: reservation,
            sifting: Semaphore::new(at_a_time as usize),
        })
    }

    /// Takes part as `partition`; `None` if that had its turn, or the run is another one.
    pub(super) fn join(run: &Arc<Self>, partition: usize, partitions: usize) -> Option<Member> {
        let mut progress = run.progress();
        let same = progress.state.len() == partitions;
        let state = progress.state.get_mut(partition).filter(|state| same && **state == State::Waiting)?;
        *state = State::Running;
        Some(Member { run: Arc::clone(run), partition, sieve: None })
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
            (None, Some((schema, key))) => of.begin(&schema, &key, session_memory(&self.memory)).await,
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
    /// What the table knows, once the run's session has begun.
    sieve: Option<Sieve>,
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

    /// Bytes of batches that this partition may gather before it has them judged.
    pub(super) fn gather_limit(&self) -> usize {
        self.run.memory.size() / GATHERED / self.run.progress().state.len().max(1)
    }

    /// Judges batches, and stages what is accepted.
    pub(super) async fn take(
        &mut self,
        of: &PlanSession,
        bound: &BoundKey,
        columns: &[usize],
        batches: Vec<RecordBatch>,
    ) -> Result<Judged> {
        let sieve = match &self.sieve {
            Some(sieve) => sieve.clone(),
            None => self.sieve.insert(self.start(of, bound, &batches).await?).clone(),
        };
        // On a thread of its own: on those of the runtime partitions were seen to take turns, as they do for the session.
        let key = bound.clone();
        let (batches, tokens, sorted) = compute(move || {
            let tokens =
                batches.iter().map(|batch| key.tokenise(batch)).collect::<crate::Result<Vec<_>>>()?;
            let sorted = sorted(tokens.iter())?;
            Ok((batches, tokens, sorted))
        })
        .await
        .map_err(external)?;
        let both: Vec<_> = batches.iter().zip(&tokens).collect();
        let source = self.partition as u32;
        let (sifted, sifting) = self.sift(&sieve, sorted).await?;
        let (all, mut judged) = {
            let mut held = self.run.session.lock().await;
            self.check()?;
            let session = held.as_mut().ok_or_else(superseded)?;
            let before = session.own_lookups();
            let all = session.judge_batches(source, &both, sifted).await.map_err(external)?;
            let lookups = session.own_lookups().since(before).plus(sifting);
            let best = sieve.best_batch();
            (all, Judged { accepted: Vec::new(), duplicate: 0, rejected: 0, lookups, best })
        };
        let mut staged = Vec::new();
        for (batch, verdicts) in batches.into_iter().zip(all) {
            judged.duplicate += verdicts.duplicate;
            judged.rejected += verdicts.no_key.len() as u64;
            if verdicts.accepted == 0 {
                continue;
            }
            let accepted = match verdicts.all_accepted() {
                true => batch,
                false => filter_record_batch(&batch, &verdicts.keep.clone().into())?,
            };
            staged.push(Rows::of_batch(source, accepted.project(columns)?, verdicts.of_accepted()));
            judged.accepted.push(accepted);
        }
        if staged.is_empty() {
            return Ok(judged);
        }
        let mut held = self.run.session.lock().await;
        self.check()?;
        let session = held.as_mut().ok_or_else(superseded)?;
        for rows in staged {
            session.write(rows).await.map_err(external)?;
        }
        Ok(judged)
    }

    /// Takes out of a batch what the table knows.
    async fn sift(&self, sieve: &Sieve, sorted: SortedBatch) -> Result<(Sifted, Lookups)> {
        let turn = self.run.sifting.acquire().await;
        let _turn = turn.map_err(|_| external(Error::Interrupted))?;
        match sieve.sift(sorted).await {
            Ok(sifted) => Ok(sifted),
            Err(error) => Err(external(match self.run.session.lock().await.as_mut() {
                Some(session) => session.reason(error).await,
                None => error,
            })),
        }
    }

    /// Begins the run's session, if no other partition did. Each partition is a source of its own in the manifest.
    async fn start(&self, of: &PlanSession, key: &BoundKey, batches: &[RecordBatch]) -> Result<Sieve> {
        let mut held = self.run.session.lock().await;
        self.check()?;
        if let Some(session) = held.as_ref() {
            return Ok(session.sieve());
        }
        let begun = self.begun(of, key, batches).await.map_err(external)?;
        Ok(held.insert(begun).sieve())
    }

    async fn begun(
        &self,
        of: &PlanSession,
        key: &BoundKey,
        batches: &[RecordBatch],
    ) -> crate::Result<Session> {
        let Some(batch) = batches.first() else {
            return Err(Error::Internal("nothing is to be judged".into()));
        };
        let mut session = of.begin(batch.schema_ref(), key, session_memory(&self.run.memory)).await?;
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

/// What of the memory that was reserved is the session's: never less than it needs.
fn session_memory(reserved: &MemoryReservation) -> u64 {
    let reserved = reserved.size();
    ((reserved - reserved / GATHERED) as u64).max(MIN_MEMORY)
}

fn superseded() -> DataFusionError {
    DataFusionError::Execution(
        "the plan was run again, or its session was committed, while it ran: one session is one run of one plan at a time"
            .into(),
    )
}
