//! Columns that grow value by value and can be cut back to any row: what makes a row all or nothing.
//!
//! A column that a row does not mention is not touched; it catches up with nulls when it is next used. So a
//! row costs what it holds, not what the schema holds, and "already as long as this row" means "member seen
//! twice".

use super::plan::{Kind, Level, Plan, Width};
use arrow::array::NullBufferBuilder;
use arrow::datatypes::{TimeUnit, i256};

/// A growing column.
#[derive(Debug)]
pub(super) struct Column<'p> {
    pub plan: &'p Plan,
    pub nulls: NullBufferBuilder,
    pub data: Data<'p>,
    /// How many of the values `nulls` knows, which takes it a call to tell.
    len: usize,
}

/// Its values, one storage for each family of types, with what is needed to judge the next value.
#[derive(Debug)]
pub(super) enum Data<'p> {
    Bool(Vec<bool>),
    /// Integers, dates, times and timestamps.
    Long(Vec<i64>, Whole),
    Unsigned(Vec<u64>),
    Double(Vec<f64>, Width),
    Decimal(Vec<i128>, u8, i8),
    Decimal256(Vec<i256>, u8, i8),
    /// UTF-8 bytes, ends with a leading 0, and whether it is JSON text.
    Text(Vec<u8>, Vec<i32>, bool),
    Struct(Vec<Column<'p>>, &'p Level),
    /// Ends with a leading 0, and elements.
    List(Vec<i32>, Box<Column<'p>>),
    /// Elements, and how many a list has.
    FixedList(Box<Column<'p>>, usize),
    /// Ends with a leading 0, keys, values.
    Map(Vec<i32>, Box<Column<'p>>, Box<Column<'p>>),
    Nothing,
}

/// What a column of whole numbers means.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole {
    Integer(i64, i64),
    Date,
    DateMillis,
    Time(TimeUnit),
    Timestamp(TimeUnit, bool),
}

impl<'p> Column<'p> {
    /// An empty column.
    pub(super) fn new(plan: &'p Plan) -> Self {
        let boxed = |plan: &'p Plan| Box::new(Self::new(plan));
        let data = match &plan.kind {
            Kind::Bool => Data::Bool(Vec::new()),
            Kind::Integer(min, max) => Data::Long(Vec::new(), Whole::Integer(*min, *max)),
            Kind::Date => Data::Long(Vec::new(), Whole::Date),
            Kind::DateMillis => Data::Long(Vec::new(), Whole::DateMillis),
            Kind::Time(unit) => Data::Long(Vec::new(), Whole::Time(*unit)),
            Kind::Timestamp(unit, zoned) => Data::Long(Vec::new(), Whole::Timestamp(*unit, *zoned)),
            Kind::Unsigned64 => Data::Unsigned(Vec::new()),
            Kind::Float(width) => Data::Double(Vec::new(), *width),
            Kind::Decimal(p, s) => Data::Decimal(Vec::new(), *p, *s),
            Kind::Decimal256(p, s) => Data::Decimal256(Vec::new(), *p, *s),
            Kind::Text => Data::Text(Vec::new(), vec![0], false),
            Kind::Json => Data::Text(Vec::new(), vec![0], true),
            Kind::Struct(level) => Data::Struct(columns(level), level),
            Kind::List(item) => Data::List(vec![0], boxed(item)),
            Kind::FixedList(item, size) => Data::FixedList(boxed(item), *size),
            Kind::Map(key, value) => Data::Map(vec![0], boxed(key), boxed(value)),
            Kind::Nothing => Data::Nothing,
        };
        Self { plan, nulls: NullBufferBuilder::new(1024), data, len: 0 }
    }

    /// How many values it has, not counting one that is being written.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// The value that was being written is whole.
    pub(super) fn end_value(&mut self) {
        self.nulls.append_non_null();
        self.len += 1;
    }

    /// Appends nulls until it has `len` values.
    pub(super) fn pad(&mut self, len: usize) {
        if self.len < len {
            self.nulls.append_n_nulls(len - self.len);
            self.data.stretch(len);
            self.len = len;
        }
    }

    /// Appends one null.
    pub(super) fn push_null(&mut self) {
        self.pad(self.len + 1);
    }

    /// Drops all values from `len` on, and one that was being written.
    pub(super) fn truncate(&mut self, len: usize) {
        self.len = len.min(self.len);
        self.nulls.truncate(self.len);
        self.data.truncate(self.len);
    }
}

/// Empty columns for the members of an object.
pub(super) fn columns(level: &Level) -> Vec<Column<'_>> {
    level.plans.iter().map(Column::new).collect()
}

impl Data<'_> {
    /// Fills up to `len` values with stand-ins for null.
    fn stretch(&mut self, len: usize) {
        match self {
            Self::Bool(values) => values.resize(len, false),
            Self::Long(values, _) => values.resize(len, 0),
            Self::Unsigned(values) => values.resize(len, 0),
            Self::Double(values, _) => values.resize(len, 0.0),
            Self::Decimal(values, ..) => values.resize(len, 0),
            Self::Decimal256(values, ..) => values.resize(len, i256::ZERO),
            Self::Text(_, ends, _) | Self::List(ends, _) | Self::Map(ends, ..) => {
                ends.resize(len + 1, last(ends))
            }
            Self::FixedList(items, size) => items.pad(len * *size),
            Self::Struct(..) | Self::Nothing => {}
        }
    }

    fn truncate(&mut self, len: usize) {
        match self {
            Self::Bool(values) => values.truncate(len),
            Self::Long(values, _) => values.truncate(len),
            Self::Unsigned(values) => values.truncate(len),
            Self::Double(values, _) => values.truncate(len),
            Self::Decimal(values, ..) => values.truncate(len),
            Self::Decimal256(values, ..) => values.truncate(len),
            Self::Text(bytes, ends, _) => {
                ends.truncate(len + 1);
                bytes.truncate(last(ends) as usize);
            }
            Self::Struct(columns, _) => columns.iter_mut().for_each(|column| column.truncate(len)),
            Self::List(ends, items) => {
                ends.truncate(len + 1);
                items.truncate(last(ends) as usize);
            }
            Self::FixedList(items, size) => items.truncate(len * *size),
            Self::Map(ends, keys, values) => {
                ends.truncate(len + 1);
                keys.truncate(last(ends) as usize);
                values.truncate(last(ends) as usize);
            }
            Self::Nothing => {}
        }
    }
}

/// The last end: never negative, because a block is smaller than 2 GiB.
pub(super) fn last(ends: &[i32]) -> i32 {
    ends.last().copied().unwrap_or(0)
}
