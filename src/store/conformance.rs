//! What every store must do, shown on all that can be had without a network.

use super::*;

async fn keeps_its_promises(store: Store) {
    let name = "_dedupe/ledger/00000000000000000001.json";
    assert_eq!(store.get(name).await.unwrap(), None);
    assert!(matches!(store.put_once(name, "one".into()).await, Put::Landed));
    assert!(matches!(store.put_once(name, "two".into()).await, Put::Taken));
    assert_eq!(store.get(name).await.unwrap().unwrap(), "one");
    store.probe().await.unwrap();
}

#[tokio::test]
async fn a_fresh_name_lands_once_in_memory() {
    keeps_its_promises(Store::open("memory:", &[]).unwrap()).await;
}

#[tokio::test]
async fn a_fresh_name_lands_once_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    keeps_its_promises(Store::open(dir.path().join("new/table").to_str().unwrap(), &[]).unwrap()).await;
}
