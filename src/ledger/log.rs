//! The ledger on a store: reading entries in order, and the only compare-and-swap, [`Ledger::propose`].
//!
//! The rules it keeps (numbers as in `docs/protocol.md`):
//! - **R1** an entry for a version is judged against exactly the entries before it;
//! - **R2** a version is resolved only when somebody occupies it; until then only the same bytes are sent there;
//! - **R3** no path to a new version skips any check;
//! - **R4** nothing is deleted, whatever the doubt;
//! - **R5** "committed" is said only when the store accepted our bytes or our bytes were read back.

pub(crate) mod beneath;
pub(crate) mod read;
mod snapshot;

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, StreamExt};
use tracing::{debug, warn};

use super::entry::{Body, Create, Entry, FORMAT, MAX_MANIFEST};
use super::state::{Applied, State, Void};
use super::table::TableIdentity;
use super::{checkpoint, name};
use crate::error::{Error, Result};
use crate::policy::Policy;
use crate::store::{Put, Store};
use crate::{clock, random};
use read::{get_sealed, newest_checkpoint, read_entry, read_identity};

#[cfg(test)]
mod http_faults;
#[cfg(test)]
mod tests;

/// How many manifests are fetched at a time while a ledger is replayed.
const FETCH_AHEAD: usize = 16;

/// So often the same damage must be read in a row before a commit gives up on it.
const DAMAGED_READS: u32 = 8;

/// The largest manifest that is fetched together with others, in bytes.
const MAX_AHEAD: u64 = 4 << 20;

/// `table.json` is small; anything larger is not one.
pub(crate) const MAX_TABLE: u64 = 1 << 20;

/// How long a writer asks for an answer that was lost before it reports that it is unknown.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often the put and its read-back are tried at most.
    pub attempts: u32,
    /// After this long no further try is begun.
    pub total: Duration,
    /// The longest pause after the first try; doubled with each further one.
    pub first_pause: Duration,
    /// The longest pause of all.
    pub longest_pause: Duration,
}

impl Default for Patience {
    /// Two minutes in all.
    fn default() -> Self {
        Self {
            attempts: 200,
            total: Duration::from_secs(120),
            first_pause: Duration::from_millis(20),
            longest_pause: Duration::from_secs(4),
        }
    }
}

/// Who proposes: goes into every entry.
#[derive(Debug, Clone)]
pub struct Proposer {
    /// The session: 32 hexadecimal digits.
    pub session: String,
    /// Host and process, for people.
    pub writer: String,
}

impl Proposer {
    /// A new session of this process.
    pub fn new() -> Result<Self> {
        if random::is_driven() {
            return Ok(Self { session: random::identity()?, writer: "simulated".into() });
        }
        let host =
            std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned());
        let host = host.or_else(|| std::env::var("HOSTNAME").ok()).filter(|name| !name.is_empty());
        let host = host.unwrap_or_else(|| "unknown".into());
        Ok(Self { session: random::identity()?, writer: format!("{host}:{}", std::process::id()) })
    }
}

/// How a proposal ended. (A lost answer that cannot be read back is [`Error::Unknown`].)
#[derive(Debug)]
#[must_use]
pub enum Proposal {
    /// The entry stands in the ledger and is valid.
    Committed,
    /// Somebody else's entry stands in that version; it was applied. Judge against it and propose again. `None` if
    /// theirs is void: there is nothing to judge against.
    Lost(Option<Box<Entry>>),
    /// The entry breaks a rule and was not sent.
    Void(Void),
}

/// A table's ledger, replayed to a version.
#[derive(Debug, Clone)]
pub struct Ledger {
    store: Store,
    identity: TableIdentity,
    state: State,
    patience: Patience,
}

impl Ledger {
    /// Opens the ledger of the table in `store` and replays it to its tip; `None` if there is no table, or one whose
    /// creator died before its first entry: [`Ledger::create`] completes it.
    pub async fn open(store: Store) -> Result<Option<Self>> {
        let Some(identity) = read_identity(&store).await? else {
            return Ok(None);
        };
        let store = store_of(&identity, store);
        let state = newest_checkpoint(&store, &identity, u64::MAX).await?.unwrap_or_default();
        let mut ledger = Self { store, identity, state, patience: Patience::default() };
        ledger.catch_up().await?;
        Ok((!ledger.state.table.is_empty()).then_some(ledger))
    }

