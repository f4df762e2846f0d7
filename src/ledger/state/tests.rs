//! Each rule broken once, and each field folded; the builders serve `histories` too.

use super::*;
use crate::ledger::checkpoint;
use crate::ledger::entry::{Batch, Create, FORMAT, SchemaChange, SourceUse};
use crate::policy::NullKey;
use crate::token::Token;
use arrow_schema::{DataType, Field};

/// A ledger in the making: every entry gets the place and the hash a store would give it.
#[derive(Default)]
pub(super) struct Book {
    pub(super) state: State,
    pub(super) entries: Vec<Entry>,
}

impl Book {
    pub(super) fn new() -> Self {
        let mut book = Self::default();
        book.valid(create("t"));
        book
    }

    pub(super) fn entry(&self, body: Body) -> Entry {
        Entry {
            format: FORMAT,
            version: self.state.entries,
            id: u128::from(self.state.entries) + 1000,
            prev: self.state.tip,
            time: format!("time {}", self.state.entries),
            session: session(1),
            writer: "w".into(),
            body,
        }
    }

    pub(super) fn put(&mut self, entry: Entry) -> Applied {
        let hash = Entry::hash(&entry.encode().unwrap());
        let applied = self.state.apply(&entry, hash);
        self.entries.push(entry);
        applied
    }

    pub(super) fn valid(&mut self, body: Body) {
        let entry = self.entry(body);
        assert_eq!(self.put(entry), Applied::Valid);
    }

    /// Applies a void entry: nothing but the two counters of the log may change.
    fn void(&mut self, body: Body) -> Void {
        let entry = self.entry(body);
        let check = self.state.check(&entry).unwrap_err();
        let mut before = self.state.clone();
        let Applied::Void(void) = self.put(entry) else { panic!("it is valid") };
        assert_eq!(void, check);
        (before.entries, before.tip) = (self.state.entries, self.state.tip);
        assert_eq!(self.state, before);
        void
    }

    pub(super) fn ingest(&self, tokens: &[u128]) -> Ingest {
        self.ingest_staged(tokens, self.state.entries)
    }

    /// One data file and one run with `tokens`, from one source, every row accepted.
    fn ingest_staged(&self, tokens: &[u128], stage: u64) -> Ingest {
        let sum = tokens_of(tokens);
        let rows = Accounting { read: sum.count, accepted: sum.count, ..Default::default() };
        let number = self.state.entries * 10;
        Ingest {
            policy: self.state.policy_version,
            schema: self.state.schema.is_none().then(|| schema(0, &["id"])),
            sources: vec![SourceUse { url: "a".into(), rows, ..Default::default() }],
            files: vec![file(stage, number, sum, 0)],
            runs: vec![run(stage, number, sum)],
            rows,
            added: sum,
            total: self.state.total.plus(sum),
            ..Default::default()
        }
    }
}

fn session(who: u8) -> String {
    format!("{who:032x}")
}

pub(super) fn staged(folder: &str, stage: u64, number: u64, extension: &str) -> String {
    let name = StagedName { stage, session: session(1), number, extension: extension.into() };
    format!("{folder}/{name}")
}

pub(super) fn tokens_of(tokens: &[u128]) -> TokenSum {
    TokenSum::of(&tokens.iter().map(|t| Token(*t)).collect::<Vec<_>>())
}

pub(super) fn file(stage: u64, number: u64, tokens: TokenSum, keyless: u64) -> DataFile {
    DataFile {
        name: staged("data", stage, number, "parquet"),
        rows: tokens.count.wrapping_add(keyless),
        bytes: 1,
        check: "0".into(),
        keyless,
        tokens,
        origin: vec![(0, tokens.count)],
        key_range: vec![None, Some(("a".into(), "b".into()))],
    }
}

pub(super) fn run(stage: u64, number: u64, tokens: TokenSum) -> RunRef {
    let name = staged("_dedupe/tokens", stage, number, "run");
    RunRef { name, bytes: 1, min: 0, max: u128::MAX, tokens, check: "0".into() }
}

pub(super) fn schema(base: u64, columns: &[&str]) -> SchemaChange {
    let field = |name: &&str| {
        Field::new(*name, DataType::Utf8, true).with_metadata([("a".into(), "b".into())].into())
    };
    SchemaChange { base, schema: Schema::new(columns.iter().map(field).collect::<Vec<_>>()) }
}

pub(super) fn create(table: &str) -> Body {
    Body::Create(Create { table: table.into(), policy: Policy::default() })
}

