//! A commit in two phases, for those who take part in somebody else's transaction: everything is staged and durable
//! first, and becomes part of the table later, maybe by another process, or never.
//!
//! A prepared commit is plain data. Whoever holds it may commit it, any number of times, from any number of processes:
//! its batch id stands in the ledger once. Until then what it staged is protected from vacuums by a lease, for two hours;
//! after that the next vacuum may take it for abandoned, and committing it ends with [`Error::Fenced`].

use serde::{Deserialize, Serialize};
use tracing::debug;

use super::commit::{Committed, committed_before};
use super::fenced::Watch;
use super::rebase::Staged;
use super::{Contract, Held, Session, Sieve, Table};
use crate::error::{Error, Result};
use crate::lease::{Kind, LONGEST, Lease};
use crate::ledger::entry::{
    Batch, DataFile, InlineTokens, QuarantineFile, RunRef, SchemaChange, SkippedSource, SourceUse,
};
use crate::ledger::log::Proposer;
use crate::ledger::name::Namer;
use crate::ledger::{Entry, Ledger};
use crate::policy::NullKey;
use crate::runs::{Known, Own, Tokens};
use crate::sink::SinkOptions;
use crate::store::Store;
use crate::verdict::Accounting;
use crate::workers::Workers;

/// The format version of prepared commits that this program writes, and the only one it reads.
const FORMAT: u32 = 2;

/// A commit that was prepared: everything it names is durable. Made by [`Session::prepare`], committed by
/// [`Table::commit`](crate::table::Table::commit).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Prepared {
    format: u32,
    table: String,
    /// The session that staged it, whose name its lease bears.
    session: String,
    writer: String,
    /// How many ledger entries that session had seen when it began.
    stage: u64,
    batch: Batch,
    contract: SchemaChange,
    widened: bool,
    null_key: NullKey,
    null_key_by_policy: bool,
    partition_by: Vec<String>,
    handed_on: bool,
    sources: Vec<SourceUse>,
    skipped: Vec<SkippedSource>,
    keyless: u64,
    files: Vec<DataFile>,
    runs: Vec<RunRef>,
    inline: InlineTokens,
    quarantine: Vec<QuarantineFile>,
}

impl Prepared {
    /// The batch that its commit makes idempotent.
    pub fn batch(&self) -> &str {
        &self.batch.id
    }

    /// The rows by verdict, as far as they were judged. If other writers commit first some accepted rows may yet turn out
    /// to be duplicates.
    pub fn rows(&self) -> Accounting {
        let mut rows = Accounting::default();
        self.sources.iter().for_each(|source| rows.add(&source.rows));
        rows
    }

    /// As bytes, to be kept by whoever coordinates the transaction.
    pub fn encode(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self)
            .map_err(|e| Error::Internal(format!("a prepared commit cannot be written as JSON: {e}")))
    }

    /// Reads what [`Self::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let damaged = |e: serde_json::Error| Error::corrupt("a prepared commit", e);
        let header: Header = serde_json::from_slice(bytes).map_err(damaged)?;
        if header.format != FORMAT {
            return Err(Error::Refused(format!(
                "this prepared commit has format {}, this program reads {FORMAT}: commit it with the version of dedupe \
                 that prepared it",
                header.format
            )));
        }
        serde_json::from_slice(bytes).map_err(damaged)
    }

    fn lease(&self) -> Lease {
        let mut lease = Lease::new(&self.session, &self.writer, Kind::Ingest, self.stage);
        lease.batch = Some(self.batch.id.clone());
        lease.lease_seconds = LONGEST;
        let rows = self.rows();
        lease.done.sources = self.sources.len() as u64;
        (lease.done.rows, lease.done.files) = (rows.read, self.files.len() as u64);
        lease.done.bytes = self.files.iter().map(|file| file.bytes).sum();
        lease
    }

    /// Takes its lease back: nothing protects what it staged any more, unless it is committed.
    pub(crate) async fn release(&self, store: &Store) {
        if let Err(error) = store.delete(&self.lease().object()).await {
            debug!("the lease of a prepared commit could not be taken back: {error}");
        }
    }

    /// The schema that its rows fit.
    fn contract(&self) -> Contract {
        Contract {
            schema: self.contract.schema.clone().into(),
            base: self.contract.base,
            widened: self.widened,
        }
    }
}

impl Session {
    /// Makes everything that the session is to commit durable, and gives what it takes to commit it later. The session
    /// needs a batch id, by which a second commit of the same is recognised. A table that does not exist yet is created,
    /// without rows.
    pub async fn prepare(mut self) -> Result<Prepared> {
        match self.prepare_all().await {
            Ok(prepared) => {
                self.lease.end().await;
                if let Err(error) = prepared.lease().write(&self.store).await {
                    debug!("the lease of a prepared commit could not be written: {error}");
                }
                Ok(prepared)
            }
            Err(error) => Err(self.watch().reason(error).await),
        }
    }

