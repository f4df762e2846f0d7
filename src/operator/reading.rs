//! How DataFusion gets at a table's files: by a name of its own for the table's store.

use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::FutureExt;
use xxhash_rust::xxh3::xxh3_64;

use super::failure::external;
use crate::error::Error;
use crate::ledger::Ledger;
use crate::store::Store;

/// Makes `runtime` know the objects of the table, for plans that read it at the version of `ledger`, and gives the name
/// of that store. Objects are at their names within the table.
pub(super) fn register(ledger: &Ledger, runtime: &RuntimeEnv) -> Result<ObjectStoreUrl> {
    let url = url_of(ledger)?;
    let (store, version) = (ledger.store().clone(), ledger.version());
    let absent = move |name| absent(store.clone(), version, name).boxed();
    let reading = ledger.store().reading(Box::new(absent)).map_err(external)?;
    runtime.register_object_store(url.as_ref(), reading);
    Ok(url)
}

/// The same for the same table at the same place, in every process: a copy of a table elsewhere has its identity too.
fn url_of(ledger: &Ledger) -> Result<ObjectStoreUrl> {
    let place = xxh3_64(ledger.store().url().as_bytes());
    ObjectStoreUrl::parse(format!("dedupe://{}-{place:016x}", ledger.identity().table))
}

/// What to tell of an object that a plan of `version` (or of an older one) names, and that is not there: that a vacuum
/// deleted it, if it may have done so, and else that it is lost.
async fn absent(store: Store, version: u64, name: String) -> Error {
    match Ledger::open(store).await {
        Ok(Some(now)) if now.state().oldest > 0 && !now.state().files.contains_key(&name) => {
            let oldest = now.state().oldest;
            Error::SnapshotExpired { version: version.min(oldest - 1), oldest }
        }
        _ => Error::corrupt(name, "it is absent"),
    }
}
