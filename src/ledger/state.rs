//! What the ledger's entries up to a version add up to.
//!
//! [`State::apply`] is the one judge of validity, run by every reader and writer, and by the model checker. It is
//! pure: no I/O, no clock, no randomness. An entry that breaks a rule is *void*: it occupies its version and has no
//! effect, so that a zombie or a faulty writer can neither corrupt a table nor wedge it.

mod beneath;
mod seen;

use std::collections::{BTreeMap, BTreeSet};

use arrow_schema::Schema;
use serde::{Deserialize, Serialize};

use super::entry::{Body, Compact, DataFile, Entry, Ingest, InlineTokens, QuarantineFile, RunRef};
use super::name::StagedName;
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::token::{TokenSum, hex128};
use crate::verdict::Accounting;
pub(crate) use beneath::{Asks, Beneath, Part, Parts};
pub use seen::{BatchSeen, SourceSeen};
pub(crate) use seen::{Key, Seen};

/// The folded ledger up to a version.
///
/// What grows with every commit may lie *beneath*, in parts of the checkpoint that the state began with, unread: the lists
/// of data and quarantine files, and the index of everything that counts once (names, sources, batches). A state that was
/// folded from the first version holds all of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct State {
    /// How many entries were applied, void ones included: the next version.
    pub entries: u64,
    /// Hash of the last entry's bytes: the next entry's `prev`.
    #[serde(with = "hex128")]
    pub tip: u128,
    /// The table's identity; empty before its creation.
    pub table: String,
    /// The schema, once the first rows gave one.
    #[serde(serialize_with = "super::entry::schema_json::serialize_option")]
    pub schema: Option<Schema>,
    /// The version that gave the schema; 0 if none did.
    pub schema_version: u64,
    /// The rules.
    pub policy: Policy,
    /// The version that gave the rules.
    pub policy_version: u64,
    /// Nothing staged below this may become live any more.
    pub floor: u64,
    /// The oldest version whose snapshot is whole for certain. Below it a vacuum may have deleted what it named.
    pub oldest: u64,
    /// Live token runs by name.
    #[serde(with = "live")]
    pub runs: BTreeMap<String, Live<RunRef>>,
    /// Live inline tokens by the version that holds them.
    pub inline: BTreeMap<u64, InlineTokens>,
    /// How many sources with an identity were consumed.
    pub sources: u64,
    /// How many batches were committed.
    pub batches: u64,
    /// The multiset hash of all accepted tokens.
    pub total: TokenSum,
    /// Accepted rows without a key.
    pub keyless: u64,
    /// The sum of all row accountings.
    pub rows: Accounting,
    /// The last version that added rows or judged any, and its time.
    pub last_ingest: Option<(u64, String)>,
    /// Live data files by name; those of the versions that are not beneath, at least.
    #[serde(skip)]
    files: BTreeMap<String, Live<DataFile>>,
    /// Files of rows kept out, likewise.
    #[serde(skip)]
    quarantine: BTreeMap<String, Live<QuarantineFile>>,
    /// What counts once, likewise.
    #[serde(skip)]
    seen: BTreeMap<u128, Seen>,
    beneath: Beneath,
}

/// States are equal if they stand for the same, and the same of it was read.
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        let content = |state: &Self| {
            let Self { entries, tip, schema_version, policy_version, floor, oldest, .. } = *state;
            let Self { sources, batches, total, keyless, rows, .. } = *state;
            let numbers = (entries, tip, schema_version, policy_version, floor, oldest, sources, batches);
            (numbers, total, keyless, rows, state.beneath.unread())
        };
        content(self) == content(other)
            && (&self.table, &self.schema, &self.policy, &self.last_ingest)
                == (&other.table, &other.schema, &other.policy, &other.last_ingest)
            && (&self.runs, &self.inline) == (&other.runs, &other.inline)
            && (&self.files, &self.quarantine, &self.seen) == (&other.files, &other.quarantine, &other.seen)
    }
}

/// A live object and the version that made it live.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Live<T> {
    /// The version that named it first.
    pub since: u64,
    /// What the manifest says of it.
    pub item: T,
}

/// What an entry did.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Applied {
    /// It is part of the table's history and had its effect.
    Valid,
    /// It occupies its version and has no effect.
    Void(Void),
}

