//! The same promises on an S3 and on an Azure emulator. `DEDUPE_TEST_S3` and `DEDUPE_TEST_AZURE` are a bucket's and
//! a container's URL (`.ci/emulators/with_emulators` sets them, and what leads there); without them nothing is tested.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::time::Duration;

use bytes::Bytes;
use dedupe::ingest::ingest;
use dedupe::ledger::Ledger;
use dedupe::options::{IngestOptions, MIB};
use dedupe::report::{IngestReport, Progress};
use dedupe::store::certify::{Certifier, Extent};
use dedupe::store::{Put, Store};
use dedupe::upkeep::compact::compact;
use dedupe::upkeep::vacuum::{VacuumOptions, vacuum};
use dedupe::upkeep::verify::{VerifyOptions, verify};

/// A fresh folder in the bucket or container that `variable` names.
fn place(variable: &str) -> Option<String> {
    let Ok(base) = std::env::var(variable) else {
        println!("not tested: {variable} is not set");
        return None;
    };
    let unique = dedupe::random::identity().unwrap();
    Some(format!("{}/tests/{unique}", base.trim_end_matches('/')))
}

#[tokio::test(flavor = "multi_thread")]
async fn emulator_s3_keeps_the_promises_of_a_store() {
    if let Some(url) = place("DEDUPE_TEST_S3") {
        store_keeps_its_promises(&url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn emulator_azure_keeps_the_promises_of_a_store() {
    if let Some(url) = place("DEDUPE_TEST_AZURE") {
        store_keeps_its_promises(&url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn emulator_s3_table_is_exact() {
    if let Some(url) = place("DEDUPE_TEST_S3") {
        table_is_exact(&url).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn emulator_azure_table_is_exact() {
    if let Some(url) = place("DEDUPE_TEST_AZURE") {
        table_is_exact(&url).await;
    }
}

async fn store_keeps_its_promises(url: &str) {
    let store = Store::open(url, &[]).unwrap();
    store.probe().await.unwrap();
    store_is_certified(url).await;
    of_sixteen_racers_one_lands(&store).await;
    names_list_back(&store).await;
    uploads_of_any_size_read_back(&store).await;
    for object in store.list("").await.unwrap() {
        store.delete(&object.name).await.unwrap();
    }
    assert!(store.list("").await.unwrap().is_empty());
}

/// By sixteen clients with connections of their own.
async fn store_is_certified(url: &str) {
    let clients = (0..16).map(|_| Store::open(url, &[]).unwrap()).collect();
    let certifier = Certifier::new(clients, Extent::FULL).unwrap();
    let certificate = certifier.run().await;
    assert_eq!(certifier.clean_up().await, Vec::<String>::new());
    assert!(certificate.is_clean(), "{:#?}", certificate.findings);
    assert!(Store::open(url, &[]).unwrap().list("").await.unwrap().is_empty());
}

async fn of_sixteen_racers_one_lands(store: &Store) {
    for round in 0..5 {
        let name = format!("race/{round}");
        let racers = (0..16).map(|racer| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move { (racer, store.put_once(&name, format!("{racer}").into()).await) })
        });
        let mut landed = Vec::new();
        let mut unknown = 0;
        for racer in futures::future::join_all(racers).await {
            match racer.unwrap() {
                (racer, Put::Landed) => landed.push(format!("{racer}")),
                (_, Put::Taken) => {}
                (_, Put::Failed(_) | Put::Unknown(_)) => unknown += 1,
            }
        }
        let found = store.get(&name).await.unwrap().unwrap();
        assert!(landed.len() == 1 || (landed.is_empty() && unknown > 0), "{landed:?}, {unknown} unknown");
        assert!(landed.iter().all(|racer| *racer == found));
    }
}

async fn names_list_back(store: &Store) {
    let mut names = ["list/b/2", "list/a b/ü=1%2F#.parquet", "list/b/10", "list/c", "list2/no"];
    for name in names {
        store.put(name, Bytes::from(name)).await.unwrap();
    }
    names.sort_unstable();
    let listed = store.list("list").await.unwrap();
    assert_eq!(listed.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), names[..4]);
    for object in &listed {
        assert_eq!(object.size, object.name.len() as u64);
        assert_eq!(store.get(&object.name).await.unwrap().unwrap(), object.name);
        assert_eq!(store.head(&object.name).await.unwrap().unwrap().size, object.size);
    }
    let after = store.list_after("list", Some("list/b/10")).await.unwrap();
    assert_eq!(after.iter().map(|object| object.name.as_str()).collect::<Vec<_>>(), ["list/b/2", "list/c"]);
    store.delete("list/c").await.unwrap();
    store.delete("list/c").await.unwrap();
    assert_eq!(store.get("list/c").await.unwrap(), None);
    assert_eq!(store.head("list/c").await.unwrap(), None);
    assert!(matches!(store.put_once("list/c", Bytes::new()).await, Put::Landed));
    assert_eq!(store.get("list/c").await.unwrap().unwrap(), "");
}

async fn uploads_of_any_size_read_back(store: &Store) {
    for size in [0, 1, 5 << 20, (16 << 20) + 1, 40 << 20] {
        let bytes: Bytes = (0..size as u64).map(|i| (i.wrapping_mul(0x9E37_79B9) >> 11) as u8).collect();
        let name = format!("upload/{size}");
        let mut upload = store.create(&name).await.unwrap();
        for piece in bytes.chunks(700_001) {
            upload.write(bytes.slice_ref(piece)).await.unwrap();
        }
        // It is not there before it is whole.
        assert_eq!(store.head(&name).await.unwrap(), None);
        assert_eq!(upload.finish().await.unwrap(), size as u64);
        assert!(store.get(&name).await.unwrap().unwrap() == bytes, "{size} bytes came back as others");
        if size > 100 {
            let (from, to) = (size as u64 / 2, size as u64 - 1);
            let part = store.get_range(&name, from..to).await.unwrap();
            assert!(part == bytes.slice(from as usize..to as usize));
            let parts = store.get_ranges(&name, &[to - 9..to, 0..7]).await.unwrap();
            assert!(parts[0] == bytes.slice(to as usize - 9..to as usize) && parts[1] == bytes.slice(0..7));
            assert!(store.get_range(&name, to..to + 2).await.is_err(), "beyond its end");
            assert!(store.get_limited(&name, 100).await.is_err(), "larger than allowed");
        }
    }
}

async fn run(sources: &[String], table: &str) -> IngestReport {
    let mut options = IngestOptions::default();
    options.key = Some(vec!["event_id".into()]);
    options.memory = 64 * MIB;
    options.threads = NonZeroUsize::new(2).unwrap();
    ingest(sources, table, &options, &Progress::default()).await.unwrap()
}

async fn table_is_exact(url: &str) {
    let (table, raw) = (format!("{url}/table"), format!("{url}/raw"));
    let orders = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/orders");
    let first = run(&[orders.into()], &table).await;
    assert_eq!((first.rows.read, first.rows.accepted, first.created), (1456, 900, true));
    let again = run(&[orders.into()], &table).await;
    assert_eq!((again.rows.replayed, again.committed), (1456, false));

    // The same files from the store itself are other sources of the same rows.
    let store = Store::open(&raw, &[]).unwrap();
    for file in ["part-1.parquet", "part-4.ndjson", "part-5.ndjson.gz"] {
        let bytes = std::fs::read(format!("{orders}/{file}")).unwrap();
        store.put(&format!("day 1/{file}"), bytes.into()).await.unwrap();
    }
    let remote = run(std::slice::from_ref(&raw), &table).await;
    assert_eq!((remote.rows.read, remote.rows.duplicate, remote.sources), (200 + 126 + 160, 486, 3));
    let remote = run(&[format!("{raw}/*/part-?.parquet")], &table).await;
    assert_eq!((remote.rows.replayed, remote.committed), (200, false));

    // Two at the same moment.
    let folder = tempfile::tempdir().unwrap();
    let mut runs = Vec::new();
    for n in 0..2 {
        let source = folder.path().join(format!("{n}.ndjson"));
        let line = |i: i32| format!("{{\"event_id\":\"race-{i}\",\"delivery\":{n}}}\n");
        std::fs::write(&source, (n * 300..n * 300 + 600).map(line).collect::<String>()).unwrap();
        let (source, table) = (source.to_str().unwrap().to_owned(), table.clone());
        runs.push(tokio::spawn(async move { run(&[source], &table).await.rows.accepted }));
    }
    let mut accepted = 0;
    for run in runs {
        accepted += run.await.unwrap();
    }
    assert_eq!(accepted, 900);

    let mut ledger = Ledger::open(Store::open(&table, &[]).unwrap()).await.unwrap().unwrap();
    assert_eq!(compact(&mut ledger, 64 * MIB).await.unwrap().runs_after, 1);
    let report = verify(&ledger, &VerifyOptions::default()).await.unwrap();
    assert_eq!((report.problems, report.rows, report.tokens), (Vec::new(), 1800, 1800));
    vacuum_leaves_what_is_live(&mut ledger).await;
}

async fn vacuum_leaves_what_is_live(ledger: &mut Ledger) {
    let store = ledger.store().clone();
    let litter = format!("data/{:020}-{}-0.parquet", ledger.state().entries, "0f".repeat(16));
    store.put(&litter, "left behind".into()).await.unwrap();
    let mut options = VacuumOptions::default();
    let kept = vacuum(ledger, &options).await.unwrap();
    assert_eq!((kept.version, kept.names.len()), (None, 0));
    options.grace = Duration::ZERO;
    let report = vacuum(ledger, &options).await.unwrap();
    assert_eq!(report.version, Some(ledger.version()));
    assert!(report.names.contains(&litter), "{report:?}");
    assert_eq!(vacuum(ledger, &options).await.unwrap().names, Vec::<String>::new());
    ledger.read_files().await.unwrap();
    let live: BTreeSet<&String> =
        ledger.state().files().unwrap().keys().chain(ledger.state().runs.keys()).collect();
    let mut found = store.list("data").await.unwrap();
    found.extend(store.list("_dedupe/tokens").await.unwrap());
    assert_eq!(found.iter().map(|object| &object.name).collect::<BTreeSet<_>>(), live);
    assert_eq!(store.list("_dedupe/session").await.unwrap(), []);
    let report = verify(ledger, &VerifyOptions::default()).await.unwrap();
    assert_eq!((report.problems, report.rows), (Vec::new(), 1800));
}
