//! One run, opened: its directory in memory, its filter and perhaps its tokens if they fit and pay.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};

use super::scan::Scan;
use super::summary;
use crate::error::{Error, Result};
use crate::index::lookup::{self, Hit};
use crate::index::run::Tail;
use crate::index::{Bloom, Limits, RunMeta};
use crate::ledger::entry::RunRef;
use crate::store::Store;
use crate::token::Token;

/// How many ranges of one run are fetched at a time.
const FETCHES: usize = 4;

/// Memory that may still be taken, in bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget(pub(crate) u64);

impl Budget {
    /// Takes `bytes`, if there are that many.
    fn take(&mut self, bytes: u64) -> bool {
        let left = self.0.checked_sub(bytes);
        self.0 = left.unwrap_or(self.0);
        left.is_some()
    }
}

/// A run that tokens can be looked up in.
#[derive(Debug)]
pub(crate) struct OpenRun {
    meta: Arc<RunMeta>,
    bloom: Option<Bloom>,
    /// All its tokens, once it proved cheaper to hold them than to fetch them again and again.
    resident: Option<Vec<Token>>,
    /// Tokens it was asked for so far.
    asked: usize,
    /// Bytes fetched for that.
    fetched: u64,
}

impl OpenRun {
    /// Opens the run that the ledger names.
    pub(crate) async fn open(store: &Store, run: &RunRef) -> Result<Self> {
        let expected = summary(run)?;
        let absent = |e| match e {
            Error::Store { source, .. } => Error::store("read", &run.name, source),
            other => other,
        };
        let mut range = RunMeta::first_read(run.bytes);
        let meta = loop {
            let bytes = store.get_range(&run.name, range.clone()).await.map_err(absent)?;
            match RunMeta::parse(&run.name, run.bytes, &bytes)? {
                Tail::Ready(meta) => break *meta,
                Tail::Needs(more) if more != range => range = more,
                Tail::Needs(_) => return Err(Error::corrupt(&run.name, "its directory cannot be found")),
            }
        };
        meta.expect(&expected)?;
        Ok(Self { meta: Arc::new(meta), bloom: None, resident: None, asked: 0, fetched: 0 })
    }

    /// All tokens of a run that is small enough to be read whole, in one request.
    pub(crate) async fn read_whole(store: &Store, run: &RunRef) -> Result<Vec<Token>> {
        let bytes = store.get_limited(&run.name, run.bytes).await?;
        let bytes = bytes.ok_or_else(|| Error::corrupt(&run.name, "it is absent"))?;
        let open = Self::of_bytes(run, &bytes)?;
        let layout = open.meta.layout();
        let mut tokens = Vec::with_capacity(open.len() as usize);
        for block in 0..layout.blocks() {
            let range = layout.block_range(block);
            let piece = bytes.get(range.start as usize..range.end as usize).unwrap_or_default();
            tokens.extend(open.meta.decode_block(block, piece)?);
        }
        Ok(tokens)
    }

    /// Opens the run that the ledger names, whose bytes are at hand.
    pub(crate) fn of_bytes(run: &RunRef, bytes: &[u8]) -> Result<Self> {
        let cut = || Error::corrupt(&run.name, format!("{} of {} bytes", bytes.len(), run.bytes));
        if bytes.len() as u64 != run.bytes {
            return Err(cut());
        }
        let mut range = RunMeta::first_read(run.bytes);
        let meta = loop {
            let tail = bytes.get(range.start as usize..range.end as usize).ok_or_else(cut)?;
            match RunMeta::parse(&run.name, run.bytes, tail)? {
                Tail::Ready(meta) => break *meta,
                Tail::Needs(more) if more != range => range = more,
                Tail::Needs(_) => return Err(Error::corrupt(&run.name, "its directory cannot be found")),
            }
        };
        meta.expect(&summary(run)?)?;
        Ok(Self { meta: Arc::new(meta), bloom: None, resident: None, asked: 0, fetched: 0 })
    }

    /// Keeps the run's own tokens at hand: what a session has just written.
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

