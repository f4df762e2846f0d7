//! The accepted tokens as a Parquet file, for inspection and for other tools.
//!
//! Columns: `token` (16 bytes, big-endian), `commit` (the version that accepted it) and `run` (the object of the index
//! that holds it). Ascending within a run. The file appears whole or not at all.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeBinaryArray, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
use crate::index::merge::Commits;
use crate::ledger::{Ledger, name};
use crate::runs::{OpenRun, Scan};
use crate::token::Token;

/// Tokens in a row group: memory stays at a few tens of megabytes.
const ROW_GROUP: usize = 1 << 18;

/// What was exported.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Exported {
    /// How many tokens.
    pub tokens: u64,
    /// Runs (and manifests with tokens in them) that they stand in.
    pub runs: u64,
    /// The size of the file.
    pub bytes: u64,
}

/// Writes all live tokens, or those of one run, to the file `to`, over an older one.
pub async fn export_tokens(ledger: &Ledger, run: Option<&str>, to: &Path) -> Result<Exported> {
    ledger.or_expired(export(ledger, run, to).await).await
}

async fn export(ledger: &Ledger, run: Option<&str>, to: &Path) -> Result<Exported> {
    let (store, state) = (ledger.store(), ledger.state());
    let wanted = |object: &str| run.is_none_or(|run| object == run || object.ends_with(&format!("/{run}")));
    let mut export = Export::begin(to)?;
    for (version, tokens) in &state.inline {
        let object = name::manifest(*version);
        if wanted(&object) {
            export.push(&object, &tokens.0, &Commits::All(*version))?;
            export.done.runs += 1;
        }
    }
    for live in state.runs.values().filter(|live| wanted(&live.item.name)) {
        let open = OpenRun::open(store, &live.item).await?;
        let mut scan = Scan::new(Arc::clone(open.meta()));
        while let Some(piece) = scan.next_piece(store, live.since).await? {
            export.push(&live.item.name, &piece.tokens, &piece.commits)?;
        }
        export.done.runs += 1;
    }
    match run {
        Some(run) if export.done.runs == 0 => Err(Error::Usage(format!(
            "{run} is no live token run of this table: see `dedupe status` and `dedupe show`, or leave out --run"
        ))),
        _ => export.finish(),
    }
}

/// A file that is being written beside its place. Dropped unfinished, it is removed.
struct Export {
    writer: Option<ArrowWriter<File>>,
    schema: SchemaRef,
    partial: PathBuf,
    to: PathBuf,
    done: Exported,
}

impl Export {
    fn begin(to: &Path) -> Result<Self> {
        // A rename would replace a device or a pipe by a file.
        let special = fs::metadata(to).is_ok_and(|found| !found.is_file());
        if special {
            return Err(Error::Usage(format!("{} is no regular file: name one to write to", to.display())));
        }
        let mut partial = to.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let schema = Arc::new(Schema::new(vec![
            Field::new("token", DataType::FixedSizeBinary(16), false),
            Field::new("commit", DataType::UInt64, false),
            Field::new("run", DataType::Utf8, false),
        ]));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP))
            // Tokens are random: a dictionary of them would only be in the way.
            .set_column_dictionary_enabled("token".into(), false)
            .build();
        let file = File::create(&partial).map_err(|e| trouble(to, e))?;
        let writer =
            ArrowWriter::try_new(file, Arc::clone(&schema), Some(properties)).map_err(|e| trouble(to, e))?;
        Ok(Self { writer: Some(writer), schema, partial, to: to.to_owned(), done: Exported::default() })
    }

    fn push(&mut self, run: &str, tokens: &[Token], commits: &Commits) -> Result<()> {
        let Some(writer) = &mut self.writer else { return Ok(()) };
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.0.to_be_bytes()).collect();
        let commits: UInt64Array = match commits {
            Commits::All(version) => UInt64Array::from_value(*version, tokens.len()),
            Commits::Each(versions) => UInt64Array::from(versions.clone()),
        };
        let write = || {
            let columns: Vec<ArrayRef> = vec![
                Arc::new(FixedSizeBinaryArray::try_new(16, bytes.into(), None)?),
                Arc::new(commits),
                Arc::new(StringArray::from_iter_values(std::iter::repeat_n(run, tokens.len()))),
            ];
            writer.write(&RecordBatch::try_new(Arc::clone(&self.schema), columns)?)
        };
        write().map_err(|e: parquet::errors::ParquetError| trouble(&self.to, e))?;
        self.done.tokens += tokens.len() as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<Exported> {
        let Some(writer) = self.writer.take() else { return Ok(self.done) };
        let place = || -> io::Result<u64> {
            let file = writer.into_inner().map_err(io::Error::other)?;
            file.sync_all()?;
            let bytes = file.metadata()?.len();
            fs::rename(&self.partial, &self.to)?;
            Ok(bytes)
        };
        self.done.bytes = place().map_err(|e| trouble(&self.to, e))?;
        Ok(self.done)
    }
}

impl Drop for Export {
    fn drop(&mut self) {
        // After a rename there is nothing left to remove.
        let _ = fs::remove_file(&self.partial);
    }
}

fn trouble(to: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::store("write", to.display().to_string(), error)
}
