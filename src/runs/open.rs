//! One run, opened: its directory in memory, and of its prefixes what was asked for and fits.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::{cached, summary};
use crate::error::{Error, Result};
use crate::index::lookup::{self, Candidate, Hit, Piece};
use crate::index::{Limits, RunMeta};
use crate::ledger::entry::RunRef;
use crate::store::{Store, compute};
use crate::token::Token;
use crate::verdict::Lookups;

/// Memory that may still be taken, in bytes, by all who have part in it.
#[derive(Debug)]
pub(crate) struct Budget(AtomicU64);

impl Budget {
    /// So many bytes.
    pub(crate) fn new(bytes: u64) -> Self {
        Self(AtomicU64::new(bytes))
    }

    /// How many are left.
    pub(crate) fn left(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes `bytes`, if there are that many.
    fn take(&self, bytes: u64) -> bool {
        let less = |left: u64| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A run that tokens can be looked up in, by several at a time.
#[derive(Debug)]
pub(crate) struct OpenRun {
    meta: Arc<RunMeta>,
    /// The checked prefixes of blocks that were asked for before, as far as memory goes.
    prefixes: OnceLock<Box<[OnceLock<Bytes>]>>,
    /// All its tokens: of a run that was just written, or that came whole.
    resident: Option<Vec<Token>>,
    /// What looking tokens up in it has taken so far.
    lookups: Mutex<Lookups>,
}

/// What one piece of a batch came to.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// What the run holds.
    pub(crate) hits: Vec<Hit>,
    /// Bytes of slices that were passed over for that.
    pub(crate) passed: u64,
    /// Prefixes that were fetched for that, checked.
    fetched: Vec<(u64, Bytes)>,
    pub(crate) lookups: Lookups,
}

impl Found {
    /// Lets go of prefixes that `left` bytes of memory have no room for.
    pub(crate) fn shrink(&mut self, left: &mut u64) {
        let bytes = self.fetched.iter().map(|(_, bytes)| bytes.len() as u64).sum();
        match left.checked_sub(bytes) {
            Some(rest) => *left = rest,
            None => self.fetched = Vec::new(),
        }
        self.hits = Vec::new();
    }
}

impl OpenRun {
    /// Opens the run that the ledger names, in one request.
    pub(crate) async fn open(store: &Store, run: &RunRef) -> Result<Self> {
        let absent = |e| match e {
            Error::Store { source, .. } => Error::store("read", &run.name, source),
            other => other,
        };
        let tail = RunMeta::tail(run.bytes, run.tokens.count);
        let named = run.clone();
        let sound = move |_: usize, tail: &[u8]| Self::of_tail(&named, tail).is_ok();
        let tail = cached::ranges(store, &run.name, vec![tail], sound).await.map_err(absent)?;
        Self::of_tail(run, tail.first().map_or(&[], |tail| tail))
    }

    /// All tokens of a run that is small enough to be read whole, in one request.
    pub(crate) async fn read_whole(store: &Store, run: &RunRef) -> Result<Vec<Token>> {
        let bytes = store.get_limited(&run.name, run.bytes).await?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(&run.name, "it is absent"))?;
        let open = Self::of_bytes(run, &bytes)?;
        let layout = open.meta.layout();
        let mut tokens = Vec::with_capacity(open.len() as usize);
        let part =
            |range: Range<u64>| bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
        for block in 0..layout.blocks() {
            let (prefixes, suffixes) = (part(layout.prefix_range(block)), part(layout.suffix_range(block)));
            open.meta.decode_block(block, prefixes, suffixes, &mut tokens)?;
        }
        Ok(tokens)
    }

    /// Opens the run that the ledger names, whose bytes are at hand.
    pub(crate) fn of_bytes(run: &RunRef, bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 != run.bytes {
            return Err(Error::corrupt(&run.name, format!("{} of {} bytes", bytes.len(), run.bytes)));
        }
        let tail = RunMeta::tail(run.bytes, run.tokens.count);
        Self::of_tail(run, bytes.get(tail.start as usize..).unwrap_or_default())
    }

    /// Opens the run that the ledger names, of which the end is at hand.
    pub(super) fn of_tail(run: &RunRef, tail: &[u8]) -> Result<Self> {
        let meta = RunMeta::parse(&run.name, run.bytes, tail)?;
        meta.expect(&summary(run)?)?;
        Ok(Self {
            meta: Arc::new(meta),
            prefixes: OnceLock::new(),
            resident: None,
            lookups: Mutex::default(),
        })
    }

    /// Keeps the run's own tokens at hand: what a session has just written, or has read whole.
    pub(crate) fn with_tokens(mut self, tokens: Vec<Token>) -> Self {
        self.resident = Some(tokens);
        self
    }

    /// Its directory.
    pub(crate) fn meta(&self) -> &Arc<RunMeta> {
        &self.meta
    }

    /// How many tokens it holds.
    pub(crate) fn len(&self) -> u64 {
        self.meta.summary().tokens.count
    }

    /// All its tokens, if they are at hand.
    pub(crate) fn resident(&self) -> Option<&[Token]> {
        self.resident.as_deref()
    }

    /// Its bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.meta.layout().bytes()
    }

