//! The key bound to the schema of one input: record batches become tokens.
//!
//! Rows are encoded and hashed one by one; a key of one plain column is hashed without a buffer, and a key of one
//! dictionary column hashes each value once.

use super::{
    Token,
    column::{Column, Indexed, Values},
    encode,
    hash::Hasher,
    layout,
};
use crate::error::{Error, Result};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanBufferBuilder, RecordBatch},
    buffer::{BooleanBuffer, NullBuffer},
};
use arrow_schema::{DataType, Field};
use std::{collections::BTreeSet, sync::Arc};

/// A key bound to the schema of one input. Cheap to clone, and safe to share between threads.
#[derive(Debug, Clone)]
pub struct BoundKey(Arc<Bound>);

#[derive(Debug)]
struct Bound {
    source: String,
    hasher: Hasher,
    columns: Vec<Place>,
}

/// Where a key column lies in one schema.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) root: usize,
    pub(super) path: Vec<String>,
    pub(super) field: Field,
}

/// The tokens of a batch, one a row.
#[derive(Debug, Clone)]
pub struct Tokens {
    /// The token of each row.
    pub tokens: Vec<Token>,
    /// The rows in which every key column is null, if there are any: they have no identity, and one token for all.
    pub keyless: Option<BooleanBuffer>,
}

impl BoundKey {
    pub(super) fn new(source: &str, hasher: Hasher, columns: Vec<Place>) -> Self {
        Self(Arc::new(Bound { source: source.to_owned(), hasher, columns }))
    }

    /// The indices of the top-level columns that the key needs, sorted, each once.
    pub fn roots(&self) -> Vec<usize> {
        let roots: BTreeSet<_> = self.0.columns.iter().map(|place| place.root).collect();
        roots.into_iter().collect()
    }

    /// The path of each key column: a top-level column, then struct members. It ends early at a column of the type
    /// Null.
    pub fn paths(&self) -> Vec<Vec<String>> {
        self.0.columns.iter().map(|place| place.path.clone()).collect()
    }

    /// The tokens of the rows of a batch, which must hold what [`BoundKey::paths`] names, found by name, in the types
    /// that the key was bound to; it may be a projection of that schema. (Other layouts of the same kind pass as well.)
    pub fn tokenise(&self, batch: &RecordBatch) -> Result<Tokens> {
        let columns: Vec<_> =
            self.0.columns.iter().map(|place| self.column(place, batch)).collect::<Result<_>>()?;
        Ok(digest(&self.0.hasher, &columns, batch.num_rows()))
    }

    fn column(&self, place: &Place, batch: &RecordBatch) -> Result<Column> {
        let unfit = |why: String| {
            Error::input(
                &self.0.source,
                format!("a batch does not fit the schema of the input: key column {why}"),
            )
        };
        let absent = || unfit(format!("\"{}\" is missing", place.path.join(".")));
        let mut path = place.path.iter();
        let mut array: &ArrayRef =
            path.next().and_then(|root| batch.column_by_name(root)).ok_or_else(absent)?;
        let mut mask: Option<NullBuffer> = None;
        for member in path {
            if array.data_type() == &DataType::Null {
                return Ok(Column::new(None, Values::Null));
            }
            let parent = array.as_struct_opt().ok_or_else(absent)?;
            mask = NullBuffer::union(mask.as_ref(), parent.nulls());
            array = parent.column_by_name(member).ok_or_else(absent)?;
        }
        Ok(layout::column(&place.field, array).map_err(unfit)?.masked(mask.as_ref()))
    }
}

fn digest(hasher: &Hasher, columns: &[Column], rows: usize) -> Tokens {
    if let [column] = columns
        && let Some(indexed) = column.indexed()
        && indexed.len <= rows
    {
        return digest_indexed(hasher, column, indexed, rows);
    }
    let mut tokens = Vec::with_capacity(rows);
    let mut keyless = Vec::new();
    let mut bytes = Vec::with_capacity(256);
    let direct = if let [column] = columns { hasher.direct().map(|sip| (column, sip)) } else { None };
    for row in 0..rows {
        if let Some((column, sip)) = direct
            && let Some(digest) = column.direct(row, sip)
        {
            tokens.push(Token(digest));
            continue;
        }
        bytes.clear();
        let mut known = false;
        for column in columns {
            known |= column.append(row, &mut bytes);
        }
        if !known {
            keyless.push(row);
        }
        tokens.push(hasher.token(&bytes));
    }
    Tokens { tokens, keyless: bits(&keyless, rows) }
}

/// A single column that is dictionary or run-end encoded: each of its values is hashed once.
fn digest_indexed(hasher: &Hasher, column: &Column, indexed: &Indexed, rows: usize) -> Tokens {
    let values = digest(hasher, std::slice::from_ref(&*indexed.values), indexed.len);
    let mut null = Vec::new();
    encode::null(&mut null);
    let null = hasher.token(&null);
    let mut tokens = Vec::with_capacity(rows);
    let mut keyless = Vec::new();
    for (row, &value) in indexed.index.iter().enumerate() {
        if column.is_null(row) || values.keyless.as_ref().is_some_and(|keyless| keyless.value(value)) {
            keyless.push(row);
            tokens.push(null);
        } else {
            tokens.push(values.tokens[value]);
        }
    }
    Tokens { tokens, keyless: bits(&keyless, rows) }
}

fn bits(set: &[usize], len: usize) -> Option<BooleanBuffer> {
    if set.is_empty() {
        return None;
    }
    let mut bits = BooleanBufferBuilder::new(len);
    bits.append_n(len, false);
    set.iter().for_each(|&bit| bits.set_bit(bit, true));
    Some(bits.finish())
}
