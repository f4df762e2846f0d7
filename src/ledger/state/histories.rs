//! Random histories, with entries in between that break a rule, and numbers that only an enemy would write.

use super::tests::{Book, body, create, file, run, schema, staged, tokens_of};
use super::*;
use crate::ledger::checkpoint::lists::Lists;
use crate::ledger::checkpoint::{self, Draft, index};
use crate::ledger::entry::{Batch, SourceUse};
use crate::policy::NullKey;
use crate::token::Token;
use proptest::prelude::*;

/// What a random history is made of. Indices are taken modulo what there is.
#[derive(Debug, Clone)]
enum Step {
    Ingest {
        tokens: Vec<u128>,
        keyless: u64,
        dropped: u64,
        inline: usize,
        files: usize,
        batch: bool,
        source: u8,
    },
    Compact {
        pick: u64,
        data: bool,
    },
    Fence {
        back: u64,
        keep: u64,
    },
    Policy {
        partition: u8,
    },
}

/// Ways to spoil an entry that is valid.
#[derive(Debug, Clone, Copy)]
enum Spoil {
    Version,
    Prev,
    Create,
    Total,
    Rows,
    Stage,
    Policy,
    Schema,
    Gone,
    Floor,
    Oldest,
    Named,
    Batch,
    Source,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (prop::collection::vec(any::<u128>(), 0..6), 0..3u64, 0..4u64, 0..7usize, 1..4usize, any::<bool>(), any::<u8>())
            .prop_map(|(tokens, keyless, dropped, inline, files, batch, source)| {
                Step::Ingest { tokens, keyless, dropped, inline, files, batch, source }
            }),
        2 => (any::<u64>(), any::<bool>()).prop_map(|(pick, data)| Step::Compact { pick, data }),
        1 => (0..3u64, 1..4u64).prop_map(|(back, keep)| Step::Fence { back, keep }),
        1 => (0..3u8).prop_map(|partition| Step::Policy { partition }),
    ]
}

fn spoil() -> impl Strategy<Value = Spoil> {
    use Spoil::*;
    prop::sample::select(vec![
        Version, Prev, Create, Total, Rows, Stage, Policy, Schema, Gone, Floor, Oldest, Named, Batch, Source,
    ])
}

/// Builds a history step by step, and beside it what must come out, in the plainest terms.
#[derive(Default)]
struct Oracle {
    tokens: Vec<u128>,
    accepted: u64,
    read: u64,
    batches: usize,
}

fn body_of(book: &Book, step: &Step, oracle: &mut Oracle) -> Body {
    let (state, version) = (&book.state, book.state.entries);
    match step {
        Step::Ingest { tokens, keyless, dropped, inline, files, batch: with_batch, source } => {
            let mut sorted = tokens.clone();
            sorted.sort_unstable();
            sorted.dedup();
            sorted.retain(|t| !oracle.tokens.contains(t));
            let (head, tail) = sorted.split_at((*inline).min(sorted.len()));
            let mut data: Vec<DataFile> = (sorted.chunks(sorted.len().div_ceil(*files).max(1)).enumerate())
                .map(|(n, part)| file(version, n as u64, tokens_of(part), 0))
                .collect();
            data.push(file(version, 50, TokenSum::default(), *keyless));
            let accepted = sorted.len() as u64 + keyless;
            let rows =
                Accounting { read: accepted + dropped, accepted, duplicate: *dropped, ..Default::default() };
            let seen = state.source(u128::from(*source)).unwrap();
            oracle.tokens.extend(&sorted);
            oracle.accepted += accepted;
            oracle.read += rows.read;
            oracle.batches += usize::from(*with_batch);
            body(Ingest {
                batch: with_batch.then(|| Batch { id: format!("batch {version}"), digest: 1 }),
                policy: state.policy_version,
                schema: (state.schema.is_none() || *dropped == 3)
                    .then(|| schema(state.schema_version, &["id", &format!("c{version}")])),
                sources: vec![SourceUse {
                    id: Some(u128::from(*source)),
                    replay_of: seen.map(|seen| seen.version),
                    rows,
                    ..Default::default()
                }],
                files: data,
                runs: vec![run(version, 60, tokens_of(tail))],
                inline: InlineTokens(head.iter().map(|t| Token(*t)).collect()),
                rows,
                keyless: *keyless,
                added: tokens_of(&sorted),
                total: state.total.plus(tokens_of(&sorted)),
                ..Default::default()
            })
        }
        Step::Compact { pick, data } => {
            let mut compact = Compact::default();
            let chosen = |n: usize| pick >> (n % 64) & 1 == 1;
            let mut sum = TokenSum::default();
            for (_, live) in state.runs.values().enumerate().filter(|(n, _)| chosen(*n)) {
                compact.runs_removed.push(live.item.name.clone());
                sum = sum.plus(live.item.tokens);
            }
            for (_, (since, inline)) in state.inline.iter().enumerate().filter(|(n, _)| chosen(n + 7)) {
                compact.inline_removed.push(*since);
                sum = sum.plus(TokenSum::of(&inline.0));
            }
            compact.runs_added = vec![run(version, 70, sum)];
            if *data {
                let (mut sum, mut keyless) = (TokenSum::default(), 0);
                for (_, live) in state.files.values().enumerate().filter(|(n, _)| chosen(n + 13)) {
                    compact.files_removed.push(live.item.name.clone());
                    sum = sum.plus(live.item.tokens);
                    keyless += live.item.keyless;
                }
                compact.files_added = vec![file(version, 71, sum, keyless)];
            }
            Body::Compact(compact)
        }
        Step::Fence { back, keep } => {
            let floor = version.saturating_sub(*back).max(state.floor);
            Body::Fence { floor, oldest: floor.saturating_sub(*keep).max(state.oldest) }
        }
        Step::Policy { partition } => Body::Policy {
            policy: Policy { null_key: NullKey::Fail, partition_by: vec![format!("p{partition}")] },
        },
    }
}

