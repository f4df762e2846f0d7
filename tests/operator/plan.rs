//! What the optimizer makes of a deduplication: what moves below it, and what must not.

use std::path::Path;
use std::sync::Arc;

use datafusion::common::stats::Precision;
use datafusion::execution::SessionStateBuilder;
use datafusion::functions_aggregate::expr_fn::count;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::physical_plan::{StatisticsArgs, StatisticsContext, displayable};
use datafusion::prelude::{DataFrame, ParquetReadOptions, SessionConfig, SessionContext, col, lit};
use dedupe::operator::{DedupeDataFrame, DedupePlanner, DedupeTable};
use dedupe::session::SessionOptions;

use crate::scene::*;

/// The physical plan, one line a node, and the logical one after optimization.
async fn plans(frame: DataFrame, scene: &Scene) -> (String, String) {
    let logical = frame.clone().into_optimized_plan().unwrap().display_indent().to_string();
    let physical = frame.create_physical_plan().await.unwrap();
    let physical = displayable(physical.as_ref()).indent(false).to_string();
    let place = scene.table.ledger().store().url();
    (logical.replace(&place, "TABLE"), physical.replace(&place, "TABLE"))
}

fn two_partitions(scene: &Scene) -> DataFrame {
    scene.frame(&[vec![rows(0..10, 1)], vec![rows(5..15, 2)]])
}

/// What `EXPLAIN` shows of a plan, without what differs from run to run.
async fn explained(frame: DataFrame, scene: &Scene, folder: &Path) -> String {
    let (logical, physical) = plans(frame, scene).await;
    let text = format!("{logical}\n\n{physical}");
    let text = text.replace(folder.to_str().unwrap().trim_start_matches('/'), "FOLDER");
    // The names of sessions.
    let parts = text.split_inclusive(|c: char| !c.is_ascii_hexdigit());
    parts.map(|part| part.get(32..).map_or(part.to_owned(), |end| format!("SESSION{end}"))).collect()
}

/// Compares with the files in `plans/`; with `PLANS_COMPLETE=1` they are written anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_plans_are_those_in_the_files() {
    let config = SessionConfig::new().with_target_partitions(2);
    let state = SessionStateBuilder::new()
        .with_default_features()
        .with_config(config)
        .with_query_planner(Arc::new(DedupePlanner));
    let context = SessionContext::new_with_state(state.build());
    dedupe::operator::register(&context);
    let scene = Scene::of(context).await;
    let context = &scene.context;
    // Two Parquet files, and a table of three commits.
    let folder = tempfile::tempdir().unwrap();
    for n in 0..2 {
        let file = std::fs::File::create(folder.path().join(format!("{n}.parquet"))).unwrap();
        let mut writer = ArrowWriter::try_new(file, schema(), None).unwrap();
        writer.write(&batch(&rows(n * 10..n * 10 + 15, n))).unwrap();
        writer.close().unwrap();
    }
    for keys in [0..5, 50..55, 70..75] {
        let session = scene.session();
        scene.one(&rows(keys, 1)).dedupe(&session).unwrap().collect().await.unwrap();
        session.commit().await.unwrap();
    }
    let mut table = scene.table.clone();
    table.refresh().await.unwrap();
    let events = DedupeTable::try_new(table, None, SessionOptions::default()).unwrap();
    context.register_table("events", Arc::new(events)).unwrap();
    let place = folder.path().to_str().unwrap().to_owned();
    context.register_parquet("landing", &place, ParquetReadOptions::default()).await.unwrap();
    let landing = async || context.table("landing").await.unwrap();
    let by_n = || vec![col("n").sort(true, false)];
    let session = scene.session();
    let sql = async |text: &str| context.sql(text).await.unwrap();
    let frames = [
        ("parquet", landing().await.dedupe(&session).unwrap()),
        ("filter_below", landing().await.filter(col("n").gt(lit(0i64))).unwrap().dedupe(&session).unwrap()),
        ("filter_above", landing().await.dedupe(&session).unwrap().filter(col("n").gt(lit(0i64))).unwrap()),
        (
            "key_filter_above",
            landing().await.dedupe(&session).unwrap().filter(col("id").eq(lit("key-3"))).unwrap(),
        ),
        ("projection", landing().await.dedupe(&session).unwrap().select(vec![col("id")]).unwrap()),
        ("limit_above", landing().await.dedupe(&session).unwrap().limit(0, Some(3)).unwrap()),
        ("order_below", landing().await.sort(by_n()).unwrap().dedupe(&session).unwrap()),
        ("order_above", landing().await.dedupe(&session).unwrap().sort(by_n()).unwrap()),
        (
            "count_above",
            landing().await.dedupe(&session).unwrap().aggregate(vec![], vec![count(lit(1))]).unwrap(),
        ),
        ("insert", sql("INSERT INTO events SELECT id, n FROM landing WHERE n > 0").await),
        ("insert_in_order", sql("INSERT INTO events SELECT id, n FROM landing ORDER BY n").await),
        ("select", sql("SELECT n FROM events").await),
        ("select_pruned", sql("SELECT n FROM events WHERE id >= 'key-6' AND n > 0").await),
        ("select_nothing", sql("SELECT n FROM events WHERE id = 'none'").await),
        ("select_count", sql("SELECT count(*) FROM events").await),
    ];
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operator/plans");
    for (name, frame) in frames {
        let (file, shown) =
            (goldens.join(format!("{name}.txt")), explained(frame, &scene, folder.path()).await);
        if std::env::var_os("PLANS_COMPLETE").is_some() {
            std::fs::write(&file, shown).unwrap();
        } else {
            assert_eq!(shown, std::fs::read_to_string(&file).unwrap(), "{}", file.display());
        }
    }
}

