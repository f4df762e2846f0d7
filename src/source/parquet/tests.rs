//! Files that lie, and files that are merely unusual.

use super::*;
use arrow::array::{Array, ArrayRef, AsArray, Int32Array, RecordBatch, StringArray, StructArray};
use arrow::datatypes::{Field, Int32Type};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::ZstdLevel;
use parquet::data_type::{ByteArray, FixedLenByteArrayType, Int96, Int96Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;

fn written(batch: &RecordBatch, properties: WriterProperties) -> Bytes {
    let mut file = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.close().unwrap();
    file.into()
}

fn numbers(count: i32) -> RecordBatch {
    let column: ArrayRef = Arc::new(Int32Array::from_iter_values(0..count));
    RecordBatch::try_from_iter([("n", column)]).unwrap()
}

fn reason(bytes: impl Into<Bytes>) -> String {
    match ParquetFile::open(bytes.into(), "some/file") {
        Err(Error::Input { source_url, reason }) if source_url == "some/file" => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_no_parquet_file_is_told_apart() {
    assert!(reason("").contains("0 bytes"));
    assert!(reason("{\"a\":1}\n{\"a\":2}\n").contains("PAR1"));
    assert!(reason("PAR1............PARE").contains("encrypted"));
    let whole = written(&numbers(100), WriterProperties::default());
    assert!(reason(whole.slice(..whole.len() - 1)).contains("truncated"));
    let mut longer = whole.to_vec();
    let at = longer.len() - 8;
    longer[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(reason(longer).contains("4294967295 bytes"));
}

#[test]
fn a_schema_of_bottomless_depth_is_refused_before_it_is_walked() {
    // version, then a schema of 100,000 elements, each the only child of the one before, then rows and no row groups
    let mut footer = vec![0x15, 0x02, 0x19, 0xfc, 0xa0, 0x8d, 0x06];
    for _ in 0..100_000 {
        footer.extend([0x35, 0x00, 0x18, 0x01, b'x', 0x15, 0x02, 0x00]);
    }
    footer.extend([0x16, 0x00, 0x19, 0x0c, 0x00]);
    let mut file = b"PAR1".to_vec();
    file.extend(&footer);
    file.extend((footer.len() as u32).to_le_bytes());
    file.extend(b"PAR1");
    assert!(reason(file).contains("deeper than 100 levels"));
}

#[test]
fn a_dictionary_bomb_stays_small() {
    let long = "x".repeat(1 << 20);
    let column: ArrayRef = Arc::new(StringArray::from(vec![long.as_str(); 100]));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let properties = WriterProperties::builder()
        .set_dictionary_page_size_limit(8 << 20)
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .build();
    let bytes = written(&batch, properties);
    assert!(bytes.len() < 4000);
    let file = ParquetFile::open(bytes, "bomb").unwrap();
    let mut rows = 0;
    for batch in file.row_group(0).unwrap().rows(None, 8192).unwrap() {
        let batch = batch.unwrap();
        rows += batch.num_rows();
        let views = batch.column(0).as_string_view();
        let held: usize = views.data_buffers().iter().map(|buffer| buffer.len()).sum();
        assert!(held <= 2 << 20, "{held} bytes");
        assert!(views.iter().all(|value| value.is_some_and(|value| value.len() == 1 << 20)));
    }
    assert_eq!(rows, 100);
}

#[test]
fn one_huge_page_is_refused_without_unpacking_it() {
    let long = "x".repeat(257 << 20);
    // Two rows, since one of this size would be refused for that alone.
    let column: ArrayRef = Arc::new(StringArray::from(vec!["", long.as_str()]));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(parquet::file::properties::EnabledStatistics::None)
        .build();
    let file = ParquetFile::open(written(&batch, properties), "bomb").unwrap();
    let group = file.row_group(0).unwrap();
    let error = group.rows(None, 10).unwrap().next().unwrap().unwrap_err();
    assert!(error.to_string().contains("page unpacks to"), "{error}");
    assert!(group.copy().all(|piece| piece.is_ok()), "its bytes can still be copied");
}

#[test]
fn wide_rows_come_in_small_batches() {
    let texts: Vec<String> = (0..100).map(|n| format!("{n}").repeat(250_000)).collect();
    let column: ArrayRef = Arc::new(StringArray::from(texts));
    let batch = RecordBatch::try_from_iter([("a", column)]).unwrap();
    let file = ParquetFile::open(written(&batch, WriterProperties::default()), "wide").unwrap();
    let rows: Vec<usize> =
        file.row_group(0).unwrap().rows(None, 8192).unwrap().map(|batch| batch.unwrap().num_rows()).collect();
    assert_eq!(rows.iter().sum::<usize>(), 100);
    assert!(rows.iter().all(|rows| *rows < 40), "{rows:?}");
}

fn int96(day: u32) -> Bytes {
    let schema = parse_message_type("message m { optional int96 at; }").unwrap();
    let mut bytes = Vec::new();
    let mut writer =
        SerializedFileWriter::new(&mut bytes, Arc::new(schema), Arc::new(WriterProperties::default()))
            .unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values = [Int96::from(vec![0, 0, 2_440_588]), Int96::from(vec![7, 1, day])];
    column.typed::<Int96Type>().write_batch(&values, Some(&[1, 0, 1]), None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
    bytes.into()
}

#[test]
fn an_int96_beyond_nanoseconds_is_an_error_never_wrapped() {
    let rows = |bytes| {
        let file = ParquetFile::open(bytes, "int96").unwrap();
        file.row_group(0).unwrap().rows(None, 10).and_then(|mut rows| rows.next().unwrap())
    };
    assert_eq!(rows(int96(2_440_589)).unwrap().column(0).null_count(), 1);
    // 31 December 9999, which Spark users like to write
    let error = rows(int96(5_373_484)).unwrap_err();
    assert!(error.to_string().contains("`\"at\"`") || error.to_string().contains("`at`"), "{error}");
}

#[test]
fn an_interval_is_decoded_whole_or_not_at_all() {
    let group_of = |months: u32, days: u32| {
        let schema = "message m { optional fixed_len_byte_array(12) i (INTERVAL); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        let mut column = group.next_column().unwrap().unwrap();
        let value = [months.to_le_bytes(), days.to_le_bytes(), [0; 4]].concat();
        column
            .typed::<FixedLenByteArrayType>()
            .write_batch(&[ByteArray::from(value).into()], Some(&[0, 1]), None)
            .unwrap();
        column.close().unwrap();
        group.close().unwrap();
        let file = ParquetFile::open(Bytes::from(writer.into_inner().unwrap()), "memory").unwrap();
        file.row_group(0).unwrap()
    };
    let rows = |group: RowGroup<Bytes>| {
        group.rows(None, 10).map(|batches| batches.map(|b| b.unwrap().num_rows()).sum::<usize>())
    };
    assert_eq!(rows(group_of(0, 3)).unwrap(), 2);
    assert!(rows(group_of(1, 3)).unwrap_err().to_string().contains("intervals of months"));
    // Copied, it keeps its months.
    assert!(group_of(1, 3).copy().all(|piece| piece.is_ok()));
}

#[test]
fn a_key_within_a_struct_is_read_without_its_siblings() {
    let members: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let other: ArrayRef = Arc::new(StringArray::from(vec!["a", "b"]));
    let payload = StructArray::from(vec![
        (Arc::new(Field::new("push_id", DataType::Int32, true)), members),
        (Arc::new(Field::new("body", DataType::Utf8, true)), other),
    ]);
    let dotted: ArrayRef = Arc::new(Int32Array::from(vec![7, 8]));
    let batch =
        RecordBatch::try_from_iter([("payload", Arc::new(payload) as ArrayRef), ("id.x", dotted)]).unwrap();
    let file = ParquetFile::open(written(&batch, WriterProperties::default()), "nested").unwrap();
    let group = file.row_group(0).unwrap();
    let path = |parts: &[&str]| parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>();
    let keys = group.key_batches(&[path(&["payload", "push_id"]), path(&["id.x"])], 10).unwrap();
    let batches: Vec<_> = keys.collect::<Result<_>>().unwrap();
    let payload = batches[0].column_by_name("payload").unwrap().as_struct();
    assert_eq!(payload.column_names(), ["push_id"]);
    assert_eq!(payload.column(0).as_primitive::<Int32Type>().values(), &[1, 2]);
    assert_eq!(batches[0].column_by_name("id.x").unwrap().as_primitive::<Int32Type>().values(), &[7, 8]);
    assert!(group.key_batches(&[path(&["id", "x"])], 10).unwrap_err().to_string().contains("`id.x`"));
}

#[test]
fn a_mask_of_another_length_is_a_bug_and_an_empty_one_reads_nothing() {
    let file = ParquetFile::open(written(&numbers(10), WriterProperties::default()), "n").unwrap();
    let group = file.row_group(0).unwrap();
    assert!(matches!(group.rows(Some(&BooleanBuffer::new_set(9)), 5), Err(Error::Internal(_))));
    assert_eq!(group.rows(Some(&BooleanBuffer::new_unset(10)), 5).unwrap().count(), 0);
}
