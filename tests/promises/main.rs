//! What is promised, shown through the public API and, where it is about the command, the real binary: one file a promise.

#[path = "../common/fault.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod fault;
#[path = "../cli/scene.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod scene;
#[path = "../common/seal.rs"]
#[allow(dead_code, reason = "others use the rest of it")]
mod seal;
#[path = "../common/table.rs"]
mod table;
#[path = "../common/writer.rs"]
mod writer;

mod a_compacted_index_knows_what_it_knew;
mod a_deep_line_does_not_close_the_table;
mod a_lost_race_costs_only_the_overlap;
mod a_prepared_commit_counts_once;
mod a_schema_is_of_all_rows;
mod any_interleaving_of_sessions_is_exact;
mod doctor_explains_what_ails_a_table;
mod ledger_log;
mod many_writers_keep_their_pace;
mod survivors_are_those_of_a_plain_set;
mod what_an_ingest_promises;
