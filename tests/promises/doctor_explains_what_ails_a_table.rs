//! Whatever is damaged, lost, forged or merely void in a table, `doctor` finds it, says what it is and what to do, and
//! changes nothing.

use crate::fault::{Call, Fault, FaultStore};
use crate::seal::resealed;
use arrow_schema::{DataType, Field, Schema};
use bytes::Bytes;
use dedupe::Error;
use dedupe::ledger::entry::{Ingest, QuarantineFile, SourceUse};
use dedupe::ledger::log::{Proposal, Proposer};
use dedupe::ledger::name::Namer;
use dedupe::ledger::{Body, Entry, Ledger, TableIdentity, checkpoint, name};
use dedupe::policy::Policy;
use dedupe::store::Store;
use dedupe::store::certify::{Certifier, Extent, Promise};
use dedupe::token::{TokenHash, TokenKey, TokenSpec};
use dedupe::upkeep::doctor::{Diagnosis, examine};
use object_store::memory::InMemory;
use std::sync::Arc;

struct Table {
    faulty: Arc<FaultStore>,
    store: Store,
    ledger: Ledger,
}

fn by() -> Proposer {
    Proposer { session: "ab".repeat(16), writer: "host:1".into() }
}

impl Table {
    /// A table of so many entries, each of which but the first names a quarantine file.
    async fn of(entries: u64) -> Self {
        let faulty = FaultStore::new(Arc::new(InMemory::new()));
        let store = Store::from_object_store(Arc::clone(&faulty) as _, "table", "memory:");
        let schema = Schema::new(vec![Field::new("id", DataType::Utf8, true)]);
        let key = TokenKey::random().unwrap();
        let spec = TokenSpec::new(&["id".into()], &schema, TokenHash::SipHash24, key).unwrap();
        let identity = TableIdentity::new(spec).unwrap();
        let mut ledger = Ledger::create(store.clone(), identity, Policy::default(), &by()).await.unwrap();
        let mut namer = Namer::new(&by().session, 1);
        while ledger.state().entries < entries {
            let file = namer.next(name::QUARANTINE, "ndjson");
            store.put(&file, "bad row\n".into()).await.unwrap();
            let entry = commit(&ledger, Some(file));
            assert!(matches!(ledger.propose(&entry).await.unwrap(), Proposal::Committed));
        }
        Self { faulty, store, ledger }
    }

    async fn examine(&self) -> Diagnosis {
        let before = everything(&self.store).await;
        let diagnosis = examine(&self.store).await.unwrap();
        assert_eq!(everything(&self.store).await, before, "doctor changed something");
        diagnosis
    }

    /// The one problem there is, and its advice.
    async fn ailment(&self) -> (String, String) {
        let diagnosis = self.examine().await;
        assert_eq!(diagnosis.problems.len(), 1, "{diagnosis:#?}");
        let problem = &diagnosis.problems[0];
        (problem.what.clone(), problem.advice.clone())
    }

    async fn manifest(&self, version: u64) -> Bytes {
        self.store.get(&name::manifest(version)).await.unwrap().unwrap()
    }

    async fn replace(&self, object: &str, bytes: impl Into<Bytes>) {
        self.store.put(object, bytes.into()).await.unwrap();
    }
}

fn commit(ledger: &Ledger, file: Option<String>) -> Entry {
    let source = SourceUse { id: Some(ledger.state().entries.into()), ..Default::default() };
    let quarantine = file.map(|name| QuarantineFile { name, rows: 0, bytes: 8 });
    let body = Ingest {
        policy: ledger.state().policy_version,
        sources: vec![source],
        quarantine: quarantine.into_iter().collect(),
        total: ledger.state().total,
        ..Default::default()
    };
    ledger.entry(&by(), Body::Ingest(Box::new(body))).unwrap()
}

async fn everything(store: &Store) -> Vec<(String, Bytes)> {
    let mut all = Vec::new();
    for object in store.list("").await.unwrap() {
        let bytes = store.get(&object.name).await.unwrap().unwrap();
        all.push((object.name, bytes));
    }
    all
}

#[tokio::test]
async fn a_healthy_table_has_no_problems_and_is_counted() {
    let table = Table::of(70).await;
    let diagnosis = table.examine().await;
    assert_eq!((&diagnosis.problems, &diagnosis.notes), (&vec![], &vec![]));
    let health = diagnosis.table.unwrap();
    assert_eq!((health.entries, health.void, health.checkpoints, health.quarantine), (70, 0, 2, 69));
    assert_eq!(health.id.as_deref(), Some(table.ledger.identity().table.as_str()));
    assert_eq!((health.unnamed, health.single_writer), (0, false));
    let empty = examine(&Store::from_object_store(Arc::new(InMemory::new()), "", "memory:")).await.unwrap();
    assert_eq!((empty.table, empty.problems.len()), (None, 0));
}

