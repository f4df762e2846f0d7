//! What every store must do, shown on all stores that can be had without a network.

use super::{
    loopback::{ACCESS_KEY, Loopback, Mood, SECRET},
    *,
};
use object_store::memory::InMemory;
use std::time::Duration;
use tempfile::TempDir;

/// A folder name that every layer of encoding would like to change.
const AWKWARD: &str = "a b/#1 50%/%2e%20/ü-日本+&'(x)~";

/// One store of every sort, each in an awkward folder. The guard keeps the disk's one alive.
fn all() -> (TempDir, Vec<Store>) {
    let dir = tempfile::tempdir().unwrap();
    let disk = dir.path().join(AWKWARD);
    let server = Loopback::start();
    let stores = vec![
        Store::open(disk.to_str().unwrap(), &[]).unwrap(),
        Store::from_object_store(Arc::new(InMemory::new()), "", "memory://root"),
        Store::from_object_store(Arc::new(InMemory::new()), AWKWARD, "memory://folder"),
        Store::open(&format!("s3://bucket/{AWKWARD}"), &server.options()).unwrap(),
    ];
    (dir, stores)
}

fn on_disk() -> (TempDir, Store, Arc<Local>) {
    let dir = tempfile::tempdir().unwrap();
    let local = Arc::new(Local::new(dir.path().canonicalize().unwrap().join("table")));
    (dir, Store { inner: Inner::Local(Arc::clone(&local)), alone: false, cache: None }, local)
}

impl Store {
    /// From here on no folder on this local disk can be synced, or can again.
    pub(crate) fn break_folder_syncs(&self, broken: bool) {
        if let Inner::Local(local) = &self.inner {
            local.fail_folder_sync.store(broken, std::sync::atomic::Ordering::SeqCst);
        }
    }
}

fn names(listed: &[Listed]) -> Vec<&str> {
    listed.iter().map(|object| object.name.as_str()).collect()
}

