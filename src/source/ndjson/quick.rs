//! A row that has nothing unusual about it, read in one go.
//!
//! Most lines of a file are alike: members that the schema knows, text with short escapes at most, numbers as machines write
//! them. Promise: a row that is taken here is the row that [`fit`](super::fit) makes of the line. Anything else (a character by its
//! number, an unknown member, a value that does not fit, a flaw) is left to it, which also knows the reasons.

use super::MAX_DEPTH;
use super::column::{Column, Data, Whole};
use super::glance::after_name;
use super::number;
use super::plan::{Level, Width};

/// The least float that is no signed 64-bit integer.
const LEAST_WIDE: f64 = 9_223_372_036_854_775_808.0;

/// Digits before the point that are certainly not too many for the strict reader.
const MOST_DIGITS: usize = 1000;

/// Reads `line` as row `row` of `columns`. On `None` the `touched` columns must be truncated, and the line read by `fit`.
pub(super) fn read(
    columns: &mut [Column<'_>],
    level: &Level,
    row: usize,
    line: &[u8],
    touched: &mut Vec<usize>,
) -> Option<()> {
    let mut quick = Quick { rest: line };
    quick.skip_space();
    quick.object(columns, level, row, 1, Some(touched))?;
    quick.skip_space();
    quick.rest.is_empty().then_some(())
}

/// What is left of the line. Every step gives `None` if it comes upon something unusual.
struct Quick<'a> {
    rest: &'a [u8],
}