    async fn prepare_all(&mut self) -> Result<Prepared> {
        let batch = self.batch.clone().ok_or_else(|| {
            Error::Usage(
                "a commit is prepared under a batch id, by which it is recognised: give the session one"
                    .into(),
            )
        })?;
        self.seal().await?;
        if !self.create_table().await? {
            return Err(Error::Refused(
                "another writer created the table meanwhile; nothing was prepared. Run again".into(),
            ));
        }
        let staged = self.staged.take().ok_or_else(super::finished)?;
        Ok(Prepared {
            format: FORMAT,
            table: self.identity().table.clone(),
            session: self.by.session.clone(),
            writer: self.by.writer.clone(),
            stage: self.stage,
            batch,
            contract: SchemaChange {
                base: self.contract.base,
                schema: self.contract.schema.as_ref().clone(),
            },
            widened: self.contract.widened,
            null_key: self.null_key,
            null_key_by_policy: self.null_key_by_policy,
            partition_by: self.partition_by.clone(),
            handed_on: self.handed_on,
            sources: self.sources.clone(),
            skipped: self.skipped.clone(),
            keyless: self.keyless,
            runs: staged.tokens.runs(),
            inline: staged.tokens.inline(),
            files: staged.files,
            quarantine: staged.quarantine,
        })
    }

    /// Commits what was prepared, by this process or another, judged against whatever was committed since. If it was
    /// committed before, that is the outcome.
    pub(crate) async fn commit_prepared(
        store: &Store,
        prepared: &Prepared,
        memory: u64,
        workers: &Workers,
    ) -> Result<(Committed, Ledger)> {
        // The ledger as the rows were judged, so that everything after it is news. (The first entry, which creates the
        // table, is nothing to be judged against.)
        let ledger = Ledger::folded_at(store.clone(), prepared.stage.saturating_sub(1)).await?;
        let mut ledger = ledger.ok_or_else(|| Error::Usage(format!("{} is not a table", store.url())))?;
        if ledger.identity().table != prepared.table {
            return Err(Error::Refused(format!(
                "the commit of batch {:?} was prepared for table {}, and {} is table {}",
                prepared.batch.id,
                prepared.table,
                store.url(),
                ledger.identity().table
            )));
        }
        let mut news = Vec::new();
        ledger.refresh_into(&mut news).await?;
        // What it staged may have been merged and deleted since.
        let ended = match committed_before(&mut ledger, &prepared.batch).await? {
            Some((version, ingest)) => (Committed::of_entry(version, &ingest), ledger),
            None => Self::resume(prepared, ledger, news, memory, workers).await?.commit().await?,
        };
        prepared.release(store).await;
        Ok(ended)
    }

    /// The session that `prepared` something, as it stood then, but under a name of its own: two processes that commit the
    /// same must not give the same name to what a lost race makes them write anew.
    async fn resume(
        prepared: &Prepared,
        ledger: Ledger,
        news: Vec<Entry>,
        memory: u64,
        workers: &Workers,
    ) -> Result<Self> {
        let store = ledger.store().clone();
        let by = Proposer::new()?;
        let tokens = match Tokens::reopen(&store, &prepared.runs, prepared.inline.clone()).await {
            Ok(tokens) => tokens,
            Err(error) => return Err(Watch::of(&ledger, prepared.stage).reason(error).await),
        };
        Ok(Self {
            namer: Namer::new(&by.session, ledger.state().entries),
            table: Table::Existing(Box::new(ledger)),
            sieve: Sieve::new(&store, Known::nothing()),
            store,
            own: Own::new(0),
            stager: None,
            staged: Some(Staged {
                files: prepared.files.clone(),
                tokens,
                quarantine: prepared.quarantine.clone(),
            }),
            news,
            sink: SinkOptions::default(),
            partition_by: prepared.partition_by.clone(),
            workers: workers.clone(),
            quarantine: Default::default(),
            contract: prepared.contract(),
            null_key: prepared.null_key,
            null_key_by_policy: prepared.null_key_by_policy,
            memory,
            dry_run: false,
            handed_on: prepared.handed_on,
            batch: Some(prepared.batch.clone()),
            sources: prepared.sources.clone(),
            skipped: prepared.skipped.clone(),
            keyless: prepared.keyless,
            stage: prepared.stage,
            bound: None,
            lease: Held::none(),
            by,
        })
    }
}
