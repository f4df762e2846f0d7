//! The story of one run: find the sources, agree on a schema, judge every row in order, write the survivors, commit.

mod begin;
mod elsewhere;
mod feed;
mod judge;
mod look;
mod plan;
mod presence;
mod reject;
mod reshape;
mod rows;
#[cfg(test)]
mod store_tests;

pub(crate) use elsewhere::Elsewhere;
#[cfg(feature = "cluster")]
pub(crate) use elsewhere::ingest_elsewhere;
#[cfg(feature = "cluster")]
pub(crate) use feed::{block_lines, read_error};
#[cfg(feature = "cluster")]
pub(crate) use presence::Presence;
#[cfg(feature = "cluster")]
pub(crate) use reject::bad_line;

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::{info, warn};

use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::entry::{Batch, SkippedSource};
use crate::options::{IngestOptions, MIB, MIN_MEMORY, OnBadFile};
use crate::report::{IngestReport, Progress, Skipped};
use crate::session::{Committed, Session, committed_before};
use crate::source::discover::{self, DiscoverOptions, SourceFile};
use crate::source::ndjson::Inference;
use crate::store::Store;
use crate::table;
use crate::upkeep::compact;
use crate::workers::Workers;
use begin::{Probe, warn_of_single_writer};
use feed::{Contract, Prepared, Recipe};
use judge::Judge;
use look::Look;
use plan::Planned;
use reshape::Flow;
pub use reshape::{Reshape, Reshaped};
pub use rows::{RowStream, SourceRows};

/// How often a run that was fenced off starts over by itself.
const RESTARTS: usize = 3;

/// Ingests `sources` (files, folders, patterns, URLs, `-`) into the table at `table`, which the first run creates.
pub async fn ingest(
    sources: &[String],
    table: &str,
    options: &IngestOptions,
    progress: &Progress,
) -> Result<IngestReport> {
    ingest_at(sources, table, None, None, options, progress).await
}

/// As [`ingest`], but of the rows of all sources others are made first, and these are ingested.
pub async fn ingest_reshaped(
    sources: &[String],
    table: &str,
    reshape: Option<&Reshape>,
    options: &IngestOptions,
    progress: &Progress,
) -> Result<IngestReport> {
    ingest_at(sources, table, reshape, None, options, progress).await
}

/// Ingests what is made of the rows, or has somebody else judge them. Not both.
async fn ingest_at(
    sources: &[String],
    table: &str,
    reshape: Option<&Reshape>,
    elsewhere: Option<&dyn Elsewhere>,
    options: &IngestOptions,
    progress: &Progress,
) -> Result<IngestReport> {
    let watch = Stopwatch::start();
    if reshape.is_some() && options.schema.is_some() {
        return Err(Error::Usage(
            "a schema cannot be given for rows that are made by a query, which has one: use CAST in the query".into(),
        ));
    }
    if options.memory < MIN_MEMORY {
        return Err(Error::Usage(format!("--memory must be at least {} MiB", MIN_MEMORY / MIB)));
    }
    let mut store = Store::open(table, &options.store_options)?;
    if let Some(folder) = &options.cache_dir {
        store = store.with_cache(folder, options.cache_size)?;
    }
    let discover = DiscoverOptions {
        format: options.format,
        store_options: options.store_options.clone(),
        ..DiscoverOptions::default()
    };
    let (found, opened) = futures::join!(discover::discover(sources, &discover), Ledger::open(store.clone()));
    let files = leave_out_table(found?, &store)?;
    progress.set_total(files.iter().filter_map(|file| file.size).sum());
    let mut unreadable = BTreeMap::new();
    let (mut restarts, mut stdin, mut opened) = (0, None, Some(opened));
    let mut look = Look::Beginnings;
    loop {
        progress.start_over();
        let run = Run {
            store: &store,
            files: &files,
            reshape,
            elsewhere,
            unreadable: &unreadable,
            look,
            options,
            progress,
        };
        match run.go(opened.take(), &mut stdin).await {
            Err(Error::Input { source_url, reason }) if options.on_bad_file == OnBadFile::Skip => {
                let known = files.iter().any(|file| file.url == source_url && file.url != plan::STDIN);
                if !known || unreadable.contains_key(&source_url) || reads_stdin(&files) {
                    return Err(Error::Input { source_url, reason });
                }
                // Its rows may have been judged already: the run starts over without it. What it staged is named by
                // no version, so nothing of it can be seen.
                warn!("leaving out {source_url}: {reason}");
                unreadable.insert(source_url, reason);
            }
            Ok(End::Done(mut report)) => {
                report.seconds = watch.seconds();
                return Ok(*report);
            }
            Ok(End::Overtaken) => info!("another writer created the table meanwhile: starting over on it"),
            Ok(End::Surprised) => {
                info!("not all rows are like the first: looking at all of them first, and starting over");
                look = Look::Whole;
            }
            // A vacuum took this run for dead. What it staged is lost, and nothing of its input.
            Err(error @ (Error::Fenced { .. } | Error::SnapshotExpired { .. }))
                if restarts < RESTARTS && stdin.as_ref().is_none_or(plan::Head::is_readable) =>
            {
                restarts += 1;
                warn!("starting over by itself: {error}");
            }
            Err(error) => return Err(error),
        }
    }
}

