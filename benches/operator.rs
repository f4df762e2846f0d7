//! The operator against DataFusion's own ways to the same rows, and against a plan that only passes rows through.
//!
//! `cargo bench --features datafusion --bench operator`. Each way is run once a round, in turn, so that a busy machine slows
//! all of them; the medians of wall time and of processor time are printed, in nanoseconds a row read. The operator does
//! more than its rivals: it writes the keys of accepted rows (`keys`), or the rows (`rows`), to the table it keeps, and
//! commits, so that the next query knows them.
//!
//! `ROWS` (2,000,000, of which half repeat a key), `KNOWN` (2,000,000 keys in the table before, of which half come again),
//! `PARTITIONS` (2) and `ROUNDS` (7) are set in the environment; with `WAYS` only the ways whose names contain that text are run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use datafusion::datasource::MemTable;
use datafusion::execution::{SendableRecordBatchStream, SessionStateBuilder};
use datafusion::physical_expr::Partitioning;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::execute_stream_partitioned;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};
use dedupe::clock::Stopwatch;
use dedupe::operator::{DedupeDataFrame, DedupePlanner, DedupeTable, Keep, PlanSession};
use dedupe::session::SessionOptions;
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};
use futures::StreamExt;

const BATCH: i64 = 8192;

fn setting(name: &str, otherwise: i64) -> i64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// A key that says nothing of its neighbours.
fn key(n: i64) -> i64 {
    n.wrapping_mul(0x9e37_79b9_7f4a_7c15_u64 as i64)
}

/// Rows of these keys: a number, a text, and a number more.
fn batch(keys: impl Iterator<Item = i64>) -> RecordBatch {
    let ids: Int64Array = keys.map(key).collect();
    let texts = StringArray::from_iter_values(ids.values().iter().map(|id| format!("event {id:020}")));
    let numbers: Int64Array = ids.values().iter().map(|id| id % 1000).collect();
    let columns: [(_, ArrayRef); 3] =
        [("id", Arc::new(ids)), ("text", Arc::new(texts)), ("n", Arc::new(numbers))];
    RecordBatch::try_from_iter(columns).unwrap()
}

/// `rows` rows in partitions, each key twice and far apart, the first key being `first`.
fn source(rows: i64, first: i64, partitions: i64) -> Vec<Vec<RecordBatch>> {
    let share = rows / partitions;
    let partition = |p: i64| {
        let starts = (p * share..(p + 1) * share).step_by(BATCH as usize);
        starts
            .map(|at| batch((at..(at + BATCH).min((p + 1) * share)).map(|n| first + n % (rows / 2))))
            .collect()
    };
    (0..partitions).map(partition).collect()
}

fn context(partitions: i64) -> SessionContext {
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(SessionConfig::new().with_target_partitions(partitions as usize))
        .with_query_planner(Arc::new(DedupePlanner));
    SessionContext::new_with_state(state.build())
}

/// Runs all partitions side by side, and counts the rows.
async fn count(frame: DataFrame) -> u64 {
    drain(frame.execute_stream_partitioned().await.unwrap()).await
}

async fn drain(streams: Vec<SendableRecordBatchStream>) -> u64 {
    let drain = |mut stream: SendableRecordBatchStream| async move {
        let mut rows = 0;
        while let Some(batch) = stream.next().await {
            rows += batch.unwrap().num_rows() as u64;
        }
        rows
    };
    let tasks: Vec<_> = streams.into_iter().map(|stream| tokio::spawn(drain(stream))).collect();
    let mut rows = 0;
    for task in tasks {
        rows += task.await.unwrap();
    }
    rows
}

/// A table that knows the first so many keys.
async fn table(place: &str, keys: i64, keep: Keep) -> Table {
    let one = batch(0..1);
    let store = Store::open(place, &[]).unwrap();
    let mut table = Table::open_or_create(store, &one.schema(), &NewTable::keyed_by(["id"])).await.unwrap();
    if keys > 0 {
        let context = context(1);
        let rows: Vec<_> =
            (0..keys).step_by(BATCH as usize).map(|at| batch(at..(at + BATCH).min(keys))).collect();
        let known = MemTable::try_new(one.schema(), vec![rows]).unwrap();
        let session = PlanSession::keeping(&table, SessionOptions::default(), keep);
        let frame = context.read_table(Arc::new(known)).unwrap().dedupe(&session).unwrap();
        assert_eq!(count(frame).await, keys as u64);
        session.commit().await.unwrap();
        table.refresh().await.unwrap();
    }
    table
}

/// Processor time of this process so far, where the system tells.
fn processor() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // User and system time, in hundredths of a second.
    let ticks = fields.get(11..13).unwrap_or_default().iter().filter_map(|field| field.parse::<u64>().ok());
    Duration::from_millis(10 * ticks.sum::<u64>())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or_default()
}

