//! What a plain set says of a history: it sees the commits in order, and nothing else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use dedupe::ledger::entry::{Entry, Ingest};
use dedupe::ledger::log::Proposer;
use dedupe::ledger::name::{self, StagedName};
use dedupe::ledger::state::Applied;
use dedupe::ledger::{Body, Ledger, State};
use dedupe::store::Store;
use dedupe::upkeep::vacuum::{VacuumOptions, vacuum};
use dedupe::upkeep::verify::{VerifyOptions, verify};
use dedupe::verdict::Accounting;

use super::actors::{Scene, row_hash, rows_in};
use super::plan::{Plan, Row};
use super::store::Client;

/// What the actors saw and did.
#[derive(Default)]
pub struct Record {
    pub attempts: Vec<(usize, End)>,
    pub snapshots: Vec<Snapshot>,
    pub probes: Vec<Probe>,
    pub problems: Vec<String>,
    /// Whether somebody has seen that the table is there.
    pub table_seen: bool,
    /// How often somebody set about to create it.
    pub creators: u64,
    read: HashMap<String, Arc<Vec<Row>>>,
}

/// How an attempt to bring a batch ended.
#[derive(Debug, Clone)]
pub enum End {
    Open,
    Died,
    Acked(Ack),
    Unknown,
    Failed(String),
}

/// What a writer was told.
#[derive(Debug, Clone)]
pub struct Ack {
    pub version: u64,
    pub replayed: bool,
    pub rows: Option<Accounting>,
}

/// What a reader saw.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot {
    pub version: u64,
    pub rows: u64,
    pub sum: u64,
}

/// What a reader was told of some keys: whether each was known.
#[derive(Debug)]
pub struct Probe {
    pub version: u64,
    pub known: Vec<(u64, bool)>,
}

impl Record {
    pub fn begin(&mut self, batch: usize) -> u64 {
        self.attempts.push((batch, End::Open));
        self.attempts.len() as u64 - 1
    }

    pub fn end(&mut self, attempt: u64, end: End) {
        self.attempts[attempt as usize].1 = end;
    }

    /// The rows of a file whose bytes were checked. Files never change, so each is decoded once.
    pub fn rows_of(&mut self, name: &str, bytes: &Bytes) -> Arc<Vec<Row>> {
        Arc::clone(self.read.entry(name.to_owned()).or_insert_with(|| Arc::new(rows_in(bytes))))
    }
}

/// The plain set, and what it says of each version.
#[derive(Default)]
struct Plain {
    /// Who brought each key: the number of its row, and the version.
    kept: HashMap<u64, (i64, u64)>,
    survivors: Vec<Row>,
    sources: HashSet<u128>,
    batches: HashMap<String, u64>,
    /// By version, what a reader sees.
    seen: BTreeMap<u64, Snapshot>,
    /// By version, its accounting.
    rows: HashMap<u64, Accounting>,
    /// By attempt, the version that holds it.
    stands: HashMap<u64, u64>,
    problems: Vec<String>,
}

impl Plain {
    fn accept(&mut self, version: u64, ingest: &Ingest, plan: &Plan, record: &Record) {
        self.rows.insert(version, ingest.rows);
        let attempt: Option<u64> = ingest.sources.first().and_then(|s| s.modified.as_ref()?.parse().ok());
        let Some(attempt) = attempt.filter(|attempt| (*attempt as usize) < record.attempts.len()) else {
            return self.problems.push(format!("version {version} is of nobody"));
        };
        if let Some(before) = self.stands.insert(attempt, version) {
            self.problems.push(format!("versions {before} and {version} are the same commit"));
        }
        let batch = &plan.batches[record.attempts[attempt as usize].0];
        if let Some((id, _)) = &batch.id
            && let Some(before) = self.batches.insert(id.clone(), version)
        {
            self.problems.push(format!("{id} was committed in {before} and in {version}"));
        }
        let urls = ingest.sources.iter().map(|source| &source.url);
        if !urls.eq(batch.sources.iter().map(|source| &source.url)) {
            self.problems.push(format!("version {version} has other sources than its batch"));
        }
        for (source, told) in batch.sources.iter().zip(&ingest.sources) {
            let mut rows = Accounting::default();
            let replay = source.id.is_some_and(|id| !self.sources.insert(id));
            for (key, n) in source.rows() {
                rows.read += 1;
                match key {
                    _ if replay => rows.replayed += 1,
                    None => rows.rejected += 1,
                    Some(key) if self.kept.contains_key(key) => rows.duplicate += 1,
                    Some(key) => {
                        rows.accepted += 1;
                        self.kept.insert(*key, (*n, version));
                        self.survivors.push((Some(*key), *n));
                    }
                }
            }
            let told = if replay {
                // Rows without a key were set aside before it was known that the source is a replay.
                Accounting { replayed: told.rows.replayed + told.rows.rejected, rejected: 0, ..told.rows }
            } else {
                told.rows
            };
            if told != rows {
                let url = &source.url;
                self.problems.push(format!("version {version}, {url}: {told:?} should be {rows:?}"));
            }
        }
    }

