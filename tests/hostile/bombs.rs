//! Small files that would become large: what each costs is seen in `memory`, what is said of it is seen here.

use crate::parts::{
    BYTES, Column, DICTIONARY, FIXED, INT32, INT64, PLAIN, Thrift, file, page, whole, zstd, zstd_of,
};
use arrow::array::{Array, ArrayRef, Int64Array, ListArray, RecordBatch};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Schema};
use dedupe::Error;
use dedupe::source::parquet::ParquetFile;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowWriter, encode_arrow_schema};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file ends that is read by key and in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All its rows can be read.
    Rows,
    /// An error that holds these words.
    Told(&'static str),
}

/// A file with the column `id`, its rows, and how it must end.
pub struct Bomb {
    pub name: &'static str,
    pub bytes: Vec<u8>,
    pub end: End,
}

fn column(name: &'static str, kind: i64, values: i64, place: (i64, i64)) -> Column {
    Column { name, kind, width: 0, optional: false, values, place, dictionary: None, unpacked: 100 }
}

/// One required text column `id` of `rows` rows, all the same value of `size` letters.
fn repeated(rows: i64, size: u64) -> Vec<u8> {
    let dictionary = page(2, 1, PLAIN, size as i64 + 4, &zstd_of(&(size as u32).to_le_bytes(), b'x', size));
    // One bit for each index, and one run of zeros.
    let mut indices = vec![1];
    let mut run = (rows as u64) << 1;
    while run >= 0x80 {
        indices.push(run as u8 | 0x80);
        run >>= 7;
    }
    indices.extend([run as u8, 0]);
    let data = page(0, rows, DICTIONARY, indices.len() as i64, &zstd(&indices));
    let length = (dictionary.len() + data.len()) as i64;
    let id = Column {
        dictionary: Some(dictionary.len() as i64),
        unpacked: size as i64,
        ..column("id", BYTES, rows, (4, length))
    };
    file(&[dictionary, data].concat(), rows, &[id])
}

/// Required numbers 0.. as `id`, and after them what `pages` makes of the place where it begins.
fn with_id(rows: i64, more: impl FnOnce(i64) -> (Vec<u8>, Vec<Column>)) -> Vec<u8> {
    let numbers: Vec<u8> = (0..rows).flat_map(i64::to_le_bytes).collect();
    let first = page(0, rows, PLAIN, numbers.len() as i64, &zstd(&numbers));
    let id = column("id", INT64, rows, (4, first.len() as i64));
    let (pages, mut columns) = more(4 + first.len() as i64);
    columns.insert(0, id);
    file(&[first, pages].concat(), rows, &columns)
}

/// `count` columns of one page each, which unpacks to `size` zeros. Each has its own bytes, unless `shared`.
fn pages(count: usize, rows: i64, size: u64, claimed: i64, shared: bool) -> Vec<u8> {
    const NAMES: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    with_id(rows, |mut at| {
        let one = page(0, rows, PLAIN, size as i64, &zstd_of(&[], 0, size));
        let (mut bytes, mut columns) = (Vec::new(), Vec::new());
        for name in NAMES.iter().take(count) {
            columns.push(Column { unpacked: claimed, ..column(name, BYTES, rows, (at, one.len() as i64)) });
            if !shared || bytes.is_empty() {
                bytes.extend_from_slice(&one);
            }
            at += if shared { 0 } else { one.len() as i64 };
        }
        (bytes, columns)
    })
}