    /// Bytes of its prefixes: what it takes to have them all at hand.
    pub(crate) fn prefix_bytes(&self) -> u64 {
        self.len() + self.len() / 2
    }

    /// The positions in ascending `tokens` that the run holds, ascending.
    pub(crate) async fn find(&self, store: &Store, tokens: &[Token], budget: &Budget) -> Result<Vec<u32>> {
        let pieces = self.plan(store, tokens);
        let mut found =
            stream::iter(pieces).map(|piece| self.search(store, tokens, piece)).buffered(at_once(store));
        let (mut kept, mut left, mut positions) = (Vec::new(), budget.left(), Vec::new());
        while let Some(mut piece) = found.try_next().await? {
            positions.extend(piece.hits.iter().map(|hit| hit.position));
            piece.shrink(&mut left);
            kept.push(piece);
        }
        drop(found);
        kept.into_iter().for_each(|piece| self.keep(piece, budget));
        if let Some(resident) = &self.resident {
            positions = lookup::common(tokens, resident);
        }
        Ok(positions)
    }

    /// The pieces in which ascending `tokens` are looked up; none if that takes no reading.
    pub(crate) fn plan(&self, store: &Store, tokens: &[Token]) -> Vec<Piece> {
        if self.resident.is_some() { Vec::new() } else { lookup::plan(&self.meta, tokens, &limits(store)) }
    }

    /// The places of `tokens` in the run.
    pub(crate) async fn hits(&self, store: &Store, tokens: &[Token]) -> Result<Vec<Hit>> {
        let mut hits = Vec::new();
        for piece in lookup::plan(&self.meta, tokens, &limits(store)) {
            hits.extend(self.search(store, tokens, piece).await?.hits);
        }
        Ok(hits)
    }

    /// Looks up one piece of a batch.
    pub(crate) async fn search(&self, store: &Store, tokens: &[Token], piece: Piece) -> Result<Found> {
        let (meta, name, limits) = (&self.meta, self.meta.object(), limits(store));
        let fetches = lookup::prefixes(meta, &piece, &limits, |block| self.at_hand(block).is_some());
        let layout = meta.layout();
        let together = |blocks: &Range<u64>| {
            layout.prefix_range(blocks.start).start..layout.prefix_range(blocks.end.saturating_sub(1)).end
        };
        let came = cached::ranges(store, name, fetches.iter().map(together).collect(), {
            let (meta, fetches) = (Arc::clone(meta), fetches.clone());
            move |at, bytes: &[u8]| fetches.get(at).is_some_and(|blocks| are_prefixes(&meta, blocks, bytes))
        })
        .await?;
        let mut look = Look {
            meta: Arc::clone(meta),
            held: piece.iter().filter_map(|w| Some((w.block, self.at_hand(w.block)?.clone()))).collect(),
            came: fetches.into_iter().zip(came).collect(),
            fetched: Vec::new(),
            base: piece.first().map_or(0, |wanted| wanted.tokens.start),
            tokens: {
                let end = piece.last().map_or(0, |wanted| wanted.tokens.end);
                let start = piece.first().map_or(0, |wanted| wanted.tokens.start);
                tokens.get(start..end).unwrap_or_default().to_vec()
            },
            piece,
            candidates: Vec::new(),
            hits: Vec::new(),
        };
        let mut fetches;
        (look, fetches) = compute(move || {
            look.probe()?;
            let fetches = lookup::slices(&look.meta, &look.candidates, &limits)?;
            Ok((look, fetches))
        })
        .await?;
        let lookups = Lookups {
            filter_hits: look.candidates.len() as u64,
            exact_lookups: fetches.len() as u64,
            spills: 0,
        };
        let passed = fetches.iter().map(|fetch| fetch.bytes.end - fetch.bytes.start).sum();
        // Some of the slices at a time, so that a dense batch is not held as a whole.
        while !fetches.is_empty() {
            let (mut bytes, mut count) = (0, 0);
            for fetch in &fetches {
                bytes += fetch.bytes.end - fetch.bytes.start;
                if count > 0 && bytes > limits.request {
                    break;
                }
                count += 1;
            }
            let rest = fetches.split_off(count);
            let ranges = fetches.iter().map(|fetch| fetch.bytes.clone()).collect();
            let look_now = Arc::new(look);
            let (looked, wanted) = (Arc::clone(&look_now), fetches.clone());
            // What is of no use here, or would be an error, is not taken from a cache.
            let sound = move |at: usize, bytes: &[u8]| {
                wanted.get(at).is_some_and(|fetch| looked.decide(fetch, bytes, &mut Vec::new()).is_ok())
            };
            let came = cached::ranges(store, name, ranges, sound).await?;
            look =
                Arc::into_inner(look_now).ok_or_else(|| Error::Internal("a piece is still in use".into()))?;
            look = compute(move || {
                look.find(&fetches, &came)?;
                Ok(look)
            })
            .await?;
            fetches = rest;
        }
        Ok(Found { hits: look.hits, passed, fetched: look.fetched, lookups })
    }