/// How an attempt ended.
enum End {
    Done(Box<IngestReport>),
    /// Another writer created the table meanwhile: all is to be done again, on it.
    Overtaken,
    /// Rows are not what their first made them out to be: all is to be done again, once all were looked at.
    Surprised,
}

impl End {
    fn done(report: IngestReport) -> Self {
        Self::Done(Box::new(report))
    }
}

/// How the rows of a run are come by.
struct Ways {
    flow: Option<Flow>,
    /// What the contract was made of, if that was not all text.
    known: Option<Arc<Inference>>,
    workers: Workers,
}

/// One attempt at a run.
struct Run<'a> {
    store: &'a Store,
    files: &'a [SourceFile],
    reshape: Option<&'a Reshape>,
    elsewhere: Option<&'a dyn Elsewhere>,
    unreadable: &'a BTreeMap<String, String>,
    look: Look,
    options: &'a IngestOptions,
    progress: &'a Progress,
}

impl Run<'_> {
    /// `opened`: the ledger, if it was just opened.
    async fn go(
        &self,
        opened: Option<Result<Option<Ledger>>>,
        stdin: &mut Option<plan::Head>,
    ) -> Result<End> {
        let ledger = match opened {
            Some(opened) => opened?,
            None => Ledger::open(self.store.clone()).await?,
        };
        let mut probe = self.probe(ledger.as_ref());
        let ended = self.go_on(ledger, &mut probe, stdin).await;
        // However it ended, the probe takes away what it wrote.
        let cleaned = probe.ended().await;
        ended.and_then(|end| cleaned.map(|()| end))
    }

    async fn go_on(
        &self,
        mut ledger: Option<Ledger>,
        probe: &mut Probe,
        stdin: &mut Option<plan::Head>,
    ) -> Result<End> {
        let options = self.options;
        if let Some(ledger) = &ledger {
            warn_of_single_writer(ledger.identity());
        }
        self.check_key(ledger.as_ref().map(Ledger::identity))?;
        self.check_partitions(ledger.as_ref())?;
        self.check_first_run_only(ledger.as_ref().map(Ledger::identity))?;
        let batch = options.batch_id.as_ref().map(|id| plan::batch(id, self.files, self.reshape));
        if let (Some(ledger), Some(batch)) = (&mut ledger, &batch)
            && let Some(report) = self.committed_before(ledger, batch).await?
        {
            return Ok(End::done(report));
        }
        if let Some(ledger) = &mut ledger {
            let sources: Vec<u128> = match self.reshape {
                None => self.files.iter().filter_map(plan::identity).collect(),
                Some(reshape) => reshape.identity(self.files.iter()).into_iter().collect(),
            };
            ledger.look_up(&sources, &[]).await?;
        }
        let state = ledger.as_ref().map(Ledger::state);
        let mut planned = match self.reshape {
            None => plan::sort_out(self.files, state, self.unreadable, options)?,
            Some(reshape) => reshape::sort_out(reshape, self.files, state, self.unreadable, options)?,
        };
        let nothing_to_read = !planned.iter().any(|planned| matches!(planned, Planned::Read { .. }));
        if let Some(ledger) = &ledger
            && nothing_to_read
            && (batch.is_none() || options.dry_run)
        {
            info!("all sources were consumed before: nothing to commit");
            return Ok(End::done(self.recognised(ledger, &planned)));
        }
        plan::keep_head(&mut planned, stdin).await?;
        let workers = Workers::new(options.threads);
        let given =
            ledger.as_ref().and_then(|ledger| ledger.state().schema.clone()).or(options.schema.clone());
        let (mut flow, mut known, mut rows) = (None, None, 0);
        let contract = match (given, self.reshape) {
            (Some(given), _) if nothing_to_read => Arc::new(given),
            (given, None) => {
                let look = if self.elsewhere.is_some() { Look::Whole } else { self.look };
                let common = plan::contract(&mut planned, given.as_ref(), look, options, &workers).await?;
                (known, rows) = (common.known, common.rows);
                match self.elsewhere {
                    Some(_) if given.is_some() => {
                        plan::look_ahead(&planned, &common.schema, options, &workers).await?
                    }
                    _ => common.schema,
                }
            }
            (given, Some(reshape)) => {
                // What is read need not fit the table, only what comes of it.
                let read = plan::contract(&mut planned, None, Look::Whole, options, &workers).await?.schema;
                let planned = Flow::plan(self, reshape, &mut planned, read, &workers).await?;
                let contract = table::contract(given.as_ref(), planned.schema())?;
                flow = Some(planned);
                contract
            }
        };
        let before = ledger.as_ref().and_then(|ledger| ledger.state().schema.clone());
        let created = ledger.is_none();
        let mut session = self.begin(ledger, Arc::clone(&contract), batch, &workers).await?;
        session.expect(rows);
        // Once it is read standard input cannot be read again, so no other writer may get ahead of the creation then. And
        // whoever is elsewhere finds the table where it is.
        let early = reads_stdin(self.files) || self.elsewhere.is_some();
        if early || flow.is_some() {
            probe.ended().await?;
        }
        if early && !options.dry_run && !session.create_table().await? {
            return Ok(End::Overtaken);
        }
        let ways = Ways { flow, known, workers };
        self.run(session, planned, ways, probe, before.as_ref(), created).await
    }

    /// Judges and writes everything, then commits.
    async fn run(
        &self,
        mut session: Session,
        planned: Vec<Planned>,
        mut ways: Ways,
        probe: &mut Probe,
        before: Option<&arrow_schema::Schema>,
        created: bool,
    ) -> Result<End> {
        let options = self.options;
        let mut numbers = Vec::with_capacity(planned.len());
        for planned in &planned {
            numbers.push(match planned {
                Planned::Read { note, .. } | Planned::Reshaped { note } | Planned::Recognised { note } => {
                    session.add_source(note.clone())?
                }
                Planned::Skipped(skipped) => {
                    session.skip_source(skipped.clone());
                    0
                }
            });
        }
        let planned = Arc::new(planned);
        let mut session = match (ways.flow.take(), self.elsewhere) {
            (Some(flow), _) => {
                flow.judge(self, &mut session, &planned, &numbers).await?;
                session
            }
            (None, Some(elsewhere)) => {
                let sources = planned.iter().zip(&numbers).filter_map(|(planned, number)| match planned {
                    Planned::Read { file, .. } => Some((*number, file.clone())),
                    _ => None,
                });
                elsewhere.judge(session, sources.collect(), options, self.progress).await?
            }
            (None, None) => match self.judge(session, &planned, &numbers, ways, probe).await? {
                Some(session) => session,
                None => return Ok(End::Surprised),
            },
        };
        if self.progress.is_cancelled() {
            return Err(Error::Interrupted);
        }
        let lookups = session.lookups();
        let new_columns = new_columns(before, session.schema());
        if options.dry_run {
            let mut report = self.report(None);
            report.skipped = skipped(&planned);
            report.rows = session.forecast();
            report.lookups = lookups;
            report.new_columns = new_columns;
            report.created = created;
            report.sources = self.sources(&planned);
            return Ok(End::done(report));
        }
        session.seal().await?;
        // Row groups are copied long after their keys were read: what was copied must be what was judged.
        plan::check_unchanged(&planned).await?;
        if self.progress.is_cancelled() {
            return Err(Error::Interrupted);
        }
        self.progress.begin_commit();
        probe.ended().await?;
        if !session.create_table().await? {
            return Ok(End::Overtaken);
        }
        let (committed, mut ledger) = session.commit().await?;
        if let Err(error) = compact::compact_if_due(&mut ledger, options.memory).await {
            // The rows are committed; the next run tries again.
            warn!("the index could not be compacted: {error}");
        }
        let mut report = self.report(Some(&committed));
        report.skipped = skipped(&planned);
        report.committed = !committed.batch_replayed;
        report.lookups = lookups;
        report.created = created;
        report.new_columns = new_columns;
        report.sources = self.sources(&planned);
        Ok(End::done(report))
    }

    /// Judges and writes the rows of all sources, one source after the other: they are read while the store is still being
    /// probed. `None` if there are rows of which less is known than it takes.
    async fn judge(
        &self,
        session: Session,
        planned: &Arc<Vec<Planned>>,
        numbers: &[u32],
        ways: Ways,
        probe: &mut Probe,
    ) -> Result<Option<Session>> {
        let (options, workers) = (self.options, &ways.workers);
        let recipe = Recipe {
            spec: Arc::new(session.identity().token.clone()),
            contract: Contract::new(Arc::clone(session.schema())),
            known: ways.known,
            max_line: options.max_line,
            piece_rows: feed::piece_rows(options.memory, workers),
            block_lines: feed::block_lines(session.schema()),
            memory: options.memory,
            workers: workers.clone(),
        };
        let mut judge = Judge::new(self, session, Arc::clone(planned), recipe.clone());
        let mut chunks = feed::start(Arc::clone(planned), recipe);
        if let Err(refused) = probe.kept().await {
            judge.session.abandon().await;
            return Err(refused);
        }
        let mut ended = 0;
        // Its room is free again once it was taken.
        while let Some((number, chunk, _room)) = chunks.recv().await {
            if self.progress.is_cancelled() {
                return Err(Error::Interrupted);
            }
            let source = numbers.get(number).copied().unwrap_or_default();
            let chunk = chunk.await?;
            ended += usize::from(matches!(chunk, Prepared::End));
            judge.take(number, source, chunk).await?;
            if judge.surprised {
                return Ok(None);
            }
        }
        judge.judge_waiting().await?;
        // The feed falling silent is not the same as the input being at its end.
        if ended != judge.planned.iter().filter(|planned| matches!(planned, Planned::Read { .. })).count() {
            return Err(Error::Internal("the reading of a source ended before the source did".into()));
        }
        Ok(Some(judge.session))
    }

    /// The outcome of the run that committed this batch before, if one did.
    async fn committed_before(&self, ledger: &mut Ledger, batch: &Batch) -> Result<Option<IngestReport>> {
        let Some((version, ingest)) = committed_before(ledger, batch).await? else { return Ok(None) };
        let mut report = self.report(Some(&Committed::of_entry(version, &ingest)));
        // Besides those that were read, what a query made of them.
        report.sources = match self.reshape {
            Some(_) => self.files.len().saturating_sub(ingest.skipped.len()) as u64,
            None => ingest.sources.len() as u64,
        };
        report.skipped = ingest.skipped.iter().map(told).collect();
        Ok(Some(report))
    }

    /// The report of a run whose sources were all consumed before.
    fn recognised(&self, ledger: &Ledger, planned: &[Planned]) -> IngestReport {
        let mut report = self.report(None);
        report.version = Some(ledger.version());
        report.skipped = skipped(planned);
        for planned in planned {
            if let Planned::Recognised { note } = planned {
                report.rows.add(&note.rows);
            }
        }
        report.sources = self.sources(planned);
        report
    }

    /// How many sources are read or recognised.
    fn sources(&self, planned: &[Planned]) -> u64 {
        let skipped = planned.iter().filter(|planned| matches!(planned, Planned::Skipped(_))).count();
        (self.files.len() - skipped) as u64
    }

    fn report(&self, committed: Option<&Committed>) -> IngestReport {
        let mut report = IngestReport {
            table: self.store.url(),
            batch: self.options.batch_id.clone(),
            dry_run: self.options.dry_run,
            ..IngestReport::default()
        };
        if let Some(committed) = committed {
            report.version = Some(committed.version);
            report.batch_replayed = committed.batch_replayed;
            report.rows = committed.rows;
            report.files = committed.files.len() as u64;
            report.bytes = committed.files.iter().map(|file| file.bytes).sum();
            report.quarantine =
                committed.quarantine.iter().map(|file| self.store.location_of(&file.name)).collect();
        }
        report
    }
}

