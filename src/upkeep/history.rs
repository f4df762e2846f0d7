//! The entries of a table one by one, each with the verdict that [`State::apply`] gave it.

use std::ops::Range;

use crate::error::{Error, Result};
use crate::ledger::entry::Entry;
use crate::ledger::state::{Applied, State};
use crate::ledger::{Ledger, name};

/// Gives `each` the entries of `versions` in order, and returns the state after the last. Versions that do not exist
/// are an error.
pub async fn history(
    ledger: &Ledger,
    versions: Range<u64>,
    mut each: impl FnMut(Entry, Applied),
) -> Result<State> {
    let mut at = match versions.start.checked_sub(1) {
        None => ledger.before_the_first(),
        Some(before) => match Ledger::folded_at(ledger.store().clone(), before).await? {
            Some(ledger) => ledger,
            None => return Err(Error::corrupt(name::TABLE, "it was there a moment ago and is absent")),
        },
    };
    at.advance(versions.end, |_, entry, applied| each(entry, applied)).await?;
    let reached = at.state().entries;
    if reached < versions.end {
        return Err(Error::corrupt(name::manifest(reached), "it is absent"));
    }
    Ok(at.state().clone())
}
