//! A commit in two phases: prepared by one process, made good by another, later, several times, or never. Whatever comes in
//! between, what the table holds is what a plain `HashSet` says that sees the commits in order.

use std::collections::HashSet;
use std::sync::Arc;

use crate::writer::*;
use dedupe::Error;
use dedupe::lease::leases;
use dedupe::ledger::Body;
use dedupe::options::MIB;
use dedupe::policy::Policy;
use dedupe::session::Prepared;
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};
use dedupe::upkeep::compact::compact;
use proptest::prelude::*;

/// Prepares a batch of these rows, and passes it through bytes as another process would get it.
async fn prepared(place: &Place, batch: &str, rows: &[Row]) -> Prepared {
    let mut writer = place.writer_with(batched(batch, 0)).await;
    writer.feed(rows).await;
    let prepared = writer.session.prepare().await.unwrap();
    Prepared::decode(&prepared.encode().unwrap()).unwrap()
}

async fn table(place: &Place) -> Table {
    Table::open(place.store.clone()).await.unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn by_whomever_and_however_often_it_is_committed() {
    for place in Place::both(&Policy::default()).await {
        let prepared = prepared(&place, "b", &[rows(0..500, 1), keyless(2, 1)].concat()).await;
        assert_eq!(place.ledger().await.version(), 0, "nothing is to be seen before the commit");
        assert_eq!((prepared.batch(), prepared.rows().accepted, prepared.rows().rejected), ("b", 500, 2));
        // Another writer brings some of the keys meanwhile, and several processes make it good at once.
        let mut rival = place.writer().await;
        rival.feed(&rows(100..300, 2)).await;
        rival.commit().await;
        let mut tables = Vec::new();
        for _ in 0..4 {
            tables.push(table(&place).await);
        }
        let commits = tables.iter_mut().map(|table| table.commit(&prepared));
        let ended = futures::future::join_all(commits).await;
        let ended: Vec<_> = ended.into_iter().map(|ended| ended.unwrap()).collect();
        assert_eq!(ended.iter().filter(|committed| !committed.batch_replayed).count(), 1);
        for committed in &ended {
            let rows = committed.rows;
            assert_eq!((committed.version, rows.accepted, rows.duplicate, rows.rejected), (2, 300, 200, 2));
        }
        // After what it staged was merged into other objects it is still recognised.
        for batch in ["c", "d", "e"] {
            let more = self::prepared(&place, batch, &rows(1000..1300, 3)).await;
            table(&place).await.commit(&more).await.unwrap();
        }
        compact(&mut place.ledger().await, 16 * MIB).await.unwrap();
        let entries = place.ledger().await.state().entries;
        place.enter(Body::Fence { floor: entries, oldest: entries - 1 }).await;
        let again = table(&place).await.commit(&prepared).await.unwrap();
        assert_eq!((again.version, again.batch_replayed), (2, true));
        assert_eq!(place.keys().await.len(), 500 + 300);
        place.is_sound().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_vacuum_took_for_abandoned_is_fenced_off() {
    for place in Place::both(&Policy::default()).await {
        let prepared = prepared(&place, "b", &rows(0..500, 1)).await;
        let mut other = place.writer().await;
        other.feed(&rows(1000..1001, 2)).await;
        other.commit().await;
        place.enter(Body::Fence { floor: 2, oldest: 1 }).await;
        for gone in [false, true] {
            if gone {
                for object in place.store.list("_dedupe/tokens").await.unwrap() {
                    place.store.delete(&object.name).await.unwrap();
                }
            }
            let error = table(&place).await.commit(&prepared).await.unwrap_err();
            assert!(matches!(error, Error::Fenced { floor: 2, .. }), "{error}");
        }
        assert_eq!(place.keys().await.len(), 1);
        assert!(table(&place).await.outcome("b").await.unwrap().is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_protects_it_until_it_is_committed_or_given_up() {
    for place in Place::both(&Policy::default()).await {
        let held = async || {
            let found = leases(&place.store).await.unwrap().into_iter();
            found.map(|found| found.lease.unwrap().batch.unwrap()).collect::<Vec<_>>()
        };
        let committed = prepared(&place, "committed", &rows(0..500, 1)).await;
        assert_eq!(held().await, ["committed"]);
        let aborted = prepared(&place, "aborted", &rows(0..500, 2)).await;
        table(&place).await.commit(&committed).await.unwrap();
        assert_eq!(held().await, ["aborted"]);
        table(&place).await.abort(aborted).await;
        assert_eq!(held().await, [""; 0]);
        assert!(place.rows().await.iter().all(|(_, n)| *n == 1));
    }
}

#[tokio::test]
async fn it_is_refused_where_it_cannot_be_made_good() {
    let place = Place::memory(&Policy::default()).await;
    let mut nameless = place.writer().await;
    nameless.feed(&rows(0..5, 1)).await;
    assert!(matches!(nameless.session.prepare().await.unwrap_err(), Error::Usage(_)));
    let prepared = prepared(&place, "b", &rows(0..5, 1)).await;
    let elsewhere = Place::memory(&Policy::default()).await;
    assert!(matches!(table(&elsewhere).await.commit(&prepared).await.unwrap_err(), Error::Refused(_)));
    let bytes = prepared.encode().unwrap();
    for cut in [0, 1, bytes.len() / 2, bytes.len() - 1] {
        assert!(matches!(Prepared::decode(&bytes[..cut]).unwrap_err(), Error::Corrupt { .. }));
    }
    let newer = String::from_utf8(bytes).unwrap().replacen("\"format\":2", "\"format\":3", 1);
    assert!(matches!(Prepared::decode(newer.as_bytes()).unwrap_err(), Error::Refused(_)));
    // Another batch of the same name is not taken for this one.
    let mut other = place.writer_with(batched("b", 7)).await;
    other.feed(&rows(5..6, 1)).await;
    other.commit().await;
    assert!(matches!(table(&place).await.commit(&prepared).await.unwrap_err(), Error::Refused(_)));
    assert_eq!(place.keys().await, ["key-5"]);
}

/// A session that handed its rows on does not take them back.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_handed_on_are_not_corrected() {
    for place in Place::both(&Policy::default()).await {
        for (overlap, keys) in [(0..0, 0), (490..600, 10)] {
            let mut ours = place.writer_with(with(|options| options.handed_on = true)).await;
            let first = place.ledger().await.state().entries * 1000;
            ours.feed(&rows(first..first + 500, 1)).await;
            let mut rival = place.writer().await;
            rival.feed(&rows(first + overlap.start..first + overlap.end, 2)).await;
            rival.commit().await;
            match ours.try_commit().await {
                Ok(committed) => assert_eq!((keys, committed.rows.accepted), (0, 500)),
                Err(Error::Overtaken { keys: found, .. }) => assert_eq!(found, keys),
                Err(error) => panic!("{error}"),
            }
        }
        place.is_sound().await;
    }
}

/// The program's own batches: rows without a key are set aside by `judge` itself, or named.
#[tokio::test]
async fn a_table_from_nothing() {
    let store = Store::open("memory://a-table-from-nothing", &[]).unwrap();
    let (schema, wider) = (schema(&[]), schema(&[("more", arrow::datatypes::DataType::Int64)]));
    let new = NewTable::keyed_by(["id"]);
    for (round, schema) in [&schema, &wider, &schema].into_iter().enumerate() {
        let mut table = Table::open_or_create(store.clone(), schema, &new).await.unwrap();
        let mut session = table.begin(schema, options()).await.unwrap();
        let source = session.source("program").unwrap();
        let rows = [rows(0..3, 1), keyless(1, 2), rows(2..5 + round as u64, 3)].concat();
        let batch = batch(&Arc::new(schema.clone()), &rows);
        let verdicts = session.judge(source, &batch).await.unwrap();
        session.write(dedupe::session::Rows::of_batch(source, batch, verdicts)).await.unwrap();
        let (committed, ledger) = session.commit().await.unwrap();
        assert_eq!((committed.rows.accepted, committed.rows.rejected), (if round == 0 { 5 } else { 1 }, 1));
        let kept_out = store.get(&committed.quarantine[0].name).await.unwrap().unwrap();
        let kept_out: serde_json::Value = serde_json::from_slice(&kept_out).unwrap();
        assert_eq!((&kept_out["row"], &kept_out["record"]["n"]), (&3.into(), &2.into()));
        assert_eq!(ledger.state().schema.as_ref().unwrap().fields().len(), if round == 0 { 2 } else { 3 });
        table.refresh().await.unwrap();
        assert_eq!(table.ledger().version(), ledger.version());
    }
    let other = Table::open_or_create(store.clone(), &schema, &NewTable::keyed_by(["n"])).await;
    assert!(matches!(other.unwrap_err(), Error::Refused(_)));
    let table = Table::open(store).await.unwrap().unwrap();
    let mut strict = options();
    strict.null_key = Some(dedupe::policy::NullKey::Fail);
    let mut session = table.begin(&schema, strict).await.unwrap();
    let source = session.source("program").unwrap();
    let batch = batch(&Arc::new(schema), &[rows(0..3, 1), keyless(1, 2)].concat());
    let error = session.judge(source, &batch).await.unwrap_err();
    assert!(error.to_string().contains("row 3 has no key"), "{error}");
}

#[derive(Debug, Clone)]
enum Step {
    Prepare(Vec<Row>),
    /// Commits one of those prepared, which stay: it may be committed again.
    Commit(prop::sample::Index),
    Abort(prop::sample::Index),
    /// A commit in one phase.
    Write(Vec<Row>),
    Compact,
}

fn step() -> impl Strategy<Value = Step> {
    let row = || (0u16..400, 0i64..9).prop_map(|(i, n)| (Some(format!("key-{i}")), n));
    let some = move || prop::collection::vec(row(), 0..400);
    prop_oneof![
        3 => some().prop_map(Step::Prepare),
        5 => any::<prop::sample::Index>().prop_map(Step::Commit),
        1 => any::<prop::sample::Index>().prop_map(Step::Abort),
        1 => some().prop_map(Step::Write),
        1 => Just(Step::Compact),
    ]
}

/// What a plain set keeps of these rows.
fn first_of_each(kept: &mut HashSet<Option<String>>, rows: &[Row]) -> Vec<Row> {
    rows.iter().filter(|row| kept.insert(row.0.clone())).cloned().collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_a_plain_set_says(steps in prop::collection::vec(step(), 1..25), local in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let policy = Policy::default();
            let place = if local { Place::local(&policy).await } else { Place::memory(&policy).await };
            let (mut kept, mut survivors) = (HashSet::new(), Vec::new());
            let mut all: Vec<(Prepared, Vec<Row>, Option<u64>)> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Prepare(rows) => {
                        all.push((prepared(&place, &number.to_string(), &rows).await, rows, None));
                    }
                    Step::Commit(which) if !all.is_empty() => {
                        let at = which.index(all.len());
                        let (prepared, rows, before) = all[at].clone();
                        let committed = table(&place).await.commit(&prepared).await.unwrap();
                        assert_eq!(committed.batch_replayed, before.is_some());
                        if before.is_none() {
                            let new = first_of_each(&mut kept, &rows);
                            assert_eq!(committed.rows.accepted, new.len() as u64);
                            survivors.extend(new);
                        }
                        assert_eq!(before.unwrap_or(committed.version), committed.version);
                        all[at].2 = Some(committed.version);
                    }
                    Step::Abort(which) if !all.is_empty() => {
                        let (prepared, _, _) = all.swap_remove(which.index(all.len()));
                        table(&place).await.abort(prepared).await;
                    }
                    Step::Write(rows) => {
                        let mut writer = place.writer().await;
                        writer.feed(&rows).await;
                        writer.commit().await;
                        survivors.extend(first_of_each(&mut kept, &rows));
                    }
                    Step::Compact => drop(compact(&mut place.ledger().await, 16 * MIB).await.unwrap()),
                    Step::Commit(_) | Step::Abort(_) => {}
                }
            }
            survivors.sort();
            assert_eq!(place.rows().await, survivors);
            place.is_sound().await;
        });
    }
}
