//! `INSERT INTO`, and reading back.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, RecordBatch};
use datafusion::arrow::datatypes::UInt64Type;
use dedupe::operator::DedupeTable;
use dedupe::session::SessionOptions;
use proptest::prelude::*;

use crate::scene::*;

fn count(batches: &[RecordBatch]) -> u64 {
    batches[0].column(0).as_primitive::<UInt64Type>().value(0)
}

impl Scene {
    fn provider(&self) -> Arc<DedupeTable> {
        let provider = DedupeTable::try_new(self.table.clone(), Some(&schema()), SessionOptions::default());
        Arc::new(provider.unwrap())
    }

    async fn select(&self, sql: &str) -> Vec<Row> {
        of_batches(&self.context.sql(sql).await.unwrap().collect().await.unwrap())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 15, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_table_holds_what_a_plain_set_keeps(
        inserts in prop::collection::vec(prop::collection::vec(prop::collection::vec(0i64..200, 0..100), 1..4), 1..5)
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let scene = Scene::new().await;
            scene.context.register_table("events", scene.provider()).unwrap();
            let mut known = HashSet::new();
            for (round, partitions) in (0..).zip(&inserts) {
                let partitions: Vec<Vec<Vec<Row>>> = partitions
                    .iter()
                    .map(|keys| vec![keys.iter().map(|key| (Some(format!("key-{key}")), round)).collect()])
                    .collect();
                let all: Vec<Row> = partitions.iter().flatten().flatten().cloned().collect();
                let new = first_of_each(&mut known, &all);
                let source = scene.frame(&partitions);
                scene.context.deregister_table("source").unwrap();
                scene.context.register_table("source", source.into_view()).unwrap();
                let inserted = scene.context.sql("INSERT INTO events SELECT id, n FROM source").await.unwrap();
                assert_eq!(count(&inserted.collect().await.unwrap()), new.len() as u64);
                // Which version a row came with is what it says.
                let mut found = scene.select(&format!("SELECT id, n FROM events WHERE n = {round}")).await;
                let mut new = new;
                found.sort();
                new.sort();
                assert_eq!(found, new);
                assert_eq!(scene.keys().await, known);
            }
            scene.is_sound().await;
        });
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parallel_inserts_end_with_one_row_a_key() {
    let scene = Scene::new().await;
    scene.context.register_table("events", scene.provider()).unwrap();
    let inserts = (0..5).map(|n| {
        let values: Vec<String> = (n * 20..n * 20 + 60).map(|i| format!("('key-{i}', {n})")).collect();
        let (context, sql) =
            (scene.context.clone(), format!("INSERT INTO events VALUES {}", values.join(", ")));
        tokio::spawn(async move { context.sql(&sql).await.unwrap().collect().await.unwrap() })
    });
    let mut new = 0;
    for insert in inserts.collect::<Vec<_>>() {
        new += count(&insert.await.unwrap());
    }
    let found = scene.select("SELECT id, n FROM events").await;
    assert_eq!((new, found.len(), scene.keys().await.len()), (140, 140, 140));
    scene.is_sound().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_insert_that_fails_leaves_nothing() {
    let scene = Scene::new().await;
    scene.context.register_table("events", scene.provider()).unwrap();
    let source = scene.frame(&[vec![rows(0..100, 1)], vec![rows(100..200, 1), rows(200..201, 0)]]);
    scene.context.register_table("source", source.into_view()).unwrap();
    let failed =
        scene.context.sql("INSERT INTO events SELECT id, 1 / n FROM source").await.unwrap().collect().await;
    assert!(failed.is_err());
    assert_eq!(scene.keys().await.len(), 0);
    let whole =
        scene.context.sql("INSERT INTO events SELECT id, n FROM source").await.unwrap().collect().await;
    assert_eq!(count(&whole.unwrap()), 201);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_stays_what_it_was() {
    let scene = Scene::new().await;
    scene.context.register_table("events", scene.provider()).unwrap();
    for round in 0..4 {
        let sql = format!("INSERT INTO events VALUES ('key-{round}', {round})");
        scene.context.sql(&sql).await.unwrap().collect().await.unwrap();
    }
    let store = scene.table.ledger().store().clone();
    for version in 1..=4 {
        let at = DedupeTable::at(store.clone(), version).await.unwrap();
        let rows = scene.context.read_table(Arc::new(at)).unwrap().collect().await.unwrap();
        let mut rows = of_batches(&rows);
        rows.sort();
        assert_eq!(rows, (0..version as i64).map(|n| (Some(format!("key-{n}")), n)).collect::<Vec<_>>());
    }
    assert!(DedupeTable::at(store, 9).await.is_err());
}
