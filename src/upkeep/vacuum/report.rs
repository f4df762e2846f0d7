//! What a vacuum tells of itself.

use std::collections::{BTreeMap, HashSet};

use serde::Serialize;

use super::plan::{Bounds, Plan, Sort};
use crate::lease::{self, Found, Kind};
use crate::store::Listed;

/// What a vacuum did, or would do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VacuumReport {
    /// Whether this is only a forecast.
    pub dry_run: bool,
    /// The version of the fence it committed; `None` if an earlier one sufficed.
    pub version: Option<u64>,
    /// Nothing staged below this can become part of the table.
    pub floor: u64,
    /// The oldest version that can still be read.
    pub oldest: u64,
    /// What was deleted, by sort.
    pub deleted: BTreeMap<Sort, Tally>,
    /// The names of all objects that were deleted.
    pub names: Vec<String>,
    /// What no version needs and was kept all the same: it is younger than the grace time, or a session that may be alive
    /// may still commit or read it.
    pub kept: Tally,
    /// Objects in the table's folders whose names are not ours. They are never deleted.
    pub foreign: Vec<String>,
    /// Live sessions that keep the floor, and with it garbage, where it is.
    pub held_back_by: Vec<Holder>,
}

/// So many objects, and their bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// How many.
    pub objects: u64,
    /// Their sizes together.
    pub bytes: u64,
}

impl Tally {
    fn add(&mut self, object: &Listed) {
        self.objects += 1;
        self.bytes = self.bytes.saturating_add(object.size);
    }
}

/// A live session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Holder {
    /// The session.
    pub session: String,
    /// Host and process; empty if its lease cannot be understood.
    pub writer: String,
    /// What it is for.
    pub kind: Option<Kind>,
    /// The stage it began at.
    pub stage: u64,
}

impl Holder {
    pub(super) fn of(found: &Found) -> Self {
        let session = lease::session_of(&found.object.name).unwrap_or_default().to_owned();
        let lease = found.lease.as_ref();
        Self {
            session,
            writer: lease.map(|lease| lease.writer.clone()).unwrap_or_default(),
            kind: lease.map(|lease| lease.kind),
            stage: lease.map_or(0, |lease| lease.stage),
        }
    }
}

impl VacuumReport {
    pub(super) fn tell(&mut self, plan: &Plan, bounds: Bounds) {
        (self.floor, self.oldest) = (bounds.floor, bounds.oldest);
        for (sort, object) in &plan.garbage {
            self.deleted.entry(*sort).or_default().add(object);
            self.names.push(object.name.clone());
        }
        self.foreign.clone_from(&plan.foreign);
    }

    /// Counts what `all` has and the plan that was told of has not.
    pub(super) fn tell_of_kept(&mut self, all: &Plan) {
        let gone: HashSet<&String> = self.names.iter().collect();
        let all = all.garbage.iter().chain(&all.young).map(|(_, object)| object);
        let kept = all.filter(|object| !gone.contains(&object.name));
        let mut tally = Tally::default();
        kept.for_each(|object| tally.add(object));
        self.kept = tally;
    }
}