/// Why an entry is void: the rule it breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Void {
    /// The entry was made for another place of the ledger.
    #[error("it was made for version {made_for} after another entry")]
    Misplaced {
        /// The version it names.
        made_for: u64,
    },
    /// A table is created once, and before all else.
    #[error("a table is created once, and before all else")]
    NotTheBeginning,
    /// An object has no staged name, or one from a stage that is yet to come, which vacuum could not judge.
    #[error("{0} is not the name of an object staged for this version or before")]
    NotStaged(String),
    /// An object was staged below the floor.
    #[error("{0} was staged below the floor and may be gone")]
    BelowFloor(String),
    /// An object is named that is, or was, part of the table: a name is used once.
    #[error("{0} was named before")]
    NamedTwice(String),
    /// A compaction replaces what is not live.
    #[error("{0} is no longer live")]
    NotLive(String),
    /// The batch was committed before.
    #[error("batch {0:?} was committed before")]
    BatchCommitted(String),
    /// A source was consumed before.
    #[error("source {0} was consumed before")]
    SourceCommitted(String),
    /// A source is called a replay of one that was not consumed by the version named.
    #[error("source {0} is no replay: it was not consumed before")]
    NotReplayed(String),
    /// The rows were judged under other rules.
    #[error("the policy has changed since the rows were judged")]
    PolicyChanged,
    /// The schema was derived from one that is not the table's.
    #[error("the schema has changed since the rows were read")]
    SchemaChanged,
    /// The sums in the entry contradict each other or the entries before.
    #[error("its sums do not add up: {0}")]
    Sums(&'static str),
    /// The floor may only rise, and not above the stage of those who have seen its fence.
    #[error("the floor {0} is below the present one or above the stage that follows its version")]
    Floor(u64),
    /// The oldest readable version may only rise, and must lie below the floor: whoever is not fenced off began at a
    /// stage at or above the floor, so then every object that he may have to read is retained.
    #[error("the oldest readable version {0} is below the present one or not below the floor")]
    Oldest(u64),
    /// Not a rule that is broken: what decides lies beneath and was not read. The ledger reads it before it asks.
    #[error("whether it is cannot be said: what the checkpoint's parts say of {0} was not read")]
    Unread(String),
}

impl State {
    /// The version this state stands for; `None` before version 0.
    pub fn version(&self) -> Option<u64> {
        self.entries.checked_sub(1)
    }

    /// Live data files by name. An error if they lie beneath: [`Ledger::read_files`](super::Ledger::read_files) first.
    pub fn files(&self) -> Result<&BTreeMap<String, Live<DataFile>>> {
        if self.beneath.lists.unread { Err(lists_unread()) } else { Ok(&self.files) }
    }

    /// Files of rows kept out, by name, with the version that named them. An error as of [`Self::files`].
    pub fn quarantine(&self) -> Result<&BTreeMap<String, Live<QuarantineFile>>> {
        if self.beneath.lists.unread { Err(lists_unread()) } else { Ok(&self.quarantine) }
    }

    /// What is known of the source with this identity. An error if that lies beneath:
    /// [`Ledger::look_up`](super::Ledger::look_up) first.
    pub fn source(&self, id: u128) -> Result<Option<SourceSeen>> {
        let seen = self.find(Key::source(id)).ok_or_else(index_unread)?;
        Ok(seen.map(|seen| SourceSeen { version: seen.version, rows: seen.value as u64 }))
    }

    /// What is known of the batch with this id. An error as of [`Self::source`].
    pub fn batch(&self, id: &str) -> Result<Option<BatchSeen>> {
        let seen = self.find(Key::batch(id)).ok_or_else(index_unread)?;
        Ok(seen.map(|seen| BatchSeen { version: seen.version, digest: seen.value }))
    }

    /// Applies the entry that stands in the next version; `hash` is that of its bytes. Void entries count as
    /// entries and change nothing else. Where what decides was not read ([`Void::Unread`]) nothing is changed at all.
    pub fn apply(&mut self, entry: &Entry, hash: u128) -> Applied {
        let verdict = self.check(entry);
        match verdict {
            Ok(()) => self.fold(entry),
            Err(void @ Void::Unread(_)) => return Applied::Void(void),
            Err(_) => {}
        }
        // Only a forged checkpoint is ever full: the numbers of real ledgers start at 0.
        self.entries = self.entries.saturating_add(1);
        self.tip = hash;
        match verdict {
            Ok(()) => Applied::Valid,
            Err(void) => Applied::Void(void),
        }
    }

