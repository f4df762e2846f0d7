//! Keeping a table in good order: compacting its index, verifying it, explaining it and what ails it.
//!
//! Nothing here has a private path to storage: what changes a table is a ledger entry like any other.

pub mod compact;
pub mod doctor;
pub mod explain;
pub mod export;
pub mod history;
pub mod vacuum;
pub mod verify;
