//! Deduplication on many machines: one job, many tasks, one commit. The third door to the same
//! [`session`](crate::session), for engines that run a plan of DataFusion's on a cluster.
//!
//! ```text
//!  map tasks      rows in ──► token of each ──► shuffled by the range of the token space that it lies in
//!  reduce tasks   judge their ranges against the version the driver pinned ──► stage files and runs ──► say what they staged
//!  driver         one ledger entry for all of it
//! ```
//!
//! - **Exact.** All rows of a key meet in one task, whatever types the key has in the sources: what is shuffled is the token.
//! - **Tasks may fail, be run again, or twice.** Whatever they stage has a name that was never used, and only what the driver
//!   names becomes part of the table. The rest is garbage for [`vacuum`](crate::upkeep::vacuum).
//! - **The driver believes no engine.** It commits only if the ranges that tasks judged are disjoint, as many rows were judged of
//!   each source as were read, every part of every source was read to its end, and every staged object is there.
//! - **First wins**, between this job and everybody else as for any session. Within the job rows of one key are judged in the
//!   order in which the shuffle hands them over, which is that of the sources only within one part of one of them.
//!
//! [`Job`] is the driver; it has an engine run what [`Job::stage`] or [`Job::plan`] gives, whose nodes travel by
//! [`DedupeCodec`]. `docs/distributed.md` tells how to run it.

mod assignment;
#[cfg(feature = "ballista")]
pub mod ballista;
mod codec;
#[cfg(feature = "distributed")]
pub mod distributed;
mod failure;
#[cfg_attr(not(feature = "ballista"), expect(dead_code, reason = "it takes an engine that reads sources"))]
mod ingest;
mod job;
mod logical;
mod marked;
mod ranges;
mod read;
mod reading;
mod stage;
mod tokenise;

pub use codec::DedupeCodec;
pub use failure::cause;
pub use job::Job;
pub use logical::{StageNode, StagePlanner};
pub use read::ReadExec;
pub use stage::StageExec;
pub use tokenise::TokeniseExec;
