//! What only the crate sees of a ledger: reading ahead after a lost race, and folding anew.

use super::http_faults::{commit, created, proposer};
use super::*;
use object_store::memory::InMemory;
use std::sync::Arc;

fn in_memory() -> Store {
    Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:")
}

/// Proposes entries with these sources, one after the other.
async fn commit_all(ledger: &mut Ledger, sources: impl IntoIterator<Item = u128>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for source in sources {
        let entry = commit(ledger, 1, source);
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
        entries.push(entry);
    }
    entries
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_learns_of_all_that_stand_behind_the_winner() {
    for rivals in 1..8 {
        let store = in_memory();
        let mut first = created(&store).await;
        let mut second = first.clone();
        let mut theirs = commit_all(&mut first, 0..rivals).await;
        let ours = commit(&second, 2, 99);
        let (proposal, news) = second.propose_ahead(&ours, 3).await.unwrap();
        let Proposal::Lost(Some(winner)) = proposal else { panic!("{proposal:?}") };
        assert_eq!(*winner, theirs.remove(0));
        assert_eq!((news, second.state()), (theirs, first.state()));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_void_behind_the_winner_is_applied_and_not_told() {
    let store = in_memory();
    let mut first = created(&store).await;
    let mut second = first.clone();
    let winner = commit_all(&mut first, [0]).await;
    let mut zombie = first.entry(&proposer(9), Body::Fence { floor: 0, oldest: 0 }).unwrap();
    zombie.prev ^= 1;
    let bytes = Bytes::from(zombie.encode().unwrap());
    assert!(matches!(store.put_once(&name::manifest(2), bytes).await, Put::Landed));
    assert_eq!(first.refresh().await.unwrap(), []);
    let last = commit_all(&mut first, [1]).await;
    let ours = commit(&second, 2, 99);
    let (proposal, news) = second.propose_ahead(&ours, 3).await.unwrap();
    assert!(matches!(proposal, Proposal::Lost(Some(entry)) if *entry == winner[0]));
    assert_eq!((news, second.state()), (last, first.state()));
}

#[tokio::test(start_paused = true)]
async fn entries_are_shown_up_to_an_end_each_with_the_state_behind_it() {
    let store = in_memory();
    let mut ledger = created(&store).await;
    commit_all(&mut ledger, 0..10).await;
    for end in [0, 1, 2, 5, 6, 11, 12] {
        let mut anew = ledger.before_the_first();
        let mut seen = Vec::new();
        let each = |state: &State, entry: Entry, applied| {
            assert_eq!(applied, Applied::Valid);
            assert_eq!(state.version(), Some(entry.version));
            seen.push(entry.version);
        };
        anew.advance(end, each).await.unwrap();
        assert_eq!(seen, (0..end.min(11)).collect::<Vec<_>>());
        assert_eq!(anew.state.entries, end.min(11));
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_manifest_is_read_alone_wherever_it_stands() {
    let store = in_memory();
    let mut ledger = created(&store).await;
    for source in 0..8 {
        let mut entry = commit(&ledger, 1, source);
        if let (Body::Ingest(ingest), true) = (&mut entry.body, source % 3 == 1) {
            ingest.sources[0].url = "x".repeat(MAX_AHEAD as usize + 1);
        }
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    }
    let anew = Ledger::open(store).await.unwrap().unwrap();
    assert_eq!(anew.state(), ledger.state());
}

#[tokio::test(start_paused = true)]
async fn a_replay_does_without_checkpoints_and_misses_what_is_lost() {
    let store = in_memory();
    let mut ledger = created(&store).await;
    commit_all(&mut ledger, 1..40).await;
    let state = ledger.state().clone();
    let mut seen = 0;
    ledger.replay(|_, _, _| seen += 1).await.unwrap();
    assert_eq!((seen, ledger.state()), (40, &state));
    // A checkpoint hides the loss from whoever opens the table.
    store.delete(&name::manifest(20)).await.unwrap();
    let mut ledger = Ledger::open(store).await.unwrap().unwrap();
    let state = ledger.state().clone();
    let error = ledger.replay(|_, _, _| ()).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { object, .. } if *object == name::manifest(20)), "{error}");
    assert!(error.to_string().contains("version 39 was there"), "{error}");
    assert_eq!(ledger.state(), &state, "it stays as it was");
}

#[tokio::test]
async fn what_is_new_is_synced_before_anybody_goes_by_it() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Store::open(folder.path().to_str().unwrap(), &[]).unwrap();
    let mut writer = created(&open()).await;
    let mine = open();
    let mut reader = Ledger::open(mine.clone()).await.unwrap().unwrap();
    mine.break_folder_syncs(true);
    assert_eq!(reader.refresh().await.unwrap(), [], "without news there is nothing to sync");
    commit_all(&mut writer, [7]).await;
    let error = reader.refresh().await.unwrap_err().to_string();
    assert!(error.contains("planted failure of fsync"), "{error}");
    assert!(mine.is_poisoned());
}

#[tokio::test]
async fn what_a_disk_refuses_plainly_has_failed_and_is_not_unknown() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path().to_str().unwrap(), &[]).unwrap();
    let mut ledger = created(&store).await;
    let place = folder.path().join(name::LEDGER);
    std::fs::rename(&place, folder.path().join("aside")).unwrap();
    std::fs::write(&place, "no folder").unwrap();
    let entry = commit(&ledger, 1, 7);
    let error = ledger.propose(&entry).await.unwrap_err();
    assert!(matches!(&error, Error::Store { action: "write", .. }), "{error:?}");
    assert_eq!(ledger.version(), 0);
}

#[test]
fn a_writer_is_known_by_its_host_and_process() {
    let (one, other) = (Proposer::new().unwrap(), Proposer::new().unwrap());
    assert_ne!(one.session, other.session);
    assert!(one.session.len() == 32 && one.session.bytes().all(|b| b.is_ascii_hexdigit()));
    let (host, process) = one.writer.rsplit_once(':').unwrap();
    assert_eq!(process, std::process::id().to_string());
    assert!(!host.is_empty() && host == host.trim());
    if let Ok(name) = std::fs::read_to_string("/proc/sys/kernel/hostname") {
        assert_eq!(host, name.trim());
    }
}
