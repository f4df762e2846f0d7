//! Which objects are garbage: pure, by names, by what the ledger says of them, and by how old they are.
//!
//! An object is part of the table from the version that names it until the version that removes it. It is garbage if its
//! stage lies below the floor, so that no later entry can name it, and no version from the oldest readable one on holds
//! it. Age only keeps: what is younger than the grace time stays, whatever it is. What has no name of ours is never
//! touched.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Duration, Utc};
use serde::Serialize;

use crate::lease::{self, Found};
use crate::ledger::entry::{Body, Entry};
use crate::ledger::name::StagedName;
use crate::ledger::{checkpoint, name};
use crate::store::{Listed, TEMPORARY_PREFIX};

/// While any session is alive, a half-written file on a local disk may be one that it writes to: it stays for a day.
const HALF_WRITTEN: Duration = Duration::days(1);

/// What a valid history says of every object that it ever named.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By the last part of its name, which no other object of the table has: the version that removed it, `None` if it is
    /// live. Folders may be listed by other names than they were written by: in other case, or without a dot at the end.
    removed: HashMap<String, Option<u64>>,
}

impl History {
    /// Takes note of the next valid entry.
    pub(super) fn note(&mut self, entry: &Entry) {
        let (removed, added): (Vec<&String>, Vec<&String>) = match &entry.body {
            Body::Ingest(ingest) => {
                let files = ingest.files.iter().map(|file| &file.name);
                let runs = ingest.runs.iter().map(|run| &run.name);
                let kept_out = ingest.quarantine.iter().map(|file| &file.name);
                (Vec::new(), files.chain(runs).chain(kept_out).collect())
            }
            Body::Compact(compact) => {
                let files = compact.files_added.iter().map(|file| &file.name);
                let runs = compact.runs_added.iter().map(|run| &run.name);
                let removed = compact.files_removed.iter().chain(&compact.runs_removed);
                (removed.collect(), files.chain(runs).collect())
            }
            Body::Create(_) | Body::Policy { .. } | Body::Fence { .. } => return,
        };
        for name in removed {
            self.removed.insert(last_part(name).to_owned(), Some(entry.version));
        }
        for name in added {
            self.removed.insert(last_part(name).to_owned(), None);
        }
    }

    /// Whether some version from `oldest` on holds the object: removed by version r, it is held up to version r - 1.
    fn holds_since(&self, name: &str, oldest: u64) -> bool {
        self.removed
            .get(last_part(name))
            .is_some_and(|removed| removed.is_none_or(|version| version > oldest))
    }
}

/// What a fence in the ledger says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Nothing staged below it can become part of the table any more.
    pub(super) floor: u64,
    /// Versions from this one on stay readable.
    pub(super) oldest: u64,
}

impl Bounds {
    /// The higher of both.
    pub(super) fn max(self, other: Self) -> Self {
        Self { floor: self.floor.max(other.floor), oldest: self.oldest.max(other.oldest) }
    }

    /// Bounds that do not touch a session of this stage: what it stages, and the snapshot of the version before, which
    /// it reads.
    pub(super) fn sparing(self, stage: u64) -> Self {
        Self { floor: self.floor.min(stage), oldest: self.oldest.min(stage.saturating_sub(1)) }
    }
}

/// Kinds of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sort {
    /// Data files.
    Data,
    /// Token runs.
    Tokens,
    /// Files of rows that were kept out.
    Quarantine,
    /// Folded states and their parts.
    Checkpoint,
    /// Leases of sessions that ended without taking theirs back.
    Lease,
    /// What is left of a probe of the store.
    Probe,
    /// What a crash left half-written on a local disk.
    Leftover,
}

impl Sort {
    /// What the object called `name` is; `None` if that is no name of ours.
    fn of(object: &str) -> Option<Self> {
        let within = |folder: &str| object.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
        let staged =
            |extension: &str| StagedName::parse(object).is_some_and(|name| name.extension == extension);
        // Another table may lie beneath our folder of data, and has a folder of data of its own.
        if within(name::DATA) && !is_partition_of(object) {
            return None;
        }
        if last_part(object).starts_with(TEMPORARY_PREFIX) {
            return Some(Self::Leftover);
        }
        if within(name::DATA) {
            return staged("parquet").then_some(Self::Data);
        }
        if within(name::TOKENS) {
            return staged("run").then_some(Self::Tokens);
        }
        if within(name::QUARANTINE) {
            return staged("ndjson").then_some(Self::Quarantine);
        }
        if within(name::CHECKPOINTS) || within(name::PARTS) {
            return written_in(object).map(|_| Self::Checkpoint);
        }
        if within(name::SESSIONS) {
            return lease::session_of(object).map(|_| Self::Lease);
        }
        object.starts_with(name::PROBE).then_some(Self::Probe)
    }
}

fn last_part(object: &str) -> &str {
    object.rsplit('/').next().unwrap_or(object)
}

/// Whether an object below the folder of data lies in it, or in folders `name=value`, as ours do.
fn is_partition_of(object: &str) -> bool {
    let folders = object.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').skip(1).all(|folder| folder.contains('='))
}

/// The version that a checkpoint or part of one was written with.
fn written_in(object: &str) -> Option<u64> {
    checkpoint::version_of(object).or_else(|| checkpoint::part_version_of(object))
}

