//! Whole ways through source and sink: what comes out is what went in, less the rows that were dropped.

use super::*;
use crate::error::{Error, Result};
use crate::schema::arbitrary::{Dice, any_schema, random_batch};
use crate::schema::{adapt, normalise, stored, widen};
use crate::source::parquet::{ParquetFile, RowGroup};
use arrow::array::{ArrayRef, BooleanArray, Int32Array, RecordBatch, StringArray, TimestampSecondArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::{concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use bytes::Bytes;
use parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder, RowSelection, RowSelectionPolicy,
};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, Encoding, GzipLevel, Type, ZstdLevel};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{KeyValue, PageIndexPolicy, ParquetMetaDataReader, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use proptest::prelude::*;
use std::collections::HashMap;
use std::sync::Arc;

fn random_properties(schema: &Schema, dice: &mut Dice) -> WriterProperties {
    let codec = [
        Compression::UNCOMPRESSED,
        Compression::SNAPPY,
        Compression::LZ4_RAW,
        Compression::GZIP(GzipLevel::default()),
        Compression::ZSTD(ZstdLevel::default()),
    ][dice.below(5) as usize];
    let statistics = [EnabledStatistics::None, EnabledStatistics::Chunk, EnabledStatistics::Page];
    let builder = WriterProperties::builder()
        .set_compression(codec)
        .set_dictionary_enabled(dice.below(3) > 0)
        .set_statistics_enabled(statistics[dice.below(3) as usize])
        .set_data_page_row_count_limit(1 + dice.below(50) as usize)
        .set_write_batch_size(1 + dice.below(20) as usize)
        .set_dictionary_page_size_limit(1 + dice.below(300) as usize)
        .set_max_row_group_row_count(Some(1 + dice.below(120) as usize))
        .set_bloom_filter_enabled(dice.below(4) == 0)
        .set_bloom_filter_max_ndv(100);
    let version = if dice.below(2) == 0 { WriterVersion::PARQUET_1_0 } else { WriterVersion::PARQUET_2_0 };
    let mut builder = builder.set_writer_version(version);
    let descriptor = ArrowSchemaConverter::new().convert(schema).unwrap();
    for column in descriptor.columns() {
        let choices: &[Encoding] = match column.physical_type() {
            Type::BOOLEAN => &[Encoding::PLAIN, Encoding::RLE],
            Type::INT32 | Type::INT64 => {
                &[Encoding::PLAIN, Encoding::DELTA_BINARY_PACKED, Encoding::BYTE_STREAM_SPLIT]
            }
            Type::INT96 => &[Encoding::PLAIN],
            Type::FLOAT | Type::DOUBLE => &[Encoding::PLAIN, Encoding::BYTE_STREAM_SPLIT],
            Type::BYTE_ARRAY => {
                &[Encoding::PLAIN, Encoding::DELTA_LENGTH_BYTE_ARRAY, Encoding::DELTA_BYTE_ARRAY]
            }
            Type::FIXED_LEN_BYTE_ARRAY => {
                &[Encoding::PLAIN, Encoding::DELTA_BYTE_ARRAY, Encoding::BYTE_STREAM_SPLIT]
            }
        };
        let encoding = choices[dice.below(choices.len() as u64) as usize];
        builder = builder.set_column_encoding(column.path().clone(), encoding);
    }
    let note = (dice.below(2) == 0).then(|| vec![KeyValue::new("owner".to_owned(), "somebody".to_owned())]);
    builder.set_key_value_metadata(note).set_offset_index_disabled(dice.below(3) == 0).build()
}

fn write_source(batch: &RecordBatch, properties: WriterProperties) -> Bytes {
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file.into()
}

/// What a foreign reader sees in a file, in plain types.
fn read_back(file: &Bytes, schema: &SchemaRef) -> RecordBatch {
    let reader = ParquetRecordBatchReaderBuilder::try_new(file.clone()).unwrap().build().unwrap();
    let batches: Vec<_> = reader.map(|batch| adapt(&batch.unwrap(), schema).unwrap()).collect();
    concat_batches(schema, &batches).unwrap()
}

/// The same, for the rows that `keep` has set, by way of the page index.
fn read_selected(file: &Bytes, schema: &SchemaRef, keep: &BooleanBuffer) -> RecordBatch {
    let options = ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional);
    let reader = ParquetRecordBatchReaderBuilder::try_new_with_options(file.clone(), options)
        .unwrap()
        .with_row_selection(RowSelection::from_boolean_buffer(keep.clone()))
        .with_row_selection_policy(RowSelectionPolicy::Selectors)
        .build()
        .unwrap();
    let batches: Vec<_> = reader.map(|batch| adapt(&batch.unwrap(), schema).unwrap()).collect();
    concat_batches(schema, &batches).unwrap()
}