async fn put_once(store: &Store, name: &str, bytes: &'static str) -> &'static str {
    match store.put_once(name, bytes.into()).await {
        Put::Landed => "landed",
        Put::Taken => "taken",
        Put::Failed(_) => "failed",
        Put::Unknown(_) => "unknown",
    }
}

#[tokio::test]
async fn a_name_lands_once_and_keeps_its_first_bytes() {
    let (_dir, stores) = all();
    for store in stores {
        let name = "_dedupe/ledger/00000000000000000001.json";
        assert_eq!(store.get(name).await.unwrap(), None, "{store:?}");
        assert_eq!(put_once(&store, name, "one").await, "landed", "{store:?}");
        assert_eq!(put_once(&store, name, "two").await, "taken", "{store:?}");
        assert_eq!(put_once(&store, name, "one").await, "taken", "{store:?}");
        assert_eq!(store.get(name).await.unwrap().unwrap(), "one", "{store:?}");
        store.delete(name).await.unwrap();
        assert_eq!(store.head(name).await.unwrap(), None, "{store:?}");
        store.delete(name).await.unwrap();
        assert_eq!(put_once(&store, name, "").await, "landed", "{store:?}");
        assert_eq!(store.get(name).await.unwrap().unwrap(), "", "{store:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_sixteen_racing_writers_exactly_one_lands() {
    let (_dir, stores) = all();
    for store in stores.into_iter().take(3) {
        for round in 0..20 {
            let name = format!("race/{round}");
            let racers = (0..16).map(|racer| {
                let (store, name) = (store.clone(), name.clone());
                tokio::spawn(async move { (racer, store.put_once(&name, format!("{racer}").into()).await) })
            });
            let mut landed = Vec::new();
            for outcome in futures::future::join_all(racers).await {
                match outcome.unwrap() {
                    (racer, Put::Landed) => landed.push(racer),
                    (_, Put::Taken) => {}
                    (_, Put::Failed(error) | Put::Unknown(error)) => panic!("{error}"),
                }
            }
            assert_eq!(landed.len(), 1, "{store:?}");
            assert_eq!(store.get(&name).await.unwrap().unwrap(), format!("{}", landed[0]), "{store:?}");
        }
    }
}

#[tokio::test]
async fn names_list_back_as_they_were_given_sorted_and_by_folder() {
    let (_dir, stores) = all();
    for store in stores {
        let given = [
            "data/day=2024-01-01 00%3A00/f#1.parquet",
            "data/x y/%.parquet",
            "data/z/ü.parquet",
            "data2/no",
            "_dedupe/table.json",
            "top",
        ];
        for name in given {
            store.put(name, Bytes::from(name)).await.unwrap();
        }
        let mut sorted = given.to_vec();
        sorted.sort_unstable();
        assert_eq!(names(&store.list("").await.unwrap()), sorted, "{store:?}");
        assert_eq!(names(&store.list("data").await.unwrap()), sorted[1..4], "{store:?}");
        assert_eq!(names(&store.list("data/").await.unwrap()), sorted[1..4], "{store:?}");
        let after = store.list_after("data", Some(sorted[1])).await.unwrap();
        assert_eq!(names(&after), sorted[2..4], "{store:?}");
        assert!(store.list("absent").await.unwrap().is_empty(), "{store:?}");
        for listed in store.list("").await.unwrap() {
            assert_eq!(listed.size, listed.name.len() as u64);
            assert_eq!(store.get(&listed.name).await.unwrap().unwrap(), listed.name, "{store:?}");
            assert_eq!(store.head(&listed.name).await.unwrap().unwrap().size, listed.size);
        }
        assert!(store.location_of(given[0]).ends_with(given[0]), "{store:?}");
        store.delete(given[0]).await.unwrap();
        assert_eq!(store.get(given[0]).await.unwrap(), None, "{store:?}");
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
    #[test]
    fn any_sound_name_lists_back_as_it_was_given(parts in proptest::collection::vec("[^/\\x00-\\x1f\\x7f]{1,20}", 1..4)) {
        proptest::prop_assume!(parts.iter().all(|part| part != "." && part != ".."));
        let name = parts.join("/");
        proptest::prop_assume!(!parts.iter().any(|part| part.starts_with(TEMPORARY_PREFIX)));
        let (_dir, stores) = all();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            // The third would need a server that quotes all of XML.
            for store in &stores[..3] {
                store.put(&name, Bytes::from(name.clone())).await.unwrap();
                assert_eq!(names(&store.list("").await.unwrap()), [name.as_str()], "{store:?}");
                assert_eq!(store.get(&name).await.unwrap().unwrap(), name.as_str(), "{store:?}");
            }
        });
    }
}

#[tokio::test]
async fn large_objects_come_whole_in_pieces() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket", &server.options()).unwrap();
    let whole: Vec<u8> = (0..40_000_000u32).map(|i| (i % 251) as u8).collect();
    server.plant("bucket/x", &whole);
    assert!(store.get("x").await.unwrap().unwrap() == whole);
    // One that tells how long it is, and three pieces.
    assert_eq!(server.requests(), 4);
    assert!(store.get_range("x", 1..39_999_999).await.unwrap() == whole[1..39_999_999]);
    assert_eq!(server.requests(), 7);
    assert!(store.get_range("x", 0..40_000_001).await.is_err());
    assert!(store.get_range("x", 0..u64::MAX / 2).await.is_err());
}

#[tokio::test]
async fn ranges_are_exact_or_an_error() {
    let (_dir, stores) = all();
    for store in stores {
        store.put("o", Bytes::from_static(b"0123456789")).await.unwrap();
        assert_eq!(store.get_range("o", 2..5).await.unwrap(), "234");
        assert_eq!(store.get_range("o", 5..5).await.unwrap(), "");
        assert_eq!(store.get_ranges("o", &[8..10, 3..3, 0..1]).await.unwrap(), ["89", "", "0"]);
        for range in [8..11, 10..12, 90..91, 0..u64::MAX] {
            assert!(store.get_range("o", range.clone()).await.is_err(), "{store:?} {range:?}");
            assert!(
                store.get_ranges("o", std::slice::from_ref(&range)).await.is_err(),
                "{store:?} {range:?}"
            );
        }
        #[expect(clippy::reversed_empty_ranges, reason = "hostile input may hold one")]
        let reversed = 5..2;
        assert!(store.get_range("o", reversed).await.is_err(), "{store:?}");
        assert!(store.get_range("absent", 0..1).await.is_err(), "{store:?}");
        assert!(matches!(store.get_limited("o", 9).await, Err(Error::Corrupt { .. })), "{store:?}");
        assert_eq!(store.get_limited("o", 10).await.unwrap().unwrap().len(), 10, "{store:?}");
    }
}

#[tokio::test]
async fn an_upload_appears_whole_at_its_end_or_never() {
    let (_dir, stores) = all();
    for store in stores {
        for (name, size) in [("data/empty", 0), ("data/small", 1000), ("data/large", 20 << 20)] {
            let whole: Vec<u8> = (0..size).map(|i: u32| (i % 251) as u8).collect();
            let mut upload = store.create(name).await.unwrap();
            for piece in whole.chunks(300_007) {
                upload.write(Bytes::copy_from_slice(piece)).await.unwrap();
            }
            assert_eq!(store.head(name).await.unwrap(), None, "{store:?}");
            assert_eq!(upload.finish().await.unwrap(), u64::from(size), "{store:?}");
            assert!(store.get(name).await.unwrap().unwrap() == whole, "{store:?}");
        }
        let mut dropped = store.create("data/dropped").await.unwrap();
        dropped.write(Bytes::from(vec![1; 9 << 20])).await.unwrap();
        drop(dropped);
        assert_eq!(
            names(&store.list("").await.unwrap()),
            ["data/empty", "data/large", "data/small"],
            "{store:?}"
        );
        assert_eq!(store.leftovers().await.unwrap(), [], "{store:?}");
    }
}

#[tokio::test]
async fn an_upload_of_whole_parts_has_no_empty_one_behind_them() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket", &server.options()).unwrap();
    for (parts, requests) in [(0, 1), (1, 3), (2, 4)] {
        let before = server.requests();
        let mut upload = store.create("x").await.unwrap();
        upload.write(vec![7; parts * multipart::PART_SIZE].into()).await.unwrap();
        upload.finish().await.unwrap();
        // Its beginning, its parts and its end; what is smaller is one put.
        assert_eq!(server.requests() - before, requests, "{parts} parts");
    }
}