    /// Whether `entry` would be valid as the next version: every rule there is.
    pub fn check(&self, entry: &Entry) -> std::result::Result<(), Void> {
        if entry.version != self.entries || entry.prev != self.tip {
            return Err(Void::Misplaced { made_for: entry.version });
        }
        // Not "version 0 creates": a void entry there would leave a ledger that can never become a table.
        if matches!(entry.body, Body::Create(_)) != self.table.is_empty() {
            return Err(Void::NotTheBeginning);
        }
        match &entry.body {
            Body::Create(create) if create.table.is_empty() => Err(Void::NotTheBeginning),
            Body::Create(_) | Body::Policy { .. } => Ok(()),
            Body::Fence { floor, .. } if *floor < self.floor || *floor > entry.version.saturating_add(1) => {
                Err(Void::Floor(*floor))
            }
            Body::Fence { floor, oldest } if *oldest < self.oldest || *oldest >= (*floor).max(1) => {
                Err(Void::Oldest(*oldest))
            }
            Body::Fence { .. } => Ok(()),
            Body::Compact(compact) => self.check_compact(compact),
            Body::Ingest(ingest) => self.check_ingest(ingest),
        }
    }

    /// All tokens that stand inline in manifests.
    pub fn inline_count(&self) -> usize {
        self.inline.values().map(|tokens| tokens.0.len()).sum()
    }

    fn check_ingest(&self, ingest: &Ingest) -> std::result::Result<(), Void> {
        if ingest.policy != self.policy_version {
            return Err(Void::PolicyChanged);
        }
        match &ingest.schema {
            Some(change) if change.base != self.schema_version => return Err(Void::SchemaChanged),
            None if self.schema.is_none() && !ingest.files.is_empty() => return Err(Void::SchemaChanged),
            _ => {}
        }
        let found = |key, what: &str| self.find(key).ok_or_else(|| Void::Unread(what.to_owned()));
        if let Some(batch) = &ingest.batch
            && found(Key::batch(&batch.id), &batch.id)?.is_some()
        {
            return Err(Void::BatchCommitted(batch.id.clone()));
        }
        for source in &ingest.sources {
            let seen = match source.id {
                Some(id) => found(Key::source(id), &source.url)?.map(|seen| seen.version),
                None => None,
            };
            match source.replay_of {
                None if seen.is_some() => return Err(Void::SourceCommitted(source.url.clone())),
                // Rows of a replay are dropped unread, so the first reading must really be there.
                Some(_) if seen != source.replay_of => return Err(Void::NotReplayed(source.url.clone())),
                _ => {}
            }
        }
        let names = (ingest.files.iter().map(|f| &f.name))
            .chain(ingest.runs.iter().map(|r| &r.name))
            .chain(ingest.quarantine.iter().map(|q| &q.name));
        self.check_new_names(names)?;
        self.check_sums(ingest)
    }

    fn check_sums(&self, ingest: &Ingest) -> std::result::Result<(), Void> {
        let conserved = ingest.sources.iter().all(|source| source.rows.is_conserved());
        if !conserved || !ingest.rows.is_conserved() {
            return Err(Void::Sums("rows read are not the sum of their verdicts"));
        }
        let mut of_sources = Accounting::default();
        ingest.sources.iter().for_each(|source| of_sources.add(&source.rows));
        // No verdict counts more rows than were read, so where the reads do not overflow nothing does.
        let read = sum(ingest.sources.iter().map(|source| source.rows.read));
        if read != Some(ingest.rows.read) || of_sources != ingest.rows {
            return Err(Void::Sums("rows are not the sum of the sources' rows"));
        }
        let files = FileSums::of(ingest.files.iter())?;
        if files.rows != ingest.rows.accepted {
            return Err(Void::Sums("accepted rows are not the rows of the data files"));
        }
        if files.keyless != ingest.keyless || files.tokens != ingest.added {
            return Err(Void::Sums("the data files' tokens are not the tokens added"));
        }
        let runs = ingest.runs.iter().map(|run| run.tokens).chain([TokenSum::of(&ingest.inline.0)]);
        if sum_tokens(runs) != Some(ingest.added) {
            return Err(Void::Sums("the token runs are not the tokens added"));
        }
        if self.total.plus(ingest.added) != ingest.total {
            return Err(Void::Sums("the running sum of tokens does not follow from the version before"));
        }
        Ok(())
    }

