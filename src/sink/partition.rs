//! Hive-style partitions: which folder a row belongs to. The column itself stays in the data files, so nothing is lost by
//! how a [`folder`](super::folder) is called.

use super::folder::{FolderValue, folder, value_of};
use crate::error::{Error, Result};
use crate::schema::normalise;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, UInt32Array, make_array};
use arrow::compute::{cast, take_record_batch};
use arrow::datatypes::{DataType, Date32Type, Field, Schema, TimeUnit};
use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// One column, or the day of one, whose value names a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    column: String,
    day: bool,
}

impl Partition {
    /// Reads `country` or `date(ts)`. The column may be a path into structs, such as `payload.country`.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        let inner = text.strip_suffix(')').and_then(|open| open.strip_prefix("date("));
        let (column, day) = inner.map_or((text, false), |inner| (inner.trim(), true));
        if column.is_empty() {
            return Err(Error::Usage(format!(
                "`{text}` is no partition; give a column, or the day of one as date(COLUMN)"
            )));
        }
        Ok(Self { column: column.to_owned(), day })
    }

    /// Reads all partitions of a table, in the order of their folders. No two may have one name.
    pub fn parse_all(texts: &[String]) -> Result<Vec<Self>> {
        let all: Vec<Self> = texts.iter().map(|text| Self::parse(text)).collect::<Result<_>>()?;
        for (at, partition) in all.iter().enumerate() {
            if all.iter().take(at).any(|before| before.name() == partition.name()) {
                return Err(Error::Usage(format!("`{partition}` is named twice among the partitions")));
            }
        }
        Ok(all)
    }

    /// The name in the folder: `country`, `ts_date`.
    pub fn name(&self) -> String {
        if self.day { format!("{}_date", self.column) } else { self.column.clone() }
    }

    /// The column, or the path into structs that leads to it.
    pub fn column(&self) -> &str {
        &self.column
    }

    /// Whether it is the day of the column that names the folder, and not its value.
    pub fn is_day(&self) -> bool {
        self.day
    }

    /// Refuses a column that the schema lacks or whose values cannot name folders.
    pub fn check(&self, schema: &Schema) -> Result<()> {
        let schema = normalise(schema);
        let found = resolve(&self.column, &schema);
        let Some(field) = found.as_ref().and_then(|path| path.last()) else {
            let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
            return Err(Error::Usage(format!(
                "there is no column `{}` to partition by; there are: {}",
                self.column,
                names.join(", ")
            )));
        };
        let possible = match field.data_type() {
            DataType::Utf8
            | DataType::Date32
            | DataType::Date64
            | DataType::Timestamp(..)
            | DataType::Null => true,
            DataType::Boolean => !self.day,
            other => !self.day && (other.is_integer() || other.is_decimal()),
        };
        if possible {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "`{self}` cannot be a partition: `{}` is {}",
            self.column,
            field.data_type()
        )))
    }

    /// The text of each row's value; none where the row has no value.
    fn values(&self, batch: &RecordBatch) -> Result<StringArray> {
        let array = self.column_of(batch)?;
        if self.day { days(&array) } else { texts(&array) }
            .map_err(|error| Error::Usage(format!("`{self}` cannot be a partition of these rows: {error}")))
    }

    fn column_of(&self, batch: &RecordBatch) -> Result<ArrayRef> {
        let missing = || Error::Usage(format!("there is no column `{}` to partition by", self.column));
        let path = resolve(&self.column, batch.schema_ref()).ok_or_else(missing)?;
        let (root, members) = path.split_first().ok_or_else(missing)?;
        let mut array = batch.column_by_name(root.name()).cloned().ok_or_else(missing)?;
        for member in members {
            let parent = array.as_struct_opt().ok_or_else(missing)?;
            let child = parent.column_by_name(member.name()).ok_or_else(missing)?;
            // A member of a null struct is null, whatever its own buffer says.
            let nulls = arrow::buffer::NullBuffer::union(parent.nulls(), child.logical_nulls().as_ref());
            let plain = cast(child, &plain_type(child.data_type())).map_err(|_| missing())?;
            let masked = plain.to_data().into_builder().nulls(nulls).build().map_err(|_| missing())?;
            array = make_array(masked);
        }
        Ok(array)
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.day { write!(f, "date({})", self.column) } else { f.write_str(&self.column) }
    }
}

