//! Reading a part of a source on an executor, by the same readers as `dedupe ingest`, with its rules for what is no row.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow_schema::SchemaRef;
use datafusion::error::Result as EngineResult;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc::Sender;

use super::assignment::Assignment;
use super::marked::{Marker, Note};
use super::tokenise::aside;
use crate::error::{Error, Result};
use crate::ingest::{Presence, block_lines, read_error};
use crate::schema::{adapt, batch_rows};
use crate::session::{NO_KEY, QuarantinedRow};
use crate::source::discover::{Format, SourceFile};
use crate::source::input::Input;
use crate::source::ndjson::{BLOCK_BYTES, Block, Decoder, Lines};
use crate::source::parquet::ParquetFile;
use crate::store::{Place, aside as on_the_side, compute};
use crate::token::TokenSpec;

/// A part of a source: what one task reads at a stretch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Part {
    /// The number of the source.
    pub(super) source: u32,
    pub(super) url: String,
    /// What the source was when the driver found it.
    pub(super) identity: Option<String>,
    pub(super) format: Format,
    /// Of a Parquet file, these row groups.
    pub(super) groups: Option<Range<usize>>,
}

impl Part {
    /// A whole source.
    pub(super) fn of(source: u32, file: &SourceFile) -> Self {
        Self { source, url: file.url.clone(), identity: file.identity(), format: file.format, groups: None }
    }

    /// The file as it is for this executor: an error if it is not what the driver found.
    async fn find(&self, assignment: &Assignment) -> Result<SourceFile> {
        let absent = |why: &str| Error::input(&self.url, why);
        let format = Some(self.format);
        let file = match Place::parse(&self.url)? {
            Place::Local(path) => compute(move || SourceFile::on_disk(&path, format)).await?,
            place => {
                let store = place.root().open(&assignment.store_options)?;
                let key = place.key().to_owned();
                on_the_side::run(async move { SourceFile::in_store(&store, &key, format).await })
                    .await?
                    .ok_or_else(|| absent("it is absent here: can every executor read it?"))?
            }
        };
        match file.identity() == self.identity {
            true => Ok(file),
            false => Err(absent(
                "it is not what it was when the job began: another file of that name on this executor, or changed since; \
                 run again",
            )),
        }
    }
}

/// Whoever takes what is read.
pub(super) struct Reading<'a> {
    pub(super) assignment: &'a Assignment,
    pub(super) spec: &'a TokenSpec,
    pub(super) contract: &'a SchemaRef,
    pub(super) marked: &'a SchemaRef,
    pub(super) out: &'a Sender<EngineResult<RecordBatch>>,
}

