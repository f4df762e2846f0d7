//! How a run begins on a table, or makes one: what it was told has to fit what the table is, and the store has to keep its
//! word before anything is written there.

use arrow_schema::SchemaRef;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::warn;

use super::Run;
use crate::error::{Error, Result};
use crate::ledger::entry::Batch;
use crate::ledger::{Ledger, TableIdentity};
use crate::options::Risk;
use crate::policy::Policy;
use crate::session::{Session, SessionOptions};
use crate::sink::SinkOptions;
use crate::store::passing::Passing;
use crate::token::{TokenKey, TokenSpec};
use crate::workers::Workers;

/// Whether the store of a new table keeps what tables rest on: being found out while the sources are looked at.
#[derive(Debug, Default)]
pub(super) struct Probe {
    kept: Option<oneshot::Receiver<()>>,
    task: Option<JoinHandle<Result<()>>>,
}

impl Probe {
    /// Waits until it is known, and is an error if the store does not. Nothing is written before.
    pub(super) async fn kept(&mut self) -> Result<()> {
        let Some(kept) = self.kept.take() else { return Ok(()) };
        if kept.await.is_ok() { Ok(()) } else { self.ended().await }
    }

    /// Waits until it has cleaned up as well. There is no table before.
    pub(super) async fn ended(&mut self) -> Result<()> {
        let Some(task) = self.task.take() else { return Ok(()) };
        task.await.map_err(|e| Error::Internal(format!("the probe of the store broke off: {e}")))?
    }
}

impl Run<'_> {
    /// Begins to probe the store, if a table is to be created on it.
    pub(super) fn probe(&self, ledger: Option<&Ledger>) -> Probe {
        if ledger.is_some() || self.options.dry_run || self.options.accepted_risk.is_some() {
            return Probe::default();
        }
        let (store, (tell, kept)) = (self.store.clone(), oneshot::channel());
        // Also where the run is dropped, it goes on until it has cleaned up.
        let passing = Passing::new();
        let task = tokio::spawn(async move {
            let ended = store.probe_and_tell(|| _ = tell.send(())).await;
            drop(passing);
            ended
        });
        Probe { kept: Some(kept), task: Some(task) }
    }

    /// Opens a session on the table, creating the table if need be.
    pub(super) async fn begin(
        &self,
        ledger: Option<Ledger>,
        contract: SchemaRef,
        batch: Option<Batch>,
        workers: &Workers,
    ) -> Result<Session> {
        let options = self.options;
        let sink = SinkOptions {
            target_file_size: options.target_file_size,
            row_group_rows: options.row_group_rows,
            compression: options.compression.as_deref().map(str::parse).transpose()?.unwrap_or_default(),
            ..SinkOptions::default()
        };
        let settings = SessionOptions {
            null_key: options.null_key,
            sink,
            memory: options.memory,
            dry_run: options.dry_run,
            batch,
            handed_on: false,
        };
        let Some(ledger) = ledger else {
            let mut identity = self.new_identity(&contract)?;
            let policy = Policy {
                null_key: options.null_key.unwrap_or_default(),
                partition_by: options.partition_by.clone().unwrap_or_default(),
            };
            if options.accepted_risk == Some(Risk::SingleWriter) && !options.dry_run {
                identity.single_writer = self.store.probe_for_one_writer().await?;
                warn_of_single_writer(&identity);
            }
            return Session::begin_new(self.store.clone(), identity, policy, contract, settings, workers);
        };
        Session::begin(ledger, contract, settings, workers).await
    }

    fn new_identity(&self, contract: &SchemaRef) -> Result<TableIdentity> {
        let Some(key) = &self.options.key else {
            return Err(Error::Usage(format!(
                "{} is not a table yet: name the columns that identify an event with --key, to create it",
                self.store.url()
            )));
        };
        let hash = self.options.token_hash.unwrap_or_default();
        let spec = TokenSpec::new(key, contract, hash, TokenKey::random()?);
        TableIdentity::new(spec.map_err(|error| match (error, self.files) {
            (error, _) if self.reshape.is_some() => error,
            (Error::Usage(reason), [only]) => Error::Usage(format!("{reason} (in {})", only.url)),
            (Error::Usage(reason), [first, ..]) => {
                Error::Usage(format!("{reason} (in {} and {} more)", first.url, self.files.len() - 1))
            }
            (error, _) => error,
        })?)
    }

    pub(super) fn check_key(&self, identity: Option<&TableIdentity>) -> Result<()> {
        let (Some(identity), Some(asked)) = (identity, &self.options.key) else { return Ok(()) };
        let key: Vec<&str> = identity.token.columns.iter().map(|column| column.name.as_str()).collect();
        if key == asked.iter().map(String::as_str).collect::<Vec<_>>() {
            return Ok(());
        }
        Err(Error::Refused(format!(
            "the key of this table is {}, not {}: a table's key never changes. Leave out --key, or ingest into another table",
            key.join(","),
            asked.join(",")
        )))
    }

    /// Refuses to pretend that a flag had an effect that only a first run can have.
    pub(super) fn check_first_run_only(&self, identity: Option<&TableIdentity>) -> Result<()> {
        let Some(identity) = identity else { return Ok(()) };
        if let Some(hash) = self.options.token_hash
            && hash != identity.token.hash
        {
            return Err(Error::Refused(format!(
                "the token function of this table is {}, not {hash}: it never changes. Leave out --token-hash",
                identity.token.hash
            )));
        }
        if self.options.schema.is_some() {
            return Err(Error::Refused(
                "this table has a schema already; --schema is for the run that creates a table. Leave it out: new \
                 columns widen the schema by themselves"
                    .into(),
            ));
        }
        Ok(())
    }

    pub(super) fn check_partitions(&self, ledger: Option<&Ledger>) -> Result<()> {
        let (Some(ledger), Some(asked)) = (ledger, &self.options.partition_by) else { return Ok(()) };
        let set = &ledger.state().policy.partition_by;
        if set == asked {
            return Ok(());
        }
        let set = if set.is_empty() {
            "not partitioned".to_owned()
        } else {
            format!("partitioned by {}", set.join(","))
        };
        Err(Error::Refused(format!(
            "this table is {set}, not by {}: that is fixed when a table is created. Leave out --partition-by",
            asked.join(",")
        )))
    }
}

pub(super) fn warn_of_single_writer(identity: &TableIdentity) {
    if identity.single_writer {
        warn!(
            "the store of this table does not keep conditional writes: two writers at once would overwrite each other's \
             commits. Let only one run"
        );
    }
}
