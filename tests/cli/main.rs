//! The command as a script meets it: the real binary, its output, its exit codes.

#![allow(
    clippy::disallowed_methods,
    reason = "tests wait, and read the clock to wait no longer than they must"
)]

mod asking;
mod doctor;
mod errors;
mod help;
mod ingest;
mod interrupts;
mod output;
mod scene;
mod vacuum;
