//! The ledger entry by entry: what is damaged and how, and what that means.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::Diagnosis;
use crate::error::{Error, Result};
use crate::ledger::entry::{Body, MAX_MANIFEST};
use crate::ledger::log::beneath::read_whole;
use crate::ledger::log::read::get_sealed;
use crate::ledger::state::{Applied, Void};
use crate::ledger::{Entry, State, TableIdentity, checkpoint, name};
use crate::store::{Listed, Store};

/// How many manifests are fetched at a time, and how large all but the first of them may be, in bytes.
const FETCH_AHEAD: u64 = 16;
const MAX_AHEAD: u64 = 4 << 20;

/// The ledger as far as it can be replayed.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub(super) state: State,
    pub(super) void: u64,
    pub(super) checkpoints: u64,
    /// Whether every entry could be applied.
    pub(super) whole: bool,
}

/// What stands under a version's name.
enum Stands {
    Nothing,
    Entry(Box<Entry>, u128),
    /// A newer program wrote it.
    Newer(String),
    /// How it is damaged.
    Damaged(String),
    /// It is to be read alone: it is larger than may be read with others, or did not arrive whole.
    Apart,
}

/// Replays every entry by name, whatever a listing says, and compares the checkpoints on the way.
pub(super) async fn replay(
    store: &Store,
    identity: Option<&TableIdentity>,
    home: &[Listed],
    diagnosis: &mut Diagnosis,
) -> Result<Replay> {
    let versions: BTreeSet<u64> =
        home.iter().filter_map(|object| name::manifest_version(&object.name)).collect();
    let mut checkpoints = by_version(home, diagnosis);
    let mut replay = Replay { whole: true, ..Replay::default() };
    // The damaged entry that stopped the replay, if one did, and the hash of the bytes before the next.
    let mut damaged: Option<(u64, String)> = None;
    let mut before: Option<u128> = Some(0);
    let mut next = 0;
    'walk: loop {
        let most = |version| if version == next { MAX_MANIFEST } else { MAX_AHEAD };
        let stands: Vec<Stands> = stream::iter(next..next + FETCH_AHEAD)
            .map(|version| stands(store, version, most(version)))
            .buffered(FETCH_AHEAD as usize)
            .try_collect()
            .await?;
        for stands in stands {
            let version = next;
            next += 1;
            match stands {
                Stands::Apart => {
                    next = version;
                    continue 'walk;
                }
                Stands::Nothing => {
                    let Some(later) = versions.range(version..).next() else { break 'walk };
                    tell(store, damaged.take(), None, diagnosis);
                    (replay.whole, before) = (false, None);
                    if *later == version {
                        diagnosis.problem(
                            format!("version {version} is listed, and cannot be read"),
                            "ask again; if it stays so, reads and listings of this store contradict each other",
                        );
                        continue;
                    }
                    diagnosis.problem(
                        format!("version {version} is absent, but version {later} exists: a manifest was lost"),
                        "restore it from a backup or the bucket's versioning; until then readers see the table as of \
                         the version before, and the next writer would fill the gap with an entry of its own. Let \
                         nobody write meanwhile",
                    );
                    // What lies behind can only be looked at one by one.
                    next = *later;
                    continue 'walk;
                }
                Stands::Entry(entry, hash) => {
                    tell(store, damaged.take(), Some(entry.prev), diagnosis);
                    if replay.whole {
                        apply(store, identity, &mut replay, &entry, hash, diagnosis);
                        compare(store, &mut checkpoints, version, &mut replay, diagnosis).await?;
                    } else if entry.version != version || before.is_some_and(|before| before != entry.prev) {
                        diagnosis.problem(
                            format!("version {version} does not follow the one before it"),
                            "an entry was changed or replaced after it was written: restore both from a backup",
                        );
                    }
                    before = Some(hash);
                }
                Stands::Newer(why) => {
                    tell(store, damaged.take(), None, diagnosis);
                    diagnosis.problem(why, "a newer version of dedupe wrote it: use that one");
                    (replay.whole, before) = (false, None);
                }
                Stands::Damaged(how) => {
                    tell(store, damaged.replace((version, how)), None, diagnosis);
                    // That the entry behind it does not follow these bytes is no news.
                    (replay.whole, before) = (false, None);
                }
            }
        }
    }
    tell(store, damaged, None, diagnosis);
    for (version, objects) in checkpoints {
        for object in objects {
            if replay.whole {
                diagnosis.problem(
                    format!("{}: there is no version {version}", store.location_of(&object)),
                    "it belongs to another ledger: delete it. Nothing depends on checkpoints",
                );
            } else {
                diagnosis.notes.push(format!("{object} was not compared: the ledger is damaged before it"));
            }
        }
    }
    Ok(replay)
}

async fn stands(store: &Store, version: u64, most: u64) -> Result<Stands> {
    let object = name::manifest(version);
    let bytes = match get_sealed(store, &object, most).await {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Ok(Stands::Nothing),
        Err(Error::Corrupt { .. }) if most < MAX_MANIFEST => return Ok(Stands::Apart),
        Err(Error::Corrupt { reason, .. }) => return Ok(Stands::Damaged(reason)),
        Err(error) => return Err(error),
    };
    let hash = Entry::hash(&bytes);
    Ok(match Entry::decode(&object, &bytes) {
        Ok(entry) => Stands::Entry(Box::new(entry), hash),
        Err(Error::Refused(why)) => Stands::Newer(why),
        Err(error) => Stands::Damaged(damage(&bytes, &error)),
    })
}