    fn check_compact(&self, compact: &Compact) -> std::result::Result<(), Void> {
        let mut tokens = Vec::new();
        let mut seen = BTreeSet::new();
        for name in &compact.runs_removed {
            let run = self.runs.get(name).filter(|_| seen.insert(name));
            tokens.push(run.ok_or_else(|| Void::NotLive(name.clone()))?.item.tokens);
        }
        let mut versions = BTreeSet::new();
        for version in &compact.inline_removed {
            let inline = self.inline.get(version).filter(|_| versions.insert(version));
            let inline =
                inline.ok_or_else(|| Void::NotLive(format!("the inline tokens of version {version}")))?;
            tokens.push(TokenSum::of(&inline.0));
        }
        let mut files = Vec::new();
        for name in &compact.files_removed {
            if self.beneath.lists.unread {
                return Err(Void::Unread(name.clone()));
            }
            let file = self.files.get(name).filter(|_| seen.insert(name));
            files.push(&file.ok_or_else(|| Void::NotLive(name.clone()))?.item);
        }
        let names =
            compact.runs_added.iter().map(|r| &r.name).chain(compact.files_added.iter().map(|f| &f.name));
        self.check_new_names(names)?;
        let removed = sum_tokens(tokens.into_iter());
        if removed.is_none() || removed != sum_tokens(compact.runs_added.iter().map(|run| run.tokens)) {
            return Err(Void::Sums("the new runs do not hold the tokens of the old"));
        }
        if FileSums::of(files.into_iter())? != FileSums::of(compact.files_added.iter())? {
            return Err(Void::Sums("the new data files do not hold the rows of the old"));
        }
        Ok(())
    }

    fn check_new_names<'a>(&self, names: impl Iterator<Item = &'a String>) -> std::result::Result<(), Void> {
        let mut new = BTreeSet::new();
        for name in names {
            let stage = match StagedName::parse(name) {
                Some(staged) if staged.stage < self.floor => return Err(Void::BelowFloor(name.clone())),
                Some(staged) if staged.stage <= self.entries => staged.stage,
                _ => return Err(Void::NotStaged(name.clone())),
            };
            let known = self.find_name(name, stage).ok_or_else(|| Void::Unread(name.clone()))?;
            if known.is_some() || !new.insert(name) {
                return Err(Void::NamedTwice(name.clone()));
            }
        }
        Ok(())
    }

    fn fold(&mut self, entry: &Entry) {
        let since = entry.version;
        match &entry.body {
            Body::Create(create) => {
                self.table.clone_from(&create.table);
                self.policy = create.policy.clone();
                self.policy_version = since;
            }
            Body::Policy { policy } => {
                self.policy = policy.clone();
                self.policy_version = since;
            }
            Body::Fence { floor, oldest } => {
                self.floor = *floor;
                self.oldest = *oldest;
            }
            Body::Compact(compact) => self.fold_compact(since, compact),
            Body::Ingest(ingest) => {
                self.fold_ingest(since, ingest);
                self.last_ingest = Some((since, entry.time.clone()));
            }
        }
    }

    fn fold_ingest(&mut self, since: u64, ingest: &Ingest) {
        if let Some(change) = &ingest.schema {
            self.schema = Some(change.schema.clone());
            self.schema_version = since;
        }
        if let Some(batch) = &ingest.batch {
            self.seen.insert(Key::batch(&batch.id).0, Seen { version: since, value: batch.digest });
            self.batches = self.batches.saturating_add(1);
        }
        for source in ingest.sources.iter().filter(|source| source.replay_of.is_none()) {
            let Some(id) = source.id else { continue };
            let seen = Seen { version: since, value: source.rows.read.into() };
            // Within one entry the same source may stand twice.
            if self.seen.insert(Key::source(id).0, seen).is_none() {
                self.sources = self.sources.saturating_add(1);
            }
        }
        self.note_names(since, ingest.files.iter().map(|file| &file.name));
        self.note_names(since, ingest.runs.iter().map(|run| &run.name));
        self.note_names(since, ingest.quarantine.iter().map(|file| &file.name));
        let live = |file: &DataFile| (file.name.clone(), Live { since, item: file.clone() });
        self.files.extend(ingest.files.iter().map(live));
        self.runs.extend(ingest.runs.iter().map(|run| (run.name.clone(), Live { since, item: run.clone() })));
        if !ingest.inline.is_empty() {
            self.inline.insert(since, ingest.inline.clone());
        }
        self.quarantine.extend(
            ingest.quarantine.iter().map(|file| (file.name.clone(), Live { since, item: file.clone() })),
        );
        self.total = ingest.total;
        self.keyless = self.keyless.wrapping_add(ingest.keyless);
        self.rows.add(&ingest.rows);
    }

    fn fold_compact(&mut self, since: u64, compact: &Compact) {
        compact.runs_removed.iter().for_each(|name| drop(self.runs.remove(name)));
        compact.inline_removed.iter().for_each(|version| drop(self.inline.remove(version)));
        if !compact.files_removed.is_empty() {
            compact.files_removed.iter().for_each(|name| drop(self.files.remove(name)));
            // The lists beneath are no longer true; all of them was read, or this could not be judged.
            self.beneath.lists = Parts::default();
        }
        self.note_names(since, compact.runs_added.iter().map(|run| &run.name));
        self.note_names(since, compact.files_added.iter().map(|file| &file.name));
        self.runs.extend(
            compact.runs_added.iter().map(|run| (run.name.clone(), Live { since, item: run.clone() })),
        );
        let live = |file: &DataFile| (file.name.clone(), Live { since, item: file.clone() });
        self.files.extend(compact.files_added.iter().map(live));
    }
}

