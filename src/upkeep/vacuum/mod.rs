//! Deleting what no version needs any more.
//!
//! The order is what makes it safe (`docs/protocol.md`, under "Vacuum"): list everything, or refuse; commit a fence, after
//! which nothing staged below its floor can become part of the table, whoever tries and whenever; fold the ledger
//! from its beginning up to at least that fence; delete what is staged below the floor and held by no version from
//! the oldest readable one on. Neither clocks nor leases nor listings matter for that. They only make the choice of the
//! floor polite: below the stage of every session that is alive, and of everything younger than the grace time, by the
//! times that the *store* gives its objects.

mod plan;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures::stream::{self, StreamExt};
use tracing::{debug, info};

use crate::error::{Error, Result};
use crate::lease::{self, Found, Held, Kind, Lease};
use crate::ledger::entry::{Body, MAX_MANIFEST};
use crate::ledger::log::beneath::read_whole;
use crate::ledger::log::{Proposal, Proposer};
use crate::ledger::state::{Applied, State};
use crate::ledger::{Ledger, checkpoint, name};
use crate::store::{Listed, Store};
use crate::{clock, random};
pub use plan::Sort;
use plan::{Bounds, History, Plan, Scene, sessions_below, settled};
pub use report::{Holder, Tally, VacuumReport};

/// How many objects are deleted at a time.
const DELETES: usize = 16;

/// Checkpoints that stay: the newest, and one in case that is damaged.
const CHECKPOINTS: usize = 2;

/// How a vacuum is run.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct VacuumOptions {
    /// What is younger is kept: objects, snapshots for running readers, and sessions that have no lease yet.
    pub grace: Duration,
    /// Tell what would be deleted, and write nothing at all.
    pub dry_run: bool,
}

impl Default for VacuumOptions {
    /// A grace time of 24 hours.
    fn default() -> Self {
        Self { grace: Duration::from_secs(24 * 3600), dry_run: false }
    }
}

/// Deletes what no readable version names and no writer can commit any more. It can be stopped at any moment, run by
/// several at once, and run again: what one leaves, the next one finds. An object that cannot be deleted is an error at
/// the end, after everything else was tried.
pub async fn vacuum(ledger: &mut Ledger, options: &VacuumOptions) -> Result<VacuumReport> {
    let by = Proposer::new()?;
    if options.dry_run {
        return forecast(ledger, &by, options).await;
    }
    let store = ledger.store().clone();
    let lease = Lease::new(&by.session, &by.writer, Kind::Vacuum, ledger.state().entries);
    lease.write(&store).await?;
    let mut held = Held::written(&store, lease.clone());
    let ended = vacuum_as(ledger, &by, &lease, options).await;
    held.end().await;
    ended
}

async fn vacuum_as(
    ledger: &mut Ledger,
    by: &Proposer,
    lease: &Lease,
    options: &VacuumOptions,
) -> Result<VacuumReport> {
    let store = ledger.store().clone();
    // The store's clock: what it says of an object that was written just now.
    let now = store.head(&lease.object()).await?.map(|object| object.modified);
    let now =
        now.ok_or_else(|| Error::corrupt(lease.object(), "it is absent, a moment after it was written"))?;
    let mut survey = Survey::take(ledger, now, options).await?;
    let (bounds, held_back_by) = survey.polite_bounds(ledger.state());
    let version = survey.fence(ledger, by, bounds).await?;
    let bounds = present(ledger.state());
    let plan = survey.plan(bounds);
    let mut report = VacuumReport { version, held_back_by, ..VacuumReport::default() };
    report.tell(&plan, bounds);
    report.tell_of_kept(&survey.everything(ledger.state()));
    delete(&store, &plan).await?;
    Ok(report)
}

/// What a vacuum would do now. Nothing is written, so there is no object to ask for the store's time. The newest time of
/// all objects would make a table at rest look younger than it is, and tell of less than will be deleted; so this
/// machine's clock is taken too, if it is later. It decides nothing here but what is told.
async fn forecast(ledger: &mut Ledger, by: &Proposer, options: &VacuumOptions) -> Result<VacuumReport> {
    let mut survey = Survey::take(ledger, clock::now(), options).await?;
    let times = survey.objects.iter().map(|object| object.modified).chain(survey.manifests.values().copied());
    survey.now = times.fold(survey.now, DateTime::max);
    let (bounds, held_back_by) = survey.polite_bounds(ledger.state());
    debug!(session = by.session, "a forecast writes nothing");
    let mut report = VacuumReport { dry_run: true, held_back_by, ..VacuumReport::default() };
    report.tell(&survey.plan(bounds), bounds);
    report.tell_of_kept(&survey.everything(ledger.state()));
    Ok(report)
}

