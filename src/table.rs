//! A table, as a program that embeds the library sees it: open it or create it, begin sessions on it, and ask what became
//! of a batch.
//!
//! ```
//! # use std::sync::Arc;
//! # use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
//! use dedupe::session::{Rows, SessionOptions};
//! use dedupe::store::Store;
//! use dedupe::table::{NewTable, Table};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> dedupe::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let location = folder.path().join("readings").display().to_string();
//! # let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
//! # let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 1]));
//! # let batch = RecordBatch::try_from_iter([("id", ids), ("value", values)]).unwrap();
//! let store = Store::open(&location, &[])?;
//! let table = Table::open_or_create(store, &batch.schema(), &NewTable::keyed_by(["id"])).await?;
//!
//! let mut session = table.begin(&batch.schema(), SessionOptions::default()).await?;
//! let source = session.source("sensors")?;
//! let verdicts = session.judge(source, &batch).await?;
//! session.write(Rows::of_batch(source, batch, verdicts)).await?;
//! let (committed, _) = session.commit().await?;
//! assert_eq!((committed.rows.accepted, committed.rows.duplicate), (2, 1));
//! # Ok(())
//! # }
//! ```
//!
//! Nothing is visible before the commit. A session that is dropped leaves the table as it was.
//!
//! # A sink in two phases
//!
//! Where something else decides whether the rows are to count (a checkpoint of Flink's, a transaction that spans several
//! systems), a commit is prepared, kept, and made good later, also by another process:
//!
//! ```
//! # use std::sync::Arc;
//! # use arrow::array::{ArrayRef, RecordBatch, StringArray};
//! # use dedupe::ledger::entry::Batch;
//! # use dedupe::session::{Prepared, Rows, SessionOptions};
//! # use dedupe::store::Store;
//! # use dedupe::table::{NewTable, Table};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> dedupe::Result<()> {
//! # let folder = tempfile::tempdir().unwrap();
//! # let location = folder.path().join("readings").display().to_string();
//! # let ids: ArrayRef = Arc::new(StringArray::from(vec!["a", "b", "a"]));
//! # let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
//! # let store = Store::open(&location, &[])?;
//! # let mut table = Table::open_or_create(store, &batch.schema(), &NewTable::keyed_by(["id"])).await?;
//! let mut options = SessionOptions::default();
//! options.batch = Some(Batch::named("checkpoint-17"));
//! let mut session = table.begin(&batch.schema(), options).await?;
//! # let source = session.source("operator-3")?;
//! # let verdicts = session.judge(source, &batch).await?;
//! # session.write(Rows::of_batch(source, batch, verdicts)).await?;
//! let kept: Vec<u8> = session.prepare().await?.encode()?;
//!
//! // Later, here or elsewhere, once or several times: it counts once.
//! let prepared = Prepared::decode(&kept)?;
//! let first = table.commit(&prepared).await?;
//! let again = table.commit(&prepared).await?;
//! assert_eq!((first.version, again.version), (1, 1));
//! assert_eq!((first.batch_replayed, again.batch_replayed), (false, true));
//! assert_eq!(table.outcome("checkpoint-17").await?.map(|outcome| outcome.rows.accepted), Some(2));
//! # Ok(())
//! # }
//! ```
//!
//! What is not to count is [aborted](Table::abort), or simply forgotten.

use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};

use crate::error::{Error, Result};
use crate::ledger::entry::Batch;
use crate::ledger::log::Proposer;
use crate::ledger::{Ledger, TableIdentity};
use crate::options::default_memory;
use crate::policy::Policy;
use crate::schema;
use crate::session::{Committed, Prepared, Session, SessionOptions, committed_before};
use crate::store::Store;
use crate::token::{TokenHash, TokenKey, TokenSpec};
use crate::workers::Workers;

/// An open table. Cheap to clone but for its ledger, whose size follows the number of commits since it was opened.
#[derive(Debug, Clone)]
pub struct Table {
    ledger: Ledger,
    workers: Workers,
}

/// What a table is to be that does not exist yet. The key never changes later.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct NewTable {
    /// The columns that identify an event, in the order in which they are hashed.
    pub key: Vec<String>,
    /// The token function.
    pub hash: TokenHash,
    /// What becomes of rows without a key, and how the data is partitioned.
    pub policy: Policy,
}

impl NewTable {
    /// A table whose events are identified by these columns, and that is else as by default.
    pub fn keyed_by<S: Into<String>>(columns: impl IntoIterator<Item = S>) -> Self {
        Self { key: columns.into_iter().map(Into::into).collect(), ..Self::default() }
    }
}

