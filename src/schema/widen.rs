//! Growing a contract: the smallest schema that holds the rows of two others without changing a value.

use super::normalise::{check_names, element, is_json, join_path, normalise};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Metadata key under which Arrow carries a Parquet field id.
const FIELD_ID: &str = "PARQUET:field_id";

/// File metadata that describes the columns themselves: false as soon as a column is added or widened.
const DESCRIBES_COLUMNS: [&str; 6] = [
    "ARROW:schema",
    "pandas",
    "org.apache.spark.sql.parquet.row.metadata",
    "iceberg.schema",
    "parquet.avro.schema",
    "avro.schema",
];

/// The contract that also holds rows of `incoming`. Columns keep their order, new ones are appended; a column that one
/// side lacks is nullable. Types grow only where every value stays exactly itself: integers to wider ones, floats to
/// wider ones, decimals to more digits, dates, times, timestamps and durations to finer units, nulls to anything,
/// structs, lists and maps by their members. A JSON text column takes nothing but JSON text. Anything else is an
/// error that names the column and both types.
///
/// Idempotent, and associative where defined. Where two sides may differ without changing a value (the zone in
/// which instants are shown, metadata, the name of a list's element), the contract's stays.
pub fn widen(contract: &Schema, incoming: &Schema) -> Result<Schema, String> {
    check_names(contract)?;
    check_names(incoming)?;
    let contract = normalise(contract);
    let incoming = normalise(incoming);
    let fields = join_fields(contract.fields(), incoming.fields(), "")?;
    if fields == *contract.fields() {
        return Ok(contract);
    }
    let mut metadata = contract.metadata().clone();
    metadata.retain(|key, _| !DESCRIBES_COLUMNS.contains(&key.as_str()));
    Ok(Schema::new_with_metadata(distinct_ids(&fields, &mut HashSet::new()), metadata))
}

/// Whether every value of `from` is, exactly, a value of `to`.
pub(super) fn holds(to: &DataType, from: &DataType) -> bool {
    join_types(to, from).is_some_and(|joined| joined == *to)
}

fn join_fields(ours: &Fields, theirs: &Fields, path: &str) -> Result<Fields, String> {
    let mut joined: Vec<FieldRef> = Vec::with_capacity(ours.len());
    for our in ours {
        joined.push(match theirs.find(our.name()) {
            Some((_, their)) => join_field(our, their, &join_path(path, our.name()))?,
            None => nullable(our),
        });
    }
    joined.extend(theirs.iter().filter(|their| ours.find(their.name()).is_none()).map(nullable));
    Ok(joined.into())
}

fn nullable(field: &FieldRef) -> FieldRef {
    if field.is_nullable() { Arc::clone(field) } else { Arc::new(field.as_ref().clone().with_nullable(true)) }
}

fn join_field(our: &FieldRef, their: &FieldRef, path: &str) -> Result<FieldRef, String> {
    if our == their {
        return Ok(Arc::clone(our));
    }
    let nullable = our.is_nullable() || their.is_nullable();
    if *our.data_type() == DataType::Null {
        // The name and metadata of the contract stay; the other side brings what the values are.
        let mut metadata = their.metadata().clone();
        metadata.extend(our.metadata().clone());
        let field = Field::new(our.name(), their.data_type().clone(), true).with_metadata(metadata);
        return Ok(Arc::new(field));
    }
    if *their.data_type() == DataType::Null {
        return Ok(Arc::new(our.as_ref().clone().with_nullable(true)));
    }
    let clash = || {
        format!(
            "column `{path}` is {} in the table and {} here, and no type holds both without changing values; \
             convert it before ingesting, or leave this source out",
            describe(our),
            describe(their)
        )
    };
    if is_json(our) != is_json(their) {
        return Err(clash());
    }
    let data_type = match (our.data_type(), their.data_type()) {
        (DataType::Struct(ours), DataType::Struct(theirs)) => {
            DataType::Struct(join_fields(ours, theirs, path)?)
        }
        (DataType::Map(ours, sorted), DataType::Map(theirs, theirs_sorted)) => {
            DataType::Map(join_entries(ours, theirs, path)?, *sorted && *theirs_sorted)
        }
        (ours, theirs) => match (element(ours), element(theirs)) {
            (Some(our_item), Some(their_item)) => {
                let item = join_field(our_item, their_item, &join_path(path, "[]"))?;
                match (ours, theirs) {
                    (DataType::FixedSizeList(_, a), DataType::FixedSizeList(_, b)) if a == b => {
                        DataType::FixedSizeList(item, *a)
                    }
                    _ => DataType::List(item),
                }
            }
            _ => join_types(ours, theirs).ok_or_else(clash)?,
        },
    };
    Ok(Arc::new(our.as_ref().clone().with_data_type(data_type).with_nullable(nullable)))
}