    /// The positions in ascending `tokens` that the run holds, ascending.
    pub(crate) async fn find(
        &mut self,
        store: &Store,
        tokens: &[Token],
        budget: &mut Budget,
    ) -> Result<Vec<u32>> {
        self.make_ready(store, tokens.len(), budget).await?;
        if let Some(resident) = &self.resident {
            return Ok(lookup::common(tokens, resident));
        }
        let hits = self.hits(store, tokens).await?;
        Ok(hits.into_iter().map(|hit| hit.position).collect())
    }

    /// As [`Self::find`], with the place of each token in the run.
    pub(crate) async fn hits(&mut self, store: &Store, tokens: &[Token]) -> Result<Vec<Hit>> {
        let candidates: Vec<u32> = match &self.bloom {
            Some(bloom) => {
                let mut survivors = Vec::new();
                bloom.probe_batch(tokens, &mut survivors);
                survivors
            }
            None => (0..).take(tokens.len()).collect(),
        };
        let fetches = lookup::plan(&self.meta, tokens, &candidates, &limits(store))?;
        let ranges: Vec<Range<u64>> = fetches.iter().map(|fetch| fetch.bytes.clone()).collect();
        self.fetched += ranges.iter().map(|range| range.end - range.start).sum::<u64>();
        let name = self.meta.object();
        let mut pieces = stream::iter(ranges).map(|range| store.get_range(name, range)).buffered(FETCHES);
        let mut hits = Vec::new();
        for fetch in &fetches {
            let Some(bytes) = pieces.try_next().await? else { break };
            lookup::find(&self.meta, fetch, &bytes, tokens, &candidates, &mut hits)?;
        }
        Ok(hits)
    }

    /// The versions that accepted the tokens at `hits`, if the run says so of each.
    pub(crate) async fn commit_of(&self, store: &Store, hit: &Hit) -> Result<Option<u64>> {
        let (block, place) = hit.block();
        let range = self.meta.layout().commit_range(block);
        if range.is_empty() {
            return Ok(None);
        }
        let bytes: Bytes = store.get_range(self.meta.object(), range).await?;
        Ok(self.meta.decode_commits(block, &bytes)?.get(place).copied())
    }

    /// Loads the filter, or the tokens themselves, when that is cheaper than going on without, and fits.
    async fn make_ready(&mut self, store: &Store, asked: usize, budget: &mut Budget) -> Result<()> {
        self.asked = self.asked.saturating_add(asked);
        if self.resident.is_some() {
            return Ok(());
        }
        let tokens = self.len() * size_of::<Token>() as u64;
        if self.fetched > tokens && budget.take(tokens) {
            let mut scan = Scan::new(Arc::clone(&self.meta));
            let mut all = Vec::with_capacity(self.len() as usize);
            while let Some(piece) = scan.next_tokens(store).await? {
                all.extend_from_slice(&piece);
            }
            self.resident = Some(all);
            self.bloom = None;
            return Ok(());
        }
        let bytes = self.meta.bloom_shape().map_or(0, |shape| shape.bytes());
        if self.bloom.is_none() && lookup::filter_pays(&self.meta, self.asked) && budget.take(bytes) {
            self.bloom = self.load_bloom(store).await?;
        }
        Ok(())
    }

    async fn load_bloom(&self, store: &Store) -> Result<Option<Bloom>> {
        let Some(mut load) = self.meta.load_bloom()? else { return Ok(None) };
        while let Some(range) = load.wants(limits(store).request) {
            load.push(&store.get_range(self.meta.object(), range).await?)?;
        }
        load.finish().map(Some)
    }
}

