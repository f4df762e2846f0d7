//! Writers, compactors and vacuums made by hand, from the ledger and the store alone: by the rules, or with one
//! mistake planted, to see whether the simulation finds it. What is shipped is not touched by any of this.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dedupe::error::{Error, Result};
use dedupe::ledger::checkpoint;
use dedupe::ledger::entry::{self, Compact, DataFile, Ingest, InlineTokens, SchemaChange};
use dedupe::ledger::log::{Proposal, Proposer};
use dedupe::ledger::name::{self, Namer, StagedName};
use dedupe::ledger::state::Void;
use dedupe::ledger::{Body, Entry, Ledger, State, seal};
use dedupe::store::{Listed, Put, Store};
use dedupe::token::{TokenSpec, TokenSum};
use dedupe::upkeep::vacuum::{self, VacuumOptions};
use dedupe::verdict::Accounting;
use parquet::arrow::ArrowWriter;
use xxhash_rust::xxh3::xxh3_64;

use super::Bug;
use super::actors::{self, Scene, record_batch, used};
use super::oracle::Ack;
use super::plan::{Batch, Row, schema};

/// Rows that were judged, and the file they were staged in.
struct Staged {
    rows: Vec<Row>,
    accounting: Vec<Accounting>,
    replays: Vec<Option<u64>>,
    file: Option<DataFile>,
    tokens: InlineTokens,
}

/// What became of a put.
enum Resolved {
    Ours,
    Rival,
    /// Start over with other files.
    Again,
}

/// One attempt to bring a batch.
pub async fn bring(scene: &Scene, store: Store, batch: &Batch, attempt: u64) -> Result<Ack> {
    let (mut ledger, spec) = opened_or_created(scene, &store).await?;
    ledger.read_all().await?;
    let by = Proposer::new()?;
    let mut namer = Namer::new(&by.session, ledger.state().entries);
    let mut staged = stage(scene, &store, &mut namer, &ledger, &spec, batch).await?;
    loop {
        if let Some((id, _)) = &batch.id
            && let Some(seen) = ledger.state().batch(id)?
        {
            return Ok(Ack { version: seen.version, replayed: true, rows: None });
        }
        let entry = propose(&ledger, &by, batch, attempt, &staged)?;
        let unchecked = matches!(scene.bug, Bug::SkipFence | Bug::NextVersion);
        match ledger.state().check(&entry) {
            Err(Void::BelowFloor(object)) if !unchecked => {
                return Err(Error::Fenced { object, stage: 0, floor: ledger.state().floor });
            }
            Err(void) if !unchecked => return Err(Error::Internal(format!("void: {void}"))),
            _ => {}
        }
        let rows = entry.ingest().map(|ingest| ingest.rows);
        match resolve(scene.bug, &store, &entry, &staged).await? {
            Resolved::Ours => return Ok(Ack { version: entry.version, replayed: false, rows }),
            Resolved::Rival => {
                ledger.refresh().await?;
                if matches!(scene.bug, Bug::SkipRefilter | Bug::NextVersion) {
                    continue;
                }
                let (known, state) = (keys_of(scene, &store, ledger.state(), 0).await?, ledger.state());
                let consumed = |batch: &Batch| {
                    let mut ids = batch.sources.iter().zip(&staged.replays);
                    ids.any(|(source, replay)| {
                        let known = |id| state.source(id).is_ok_and(|seen| seen.is_some());
                        replay.is_none() && source.id.is_some_and(known)
                    })
                };
                let overlap = staged.rows.iter().any(|(key, _)| key.is_some_and(|key| known.contains(&key)));
                if overlap || consumed(batch) {
                    namer.advance(ledger.state().entries);
                    staged = stage(scene, &store, &mut namer, &ledger, &spec, batch).await?;
                }
            }
            Resolved::Again => {
                ledger.refresh().await?;
                namer.advance(ledger.state().entries);
                staged = stage(scene, &store, &mut namer, &ledger, &spec, batch).await?;
            }
        }
    }
}

/// The table, and how its tokens are made.
async fn opened_or_created(scene: &Scene, store: &Store) -> Result<(Ledger, TokenSpec)> {
    if scene.bug == Bug::OwnIdentity && actors::opened(scene, store.clone()).await?.is_none() {
        let identity = actors::identity()?;
        let spec = identity.token.clone();
        return Ok((actors::create(scene, store.clone(), identity).await?, spec));
    }
    let ledger = actors::opened_or_created(scene, store.clone()).await?;
    let spec = ledger.identity().token.clone();
    Ok((ledger, spec))
}