pub(super) fn body(ingest: Ingest) -> Body {
    Body::Ingest(Box::new(ingest))
}

fn batch(id: &str) -> Option<Batch> {
    Some(Batch { id: id.into(), digest: 5 })
}

#[test]
fn an_entry_for_another_place_is_void() {
    let mut book = Book::new();
    let mut early = book.entry(Body::Fence { floor: 0, oldest: 0 });
    early.version = 7;
    assert_eq!(book.put(early), Applied::Void(Void::Misplaced { made_for: 7 }));
    let mut sibling = book.entry(Body::Fence { floor: 0, oldest: 0 });
    sibling.prev ^= 1;
    let version = sibling.version;
    assert_eq!(book.put(sibling), Applied::Void(Void::Misplaced { made_for: version }));
    book.valid(Body::Fence { floor: 0, oldest: 0 });
}

#[test]
fn a_table_is_created_once_and_before_all_else() {
    let mut book = Book::default();
    assert_eq!(book.void(Body::Fence { floor: 0, oldest: 0 }), Void::NotTheBeginning);
    assert_eq!(book.void(create("")), Void::NotTheBeginning);
    // Void entries must not keep the table from coming to be.
    book.valid(create("t"));
    assert_eq!((book.state.table.as_str(), book.state.policy_version), ("t", 2));
    assert_eq!(book.void(create("u")), Void::NotTheBeginning);
    book.valid(body(book.ingest(&[1])));
}

#[test]
fn the_floor_only_rises_and_not_above_the_stage_of_who_has_seen_it() {
    let mut book = Book::new();
    assert_eq!(book.void(Body::Fence { floor: 3, oldest: 0 }), Void::Floor(3));
    book.valid(Body::Fence { floor: 3, oldest: 0 });
    assert_eq!(book.state.floor, 3);
    assert_eq!(book.void(Body::Fence { floor: 2, oldest: 0 }), Void::Floor(2));
    assert_eq!(book.void(Body::Fence { floor: u64::MAX, oldest: 0 }), Void::Floor(u64::MAX));
    book.valid(Body::Fence { floor: 3, oldest: 0 });
    // What is begun after it is welcome.
    book.valid(Body::Fence { floor: book.state.entries + 1, oldest: 0 });
    book.valid(body(book.ingest(&[1])));
}

#[test]
fn the_oldest_readable_version_only_rises_and_stays_below_the_floor() {
    let mut book = Book::new();
    assert_eq!(book.void(Body::Fence { floor: 0, oldest: 1 }), Void::Oldest(1));
    book.valid(Body::Fence { floor: 0, oldest: 0 });
    assert_eq!(book.void(Body::Fence { floor: 2, oldest: 2 }), Void::Oldest(2));
    book.valid(Body::Fence { floor: 2, oldest: 1 });
    assert_eq!((book.state.floor, book.state.oldest), (2, 1));
    assert_eq!(book.void(Body::Fence { floor: 3, oldest: 0 }), Void::Oldest(0));
    assert_eq!(book.void(Body::Fence { floor: 3, oldest: u64::MAX }), Void::Oldest(u64::MAX));
    book.valid(Body::Fence { floor: 4, oldest: 1 });
    book.valid(Body::Fence { floor: 4, oldest: 3 });
}

#[test]
fn what_was_staged_below_the_floor_never_becomes_live() {
    let mut book = Book::new();
    let (data, runs, kept) = (book.ingest(&[1]), book.ingest(&[1]), book.ingest(&[1]));
    book.valid(Body::Fence { floor: 1, oldest: 0 });
    book.valid(Body::Fence { floor: 2, oldest: 0 });
    for stale in [data, runs, kept] {
        let name = stale.files[0].name.clone();
        assert_eq!(book.void(body(stale)), Void::BelowFloor(name));
    }
    let mut only_run = book.ingest(&[1]);
    only_run.runs = vec![run(1, 9, only_run.added)];
    assert!(matches!(book.void(body(only_run)), Void::BelowFloor(name) if name.ends_with(".run")));
    let mut only_quarantine = book.ingest(&[1]);
    only_quarantine.quarantine =
        vec![QuarantineFile { name: staged("_dedupe/quarantine", 1, 0, "ndjson"), rows: 1, bytes: 1 }];
    assert!(matches!(book.void(body(only_quarantine)), Void::BelowFloor(name) if name.ends_with(".ndjson")));
    book.valid(body(book.ingest(&[1])));
    let old = book.state.runs.keys().next().unwrap().clone();
    let compact = Compact {
        runs_removed: vec![old],
        runs_added: vec![run(1, 8, tokens_of(&[1]))],
        ..Default::default()
    };
    assert!(matches!(book.void(Body::Compact(compact)), Void::BelowFloor(_)));
    book.valid(body(book.ingest_staged(&[2], 2)));
}

