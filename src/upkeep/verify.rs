//! A table against its own record: every promise that can be checked afterwards.
//!
//! The ledger is replayed from its beginning; every run is read from end to end and all of them compared with each
//! other; every data file is read whole, its checksum compared, its rows tokenised again, and their tokens compared
//! with the index both ways. What is found is listed, not mended. Nothing is written, and memory stays within bounds:
//! a set that outgrows its share spills to a temporary folder.

use std::collections::BTreeSet;
use std::io::Read;
use std::num::NonZeroUsize;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::history::history;
use crate::error::{Error, Result};
use crate::index::SortedBatch;
use crate::index::merge::{Commits, Merge, Piece, Step};
use crate::ledger::Ledger;
use crate::ledger::entry::DataFile;
use crate::ledger::name::{self, Namer};
use crate::ledger::state::{Applied, Void};
use crate::options::default_memory;
use crate::runs::own::without;
use crate::runs::{Known, OpenRun, Own, Scan};
use crate::source::input::Input;
use crate::source::parquet::{Batches, ParquetFile, RowGroup};
use crate::store::{Store, compute};
use crate::token::{BoundKey, Token, TokenSum, Tokens};
use crate::workers::Workers;

/// Rows compared at a time.
const PIECE_ROWS: usize = 1 << 20;

/// Rows of key columns decoded at a time.
const KEY_BATCH: usize = 8192;

/// Tokens merged at a time.
const STEP: usize = 64 << 10;

/// Problems of one kind that are told one by one; the rest are counted.
const TOLD: u64 = 20;

/// How a table is verified.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Bytes that prefixes and sets may take.
    pub memory: u64,
    /// Threads that read and tokenise.
    pub threads: NonZeroUsize,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        Self { memory: default_memory(), threads }
    }
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct VerifyReport {
    /// One sentence for each problem; empty if everything holds.
    pub problems: Vec<String>,
    /// What is worth knowing and no problem: void entries, which a writer that woke up too late may leave behind.
    pub notes: Vec<String>,
    /// Rows of data files that were read.
    pub rows: u64,
    /// Tokens of the index that were read.
    pub tokens: u64,
}

/// Verifies the table of `ledger` as of its version. If a vacuum gives that version up meanwhile, what is missing is no
/// problem of the table but [`Error::SnapshotExpired`].
pub async fn verify(ledger: &Ledger, options: &VerifyOptions) -> Result<VerifyReport> {
    let report = ledger.or_expired(verify_all(ledger, options).await).await?;
    if !report.problems.is_empty()
        && let Err(expired @ Error::SnapshotExpired { .. }) = ledger.check_readable().await
    {
        return Err(expired);
    }
    Ok(report)
}

async fn verify_all(ledger: &Ledger, options: &VerifyOptions) -> Result<VerifyReport> {
    let mut report = VerifyReport::default();
    let ledger = &mut ledger.clone();
    ledger.read_all().await?;
    verify_ledger(ledger, &mut report).await?;
    verify_index(ledger, &mut report).await?;
    verify_quarantine(ledger, &mut report).await?;
    verify_data(ledger, options, &mut report).await?;
    Ok(report)
}

/// Replays the ledger without checkpoints.
async fn verify_ledger(ledger: &Ledger, report: &mut VerifyReport) -> Result<()> {
    let mut rows = crate::verdict::Accounting::default();
    let (mut strays, mut voids) = (Vec::new(), Vec::new());
    let entries = ledger.state().entries;
    let replayed = history(ledger, 0..entries, |entry, applied| match applied {
        Applied::Valid => {
            if let Some(ingest) = entry.ingest() {
                rows.add(&ingest.rows);
            }
        }
        Applied::Void(void) => {
            // No writer, however late, makes an entry for a place it does not fit: there, the chain was broken.
            let told = format!("version {} is void, without effect: {void}", entry.version);
            if matches!(void, Void::Misplaced { .. }) { strays.push(told) } else { voids.push(told) }
        }
    })
    .await?;
    report.problems.extend(strays);
    report.notes.extend(voids);
    // The ledger ends where a version is absent. If there are later ones, that one was lost.
    let listed = ledger.store().list(name::LEDGER).await?;
    let versions: BTreeSet<u64> =
        listed.iter().filter_map(|object| name::manifest_version(&object.name)).collect();
    if !versions.contains(&entries)
        && let Some(later) = versions.range(entries..).next()
    {
        report
            .problems
            .push(format!("version {entries} is absent, but version {later} exists: a manifest was lost"));
    }
    if replayed != *ledger.state() {
        report.problems.push("a checkpoint contradicts the ledger: delete the checkpoint folder".into());
    }
    if rows != ledger.state().rows {
        report.problems.push("the sum of all row accountings is not the sum of the versions'".into());
    }
    Ok(())
}