fn filtered(batch: &RecordBatch, keep: &BooleanBuffer) -> RecordBatch {
    filter_record_batch(batch, &BooleanArray::new(keep.clone(), None)).unwrap()
}

/// Does what a session does: copies what may be copied, encodes the rest, a new file where the layout changes.
struct Rewriter {
    contract: SchemaRef,
    choice: CompressionChoice,
    writer: Option<FileWriter>,
    bytes: Vec<u8>,
    files: Vec<(Bytes, FileSummary)>,
    copied: usize,
    cut: usize,
    decoded: usize,
}

impl Rewriter {
    fn new(contract: &SchemaRef, choice: CompressionChoice) -> Self {
        let contract = Arc::clone(contract);
        Self {
            contract,
            choice,
            writer: None,
            bytes: Vec::new(),
            files: Vec::new(),
            copied: 0,
            cut: 0,
            decoded: 0,
        }
    }

    fn writer_of(&mut self, layout: &FileLayout) -> Result<&mut FileWriter> {
        if self.writer.as_ref().is_some_and(|writer| writer.layout() != layout) {
            self.end_file()?;
        }
        if self.writer.is_none() {
            let keys = self.contract.fields().iter().map(|field| vec![field.name().clone()]).collect();
            self.writer = Some(FileWriter::new(layout.clone(), keys)?);
        }
        Ok(self.writer.as_mut().unwrap())
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(mut writer) = self.writer.take() {
            let summary = writer.close()?;
            self.bytes.extend(writer.take_bytes()?);
            let bytes: Bytes = std::mem::take(&mut self.bytes).into();
            assert_eq!(summary.bytes, bytes.len() as u64);
            self.files.push((bytes, summary));
        }
        Ok(())
    }

    fn add(&mut self, file: &ParquetFile<Bytes>, keep: &BooleanBuffer) -> Result<()> {
        let own = FileLayout::of_contract(&self.contract, self.choice, file.codec())?;
        let source = FileLayout::of_source(file, &self.contract, self.choice);
        let encoding = source.clone().filter(FileLayout::encodes).unwrap_or(own);
        let mut start = 0;
        for group in file.row_groups() {
            let keep = keep.slice(start, group.num_rows());
            start += group.num_rows();
            let whole = keep.count_set_bits() == keep.len();
            match source.as_ref().filter(|layout| whole && copyable(&group, layout)) {
                Some(layout) => {
                    let mut copy = group.copy();
                    while self.writer_of(layout)?.copy_some(&mut copy)? {
                        let bytes = self.writer_of(layout)?.take_bytes()?;
                        self.bytes.extend(bytes);
                    }
                    self.copied += 1;
                }
                None if self.try_cut(source.as_ref(), &group, &keep)? => self.cut += 1,
                None => {
                    self.decoded += usize::from(!whole && keep.count_set_bits() > 0);
                    let mut encoder = RowGroupEncoder::new(&encoding)?;
                    for batch in group.rows((!whole).then_some(&keep), 37)? {
                        let batch = adapt(&batch?, encoder.schema());
                        encoder.write(&batch.map_err(|reason| Error::input(file.url(), reason))?)?;
                    }
                    assert_eq!(encoder.rows(), keep.count_set_bits());
                    let encoded = encoder.finish()?;
                    self.writer_of(&encoding)?.append_encoded(encoded)?;
                }
            }
        }
        Ok(())
    }
}

