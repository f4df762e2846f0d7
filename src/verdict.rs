//! What was decided for a row, and the sums of it and of what it took.

use serde::{Deserialize, Serialize};

/// What was decided for one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Verdict {
    /// First of its key: kept.
    Accepted,
    /// Its key was already accepted, in this run or an earlier one: dropped.
    Duplicate,
    /// Its source (or batch) was already consumed as a whole: dropped.
    Replayed,
    /// Its key was already accepted with another payload: kept out.
    Conflict,
    /// Older than the table's window: kept out.
    Late,
    /// Not a row of this table (malformed, no key, does not fit the schema): quarantined.
    Rejected,
}

/// How many rows met each verdict. Promise 3 of the design: `read` is the sum of all others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Accounting {
    /// Rows taken from the sources.
    pub read: u64,
    /// Rows kept.
    pub accepted: u64,
    /// Rows whose key was known.
    pub duplicate: u64,
    /// Rows of sources or batches that were consumed before.
    pub replayed: u64,
    /// Rows whose key was known with another payload.
    pub conflict: u64,
    /// Rows older than the table's window.
    pub late: u64,
    /// Rows that went to quarantine.
    pub rejected: u64,
}

impl Accounting {
    /// Counts `rows` read rows as `verdict`.
    pub fn count(&mut self, verdict: Verdict, rows: u64) {
        self.read += rows;
        *self.slot(verdict) += rows;
    }

    /// Moves `rows` accepted rows to `verdict`: what a lost race does to rows judged before it.
    pub fn revoke(&mut self, verdict: Verdict, rows: u64) {
        self.accepted -= rows;
        *self.slot(verdict) += rows;
    }

    /// Adds another accounting to this one. Wraps, since the numbers may come from a hostile manifest.
    pub fn add(&mut self, other: &Self) {
        self.read = self.read.wrapping_add(other.read);
        self.accepted = self.accepted.wrapping_add(other.accepted);
        self.duplicate = self.duplicate.wrapping_add(other.duplicate);
        self.replayed = self.replayed.wrapping_add(other.replayed);
        self.conflict = self.conflict.wrapping_add(other.conflict);
        self.late = self.late.wrapping_add(other.late);
        self.rejected = self.rejected.wrapping_add(other.rejected);
    }

    /// Whether every row read has exactly one verdict.
    pub fn is_conserved(&self) -> bool {
        [self.accepted, self.duplicate, self.replayed, self.conflict, self.late, self.rejected]
            .iter()
            .try_fold(0u64, |sum, n| sum.checked_add(*n))
            == Some(self.read)
    }

    fn slot(&mut self, verdict: Verdict) -> &mut u64 {
        match verdict {
            Verdict::Accepted => &mut self.accepted,
            Verdict::Duplicate => &mut self.duplicate,
            Verdict::Replayed => &mut self.replayed,
            Verdict::Conflict => &mut self.conflict,
            Verdict::Late => &mut self.late,
            Verdict::Rejected => &mut self.rejected,
        }
    }
}

/// What it took to find out which keys are known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Lookups {
    /// Keys that the filter of a run (the prefixes of its tokens) did not rule out. A key counts for each run.
    pub filter_hits: u64,
    /// Reads of exact tokens that these took: neighbours share one.
    pub exact_lookups: u64,
    /// How often a session's own keys outgrew their memory, and were moved to a run.
    pub spills: u64,
}

impl Lookups {
    /// These and `others`.
    #[must_use]
    pub fn plus(self, others: Self) -> Self {
        Self {
            filter_hits: self.filter_hits + others.filter_hits,
            exact_lookups: self.exact_lookups + others.exact_lookups,
            spills: self.spills + others.spills,
        }
    }

    /// What came after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            filter_hits: self.filter_hits.saturating_sub(before.filter_hits),
            exact_lookups: self.exact_lookups.saturating_sub(before.exact_lookups),
            spills: self.spills.saturating_sub(before.spills),
        }
    }
}
