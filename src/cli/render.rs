//! Numbers, sizes and tables as people read them. Text from files, URLs and batch ids is made harmless first.

use bytesize::ByteSize;
use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::verdict::Accounting;

/// `1234567` as `1,234,567`.
pub(super) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 file`, `2 files`.
pub(super) fn count(n: u64, one: &str) -> String {
    format!("{} {one}{}", number(n), if n == 1 { "" } else { "s" })
}

/// Bytes in decimal units: `312.4 MB`.
pub(super) fn size(bytes: u64) -> String {
    ByteSize(bytes).display().si().to_string()
}

/// A share in percent; nothing of nothing is no share.
pub(super) fn percent(part: u64, whole: u64) -> String {
    match whole {
        0 => "-".into(),
        _ => format!("{:.1} %", part as f64 * 100.0 / whole as f64),
    }
}

/// Text that came from outside, without control characters that a terminal would obey.
pub(super) fn clean(text: &str) -> String {
    text.chars()
        .flat_map(|c| if c.is_control() { Part::Escaped(c.escape_default()) } else { Part::Plain(Some(c)) })
        .collect()
}

/// [`clean`], but lines stay lines.
pub(super) fn clean_lines(text: &str) -> String {
    text.lines().map(clean).collect::<Vec<_>>().join("\n")
}

enum Part {
    Plain(Option<char>),
    Escaped(std::char::EscapeDefault),
}

impl Iterator for Part {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        match self {
            Self::Plain(c) => c.take(),
            Self::Escaped(escape) => escape.next(),
        }
    }
}

/// Names on the left, values on the right.
#[derive(Debug, Default)]
pub(super) struct Facts(Vec<(String, String)>);

impl Facts {
    /// Adds a line.
    pub(super) fn add(&mut self, name: &str, value: impl AsRef<str>) -> &mut Self {
        self.0.push((name.into(), clean(value.as_ref())));
        self
    }

    /// Adds a line if there is something to say.
    pub(super) fn add_some(&mut self, name: &str, value: Option<impl AsRef<str>>) -> &mut Self {
        if let Some(value) = value {
            self.add(name, value);
        }
        self
    }

    /// The accounting, one verdict a line; verdicts that nothing met and that are rare are left out.
    pub(super) fn add_rows(&mut self, rows: &Accounting) -> &mut Self {
        let share = |n: u64| format!("{} ({})", number(n), percent(n, rows.read));
        self.add("read", number(rows.read)).add("accepted", share(rows.accepted));
        self.add("duplicate", share(rows.duplicate));
        let rare = [
            ("replayed", rows.replayed),
            ("conflict", rows.conflict),
            ("late", rows.late),
            ("rejected", rows.rejected),
        ];
        for (name, n) in rare.into_iter().filter(|(_, n)| *n > 0) {
            self.add(name, share(n));
        }
        self
    }

    /// The text, one fact a line.
    pub(super) fn text(&self) -> String {
        let width = self.0.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        self.0.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
    }
}

/// A table without lines, as `ls` and `git` print them. Columns of numbers are aligned to the right.
pub(super) fn table(header: &[(&str, Align)], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header.iter().map(|(name, _)| *name));
    for row in rows {
        table.add_row(row.iter().map(|cell| clean(cell)));
    }
    for (column, (_, align)) in table.column_iter_mut().zip(header) {
        column.set_padding((0, 2));
        column.set_cell_alignment(match align {
            Align::Left => CellAlignment::Left,
            Align::Right => CellAlignment::Right,
        });
    }
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Where a column's values stand.
#[derive(Debug, Clone, Copy)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_separators_at_every_third_digit() {
        let pairs = [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")];
        for (n, text) in pairs {
            assert_eq!(number(n), text);
        }
        assert_eq!(number(u64::MAX), "18,446,744,073,709,551,615");
    }

    #[test]
    fn sizes_are_in_decimal_units() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(256_000_000), "256.0 MB");
    }

    #[test]
    fn a_share_of_nothing_is_no_division_by_zero() {
        assert_eq!(percent(0, 0), "-");
        assert_eq!(percent(1, 8), "12.5 %");
    }

    #[test]
    fn terminal_escapes_from_a_file_name_are_not_obeyed() {
        assert_eq!(clean("a\u{1b}[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
    }

    #[test]
    fn facts_are_aligned_and_rare_verdicts_left_out() {
        let mut facts = Facts::default();
        let rows = Accounting { read: 1000, accepted: 900, duplicate: 100, ..Accounting::default() };
        facts.add("table", "/lake").add_rows(&rows);
        let expected =
            "table      /lake\nread       1,000\naccepted   900 (90.0 %)\nduplicate  100 (10.0 %)\n";
        assert_eq!(facts.text(), expected);
    }

    #[test]
    fn tables_have_no_trailing_space_and_align_numbers_right() {
        let rows = [vec!["7".into(), "a".into()], vec!["12".into(), "b".into()]];
        let text = table(&[("version", Align::Right), ("file", Align::Left)], rows);
        assert_eq!(text, "version  file\n      7  a\n     12  b\n");
    }
}
