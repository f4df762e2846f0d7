//! Blocks of lines become batches of exactly the rows that fit the schema.

use super::column::{Column, columns};
use super::fit::{Reader, fill};
use super::lines::{Block, Line};
use super::plan::Level;
use super::quick;
use super::walk::{Flaw, Names, Walked, walk};
use super::{BadLine, Error, Inference};
use crate::error::Result;
use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use jiter::{Jiter, Peek};
use std::sync::Arc;

/// Decodes blocks by a fixed schema. Every block by itself: a decoder can serve many threads.
#[derive(Debug)]
pub struct Decoder {
    schema: SchemaRef,
    level: Level,
    /// The inference that the schema is of, if it was not of all rows.
    known: Option<Arc<Inference>>,
}

/// What a block held.
#[derive(Debug)]
pub struct Decoded {
    /// The rows that fit, in order.
    pub batch: RecordBatch,
    /// The line number of each row.
    pub lines: Vec<u64>,
    /// Where the line of each row begins in the decompressed stream.
    pub offsets: Vec<u64>,
    /// The lines that gave no row, in order.
    pub bad: Vec<BadLine>,
    /// Rows of the batch have members that the schema lacks and that are not null: to keep them, infer (see
    /// [`Inference::widen`](super::Inference::widen)) and decode the block again.
    pub unknown_fields: bool,
    /// A good line tells what the inference that the schema is of does not know (see [`Decoder::of`]).
    pub news: bool,
}

impl Decoder {
    /// A decoder for rows of `schema`; an error if two of its columns (or members of a struct) have one name.
    pub fn new(schema: SchemaRef) -> Result<Self> {
        let level = Level::new(schema.fields())?;
        Ok(Self { schema, level, known: None })
    }

    /// The same, for a schema that `known` came to without having seen all rows, and which finds out whether it would have come to
    /// another had it seen them: [`Decoded::news`].
    pub fn of(self, known: Option<Arc<Inference>>) -> Self {
        Self { known, ..self }
    }

    /// The schema of the batches.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Decodes a block. Lines that do not fit are no error but [`Decoded::bad`].
    pub fn decode(&self, block: &Block) -> Result<Decoded> {
        self.decode_trusting(block, TRUST)
    }

    /// As [`Self::decode`]; below zero no row is read quickly.
    pub(super) fn decode_trusting(&self, block: &Block, trust: i32) -> Result<Decoded> {
        if i32::try_from(block.bytes.len()).is_err() {
            return Err(Error::Usage(
                "a block of NDJSON is over 2 GiB; set a lower limit for lines".to_owned(),
            ));
        }
        let mut rows = Rows::new(&self.level, trust);
        let (mut lines, mut offsets, mut bad) = (Vec::new(), Vec::new(), Vec::new());
        let mut learned = None;
        for line in block.lines() {
            let read = rows.read(line);
            // A row that is read quickly fits what is known of its columns.
            if let (Some(known), Err(_) | Ok(Way::Strictly)) = (&self.known, &read)
                && !known.holds(line.bytes)
            {
                learned.get_or_insert_with(|| known.as_ref().clone()).observe_line(line.bytes);
            }
            match read {
                Ok(_) => {
                    lines.push(line.number);
                    offsets.push(line.offset);
                }
                Err(flaw) => bad.push(BadLine {
                    line: line.number,
                    offset: line.offset,
                    reason: flaw.reason(line.bytes),
                    raw: line.bytes.to_vec(),
                }),
            }
        }
        bad.extend(block.overlong.iter().cloned());
        let unknown_fields = rows.unknown;
        let news = learned.is_some() && learned.as_ref() != self.known.as_deref();
        Ok(Decoded { batch: rows.finish(&self.schema)?, lines, offsets, bad, unknown_fields, news })
    }
}

/// The rows of one block, growing.
struct Rows<'p> {
    level: &'p Level,
    columns: Vec<Column<'p>>,
    count: usize,
    unknown: bool,
    /// Kept from line to line only for its memory.
    tape: Vec<u8>,
    names: Names,
    touched: Vec<usize>,
    /// Grows with rows that were read quickly, shrinks faster with such as were not; below zero it is not tried any more.
    quick: i32,
}