    fn see(&mut self, version: u64) {
        let sum = self.survivors.iter().map(|row| row_hash(*row)).fold(0, u64::wrapping_add);
        self.seen.insert(version, Snapshot { version, rows: self.survivors.len() as u64, sum });
    }
}

/// How often what happened, to see that histories are worth anything.
pub type Happened = BTreeMap<&'static str, u64>;

/// Everything that can be said of a history after its end (nothing = all is well), and what happened in it.
pub async fn judge(scene: &Scene) -> (Vec<String>, Happened) {
    let record = std::mem::take(&mut *scene.record());
    let mut happened = Happened::new();
    for (_, end) in &record.attempts {
        let what = match end {
            End::Acked(ack) if ack.replayed => "batches found to be committed before",
            End::Acked(_) => "batches acknowledged",
            End::Died | End::Open => "writers' deaths",
            End::Unknown => "unknown outcomes",
            End::Failed(why) if why.contains("fenced off") => "writers fenced off",
            End::Failed(_) => "attempts that failed",
        };
        *happened.entry(what).or_default() += 1;
    }
    happened.insert("snapshots read", record.snapshots.len() as u64);
    happened.insert("questions to the index", record.probes.len() as u64);
    happened.insert("histories with several creators", u64::from(record.creators > 1));
    (judge_all(scene, record, &mut happened).await, happened)
}

async fn judge_all(scene: &Scene, record: Record, happened: &mut Happened) -> Vec<String> {
    let mut problems = record.problems.clone();
    let mut plain = Plain::default();
    let state = replay(scene, &record, &mut plain, &mut problems, happened);
    problems.append(&mut plain.problems);
    judge_acks(scene, &record, &plain, &mut problems);
    judge_readers(&record, &plain, &mut problems);
    judge_rows(scene, record, &plain, &state, &mut problems);
    if problems.is_empty() {
        judge_table(scene, &state, &mut problems).await;
    }
    problems
}

/// Reads the ledger's objects themselves, in order.
fn replay(
    scene: &Scene,
    record: &Record,
    plain: &mut Plain,
    problems: &mut Vec<String>,
    happened: &mut Happened,
) -> State {
    let mut state = State::default();
    loop {
        let version = state.entries;
        let Some(bytes) = scene.world.bytes(&name::manifest(version)) else { return state };
        let Ok(entry) = Entry::decode("", &bytes) else {
            problems.push(format!("version {version} cannot be read"));
            return state;
        };
        note(&entry, happened);
        match state.apply(&entry, Entry::hash(&bytes)) {
            Applied::Valid => {
                if let Some(ingest) = entry.ingest() {
                    plain.accept(version, ingest, &scene.plan, record);
                }
            }
            // A writer that keeps the rules never leaves one.
            Applied::Void(void) => problems.push(format!("version {version} is void: {void}")),
        }
        plain.see(version);
    }
}

fn note(entry: &Entry, happened: &mut Happened) {
    let kind = match &entry.body {
        Body::Create(_) | Body::Policy { .. } => "tables created",
        Body::Compact(_) => "compactions",
        Body::Fence { .. } => "fences",
        Body::Ingest(ingest) => {
            let mut count = |what, times: usize| *happened.entry(what).or_default() += times as u64;
            count("commits with runs", usize::from(!ingest.runs.is_empty()));
            count(
                "schemas widened",
                usize::from(ingest.schema.as_ref().is_some_and(|change| change.base > 0)),
            );
            let stages = |name: &String| StagedName::parse(name).map(|name| name.stage);
            let late = ingest.files.iter().filter_map(|file| stages(&file.name)).max() == Some(entry.version);
            let early = ingest.files.iter().filter_map(|file| stages(&file.name)).min() < Some(entry.version);
            // Files of two stages: some were written anew for a rival's sake.
            count("commits with files written anew", usize::from(late && early));
            "commits"
        }
    };
    *happened.entry(kind).or_default() += 1;
}