impl Rewriter {
    /// Cuts a row group, if all of its columns can be.
    fn try_cut(
        &mut self,
        layout: Option<&FileLayout>,
        group: &RowGroup<Bytes>,
        keep: &BooleanBuffer,
    ) -> Result<bool> {
        let rows = keep.count_set_bits() as u64;
        let Some(layout) = layout.filter(|layout| rows > 0 && copyable(group, layout)) else {
            return Ok(false);
        };
        let columns = (0..group.metadata().num_columns()).map(|leaf| group.cut_column(leaf, keep));
        let mut columns = columns.collect::<Result<Vec<_>>>()?;
        group.only_whole(&mut columns);
        let Some(mut columns) = columns.into_iter().collect::<Option<Vec<_>>>() else { return Ok(false) };
        if layout.encodes() && rows.is_multiple_of(3) {
            // As if some column could not be cut.
            let root = group.file().parquet_schema().get_column_root_idx(rows as usize % columns.len());
            let encoded = encode_column(group, root, keep, layout)?;
            for (leaf, column) in group.file().leaves_of(root).into_iter().zip(encoded) {
                columns[leaf] = column;
            }
        }
        for column in columns {
            self.writer_of(layout)?.append_cut(group, column)?;
        }
        self.writer_of(layout)?.end_cut(group, rows)?;
        let bytes = self.writer_of(layout)?.take_bytes()?;
        self.bytes.extend(bytes);
        Ok(true)
    }
}

