//! The end of a session: one ledger entry that makes everything staged part of the table, or nothing.

use std::time::Duration;

use tracing::debug;

use super::fenced::below_floor;
use super::rebase::Staged;
use super::{Session, Table};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::entry::{Batch, Body, DataFile, Entry, Ingest, QuarantineFile, SchemaChange};
use crate::ledger::log::Proposal;
use crate::ledger::name;
use crate::ledger::state::Void;
use crate::runs::{Own, run_name};
use crate::verdict::Accounting;
use crate::{clock, random};

/// How many versions after the one that was lost are read at the same time as that.
const LOOK_AHEAD: u64 = 3;

/// The longest pause after a lost race.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

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
    /// The files of rows that were kept out; one at most, unless several processes made the commit together.
    pub quarantine: Vec<QuarantineFile>,
}

impl Committed {
    /// What the entry of an earlier run says.
    pub fn of_entry(version: u64, ingest: &Ingest) -> Self {
        Self {
            version,
            batch_replayed: true,
            rows: ingest.rows,
            files: ingest.files.clone(),
            quarantine: ingest.quarantine.clone(),
        }
    }
}

/// The version that committed `batch`, and what it says, if one did by the version of `ledger`. An error if that id
/// stands for other sources.
pub(crate) async fn committed_before(
    ledger: &mut Ledger,
    batch: &Batch,
) -> Result<Option<(u64, Box<Ingest>)>> {
    let Some(seen) = ledger.batch(&batch.id).await? else { return Ok(None) };
    if seen.digest != batch.digest {
        return Err(Error::Refused(format!(
            "batch {:?} was committed in version {} with other sources. An id stands for the same sources for ever: \
             give this batch another one",
            batch.id, seen.version
        )));
    }
    match ledger.read(seen.version).await?.map(|entry| entry.body) {
        Some(Body::Ingest(ingest)) => Ok(Some((seen.version, ingest))),
        _ => Err(Error::corrupt(name::manifest(seen.version), "it is not the ingest it was taken for")),
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
        let own = std::mem::replace(&mut self.own, Own::new(0));
        let quarantine = std::mem::take(&mut self.quarantine);
        let rejected = self.forecast().rejected;
        let (store, namer) = (&self.store, &mut self.namer);
        let name = run_name(namer);
        let rows = async {
            let ending = stager.end(store, namer).await?;
            let quarantine = quarantine.finish().await?;
            let set_aside = quarantine.as_ref().map_or(0, |file| file.rows);
            if set_aside != rejected {
                return Err(Error::Internal(format!(
                    "{rejected} rows were rejected, but {set_aside} written to quarantine; nothing was committed"
                )));
            }
            Ok((ending.files().await?, quarantine))
        };
        // All tokens are known by now: they are written while the last rows are.
        let stage = async {
            let ((files, quarantine), tokens) = futures::try_join!(rows, own.finish(store, name))?;
            Ok(Staged { files, tokens, quarantine: quarantine.into_iter().collect() })
        };
        // While the last bytes are on their way, whoever was first in the meantime is looked for: so the first proposal
        // has a fair chance. What cannot be read now is found by losing to it.
        let (table, news) = (&mut self.table, &mut self.news);
        let look = async {
            if let Table::Existing(ledger) = table
                && let Err(error) = ledger.refresh_into(news).await
            {
                debug!("the ledger could not be read before the commit: {error}");
            }
        };
        let (staged, ()) = futures::join!(stage, look);
        self.staged = Some(staged?);
        Ok(())
    }

    /// Commits everything the session staged, as the version after all others, judged against all of them. If its batch
    /// was committed before, nothing is added, and that commit is the outcome. Returns the ledger, replayed to that
    /// version, for whatever comes next.
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
        if let Some(batch) = self.batch.clone()
            && let Some((version, ingest)) = committed_before(self.ledger()?, &batch).await?
        {
            return Ok(Committed::of_entry(version, &ingest));
        }
        let mut staged = self.staged.take().ok_or_else(super::finished)?;
        let mut news = std::mem::take(&mut self.news);
        let (mut losses, mut took) = (0, Duration::ZERO);
        loop {
            if !news.is_empty()
                && let Some(done) = self.rebase(&mut staged, &news).await?
            {
                return Ok(done);
            }
            if losses > 0 {
                back_off(took, losses).await?;
            }
            let entry = self.propose_entry(&staged)?;
            let begun = clock::timer();
            let (proposal, next) = self.ledger()?.propose_ahead(&entry, LOOK_AHEAD).await?;
            news = match proposal {
                Proposal::Committed => return committed(&entry),
                Proposal::Lost(rival) => rival.map(|rival| *rival).into_iter().chain(next).collect(),
                Proposal::Void(void) => return Err(refused(&void, self.ledger()?.state().floor)),
            };
            (losses, took) = (losses + 1, begun.elapsed());
            debug!(
                version = entry.version,
                rivals = news.len(),
                "another writer was first: judging against it"
            );
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
            quarantine: staged.quarantine.clone(),
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

/// Writers that collide come apart by waiting for a random part of what losing took them, so that it fits the store.
/// The pause shrinks with each loss: of those who meet at a version one always commits, so waiting longer would not get
/// more through, and this way those who have waited most are the likeliest to be next.
async fn back_off(took: Duration, losses: u32) -> Result<()> {
    tokio::time::sleep(random::jitter(took.min(LONGEST_PAUSE) / losses.max(1))?).await;
    Ok(())
}