    /// Creates a table: writes `table.json` and version 0. If another writer creates it at the same moment, theirs
    /// stands and is opened; the caller compares what it wanted with [`Ledger::identity`].
    pub async fn create(
        store: Store,
        identity: TableIdentity,
        policy: Policy,
        by: &Proposer,
    ) -> Result<Self> {
        let wanted = Bytes::from(identity.encode()?);
        let mut store = store_of(&identity, store);
        // In this order: `table.json` is written before version 0, so where that stands, it must be.
        let first = read_entry(&store, 0, MAX_MANIFEST).await?;
        let (occupied, begun) = (first.is_some(), first.is_some_and(|(entry, _)| entry.kind() == "create"));
        if begun && store.head(name::TABLE).await?.is_none() {
            return Err(Error::corrupt(
                name::TABLE,
                "it is absent, but the ledger exists: it was lost, and with it the key that makes tokens. Restore it",
            ));
        }
        // A put whose answer was lost is decided by what can be read; the name is free until then.
        let mut tries = 0;
        let standing = loop {
            let put = store.put_once(name::TABLE, wanted.clone()).await;
            if matches!(put, Put::Landed) {
                break None;
            }
            match (put, get_sealed(&store, name::TABLE, MAX_TABLE).await) {
                (_, Ok(Some(bytes))) => break Some(bytes),
                (_, Ok(None)) if tries < 10 => tries += 1,
                (Put::Failed(e) | Put::Unknown(e), _) | (_, Err(e)) => return Err(e),
                (_, Ok(None)) => {
                    return Err(Error::Refused(format!(
                        "{} says that {} exists and that it does not: this store cannot hold a table",
                        store.location_of(""),
                        name::TABLE
                    )));
                }
            }
        };
        let fresh = standing.is_none() && !occupied;
        let identity = match standing {
            Some(bytes) => TableIdentity::decode(name::TABLE, &bytes)?,
            None => identity,
        };
        store = store_of(&identity, store);
        let state = State::default();
        let mut ledger = Self { store, identity, state, patience: Patience::default() };
        // Where nothing stood and the table is ours, hardly anybody was faster; who was, is met at version 0.
        if !fresh {
            ledger.catch_up().await?;
        }
        // Void entries may stand before the creation; another creator's is as good as ours.
        while ledger.state.table.is_empty() {
            let create = Create { table: ledger.identity.table.clone(), policy: policy.clone() };
            let entry = ledger.entry(by, Body::Create(create))?;
            match ledger.propose(&entry).await? {
                Proposal::Committed => {}
                Proposal::Lost(_) => ledger.catch_up().await?,
                Proposal::Void(void) => {
                    return Err(Error::Internal(format!("the table's first entry is void: {void}")));
                }
            }
        }
        Ok(ledger)
    }

    /// The table's identity.
    pub fn identity(&self) -> &TableIdentity {
        &self.identity
    }

    /// What all entries up to the tip add up to.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The version of the tip.
    pub fn version(&self) -> u64 {
        self.state.entries.saturating_sub(1)
    }

    /// The store the table lies in.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Replaces how long lost answers are asked for.
    pub fn set_patience(&mut self, patience: Patience) {
        self.patience = patience;
    }

    /// Applies all entries that were added since. Returns those that are valid.
    pub async fn refresh(&mut self) -> Result<Vec<Entry>> {
        let mut news = Vec::new();
        self.refresh_into(&mut news).await?;
        Ok(news)
    }

    /// As [`Self::refresh`], for those who can do without the rest: `news` gets what was applied, also if it ends with
    /// an error.
    pub(crate) async fn refresh_into(&mut self, news: &mut Vec<Entry>) -> Result<()> {
        self.advance(u64::MAX, |_, entry, applied| match applied {
            Applied::Valid => news.push(entry),
            Applied::Void(void) => tell_of_void(&entry, &void),
        })
        .await
    }

    /// As [`Self::refresh`], for those who do not ask what the entries were: a whole ledger may be a lot to hold.
    async fn catch_up(&mut self) -> Result<()> {
        self.advance(u64::MAX, |_, entry, applied| {
            if let Applied::Void(void) = applied {
                tell_of_void(&entry, &void);
            }
        })
        .await
    }

    /// Applies all entries that were added since, up to version `end`, that one not included, and shows `each` of them
    /// with the state after it.
    pub(crate) async fn advance(&mut self, end: u64, each: impl FnMut(&State, Entry, Applied)) -> Result<()> {
        let known = self.state.entries;
        let read = self.read_on(end, each).await;
        // What is said or done because of them must not outlive them, and some may be known although others could not be read.
        if self.state.entries > known {
            self.store.settle(name::LEDGER).await?;
        }
        read
    }