/// All bombs of Parquet.
pub fn parquet() -> Vec<Bomb> {
    let bomb = |name, bytes, end| Bomb { name, bytes, end };
    let footer = |columns: u64, groups: u64| {
        let root = Thrift::default().text(4, b"r").small(5, columns as i64).end();
        let leaf = Thrift::default().small(1, INT32).small(3, 0).text(4, b"c").end();
        let schema = [root, leaf.repeat(columns as usize)].concat();
        let group = Thrift::default().list(1, 12, 0, &[]).int(2, 0).int(3, 0).end();
        let footer = Thrift::default().small(1, 1).list(2, 12, columns + 1, &schema).int(3, 0).list(
            4,
            12,
            groups,
            &group.repeat(groups as usize),
        );
        whole(&[], &footer.end())
    };
    let claim = |id: u8, count: u64| {
        let footer = Thrift::default().small(1, 1).list(id, 12, count, &[]);
        whole(&[], &footer.end())
    };
    let nulls = |width: i64, rows: i64| {
        with_id(rows, |at| {
            // Definition levels: one run of zeros; no value.
            let mut levels = Vec::new();
            let mut run = (rows as u64) << 1;
            while run >= 0x80 {
                levels.push(run as u8 | 0x80);
                run >>= 7;
            }
            levels.extend([run as u8, 0]);
            let body = [&(levels.len() as u32).to_le_bytes()[..], &levels].concat();
            let page = page(0, rows, PLAIN, body.len() as i64, &zstd(&body));
            let length = page.len() as i64;
            let wide = Column { width, optional: true, ..column("wide", FIXED, rows, (at, length)) };
            (page, vec![wide])
        })
    };
    let long = |size: u64, claimed: i64| {
        with_id(1, |at| {
            let cell = zstd_of(&(size as u32).to_le_bytes(), b'x', size);
            let page = page(0, 1, PLAIN, size as i64 + 4, &cell);
            let cell = Column { unpacked: claimed, ..column("cell", BYTES, 1, (at, page.len() as i64)) };
            (page, vec![cell])
        })
    };
    vec![
        bomb("the dictionary of 4096 times one MiB", repeated(4096, 1 << 20), End::Rows),
        bomb("one cell of 512 MiB", long(512 << 20, 512 << 20), End::Told("bytes a row, more than")),
        bomb("one cell of 512 MiB that the footer hides", long(512 << 20, 100), End::Told("page unpacks to")),
        bomb("ten pages of 200 MiB at a time", pages(10, 9, 200 << 20, 100, false), End::Told("--memory")),
        bomb("ten columns in the same bytes", pages(10, 9, 1 << 20, 1 << 20, true), End::Told("same bytes")),
        bomb("nulls of 8 MiB each", nulls(8 << 20, 50), End::Rows),
        bomb("nulls of 100 MiB each", nulls(100 << 20, 5), End::Told("even where all its columns are null")),
        bomb("nulls of 2 GiB each", nulls(i64::from(i32::MAX), 1), End::Told("even where all")),
        bomb(
            "a page of more values than its column",
            {
                with_id(1, |at| {
                    let page = page(0, 1 << 25, PLAIN, 12, &zstd(&[0; 12]));
                    let length = page.len() as i64;
                    (page, vec![column("n", INT64, 1, (at, length))])
                })
            },
            End::Told("more values than its footer says"),
        ),
        bomb(
            "a billion and more rows in one group",
            file(&[], 1 << 31, &[column("id", INT64, 1 << 31, (4, 0))]),
            End::Told("it claims 2147483648 rows"),
        ),
        bomb("a hundred thousand columns and more", footer(100_001, 0), End::Told("columns and")),
        bomb("a million row groups and more", footer(1, 1_000_001), End::Told("column chunks")),
        bomb("a schema that claims 10^18 elements", claim(2, 1 << 60), End::Told("damaged")),
        bomb("a footer that claims 10^9 row groups", claim(4, 1 << 30), End::Told("damaged")),
    ]
}

/// Reads keys and rows of a file, as an ingest would.
fn read(bytes: &[u8]) -> Result<usize, Error> {
    let file = ParquetFile::open(bytes::Bytes::copy_from_slice(bytes), "some/bomb")?;
    let mut rows = 0;
    for group in file.row_groups() {
        for batch in group.key_batches(&[vec!["id".to_owned()]], 8192)? {
            rows += batch?.num_rows();
        }
        let mut again = 0;
        for batch in group.rows(None, 8192)? {
            again += batch?.num_rows();
        }
        assert_eq!(rows, again);
    }
    Ok(rows)
}

