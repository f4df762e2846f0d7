//! Rows become encoded row groups: what workers do for the stager.
//!
//! Rows of a source that are still to be decoded become one row group after the other ([`Encoding`]). Rows in memory are
//! encoded column by column, on as many workers as are free ([`Columns`]).

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::error::{Error, Result};
use crate::schema;
use crate::sink::{ColumnEncoder, EncodedColumn, EncodedRowGroup, FileLayout, RowGroupEncoder, SinkOptions};
use crate::source::input::Input;
use crate::source::parquet::{Batches, RowGroup};
use crate::workers::{Started, Workers};

/// Rows on their way into encoded row groups, one at a time, each within bounds of rows and memory.
pub(super) struct Encoding {
    batches: Box<dyn Iterator<Item = Result<RecordBatch>> + Send>,
    layout: FileLayout,
    rows: usize,
    memory: usize,
    bytes: usize,
    /// Rows of the last batch that did not fit the row group.
    rest: Option<RecordBatch>,
}

impl Encoding {
    pub(super) fn of_group(
        group: RowGroup<Input>,
        keep: Option<arrow::buffer::BooleanBuffer>,
        layout: &FileLayout,
        options: &SinkOptions,
        memory: usize,
    ) -> Result<Self> {
        let (url, contract) = (group.file().url().to_owned(), Arc::clone(layout.row_schema()));
        // Opened by the worker that takes the first step, not by whoever asks for it.
        let mut open: Option<Batches<Input>> = None;
        let mut failed = false;
        let batches = std::iter::from_fn(move || {
            if failed {
                return None;
            }
            let batches = match &mut open {
                Some(batches) => batches,
                None => match group.rows(keep.as_ref(), schema::batch_rows(&contract)) {
                    Ok(batches) => open.insert(batches),
                    Err(error) => {
                        failed = true;
                        return Some(Err(error));
                    }
                },
            };
            let adapted = batches.next()?.and_then(|batch| {
                schema::adapt(&batch, &contract).map_err(|reason| Error::input(&url, reason))
            });
            Some(adapted)
        });
        let batches = Box::new(batches);
        Ok(Self {
            batches,
            layout: layout.clone(),
            rows: options.row_group_rows,
            memory,
            bytes: options.target_file_size as usize,
            rest: None,
        })
    }

    /// Encodes the next row group; `None` after the last.
    pub(super) fn step(mut self) -> Result<(Option<EncodedRowGroup>, Self)> {
        let mut encoder: Option<RowGroupEncoder> = None;
        loop {
            let batch = match self.rest.take() {
                Some(batch) => batch,
                None => match self.batches.next() {
                    Some(batch) => batch?,
                    None => break,
                },
            };
            if batch.num_rows() == 0 {
                continue;
            }
            let encoder = match &mut encoder {
                Some(encoder) => encoder,
                None => encoder.insert(RowGroupEncoder::new(&self.layout)?),
            };
            let fits = (self.rows.max(1) - encoder.rows()).min(batch.num_rows());
            encoder.write(&batch.slice(0, fits))?;
            if fits < batch.num_rows() {
                self.rest = Some(batch.slice(fits, batch.num_rows() - fits));
            }
            if encoder.rows() >= self.rows
                || encoder.memory() >= self.memory
                || encoder.encoded_bytes() >= self.bytes
            {
                break;
            }
        }
        Ok((encoder.map(RowGroupEncoder::finish).transpose()?, self))
    }
}

/// Rows in memory on their way into one row group.
pub(super) struct Columns {
    layout: FileLayout,
    columns: Vec<Started<EncodedColumn>>,
    rows: usize,
}

impl Columns {
    /// Begins to encode `batches`, as row groups of at most `rows` rows.
    pub(super) fn begin(
        batches: Vec<RecordBatch>,
        layout: &FileLayout,
        rows: usize,
        workers: &Workers,
    ) -> Result<Vec<Self>> {
        let mut groups = Vec::new();
        let (mut gathered, mut room) = (Vec::new(), rows.max(1));
        for mut batch in batches {
            while batch.num_rows() > room {
                gathered.push(batch.slice(0, room));
                batch = batch.slice(room, batch.num_rows() - room);
                groups.push(Self::group(std::mem::take(&mut gathered), layout, workers)?);
                room = rows.max(1);
            }
            room -= batch.num_rows();
            gathered.push(batch);
        }
        groups.push(Self::group(gathered, layout, workers)?);
        Ok(groups)
    }

    fn group(batches: Vec<RecordBatch>, layout: &FileLayout, workers: &Workers) -> Result<Self> {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let batches = Arc::new(batches);
        let encode = |(at, mut encoder): (usize, ColumnEncoder)| {
            let batches = Arc::clone(&batches);
            workers.start(move || {
                for batch in batches.iter() {
                    let array = batch.columns().get(at);
                    encoder
                        .write(array.ok_or_else(|| Error::Internal("a batch lacks a column".to_owned()))?)?;
                }
                encoder.finish()
            })
        };
        let columns = RowGroupEncoder::new(layout)?.apart().into_iter().enumerate().map(encode).collect();
        Ok(Self { layout: layout.clone(), columns, rows })
    }

    /// The row group, once all columns are encoded.
    pub(super) async fn finish(self) -> Result<EncodedRowGroup> {
        let mut encoded = Vec::with_capacity(self.columns.len());
        for column in self.columns {
            encoded.push(column.await?);
        }
        Ok(EncodedRowGroup::of_columns(&self.layout, encoded, self.rows))
    }
}
