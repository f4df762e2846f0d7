//! Rows that were kept out, each with its reason and origin, as NDJSON.
//!
//! One line a row: `source`, `line` and `offset` (NDJSON, of the decompressed text) or `row` (Parquet, counted from
//! 0 within the file), `reason`, and the row itself: `raw` as text, `raw_base64` where it is not UTF-8, or `record`
//! as a JSON object where the source was not text.

use base64::Engine;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ledger::entry::QuarantineFile;
use crate::ledger::name::{self, Namer};
use crate::store::{Store, Upload};

/// How much is gathered before it is written.
const BLOCK: usize = 1 << 20;

/// One row that was kept out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct QuarantinedRow {
    /// Path or URL of the source.
    pub source: String,
    /// Line number from 1, for text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// Byte offset of the line in the decompressed text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// Row number from 0 within a Parquet file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub row: Option<u64>,
    /// Why it was kept out.
    pub reason: String,
    /// The line as it was, if it is UTF-8.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw: Option<String>,
    /// The line as it was, in base64, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub raw_base64: Option<String>,
    /// The row's columns, if it was not a line of text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub record: Option<Box<serde_json::value::RawValue>>,
}

impl QuarantinedRow {
    /// A line of text.
    pub fn of_line(source: &str, line: u64, offset: u64, reason: String, raw: &[u8]) -> Self {
        let text = std::str::from_utf8(raw).ok().map(str::to_owned);
        let base64 = text.is_none().then(|| base64::engine::general_purpose::STANDARD.encode(raw));
        Self {
            source: source.to_owned(),
            line: Some(line),
            offset: Some(offset),
            row: None,
            reason,
            raw: text,
            raw_base64: base64,
            record: None,
        }
    }

    /// A row of a Parquet file, rendered as a JSON object.
    pub fn of_record(source: &str, row: u64, reason: String, record: String) -> Self {
        Self {
            source: source.to_owned(),
            line: None,
            offset: None,
            row: Some(row),
            reason,
            raw: None,
            raw_base64: None,
            record: serde_json::value::RawValue::from_string(record).ok(),
        }
    }
}

/// Writes a session's quarantine file, which begins with the first row that needs one.
#[derive(Debug, Default)]
pub(crate) struct QuarantineWriter {
    open: Option<(String, Upload)>,
    gathered: Vec<u8>,
    rows: u64,
}

impl QuarantineWriter {
    pub(crate) async fn push(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        row: &QuarantinedRow,
    ) -> Result<()> {
        serde_json::to_writer(&mut self.gathered, row)
            .map_err(|e| Error::Internal(format!("a quarantined row cannot be written as JSON: {e}")))?;
        self.gathered.push(b'\n');
        self.rows += 1;
        if self.open.is_none() {
            let name = namer.next(name::QUARANTINE, "ndjson");
            let upload = store.create(&name).await?;
            self.open = Some((name, upload));
        }
        if self.gathered.len() >= BLOCK { self.flush().await } else { Ok(()) }
    }

    pub(crate) async fn finish(mut self) -> Result<Option<QuarantineFile>> {
        self.flush().await?;
        let Some((name, upload)) = self.open else { return Ok(None) };
        let bytes = upload.finish().await?;
        Ok(Some(QuarantineFile { name, rows: self.rows, bytes }))
    }

    async fn flush(&mut self) -> Result<()> {
        if let Some((_, upload)) = &mut self.open {
            upload.write(Bytes::from(std::mem::take(&mut self.gathered))).await?;
        }
        Ok(())
    }
}