    /// What looking tokens up in it has taken so far.
    pub(crate) fn lookups(&self) -> Lookups {
        *self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the prefixes that were fetched, as far as memory goes.
    pub(crate) fn keep(&self, found: Found, budget: &Budget) {
        let mut lookups = self.lookups.lock().unwrap_or_else(PoisonError::into_inner);
        *lookups = lookups.plus(found.lookups);
        drop(lookups);
        for (block, bytes) in found.fetched {
            let none = || (0..self.meta.layout().blocks()).map(|_| OnceLock::new()).collect();
            let size = bytes.len() as u64;
            if let Some(slot) = self.prefixes.get_or_init(none).get(block as usize)
                && slot.get().is_none()
                && budget.take(size)
                && slot.set(bytes).is_err()
            {
                budget.give_back(size);
            }
        }
    }

    fn at_hand(&self, block: u64) -> Option<&Bytes> {
        self.prefixes.get()?.get(block as usize)?.get()
    }

    /// The version that accepted the token at `hit`, if the run says so of each.
    pub(crate) async fn commit_of(&self, store: &Store, hit: &Hit) -> Result<Option<u64>> {
        let (block, place) = hit.block();
        if self.meta.commits().is_none() {
            return Ok(None);
        }
        let range = self.meta.layout().commit_range(block);
        // One commit for all takes no bytes.
        let bytes =
            if range.is_empty() { Bytes::new() } else { store.get_range(self.meta.object(), range).await? };
        Ok(self.meta.decode_commits(block, &bytes)?.get(place).copied())
    }
}

/// A piece under way, in one hand so that it can be worked on wherever there is room.
struct Look {
    meta: Arc<RunMeta>,
    piece: Piece,
    /// The tokens of the piece; the first is at position `base` of the batch.
    tokens: Vec<Token>,
    base: usize,
    /// Prefixes at hand, by block, ascending.
    held: Vec<(u64, Bytes)>,
    /// Prefixes that came: of some blocks together.
    came: Vec<(Range<u64>, Bytes)>,
    /// The same once they are checked, by block, ascending.
    fetched: Vec<(u64, Bytes)>,
    candidates: Vec<Candidate>,
    hits: Vec<Hit>,
}

impl Look {
    /// Checks the prefixes that came, and finds the candidates in them and in those at hand.
    fn probe(&mut self) -> Result<()> {
        let layout = self.meta.layout();
        for (blocks, bytes) in std::mem::take(&mut self.came) {
            let start = layout.prefix_range(blocks.start).start;
            for block in blocks {
                let within = within(&layout.prefix_range(block), start);
                let prefixes = if within.end <= bytes.len() { bytes.slice(within) } else { Bytes::new() };
                self.meta.check_prefixes(block, &prefixes)?;
                self.fetched.push((block, prefixes));
            }
        }
        for wanted in &mut self.piece {
            // Positions are counted within the piece from here on.
            wanted.tokens =
                wanted.tokens.start.saturating_sub(self.base)..wanted.tokens.end.saturating_sub(self.base);
            let prefixes = prefixes_of(&self.held, &self.fetched, wanted.block);
            let prefixes =
                prefixes.ok_or_else(|| Error::Internal(format!("block {} was not fetched", wanted.block)))?;
            lookup::probe(&self.meta, wanted, prefixes, &self.tokens, &mut self.candidates)?;
        }
        Ok(())
    }

