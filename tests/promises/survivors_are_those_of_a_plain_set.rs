//! Random rows in random files, formats, runs, thread counts and memory budgets: the survivors, their order and the
//! row accounting are those of a plain `HashSet` that sees the rows in input order.

use std::collections::HashSet;

use crate::table::{self, Event, Shape};
use dedupe::options::MIB;
use proptest::prelude::*;

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        3 => (1usize..60).prop_map(|group| Shape::Parquet { group }),
        2 => Just(Shape::Ndjson),
        1 => Just(Shape::NdjsonGzip),
        1 => Just(Shape::NdjsonZstd),
    ]
}

/// Keys from a small domain, so that repeats are many; one row in twenty has none.
fn event() -> impl Strategy<Value = Event> {
    let id = prop_oneof![19 => (0u32..120).prop_map(|i| Some(format!("k{i}"))), 1 => Just(None)];
    (id, any::<i64>()).prop_map(|(id, n)| Event { id, n })
}

/// Runs of files of events. Each file has a key somewhere: one without any is refused as a mistake.
fn runs() -> impl Strategy<Value = Vec<Vec<(Shape, Vec<Event>)>>> {
    let events = prop::collection::vec(event(), 1..150).prop_map(|mut events| {
        events.push(Event { id: Some("always".into()), n: 0 });
        events
    });
    prop::collection::vec(prop::collection::vec((shape(), events), 1..4), 1..4)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_the_split_format_threads_and_memory(
        runs in runs(), threads in 1usize..5, memory in prop_oneof![Just(4 * MIB), Just(64 * MIB)], compact in any::<bool>()
    ) {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("table");
        let mut known = HashSet::new();
        let mut expected = Vec::new();
        for (r, files) in runs.iter().enumerate() {
            let inputs = folder.path().join(format!("run-{r}"));
            std::fs::create_dir(&inputs).unwrap();
            let sources: Vec<_> = files
                .iter()
                .enumerate()
                .map(|(f, (shape, events))| table::write(&inputs, &format!("{f:03}"), *shape, events))
                .collect();
            let all: Vec<&Event> = files.iter().flat_map(|(_, events)| events).collect();
            let survivors = table::first_of_each(&mut known, all.iter().copied());
            let report = table::run(&table, &sources, &table::options(memory, threads)).unwrap();
            let keyless = all.iter().filter(|event| event.id.is_none()).count() as u64;
            prop_assert!(report.rows.is_conserved());
            prop_assert_eq!(report.rows.read, all.len() as u64);
            prop_assert_eq!(report.rows.accepted, survivors.len() as u64);
            prop_assert_eq!(report.rows.rejected, keyless);
            expected.extend(survivors);
            // The same files again: recognised, and nothing added.
            let again = table::run(&table, &sources, &table::options(memory, threads)).unwrap();
            prop_assert_eq!((again.rows.replayed, again.committed), (report.rows.read, false));
            if compact {
                let mut ledger = table::open(&table);
                table::runtime().block_on(dedupe::upkeep::compact::compact(&mut ledger, memory)).unwrap();
            }
        }
        prop_assert_eq!(table::rows(&table), expected);
        prop_assert_eq!(table::problems(&table), Vec::<String>::new());
    }
}

/// A set that outgrows its share of the memory several times, and repeats of what was spilled.
#[test]
fn a_session_that_spills_is_as_exact_as_one_that_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let event = |i: i64| Event { id: Some(format!("key-{}", i % 150_000)), n: i };
    let events: Vec<Event> = (0..300_000).map(event).collect();
    let sources = [table::write(folder.path(), "all", Shape::Parquet { group: 20_000 }, &events)];
    let table = folder.path().join("table");
    let report = table::run(&table, &sources, &table::options(4 * MIB, 2)).unwrap();
    assert_eq!((report.rows.accepted, report.rows.duplicate), (150_000, 150_000));
    assert!(
        table::open(&table).state().runs.len() > 1 || table::open(&table).version() > 1,
        "nothing was spilled"
    );
    assert_eq!(table::rows(&table), events[..150_000]);
    assert_eq!(table::problems(&table), Vec::<String>::new());
}

/// The chunk after a spill repeats what was just spilled: it was once looked up before the spill and compared with
/// the emptied set after it, so that every row of it was accepted again.
#[test]
fn a_chunk_that_follows_a_spill_is_compared_with_what_was_spilled() {
    for (rows, group) in [(400_000i64, 20_000), (300_000, 100_000)] {
        let folder = tempfile::tempdir().unwrap();
        let there_and_back = (0..rows).chain((0..rows).rev());
        let events: Vec<Event> =
            there_and_back.map(|i| Event { id: Some(format!("key-{i}")), n: i }).collect();
        let sources = [table::write(folder.path(), "all", Shape::Parquet { group }, &events)];
        let table = folder.path().join("table");
        let report = table::run(&table, &sources, &table::options(4 * MIB, 2)).unwrap();
        assert_eq!((report.rows.accepted, report.rows.duplicate), (rows as u64, rows as u64));
        assert_eq!(table::problems(&table), Vec::<String>::new());
    }
}

/// The same inputs in the same order give the same bytes' worth of rows, whatever the number of threads.
#[test]
fn threads_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let event = |i: i64| Event { id: Some(format!("key-{}", (i * 7919) % 40_000)), n: i };
    let events: Vec<Event> = (0..60_000).map(event).collect();
    let (first, second) = events.split_at(25_000);
    let sources = [
        table::write(folder.path(), "a", Shape::Parquet { group: 3_000 }, first),
        table::write(folder.path(), "b", Shape::NdjsonGzip, second),
    ];
    let mut all = Vec::new();
    for threads in [1, 2, 5] {
        let table = folder.path().join(format!("table-{threads}"));
        table::run(&table, &sources, &table::options(64 * MIB, threads)).unwrap();
        all.push(table::rows(&table));
    }
    assert_eq!(all[0].len(), 40_000);
    assert!(all.iter().all(|rows| *rows == all[0]));
}
