//! Encoding rows to the column chunks of one row group, in memory. Independent of the file it will end up in, so that
//! several row groups can be encoded in parallel.

use super::FileLayout;
use crate::error::{Error, Result};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescPtr;

/// Encodes batches to one row group.
#[derive(Debug)]
pub struct RowGroupEncoder {
    schema: SchemaRef,
    parquet: SchemaDescPtr,
    columns: Vec<ArrowColumnWriter>,
    rows: usize,
}

/// An encoded row group, ready to be appended to a file of its layout.
#[derive(Debug)]
pub struct EncodedRowGroup {
    pub(super) parquet: SchemaDescPtr,
    pub(super) chunks: Vec<ArrowColumnChunk>,
    pub(super) rows: usize,
    bytes: usize,
}

impl RowGroupEncoder {
    /// An empty row group of `layout`, which must be one that [`encodes`](FileLayout::encodes).
    pub fn new(layout: &FileLayout) -> Result<Self> {
        if !layout.encodes() {
            return Err(Error::Internal("rows cannot be encoded into this file layout".to_owned()));
        }
        // The factory takes schema and properties from a file writer, and nothing else: this one writes nowhere.
        let parquet = layout.parquet_schema();
        let nowhere = SerializedFileWriter::new(
            std::io::sink(),
            parquet.root_schema_ptr(),
            layout.properties().clone(),
        );
        let factory = ArrowRowGroupWriterFactory::new(&nowhere.map_err(failed)?, layout.row_schema().clone());
        Ok(Self {
            schema: layout.row_schema().clone(),
            parquet: parquet.clone(),
            columns: factory.create_column_writers(0).map_err(failed)?,
            rows: 0,
        })
    }

    /// The schema that batches must have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Encodes the rows of `batch`, which must be [adapted](crate::schema::adapt) to [`schema`](Self::schema).
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let theirs = batch.schema_ref().fields();
        let fits = theirs.len() == self.schema.fields().len()
            && theirs
                .iter()
                .zip(self.schema.fields())
                .all(|(a, b)| a.data_type().equals_datatype(b.data_type()));
        if !fits {
            return Err(Error::Internal("a batch to encode was not adapted to the file's schema".to_owned()));
        }
        let mut columns = self.columns.iter_mut();
        for (field, array) in self.schema.fields().iter().zip(batch.columns()) {
            for leaf in compute_leaves(field, array).map_err(failed)? {
                let column =
                    columns.next().ok_or_else(|| Error::Internal("too many leaf columns".to_owned()))?;
                column.write(&leaf).map_err(failed)?;
            }
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::memory_size).sum()
    }

    /// About how many bytes the row group would have if it ended here.
    pub fn encoded_bytes(&self) -> usize {
        self.columns.iter().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// Ends the row group.
    pub fn finish(self) -> Result<EncodedRowGroup> {
        let chunks: Vec<_> = self
            .columns
            .into_iter()
            .map(ArrowColumnWriter::close)
            .collect::<Result<_, _>>()
            .map_err(failed)?;
        let bytes = chunks.iter().map(|chunk| chunk.close().bytes_written as usize).sum();
        Ok(EncodedRowGroup { parquet: self.parquet, chunks, rows: self.rows, bytes })
    }
}

impl EncodedRowGroup {
    /// How many rows it has.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// How many bytes it has.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

pub(super) fn failed(error: ParquetError) -> Error {
    Error::Internal(format!("encoding Parquet: {error}"))
}
