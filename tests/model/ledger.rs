//! The ledger of the model: entries small enough to be hashed by the million, the real [`Entry`] that each stands
//! for, and the real [`State`] that they fold to. Validity and folding are never decided here.

use dedupe::ledger::entry::{
    Batch, Compact, Create, DataFile, FORMAT, Ingest, InlineTokens, RunRef, SchemaChange,
};
use dedupe::ledger::entry::{Body, SourceUse};
use dedupe::ledger::name::StagedName;
use dedupe::ledger::state::{Applied, Live, Void};
use dedupe::ledger::{Entry, State};
use dedupe::policy::Policy;
use dedupe::token::{Token, TokenSum};
use dedupe::verdict::{Accounting, Verdict};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// A set of tokens: token number k is the 128-bit value 2^k, so that a sum of distinct tokens is their set.
pub type Tokens = u8;

/// Who made an entry or an object, and the how manieth of his it is: never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Id {
    pub owner: u8,
    pub serial: u8,
}

impl Id {
    fn wide(self) -> u128 {
        (u128::from(self.owner) << 8 | u128::from(self.serial)) + 1
    }
}

/// A data file, a token run, or one of each with the same tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Object {
    pub stage: u8,
    pub id: Id,
    pub tokens: Tokens,
}

impl Object {
    fn name(self, folder: &str, extension: &str) -> String {
        let session = format!("{:032x}", self.id.owner);
        let (stage, number) = (self.stage.into(), self.id.serial.into());
        format!("{folder}/{}", StagedName { stage, session, number, extension: extension.into() })
    }

    pub fn file_name(self) -> String {
        self.name("data", "parquet")
    }

    pub fn run_name(self) -> String {
        self.name("_dedupe/tokens", "run")
    }

    fn parse(name: &str, tokens: TokenSum) -> Self {
        let staged = StagedName::parse(name).unwrap();
        let owner = u8::from_str_radix(&staged.session, 16).unwrap();
        let id = Id { owner, serial: staged.number as u8 };
        Self { stage: staged.stage as u8, id, tokens: tokens.sum as Tokens }
    }

    fn file(self) -> DataFile {
        let tokens = sum_of(self.tokens);
        DataFile {
            name: self.file_name(),
            rows: tokens.count,
            bytes: 1,
            keyless: 0,
            tokens,
            origin: vec![],
            key_range: vec![],
            check: String::new(),
        }
    }

    fn run(self) -> RunRef {
        let tokens = sum_of(self.tokens);
        RunRef { name: self.run_name(), bytes: 1, min: 0, max: u128::MAX, tokens, check: String::new() }
    }
}

pub fn sum_of(tokens: Tokens) -> TokenSum {
    TokenSum { count: tokens.count_ones().into(), sum: tokens.into() }
}

/// An entry on its way or in the ledger.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Proposal {
    pub version: u8,
    pub prev: Option<Id>,
    pub id: Id,
    pub kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Create,
    Commit(Commit),
    Compact { files: Vec<Object>, runs: Vec<Object>, inline: Vec<u8>, out: Object },
    Fence { floor: u8, oldest: u8 },
}

/// What an ingest commits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Commit {
    /// The batch has an id (that of its writer).
    pub batch: bool,
    /// The source has an identity (that of its writer).
    pub source: bool,
    /// The version that consumed the source before.
    pub replay_of: Option<u8>,
    /// The rows that survived.
    pub object: Option<Object>,
    /// Their tokens stand in the entry instead of in a run.
    pub inline: bool,
    pub read: u8,
    /// The first entry with rows gives the schema.
    pub schema: bool,
    /// The running sum before this entry, as its writer knows it: count and sum.
    pub before: (u8, u8),
}

impl Commit {
    pub fn tokens(&self) -> Tokens {
        self.object.map_or(0, |object| object.tokens)
    }

