//! Files that are left out by their partition: a filtered scan gives what the same filter leaves of all rows.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, AsArray, BooleanArray, Date32Array, Int32Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, TimestampMillisecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{Operator, binary_expr};
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{Expr, SessionContext, col, ident, lit};
use dedupe::operator::DedupeTable;
use dedupe::session::{Rows, SessionOptions};
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};
use proptest::prelude::*;

const DAY: i64 = 86_400;

#[derive(Debug, Clone)]
struct Event {
    country: Option<String>,
    n: Option<i32>,
    flag: Option<bool>,
    day: Option<i32>,
    /// In seconds, with as many fractions of one as the column has.
    at: Option<(i64, i64)>,
}

fn schema() -> SchemaRef {
    let field = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("id", DataType::Utf8),
        field("country", DataType::Utf8),
        field("n", DataType::Int32),
        field("flag", DataType::Boolean),
        field("day", DataType::Date32),
        field("at", DataType::Timestamp(TimeUnit::Microsecond, None)),
        field("zoned", DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into()))),
    ]))
}

fn batch(first: usize, events: &[Event]) -> RecordBatch {
    let ids = (first..first + events.len()).map(|id| Some(format!("key-{id}")));
    let micros = |(second, part): (i64, i64)| second * 1_000_000 + part;
    let millis = |(second, part): (i64, i64)| second * 1_000 + part.signum();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(ids.collect::<StringArray>()),
        Arc::new(events.iter().map(|event| event.country.as_deref()).collect::<StringArray>()),
        Arc::new(events.iter().map(|event| event.n).collect::<Int32Array>()),
        Arc::new(events.iter().map(|event| event.flag).collect::<BooleanArray>()),
        Arc::new(events.iter().map(|event| event.day).collect::<Date32Array>()),
        Arc::new(events.iter().map(|event| event.at.map(micros)).collect::<TimestampMicrosecondArray>()),
        Arc::new(
            events
                .iter()
                .map(|event| event.at.map(millis))
                .collect::<TimestampMillisecondArray>()
                .with_timezone("+02:00"),
        ),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn country() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::sample::select(vec!["DE", "FR", "IT"]).prop_map(str::to_owned),
        2 => prop::sample::select(vec![
            "", "a/b", "50%", "x=y", "ä é", "true", "2026-01-31", "2026-01-31T01:00:00+02:00", "2026-01-30",
            "__HIVE_DEFAULT_PARTITION__", "x~0123456789abcdef",
        ]).prop_map(str::to_owned),
        1 => Just("x".repeat(200)),
        1 => Just("x".repeat(201)),
    ]
}

fn instant() -> impl Strategy<Value = (i64, i64)> {
    (-2i64..3, prop::sample::select(vec![0, 1, DAY / 2, DAY - 1]), -1i64..2)
        .prop_map(|(day, second, part)| (day * DAY + second, part))
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    use prop::option::weighted;
    let event = (
        weighted(0.8, country()),
        weighted(0.8, -2i32..3),
        weighted(0.8, any::<bool>()),
        weighted(0.8, -2i32..3),
        weighted(0.8, instant()),
    );
    let event = event.prop_map(|(country, n, flag, day, at)| Event { country, n, flag, day, at });
    prop::collection::vec(event, 1..25)
}

fn partitions() -> impl Strategy<Value = Vec<String>> {
    let all = vec![
        "country",
        "date(country)",
        "n",
        "flag",
        "day",
        "date(day)",
        "at",
        "date(at)",
        "zoned",
        "date(zoned)",
    ];
    prop::sample::subsequence(all, 1..4)
        .prop_shuffle()
        .prop_map(|all| all.into_iter().map(str::to_owned).collect())
}

/// A column and a value that it may be compared with.
fn operand() -> impl Strategy<Value = (&'static str, Expr)> {
    prop_oneof![
        country().prop_map(|text| ("country", lit(text))),
        (-2i32..3).prop_map(|n| ("n", lit(n))),
        any::<bool>().prop_map(|flag| ("flag", lit(flag))),
        (-2i32..3).prop_map(|day| ("day", lit(ScalarValue::Date32(Some(day))))),
        instant().prop_map(|(second, part)| {
            ("at", lit(ScalarValue::TimestampMicrosecond(Some(second * 1_000_000 + part), None)))
        }),
        instant().prop_map(|(second, part)| {
            let zone = Some("+02:00".into());
            ("zoned", lit(ScalarValue::TimestampMillisecond(Some(second * 1_000 + part), zone)))
        }),
    ]
}

fn filter() -> impl Strategy<Value = Expr> {
    let operator = prop::sample::select(vec![
        Operator::Eq,
        Operator::NotEq,
        Operator::Lt,
        Operator::LtEq,
        Operator::Gt,
        Operator::GtEq,
    ]);
    let atom = prop_oneof![
        6 => (operand(), operator).prop_map(|((name, value), operator)| binary_expr(ident(name), operator, value)),
        1 => operand().prop_map(|(name, _)| ident(name).is_null()),
        1 => operand().prop_map(|(name, _)| ident(name).is_not_null()),
        1 => prop::collection::vec(country(), 1..4)
            .prop_map(|texts| ident("country").in_list(texts.into_iter().map(lit).collect(), false)),
        1 => country().prop_map(|text| ident("country").in_list(vec![lit(text)], true)),
    ];
    atom.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.and(b)),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| a.or(b)),
            inner.prop_map(|a| !a),
        ]
    })
}