/// The entries of two maps: writers name keys and values as they like, so their place counts, not their names.
fn join_entries(our: &FieldRef, their: &FieldRef, path: &str) -> Result<FieldRef, String> {
    let (DataType::Struct(ours), DataType::Struct(theirs)) = (our.data_type(), their.data_type()) else {
        return Err(format!("column `{path}` is a map without entries"));
    };
    let members = ours
        .iter()
        .zip(theirs.iter())
        .map(|(our, their)| join_field(our, their, &join_path(path, our.name())))
        .collect::<Result<Fields, String>>()?;
    Ok(Arc::new(our.as_ref().clone().with_data_type(DataType::Struct(members))))
}

/// The smallest type that holds the values of two flat types, if there is one.
fn join_types(a: &DataType, b: &DataType) -> Option<DataType> {
    use DataType::*;
    if a == b {
        return Some(a.clone());
    }
    Some(match (a, b) {
        (Null, other) | (other, Null) => other.clone(),
        (Date32, Date64) | (Date64, Date32) => Date64,
        (Timestamp(a, None), Timestamp(b, None)) => Timestamp(finer(*a, *b), None),
        (Timestamp(a, Some(zone)), Timestamp(b, Some(_))) => Timestamp(finer(*a, *b), Some(Arc::clone(zone))),
        (Duration(a), Duration(b)) => Duration(finer(*a, *b)),
        (Time32(a) | Time64(a), Time32(b) | Time64(b)) => match finer(*a, *b) {
            unit @ (TimeUnit::Second | TimeUnit::Millisecond) => Time32(unit),
            unit => Time64(unit),
        },
        (FixedSizeBinary(_) | Binary, FixedSizeBinary(_) | Binary) => Binary,
        _ => {
            return join_integers(a, b)
                .or_else(|| join_floats(a, b))
                .or_else(|| join_mixed(a, b))
                .or_else(|| join_decimals(a, b));
        }
    })
}

fn finer(a: TimeUnit, b: TimeUnit) -> TimeUnit {
    a.max(b)
}

fn join_integers(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((a_signed, a_bits), (b_signed, b_bits)) = (integer(a)?, integer(b)?);
    // An unsigned number needs one bit more than a signed one of its width, which means the next width.
    let bits = match (a_signed, b_signed) {
        (true, false) => a_bits.max(b_bits * 2),
        (false, true) => b_bits.max(a_bits * 2),
        _ => a_bits.max(b_bits),
    };
    Some(match (a_signed || b_signed, bits) {
        (true, 8) => DataType::Int8,
        (true, 16) => DataType::Int16,
        (true, 32) => DataType::Int32,
        (true, 64) => DataType::Int64,
        (false, 8) => DataType::UInt8,
        (false, 16) => DataType::UInt16,
        (false, 32) => DataType::UInt32,
        (false, 64) => DataType::UInt64,
        _ => return None,
    })
}

fn integer(data_type: &DataType) -> Option<(bool, u32)> {
    Some(match data_type {
        DataType::Int8 => (true, 8),
        DataType::Int16 => (true, 16),
        DataType::Int32 => (true, 32),
        DataType::Int64 => (true, 64),
        DataType::UInt8 => (false, 8),
        DataType::UInt16 => (false, 16),
        DataType::UInt32 => (false, 32),
        DataType::UInt64 => (false, 64),
        _ => return None,
    })
}

fn join_floats(a: &DataType, b: &DataType) -> Option<DataType> {
    let width = |data_type: &DataType| match data_type {
        DataType::Float16 => Some(16),
        DataType::Float32 => Some(32),
        DataType::Float64 => Some(64),
        _ => None,
    };
    Some(if width(a)? >= width(b)? { a.clone() } else { b.clone() })
}

/// Integers and floats have a float in common that holds every integer of that width exactly, if there is one.
fn join_mixed(a: &DataType, b: &DataType) -> Option<DataType> {
    let (float, (signed, bits)) = match (integer(a), integer(b)) {
        (None, Some(integer)) => (a, integer),
        (Some(integer), None) => (b, integer),
        _ => return None,
    };
    let exact = match bits - u32::from(signed) {
        0..=11 => DataType::Float16,
        12..=24 => DataType::Float32,
        25..=53 => DataType::Float64,
        _ => return None,
    };
    join_floats(float, &exact)
}