#[tokio::test]
async fn rows_that_come_in_are_an_estimate_of_those_that_come_out() {
    let scene = Scene::new().await;
    let plan = two_partitions(&scene).dedupe(&scene.session()).unwrap().create_physical_plan().await.unwrap();
    let rows = |partition| {
        let args = StatisticsArgs::new().with_partition(partition);
        StatisticsContext::default().compute(plan.as_ref(), &args).unwrap().num_rows
    };
    assert_eq!((rows(None), rows(Some(1))), (Precision::Inexact(20), Precision::Inexact(10)));
    // So they are counted, not taken from the statistics.
    assert_eq!(two_partitions(&scene).dedupe(&scene.session()).unwrap().count().await.unwrap(), 15);
}

#[tokio::test]
async fn partitions_are_judged_where_they_are() {
    let scene = Scene::new().await;
    let (logical, physical) = plans(two_partitions(&scene).dedupe(&scene.session()).unwrap(), &scene).await;
    assert_eq!(logical, "Dedupe: key=[id], table=TABLE\n  TableScan: ?table? projection=[id, n]");
    assert_eq!(
        physical,
        "DedupeExec: key=[id], table=TABLE\n  DataSourceExec: partitions=2, partition_sizes=[1, 1]\n"
    );
}

#[tokio::test]
async fn neither_filter_nor_limit_moves_below() {
    let scene = Scene::new().await;
    let frame = two_partitions(&scene).dedupe(&scene.session()).unwrap();
    let frame = frame.filter(col("id").eq(lit("key-1"))).unwrap().limit(0, Some(3)).unwrap();
    let (logical, physical) = plans(frame, &scene).await;
    let below = |plan: &str| {
        let at = plan.lines().position(|line| line.trim_start().starts_with("Dedupe")).unwrap();
        plan.lines().skip(at + 1).map(str::trim).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(below(&logical), ["TableScan: ?table? projection=[id, n]"], "{logical}");
    assert_eq!(below(&physical), ["DataSourceExec: partitions=2, partition_sizes=[1, 1]"], "{physical}");
}

#[tokio::test]
async fn columns_that_neither_table_nor_query_wants_are_not_read() {
    let scene = Scene::new().await;
    for (session, columns) in [(scene.keys_only(), "[id]"), (scene.session(), "[id, n]")] {
        let frame = two_partitions(&scene).dedupe(&session).unwrap().select(vec![col("id")]).unwrap();
        let (logical, _) = plans(frame, &scene).await;
        assert!(logical.ends_with(&format!("TableScan: ?table? projection={columns}")), "{logical}");
    }
}

#[tokio::test]
async fn an_order_is_kept_by_merging() {
    let scene = Scene::new().await;
    let frame = two_partitions(&scene).sort(vec![col("n").sort(true, false)]).unwrap();
    let (_, physical) = plans(frame.dedupe(&scene.session()).unwrap(), &scene).await;
    assert_eq!(
        physical,
        "DedupeExec: key=[id], table=TABLE, first_by=[n@1 ASC NULLS LAST]\n  \
         SortPreservingMergeExec: [n@1 ASC NULLS LAST]\n    \
         SortExec: expr=[n@1 ASC NULLS LAST], preserve_partitioning=[true]\n      \
         DataSourceExec: partitions=2, partition_sizes=[1, 1]\n"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_cannot_match_are_left_out() {
    let scene = Scene::new().await;
    for keys in [0..10, 50..60, 100..110] {
        let session = scene.session();
        let of = |i: i64| (Some(format!("key-{i:03}")), i);
        scene.one(&keys.map(of).collect::<Vec<_>>()).dedupe(&session).unwrap().collect().await.unwrap();
        session.commit().await.unwrap();
    }
    let mut table = scene.table.clone();
    table.refresh().await.unwrap();
    let provider = dedupe::operator::DedupeTable::try_new(table, None, Default::default()).unwrap();
    let provider = std::sync::Arc::new(provider);
    for (filter, files, rows) in [
        (col("id").eq(lit("key-055")), 1, 1),
        (col("id").gt(lit("key-055")), 2, 14),
        (col("id").eq(lit("key-200")), 0, 0),
        (col("id").is_null(), 3, 0),
        (col("n").gt_eq(lit(105i64)), 3, 5),
    ] {
        let frame = scene.context.read_table(provider.clone()).unwrap().filter(filter).unwrap();
        let (_, physical) = plans(frame.clone(), &scene).await;
        assert_eq!(physical.matches(".parquet").count(), files, "{physical}");
        assert_eq!(frame.count().await.unwrap(), rows);
    }
}

#[tokio::test]
async fn a_plan_without_the_key_is_refused() {
    let scene = Scene::new().await;
    let frame = two_partitions(&scene).select(vec![col("n")]).unwrap();
    let error = frame.dedupe(&scene.session()).unwrap_err().to_string();
    assert!(error.contains("key column \"id\""), "{error}");
}