/// What kind of damage this is.
fn damage(bytes: &Bytes, error: &Error) -> String {
    let reason = match error {
        Error::Corrupt { reason, .. } => reason.clone(),
        other => other.to_string(),
    };
    let length = bytes.len();
    if bytes.is_empty() {
        return "it is empty".into();
    }
    if bytes.iter().all(|byte| *byte == 0) {
        return format!(
            "it holds {length} zero bytes, as a disk leaves them that lost power before it had written"
        );
    }
    match serde_json::from_slice::<serde::de::IgnoredAny>(bytes) {
        Err(e) if e.is_eof() => format!("it is torn: its {length} bytes end in the middle of the entry"),
        Err(_) => format!("its {length} bytes are no entry ({reason})"),
        Ok(_) => format!("it is no whole entry of a ledger ({reason})"),
    }
}

/// Tells of a damaged entry. `wanted`: what the entry behind it says its bytes' hash must be.
fn tell(store: &Store, damaged: Option<(u64, String)>, wanted: Option<u128>, diagnosis: &mut Diagnosis) {
    let Some((version, how)) = damaged else { return };
    let readable = match version.checked_sub(1) {
        Some(before) => format!("what was committed before it can be read with --version {before}"),
        None => "nothing can be read without it".into(),
    };
    let mend = match wanted {
        Some(hash) => format!(
            "The entry behind it says that the right bytes have the XXH3-128 hash {hash:032x}: restore the object \
             that has it from a backup or the bucket's versioning"
        ),
        None => "Restore it from a backup or the bucket's versioning. Only if there is no other copy, and it is the \
                 newest version: keep a copy of it elsewhere, move it out of the ledger, and ingest again what its \
                 writer had brought; if that writer was told that it was committed, this gives the commit up"
            .into(),
    };
    diagnosis.problem(
        format!("{}: {how}", store.location_of(&name::manifest(version))),
        format!("nobody reads, writes or overwrites past it, and dedupe never will; {readable}. {mend}"),
    );
}

fn apply(
    store: &Store,
    identity: Option<&TableIdentity>,
    replay: &mut Replay,
    entry: &Entry,
    hash: u128,
    diagnosis: &mut Diagnosis,
) {
    let version = replay.state.entries;
    if let (true, Body::Create(create), Some(identity)) =
        (replay.state.table.is_empty(), &entry.body, identity)
        && create.table != identity.table
    {
        diagnosis.problem(
            format!(
                "{} belongs to table {}, {} to {}",
                store.location_of(&name::manifest(version)),
                create.table,
                name::TABLE,
                identity.table
            ),
            "two tables were mixed up in one folder: restore the one or the other whole",
        );
    }
    match replay.state.apply(entry, hash) {
        Applied::Valid => {}
        Applied::Void(void @ Void::Misplaced { .. }) => {
            replay.void += 1;
            diagnosis.problem(
                format!("version {version} is void: {void}"),
                "no writer makes an entry for a place it does not fit: this one, or the one before it, was changed or \
                 replaced after it was written. Restore both from a backup",
            );
        }
        Applied::Void(void) => {
            replay.void += 1;
            diagnosis.notes.push(format!(
                "version {version} ({} by {}) is void, without effect: {void}",
                entry.kind(),
                entry.writer
            ));
        }
    }
}

/// The checkpoints by the version that they stand for.
fn by_version(home: &[Listed], diagnosis: &mut Diagnosis) -> BTreeMap<u64, Vec<String>> {
    let mut checkpoints: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let folder = format!("{}/", name::CHECKPOINTS);
    for object in home.iter().filter(|object| object.name.starts_with(&folder)) {
        match checkpoint::version_of(&object.name) {
            Some(version) => checkpoints.entry(version).or_default().push(object.name.clone()),
            None => {
                diagnosis.notes.push(format!("{} has no checkpoint's name and is passed over", object.name))
            }
        }
    }
    checkpoints
}

/// Compares the checkpoints of `version` with what the entries up to it add up to.
async fn compare(
    store: &Store,
    checkpoints: &mut BTreeMap<u64, Vec<String>>,
    version: u64,
    replay: &mut Replay,
    diagnosis: &mut Diagnosis,
) -> Result<()> {
    for object in checkpoints.remove(&version).unwrap_or_default() {
        let state = match store.get_limited(&object, MAX_MANIFEST).await {
            Ok(Some(bytes)) => match checkpoint::decode(&object, &bytes) {
                Ok(mut state) => read_whole(store, &mut state).await.map(|()| state),
                Err(error) => Err(error),
            },
            Ok(None) => continue,
            Err(error @ Error::Corrupt { .. }) => Err(error),
            Err(error) => return Err(error),
        };
        replay.checkpoints += 1;
        let what = match state {
            Ok(state) if state == replay.state => continue,
            Ok(_) => format!("{} contradicts the ledger", store.location_of(&object)),
            Err(error) => error.to_string(),
        };
        diagnosis.problem(what, "delete it: the ledger is the truth, and another checkpoint is made in time");
    }
    Ok(())
}