    fn body(&self, writer: u8) -> Body {
        let added = sum_of(self.tokens());
        let mut rows = Accounting::default();
        rows.count(Verdict::Accepted, added.count);
        let verdict = if self.replay_of.is_some() { Verdict::Replayed } else { Verdict::Duplicate };
        rows.count(verdict, u64::from(self.read) - added.count);
        let bits =
            |tokens: Tokens| (0..8).filter(move |k| tokens >> k & 1 == 1).map(|k| Token(1 << k)).collect();
        let before = TokenSum { count: self.before.0.into(), sum: self.before.1.into() };
        Body::Ingest(Box::new(Ingest {
            batch: self.batch.then(|| Batch { id: writer.to_string(), digest: writer.into() }),
            schema: self.schema.then(|| SchemaChange { base: 0, schema: arrow_schema::Schema::empty() }),
            sources: vec![SourceUse {
                id: self.source.then(|| writer.into()),
                replay_of: self.replay_of.map(u64::from),
                rows,
                ..Default::default()
            }],
            files: self.object.iter().map(|object| object.file()).collect(),
            runs: self.object.iter().filter(|_| !self.inline).map(|object| object.run()).collect(),
            inline: InlineTokens(if self.inline { bits(self.tokens()) } else { vec![] }),
            rows,
            added,
            total: before.plus(added),
            ..Default::default()
        }))
    }
}

impl Proposal {
    /// The real entry.
    pub fn entry(&self) -> Entry {
        let body = match &self.kind {
            Kind::Create => Body::Create(Create { table: "t".into(), policy: Policy::default() }),
            Kind::Commit(commit) => commit.body(self.id.owner),
            Kind::Compact { files, runs, inline, out } => Body::Compact(Compact {
                runs_removed: runs.iter().map(|run| run.run_name()).collect(),
                inline_removed: inline.iter().map(|version| (*version).into()).collect(),
                runs_added: if runs.is_empty() && inline.is_empty() { vec![] } else { vec![out.run()] },
                files_removed: files.iter().map(|file| file.file_name()).collect(),
                files_added: if files.is_empty() { vec![] } else { vec![out.file()] },
            }),
            Kind::Fence { floor, oldest } => Body::Fence { floor: (*floor).into(), oldest: (*oldest).into() },
        };
        Entry {
            format: FORMAT,
            version: self.version.into(),
            id: self.id.wide(),
            prev: self.prev.map_or(0, Id::wide),
            time: String::new(),
            session: String::new(),
            writer: String::new(),
            body,
        }
    }
}

/// A rule that is taken out of [`State`], to show that it is the one that holds. The shipped function still does the
/// judging: the state it sees is changed so that the rule has nothing to object to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Floor,
    LiveInputs,
    BatchOnce,
}

impl Rule {
    fn blind(self, state: &State, proposal: &Proposal) -> State {
        let mut state = state.clone();
        match (self, &proposal.kind) {
            (Self::Floor, Kind::Commit(_) | Kind::Compact { .. }) => state.floor = 0,
            (Self::LiveInputs, Kind::Compact { files, runs, .. }) => {
                for file in files {
                    state.revive(0, file.file());
                }
                for run in runs {
                    state.runs.entry(run.run_name()).or_insert_with(|| Live { since: 0, item: run.run() });
                }
            }
            _ => {}
        }
        state
    }

    /// The entry of `proposal`, as this rule does not see it.
    fn unseen(self, proposal: &Proposal) -> Entry {
        let mut entry = proposal.entry();
        if let (Self::BatchOnce, Body::Ingest(ingest)) = (self, &mut entry.body) {
            ingest.batch = None;
        }
        entry
    }
}

/// Asks the real judge, with `without` taken out of its rules.
pub fn check(state: &State, proposal: &Proposal, without: Option<Rule>) -> Result<(), Void> {
    match without {
        None => state.check(&proposal.entry()),
        Some(rule) => rule.blind(state, proposal).check(&rule.unseen(proposal)),
    }
}

fn apply(state: &mut State, proposal: &Proposal, without: Option<Rule>) -> bool {
    let (entry, hash) = (proposal.entry(), proposal.id.wide());
    if let Some(rule) = without.filter(|_| state.check(&entry).is_err()) {
        let mut blind = rule.blind(state, proposal);
        if blind.apply(&rule.unseen(proposal), hash) == Applied::Valid {
            blind.floor = blind.floor.max(state.floor);
            *state = blind;
            return true;
        }
    }
    state.apply(&entry, hash) == Applied::Valid
}

