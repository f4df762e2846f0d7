//! Reading a footer that may be truncated, encrypted, corrupt or hostile: everything later code computes with
//! (offsets, lengths, counts) is checked here, once.

use super::compact::footer_shape;
use super::guard::broken;
use crate::error::{Error, Result};
use parquet::errors::ParquetError;
use parquet::file::metadata::{
    ColumnChunkMetaData, ParquetMetaData, ParquetMetaDataOptions, ParquetMetaDataReader, RowGroupMetaData,
};
use parquet::file::reader::ChunkReader;

/// Trailer: length of the footer and magic.
const TRAILER: u64 = 8;

/// The largest footer that is read: a file of a hundred thousand column chunks has some 20 MB.
const MAX_FOOTER: u64 = 128 << 20;

/// The most columns, groups of columns included, and the most column chunks over all row groups: a few bytes of footer
/// become several hundred in memory.
const MAX_COLUMNS: u64 = 100_000;
const MAX_CHUNKS: u64 = 1_000_000;

/// The most rows of one row group. Run-length encoding can claim any number in a few bytes, and each row takes a
/// bit of memory, or more, until its row group is written.
const MAX_ROWS: i64 = 1 << 30;

/// How deep columns may nest. Schemas are walked recursively here and in the decoder.
const MAX_NESTING: usize = 100;

/// Reads and checks the footer of `input`, without its page index.
pub(super) fn read_footer<R: ChunkReader>(input: &R, url: &str) -> Result<ParquetMetaData> {
    let size = input.len();
    let Some(body) = size.checked_sub(TRAILER).filter(|body| *body >= 4) else {
        return Err(Error::input(
            url,
            format!("not a Parquet file: it has only {size} bytes; was it written to its end?"),
        ));
    };
    let trailer = input.get_bytes(body, 8).map_err(|error| unreadable(url, error))?;
    match trailer.get(4..) {
        Some(b"PAR1") => {}
        Some(b"PARE") => return Err(encrypted(url)),
        _ => {
            return Err(Error::input(
                url,
                "not a Parquet file, or a truncated one: it does not end with `PAR1`; copy it again, or name its \
                 format with --format",
            ));
        }
    }
    let length = trailer.iter().take(4).rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let Some(start) = body.checked_sub(length).filter(|start| *start >= 4) else {
        return Err(broken(url, format!("the footer claims {length} bytes, but the file has {size}")));
    };
    if length > MAX_FOOTER {
        return Err(broken(
            url,
            format!("the footer has {length} bytes, more than the {MAX_FOOTER} allowed"),
        ));
    }
    let bytes = input.get_bytes(start, length as usize).map_err(|error| unreadable(url, error))?;
    let shape =
        footer_shape(&bytes).map_err(|stop| broken(url, format!("the footer is damaged ({stop:?})")))?;
    if shape.encrypted {
        return Err(encrypted(url));
    }
    if shape.depth > MAX_NESTING {
        return Err(broken(url, format!("columns nest deeper than {MAX_NESTING} levels")));
    }
    if shape.columns > MAX_COLUMNS || shape.chunks > MAX_CHUNKS {
        return Err(broken(
            url,
            format!(
                "it has {} columns and {} column chunks, more than the {MAX_COLUMNS} and {MAX_CHUNKS} allowed",
                shape.columns, shape.chunks
            ),
        ));
    }
    // Full page encoding statistics, so that copied row groups keep theirs.
    let options = ParquetMetaDataOptions::new().with_encoding_stats_as_mask(false);
    let metadata = ParquetMetaDataReader::decode_metadata_with_options(&bytes, Some(&options))
        .map_err(|error| broken(url, error))?;
    checked(metadata, start).map_err(|reason| broken(url, reason))
}

/// The error about bytes that could not be fetched: the store's fault or the file's, the words tell.
pub(super) fn unreadable(url: &str, error: ParquetError) -> Error {
    match error {
        ParquetError::External(source) => Error::store("read", url, source),
        other => broken(url, other),
    }
}

fn encrypted(url: &str) -> Error {
    Error::input(url, "the file is encrypted, and dedupe holds no keys; decrypt it first, or leave it out")
}

/// Checks counts and places, and mends what is known to be harmless. `end` is where the footer starts.
fn checked(metadata: ParquetMetaData, end: u64) -> Result<ParquetMetaData, String> {
    let mut builder = metadata.into_builder();
    let mut groups = builder.take_row_groups();
    for (at, group) in groups.iter_mut().enumerate() {
        check_group(group, end).map_err(|reason| format!("row group {at}: {reason}"))?;
    }
    let metadata = builder.set_row_groups(groups).build();
    // A million row groups of a billion rows at most.
    let rows: i64 = metadata.row_groups().iter().map(RowGroupMetaData::num_rows).sum();
    if rows != metadata.file_metadata().num_rows() {
        return Err(format!(
            "the footer says {} rows, its row groups {rows}",
            metadata.file_metadata().num_rows()
        ));
    }
    Ok(metadata)
}

fn check_group(group: &mut RowGroupMetaData, end: u64) -> Result<(), String> {
    let rows = group.num_rows();
    if !(0..=MAX_ROWS).contains(&rows) {
        return Err(format!("it claims {rows} rows; {MAX_ROWS} are allowed"));
    }
    if group.num_columns() != group.schema_descr().num_columns() {
        return Err("it has another number of columns than the schema".to_owned());
    }
    for column in group.columns_mut() {
        check_chunk(column, rows, end)
            .map_err(|reason| format!("column `{}`: {reason}", column.column_path()))?;
    }
    check_overlap(group)
}

/// Columns that share their bytes would multiply what a few pages unpack to.
fn check_overlap(group: &RowGroupMetaData) -> Result<(), String> {
    let place = |column: &ColumnChunkMetaData| {
        let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
        (start, start.saturating_add(column.compressed_size()), column.column_path().string())
    };
    let mut places: Vec<_> =
        group.columns().iter().filter(|column| column.num_values() > 0).map(place).collect();
    places.sort_unstable();
    let shared = places.iter().zip(places.iter().skip(1)).find(|(a, b)| a.1 > b.0);
    match shared {
        Some((a, b)) => Err(format!("columns `{}` and `{}` lie in the same bytes", a.2, b.2)),
        None => Ok(()),
    }
}

fn check_chunk(column: &mut ColumnChunkMetaData, rows: i64, end: u64) -> Result<(), String> {
    if let Some(path) = column.file_path() {
        return Err(format!("its data lie in another file ({path})"));
    }
    // Some writers put 0, or the place of the first data page, where there is no dictionary page.
    if column.dictionary_page_offset().is_some_and(|at| at <= 0 || at >= column.data_page_offset()) {
        let mended = column.clone().into_builder().set_dictionary_page_offset(None).build();
        *column = mended.map_err(|error| error.to_string())?;
    }
    let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
    let inside = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok()).is_some_and(
        |(start, length)| start >= 4 && start.checked_add(length).is_some_and(|chunk_end| chunk_end <= end),
    );
    if !inside && column.num_values() != 0 {
        return Err(format!(
            "its data ({} bytes at {start}) lie outside of the file",
            column.compressed_size()
        ));
    }
    if column.uncompressed_size() < 0 || column.num_values() < 0 || column.num_values() >= 1 << 48 {
        return Err("it claims an impossible size".to_owned());
    }
    let descr = column.column_descr();
    if descr.max_rep_level() == 0 && column.num_values() != rows {
        return Err(format!("it has {} values for {rows} rows", column.num_values()));
    }
    Ok(())
}
