//! A key given as text, as people type it, to the same canonical bytes that a column of its kind gives.

use super::{encode, json, kind::KeyKind};
use arrow::datatypes::i256;
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime};

/// Appends the value that `text` stands for; the error says what is wrong with it, to be put after its name.
pub(super) fn append(out: &mut Vec<u8>, kind: KeyKind, text: Option<&str>) -> Result<(), String> {
    let Some(text) = text else {
        encode::null(out);
        return Ok(());
    };
    let unfit = |form: &str| format!("is not {kind}: \"{text}\"; expected {form}");
    match kind {
        KeyKind::Boolean => encode::boolean(out, text.parse().map_err(|_| unfit("true or false"))?),
        KeyKind::Integer => {
            encode::whole(out, encode::INTEGER, text.parse().map_err(|_| unfit("a whole number"))?);
        }
        KeyKind::Float => encode::float(out, text.parse().map_err(|_| unfit("a number such as -1.5e3"))?),
        KeyKind::Decimal => decimal(out, text).ok_or_else(|| unfit("a number such as -12.50"))?,
        KeyKind::Text => encode::bytes(out, encode::TEXT, text.as_bytes()),
        KeyKind::Binary => {
            let bytes = hexadecimal(text).ok_or_else(|| unfit("hexadecimal digits or a UUID"))?;
            encode::bytes(out, encode::BINARY, &bytes);
        }
        KeyKind::Date => {
            let date: NaiveDate = text.parse().map_err(|_| unfit("a date such as 2026-01-31"))?;
            let milliseconds = date.and_time(NaiveTime::MIN).and_utc().timestamp_millis();
            encode::whole(out, encode::DATE, milliseconds.into());
        }
        KeyKind::Time => {
            let time: NaiveTime = text.parse().map_err(|_| unfit("a time such as 23:59:59.5"))?;
            let since = NaiveDate::default().and_time(time);
            encode::whole(out, encode::TIME, nanoseconds(since));
        }
        KeyKind::Instant => {
            let instant = DateTime::parse_from_rfc3339(text)
                .map_err(|_| unfit("an instant with its zone, such as 2026-01-31T23:59:59.5Z"))?;
            encode::whole(out, encode::INSTANT, nanoseconds(instant.naive_utc()));
        }
        KeyKind::Timestamp => {
            let form = if text.contains(' ') { "%Y-%m-%d %H:%M:%S%.f" } else { "%Y-%m-%dT%H:%M:%S%.f" };
            let timestamp = NaiveDateTime::parse_from_str(text, form)
                .map_err(|_| unfit("a timestamp without a zone, such as 2026-01-31T23:59:59.5"))?;
            encode::whole(out, encode::TIMESTAMP, nanoseconds(timestamp));
        }
        KeyKind::Duration => {
            let length =
                duration(text).ok_or_else(|| unfit("a whole number and ns, us, ms, s, min, h or d"))?;
            encode::whole(out, encode::DURATION, length);
        }
        KeyKind::Json => {
            if !json::is_json(text) {
                return Err(unfit("JSON; text wants quotes"));
            }
            json::append(out, text.as_bytes());
        }
        KeyKind::Struct | KeyKind::List | KeyKind::Map => {
            return Err(format!("cannot be given as text, because the column is a {kind}"));
        }
    }
    Ok(())
}

fn nanoseconds(timestamp: NaiveDateTime) -> i128 {
    let timestamp = timestamp.and_utc();
    i128::from(timestamp.timestamp()) * 1_000_000_000 + i128::from(timestamp.timestamp_subsec_nanos())
}

