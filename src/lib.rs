//! Exactly-once for data lakes, at the last step: the sink.
//!
//! `dedupe` reads events that were delivered *at least once* (Parquet, NDJSON, record batches), drops every row whose
//! key was already accepted, by any writer, in any earlier run, and commits the rest as Parquet together with an
//! immutable record of what happened. Its memory, the set of accepted keys, lies in the same folder or bucket as the
//! data.
//!
//! It is **not** a database, a query engine or a lock service, and needs none of them: one conditional write is all
//! it asks of a store. It does not update or delete rows, does not merge versions of a record, and does not guess:
//! what it cannot read exactly it keeps out, with the reason, or refuses.
//!
//! # Example
//!
//! ```
//! use dedupe::ingest::ingest;
//! use dedupe::ledger::Ledger;
//! use dedupe::options::IngestOptions;
//! use dedupe::report::Progress;
//! use dedupe::store::Store;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let folder = tempfile::tempdir()?;
//! let at = |name: &str| folder.path().join(name).display().to_string();
//! std::fs::write(at("monday.ndjson"), "{\"id\":1,\"v\":\"a\"}\n{\"id\":2,\"v\":\"b\"}\n{\"id\":1,\"v\":\"a\"}\n")?;
//! std::fs::write(at("tuesday.ndjson"), "{\"id\":2,\"v\":\"b\"}\n{\"id\":3,\"v\":\"c\"}\n")?;
//!
//! // The first run creates the table and fixes its key.
//! let mut options = IngestOptions::default();
//! options.key = Some(vec!["id".to_owned()]);
//! let report = ingest(&[at("monday.ndjson")], &at("table"), &options, &Progress::default()).await?;
//! assert_eq!((report.rows.read, report.rows.accepted, report.rows.duplicate), (3, 2, 1));
//!
//! // Later runs drop what any run before has accepted: within a file, across files, across formats.
//! let report = ingest(&[at("tuesday.ndjson")], &at("table"), &options, &Progress::default()).await?;
//! assert_eq!((report.rows.accepted, report.rows.duplicate), (1, 1));
//!
//! // A file that was consumed before is recognised, and its rows are not even read.
//! let report = ingest(&[at("tuesday.ndjson")], &at("table"), &options, &Progress::default()).await?;
//! assert_eq!((report.rows.replayed, report.committed), (2, false));
//!
//! // The table says what it holds; readers take the list of data files from here, not from a listing.
//! let mut ledger = Ledger::open(Store::open(&at("table"), &[])?).await?.ok_or("there is no table")?;
//! assert_eq!(ledger.version(), 2);
//! ledger.read_files().await?;
//! assert_eq!(ledger.state().files()?.values().map(|file| file.item.rows).sum::<u64>(), 3);
//! # Ok(())
//! # }
//! ```
//!
//! A program that has its rows in memory begins with a [`table::Table`] instead: a loop over record batches, or a sink in
//! two phases. `examples/` has a program for each way of embedding.
//!
//! # The rooms
//!
//! Data flows down the page, and code uses what stands below it. (One exception: `sink` copies row groups that
//! `source::parquet` has opened.)
//!
//! ```text
//!  5 doors      cli      operator                                the command · DataFusion (feature `datafusion`)
//!  4 stories    ingest   table → session  upkeep                 one run · one writer's life · compact, vacuum, verify
//!  3 I/O        source   sink   ledger::log   runs   lease       rows in · rows out · versions · index · who is at work
//!  2 pure       index      schema   ledger::{entry, state}       no I/O, no clock, no randomness
//!  1 ground     token      store    workers                      identity · bytes under names · how much runs at a time
//!  0 words      error  verdict  options  policy  report  clock  random
//! ```
//!
//! The words, the formats byte by byte, the commit protocol with its argument, and the choices with their reasons are
//! in the folder `docs/` of the repository.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub, missing_debug_implementations)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::dbg_macro)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods))]
#![cfg_attr(test, allow(clippy::single_range_in_vec_init))]

pub mod cli;
pub mod clock;
pub mod error;
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
pub mod index;
pub mod ingest;
pub mod lease;
pub mod ledger;
#[cfg(feature = "datafusion")]
pub mod operator;
pub mod options;
pub mod policy;
pub mod random;
pub mod report;
mod runs;
pub mod schema;
pub mod session;
pub mod sink;
pub mod source;
pub mod store;
pub mod table;
pub mod token;
pub mod upkeep;
pub mod verdict;
pub mod workers;

pub use error::{Error, Result};