/// On a local disk a fetch costs microseconds, so nothing is read in vain.
fn limits(store: &Store) -> Limits {
    if store.local_path("").is_some() { Limits { request: 1 << 20, gap: 0 } } else { Limits::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::RunSpec;
    use crate::index::samples::{ascending, token};
    use crate::runs::write::RunUpload;
    use object_store::memory::InMemory;

    const NAME: &str = "_dedupe/tokens/r.run";

    fn memory() -> Store {
        Store::from_object_store(Arc::new(InMemory::new()), "table", "memory:")
    }

    async fn write(store: &Store, tokens: &[Token]) -> RunRef {
        let mut upload = RunUpload::begin(store, NAME.into(), &RunSpec::of(tokens)).await.unwrap();
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
    async fn with_or_without_filter_or_tokens_in_memory_the_answer_is_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().to_str().unwrap(), &[]).unwrap();
        for store in [memory(), local] {
            for (count, budget) in
                [(1, 0), (1, u64::MAX), (4096, 0), (50_000, 0), (50_000, 100_000), (50_000, u64::MAX)]
            {
                store.delete(NAME).await.unwrap();
                let run = write(&store, &ascending(0, count)).await;
                let mut open = OpenRun::open(&store, &run).await.unwrap();
                let mut budget = Budget(budget);
                let before = budget.0;
                let (tokens, expected) = asked(count);
                // A few at a time, then many, again and again: it may come to hold its filter, then its tokens.
                for chunk in tokens.chunks(50).take(20) {
                    let found = open.find(&store, chunk, &mut budget).await.unwrap();
                    let first = chunk[0];
                    let at = tokens.partition_point(|token| *token < first) as u32;
                    let here = expected.iter().filter(|e| (at..at + chunk.len() as u32).contains(*e));
                    assert_eq!(found, here.map(|e| e - at).collect::<Vec<_>>());
                }
                for _ in 0..4 {
                    assert_eq!(open.find(&store, &tokens, &mut budget).await.unwrap(), expected);
                }
                assert!(open.find(&store, &[], &mut budget).await.unwrap().is_empty());
                match before {
                    0 => assert!(open.bloom.is_none() && open.resident.is_none()),
                    u64::MAX if count > 1 => assert!(open.resident.is_some(), "asked for more than it holds"),
                    _ => {}
                }
                assert!(before - budget.0 <= before);
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
                // Its filter is not looked at.
                let in_filter = count > 1 && at == sound.len() / 2 && read.is_ok();
                assert!(in_filter || matches!(read, Err(Error::Corrupt { .. })), "{count} {at}: {read:?}");
            }
            store.put(NAME, sound.slice(1..)).await.unwrap();
            assert!(matches!(OpenRun::read_whole(&store, &run).await, Err(Error::Corrupt { .. })));
        }
    }

    #[tokio::test]
    async fn a_filter_is_loaded_when_it_pays_and_fits() {
        let store = memory();
        let run = write(&store, &ascending(0, 200_000)).await;
        let strangers: Vec<Token> = ascending(5_000_000, 2_000);
        let mut open = OpenRun::open(&store, &run).await.unwrap();
        let shape = open.meta.bloom_shape().unwrap().bytes();
        let mut tight = Budget(shape - 1);
        assert!(open.find(&store, &strangers, &mut tight).await.unwrap().is_empty());
        assert!(open.bloom.is_none() && tight.0 == shape - 1);
        let mut open = OpenRun::open(&store, &run).await.unwrap();
        let mut enough = Budget(shape);
        assert!(open.find(&store, &strangers, &mut enough).await.unwrap().is_empty());
        assert!(open.bloom.is_some() && enough.0 == 0);
    }

    #[tokio::test]
    async fn the_place_of_a_token_leads_to_its_commit() {
        let store = memory();
        let tokens: Vec<(Token, u64)> =
            (0..).zip(ascending(0, 10_000)).map(|(i, token)| (token, i % 300)).collect();
        let spec = RunSpec { highest_commit: Some(300), ..RunSpec::new(10_000) };
        let mut upload = RunUpload::begin(&store, NAME.into(), &spec).await.unwrap();
        upload.push_with_commits(&tokens).await.unwrap();
        let run = upload.finish().await.unwrap();
        let mut open = OpenRun::open(&store, &run).await.unwrap();
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
        let mut open = OpenRun::open(&store, &run).await.unwrap();
        let error = open.find(&store, &ascending(0, 1), &mut Budget(0)).await;
        let first = open.find(&store, &ascending(0, 5_000), &mut Budget(0)).await;
        assert!(matches!(first, Err(Error::Corrupt { .. })), "{first:?}");
        assert!(error.is_ok() || matches!(error, Err(Error::Corrupt { .. })));
    }
}
