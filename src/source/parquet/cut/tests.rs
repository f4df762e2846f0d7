//! Files that contradict themselves. (That cuts of sound files hold the kept rows is tested where files are written.)

use super::*;
use crate::source::parquet::ParquetFile;
use parquet::basic::Compression;
use parquet::data_type::{Int32Type, Int64Type};
use parquet::file::metadata::{
    OffsetIndexBuilder, PageIndexPolicy, ParquetMetaDataReader, ParquetMetaDataWriter,
};
use parquet::file::properties::{WriterProperties, WriterVersion};
use parquet::file::writer::{SerializedFileWriter, TrackedWrite};
use parquet::schema::parser::parse_message_type;
use std::io::Write;
use std::sync::Arc;

const ROWS: usize = 40;

/// `id`, and a list of two numbers, with so many entries in each row: as the leaf `x` has it, and as `y` has it.
fn file_of(x: impl Fn(usize) -> usize, y: impl Fn(usize) -> usize, version: WriterVersion) -> Vec<u8> {
    let schema = "message m {
        required int64 id;
        required group l (LIST) { repeated group list { required group element {
            required int32 x; required int32 y;
        } } }
    }";
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_writer_version(version)
        .set_data_page_row_count_limit(10)
        .set_write_batch_size(1)
        .build();
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let ids: Vec<i64> = (0..ROWS as i64).collect();
    column.typed::<Int64Type>().write_batch(&ids, None, None).unwrap();
    column.close().unwrap();
    for count in [&x as &dyn Fn(usize) -> usize, &y] {
        let rep: Vec<i16> =
            (0..ROWS).flat_map(|row| (0..count(row)).map(|entry| i16::from(entry > 0))).collect();
        let values: Vec<i32> = (0..rep.len() as i32).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int32Type>().write_batch(&values, Some(&vec![1; rep.len()]), Some(&rep)).unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// The leaves that are cut when every third row goes.
fn cut(file: Vec<u8>) -> Vec<bool> {
    let file = ParquetFile::open(Bytes::from(file), "memory").unwrap();
    let group = file.row_group(0).unwrap();
    let keep = BooleanBuffer::collect_bool(ROWS, |row| row % 3 > 0);
    let mut columns: Vec<_> = (0..3).map(|leaf| group.cut_column(leaf, &keep).unwrap()).collect();
    group.only_whole(&mut columns);
    columns.iter().map(Option::is_some).collect()
}

#[test]
fn leaves_that_contradict_each_other_are_not_cut() {
    for version in [WriterVersion::PARQUET_1_0, WriterVersion::PARQUET_2_0] {
        let some = |row: usize| 1 + row % 2;
        assert_eq!(cut(file_of(some, some, version)), [true, true, true]);
        // As many entries in all, but for a pair of rows elsewhere.
        let other = |row: usize| {
            if row == 20 {
                2
            } else if row == 21 {
                1
            } else {
                some(row)
            }
        };
        assert_eq!(cut(file_of(some, other, version)), [true, false, false]);
        assert_eq!(cut(file_of(other, some, version)), [true, false, false]);
    }
}

#[test]
fn an_index_that_tells_of_other_rows_is_noticed() {
    let some = |row: usize| 1 + row % 2;
    let file = file_of(some, some, WriterVersion::PARQUET_1_0);
    let mut reader = ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Required);
    reader.try_parse(&Bytes::from(file.clone())).unwrap();
    let metadata = reader.finish().unwrap();
    let told = |shift: &dyn Fn(usize, usize) -> i64| {
        let mut index = metadata.offset_index().unwrap().clone();
        for (leaf, offsets) in index[0].iter_mut().enumerate() {
            let mut builder = OffsetIndexBuilder::new();
            let places = offsets.page_locations();
            assert_eq!(places.len(), 4);
            for (page, place) in places.iter().enumerate() {
                builder.append_row_count(10 + shift(leaf, page));
                builder.append_offset_and_size(place.offset, place.compressed_page_size);
            }
            *offsets = builder.build();
        }
        let metadata = metadata.clone().into_builder().set_offset_index(Some(index)).build();
        // The file with another footer behind its own.
        let mut told = Vec::new();
        let mut tracked = TrackedWrite::new(&mut told);
        tracked.write_all(&file).unwrap();
        ParquetMetaDataWriter::new_with_tracked(tracked, &metadata).finish().unwrap();
        told
    };
    assert_eq!(cut(told(&|_, _| 0)), [true, true, true]);
    let first = |page| i64::from(page == 0) - i64::from(page == 1);
    assert_eq!(cut(told(&|leaf, page| if leaf == 0 { first(page) } else { 0 })), [false, true, true]);
    assert_eq!(cut(told(&|leaf, page| if leaf == 2 { first(page) } else { 0 })), [true, false, false]);
}
