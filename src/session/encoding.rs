//! Rows become encoded row groups, one at a time: what a worker does for the stager.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::error::{Error, Result};
use crate::schema;
use crate::sink::{EncodedRowGroup, FileLayout, RowGroupEncoder, SinkOptions};
use crate::source::input::Input;
use crate::source::parquet::{Batches, RowGroup};

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
    pub(super) fn of_batches(
        batches: Vec<RecordBatch>,
        layout: &FileLayout,
        options: &SinkOptions,
        memory: usize,
    ) -> Result<Self> {
        let batches = Box::new(batches.into_iter().map(Ok));
        Ok(Self {
            batches,
            layout: layout.clone(),
            rows: options.row_group_rows,
            memory,
            bytes: options.target_file_size as usize,
            rest: None,
        })
    }

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
