//! Sixteen writers that share a tenth of their keys, on a store where every request takes 30 ms: how much of sixteen
//! times one writer's pace they keep, how long each commit waits, and that nobody starves.
//!
//! Time is virtual, so the figures are the same on every machine, and what is asserted is no matter of luck.
//! `DEDUPE_PACE=all cargo test --test promises many_writers_keep_their_pace -- --nocapture` prints the whole table.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::writer::{Place, batch, proposer, rows, schema, with};
use async_trait::async_trait;
use dedupe::ledger::Ledger;
use dedupe::ledger::entry::SourceUse;
use dedupe::policy::Policy;
use dedupe::session::{Chunk, Rows, Session};
use dedupe::sink::SinkOptions;
use dedupe::store::Store;
use dedupe::upkeep::compact::compact_if_due;
use dedupe::workers::Workers;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::time::Instant;

/// Half of it before the store does what it is asked, half of it after.
const LATENCY: Duration = Duration::from_millis(30);

/// A store that is so far away, and how often each session proposed.
#[derive(Debug)]
struct Far(InMemory, Arc<Mutex<BTreeMap<String, u64>>>);

impl Far {
    async fn half_way(&self) {
        tokio::time::sleep(LATENCY / 2).await;
    }
}

impl std::fmt::Display for Far {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Far")
    }
}

#[async_trait]
impl ObjectStore for Far {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if path.as_ref().contains("/ledger/") {
            let manifest: serde_json::Value = serde_json::from_slice(&payload.as_ref().concat()).unwrap();
            if manifest["kind"] == "ingest" {
                let session = manifest["session"].as_str().unwrap().to_owned();
                *self.1.lock().unwrap().entry(session).or_default() += 1;
            }
        }
        self.half_way().await;
        let result = self.0.put_opts(path, payload, options).await;
        self.half_way().await;
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.half_way().await;
        let result = self.0.get_opts(path, options).await;
        self.half_way().await;
        result
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.0.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = self.0.list(prefix);
        stream::once(async move {
            tokio::time::sleep(LATENCY).await;
            listed
        })
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.0.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.copy_opts(from, to, options).await
    }
}

/// What writers do: so many rows a commit, a tenth of them with keys that others bring as well, and so long a time in
/// which rows are read and encoded.
#[derive(Debug, Clone, Copy)]
struct Work {
    rows: u64,
    staging: Duration,
    commits: u64,
}

/// What came of it.
#[derive(Debug)]
struct Pace {
    /// Rows a virtual second that were read, judged and committed: the sum of what each writer got done a second between
    /// its own first and last moment.
    goodput: f64,
    /// Proposals it took, by commit, ascending.
    proposals: Vec<u64>,
    /// From the first proposal to the answer, by commit, ascending.
    waited: Vec<Duration>,
    /// The pace of the slowest writer, as a share of the pace of the quickest.
    slowest: f64,
    duplicates: u64,
}

/// One writer's session after the other, on the ledger that the last commit gave back.
async fn write(
    who: u64,
    work: Work,
    mut ledger: Ledger,
    done: Rc<RefCell<Vec<(u64, Instant, Duration)>>>,
) -> u64 {
    let workers = Workers::new(std::num::NonZeroUsize::MIN);
    let own = Arc::new(schema(&[]));
    let mut duplicates = 0;
    for commit in 0..work.commits {
        let contract = ledger.state().schema.clone().unwrap_or((*own).clone());
        let options = with(|options| options.sink = SinkOptions::default());
        let mut session = Session::begin(ledger, Arc::new(contract), options, &workers).await.unwrap();
        let source = session.add_source(SourceUse::default()).unwrap();
        tokio::time::sleep(work.staging).await;
        // Nine tenths of its own; a tenth that all writers bring in the same round.
        let (shared, first) = (work.rows / 10, (who * 1_000 + commit) * 1_000_000);
        let mut all = rows(first..first + work.rows - shared, 0);
        let common = u64::MAX / 2 + commit * 1_000_000;
        all.extend(rows(common..common + shared, who as i64));
        let chunk = batch(&own, &all);
        let key = session.identity().token.bind(&own, "rows").unwrap();
        let verdicts = session.judge_tokens(source, &key.tokenise(&chunk).unwrap()).await.unwrap();
        session.write(Rows { source, chunk: Chunk::Batch(chunk), verdicts }).await.unwrap();
        session.seal().await.unwrap();
        let begun = Instant::now();
        let (committed, next) = session.commit().await.unwrap();
        assert_eq!(committed.rows.read, work.rows);
        duplicates += committed.rows.duplicate;
        done.borrow_mut().push((who, Instant::now(), begun.elapsed()));
        ledger = next;
    }
    duplicates
}