#[tokio::test]
async fn a_damaged_entry_is_named_for_what_it_is_and_nobody_overwrites_it() {
    for newest in [false, true] {
        let version = if newest { 5 } else { 3 };
        let object = name::manifest(version);
        for case in ["torn", "empty", "700 zero bytes", "are no entry", "no whole entry of a ledger"] {
            let table = Table::of(6).await;
            let whole = table.manifest(version).await;
            let right = Entry::hash(&whole);
            let bytes = match case {
                "torn" => whole.slice(..whole.len() / 2),
                "empty" => Bytes::new(),
                "700 zero bytes" => Bytes::from(vec![0; 700]),
                "are no entry" => Bytes::from_static(b"<html>oops</html>"),
                _ => Bytes::from_static(b"{\"format\": 1}"),
            };
            table.replace(&object, bytes.clone()).await;
            let (what, advice) = table.ailment().await;
            assert!(what.contains(&object) && what.contains(case), "{case}: {what}");
            assert!(advice.contains(&format!("--version {}", version - 1)), "{case}: {advice}");
            // The entry behind knows what must stand there.
            assert_eq!(advice.contains(&format!("{right:032x}")), !newest, "{case}: {advice}");
            assert_eq!(advice.contains("move it out of the ledger"), newest, "{case}: {advice}");

            // C10: everybody stops at it; it stays what it is.
            let mut late = Ledger::open_at(table.store.clone(), version - 1).await.unwrap().unwrap();
            let entry = commit(&late, None);
            assert!(matches!(late.propose(&entry).await.unwrap_err(), Error::Corrupt { .. }), "{case}");
            assert!(matches!(Ledger::open(table.store.clone()).await.unwrap_err(), Error::Corrupt { .. }));
            assert_eq!(table.manifest(version).await, bytes, "{case}: it was overwritten");
            // Restored, all is well again.
            table.replace(&object, whole).await;
            assert_eq!(table.examine().await.problems, [], "{case}");
        }
    }
}

#[tokio::test]
async fn an_entry_that_was_changed_afterwards_breaks_the_chain() {
    let table = Table::of(6).await;
    let text = String::from_utf8(table.manifest(3).await.to_vec()).unwrap();
    let changed = text.replace("host:1", "host:2");
    table.replace(&name::manifest(3), changed.clone()).await;
    let (what, _) = table.ailment().await;
    assert!(what.contains(&name::manifest(3)) && what.contains("it was changed"), "{what}");
    // Sealed anew, it is an entry again, and breaks the chain.
    table.replace(&name::manifest(3), resealed(&changed)).await;
    let diagnosis = table.examine().await;
    let told = format!("{:#?}", diagnosis.problems);
    assert!(told.contains("version 4 is void") && told.contains("Restore both"), "{told}");
}

#[tokio::test]
async fn a_lost_entry_is_a_gap() {
    let table = Table::of(6).await;
    table.store.delete(&name::manifest(3)).await.unwrap();
    let (what, advice) = table.ailment().await;
    assert!(what.contains("version 3 is absent, but version 4 exists"), "{what}");
    assert!(advice.contains("nobody write"), "{advice}");
}

#[tokio::test]
async fn an_entry_of_a_newer_program_is_not_called_damaged() {
    let table = Table::of(4).await;
    let text = String::from_utf8(table.manifest(3).await.to_vec()).unwrap();
    table.replace(&name::manifest(3), resealed(&text.replace("\"format\": 1", "\"format\": 2"))).await;
    let (what, advice) = table.ailment().await;
    assert!(what.contains("format 2") && advice.contains("newer version of dedupe"), "{what}: {advice}");
}

#[tokio::test]
async fn void_entries_are_told_with_their_reasons_and_are_no_problem() {
    let mut table = Table::of(3).await;
    let mut zombie = table.ledger.entry(&by(), Body::Fence { floor: 99, oldest: 0 }).unwrap();
    zombie.writer = "zombie:7".into();
    table.replace(&name::manifest(3), zombie.encode().unwrap()).await;
    table.ledger.refresh().await.unwrap();
    let diagnosis = table.examine().await;
    assert_eq!(diagnosis.problems, []);
    let note = diagnosis.notes.concat();
    assert!(
        note.contains("version 3 (fence by zombie:7) is void") && note.contains("the floor 99"),
        "{note}"
    );
    assert_eq!(diagnosis.table.unwrap().void, 1);
}

