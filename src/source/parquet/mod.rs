//! Parquet files as chunks: one row group gives its key columns first and its full rows, or its bytes, later.
//!
//! Promises: a corrupt, truncated, encrypted or hostile file is an error that names the file and the reason, never a
//! panic, a wrong row or an outsize allocation; a row group yields exactly the rows that its footer states; strings
//! are read as views, so that a value which a dictionary repeats is held once; no instant is wrapped.

mod compact;
mod copy;
mod cut;
mod footer;
mod guard;
mod index;
mod int96;
mod interval;
mod read;

pub use copy::{CopiedColumn, Piece, RowGroupCopy};
pub use cut::CutColumn;
pub use guard::is_shielded;
pub use read::Batches;

use crate::error::{Error, Result};
use crate::schema::{check_names, check_width, normalise, viewed};
use crate::source::ahead::Ahead;
use crate::source::input::Input;
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::{DataType, FieldRef, Fields, Schema, SchemaRef};
use guard::{Guarded, MAX_HELD_BYTES, broken, shielded};
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions};
use parquet::basic::{Compression, Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, KeyValue, ParquetColumnIndex, ParquetMetaData, ParquetOffsetIndex, RowGroupMetaData,
};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::SchemaDescriptor;
use std::ops::Range;
use std::sync::{Arc, OnceLock};

/// The most bytes that columns which lie side by side are fetched in by one request.
const FETCH: u64 = 8 << 20;

/// An open Parquet file: its footer is read and checked, its data are not. Cheap to clone.
#[derive(Debug)]
pub struct ParquetFile<R>(Arc<Inner<R>>);

impl<R> Clone for ParquetFile<R> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

