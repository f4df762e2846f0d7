//! How rows travel from those who read them to those who judge them: with their source, their token and its range. Between
//! them travel notes: of rows that were kept out, and at the end of each part of a source how many rows it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, FixedSizeBinaryArray, RecordBatch, StringArray, UInt16Array,
    UInt32Array, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type};
use serde::{Deserialize, Serialize};

use super::ranges;
use crate::error::{Error, Result};
use crate::policy::NullKey;
use crate::session::{QuarantinedRow, without_key};
use crate::token::{Token, Tokens};

const SOURCE: &str = "_dedupe.source";
const TOKEN: &str = "_dedupe.token";
pub(super) const RANGE: &str = "_dedupe.range";
const NOTE: &str = "_dedupe.note";

/// Columns that travel besides those of the rows.
const MARKS: usize = 4;

/// Bytes of a token.
const TOKEN_BYTES: usize = 16;

/// Something that is told of a source instead of a row.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Note {
    /// A row that was kept out before it was judged.
    Rejected(QuarantinedRow),
    /// A part of the source was read to its end: so many rows of it are on their way, those kept out included.
    End(u64),
}

/// The schema in which rows of `contract` travel. Fails if a column of theirs is called like one of those added.
pub(super) fn schema(contract: &Schema) -> Result<SchemaRef> {
    let marks = [
        Field::new(SOURCE, DataType::UInt32, false),
        Field::new(TOKEN, DataType::FixedSizeBinary(TOKEN_BYTES as i32), true),
        Field::new(RANGE, DataType::UInt16, false),
        Field::new(NOTE, DataType::Utf8, true),
    ];
    if let Some(taken) = marks.iter().find(|mark| contract.column_with_name(mark.name()).is_some()) {
        return Err(Error::Refused(format!(
            "the rows have a column \"{}\", a name that distributed runs need for themselves: rename it",
            taken.name()
        )));
    }
    // A note has no values.
    let columns = contract.fields().iter().map(|field| Arc::new(field.as_ref().clone().with_nullable(true)));
    Ok(Arc::new(Schema::new(columns.chain(marks.map(Arc::new)).collect::<Vec<_>>())))
}

/// Marks the rows of one part of one source.
#[derive(Debug)]
pub(super) struct Marker {
    schema: SchemaRef,
    source: u32,
    url: String,
    null_key: NullKey,
    /// Rows so far, those kept out included.
    rows: u64,
    /// What has no token is spread evenly.
    turn: u16,
}

impl Marker {
    pub(super) fn new(schema: &SchemaRef, source: u32, url: &str, null_key: NullKey) -> Self {
        Self { schema: Arc::clone(schema), source, url: url.to_owned(), null_key, rows: 0, turn: 0 }
    }

    /// Rows so far, those kept out included.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Marks rows that fit the contract. `aside` shows a row, by its number in the batch, as it goes to quarantine if it has
    /// no key.
    pub(super) fn mark(
        &mut self,
        rows: &RecordBatch,
        tokens: &Tokens,
        mut aside: impl FnMut(usize) -> QuarantinedRow,
    ) -> Result<Vec<RecordBatch>> {
        let keyless = tokens.keyless.as_ref();
        let Some(keyless) = keyless.filter(|_| self.null_key != NullKey::Keep) else {
            self.rows += rows.num_rows() as u64;
            return Ok(vec![self.marked(rows, &tokens.tokens, keyless)?]);
        };
        let mut notes = Vec::new();
        for row in keyless.set_indices() {
            let aside = aside(row);
            if self.null_key == NullKey::Fail {
                let place = match aside.line {
                    Some(line) => format!("line {line}"),
                    None => format!("row {}", aside.row.unwrap_or_default()),
                };
                return Err(without_key(&self.url, &place));
            }
            notes.push(Note::Rejected(aside));
        }
        let keyed = !keyless;
        let kept = filter_record_batch(rows, &BooleanArray::new(keyed.clone(), None)).map_err(unfit)?;
        let tokens: Vec<Token> =
            keyed.set_indices().filter_map(|row| tokens.tokens.get(row)).copied().collect();
        self.rows += kept.num_rows() as u64;
        let mut batches = vec![self.marked(&kept, &tokens, None)?];
        batches.extend(self.reject(&notes)?);
        Ok(batches)
    }

    /// Tells of rows that were kept out.
    pub(super) fn reject(&mut self, notes: &[Note]) -> Result<Option<RecordBatch>> {
        self.rows += notes.len() as u64;
        if notes.is_empty() { Ok(None) } else { self.noted(notes).map(Some) }
    }

    /// Tells that this was all.
    pub(super) fn end(mut self) -> Result<RecordBatch> {
        self.noted(&[Note::End(self.rows)])
    }