fn join_decimals(a: &DataType, b: &DataType) -> Option<DataType> {
    let ((a_bits, a_digits, a_scale), (b_bits, b_digits, b_scale)) = (decimal(a)?, decimal(b)?);
    let scale = a_scale.max(b_scale);
    let whole = (i16::from(a_digits) - i16::from(a_scale)).max(i16::from(b_digits) - i16::from(b_scale));
    let digits = u8::try_from(whole + i16::from(scale)).ok()?;
    let needed = match digits {
        0 | 77.. => return None,
        1..=9 => 32,
        10..=18 => 64,
        19..=38 => 128,
        39..=76 => 256,
    };
    Some(match a_bits.max(b_bits).max(needed) {
        32 => DataType::Decimal32(digits, scale),
        64 => DataType::Decimal64(digits, scale),
        128 => DataType::Decimal128(digits, scale),
        _ => DataType::Decimal256(digits, scale),
    })
}

fn decimal(data_type: &DataType) -> Option<(u16, u8, i8)> {
    Some(match data_type {
        DataType::Decimal32(digits, scale) => (32, *digits, *scale),
        DataType::Decimal64(digits, scale) => (64, *digits, *scale),
        DataType::Decimal128(digits, scale) => (128, *digits, *scale),
        DataType::Decimal256(digits, scale) => (256, *digits, *scale),
        _ => return None,
    })
}

fn describe(field: &Field) -> String {
    if is_json(field) { "JSON text".to_owned() } else { field.data_type().to_string() }
}

/// Drops the field id of a column whose id an earlier column has: ids of two sources may collide, and a reader that
/// resolves columns by id must not find the wrong one.
fn distinct_ids(fields: &Fields, seen: &mut HashSet<String>) -> Fields {
    fields.iter().map(|field| distinct_id(field, seen)).collect()
}

