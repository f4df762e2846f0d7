//! A commit that several processes make together. Each judges a share of the rows, in a session of its own that began at
//! the same version, and stages what it accepts; what it staged is plain data, a [`Share`]. One session, the driver's,
//! adopts the shares and commits them as if they were its own.
//!
//! - Shares must have no token in common: who judges which is settled before, by the tokens themselves.
//! - A share that is not adopted is garbage, as if its session had died.
//! - Only the driver holds a lease, which protects whatever is staged at its stage or later.

use futures::stream::{self, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use super::rebase::Staged;
use super::{Held, Session, SessionOptions};
use crate::error::{Error, Result};
use crate::ledger::Ledger;
use crate::ledger::entry::{DataFile, InlineTokens, QuarantineFile, RunRef};
use crate::policy::NullKey;
use crate::runs::{Own, Tokens};
use crate::sink::SinkOptions;
use crate::store::Store;
use crate::verdict::Accounting;
use crate::workers::Workers;
use arrow_schema::SchemaRef;

/// How many staged objects are looked for at a time.
const LOOK_UPS: usize = 16;

/// What one of several sessions staged for a commit that they make together.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Share {
    table: String,
    /// The session that staged it.
    session: String,
    /// How many ledger entries that session had seen when it began.
    stage: u64,
    /// What became of the rows of each source, by its number.
    pub(crate) sources: Vec<Accounting>,
    keyless: u64,
    files: Vec<DataFile>,
    runs: Vec<RunRef>,
    inline: InlineTokens,
    quarantine: Vec<QuarantineFile>,
}

impl Share {
    /// The session that staged it.
    pub(crate) fn session(&self) -> &str {
        &self.session
    }
}

impl Session {
    /// Begins a session that judges a share of the driver's rows.
    pub(crate) async fn begin_share(
        ledger: Ledger,
        contract: SchemaRef,
        options: SessionOptions,
        workers: &Workers,
    ) -> Result<Self> {
        let mut session = Self::begin(ledger, contract, options, workers).await?;
        session.lease = Held::none();
        Ok(session)
    }

    /// How many ledger entries it had seen when it began.
    pub(crate) fn stage(&self) -> u64 {
        self.stage
    }

    /// What becomes of rows without a key.
    pub(crate) fn null_key(&self) -> NullKey {
        self.null_key
    }

    /// Bytes it may take.
    pub(crate) fn memory(&self) -> u64 {
        self.memory
    }

    /// How its data files are written.
    pub(crate) fn sink(&self) -> &SinkOptions {
        &self.sink
    }

    /// Makes everything that the session accepted durable, for the driver to commit.
    pub(crate) async fn share(mut self) -> Result<Share> {
        self.seal().await?;
        let staged = self.staged.take().ok_or_else(super::finished)?;
        Ok(Share {
            table: self.identity().table.clone(),
            session: self.by.session.clone(),
            stage: self.stage,
            sources: self.sources.iter().map(|source| source.rows).collect(),
            keyless: self.keyless,
            runs: staged.tokens.runs(),
            inline: staged.tokens.inline(),
            files: staged.files,
            quarantine: staged.quarantine,
        })
    }

    /// Takes what others staged for what this session is to commit. It must have the same sources, by the same numbers, and
    /// have begun at the same version; nothing can be written any more. Every object is looked for: one that is absent is an
    /// error, and so is a share of something else. Fails without effect on the table.
    pub(crate) async fn adopt(&mut self, shares: Vec<Share>) -> Result<()> {
        match self.adopt_all(shares).await {
            Ok(()) => Ok(()),
            Err(error) => Err(self.watch().reason(error).await),
        }
    }

    async fn adopt_all(&mut self, shares: Vec<Share>) -> Result<()> {
        let mut staged = Staged { files: Vec::new(), tokens: Tokens::none(), quarantine: Vec::new() };
        let (mut runs, mut inline) = (Vec::new(), Vec::new());
        for share in shares {
            self.check(&share)?;
            for (source, rows) in self.sources.iter_mut().zip(&share.sources) {
                source.rows.add(rows);
            }
            self.keyless += share.keyless;
            staged.files.extend(share.files);
            staged.quarantine.extend(share.quarantine);
            runs.extend(share.runs);
            inline.extend(share.inline.0);
        }
        look_for(&self.store, &staged, &runs).await?;
        inline.sort_unstable();
        staged.tokens = Tokens::reopen(&self.store, &runs, InlineTokens::default()).await?;
        staged.tokens.add_few(&self.store, &mut self.namer, inline).await?;
        self.stager = None;
        self.own = Own::new(0);
        self.staged = Some(staged);
        // What was committed while the others were at work is judged against at once, and not race by race.
        let mut news = std::mem::take(&mut self.news);
        let refreshed = self.ledger()?.refresh_into(&mut news).await;
        self.news = news;
        refreshed
    }

    fn check(&self, share: &Share) -> Result<()> {
        let table = &self.identity().table;
        // A table that the driver created for the job has one entry by now, which says nothing about rows.
        let stage = self.stage.max(1);
        if share.table == *table && share.stage == stage && share.sources.len() == self.sources.len() {
            return Ok(());
        }
        Err(Error::Internal(format!(
            "a share of stage {} of table {} with {} sources was given to a session of stage {} of table {table} with {}",
            share.stage,
            share.table,
            share.sources.len(),
            stage,
            self.sources.len()
        )))
    }
}

/// Looks for what was staged: whoever did may have had another folder under the same name.
async fn look_for(store: &Store, staged: &Staged, runs: &[RunRef]) -> Result<()> {
    let files = staged.files.iter().map(|file| (file.name.clone(), file.bytes));
    let kept_out = staged.quarantine.iter().map(|file| (file.name.clone(), file.bytes));
    let runs = runs.iter().map(|run| (run.name.clone(), run.bytes));
    let look = files.chain(kept_out).chain(runs).map(|(name, bytes)| {
        let store = store.clone();
        async move {
            let why = match store.head(&name).await? {
                Some(found) if found.size == bytes => return Ok(()),
                Some(found) => format!("it has {} bytes, and not {bytes} as it was staged", found.size),
                None => "it was staged, and is absent: do all executors see the same store?".into(),
            };
            Err(Error::corrupt(name, why))
        }
    });
    let look: Vec<_> = look.collect();
    stream::iter(look).buffer_unordered(LOOK_UPS).try_collect::<Vec<()>>().await.map(drop)
}
