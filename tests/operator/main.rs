//! Deduplication inside DataFusion: what comes out of a plan, and what a table holds afterwards, is what a plain `HashSet`
//! says that sees the rows.

mod command;
mod insert;
mod memory;
mod plan;
mod runs;
mod scene;
mod slt;
