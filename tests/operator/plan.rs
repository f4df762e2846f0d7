//! What the optimizer makes of a deduplication: what moves below it, and what must not.

use datafusion::physical_plan::displayable;
use datafusion::prelude::{DataFrame, col, lit};
use dedupe::operator::DedupeDataFrame;

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