fn decimal(out: &mut Vec<u8>, text: &str) -> Option<()> {
    let (sign, number) = match text.strip_prefix('-') {
        Some(number) => ("-", number),
        None => ("", text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = format!("{whole}{fraction}");
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    let dropped = digits.len() - significant.len();
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        encode::decimal(out, 0, 0);
        return Some(());
    }
    if significant.len() > 76 {
        return None;
    }
    let scale = i32::try_from(fraction.len()).ok()?.checked_sub(i32::try_from(dropped).ok()?)?;
    encode::wide_decimal(out, i256::from_string(&format!("{sign}{significant}"))?, scale);
    Some(())
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let plain = text.strip_prefix("0x").unwrap_or(text);
    let dashes = |text: &str| text.match_indices('-').map(|(at, _)| at).eq([8, 13, 18, 23]);
    let digits = if text.len() == 36 && dashes(text) { plain.replace('-', "") } else { plain.to_owned() };
    if digits.len() % 2 != 0 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    digits
        .as_bytes()
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
        .collect()
}

fn duration(text: &str) -> Option<i128> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || matches!(c, '-' | '+'));
    let number: i64 = text.strip_suffix(unit)?.parse().ok()?;
    let factor: i128 = match unit.trim_start() {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "min" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        "d" => 86_400_000_000_000,
        _ => return None,
    };
    Some(i128::from(number) * factor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::layout;
    use arrow::{
        array::{ArrayRef, StringArray},
        compute::cast,
    };
    use arrow_schema::{DataType, Field, TimeUnit};
    use proptest::prelude::*;
    use std::sync::Arc;

    fn of(kind: KeyKind, text: &str) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        append(&mut out, kind, Some(text)).map(|()| out)
    }

    /// The bytes that a column gives, made by Arrow's own reading of the text.
    fn in_a_column(data_type: &DataType, text: &str) -> Vec<u8> {
        let column: ArrayRef = Arc::new(StringArray::from(vec![text]));
        let column = cast(&column, data_type).unwrap();
        assert!(column.is_valid(0), "{text} as {data_type}");
        let mut out = Vec::new();
        layout::column(&Field::new("k", data_type.clone(), true), &column).unwrap().append(0, &mut out);
        out
    }

    #[test]
    fn text_gives_the_bytes_of_the_column_that_holds_its_value() {
        use DataType::{Boolean, Date32, Decimal128, Float64, Int64, Time64, Timestamp, UInt64, Utf8};
        let nanoseconds = TimeUnit::Nanosecond;
        for (kind, data_type, text) in [
            (KeyKind::Boolean, Boolean, "true"),
            (KeyKind::Integer, Int64, "-5"),
            (KeyKind::Integer, UInt64, "18446744073709551615"),
            (KeyKind::Float, Float64, "-1.5e3"),
            (KeyKind::Decimal, Decimal128(20, 4), "-012.500"),
            (KeyKind::Decimal, Decimal128(20, 0), "1200"),
            (KeyKind::Decimal, Decimal128(20, 0), "0.00"),
            (KeyKind::Text, Utf8, " as it is "),
            (KeyKind::Date, Date32, "1969-12-31"),
            (KeyKind::Time, Time64(nanoseconds), "23:59:59.000000001"),
            (KeyKind::Instant, Timestamp(nanoseconds, Some("+00:00".into())), "1969-12-31T23:59:59.5+02:00"),
            (KeyKind::Timestamp, Timestamp(nanoseconds, None), "2026-01-31T23:59:59.25"),
            (KeyKind::Timestamp, Timestamp(nanoseconds, None), "2026-01-31 23:59:59"),
        ] {
            assert_eq!(of(kind, text).unwrap(), in_a_column(&data_type, text), "{kind} {text}");
        }
    }

    #[test]
    fn binary_durations_and_json_have_their_own_forms() {
        let uuid = of(KeyKind::Binary, "00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(uuid, of(KeyKind::Binary, "0x00112233445566778899AABBCCDDEEFF").unwrap());
        assert_eq!(uuid[..4], [encode::BINARY, 16, 0, 0x11]);
        assert_eq!(of(KeyKind::Duration, "-1500 ms").unwrap(), of(KeyKind::Duration, "-1500000us").unwrap());
        assert_eq!(of(KeyKind::Duration, "1d").unwrap(), of(KeyKind::Duration, "24h").unwrap());
        assert_eq!(of(KeyKind::Json, "{\"a\": 1.0}").unwrap(), of(KeyKind::Json, "{\"a\":1}").unwrap());
        assert_eq!(of(KeyKind::Json, "null").unwrap(), [encode::NULL]);
    }

    #[test]
    fn text_of_another_kind_is_refused_with_an_example() {
        for (kind, text) in [
            (KeyKind::Boolean, "yes"),
            (KeyKind::Integer, "1.0"),
            (KeyKind::Float, "one"),
            (KeyKind::Decimal, "1e5"),
            (KeyKind::Decimal, "."),
            (KeyKind::Binary, "0x123"),
            (KeyKind::Binary, "zz"),
            (KeyKind::Date, "31.1.2026"),
            (KeyKind::Time, "25:00:00"),
            (KeyKind::Instant, "2026-01-31T00:00:00"),
            (KeyKind::Timestamp, "2026-01-31T00:00:00Z"),
            (KeyKind::Duration, "5"),
            (KeyKind::Duration, "s"),
            (KeyKind::Json, "unquoted"),
        ] {
            let error = of(kind, text).unwrap_err();
            assert!(error.contains(text) && error.contains("expected") || kind == KeyKind::Json, "{error}");
        }
        assert!(of(KeyKind::Struct, "{}").unwrap_err().contains("struct"));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9a-fexT:.Zµé ]{0,40}") {
            use KeyKind::{Binary, Date, Decimal, Duration, Float, Instant, Integer, Json, Time, Timestamp};
            for kind in [Binary, Date, Decimal, Duration, Float, Instant, Integer, Json, Time, Timestamp] {
                let _ = of(kind, &text);
            }
        }
    }

    #[test]
    fn every_unit_of_a_duration_is_so_many_nanoseconds() {
        for (text, nanoseconds) in [
            ("7ns", 7),
            ("7us", 7_000),
            ("7ms", 7_000_000),
            ("-7s", -7_000_000_000),
            ("7 min", 420_000_000_000),
            ("+7h", 25_200_000_000_000),
            ("9223372036854775807d", i128::from(i64::MAX) * 86_400_000_000_000),
        ] {
            assert_eq!(duration(text), Some(nanoseconds), "{text}");
        }
        for text in ["7", "7 weeks", "7.5s", "s", "--7s", "9223372036854775808ns"] {
            assert_eq!(duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_decimal_has_up_to_76_significant_digits_wherever_its_point_is() {
        let of = |text: &str| of(KeyKind::Decimal, text).ok();
        let digits = "9".repeat(76);
        for text in [&digits, &format!("-{digits}000"), &format!("0.000{digits}")] {
            assert!(of(text).is_some(), "{text}");
        }
        assert!(of(&format!("{digits}9")).is_none() && of(&format!("0.{digits}9")).is_none());
        assert_eq!(of("+1.50"), of("1.5"));
        assert_ne!(of("-1.5"), of("1.5"));
        assert_eq!(of("100"), of("0100.00"));
        for text in ["", "+", "-", "+-1", "1.2.3", "1,5", " 1"] {
            assert!(of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn dashes_stand_in_a_uuid_where_they_belong_or_not_at_all() {
        let uuid = "00112233-4455-6677-8899-aabbccddeeff";
        let bytes = hexadecimal(uuid).unwrap();
        assert_eq!((bytes.len(), bytes[15]), (16, 0xff));
        for odd in [
            "0011223-34455-6677-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddee",
            "001122334455-6677-8899-aabbccddeeffff",
            "00-11",
            "0x0x11",
            "0x1",
        ] {
            assert_eq!(hexadecimal(odd), None, "{odd}");
        }
        assert_eq!(hexadecimal(""), Some(Vec::new()));
        assert_eq!(hexadecimal("0xAb"), Some(vec![0xab]));
    }
}
