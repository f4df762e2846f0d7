//! One life of a writer: judge, stage, commit.
//!
//! A session sees the table as of one version, judges chunks of rows against it and against what it accepted itself,
//! stages the survivors under names that were never used, and commits everything with one ledger entry. Until that
//! entry stands nothing is visible; dropped at any instant, a session leaves only files that no version names.
//!
//! Both doors, the command and the operator, lead here. A program that embeds the library begins with
//! [`Table`](crate::table::Table), which opens sessions.

mod commit;
mod cutting;
mod encoding;
mod fenced;
mod file;
mod judge;
mod keyless;
mod prepared;
mod quarantine;
mod rebase;
#[cfg(feature = "cluster")]
mod share;
mod stage;

pub use commit::Committed;
pub(crate) use commit::committed_before;
pub use judge::Verdicts;
#[cfg(feature = "datafusion")]
pub(crate) use judge::sorted;
pub(crate) use judge::{Sieve, Sifted};
pub(crate) use keyless::{NO_KEY, record, without_key};
pub use prepared::Prepared;
pub use quarantine::QuarantinedRow;
#[cfg(feature = "cluster")]
pub(crate) use share::Share;
pub use stage::{Chunk, Rows};

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::{Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::index::SortedBatch;
use crate::lease::{Held, Kind, Lease};
use crate::ledger::entry::{Batch, SkippedSource, SourceUse};
use crate::ledger::log::Proposer;
use crate::ledger::name::Namer;
use crate::ledger::{Entry, Ledger, TableIdentity};
use crate::options::default_memory;
use crate::policy::{NullKey, Policy};
use crate::runs::{Known, Own};
use crate::schema;
use crate::sink::{Partition, SinkOptions};
use crate::store::Store;
use crate::token::{BoundKey, Tokens};
use crate::verdict::{Lookups, Verdict};
use crate::workers::Workers;
use quarantine::QuarantineWriter;
use rebase::Staged;
use stage::Stager;

/// What a session is given besides its table. `Default` is what suits most programs.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionOptions {
    /// What becomes of rows without a key; `None` = as the table's policy says.
    pub null_key: Option<NullKey>,
    /// How data files are written.
    pub sink: SinkOptions,
    /// Bytes that session set, index and writers may take together.
    pub memory: u64,
    /// Judge, but write nothing.
    pub dry_run: bool,
    /// The batch the session's commit makes idempotent.
    pub batch: Option<Batch>,
    /// Whether accepted rows are handed on to somebody besides the table, so that they cannot be taken back: then a
    /// commit that came after another writer's who accepted some of them is [`Error::Overtaken`], and not corrected.
    pub handed_on: bool,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            null_key: None,
            sink: SinkOptions::default(),
            memory: default_memory(),
            dry_run: false,
            batch: None,
            handed_on: false,
        }
    }
}

/// One writer's life on one table.
pub struct Session {
    table: Table,
    store: Store,
    by: Proposer,
    namer: Namer,
    sieve: Sieve,
    own: Own,
    /// None once everything is staged.
    stager: Option<Stager>,
    staged: Option<Staged>,
    /// Entries that were applied since the session began, and that its rows were not judged against yet.
    news: Vec<Entry>,
    quarantine: QuarantineWriter,
    contract: Contract,
    null_key: NullKey,
    /// Whether `null_key` is what the table's policy says, not what the run asked for itself.
    null_key_by_policy: bool,
    memory: u64,
    dry_run: bool,
    handed_on: bool,
    sink: SinkOptions,
    partition_by: Vec<String>,
    workers: Workers,
    batch: Option<Batch>,
    sources: Vec<SourceUse>,
    skipped: Vec<SkippedSource>,
    keyless: u64,
    /// How many ledger entries it had seen when it began.
    stage: u64,
    /// The key, bound to the schema of the batch that was judged last.
    bound: Option<(SchemaRef, BoundKey)>,
    lease: Held,
}