impl<'a> Quick<'a> {
    /// `touched` takes the columns that were written to.
    fn object(
        &mut self,
        columns: &mut [Column<'_>],
        level: &Level,
        row: usize,
        depth: usize,
        mut touched: Option<&mut Vec<usize>>,
    ) -> Option<()> {
        self.take(b'{')?;
        self.skip_space();
        let mut open = self.take(b'}').is_none();
        let mut expected = 0;
        while open {
            self.take(b'"')?;
            let at = self.name(level, &mut expected)?;
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            let column = columns.get_mut(at)?;
            if let Some(touched) = &mut touched {
                touched.push(at);
            }
            // A name that stands twice.
            if column.len() > row {
                return None;
            }
            column.pad(row);
            self.value(column, depth + 1)?;
            self.skip_space();
            match self.next()? {
                b',' => self.skip_space(),
                b'}' => open = false,
                _ => return None,
            }
        }
        level
            .required
            .iter()
            .all(|at| columns.get(*at).is_some_and(|column| column.len() > row))
            .then_some(())
    }

    /// Which member the name is that begins after its quote.
    fn name(&mut self, level: &Level, expected: &mut usize) -> Option<usize> {
        if let Some(plan) = level.plans.get(*expected)
            && plan.plain_name
            && let Some(after) = after_name(self.rest, plan.field.name())
            && let Some(after) = after.strip_prefix(b"\"")
        {
            self.rest = after;
            *expected += 1;
            return Some(*expected - 1);
        }
        level.find(std::str::from_utf8(self.text()?).ok()?, expected)
    }

    fn value(&mut self, column: &mut Column<'_>, depth: usize) -> Option<()> {
        let len = column.len();
        match (*self.rest.first()?, &mut column.data) {
            (b'"', Data::Text(bytes, ends, false)) => {
                self.next()?;
                self.copy_text(bytes)?;
                ends.push(i32::try_from(bytes.len()).ok()?);
            }
            (b'"', Data::Long(values, whole)) if !matches!(whole, Whole::Integer(..)) => {
                self.next()?;
                values.push(whole.parse(std::str::from_utf8(self.text()?).ok()?)?);
            }
            (b'-' | b'0'..=b'9', Data::Long(values, Whole::Integer(min, max))) => {
                let value = number::plain_i64(self.number()?)?;
                values.push(Some(value).filter(|value| (*min..=*max).contains(value))?);
            }
            (b'-' | b'0'..=b'9', Data::Unsigned(values)) => {
                values.push(u64::try_from(number::plain_i64(self.number()?)?).ok()?);
            }
            (b'-' | b'0'..=b'9', Data::Double(values, Width::Double)) => {
                let lexeme = self.number()?;
                let value = number::double(lexeme)?;
                // An integer beyond 64 bits is news for the column's type, however exact it is.
                if value.abs() >= LEAST_WIDE && number::is_plain(lexeme) {
                    return None;
                }
                values.push(value);
            }
            (b't', Data::Bool(values)) => {
                self.word(b"true")?;
                values.push(true);
            }
            (b'f', Data::Bool(values)) => {
                self.word(b"false")?;
                values.push(false);
            }
            (b'n', _) if column.plan.field.is_nullable() => {
                self.word(b"null")?;
                column.push_null();
                return Some(());
            }
            (b'{', Data::Struct(columns, level)) if depth <= MAX_DEPTH => {
                self.object(columns, level, len, depth, None)?;
            }
            (b'[', Data::List(ends, items)) if depth <= MAX_DEPTH => {
                self.elements(items, depth)?;
                ends.push(i32::try_from(items.len()).ok()?);
            }
            _ => return None,
        }
        column.end_value();
        Some(())
    }

    fn elements(&mut self, items: &mut Column<'_>, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.skip_space();
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(items, depth + 1)?;
            self.skip_space();
            match self.next()? {
                b',' => self.skip_space(),
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Appends the text that begins after its quote, its short escapes resolved.
    fn copy_text(&mut self, into: &mut Vec<u8>) -> Option<()> {
        let start = into.len();
        let mut is_ascii = true;
        loop {
            let (plain, rest) = self.rest.split_at_checked(plain_bytes(self.rest))?;
            into.extend_from_slice(plain);
            match rest {
                [b'"', after @ ..] => {
                    self.rest = after;
                    break;
                }
                [b'\\', escape, after @ ..] => {
                    into.push(match escape {
                        b'"' | b'\\' | b'/' => *escape,
                        b'n' => b'\n',
                        b't' => b'\t',
                        b'r' => b'\r',
                        b'b' => 0x08,
                        b'f' => 0x0c,
                        _ => return None,
                    });
                    self.rest = after;
                }
                [byte @ 0x80..=0xff, after @ ..] => {
                    into.push(*byte);
                    is_ascii = false;
                    self.rest = after;
                }
                _ => return None,
            }
        }
        (is_ascii || std::str::from_utf8(into.get(start..)?).is_ok()).then_some(())
    }

    /// Text without escapes that begins after its quote.
    fn text(&mut self) -> Option<&'a [u8]> {
        let (mut at, mut is_ascii) = (0, true);
        loop {
            at += plain_bytes(self.rest.get(at..)?);
            match *self.rest.get(at)? {
                b'"' => break,
                0x80.. => (at, is_ascii) = (at + 1, false),
                _ => return None,
            }
        }
        let (text, after) = self.rest.split_at_checked(at)?;
        self.rest = after.get(1..)?;
        (is_ascii || std::str::from_utf8(text).is_ok()).then_some(text)
    }

    /// A number as JSON writes it.
    fn number(&mut self) -> Option<&'a [u8]> {
        let digits =
            |from: usize| self.rest.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
        let start = usize::from(self.rest.first() == Some(&b'-'));
        let whole = digits(start);
        // The strict reader has a limit, and knows what to say of it.
        if whole == 0 || whole > MOST_DIGITS || whole > 1 && self.rest.get(start) == Some(&b'0') {
            return None;
        }
        let mut end = start + whole;
        if self.rest.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            end += 1 + Some(fraction).filter(|count| *count > 0)?;
        }
        if matches!(self.rest.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.rest.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            end += 1 + sign + Some(exponent).filter(|count| *count > 0)?;
        }
        let (lexeme, after) = self.rest.split_at_checked(end)?;
        self.rest = after;
        Some(lexeme)
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        match self.rest {
            [first, after @ ..] if *first == byte => {
                self.rest = after;
                Some(())
            }
            _ => None,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, after) = self.rest.split_first()?;
        self.rest = after;
        Some(*first)
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', after @ ..] = self.rest {
            self.rest = after;
        }
    }
}