/// The fence that stands.
fn present(state: &State) -> Bounds {
    Bounds { floor: state.floor, oldest: state.oldest }
}

/// Everything that a vacuum looks at before it decides.
struct Survey {
    /// All objects but the ledger and `table.json`.
    objects: Vec<Listed>,
    leases: Vec<Found>,
    /// When the versions from the present floor on were written.
    manifests: BTreeMap<u64, DateTime<Utc>>,
    /// Checkpoints that are to stay, and their parts.
    checkpoints: BTreeSet<String>,
    newest: u64,
    history: History,
    now: DateTime<Utc>,
    grace: chrono::Duration,
}

impl Survey {
    /// Lists everything and then folds the ledger. Whatever cannot be listed or read ends the vacuum here, before
    /// anything was written or deleted. In this order, so that a session that begins meanwhile is never judged to have
    /// begun before a version that it had seen.
    async fn take(ledger: &mut Ledger, now: DateTime<Utc>, options: &VacuumOptions) -> Result<Self> {
        let store = ledger.store().clone();
        // One listing for everything from the last manifest below the present floor on, past the probes up to the token
        // runs. What is before in the ledger is never deleted and may be long.
        let before = ledger.state().floor.checked_sub(2).map_or(name::LEDGER.to_owned(), name::manifest);
        let mut objects = store.list_after(name::HOME, Some(&before)).await?;
        let mut manifests = BTreeMap::new();
        objects.retain(|object| {
            if let Some(version) = name::manifest_version(&object.name) {
                manifests.insert(version, object.modified);
                return false;
            }
            object.name != name::TABLE
        });
        let checkpoints = store.list(name::CHECKPOINTS).await?;
        let (sessions, rest) =
            objects.into_iter().partition(|object| lease::session_of(&object.name).is_some());
        let sessions: Vec<Listed> = sessions;
        let mut objects: Vec<Listed> = rest;
        objects.extend(sessions.iter().chain(&checkpoints).cloned());
        objects.extend(store.list(name::DATA).await?);
        objects.extend(store.leftovers().await?);
        objects.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        objects.dedup_by(|a, b| a.name == b.name);
        let leases = lease::read(&store, sessions).await?;

        let newest = manifests.last_key_value().map_or(0, |(version, _)| *version).max(ledger.version());
        let candidates = newest_checkpoints(&store, &checkpoints, newest, ledger).await?;
        let (mut history, mut kept) = (History::default(), BTreeSet::new());
        ledger
            .replay(|state, entry, applied| {
                if applied == Applied::Valid {
                    history.note(&entry);
                }
                if let Some((name, found)) = candidates.get(&entry.version)
                    && found == state
                {
                    kept.insert(name.clone());
                    kept.extend(checkpoint::parts_of(found).map(str::to_owned));
                }
            })
            .await?;
        // A version that is missing in the middle would make everything after it look like garbage.
        if let Some((later, _)) = manifests.range(ledger.state().entries..).next() {
            let absent = name::manifest(ledger.state().entries);
            let reason =
                format!("it is absent, but version {later} exists: a manifest was lost. Nothing was deleted");
            return Err(Error::corrupt(absent, reason));
        }
        // Longer than that is for ever, and sums of times must not overflow.
        let most = chrono::Duration::days(1_000_000);
        let grace = chrono::Duration::from_std(options.grace).unwrap_or(most).min(most);
        Ok(Self { objects, leases, manifests, checkpoints: kept, newest, history, now, grace })
    }