#[derive(Debug)]
struct Inner<R> {
    input: Guarded<R>,
    url: String,
    /// Footer and read schema as the decoder wants them, without page index: the decoder would trust it blindly.
    reader: ArrowReaderMetadata,
    schema: SchemaRef,
    /// Arrow type of each leaf column, in the order of Parquet's leaves.
    leaf_types: Vec<DataType>,
    /// How many values of each leaf column a row has at least, by the sizes of the fixed-size lists it lies in.
    leaf_repeats: Vec<u64>,
    /// What each leaf column shares with the one before it.
    shared_levels: Vec<cut::Levels>,
    /// Bytes that the pages which are decoded at a time may unpack to.
    page_budget: u64,
    /// Whether the Arrow schema in its metadata, if there is one, fits.
    hint_holds: bool,
    page_index: OnceLock<Option<(ParquetColumnIndex, ParquetOffsetIndex)>>,
    spare: cut::Spare,
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> ParquetFile<R> {
    /// Reads and checks the footer of `input`. `url` names the file in errors.
    pub fn open(input: R, url: &str) -> Result<Self> {
        Self::open_within(input, url, 0)
    }

    /// As [`Self::open`], for a caller with `memory` bytes to decode in: pages that unpack to more than that together,
    /// and to more than 512 MiB, are refused.
    pub fn open_within(input: R, url: &str, memory: u64) -> Result<Self> {
        let input = Guarded::new(input);
        shielded(url, || Self::open_unshielded(input, url, memory.max(MAX_HELD_BYTES)))
    }

    fn open_unshielded(input: Guarded<R>, url: &str, page_budget: u64) -> Result<Self> {
        let metadata = Arc::new(footer::read_footer(&input, url)?);
        let (natural, hint_holds) = arrow_schema(&metadata).map_err(|error| broken(url, error))?;
        check_names(&natural).map_err(|reason| Error::input(url, reason))?;
        check_width(&natural).map_err(|reason| Error::input(url, reason))?;
        let schema = normalise(&with_days(&natural, &metadata));
        let options = ArrowReaderOptions::new().with_schema(Arc::new(viewed(&schema)));
        let reader = ArrowReaderMetadata::try_new(metadata, options).map_err(|error| broken(url, error))?;
        let mut leaves = Vec::new();
        collect_leaves(reader.schema().fields(), 1, &mut leaves);
        let (leaf_types, leaf_repeats): (Vec<_>, Vec<_>) = leaves.into_iter().unzip();
        if leaf_types.len() != reader.parquet_schema().num_columns() {
            return Err(broken(
                url,
                "its Arrow schema has another number of columns than its Parquet schema",
            ));
        }
        let schema = Arc::new(schema);
        let shared_levels = cut::shared_levels(reader.parquet_schema());
        let url = url.to_owned();
        Ok(Self(Arc::new(Inner {
            input,
            url,
            reader,
            schema,
            leaf_types,
            leaf_repeats,
            shared_levels,
            page_budget,
            hint_holds,
            page_index: OnceLock::new(),
            spare: cut::Spare::default(),
        })))
    }

    /// Where the file lies, as errors name it.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The logical schema: plain types, zones, field ids and the file's key-value metadata kept.
    pub fn schema(&self) -> &SchemaRef {
        &self.0.schema
    }

    /// The schema of the batches that [`RowGroup::rows`] yields: the logical one with strings and binaries as views.
    pub fn read_schema(&self) -> &SchemaRef {
        self.0.reader.schema()
    }

    /// The Parquet schema.
    pub fn parquet_schema(&self) -> &SchemaDescriptor {
        self.0.reader.parquet_schema()
    }

    /// The whole footer (without page index).
    pub fn metadata(&self) -> &Arc<ParquetMetaData> {
        self.0.reader.metadata()
    }

    /// The file's key-value metadata, `ARROW:schema` included, in its order.
    pub fn key_value_metadata(&self) -> &[KeyValue] {
        self.metadata().file_metadata().key_value_metadata().map_or(&[], Vec::as_slice)
    }

    /// Whether its key-value metadata can be passed on: not if the Arrow schema in it is damaged or does not fit, which
    /// would make other readers stumble.
    pub fn states_its_schema(&self) -> bool {
        self.0.hint_holds
    }

    /// How many rows the file has.
    pub fn num_rows(&self) -> u64 {
        (0..self.num_row_groups())
            .map(|at| self.row_group(at).map_or(0, |group| group.num_rows() as u64))
            .sum()
    }

    /// How many row groups the file has.
    pub fn num_row_groups(&self) -> usize {
        self.metadata().num_row_groups()
    }

    /// One row group, if there are so many.
    pub fn row_group(&self, index: usize) -> Option<RowGroup<R>> {
        (index < self.num_row_groups()).then(|| RowGroup { file: self.clone(), index })
    }

    /// All row groups, in order.
    pub fn row_groups(&self) -> impl Iterator<Item = RowGroup<R>> + '_ {
        (0..self.num_row_groups()).filter_map(|index| self.row_group(index))
    }

    /// The codec of most bytes of the file, which an encoder should use "as the source".
    pub fn codec(&self) -> Option<Compression> {
        let mut sums: Vec<(Compression, i64)> = Vec::new();
        for column in self.metadata().row_groups().iter().flat_map(RowGroupMetaData::columns) {
            let codec = column.compression();
            match sums.iter_mut().find(|(known, _)| *known == codec) {
                Some((_, bytes)) => *bytes = bytes.saturating_add(column.compressed_size()),
                None => sums.push((codec, column.compressed_size())),
            }
        }
        sums.into_iter().rev().max_by_key(|(_, bytes)| *bytes).map(|(codec, _)| codec)
    }

    /// Indices of the leaf columns of the top-level column `root`, in order.
    pub fn leaves_of(&self, root: usize) -> Vec<usize> {
        let schema = self.parquet_schema();
        (0..schema.num_columns()).filter(|leaf| schema.get_column_root_idx(*leaf) == root).collect()
    }

    /// Indices of the leaf columns at or under `path`.
    fn leaves_under(&self, path: &[String]) -> impl Iterator<Item = usize> {
        let columns = self.parquet_schema().columns().iter().enumerate();
        columns.filter(|(_, column)| column.path().parts().starts_with(path)).map(|(at, _)| at)
    }
}

