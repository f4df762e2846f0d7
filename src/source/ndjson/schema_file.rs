//! The schema file: how people write the columns of a table, and how they are shown them.
//!
//! ```json
//! {"fields": [
//!   {"name": "id", "type": "int64", "nullable": false},
//!   {"name": "at", "type": "timestamp(us,UTC)"},
//!   {"name": "tags", "type": {"list": "text"}},
//!   {"name": "geo", "type": {"struct": [{"name": "lat", "type": "float64"}, {"name": "lon", "type": "float64"}]}},
//!   {"name": "extra", "type": "json"}
//! ]}
//! ```
//!
//! Types: `bool`, `int8` … `int64`, `uint8` … `uint64`, `float16`, `float32`, `float64`,
//! `decimal(precision,scale)` with up to 76 digits, `text`, `binary`, `date`, `time` or `time(unit)`,
//! `timestamp(unit)` (wall clock) or `timestamp(unit,zone)` (instant), `json` (any value, kept as text),
//! `{"list": type}`, `{"struct": [field, …]}`, `{"map": type}` (text to type). Units are `s`, `ms`, `us`,
//! `ns`; plain `time` is `time(us)`; `s` is kept as `ms`, since Parquet has no coarser unit. `nullable` is true where it is not given; a list's elements or map's
//! values get it as `{"list": {"type": type, "nullable": false}}`. Unknown words are refused, never ignored.

use super::{Error, is_json, json_field};
use crate::error::Result;
use crate::schema::stored;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const SIMPLE: [(&str, DataType); 14] = [
    ("bool", DataType::Boolean),
    ("int8", DataType::Int8),
    ("int16", DataType::Int16),
    ("int32", DataType::Int32),
    ("int64", DataType::Int64),
    ("uint8", DataType::UInt8),
    ("uint16", DataType::UInt16),
    ("uint32", DataType::UInt32),
    ("uint64", DataType::UInt64),
    ("float16", DataType::Float16),
    ("float32", DataType::Float32),
    ("float64", DataType::Float64),
    ("text", DataType::Utf8),
    ("binary", DataType::Binary),
];
const UNITS: [(&str, TimeUnit); 4] = [
    ("s", TimeUnit::Second),
    ("ms", TimeUnit::Millisecond),
    ("us", TimeUnit::Microsecond),
    ("ns", TimeUnit::Nanosecond),
];
const KNOWN: &str = "bool, int8, int16, int32, int64, uint8, uint16, uint32, uint64, float16, float32, float64, \
    decimal(precision,scale), text, binary, date, time, time(unit), timestamp(unit), timestamp(unit,zone), json, \
    {\"list\": type}, {\"struct\": [field, …]}, {\"map\": type}; units are s, ms, us, ns";

/// Reads a schema file.
pub fn schema_of_file(text: &str) -> Result<Schema> {
    let read = || {
        let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
        let file = object(&value, "the file", &["fields"])?;
        let fields = fields(file.get("fields").ok_or("the file has no \"fields\"")?, "")?;
        Ok(stored(&Schema::new(fields)))
    };
    read().map_err(|reason: String| Error::Usage(format!("schema file: {reason}")))
}

/// Writes a schema as a schema file. What the format lacks is shown by Arrow's name, which [`schema_of_file`]
/// refuses; layouts (large, view) and metadata are not shown.
pub fn text_of_schema(schema: &Schema) -> String {
    let fields: Vec<Value> = schema.fields().iter().map(|field| field_value(field)).collect();
    let lines: Vec<String> = fields.iter().map(|field| format!("  {field}")).collect();
    format!("{{\"fields\": [\n{}\n]}}\n", lines.join(",\n"))
}

/// A column's type in one word, for messages.
pub(super) fn type_name(field: &Field) -> String {
    match type_value(field) {
        Value::String(name) => name,
        Value::Object(nested) => nested.keys().next().cloned().unwrap_or_default(),
        other => other.to_string(),
    }
}

fn fields(value: &Value, path: &str) -> Result<Vec<FieldRef>, String> {
    let list = value.as_array().ok_or_else(|| format!("the fields of {} must be a list", shown(path)))?;
    let mut all: Vec<FieldRef> = Vec::with_capacity(list.len());
    for value in list {
        let field = object(value, &format!("a field of {}", shown(path)), &["name", "type", "nullable"])?;
        let name = field.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| format!("a field of {} has no name", shown(path)))?;
        let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        if all.iter().any(|other| other.name() == name) {
            return Err(format!("there are two fields {path:?}"));
        }
        all.push(typed(name, field, &path)?);
    }
    Ok(all)
}