    fn marked(
        &mut self,
        rows: &RecordBatch,
        tokens: &[Token],
        keyless: Option<&BooleanBuffer>,
    ) -> Result<RecordBatch> {
        let bytes: Vec<u8> = tokens.iter().flat_map(|token| token.0.to_be_bytes()).collect();
        let nulls = keyless.map(|keyless| NullBuffer::new(!keyless));
        let has_none = |row: usize| keyless.is_some_and(|keyless| keyless.value(row));
        let of_row =
            |(row, token): (usize, &Token)| if has_none(row) { self.turn() } else { ranges::of(*token) };
        let ranges = UInt16Array::from_iter_values((0..).zip(tokens).map(of_row));
        let tokens = FixedSizeBinaryArray::try_new(TOKEN_BYTES as i32, Buffer::from_vec(bytes), nulls);
        self.batch(rows.columns().to_vec(), Arc::new(tokens.map_err(unfit)?), ranges, None)
    }

    fn noted(&mut self, notes: &[Note]) -> Result<RecordBatch> {
        let text: Vec<String> = notes
            .iter()
            .map(serde_json::to_string)
            .collect::<Result<_, _>>()
            .map_err(|e| Error::Internal(format!("a note cannot be written as JSON: {e}")))?;
        let rows = self.schema.fields().iter().take(self.schema.fields().len() - MARKS);
        let columns = rows.map(|field| new_null_array(field.data_type(), notes.len())).collect();
        let tokens = new_null_array(&DataType::FixedSizeBinary(TOKEN_BYTES as i32), notes.len());
        let ranges = UInt16Array::from_iter_values(notes.iter().map(|_| self.turn()));
        self.batch(columns, tokens, ranges, Some(StringArray::from(text)))
    }

    fn batch(
        &self,
        mut columns: Vec<ArrayRef>,
        tokens: ArrayRef,
        ranges: UInt16Array,
        notes: Option<StringArray>,
    ) -> Result<RecordBatch> {
        let rows = ranges.len();
        columns.push(Arc::new(UInt32Array::from(vec![self.source; rows])));
        columns.push(tokens);
        columns.push(Arc::new(ranges));
        columns.push(notes.map_or_else(|| new_null_array(&DataType::Utf8, rows), |notes| Arc::new(notes)));
        RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(unfit)
    }

    fn turn(&mut self) -> u16 {
        self.turn = self.turn.wrapping_add(1);
        self.turn
    }
}

/// Rows of one source, as they arrived.
#[derive(Debug)]
pub(super) struct Arrived {
    pub(super) source: u32,
    pub(super) rows: RecordBatch,
    pub(super) tokens: Tokens,
}

/// What a batch brought: rows, source by source in their order, and notes with the number of their source.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    pub(super) rows: Vec<Arrived>,
    pub(super) notes: Vec<(u32, Note)>,
}

impl Arrivals {
    pub(super) fn of(batch: &RecordBatch) -> Result<Self> {
        let mut arrivals = Self::default();
        let strange = || Error::Internal("rows arrived without what is to travel with them".into());
        let column = |name: &str| batch.column_by_name(name).ok_or_else(strange);
        let sources = column(SOURCE)?.as_primitive_opt::<UInt32Type>().ok_or_else(strange)?;
        let notes = column(NOTE)?.as_string_opt::<i32>().ok_or_else(strange)?;
        let mut rows = BTreeMap::<u32, Vec<bool>>::new();
        for (row, (source, note)) in sources.values().iter().zip(notes).enumerate() {
            match note {
                None => {
                    let keep = rows.entry(*source).or_insert_with(|| vec![false; batch.num_rows()]);
                    keep.get_mut(row).into_iter().for_each(|keep| *keep = true);
                }
                Some(note) => {
                    let note = serde_json::from_str(note)
                        .map_err(|e| Error::Internal(format!("a note cannot be read: {e}")))?;
                    arrivals.notes.push((*source, note));
                }
            }
        }
        for (source, keep) in rows {
            let all = keep.iter().all(|keep| *keep);
            let some =
                if all { batch.clone() } else { filter_record_batch(batch, &keep.into()).map_err(unfit)? };
            let tokens = some.column_by_name(TOKEN).and_then(|column| column.as_fixed_size_binary_opt());
            let tokens = tokens_of(tokens.ok_or_else(strange)?).ok_or_else(strange)?;
            let columns: Vec<usize> = (0..some.num_columns().saturating_sub(MARKS)).collect();
            let rows = some.project(&columns).map_err(unfit)?;
            arrivals.rows.push(Arrived { source, rows, tokens });
        }
        Ok(arrivals)
    }
}

fn tokens_of(column: &FixedSizeBinaryArray) -> Option<Tokens> {
    let token = |row: usize| {
        if column.is_null(row) {
            return Some(Token::default());
        }
        column.value(row).try_into().ok().map(|bytes| Token(u128::from_be_bytes(bytes)))
    };
    let tokens = (0..column.len()).map(token).collect::<Option<Vec<_>>>()?;
    let keyless = column.nulls().filter(|nulls| nulls.null_count() > 0).map(|nulls| !nulls.inner());
    Some(Tokens { tokens, keyless })
}

fn unfit(error: arrow::error::ArrowError) -> Error {
    Error::Internal(format!("rows cannot be made ready to travel: {error}"))
}
