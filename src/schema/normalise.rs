//! The logical schema: what the values are, without how a file or a batch happens to lay them out.

use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, TimeUnit};
use std::collections::HashSet;
use std::sync::Arc;

/// Name of the extension type that marks a text column as JSON.
const JSON: &str = "arrow.json";

/// The logical schema of `schema`: dictionaries and runs become their values, large and view types the plain ones,
/// at any depth, and lists of a fixed size plain lists where they lie in a list of any size or a map: how many of them
/// there are nothing bounds, and each null would take its size. (Parquet knows plain lists only.) Names, order,
/// nullability and metadata (field ids, zones, extension names) stay.
pub fn normalise(schema: &Schema) -> Schema {
    mapped(schema, &plain)
}

/// The logical schema of `schema` as other readers are to see it in Parquet, which has no times in seconds: those are
/// kept in milliseconds.
pub fn stored(schema: &Schema) -> Schema {
    mapped(&normalise(schema), &|data_type| match data_type {
        DataType::Timestamp(TimeUnit::Second, zone) => DataType::Timestamp(TimeUnit::Millisecond, zone),
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        other => other,
    })
}

/// `schema` with strings and binaries as views, at any depth: the layout in which rows travel, because a value
/// that a dictionary repeats a million times is then held once.
pub fn viewed(schema: &Schema) -> Schema {
    mapped(schema, &|data_type| match data_type {
        DataType::Utf8 => DataType::Utf8View,
        DataType::Binary => DataType::BinaryView,
        other => other,
    })
}

/// Whether `field` holds JSON text (the Arrow extension type `arrow.json`).
pub fn is_json(field: &Field) -> bool {
    field.extension_type_name() == Some(JSON)
}

/// Structs, lists and maps within each other that a column may have: more than anybody uses, and few enough for a
/// manifest, which holds the schema as nested JSON, to be read back by any JSON parser.
pub(super) const MAX_NESTING: usize = 32;

/// Refuses a schema in which two columns, or two members of one struct, have the same name (by name alone they could
/// not be told apart later), and one that nests deeper than 32 levels.
pub fn check_names(schema: &Schema) -> Result<(), String> {
    unique(schema.fields(), "", 0)
}

fn unique(fields: &Fields, path: &str, depth: usize) -> Result<(), String> {
    if depth > MAX_NESTING {
        return Err(format!("its column `{path}` is nested deeper than {MAX_NESTING} levels; flatten it"));
    }
    let mut seen = HashSet::new();
    for field in fields {
        let here = join_path(path, field.name());
        if !seen.insert(field.name()) {
            return Err(format!("it has two columns named `{here}`; rename one of them"));
        }
        unique_within(field.data_type(), &here, depth + 1)?;
    }
    Ok(())
}

fn unique_within(data_type: &DataType, path: &str, depth: usize) -> Result<(), String> {
    match data_type {
        DataType::Struct(members) => unique(members, path, depth),
        DataType::Map(entries, _) => unique_within(entries.data_type(), path, depth + 1),
        other => match element(other) {
            Some(_) if depth > MAX_NESTING => unique(&Fields::empty(), path, depth),
            Some(item) => unique_within(item.data_type(), path, depth + 1),
            None => Ok(()),
        },
    }
}

/// The field of a list's elements, for every kind of list.
pub(super) fn element(data_type: &DataType) -> Option<&FieldRef> {
    match data_type {
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => Some(item),
        _ => None,
    }
}

/// `path.name`, as messages show where a column lies.
pub(super) fn join_path(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The plain type of one type; its members are mapped by the caller.
fn plain(data_type: DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain(*values),
        DataType::RunEndEncoded(_, values) => plain(values.data_type().clone()),
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => DataType::List(mapped_field(&item, &unsized_list)),
        DataType::Map(entries, sorted) => DataType::Map(mapped_field(&entries, &unsized_list), sorted),
        other => other,
    }
}

/// A list of a fixed size as one of any size.
fn unsized_list(data_type: DataType) -> DataType {
    match data_type {
        DataType::FixedSizeList(item, _) => DataType::List(item),
        other => other,
    }
}

fn mapped(schema: &Schema, leaf: &impl Fn(DataType) -> DataType) -> Schema {
    let fields: Fields = schema.fields().iter().map(|field| mapped_field(field, leaf)).collect();
    Schema::new_with_metadata(fields, schema.metadata().clone())
}

