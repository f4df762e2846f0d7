//! What a lost race costs: judging what was staged against the winner's entry, and nothing more.
//!
//! Only the winner's new tokens are looked up among the own. The data files that hold any of them are written anew
//! without those rows, runs likewise; the accounting is corrected; the rest stays as it was staged.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use futures::stream::{self, StreamExt, TryStreamExt};
use xxhash_rust::xxh3::xxh3_64;

use super::Session;
use super::commit::Committed;
use super::fenced::below_floor;
use super::file::Stats;
use super::judge::Verdicts;
use super::stage::Stager;
use crate::error::{Error, Result};
use crate::ledger::Entry;
use crate::ledger::entry::{Body, DataFile, Ingest, InlineTokens, QuarantineFile, RunRef};
use crate::ledger::name::StagedName;
use crate::runs::{Budget, OpenRun, Scan, Tokens};
use crate::schema;
use crate::source::input::Input;
use crate::source::parquet::{ParquetFile, RowGroup};
use crate::store::{Store, compute};
use crate::token::{BoundKey, Token, TokenSum};
use crate::verdict::Verdict;

/// Rows of key columns decoded at a time.
const KEY_BATCH: usize = 8192;

/// Runs of others up to this many bytes are read whole, so many at a time.
const SMALL_RUN: u64 = 1 << 20;
const RUNS_AT_ONCE: usize = 8;

/// Data files up to this many bytes are read whole, so many at a time.
const READ_WHOLE: u64 = 4 << 20;
const FILES_AT_ONCE: usize = 4;

/// Everything a session has staged.
#[derive(Debug)]
pub(super) struct Staged {
    pub(super) files: Vec<DataFile>,
    pub(super) tokens: Tokens,
    pub(super) quarantine: Vec<QuarantineFile>,
}

impl Staged {
    /// The object that was staged first, with its stage.
    pub(super) fn oldest(&self) -> Option<(u64, String)> {
        let names = (self.files.iter().map(|file| &file.name))
            .chain(self.tokens.runs.iter().map(|run| &run.reference.name))
            .chain(self.quarantine.iter().map(|file| &file.name));
        names.filter_map(|name| Some((StagedName::parse(name)?.stage, name.clone()))).min()
    }
}

/// Rows to be taken out of what was staged.
struct Revoked {
    /// Keys that the winner brought as well, ascending.
    tokens: Vec<Token>,
    /// Sources that the winner consumed as well.
    sources: BTreeSet<u32>,
}

impl Session {
    /// Brings what was staged in line with the entries that were committed before it. Returns an outcome if there is
    /// nothing left to do, because one of them committed the same batch.
    pub(super) async fn rebase(
        &mut self,
        staged: &mut Staged,
        rivals: &[Entry],
    ) -> Result<Option<Committed>> {
        let mut sources = BTreeSet::new();
        let mut theirs: Vec<&Ingest> = Vec::new();
        for rival in rivals {
            match &rival.body {
                Body::Ingest(ingest) => {
                    if let Some(done) = self.same_batch(rival.version, ingest)? {
                        return Ok(Some(done));
                    }
                    sources.extend(self.revoke_sources(rival.version, ingest));
                    theirs.push(ingest);
                }
                Body::Policy { policy } => {
                    let judged_otherwise = self.null_key_by_policy && policy.null_key != self.null_key;
                    if judged_otherwise || policy.partition_by != self.partition_by {
                        return Err(Error::Refused(format!(
                            "version {} changed the table's policy while this run was under way; nothing was \
                             committed. Run again",
                            rival.version
                        )));
                    }
                }
                // Where tokens lie has no bearing on which rows are new; the floor is checked with every proposal.
                Body::Compact(_) | Body::Fence { .. } | Body::Create(_) => {}
            }
        }
        if theirs.is_empty() {
            return Ok(None);
        }
        self.check_floor(staged.oldest())?;
        self.adopt_schema()?;
        let tokens = self.overlap(staged, &theirs).await?;
        if self.handed_on && !(tokens.is_empty() && sources.is_empty()) {
            let version = rivals.last().map_or(0, |rival| rival.version);
            return Err(Error::Overtaken { keys: tokens.len() as u64, version });
        }
        if !tokens.is_empty() || !sources.is_empty() {
            self.revoke(staged, &Revoked { tokens, sources }).await?;
        }
        Ok(None)
    }