/// The field `name` with the "type" and "nullable" of `spec`.
fn typed(name: &str, spec: &Map<String, Value>, path: &str) -> Result<FieldRef, String> {
    let kind = spec.get("type").ok_or_else(|| format!("{} has no type", shown(path)))?;
    let nullable = match spec.get("nullable") {
        None => true,
        Some(value) => {
            value.as_bool().ok_or_else(|| format!("nullable of {} must be true or false", shown(path)))?
        }
    };
    Ok(Arc::new(with_type(name, kind, path)?.with_nullable(nullable)))
}

fn with_type(name: &str, kind: &Value, path: &str) -> Result<Field, String> {
    let unknown = || format!("{} has the unknown type {kind}; known are {KNOWN}", shown(path));
    if let Some(text) = kind.as_str() {
        return if text == "json" {
            Ok(json_field(name))
        } else {
            scalar(text).map(|kind| Field::new(name, kind, true)).ok_or_else(unknown)
        };
    }
    let nested = kind.as_object().filter(|nested| nested.len() == 1).and_then(|nested| nested.iter().next());
    let (word, inner) = nested.ok_or_else(unknown)?;
    let kind = match word.as_str() {
        "struct" => match fields(inner, path)? {
            none if none.is_empty() => {
                return Err(format!("{} is a struct without fields; use \"json\"", shown(path)));
            }
            some => DataType::Struct(some.into()),
        },
        "list" => DataType::List(element(Field::LIST_FIELD_DEFAULT_NAME, inner, path)?),
        "map" => {
            let key = Arc::new(Field::new("key", DataType::Utf8, false));
            let entries = DataType::Struct(vec![key, element("value", inner, path)?].into());
            DataType::Map(Arc::new(Field::new("entries", entries, false)), false)
        }
        _ => return Err(unknown()),
    };
    Ok(Field::new(name, kind, true))
}

/// The elements of a list or values of a map: a type, or a type with "nullable".
fn element(name: &str, value: &Value, path: &str) -> Result<FieldRef, String> {
    match value.as_object() {
        Some(spec) if spec.contains_key("type") => {
            typed(name, object(value, &shown(path), &["type", "nullable"])?, path)
        }
        _ => with_type(name, value, path).map(Arc::new),
    }
}

fn object<'a>(value: &'a Value, what: &str, known: &[&str]) -> Result<&'a Map<String, Value>, String> {
    let object = value.as_object().ok_or_else(|| format!("{what} must be an object"))?;
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("{what} has the unknown entry {key:?}; known are {}", known.join(", "))),
        None => Ok(object),
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "the file".to_owned() } else { format!("field {path:?}") }
}

