//! What all row groups of one file have in common: the Parquet schema and the key-value metadata.

use super::CompressionChoice;
use crate::error::{Error, Result};
use crate::schema::{is_json, normalise, stored, viewed};
use crate::source::parquet::ParquetFile;
use arrow::datatypes::{Field, Schema, SchemaRef};
use parquet::arrow::{ARROW_SCHEMA_META_KEY, ArrowSchemaConverter, encode_arrow_schema};
use parquet::basic::{Compression, LogicalType};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{WriterProperties, WriterPropertiesPtr};
use parquet::file::reader::ChunkReader;
use parquet::schema::types::{SchemaDescPtr, SchemaDescriptor, Type};
use std::sync::Arc;

/// Who wrote the file, as Parquet's footer says it.
pub(super) const CREATED_BY: &str = concat!("dedupe version ", env!("CARGO_PKG_VERSION"));

/// The shape of a data file. Two row groups may share a file exactly if their layouts are equal.
#[derive(Debug, Clone)]
pub struct FileLayout {
    schema: SchemaRef,
    row_schema: SchemaRef,
    parquet: SchemaDescPtr,
    key_values: Vec<KeyValue>,
    encodes: bool,
    properties: WriterPropertiesPtr,
    choice: CompressionChoice,
}

impl PartialEq for FileLayout {
    fn eq(&self, other: &Self) -> bool {
        self.parquet.root_schema() == other.parquet.root_schema() && self.key_values == other.key_values
    }
}

impl FileLayout {
    /// The layout of files that hold rows adapted to `contract`: its plain types, zones and field ids, its metadata,
    /// and the contract itself as `ARROW:schema`. `source` is the codec of the rows' source, if it has one.
    pub fn of_contract(
        contract: &Schema,
        choice: CompressionChoice,
        source: Option<Compression>,
    ) -> Result<Self> {
        let schema = stored(contract);
        let parquet = natural_parquet(&schema)?;
        let mut metadata: Vec<_> = schema.metadata().iter().collect();
        metadata.sort();
        let mut key_values: Vec<KeyValue> =
            metadata.into_iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())).collect();
        key_values.retain(|pair| pair.key != ARROW_SCHEMA_META_KEY);
        key_values.push(KeyValue::new(ARROW_SCHEMA_META_KEY.to_owned(), encode_arrow_schema(&schema)));
        let properties = WriterProperties::builder()
            .set_created_by(CREATED_BY.to_owned())
            .set_compression(choice.codec(source))
            .build();
        Ok(Self {
            row_schema: Arc::new(viewed(&schema)),
            schema: Arc::new(schema),
            parquet: Arc::new(parquet),
            key_values,
            encodes: true,
            properties: Arc::new(properties),
            choice,
        })
    }

    /// The layout of `file` itself, if its rows are rows of `contract` as they are: the same columns of the same types
    /// in the same order. Its row groups can then be copied; rows can be encoded into the same files if
    /// [`encodes`](Self::encodes).
    pub fn of_source<R: ChunkReader + Clone + Send + Sync + 'static>(
        file: &ParquetFile<R>,
        contract: &Schema,
        choice: CompressionChoice,
    ) -> Option<Self> {
        let schema = file.schema();
        let contract = normalise(contract);
        let same = schema.fields().len() == contract.fields().len()
            && schema.fields().iter().zip(contract.fields()).all(|(theirs, ours)| same_column(theirs, ours));
        let parquet = file.metadata().file_metadata().schema_descr_ptr();
        // What it says wrongly of itself is not passed on.
        if !same
            || !file.states_its_schema()
            || schema.fields().is_empty()
            || !writable(parquet.root_schema())
        {
            return None;
        }
        Some(Self {
            schema: Arc::clone(schema),
            row_schema: Arc::clone(file.read_schema()),
            encodes: natural_parquet(schema).is_ok_and(|natural| same_levels(&natural, &parquet)),
            properties: Arc::new(source_properties(file, choice)),
            parquet,
            key_values: file.key_value_metadata().to_vec(),
            choice,
        })
    }

    /// The layout of a file with the top-level column `root` alone.
    pub(super) fn only(&self, root: usize) -> Result<Self> {
        let absent = || Error::Internal(format!("a file layout has no column {root}"));
        let column = self.parquet.root_schema().get_fields().get(root).ok_or_else(absent)?;
        let schema = |schema: &Schema| schema.project(&[root]).map(Arc::new).map_err(|_| absent());
        let (schema, row_schema) = (schema(&self.schema)?, schema(&self.row_schema)?);
        if schema.fields().first().is_none_or(|field| field.name() != column.name()) {
            return Err(absent());
        }
        let parquet = Type::group_type_builder(self.parquet.root_schema().name())
            .with_fields(vec![Arc::clone(column)])
            .build()
            .map_err(super::encode::failed)?;
        let parquet = Arc::new(SchemaDescriptor::new(Arc::new(parquet)));
        Ok(Self { schema, row_schema, parquet, ..self.clone() })
    }

    /// The logical schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The schema of the batches to encode: adapt rows to this one. Strings and binaries are views.
    pub fn row_schema(&self) -> &SchemaRef {
        &self.row_schema
    }

    /// Whether rows can be encoded into such a file. Not so for a source of physical types or levels that the encoder
    /// does not write (96-bit timestamps, decimals as byte arrays, optional map keys): its row groups are copied, and
    /// rows that must be encoded go to a file of the contract's layout.
    pub fn encodes(&self) -> bool {
        self.encodes
    }

    /// The Parquet schema.
    pub fn parquet_schema(&self) -> &SchemaDescPtr {
        &self.parquet
    }

    /// The key-value metadata of the file.
    pub fn key_value_metadata(&self) -> &[KeyValue] {
        &self.key_values
    }

    pub(super) fn properties(&self) -> &WriterPropertiesPtr {
        &self.properties
    }

    pub(super) fn compression(&self) -> CompressionChoice {
        self.choice
    }
}

