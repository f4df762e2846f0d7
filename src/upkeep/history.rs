//! The entries of a table one by one, each with the verdict that [`State::apply`] gave it.

use std::ops::Range;

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::ledger::entry::{Entry, MAX_MANIFEST};
use crate::ledger::state::{Applied, State};
use crate::ledger::{Ledger, name};

/// How many manifests are fetched at a time.
const FETCH_AHEAD: usize = 16;

/// Gives `each` the entries of `versions` in order, and returns the state after the last. Versions that do not exist
/// are an error.
pub async fn history(
    ledger: &Ledger,
    versions: Range<u64>,
    mut each: impl FnMut(Entry, Applied),
) -> Result<State> {
    let store = ledger.store();
    let mut state = match versions.start.checked_sub(1) {
        None => State::default(),
        Some(before) => match Ledger::folded_at(store.clone(), before).await? {
            Some(ledger) => ledger.state().clone(),
            None => return Err(Error::corrupt(name::TABLE, "it was there a moment ago and is absent")),
        },
    };
    let mut fetched = stream::iter(versions)
        .map(|version| async move {
            let object = name::manifest(version);
            let bytes = store.get_limited(&object, MAX_MANIFEST).await?;
            let bytes = bytes.ok_or_else(|| Error::corrupt(&object, "it is absent"))?;
            Ok::<_, Error>((Entry::decode(&object, &bytes)?, Entry::hash(&bytes)))
        })
        .buffered(FETCH_AHEAD);
    while let Some((entry, hash)) = fetched.try_next().await? {
        let applied = state.apply(&entry, hash);
        each(entry, applied);
    }
    Ok(state)
}