/// The table a session works on.
enum Table {
    Existing(Box<Ledger>),
    /// It does not exist yet: what it is to be.
    Planned(Box<TableIdentity>, Policy),
}

/// The schema that every row of the table fits, and the version that it was derived from.
#[derive(Debug, Clone)]
struct Contract {
    schema: SchemaRef,
    /// The version whose schema `schema` widens; 0 if there was none.
    base: u64,
    /// Whether `schema` is wider than that of `base`.
    widened: bool,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("store", &self.store)
            .field("session", &self.by.session)
            .finish_non_exhaustive()
    }
}

impl Session {
    /// Begins a session on the table of `ledger`. `schema` is the contract the rows will fit: the table's own, or
    /// a widening of it.
    pub async fn begin(
        ledger: Ledger,
        schema: Arc<Schema>,
        options: SessionOptions,
        workers: &Workers,
    ) -> Result<Self> {
        let store = ledger.store().clone();
        let base = ledger.state().schema_version;
        let widened = ledger.state().schema.as_ref() != Some(&*schema);
        let known = Known::open(&store, ledger.state(), options.memory / 8).await;
        let known = ledger.or_expired(known).await?;
        let entries = ledger.state().entries;
        let policy = ledger.state().policy.clone();
        let contract = Contract { schema, base, widened };
        Self::assemble(
            Table::Existing(Box::new(ledger)),
            store,
            known,
            entries,
            &policy,
            contract,
            options,
            workers,
        )
    }

    /// Begins a session on a table that does not exist yet. It is created by [`create_table`](Self::create_table), or
    /// at the latest by the commit, so that a run that fails leaves no table behind.
    pub fn begin_new(
        store: Store,
        identity: TableIdentity,
        policy: Policy,
        schema: Arc<Schema>,
        options: SessionOptions,
        workers: &Workers,
    ) -> Result<Self> {
        let contract = Contract { schema, base: 0, widened: true };
        let table = Table::Planned(Box::new(identity), policy.clone());
        Self::assemble(table, store, Known::nothing(), 0, &policy, contract, options, workers)
    }

    #[expect(clippy::too_many_arguments, reason = "the one place where all parts of a session meet")]
    fn assemble(
        table: Table,
        store: Store,
        known: Known,
        entries: u64,
        policy: &Policy,
        contract: Contract,
        options: SessionOptions,
        workers: &Workers,
    ) -> Result<Self> {
        // A stranger's table may have a schema of which a row of nulls takes gigabytes.
        schema::check_width(&contract.schema)
            .map_err(|reason| Error::Refused(format!("the table's schema cannot be used: {reason}")))?;
        let by = Proposer::new()?;
        let namer = Namer::new(&by.session, entries);
        let spec = match &table {
            Table::Existing(ledger) => &ledger.identity().token,
            Table::Planned(identity, _) => &identity.token,
        };
        let mut sink = options.sink;
        sink.partition_by = Partition::parse_all(&policy.partition_by)?;
        let stager = Stager::new(&contract.schema, spec, &sink, workers, options.memory / 8 * 3)?;
        let own = options.memory / 8 * 3;
        let lease = if options.dry_run {
            Held::none()
        } else {
            let mut lease = Lease::new(&by.session, &by.writer, Kind::Ingest, entries);
            lease.batch = options.batch.as_ref().map(|batch| batch.id.clone());
            Held::begin(&store, lease)
        };
        Ok(Self {
            table,
            namer,
            sieve: Sieve::new(&store, known),
            store,
            own: if options.dry_run { Own::aside(own)? } else { Own::new(own) }.on_threads(workers.count()),
            stager: Some(stager),
            staged: None,
            news: Vec::new(),
            sink,
            partition_by: policy.partition_by.clone(),
            workers: workers.clone(),
            quarantine: QuarantineWriter::default(),
            contract,
            null_key: options.null_key.unwrap_or(policy.null_key),
            null_key_by_policy: options.null_key.is_none(),
            memory: options.memory,
            dry_run: options.dry_run,
            handed_on: options.handed_on,
            batch: options.batch,
            sources: Vec::new(),
            skipped: Vec::new(),
            keyless: 0,
            stage: entries,
            bound: None,
            lease,
            by,
        })
    }