fn distinct_id(field: &FieldRef, seen: &mut HashSet<String>) -> FieldRef {
    let mut metadata: HashMap<String, String> = field.metadata().clone();
    if metadata.get(FIELD_ID).is_some_and(|id| !seen.insert(id.clone())) {
        metadata.remove(FIELD_ID);
    }
    let data_type = match field.data_type() {
        DataType::Struct(members) => DataType::Struct(distinct_ids(members, seen)),
        DataType::List(item) => DataType::List(distinct_id(item, seen)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(distinct_id(item, seen), *size),
        DataType::Map(entries, sorted) => DataType::Map(distinct_id(entries, seen), *sorted),
        other => other.clone(),
    };
    Arc::new(field.as_ref().clone().with_data_type(data_type).with_metadata(metadata))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(data_type: DataType) -> Schema {
        Schema::new(vec![Field::new("a", data_type, true)])
    }

    fn joined(a: DataType, b: DataType) -> Result<DataType, String> {
        widen(&one(a), &one(b)).map(|schema| schema.field(0).data_type().clone())
    }

    #[test]
    fn types_grow_only_where_no_value_changes() {
        use DataType::*;
        for (a, b, wider) in [
            (Int8, Int64, Int64),
            (UInt32, Int32, Int64),
            (UInt8, Int8, Int16),
            (Float32, Float64, Float64),
            (Null, Utf8, Utf8),
            (Decimal128(10, 2), Decimal128(8, 4), Decimal128(12, 4)),
            (Decimal128(38, 0), Decimal128(38, 2), Decimal256(40, 2)),
            (Time32(TimeUnit::Second), Time64(TimeUnit::Nanosecond), Time64(TimeUnit::Nanosecond)),
            (
                Timestamp(TimeUnit::Millisecond, None),
                Timestamp(TimeUnit::Second, None),
                Timestamp(TimeUnit::Millisecond, None),
            ),
        ] {
            assert_eq!(joined(a.clone(), b.clone()).unwrap(), wider, "{a} and {b}");
            assert_eq!(joined(b, a).unwrap(), wider);
        }
    }

    #[test]
    fn types_of_other_kinds_are_refused_with_both_named() {
        use DataType::*;
        for (a, b) in [
            (UInt64, Int8),
            (Int32, Float64),
            (Int64, Utf8),
            (Boolean, Int8),
            (Utf8, Binary),
            (Timestamp(TimeUnit::Second, None), Timestamp(TimeUnit::Second, Some("UTC".into()))),
            (Decimal256(76, 0), Decimal256(76, 2)),
            (Struct(vec![Field::new("x", Int8, true)].into()), Int8),
        ] {
            let reason = joined(a.clone(), b.clone()).unwrap_err();
            assert!(reason.contains("`a`") && reason.contains(&a.to_string()), "{reason}");
            assert!(reason.contains(&b.to_string()), "{reason}");
        }
    }

    #[test]
    fn json_text_takes_nothing_but_json_text() {
        let json = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.json".to_owned())]);
        let json = Schema::new(vec![Field::new("a", DataType::Utf8, true).with_metadata(json)]);
        assert!(widen(&json, &one(DataType::Utf8)).is_err());
        assert!(widen(&one(DataType::Utf8), &json).is_err());
        assert_eq!(widen(&json, &json).unwrap(), json);
        assert_eq!(widen(&json, &one(DataType::Null)).unwrap(), json);
        assert!(is_json(widen(&one(DataType::Null), &json).unwrap().field(0)));
    }

    #[test]
    fn new_members_are_appended_as_nullable_and_missing_ones_become_nullable() {
        let a =
            Schema::new(vec![Field::new("x", DataType::Int8, false), Field::new("y", DataType::Int8, false)]);
        let b =
            Schema::new(vec![Field::new("z", DataType::Int8, false), Field::new("y", DataType::Int8, false)]);
        let expected = Schema::new(vec![
            Field::new("x", DataType::Int8, true),
            Field::new("y", DataType::Int8, false),
            Field::new("z", DataType::Int8, true),
        ]);
        assert_eq!(widen(&a, &b).unwrap(), expected);
    }

    #[test]
    fn colliding_field_ids_and_stale_descriptions_are_dropped() {
        let id = |id: &str| HashMap::from([(FIELD_ID.to_owned(), id.to_owned())]);
        let a = Schema::new_with_metadata(
            vec![Field::new("x", DataType::Int8, true).with_metadata(id("1"))],
            HashMap::from([("pandas".to_owned(), "{}".to_owned()), ("owner".to_owned(), "me".to_owned())]),
        );
        let b = Schema::new(vec![Field::new("y", DataType::Int8, true).with_metadata(id("1"))]);
        let wider = widen(&a, &b).unwrap();
        assert_eq!(wider.field(0).metadata(), &id("1"));
        assert!(wider.field(1).metadata().is_empty());
        assert_eq!(wider.metadata(), &HashMap::from([("owner".to_owned(), "me".to_owned())]));
        assert_eq!(widen(&a, &a).unwrap(), a);
    }

    /// Schemas of few names and related types, so that many of them can be joined.
    fn related() -> impl Strategy<Value = Schema> {
        use DataType::*;
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        let families: [Vec<DataType>; 4] = [
            vec![Int8, Int16, Int32, UInt8, UInt16, UInt32, Null],
            vec![
                Decimal32(5, 2),
                Decimal128(8, 4),
                Decimal64(18, 0),
                Decimal128(38, 10),
                Decimal256(60, 20),
                Null,
            ],
            units.map(|unit| Timestamp(unit, None)).to_vec(),
            vec![FixedSizeBinary(2), FixedSizeBinary(3), Binary, LargeBinary, Null],
        ];
        let column = (0usize..4, any::<prop::sample::Index>(), any::<bool>(), 0u8..3).prop_map(
            move |(family, pick, nullable, shape)| {
                let flat = families[family][pick.index(families[family].len())].clone();
                let nullable = nullable || flat == Null;
                let item = Arc::new(Field::new("item", flat.clone(), nullable));
                match shape {
                    0 => Field::new(format!("flat{family}"), flat, nullable),
                    1 => Field::new(format!("list{family}"), List(item), nullable),
                    _ => {
                        let member = Field::new(format!("member{family}"), flat, nullable);
                        Field::new("struct", Struct(vec![member].into()), nullable)
                    }
                }
            },
        );
        prop::collection::vec(column, 0..5).prop_map(|mut fields: Vec<Field>| {
            let mut seen = HashSet::new();
            fields.retain(|field| seen.insert(field.name().clone()));
            Schema::new(fields)
        })
    }

    proptest! {
        #[test]
        fn widening_is_idempotent_and_associative(a in related(), b in related(), c in related()) {
            prop_assert_eq!(widen(&a, &a).unwrap(), normalise(&a));
            let left = widen(&a, &b).and_then(|ab| widen(&ab, &c));
            let right = widen(&b, &c).and_then(|bc| widen(&a, &bc));
            if let (Ok(left), Ok(right)) = (left, right) {
                prop_assert_eq!(&left, &right);
                for part in [&a, &b, &c] {
                    prop_assert_eq!(&widen(&left, part).unwrap(), &left);
                }
            }
        }
    }
}
