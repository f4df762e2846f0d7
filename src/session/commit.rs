//! The end of a session: one ledger entry that makes everything staged part of the table, or nothing.

use std::time::Duration;

use tracing::debug;

use super::fenced::below_floor;
use super::rebase::Staged;
use super::{Session, Table};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::entry::{Body, DataFile, Entry, Ingest, QuarantineFile, SchemaChange};
use crate::ledger::log::Proposal;
use crate::ledger::state::Void;
use crate::random;
use crate::runs::Own;
use crate::verdict::Accounting;

/// How a session ended.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Committed {
    /// The version that holds the result.
    pub version: u64,
    /// Whether another run had committed the same batch before, whose outcome this then is.
    pub batch_replayed: bool,
    /// Row accounting, by the verdicts that count.
    pub rows: Accounting,
    /// The data files added.
    pub files: Vec<DataFile>,
    /// The file of rows that were kept out, if there is one.
    pub quarantine: Option<QuarantineFile>,
}

impl Committed {
    /// What the entry of an earlier run says.
    pub fn of_entry(version: u64, ingest: &Ingest) -> Self {
        Self {
            version,
            batch_replayed: true,
            rows: ingest.rows,
            files: ingest.files.clone(),
            quarantine: ingest.quarantine.first().cloned(),
        }
    }
}

impl Session {
    /// Completes everything the session is to commit: data files, quarantine and token runs are durable then.
    /// Nothing can be written any more.
    pub async fn seal(&mut self) -> Result<()> {
        if self.dry_run {
            return Err(Error::Internal("a dry run has nothing to commit".into()));
        }
        match self.seal_all().await {
            Err(error) => Err(self.watch().reason(error).await),
            Ok(()) => Ok(()),
        }
    }

    async fn seal_all(&mut self) -> Result<()> {
        let Some(stager) = self.stager.take() else { return Ok(()) };
        let files = stager.finish(&self.store, &mut self.namer).await?;
        let quarantine = std::mem::take(&mut self.quarantine).finish().await?;
        let set_aside = quarantine.as_ref().map_or(0, |file| file.rows);
        if set_aside != self.forecast().rejected {
            return Err(Error::Internal(format!(
                "{} rows were rejected, but {set_aside} written to quarantine; nothing was committed",
                self.forecast().rejected
            )));
        }
        let own = std::mem::replace(&mut self.own, Own::new(0));
        let tokens = own.finish(&self.store, &mut self.namer).await?;
        self.staged = Some(Staged { files, tokens, quarantine });
        Ok(())
    }

    /// Commits everything the session staged, as the version after all others, judged against all of them. Returns
    /// the ledger, replayed to that version, for whatever comes next.
    pub async fn commit(mut self) -> Result<(Committed, Ledger)> {
        let ended = self.commit_all().await;
        self.lease.end().await;
        match ended {
            Ok(committed) => Ok((committed, self.into_ledger()?)),
            Err(error) => Err(self.watch().reason(error).await),
        }
    }

    /// Takes the session's lease back, and waits a little until that is done. A session that is dropped does it in the
    /// background.
    pub async fn abandon(mut self) {
        self.lease.end().await;
    }

    async fn commit_all(&mut self) -> Result<Committed> {
        self.seal().await?;
        if !self.create_table().await? {
            return Err(Error::Refused(
                "another writer created the table meanwhile; nothing was committed. Run again".into(),
            ));
        }
        let mut staged = self.staged.take().ok_or_else(super::finished)?;
        let mut losses = 0;
        loop {
            let entry = self.propose_entry(&staged)?;
            let news = match self.ledger()?.propose(&entry).await? {
                Proposal::Committed => return committed(&entry),
                Proposal::Lost(None) => continue,
                Proposal::Lost(Some(rival)) => {
                    let mut news = vec![*rival];
                    news.extend(self.ledger()?.refresh().await?);
                    news
                }
                Proposal::Void(void) => return Err(refused(&void, self.ledger()?.state().floor)),
            };
            debug!(
                version = entry.version,
                rivals = news.len(),
                "another writer was first: judging against it"
            );
            for rival in &news {
                if let Some(done) = self.rebase(&mut staged, rival).await? {
                    return Ok(done);
                }
            }
            losses += 1;
            back_off(losses).await?;
        }
    }

    /// What a dry run would have committed.
    pub fn forecast(&self) -> Accounting {
        let mut rows = Accounting::default();
        self.sources.iter().for_each(|source| rows.add(&source.rows));
        rows
    }

    pub(super) fn ledger(&mut self) -> Result<&mut Ledger> {
        match &mut self.table {
            Table::Existing(ledger) => Ok(ledger),
            Table::Planned(..) => Err(Error::Internal("the table was not created yet".into())),
        }
    }

    fn into_ledger(self) -> Result<Ledger> {
        match self.table {
            Table::Existing(ledger) => Ok(*ledger),
            Table::Planned(..) => Err(Error::Internal("the table was not created yet".into())),
        }
    }

    fn propose_entry(&mut self, staged: &Staged) -> Result<Entry> {
        let by = self.by.clone();
        let rows = self.forecast();
        let added = staged.tokens.sum();
        let schema = self.contract.widened.then(|| SchemaChange {
            base: self.contract.base,
            schema: self.contract.schema.as_ref().clone(),
        });
        let (batch, sources, skipped) = (self.batch.clone(), self.sources.clone(), self.skipped.clone());
        let (keyless, null_key) = (self.keyless, self.null_key);
        let ledger = self.ledger()?;
        let ingest = Ingest {
            batch,
            policy: ledger.state().policy_version,
            null_key: (null_key != ledger.state().policy.null_key).then_some(null_key),
            schema,
            sources,
            skipped,
            files: staged.files.clone(),
            runs: staged.tokens.runs(),
            inline: staged.tokens.inline(),
            quarantine: staged.quarantine.iter().cloned().collect(),
            rows,
            keyless,
            added,
            total: ledger.state().total.plus(added),
        };
        ledger.entry(&by, Body::Ingest(Box::new(ingest)))
    }
}

/// What `entry`, which is ours and stands in the ledger, committed.
fn committed(entry: &Entry) -> Result<Committed> {
    let Body::Ingest(ingest) = &entry.body else {
        return Err(Error::Internal("a session committed something else than rows".into()));
    };
    Ok(Committed { batch_replayed: false, ..Committed::of_entry(entry.version, ingest) })
}

/// Void entries are foreseen and never sent. Most cannot happen, because a rebase follows every rival.
fn refused(void: &Void, floor: u64) -> Error {
    match void {
        Void::BelowFloor(name) => below_floor(name, floor),
        other => Error::Internal(format!("the commit would be void: {other}")),
    }
}

/// Writers that collide wait for a random time that grows with each loss, so that some writer always gets through.
async fn back_off(losses: u32) -> Result<()> {
    let longest = Duration::from_millis(20 << losses.min(7));
    tokio::time::sleep(random::jitter(longest)?).await;
    Ok(())
}