/// A void entry made out of one that would be valid.
fn spoiled(book: &Book, step: &Step, how: Spoil) -> Entry {
    let scratch = &mut Oracle::default();
    let mut entry = book.entry(body_of(book, step, scratch));
    let mut ingest = book.ingest(&[u128::MAX / 3]);
    match how {
        Spoil::Version => entry.version += 1,
        Spoil::Prev => entry.prev = entry.prev.wrapping_add(1),
        Spoil::Create => entry.body = create("t"),
        Spoil::Total => ingest.total.count = ingest.total.count.wrapping_add(1),
        Spoil::Rows => ingest.rows.rejected = u64::MAX,
        Spoil::Stage => ingest.files[0].name = staged("data", u64::MAX, 1, "parquet"),
        Spoil::Policy => ingest.policy = u64::MAX,
        Spoil::Schema => ingest.schema = Some(schema(u64::MAX, &["x"])),
        Spoil::Gone => {
            entry.body = Body::Compact(Compact { runs_removed: vec!["gone".into()], ..Default::default() });
        }
        Spoil::Floor => entry.body = Body::Fence { floor: u64::MAX, oldest: book.state.oldest },
        Spoil::Oldest => {
            entry.body = Body::Fence { floor: book.state.floor, oldest: book.state.floor.max(1) };
        }
        Spoil::Named | Spoil::Batch | Spoil::Source => {}
    }
    if matches!(how, Spoil::Named | Spoil::Batch | Spoil::Source) {
        // What some entry before has, chosen by the version; or, where there is none, what contradicts itself.
        let mut before: Vec<&Ingest> = book.entries.iter().filter_map(Entry::ingest).collect();
        let half = before.len() / 2;
        before.rotate_left(half);
        let names = before.iter().flat_map(|ingest| ingest.files.iter().map(|file| &file.name));
        let batches = before.iter().filter_map(|ingest| ingest.batch.clone());
        let sources = before.iter().flat_map(|ingest| ingest.sources.iter().filter_map(|source| source.id));
        // Entries may be void themselves: then what they have counts for nothing.
        let (mut names, mut batches, mut sources) = (names, batches, sources);
        match (how, names.next(), batches.next(), sources.next()) {
            (Spoil::Named, Some(name), ..) if book.state.seen.contains_key(&Key::name(name).0) => {
                ingest.files[0].name.clone_from(name);
            }
            (Spoil::Batch, _, Some(batch), _) if book.state.batch(&batch.id).unwrap().is_some() => {
                ingest.batch = Some(batch);
            }
            (Spoil::Source, _, _, Some(id)) if book.state.source(id).unwrap().is_some() => {
                ingest.sources[0].id = Some(id);
            }
            _ => ingest.total.count = ingest.total.count.wrapping_add(1),
        }
        entry.body = body(ingest.clone());
    }
    if matches!(how, Spoil::Total | Spoil::Rows | Spoil::Stage | Spoil::Policy | Spoil::Schema) {
        entry.body = body(ingest);
    }
    entry
}