    /// The table's identity.
    pub fn identity(&self) -> &TableIdentity {
        match &self.table {
            Table::Existing(ledger) => ledger.identity(),
            Table::Planned(identity, _) => identity,
        }
    }

    /// Creates the table, if it does not exist yet. `false` = another writer created it meanwhile: this session's
    /// tokens mean nothing there, so begin again on theirs.
    pub async fn create_table(&mut self) -> Result<bool> {
        let Table::Planned(identity, policy) = &self.table else { return Ok(true) };
        let ledger =
            Ledger::create(self.store.clone(), identity.as_ref().clone(), policy.clone(), &self.by).await?;
        let ours = ledger.identity() == identity.as_ref() && ledger.state().policy == *policy;
        // Nothing was judged against entries beyond the first.
        if !ours || ledger.state().entries > 1 {
            return Ok(false);
        }
        self.table = Table::Existing(Box::new(ledger));
        Ok(true)
    }

    /// Says that so many rows will be judged, at most: it saves some time, and nothing depends on it.
    pub fn expect(&mut self, rows: u64) {
        self.own.expect(rows);
    }

    /// The schema every row fits.
    pub fn schema(&self) -> &SchemaRef {
        &self.contract.schema
    }

    /// Widens the contract: rows written from here on may have the new columns.
    pub async fn widen(&mut self, schema: Arc<Schema>) -> Result<()> {
        if *schema != *self.contract.schema {
            let stager = self.stager.as_mut().ok_or_else(finished)?;
            stager.widen(&self.store, &mut self.namer, &schema).await?;
            self.contract.schema = schema;
            self.contract.widened = true;
        }
        Ok(())
    }

    /// Takes note of a source; its number is what rows are later judged and written under. A source that another
    /// version consumed comes with `replay_of`, and with all its rows counted if it is not read again.
    pub fn add_source(&mut self, source: SourceUse) -> Result<u32> {
        let number = u32::try_from(self.sources.len())
            .map_err(|_| Error::Usage("more than 2^32 sources in one run: split the run".into()))?;
        self.sources.push(source);
        self.lease.update(|done| done.sources += 1);
        Ok(number)
    }

    /// Takes note of a source that cannot be recognised when it comes again, whatever it is called: a program's own rows.
    pub fn source(&mut self, name: &str) -> Result<u32> {
        self.add_source(SourceUse { url: name.to_owned(), ..SourceUse::default() })
    }

    /// Takes note of a source that was left out.
    pub fn skip_source(&mut self, skipped: SkippedSource) {
        self.skipped.push(skipped);
    }

    /// The sources so far, with their rows by verdict.
    pub fn sources(&self) -> &[SourceUse] {
        &self.sources
    }

    /// What judging has taken so far. (Once everything is staged that is forgotten.)
    pub fn lookups(&self) -> Lookups {
        self.sieve.lookups().plus(self.own.lookups())
    }

    /// Judges rows of `source` that a program holds in memory. The verdicts are final for this session: accepted rows
    /// must be [written](Self::write), or the session is not committed. Rows without a key go to quarantine, or are an
    /// error that names the first of them, as the session was told.
    pub async fn judge(&mut self, source: u32, rows: &RecordBatch) -> Result<Verdicts> {
        let tokens = self.bind(source, rows.schema_ref())?.tokenise(rows)?;
        self.judge_tokenised(source, rows, &tokens).await
    }