    /// Decides the candidates of `fetches`, whose bytes came.
    fn find(&mut self, fetches: &[lookup::Fetch], came: &[Bytes]) -> Result<()> {
        let mut hits = Vec::new();
        for (fetch, bytes) in fetches.iter().zip(came) {
            self.decide(fetch, bytes, &mut hits)?;
        }
        let base = self.base as u32;
        self.hits
            .extend(hits.into_iter().map(|hit| Hit { position: hit.position.wrapping_add(base), ..hit }));
        Ok(())
    }
}

impl Look {
    fn decide(&self, fetch: &lookup::Fetch, bytes: &[u8], hits: &mut Vec<Hit>) -> Result<()> {
        let prefixes = |block| prefixes_of(&self.held, &self.fetched, block);
        lookup::find(&self.meta, fetch, bytes, &self.tokens, &self.candidates, prefixes, hits)
    }
}

/// Whether `bytes` are the prefixes of these blocks, which lie together.
fn are_prefixes(meta: &RunMeta, blocks: &Range<u64>, bytes: &[u8]) -> bool {
    let start = meta.layout().prefix_range(blocks.start).start;
    let part = |block| bytes.get(within(&meta.layout().prefix_range(block), start)).unwrap_or_default();
    blocks.clone().all(|block| meta.check_prefixes(block, part(block)).is_ok())
}

fn within(range: &Range<u64>, start: u64) -> Range<usize> {
    range.start.saturating_sub(start) as usize..range.end.saturating_sub(start) as usize
}

fn prefixes_of<'a>(held: &'a [(u64, Bytes)], fetched: &'a [(u64, Bytes)], block: u64) -> Option<&'a [u8]> {
    let find = |of: &'a [(u64, Bytes)]| {
        let at = of.binary_search_by_key(&block, |(block, _)| *block).ok()?;
        of.get(at).map(|(_, bytes)| &bytes[..])
    };
    find(held).or_else(|| find(fetched))
}

/// How many pieces are looked up at a time.
pub(crate) fn at_once(store: &Store) -> usize {
    if store.local_path("").is_some() { 4 } else { 8 }
}

