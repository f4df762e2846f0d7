//! The ledger over a store that loses answers: what is said of a commit is what became of it, in every case of the
//! table in `docs/protocol.md`.

use crate::fault::{Call, Fault, FaultStore, Rates};
use crate::seal::resealed;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use dedupe::Error;
use dedupe::ledger::entry::{Ingest, SourceUse};
use dedupe::ledger::log::{Patience, Proposal, Proposer};
use dedupe::ledger::state::Void;
use dedupe::ledger::{Body, Entry, Ledger, TableIdentity, checkpoint, name};
use dedupe::policy::Policy;
use dedupe::store::{Put, Store};
use dedupe::token::{TokenHash, TokenKey, TokenSpec};
use object_store::memory::InMemory;
use std::sync::Arc;

fn store(faulty: &Arc<FaultStore>) -> Store {
    Store::from_object_store(Arc::clone(faulty) as _, "table", "memory:")
}

fn healthy() -> (Arc<FaultStore>, Store) {
    let faulty = FaultStore::new(Arc::new(InMemory::new()));
    let store = store(&faulty);
    (faulty, store)
}

fn identity() -> TableIdentity {
    let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
    let key = TokenKey::random().unwrap();
    TableIdentity::new(TokenSpec::new(&["id".into()], &schema, TokenHash::SipHash24, key).unwrap()).unwrap()
}

fn proposer(who: u8) -> Proposer {
    Proposer { session: format!("{who:032x}"), writer: format!("writer {who}") }
}

async fn created(store: &Store) -> Ledger {
    Ledger::create(store.clone(), identity(), Policy::default(), &proposer(0)).await.unwrap()
}

async fn open(store: &Store) -> Ledger {
    Ledger::open(store.clone()).await.unwrap().unwrap()
}

/// An entry that shows in the state: one source, without rows.
fn commit(ledger: &Ledger, who: u8, source: u128) -> Entry {
    let sources = vec![SourceUse { id: Some(source), ..Default::default() }];
    let body = Ingest {
        policy: ledger.state().policy_version,
        sources,
        total: ledger.state().total,
        ..Default::default()
    };
    ledger.entry(&proposer(who), Body::Ingest(Box::new(body))).unwrap()
}

/// Writes an entry past all checks, as a faulty program would.
async fn force(store: &Store, version: u64, entry: &Entry) {
    let bytes = Bytes::from(entry.encode().unwrap());
    assert!(matches!(store.put_once(&name::manifest(version), bytes).await, Put::Landed));
}

/// What a ledger opened anew says must be what this one says.
async fn agrees(ledger: &Ledger) {
    let mut anew = open(ledger.store()).await;
    anew.read_all().await.unwrap();
    assert_eq!(anew.state(), ledger.state());
}