    fn scene(&self) -> Scene<'_> {
        let Self { objects, leases, checkpoints, newest, now, grace, .. } = self;
        Scene { objects, leases, checkpoints, newest: *newest, now: *now, grace: *grace }
    }

    fn plan(&self, bounds: Bounds) -> Plan {
        self.scene().plan(&self.history, bounds)
    }

    /// The plan if nobody were at work or reading.
    fn everything(&self, state: &State) -> Plan {
        self.plan(Bounds { floor: u64::MAX, oldest: state.entries.saturating_sub(1) })
    }

    /// The lowest bounds by which everything can be deleted that nobody needs; and the live sessions that need what
    /// could be deleted if they were not there.
    fn polite_bounds(&self, state: &State) -> (Bounds, Vec<Holder>) {
        let present = present(state);
        let needs = |bounds| self.plan(bounds).needs(&self.history).max(present);
        let settled = settled(present, state.entries, &self.manifests, &self.scene());
        let wanted = needs(settled);
        let holding = sessions_below(&self.leases, self.now, wanted.floor);
        let polite = holding.iter().fold(settled, |bounds, (stage, _)| bounds.sparing(*stage)).max(present);
        let bounds = if holding.is_empty() { wanted } else { needs(polite) };
        (bounds, holding.into_iter().map(|(_, found)| Holder::of(found)).collect())
    }

    /// Commits a fence, if one is needed, and returns its version. A table at rest that is vacuumed every hour does not
    /// grow by an entry an hour.
    ///
    /// Without a new fence the one in the ledger does as well: it stands in a version up to the tip, and the history goes
    /// up to the tip, so every entry that could still name something below its floor has been seen, and later ones
    /// that do are void. So this is also how what an interrupted vacuum left is deleted: by its fence, not by its plan.
    async fn fence(&mut self, ledger: &mut Ledger, by: &Proposer, bounds: Bounds) -> Result<Option<u64>> {
        let mut losses = 0;
        loop {
            // Another vacuum's fence may be higher by now: bounds only rise.
            let present = present(ledger.state());
            let Bounds { floor, oldest } = bounds.max(present);
            if (Bounds { floor, oldest }) == present {
                return Ok(None);
            }
            let entry = ledger.entry(by, Body::Fence { floor, oldest })?;
            match ledger.propose(&entry).await? {
                Proposal::Committed => {
                    info!(version = entry.version, floor, oldest, "the fence stands");
                    return Ok(Some(entry.version));
                }
                Proposal::Lost(rival) => {
                    rival.iter().for_each(|rival| self.history.note(rival));
                    ledger.refresh().await?.iter().for_each(|rival| self.history.note(rival));
                    losses += 1;
                    debug!(losses, "another writer was first: proposing the fence again");
                    tokio::time::sleep(random::jitter(Duration::from_millis(20 << losses.min(7)))?).await;
                }
                Proposal::Void(void) => {
                    return Err(Error::Internal(format!(
                        "the fence would be void: {void}. Nothing was deleted"
                    )));
                }
            }
        }
    }
}

/// The newest checkpoints up to `newest` that can be read, by version: those that may stay, if they are what the ledger
/// adds up to.
async fn newest_checkpoints(
    store: &Store,
    listed: &[Listed],
    newest: u64,
    ledger: &Ledger,
) -> Result<BTreeMap<u64, (String, State)>> {
    let versions =
        listed.iter().filter_map(|object| Some((checkpoint::version_of(&object.name)?, &object.name)));
    let mut versions: Vec<(u64, &String)> = versions.collect();
    versions.retain(|(version, _)| *version <= newest);
    versions.sort_unstable();
    let mut found = BTreeMap::new();
    for (version, object) in versions.into_iter().rev() {
        if found.len() == CHECKPOINTS {
            break;
        }
        let bytes = match store.get_limited(object, MAX_MANIFEST).await {
            Ok(Some(bytes)) => bytes,
            Ok(None) | Err(Error::Corrupt { .. }) => continue,
            Err(error) => return Err(error),
        };
        // Two for one version cannot both be right.
        match checkpoint::decode(object, &bytes) {
            Ok(mut state) if state.table == ledger.identity().table => {
                match read_whole(store, &mut state).await {
                    Ok(()) => drop(found.entry(version).or_insert((object.clone(), state))),
                    Err(error) => debug!("{object} is of no use: {error}"),
                }
            }
            Ok(_) | Err(_) => debug!("{object} is no checkpoint of this table"),
        }
    }
    Ok(found)
}

/// Deletes everything that is planned. A failure does not keep the rest from being deleted.
async fn delete(store: &Store, plan: &Plan) -> Result<()> {
    let names: Vec<String> = plan.garbage.iter().map(|(_, object)| object.name.clone()).collect();
    let deletes = names.into_iter().map(|name| {
        let store = store.clone();
        async move {
            let result = store.delete(&name).await;
            (name, result)
        }
    });
    let mut results = stream::iter(deletes).buffered(DELETES);
    let (mut failed, mut first) = (0, None);
    while let Some((name, result)) = results.next().await {
        if let Err(error) = result {
            debug!("{name} was not deleted: {error}");
            failed += 1;
            first.get_or_insert((name, error));
        }
    }
    match first {
        None => Ok(()),
        Some((name, error)) => Err(Error::store(
            "delete",
            name,
            format!(
                "{error} ({failed} of {} objects could not be deleted, the others are. Nothing that any version needs is \
                 touched; run again)",
                plan.garbage.len()
            ),
        )),
    }
}
