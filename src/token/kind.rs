//! The kinds of key: what a key column holds, whichever Arrow type carries it.
//!
//! A table fixes the kind of each key column for ever; an input may bring any Arrow type of that kind.

use arrow_schema::{DataType, Field, Fields, extension::EXTENSION_TYPE_NAME_KEY};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, fmt};

/// What a key column holds. Values of different kinds are never the same key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyKind {
    /// True or false.
    Boolean,
    /// A whole number, signed or unsigned, of any width.
    Integer,
    /// A binary floating-point number of any width.
    Float,
    /// A decimal number of any width, precision and scale.
    Decimal,
    /// Unicode text.
    Text,
    /// Bytes, fixed size (UUID) or not.
    Binary,
    /// A day.
    Date,
    /// A time of day.
    Time,
    /// A point in time: a timestamp with a zone, whichever zone and unit.
    Instant,
    /// A timestamp without a zone.
    Timestamp,
    /// A length of time.
    Duration,
    /// JSON text: a text column of the extension type `arrow.json`.
    Json,
    /// A whole struct.
    Struct,
    /// A whole list of any layout.
    List,
    /// A whole map.
    Map,
}

impl KeyKind {
    /// The kind of a column; `None` for a column of the type Null, which fits any kind. The error says why such a
    /// column cannot be a key.
    pub fn of(field: &Field) -> Result<Option<Self>, String> {
        kind_of(field, 0)
    }
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::Integer => "integer",
            Self::Float => "float",
            Self::Decimal => "decimal",
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Date => "date",
            Self::Time => "time",
            Self::Instant => "instant",
            Self::Timestamp => "timestamp",
            Self::Duration => "duration",
            Self::Json => "json",
            Self::Struct => "struct",
            Self::List => "list",
            Self::Map => "map",
        })
    }
}

/// The field with dictionary and run-end encoding taken off: the values that it stands for.
pub(super) fn plain(field: &Field) -> Cow<'_, Field> {
    match field.data_type() {
        DataType::Dictionary(_, values) => {
            let inner = field.clone().with_data_type(values.as_ref().clone());
            Cow::Owned(plain(&inner).into_owned())
        }
        DataType::RunEndEncoded(_, values) => {
            let mut inner = field.clone().with_data_type(values.data_type().clone());
            if !inner.metadata().contains_key(EXTENSION_TYPE_NAME_KEY) {
                inner.set_metadata(values.metadata().clone());
            }
            Cow::Owned(plain(&inner).into_owned())
        }
        _ => Cow::Borrowed(field),
    }
}

/// Beyond this many levels a type is refused: encoding walks it recursively.
const DEEPEST: usize = 64;

fn kind_of(field: &Field, depth: usize) -> Result<Option<KeyKind>, String> {
    if depth > DEEPEST {
        return Err(format!("it is nested more than {DEEPEST} levels deep"));
    }
    let field = plain(field);
    let kind = match field.data_type() {
        DataType::Null => return Ok(None),
        DataType::Boolean => KeyKind::Boolean,
        t if t.is_integer() => KeyKind::Integer,
        t if t.is_floating() => KeyKind::Float,
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => KeyKind::Decimal,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let extension = field.metadata().get(EXTENSION_TYPE_NAME_KEY).map(String::as_str);
            if extension == Some("arrow.json") { KeyKind::Json } else { KeyKind::Text }
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            KeyKind::Binary
        }
        DataType::Date32 | DataType::Date64 => KeyKind::Date,
        DataType::Time32(_) | DataType::Time64(_) => KeyKind::Time,
        DataType::Timestamp(_, Some(_)) => KeyKind::Instant,
        DataType::Timestamp(_, None) => KeyKind::Timestamp,
        DataType::Duration(_) => KeyKind::Duration,
        DataType::Struct(members) => {
            each(members, depth)?;
            KeyKind::Struct
        }
        DataType::List(element)
        | DataType::LargeList(element)
        | DataType::ListView(element)
        | DataType::LargeListView(element)
        | DataType::FixedSizeList(element, _) => {
            kind_of(element, depth + 1).map_err(|e| format!("its elements: {e}"))?;
            KeyKind::List
        }
        DataType::Map(entries, _) => {
            match entries.data_type() {
                DataType::Struct(pair) if pair.len() == 2 => each(pair, depth)?,
                other => return Err(format!("its entries are {other}, not key and value")),
            }
            KeyKind::Map
        }
        DataType::Interval(_) => {
            return Err(
                "a calendar interval has no fixed length, so two of them cannot be compared".to_owned()
            );
        }
        DataType::Union(..) => return Err("the values of a union have no one kind".to_owned()),
        other => return Err(format!("the type {other} is not supported in a key")),
    };
    Ok(Some(kind))
}