#[test]
fn names_that_vacuum_could_not_judge_never_become_live() {
    let mut book = Book::new();
    for name in
        ["data/x.parquet".into(), staged("data", 2, 0, "parquet"), staged("data", u64::MAX, 0, "parquet")]
    {
        let mut ingest = book.ingest(&[1]);
        ingest.files[0].name.clone_from(&name);
        let state = book.state.clone();
        assert_eq!(book.void(body(ingest)), Void::NotStaged(name));
        book.state = state;
    }
    book.valid(body(book.ingest_staged(&[1], 1)));
}

#[test]
fn a_name_becomes_live_once() {
    let mut book = Book::new();
    let first = book.ingest(&[1]);
    let again = |book: &Book, change: fn(&mut Ingest, &Ingest)| {
        let mut ingest = book.ingest(&[2]);
        change(&mut ingest, &book.ingest(&[2]));
        ingest
    };
    let twice_in_one = again(&book, |ingest, other| {
        ingest.files[0].tokens = TokenSum::default();
        ingest.files[0].rows = 0;
        ingest.files.extend(other.files.clone());
    });
    assert!(matches!(book.void(body(twice_in_one)), Void::NamedTwice(_)));
    let name = first.files[0].name.clone();
    book.valid(body(first));
    let mut twice = book.ingest(&[2]);
    twice.files[0].name.clone_from(&name);
    assert_eq!(book.void(body(twice)), Void::NamedTwice(name.clone()));
    // A name is one object, whatever it is called.
    let mut as_run = book.ingest(&[2]);
    as_run.runs[0].name.clone_from(&name);
    assert_eq!(book.void(body(as_run)), Void::NamedTwice(name));
    // Nor that of what is no longer live.
    let files: Vec<String> = book.state.files.keys().cloned().collect();
    let merged = file(3, 800, tokens_of(&[1]), 0);
    book.valid(Body::Compact(Compact {
        files_removed: files.clone(),
        files_added: vec![merged],
        ..Default::default()
    }));
    let mut again = book.ingest(&[2]);
    again.files[0].name.clone_from(&files[0]);
    assert_eq!(book.void(body(again)), Void::NamedTwice(files[0].clone()));
    // A compaction cannot take the name of its own input either.
    let run = book.state.runs.values().next().unwrap().item.clone();
    let itself =
        Compact { runs_removed: vec![run.name.clone()], runs_added: vec![run.clone()], ..Default::default() };
    assert_eq!(book.void(Body::Compact(itself)), Void::NamedTwice(run.name));
}

#[test]
fn a_compaction_replaces_only_what_is_live() {
    let mut book = Book::new();
    book.valid(body(book.ingest(&[1])));
    book.valid(body(book.ingest(&[2])));
    let runs: Vec<String> = book.state.runs.keys().cloned().collect();
    let files: Vec<String> = book.state.files.keys().cloned().collect();
    let both = tokens_of(&[1, 2]);
    let compact = |number| Compact {
        runs_removed: runs.clone(),
        runs_added: vec![run(3, number, both)],
        files_removed: files.clone(),
        files_added: vec![file(3, number, both, 0)],
        ..Default::default()
    };
    let missing = |change: fn(&mut Compact)| {
        let mut compact = compact(900);
        change(&mut compact);
        Body::Compact(compact)
    };
    assert_eq!(book.void(missing(|c| c.runs_removed[0] = "gone".into())), Void::NotLive("gone".into()));
    assert_eq!(book.void(missing(|c| c.files_removed[0] = "gone".into())), Void::NotLive("gone".into()));
    assert!(matches!(book.void(missing(|c| c.inline_removed = vec![1])), Void::NotLive(_)));
    let twice = missing(|c| c.runs_removed[0] = c.runs_removed[1].clone());
    assert_eq!(book.void(twice), Void::NotLive(runs[1].clone()));
    let twice = missing(|c| c.files_removed[0] = c.files_removed[1].clone());
    assert_eq!(book.void(twice), Void::NotLive(files[1].clone()));

    // Two compactors of the same inputs: the second comes too late.
    book.valid(Body::Compact(compact(901)));
    assert_eq!(book.state.runs.len(), 1);
    assert_eq!(book.state.files.len(), 1);
    assert_eq!(book.void(Body::Compact(compact(902))), Void::NotLive(runs[0].clone()));
}