/// Splits `batch` by folder: pairs of a folder (`country=DE/ts_date=2026-01-31`) and its rows, folders in the order of
/// their first row, rows in their order. Without partitions there is one folder, the empty one.
pub fn split(partitions: &[Partition], batch: &RecordBatch) -> Result<Vec<(String, RecordBatch)>> {
    if batch.num_rows() == 0 {
        return Ok(Vec::new());
    }
    let columns = partitions.iter().map(|partition| partition.values(batch)).collect::<Result<Vec<_>>>()?;
    // Column by column, rows of one folder so far are told apart further; a folder is numbered by its first row.
    let mut folder_of = vec![0usize; batch.num_rows()];
    for column in &columns {
        let mut known: HashMap<(usize, Option<&str>), usize> = HashMap::new();
        for (row, folder) in folder_of.iter_mut().enumerate() {
            // The empty text has no folder of its own: it goes where null goes.
            let value = column.is_valid(row).then(|| column.value(row)).filter(|value| !value.is_empty());
            let next = known.len();
            *folder = *known.entry((*folder, value)).or_insert(next);
        }
    }
    let mut folders: Vec<Vec<u32>> = Vec::new();
    for (row, folder) in folder_of.into_iter().enumerate() {
        let row =
            u32::try_from(row).map_err(|_| Error::Internal("a batch is too long to split".to_owned()))?;
        match folders.get_mut(folder) {
            Some(rows) => rows.push(row),
            None => folders.push(vec![row]),
        }
    }
    let name = |rows: &[u32]| {
        let first = rows.first().map_or(0, |row| *row as usize);
        let values = columns.iter().map(|column| column.is_valid(first).then(|| column.value(first)));
        let parts = partitions.iter().zip(values);
        parts.map(|(partition, value)| folder(&partition.name(), value)).collect::<Vec<_>>().join("/")
    };
    if let [rows] = folders.as_slice() {
        return Ok(vec![(name(rows), batch.clone())]);
    }
    folders
        .into_iter()
        .map(|rows| {
            let name = name(&rows);
            let rows = take_record_batch(batch, &UInt32Array::from(rows));
            Ok((name, rows.map_err(|error| Error::Internal(format!("splitting a batch: {error}")))?))
        })
        .collect()
}

/// What the folders in the name of a data file say of each partition's value; `None` if it does not lie in such folders.
pub fn values_of(partitions: &[Partition], name: &str) -> Option<Vec<FolderValue>> {
    let mut folders: Vec<&str> = name.split('/').collect();
    folders.pop();
    let own = folders.split_off(folders.len().checked_sub(partitions.len())?);
    partitions.iter().zip(own).map(|(partition, folder)| value_of(&partition.name(), folder)).collect()
}

/// The fields from a root column down to `name`: taken literally first, dots and all, then as a path into structs.
fn resolve(name: &str, schema: &Schema) -> Option<Vec<Arc<Field>>> {
    if let Some((_, field)) = schema.fields().find(name) {
        return Some(vec![Arc::clone(field)]);
    }
    let mut parts = name.split('.');
    let (_, root) = schema.fields().find(parts.next()?)?;
    let mut path = vec![Arc::clone(root)];
    for part in parts {
        let DataType::Struct(members) = path.last()?.data_type() else {
            return None;
        };
        let (_, member) = members.find(part)?;
        let member = Arc::clone(member);
        path.push(member);
    }
    Some(path)
}

fn plain_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, values) => plain_type(values),
        DataType::RunEndEncoded(_, values) => plain_type(values.data_type()),
        other => other.clone(),
    }
}