fn random_mask(rows: usize, dice: &mut Dice) -> BooleanBuffer {
    match dice.below(4) {
        0 => BooleanBuffer::new_set(rows),
        1 => BooleanBuffer::collect_bool(rows, |_| dice.below(10) == 0),
        2 => {
            let cut = dice.below(rows as u64 + 1) as usize;
            BooleanBuffer::collect_bool(rows, |row| row >= cut)
        }
        _ => BooleanBuffer::collect_bool(rows, |_| dice.below(40) > 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_what_was_kept(schema in any_schema(), seed: u64, rows in 1usize..300) {
        let mut dice = Dice::new(seed);
        let batch = random_batch(&schema, rows, &mut dice);
        let source = write_source(&batch, random_properties(&schema, &mut dice));
        let keep = random_mask(rows, &mut dice);
        let file = ParquetFile::open(source.clone(), "memory").unwrap();
        let contract = Arc::clone(file.schema());
        prop_assert_eq!(&normalise(&schema).fields, &contract.fields);
        let choice = if dice.below(3) == 0 { "zstd".parse().unwrap() } else { CompressionChoice::AsSource };
        let mut rewriter = Rewriter::new(&contract, choice);
        rewriter.add(&file, &keep).unwrap();
        rewriter.end_file().unwrap();
        // One layout: copied and encoded row groups share a file.
        prop_assert_eq!(rewriter.files.len(), 1);
        let (written, summary) = &rewriter.files[0];
        let expected = filtered(&read_back(&source, &contract), &keep);
        prop_assert_eq!(summary.rows, expected.num_rows() as u64);
        prop_assert_eq!(&read_back(written, &contract), &expected);
        let some = random_mask(expected.num_rows(), &mut dice);
        prop_assert_eq!(&read_selected(written, &contract, &some), &filtered(&expected, &some));
        // Copying once more, from a file of ours.
        let again = ParquetFile::open(written.clone(), "memory").unwrap();
        prop_assert_eq!(again.schema().fields(), contract.fields());
        let mut twice = Rewriter::new(&contract, CompressionChoice::AsSource);
        twice.add(&again, &BooleanBuffer::new_set(expected.num_rows())).unwrap();
        prop_assert_eq!(twice.copied, again.num_row_groups());
        twice.end_file().unwrap();
        if let Some((copied, _)) = twice.files.first() {
            prop_assert_eq!(&read_back(copied, &contract), &expected);
            prop_assert_eq!(&read_selected(copied, &contract, &some), &filtered(&expected, &some));
        }
        // Cutting once more.
        let mut thrice = Rewriter::new(&contract, CompressionChoice::AsSource);
        thrice.add(&again, &some).unwrap();
        prop_assert_eq!(thrice.decoded, 0);
        thrice.end_file().unwrap();
        if let Some((cut, _)) = thrice.files.first() {
            prop_assert_eq!(&read_back(cut, &contract), &filtered(&expected, &some));
        }
    }

    #[test]
    fn key_columns_come_alone_and_whole(schema in any_schema(), seed: u64, rows in 1usize..200) {
        let mut dice = Dice::new(seed);
        let batch = random_batch(&schema, rows, &mut dice);
        let file = ParquetFile::open(write_source(&batch, random_properties(&schema, &mut dice)), "memory").unwrap();
        let name = schema.field(dice.below(schema.fields().len() as u64) as usize).name().clone();
        let (_, field) = file.schema().column_with_name(&name).unwrap();
        let wanted = Arc::new(Schema::new(vec![field.clone()]));
        let mut found = Vec::new();
        for group in file.row_groups() {
            for batch in group.key_batches(&[vec![name.clone()]], 17).unwrap() {
                let batch = batch.unwrap();
                prop_assert!(batch.num_rows() <= 17);
                found.push(adapt(&batch, &wanted).unwrap());
            }
        }
        let expected = batch.project(&[schema.index_of(&name).unwrap()]).unwrap();
        prop_assert_eq!(concat_batches(&wanted, &found).unwrap(), adapt(&expected, &wanted).unwrap());
    }

    #[test]
    fn a_damaged_file_is_an_error_or_read_never_a_panic(schema in any_schema(), seed: u64, rows in 1usize..60) {
        let mut dice = Dice::new(seed);
        let batch = random_batch(&schema, rows, &mut dice);
        let mut bytes = write_source(&batch, random_properties(&schema, &mut dice)).to_vec();
        for _ in 0..1 + dice.below(4) {
            let at = dice.below(bytes.len() as u64) as usize;
            match dice.below(3) {
                0 => bytes[at] ^= 1 << dice.below(8),
                1 => bytes[at] = dice.next() as u8,
                _ => bytes.truncate(at.max(1)),
            }
        }
        let outcome = ParquetFile::open(Bytes::from(bytes), "damaged").and_then(|file| {
            let keep = BooleanBuffer::new_set(file.num_rows() as usize);
            let mut rewriter = Rewriter::new(file.schema(), CompressionChoice::AsSource);
            rewriter.add(&file, &keep)?;
            let mut rewriter = Rewriter::new(file.schema(), "zstd".parse()?);
            rewriter.add(&file, &keep)
        });
        if let Err(error) = outcome {
            let clean = matches!(error, Error::Input { .. } | Error::Refused(_));
            prop_assert!(clean, "{:?}", error);
        }
    }
}

/// Pages so long that snappy takes them in several pieces, of which most stay as they are.
#[test]
fn thin_duplicates_are_cut_out_of_long_snappy_pages() {
    let mut dice = Dice::new(7);
    let rows = 40_000;
    let ids: StringArray =
        (0..rows).map(|_| Some(format!("{:016x}-{:016x}", dice.next(), dice.next()))).collect();
    let some: StringArray =
        (0..rows).map(|_| (dice.below(9) > 0).then(|| format!("{:x}/{0:x}", dice.next()))).collect();
    let columns: [(_, ArrayRef); 2] = [("id", Arc::new(ids)), ("some", Arc::new(some))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_encoding(Encoding::PLAIN)
            .set_dictionary_enabled(false)
            .set_writer_version(version);
        let source = write_source(&batch, properties.build());
        let file = ParquetFile::open(source.clone(), "memory").unwrap();
        let contract = Arc::clone(file.schema());
        for one_in in [40, 4_000, 20_000] {
            let keep = BooleanBuffer::collect_bool(rows, |_| dice.below(one_in) > 0);
            let mut rewriter = Rewriter::new(&contract, CompressionChoice::AsSource);
            rewriter.add(&file, &keep).unwrap();
            rewriter.end_file().unwrap();
            assert_eq!((rewriter.cut, rewriter.decoded), (1, 0));
            let expected = filtered(&read_back(&source, &contract), &keep);
            assert_eq!(read_back(&rewriter.files[0].0, &contract), expected, "{version:?}, {one_in}");
        }
    }
}

fn people() -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int32Array::from_iter_values(0..1000));
    let names: ArrayRef = Arc::new(StringArray::from_iter_values((0..1000).map(|n| format!("name-{n:04}"))));
    RecordBatch::try_from_iter([("id", ids), ("name", names)]).unwrap()
}