#[tokio::test]
async fn the_parts_of_an_upload_that_is_dropped_are_taken_back() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket", &server.options()).unwrap();
    let mut upload = store.create("x").await.unwrap();
    upload.write(vec![7; 2 * multipart::PART_SIZE].into()).await.unwrap();
    let until = async |parts: usize| {
        while server.parts() != parts {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), until(2)).await.unwrap();
    drop(upload);
    tokio::time::timeout(Duration::from_secs(60), until(0)).await.unwrap();
}

#[tokio::test]
async fn names_that_could_lead_astray_are_refused() {
    let (_dir, stores) = all();
    for store in stores {
        for name in ["", "/a", "a/", "a//b", "../a", "a/..", "a/./b", "a\nb", "a\0b"] {
            assert!(matches!(store.put_once(name, Bytes::new()).await, Put::Failed(_)), "{store:?} {name:?}");
            assert!(store.get(name).await.is_err(), "{store:?} {name:?}");
            assert!(store.delete(name).await.is_err(), "{store:?} {name:?}");
            assert!(store.create(name).await.is_err(), "{store:?} {name:?}");
        }
        assert!(store.list("../..").await.is_err(), "{store:?}");
    }
}

#[tokio::test]
async fn sound_stores_pass_the_probe_and_are_left_as_they_were() {
    let (_dir, stores) = all();
    for store in stores {
        store.probe().await.unwrap();
        assert!(store.list("").await.unwrap().is_empty(), "{store:?}");
    }
}

#[test]
fn every_store_also_works_on_a_multi_threaded_runtime() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let (_dir, stores) = all();
        for store in stores {
            store.probe().await.unwrap();
        }
    });
}

