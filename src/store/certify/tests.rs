//! For each promise a store that breaks it, and sound stores that break none.

use super::*;
use crate::store::loopback::{Loopback, Mood};
use async_trait::async_trait;
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, memory::InMemory, path::Path,
};
use std::sync::{Arc, Mutex};

/// A store that breaks one promise.
#[derive(Debug)]
struct Sinner {
    inner: Arc<InMemory>,
    sin: Promise,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Names that were asked for when they were absent.
    asked: BTreeSet<String>,
    /// Deleted objects, with what they held.
    deleted: Vec<(Path, bytes::Bytes)>,
    last_put: Option<Path>,
}

impl Sinner {
    fn store(sin: Promise) -> (Store, Arc<InMemory>) {
        let inner = Arc::new(InMemory::new());
        let sinner = Self { inner: Arc::clone(&inner), sin, state: Arc::default() };
        (Store::from_object_store(Arc::new(sinner), "table", "memory:"), inner)
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl fmt::Display for Sinner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sinner({})", self.sin)
    }
}

type Answered<T> = object_store::Result<T>;

#[async_trait]
impl ObjectStore for Sinner {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Answered<PutResult> {
        self.state().last_put = Some(path.clone());
        let exists = self.inner.head(path).await.is_ok();
        match self.sin {
            Promise::CreateOnce => return self.inner.put(path, payload).await,
            Promise::RefusedWrite if exists => drop(self.inner.put(path, payload.clone()).await?),
            Promise::Race if !exists => {
                // Looks, and writes later.
                tokio::task::yield_now().await;
                return self.inner.put(path, payload).await;
            }
            Promise::CreateAfterDelete
                if options.mode == PutMode::Create
                    && self.state().deleted.iter().any(|(deleted, _)| deleted == path) =>
            {
                let (path, source) = (path.to_string(), "planted".into());
                return Err(object_store::Error::AlreadyExists { path, source });
            }
            _ => {}
        }
        self.inner.put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Answered<Box<dyn MultipartUpload>> {
        if self.sin == Promise::LargeObject {
            self.inner.put(path, "a beginning".into()).await?;
        }
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Answered<GetResult> {
        let name = path.to_string();
        match self.sin {
            Promise::ReadAfterWrite if self.inner.head(path).await.is_err() => {
                self.state().asked.insert(name);
            }
            // What was absent once stays absent for this one.
            Promise::ReadAfterWrite if self.state().asked.contains(&name) => {
                return Err(object_store::Error::NotFound { path: name, source: "planted".into() });
            }
            Promise::ReadAfterDelete if self.inner.head(path).await.is_err() => {
                let ghost = self.state().deleted.iter().find(|(deleted, _)| deleted == path).cloned();
                if let Some((path, bytes)) = ghost {
                    let elsewhere = InMemory::new();
                    elsewhere.put(&path, bytes.into()).await?;
                    return elsewhere.get_opts(&path, options).await;
                }
            }
            Promise::Ranges if options.range.is_some() => {
                // The right number of bytes, the wrong ones.
                let mut result = self.inner.get_opts(path, options).await?;
                let (range, meta) = (result.range.clone(), result.meta.clone());
                let wrong = vec![0; (range.end - range.start) as usize];
                let bytes = stream::iter([Ok(bytes::Bytes::from(wrong))]).boxed();
                result.payload = object_store::GetResultPayload::Stream(bytes);
                return Ok(GetResult { range, meta, ..result });
            }
            _ => {}
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Answered<Path>>) -> BoxStream<'static, Answered<Path>> {
        let (inner, state) = (Arc::clone(&self.inner), Arc::clone(&self.state));
        let deleting = paths.and_then(move |path| {
            let (inner, state) = (Arc::clone(&inner), Arc::clone(&state));
            async move {
                if let Ok(found) = inner.get(&path).await {
                    let bytes = found.bytes().await?;
                    state.lock().unwrap().deleted.push((path.clone(), bytes));
                    inner.delete(&path).await?;
                }
                Ok(path)
            }
        });
        deleting.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Answered<ObjectMeta>> {
        let (sin, last, deleted) = {
            let state = self.state();
            (self.sin, state.last_put.clone(), state.deleted.clone())
        };
        let shown = self.inner.list(prefix).try_filter(move |meta| {
            std::future::ready(sin != Promise::ListAfterWrite || Some(&meta.location) != last.as_ref())
        });
        if sin != Promise::ListAfterDelete {
            return shown.boxed();
        }
        let ghosts: Vec<_> = deleted
            .into_iter()
            .map(|(location, bytes)| {
                let last_modified = crate::clock::now();
                let (size, e_tag, version) = (bytes.len() as u64, None, None);
                Ok(ObjectMeta { location, last_modified, size, e_tag, version })
            })
            .collect();
        shown.chain(stream::iter(ghosts)).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Answered<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Answered<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

async fn certify(clients: Vec<Store>) -> Certificate {
    let certifier = Certifier::new(clients, Extent::FULL).unwrap();
    let certificate = certifier.run().await;
    assert_eq!(certifier.clean_up().await, Vec::<String>::new());
    certificate
}

fn broken(certificate: &Certificate) -> Vec<Promise> {
    certificate.broken().map(|finding| finding.promise).collect()
}

#[tokio::test]
async fn every_broken_promise_is_found_and_named_and_nothing_stays_behind() {
    for sin in Promise::ALL {
        let (store, inner) = Sinner::store(sin);
        let certificate = certify(vec![store.clone(); 16]).await;
        let found = broken(&certificate);
        assert!(found.contains(&sin), "{sin}: {:#?}", certificate.findings);
        // Others only where they follow from it.
        let follows: &[Promise] = match sin {
            Promise::CreateOnce => &[Promise::Race],
            Promise::RefusedWrite => &[Promise::Race],
            Promise::ReadAfterWrite => {
                &[Promise::RefusedWrite, Promise::Race, Promise::CreateAfterDelete, Promise::LargeObject]
            }
            Promise::ReadAfterDelete => &[Promise::CreateAfterDelete],
            Promise::Ranges => &[Promise::LargeObject],
            _ => &[],
        };
        let strange: Vec<_> =
            found.iter().filter(|other| **other != sin && !follows.contains(other)).collect();
        assert!(strange.is_empty(), "{sin}: {:#?}", certificate.findings);
        assert_eq!(inner.list(None).count().await, 0, "{sin}");
    }
}

#[tokio::test]
async fn a_table_is_refused_by_the_name_of_the_broken_promise() {
    for sin in Promise::ALL {
        let (store, inner) = Sinner::store(sin);
        // What no commit rests on is left to those who ask.
        if matches!(sin, Promise::ListAfterDelete | Promise::Ranges | Promise::LargeObject) {
            store.probe().await.unwrap();
            continue;
        }
        let error = store.probe().await.unwrap_err();
        assert!(matches!(error, Error::Refused(_)), "{error:?}");
        let text = error.to_string();
        assert!(Promise::ALL.iter().any(|p| text.contains(&format!("breaks the promise {p} ("))), "{text}");
        if sin != Promise::ReadAfterWrite {
            assert!(text.contains(&format!("promise {sin} (")), "{sin}: {text}");
        }
        let brave = text.contains("--i-know-the-risk single-writer");
        assert_eq!(brave, sin.protects_from_others() || sin == Promise::ReadAfterWrite, "{text}");
        let alone = store.probe_for_one_writer().await;
        assert_eq!(alone.is_ok_and(|marked| marked), sin.protects_from_others(), "{sin}");
        assert_eq!(inner.list(None).count().await, 0, "{sin}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn sound_stores_are_certified_and_left_as_they_were() {
    let dir = tempfile::tempdir().unwrap();
    let server = Loopback::start();
    let table = dir.path().join("a/b/table").display().to_string();
    let memory = Store::from_object_store(Arc::new(InMemory::new()), "x", "memory:");
    let stores: [(&str, Vec<Store>); 3] = [
        ("disk", (0..16).map(|_| Store::open(&table, &[]).unwrap()).collect()),
        ("memory", vec![memory; 16]),
        ("s3", (0..16).map(|_| Store::open("s3://bucket/t", &server.options()).unwrap()).collect()),
    ];
    for (name, clients) in stores {
        let store = clients[0].clone();
        let certificate = certify(clients).await;
        assert!(certificate.is_clean(), "{name}: {:#?}", certificate.findings);
        assert_eq!(certificate.findings.len(), Promise::ALL.len());
        assert_eq!((certificate.clients, certificate.rounds), (16, Extent::FULL.rounds));
        for latency in [certificate.put, certificate.get, certificate.list] {
            assert!(latency.requests > 10 && latency.worst_ms >= latency.median_ms, "{latency:?}");
        }
        assert!(certificate.clock_ahead_seconds.is_some());
        assert!(store.list("").await.unwrap().is_empty(), "{name}");
    }
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "folders stayed behind");
}

#[tokio::test]
async fn a_folder_that_was_there_stays_there() {
    let dir = tempfile::tempdir().unwrap();
    let store = || Store::open(dir.path().to_str().unwrap(), &[]).unwrap();
    store().put("data/x", "mine".into()).await.unwrap();
    std::fs::create_dir(dir.path().join("_dedupe")).unwrap();
    assert!(certify(vec![store(), store()]).await.is_clean());
    assert_eq!(store().list("").await.unwrap().len(), 1);
    assert!(dir.path().join("_dedupe").is_dir());
    assert_eq!(std::fs::read_dir(dir.path().join("_dedupe")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_certification_that_is_dropped_half_way_is_cleaned_up() {
    let inner = Arc::new(InMemory::new());
    let slow = object_store::throttle::ThrottledStore::new(
        Arc::clone(&inner),
        object_store::throttle::ThrottleConfig {
            wait_get_per_call: std::time::Duration::from_millis(5),
            ..Default::default()
        },
    );
    let store = Store::from_object_store(Arc::new(slow), "t", "memory:");
    let certifier = Certifier::new(vec![store; 4], Extent::FULL).unwrap();
    let dropped = tokio::time::timeout(std::time::Duration::from_millis(100), certifier.run()).await;
    assert!(dropped.is_err());
    assert!(inner.list(None).count().await > 0);
    assert_eq!(certifier.clean_up().await, Vec::<String>::new());
    assert_eq!(inner.list(None).count().await, 0);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_neither_kept_nor_broken() {
    let server = Loopback::start();
    server.set(Mood::Forbid);
    let store = Store::open("s3://bucket/t", &server.options()).unwrap();
    let certificate = Certifier::new(vec![store.clone()], Extent::FULL).unwrap().run().await;
    assert!(certificate.findings.iter().all(|finding| finding.answer == Answer::NotChecked));
    assert_eq!(certificate.findings.len(), Promise::ALL.len());
    let error = store.probe().await.unwrap_err();
    assert!(
        matches!(error, Error::Store { .. }) && error.to_string().contains("Check the credentials"),
        "{error}"
    );
}

#[tokio::test]
async fn a_store_without_conditions_is_found_out_and_may_serve_one_writer() {
    let server = Loopback::start();
    let store = Store::open("s3://bucket/t", &server.options()).unwrap();
    for mood in [Mood::NoConditions, Mood::IgnoreConditions] {
        server.set(mood);
        let certificate = certify(vec![store.clone(); 4]).await;
        let found = broken(&certificate);
        assert!(found.contains(&Promise::CreateOnce), "{certificate:#?}");
        assert!(found.iter().all(|promise| promise.protects_from_others()), "{certificate:#?}");
        let error = store.probe().await.unwrap_err().to_string();
        assert!(error.contains("promise create-once ("), "{error}");
        assert!(store.probe_for_one_writer().await.unwrap());
        assert!(store.list("").await.unwrap().is_empty());
    }
    server.set(Mood::Honest);
    assert!(!store.probe_for_one_writer().await.unwrap(), "nothing to be brave about");
}

/// Time stands still but for the waits of the store, so that it counts them.
#[tokio::test(start_paused = true)]
async fn whoever_creates_a_table_waits_for_few_answers_in_sequence() {
    let wait = std::time::Duration::from_millis(50);
    let config = object_store::throttle::ThrottleConfig {
        wait_get_per_call: wait,
        wait_put_per_call: wait,
        wait_list_per_call: wait,
        wait_delete_per_call: wait,
        ..Default::default()
    };
    let slow = object_store::throttle::ThrottledStore::new(InMemory::new(), config);
    let store = Store::from_object_store(Arc::new(slow), "t", "memory:");
    let begun = crate::clock::timer();
    let mut known = 0.0;
    store.probe_and_tell(|| known = begun.elapsed().div_duration_f64(wait)).await.unwrap();
    let waits = begun.elapsed().div_duration_f64(wait);
    assert!(known < 5.0 && waits < 7.0, "{known} waits until it is known, {waits} in all");
}
