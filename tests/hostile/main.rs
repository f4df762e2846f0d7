//! Bad and hostile input: files that lie, folders full of traps, tables written by a stranger, and secrets that must
//! never show. Each test says what is sent and what must come of it: rows, quarantine, or a clear error; never a
//! crash, a hang, or memory beyond what is stated.

mod bombs;
mod held;
#[allow(dead_code, reason = "others use the rest of it")]
#[path = "../../src/store/loopback.rs"]
mod loopback;
#[cfg(target_os = "linux")]
mod memory;
mod parts;
#[allow(dead_code, reason = "others use the rest of it")]
#[path = "../cli/scene.rs"]
mod scene;
#[path = "../common/seal.rs"]
mod seal;
mod secrets;
#[cfg(unix)]
mod sources;
mod stranger;