/// Reads every run, and compares all with each other: no token may stand in two of them.
async fn verify_index(ledger: &Ledger, report: &mut VerifyReport) -> Result<()> {
    let (store, state) = (ledger.store(), ledger.state());
    let mut inputs = Vec::new();
    for run in state.runs.values() {
        match OpenRun::open(store, &run.item).await {
            Ok(open) => {
                inputs.push((run.item.name.clone(), Some(Scan::new(Arc::clone(open.meta()))), Vec::new()))
            }
            Err(error) => report.problems.push(error.to_string()),
        }
    }
    for (version, tokens) in &state.inline {
        inputs.push((format!("the manifest of version {version}"), None, tokens.0.clone()));
    }
    let mut merge = Merge::new(inputs.iter().map(|(name, _, _)| name.clone()));
    let mut sum = TokenSum::default();
    loop {
        let step = merge.step(STEP, |token, _| {
            sum = sum.plus(TokenSum { count: 1, sum: token.0 });
            Ok(())
        });
        let fed = match step {
            Ok(Step::Done) => break,
            Ok(Step::Paused) => Ok(()),
            Ok(Step::Needs(input)) => feed(&mut merge, &mut inputs, input, store).await,
            Err(error) => Err(error),
        };
        if let Err(error) = fed {
            report.problems.push(format!("the index cannot be read to its end: {error}"));
            return Ok(());
        }
    }
    report.tokens = sum.count;
    if sum != state.total {
        report.problems.push(format!(
            "the index holds {} tokens, the ledger accepted {}, or their sums differ",
            sum.count, state.total.count
        ));
    }
    Ok(())
}

async fn feed(
    merge: &mut Merge,
    inputs: &mut [(String, Option<Scan>, Vec<Token>)],
    input: usize,
    store: &Store,
) -> Result<()> {
    let tokens = match inputs.get_mut(input) {
        Some((_, Some(scan), _)) => scan.next_tokens(store).await?.unwrap_or_default(),
        Some((_, None, tokens)) => std::mem::take(tokens),
        None => Vec::new(),
    };
    if tokens.is_empty() {
        merge.end(input);
        return Ok(());
    }
    merge.feed(input, Piece { tokens, commits: Commits::All(0) })
}

async fn verify_quarantine(ledger: &Ledger, report: &mut VerifyReport) -> Result<()> {
    for file in ledger.state().quarantine()?.values() {
        match ledger.store().head(&file.item.name).await? {
            Some(found) if found.size == file.item.bytes => {}
            Some(found) => report.problems.push(format!(
                "{} has {} bytes, its manifest says {}",
                file.item.name, found.size, file.item.bytes
            )),
            None => report.problems.push(format!("{} is absent", file.item.name)),
        }
    }
    Ok(())
}

/// Reads every data file, and compares the tokens of its rows with the index both ways.
async fn verify_data(ledger: &Ledger, options: &VerifyOptions, report: &mut VerifyReport) -> Result<()> {
    let (store, state) = (ledger.store(), ledger.state());
    let workers = Workers::new(options.threads);
    let mut seen = Seen {
        store: store.clone(),
        known: Known::open(store, state, options.memory / 4).await?,
        own: Own::aside(options.memory / 2)?.on_threads(options.threads.get()),
        namer: Namer::new("", 0),
        unknown: Counted::new("a row whose key is not in the index"),
        repeated: Counted::new("a row whose key another row has as well"),
    };
    let mut unread = 0u64;
    for file in state.files()?.values() {
        if let Err(error) = seen.read(ledger, &file.item, &workers, report).await {
            unread += u64::from(matches!(error, Error::Store { .. }));
            report.problems.push(error.to_string());
        }
    }
    seen.unknown.tell(report);
    seen.repeated.tell(report);
    if unread > 0 {
        report.problems.push(format!(
            "whether every accepted key has its row is not known, because {unread} data files could not be read"
        ));
    } else if seen.own.sum() != state.total {
        let mut missing = Counted::new("an accepted key without a row");
        for run in state.runs.values() {
            let Ok(open) = OpenRun::open(store, &run.item).await else { continue };
            let mut scan = Scan::new(Arc::clone(open.meta()));
            while let Ok(Some(tokens)) = scan.next_tokens(store).await {
                seen.look_for(&tokens, &run.item.name, &mut missing).await?;
            }
        }
        for (version, tokens) in &state.inline {
            seen.look_for(&tokens.0, &format!("the manifest of version {version}"), &mut missing).await?;
        }
        missing.tell(report);
    }
    Ok(())
}

/// The tokens of all rows seen so far.
struct Seen {
    store: Store,
    known: Known,
    own: Own,
    namer: Namer,
    unknown: Counted,
    repeated: Counted,
}