    /// What the winner committed, if that is our batch.
    fn same_batch(&self, version: u64, theirs: &Ingest) -> Result<Option<Committed>> {
        match (&self.batch, &theirs.batch) {
            (Some(ours), Some(batch)) if ours == batch => Ok(Some(Committed::of_entry(version, theirs))),
            (Some(ours), Some(batch)) if ours.id == batch.id => Err(Error::Refused(format!(
                "batch {:?} was committed in version {version} with other sources; nothing was committed here",
                batch.id
            ))),
            _ => Ok(None),
        }
    }

    /// What was staged below the floor may be gone: it can neither be committed, nor be read to be written anew.
    pub(super) fn check_floor(&mut self, oldest: Option<(u64, String)>) -> Result<()> {
        let floor = self.ledger()?.state().floor;
        match oldest {
            Some((stage, name)) if stage < floor => Err(below_floor(&name, floor)),
            _ => Ok(()),
        }
    }

    /// Derives the contract anew from the schema that now stands.
    fn adopt_schema(&mut self) -> Result<()> {
        let ours = Arc::clone(&self.contract.schema);
        let state = self.ledger()?.state();
        let (Some(theirs), base) = (state.schema.clone(), state.schema_version) else { return Ok(()) };
        if base == self.contract.base {
            return Ok(());
        }
        let both = schema::widen(&theirs, &ours).map_err(|reason| {
            Error::Refused(format!(
                "version {base} changed the table's schema while this run was under way, and the rows of this run \
                 do not fit it: {reason}. Nothing was committed"
            ))
        })?;
        self.contract.base = base;
        self.contract.widened = both != theirs;
        self.contract.schema = Arc::new(both);
        Ok(())
    }

    /// Notes which of our sources the winner consumed: their rows were replayed, not duplicated.
    fn revoke_sources(&mut self, version: u64, theirs: &Ingest) -> BTreeSet<u32> {
        let consumed: BTreeSet<u128> =
            theirs.sources.iter().filter(|s| s.replay_of.is_none()).filter_map(|source| source.id).collect();
        let mut revoked = BTreeSet::new();
        for (number, source) in (0..).zip(&mut self.sources) {
            if source.replay_of.is_none() && source.id.is_some_and(|id| consumed.contains(&id)) {
                source.replay_of = Some(version);
                revoked.insert(number);
            }
        }
        revoked
    }

    /// The tokens that we and any of them have, ascending.
    async fn overlap(&mut self, staged: &mut Staged, theirs: &[&Ingest]) -> Result<Vec<Token>> {
        let ours = staged.tokens.sum().count;
        // Who brings no keys need not read theirs.
        if ours == 0 {
            return Ok(Vec::new());
        }
        let store = self.store.clone();
        let budget = Budget::new(self.memory / 8);
        let mut common = Vec::new();
        for theirs in theirs {
            let inline = &theirs.inline.0;
            common.extend(pick(inline, &staged.tokens.find(&store, inline, &budget).await?));
        }
        // Small runs come whole, several at a time; then each costs one request, and they cost one wait together.
        let runs = theirs.iter().flat_map(|theirs| &theirs.runs);
        let (small, large): (Vec<&RunRef>, Vec<&RunRef>) = runs.partition(|run| run.bytes <= SMALL_RUN);
        let small: Vec<_> = small.into_iter().map(|run| whole_run(store.clone(), run.clone())).collect();
        let mut small = stream::iter(small).buffered(RUNS_AT_ONCE);
        while let Some(tokens) = small.try_next().await? {
            common.extend(pick(&tokens, &staged.tokens.find(&store, &tokens, &budget).await?));
        }
        for run in large {
            let theirs = OpenRun::open(&store, run).await?;
            if ours < theirs.len() / 16 {
                // A small commit against a large one: look up ours in theirs.
                common.extend(pick(
                    &staged.tokens.inline.0,
                    &theirs.find(&store, &staged.tokens.inline.0, &budget).await?,
                ));
                for own in &staged.tokens.runs {
                    let mut scan = Scan::new(Arc::clone(own.run.meta()));
                    while let Some(tokens) = scan.next_tokens(&store).await? {
                        common.extend(pick(&tokens, &theirs.find(&store, &tokens, &budget).await?));
                    }
                }
            } else {
                let mut scan = Scan::new(Arc::clone(theirs.meta()));
                while let Some(tokens) = scan.next_tokens(&store).await? {
                    common.extend(pick(&tokens, &staged.tokens.find(&store, &tokens, &budget).await?));
                }
            }
        }
        common.sort_unstable();
        Ok(common)
    }

