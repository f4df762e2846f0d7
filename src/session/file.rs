//! One data file on its way into the store, and what its manifest entry will say.

use xxhash_rust::xxh3::Xxh3;

use crate::error::{Error, Result};
use crate::ledger::entry::DataFile;
use crate::ledger::name::{self, Namer};
use crate::sink::{self, EncodedRowGroup, FileLayout, FileWriter};
use crate::source::input::Input;
use crate::source::parquet::{CutColumn, RowGroup};
use crate::store::{Store, Upload, compute};
use crate::token::TokenSum;

/// A file that row groups are appended to.
pub(super) struct OpenFile {
    name: String,
    pub(super) writer: FileWriter,
    upload: Upload,
    hash: Box<Xxh3>,
    pub(super) stats: Stats,
}

/// What the manifest says of some rows besides their number: adds up.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
    pub(super) rows: u64,
    pub(super) keyless: u64,
    pub(super) tokens: TokenSum,
    pub(super) origin: Vec<(u32, u64)>,
}

impl std::fmt::Debug for OpenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenFile({}, {:?})", self.name, self.writer)
    }
}

impl OpenFile {
    pub(super) async fn begin(
        store: &Store,
        namer: &mut Namer,
        folder: &str,
        layout: &FileLayout,
        key: Vec<Vec<String>>,
    ) -> Result<Self> {
        let separator = if folder.is_empty() { "" } else { "/" };
        let name = namer.next(&format!("{}{separator}{folder}", name::DATA), "parquet");
        let writer = FileWriter::new(layout.clone(), key)?;
        let upload = store.create(&name).await?;
        Ok(Self { name, writer, upload, hash: Box::new(Xxh3::new()), stats: Stats::default() })
    }

    pub(super) async fn append(&mut self, group: EncodedRowGroup) -> Result<()> {
        self.writer.append_encoded(group)?;
        self.drain().await
    }

    /// Copies a whole row group. Bytes are read, hashed and written by one thread, while they are in its processor's cache.
    pub(super) async fn copy(mut self, group: RowGroup<Input>) -> Result<Self> {
        let mut copy = group.copy();
        loop {
            let (file, rest, elsewhere, more) = compute(move || {
                let (mut elsewhere, mut more) = (Vec::new(), true);
                while more && elsewhere.is_empty() {
                    more = self.writer.copy_some(&mut copy)?;
                    for bytes in self.writer.take_pieces()? {
                        self.hash.update(&bytes);
                        elsewhere.extend(self.upload.write_here(bytes)?);
                    }
                }
                Ok((self, copy, elsewhere, more))
            })
            .await?;
            (self, copy) = (file, rest);
            for bytes in elsewhere {
                self.upload.write(bytes).await?;
            }
            if !more {
                return Ok(self);
            }
        }
    }

    pub(super) async fn append_cut(
        &mut self,
        group: &RowGroup<Input>,
        columns: Vec<CutColumn>,
        rows: u64,
    ) -> Result<()> {
        for column in columns {
            self.writer.append_cut(group, column)?;
            self.drain().await?;
        }
        self.writer.end_cut(group, rows)?;
        self.drain().await
    }

    async fn drain(&mut self) -> Result<()> {
        for bytes in self.writer.take_pieces()? {
            self.hash.update(&bytes);
            self.upload.write(bytes).await?;
        }
        Ok(())
    }

    pub(super) async fn close(mut self) -> Result<DataFile> {
        let summary = self.writer.close()?;
        if summary.rows != self.stats.rows {
            return Err(Error::Internal(format!(
                "{} holds {} rows where {} were accepted; nothing was committed",
                self.name, summary.rows, self.stats.rows
            )));
        }
        self.drain().await?;
        let bytes = self.upload.finish().await?;
        let range = |range: sink::ColumnRange| range.min.zip(range.max);
        Ok(DataFile {
            name: self.name,
            rows: self.stats.rows,
            bytes,
            check: format!("{:016x}", self.hash.digest()),
            keyless: self.stats.keyless,
            tokens: self.stats.tokens,
            origin: self.stats.origin,
            key_range: summary.ranges.into_iter().map(range).collect(),
        })
    }
}

impl Stats {
    /// Takes the origin of the first `rows` rows out.
    pub(super) fn take_origin(&mut self, mut rows: u64) -> Vec<(u32, u64)> {
        let mut taken = Vec::new();
        while rows > 0 {
            let Some((source, left)) = self.origin.first_mut() else { break };
            let part = rows.min(*left);
            taken.push((*source, part));
            *left -= part;
            rows -= part;
            if *left == 0 {
                self.origin.remove(0);
            }
        }
        taken
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.rows += other.rows;
        self.keyless += other.keyless;
        self.tokens = self.tokens.plus(other.tokens);
        for (source, rows) in &other.origin {
            match self.origin.last_mut() {
                Some((last, sum)) if last == source => *sum += rows,
                _ => self.origin.push((*source, *rows)),
            }
        }
    }
}