impl Seen {
    /// Reads one data file.
    async fn read(
        &mut self,
        ledger: &Ledger,
        file: &DataFile,
        workers: &Workers,
        report: &mut VerifyReport,
    ) -> Result<()> {
        let Some(found) = self.store.head(&file.name).await? else {
            return Err(Error::corrupt(&file.name, "it is absent"));
        };
        if found.size != file.bytes {
            return Err(Error::corrupt(
                &file.name,
                format!("{} bytes instead of {}", found.size, file.bytes),
            ));
        }
        let input = Input::of_object(&self.store, &file.name, file.bytes)?;
        let (whole, name) = (input.clone(), file.name.clone());
        let check = workers.start(move || checksum(&whole, &name));
        let name = file.name.clone();
        let parquet = compute(move || ParquetFile::open(input, &name)).await?;
        let key = ledger.identity().token.bind(parquet.schema(), &file.name)?;
        // Started one by one, so that no more row groups are held than there are workers.
        let mut groups = stream::iter(parquet.row_groups())
            .map(|group| {
                let key = key.clone();
                workers.start(move || pieces(&group, &key))
            })
            .buffered(workers.count());
        let (mut rows, mut keyless, mut sum) = (0, 0, TokenSum::default());
        while let Some(pieces) = groups.try_next().await? {
            for tokens in pieces {
                let counted = self.compare(&tokens, &file.name, rows).await?;
                rows += tokens.tokens.len() as u64;
                keyless += tokens.tokens.len() as u64 - counted.count;
                sum = sum.plus(counted);
            }
        }
        report.rows += rows;
        if check.await? != file.check {
            report
                .problems
                .push(format!("{}: its bytes do not have the checksum in its manifest", file.name));
        }
        if (rows, keyless, sum) != (file.rows, file.keyless, file.tokens) {
            report.problems.push(format!(
                "{}: {rows} rows ({keyless} without a key); its manifest says {} ({}), or their keys differ",
                file.name, file.rows, file.keyless
            ));
        }
        Ok(())
    }

    /// Compares some rows of a file, the first of which is its row `first`. Returns the sum of their tokens.
    async fn compare(&mut self, tokens: &Tokens, file: &str, first: u64) -> Result<TokenSum> {
        let keyless = |row: usize| tokens.keyless.as_ref().is_some_and(|mask| mask.value(row));
        let rows: Vec<u32> =
            (0..tokens.tokens.len()).filter(|row| !keyless(*row)).map(|row| row as u32).collect();
        let mut batch = SortedBatch::of_rows(&tokens.tokens, &rows)?;
        let sum = TokenSum::of(batch.tokens());
        let place = |row: &u32| format!("row {} of {file}", first + u64::from(*row));
        self.repeated.extend(batch.take_repeats().iter().map(place));
        let (known, _) = self.known.find(&self.store, batch.tokens()).await?;
        let mut known = known.iter().copied().peekable();
        let unknown = (0u32..).zip(batch.rows()).filter(|(at, _)| known.next_if_eq(at).is_none());
        self.unknown.extend(unknown.map(|(_, row)| place(row)));
        let repeated = self.own.insert(&self.store, &mut self.namer, batch.tokens()).await?;
        self.repeated.extend(batch.take(&repeated).iter().map(place));
        Ok(sum)
    }

    /// Looks for the rows of ascending tokens of the index.
    async fn look_for(&mut self, tokens: &[Token], place: &str, missing: &mut Counted) -> Result<()> {
        let found = self.own.find(&self.store, tokens).await?;
        missing.extend(without(tokens, &found).iter().map(|token| format!("token {token} in {place}")));
        Ok(())
    }
}

/// The tokens of a row group, in pieces that are not too large.
fn pieces(group: &RowGroup<Input>, key: &BoundKey) -> Result<Vec<Tokens>> {
    let batches: Batches<Input> = group.key_batches(&key.paths(), KEY_BATCH)?;
    let mut pieces: Vec<Tokens> = Vec::new();
    for batch in batches {
        let tokens = key.tokenise(&batch?)?;
        match pieces.last_mut() {
            // Rows without a key are rare: a batch that has some is a piece of its own.
            Some(last)
                if last.keyless.is_none() && tokens.keyless.is_none() && last.tokens.len() < PIECE_ROWS =>
            {
                last.tokens.extend_from_slice(&tokens.tokens);
            }
            _ => pieces.push(tokens),
        }
    }
    Ok(pieces)
}

/// XXH3-64 of all bytes of a file, as its manifest gives it.
fn checksum(input: &Input, name: &str) -> Result<String> {
    let mut reader = input.reader()?;
    let mut hash = Xxh3::new();
    let mut block = vec![0; 1 << 20];
    loop {
        match reader.read(&mut block).map_err(|e| Error::store("read", name, e))? {
            0 => return Ok(format!("{:016x}", hash.digest())),
            n => hash.update(block.get(..n).unwrap_or_default()),
        }
    }
}

/// Problems of one kind: the first few by name, all by number.
struct Counted {
    what: &'static str,
    count: u64,
    told: Vec<String>,
}

impl Counted {
    fn new(what: &'static str) -> Self {
        Self { what, count: 0, told: Vec::new() }
    }

    fn extend(&mut self, places: impl Iterator<Item = String>) {
        for place in places {
            self.count += 1;
            if self.count <= TOLD {
                self.told.push(place);
            }
        }
    }

    fn tell(&self, report: &mut VerifyReport) {
        report.problems.extend(self.told.iter().map(|place| format!("{}: {place}", self.what)));
        if self.count > TOLD {
            report.problems.push(format!("{}: {} more", self.what, self.count - TOLD));
        }
    }
}