    /// As [`Self::judge`], for those who made the tokens of `rows` themselves, for instance on threads of their own.
    pub async fn judge_tokenised(
        &mut self,
        source: u32,
        rows: &RecordBatch,
        tokens: &Tokens,
    ) -> Result<Verdicts> {
        let sifted = self.sift(judge::sorted(std::iter::once(tokens))?).await?;
        let all = self.judge_batches(source, &[(rows, tokens)], sifted).await?;
        all.into_iter().next().ok_or_else(|| Error::Internal("a chunk was not judged".into()))
    }

    /// As [`Self::judge_tokenised`] batch by batch, but in one go, as [`Self::judge_together`] does. Their tokens
    /// are [sorted] and sifted.
    pub(crate) async fn judge_batches(
        &mut self,
        source: u32,
        batches: &[(&RecordBatch, &Tokens)],
        sifted: Sifted,
    ) -> Result<Vec<Verdicts>> {
        if let Some((rows, tokens)) =
            batches.iter().find(|(rows, tokens)| tokens.tokens.len() != rows.num_rows())
        {
            let (tokens, rows) = (tokens.tokens.len(), rows.num_rows());
            return Err(Error::Usage(format!("{tokens} tokens were given for {rows} rows")));
        }
        let mut before = self.source_of(source)?.rows.read;
        let chunks: Vec<(u32, &Tokens)> = batches.iter().map(|(_, tokens)| (source, *tokens)).collect();
        let all = self.judge_sifted(&chunks, sifted).await?;
        for ((rows, _), verdicts) in batches.iter().zip(&all) {
            self.set_aside_keyless(source, before, rows, verdicts).await?;
            before += rows.num_rows() as u64;
        }
        Ok(all)
    }

    /// The table's key, bound to the schema of rows of `source`.
    fn bind(&mut self, source: u32, schema: &SchemaRef) -> Result<BoundKey> {
        if let Some((known, key)) = &self.bound
            && known == schema
        {
            return Ok(key.clone());
        }
        let key = self.identity().token.bind(schema, &self.source_of(source)?.url)?;
        self.bound = Some((Arc::clone(schema), key.clone()));
        Ok(key)
    }

    /// Judges one chunk of `source` by its tokens alone. The verdicts are final for this session: accepted rows must be
    /// written, and rows without a key, which count as rejected, [set aside](Self::set_aside). A session that did not
    /// is not committed.
    pub async fn judge_tokens(&mut self, source: u32, tokens: &Tokens) -> Result<Verdicts> {
        let verdicts = self.judge_together(&[(source, tokens)]).await?;
        verdicts.into_iter().next().ok_or_else(|| Error::Internal("a chunk was not judged".into()))
    }

    /// How many of the rows to come are best [judged together](Self::judge_together); 0 where every chunk may be judged by
    /// itself. Judging changes it.
    pub fn best_batch(&self) -> u64 {
        self.sieve.best_batch()
    }

    /// As [`Self::judge_tokens`] chunk by chunk, each with its source, but in one go: much cheaper against an index that does not
    /// fit into memory.
    pub async fn judge_together(&mut self, chunks: &[(u32, &Tokens)]) -> Result<Vec<Verdicts>> {
        let sifted = self.sift(judge::sorted(chunks.iter().map(|(_, tokens)| *tokens))?).await?;
        self.judge_sifted(chunks, sifted).await
    }

    /// What the table knows, for those who sift batches themselves, several at a time.
    #[cfg(feature = "datafusion")]
    pub(crate) fn sieve(&self) -> Sieve {
        self.sieve.clone()
    }

    /// What the session's own keys have taken so far.
    #[cfg(feature = "datafusion")]
    pub(crate) fn own_lookups(&self) -> Lookups {
        self.own.lookups()
    }

    async fn sift(&mut self, sorted: SortedBatch) -> Result<Sifted> {
        match self.sieve.sift(sorted).await {
            Ok((sifted, _)) => Ok(sifted),
            Err(error) => Err(self.reason(error).await),
        }
    }