    /// Takes rows out of what was staged. New names say that the writer has now seen the winner.
    async fn revoke(&mut self, staged: &mut Staged, revoked: &Revoked) -> Result<()> {
        let entries = self.ledger()?.state().entries;
        self.namer.advance(entries);
        let store = self.store.clone();
        let spec = self.identity().token.clone();
        let mut kept = Vec::new();
        let mut gone: BTreeMap<u32, u64> = BTreeMap::new();
        let files = std::mem::take(&mut staged.files);
        let inputs: Vec<_> =
            files.iter().map(|file| staged_file(store.clone(), file.clone(), self.memory / 4)).collect();
        let mut inputs = stream::iter(inputs).buffered(FILES_AT_ONCE);
        for file in files {
            let input = inputs.try_next().await?;
            let input = input.ok_or_else(|| Error::Internal(format!("{} was not opened", file.name)))?;
            let url = file.name.clone();
            let parquet = compute(move || ParquetFile::open(input, &url)).await?;
            let key = spec.bind(parquet.schema(), &file.name)?;
            let mut origin = Origin::new(&file.origin);
            let mut groups = Vec::new();
            let mut drops = false;
            for group in parquet.row_groups() {
                let (verdicts, stats) = judge_again(&group, &key, revoked, &mut origin, &mut gone).await?;
                drops |= !verdicts.all_accepted();
                groups.push((group, verdicts, stats));
            }
            if !drops {
                kept.push(file);
                continue;
            }
            self.keyless -= file.keyless - groups.iter().map(|(_, _, stats)| stats.keyless).sum::<u64>();
            // A stager for each file, so that what replaces it stands where it stood.
            let (folder, options) = (folder(&file.name), self.rewriting());
            let mut stager =
                Stager::new(&self.contract.schema, &spec, &options, &self.workers, self.memory / 4)?;
            for (group, verdicts, stats) in groups {
                if verdicts.accepted > 0 {
                    stager.push_group(&store, &mut self.namer, folder, group, verdicts, stats).await?;
                }
            }
            kept.extend(stager.finish(&store, &mut self.namer).await?);
        }
        staged.files = kept;
        staged.tokens.remove(&store, &mut self.namer, &revoked.tokens).await?;
        for (number, source) in (0..).zip(&mut self.sources) {
            let rows = gone.get(&number).copied().unwrap_or_default();
            if revoked.sources.contains(&number) {
                source.rows.revoke(Verdict::Replayed, rows);
                // Rows dropped before belong to a source that is now known to be replayed as a whole.
                source.rows.replayed += std::mem::take(&mut source.rows.duplicate);
            } else {
                source.rows.revoke(Verdict::Duplicate, rows);
            }
        }
        Ok(())
    }
}

async fn whole_run(store: Store, run: RunRef) -> Result<Vec<Token>> {
    OpenRun::read_whole(&store, &run).await
}

