//! Encoding rows to the column chunks of one row group, in memory. Independent of the file it will end up in, so that
//! several row groups can be encoded in parallel.

use super::FileLayout;
use crate::error::{Error, Result};
use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{FieldRef, SchemaRef};
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
    columns: Vec<ColumnEncoder>,
    rows: usize,
}

/// Encodes one top-level column of a row group.
#[derive(Debug)]
pub struct ColumnEncoder {
    field: FieldRef,
    leaves: Vec<ArrowColumnWriter>,
}

/// An encoded row group, ready to be appended to a file of its layout.
#[derive(Debug)]
pub struct EncodedRowGroup {
    pub(super) parquet: SchemaDescPtr,
    pub(super) chunks: Vec<ArrowColumnChunk>,
    pub(super) rows: usize,
    bytes: usize,
}

/// One encoded top-level column.
#[derive(Debug)]
pub struct EncodedColumn(Vec<ArrowColumnChunk>);

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
        let mut columns: Vec<ColumnEncoder> = layout
            .row_schema()
            .fields()
            .iter()
            .map(|field| ColumnEncoder { field: field.clone(), leaves: Vec::new() })
            .collect();
        for (leaf, writer) in factory.create_column_writers(0).map_err(failed)?.into_iter().enumerate() {
            let root = (leaf < parquet.num_columns()).then(|| parquet.get_column_root_idx(leaf));
            let column = root.and_then(|root| columns.get_mut(root));
            column.ok_or_else(|| Error::Internal("too many leaf columns".to_owned()))?.leaves.push(writer);
        }
        Ok(Self { schema: layout.row_schema().clone(), parquet: parquet.clone(), columns, rows: 0 })
    }

    /// The schema that batches must have.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Encodes the rows of `batch`, which must be [adapted](crate::schema::adapt) to [`schema`](Self::schema).
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if batch.num_columns() != self.columns.len() {
            return Err(unadapted());
        }
        for (column, array) in self.columns.iter_mut().zip(batch.columns()) {
            column.write(array)?;
        }
        self.rows += batch.num_rows();
        Ok(())
    }

    /// Its columns, each to be encoded by itself, and then [put together](EncodedRowGroup::of_columns) in this order.
    pub fn apart(self) -> Vec<ColumnEncoder> {
        self.columns
    }

    /// Rows so far.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Bytes of memory in use.
    pub fn memory(&self) -> usize {
        self.leaves().map(ArrowColumnWriter::memory_size).sum()
    }

    /// About how many bytes the row group would have if it ended here.
    pub fn encoded_bytes(&self) -> usize {
        self.leaves().map(ArrowColumnWriter::get_estimated_total_bytes).sum()
    }

    /// Ends the row group.
    pub fn finish(self) -> Result<EncodedRowGroup> {
        let columns: Result<_> = self.columns.into_iter().map(ColumnEncoder::finish).collect();
        Ok(EncodedRowGroup::put_together(self.parquet, columns?, self.rows))
    }

    fn leaves(&self) -> impl Iterator<Item = &ArrowColumnWriter> {
        self.columns.iter().flat_map(|column| &column.leaves)
    }
}

impl ColumnEncoder {
    /// Encodes the values of `array`, which must be of the type that the layout's rows have there.
    pub fn write(&mut self, array: &ArrayRef) -> Result<()> {
        if !array.data_type().equals_datatype(self.field.data_type()) {
            return Err(unadapted());
        }
        let mut writers = self.leaves.iter_mut();
        for leaf in compute_leaves(&self.field, array).map_err(failed)? {
            let writer = writers.next().ok_or_else(|| Error::Internal("too many leaf columns".to_owned()))?;
            writer.write(&leaf).map_err(failed)?;
        }
        Ok(())
    }

    /// Ends the column.
    pub fn finish(self) -> Result<EncodedColumn> {
        let chunks: Result<_, _> = self.leaves.into_iter().map(ArrowColumnWriter::close).collect();
        Ok(EncodedColumn(chunks.map_err(failed)?))
    }
}

fn unadapted() -> Error {
    Error::Internal("a batch to encode was not adapted to the file's schema".to_owned())
}

impl EncodedRowGroup {
    /// All columns of a row group of `layout` that has `rows` rows, encoded by themselves.
    pub fn of_columns(layout: &FileLayout, columns: Vec<EncodedColumn>, rows: usize) -> Self {
        Self::put_together(layout.parquet_schema().clone(), columns, rows)
    }

    fn put_together(parquet: SchemaDescPtr, columns: Vec<EncodedColumn>, rows: usize) -> Self {
        let chunks: Vec<_> = columns.into_iter().flat_map(|column| column.0).collect();
        let bytes = chunks.iter().map(|chunk| chunk.close().bytes_written as usize).sum();
        Self { parquet, chunks, rows, bytes }
    }

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