/// Proposes an entry for version 1 while `faults` befall its puts. It must be committed, by so many puts.
async fn survives(faults: &[Fault], puts: usize) {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    let object = name::manifest(1);
    faults.iter().for_each(|fault| faulty.next(Call::Put, &object, *fault));
    let entry = commit(&ledger, 1, 7);
    let proposal = ledger.propose(&entry).await.unwrap();
    assert!(matches!(proposal, Proposal::Committed), "{faults:?}: {proposal:?}");
    assert_eq!(faulty.count(Call::Put, &object), puts, "{faults:?}");
    assert_eq!(ledger.version(), 1);
    assert_eq!(ledger.read(1).await.unwrap(), Some(entry));
    faulty.land_late().await;
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn a_commit_survives_every_answer_that_a_store_can_give() {
    use Fault::*;
    survives(&[], 1).await;
    survives(&[AckLost], 1).await;
    survives(&[OwnExists], 1).await;
    survives(&[NotDone], 2).await;
    survives(&[FakeExists], 2).await;
    survives(&[NotDone, FakeExists, NotDone, AckLost], 4).await;
    // Lands after its own repetition, or just before it.
    survives(&[Late], 2).await;
    survives(&[Late, AfterLate], 2).await;
    survives(&[Late, Late, AfterLate], 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_back_that_fails_for_a_while_is_asked_again() {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    faulty.next(Call::Put, &name::manifest(1), Fault::AckLost);
    faulty.times(20, Call::Get, &name::manifest(1), Fault::NotDone);
    let entry = commit(&ledger, 1, 7);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_back_is_unknown_and_running_again_is_safe() {
    for landed in [true, false] {
        let (faulty, store) = healthy();
        let mut ledger = created(&store).await;
        faulty.always(Call::Put, &name::manifest(1), if landed { Fault::AckLost } else { Fault::NotDone });
        faulty.always(Call::Get, &name::manifest(1), Fault::NotDone);
        let entry = commit(&ledger, 1, 7);
        let begun = tokio::time::Instant::now();
        let error = ledger.propose(&entry).await.unwrap_err();
        let Error::Unknown { version: 1, reason } = &error else { panic!("{error:?}") };
        assert!((120..125).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        assert!(reason.contains("planted"), "{reason}");
        assert_eq!(ledger.state().entries, 1, "an unknown outcome is not applied");

        faulty.heal();
        let mut again = open(&store).await;
        assert_eq!(again.state().source(7).unwrap().is_some(), landed);
        let second = commit(&again, 2, 7);
        let proposal = again.propose(&second).await.unwrap();
        if landed {
            assert!(matches!(proposal, Proposal::Void(Void::SourceCommitted(_))), "{proposal:?}");
        } else {
            assert!(matches!(proposal, Proposal::Committed), "{proposal:?}");
        }
        // The handle that did not know comes to know.
        assert_eq!(ledger.refresh().await.unwrap().len(), 1);
        assert_eq!(ledger.state(), again.state());
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_takes_it_leaves_the_outcome_unknown_not_failed() {
    for fault in [Fault::NotDone, Fault::FakeExists] {
        let (faulty, store) = healthy();
        let mut ledger = created(&store).await;
        ledger.set_patience(Patience { attempts: 5, ..Patience::default() });
        faulty.always(Call::Put, &name::manifest(1), fault);
        let entry = commit(&ledger, 1, 7);
        let error = ledger.propose(&entry).await.unwrap_err();
        assert!(matches!(&error, Error::Unknown { version: 1, reason } if !reason.is_empty()), "{error:?}");
        assert_eq!(faulty.count(Call::Put, &name::manifest(1)), 5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_put_of_a_writer_that_died_may_land_in_front_of_the_next_one() {
    let (faulty, store) = healthy();
    let mut dead = created(&store).await;
    dead.set_patience(Patience { attempts: 1, ..Patience::default() });
    faulty.next(Call::Put, &name::manifest(1), Fault::Late);
    let old = commit(&dead, 1, 7);
    assert!(matches!(dead.propose(&old).await, Err(Error::Unknown { version: 1, .. })));
    drop(dead);

    let mut alive = open(&store).await;
    faulty.next(Call::Put, &name::manifest(1), Fault::AfterLate);
    let new = commit(&alive, 2, 7);
    let Proposal::Lost(Some(rival)) = alive.propose(&new).await.unwrap() else { panic!("it was not there") };
    assert_eq!(*rival, old);
    let again = commit(&alive, 2, 7);
    assert!(matches!(alive.propose(&again).await.unwrap(), Proposal::Void(Void::SourceCommitted(_))));
    agrees(&alive).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_proposal_is_a_late_one() {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    faulty.next(Call::Put, &name::manifest(1), Fault::Late);
    faulty.always(Call::Get, &name::manifest(1), Fault::Slow(60_000));
    let entry = commit(&ledger, 1, 7);
    let cancelled = tokio::time::timeout(std::time::Duration::from_secs(1), ledger.propose(&entry)).await;
    assert!(cancelled.is_err());
    faulty.heal();
    faulty.land_late().await;
    assert_eq!(ledger.refresh().await.unwrap(), [entry]);
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_loses_a_version_learns_to_whom() {
    let (_, store) = healthy();
    let mut first = created(&store).await;
    let mut second = open(&store).await;
    let (theirs, ours) = (commit(&first, 1, 7), commit(&second, 2, 8));
    assert!(matches!(first.propose(&theirs).await.unwrap(), Proposal::Committed));
    let Proposal::Lost(Some(rival)) = second.propose(&ours).await.unwrap() else { panic!("both landed") };
    assert_eq!(*rival, theirs);
    assert_eq!(second.state(), first.state());
    assert!(matches!(second.propose(&ours).await.unwrap(), Proposal::Void(Void::Misplaced { made_for: 1 })));
    let ours = commit(&second, 2, 8);
    assert!(matches!(second.propose(&ours).await.unwrap(), Proposal::Committed));
    assert_eq!(first.refresh().await.unwrap(), [ours]);
    agrees(&first).await;
}

#[tokio::test(start_paused = true)]
async fn a_void_entry_occupies_its_version_and_nothing_else() {
    let (_, store) = healthy();
    let mut ledger = created(&store).await;
    let before = ledger.state().clone();
    let mut zombie = ledger.entry(&proposer(9), Body::Fence { floor: 0, oldest: 0 }).unwrap();
    zombie.prev ^= 1;
    force(&store, 1, &zombie).await;
    let entry = commit(&ledger, 1, 7);
    let log = tempfile::NamedTempFile::new().unwrap();
    let listener = tracing_subscriber::fmt().with_writer(Arc::new(log.reopen().unwrap())).finish();
    let listening = tracing::subscriber::set_default(listener);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Lost(None)));
    drop(listening);
    let told = std::fs::read_to_string(log.path()).unwrap();
    assert!(told.contains("void entry, without effect"), "{told}");
    assert_eq!((ledger.state().entries, &ledger.state().total), (2, &before.total));
    let entry = commit(&ledger, 1, 7);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn a_proposal_that_breaks_a_rule_is_never_sent() {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    let entry = ledger.entry(&proposer(1), Body::Fence { floor: 99, oldest: 0 }).unwrap();
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Void(Void::Floor(99))));
    assert_eq!(faulty.count(Call::Put, &name::manifest(1)), 0);
}

/// Commits `sources`, one entry each, against whoever else does. Returns those whose outcome was not learnt.
async fn commit_all(mut ledger: Ledger, who: u8, sources: std::ops::Range<u128>) -> Vec<u128> {
    let mut unknown = Vec::new();
    for source in sources {
        loop {
            let entry = commit(&ledger, who, source);
            match ledger.propose(&entry).await {
                Ok(Proposal::Committed) => break,
                Ok(Proposal::Lost(_)) => {}
                Ok(Proposal::Void(Void::SourceCommitted(_))) if unknown.last() == Some(&source) => break,
                Ok(Proposal::Void(void)) => panic!("{void}"),
                Err(Error::Unknown { .. }) => unknown.push(source),
                Err(error) => panic!("{error}"),
            }
        }
    }
    unknown
}

#[tokio::test(start_paused = true)]
async fn racing_writers_on_a_bad_store_commit_everything_once() {
    for seed in 0..100 {
        let faulty = FaultStore::new(Arc::new(InMemory::new()));
        let ledger = created(&store(&faulty)).await;
        let faulty =
            FaultStore::seeded(Arc::new(faulty), seed, Rates { put: 400, get: 200, ..Rates::default() });
        let bad = store(&faulty);
        let reopen = async || loop {
            if let Ok(Some(ledger)) = Ledger::open(bad.clone()).await {
                break ledger;
            }
        };
        let (mut one, mut two, mut three) = (reopen().await, reopen().await, reopen().await);
        let hasty = Patience { attempts: 4, ..Patience::default() };
        for ledger in [&mut one, &mut two, &mut three] {
            ledger.set_patience(hasty);
        }
        let racing =
            (commit_all(one, 1, 100..108), commit_all(two, 2, 200..208), commit_all(three, 3, 300..308));
        tokio::join!(racing.0, racing.1, racing.2);
        faulty.heal();
        faulty.land_late().await;

        let mut end = ledger;
        let news = end.refresh().await.unwrap();
        let mut sources: Vec<u128> =
            news.iter().filter_map(|entry| entry.ingest()?.sources.first()?.id).collect();
        sources.sort_unstable();
        let wanted: Vec<u128> = (100..108).chain(200..208).chain(300..308).collect();
        assert_eq!(sources, wanted, "seed {seed}");
        assert_eq!(end.state().entries, 25, "seed {seed}: no void entry");
        agrees(&end).await;
    }
}

#[tokio::test(start_paused = true)]
async fn every_kind_of_fault_fires_in_a_seeded_store() {
    let faulty = FaultStore::new(Arc::new(InMemory::new()));
    drop(created(&store(&faulty)).await);
    let faulty = FaultStore::seeded(faulty, 1, Rates { put: 500, ..Rates::default() });
    let bad = store(&faulty);
    let ledger = loop {
        if let Ok(Some(ledger)) = Ledger::open(bad.clone()).await {
            break ledger;
        }
    };
    let _ = commit_all(ledger, 1, 0..100).await;
    let fired = faulty.fired();
    for fault in [Fault::AckLost, Fault::NotDone, Fault::OwnExists, Fault::FakeExists, Fault::Late] {
        assert!(fired.contains_key(&(Call::Put, fault)), "{fault:?}: {fired:?}");
    }
    assert!(fired.contains_key(&(Call::Get, Fault::NotDone)), "{fired:?}");
}

#[tokio::test(start_paused = true)]
async fn damaged_bytes_in_the_ledger_stop_everybody() {
    let (_, store) = healthy();
    let mut ledger = created(&store).await;
    let whole = commit(&ledger, 9, 1).encode().unwrap();
    let torn = Bytes::copy_from_slice(&whole[..whole.len() / 2]);
    assert!(matches!(store.put_once(&name::manifest(1), torn).await, Put::Landed));
    let corrupt =
        |error: Error| matches!(&error, Error::Corrupt { object, .. } if *object == name::manifest(1));
    let entry = commit(&ledger, 1, 7);
    assert!(corrupt(ledger.propose(&entry).await.unwrap_err()));
    assert!(corrupt(ledger.refresh().await.unwrap_err()));
    assert!(corrupt(ledger.read(1).await.unwrap_err()));
    assert!(corrupt(Ledger::open(store.clone()).await.unwrap_err()));
    assert!(corrupt(Ledger::open_at(store.clone(), 1).await.unwrap_err()));
    // What lies before it can still be read.
    assert_eq!(Ledger::open_at(store, 0).await.unwrap().unwrap().version(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_damaged_on_its_way_is_read_again() {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    let entry = commit(&ledger, 1, 7);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    let newest = name::manifest(1);
    for object in [name::TABLE.to_owned(), name::manifest(0), newest.clone()] {
        for at in [0, 12, 40, 100, 150] {
            for other in [at + 1, at + 2, at + 3] {
                faulty.next(Call::Get, &object, Fault::WrongBit(other));
            }
            agrees(&ledger).await;
        }
        // The same damage twice is the object's own; so is damage that does not end.
        let before = faulty.count(Call::Get, &object);
        faulty.times(2, Call::Get, &object, Fault::WrongBit(40));
        let error = Ledger::open(store.clone()).await.unwrap_err();
        assert!(matches!(&error, Error::Corrupt { object: told, .. } if *told == object), "{error}");
        assert_eq!(faulty.count(Call::Get, &object), before + 2);
        for at in 40..44 {
            faulty.next(Call::Get, &object, Fault::WrongBit(at));
        }
        assert!(matches!(Ledger::open(store.clone()).await, Err(Error::Corrupt { .. })));
        agrees(&ledger).await;
    }
    // What a commit reads back is asked for again as well.
    faulty.next(Call::Put, &name::manifest(2), Fault::OwnExists);
    faulty.next(Call::Get, &name::manifest(2), Fault::WrongBit(50));
    let entry = commit(&ledger, 1, 8);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn entries_of_a_newer_program_are_refused_not_skipped() {
    for (from, to) in [("\"kind\": \"fence\"", "\"kind\": \"rewind\""), ("\"format\": 1", "\"format\": 2")] {
        let (_, store) = healthy();
        let mut ledger = created(&store).await;
        let fence = ledger.entry(&proposer(1), Body::Fence { floor: 0, oldest: 0 }).unwrap();
        let text = String::from_utf8(fence.encode().unwrap()).unwrap();
        assert!(text.contains(from));
        let newer = Bytes::from(resealed(&text.replace(from, to)));
        assert!(matches!(store.put_once(&name::manifest(1), newer).await, Put::Landed));
        let entry = commit(&ledger, 1, 7);
        assert!(matches!(ledger.propose(&entry).await, Err(Error::Refused(_))));
        assert!(matches!(ledger.refresh().await, Err(Error::Refused(_))));
        assert!(matches!(Ledger::open(store).await, Err(Error::Refused(_))));
    }
}

/// A table of `entries` versions, and its checkpoints.
async fn long_table(entries: u128) -> (Arc<FaultStore>, Store, Ledger, Vec<String>) {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    for source in 1..entries {
        let entry = commit(&ledger, 1, source);
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    }
    let checkpoints = store.list(name::CHECKPOINTS).await.unwrap().into_iter().map(|c| c.name).collect();
    (faulty, store, ledger, checkpoints)
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_saves_the_replay() {
    let (faulty, store, ledger, checkpoints) = long_table(70).await;
    let versions: Vec<u64> = checkpoints.iter().filter_map(|name| checkpoint::version_of(name)).collect();
    assert_eq!(versions, [checkpoint::INTERVAL, 2 * checkpoint::INTERVAL]);
    agrees(&ledger).await;
    let before = faulty.count(Call::Get, &name::manifest(1));
    agrees(&ledger).await;
    assert_eq!(faulty.count(Call::Get, &name::manifest(1)), before, "replayed from the beginning");
    for version in [0, 5, 32, 33, 69] {
        let then = Ledger::open_at(store.clone(), version).await.unwrap().unwrap();
        assert_eq!(then.version(), version);
        assert_eq!(then.state().sources, version);
    }
    assert!(matches!(Ledger::open_at(store, 70).await, Err(Error::Refused(_))));
}

#[tokio::test(start_paused = true)]
async fn checkpoints_that_cannot_be_trusted_are_passed_over() {
    let (faulty, store, ledger, checkpoints) = long_table(70).await;
    let newest = checkpoints.last().unwrap();
    let good = store.get(newest).await.unwrap().unwrap();

    // Damaged in every byte's place, cut short, empty.
    for at in (0..good.len()).step_by(7) {
        let mut bad = good.to_vec();
        bad[at] ^= 0x10;
        store.put(newest, bad.into()).await.unwrap();
        agrees(&ledger).await;
    }
    for length in [0, 1, good.len() / 2, good.len() - 1] {
        store.put(newest, good.slice(..length)).await.unwrap();
        agrees(&ledger).await;
    }

    // Whole, but of another history: a forged tip, another table, a version that does not exist.
    let mut honest = Ledger::open_at(store.clone(), 64).await.unwrap().unwrap();
    honest.read_all().await.unwrap();
    let honest = honest.state().clone();
    let mut forgeries = vec![honest.clone(), honest.clone(), honest.clone()];
    (forgeries[0].tip, forgeries[0].floor) = (1, 60);
    (forgeries[1].table, forgeries[1].floor) = ("another".into(), 60);
    (forgeries[2].entries, forgeries[2].floor) = (1000, 60);
    for forged in forgeries {
        let (object, bytes) = checkpoint::encode(&forged).unwrap().pop().unwrap();
        store.put(&object, bytes).await.unwrap();
        agrees(&ledger).await;
        store.delete(&object).await.unwrap();
    }

    // Foreign names, and none at all; then a listing that fails or lags.
    store.put(&format!("{}/latest", name::CHECKPOINTS), good.clone()).await.unwrap();
    agrees(&ledger).await;
    store.put(newest, good).await.unwrap();
    faulty.next(Call::List, "checkpoint", Fault::Stale);
    agrees(&ledger).await;
    faulty.next(Call::List, "checkpoint", Fault::NotDone);
    agrees(&ledger).await;
    for object in checkpoints {
        store.delete(&object).await.unwrap();
    }
    agrees(&ledger).await;
}

/// What a ledger says of every source that was consumed, of some that were not, and of those who name one again.
async fn remembers(store: &Store, sources: u128) {
    let mut ledger = open(store).await;
    for id in 1..sources {
        assert_eq!(ledger.source(id).await.unwrap().map(|seen| u128::from(seen.version)), Some(id));
    }
    assert_eq!(ledger.source(sources).await.unwrap(), None);
    let mut ledger = open(store).await;
    for id in [1, 2, sources / 2, sources - 1] {
        let again = commit(&ledger, 1, id);
        let proposal = ledger.propose(&again).await.unwrap();
        assert!(matches!(proposal, Proposal::Void(Void::SourceCommitted(_))), "{proposal:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_absent_or_damaged_of_a_checkpoint_is_folded_anew() {
    let (faulty, store, ledger, _) = long_table(140).await;
    let parts: Vec<String> =
        store.list(name::PARTS).await.unwrap().into_iter().map(|object| object.name).collect();
    assert!(parts.len() >= 2, "{parts:?}");
    remembers(&store, 140).await;
    agrees(&ledger).await;
    for part in &parts {
        let good = store.get(part).await.unwrap().unwrap();
        let damaged = (0..good.len()).step_by(97).map(|at| {
            let mut bad = good.to_vec();
            bad[at] ^= 0x10;
            Bytes::from(bad)
        });
        let cut = [0, 1, 16, good.len() / 2, good.len() - 1].map(|length| good.slice(..length));
        for bad in damaged.chain(cut) {
            store.put(part, bad).await.unwrap();
            agrees(&ledger).await;
            remembers(&store, 140).await;
        }
        store.delete(part).await.unwrap();
        agrees(&ledger).await;
        remembers(&store, 140).await;
        store.put(part, good).await.unwrap();
    }
    // All of them at once; and a store that does not give them at the moment.
    faulty.next(Call::Get, "_dedupe/parts", Fault::NotDone);
    remembers(&store, 140).await;
    for part in &parts {
        store.delete(part).await.unwrap();
    }
    agrees(&ledger).await;
    remembers(&store, 140).await;
    // A writer that lost them writes them anew.
    let mut writer = open(&store).await;
    for source in 140..170 {
        let entry = commit(&writer, 1, source);
        assert!(matches!(writer.propose(&entry).await.unwrap(), Proposal::Committed));
    }
    let before = faulty.count(Call::Get, &name::manifest(1));
    remembers(&store, 170).await;
    assert_eq!(faulty.count(Call::Get, &name::manifest(1)), before, "replayed from the beginning");
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_past_checkpoints_is_judged_as_by_the_whole_ledger() {
    let (_, store, mut ledger, _) = long_table(40).await;
    let mut old = open(&store).await;
    for source in 40..200 {
        let entry = commit(&ledger, 1, source);
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    }
    // What its checkpoint consisted of was vacuumed away meanwhile.
    for object in store.list(name::PARTS).await.unwrap() {
        store.delete(&object.name).await.unwrap();
    }
    old.refresh().await.unwrap();
    for id in [1, 39, 40, 199] {
        assert_eq!(old.source(id).await.unwrap().map(|seen| u128::from(seen.version)), Some(id));
    }
    old.read_all().await.unwrap();
    assert_eq!(old.state(), ledger.state());
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_cannot_be_written_fails_no_commit() {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    faulty.always(Call::Put, "checkpoint", Fault::NotDone);
    for source in 1..40 {
        let entry = commit(&ledger, 1, source);
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    }
    assert_eq!(store.list(name::CHECKPOINTS).await.unwrap(), []);
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn creators_that_meet_share_one_table() {
    use Fault::*;
    for faults in [&[][..], &[AckLost], &[OwnExists], &[NotDone], &[FakeExists], &[Late], &[Late, AfterLate]]
    {
        let (faulty, store) = healthy();
        for fault in faults {
            faulty.next(Call::Put, name::TABLE, *fault);
            faulty.next(Call::Put, &name::manifest(0), *fault);
        }
        let (one, two) = tokio::join!(created(&store), created(&store));
        faulty.land_late().await;
        assert_eq!(one.identity(), two.identity(), "{faults:?}");
        assert_eq!(one.state(), two.state(), "{faults:?}");
        assert_eq!(one.state().entries, 1, "{faults:?}");
        agrees(&one).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_creator_that_died_half_way_leaves_a_table_that_can_be_completed() {
    let (_, store) = healthy();
    assert!(Ledger::open(store.clone()).await.unwrap().is_none());
    let half = identity();
    let bytes = Bytes::from(half.encode().unwrap());
    assert!(matches!(store.put_once(name::TABLE, bytes).await, Put::Landed));
    assert!(Ledger::open(store.clone()).await.unwrap().is_none(), "it has no first entry");
    let mut ledger = created(&store).await;
    assert_eq!(ledger.identity(), &half);
    let entry = commit(&ledger, 1, 7);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn a_void_entry_before_the_first_does_not_keep_a_table_from_being_created() {
    let (_, store) = healthy();
    let mut stray =
        created(&healthy().1).await.entry(&proposer(9), Body::Fence { floor: 0, oldest: 0 }).unwrap();
    stray.version = 0;
    force(&store, 0, &stray).await;
    let ledger = created(&store).await;
    assert_eq!(ledger.version(), 1);
    agrees(&ledger).await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_says_both_that_a_table_is_there_and_that_it_is_not_is_refused() {
    let (faulty, store) = healthy();
    faulty.always(Call::Put, name::TABLE, Fault::FakeExists);
    let refused = Ledger::create(store.clone(), identity(), Policy::default(), &proposer(0)).await;
    assert!(matches!(refused, Err(Error::Refused(why)) if why.contains("cannot hold a table")));
    assert_eq!(faulty.count(Call::Put, name::TABLE), 11);
    faulty.heal();
    faulty.times(10, Call::Put, name::TABLE, Fault::FakeExists);
    assert_eq!(created(&store).await.version(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_lost_identity_is_not_made_anew() {
    let (_, store) = healthy();
    drop(created(&store).await);
    store.delete(name::TABLE).await.unwrap();
    let error = Ledger::create(store.clone(), identity(), Policy::default(), &proposer(0)).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt { object, .. } if object == name::TABLE), "{error}");
    assert!(error.to_string().contains("it was lost, and with it the key"), "{error}");
    assert_eq!(store.head(name::TABLE).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_meets_no_trouble_does_not_wait_however_short_the_patience() {
    let (_, store) = healthy();
    let mut ledger = created(&store).await;
    let begun = tokio::time::Instant::now();
    ledger.set_patience(Patience { total: std::time::Duration::ZERO, ..Patience::default() });
    let entry = commit(&ledger, 1, 7);
    assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    assert_eq!(begun.elapsed(), std::time::Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_long_ledger_is_read_in_few_steps() {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    for source in 1..=30 {
        let entry = commit(&ledger, 1, source);
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
    }
    faulty.always(Call::Get, name::LEDGER, Fault::Slow(100));
    let begun = tokio::time::Instant::now();
    let anew = open(&store).await;
    // One, four, sixteen, and the rest up to the first that is absent.
    assert_eq!((anew.version(), begun.elapsed().as_millis() / 100), (30, 4));
}

/// A table whose versions below 3 a vacuum has given up, and a handle at each version.
async fn fenced() -> (Arc<FaultStore>, Store, Vec<Ledger>) {
    let (faulty, store) = healthy();
    let mut ledger = created(&store).await;
    let mut at = vec![ledger.clone()];
    for source in 1..5 {
        let entry = commit(&ledger, 1, source);
        assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
        at.push(ledger.clone());
    }
    let fence = ledger.entry(&proposer(1), Body::Fence { floor: 4, oldest: 3 }).unwrap();
    assert!(matches!(ledger.propose(&fence).await.unwrap(), Proposal::Committed));
    at.push(ledger);
    (faulty, store, at)
}

fn expired(error: &Error, of: u64) -> bool {
    matches!(error, Error::SnapshotExpired { version, oldest: 3 } if *version == of)
}

#[tokio::test(start_paused = true)]
async fn a_version_can_be_read_from_the_oldest_on_that_the_last_fence_kept() {
    let (_, store, at) = fenced().await;
    for (version, then) in (0..).zip(&at) {
        let opened = Ledger::open_at(store.clone(), version).await;
        let readable = then.check_readable().await;
        if version < 3 {
            assert!(expired(&opened.unwrap_err(), version) && expired(&readable.unwrap_err(), version));
        } else {
            assert_eq!(opened.unwrap().unwrap().state(), then.state());
            readable.unwrap();
        }
        // What it was can always be told.
        assert_eq!(Ledger::folded_at(store.clone(), version).await.unwrap().unwrap().state(), then.state());
    }
    for error in [
        Ledger::open_at(store.clone(), 6).await.unwrap_err(),
        Ledger::folded_at(store.clone(), 60).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("does not exist: the newest is 5"), "{error}");
    }
    let (_, nothing) = healthy();
    assert!(Ledger::open_at(nothing.clone(), 0).await.unwrap().is_none());
    assert!(Ledger::folded_at(nothing, 0).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn in_front_of_a_damaged_entry_the_fences_still_count() {
    let (_, store, at) = fenced().await;
    assert!(matches!(store.put_once(&name::manifest(6), "torn".into()).await, Put::Landed));
    assert!(matches!(Ledger::open(store.clone()).await, Err(Error::Corrupt { .. })));
    assert!(expired(&Ledger::open_at(store.clone(), 1).await.unwrap_err(), 1));
    assert_eq!(Ledger::open_at(store.clone(), 4).await.unwrap().unwrap().state(), at[4].state());
}

#[tokio::test(start_paused = true)]
async fn a_reader_whose_version_has_expired_is_told_that_and_no_consequence() {
    let (faulty, _, at) = fenced().await;
    let failed = || -> Result<(), Error> { Err(Error::corrupt("data/x", "it is absent")) };
    for error in [failed().unwrap_err(), Error::store("read", "x", "absent"), Error::input("x", "absent")] {
        assert!(expired(&at[2].or_expired::<()>(Err(error)).await.unwrap_err(), 2));
    }
    assert!(matches!(at[3].or_expired(failed()).await, Err(Error::Corrupt { .. })));
    assert!(matches!(at[2].or_expired::<()>(Err(Error::Interrupted)).await, Err(Error::Interrupted)));
    assert_eq!(at[2].or_expired(Ok(7)).await.unwrap(), 7);
    // Where it cannot be found out, the first error is the one to tell.
    faulty.always(Call::Get, name::LEDGER, Fault::NotDone);
    assert!(matches!(at[2].or_expired(failed()).await, Err(Error::Corrupt { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_ledger_of_another_table_is_not_taken_for_ours() {
    let (_, elsewhere) = healthy();
    let foreign = created(&elsewhere).await.read(0).await.unwrap().unwrap();
    let (_, store) = healthy();
    force(&store, 0, &foreign).await;
    let error = Ledger::create(store, identity(), Policy::default(), &proposer(0)).await.unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}