/// One row group of an open file. Cheap to clone.
#[derive(Debug)]
pub struct RowGroup<R> {
    file: ParquetFile<R>,
    index: usize,
}

impl<R> Clone for RowGroup<R> {
    fn clone(&self) -> Self {
        Self { file: self.file.clone(), index: self.index }
    }
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> RowGroup<R> {
    /// The file it belongs to.
    pub fn file(&self) -> &ParquetFile<R> {
        &self.file
    }

    /// Its place in the file.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Its part of the footer.
    pub fn metadata(&self) -> &RowGroupMetaData {
        self.file.metadata().row_group(self.index)
    }

    /// How many rows it has.
    pub fn num_rows(&self) -> usize {
        // Checked when the footer was read.
        self.metadata().num_rows() as usize
    }

    /// Bytes in the file.
    pub fn compressed_bytes(&self) -> u64 {
        self.metadata()
            .columns()
            .iter()
            .fold(0, |sum, column| sum.saturating_add_signed(column.compressed_size()))
    }

    /// Decodes the columns at `paths` and nothing else, in batches of at most `batch_rows` rows (fewer where rows are
    /// wide). Top-level names are kept and structs hold only the wanted members, so that a path such as
    /// `payload.push_id` resolves in the batches as it does in the file.
    pub fn key_batches(&self, paths: &[Vec<String>], batch_rows: usize) -> Result<Batches<R>> {
        let mut leaves = Vec::new();
        for path in paths {
            let before = leaves.len();
            leaves.extend(self.file.leaves_under(path));
            if leaves.len() == before {
                return Err(Error::input(self.file.url(), format!("it has no column `{}`", path.join("."))));
            }
        }
        Batches::open(self, Some(leaves), None, batch_rows)
    }

    /// Decodes full rows, all or those that `keep` has set, in batches of at most `batch_rows` rows (fewer where rows
    /// are wide), in the file's [`read_schema`](ParquetFile::read_schema).
    pub fn rows(&self, keep: Option<&BooleanBuffer>, batch_rows: usize) -> Result<Batches<R>> {
        Batches::open(self, None, keep, batch_rows)
    }

    /// Decodes the top-level column `root` of the rows that `keep` has set, in batches of at most `batch_rows` rows
    /// (fewer where rows are wide), as [`rows`](Self::rows) has it.
    pub fn column_rows(&self, root: usize, keep: &BooleanBuffer, batch_rows: usize) -> Result<Batches<R>> {
        Batches::open(self, Some(self.file.leaves_of(root)), Some(keep), batch_rows)
    }

    /// Its encoded bytes, column by column and piece by piece, checked on the way.
    pub fn copy(&self) -> RowGroupCopy<R> {
        RowGroupCopy::new(self.clone())
    }
}

impl RowGroup<Input> {
    /// Begins to fetch the columns at `paths`, if the file lies in a bucket and they have at most `most` bytes.
    pub(crate) fn fetch_keys_ahead(&self, paths: &[Vec<String>], most: u64) -> Ahead {
        self.fetch_ahead(paths.iter().flat_map(|path| self.file.leaves_under(path)), most)
    }

    /// Begins to fetch all columns, if the file lies in a bucket and they have at most `most` bytes.
    pub(crate) fn fetch_all_ahead(&self, most: u64) -> Ahead {
        self.fetch_ahead(0..self.metadata().num_columns(), most)
    }

