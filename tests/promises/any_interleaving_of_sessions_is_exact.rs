//! Several sessions on one table, begun, fed and committed in any order, with compactions and fences in between: what
//! each of them accepts, and what the table holds in the end, is what a plain `HashSet` says that sees the commits in
//! order.

use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroUsize;

use crate::writer::*;
use dedupe::ingest::ingest;
use dedupe::ledger::Body;
use dedupe::options::{IngestOptions, MIB};
use dedupe::policy::{NullKey, Policy};
use dedupe::report::Progress;
use dedupe::upkeep::compact::{compact, compact_if_due};
use dedupe::upkeep::verify::{VerifyOptions, verify};
use dedupe::verdict::Accounting;
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Begin,
    /// Feeds one of the live sessions.
    Feed(prop::sample::Index, Fed),
    /// Commits one of the live sessions.
    Commit(prop::sample::Index),
    Compact,
    Fence,
}

#[derive(Debug, Clone)]
enum Fed {
    /// Rows that nobody else has, in chunks.
    Rows(Vec<Vec<Row>>),
    /// One of a few sources that several may read: its rows follow from its number.
    Known(u8),
}

/// A session and what it was fed.
struct Live {
    writer: Writer,
    fed: Vec<(Option<u128>, Vec<Row>, bool)>,
    seen: BTreeMap<u128, u64>,
}

fn row() -> impl Strategy<Value = Row> {
    let id = prop_oneof![12 => (0u16..150).prop_map(|i| Some(format!("key-{i}"))), 1 => Just(None)];
    (id, 0i64..3)
}

fn step() -> impl Strategy<Value = Step> {
    let chunks = prop::collection::vec(prop::collection::vec(row(), 0..60), 1..4);
    prop_oneof![
        3 => Just(Step::Begin),
        6 => (any::<prop::sample::Index>(), chunks).prop_map(|(who, rows)| Step::Feed(who, Fed::Rows(rows))),
        2 => (any::<prop::sample::Index>(), 0u8..4).prop_map(|(who, n)| Step::Feed(who, Fed::Known(n))),
        3 => any::<prop::sample::Index>().prop_map(Step::Commit),
        1 => Just(Step::Compact),
        1 => Just(Step::Fence),
    ]
}

/// The rows of source `n`: large enough for runs where `n` is 3.
fn known_source(n: u8) -> Vec<Row> {
    let keys = u64::from(n) * 40..if n == 3 { 600 } else { u64::from(n) * 40 + 60 };
    [keyless(2, 7), rows(keys, 7), rows(0..3, 8)].concat()
}

/// What a plain set says of a commit.
fn expected(
    live: &Live,
    kept: &mut HashSet<String>,
    consumed: &BTreeMap<u128, u64>,
) -> (Accounting, Vec<Row>) {
    let mut rows = Accounting::default();
    let mut survivors = Vec::new();
    for (id, all, replay) in &live.fed {
        let overtaken = !replay && id.is_some_and(|id| consumed.contains_key(&id));
        for row in all {
            rows.read += 1;
            let fresh = row.0.as_ref().is_none_or(|id| !kept.contains(id));
            if overtaken || (*replay && row.0.is_none()) {
                rows.replayed += 1;
            } else if fresh {
                rows.accepted += 1;
                kept.extend(row.0.clone());
                survivors.push(row.clone());
            } else {
                rows.duplicate += 1;
            }
        }
    }
    (rows, survivors)
}

/// A table, its live sessions, and what a plain set knows.
struct Game {
    place: Place,
    live: Vec<Live>,
    kept: HashSet<String>,
    consumed: BTreeMap<u128, u64>,
    survivors: Vec<Row>,
}

impl Game {
    async fn play(&mut self, step: Step) {
        match step {
            Step::Begin => self.begin().await,
            Step::Feed(who, fed) if !self.live.is_empty() => self.feed(who.index(self.live.len()), fed).await,
            Step::Commit(who) if !self.live.is_empty() => self.commit(who.index(self.live.len())).await,
            Step::Feed(..) | Step::Commit(_) => {}
            Step::Compact => drop(compact(&mut self.place.ledger().await, 16 * MIB).await.unwrap()),
            // As a vacuum does that is polite to live sessions.
            Step::Fence => {
                let ledger = self.place.ledger().await;
                let begun = self.live.iter().map(|one| one.writer.begun_at).min();
                let floor = begun.unwrap_or(ledger.state().entries).max(ledger.state().floor);
                self.place.enter(Body::Fence { floor, oldest: floor.saturating_sub(1) }).await;
            }
        }
    }

