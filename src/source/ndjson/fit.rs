//! Puts one JSON value into its column, or says why it does not fit.

use super::column::{Column, Data, Whole, last};
use super::plan::{Level, Width};
use super::walk::{Flaw, Names, Walked, check_depth, clip, no_value, walk};
use super::{number, time};
use jiter::{Jiter, Peek};

/// What reading one row needs besides the columns.
#[derive(Debug)]
pub(super) struct Reader<'j, 's> {
    pub json: Jiter<'j>,
    pub names: &'s mut Names,
    /// A member that the schema lacks was not null.
    pub unknown: bool,
    /// Top-level columns that the row wrote to.
    pub touched: &'s mut Vec<usize>,
}

/// Reads the object that stands next as row `row` of `columns`, at level `depth`.
pub(super) fn fill(
    columns: &mut [Column<'_>],
    level: &Level,
    row: usize,
    reader: &mut Reader<'_, '_>,
    depth: usize,
) -> Walked<()> {
    check_depth(depth)?;
    let mark = reader.names.open();
    let mut expected = 0;
    let mut member = known(level, &mut expected, reader.names, reader.json.known_object()?);
    while let Some(found) = member {
        let peek = reader.json.peek()?;
        match found.and_then(|i| columns.get_mut(i).map(|column| (i, column))) {
            Some((i, column)) => {
                if depth == 1 {
                    reader.touched.push(i);
                }
                let name = column.plan.field.name();
                if column.len() > row {
                    return Err(Box::new(Flaw::Duplicate(name.clone())));
                }
                column.pad(row);
                column.push(reader, peek, depth + 1).map_err(|flaw| flaw.under(name))?;
            }
            None => {
                reader.unknown |= peek != Peek::Null;
                walk(&mut reader.json, reader.names, peek, depth + 1, &mut |_| {})?;
            }
        }
        member = known(level, &mut expected, reader.names, reader.json.next_key()?);
    }
    reader.names.close(mark)?;
    for (column, i) in level.required.iter().filter_map(|i| columns.get(*i).map(|column| (column, i))) {
        if column.len() <= row {
            let name = level.plans.get(*i).map(|plan| plan.field.name().as_str()).unwrap_or_default();
            return Err(Flaw::misfit("missing, but the column is required").under(name));
        }
    }
    Ok(())
}

/// The column of a member, if there is a next one: `Some(None)` for a name that the schema lacks, which is
/// noted.
fn known(
    level: &Level,
    expected: &mut usize,
    names: &mut Names,
    name: Option<&str>,
) -> Option<Option<usize>> {
    let name = name?;
    let found = level.find(name, expected);
    if found.is_none() {
        names.push(name);
    }
    Some(found)
}

impl Column<'_> {
    /// Appends the value that begins with `peek`; on an error the column must be truncated.
    fn push(&mut self, reader: &mut Reader<'_, '_>, peek: Peek, depth: usize) -> Walked<()> {
        let json = &mut reader.json;
        if peek == Peek::Null {
            json.known_null()?;
            if !self.plan.field.is_nullable() {
                return Err(Flaw::misfit("null, but the column is required"));
            }
            self.push_null();
            return Ok(());
        }
        let len = self.len();
        let fits = match (&mut self.data, peek) {
            (Data::Text(bytes, ends, true), _) => {
                walk(json, reader.names, peek, depth, &mut |piece| piece.write(bytes))?;
                ends.push(end(bytes.len())?);
                true
            }
            (Data::Text(bytes, ends, false), Peek::String) => {
                bytes.extend_from_slice(json.known_str()?.as_bytes());
                ends.push(end(bytes.len())?);
                true
            }
            (Data::Bool(values), Peek::True | Peek::False) => {
                values.push(json.known_bool(peek)?);
                true
            }
            (Data::Long(values, Whole::Integer(min, max)), _) if peek.is_num() => {
                let lexeme = json.known_number_bytes(peek)?;
                let value = number::integer(lexeme).and_then(|v| i64::try_from(v).ok());
                push_or(values, value.filter(|v| (*min..=*max).contains(v)), || shown(lexeme), self.plan)?
            }
            (Data::Long(values, whole), Peek::String) if !matches!(whole, Whole::Integer(..)) => {
                let text = json.known_str()?;
                push_or(values, whole.parse(text), || format!("text {:?}", clip(text)), self.plan)?
            }
            (Data::Unsigned(values), _) if peek.is_num() => {
                let lexeme = json.known_number_bytes(peek)?;
                let value = number::integer(lexeme).and_then(|v| u64::try_from(v).ok());
                push_or(values, value, || shown(lexeme), self.plan)?
            }
            (Data::Double(values, width), _) if peek.is_num() => {
                let lexeme = json.known_number_bytes(peek)?;
                let value = match width {
                    Width::Double => number::double(lexeme),
                    Width::Single => number::single(lexeme),
                    Width::Half => number::half(lexeme),
                };
                push_or(values, value, || shown(lexeme), self.plan)?
            }
            (Data::Decimal(values, precision, scale), _) if peek.is_num() => {
                let lexeme = json.known_number_bytes(peek)?;
                push_or(values, number::decimal(lexeme, *precision, *scale), || shown(lexeme), self.plan)?
            }
            (Data::Decimal256(values, precision, scale), _) if peek.is_num() => {
                let lexeme = json.known_number_bytes(peek)?;
                push_or(values, number::decimal256(lexeme, *precision, *scale), || shown(lexeme), self.plan)?
            }
            (Data::Struct(columns, level), Peek::Object) => {
                fill(columns, level, len, reader, depth)?;
                true
            }
            (Data::List(ends, items), Peek::Array) => {
                elements(items, reader, depth)?;
                ends.push(end(items.len())?);
                true
            }
            (Data::FixedList(items, size), Peek::Array) => {
                elements(items, reader, depth)?;
                let (found, size) = (items.len() - len * *size, *size);
                if found != size {
                    return Err(Flaw::misfit(format!(
                        "a list of {found} where {size} elements are expected"
                    )));
                }
                true
            }
            (Data::Map(ends, keys, values), Peek::Object) => {
                entries(keys, values, last(ends) as usize, reader, depth)?;
                ends.push(end(keys.len())?);
                true
            }
            _ => false,
        };
        if !fits {
            return Err(self.misplaced(reader, peek, depth)?);
        }
        self.end_value();
        Ok(())
    }

    /// A value of the wrong kind, in words; it is read to its end so that broken JSON is called that.
    fn misplaced(&self, reader: &mut Reader<'_, '_>, peek: Peek, depth: usize) -> Walked<Box<Flaw>> {
        let json = &mut reader.json;
        let found = match peek {
            Peek::String => format!("text {:?}", clip(json.known_str()?)),
            Peek::True | Peek::False => json.known_bool(peek)?.to_string(),
            Peek::Array | Peek::Object => {
                walk(json, reader.names, peek, depth, &mut |_| {})?;
                if peek == Peek::Array { "a list" } else { "an object" }.to_owned()
            }
            _ if peek.is_num() => shown(json.known_number_bytes(peek)?),
            _ => return Err(no_value(json)),
        };
        let wanted = self.plan.type_name();
        Ok(match self.data {
            Data::Nothing => {
                Flaw::misfit(format!("{found}, but JSON has no notation for {wanted}; only null fits"))
            }
            _ => Flaw::misfit(format!("{found} where {wanted} is expected")),
        })
    }
}

