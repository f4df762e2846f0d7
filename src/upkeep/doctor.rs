//! What is wrong with a table, and what can be done about it. Nothing is written.
//!
//! Opening a table stops at the first thing that is not as it must be. Here it is looked at whole: every entry by its
//! name, from version 0 on; every checkpoint against the replay; every object that the live state names, whether it
//! is there with the right size. What is found comes with advice. [`verify`](super::verify) goes further: it reads
//! the objects too.

mod ledger;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::error::{Error, Result};
use crate::ledger::log::MAX_TABLE;
use crate::ledger::log::read::get_sealed;
use crate::ledger::name::{self, StagedName};
use crate::ledger::{State, TableIdentity};
use crate::store::certify::{Answer, Certificate};
use crate::store::{Listed, Store};
use ledger::Replay;

/// Problems of one kind that are told one by one; the rest are counted.
const TOLD: usize = 20;

/// Something that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What was found, and in which object.
    pub what: String,
    /// What to do.
    pub advice: String,
}

/// What was found out about a table.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Health {
    /// The table's identity; `None` if that cannot be read.
    pub id: Option<String>,
    /// Entries of the ledger that were replayed, void ones included.
    pub entries: u64,
    /// Entries without effect.
    pub void: u64,
    /// Checkpoints that were compared with the replay.
    pub checkpoints: u64,
    /// Live data files.
    pub files: usize,
    /// Live token runs.
    pub runs: usize,
    /// Live files of rows that were kept out.
    pub quarantine: usize,
    /// Objects that no version names: of runs under way, that lost a race, or were killed.
    pub unnamed: u64,
    /// Bytes in them.
    pub unnamed_bytes: u64,
    /// Whether the table is marked for one writer at a time.
    pub single_writer: bool,
}

/// Everything that was found.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The table, if there is one.
    pub table: Option<Health>,
    /// What is wrong; empty for a healthy table.
    pub problems: Vec<Problem>,
    /// What is worth knowing and no problem.
    pub notes: Vec<String>,
}

impl Diagnosis {
    pub(super) fn problem(&mut self, what: impl Into<String>, advice: impl Into<String>) {
        self.problems.push(Problem { what: what.into(), advice: advice.into() });
    }

    /// Adds what a certification of the store found.
    pub fn add_certificate(&mut self, certificate: &Certificate) {
        let alone = self.table.as_ref().is_some_and(|table| table.single_writer);
        for finding in &certificate.findings {
            let promise = finding.promise;
            match finding.answer {
                Answer::Kept => {}
                _ if alone && promise.protects_from_others() => self.notes.push(format!(
                    "the store does not keep the promise {promise} ({}); the table is marked single-writer and does without",
                    promise.meaning()
                )),
                Answer::Broken => self.problem(
                    format!("the store breaks the promise {promise} ({}): {}", promise.meaning(), finding.seen),
                    if promise.protects_from_others() {
                        "writers can overwrite each other's commits here: keep tables in a store with conditional writes"
                    } else {
                        "writers can miss each other's commits or read what is not so: keep tables in another store, \
                         or look for a cache or gateway in between"
                    },
                ),
                Answer::NotChecked => self.problem(
                    format!("whether the store keeps the promise {promise} could not be found out: {}", finding.seen),
                    "mend what the reason says and ask again; --no-write looks at the table only",
                ),
            }
        }
    }
}

/// Looks at whatever table there is in `store`.
pub async fn examine(store: &Store) -> Result<Diagnosis> {
    let mut diagnosis = Diagnosis::default();
    let home = store.list(name::HOME).await?;
    let begun = home.iter().any(|object| name::manifest_version(&object.name).is_some());
    let probes =
        home.iter().filter(|object| object.name.starts_with(&format!("{}/probe-", name::HOME))).count();
    if probes > 0 {
        diagnosis.notes.push(format!(
            "{probes} objects of probes that were killed lie in {}: those of probes that run no more can be deleted",
            store.location_of(&format!("{}/probe-…", name::HOME))
        ));
    }
    let Some(identity) = identity(store, begun, &mut diagnosis).await? else {
        return Ok(diagnosis);
    };
    let replay = ledger::replay(store, identity.as_ref(), &home, &mut diagnosis).await?;
    let mut health = Health {
        entries: replay.state.entries,
        void: replay.void,
        checkpoints: replay.checkpoints,
        files: replay.state.files()?.len(),
        runs: replay.state.runs.len(),
        quarantine: replay.state.quarantine()?.len(),
        ..Health::default()
    };
    if let Some(identity) = identity {
        if replay.whole && replay.state.table.is_empty() {
            diagnosis.notes.push(
                "the creation of the table was interrupted before its first entry: the next ingest completes it".into(),
            );
        }
        health.single_writer = identity.single_writer;
        health.id = Some(identity.table);
    }
    if health.single_writer {
        diagnosis.notes.push(
            "the table is marked single-writer: two writers at once can overwrite each other's commits"
                .into(),
        );
    }
    let mut there = home;
    there.extend(store.list(name::DATA).await?);
    objects(store, &replay, &there, &mut health, &mut diagnosis).await?;
    let leftovers = store.leftovers().await?.len();
    if leftovers > 0 {
        diagnosis.notes.push(format!(
            "{leftovers} half-written files of writers that were killed (or of one that writes just now) lie in the folder; no version names them"
        ));
    }
    diagnosis.table = Some(health);
    Ok(diagnosis)
}