fn judge_acks(scene: &Scene, record: &Record, plain: &Plain, problems: &mut Vec<String>) {
    let mut acked = HashSet::new();
    for (attempt, (number, end)) in (0..).zip(&record.attempts) {
        let batch = &scene.plan.batches[*number];
        let stands = plain.stands.get(&attempt).copied();
        match end {
            End::Acked(ack) => {
                acked.insert(*number);
                let theirs = batch.id.as_ref().and_then(|(id, _)| plain.batches.get(id)).copied();
                let right = if ack.replayed { theirs } else { stands };
                if ack.rows.is_some_and(|rows| plain.rows.get(&ack.version) != Some(&rows)) {
                    problems
                        .push(format!("batch {number} was told {ack:?}, which is not what its version says"));
                }
                if right != Some(ack.version) {
                    problems
                        .push(format!("batch {number} was reported as done in {ack:?}: it is in {right:?}"));
                }
                for (key, _) in batch.sources.iter().flat_map(|source| source.rows()) {
                    if let Some(key) = key
                        && plain.kept.get(key).is_none_or(|(_, version)| *version > ack.version)
                    {
                        problems.push(format!("key {key} of acknowledged batch {number} is lost"));
                    }
                }
            }
            End::Failed(why) => {
                if let Some(version) = stands {
                    problems.push(format!("version {version} was reported as failed: {why}"));
                }
            }
            End::Open | End::Died | End::Unknown => {}
        }
    }
    for batch in scene.plan.writers.iter().flatten() {
        if !acked.contains(&batch.number) {
            problems.push(format!("batch {} was never acknowledged", batch.number));
        }
    }
}

fn judge_readers(record: &Record, plain: &Plain, problems: &mut Vec<String>) {
    let mut last = 0;
    for snapshot in &record.snapshots {
        let right = plain.seen.get(&snapshot.version);
        if right.is_none_or(|right| (right.rows, right.sum) != (snapshot.rows, snapshot.sum)) {
            problems.push(format!("a reader saw {snapshot:?}, where there was {right:?}"));
        }
        if snapshot.version < last {
            problems.push(format!("a reader saw version {} after {last}", snapshot.version));
        }
        last = snapshot.version;
    }
    for probe in &record.probes {
        for (key, known) in &probe.known {
            let right = plain.kept.get(key).is_some_and(|(_, version)| *version <= probe.version);
            if right != *known {
                problems.push(format!("the index of version {} was wrong about key {key}", probe.version));
            }
        }
    }
}

/// The live files hold exactly the survivors.
fn judge_rows(scene: &Scene, mut record: Record, plain: &Plain, state: &State, problems: &mut Vec<String>) {
    let mut found = Vec::new();
    for file in state.files().unwrap().keys() {
        match scene.world.bytes(file) {
            Some(bytes) => found.extend(record.rows_of(file, &bytes).iter().copied()),
            None => problems.push(format!("live file {file} is absent")),
        }
    }
    let mut expected = plain.survivors.clone();
    found.sort_unstable();
    expected.sort_unstable();
    if found != expected {
        let (found, expected): (HashSet<_>, HashSet<_>) = (found.iter().collect(), expected.iter().collect());
        let (extra, lost): (Vec<_>, Vec<_>) =
            (found.difference(&expected).collect(), expected.difference(&found).collect());
        problems.push(format!("the table's rows are wrong: too many {extra:?}, lost {lost:?}, or doubled"));
    }
    for run in state.runs.keys().filter(|run| scene.world.bytes(run).is_none()) {
        problems.push(format!("live run {run} is absent"));
    }
}

/// A vacuum brings the store back to what the table names, and `verify` finds nothing.
async fn judge_table(scene: &Scene, state: &State, problems: &mut Vec<String>) {
    let store = Store::from_object_store(Arc::new(Client::healthy(&scene.world)), "", "sim:");
    let swept = async {
        let mut ledger = Ledger::open(store).await?.ok_or_else(|| dedupe::Error::Usage("no table".into()))?;
        // Whoever died left leases, which last for a while; and what was staged at the very tip can only be fenced off
        // when there is one version more.
        tokio::time::sleep(std::time::Duration::from_secs(100_000)).await;
        let (floor, oldest) = (ledger.state().floor, ledger.state().oldest);
        let entry = ledger.entry(&Proposer::new()?, Body::Fence { floor, oldest })?;
        let _ = ledger.propose(&entry).await?;
        let mut options = VacuumOptions::default();
        options.grace = std::time::Duration::ZERO;
        vacuum(&mut ledger, &options).await?;
        let report = verify(&ledger, &VerifyOptions::default()).await?;
        ledger.read_files().await?;
        dedupe::error::Result::<_>::Ok((report, ledger.state().clone()))
    };
    let (report, after) = match swept.await {
        Ok(swept) => swept,
        Err(error) => return problems.push(format!("the table cannot be vacuumed and verified: {error}")),
    };
    problems.extend(report.problems);
    let (files, quarantine) = (after.files().unwrap(), after.quarantine().unwrap());
    if (after.total, after.rows, files) != (state.total, state.rows, state.files().unwrap()) {
        problems.push("a vacuum changed what the table holds".into());
    }
    let live = |name: &str| {
        files.contains_key(name) || after.runs.contains_key(name) || quarantine.contains_key(name)
    };
    for object in scene.world.names() {
        let garbage = StagedName::parse(&object).is_some() && !live(&object);
        if garbage || object.starts_with(name::SESSIONS) || object.starts_with(name::PROBE) {
            problems.push(format!("{object} is garbage, and vacuum left it"));
        }
    }
}
