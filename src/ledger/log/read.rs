//! Reading what a ledger is made of. What is damaged on its way comes whole the next time: it is asked for again before
//! it counts as damaged.

use bytes::Bytes;
use tracing::{debug, warn};

use super::MAX_TABLE;
use crate::error::{Error, Result};
use crate::ledger::entry::{Entry, MAX_MANIFEST};
use crate::ledger::state::State;
use crate::ledger::table::TableIdentity;
use crate::ledger::{checkpoint, name, seal};
use crate::store::Store;

/// So often an object is read whose seal does not hold, unless it is the same damage twice.
const READS: u32 = 4;

/// How many checkpoints are tried before the ledger is replayed from its beginning.
const CHECKPOINTS_TRIED: usize = 16;

/// The bytes of a sealed object of at most `most` bytes, or `None` where there is none. They are damaged only if they
/// are so in the store, or were on their way each time.
pub(crate) async fn get_sealed(store: &Store, object: &str, most: u64) -> Result<Option<Bytes>> {
    let (mut reads, mut damage) = (0, None);
    loop {
        reads += 1;
        let Some(bytes) = store.get_limited(object, most).await? else { return Ok(None) };
        let again = damage.replace(Entry::hash(&bytes)) == Some(Entry::hash(&bytes));
        if seal::holds(&bytes) || again || reads == READS {
            return Ok(Some(bytes));
        }
        debug!(object, "damaged: reading it again");
    }
}

/// The entry of `version` and its hash, if there is one of at most `most` bytes.
pub(crate) async fn read_entry(store: &Store, version: u64, most: u64) -> Result<Option<(Entry, u128)>> {
    let object = name::manifest(version);
    let Some(bytes) = get_sealed(store, &object, most).await? else {
        return Ok(None);
    };
    Ok(Some((Entry::decode(&object, &bytes)?, Entry::hash(&bytes))))
}

/// The identity of the table in `store`, if there is one.
pub(crate) async fn read_identity(store: &Store) -> Result<Option<TableIdentity>> {
    let bytes = get_sealed(store, name::TABLE, MAX_TABLE).await?;
    bytes.map(|bytes| TableIdentity::decode(name::TABLE, &bytes)).transpose()
}

/// The newest usable checkpoint up to `version`.
pub(super) async fn newest_checkpoint(
    store: &Store,
    identity: &TableIdentity,
    version: u64,
) -> Result<Option<State>> {
    let mut names: Vec<String> = match store.list(name::CHECKPOINTS).await {
        Ok(listed) => listed.into_iter().map(|object| object.name).collect(),
        Err(e) => {
            warn!("checkpoints cannot be listed, replaying the whole ledger: {e}");
            return Ok(None);
        }
    };
    names.retain(|name| checkpoint::version_of(name).is_some_and(|v| v <= version));
    names.sort_unstable_by_key(|name| std::cmp::Reverse(checkpoint::version_of(name)));
    // Where so many are of no use, the ledger is quicker read than the rest of them.
    names.truncate(CHECKPOINTS_TRIED);
    for object in names {
        let read = async {
            let bytes = store.get_limited(&object, MAX_MANIFEST).await?;
            let bytes = bytes.ok_or_else(|| Error::corrupt(&object, "it was listed and is absent"))?;
            let state = checkpoint::decode(&object, &bytes)?;
            // A checkpoint of another table, or of a history that is not this one, must not be believed.
            let at = state.version().unwrap_or_default();
            let tip = get_sealed(store, &name::manifest(at), MAX_MANIFEST).await?;
            let same =
                state.table == identity.table && tip.is_some_and(|bytes| Entry::hash(&bytes) == state.tip);
            if same { Ok(state) } else { Err(Error::corrupt(&object, "it does not belong to this ledger")) }
        };
        match read.await {
            Ok(state) => return Ok(Some(state)),
            Err(e) => warn!("checkpoint passed over: {e}"),
        }
    }
    Ok(None)
}