fn texts(array: &ArrayRef) -> Result<StringArray, arrow::error::ArrowError> {
    if let DataType::Timestamp(unit, Some(_)) = array.data_type() {
        // Shown in UTC, whatever the zone: a folder must not depend on it. The stored number is the instant in UTC.
        let utc = array.to_data().into_builder().data_type(DataType::Timestamp(*unit, None)).build()?;
        return texts(&make_array(utc));
    }
    Ok(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
}

fn days(array: &ArrayRef) -> Result<StringArray, arrow::error::ArrowError> {
    let array = cast(array, &plain_type(array.data_type()))?;
    let day = |days: i64| {
        let epoch = NaiveDate::default();
        TimeDelta::try_days(days)
            .and_then(|delta| epoch.checked_add_signed(delta))
            .map(|date| date.to_string())
    };
    Ok(match array.data_type() {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
            let text = cast(&array, &DataType::Utf8View)?;
            text.as_string_view().iter().map(|value| value.and_then(day_of_text)).collect()
        }
        DataType::Timestamp(unit, _) => {
            // Whole seconds, rounded down: the cast would round towards 1970.
            let per_day = 86_400
                * match unit {
                    TimeUnit::Second => 1,
                    TimeUnit::Millisecond => 1_000,
                    TimeUnit::Microsecond => 1_000_000,
                    TimeUnit::Nanosecond => 1_000_000_000i64,
                };
            let raw = cast(&array, &DataType::Int64)?;
            let raw = raw.as_primitive::<arrow::datatypes::Int64Type>();
            raw.iter().map(|value| value.and_then(|value| day(value.div_euclid(per_day)))).collect()
        }
        _ => {
            let dates = cast(&array, &DataType::Date32)?;
            dates
                .as_primitive::<Date32Type>()
                .iter()
                .map(|value| value.and_then(|value| day(value.into())))
                .collect()
        }
    })
}

/// The day, in UTC, of an ISO 8601 date or time; none for other text.
fn day_of_text(text: &str) -> Option<String> {
    let text = text.trim();
    if let Ok(instant) = DateTime::parse_from_rfc3339(text) {
        return Some(instant.naive_utc().date().to_string());
    }
    if let Ok(date) = NaiveDate::parse_from_str(text, "%Y-%m-%d") {
        return Some(date.to_string());
    }
    let zoned =
        ["%Y-%m-%dT%H:%M:%S%.f%#z", "%Y-%m-%d %H:%M:%S%.f%#z", "%Y-%m-%dT%H:%M%#z", "%Y-%m-%d %H:%M%#z"];
    let instant = zoned.iter().find_map(|format| DateTime::parse_from_str(text, format).ok());
    if let Some(instant) = instant {
        return Some(instant.naive_utc().date().to_string());
    }
    let local = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"];
    let time = local.iter().find_map(|format| NaiveDateTime::parse_from_str(text, format).ok());
    time.map(|time| time.date().to_string())
}

#[cfg(test)]
mod tests {
    use super::super::folder::MAX_VALUE;
    use super::*;
    use arrow::array::{
        Date32Array, DictionaryArray, Float64Array, Int32Array, StructArray, TimestampMicrosecondArray,
        TimestampSecondArray,
    };
    use arrow::datatypes::{Fields, Int8Type};

    fn folders(partition: &str, column: ArrayRef) -> Vec<String> {
        let batch = RecordBatch::try_from_iter_with_nullable([("a", column, true)]).unwrap();
        let partition = Partition::parse(partition).unwrap();
        partition.check(batch.schema_ref()).unwrap();
        (0..batch.num_rows())
            .map(|row| split(std::slice::from_ref(&partition), &batch.slice(row, 1)).unwrap().remove(0).0)
            .collect()
    }

    fn texts_of(values: &[&str]) -> ArrayRef {
        Arc::new(StringArray::from(values.to_vec()))
    }

    #[test]
    fn a_row_goes_to_the_folder_of_its_values_in_order() {
        let batch = RecordBatch::try_from_iter([
            ("country", texts_of(&["DE", "FR", "DE", "DE"])),
            ("n", Arc::new(Int32Array::from(vec![1, 2, 3, 4])) as ArrayRef),
            ("ts", texts_of(&["2026-01-31", "2026-01-31", "2026-02-01", "2026-01-31T23:59:59Z"])),
        ])
        .unwrap();
        let by = [Partition::parse("country").unwrap(), Partition::parse(" date(ts) ").unwrap()];
        let found = split(&by, &batch).unwrap();
        let rows: Vec<_> = found
            .iter()
            .map(|(folder, rows)| {
                (
                    folder.as_str(),
                    rows.column(1).as_primitive::<arrow::datatypes::Int32Type>().values().to_vec(),
                )
            })
            .collect();
        assert_eq!(
            rows,
            [
                ("country=DE/ts_date=2026-01-31", vec![1, 4]),
                ("country=FR/ts_date=2026-01-31", vec![2]),
                ("country=DE/ts_date=2026-02-01", vec![3]),
            ]
        );
        assert_eq!(split(&[], &batch).unwrap(), [(String::new(), batch.clone())]);
        assert!(split(&by, &batch.slice(0, 0)).unwrap().is_empty());
    }

