//! The plain oracle: the same lines as serde_json reads them.

use super::*;
use arrow::array::{Array, AsArray, RecordBatch, StructArray};
use arrow::datatypes::{Float64Type, Int64Type, Schema, UInt64Type};
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};
use std::collections::HashSet;
use std::sync::Arc;

/// The lines as one block.
pub(crate) fn block(text: &[u8]) -> Block {
    blocks(text, 1 << 20).pop().unwrap_or_default()
}

pub(crate) fn blocks(text: &[u8], size: usize) -> Vec<Block> {
    let mut lines = Lines::new(text, size, MAX_LINE);
    std::iter::from_fn(|| lines.next_block().unwrap()).collect()
}

pub(crate) fn infer(blocks: &[Block]) -> Schema {
    let mut inference = Inference::new();
    blocks.iter().for_each(|block| inference.observe(block));
    inference.finish().unwrap()
}

pub(crate) fn decode(schema: &Schema, block: &Block) -> Decoded {
    Decoder::new(Arc::new(schema.clone())).unwrap().decode(block).unwrap()
}

/// A row of inferred types as JSON; members that are null are left out.
pub(crate) fn row_value(batch: &RecordBatch, row: usize) -> Value {
    let columns = batch.schema_ref().fields().iter().zip(batch.columns());
    members(columns.map(|(field, column)| (field.as_ref(), column.as_ref())), row)
}

fn members<'a>(columns: impl Iterator<Item = (&'a Field, &'a dyn Array)>, row: usize) -> Value {
    let present = columns.filter(|(_, column)| column.is_valid(row));
    Value::Object(present.map(|(field, column)| (field.name().clone(), value(field, column, row))).collect())
}

fn value(field: &Field, array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match field.data_type() {
        DataType::Boolean => json!(array.as_boolean().value(row)),
        DataType::Int64 => json!(array.as_primitive::<Int64Type>().value(row)),
        DataType::UInt64 => json!(array.as_primitive::<UInt64Type>().value(row)),
        DataType::Float64 => json!(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 if is_json(field) => {
            serde_json::from_str(array.as_string::<i32>().value(row)).unwrap()
        }
        DataType::Utf8 => json!(array.as_string::<i32>().value(row)),
        DataType::Struct(fields) => {
            let columns: &StructArray = array.as_struct();
            members(fields.iter().zip(columns.columns()).map(|(f, c)| (f.as_ref(), c.as_ref())), row)
        }
        DataType::List(item) => {
            let items = array.as_list::<i32>().value(row);
            (0..items.len()).map(|i| value(item, &items, i)).collect()
        }
        other => panic!("{other} is never inferred"),
    }
}

/// What a column must give back for a JSON value: null members of structs are gone, numbers are of the
/// column's type.
fn expected(field: &Field, given: &Value) -> Value {
    match (field.data_type(), given) {
        (DataType::Struct(fields), Value::Object(given)) => expected_members(fields, given),
        (DataType::List(item), Value::Array(given)) => given.iter().map(|v| expected(item, v)).collect(),
        (DataType::Float64, Value::Number(n)) => json!(n.as_f64().unwrap()),
        (DataType::Int64 | DataType::UInt64, Value::Number(n)) if n.is_f64() => {
            let exact = n.as_f64().unwrap() as i128;
            assert_eq!(exact as f64, n.as_f64().unwrap());
            i64::try_from(exact).map_or_else(|_| json!(u64::try_from(exact).unwrap()), |v| json!(v))
        }
        _ => given.clone(),
    }
}

pub(crate) fn expected_members(fields: &arrow::datatypes::Fields, given: &Map<String, Value>) -> Value {
    let known =
        fields.iter().filter_map(|f| given.get(f.name()).map(|v| (f, v))).filter(|(_, v)| !v.is_null());
    Value::Object(known.map(|(f, v)| (f.name().clone(), expected(f, v))).collect())
}

/// A document that serde_json reads and that names no member twice.
pub(crate) struct Strict;

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Strict)
    }
}

impl<'de> Visitor<'de> for Strict {
    type Value = Strict;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }
    fn visit_bool<E>(self, _: bool) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_i64<E>(self, _: i64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_u64<E>(self, _: u64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_f64<E>(self, _: f64) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_str<E>(self, _: &str) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_unit<E>(self) -> Result<Strict, E> {
        Ok(Strict)
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Strict, A::Error> {
        while seq.next_element::<Strict>()?.is_some() {}
        Ok(Strict)
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Strict, A::Error> {
        let mut names = HashSet::new();
        while let Some((name, _)) = map.next_entry::<String, Strict>()? {
            if !names.insert(name) {
                return Err(A::Error::custom("twice"));
            }
        }
        Ok(Strict)
    }
}

/// Whether a line is a row; `None` for numbers that no float holds, which are JSON all the same and which serde_json refuses.
pub(crate) fn is_row(line: &[u8]) -> Option<bool> {
    match serde_json::from_slice::<Strict>(line) {
        Err(error) if error.to_string().contains("out of range") => None,
        read => Some(read.is_ok() && line.trim_ascii_start().starts_with(b"{")),
    }
}