fn copied(source: &Bytes) -> (Bytes, FileSummary) {
    let file = ParquetFile::open(source.clone(), "memory").unwrap();
    let mut rewriter = Rewriter::new(file.schema(), CompressionChoice::AsSource);
    rewriter.add(&file, &BooleanBuffer::new_set(file.num_rows() as usize)).unwrap();
    rewriter.end_file().unwrap();
    assert_eq!(rewriter.copied, file.num_row_groups());
    rewriter.files.remove(0)
}

#[test]
fn a_copy_keeps_statistics_filters_and_notes_and_gains_a_page_index() {
    let sorted = SortingColumn { column_idx: 0, descending: false, nulls_first: false };
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(400))
        .set_data_page_row_count_limit(100)
        .set_write_batch_size(50)
        .set_bloom_filter_enabled(true)
        .set_offset_index_disabled(true)
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_sorting_columns(Some(vec![sorted]))
        .set_key_value_metadata(Some(vec![KeyValue::new("owner".to_owned(), "me".to_owned())]))
        .build();
    let source = write_source(&people(), properties);
    let (file, summary) = copied(&source);
    assert_eq!((summary.rows, summary.row_groups), (1000, 3));
    let range = &summary.ranges[1];
    assert_eq!((range.min.as_deref(), range.max.as_deref()), (Some("name-0000"), Some("name-0999")));
    let read = |bytes: &Bytes| {
        let reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Optional);
        reader.parse_and_finish(bytes).unwrap()
    };
    let (before, after) = (read(&source), read(&file));
    assert!(before.offset_index().is_none() && after.offset_index().is_some());
    assert!(after.file_metadata().created_by().unwrap().starts_with("dedupe version "));
    assert_eq!(after.file_metadata().key_value_metadata(), before.file_metadata().key_value_metadata());
    for (old, new) in before.row_groups().iter().zip(after.row_groups()) {
        assert_eq!(new.sorting_columns(), old.sorting_columns());
        for (old, new) in old.columns().iter().zip(new.columns()) {
            assert_eq!(new.statistics(), old.statistics());
            let bloom = |column, bytes| Sbbf::read_from_column_chunk(column, bytes).unwrap().unwrap();
            let (mut a, mut b) = (Vec::new(), Vec::new());
            bloom(old, &source).write_bitset(&mut a).unwrap();
            bloom(new, &file).write_bitset(&mut b).unwrap();
            assert_eq!(a, b);
        }
    }
}

#[test]
fn encoded_files_state_the_contract_and_have_a_page_index() {
    let id = HashMap::from([("PARQUET:field_id".to_owned(), "7".to_owned())]);
    let zone = DataType::Timestamp(TimeUnit::Second, Some("Europe/Berlin".into()));
    let fields =
        vec![Field::new("at", zone, true).with_metadata(id), Field::new("name", DataType::LargeUtf8, true)];
    let contract = Schema::new_with_metadata(fields, HashMap::from([("owner".to_owned(), "me".to_owned())]));
    let layout = FileLayout::of_contract(&contract, "snappy".parse().unwrap(), None).unwrap();
    let mut encoder = RowGroupEncoder::new(&layout).unwrap();
    let at: ArrayRef =
        Arc::new(TimestampSecondArray::from(vec![Some(5), None]).with_timezone("Europe/Berlin"));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let rows = RecordBatch::try_from_iter([("name", names), ("at", at)]).unwrap();
    encoder.write(&adapt(&rows, encoder.schema()).unwrap()).unwrap();
    assert!(encoder.rows() == 2 && encoder.memory() > 0);
    let mut writer = FileWriter::new(layout, vec![vec!["at".to_owned()]]).unwrap();
    writer.append_encoded(encoder.finish().unwrap()).unwrap();
    let summary = writer.close().unwrap();
    assert_eq!(summary.ranges[0].min.as_deref(), Some("1970-01-01T00:00:05Z"));
    let file = ParquetFile::open(writer.take_bytes().unwrap(), "memory").unwrap();
    assert_eq!(file.schema().as_ref(), &stored(&contract));
    assert_eq!(file.codec(), Some(Compression::SNAPPY));
    let column = file.metadata().row_group(0).column(0).clone();
    assert!(column.offset_index_offset().is_some() && column.column_index_offset().is_some());
    assert_eq!(column.column_descr().self_type().get_basic_info().id(), 7);
    assert!(writer.append_encoded(RowGroupEncoder::new(writer.layout()).unwrap().finish().unwrap()).is_ok());
    assert!(writer.close().is_err(), "a closed file takes nothing more");
}