    async fn judge_sifted(&mut self, chunks: &[(u32, &Tokens)], sifted: Sifted) -> Result<Vec<Verdicts>> {
        let mut judged = Vec::with_capacity(chunks.len());
        for (source, tokens) in chunks {
            // Rows without a key cannot be recognised: those of a source that was consumed before are not kept twice.
            let replay = self.source_of(*source)?.replay_of.is_some();
            let null_key = if replay { NullKey::Quarantine } else { self.null_key };
            judged.push(judge::Judged { tokens, null_key });
        }
        let mut all = match judge::judge(&self.store, &mut self.namer, &mut self.own, &judged, sifted).await {
            Ok(all) => all,
            Err(error) => return Err(self.reason(error).await),
        };
        for ((source, tokens), verdicts) in chunks.iter().zip(&mut all) {
            self.count(*source, tokens, verdicts)?;
        }
        Ok(all)
    }

    /// Takes the verdicts on a chunk into account.
    fn count(&mut self, source: u32, tokens: &Tokens, verdicts: &mut Verdicts) -> Result<()> {
        self.lease.update(|done| done.rows += tokens.tokens.len() as u64);
        let replay = self.source_of(source)?.replay_of.is_some();
        let keep_keyless = self.null_key == NullKey::Keep;
        let replayed =
            if replay && keep_keyless { std::mem::take(&mut verdicts.no_key).len() as u64 } else { 0 };
        self.keyless += verdicts.keyless;
        let rows = &mut self.source_mut(source)?.rows;
        rows.count(Verdict::Accepted, verdicts.accepted);
        rows.count(Verdict::Duplicate, verdicts.duplicate);
        rows.count(Verdict::Replayed, replayed);
        rows.count(Verdict::Rejected, verdicts.no_key.len() as u64);
        Ok(())
    }

    /// Stages accepted rows, in order.
    pub async fn write(&mut self, rows: Rows) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        let stager = self.stager.as_mut().ok_or_else(finished)?;
        if let Err(error) = stager.push(&self.store, &mut self.namer, rows).await {
            return Err(self.reason(error).await);
        }
        self.note_staged();
        Ok(())
    }

    /// Takes note of what is staged by now, for the lease.
    fn note_staged(&self) {
        if let Some(stager) = &self.stager {
            let (files, bytes) = stager.staged();
            self.lease.update(|done| (done.files, done.bytes) = (files, bytes));
        }
    }

    /// Keeps out a row that was never judged (a malformed line, say): counts it as rejected and writes it to
    /// quarantine.
    pub async fn reject(&mut self, source: u32, row: &QuarantinedRow) -> Result<()> {
        self.source_mut(source)?.rows.count(Verdict::Rejected, 1);
        self.set_aside(row).await
    }

    /// Writes a row that was judged to have no key to quarantine.
    pub async fn set_aside(&mut self, row: &QuarantinedRow) -> Result<()> {
        if self.dry_run {
            return Ok(());
        }
        self.quarantine.push(&self.store, &mut self.namer, row).await
    }

    /// Whether a row without a key is to stop the run.
    pub fn fails_without_key(&self) -> bool {
        self.null_key == NullKey::Fail
    }

    /// How files that were staged before are written anew: they have their folders already.
    fn rewriting(&self) -> SinkOptions {
        SinkOptions { partition_by: Vec::new(), ..self.sink.clone() }
    }

    fn source_of(&self, number: u32) -> Result<&SourceUse> {
        self.sources
            .get(number as usize)
            .ok_or_else(|| Error::Internal(format!("there is no source {number}")))
    }

    fn source_mut(&mut self, number: u32) -> Result<&mut SourceUse> {
        self.sources
            .get_mut(number as usize)
            .ok_or_else(|| Error::Internal(format!("there is no source {number}")))
    }
}

fn finished() -> Error {
    Error::Internal("a session was used after its end".into())
}
