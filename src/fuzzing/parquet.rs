//! Parquet: whatever a file claims, it gives the rows that its footer states or an error that names it, and what is
//! copied or encoded anew holds the same rows.

use crate::sink::{CompressionChoice, FileLayout, FileWriter, RowGroupEncoder, copyable};
use crate::source::parquet::{ParquetFile, is_shielded};
use crate::token::{TokenHash, TokenKey, TokenSpec};
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::buffer::BooleanBuffer;
use arrow::datatypes::BinaryViewType;
use bytes::Bytes;
use std::sync::Once;

/// Rows of a group that is read: run-length encoding makes billions of a few bytes.
const MOST_ROWS: usize = 20_000;

/// Bytes of a group whose values are looked at: a few bytes of dictionary make gigabytes to hash and to compare.
const MOST_BYTES: usize = 32 << 20;

static HOOK: Once = Once::new();

/// A file is opened; its keys are read and hashed, its rows read, selected, copied and encoded.
pub fn parquet(bytes: &[u8]) {
    // Panics within the decoder are caught and told as errors; a fuzzer's hook would end the process before.
    HOOK.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !is_shielded() {
                before(info);
            }
        }));
    });
    let Ok(file) = ParquetFile::open(Bytes::copy_from_slice(bytes), "fuzzed") else { return };
    assert!(file.num_rows() < u64::MAX / 2);
    let (names, codec) = (file.schema().fields(), file.codec());
    let key = TokenKey::from_bytes([7; 16]);
    let specs: Vec<TokenSpec> = names
        .iter()
        .filter_map(|field| {
            TokenSpec::new(&[field.name().clone()], file.schema(), TokenHash::SipHash24, key).ok()
        })
        .take(3)
        .collect();
    for group in file.row_groups().take(3) {
        let rows = group.num_rows();
        if rows > MOST_ROWS {
            continue;
        }
        let read = |keep: Option<&BooleanBuffer>| -> Option<Vec<RecordBatch>> {
            group.rows(keep, 1000).ok()?.collect::<Result<_, _>>().ok()
        };
        let Some(all) = read(None) else { continue };
        let count = |batches: &[RecordBatch]| batches.iter().map(RecordBatch::num_rows).sum::<usize>();
        assert_eq!(count(&all), rows);
        if all.iter().map(values_bytes).sum::<usize>() > MOST_BYTES {
            continue;
        }
        for spec in &specs {
            let Ok(key) = spec.bind(file.schema(), "fuzzed") else { continue };
            let Ok(batches) = group.key_batches(&key.paths(), 1024) else { continue };
            let tokens: Result<Vec<_>, _> =
                batches.map(|batch| batch.and_then(|batch| key.tokenise(&batch))).collect();
            if let Ok(tokens) = tokens {
                assert_eq!(tokens.iter().map(|tokens| tokens.tokens.len()).sum::<usize>(), rows);
            }
        }
        let keep = BooleanBuffer::collect_bool(rows, |row| row % 3 == 0);
        let some = read(Some(&keep));
        assert!(some.as_ref().is_none_or(|some| count(some) == keep.count_set_bits()));
        let Some(layout) = FileLayout::of_source(&file, file.schema(), CompressionChoice::AsSource) else {
            continue;
        };
        if copyable(&group, &layout) {
            let mut writer = FileWriter::new(layout.clone(), Vec::new()).unwrap();
            let mut copy = group.copy();
            let copied = loop {
                match writer.copy_some(&mut copy) {
                    Ok(true) => {}
                    Ok(false) => break true,
                    Err(_) => break false,
                }
            };
            if copied && writer.close().is_ok() {
                same(&all, writer.take_bytes().unwrap(), "copied");
            }
        }
        if copyable(&group, &layout) && keep.count_set_bits() > 0 {
            let mut cut: Vec<_> = (0..group.metadata().num_columns())
                .map(|leaf| group.cut_column(leaf, &keep).ok().flatten())
                .collect();
            group.only_whole(&mut cut);
            let cut: Option<Vec<_>> = cut.into_iter().collect();
            if let (Some(columns), Some(some)) = (cut, some) {
                let mut writer = FileWriter::new(layout.clone(), Vec::new()).unwrap();
                columns.into_iter().for_each(|column| writer.append_cut(&group, column).unwrap());
                writer.end_cut(&group, keep.count_set_bits() as u64).unwrap();
                if writer.close().is_ok() {
                    same(&some, writer.take_bytes().unwrap(), "cut");
                }
            }
        }
        if layout.encodes() && codec.is_some() {
            let Ok(mut encoder) = RowGroupEncoder::new(&layout) else { continue };
            if all.iter().try_for_each(|batch| encoder.write(batch)).is_err() {
                continue;
            }
            let mut writer = FileWriter::new(layout, Vec::new()).unwrap();
            if writer.append_encoded(encoder.finish().unwrap()).is_ok() && writer.close().is_ok() {
                same(&all, writer.take_bytes().unwrap(), "encoded");
            }
        }
    }
}

/// Bytes in the values of a batch, those that it holds once but shows many times counted each time.
fn values_bytes(batch: &RecordBatch) -> usize {
    let shown = |column: &ArrayRef| {
        let texts = column.as_string_view_opt().map(|texts| texts.total_buffer_bytes_used());
        texts.or_else(|| Some(column.as_byte_view_opt::<BinaryViewType>()?.total_buffer_bytes_used()))
    };
    batch.columns().iter().map(|column| column.get_array_memory_size() + shown(column).unwrap_or(0)).sum()
}

fn same(all: &[RecordBatch], written: Bytes, how: &str) {
    if all.is_empty() {
        return;
    }
    let file = ParquetFile::open(written, how).unwrap();
    let mut again: Vec<RecordBatch> = Vec::new();
    for group in file.row_groups() {
        again.extend(group.rows(None, 1000).unwrap().map(|batch| batch.unwrap()));
    }
    let schema = all[0].schema();
    let all = arrow::compute::concat_batches(&schema, all).unwrap();
    let again = arrow::compute::concat_batches(&again[0].schema(), &again).unwrap();
    assert_eq!(all.columns(), again.columns(), "{how} rows differ");
}