/// A data file that was staged, to be read again. One that is small, or fits into `memory`, comes from a bucket in one request, and
/// then its checksum tells whether it came whole.
async fn staged_file(store: Store, file: DataFile, memory: u64) -> Result<Input> {
    if store.local_path("").is_some() || file.bytes > memory.clamp(1 << 20, READ_WHOLE) {
        return Input::of_object(&store, &file.name, file.bytes);
    }
    let bytes = store.get_limited(&file.name, file.bytes).await?;
    let bytes = bytes.ok_or_else(|| Error::corrupt(&file.name, "it was staged, and is absent"))?;
    if format!("{:016x}", xxh3_64(&bytes)) != file.check {
        return Err(Error::corrupt(&file.name, "what was read of it is not what was staged"));
    }
    Ok(Input::held(&store.location_of(&file.name), bytes))
}

/// Which rows of a staged row group stay.
async fn judge_again(
    group: &RowGroup<Input>,
    key: &BoundKey,
    revoked: &Revoked,
    origin: &mut Origin<'_>,
    gone: &mut BTreeMap<u32, u64>,
) -> Result<(Verdicts, Stats)> {
    let (reader, bound) = (group.clone(), key.clone());
    let mut batches = compute(move || reader.key_batches(&bound.paths(), KEY_BATCH)).await?;
    let mut keep = BooleanBufferBuilder::new(group.num_rows());
    let mut stats = Stats::default();
    loop {
        let bound = key.clone();
        let step = compute(move || {
            let tokens = batches.next().transpose()?.map(|batch| bound.tokenise(&batch)).transpose()?;
            Ok((tokens, batches))
        });
        let (tokens, rest) = step.await?;
        batches = rest;
        let Some(tokens) = tokens else { break };
        for (row, token) in tokens.tokens.iter().enumerate() {
            let source = origin.next()?;
            let keyless = tokens.keyless.as_ref().is_some_and(|mask| mask.value(row));
            let stays = if keyless {
                !revoked.sources.contains(&source)
            } else {
                revoked.tokens.binary_search(token).is_err()
            };
            keep.append(stays);
            if stays {
                stats.push(source, (!keyless).then_some(*token));
            } else {
                *gone.entry(source).or_default() += 1;
            }
        }
    }
    let verdicts = Verdicts {
        keep: keep.finish(),
        accepted: stats.rows,
        keyless: stats.keyless,
        tokens: stats.tokens,
        ..Verdicts::none()
    };
    Ok((verdicts, stats))
}

/// Tells for each row of a file, in order, which source it came from.
struct Origin<'a> {
    segments: std::slice::Iter<'a, (u32, u64)>,
    source: u32,
    left: u64,
}

impl<'a> Origin<'a> {
    fn new(segments: &'a [(u32, u64)]) -> Self {
        Self { segments: segments.iter(), source: 0, left: 0 }
    }

    fn next(&mut self) -> Result<u32> {
        while self.left == 0 {
            let segment = self.segments.next();
            (self.source, self.left) = *segment
                .ok_or_else(|| Error::Internal("a staged file has more rows than were put into it".into()))?;
        }
        self.left -= 1;
        Ok(self.source)
    }
}

impl Stats {
    fn push(&mut self, source: u32, token: Option<Token>) {
        self.rows += 1;
        match token {
            Some(token) => self.tokens = self.tokens.plus(TokenSum { count: 1, sum: token.0 }),
            None => self.keyless += 1,
        }
        match self.origin.last_mut() {
            Some((last, rows)) if *last == source => *rows += 1,
            _ => self.origin.push((source, 1)),
        }
    }
}

impl Tokens {
    /// The runs, as a manifest names them.
    pub(super) fn runs(&self) -> Vec<RunRef> {
        self.runs.iter().map(|staged| staged.reference.clone()).collect()
    }

    /// The inline tokens, as a manifest holds them.
    pub(super) fn inline(&self) -> InlineTokens {
        self.inline.clone()
    }
}

/// The folder of a data file within the data folder.
fn folder(name: &str) -> &str {
    let within = name.strip_prefix(crate::ledger::name::DATA).unwrap_or(name).trim_start_matches('/');
    within.rsplit_once('/').map_or("", |(folder, _)| folder)
}

fn pick(tokens: &[Token], positions: &[u32]) -> Vec<Token> {
    positions.iter().filter_map(|place| tokens.get(*place as usize)).copied().collect()
}