    async fn read_on(&mut self, end: u64, mut each: impl FnMut(&State, Entry, Applied)) -> Result<()> {
        // Mostly there is nothing new, so the first step looks at one version only.
        let mut ahead = 1;
        'all: while self.state.entries < end {
            let first = self.state.entries;
            let store = &self.store;
            // Only the first may be large: a manifest that cannot be read with others is read alone, as the first of
            // the next step, which also tells what is wrong with it if anything is.
            let most = |version| if version == first { MAX_MANIFEST } else { MAX_AHEAD };
            let versions = first..end.min(first.saturating_add(ahead));
            let fetched: Vec<Result<Option<(Entry, u128)>>> = stream::iter(versions)
                .map(|version| read_entry(store, version, most(version)))
                .buffered(FETCH_AHEAD)
                .collect()
                .await;
            let read = fetched.iter().filter_map(|found| found.as_ref().ok()?.as_ref());
            self.prepare_for(read.map(|(entry, _)| entry)).await?;
            for found in fetched {
                if self.state.entries > first && found.is_err() {
                    break;
                }
                // The first absent version is the tip: the ledger is contiguous.
                let Some((entry, hash)) = found? else { break 'all };
                let applied = admit(&self.identity, &mut self.state, &entry, hash)?;
                each(&self.state, entry, applied);
            }
            ahead = (ahead * 4).min(FETCH_AHEAD as u64);
        }
        Ok(())
    }

    /// The entry of `version`, if there is one.
    pub async fn read(&self, version: u64) -> Result<Option<Entry>> {
        Ok(read_entry(&self.store, version, MAX_MANIFEST).await?.map(|(entry, _)| entry))
    }

    /// An entry that would stand in the next version.
    pub fn entry(&self, by: &Proposer, body: Body) -> Result<Entry> {
        Ok(Entry {
            format: FORMAT,
            version: self.state.entries,
            id: random::bits128()?,
            prev: self.state.tip,
            time: clock::now_text(),
            session: by.session.clone(),
            writer: by.writer.clone(),
            body,
        })
    }

    /// Proposes `entry` for the next version and stays until it is known what stands there.
    pub async fn propose(&mut self, entry: &Entry) -> Result<Proposal> {
        Ok(self.propose_ahead(entry, 0).await?.0)
    }