#[tokio::test]
async fn what_a_crash_leaves_on_disk_is_invisible_and_harmless() {
    let (_dir, store, local) = on_disk();
    store.put("data/whole", "whole".into()).await.unwrap();
    std::fs::write(local.path_of(&format!("data/{TEMPORARY_PREFIX}torn")), "tor").unwrap();
    assert_eq!(names(&store.list("").await.unwrap()), ["data/whole"]);
    let leftovers = store.leftovers().await.unwrap();
    assert_eq!(names(&leftovers), [format!("data/{TEMPORARY_PREFIX}torn")]);
    assert_eq!(put_once(&store, "data/torn", "new").await, "landed");
    store.delete(&leftovers[0].name).await.unwrap();
    assert_eq!(store.leftovers().await.unwrap(), []);
    assert_eq!(names(&store.list("").await.unwrap()), ["data/torn", "data/whole"]);
}

#[tokio::test]
async fn a_folder_that_cannot_be_synced_makes_the_outcome_unknown_and_poisons_the_store() {
    let (_dir, store, local) = on_disk();
    assert_eq!(put_once(&store, "ledger/1", "one").await, "landed");
    local.fail_folder_sync.store(true, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(put_once(&store, "ledger/2", "two").await, "unknown");
    local.fail_folder_sync.store(false, std::sync::atomic::Ordering::SeqCst);
    // Whoever reads it back now could believe that it lasts.
    let error = store.get("ledger/2").await.unwrap_err().to_string();
    assert!(error.contains("check the disk"), "{error}");
    assert_eq!(put_once(&store, "ledger/3", "three").await, "failed");
    assert!(store.is_poisoned());
}

#[tokio::test]
async fn names_of_others_are_settled_and_poison_nothing_where_all_goes_well() {
    let (_dir, stores) = all();
    for store in stores {
        store.put("ledger/1", "one".into()).await.unwrap();
        store.settle("ledger").await.unwrap();
        assert!(!store.is_poisoned());
    }
    let (_dir, store, local) = on_disk();
    store.put("ledger/1", "one".into()).await.unwrap();
    local.fail_folder_sync.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(store.settle("ledger").await.is_err() && store.is_poisoned());
}

#[tokio::test]
async fn a_store_shows_where_it_lies() {
    let (_dir, stores) = all();
    let disk = stores[0].local_path("").unwrap().display().to_string();
    assert!(disk.ends_with(AWKWARD));
    for (store, url) in stores.iter().zip([&disk, "memory://root", "memory://folder"]) {
        assert_eq!((store.url().as_str(), format!("{store:?}")), (url, format!("Store({url})")));
        assert_eq!(store.location_of("a/b"), format!("{url}/a/b"));
    }
    assert_eq!(stores[1].local_path(""), None);
}

#[tokio::test]
async fn only_a_store_far_away_gets_a_cache() {
    let (_dir, stores) = all();
    let folder = tempfile::tempdir().unwrap();
    for (store, cached) in stores.into_iter().zip([false, true, true, true]) {
        assert!(store.cache().is_none());
        assert_eq!(store.with_cache(folder.path(), 1 << 20).unwrap().cache().is_some(), cached);
    }
}

#[tokio::test]
async fn what_was_changed_since_it_was_looked_at_is_not_read() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket", &server.options()).unwrap();
    server.plant("bucket/x", b"0123456789");
    let tag = store.head("x").await.unwrap().unwrap().etag.unwrap();
    let read = async |tag: &str| store.get_range_of("x", 2..5, Some(tag)).await;
    assert_eq!(read(&tag).await.unwrap(), "234");
    assert_eq!(read(bare_tag(&tag)).await.unwrap(), "234", "with or without quotes");
    server.plant("bucket/x", b"abcdefghij");
    let error = read(&tag).await.unwrap_err();
    assert!(matches!(&error, Error::Input { reason, .. } if reason.contains("changed while")), "{error}");
}