/// On a local disk a fetch costs a microsecond, so little is read in vain.
fn limits(store: &Store) -> Limits {
    if store.local_path("").is_some() { Limits { request: 1 << 20, gap: 2 << 10 } } else { Limits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{ascending, token};
    use crate::runs::write::RunUpload;
    use object_store::memory::InMemory;

    const NAME: &str = "_dedupe/tokens/r.run";

    fn memory() -> Store {
        Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:")
    }

    async fn write(store: &Store, tokens: &[Token]) -> RunRef {
        let mut upload = RunUpload::begin(store, NAME.into(), None).await.unwrap();
        upload.push_all(tokens).await.unwrap();
        upload.finish().await.unwrap()
    }

    /// Every third token of the run, and as many that it does not hold.
    fn asked(count: u64) -> (Vec<Token>, Vec<u32>) {
        let held: Vec<u64> = (0..count).step_by(3).collect();
        let all = held.iter().flat_map(|i| [(token(*i), true), (token(i + 1_000_000), false)]);
        let mut all: Vec<(Token, bool)> = all.collect();
        all.sort_unstable();
        let places = (0..).zip(&all).filter(|(_, (_, held))| *held).map(|(place, _)| place);
        (all.iter().map(|(token, _)| *token).collect(), places.collect())
    }

    #[tokio::test]
    async fn with_or_without_prefixes_in_memory_the_answer_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().to_str().unwrap(), &[]).unwrap();
        for store in [memory(), local] {
            for (count, budget) in
                [(1, 0), (1, u64::MAX), (4096, 0), (50_000, 0), (50_000, 30_000), (50_000, u64::MAX)]
            {
                store.delete(NAME).await.unwrap();
                let run = write(&store, &ascending(0, count)).await;
                let open = OpenRun::open(&store, &run).await.unwrap();
                let budget = Budget::new(budget);
                let before = budget.left();
                let (tokens, expected) = asked(count);
                // A few at a time, then many, again and again: it may come to hold its prefixes.
                for chunk in tokens.chunks(50).take(20) {
                    let found = open.find(&store, chunk, &budget).await.unwrap();
                    let first = chunk[0];
                    let at = tokens.partition_point(|token| *token < first) as u32;
                    let here = expected.iter().filter(|e| (at..at + chunk.len() as u32).contains(*e));
                    assert_eq!(found, here.map(|e| e - at).collect::<Vec<_>>());
                }
                for _ in 0..3 {
                    assert_eq!(open.find(&store, &tokens, &budget).await.unwrap(), expected);
                }
                assert!(open.find(&store, &[], &budget).await.unwrap().is_empty());
                let slots = || open.prefixes.get().into_iter().flatten();
                let held: u64 = slots().filter_map(OnceLock::get).map(|bytes| bytes.len() as u64).sum();
                assert_eq!(before - budget.left(), held);
                assert!(held <= open.prefix_bytes() + 64);
                match before {
                    0 => assert_eq!(held, 0),
                    u64::MAX => assert!(slots().all(|slot| slot.get().is_some())),
                    _ => assert!(slots().any(|slot| slot.get().is_some())),
                }
            }
        }
    }

    #[tokio::test]
    async fn a_run_that_is_read_whole_is_what_was_written_or_damaged() {
        let store = memory();
        for count in [1, 4096, 50_000] {
            store.delete(NAME).await.unwrap();
            let run = write(&store, &ascending(0, count)).await;
            assert_eq!(OpenRun::read_whole(&store, &run).await.unwrap(), ascending(0, count));
            let sound = store.get(NAME).await.unwrap().unwrap();
            for at in [20, sound.len() / 2, sound.len() - 3] {
                let mut bytes = sound.to_vec();
                bytes[at] ^= 4;
                store.put(NAME, bytes.into()).await.unwrap();
                let read = OpenRun::read_whole(&store, &run).await;
                assert!(matches!(read, Err(Error::Corrupt { .. })), "{count} {at}: {read:?}");
            }
            store.put(NAME, sound.slice(1..)).await.unwrap();
            assert!(matches!(OpenRun::read_whole(&store, &run).await, Err(Error::Corrupt { .. })));
        }
    }

    #[tokio::test]
    async fn the_place_of_a_token_leads_to_its_commit() {
        let store = memory();
        let tokens: Vec<(Token, u64)> =
            (0..).zip(ascending(0, 10_000)).map(|(i, token)| (token, i % 300)).collect();
        let mut upload = RunUpload::begin(&store, NAME.into(), Some(0..=300)).await.unwrap();
        upload.push_with_commits(&tokens).await.unwrap();
        let run = upload.finish().await.unwrap();
        let open = OpenRun::open(&store, &run).await.unwrap();
        for (token, commit) in tokens.iter().step_by(997) {
            let hits = open.hits(&store, &[*token]).await.unwrap();
            assert_eq!(open.commit_of(&store, &hits[0]).await.unwrap(), Some(*commit));
        }
    }

    #[tokio::test]
    async fn a_run_that_is_not_what_the_ledger_says_is_corrupt() {
        let store = memory();
        let run = write(&store, &ascending(0, 5_000)).await;
        let other = RunRef { check: "0123456789abcdef".into(), ..run.clone() };
        let fewer = RunRef { tokens: Default::default(), ..run.clone() };
        let longer = RunRef { bytes: run.bytes + 1, ..run.clone() };
        let shorter = RunRef { bytes: run.bytes - 8, ..run.clone() };
        let no_number = RunRef { check: "?".into(), ..run.clone() };
        for wrong in [other, fewer, longer, shorter, no_number] {
            let error = OpenRun::open(&store, &wrong).await.unwrap_err();
            assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        }
        let absent = RunRef { name: "_dedupe/tokens/absent.run".into(), ..run.clone() };
        assert!(OpenRun::open(&store, &absent).await.unwrap_err().to_string().contains("absent.run"));
        // A block that was damaged later is noticed when it is used, and only then.
        let mut bytes = store.get(NAME).await.unwrap().unwrap().to_vec();
        bytes[100] ^= 1;
        store.put(NAME, bytes.into()).await.unwrap();
        let open = OpenRun::open(&store, &run).await.unwrap();
        let error = open.find(&store, &ascending(0, 1), &Budget::new(0)).await;
        let first = open.find(&store, &ascending(0, 5_000), &Budget::new(0)).await;
        assert!(matches!(first, Err(Error::Corrupt { .. })), "{first:?}");
        assert!(error.is_ok() || matches!(error, Err(Error::Corrupt { .. })));
    }
}
