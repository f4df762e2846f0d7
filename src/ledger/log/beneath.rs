//! The parts of checkpoints on a store: looked up, read, written.
//!
//! Nothing depends on them. Where one is absent or damaged the ledger is folded anew, from an older checkpoint or from its
//! beginning, and asked again.

use std::collections::BTreeSet;
use std::ops::Range;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};
use tracing::warn;

use super::Ledger;
use super::read::newest_checkpoint;
use crate::error::{Error, Result};
use crate::ledger::checkpoint::index::{Directory, extent};
use crate::ledger::checkpoint::lists::Lists;
use crate::ledger::checkpoint::{Draft, Written};
use crate::ledger::entry::{Entry, MAX_MANIFEST};
use crate::ledger::name;
use crate::ledger::state::{Asks, BatchSeen, Key, Part, Seen, SourceSeen, State};
use crate::store::{Put, Store};

/// Parts that are read at the same time.
const AT_ONCE: usize = 16;

/// Index parts up to this size are read whole: one request instead of two.
const SMALL: u64 = 64 << 10;

/// Blocks that so few others lie between are read together.
const GAP: u64 = 16;

/// The most bytes of a part that are held at a time.
const PIECE: u64 = 4 << 20;

impl Ledger {
    /// Reads which data and quarantine files there are, if that lies in parts of a checkpoint still:
    /// [`State::files`](crate::ledger::State::files) and [`State::quarantine`](crate::ledger::State::quarantine) need it.
    pub async fn read_files(&mut self) -> Result<()> {
        self.settle(|state, asks| asks.lists |= state.beneath().lists.unread).await
    }

    /// Reads all that lies in parts of a checkpoint still.
    pub async fn read_all(&mut self) -> Result<()> {
        loop {
            match read_whole(&self.store, &mut self.state).await {
                Ok(()) => return Ok(()),
                Err(error) => self.fold_anew(&error).await?,
            }
        }
    }

    /// Looks up sources by their identity and batches by their id, so that [`State::source`](crate::ledger::State::source)
    /// and [`State::batch`](crate::ledger::State::batch) can answer.
    pub async fn look_up(&mut self, sources: &[u128], batches: &[&str]) -> Result<()> {
        self.settle(|state, asks| {
            state.ask_keys(sources.iter().map(|id| Key::source(*id)), asks);
            state.ask_keys(batches.iter().map(|id| Key::batch(id)), asks);
        })
        .await
    }

    /// What is known of the source with this identity.
    pub async fn source(&mut self, id: u128) -> Result<Option<SourceSeen>> {
        self.look_up(&[id], &[]).await?;
        self.state.source(id)
    }

    /// What is known of the batch with this id.
    pub async fn batch(&mut self, id: &str) -> Result<Option<BatchSeen>> {
        self.look_up(&[], &[id]).await?;
        self.state.batch(id)
    }

    /// Reads what must be known before these entries can be judged.
    pub(super) async fn prepare_for<'a>(
        &mut self,
        entries: impl IntoIterator<Item = &'a Entry> + Clone,
    ) -> Result<()> {
        self.settle(|state, asks| entries.clone().into_iter().for_each(|entry| state.ask(entry, asks))).await
    }

    /// Reads what `ask` adds of a state. One that had to be folded anew is asked again, and reads besides whatever the one before
    /// had read: nobody is to find unread what was read a moment ago.
    async fn settle(&mut self, ask: impl Fn(&State, &mut Asks)) -> Result<()> {
        let mut asks = Asks::default();
        loop {
            ask(&self.state, &mut asks);
            if asks.is_empty() {
                return Ok(());
            }
            let Err(error) = answer(&self.store, &mut self.state, &asks).await else { return Ok(()) };
            self.state.ask_again(&mut asks);
            self.fold_anew(&error).await?;
        }
    }

    /// Folds the ledger to the same version from an older checkpoint than before, and in the end without any.
    fn fold_anew<'a>(&'a mut self, error: &'a Error) -> BoxFuture<'a, Result<()>> {
        warn!("a part of a checkpoint is passed over, and the ledger folded from an older one: {error}");
        Box::pin(async move {
            let beneath = self.state.beneath().index.entries.max(self.state.beneath().lists.entries);
            let state = match beneath.checked_sub(2) {
                Some(older) => newest_checkpoint(&self.store, &self.identity, older).await?,
                None => None,
            };
            let mut anew = Self { state: state.unwrap_or_default(), ..self.before_the_first() };
            // Each time from an older one, so it comes to an end.
            anew.advance(self.state.entries, |_, _, _| ()).await?;
            if (anew.state.entries, anew.state.tip) != (self.state.entries, self.state.tip) {
                let reason = "the ledger does not add up to what it did a moment ago";
                return Err(Error::corrupt(name::manifest(anew.state.entries), reason));
            }
            self.state = anew.state;
            Ok(())
        })
    }

    /// Writes a checkpoint of this version. An error leaves nothing that any reader would use.
    pub async fn write_checkpoint(&mut self) -> Result<()> {
        let draft = Draft::of(&self.state);
        let mut index = Vec::new();
        for part in &draft.old_index {
            index.push(read_index(&self.store, part).await?);
        }
        let lists = read_lists(&self.store, draft.old_lists.clone()).await?;
        let Written { mut beneath, objects } = draft.write(index, lists)?;
        for (object, bytes) in objects {
            match self.store.put_once(&object, bytes).await {
                Put::Landed | Put::Taken => {}
                Put::Failed(e) | Put::Unknown(e) => return Err(e),
            }
        }
        // What was read of the older parts, or held from the beginning, stays so.
        beneath.keep_read(self.state.beneath());
        *self.state.beneath_mut() = beneath;
        Ok(())
    }
}