/// How a row was read.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Quickly,
    Strictly,
}

/// How far [`Rows::quick`] may grow, and what a row takes off it that had to be read twice.
const TRUST: i32 = 64;
const TWICE: i32 = 8;

impl<'p> Rows<'p> {
    fn new(level: &'p Level, quick: i32) -> Self {
        let columns = columns(level);
        Self {
            level,
            columns,
            count: 0,
            unknown: false,
            tape: vec![],
            names: Names::default(),
            touched: vec![],
            quick,
        }
    }

    /// Adds the row of a line; on an error nothing is added.
    fn read(&mut self, line: Line<'_>) -> Walked<Way> {
        self.touched.clear();
        if self.quick >= 0 {
            if quick::read(&mut self.columns, self.level, self.count, line.bytes, &mut self.touched).is_some()
            {
                self.count += 1;
                self.quick = (self.quick + 1).min(TRUST);
                return Ok(Way::Quickly);
            }
            self.quick -= TWICE;
            self.cut_back();
        }
        self.names.clear();
        self.touched.clear();
        let json = Jiter::with_tape(line.bytes, std::mem::take(&mut self.tape));
        let mut reader = Reader { json, names: &mut self.names, unknown: false, touched: &mut self.touched };
        let outcome = row(&mut self.columns, self.level, self.count, &mut reader);
        let unknown = reader.unknown;
        self.tape = reader.json.into_tape();
        match outcome {
            Ok(()) => {
                self.count += 1;
                self.unknown |= unknown;
            }
            Err(_) => self.cut_back(),
        }
        outcome.map(|()| Way::Strictly)
    }

    /// Takes back what was written of a row that is none.
    fn cut_back(&mut self) {
        for i in &self.touched {
            if let Some(column) = self.columns.get_mut(*i) {
                column.truncate(self.count);
            }
        }
    }

    fn finish(self, schema: &SchemaRef) -> Result<RecordBatch> {
        let count = self.count;
        let arrays = self.columns.into_iter().map(|column| column.finish(count)).collect::<Result<_, _>>();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        arrays
            .and_then(|arrays| RecordBatch::try_new_with_options(schema.clone(), arrays, &options))
            .map_err(|e| Error::Internal(format!("decoded NDJSON does not form a batch: {e}")))
    }
}