/// Sends the entry until it is known what stands in its version.
async fn resolve(bug: Bug, store: &Store, entry: &Entry, staged: &Staged) -> Result<Resolved> {
    let (object, bytes) = (name::manifest(entry.version), Bytes::from(entry.encode()?));
    let conflict = || Error::store("write", &object, "conflict");
    let clean_up = async || {
        if let Some(file) = &staged.file {
            store.delete(&file.name).await?;
        }
        Ok(Resolved::Again)
    };
    for _ in 0..8 {
        let put = store.put_once(&object, bytes.clone()).await;
        match (bug, &put) {
            (_, Put::Landed) | (Bug::TimeoutMeansDone, Put::Unknown(_)) => return Ok(Resolved::Ours),
            (Bug::ExistsMeansFailed, Put::Taken) => return Err(conflict()),
            (Bug::CleanUpOnConflict, Put::Taken) => return clean_up().await,
            (Bug::NextVersion, Put::Unknown(_)) => return Ok(Resolved::Rival),
            _ => {}
        }
        match (bug, store.get(&object).await) {
            (_, Ok(Some(found))) if found == bytes => return Ok(Resolved::Ours),
            (_, Ok(Some(found))) if seal::holds(&found) => return Ok(Resolved::Rival),
            (Bug::AbsentMeansDone, Ok(None)) => return Ok(Resolved::Ours),
            (Bug::AbsentMeansFailed, Ok(None)) => return Err(conflict()),
            (Bug::CleanUpWhenAbsent, Ok(None)) => return clean_up().await,
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    Err(Error::Unknown { version: entry.version, reason: "no clear answer".into() })
}

/// The keys of all live rows, but for those of the latest versions, if asked to be that blind.
async fn keys_of(scene: &Scene, store: &Store, state: &State, blind: u64) -> Result<HashSet<u64>> {
    let mut keys = HashSet::new();
    for file in state.files()?.values().filter(|file| file.since + blind <= state.entries) {
        keys.extend(rows_of(scene, store, &file.item).await?.iter().filter_map(|(key, _)| *key));
    }
    Ok(keys)
}

async fn rows_of(scene: &Scene, store: &Store, file: &DataFile) -> Result<Arc<Vec<Row>>> {
    let bytes = store.get(&file.name).await?.ok_or_else(|| Error::store("read", &file.name, "absent"))?;
    if format!("{:016x}", xxh3_64(&bytes)) != file.check {
        return Err(Error::corrupt(&file.name, "a bit is wrong"));
    }
    Ok(scene.record().rows_of(&file.name, &bytes))
}

async fn stage(
    scene: &Scene,
    store: &Store,
    namer: &mut Namer,
    ledger: &Ledger,
    spec: &TokenSpec,
    batch: &Batch,
) -> Result<Staged> {
    let blind = if scene.bug == Bug::StaleFilter { 4 } else { 0 };
    let mut known = keys_of(scene, store, ledger.state(), blind).await?;
    let (mut rows, mut accounting, mut replays, mut origin) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (number, source) in (0..).zip(&batch.sources) {
        let seen = match source.id {
            Some(id) => ledger.state().source(id)?.map(|seen| seen.version),
            None => None,
        };
        let (mut counts, before) = (Accounting::default(), rows.len());
        for row in source.rows() {
            counts.read += 1;
            match row.0 {
                _ if seen.is_some() => counts.replayed += 1,
                None => counts.rejected += 1,
                Some(key) if known.insert(key) => {
                    counts.accepted += 1;
                    rows.push(*row);
                }
                Some(_) => counts.duplicate += 1,
            }
        }
        if rows.len() > before {
            origin.push((number, (rows.len() - before) as u64));
        }
        accounting.push(counts);
        replays.push(seen);
    }
    if rows.is_empty() {
        return Ok(Staged { rows, accounting, replays, file: None, tokens: InlineTokens::default() });
    }
    let (file, tokens) = write(store, namer, spec, &rows, origin).await?;
    Ok(Staged { rows, accounting, replays, file: Some(file), tokens })
}

async fn write(
    store: &Store,
    namer: &mut Namer,
    spec: &TokenSpec,
    rows: &[Row],
    origin: Vec<(u32, u64)>,
) -> Result<(DataFile, InlineTokens)> {
    let schema = Arc::new(schema(false));
    let batch = record_batch(&schema, rows);
    let mut tokens = spec.bind(&schema, "by hand")?.tokenise(&batch)?.tokens;
    tokens.sort_unstable();
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema, None).expect("a writer");
    writer.write(&batch).expect("rows are written");
    writer.close().expect("a file is closed");
    let file = DataFile {
        name: namer.next(name::DATA, "parquet"),
        rows: rows.len() as u64,
        bytes: bytes.len() as u64,
        check: format!("{:016x}", xxh3_64(&bytes)),
        keyless: 0,
        tokens: TokenSum::of(&tokens),
        origin,
        key_range: Vec::new(),
    };
    store.put(&file.name, bytes.into()).await?;
    Ok((file, InlineTokens(tokens)))
}

fn propose(ledger: &Ledger, by: &Proposer, batch: &Batch, attempt: u64, staged: &Staged) -> Result<Entry> {
    let state = ledger.state();
    let sources = batch.sources.iter().zip(&staged.accounting).zip(&staged.replays);
    let mut rows = Accounting::default();
    staged.accounting.iter().for_each(|one| rows.add(one));
    let added = TokenSum::of(&staged.tokens.0);
    let schema = (state.schema.is_none() && staged.file.is_some())
        .then(|| SchemaChange { base: state.schema_version, schema: schema(false) });
    let ingest = Ingest {
        batch: batch.id.clone().map(|(id, digest)| entry::Batch { id, digest }),
        policy: state.policy_version,
        schema,
        sources: sources
            .map(|((source, rows), replay_of)| entry::SourceUse {
                rows: *rows,
                replay_of: *replay_of,
                ..used(source, attempt)
            })
            .collect(),
        files: staged.file.iter().cloned().collect(),
        inline: staged.tokens.clone(),
        rows,
        added,
        total: state.total.plus(added),
        ..Ingest::default()
    };
    ledger.entry(by, Body::Ingest(Box::new(ingest)))
}

/// Joins data files: only where actors are made by hand.
pub async fn compact_with(scene: &Scene, ledger: &mut Ledger) -> Result<()> {
    if !scene.bug.is_by_hand() {
        return Ok(());
    }
    ledger.read_all().await?;
    if ledger.state().files()?.len() < 2 {
        return Ok(());
    }
    let (store, by) = (ledger.store().clone(), Proposer::new()?);
    let mut namer = Namer::new(&by.session, ledger.state().entries);
    let inputs: Vec<DataFile> =
        ledger.state().files()?.values().take(4).map(|file| file.item.clone()).collect();
    let mut rows = Vec::new();
    for file in &inputs {
        rows.extend(rows_of(scene, &store, file).await?.iter().copied());
    }
    let spec = ledger.identity().token.clone();
    let (joined, _) = write(&store, &mut namer, &spec, &rows, vec![(0, rows.len() as u64)]).await?;
    let names: Vec<String> = inputs.into_iter().map(|file| file.name).collect();
    let body = Compact { files_removed: names.clone(), files_added: vec![joined], ..Compact::default() };
    loop {
        let entry = ledger.entry(&by, Body::Compact(body.clone()))?;
        if scene.bug != Bug::CompactUnchecked {
            match ledger.propose(&entry).await? {
                Proposal::Lost(_) => drop(ledger.refresh().await?),
                Proposal::Committed | Proposal::Void(_) => return Ok(()),
            }
            continue;
        }
        let (object, bytes) = (name::manifest(entry.version), Bytes::from(entry.encode()?));
        if matches!(store.put_once(&object, bytes).await, Put::Landed) {
            for name in &names {
                store.delete(name).await?;
            }
            return Ok(());
        }
        ledger.refresh().await?;
    }
}

/// A vacuum as it is shipped, or one made by hand, as the design has it or with a mistake.
pub async fn vacuum(scene: &Scene, ledger: &mut Ledger, grace: Duration) -> Result<()> {
    use Bug::{VacuumBeforeFence, VacuumByAge, VacuumByCheckpoint};
    let by_hand =
        scene.bug.is_by_hand() || [VacuumBeforeFence, VacuumByAge, VacuumByCheckpoint].contains(&scene.bug);
    if !by_hand {
        let mut options = VacuumOptions::default();
        options.grace = grace;
        return vacuum::vacuum(ledger, &options).await.map(drop);
    }
    compact_with(scene, ledger).await?;
    ledger.read_all().await?;
    let before = ledger.state().clone();
    if scene.bug == Bug::VacuumByAge {
        let listed = ledger.store().list("").await?;
        let newest = listed.iter().map(|object| object.modified).max().unwrap_or_default();
        let old = |object: &Listed| newest - object.modified > chrono::TimeDelta::seconds(3);
        let state = ledger.state().clone();
        return sweep(ledger.store(), listed.into_iter().filter(old), u64::MAX, &state).await;
    }
    // As polite as its version's number says.
    let polite = ledger.state().entries % 4;
    let floor = fence(ledger, polite).await?;
    let listed = ledger.store().list("").await?;
    let state = match scene.bug {
        Bug::VacuumBeforeFence => before,
        Bug::VacuumByCheckpoint => newest_checkpoint(ledger.store(), &listed).await?.unwrap_or(before),
        _ => ledger.state().clone(),
    };
    sweep(ledger.store(), listed.into_iter(), floor, &state).await
}

async fn fence(ledger: &mut Ledger, polite: u64) -> Result<u64> {
    let by = Proposer::new()?;
    loop {
        let floor = ledger.state().entries.saturating_sub(polite).max(ledger.state().floor);
        let oldest = floor.saturating_sub(1).max(ledger.state().oldest);
        let entry = ledger.entry(&by, Body::Fence { floor, oldest })?;
        match ledger.propose(&entry).await? {
            Proposal::Committed => return Ok(floor),
            Proposal::Lost(_) => drop(ledger.refresh().await?),
            Proposal::Void(void) => return Err(Error::Internal(format!("the fence is void: {void}"))),
        }
    }
}

async fn sweep(store: &Store, listed: impl Iterator<Item = Listed>, floor: u64, state: &State) -> Result<()> {
    for object in listed {
        let live = state.files()?.contains_key(&object.name)
            || state.runs.contains_key(&object.name)
            || state.quarantine()?.contains_key(&object.name);
        if !live && StagedName::parse(&object.name).is_some_and(|name| name.stage < floor) {
            store.delete(&object.name).await?;
        }
    }
    Ok(())
}

async fn newest_checkpoint(store: &Store, listed: &[Listed]) -> Result<Option<State>> {
    let newest = listed.iter().rfind(|object| checkpoint::version_of(&object.name).is_some());
    let Some(newest) = newest else { return Ok(None) };
    let bytes = store.get(&newest.name).await?.unwrap_or_default();
    let mut state = checkpoint::decode(&newest.name, &bytes)?;
    let mut parts = HashMap::new();
    for part in checkpoint::parts_of(&state) {
        parts.extend(store.get(part).await?.map(|bytes| (part.to_owned(), bytes)));
    }
    checkpoint::take_parts(&mut state, |part| parts.get(part).cloned())?;
    Ok(Some(state))
}

/// What a reader takes for the table as of now; of no version, if there is none.
pub async fn state_for_reading(scene: &Scene, store: Store) -> Result<State> {
    let ledger = match scene.bug {
        Bug::HintAsTruth => {
            let listed = store.list(name::LEDGER).await?;
            let newest = listed.iter().filter_map(|object| name::manifest_version(&object.name)).max();
            match newest {
                Some(newest) => Ledger::open_at(store, newest).await?,
                None => None,
            }
        }
        Bug::DamageBelieved => return fold_unchecked(&store).await,
        _ => actors::opened(scene, store).await?,
    };
    let Some(mut ledger) = ledger else { return Ok(State::default()) };
    ledger.read_files().await?;
    Ok(ledger.state().clone())
}

/// Folds whatever can be read as an entry.
async fn fold_unchecked(store: &Store) -> Result<State> {
    let mut state = State::default();
    loop {
        let object = name::manifest(state.entries);
        let Some(bytes) = store.get(&object).await? else { return Ok(state) };
        let entry: Entry = serde_json::from_slice(&bytes).map_err(|e| Error::corrupt(&object, e))?;
        let _ = state.apply(&entry, Entry::hash(&bytes));
    }
}

/// A file that a reader misses is an expired snapshot, unless it is live.
pub async fn is_live(store: Store, file: &str) -> Result<bool> {
    let ledger = Ledger::open(store).await?;
    let mut ledger = ledger.ok_or_else(|| Error::Internal("the table is gone".into()))?;
    ledger.read_files().await?;
    Ok(ledger.state().files()?.contains_key(file))
}
