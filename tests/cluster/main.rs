//! Deduplication on a cluster: however an engine runs a job, what the table holds afterwards is what a plain `HashSet` says that
//! sees the rows, or nothing of it.

mod ballista;
mod distributed;
mod killed;
mod plain;
#[path = "../operator/scene.rs"]
#[expect(dead_code, reason = "the operator's tests need more of it")]
mod scene;
mod story;
mod stub;