type Objects = BTreeMap<String, bytes::Bytes>;

/// Writes a checkpoint of `state` into `objects` and begins anew with it, all unread.
fn checkpointed(state: &State, objects: &mut Objects) -> State {
    let draft = Draft::of(state);
    let index =
        draft.old_index.iter().map(|part| index::decode(part, &objects[&part.name]).unwrap()).collect();
    let lists =
        draft.old_lists.iter().map(|part| Lists::decode(part, &objects[&part.name]).unwrap()).collect();
    let written = draft.write(index, lists).unwrap();
    let (name, bytes) = written.objects.last().unwrap().clone();
    objects.extend(written.objects);
    checkpoint::decode(&name, &bytes).unwrap()
}

/// Reads what `state` must know to judge `entry`. Returns how much that was.
fn answered(state: &mut State, entry: &Entry, objects: &Objects) -> usize {
    let mut asks = Asks::default();
    state.ask(entry, &mut asks);
    if asks.lists {
        let parts = state.beneath().lists.parts.clone();
        let lists = parts.iter().map(|part| Lists::decode(part, &objects[&part.name]).unwrap());
        let all = lists.fold(Lists::default(), |mut all, lists| {
            all.append(lists);
            all
        });
        state.take_lists(all.files, all.quarantine);
    }
    let mut found = Vec::new();
    for part in &state.beneath().index.parts {
        let records = index::decode(part, &objects[&part.name]).unwrap();
        found.extend(records.into_iter().filter(|(key, _)| asks.keys.contains(key)));
    }
    state.answer(&asks.keys, &found);
    asks.keys.len()
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Beside a state that holds everything, one that leaves what it can in parts of checkpoints.
    #[test]
    fn a_state_that_was_not_read_judges_as_a_whole_one(
        steps in prop::collection::vec((step(), prop::collection::vec(spoil(), 0..3), 0..4u8), 0..30)
    ) {
        let (mut book, mut oracle, mut objects) = (Book::new(), Oracle::default(), Objects::new());
        let mut lean = book.state.clone();
        for (step, spoils, checkpoints) in &steps {
            let spoils: Vec<Entry> = spoils.iter().map(|how| spoiled(&book, step, *how)).collect();
            for spoiled in spoils.into_iter().map(Some).chain([None]) {
                let mut entry =
                    spoiled.unwrap_or_else(|| book.entry(body_of(&book, step, &mut oracle)));
                if entry.version < book.state.entries {
                    (entry.version, entry.prev) = (book.state.entries, book.state.tip);
                }
                let verdict = book.state.check(&entry);
                let unread = lean.check(&entry);
                prop_assert!(unread == verdict || matches!(unread, Err(Void::Unread(_))), "{unread:?} {verdict:?}");
                if unread != verdict {
                    let before = lean.clone();
                    prop_assert!(matches!(lean.apply(&entry, 1), Applied::Void(Void::Unread(_))));
                    prop_assert_eq!(&lean, &before);
                }
                answered(&mut lean, &entry, &objects);
                prop_assert_eq!(lean.check(&entry), verdict);
                let applied = book.put(entry.clone());
                prop_assert_eq!(lean.apply(&entry, book.state.tip), applied);
            }
            if *checkpoints == 0 {
                lean = checkpointed(&lean, &mut objects);
            }
        }
        checkpoint::take_parts(&mut lean, |part| objects.get(part).cloned()).unwrap();
        prop_assert_eq!(&lean, &book.state);
        // What a whole state writes reads back the same.
        let mut again = checkpointed(&book.state, &mut objects);
        checkpoint::take_parts(&mut again, |part| objects.get(part).cloned()).unwrap();
        prop_assert_eq!(&again, &book.state);
    }

    #[test]
    fn void_entries_leave_no_trace(steps in prop::collection::vec((step(), prop::collection::vec(spoil(), 0..3)), 0..25)) {
        // The same history twice: once with void entries in between, once with entries that do nothing in their
        // place, so that all versions are the same.
        let (mut with, mut without) = (Book::new(), Book::new());
        let (mut oracle, mut same) = (Oracle::default(), Oracle::default());
        for (step, spoils) in &steps {
            for how in spoils {
                let entry = spoiled(&with, step, *how);
                let applied = with.put(entry);
                prop_assert!(matches!(applied, Applied::Void(_)), "{how:?}");
                let (floor, oldest) = (without.state.floor, without.state.oldest);
                without.valid(Body::Fence { floor, oldest });
            }
            let bodies = (body_of(&with, step, &mut oracle), body_of(&without, step, &mut same));
            prop_assert_eq!(&bodies.0, &bodies.1);
            with.valid(bodies.0);
            without.valid(bodies.1);
            without.state.tip = with.state.tip;
            prop_assert_eq!(&with.state, &without.state);
        }

        // And it is what a plain count says.
        let state = &with.state;
        prop_assert_eq!(state.total, tokens_of(&oracle.tokens));
        prop_assert_eq!((state.rows.accepted, state.rows.read), (oracle.accepted, oracle.read));
        prop_assert_eq!(state.total.count + state.keyless, state.rows.accepted);
        prop_assert_eq!(state.batches as usize, oracle.batches);
        let files = FileSums::of(state.files.values().map(|live| &live.item)).unwrap();
        prop_assert_eq!((files.tokens, files.rows), (state.total, state.rows.accepted));
        let runs = state.runs.values().map(|live| live.item.tokens);
        let inline = state.inline.values().map(|tokens| TokenSum::of(&tokens.0));
        prop_assert_eq!(sum_tokens(runs.chain(inline)), Some(state.total));

        // Replayed from its bytes it comes out the same, and so does a checkpoint of it.
        let mut replayed = State::default();
        for (version, entry) in with.entries.iter().enumerate() {
            let bytes = entry.encode().unwrap();
            let _ = replayed.apply(&Entry::decode("x", &bytes).unwrap(), Entry::hash(&bytes));
            prop_assert_eq!(replayed.version(), Some(version as u64));
        }
        prop_assert_eq!(&replayed, state);
        let objects = checkpoint::encode(state).unwrap();
        let (name, bytes) = objects.last().unwrap();
        let mut read = checkpoint::decode(name, bytes).unwrap();
        let part = |name: &str| objects.iter().find(|(part, _)| part == name).map(|(_, bytes)| bytes.clone());
        checkpoint::take_parts(&mut read, part).unwrap();
        prop_assert_eq!(&read, state);
    }

    #[test]
    fn hostile_numbers_never_panic(
        numbers in prop::collection::vec(prop_oneof![Just(0), Just(1), Just(u64::MAX), Just(u64::MAX - 1), any::<u64>()], 40),
        places in any::<u8>(),
    ) {
        let mut numbers = numbers.into_iter().cycle();
        let mut n = || numbers.next().unwrap();
        let tokens = |count| TokenSum { count, sum: u128::MAX - u128::from(count) };
        let mut accounting = |read| Accounting {
            read, accepted: n(), duplicate: n(), replayed: n(), conflict: n(), late: n(), rejected: n(),
        };
        let (rows, more) = (accounting(u64::MAX), accounting(1));
        let mut files: Vec<DataFile> = (0..3).map(|i| file(0, i, tokens(n()), n())).collect();
        files[0].rows = n();
        let runs: Vec<RunRef> = (0..3).map(|i| run(0, i, tokens(n()))).collect();
        let ingest = Ingest {
            policy: 0,
            schema: Some(schema(0, &["id"])),
            sources: [rows, more].map(|rows| SourceUse { rows, ..Default::default() }).into(),
            files: files.clone(),
            runs: runs.clone(),
            rows,
            keyless: n(),
            added: tokens(n()),
            total: tokens(n()),
            ..Default::default()
        };
        // A state as only a forged checkpoint can give it.
        let mut state = State { table: "t".into(), entries: n(), total: tokens(n()), keyless: n(), rows, ..State::default() };
        if places & 1 == 1 {
            state.files = files.iter().map(|f| (f.name.clone(), Live { since: n(), item: f.clone() })).collect();
            state.runs = runs.iter().map(|r| (r.name.clone(), Live { since: n(), item: r.clone() })).collect();
        }
        let compact = Compact {
            runs_removed: state.runs.keys().cloned().collect(),
            inline_removed: vec![n()],
            runs_added: vec![run(0, 9, tokens(n()))],
            files_removed: state.files.keys().cloned().collect(),
            files_added: vec![file(0, 9, tokens(n()), n())],
        };
        let without_inline = Compact { inline_removed: vec![], ..compact.clone() };
        let bodies = [body(ingest), Body::Compact(compact), Body::Compact(without_inline), Body::Fence { floor: n(), oldest: n() }];
        for hostile in bodies {
            let mut entry = Book::default().entry(hostile);
            (entry.version, entry.prev) = (state.entries, state.tip);
            let _ = state.apply(&entry, 1);
        }
        let _ = state.inline_count();
    }
}