    async fn begin(&mut self) {
        let mut ledger = self.place.ledger().await;
        let mut seen = BTreeMap::new();
        for id in (0..=u8::MAX).map(u128::from) {
            seen.extend(ledger.source(id).await.unwrap().map(|known| (id, known.version)));
        }
        self.live.push(Live { writer: self.place.writer_with(keeping()).await, fed: Vec::new(), seen });
    }

    async fn feed(&mut self, at: usize, fed: Fed) {
        let Live { writer, fed: before, seen } = &mut self.live[at];
        let (id, chunks) = match fed {
            Fed::Rows(chunks) => (None, chunks),
            Fed::Known(n) => (Some(u128::from(n)), vec![known_source(n)]),
        };
        if id.is_some() && before.iter().any(|(other, _, _)| *other == id) {
            return;
        }
        let replay_of = id.and_then(|id| seen.get(&id).copied());
        let slices: Vec<&[Row]> = chunks.iter().map(Vec::as_slice).collect();
        writer.source_seen(id, replay_of, &slices).await;
        before.push((id, chunks.concat(), replay_of.is_some()));
    }

    async fn commit(&mut self, at: usize) {
        let one = self.live.swap_remove(at);
        let (rows, mut new) = expected(&one, &mut self.kept, &self.consumed);
        let sources: Vec<_> = one.fed.iter().filter_map(|(id, _, _)| *id).collect();
        let committed = one.writer.commit().await;
        assert_eq!(committed.rows, rows);
        for id in sources {
            self.consumed.entry(id).or_insert(committed.version);
        }
        self.survivors.append(&mut new);
    }

    async fn end(mut self) {
        while !self.live.is_empty() {
            self.commit(0).await;
        }
        self.survivors.sort();
        assert_eq!(self.place.rows().await, self.survivors);
        self.place.is_sound().await;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_a_plain_set_says(
        steps in prop::collection::vec(step(), 1..40), local in any::<bool>(), threads in any::<bool>(), folders in any::<bool>()
    ) {
        let mut builder = match threads {
            true => tokio::runtime::Builder::new_multi_thread(),
            false => tokio::runtime::Builder::new_current_thread(),
        };
        let runtime = builder.worker_threads(2).enable_all().build().unwrap();
        let partition_by = if folders { vec!["n".to_owned()] } else { Vec::new() };
        let policy = Policy { partition_by, ..Policy::default() };
        runtime.block_on(async {
            let place = if local { Place::local(&policy).await } else { Place::memory(&policy).await };
            let (live, kept, consumed, survivors) = Default::default();
            let mut game = Game { place, live, kept, consumed, survivors };
            for step in steps {
                game.play(step).await;
            }
            game.end().await;
        });
    }
}

/// Whole runs in one process, of overlapping text and of the same text, into a folder and into memory.
#[tokio::test(flavor = "multi_thread")]
async fn runs_of_ingest_in_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let local = folder.path().join("table").to_str().unwrap().to_owned();
    for table in [local, format!("memory://{}", folder.path().file_name().unwrap().to_str().unwrap())] {
        for round in 0..4 {
            let mut runs = Vec::new();
            for run in 0..5 {
                // Runs 3 and 4 read the same file.
                let source = folder.path().join(format!("{round}-{}.ndjson", run.min(3)));
                let first = round * 1000 + run.min(3) * 200;
                let line = |i: u64| format!("{{\"id\":\"key-{i}\",\"n\":{run}}}\n");
                let lines: String = (first..first + 400).map(line).collect();
                if run < 4 {
                    std::fs::write(&source, lines + "{\"n\":1}\n").unwrap();
                }
                let (source, table) = (source.to_str().unwrap().to_owned(), table.clone());
                let mut options = IngestOptions::default();
                options.key = Some(vec!["id".into()]);
                options.null_key = Some(NullKey::Keep);
                options.memory = 16 * MIB;
                options.threads = NonZeroUsize::new(2).unwrap();
                runs.push(tokio::spawn(async move {
                    ingest(&[source], &table, &options, &Progress::default()).await
                }));
            }
            let mut total = Accounting::default();
            for run in runs {
                total.add(&run.await.unwrap().unwrap().rows);
            }
            assert_eq!((total.read, total.accepted), (5 * 401, 1000 + 4));
            assert!(total.replayed == 401, "the same file counts once: {total:?}");
        }
        let store = dedupe::store::Store::open(&table, &[]).unwrap();
        let mut ledger = dedupe::ledger::Ledger::open(store).await.unwrap().unwrap();
        compact_if_due(&mut ledger, 16 * MIB).await.unwrap();
        let check = tokio::spawn(async move { verify(&ledger, &VerifyOptions::default()).await });
        let report = check.await.unwrap().unwrap();
        assert_eq!((report.problems, report.rows), (Vec::new(), 4 * 1004));
    }
}