#[test]
fn a_compaction_holds_exactly_what_it_replaces() {
    let mut book = Book::new();
    book.valid(body(book.ingest(&[1, 2])));
    let run_name = book.state.runs.keys().next().unwrap().clone();
    let file_name = book.state.files.keys().next().unwrap().clone();
    for tokens in [&[1][..], &[1, 3], &[1, 2, 3]] {
        let sum = tokens_of(tokens);
        let runs = Compact {
            runs_removed: vec![run_name.clone()],
            runs_added: vec![run(2, 900, sum)],
            ..Default::default()
        };
        assert!(matches!(book.void(Body::Compact(runs)), Void::Sums(_)));
        let files = Compact {
            files_removed: vec![file_name.clone()],
            files_added: vec![file(2, 900, sum, 0)],
            ..Default::default()
        };
        assert!(matches!(book.void(Body::Compact(files)), Void::Sums(_)));
    }
    let keyless = Compact {
        files_removed: vec![file_name],
        files_added: vec![file(2, 900, tokens_of(&[1, 2]), 1)],
        ..Default::default()
    };
    assert!(matches!(book.void(Body::Compact(keyless)), Void::Sums(_)));
}

#[test]
fn a_batch_commits_once() {
    let mut book = Book::new();
    book.valid(body(Ingest { batch: batch("b"), ..book.ingest(&[1]) }));
    assert_eq!(book.state.batch("b").unwrap(), Some(BatchSeen { version: 1, digest: 5 }));
    let again = Ingest { batch: batch("b"), ..book.ingest(&[2]) };
    assert_eq!(book.void(body(again)), Void::BatchCommitted("b".into()));
    book.valid(body(Ingest { batch: batch("c"), ..book.ingest(&[2]) }));
}

#[test]
fn a_source_is_consumed_once_and_replayed_only_if_it_was() {
    let mut book = Book::new();
    let with_source = |book: &Book, token: u128, id, replay_of| {
        let mut ingest = book.ingest(&[token]);
        ingest.sources[0].id = id;
        ingest.sources[0].replay_of = replay_of;
        body(ingest)
    };
    book.valid(with_source(&book, 1, Some(7), None));
    assert_eq!(book.state.source(7).unwrap(), Some(SourceSeen { version: 1, rows: 1 }));
    assert_eq!(book.void(with_source(&book, 2, Some(7), None)), Void::SourceCommitted("a".into()));
    for (id, replay_of) in [(Some(8), Some(1)), (Some(7), Some(2)), (None, Some(1))] {
        assert_eq!(book.void(with_source(&book, 2, id, replay_of)), Void::NotReplayed("a".into()));
    }
    // Read again and judged row by row: allowed, and the first reading stays the one that counts.
    book.valid(with_source(&book, 2, Some(7), Some(1)));
    assert_eq!(book.state.source(7).unwrap(), Some(SourceSeen { version: 1, rows: 1 }));
    // Standard input has no identity.
    book.valid(with_source(&book, 3, None, None));
    book.valid(with_source(&book, 4, None, None));
}

#[test]
fn rows_judged_under_other_rules_are_void() {
    let mut book = Book::new();
    let mut late = book.ingest(&[1]);
    let policy = Policy { null_key: NullKey::Keep, partition_by: vec!["country".into()] };
    book.valid(Body::Policy { policy: policy.clone() });
    assert_eq!((&book.state.policy, book.state.policy_version), (&policy, 1));
    assert_eq!(book.void(body(late.clone())), Void::PolicyChanged);
    late.policy = 1;
    book.valid(body(late));
}

#[test]
fn a_schema_is_widened_only_from_the_present_one() {
    let mut book = Book::new();
    let first = book.ingest(&[1]);
    let without = Ingest { schema: None, ..book.ingest(&[1]) };
    assert_eq!(book.void(body(without)), Void::SchemaChanged);
    book.valid(body(first));
    assert_eq!(book.state.schema_version, 2);
    assert_eq!(book.state.schema.as_ref(), Some(&schema(0, &["id"]).schema));
    let stale = Ingest { schema: Some(schema(0, &["id", "x"])), ..book.ingest(&[2]) };
    assert_eq!(book.void(body(stale)), Void::SchemaChanged);
    book.valid(body(Ingest { schema: Some(schema(2, &["id", "x"])), ..book.ingest(&[2]) }));
    assert_eq!(book.state.schema_version, 4);
    assert_eq!(book.state.schema.as_ref(), Some(&schema(0, &["id", "x"]).schema));
    book.valid(body(book.ingest(&[3])));
}