/// Reads all that lies beneath `state`.
pub(crate) async fn read_whole(store: &Store, state: &mut State) -> Result<()> {
    if state.beneath().lists.unread {
        answer(store, state, &Asks { lists: true, ..Asks::default() }).await?;
    }
    if state.beneath().index.unread {
        let mut records = Vec::new();
        for part in &state.beneath().index.parts {
            records.extend(read_index(store, part).await?);
        }
        state.take_index(records);
    }
    Ok(())
}

/// Reads what is asked for.
async fn answer(store: &Store, state: &mut State, asks: &Asks) -> Result<()> {
    if asks.lists && state.beneath().lists.unread {
        let parts = state.beneath().lists.parts.clone();
        let (mut files, mut quarantine) = (Vec::new(), Vec::new());
        for lists in read_lists(store, parts).await? {
            files.extend(lists.files);
            quarantine.extend(lists.quarantine);
        }
        state.take_lists(files, quarantine);
    }
    if !asks.keys.is_empty() && state.beneath().index.unread {
        let parts = state.beneath().index.parts.clone();
        let found =
            stream::iter(parts.into_iter().map(|part| search(store.clone(), part, asks.keys.clone())))
                .buffered(AT_ONCE)
                .try_concat()
                .await?;
        state.answer(&asks.keys, &found);
    }
    Ok(())
}

async fn read_lists(store: &Store, parts: Vec<Part>) -> Result<Vec<Lists>> {
    let read = |part: Part| {
        let store = store.clone();
        async move {
            let bytes = store.get_limited(&part.name, MAX_MANIFEST).await?;
            Lists::decode(&part, &bytes.ok_or_else(|| absent(&part))?)
        }
    };
    stream::iter(parts.into_iter().map(read)).buffered(AT_ONCE).try_collect().await
}

fn absent(part: &Part) -> Error {
    Error::corrupt(&part.name, "it is absent")
}

/// All records of an index part.
async fn read_index(store: &Store, part: &Part) -> Result<Vec<(u128, Seen)>> {
    let directory = Directory::decode(part, &store.get_range(&part.name, 0..extent(part)?.0).await?)?;
    let all = directory.blocks();
    let mut records = Vec::new();
    let mut from = all.start;
    while from < all.end {
        let width = directory.bytes_of(from..from + 1);
        let blocks = from..all.end.min(from + (PIECE / (width.end - width.start).max(1)).max(1));
        from = blocks.end;
        let bytes = store.get_range(&part.name, directory.bytes_of(blocks.clone())).await?;
        records.extend(blocks_of(&directory, blocks, &bytes, None)?);
    }
    Ok(records)
}

/// The records of an index part that have one of `keys`.
async fn search(store: Store, part: Part, keys: BTreeSet<u128>) -> Result<Vec<(u128, Seen)>> {
    let (head, size) = extent(&part)?;
    let whole = size <= SMALL;
    let read = store.get_range(&part.name, 0..if whole { size } else { head }).await?;
    let split = usize::try_from(head).unwrap_or(usize::MAX).min(read.len());
    let directory = Directory::decode(&part, &read.slice(..split))?;
    let mut blocks: BTreeSet<u64> = BTreeSet::new();
    keys.iter().for_each(|key| blocks.extend(directory.blocks_of(*key)));
    if whole {
        return blocks_of(&directory, directory.blocks(), &read.slice(split..), Some((&blocks, &keys)));
    }
    let mut found = Vec::new();
    let ranges = together(&blocks);
    let bytes: Vec<Range<u64>> = ranges.iter().map(|blocks| directory.bytes_of(blocks.clone())).collect();
    for (range, bytes) in ranges.into_iter().zip(store.get_ranges(&part.name, &bytes).await?) {
        found.extend(blocks_of(&directory, range, &bytes, Some((&blocks, &keys)))?);
    }
    Ok(found)
}

/// Ascending blocks in ranges, those together that lie close to each other.
fn together(blocks: &BTreeSet<u64>) -> Vec<Range<u64>> {
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match ranges.last_mut() {
            Some(last) if block - last.end <= GAP && block - last.start < PIECE / 5120 => {
                last.end = block + 1
            }
            _ => ranges.push(*block..block + 1),
        }
    }
    ranges
}

/// The records in `bytes`, which are those of `blocks`; or of some of these blocks only, those with certain keys.
fn blocks_of(
    directory: &Directory,
    blocks: Range<u64>,
    bytes: &[u8],
    only: Option<(&BTreeSet<u64>, &BTreeSet<u128>)>,
) -> Result<Vec<(u128, Seen)>> {
    let base = directory.bytes_of(blocks.clone()).start;
    let mut records = Vec::new();
    for block in blocks.filter(|block| only.is_none_or(|(wanted, _)| wanted.contains(block))) {
        let range = directory.bytes_of(block..block + 1);
        let at = |offset: u64| usize::try_from(offset - base).unwrap_or(usize::MAX);
        let bytes = bytes.get(at(range.start)..at(range.end)).unwrap_or_default();
        let found = directory.records(block, bytes)?;
        records.extend(found.into_iter().filter(|(key, _)| only.is_none_or(|(_, keys)| keys.contains(key))));
    }
    Ok(records)
}