fn each(members: &Fields, depth: usize) -> Result<(), String> {
    let mut names: Vec<&String> = members.iter().map(|member| member.name()).collect();
    names.sort_unstable();
    if let Some((name, _)) = names.iter().zip(names.iter().skip(1)).find(|(one, next)| one == next) {
        return Err(format!("two of its members are named \"{name}\""));
    }
    for member in members {
        kind_of(member, depth + 1).map_err(|e| format!("its member \"{}\": {e}", member.name()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{IntervalUnit, TimeUnit};
    use std::sync::Arc;

    fn kind(data_type: DataType) -> Result<Option<KeyKind>, String> {
        KeyKind::of(&Field::new("k", data_type, true))
    }

    #[test]
    fn encodings_and_widths_do_not_change_the_kind() {
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::LargeUtf8));
        let runs = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(Field::new("values", dictionary.clone(), true)),
        );
        for data_type in [DataType::Utf8, DataType::Utf8View, dictionary, runs] {
            assert_eq!(kind(data_type), Ok(Some(KeyKind::Text)));
        }
        assert_eq!(kind(DataType::UInt64), kind(DataType::Int8));
        assert_eq!(kind(DataType::Null), Ok(None));
        assert_eq!(kind(DataType::Timestamp(TimeUnit::Second, None)), Ok(Some(KeyKind::Timestamp)));
        assert_eq!(kind(DataType::Timestamp(TimeUnit::Second, Some("".into()))), Ok(Some(KeyKind::Instant)));
    }

    #[test]
    fn json_text_is_known_by_its_extension_name_even_behind_a_dictionary() {
        let json = |data_type| {
            Field::new("k", data_type, true)
                .with_metadata([(EXTENSION_TYPE_NAME_KEY.to_owned(), "arrow.json".to_owned())].into())
        };
        let dictionary = DataType::Dictionary(Box::new(DataType::Int8), Box::new(DataType::Utf8));
        assert_eq!(KeyKind::of(&json(DataType::Utf8View)), Ok(Some(KeyKind::Json)));
        assert_eq!(KeyKind::of(&json(dictionary)), Ok(Some(KeyKind::Json)));
        let runs = DataType::RunEndEncoded(
            Arc::new(Field::new("run_ends", DataType::Int32, false)),
            Arc::new(json(DataType::Utf8)),
        );
        assert_eq!(kind(runs), Ok(Some(KeyKind::Json)));
    }

    #[test]
    fn what_cannot_be_a_key_says_why() {
        assert!(kind(DataType::Interval(IntervalUnit::DayTime)).unwrap_err().contains("interval"));
        let twice =
            Fields::from(vec![Field::new("a", DataType::Int8, true), Field::new("a", DataType::Utf8, true)]);
        assert!(kind(DataType::Struct(twice)).unwrap_err().contains("\"a\""));
        let mut deep = DataType::Int8;
        for _ in 0..=DEEPEST {
            deep = DataType::List(Arc::new(Field::new("item", deep, true)));
        }
        assert!(kind(deep).unwrap_err().contains("deep"));
    }

    #[test]
    fn the_word_in_json_is_the_word_shown_to_people() {
        let json = serde_json::to_string(&KeyKind::Instant).unwrap();
        assert_eq!(json, format!("\"{}\"", KeyKind::Instant));
    }

    #[test]
    fn a_type_may_be_64_levels_deep() {
        let nested = |levels: usize| {
            (0..levels)
                .fold(DataType::Int8, |inner, _| DataType::List(Arc::new(Field::new("item", inner, true))))
        };
        assert_eq!(kind(nested(64)), Ok(Some(KeyKind::List)));
        assert!(kind(nested(65)).unwrap_err().contains("more than 64 levels"));
        let within = |inner| DataType::Struct(Fields::from(vec![Field::new("m", inner, true)]));
        assert_eq!(kind(within(nested(63))), Ok(Some(KeyKind::Struct)));
        assert!(kind(within(nested(64))).unwrap_err().contains("its member \"m\""));
        let map = |pair: Vec<Field>| {
            let entries = Field::new("entries", DataType::Struct(Fields::from(pair)), false);
            DataType::Map(Arc::new(entries), false)
        };
        let column = |name: &str| Field::new(name, DataType::Int8, true);
        assert_eq!(kind(map(vec![column("key"), column("value")])), Ok(Some(KeyKind::Map)));
        for odd in [vec![column("key")], vec![column("a"), column("b"), column("c")]] {
            assert!(kind(map(odd)).unwrap_err().contains("not key and value"));
        }
    }
}