#[test]
fn sums_that_do_not_add_up_are_void() {
    const MAX: u64 = u64::MAX;
    type Change = fn(&mut Ingest);
    let changes: &[(&str, Change)] = &[
        ("verdicts of the commit", |i| i.rows.duplicate += 1),
        ("verdicts of a source", |i| {
            i.sources.push(i.sources[0].clone());
            i.sources[0].rows = Accounting { read: 2, ..Default::default() };
            i.sources[1].rows = Accounting { accepted: 2, ..Default::default() };
        }),
        ("rows of the sources", |i| i.sources[0].rows = Accounting::default()),
        ("no source", |i| i.sources.clear()),
        ("sources beyond 64 bits", |i| {
            let all = |n| Accounting { read: n, duplicate: n, ..Default::default() };
            let rest = Accounting { read: 3, accepted: 2, duplicate: 1, ..Default::default() };
            i.sources = [all(MAX), rest].map(|rows| SourceUse { rows, ..Default::default() }).into();
        }),
        ("rows of the files", |i| i.files[0].rows += 1),
        ("no file", |i| i.files.clear()),
        ("keyless rows", |i| i.keyless += 1),
        ("keyless rows of a file", |i| i.files[0].keyless += 1),
        ("files beyond 64 bits", |i| {
            i.files[0].rows = MAX;
            i.files[0].tokens.count = MAX;
            i.files.push(file(1, 5, TokenSum { count: 3, sum: 0 }, 0));
        }),
        ("a file that contradicts itself", |i| {
            i.files.push(file(1, 5, TokenSum::default(), 0));
            i.files[0].rows = 0;
            i.files[1].rows = 2;
        }),
        ("tokens of the files", |i| i.files[0].tokens.sum ^= 1),
        ("tokens of the runs", |i| i.runs[0].tokens.sum ^= 1),
        ("no run", |i| i.runs.clear()),
        ("runs beyond 64 bits", |i| {
            i.runs[0].tokens.count = MAX;
            i.runs.push(run(1, 5, TokenSum { count: 3, sum: 0 }));
        }),
        ("inline tokens besides", |i| i.inline = InlineTokens(vec![Token(1)])),
        ("added", |i| i.added.count += 1),
        ("the running sum", |i| i.total.sum ^= 1),
        ("the running count", |i| i.total.count += 1),
    ];
    for (what, change) in changes {
        let mut book = Book::new();
        let mut ingest = book.ingest(&[1, 2]);
        change(&mut ingest);
        assert!(matches!(book.void(body(ingest)), Void::Sums(_)), "{what}");
    }
}

fn seen<const N: usize>(all: [(Key, u128); N]) -> BTreeMap<u128, Seen> {
    all.map(|(key, value)| (key.0, Seen { version: 1, value })).into()
}