/// Reads a line, which must hold one object and nothing else.
fn row(columns: &mut [Column<'_>], level: &Level, row: usize, reader: &mut Reader<'_, '_>) -> Walked<()> {
    let peek = reader.json.peek()?;
    if peek == Peek::Object {
        fill(columns, level, row, reader, 1)?;
        reader.json.finish()?;
        return Ok(());
    }
    Err(not_a_row(&mut reader.json, reader.names, peek)?)
}

/// What a line holds instead of an object.
pub(super) fn not_a_row(json: &mut Jiter<'_>, names: &mut Names, peek: Peek) -> Walked<Box<Flaw>> {
    walk(json, names, peek, 1, &mut |_| {})?;
    json.finish()?;
    Ok(Box::new(Flaw::NotARow(match peek {
        Peek::Array => "a list",
        Peek::String => "text",
        Peek::Null => "null",
        Peek::True | Peek::False => "a boolean",
        _ => "a number",
    })))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ndjson::oracle::{block, decode};
    use crate::source::ndjson::schema_of_file;
    use arrow::array::{Array, AsArray, Int64Array, ListArray, MapArray};
    use arrow::datatypes::{DataType, Field, Fields, Int64Type, Schema, TimeUnit};
    use arrow::util::display::array_value_to_string;
    use std::sync::Arc;

    /// What a column of `kind` makes of a value: the value shown, or the reason.
    fn one(kind: DataType, value: &str) -> Result<String, String> {
        let schema = Schema::new(vec![Field::new("c", kind, true)]);
        let mut decoded =
            decode(&schema, &block(format!("{{\"c\":{value}}}\n{{}}\n{{\"c\":null}}").as_bytes()));
        match decoded.bad.pop() {
            Some(bad) => Err(bad.reason),
            None => {
                let column = decoded.batch.column(0);
                assert!(column.is_valid(0) && column.is_null(1) && column.is_null(2));
                Ok(array_value_to_string(column, 0).unwrap())
            }
        }
    }

    #[test]
    fn every_type_takes_what_it_can_give_back() {
        use DataType::*;
        let list = |field: Field| Arc::new(field);
        let pair =
            Struct(Fields::from(vec![Field::new("key", Utf8, false), Field::new("value", Int8, true)]));
        for (kind, value, shown) in [
            (Boolean, "true", "true"),
            (Int8, "-128", "-128"),
            (Int16, "3e1", "30"),
            (Int32, "7.0", "7"),
            (UInt8, "255", "255"),
            (UInt16, "65535", "65535"),
            (UInt32, "4294967295", "4294967295"),
            (UInt64, "18446744073709551615", "18446744073709551615"),
            (Float16, "0.5", "0.5"),
            (Float32, "0.1", "0.1"),
            (Float64, "9007199254740992", "9007199254740992.0"),
            (Decimal32(5, 2), "1.5", "1.50"),
            (Decimal64(18, 0), "123456789012345678", "123456789012345678"),
            (Decimal128(38, 10), "-0.0000000001", "-0.0000000001"),
            (Decimal256(76, 1), "12.50", "12.5"),
            (Date32, "\"2024-02-29\"", "2024-02-29"),
            (Date64, "\"1969-12-31\"", "1969-12-31T00:00:00"),
            (Time32(TimeUnit::Second), "\"12:34:56\"", "12:34:56"),
            (Time32(TimeUnit::Millisecond), "\"12:34:56.789\"", "12:34:56.789"),
            (Time64(TimeUnit::Microsecond), "\"12:34\"", "12:34:00"),
            (Time64(TimeUnit::Nanosecond), "\"12:34:56.000000001\"", "12:34:56.000000001"),
            (Timestamp(TimeUnit::Second, None), "\"2024-01-01 00:00:01\"", "2024-01-01T00:00:01"),
            (
                Timestamp(TimeUnit::Millisecond, Some("+00:00".into())),
                "\"2024-01-01T01:00:00.5+01:00\"",
                "2024-01-01T00:00:00.500Z",
            ),
            (Timestamp(TimeUnit::Microsecond, None), "\"2024-01-01T00:00\"", "2024-01-01T00:00:00"),
            (Timestamp(TimeUnit::Nanosecond, None), "\"2024-01-01T00:00:00.1\"", "2024-01-01T00:00:00.100"),
            (Utf8, "\"\\u00e9\\ud83d\\ude00\"", "é😀"),
            (LargeUtf8, "\"x\"", "x"),
            (Utf8View, "\"a text longer than twelve bytes\"", "a text longer than twelve bytes"),
            (List(list(Field::new("item", Int8, true))), "[1,null,3]", "[1, , 3]"),
            (LargeList(list(Field::new("item", Int8, true))), "[1]", "[1]"),
            (FixedSizeList(list(Field::new("item", Int8, true)), 2), "[1,2]", "[1, 2]"),
            (Map(list(Field::new("entries", pair, false)), false), "{\"a\":1,\"b\":null}", "{a: 1, b: }"),
            (Struct(vec![Field::new("x", Int8, true)].into()), "{\"x\":1}", "{x: 1}"),
        ] {
            assert_eq!(one(kind.clone(), value), Ok(shown.to_owned()), "{kind} {value}");
        }
    }

    #[test]
    fn what_a_type_would_change_is_refused_with_the_column_and_the_value() {
        use DataType::*;
        for (kind, value, part) in [
            (Boolean, "0", "0 where bool is expected"),
            (Int8, "128", "128 does not fit int8"),
            (UInt8, "-1", "-1 does not fit uint8"),
            (Int64, "1e-1", "1e-1 does not fit int64"),
            (UInt64, "18446744073709551616", "does not fit uint64"),
            (Float64, "1e400", "1e400 does not fit float64"),
            (Float64, "9007199254740993", "does not fit float64"),
            (Float32, "0.123456789", "does not fit float32"),
            (Decimal128(5, 2), "1.234", "1.234 does not fit decimal(5,2)"),
            (Decimal128(5, 2), "\"1.23\"", "text \"1.23\" where decimal(5,2) is expected"),
            (Date32, "\"2024-02-30\"", "text \"2024-02-30\" does not fit date"),
            (Date32, "19000", "19000 where date is expected"),
            (Timestamp(TimeUnit::Second, None), "\"2024-01-01T00:00:00Z\"", "does not fit timestamp(s)"),
            (
                Timestamp(TimeUnit::Second, Some("UTC".into())),
                "\"2024-01-01T00:00:00\"",
                "does not fit timestamp(s,UTC)",
            ),
            (
                Timestamp(TimeUnit::Second, Some("UTC".into())),
                "1704067200",
                "where timestamp(s,UTC) is expected",
            ),
            (Utf8, "12", "12 where text is expected"),
            (Utf8, "[1]", "a list where text is expected"),
            (Binary, "\"AAA=\"", "JSON has no notation for binary; only null fits"),
            (Null, "1", "only null fits"),
            (Duration(TimeUnit::Second), "1", "only null fits"),
            (
                FixedSizeList(Arc::new(Field::new("item", Int8, true)), 2),
                "[1,2,3]",
                "a list of 3 where 2 elements are expected",
            ),
            (List(Arc::new(Field::new("item", Int8, false))), "[1,null]", "null, but the column is required"),
            (
                Struct(vec![Field::new("x", Int8, false)].into()),
                "{}",
                "column c.x: missing, but the column is required",
            ),
        ] {
            let reason = one(kind.clone(), value).unwrap_err();
            assert!(reason.starts_with("column c") && reason.contains(part), "{kind} {value}: {reason}");
        }
    }

    #[test]
    fn required_columns_refuse_null_and_absence_also_inside_structs_that_may_be_null() {
        let schema = schema_of_file(
            r#"{"fields": [{"name": "id", "type": "int64", "nullable": false},
                {"name": "s", "type": {"struct": [{"name": "x", "type": "text", "nullable": false}]}}]}"#,
        );
        let text = b"{\"id\":1}\n{}\n{\"id\":null}\n{\"id\":2,\"s\":{}}\n{\"id\":3,\"s\":null}\n{\"id\":4,\"s\":{\"x\":\"\"}}";
        let decoded = decode(&schema.unwrap(), &block(text));
        let ids: &Int64Array = decoded.batch.column(0).as_primitive::<Int64Type>();
        assert_eq!(ids.values(), &[1, 3, 4]);
        assert_eq!(decoded.lines, [1, 5, 6]);
        assert_eq!(decoded.bad.iter().map(|bad| bad.line).collect::<Vec<_>>(), [2, 3, 4]);
    }

    #[test]
    fn lists_and_maps_are_cut_back_with_the_row_that_broke() {
        let schema = schema_of_file(
            r#"{"fields": [{"name": "l", "type": {"list": {"list": "int64"}}}, {"name": "m", "type": {"map": "text"}}]}"#,
        );
        let text = br#"{"m":{"a":"1"},"l":[[1],[2,3]]}
            {"m":{"b":"2","c":3}}
            {"l":[[4],[5,""]]}
            {"m":{"d":"4","d":""}}
            {"m":{"e":"5"},"l":[[],null]}"#;
        let decoded = decode(&schema.unwrap(), &block(text));
        assert_eq!(decoded.lines, [1, 5]);
        let lists: &ListArray = decoded.batch.column(0).as_list();
        assert_eq!(array_value_to_string(lists, 1).unwrap(), "[[], ]");
        let maps: &MapArray = decoded.batch.column(1).as_map();
        assert_eq!((maps.keys().len(), array_value_to_string(maps, 1).unwrap()), (2, "{e: 5}".to_owned()));
        assert!(decoded.bad[2].reason.contains("\"d\" stands twice"));
    }

    #[test]
    fn two_columns_of_one_name_are_refused() {
        let twice =
            Schema::new(vec![Field::new("a", DataType::Int8, true), Field::new("a", DataType::Int8, true)]);
        assert!(Decoder::new(Arc::new(twice)).unwrap_err().to_string().contains("\"a\""));
    }

    #[test]
    fn a_schema_without_columns_still_counts_rows() {
        let decoded = decode(&Schema::empty(), &block(b"{}\n\n{\"a\":null}\n{\"a\":1}"));
        assert_eq!((decoded.batch.num_rows(), decoded.unknown_fields), (3, true));
    }
}
