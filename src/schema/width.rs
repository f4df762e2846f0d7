//! What a row takes even where all of it is null: types of a fixed size take their size.

use arrow::datatypes::{DataType, Field, Schema};

/// The most bytes that a row of nulls may take.
const MAX_ROW: u64 = 16 << 20;

/// What a batch of nulls should not exceed, in bytes.
const BATCH: u64 = 16 << 20;

/// Rows of a batch, where rows are narrow.
const ROWS: u64 = 8192;

/// Bytes that a row takes even where all its columns are null; at least one.
pub fn null_bytes(schema: &Schema) -> u64 {
    schema.fields().iter().map(|field| bytes_of(field)).fold(0, u64::saturating_add).max(1)
}

/// Refuses a schema whose rows would take memory without end although nothing is in them.
pub fn check_width(schema: &Schema) -> Result<(), String> {
    match schema.fields().iter().max_by_key(|field| bytes_of(field)) {
        Some(widest) if null_bytes(schema) > MAX_ROW => Err(format!(
            "a row takes {} bytes even where all its columns are null, `{}` the most of them; {MAX_ROW} are allowed: \
             use types without a fixed size",
            null_bytes(schema),
            widest.name()
        )),
        _ => Ok(()),
    }
}

/// How many rows to decode at a time if they are to become rows of `schema`.
pub fn batch_rows(schema: &Schema) -> usize {
    (BATCH / null_bytes(schema)).clamp(1, ROWS) as usize
}

fn bytes_of(field: &Field) -> u64 {
    let of = |size: i32| u64::try_from(size).unwrap_or(0);
    match field.data_type() {
        DataType::Boolean | DataType::Null => 1,
        DataType::FixedSizeBinary(size) => of(*size).saturating_add(1),
        DataType::FixedSizeList(item, size) => bytes_of(item).saturating_mul(of(*size)).saturating_add(1),
        DataType::Struct(members) => {
            members.iter().map(|member| bytes_of(member)).fold(1, u64::saturating_add)
        }
        DataType::Map(..) | DataType::List(_) => 4,
        flat => flat.primitive_width().map_or(16, |width| width as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn schema(kind: DataType) -> Schema {
        Schema::new(vec![Field::new("narrow", DataType::Int64, true), Field::new("wide", kind, true)])
    }

    #[test]
    fn what_has_a_fixed_size_takes_it_even_where_it_is_null() {
        let list = |kind, size| DataType::FixedSizeList(Arc::new(Field::new("item", kind, true)), size);
        for (kind, bytes) in [
            (DataType::Int8, 1),
            (DataType::Utf8, 16),
            (DataType::FixedSizeBinary(100), 101),
            (DataType::FixedSizeBinary(-1), 1),
            (list(DataType::Int64, 1000), 8001),
            (list(list(DataType::Int64, 1000), 1000), 8_001_001),
            (DataType::List(Arc::new(Field::new("item", list(DataType::Int64, 1000), true))), 4),
        ] {
            assert_eq!(null_bytes(&schema(kind.clone())), 8 + bytes, "{kind}");
            assert!(check_width(&schema(kind)).is_ok());
        }
        assert_eq!(batch_rows(&schema(DataType::Utf8)), 8192);
        assert_eq!(batch_rows(&schema(list(DataType::Int64, 1_000_000))), 2);
        for kind in [DataType::FixedSizeBinary(i32::MAX), list(list(DataType::Int64, i32::MAX), i32::MAX)] {
            let told = check_width(&schema(kind)).unwrap_err();
            assert!(told.contains("`wide`"), "{told}");
        }
    }
}