#[tokio::main]
async fn main() {
    // `cargo test --benches` runs it too.
    if !std::env::args().any(|word| word == "--bench") {
        return;
    }
    let (rows, known) = (setting("ROWS", 2_000_000), setting("KNOWN", 2_000_000));
    let (partitions, rounds) = (setting("PARTITIONS", 2), setting("ROUNDS", 7));
    let folder = tempfile::tempdir().unwrap();
    let context = context(partitions);
    // Half of the keys of the source are among the known ones.
    let first = known - rows / 4;
    let landing = source(rows, first.max(0), partitions);
    let schema = landing[0][0].schema();
    context.register_table("landing", Arc::new(MemTable::try_new(schema, landing).unwrap())).unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let known_keys = table(&at("keys"), known, Keep::Keys).await;
    let known_rows = table(&at("rows"), known, Keep::Rows).await;
    let held = DedupeTable::try_new(known_keys.clone(), None, SessionOptions::default()).unwrap();
    context.register_table("known", Arc::new(held)).unwrap();
    let distinct = "SELECT DISTINCT ON (id) id, text, n FROM landing";
    let anti = "SELECT DISTINCT ON (id) l.id, text, n FROM landing l LEFT ANTI JOIN (SELECT id FROM known) k ON l.id = k.id";
    let only = std::env::var("WAYS").unwrap_or_default();
    let ways = [
        "pass through",
        "pass through, shuffled by key",
        "nothing known: operator, keys",
        "nothing known: operator, rows",
        "nothing known: DISTINCT ON",
        "known: operator, keys",
        "known: operator, rows",
        "known: anti join, DISTINCT ON",
    ];
    let mut found: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
    let mut answers: BTreeMap<&str, u64> = BTreeMap::new();
    for round in 0..=rounds {
        for way in ways.into_iter().filter(|way| way.contains(&only)) {
            let landing = || async { context.table("landing").await.unwrap() };
            let keep = if way.ends_with("keys") { Keep::Keys } else { Keep::Rows };
            let fresh = at("fresh");
            let on = match (way.starts_with("known"), keep) {
                // What is known stays as it was: these sessions are not committed.
                (true, Keep::Keys) => known_keys.clone(),
                (true, Keep::Rows) => known_rows.clone(),
                (false, keep) => table(&fresh, 0, keep).await,
            };
            let (watch, before) = (Stopwatch::start(), processor());
            let rows_out = match way {
                "pass through" => count(landing().await).await,
                // What it would take for each partition to have the keys of its own.
                "pass through, shuffled by key" => {
                    // Asked of a frame, it would be optimized away.
                    let plan = landing().await.create_physical_plan().await.unwrap();
                    let by_key =
                        Partitioning::Hash(vec![col("id", &plan.schema()).unwrap()], partitions as usize);
                    let shuffled = RepartitionExec::try_new(plan, by_key).unwrap();
                    drain(execute_stream_partitioned(Arc::new(shuffled), context.task_ctx()).unwrap()).await
                }
                "nothing known: DISTINCT ON" => count(context.sql(distinct).await.unwrap()).await,
                "known: anti join, DISTINCT ON" => count(context.sql(anti).await.unwrap()).await,
                _ => {
                    let session = PlanSession::keeping(&on, SessionOptions::default(), keep);
                    let rows = count(landing().await.dedupe(&session).unwrap()).await;
                    if !way.starts_with("known") {
                        session.commit().await.unwrap();
                    }
                    rows
                }
            };
            let (wall, cpu) = (watch.seconds(), (processor() - before).as_secs_f64());
            let _ = std::fs::remove_dir_all(&fresh);
            // The first round warms up.
            if round > 0 {
                let each = 1e9 / rows as f64;
                found.entry(way).or_default().push((wall * each, cpu * each));
                answers.insert(way, rows_out);
            }
        }
    }
    println!(
        "{rows} rows in {partitions} partitions, {known} keys known; medians of {rounds} rounds, ns a row"
    );
    for way in ways {
        let Some(times) = found.get(way) else { continue };
        let (wall, cpu) = times.iter().copied().unzip();
        println!("{way:32} wall {:7.1}  cpu {:7.1}  rows {}", median(wall), median(cpu), answers[way]);
    }
    // Those that ask the same question gave the same answer.
    for group in ["nothing known", "known"] {
        let rows: Vec<_> =
            answers.iter().filter(|(way, _)| way.starts_with(group)).map(|(_, rows)| rows).collect();
        assert!(rows.windows(2).all(|pair| pair[0] == pair[1]), "{group}: {answers:?}");
    }
}