    #[test]
    fn unsafe_characters_are_escaped_as_hive_does() {
        assert_eq!(
            folders("a", texts_of(&["a/b", "50%", "x=y:z", "..", "tab\t", "München", ""])),
            [
                "a=a%2Fb",
                "a=50%25",
                "a=x%3Dy%3Az",
                "a=.%2E",
                "a=tab%09",
                "a=München",
                "a=__HIVE_DEFAULT_PARTITION__"
            ]
        );
    }

    #[test]
    fn long_values_are_cut_and_stay_apart() {
        let (one, two) = ("é/".repeat(200) + "1", "é/".repeat(200) + "2");
        let found = folders("a", texts_of(&[&one, &two]));
        assert!(found.iter().all(|folder| folder.len() <= MAX_VALUE + 2));
        assert_ne!(found[0], found[1]);
    }

    #[test]
    fn every_layout_of_a_value_names_the_same_folder() {
        let dictionary: DictionaryArray<Int8Type> = vec![Some("DE"), None].into_iter().collect();
        assert_eq!(folders("a", Arc::new(dictionary)), ["a=DE", "a=__HIVE_DEFAULT_PARTITION__"]);
        let view = cast(&texts_of(&["DE"]), &DataType::Utf8View).unwrap();
        assert_eq!(folders("a", view), ["a=DE"]);
    }

    #[test]
    fn the_day_of_an_instant_is_that_of_utc() {
        let berlin = TimestampSecondArray::from(vec![Some(-1), Some(0), None]).with_timezone("+02:00");
        let none = "a_date=__HIVE_DEFAULT_PARTITION__";
        assert_eq!(
            folders("date(a)", Arc::new(berlin.clone())),
            ["a_date=1969-12-31", "a_date=1970-01-01", none]
        );
        assert_eq!(folders("a", Arc::new(berlin))[0], "a=1969-12-31T23%3A59%3A59");
        let fine = TimestampMicrosecondArray::from(vec![-1, i64::MIN]);
        assert_eq!(folders("date(a)", Arc::new(fine))[0], "a_date=1969-12-31");
        assert_eq!(folders("date(a)", Arc::new(Date32Array::from(vec![1]))), ["a_date=1970-01-02"]);
    }

    #[test]
    fn the_day_of_a_text_is_read_off_iso_8601() {
        let values =
            ["2026-01-31", "2026-01-31T01:00:00+02:00", "2026-01-31 10:00", "31.1.2026", "2026-02-30"];
        let none = "a_date=__HIVE_DEFAULT_PARTITION__";
        assert_eq!(
            folders("date(a)", texts_of(&values)),
            ["a_date=2026-01-31", "a_date=2026-01-30", "a_date=2026-01-31", none, none]
        );
    }

    #[test]
    fn a_member_of_a_null_struct_has_no_value() {
        let members = Fields::from(vec![Field::new("b", DataType::Utf8, true)]);
        let column = StructArray::new(members, vec![texts_of(&["x", "y"])], Some(vec![true, false].into()));
        let found = folders("a.b", Arc::new(column));
        assert_eq!(found, ["a.b=x", "a.b=__HIVE_DEFAULT_PARTITION__"]);
    }

    #[test]
    fn what_cannot_name_a_folder_is_refused_before_any_row() {
        let schema = Schema::new(vec![
            Field::new("f", DataType::Float64, true),
            Field::new("n", DataType::Int8, true),
        ]);
        for (partition, word) in [("f", "Float64"), ("date(n)", "Int8"), ("x", "f, n")] {
            let error = Partition::parse(partition).unwrap().check(&schema).unwrap_err();
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(Partition::parse("date()").is_err() && Partition::parse("").is_err());
        let twice = |names: [&str; 2]| Partition::parse_all(&names.map(str::to_owned));
        assert!(twice(["a", "b"]).is_ok() && twice(["ts", "date(ts)"]).is_ok());
        assert!(twice(["a", "a"]).is_err() && twice(["date(ts)", "ts_date"]).is_err());
        let float: ArrayRef = Arc::new(Float64Array::from(vec![1.5]));
        assert_eq!(
            Partition::parse("f")
                .unwrap()
                .values(&RecordBatch::try_from_iter([("f", float)]).unwrap())
                .unwrap()
                .value(0),
            "1.5"
        );
    }
}
