//! Where rows come from: finding the inputs, opening them, and reading Parquet and NDJSON without traps.

pub mod ahead;
mod buffers;
pub mod discover;
#[cfg(test)]
mod discover_tests;
pub mod input;
pub mod ndjson;
pub mod parquet;
mod pattern;
mod unpack;
