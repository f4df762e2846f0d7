//! What a table does with rows that need a decision beyond their token. Pinned in the ledger, changed by an entry.

use serde::{Deserialize, Serialize};

/// What becomes of a row whose key columns are all null: it has no identity, so no promise can be kept about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NullKey {
    /// The row is kept out, counted as rejected, and written to quarantine with the reason.
    #[default]
    Quarantine,
    /// The row is kept, without a token: such rows are never compared with each other.
    Keep,
    /// The run stops with an error that names the row; nothing is committed.
    Fail,
}

/// The rules of a table that every writer follows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Policy {
    /// What becomes of rows without a key.
    pub null_key: NullKey,
    /// The partition expressions of the data folder, outermost first: `country`, `date(ts)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partition_by: Vec<String>,
}