/// What the entries of a ledger add up to: the real state, and what the properties ask of it.
#[derive(Debug, Clone, Default)]
pub struct Folded {
    pub state: State,
    /// All tokens of valid ingests.
    pub committed: Tokens,
    /// Some token, batch or source was committed by two valid entries.
    pub token_twice: bool,
    pub batch_twice: bool,
    /// Void entries.
    pub voids: u8,
    /// Live data files and live runs, as the real state names them.
    pub files: Vec<Object>,
    pub runs: Vec<Object>,
    /// Versions with live inline tokens.
    pub inline: Vec<u8>,
    /// The tokens of all live runs and inline tokens: what a writer judges by.
    pub index: Tokens,
    /// Each of them stands there once.
    pub index_once: bool,
    pub compactions: u8,
}

impl Folded {
    fn push(&mut self, proposal: &Proposal, without: Option<Rule>) -> bool {
        let before = self.state.batches + self.state.sources;
        let valid = apply(&mut self.state, proposal, without);
        match &proposal.kind {
            _ if !valid => self.voids += 1,
            Kind::Commit(commit) => {
                self.token_twice |= self.committed & commit.tokens() != 0;
                self.committed |= commit.tokens();
                let named = u64::from(commit.batch) + u64::from(commit.source && commit.replay_of.is_none());
                self.batch_twice |= self.state.batches + self.state.sources != before + named;
            }
            Kind::Compact { .. } => self.compactions += 1,
            _ => {}
        }
        self.files = self
            .state
            .files()
            .unwrap()
            .values()
            .map(|f| Object::parse(&f.item.name, f.item.tokens))
            .collect();
        self.runs = self.state.runs.values().map(|r| Object::parse(&r.item.name, r.item.tokens)).collect();
        self.inline = self.state.inline.keys().map(|version| *version as u8).collect();
        let inline = self.state.inline.values().map(|tokens| TokenSum::of(&tokens.0).sum as Tokens);
        let sets: Vec<Tokens> = self.runs.iter().map(|run| run.tokens).chain(inline).collect();
        (self.index, self.index_once) = union(sets);
        valid
    }
}

/// The union of sets, and whether they are disjoint.
pub fn union(sets: impl IntoIterator<Item = Tokens>) -> (Tokens, bool) {
    sets.into_iter().fold((0, true), |(all, disjoint), set| (all | set, disjoint && all & set == 0))
}

/// Entries in order, and what they fold to. Two ledgers with the same entries are the same.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub log: Vec<(Arc<Proposal>, bool)>,
    pub folded: Arc<Folded>,
    /// What the ledger added up to at each version: what a reader of that version reads.
    pub snapshots: Vec<Arc<Folded>>,
}

impl Ledger {
    pub fn next(&self) -> u8 {
        self.log.len() as u8
    }

    pub fn tip(&self) -> Option<Id> {
        self.log.last().map(|(proposal, _)| proposal.id)
    }

    pub fn push(&mut self, proposal: Arc<Proposal>, without: Option<Rule>) {
        let mut folded = Folded::clone(&self.folded);
        let valid = folded.push(&proposal, without);
        self.log.push((proposal, valid));
        self.folded = Arc::new(folded);
        self.snapshots.push(Arc::clone(&self.folded));
    }

    /// What readers of the versions from `oldest` up to but not including `end` read.
    pub fn retained(&self, end: u8, oldest: u8) -> &[Arc<Folded>] {
        self.snapshots.get(oldest.into()..end.into()).unwrap_or(&[])
    }

    /// The ledger up to and with `version`, replayed from its beginning.
    pub fn up_to(&self, version: u8, without: Option<Rule>) -> Self {
        let mut ledger = Self::default();
        for (proposal, _) in self.log.iter().take(usize::from(version) + 1) {
            ledger.push(Arc::clone(proposal), without);
        }
        ledger
    }
}

impl PartialEq for Ledger {
    fn eq(&self, other: &Self) -> bool {
        self.log == other.log
    }
}

impl Eq for Ledger {}

impl Hash for Ledger {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.log.hash(hasher);
    }
}
