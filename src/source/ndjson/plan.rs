//! What each column of a schema takes from JSON, worked out once per decoder.

use super::schema_file::type_name;
use super::{Error, is_json};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, TimeUnit};
use hashbrown::HashMap;

/// A column: its field, and what fits it.
#[derive(Debug)]
pub(super) struct Plan {
    pub field: FieldRef,
    pub kind: Kind,
    /// Whether the name may be compared with a line as it stands: see [`is_plain_name`].
    pub plain_name: bool,
}

/// Whether a name has nothing that JSON spells with an escape. Others must not be compared with a line as it stands:
/// `a\u0062` in a line is the name `ab`, not the name with a backslash.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.bytes().any(|byte| matches!(byte, ..0x20 | b'"' | b'\\'))
}

/// The JSON values that a column takes, and how they are stored.
#[derive(Debug)]
pub(super) enum Kind {
    Bool,
    /// Signed and small unsigned integers between the bounds.
    Integer(i64, i64),
    Unsigned64,
    Float(Width),
    /// Precision and scale.
    Decimal(u8, i8),
    Decimal256(u8, i8),
    Date,
    /// Days, stored as milliseconds.
    DateMillis,
    Time(TimeUnit),
    /// Unit, and whether the column has a zone.
    Timestamp(TimeUnit, bool),
    Text,
    Json,
    Struct(Level),
    List(Box<Plan>),
    /// Elements, and how many a list has.
    FixedList(Box<Plan>, usize),
    /// Keys and values.
    Map(Box<Plan>, Box<Plan>),
    /// Nothing but null.
    Nothing,
}

/// How wide a float column is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    Half,
    Single,
    Double,
}

/// The members of one object.
#[derive(Debug)]
pub(super) struct Level {
    pub plans: Vec<Plan>,
    by_name: HashMap<String, usize>,
    /// Members that every object must have.
    pub required: Vec<usize>,
}

impl Level {
    /// The plan for `fields`; an error if two have one name, because then a member would have two columns.
    pub(super) fn new(fields: &Fields) -> Result<Self, Error> {
        let mut by_name = HashMap::with_capacity(fields.len());
        for (i, field) in fields.iter().enumerate() {
            if by_name.insert(field.name().clone(), i).is_some() {
                let name = field.name();
                return Err(Error::Refused(format!(
                    "the schema has two columns named {name:?}; NDJSON cannot fill both"
                )));
            }
        }
        let required = fields.iter().enumerate().filter(|(_, f)| !f.is_nullable()).map(|(i, _)| i).collect();
        Ok(Self { plans: fields.iter().map(Plan::new).collect::<Result<_, _>>()?, by_name, required })
    }

    /// Which member `name` is. Objects mostly have their members in order, so the one after the last found is
    /// tried first.
    pub(super) fn find(&self, name: &str, expected: &mut usize) -> Option<usize> {
        let found = match self.plans.get(*expected) {
            Some(plan) if plan.field.name() == name => *expected,
            _ => *self.by_name.get(name)?,
        };
        *expected = found + 1;
        Some(found)
    }
}

impl Plan {
    fn new(field: &FieldRef) -> Result<Self, Error> {
        Ok(Self { field: field.clone(), kind: Kind::of(field)?, plain_name: is_plain_name(field.name()) })
    }

    /// The column's type in the words of the schema file.
    pub(super) fn type_name(&self) -> String {
        type_name(&self.field)
    }
}

impl Kind {
    fn of(field: &Field) -> Result<Self, Error> {
        let boxed = |field: &FieldRef| Plan::new(field).map(Box::new);
        Ok(match field.data_type() {
            DataType::Boolean => Self::Bool,
            DataType::Int8 => Self::Integer(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => Self::Integer(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => Self::Integer(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => Self::Integer(i64::MIN, i64::MAX),
            DataType::UInt8 => Self::Integer(0, u8::MAX.into()),
            DataType::UInt16 => Self::Integer(0, u16::MAX.into()),
            DataType::UInt32 => Self::Integer(0, u32::MAX.into()),
            DataType::UInt64 => Self::Unsigned64,
            DataType::Float16 => Self::Float(Width::Half),
            DataType::Float32 => Self::Float(Width::Single),
            DataType::Float64 => Self::Float(Width::Double),
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
                Self::Decimal(*p, *s)
            }
            DataType::Decimal256(p, s) => Self::Decimal256(*p, *s),
            DataType::Date32 => Self::Date,
            DataType::Date64 => Self::DateMillis,
            DataType::Time32(unit) | DataType::Time64(unit) => Self::Time(*unit),
            DataType::Timestamp(unit, zone) => Self::Timestamp(*unit, zone.is_some()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View if is_json(field) => Self::Json,
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Self::Text,
            DataType::Struct(fields) => Self::Struct(Level::new(fields)?),
            DataType::List(item) | DataType::LargeList(item) => Self::List(boxed(item)?),
            DataType::FixedSizeList(item, size) => match usize::try_from(*size) {
                Ok(size) => Self::FixedList(boxed(item)?, size),
                Err(_) => Self::Nothing,
            },
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(fields) => match fields.as_ref() {
                    [key, value] if *key.data_type() == DataType::Utf8 => {
                        Self::Map(boxed(key)?, boxed(value)?)
                    }
                    _ => Self::Nothing,
                },
                _ => Self::Nothing,
            },
            _ => Self::Nothing,
        })
    }
}
