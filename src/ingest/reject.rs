//! Rows that are kept out: each goes to quarantine with its origin and reason, or stops the run, as asked.

use arrow::array::BooleanBufferBuilder;

use crate::error::{Error, Result};
use crate::options::{IngestOptions, OnBadRow};
use crate::session::{NO_KEY, QuarantinedRow, Session, Verdicts, record, without_key};
use crate::source::input::Input;
use crate::source::ndjson::{BadLine, Block, Decoded};
use crate::source::parquet::RowGroup;
use crate::store::compute;

/// What to tell of a line that stops the run.
pub(crate) fn bad_line(url: &str, bad: &BadLine) -> Error {
    let BadLine { line, offset, reason, .. } = bad;
    let advice = "Mend it, or use --on-bad-row quarantine to set such lines aside";
    Error::input(url, format!("line {line} (byte {offset}): {reason}. {advice}"))
}

/// Rejects the lines of a block that gave no row, in order. Returns how many there were.
pub(super) async fn bad_lines(
    session: &mut Session,
    source: u32,
    url: &str,
    lines: &[BadLine],
    options: &IngestOptions,
) -> Result<u64> {
    for bad in lines {
        if options.on_bad_row == OnBadRow::Fail {
            return Err(bad_line(url, bad));
        }
        let row = QuarantinedRow::of_line(url, bad.line, bad.offset, bad.reason.clone(), &bad.raw);
        session.reject(source, &row).await?;
    }
    Ok(lines.len() as u64)
}

/// Sets the lines aside whose rows have no key.
pub(super) async fn keyless_lines(
    session: &mut Session,
    url: &str,
    block: &Block,
    decoded: &Decoded,
    verdicts: &Verdicts,
) -> Result<()> {
    let wanted: Vec<u64> =
        verdicts.no_key.iter().filter_map(|row| decoded.lines.get(*row as usize)).copied().collect();
    let Some(first) = wanted.first() else { return Ok(()) };
    if session.fails_without_key() {
        return Err(without_key(url, &format!("line {first}")));
    }
    let mut wanted = wanted.into_iter().peekable();
    for line in block.lines() {
        if wanted.next_if_eq(&line.number).is_some() {
            let row = QuarantinedRow::of_line(url, line.number, line.offset, NO_KEY.into(), line.bytes);
            session.set_aside(&row).await?;
        }
    }
    Ok(())
}

/// Sets the rows of a row group aside that have no key: `keyless`, counted from the group's first, which is row `first`
/// of the file. The group is decoded for it.
pub(super) async fn keyless_rows(
    session: &mut Session,
    group: &RowGroup<Input>,
    first: u64,
    keyless: Vec<usize>,
) -> Result<()> {
    let Some(row) = keyless.first() else { return Ok(()) };
    let url = group.file().url().to_owned();
    if session.fails_without_key() {
        return Err(without_key(&url, &format!("row {}", first + *row as u64)));
    }
    let mut mask = BooleanBufferBuilder::new(group.num_rows());
    mask.append_n(group.num_rows(), false);
    keyless.iter().for_each(|row| mask.set_bit(*row, true));
    let (mask, whole) = (mask.finish(), group.clone());
    let mut batches = compute(move || whole.rows(Some(&mask), 1024)).await?;
    let mut places = keyless.into_iter();
    loop {
        let (batch, rest) = compute(move || Ok((batches.next().transpose()?, batches))).await?;
        batches = rest;
        let Some(batch) = batch else { return Ok(()) };
        for at in 0..batch.num_rows() {
            let record = record(&batch.slice(at, 1));
            let place = first + places.next().unwrap_or_default() as u64;
            session.set_aside(&QuarantinedRow::of_record(&url, place, NO_KEY.into(), record)).await?;
        }
    }
}
