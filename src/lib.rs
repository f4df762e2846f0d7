//! Exactly-once for data lakes, at the last step: the sink.

#![forbid(unsafe_code)]
#![warn(missing_docs, unreachable_pub, missing_debug_implementations)]
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::todo, clippy::dbg_macro)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::disallowed_methods))]

pub mod cli;
pub mod clock;
pub mod error;
pub mod index;
pub mod ingest;
pub mod ledger;
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
pub mod token;
pub mod upkeep;
pub mod verdict;
pub mod workers;

pub use error::{Error, Result};