/// Everything there is besides the ledger, and by what it is judged.
#[derive(Debug)]
pub(super) struct Scene<'a> {
    /// Every object but the ledger and `table.json`.
    pub(super) objects: &'a [Listed],
    /// The leases among them.
    pub(super) leases: &'a [Found],
    /// Checkpoints that are to stay, and their parts.
    pub(super) checkpoints: &'a BTreeSet<String>,
    /// The newest version that was there when the checkpoints were looked through.
    pub(super) newest: u64,
    /// The time, by the store's clock.
    pub(super) now: DateTime<Utc>,
    /// What is younger stays.
    pub(super) grace: Duration,
}

/// What is to be deleted, and what is worth telling of the rest.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) garbage: Vec<(Sort, Listed)>,
    /// Garbage that is younger than the grace time.
    pub(super) young: Vec<(Sort, Listed)>,
    /// Objects with names that are not ours.
    pub(super) foreign: Vec<String>,
}

impl Plan {
    #[cfg(test)]
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.garbage.iter().map(|(_, object)| object.name.as_str()).collect()
    }
}

impl Scene<'_> {
    /// Judges every object by a fence that stands in the ledger, and by a history that goes at least up to that fence.
    pub(super) fn plan(&self, history: &History, bounds: Bounds) -> Plan {
        let mut plan = Plan::default();
        let sessions_alive = self.leases.iter().any(|found| found.is_alive(self.now));
        for object in self.objects {
            let Some(sort) = Sort::of(&object.name) else {
                plan.foreign.push(object.name.clone());
                continue;
            };
            let least = match sort {
                Sort::Lease => self.lease_lasts(&object.name) * 2 + self.grace,
                Sort::Leftover if sessions_alive => self.grace.max(HALF_WRITTEN),
                _ => self.grace,
            };
            let garbage = match sort {
                Sort::Data | Sort::Tokens | Sort::Quarantine => {
                    StagedName::parse(&object.name).is_some_and(|name| name.stage < bounds.floor)
                        && !history.holds_since(&object.name, bounds.oldest)
                }
                Sort::Checkpoint => {
                    written_in(&object.name).is_some_and(|version| version <= self.newest)
                        && !self.checkpoints.contains(&object.name)
                }
                // Only age says whether somebody may still need these.
                Sort::Lease | Sort::Probe | Sort::Leftover => true,
            };
            if !garbage {
                continue;
            }
            let young = self.age(object.modified) < least;
            if young { &mut plan.young } else { &mut plan.garbage }.push((sort, object.clone()));
        }
        // A lease that is alive is no garbage, and neither is that of the vacuum itself.
        plan.young.retain(|(sort, _)| *sort != Sort::Lease);
        plan
    }

    /// What was written after the clock was asked is new, not of negative age.
    fn age(&self, modified: DateTime<Utc>) -> Duration {
        self.now.signed_duration_since(modified).max(Duration::zero())
    }

    fn lease_lasts(&self, object: &str) -> Duration {
        let found = self.leases.iter().find(|found| found.object.name == object);
        found.map_or(Duration::seconds(lease::LEASE_SECONDS as i64), Found::lasts)
    }
}

impl Plan {
    /// The lowest bounds by which all its garbage may be deleted. No fence is higher than it must be: whoever is at work
    /// without a lease yet is disturbed only where there is something to gain.
    pub(super) fn needs(&self, history: &History) -> Bounds {
        let mut bounds = Bounds::default();
        for (_, object) in &self.garbage {
            let Some(staged) = StagedName::parse(&object.name) else { continue };
            let removed = history.removed.get(last_part(&object.name)).copied().flatten().unwrap_or(0);
            bounds = bounds.max(Bounds { floor: staged.stage.saturating_add(1), oldest: removed });
        }
        // A fence keeps readable whatever a session may read that it does not fence off.
        if bounds.oldest > 0 {
            bounds.floor = bounds.floor.max(bounds.oldest.saturating_add(1));
        }
        bounds
    }
}

/// The highest bounds that spare everything within the grace time. Whoever began before the first young version was
/// written is older than that; whoever began after it is at its stage or above, and reads the version before it or a later
/// one. With no young version even those at the present stage have had their time, unless they hold a lease.
/// `manifests`: when each version from the last below the present floor on was written, as far as a listing shows it.
pub(super) fn settled(
    present: Bounds,
    entries: u64,
    manifests: &BTreeMap<u64, DateTime<Utc>>,
    scene: &Scene<'_>,
) -> Bounds {
    // What a listing does not show was written a moment ago.
    let young = |version: &u64| manifests.get(version).is_none_or(|at| scene.age(*at) < scene.grace);
    let from = present.floor.saturating_sub(1);
    let floor = (from..entries).find(young).unwrap_or(entries.saturating_add(1));
    Bounds { floor, oldest: floor.min(entries).saturating_sub(1) }.max(present)
}

/// The live sessions below `floor`, each with its stage. A vacuum stages and reads nothing that could be lost.
pub(super) fn sessions_below(leases: &[Found], now: DateTime<Utc>, floor: u64) -> Vec<(u64, &Found)> {
    let stage = |found: &Found| found.lease.as_ref().map_or(0, |lease| lease.stage);
    let stages = |found: &Found| found.lease.as_ref().is_none_or(|lease| lease.kind != lease::Kind::Vacuum);
    let live = leases.iter().filter(|found| stages(found) && found.is_alive(now));
    live.map(|found| (stage(found), found)).filter(|(stage, _)| *stage < floor).collect()
}

#[cfg(test)]
mod tests;
