//! How values on the command line are written: sizes, lists of columns, `key=value` pairs.

use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;

use crate::error::{Error, Result};
use crate::options::MIN_MEMORY;

/// A size in bytes: `512MB` (decimal), `1GiB` (binary), or a plain number.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let wrong = || "expected a size such as 512MB, 1GiB or 4096".to_string();
    let bytes = ByteSize::from_str(text.trim()).map_err(|_| wrong())?.as_u64();
    if bytes == 0 { Err(wrong()) } else { Ok(bytes) }
}

/// A size that is enough to work with.
pub(super) fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < MIN_MEMORY => {
            Err(format!("a run needs at least {}", ByteSize(MIN_MEMORY).display().iec()))
        }
        bytes => Ok(bytes),
    }
}

/// The longest line: a size that fits the address space.
pub(super) fn line_length(text: &str) -> Result<usize, String> {
    usize::try_from(size(text)?).map_err(|_| "more than this machine can address".into())
}

/// A length of time: `24h`, `30m`, `90s`, `7d`, or `0`.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let wrong = || "expected a length of time such as 24h, 30m, 90s, 7d or 0".to_string();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let seconds = match text.get(digits.len()..).unwrap_or_default() {
        "s" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "" if digits == "0" => 1,
        _ => return Err(wrong()),
    };
    let count: u64 = digits.trim().parse().map_err(|_| wrong())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// Column names (or expressions) separated by commas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names(Vec<String>);

impl Names {
    /// All names of a flag that was given any number of times; `None` if it was not.
    pub(super) fn join(all: Vec<Self>) -> Option<Vec<String>> {
        let names: Vec<String> = all.into_iter().flat_map(|names| names.0).collect();
        (!names.is_empty()).then_some(names)
    }
}

impl FromStr for Names {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let names: Vec<String> =
            split(text, ',').into_iter().map(|part| unescape(part).trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            return Err("expected names separated by commas; none may be empty".into());
        }
        Ok(Self(names))
    }
}

/// Values of key columns: `a=1,b=x`. A name alone stands for null; `\,` `\=` `\\` for the characters themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyValues(pub(super) Vec<(String, Option<String>)>);

impl FromStr for KeyValues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let pairs: Vec<(String, Option<String>)> = split(text, ',')
            .into_iter()
            .map(|part| match *split(part, '=') {
                [name] => (unescape(name).trim().to_owned(), None),
                [name, ..] => {
                    let value = part.get(name.len() + 1..).unwrap_or_default();
                    (unescape(name).trim().to_owned(), Some(unescape(value)))
                }
                [] => (String::new(), None),
            })
            .collect();
        if pairs.iter().any(|(name, _)| name.is_empty()) {
            return Err("expected COLUMN=VALUE[,COLUMN=VALUE…]; a comma in a value is written `\\,`".into());
        }
        Ok(Self(pairs))
    }
}

/// Options for the stores. They may be secrets, so no message shows more than the name.
pub(super) fn store_options(all: &[String]) -> Result<Vec<(String, String)>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err(Error::Usage("--store-option takes NAME=VALUE, for example aws_region=eu-central-1".into())),
    };
    all.iter().map(pair).collect()
}

/// Splits at each `at` that no backslash stands before.
fn split(text: &str, at: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        if c == at && !escaped {
            parts.push(text.get(start..i).unwrap_or_default());
            start = i + c.len_utf8();
        }
        escaped = c == '\\' && !escaped;
    }
    parts.push(text.get(start..).unwrap_or_default());
    parts
}

/// Takes the backslash off `\,` `\=` `\\`; any other stays, so that most values need no thought.
fn unescape(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match chars.peek() {
            Some(&next) if c == '\\' && matches!(next, ',' | '=' | '\\') => {
                plain.push(next);
                chars.next();
            }
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_decimal_and_binary_units() {
        assert_eq!(size("512MB"), Ok(512_000_000));
        assert_eq!(size("1GiB"), Ok(1 << 30));
        assert_eq!(size(" 1.5 GB "), Ok(1_500_000_000));
        assert_eq!(size("4096"), Ok(4096));
        for wrong in ["", "0", "-1", "MB", "1 parsec", "nan", "inf"] {
            assert!(size(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn too_little_memory_is_refused_with_the_least_there_must_be() {
        assert!(memory("1KiB").unwrap_err().starts_with("a run needs at least "));
        assert_eq!(memory(&MIN_MEMORY.to_string()), Ok(MIN_MEMORY));
    }

    #[test]
    fn lengths_of_time_have_a_unit() {
        let seconds = |text| duration(text).map(|length| length.as_secs());
        assert_eq!(seconds("24h"), Ok(86_400));
        assert_eq!(seconds(" 90 s"), Ok(90));
        assert_eq!((seconds("30m"), seconds("7d"), seconds("0")), (Ok(1800), Ok(604_800), Ok(0)));
        for wrong in
            ["", "24", "h", "-1h", "1.5h", "1 fortnight", "99999999999999999999s", "9999999999999999999d"]
        {
            assert!(duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn names_are_split_at_commas_and_may_contain_escaped_ones() {
        let names = |text: &str| text.parse::<Names>().map(|names| names.0);
        assert_eq!(names("id").unwrap(), ["id"]);
        assert_eq!(names("a, b.c,date(ts)").unwrap(), ["a", "b.c", "date(ts)"]);
        assert_eq!(names("a\\,b").unwrap(), ["a,b"]);
        assert!(names("a,,b").is_err());
        assert!(names("").is_err());
    }

    #[test]
    fn key_values_keep_everything_behind_the_first_equals_sign() {
        let values = |text: &str| text.parse::<KeyValues>().unwrap().0;
        let some = |name: &str, value: &str| (name.to_string(), Some(value.to_string()));
        assert_eq!(values("id=5"), [some("id", "5")]);
        assert_eq!(values("a=x=y, b= z "), [some("a", "x=y"), some("b", " z ")]);
        assert_eq!(values("name=Smith\\, John,n=\\d\\\\"), [some("name", "Smith, John"), some("n", "\\d\\")]);
        assert_eq!(values("a=,b"), [some("a", ""), ("b".to_string(), None)]);
        assert_eq!(values("we\\=ird=1"), [some("we=ird", "1")]);
        assert!("=5".parse::<KeyValues>().is_err());
        assert!("".parse::<KeyValues>().is_err());
    }

    #[test]
    fn a_wrong_store_option_is_not_repeated_in_the_message() {
        let error = store_options(&["hunter2".into()]).unwrap_err();
        assert!(matches!(error, Error::Usage(_)));
        assert!(!error.to_string().contains("hunter2"));
        let options = store_options(&["token=a=b".into()]).unwrap();
        assert_eq!(options, [("token".to_string(), "a=b".to_string())]);
    }
}