fn mapped_field(field: &FieldRef, leaf: &impl Fn(DataType) -> DataType) -> FieldRef {
    let data_type = match leaf(field.data_type().clone()) {
        DataType::Struct(members) => {
            DataType::Struct(members.iter().map(|member| mapped_field(member, leaf)).collect())
        }
        DataType::List(item) => DataType::List(mapped_field(&item, leaf)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(mapped_field(&item, leaf), size),
        DataType::Map(entries, sorted) => DataType::Map(mapped_field(&entries, leaf), sorted),
        other => other,
    };
    if data_type == *field.data_type() {
        return Arc::clone(field);
    }
    Arc::new(field.as_ref().clone().with_data_type(data_type))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn of(data_type: DataType) -> DataType {
        normalise(&Schema::new(vec![Field::new("a", data_type, true)])).field(0).data_type().clone()
    }

    fn item(data_type: DataType) -> FieldRef {
        Arc::new(Field::new("item", data_type, true))
    }

    #[test]
    fn layouts_become_plain_at_any_depth() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::LargeUtf8));
        let nested = DataType::Struct(vec![item(DataType::LargeList(item(dictionary)))].into());
        let expected = DataType::Struct(vec![item(DataType::List(item(DataType::Utf8)))].into());
        assert_eq!(of(nested), expected);
        assert_eq!(of(DataType::BinaryView), DataType::Binary);
    }

    #[test]
    fn seconds_are_stored_as_milliseconds_at_any_depth() {
        let stored = |data_type| {
            stored(&Schema::new(vec![Field::new("a", data_type, true)])).field(0).data_type().clone()
        };
        let berlin = |unit| DataType::Timestamp(unit, Some("Europe/Berlin".into()));
        assert_eq!(stored(berlin(TimeUnit::Second)), berlin(TimeUnit::Millisecond));
        assert_eq!(stored(berlin(TimeUnit::Nanosecond)), berlin(TimeUnit::Nanosecond));
        let times = |unit| DataType::List(item(DataType::Time32(unit)));
        assert_eq!(stored(times(TimeUnit::Second)), times(TimeUnit::Millisecond));
    }

    #[test]
    fn a_list_within_a_list_or_a_map_has_no_fixed_size() {
        let sized = |of| DataType::FixedSizeList(item(of), 3);
        let list = |of| DataType::List(item(of));
        let structure = |of| DataType::Struct(vec![item(of)].into());
        for (given, expected) in [
            (sized(DataType::Int8), sized(DataType::Int8)),
            (sized(sized(DataType::Int8)), sized(sized(DataType::Int8))),
            (structure(sized(DataType::Int8)), structure(sized(DataType::Int8))),
            (list(sized(sized(DataType::Int8))), list(list(list(DataType::Int8)))),
            (sized(list(structure(sized(DataType::Int8)))), sized(list(structure(list(DataType::Int8))))),
            (
                DataType::LargeList(item(DataType::LargeList(item(sized(DataType::Int8))))),
                list(list(list(DataType::Int8))),
            ),
            (
                DataType::Map(item(structure(sized(DataType::Int8))), false),
                DataType::Map(item(structure(list(DataType::Int8))), false),
            ),
        ] {
            assert_eq!(of(given), expected);
        }
    }

    #[test]
    fn metadata_survives() {
        let metadata = HashMap::from([("PARQUET:field_id".to_owned(), "7".to_owned())]);
        let field = Field::new("a", DataType::LargeUtf8, false).with_metadata(metadata.clone());
        let schema = normalise(&Schema::new_with_metadata(vec![field], metadata.clone()));
        assert_eq!(schema.metadata(), &metadata);
        assert_eq!(schema.field(0), &Field::new("a", DataType::Utf8, false).with_metadata(metadata));
    }

    #[test]
    fn a_repeated_name_is_refused_at_any_depth() {
        let twice = vec![item(DataType::Int8), item(DataType::Int16)];
        assert!(check_names(&Schema::new(twice.clone())).unwrap_err().contains("`item`"));
        let deep =
            Schema::new(vec![Field::new("a", DataType::List(item(DataType::Struct(twice.into()))), true)]);
        assert!(check_names(&deep).unwrap_err().contains("`a.item`"));
    }
}