#[tokio::test]
async fn a_checkpoint_that_is_damaged_or_not_what_the_replay_gives_is_found() {
    let table = Table::of(70).await;
    let mut at = Ledger::open_at(table.store.clone(), 32).await.unwrap().unwrap();
    at.read_all().await.unwrap();
    let at = at.state().clone();
    // It has the right tip and table, so every reader would believe it.
    let mut forged = at.clone();
    forged.floor = 30;
    let (object, bytes) = checkpoint::encode(&forged).unwrap().pop().unwrap();
    table.replace(&object, bytes).await;
    let (what, advice) = table.ailment().await;
    assert!(what.contains(&object) && what.contains("contradicts"), "{what}");
    assert!(advice.starts_with("delete it"), "{advice}");
    table.store.delete(&object).await.unwrap();

    let (object, bytes) = checkpoint::encode(&at).unwrap().pop().unwrap();
    table.replace(&object, bytes.slice(..bytes.len() - 3)).await;
    assert!(table.ailment().await.0.contains("damaged"));
    table.replace(&object, bytes).await;

    let mut ahead = at;
    ahead.entries = 1000;
    let (object, bytes) = checkpoint::encode(&ahead).unwrap().pop().unwrap();
    table.replace(&object, bytes).await;
    assert!(table.ailment().await.0.contains("there is no version 999"));
    table.store.delete(&object).await.unwrap();
    table.replace("_dedupe/checkpoint/latest", "5").await;
    assert!(table.examine().await.notes.concat().contains("latest"));
    assert_eq!(table.examine().await.problems, []);
}

#[tokio::test]
async fn objects_that_the_table_names_must_be_there_with_their_sizes() {
    let table = Table::of(40).await;
    let files: Vec<String> = table.ledger.state().quarantine().unwrap().keys().cloned().collect();
    table.replace(&files[0], "shorter").await;
    table.store.delete(&files[1]).await.unwrap();
    let diagnosis = table.examine().await;
    let told: Vec<&str> = diagnosis.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert!(told[0].contains(&files[0]) && told[0].contains("7 bytes; its manifest says 8"), "{told:?}");
    assert!(told[1].contains(&files[1]) && told[1].contains("is absent"), "{told:?}");
    // Many are counted, not listed.
    for file in &files {
        table.store.delete(file).await.unwrap();
    }
    let diagnosis = table.examine().await;
    assert_eq!(diagnosis.problems.len(), 21);
    assert!(diagnosis.problems[20].what.contains("19 more"), "{:?}", diagnosis.problems[20]);
}

#[tokio::test]
async fn what_no_version_names_is_counted_and_no_problem() {
    let table = Table::of(3).await;
    let mut namer = Namer::new(&"cd".repeat(16), 2);
    table.replace(&namer.next(name::DATA, "parquet"), "twelve bytes").await;
    table.replace(&namer.next(name::TOKENS, "run"), "four").await;
    let diagnosis = table.examine().await;
    let health = diagnosis.table.unwrap();
    assert_eq!((diagnosis.problems.len(), health.unnamed, health.unnamed_bytes), (0, 2, 16));
}

#[tokio::test]
async fn an_identity_that_is_lost_damaged_or_of_another_table_is_found() {
    let table = Table::of(3).await;
    let whole = table.store.get(name::TABLE).await.unwrap().unwrap();
    let secret = {
        let value: serde_json::Value = serde_json::from_slice(&whole).unwrap();
        value["token"]["key"].as_str().unwrap().to_owned()
    };
    table.store.delete(name::TABLE).await.unwrap();
    let (what, advice) = table.ailment().await;
    assert!(what.contains("table.json is absent") && advice.contains("key that makes tokens"), "{what}");

    table.replace(name::TABLE, whole.slice(..whole.len() / 2)).await;
    let (what, advice) = table.ailment().await;
    assert!(what.contains("table.json") && !format!("{what}{advice}").contains(&secret), "{what}");

    let other = Table::of(1).await.store.get(name::TABLE).await.unwrap().unwrap();
    table.replace(name::TABLE, other).await;
    assert!(table.ailment().await.0.contains("belongs to table"));
}

#[tokio::test]
async fn a_listing_that_lags_hides_nothing_from_doctor_and_is_found_by_the_certificate() {
    let table = Table::of(5).await;
    table.faulty.always(Call::List, "", Fault::Stale);
    assert_eq!(table.examine().await.problems, []);
    let certifier = Certifier::new(vec![table.store.clone(); 4], Extent::FULL).unwrap();
    let certificate = certifier.run().await;
    let broken: Vec<Promise> = certificate.broken().map(|finding| finding.promise).collect();
    assert_eq!(broken, [Promise::ListAfterWrite]);
    table.faulty.heal();
    assert_eq!(certifier.clean_up().await, Vec::<String>::new());
    let mut diagnosis = table.examine().await;
    diagnosis.add_certificate(&certificate);
    assert!(diagnosis.problems[0].what.contains("list-after-write"), "{diagnosis:#?}");
}

#[tokio::test]
async fn probes_that_were_left_behind_are_told() {
    let table = Table::of(2).await;
    table.replace("_dedupe/probe-0123/0001", "x").await;
    let diagnosis = table.examine().await;
    assert_eq!(diagnosis.problems, []);
    assert!(diagnosis.notes.concat().contains("probe"), "{:?}", diagnosis.notes);
}