    fn fetch_ahead(&self, leaves: impl Iterator<Item = usize>, most: u64) -> Ahead {
        let chunks = leaves.filter_map(|leaf| self.metadata().columns().get(leaf));
        let place = |chunk: &ColumnChunkMetaData| {
            // Both checked when the footer was read.
            let start = u64::try_from(copy::chunk_start(chunk)).unwrap_or(0);
            start..start.saturating_add_signed(chunk.compressed_size())
        };
        let mut places: Vec<_> = chunks.filter(|chunk| chunk.num_values() > 0).map(place).collect();
        places.sort_unstable_by_key(|place| place.start);
        places.dedup();
        if places.iter().map(|place| place.end - place.start).fold(0, u64::saturating_add) > most {
            return Ahead::default();
        }
        let mut fetches: Vec<Range<u64>> = Vec::new();
        for place in places {
            match fetches.last_mut() {
                // Chunks that lie side by side are fetched together, as far as a request should go.
                Some(last) if last.end == place.start && place.end - last.start <= FETCH => {
                    last.end = place.end
                }
                _ => fetches.push(place),
            }
        }
        self.file.0.input.inner().fetch_ahead(fetches)
    }
}

/// The Arrow schema that the file states, and whether its own hint was of use: one that is damaged, or does not fit
/// the Parquet schema, is ignored.
fn arrow_schema(metadata: &Arc<ParquetMetaData>) -> Result<(Schema, bool), ParquetError> {
    let with = |options| ArrowReaderMetadata::try_new(Arc::clone(metadata), options);
    // A hint so damaged that the decoder panics over it is damaged as well.
    let hinted = shielded("", || with(ArrowReaderOptions::new()).map_err(|error| broken("", error)));
    if let Ok(hinted) = hinted {
        return Ok((hinted.schema().as_ref().clone(), true));
    }
    let plain = with(ArrowReaderOptions::new().with_skip_arrow_metadata(true))?;
    Ok((plain.schema().as_ref().clone(), false))
}

/// Dates that are stored as days are read as days, even where the writer held them in milliseconds: that is what
/// other readers see, and what can be written again as dates.
fn with_days(schema: &Schema, metadata: &ParquetMetaData) -> Schema {
    let parquet = metadata.file_metadata().schema_descr();
    let mut leaf = 0;
    let fields: Fields = schema.fields().iter().map(|field| days(field, parquet, &mut leaf)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn days(field: &FieldRef, parquet: &SchemaDescriptor, leaf: &mut usize) -> FieldRef {
    let kind = match field.data_type() {
        DataType::Struct(members) => {
            DataType::Struct(members.iter().map(|member| days(member, parquet, leaf)).collect())
        }
        DataType::List(item) => DataType::List(days(item, parquet, leaf)),
        DataType::LargeList(item) => DataType::LargeList(days(item, parquet, leaf)),
        DataType::FixedSizeList(item, n) => DataType::FixedSizeList(days(item, parquet, leaf), *n),
        DataType::Map(entries, sorted) => DataType::Map(days(entries, parquet, leaf), *sorted),
        flat => {
            let at = std::mem::replace(leaf, *leaf + 1);
            let stored = parquet.columns().get(at).map(|column| column.physical_type());
            match flat {
                DataType::Date64 if stored == Some(Type::INT32) => DataType::Date32,
                _ => return Arc::clone(field),
            }
        }
    };
    Arc::new(field.as_ref().clone().with_data_type(kind))
}

fn collect_leaves(fields: &Fields, repeats: u64, leaves: &mut Vec<(DataType, u64)>) {
    for field in fields {
        collect_leaf(field.data_type(), repeats, leaves);
    }
}

fn collect_leaf(data_type: &DataType, repeats: u64, leaves: &mut Vec<(DataType, u64)>) {
    match data_type {
        DataType::Struct(members) => collect_leaves(members, repeats, leaves),
        DataType::List(item) | DataType::Map(item, _) => collect_leaf(item.data_type(), 1, leaves),
        DataType::FixedSizeList(item, size) => {
            let repeats = repeats.saturating_mul(u64::try_from(*size).unwrap_or(0).max(1));
            collect_leaf(item.data_type(), repeats, leaves);
        }
        flat => leaves.push((flat.clone(), repeats)),
    }
}

#[cfg(test)]
mod tests;