fn scalar(text: &str) -> Option<DataType> {
    let simple = SIMPLE.iter().find(|(name, _)| *name == text).map(|(_, kind)| kind.clone());
    if simple.is_some() {
        return simple;
    }
    let (name, given) = match text.split_once('(') {
        Some((name, rest)) => (name, rest.strip_suffix(')')?.split(',').map(str::trim).collect()),
        None => (text, vec![]),
    };
    let unit = |name: &str| UNITS.iter().find(|(short, _)| *short == name).map(|(_, unit)| *unit);
    match (name, given.as_slice()) {
        ("date", []) => Some(DataType::Date32),
        ("time", []) => Some(DataType::Time64(TimeUnit::Microsecond)),
        ("time", [short]) => match unit(short)? {
            small @ (TimeUnit::Second | TimeUnit::Millisecond) => Some(DataType::Time32(small)),
            fine => Some(DataType::Time64(fine)),
        },
        ("timestamp", [short]) => Some(DataType::Timestamp(unit(short)?, None)),
        ("timestamp", [short, zone]) if !zone.is_empty() => {
            Some(DataType::Timestamp(unit(short)?, Some(Arc::from(*zone))))
        }
        ("decimal", [precision, scale]) => {
            let (precision, scale): (u8, i8) = (precision.parse().ok()?, scale.parse().ok()?);
            let sound = (0..=i16::from(precision)).contains(&i16::from(scale));
            match precision {
                1..=38 if sound => Some(DataType::Decimal128(precision, scale)),
                39..=76 if sound => Some(DataType::Decimal256(precision, scale)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn field_value(field: &Field) -> Value {
    let mut value = json!({"name": field.name(), "type": type_value(field)});
    if let (false, Some(object)) = (field.is_nullable(), value.as_object_mut()) {
        object.insert("nullable".to_owned(), Value::Bool(false));
    }
    value
}

fn element_value(field: &Field) -> Value {
    let kind = type_value(field);
    if field.is_nullable() { kind } else { json!({"type": kind, "nullable": false}) }
}

fn type_value(field: &Field) -> Value {
    let unit =
        |unit: &TimeUnit| UNITS.iter().find(|(_, known)| known == unit).map_or("", |(short, _)| *short);
    if is_json(field) {
        return json!("json");
    }
    match field.data_type() {
        DataType::LargeUtf8 | DataType::Utf8View => json!("text"),
        DataType::LargeBinary | DataType::BinaryView => json!("binary"),
        DataType::Date32 => json!("date"),
        DataType::Time64(TimeUnit::Microsecond) => json!("time"),
        DataType::Time32(u) | DataType::Time64(u) => json!(format!("time({})", unit(u))),
        DataType::Timestamp(u, None) => json!(format!("timestamp({})", unit(u))),
        DataType::Timestamp(u, Some(zone)) => json!(format!("timestamp({},{zone})", unit(u))),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => json!(format!("decimal({p},{s})")),
        DataType::Struct(fields) => {
            json!({"struct": fields.iter().map(|f| field_value(f)).collect::<Vec<_>>()})
        }
        DataType::List(item) | DataType::LargeList(item) => json!({"list": element_value(item)}),
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => json!({"map": pair.get(1).map(|value| element_value(value))}),
            other => json!(other.to_string()),
        },
        other => match SIMPLE.iter().find(|(_, known)| known == other) {
            Some((name, _)) => json!(name),
            None => json!(other.to_string()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: &str = r#"{"fields": [
        {"name": "id", "type": "int64", "nullable": false},
        {"name": "b", "type": "bool"}, {"name": "i8", "type": "int8"}, {"name": "u32", "type": "uint32"},
        {"name": "f", "type": "float32"}, {"name": "d", "type": "decimal(10,2)"}, {"name": "e", "type": "decimal(76,0)"},
        {"name": "t", "type": "text"}, {"name": "x", "type": "binary"}, {"name": "day", "type": "date"},
        {"name": "c", "type": "time"}, {"name": "c2", "type": "time(ms)"}, {"name": "at", "type": "timestamp(us,UTC)"},
        {"name": "wall", "type": "timestamp(ns)"}, {"name": "j", "type": "json"},
        {"name": "l", "type": {"list": {"list": {"type": "json", "nullable": false}}}},
        {"name": "m", "type": {"map": {"type": "int64", "nullable": false}}},
        {"name": "s", "type": {"struct": [{"name": "a", "type": {"list": {"struct": [{"name": "z", "type": "json"}]}}}]}}
    ]}"#;

    #[test]
    fn what_is_printed_reads_back_as_the_same_schema() {
        let schema = schema_of_file(ALL).unwrap();
        assert_eq!(schema.fields().len(), 18);
        assert_eq!(
            schema.field(12),
            &Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), true)
        );
        assert_eq!(schema_of_file(&text_of_schema(&schema)).unwrap(), schema);
        let seconds = r#"{"fields": [{"name": "t", "type": "timestamp(s,UTC)"}, {"name": "u", "type": {"list": "time(s)"}}]}"#;
        let millis = seconds.replace("(s", "(ms");
        assert_eq!(schema_of_file(seconds).unwrap(), schema_of_file(&millis).unwrap());
        let empty = Schema::empty();
        assert_eq!(schema_of_file(&text_of_schema(&empty)).unwrap(), empty);
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        let reason = |text: &str| schema_of_file(text).unwrap_err().to_string();
        for (fields, part) in [
            (
                r#"[{"name": "a", "type": "string"}]"#,
                "field \"a\" has the unknown type \"string\"; known are bool",
            ),
            (r#"[{"name": "a", "type": "text", "nulable": true}]"#, "unknown entry \"nulable\""),
            (r#"[{"name": "a", "type": "text"}, {"name": "a", "type": "text"}]"#, "two fields \"a\""),
            (r#"[{"type": "text"}]"#, "no name"),
            (
                r#"[{"name": "a", "type": {"struct": [{"name": "b", "type": "decimal(77,0)"}]}}]"#,
                "field \"a.b\"",
            ),
            (r#"[{"name": "a", "type": {"struct": []}}]"#, "without fields"),
            (r#"[{"name": "a", "type": "decimal(3,4)"}]"#, "unknown type"),
            (r#"[{"name": "a", "type": "timestamp"}]"#, "unknown type"),
            ("{}", "must be a list"),
        ] {
            let reason = reason(&format!("{{\"fields\": {fields}}}"));
            assert!(reason.contains(part), "{reason}");
        }
        assert!(reason("{\"fields\": [").contains("schema file: EOF"));
        assert!(reason("[]").contains("the file must be an object"));
    }
}
