//! How a run begins on a table, or makes one: what it was told has to fit what the table is, and the store has to keep its word.

use arrow_schema::SchemaRef;
use tracing::warn;

use super::Run;
use crate::error::{Error, Result};
use crate::ledger::entry::Batch;
use crate::ledger::{Ledger, TableIdentity};
use crate::options::Risk;
use crate::policy::Policy;
use crate::session::{Session, SessionOptions};
use crate::sink::SinkOptions;
use crate::token::{TokenKey, TokenSpec};
use crate::workers::Workers;

impl Run<'_> {
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
            match options.accepted_risk {
                _ if options.dry_run => {}
                None => self.store.probe().await?,
                Some(Risk::SingleWriter) => {
                    identity.single_writer = self.store.probe_for_one_writer().await?;
                    warn_of_single_writer(&identity);
                }
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
            (Error::Usage(reason), [only]) => Error::input(&only.url, reason),
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