fn pace(writers: u64, work: Work) -> Pace {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let state = Cell::new(7u128);
    let _random = dedupe::random::drive(move || {
        state.set(state.get().wrapping_mul(0xDA94_2042_E4DD_58B5_DA94_2042_E4DD_58B5).wrapping_add(1));
        let mixed = (state.get() >> 64) as u64;
        u128::from(mixed ^ (mixed >> 29)) << 64 | u128::from(mixed)
    });
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let proposals = Arc::default();
        let far = Far(InMemory::new(), Arc::clone(&proposals));
        let store = Store::from_object_store(Arc::new(far), "table", "far:");
        let identity = Place::memory(&Policy::default()).await.ledger().await.identity().clone();
        Ledger::create(store.clone(), identity, Policy::default(), &proposer()).await.unwrap();
        let done = Rc::new(RefCell::new(Vec::new()));
        let begun = Instant::now();
        let mut tasks = Vec::new();
        for who in 0..writers {
            let (store, done) = (store.clone(), Rc::clone(&done));
            tasks.push(tokio::task::spawn_local(async move {
                // They do not begin at the same moment.
                tokio::time::sleep(work.staging * who as u32 / writers as u32).await;
                let ledger = Ledger::open(store).await.unwrap().unwrap();
                write(who, work, ledger, done).await
            }));
        }
        // Somebody merges runs meanwhile, as a service beside the writers does.
        let keeper = tokio::task::spawn_local(async move {
            let mut ledger = Ledger::open(store).await.unwrap().unwrap();
            loop {
                tokio::time::sleep(Duration::from_secs(2)).await;
                ledger.refresh().await.unwrap();
                compact_if_due(&mut ledger, 64 << 20).await.unwrap();
            }
        });
        let mut duplicates = 0;
        for task in tasks {
            duplicates += task.await.unwrap();
        }
        keeper.abort();
        let done = done.borrow();
        let paces = (0..writers).map(|who| {
            let own = done.iter().filter(|(by, _, _)| *by == who).map(|(_, at, _)| *at);
            let took = own.max().unwrap() - begun - work.staging * who as u32 / writers as u32;
            (work.commits * work.rows) as f64 / took.as_secs_f64()
        });
        let paces: Vec<f64> = paces.collect();
        let mut waited: Vec<Duration> = done.iter().map(|(_, _, waited)| *waited).collect();
        waited.sort_unstable();
        let mut proposals: Vec<u64> = proposals.lock().unwrap().values().copied().collect();
        proposals.sort_unstable();
        let quickest = paces.iter().copied().fold(0.0, f64::max);
        Pace {
            goodput: paces.iter().sum(),
            proposals,
            waited,
            slowest: paces.iter().copied().fold(quickest, f64::min) / quickest,
            duplicates,
        }
    })
}

impl Pace {
    fn tries(&self, share: f64) -> u64 {
        let last = self.proposals.len() - 1;
        self.proposals[(last as f64 * share).round() as usize]
    }

    fn at(&self, share: f64) -> u128 {
        let last = self.waited.len() - 1;
        self.waited[(last as f64 * share).round() as usize].as_millis()
    }
}

fn compare(rows: u64, seconds: f64, commits: u64) -> (f64, Pace) {
    let work = Work { rows, staging: Duration::from_secs_f64(seconds), commits };
    let alone = pace(1, work);
    let together = pace(16, work);
    let share = together.goodput / (16.0 * alone.goodput);
    println!(
        "{rows:6} rows, {seconds:4.1} s of staging: alone {:7.0} rows/s, a commit {:4} ms; sixteen {:7.0} rows/s, \
         {:5.1} % of linear; a commit waits {:5} ms (median), {:5} (p99), {:5} (longest), and takes {} tries (median), {} (p99), {} (most); the slowest at {:3.0} % of \
         the quickest; {} duplicates",
        alone.goodput,
        alone.at(0.5),
        together.goodput,
        share * 100.0,
        together.at(0.5),
        together.at(0.99),
        together.at(1.0),
        together.tries(0.5),
        together.tries(0.99),
        together.tries(1.0),
        together.slowest * 100.0,
        together.duplicates
    );
    (share, together)
}

#[test]
fn sixteen_writers_with_a_tenth_of_their_keys_in_common_keep_four_fifths_of_their_pace() {
    if std::env::var("DEDUPE_PACE").is_ok() {
        for rows in [250, 2_000] {
            for seconds in [0.5, 1.0, 2.0, 4.0, 8.0] {
                compare(rows, seconds, 8);
            }
        }
        return;
    }
    for (rows, seconds) in [(250, 1.5), (2_000, 4.0)] {
        let (share, pace) = compare(rows, seconds, 6);
        assert!(share >= 0.8, "{share}");
        assert!(pace.slowest >= 0.7, "somebody starved: {pace:?}");
        assert!(pace.duplicates > 0);
    }
}
