//! The append-only record of everything that happened to a table.
//!
//! [`entry`] says what a ledger entry is, [`state`] what the entries up to a version add up to (pure, the only
//! judge of validity), [`name`] how staged objects are named, [`checkpoint`] how a state is written down to open
//! a table quickly, [`seal`] how JSON vouches for itself, [`log`] how entries are read from and proposed to the store (the only compare-and-swap).

pub mod checkpoint;
pub mod entry;
pub mod log;
pub mod name;
pub mod seal;
pub mod state;
pub mod table;

pub use entry::{Body, Entry};
pub use log::Ledger;
pub use state::State;
pub use table::TableIdentity;
