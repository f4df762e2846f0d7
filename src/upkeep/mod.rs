//! Looking after a table: asking its history, checking it, merging its token runs.

pub mod explain;
pub mod export;
pub mod history;