impl Reading<'_> {
    /// Reads a part and hands its rows over, marked. `false` if nobody wants them any more.
    pub(super) async fn read(&self, part: &Part) -> Result<bool> {
        let file = part.find(self.assignment).await?;
        let marker = Marker::new(
            self.marked,
            part.source,
            self.assignment.source(part.source)?,
            self.assignment.null_key,
        );
        let input = compute(move || file.open()).await?;
        let marker = match part.format {
            Format::Parquet => self.parquet(part, &input, marker).await?,
            Format::Ndjson => self.ndjson(part, &input, marker).await?,
        };
        let Some(marker) = marker else { return Ok(false) };
        compute(move || input.unchanged()).await?;
        self.hand_over(vec![marker.end()?]).await
    }

    async fn hand_over(&self, batches: Vec<RecordBatch>) -> Result<bool> {
        for batch in batches {
            if self.out.send(Ok(batch)).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn parquet(&self, part: &Part, input: &Input, mut marker: Marker) -> Result<Option<Marker>> {
        let (input, url, memory) = (input.clone(), part.url.clone(), self.assignment.memory);
        let file = compute(move || ParquetFile::open_within(input, &url, memory)).await?;
        let key = self.spec.bind(file.schema(), &part.url)?;
        let wanted = |group: usize| part.groups.as_ref().is_none_or(|groups| groups.contains(&group));
        let mut first = 0;
        for group in file.row_groups() {
            let mut row = first;
            first += group.num_rows() as u64;
            if !wanted(group.index()) {
                continue;
            }
            let rows = batch_rows(self.contract);
            let mut batches = compute(move || group.rows(None, rows)).await?;
            loop {
                let (key, contract, url) = (key.clone(), Arc::clone(self.contract), part.url.clone());
                let step = compute(move || {
                    let Some(batch) = batches.next().transpose()? else { return Ok((None, batches, marker)) };
                    let tokens = key.tokenise(&batch)?;
                    let rows = adapt(&batch, &contract).map_err(|reason| Error::input(&url, reason))?;
                    let marked = marker.mark(&rows, &tokens, |at| aside(&url, row, &rows, at))?;
                    Ok((Some((marked, rows.num_rows() as u64)), batches, marker))
                });
                let (marked, rest, same) = step.await?;
                (batches, marker) = (rest, same);
                let Some((marked, rows)) = marked else { break };
                row += rows;
                if !self.hand_over(marked).await? {
                    return Ok(None);
                }
            }
        }
        Ok(Some(marker))
    }

    async fn ndjson(&self, part: &Part, input: &Input, marker: Marker) -> Result<Option<Marker>> {
        let (input, max_line) = (input.clone(), self.assignment.max_line);
        let lines = compute(move || Ok(Lines::new(input.reader()?, BLOCK_BYTES, max_line))).await?;
        let mut text = Text {
            lines,
            url: part.url.clone(),
            spec: self.spec.clone(),
            contract: Arc::clone(self.contract),
            fail_on_bad_row: self.assignment.fail_on_bad_row,
            presence: Presence::default(),
            marker,
        };
        loop {
            let (batches, rest) = compute(move || Ok((text.next()?, text))).await?;
            text = rest;
            match batches {
                None => return Ok(Some(text.marker)),
                Some(batches) => {
                    if !self.hand_over(batches).await? {
                        return Ok(None);
                    }
                }
            }
        }
    }
}

/// A source of lines, on its way.
struct Text<R> {
    lines: Lines<R>,
    url: String,
    spec: TokenSpec,
    contract: SchemaRef,
    fail_on_bad_row: bool,
    presence: Presence,
    marker: Marker,
}

impl<R: Read> Text<R> {
    /// The rows of the next block, marked; `None` after the last.
    fn next(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        let Some(block) = self.lines.next_block().map_err(|e| read_error(&self.url, &e))? else {
            self.presence.end(&self.url, &self.spec)?;
            return Ok(None);
        };
        let mut batches = Vec::new();
        for block in block.split(block_lines(&self.contract)) {
            batches.extend(self.block(&block)?);
        }
        Ok(Some(batches))
    }

    fn block(&mut self, block: &Block) -> Result<Vec<RecordBatch>> {
        let decoded = Decoder::new(Arc::clone(&self.contract))?.decode(block)?;
        if decoded.unknown_fields {
            return Err(Error::input(
                &self.url,
                "it has columns that the rows looked at before the job did not have: let it look at all rows (leave out \
                 --sample-rows)",
            ));
        }
        self.presence.observe(block, &decoded, &self.spec)?;
        let mut notes = Vec::with_capacity(decoded.bad.len());
        for bad in &decoded.bad {
            if self.fail_on_bad_row {
                return Err(crate::ingest::bad_line(&self.url, bad));
            }
            let row = QuarantinedRow::of_line(&self.url, bad.line, bad.offset, bad.reason.clone(), &bad.raw);
            notes.push(Note::Rejected(row));
        }
        let mut batches: Vec<_> = self.marker.reject(&notes)?.into_iter().collect();
        let tokens = self.spec.bind(&self.contract, &self.url)?.tokenise(&decoded.batch)?;
        let lines: HashMap<u64, _> = match tokens.keyless {
            Some(_) => block.lines().map(|line| (line.number, line)).collect(),
            None => HashMap::new(),
        };
        let aside = |row: usize| {
            let number = decoded.lines.get(row).copied().unwrap_or_default();
            let (offset, raw) = lines.get(&number).map_or((0, &[][..]), |line| (line.offset, line.bytes));
            QuarantinedRow::of_line(&self.url, number, offset, NO_KEY.into(), raw)
        };
        batches.extend(self.marker.mark(&decoded.batch, &tokens, aside)?);
        Ok(batches)
    }
}