/// A table with these commits, and a table in memory of all its rows.
async fn tables(
    place: &str,
    partition_by: Vec<String>,
    commits: &[Vec<Event>],
) -> (Arc<DedupeTable>, Arc<MemTable>) {
    let mut new = NewTable::keyed_by(["id"]);
    new.policy.partition_by = partition_by;
    let mut table = Table::open_or_create(Store::open(place, &[]).unwrap(), &schema(), &new).await.unwrap();
    let (mut all, mut first) = (Vec::new(), 0);
    for events in commits {
        let rows = batch(first, events);
        first += events.len();
        let mut session = table.begin(&schema(), SessionOptions::default()).await.unwrap();
        let source = session.source("events").unwrap();
        let verdicts = session.judge(source, &rows).await.unwrap();
        session.write(Rows::of_batch(source, rows.clone(), verdicts)).await.unwrap();
        session.commit().await.unwrap();
        all.push(rows);
    }
    table.refresh().await.unwrap();
    let table = DedupeTable::try_new(table, None, SessionOptions::default()).unwrap();
    (Arc::new(table), Arc::new(MemTable::try_new(schema(), vec![all]).unwrap()))
}

async fn ids(context: &SessionContext, plan: Arc<dyn ExecutionPlan>) -> Vec<String> {
    let rows = collect(plan, context.task_ctx()).await.unwrap();
    let mut ids: Vec<String> = rows
        .iter()
        .flat_map(|rows| rows.column(0).as_string::<i32>().iter().flatten().map(str::to_owned))
        .collect();
    ids.sort();
    ids
}

/// How many files a scan left out, by partition and by key range; `None` if it left out all.
fn pruned(plan: &Arc<dyn ExecutionPlan>) -> Option<(usize, usize)> {
    if plan.name() == "DataSourceExec" {
        let metrics = plan.metrics()?;
        let count = |name: &str| metrics.sum_by_name(name).map(|value| value.as_usize());
        return count("files_pruned_by_partition").zip(count("files_pruned_by_key_range"));
    }
    plan.children().into_iter().find_map(pruned)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_filtered_scan_gives_what_the_filter_leaves_of_all_rows(
        partition_by in partitions(),
        commits in prop::collection::vec(events(), 1..3),
        filters in prop::collection::vec(filter(), 8),
    ) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let folder = tempfile::tempdir().unwrap();
            let (table, all) = tables(folder.path().join("t").to_str().unwrap(), partition_by.clone(), &commits).await;
            let context = dedupe::operator::context();
            for filter in filters {
                let of = async |source: Arc<dyn datafusion::catalog::TableProvider>| {
                    let frame = context.read_table(source).unwrap().filter(filter.clone()).unwrap();
                    let plan = frame.select(vec![col("id")]).unwrap().create_physical_plan().await.unwrap();
                    ids(&context, plan).await
                };
                assert_eq!(of(table.clone()).await, of(all.clone()).await, "by {partition_by:?}: {filter}");
            }
        });
    }
}

/// A row in each of three countries on each of three days, and one without either.
fn grid() -> Vec<Event> {
    let event = |country: Option<&str>, at| Event {
        country: country.map(str::to_owned),
        n: Some(1),
        flag: None,
        day: None,
        at,
    };
    let days = (0..3).flat_map(|day| ["DE", "FR", "IT"].map(|country| (country, day)));
    let rows = days.map(|(country, day)| event(Some(country), Some((day * DAY + 3600, 0))));
    rows.chain([event(None, None)]).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_that_cannot_match_are_left_out_and_counted() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("t");
    let by = ["country", "date(at)"].map(str::to_owned).to_vec();
    let (table, _) = tables(place.to_str().unwrap(), by, &[grid()]).await;
    let context = dedupe::operator::context();
    context.register_table("t", table).unwrap();
    for (filter, rows, left_out) in [
        ("country = 'DE'", 3, Some((7, 0))),
        ("country IN ('DE', 'IT')", 6, Some((4, 0))),
        ("country > 'DE'", 6, Some((3, 0))),
        ("country IS NULL", 1, Some((9, 0))),
        ("country IS NOT NULL", 9, Some((0, 0))),
        ("at >= '1970-01-02'", 6, Some((3, 0))),
        ("at > '1970-01-02T23:59:59.999999'", 3, Some((6, 0))),
        ("at BETWEEN '1970-01-02' AND '1970-01-02T12:00:00' AND country = 'FR'", 1, Some((9, 0))),
        ("at < '1970-01-01'", 0, Some((9, 0))),
        ("country = 'XX' AND at >= '1971-01-01'", 0, None),
        ("n = 1", 10, Some((0, 0))),
        ("id = 'key-0'", 1, Some((0, 9))),
        ("country = 'DE' AND id >= 'key-3'", 2, Some((7, 1))),
    ] {
        let frame = context.sql(&format!("SELECT id FROM t WHERE {filter}")).await.unwrap();
        let plan = frame.create_physical_plan().await.unwrap();
        assert_eq!(pruned(&plan), left_out, "{filter}");
        assert_eq!(ids(&context, plan).await.len(), rows, "{filter}");
    }
}
