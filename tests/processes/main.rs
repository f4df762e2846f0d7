//! The real binary as processes of their own: killed, stopped, racing each other, on disks that fail and under power cuts.

#![cfg(unix)]

#[path = "../common/disk.rs"]
mod disk;
#[path = "../common/power.rs"]
mod power;
#[path = "../common/story.rs"]
mod story;
#[path = "../common/table.rs"]
mod table;

mod a_killed_ingest_leaves_a_whole_table;
mod failing_disk;
mod killed_at_every_step;
mod many_processes;
mod power_cut;
mod stopped_writers;
mod writers_that_race_end_with_one_row_a_key;