#[test]
fn rows_of_a_narrower_file_are_encoded_into_the_wider_contract() {
    let source = ParquetFile::open(write_source(&people(), WriterProperties::default()), "memory").unwrap();
    let extra =
        Schema::new(vec![Field::new("id", DataType::Int64, true), Field::new("x", DataType::Utf8, true)]);
    let contract = Arc::new(widen(source.schema(), &extra).unwrap());
    assert!(FileLayout::of_source(&source, &contract, CompressionChoice::AsSource).is_none());
    let mut rewriter = Rewriter::new(&contract, CompressionChoice::AsSource);
    rewriter.add(&source, &BooleanBuffer::new_set(1000)).unwrap();
    rewriter.end_file().unwrap();
    assert_eq!(rewriter.copied, 0);
    assert_eq!(read_back(&rewriter.files[0].0, &contract), adapt(&people(), &contract).unwrap());
}

#[test]
fn a_failed_copy_ends_the_file() {
    let mut source = write_source(&people(), WriterProperties::default()).to_vec();
    source[4] = 0xff; // the first page header
    let file = ParquetFile::open(Bytes::from(source), "broken").unwrap();
    let layout = FileLayout::of_source(&file, file.schema(), CompressionChoice::AsSource).unwrap();
    let mut writer = FileWriter::new(layout, Vec::new()).unwrap();
    let mut copy = file.row_group(0).unwrap().copy();
    assert!(matches!(writer.copy_some(&mut copy), Err(Error::Input { .. })));
    assert!(writer.copy_some(&mut copy).is_err());
    assert!(writer.close().is_err());
}

/// Rewrites one file, whole and with every third row dropped, and compares with what a foreign reader sees.
fn rewrite_equal(bytes: &Bytes, url: &str) -> Result<u64> {
    let file = ParquetFile::open(bytes.clone(), url)?;
    let contract = Arc::clone(file.schema());
    let rows = file.num_rows() as usize;
    // As with every column in the key: what cannot be decoded is then found before anything is copied.
    for group in file.row_groups() {
        group.rows(None, 100)?.try_for_each(|batch| batch.map(drop))?;
    }
    for keep in [BooleanBuffer::new_set(rows), BooleanBuffer::collect_bool(rows, |row| row % 3 != 1)] {
        for choice in [CompressionChoice::AsSource, "zstd".parse()?] {
            let mut rewriter = Rewriter::new(&contract, choice);
            rewriter.add(&file, &keep)?;
            rewriter.end_file()?;
            let written: Vec<_> = rewriter.files.iter().map(|(file, _)| read_back(file, &contract)).collect();
            let written = concat_batches(&contract, &written).unwrap();
            assert_eq!(written, filtered(&read_back(bytes, &contract), &keep), "{url}");
        }
    }
    Ok(rows as u64)
}

fn parquet_files(folder: &std::path::Path, found: &mut Vec<std::path::PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            parquet_files(&path, found);
        } else if path.to_string_lossy().contains(".parquet") {
            found.push(path);
        }
    }
}

#[test]
fn files_of_other_writers_are_rewritten_equal_or_refused() {
    let Some(folder) = std::env::var_os("DEDUPE_REALDATA") else { return };
    let mut files = Vec::new();
    parquet_files(std::path::Path::new(&folder), &mut files);
    files.sort();
    let (mut equal, mut refused) = (0, 0);
    for path in files {
        let bytes = Bytes::from(std::fs::read(&path).unwrap());
        let url = path.file_name().unwrap().to_string_lossy().into_owned();
        match rewrite_equal(&bytes, &url) {
            Ok(_) => equal += 1,
            Err(error) => {
                refused += 1;
                assert!(matches!(error, Error::Input { .. } | Error::Refused(_)), "{url}: {error:?}");
                println!("refused {error}");
            }
        }
    }
    println!("{equal} rewritten equal, {refused} refused");
}