#[test]
fn every_bomb_is_read_or_refused_with_its_name_and_what_is_too_much() {
    let _alone = crate::held::alone();
    for bomb in parquet() {
        assert!(bomb.bytes.len() < 16 << 20, "{}: {} bytes", bomb.name, bomb.bytes.len());
        let (read, peak) = crate::held::peak(|| read(&bomb.bytes));
        println!("{}: {} bytes, held {} MiB: {read:?}", bomb.name, bomb.bytes.len(), peak >> 20);
        match (bomb.end, read) {
            (End::Rows, Ok(rows)) => assert!(rows > 0),
            (End::Told(words), Err(Error::Input { source_url, reason })) => {
                assert_eq!(source_url, "some/bomb");
                assert!(reason.contains(words), "{}: {reason}", bomb.name);
            }
            (_, other) => panic!("{}: {other:?}", bomb.name),
        }
        assert!(peak < 640 << 20, "{} held {} MiB", bomb.name, peak >> 20);
    }
}

/// A list of a hundred thousand nulls, each of which says that it is a list of a hundred thousand numbers.
fn lists_of_null_lists() -> Vec<u8> {
    let item = |kind| Arc::new(Field::new_list_field(kind, true));
    let of = |inner: DataType| {
        let rows = Field::new("lists", DataType::List(item(inner)), true);
        Schema::new(vec![Field::new("id", DataType::Int64, false), rows])
    };
    let nulls = ListArray::new_null(item(DataType::Int64), 100_000);
    let inner = item(nulls.data_type().clone());
    let outer = ListArray::new(inner, OffsetBuffer::from_lengths([100_000]), Arc::new(nulls), None);
    let schema = Arc::new(of(DataType::List(item(DataType::Int64))));
    let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from(vec![1])), Arc::new(outer)];
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let claimed = encode_arrow_schema(&of(DataType::FixedSizeList(item(DataType::Int64), 100_000)));
    let metadata = vec![KeyValue::new("ARROW:schema".to_owned(), claimed)];
    let properties = WriterProperties::builder().set_key_value_metadata(Some(metadata)).build();
    let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new_with_options(&mut bytes, schema, options).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    bytes
}

#[test]
fn null_lists_of_a_fixed_size_within_a_list_take_no_room() {
    let _alone = crate::held::alone();
    let bytes = lists_of_null_lists();
    assert!(bytes.len() < 4096, "{} bytes", bytes.len());
    let (read, peak) = crate::held::peak(|| read(&bytes));
    assert_eq!(read.unwrap(), 1);
    // As they claim to be, they would take 80 GB.
    assert!(peak < 16 << 20, "{} MiB", peak >> 20);
}

/// Longer inputs, and more memory, than the fuzzer allows.
fn is_for_the_fuzzer(bomb: &Bomb) -> bool {
    bomb.bytes.len() <= 64 << 10 && bomb.end != End::Told("--memory")
}

#[test]
fn the_fuzzers_corpus_has_the_bombs() {
    // `DEDUPE_BOMBS=testdata/hostile/fuzz/parquet` writes them.
    let written = std::env::var_os("DEDUPE_BOMBS").map(PathBuf::from);
    let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/hostile/fuzz/parquet");
    let lists = Bomb { name: "lists of null lists", bytes: lists_of_null_lists(), end: End::Rows };
    for bomb in parquet().into_iter().chain([lists]).filter(is_for_the_fuzzer) {
        let name = format!("bomb {}", bomb.name).replace(' ', "-");
        if let Some(folder) = &written {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join(&name), &bomb.bytes).unwrap();
        }
        assert!(kept.join(&name).exists(), "{name}");
    }
}

#[test]
fn the_file_of_459_bytes_holds_its_one_value_once() {
    let _alone = crate::held::alone();
    let bytes = repeated(4096, 1 << 20);
    assert!(bytes.len() < 459, "{} bytes", bytes.len());
    let (read, peak) = crate::held::peak(|| read(&bytes));
    assert_eq!(read.unwrap(), 4096);
    assert!(peak < 16 << 20, "{} MiB", peak >> 20);
}
