//! Deduplication inside DataFusion: what comes out of a plan, and what a table holds afterwards, is what a plain `HashSet`
//! says that sees the rows.

mod command;
mod expired;
mod ingest_sql;
mod insert;
#[allow(dead_code, reason = "others use the rest of it")]
#[path = "../../src/store/loopback.rs"]
mod loopback;
mod memory;
mod partitions;
mod plan;
mod runs;
mod scene;
mod secrets;
mod slt;
