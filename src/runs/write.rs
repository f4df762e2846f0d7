//! Making a run on a store, in bounded memory.

use bytes::Bytes;

use super::reference;
use crate::error::Result;
use crate::index::{RunSpec, RunWriter};
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
    /// Begins the run `name`.
    pub(crate) async fn begin(store: &Store, name: String, spec: &RunSpec) -> Result<Self> {
        let writer = RunWriter::new(&name, Vec::new(), spec)?;
        let upload = store.create(&name).await?;
        Ok(Self { name, writer, upload })
    }

    /// Adds ascending tokens.
    pub(crate) async fn push_all(&mut self, tokens: &[Token]) -> Result<()> {
        for tokens in tokens.chunks(BLOCK / size_of::<Token>()) {
            self.writer.push_all(tokens)?;
            self.drain().await?;
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
    pub(crate) async fn finish(mut self) -> Result<RunRef> {
        let summary = loop {
            let summary = self.writer.finish_step()?;
            self.drain().await?;
            if let Some(summary) = summary {
                break summary;
            }
        };
        self.upload.finish().await?;
        Ok(reference(self.name, &summary))
    }

    async fn drain(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.writer.sink());
        if bytes.is_empty() { Ok(()) } else { self.upload.write(Bytes::from(bytes)).await }
    }
}