#[tokio::test]
async fn two_handles_on_one_folder_see_the_same_names() {
    let (_dir, store, local) = on_disk();
    let other = Store::open(local.path_of("").to_str().unwrap(), &[]).unwrap();
    assert_eq!(put_once(&store, "x", "one").await, "landed");
    assert_eq!(put_once(&other, "x", "two").await, "taken");
    assert_eq!(other.get("x").await.unwrap().unwrap(), "one");
    assert_eq!(store.local_path("x").unwrap().to_str().unwrap(), store.location_of("x"));
    let error = Store::open(&store.location_of("x"), &[]).unwrap_err().to_string();
    assert!(error.contains("not a folder"), "{error}");
}

#[tokio::test]
async fn an_upload_never_replaces_an_object_on_disk() {
    let (_dir, store, _) = on_disk();
    store.put("x", "old".into()).await.unwrap();
    let upload = store.create("x").await.unwrap();
    assert!(upload.finish().await.is_err());
    assert_eq!(store.get("x").await.unwrap().unwrap(), "old");
}

/// The table of `put_once` against a server that lies: what it did, what may be said, whether the object is there.
#[tokio::test]
async fn each_conditional_put_is_one_request_and_only_a_plain_success_is_landed() {
    let cases = [
        (Mood::Honest, "landed", true),
        (Mood::StoreThenStatus(500), "unknown", true),
        (Mood::StoreThenStatus(503), "unknown", true),
        (Mood::StoreThenStatus(429), "unknown", true),
        (Mood::StoreThenStatus(408), "unknown", true),
        (Mood::StoreThenClose, "unknown", true),
        (Mood::StoreThenHang, "unknown", true),
        (Mood::Conflict, "taken", false),
        (Mood::Forbid, "unknown", false),
        (Mood::NoBucket, "unknown", false),
    ];
    let account = r#"{"disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}"#;
    let google = [("base_url", ""), ("service_account_key", account)];
    let azure = [("endpoint", ""), ("account_name", "planted"), ("account_key", "UExBTlRFRA==")];
    for (mood, said, there) in cases {
        for cloud in ["s3", "gs", "az"] {
            let server = Loopback::start();
            let options = match cloud {
                "s3" => server.options(),
                "gs" => server.options_of(&google),
                _ => server.options_of(&azure),
            };
            let store = Store::open(&format!("{cloud}://bucket/table"), &options).unwrap();
            server.set(mood);
            assert_eq!(put_once(&store, "log/1", "mine").await, said, "{mood:?} {cloud}");
            assert_eq!(server.requests(), 1, "{mood:?} {cloud}");
            assert_eq!(server.object("bucket/table/log/1").is_some(), there, "{mood:?} {cloud}");
            server.set(Mood::Honest);
            assert_eq!(store.get("log/1").await.unwrap().is_some(), there, "{mood:?} {cloud}");
            server.plant("bucket/table/log/1", b"theirs");
            assert_eq!(put_once(&store, "log/1", "mine").await, "taken", "{mood:?} {cloud}");
            assert_eq!(server.object("bucket/table/log/1").unwrap(), b"theirs", "{mood:?} {cloud}");
        }
    }
}

#[tokio::test]
async fn ordinary_requests_are_repeated_within_bounds() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket", &server.options()).unwrap();
    server.plant("bucket/x", b"0123456789");
    server.set(Mood::CutBodies);
    assert_eq!(store.get_range("x", 0..10).await.unwrap(), "0123456789");
    let before = server.requests();
    assert!(before > 1);
    server.set(Mood::Down);
    let watch = crate::clock::Stopwatch::start();
    assert!(store.get("x").await.is_err());
    assert!(server.requests() > before + 1);
    assert!(watch.seconds() < 10.0, "{}", watch.seconds());
}

#[tokio::test]
async fn a_store_that_ignores_conditions_is_refused_by_name_of_the_broken_promise() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket/table", &server.options()).unwrap();
    server.set(Mood::IgnoreConditions);
    let error = store.probe().await.unwrap_err();
    assert!(matches!(error, Error::Refused(_)), "{error:?}");
    assert!(error.to_string().contains("ignores If-None-Match"), "{error}");
    assert!(server.object("bucket/table/").is_none());
}