#[test]
fn everything_in_a_valid_ingest_is_folded() {
    let mut book = Book::new();
    let mut ingest = book.ingest(&[1, 2, 3]);
    let quarantine = QuarantineFile { name: staged("_dedupe/quarantine", 1, 3, "ndjson"), rows: 1, bytes: 9 };
    ingest.inline = InlineTokens(vec![Token(3)]);
    ingest.runs[0].tokens = tokens_of(&[1, 2]);
    ingest.files = vec![file(1, 1, tokens_of(&[1]), 0), file(1, 2, tokens_of(&[2, 3]), 1)];
    ingest.keyless = 1;
    ingest.rows =
        Accounting { read: 9, accepted: 4, duplicate: 1, replayed: 1, conflict: 1, late: 1, rejected: 1 };
    ingest.sources[0].rows = ingest.rows;
    ingest.sources[0].id = Some(4);
    ingest.quarantine = vec![quarantine.clone()];
    ingest.batch = batch("b");
    book.valid(body(ingest.clone()));

    let expected = State {
        entries: 2,
        tip: book.state.tip,
        table: "t".into(),
        schema: Some(schema(0, &["id"]).schema),
        schema_version: 1,
        policy: Policy::default(),
        policy_version: 0,
        floor: 0,
        oldest: 0,
        files: ingest.files.iter().map(|f| (f.name.clone(), Live { since: 1, item: f.clone() })).collect(),
        runs: ingest.runs.iter().map(|r| (r.name.clone(), Live { since: 1, item: r.clone() })).collect(),
        inline: [(1, InlineTokens(vec![Token(3)]))].into(),
        quarantine: [(quarantine.name.clone(), Live { since: 1, item: quarantine })].into(),
        seen: seen([
            (Key::source(4), 9),
            (Key::batch("b"), 5),
            (Key::name(&ingest.files[0].name), 0),
            (Key::name(&ingest.files[1].name), 0),
            (Key::name(&ingest.runs[0].name), 0),
            (Key::name(&ingest.quarantine[0].name), 0),
        ]),
        sources: 1,
        batches: 1,
        beneath: Beneath::default(),
        total: tokens_of(&[1, 2, 3]),
        keyless: 1,
        rows: ingest.rows,
        last_ingest: Some((1, "time 1".into())),
    };
    assert_eq!(book.state, expected);
    assert_eq!(book.state.version(), Some(1));
    assert_eq!(book.state.inline_count(), 1);
    assert_eq!(State::default().version(), None);
    let objects = checkpoint::encode(&book.state).unwrap();
    let (name, bytes) = objects.last().unwrap();
    let mut read = checkpoint::decode(name, bytes).unwrap();
    let part = |name: &str| objects.iter().find(|(part, _)| part == name).map(|(_, bytes)| bytes.clone());
    checkpoint::take_parts(&mut read, part).unwrap();
    assert_eq!(read, expected);

    // A compaction that takes the inline tokens into a run, and both files into one.
    let compact = Compact {
        runs_removed: vec![ingest.runs[0].name.clone()],
        inline_removed: vec![1],
        runs_added: vec![run(2, 4, tokens_of(&[1, 2, 3]))],
        files_removed: ingest.files.iter().map(|f| f.name.clone()).collect(),
        files_added: vec![file(2, 5, tokens_of(&[1, 2, 3]), 1)],
    };
    book.valid(Body::Compact(compact.clone()));
    let (new_run, new_file) = (compact.runs_added[0].clone(), compact.files_added[0].clone());
    let mut seen = expected.seen.clone();
    for name in [&new_run.name, &new_file.name] {
        seen.insert(Key::name(name).0, Seen { version: 2, value: 0 });
    }
    let expected = State {
        entries: 3,
        tip: book.state.tip,
        files: [(new_file.name.clone(), Live { since: 2, item: new_file })].into(),
        runs: [(new_run.name.clone(), Live { since: 2, item: new_run })].into(),
        inline: BTreeMap::new(),
        seen,
        ..expected
    };
    assert_eq!(book.state, expected);
    assert_eq!(book.state.inline_count(), 0);
}

#[test]
fn a_commit_without_survivors_is_valid_and_remembers_its_batch() {
    let mut book = Book::new();
    let rows = Accounting { read: 2, duplicate: 2, ..Default::default() };
    let ingest = Ingest {
        batch: batch("b"),
        sources: vec![SourceUse { id: Some(1), rows, ..Default::default() }],
        rows,
        ..Default::default()
    };
    book.valid(body(ingest));
    assert_eq!((book.state.rows, book.state.batches, book.state.sources), (rows, 1, 1));
    assert_eq!(book.state.schema, None);
}

/// Other tests compare states: they are worth no more than that.
#[test]
fn states_that_differ_in_anything_are_not_equal() {
    let changes: [fn(&mut State); 17] = [
        |state| state.entries = 7,
        |state| state.tip = 7,
        |state| state.table = "another".into(),
        |state| state.schema = Some(Schema::empty()),
        |state| state.schema_version = 7,
        |state| state.policy.partition_by = vec!["day".into()],
        |state| state.policy_version = 7,
        |state| state.floor = 7,
        |state| state.oldest = 7,
        |state| state.sources = 7,
        |state| state.batches = 7,
        |state| state.total.count = 7,
        |state| state.keyless = 7,
        |state| state.rows.read = 7,
        |state| state.last_ingest = Some((7, "then".into())),
        |state| drop(state.inline.insert(7, InlineTokens::default())),
        |state| {
            let item = RunRef {
                name: "run".into(),
                bytes: 1,
                min: 0,
                max: 0,
                tokens: TokenSum::default(),
                check: String::new(),
            };
            state.runs.insert("run".into(), Live { since: 7, item });
        },
    ];
    let plain = State::default();
    assert_eq!(plain, State::default());
    for (number, change) in changes.into_iter().enumerate() {
        let mut changed = State::default();
        change(&mut changed);
        assert_ne!(changed, plain, "change {number}");
    }
}