/// How many bytes at the beginning are ASCII and neither a quote nor an escape nor a control character: eight at a time.
fn plain_bytes(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The lowest byte that is below `limit` gets its top bit set, and no lower one does.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word & TOPS;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|bytes| bytes.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        let quotes = below(word ^ (ONES * u64::from(b'"')), 1);
        let escapes = below(word ^ (ONES * u64::from(b'\\')), 1);
        let found = quotes | escapes | below(word, 0x20) | word & TOPS;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &&u8| matches!(byte, 0x20..0x80) && !matches!(byte, b'"' | b'\\');
    at + bytes.get(at..).unwrap_or_default().iter().take_while(is_plain).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ndjson::column::columns;
    use crate::source::ndjson::schema_of_file;
    use proptest::prelude::*;

    /// Whether the line is taken quickly by a schema of all kinds.
    fn is_quick(line: impl AsRef<[u8]>) -> bool {
        let schema = schema_of_file(
            r#"{"fields": [{"name": "i", "type": "int32"}, {"name": "u", "type": "uint64"}, {"name": "f", "type": "float64"},
                {"name": "t", "type": "text"}, {"name": "b", "type": "bool"}, {"name": "at", "type": "timestamp(us)"},
                {"name": "s", "type": {"struct": [{"name": "x", "type": "int64", "nullable": false}]}},
                {"name": "l", "type": {"list": "int64"}}, {"name": "j", "type": "json"}]}"#,
        );
        let level = Level::new(schema.unwrap().fields()).unwrap();
        let mut columns = columns(&level);
        read(&mut columns, &level, 3, line.as_ref(), &mut Vec::new()).is_some()
    }

    #[test]
    fn a_name_with_escapes_is_not_what_they_stand_for() {
        let schema = schema_of_file(
            r#"{"fields": [{"name": "a\\u0062", "type": "text"}, {"name": "c\"d", "type": "text"}]}"#,
        );
        let level = Level::new(schema.unwrap().fields()).unwrap();
        for line in [r#"{"a\u0062":"z"}"#, r#"{"c"d":"z"}"#] {
            let mut columns = columns(&level);
            assert!(read(&mut columns, &level, 0, line.as_bytes(), &mut Vec::new()).is_none(), "{line}");
        }
    }

    #[test]
    fn usual_rows_are_quick_and_unusual_ones_are_not() {
        for line in [
            r#"{}"#,
            r#" { "i" : -7 , "t" : "é" } "#,
            r#"{"t":"\"a\\ é\n"}"#,
            r#"{"t":"","u":18,"f":1.5e-3,"b":true,"at":"2026-01-02T03:04:05","l":[1,null,2],"j":null,"s":{"x":1}}"#,
        ] {
            assert!(is_quick(line), "{line}");
        }
        for line in [
            r#"{"t":"a\u0062"}"#,
            r#"{"t":"a\x"}"#,
            r#"{"\t":"a"}"#,
            "{\"t\":\"a\u{1}b\"}",
            r#"{"i":1,"i":2}"#,
            r#"{"i":3000000000}"#,
            r#"{"i":01}"#,
            r#"{"i":1.}"#,
            r#"{"f":1e}"#,
            r#"{"f":-}"#,
            r#"{"f":100000000000000000000}"#,
            r#"{"f":9223372036854775808}"#,
            r#"{"f":.5}"#,
            r#"{"new":null}"#,
            r#"{"j":1}"#,
            r#"{"s":{}}"#,
            r#"{"s":{"x":null}}"#,
            r#"{"l":[1,]}"#,
            r#"{"i":1,}"#,
            r#"{"i":1}}"#,
            r#"{"i":1"#,
            r#"[]"#,
        ] {
            assert!(!is_quick(line), "{line}");
        }
        assert!(!is_quick(b"{\"t\":\"a\xff\"}"));
    }

    proptest! {
        #[test]
        fn plain_bytes_are_counted_as_one_by_one(bytes in prop::collection::vec(prop_oneof![12 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\'), 60 => 0x20u8..0x7f], 0..60)) {
            let special = |byte: &u8| *byte < 0x20 || *byte >= 0x80 || matches!(byte, b'"' | b'\\');
            prop_assert_eq!(plain_bytes(&bytes), bytes.iter().position(special).unwrap_or(bytes.len()));
        }
    }
}