#[tokio::test]
async fn a_missing_bucket_is_an_error_and_no_empty_table() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket/table", &server.options()).unwrap();
    server.set(Mood::NoBucket);
    let error = store.get("_dedupe/table.json").await.unwrap_err().to_string();
    assert!(error.contains("The bucket does not exist"), "{error}");
}

#[tokio::test]
async fn secrets_never_show() {
    let server = Loopback::start();
    let mut options = server.options();
    options.push(("session_token".into(), "PLANTED-TOKEN".into()));
    let store = Store::open("s3://bucket/table", &options).unwrap();
    server.set(Mood::Forbid);
    let errors = [
        store.get("x").await.unwrap_err(),
        store.list("").await.unwrap_err(),
        store.probe().await.unwrap_err(),
        store.create("x").await.unwrap().finish().await.unwrap_err(),
        match store.put_once("x", "y".into()).await {
            Put::Unknown(error) => error,
            other => panic!("{other:?}"),
        },
    ];
    let upload = store.create("x").await.unwrap();
    let mut shown = format!("{store:?} {} {upload:?}", store.url());
    assert!(shown.contains("RemoteUpload(s3://bucket/table/x, 0 bytes)"), "{shown}");
    for error in errors {
        assert!(error.to_string().contains("Check the credentials"), "{error}");
        shown.push_str(&format!("{error} {error:?} {error:#?}"));
    }
    for secret in [SECRET, ACCESS_KEY, "PLANTED", "AWS4-HMAC"] {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
}

#[tokio::test]
async fn a_silent_endpoint_fails_with_advice_within_its_time_out() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket/table", &server.options()).unwrap();
    server.set(Mood::StoreThenHang);
    let Put::Unknown(error) = store.put_once("x", "y".into()).await else { panic!() };
    assert!(error.to_string().contains("--store-option timeout="), "{error}");
}

#[tokio::test]
async fn a_dead_endpoint_fails_with_advice_soon() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let mut options = Loopback::start().options();
    options[0].1 = format!("http://127.0.0.1:{port}");
    let store = Store::open("s3://bucket/table", &options).unwrap();
    let outcome = tokio::time::timeout(Duration::from_secs(15), store.get("x")).await;
    let error = outcome.unwrap().unwrap_err().to_string();
    assert!(error.contains("No connection: check the endpoint"), "{error}");
}

#[tokio::test]
#[ignore = "takes half a minute"]
async fn by_default_a_silent_endpoint_is_an_error_after_half_a_minute() {
    // Connections are taken by the system and never answered.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut options = Loopback::start().options();
    options.retain(|(name, _)| !name.contains("timeout"));
    options[0].1 = format!("http://127.0.0.1:{}", silent.local_addr().unwrap().port());
    let store = Store::open("s3://bucket/table", &options).unwrap();
    let watch = crate::clock::Stopwatch::start();
    let error = store.get("x").await.unwrap_err().to_string();
    assert!(error.contains("No answer in time"), "{error}");
    assert!((25.0..40.0).contains(&watch.seconds()), "{}", watch.seconds());
}

#[test]
fn wrong_options_are_named_with_their_alternatives() {
    let open = |name: &str, value: &str| {
        Store::open("s3://bucket", &[(name.to_owned(), value.to_owned())])
            .map(|_| ())
            .map_err(|e| e.to_string())
    };
    assert!(open("regoin", "x").unwrap_err().contains("unknown store option \"regoin\"; known are region"));
    assert!(open("retry_timeout", "soon").unwrap_err().contains("expected a time such as 10s"));
    assert!(open("timeout", "soon").unwrap_err().contains("cannot be set up"));
    assert!(open("secret_access_kye", "PLANTED-VALUE").map_err(|e| assert!(!e.contains("PLANTED"))).is_err());
    assert_eq!(open("timeout", "5"), Ok(()));
    assert_eq!(open("max_retries", "0"), Ok(()));
}