fn natural_parquet(schema: &Schema) -> Result<SchemaDescriptor> {
    if schema.fields().is_empty() {
        return Err(Error::Refused("a table needs at least one column, but the input has none".to_owned()));
    }
    ArrowSchemaConverter::new()
        .convert(schema)
        .map_err(|error| Error::Refused(format!("the table's columns cannot be written as Parquet: {error}")))
}

/// Whether a column of a source can stand for one of the contract. A stricter nullability may: no value changes.
fn same_column(theirs: &Field, ours: &Field) -> bool {
    theirs.name() == ours.name()
        && theirs.data_type().equals_datatype(ours.data_type())
        && is_json(theirs) == is_json(ours)
        && (ours.is_nullable() || !theirs.is_nullable())
}

/// Whether the footer's writer knows every annotation of the schema; it fails on one from a newer format.
fn writable(column: &Type) -> bool {
    !matches!(column.get_basic_info().logical_type_ref(), Some(LogicalType::_Unknown { .. }))
        && (column.is_primitive() || column.get_fields().iter().all(|member| writable(member)))
}

/// Whether what the encoder writes for one schema is what the other one describes: leaves of the same physical type
/// under the same levels.
fn same_levels(natural: &SchemaDescriptor, source: &SchemaDescriptor) -> bool {
    natural.num_columns() == source.num_columns()
        && natural.columns().iter().zip(source.columns()).all(|(ours, theirs)| {
            ours.physical_type() == theirs.physical_type()
                && ours.type_length() == theirs.type_length()
                && ours.max_def_level() == theirs.max_def_level()
                && ours.max_rep_level() == theirs.max_rep_level()
        })
}

/// Codecs and Bloom filters column by column as the source's first row group has them.
fn source_properties<R: ChunkReader + Clone + Send + Sync + 'static>(
    file: &ParquetFile<R>,
    choice: CompressionChoice,
) -> WriterProperties {
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(choice.codec(file.codec()));
    for column in file.metadata().row_groups().first().map_or(&[][..], |group| group.columns()) {
        let path = column.column_path().clone();
        builder = builder.set_column_compression(path.clone(), choice.codec(Some(column.compression())));
        if column.bloom_filter_offset().is_some() {
            builder = builder.set_column_bloom_filter_enabled(path, true);
        }
    }
    builder.build()
}