impl Table {
    /// Opens the table in `store`; `None` if there is none.
    pub async fn open(store: Store) -> Result<Option<Self>> {
        Ok(Ledger::open(store).await?.map(Self::of))
    }

    /// Opens the table in `store` as it was at `version`, to be read: [`Error::SnapshotExpired`] if a vacuum has given
    /// that up.
    pub async fn open_at(store: Store, version: u64) -> Result<Option<Self>> {
        Ok(Ledger::open_at(store, version).await?.map(Self::of))
    }

    /// Opens the table in `store`, or creates it there, empty. `schema` is that of the rows to come; a new table takes the
    /// kinds of its key columns from it. [`Error::Refused`] if there is one with another key, or if the store cannot hold
    /// a table because it does not keep conditional writes.
    pub async fn open_or_create(store: Store, schema: &Schema, new: &NewTable) -> Result<Self> {
        if let Some(table) = Self::open(store.clone()).await? {
            return table.keyed_as(new);
        }
        store.probe().await?;
        let spec = TokenSpec::new(&new.key, schema, new.hash, TokenKey::random()?)?;
        let (identity, by) = (TableIdentity::new(spec)?, Proposer::new()?);
        Self::of(Ledger::create(store, identity, new.policy.clone(), &by).await?).keyed_as(new)
    }

    fn of(ledger: Ledger) -> Self {
        Self {
            ledger,
            workers: Workers::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)),
        }
    }

    fn keyed_as(self, new: &NewTable) -> Result<Self> {
        let key = self.key();
        if key.iter().eq(new.key.iter()) {
            return Ok(self);
        }
        Err(Error::Refused(format!(
            "the key of the table at {} is {}, not {}: a table's key never changes",
            self.ledger.store().url(),
            key.join(","),
            new.key.join(",")
        )))
    }

    /// The names of its key columns.
    pub fn key(&self) -> Vec<&str> {
        self.ledger.identity().token.columns.iter().map(|column| column.name.as_str()).collect()
    }

    /// Its ledger, as of the version that was opened: what it holds, and how that came to be.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// What it holds by now.
    pub async fn refresh(&mut self) -> Result<()> {
        self.ledger.refresh().await.map(drop)
    }

    /// Does its work on these workers from now on, instead of one for each processor.
    #[must_use]
    pub fn with_workers(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// Begins a session for rows of `schema`, on the table as it is now. The table's schema is widened by what they have
    /// more once the session is committed; [`Error::Refused`] if the two do not go together.
    pub async fn begin(&self, schema: &Schema, options: SessionOptions) -> Result<Session> {
        let mut now = self.clone();
        now.refresh().await?;
        let contract = now.contract(schema)?;
        Session::begin(now.ledger, contract, options, &self.workers).await
    }

    /// The schema that rows of `schema` fit, and all rows so far; [`Error::Refused`] if there is none.
    pub(crate) fn contract(&self, schema: &Schema) -> Result<SchemaRef> {
        let refused = |reason| Error::Refused(format!("these rows cannot be of this table: {reason}"));
        schema::check_names(schema).map_err(refused)?;
        let rows = schema::normalise(schema);
        Ok(Arc::new(match &self.ledger.state().schema {
            Some(table) => schema::widen(table, &rows).map_err(refused)?,
            None => rows,
        }))
    }

    /// The outcome of the commit that made `batch` idempotent; `None` if none did so far.
    pub async fn outcome(&mut self, batch: &str) -> Result<Option<Committed>> {
        self.refresh().await?;
        let Some(seen) = self.ledger.batch(batch).await? else { return Ok(None) };
        let batch = Batch { id: batch.to_owned(), digest: seen.digest };
        let found = committed_before(&mut self.ledger, &batch).await?;
        Ok(found.map(|(version, ingest)| Committed::of_entry(version, &ingest)))
    }

    /// Commits what was [prepared](Session::prepare), in this process or another, judged against all that was committed
    /// since. Called again, also after a crash or by two processes at once, it gives the outcome of the first time.
    /// [`Error::Fenced`] if a vacuum took it for abandoned: then its rows are to be judged and written again.
    pub async fn commit(&mut self, prepared: &Prepared) -> Result<Committed> {
        let store = self.ledger.store().clone();
        let (committed, ledger) =
            Session::commit_prepared(&store, prepared, default_memory(), &self.workers).await?;
        self.ledger = ledger;
        Ok(committed)
    }

    /// Gives up what was prepared: nothing protects it from the next vacuum any more. It is not taken back if it was
    /// committed.
    pub async fn abort(&self, prepared: Prepared) {
        prepared.release(self.ledger.store()).await;
    }
}