/// The table's identity. `None` if there is no table at all, `Some(None)` if there is one without a readable identity.
async fn identity(
    store: &Store,
    begun: bool,
    diagnosis: &mut Diagnosis,
) -> Result<Option<Option<TableIdentity>>> {
    let object = store.location_of(name::TABLE);
    let lost = "restore it from a backup or the bucket's versioning: it holds the key that makes tokens, and nothing \
                else can replace it. Without it nothing can be ingested; what is there can still be read";
    let found = match get_sealed(store, name::TABLE, MAX_TABLE).await {
        Ok(found) => found.map(|bytes| TableIdentity::decode(name::TABLE, &bytes)),
        Err(error @ Error::Corrupt { .. }) => Some(Err(error)),
        Err(error) => return Err(error),
    };
    match found {
        Some(Ok(identity)) => Ok(Some(Some(identity))),
        Some(Err(Error::Refused(why))) => {
            diagnosis.problem(why, "a newer version of dedupe made the table: use that one");
            Ok(Some(None))
        }
        Some(Err(error)) => {
            diagnosis.problem(error.to_string(), lost);
            Ok(Some(None))
        }
        None if begun => {
            diagnosis.problem(format!("{object} is absent, but the ledger exists"), lost);
            Ok(Some(None))
        }
        None => Ok(None),
    }
}

/// Compares what the live state names with what is there, and counts what nobody names.
async fn objects(
    store: &Store,
    replay: &Replay,
    there: &[Listed],
    health: &mut Health,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    let mut sizes: BTreeMap<&str, u64> =
        there.iter().map(|object| (object.name.as_str(), object.size)).collect();
    let mut missing = 0;
    for (name, bytes) in named(&replay.state)? {
        let mut found = sizes.remove(name);
        if found != Some(bytes) {
            // A listing may lag; what is asked for by name is what counts.
            found = store.head(name).await?.map(|head| head.size);
        }
        if found == Some(bytes) {
            continue;
        }
        missing += 1;
        if missing > TOLD {
            continue;
        }
        let place = store.location_of(name);
        let what = match found {
            Some(size) => format!("{place} has {size} bytes; its manifest says {bytes}"),
            None => format!("{place} is absent; the table names it"),
        };
        diagnosis.problem(
            what,
            "something outside dedupe removed or changed it: restore it under the same name from a backup or the \
             bucket's versioning (names are never used twice, so the old content is the right one)",
        );
    }
    if missing > TOLD {
        let more = missing - TOLD;
        diagnosis.problem(format!("{more} more objects are absent or have another size"), "as above");
    }
    // What a damaged entry names is not known, so nothing can be said of the rest then.
    if replay.whole {
        let unnamed = sizes.iter().filter(|(name, _)| StagedName::parse(name).is_some());
        (health.unnamed, health.unnamed_bytes) =
            unnamed.fold((0, 0), |(count, sum), (_, size)| (count + 1, sum + size));
    }
    Ok(())
}

/// The objects that a state names, with their sizes.
fn named(state: &State) -> Result<impl Iterator<Item = (&str, u64)>> {
    let files = state.files()?.iter().map(|(name, file)| (name.as_str(), file.item.bytes));
    let runs = state.runs.iter().map(|(name, run)| (name.as_str(), run.item.bytes));
    let quarantine = state.quarantine()?.iter().map(|(name, file)| (name.as_str(), file.item.bytes));
    Ok(files.chain(runs).chain(quarantine))
}