impl Whole {
    pub(super) fn parse(self, text: &str) -> Option<i64> {
        match self {
            Self::Integer(..) => None,
            Self::Date => time::date(text),
            Self::DateMillis => time::date(text)?.checked_mul(86_400_000),
            Self::Time(unit) => time::time(text, unit),
            Self::Timestamp(unit, zoned) => time::timestamp(text, unit, zoned),
        }
    }
}

/// The elements of a list, appended to `items`.
fn elements(items: &mut Column<'_>, reader: &mut Reader<'_, '_>, depth: usize) -> Walked<()> {
    check_depth(depth)?;
    let mut next = reader.json.known_array()?;
    while let Some(peek) = next {
        items.push(reader, peek, depth + 1)?;
        next = reader.json.array_step()?;
    }
    Ok(())
}

/// The members of an object, appended to the entries of a map, which are `len` so far.
fn entries(
    keys: &mut Column<'_>,
    values: &mut Column<'_>,
    mut len: usize,
    reader: &mut Reader<'_, '_>,
    depth: usize,
) -> Walked<()> {
    check_depth(depth)?;
    let mark = reader.names.open();
    let mut member = reader.json.known_object()?;
    while let Some(name) = member {
        reader.names.push(name);
        keys.push_text(name)?;
        let peek = reader.json.peek()?;
        values.pad(len);
        values.push(reader, peek, depth + 1)?;
        len += 1;
        member = reader.json.next_key()?;
    }
    reader.names.close(mark)
}

impl Column<'_> {
    fn push_text(&mut self, text: &str) -> Walked<()> {
        if let Data::Text(bytes, ends, _) = &mut self.data {
            bytes.extend_from_slice(text.as_bytes());
            ends.push(end(bytes.len())?);
            self.end_value();
        }
        Ok(())
    }
}

/// Appends a value that was converted, or says that `found` does not fit.
fn push_or<T>(
    values: &mut Vec<T>,
    value: Option<T>,
    found: impl Fn() -> String,
    plan: &super::plan::Plan,
) -> Walked<bool> {
    match value {
        Some(value) => {
            values.push(value);
            Ok(true)
        }
        None => Err(Flaw::misfit(format!("{} does not fit {}", found(), plan.type_name()))),
    }
}

fn shown(lexeme: &[u8]) -> String {
    clip(&String::from_utf8_lossy(lexeme))
}

/// An end as Arrow stores it.
fn end(len: usize) -> Walked<i32> {
    i32::try_from(len).map_err(|_| Flaw::misfit("over 2 GiB in one block"))
}