    /// As [`Self::propose`], for those who are in a race: with the entry that won, those that stand after it are read,
    /// `ahead` of them at the same time and all others after that, and applied. Gives those that are valid.
    pub(crate) async fn propose_ahead(
        &mut self,
        entry: &Entry,
        ahead: u64,
    ) -> Result<(Proposal, Vec<Entry>)> {
        self.prepare_for([entry]).await?;
        if let Err(void) = self.state.check(entry) {
            return Ok((Proposal::Void(void), Vec::new()));
        }
        let bytes = Bytes::from(entry.encode()?);
        let object = name::manifest(entry.version);
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::Refused(format!(
                "the manifest of this commit would have {} bytes, more than any reader takes: ingest fewer sources, \
                 or into fewer partitions, at a time. Nothing was committed",
                bytes.len()
            )));
        }
        // What no reader can read must never stand in a ledger: it would close the table for good.
        if let Err(error) = Entry::decode(&object, &bytes) {
            return Err(Error::Refused(format!(
                "the manifest of this commit could not be read back ({error}); nothing was committed"
            )));
        }
        let mut pause = self.patience.first_pause;
        // Whether every put was told plainly that the name is taken, and how often the same damage was read there.
        let (mut plainly_taken, mut damaged) = (true, (Bytes::new(), 0));
        let mut trouble = String::from("the store says that it exists, and that it does not");
        // Whether some attempt may have landed, or may land yet.
        let mut doubt = false;
        // The runtime's timer ends the asking, nothing else: no decision about what stands in the ledger uses it.
        let mut deadline = pin!(tokio::time::sleep(self.patience.total));
        for attempt in 0..self.patience.attempts {
            if attempt > 0 && futures::poll!(deadline.as_mut()).is_ready() {
                break;
            }
            if attempt > 0 {
                tokio::time::sleep(random::jitter(pause)?).await;
                pause = (pause * 2).min(self.patience.longest_pause);
            }
            match self.store.put_once(&object, bytes.clone()).await {
                Put::Landed => return Ok((self.stands(entry, &bytes).await?, Vec::new())),
                Put::Taken => {
                    debug!(version = entry.version, "taken: reading who it was");
                    doubt = true;
                }
                Put::Failed(e) if !doubt => return Err(e),
                Put::Failed(e) | Put::Unknown(e) => {
                    debug!(version = entry.version, error = %e, "no clear answer: reading what stands there");
                    doubt = true;
                    trouble = e.to_string();
                    plainly_taken = false;
                    if self.store.is_poisoned() {
                        break;
                    }
                }
            }
            let store = self.store.clone();
            let next =
                (1..=ahead).map(|ahead| read_entry(&store, entry.version.saturating_add(ahead), MAX_AHEAD));
            let (stands, next) = futures::join!(
                self.store.get_limited(&object, MAX_MANIFEST),
                futures::future::join_all(next)
            );
            match stands {
                Ok(Some(found)) if found == bytes => {
                    return Ok((self.stands(entry, &bytes).await?, Vec::new()));
                }
                Ok(Some(found)) => match Entry::decode(&object, &found) {
                    Ok(rival) => {
                        let valid = match self.admit(&rival, Entry::hash(&found)).await? {
                            Applied::Valid => Some(Box::new(rival)),
                            Applied::Void(void) => {
                                tell_of_void(&rival, &void);
                                None
                            }
                        };
                        let news = self.admit_next(next).await?;
                        return Ok((Proposal::Lost(valid), news));
                    }
                    Err(e) => {
                        // It may be a page that a proxy put there, and our commit may stand behind it.
                        damaged = if damaged.0 == found { (found, damaged.1 + 1) } else { (found, 1) };
                        if plainly_taken && damaged.1 == DAMAGED_READS {
                            return Err(e);
                        }
                        trouble = e.to_string();
                    }
                },
                // Nobody is there: the same version, the same bytes again.
                Ok(None) => {}
                Err(e) => trouble = e.to_string(),
            }
        }
        Err(Error::Unknown { version: entry.version, reason: trouble })
    }

    /// Applies what was read of the versions after the tip, as far as it goes without a gap, and if it went to the end
    /// whatever else there is.
    async fn admit_next(&mut self, next: Vec<Result<Option<(Entry, u128)>>>) -> Result<Vec<Entry>> {
        let mut news = Vec::new();
        let all = next.len();
        for (read, found) in next.into_iter().enumerate() {
            // Whatever could not be read is found with the next proposal.
            let Ok(Some((entry, hash))) = found else { break };
            match self.admit(&entry, hash).await? {
                Applied::Valid => news.push(entry),
                Applied::Void(void) => tell_of_void(&entry, &void),
            }
            if read + 1 == all {
                news.extend(self.refresh().await?);
            }
        }
        Ok(news)
    }

    /// Our bytes stand in the ledger. That alone is no commit: a void entry stands there too.
    async fn stands(&mut self, entry: &Entry, bytes: &[u8]) -> Result<Proposal> {
        if let Applied::Void(void) = self.admit(entry, Entry::hash(bytes)).await? {
            tell_of_void(entry, &void);
            return Ok(Proposal::Void(void));
        }
        self.leave_checkpoint().await;
        Ok(Proposal::Committed)
    }

    async fn admit(&mut self, entry: &Entry, hash: u128) -> Result<Applied> {
        self.prepare_for([entry]).await?;
        admit(&self.identity, &mut self.state, entry, hash)
    }

    /// Checkpoints save time, nothing depends on them: trouble is told and forgotten.
    async fn leave_checkpoint(&mut self) {
        let version = self.version();
        if version == 0 || !version.is_multiple_of(checkpoint::INTERVAL) {
            return;
        }
        if let Err(e) = self.write_checkpoint().await {
            warn!("checkpoint {version} could not be written: {e}");
        }
    }
}

/// Applies the next entry of the table `identity`.
fn admit(identity: &TableIdentity, state: &mut State, entry: &Entry, hash: u128) -> Result<Applied> {
    if state.table.is_empty()
        && let Body::Create(create) = &entry.body
        && create.table != identity.table
    {
        return Err(Error::corrupt(
            name::manifest(entry.version),
            format!("it belongs to table {}, {} to {}", create.table, name::TABLE, identity.table),
        ));
    }
    match state.apply(entry, hash) {
        Applied::Void(Void::Unread(what)) => {
            Err(Error::Internal(format!("{what} was not looked up before an entry was judged")))
        }
        applied => Ok(applied),
    }
}

fn tell_of_void(entry: &Entry, void: &Void) {
    warn!(version = entry.version, "void entry, without effect: {void}");
}

/// `store`, as the table writes to it.
fn store_of(identity: &TableIdentity, store: Store) -> Store {
    if identity.single_writer { store.alone() } else { store }
}
