//! What of a state lies in parts of the checkpoint that it began with, and what must be read of them before an entry can be
//! judged.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Key, Live, Seen, State};
use crate::ledger::entry::{Body, DataFile, Entry, QuarantineFile};
use crate::ledger::name::StagedName;

/// The parts that lie beneath a state.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Beneath {
    /// Everything that counts once.
    pub(crate) index: Parts,
    /// Data and quarantine files.
    pub(crate) lists: Parts,
    /// What was looked up in the index.
    #[serde(skip)]
    answers: BTreeMap<u128, Option<Seen>>,
}

/// Parts of one kind, the oldest first.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Parts {
    /// They hold what came with the versions below this one, and is still true.
    pub(crate) entries: u64,
    pub(crate) parts: Vec<Part>,
    /// Whether the state does without what they hold.
    #[serde(skip)]
    pub(crate) unread: bool,
}

/// One part: an object that never changes, and may belong to many checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Part {
    /// The object, whose name vouches for its content.
    pub(crate) name: String,
    /// Records in it.
    pub(crate) records: u64,
}

/// What must be read before something can be judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// Keys to be looked up in the index.
    pub(crate) keys: BTreeSet<u128>,
    /// Whether all lists must be read.
    pub(crate) lists: bool,
}

impl Asks {
    pub(crate) fn is_empty(&self) -> bool {
        self.keys.is_empty() && !self.lists
    }
}

impl Beneath {
    /// Counts as read what is of `older`: then the state holds it itself, and all that came since.
    pub(crate) fn keep_read(&mut self, older: &Self) {
        (self.index.unread, self.lists.unread) = older.unread();
        self.answers.clone_from(&older.answers);
    }

    /// What of it was not read: index, lists.
    pub(super) fn unread(&self) -> (bool, bool) {
        (self.index.unread, self.lists.unread)
    }
}

impl State {
    /// What the index says of `key`; the outer `None` if that lies beneath and was not looked up.
    pub(super) fn find(&self, key: Key) -> Option<Option<Seen>> {
        match self.seen.get(&key.0) {
            Some(seen) => Some(Some(*seen)),
            None if !self.beneath.index.unread => Some(None),
            None => self.beneath.answers.get(&key.0).copied(),
        }
    }

    /// As [`Self::find`], of an object staged at `stage`. What lies beneath was named by older versions, and nothing is named
    /// before it is staged: so what was staged since needs no look-up.
    pub(super) fn find_name(&self, name: &str, stage: u64) -> Option<Option<Seen>> {
        let key = Key::name(name);
        if stage >= self.beneath.index.entries {
            return Some(self.seen.get(&key.0).copied());
        }
        self.find(key)
    }

    pub(super) fn note_names<'a>(&mut self, since: u64, names: impl Iterator<Item = &'a String>) {
        self.seen.extend(names.map(|name| (Key::name(name).0, Seen { version: since, value: 0 })));
    }

    /// Adds to `asks` what must be read before `entry` can be judged.
    pub(crate) fn ask(&self, entry: &Entry, asks: &mut Asks) {
        let names: Vec<&String> = match &entry.body {
            Body::Ingest(ingest) => {
                self.ask_keys(ingest.batch.iter().map(|batch| Key::batch(&batch.id)), asks);
                self.ask_keys(ingest.sources.iter().filter_map(|source| source.id).map(Key::source), asks);
                let files = ingest.files.iter().map(|file| &file.name);
                let kept_out = ingest.quarantine.iter().map(|file| &file.name);
                files.chain(ingest.runs.iter().map(|run| &run.name)).chain(kept_out).collect()
            }
            Body::Compact(compact) => {
                asks.lists |= self.beneath.lists.unread && !compact.files_removed.is_empty();
                let files = compact.files_added.iter().map(|file| &file.name);
                files.chain(compact.runs_added.iter().map(|run| &run.name)).collect()
            }
            Body::Create(_) | Body::Policy { .. } | Body::Fence { .. } => return,
        };
        let older = |name: &&&String| {
            StagedName::parse(name).is_some_and(|staged| staged.stage < self.beneath.index.entries)
        };
        self.ask_keys(names.iter().filter(older).map(|name| Key::name(name)), asks);
    }

    /// Adds to `asks` those of `keys` that lie beneath and were not looked up.
    pub(crate) fn ask_keys(&self, keys: impl Iterator<Item = Key>, asks: &mut Asks) {
        asks.keys.extend(keys.filter(|key| self.find(*key).is_none()).map(|key| key.0));
    }

    /// Adds to `asks` what was read of the parts.
    pub(crate) fn ask_again(&self, asks: &mut Asks) {
        asks.keys.extend(self.beneath.answers.keys());
        asks.lists |= !self.beneath.lists.unread && !self.beneath.lists.parts.is_empty();
    }

    /// Takes note of what the parts say of `keys`: `found` is what is there.
    pub(crate) fn answer(&mut self, keys: &BTreeSet<u128>, found: &[(u128, Seen)]) {
        self.beneath.answers.extend(keys.iter().map(|key| (*key, None)));
        self.beneath.answers.extend(found.iter().map(|(key, seen)| (*key, Some(*seen))));
    }

    /// What lies beneath.
    pub(crate) fn beneath(&self) -> &Beneath {
        &self.beneath
    }

    pub(crate) fn beneath_mut(&mut self) -> &mut Beneath {
        &mut self.beneath
    }

    /// Takes in all that the index beneath holds: `records` are its parts', the oldest first.
    pub(crate) fn take_index(&mut self, records: impl IntoIterator<Item = (u128, Seen)>) {
        let mut all: BTreeMap<u128, Seen> = records.into_iter().collect();
        all.append(&mut self.seen);
        self.seen = all;
        self.beneath.index.unread = false;
        self.beneath.answers.clear();
    }

    /// Takes in all that the lists beneath hold.
    pub(crate) fn take_lists(
        &mut self,
        files: impl IntoIterator<Item = Live<DataFile>>,
        quarantine: impl IntoIterator<Item = Live<QuarantineFile>>,
    ) {
        let mut all: BTreeMap<_, _> = files.into_iter().map(|live| (live.item.name.clone(), live)).collect();
        all.append(&mut self.files);
        self.files = all;
        let mut all: BTreeMap<_, _> =
            quarantine.into_iter().map(|live| (live.item.name.clone(), live)).collect();
        all.append(&mut self.quarantine);
        self.quarantine = all;
        self.beneath.lists.unread = false;
    }

    /// What the index has got since the parts beneath were written, by key.
    pub(crate) fn index_since(&self) -> Vec<(u128, Seen)> {
        let new = self.seen.iter().filter(|(_, seen)| seen.version >= self.beneath.index.entries);
        new.map(|(key, seen)| (*key, *seen)).collect()
    }

    /// What the lists have got since, by version.
    pub(crate) fn lists_since(&self) -> (Vec<Live<DataFile>>, Vec<Live<QuarantineFile>>) {
        let from = self.beneath.lists.entries;
        let mut files: Vec<_> = self.files.values().filter(|live| live.since >= from).cloned().collect();
        files.sort_by_key(|live| live.since);
        let mut kept_out: Vec<_> =
            self.quarantine.values().filter(|live| live.since >= from).cloned().collect();
        kept_out.sort_by_key(|live| live.since);
        (files, kept_out)
    }

    /// Makes a data file live without asking whether it may be: for models that try what would happen without a rule.
    #[doc(hidden)]
    pub fn revive(&mut self, since: u64, file: DataFile) {
        self.files.entry(file.name.clone()).or_insert(Live { since, item: file });
    }
}