/// What data files hold together.
#[derive(PartialEq)]
struct FileSums {
    rows: u64,
    keyless: u64,
    tokens: TokenSum,
}

impl FileSums {
    fn of<'a>(files: impl Iterator<Item = &'a DataFile> + Clone) -> std::result::Result<Self, Void> {
        if !files.clone().all(|f| f.tokens.count.checked_add(f.keyless) == Some(f.rows)) {
            return Err(Void::Sums("a data file's rows are not its tokens and its rows without a key"));
        }
        let rows = sum(files.clone().map(|f| f.rows));
        let keyless = sum(files.clone().map(|f| f.keyless));
        match (rows, keyless, sum_tokens(files.map(|f| f.tokens))) {
            (Some(rows), Some(keyless), Some(tokens)) => Ok(Self { rows, keyless, tokens }),
            _ => Err(Void::Sums("no data files hold so many rows")),
        }
    }
}

/// Numbers come from a manifest: a sum that does not fit is `None`, neither a panic nor a small number.
fn sum(mut numbers: impl Iterator<Item = u64>) -> Option<u64> {
    numbers.try_fold(0, u64::checked_add)
}

fn sum_tokens(mut sums: impl Iterator<Item = TokenSum>) -> Option<TokenSum> {
    sums.try_fold(TokenSum::default(), |all, one| {
        all.count.checked_add(one.count)?;
        Some(all.plus(one))
    })
}

/// What is live stands as a list of versions and items, each with its name once.
mod live {
    use super::{BTreeMap, Live, RunRef};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        map: &BTreeMap<String, Live<RunRef>>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        s.collect_seq(map.values().map(|live| (live.since, &live.item)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<BTreeMap<String, Live<RunRef>>, D::Error> {
        let all = Vec::<(u64, RunRef)>::deserialize(d)?;
        Ok(all.into_iter().map(|(since, item)| (item.name.clone(), Live { since, item })).collect())
    }
}

fn lists_unread() -> Error {
    Error::Internal("the lists of files lie in parts of a checkpoint that were not read".into())
}

fn index_unread() -> Error {
    Error::Internal("what was asked lies in parts of a checkpoint, and was not looked up".into())
}

#[cfg(test)]
mod histories;
#[cfg(test)]
mod tests;
