use std::collections::BTreeSet;
use std::sync::Arc;

use object_store::memory::InMemory;
use proptest::prelude::*;

use super::*;
use crate::index::samples::{any_tokens, ascending, token};

fn memory() -> Store {
    Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:")
}

fn namer() -> Namer {
    Namer::new(&"0a".repeat(16), 3)
}

fn sorted(mut tokens: Vec<Token>) -> Vec<Token> {
    tokens.sort_unstable();
    tokens.dedup();
    tokens
}

fn positions(tokens: &[Token], held: &BTreeSet<Token>) -> Vec<u32> {
    (0..).zip(tokens).filter(|(_, token)| held.contains(token)).map(|(place, _)| place).collect()
}

/// All tokens that were staged, read back from the store.
async fn read_back(store: &Store, staged: &Tokens) -> Vec<Token> {
    let mut all = staged.inline.0.clone();
    for staged in &staged.runs {
        let run = OpenRun::open(store, &staged.reference).await.unwrap();
        let mut scan = crate::runs::Scan::new(Arc::clone(run.meta()));
        let mut tokens = Vec::new();
        while let Some(piece) = scan.next_tokens(store).await.unwrap() {
            tokens.extend(piece);
        }
        assert_eq!(TokenSum::of(&tokens), staged.reference.tokens);
        all.extend(tokens);
    }
    all
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// With no memory at all every batch spills; with much of it none does.
    #[test]
    fn whatever_spills_it_is_the_set_of_what_was_inserted(
        batches in prop::collection::vec((any_tokens(300), any::<bool>()), 1..8),
        gone in any_tokens(300), memory_left in prop_oneof![Just(0u64), Just(20_000), Just(1 << 20)]
    ) {
        block_on(async {
            let (store, mut namer) = (memory(), namer());
            let mut own = Own::new(memory_left);
            let mut held = BTreeSet::new();
            for (tokens, look) in batches {
                let tokens = sorted(tokens);
                let expected = positions(&tokens, &held);
                if look {
                    assert_eq!(own.find(&store, &tokens).await.unwrap(), expected);
                } else {
                    assert_eq!(own.insert(&store, &mut namer, &tokens).await.unwrap(), expected);
                    held.extend(tokens);
                }
                assert_eq!(own.sum(), TokenSum::of(&held.iter().copied().collect::<Vec<_>>()));
            }
            let mut staged = own.finish(&store, run_name(&mut namer)).await.unwrap();
            let all: Vec<Token> = held.iter().copied().collect();
            assert_eq!(staged.sum(), TokenSum::of(&all));
            assert_eq!(sorted(read_back(&store, &staged).await), all);
            assert!(staged.inline.0.is_empty() || staged.runs.is_empty());

            let gone = sorted(gone.into_iter().chain(all.iter().copied().step_by(3)).collect());
            assert_eq!(staged.find(&store, &gone, &Budget::new(memory_left)).await.unwrap(), positions(&gone, &held));
            staged.remove(&store, &mut namer, &gone).await.unwrap();
            held.retain(|token| gone.binary_search(token).is_err());
            assert_eq!(sorted(read_back(&store, &staged).await), held.iter().copied().collect::<Vec<_>>());
            assert!(staged.find(&store, &gone, &Budget::new(0)).await.unwrap().is_empty());
        });
    }
}

#[tokio::test]
async fn a_batch_that_makes_the_set_spill_is_compared_with_what_spills() {
    let (store, mut namer) = (memory(), namer());
    let mut own = Own::new(0);
    assert!(own.insert(&store, &mut namer, &ascending(0, 100)).await.unwrap().is_empty());
    assert_eq!(own.insert(&store, &mut namer, &ascending(0, 100)).await.unwrap().len(), 100);
    assert_eq!(own.spilled.len(), 1);
    assert_eq!(own.sum().count, 100);
}

#[tokio::test]
async fn few_tokens_stand_inline_and_one_more_makes_a_run() {
    for (count, runs) in [(0, 0), (1, 0), (InlineTokens::MAX as u64, 0), (InlineTokens::MAX as u64 + 1, 1)] {
        let (store, mut own) = (memory(), Own::new(1 << 20));
        own.insert(&store, &mut namer(), &ascending(0, count)).await.unwrap();
        let staged = own.finish(&store, run_name(&mut namer())).await.unwrap();
        assert_eq!(
            (staged.runs.len(), staged.inline.0.len() as u64),
            (runs, if runs == 0 { count } else { 0 })
        );
    }
}

#[tokio::test]
async fn only_runs_that_hold_what_goes_are_written_anew() {
    let (store, mut namer) = (memory(), namer());
    let mut own = Own::new(0);
    for from in [0, 1000, 2000, 3000] {
        own.insert(&store, &mut namer, &ascending(from, 500)).await.unwrap();
    }
    let mut staged = own.finish(&store, run_name(&mut namer)).await.unwrap();
    let before: Vec<String> = staged.runs.iter().map(|staged| staged.reference.name.clone()).collect();
    assert_eq!(before.len(), 4);
    // One token of the first run, all of the second, none of the third, and one of the fourth.
    let gone = sorted([ascending(1000, 500), vec![token(7), token(3200)]].concat());
    namer.advance(9);
    staged.remove(&store, &mut namer, &gone).await.unwrap();
    let after: Vec<String> = staged.runs.iter().map(|staged| staged.reference.name.clone()).collect();
    assert_eq!(after.len(), 3);
    let kept: Vec<&String> = after.iter().filter(|name| before.contains(name)).collect();
    assert_eq!(kept, [&before[2]]);
    let counts: Vec<u64> = staged.runs.iter().map(|staged| staged.reference.tokens.count).collect();
    assert_eq!(counts, [499, 500, 499]);
    let stages = after.iter().map(|name| name::StagedName::parse(name).unwrap().stage);
    assert_eq!(stages.collect::<Vec<_>>(), [9, 3, 9]);
}

#[tokio::test]
async fn a_set_aside_spills_where_nothing_stays_behind() {
    let (table, mut namer) = (memory(), namer());
    let mut own = Own::aside(0).unwrap();
    let folder = own.scratch.as_ref().unwrap()._folder.path().to_owned();
    for from in [0, 400, 800] {
        own.insert(&table, &mut namer, &ascending(from, 500)).await.unwrap();
    }
    assert_eq!(own.find(&table, &ascending(0, 2000)).await.unwrap().len(), 1300);
    assert_eq!(own.spilled.len(), 2);
    assert!(std::fs::read_dir(&folder).unwrap().next().is_some(), "it spilled somewhere else");
    assert!(table.list("").await.unwrap().is_empty(), "it wrote into the table");
    drop(own);
    assert!(!folder.exists());
}