/// The sources that are left out, whether an earlier attempt failed on them or their footers were found wanting.
fn skipped(planned: &[Planned]) -> Vec<Skipped> {
    let left_out = planned.iter().filter_map(|planned| match planned {
        Planned::Skipped(skipped) => Some(told(skipped)),
        _ => None,
    });
    left_out.collect()
}

fn told(skipped: &SkippedSource) -> Skipped {
    Skipped { url: skipped.url.clone(), reason: skipped.reason.clone() }
}

fn new_columns(before: Option<&arrow_schema::Schema>, now: &arrow_schema::Schema) -> Vec<String> {
    let Some(before) = before else { return Vec::new() };
    let new = now.fields().iter().filter(|field| before.column_with_name(field.name()).is_none());
    new.map(|field| field.name().clone()).collect()
}

fn reads_stdin(files: &[SourceFile]) -> bool {
    files.iter().any(|file| file.url == plan::STDIN)
}

/// A table is no source of itself: what lies in its folder is left out of folders and patterns.
fn leave_out_table(files: Vec<SourceFile>, store: &Store) -> Result<Vec<SourceFile>> {
    let root = format!("{}/", store.url().trim_end_matches('/'));
    let (inside, outside): (Vec<_>, Vec<_>) = files.into_iter().partition(|file| file.url.starts_with(&root));
    match inside.first() {
        Some(file) if outside.is_empty() => Err(Error::Usage(format!(
            "{} lies in the folder of the table itself: a table cannot be ingested into itself",
            file.url
        ))),
        Some(_) => {
            warn!("leaving out {} files that lie in the folder of the table itself", inside.len());
            Ok(outside)
        }
        None => Ok(outside),
    }
}
