//! Making a run on a store, in bounded memory.

use std::ops::RangeInclusive;

use bytes::Bytes;

use super::{OpenRun, reference};
use crate::error::Result;
use crate::index::RunWriter;
use crate::ledger::entry::RunRef;
use crate::store::{Store, Upload};
use crate::token::Token;

/// How much is gathered before it is written.
const BLOCK: usize = 1 << 20;

/// A run on its way into the store.
#[derive(Debug)]
pub(crate) struct RunUpload {
    name: String,
    writer: RunWriter<Vec<u8>>,
    upload: Upload,
}

impl RunUpload {
    /// Begins the run `name`. `commits`: the lowest and the highest version that may come, if each token is to be stored
    /// with its own.
    pub(crate) async fn begin(
        store: &Store,
        name: String,
        commits: Option<RangeInclusive<u64>>,
    ) -> Result<Self> {
        let writer = RunWriter::new(&name, Vec::new(), commits);
        let upload = store.create(&name).await?;
        Ok(Self { name, writer, upload })
    }

    /// Adds ascending tokens.
    pub(crate) async fn push_all(&mut self, tokens: &[Token]) -> Result<()> {
        for tokens in tokens.chunks(BLOCK / size_of::<Token>()) {
            self.writer.push_all(tokens)?;
            self.drain().await?;
            // Others who share this task wait no longer than for so many.
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    /// Adds ascending tokens, each with the version that accepted it.
    pub(crate) async fn push_with_commits(&mut self, tokens: &[(Token, u64)]) -> Result<()> {
        for tokens in tokens.chunks(BLOCK / size_of::<Token>()) {
            tokens.iter().try_for_each(|(token, commit)| self.writer.push_with_commit(*token, *commit))?;
            self.drain().await?;
        }
        Ok(())
    }

    /// Completes the run. It is durable then.
    pub(crate) async fn finish(self) -> Result<RunRef> {
        Ok(self.complete().await?.0)
    }

    /// Completes the run, and opens it, which takes no reading: what is needed of it was written last.
    pub(crate) async fn finish_open(self) -> Result<(RunRef, OpenRun)> {
        let (reference, end) = self.complete().await?;
        let open = OpenRun::of_tail(&reference, &end)?;
        Ok((reference, open))
    }

    /// Completes the run; with it comes its end, directory and footer at least.
    async fn complete(mut self) -> Result<(RunRef, Bytes)> {
        let summary = self.writer.complete()?;
        let end = self.drain().await?;
        self.upload.finish().await?;
        Ok((reference(self.name, &summary), end))
    }

    async fn drain(&mut self) -> Result<Bytes> {
        let bytes = Bytes::from(std::mem::take(self.writer.sink()));
        if !bytes.is_empty() {
            self.upload.write(bytes.clone()).await?;
        }
        Ok(bytes)
    }
}
