//! Canonical JSON: one text for every JSON value, however it was written.
//!
//! For key columns of the extension type `arrow.json`. The form is described in [`super::encode`]. Linear in the text
//! but for the sorting of members; text that is not JSON is an `Err`, never a panic.

use super::encode;
use jiter::{Jiter, Peek};

/// Appends the encoding of a JSON text; says whether it is anything but the JSON value `null`.
pub(super) fn append(out: &mut Vec<u8>, text: &[u8]) -> bool {
    let start = out.len();
    let opened = encode::open(out, encode::JSON);
    match canonical(out, text) {
        Ok(Shape::Null) => {
            out.truncate(start);
            encode::null(out);
            return false;
        }
        Ok(Shape::Value) => {
            let length = out.len() - opened;
            encode::close(out, opened, length);
        }
        Err(NotJson) => {
            out.truncate(start);
            encode::bytes(out, encode::NOT_JSON, text);
        }
    }
    true
}

/// Whether the text is a JSON document of which a canonical form exists.
pub(super) fn is_json(text: &str) -> bool {
    canonical(&mut Vec::new(), text.as_bytes()).is_ok()
}

struct NotJson;

enum Shape {
    Null,
    Value,
}

/// Beyond this many levels a text is taken as it is; the walk is recursive.
const DEEPEST: usize = 256;

fn canonical(out: &mut Vec<u8>, text: &[u8]) -> Result<Shape, NotJson> {
    let mut parser = Jiter::new(text);
    let first = parser.peek().map_err(|_| NotJson)?;
    value(&mut parser, first, out, 0)?;
    parser.finish().map_err(|_| NotJson)?;
    Ok(if first == Peek::Null { Shape::Null } else { Shape::Value })
}

fn value(parser: &mut Jiter<'_>, peek: Peek, out: &mut Vec<u8>, depth: usize) -> Result<(), NotJson> {
    if depth > DEEPEST {
        return Err(NotJson);
    }
    match peek {
        Peek::Null => {
            parser.known_null().map_err(|_| NotJson)?;
            out.extend_from_slice(b"null");
        }
        Peek::True | Peek::False => {
            let truth = parser.known_bool(peek).map_err(|_| NotJson)?;
            out.extend_from_slice(if truth { b"true" } else { b"false" });
        }
        Peek::String => string(parser.known_str().map_err(|_| NotJson)?, out),
        Peek::Array => {
            out.push(b'[');
            let mut next = parser.known_array().map_err(|_| NotJson)?;
            let mut first = true;
            while let Some(peek) = next {
                if !std::mem::take(&mut first) {
                    out.push(b',');
                }
                value(parser, peek, out, depth + 1)?;
                next = parser.array_step().map_err(|_| NotJson)?;
            }
            out.push(b']');
        }
        Peek::Object => object(parser, out, depth)?,
        _ => number(parser.known_number_bytes(peek).map_err(|_| NotJson)?, out)?,
    }
    Ok(())
}

fn object(parser: &mut Jiter<'_>, out: &mut Vec<u8>, depth: usize) -> Result<(), NotJson> {
    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    let mut next = parser.known_object().map_err(|_| NotJson)?.map(str::to_owned);
    while let Some(name) = next {
        let peek = parser.peek().map_err(|_| NotJson)?;
        let mut text = Vec::new();
        value(parser, peek, &mut text, depth + 1)?;
        members.push((name, text));
        next = parser.next_key().map_err(|_| NotJson)?.map(str::to_owned);
    }
    // Stable: members of the same name keep their order, so no two texts that some reader tells apart become one.
    members.sort_by(|a, b| a.0.cmp(&b.0));
    out.push(b'{');
    for (position, (name, text)) in members.iter().enumerate() {
        if position > 0 {
            out.push(b',');
        }
        string(name, out);
        out.push(b':');
        out.extend_from_slice(text);
    }
    out.push(b'}');
    Ok(())
}

fn string(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            0..0x20 => out.extend_from_slice(format!("\\u{byte:04x}").as_bytes()),
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// A number lexeme by its decimal value: significant digits and an exponent of ten.
fn number(lexeme: &[u8], out: &mut Vec<u8>) -> Result<(), NotJson> {
    let text = std::str::from_utf8(lexeme).map_err(|_| NotJson)?;
    let (sign, text) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return Err(NotJson);
    }
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        out.push(b'0');
        return Ok(());
    }
    let dropped = digits.len() - digits.trim_end_matches('0').len();
    let exponent = power(exponent)? - fraction.len() as i128 + dropped as i128;
    out.extend_from_slice(format!("{sign}{significant}e{exponent}").as_bytes());
    Ok(())
}

fn power(text: &str) -> Result<i128, NotJson> {
    let digits = text.trim_start_matches(['+', '-']).trim_start_matches('0');
    if digits.len() > 30 {
        return Err(NotJson);
    }
    let size: i128 = if digits.is_empty() { 0 } else { digits.parse().map_err(|_| NotJson)? };
    Ok(if text.starts_with('-') { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::Value;

    fn of(text: &str) -> Option<String> {
        let mut out = Vec::new();
        canonical(&mut out, text.as_bytes()).ok()?;
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn white_space_order_escapes_and_ways_of_writing_numbers_do_not_matter() {
        let canonical = r#"{"a":[1e0,15e-1,null],"é\"":"\u000a/"}"#;
        for text in [
            r#" { "é\"" : "\n\/" , "a" : [ 1 , 1.5 , null ] } "#,
            r#"{"\u0061":[1.0,0.15e1,null],"\u00e9\u0022":"\u000A/"}"#,
            r#"{"a":[10e-1,150E-002,null],"é\"":"\n/"}"#,
        ] {
            assert_eq!(of(text).as_deref(), Some(canonical));
        }
    }

    #[test]
    fn numbers_are_taken_by_their_exact_decimal_value() {
        for (text, canonical) in [
            ("0", "0"),
            ("-0.000e17", "0"),
            ("100", "1e2"),
            ("-0.0120", "-12e-3"),
            ("9007199254740993", "9007199254740993e0"),
            ("0.1000000000000000055511151231257827", "1000000000000000055511151231257827e-34"),
            ("1e400", "1e400"),
            ("1e+0000000000000000000000000000000000000007", "1e7"),
        ] {
            assert_eq!(of(text).as_deref(), Some(canonical), "{text}");
        }
        assert_eq!(of(&format!("1e{}", "9".repeat(31))), None);
        let longest = "9".repeat(30);
        assert_eq!(of(&format!("1e{longest}")), Some(format!("1e{longest}")));
        assert_eq!(of(&format!("1e-{longest}")), Some(format!("1e-{longest}")));
        assert_eq!(of(&format!("0e{}", "9".repeat(31))).as_deref(), Some("0"));
    }

    #[test]
    fn text_that_is_not_json_is_taken_as_it_is() {
        for text in [
            "",
            " ",
            "nul",
            "[1,]",
            "{\"a\"}",
            "1 2",
            "01",
            "1.",
            "1e",
            "+1",
            "NaN",
            "-Infinity",
            "\"\\ud800\"",
        ] {
            assert_eq!(of(text), None, "{text}");
            assert!(!is_json(text));
            let (mut out, mut expected) = (Vec::new(), Vec::new());
            assert!(append(&mut out, text.as_bytes()));
            encode::bytes(&mut expected, encode::NOT_JSON, text.as_bytes());
            assert_eq!(out, expected);
        }
    }

    #[test]
    fn the_json_value_null_is_null_and_the_text_null_is_not() {
        let mut out = Vec::new();
        assert!(!append(&mut out, b" null "));
        assert_eq!(out, [encode::NULL]);
        assert!(append(&mut out, b"\"null\""));
        assert!(append(&mut out, b"[null]"));
    }

    #[test]
    fn depth_is_bounded_and_members_of_one_name_keep_their_order() {
        let deep = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        // 256 levels below the outermost one.
        assert!(of(&deep(257)).is_some() && of(&deep(258)).is_none());
        let objects = |levels: usize| "{\"a\":".repeat(levels) + "1" + &"}".repeat(levels);
        assert!(of(&objects(256)).is_some() && of(&objects(257)).is_none());
        assert!(of(&deep(100_000)).is_none());
        assert_ne!(of(r#"{"a":1,"a":2}"#), of(r#"{"a":2,"a":1}"#));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            "[a-c\"\\\\\u{0}-\u{1f}é]{0,3}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c]{0,2}", inner, 0..4)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_and_canonical_text_is_its_own_form(text in "[\\[\\]{}:,\"a-c0-9.eE+\\- \\\\u]{0,40}") {
            if let Some(canonical) = of(&text) {
                prop_assert_eq!(of(&canonical), Some(canonical));
            }
        }

        #[test]
        fn two_values_have_the_same_text_exactly_when_they_are_equal(a in any_json(), b in any_json()) {
            let pretty = serde_json::to_string_pretty(&a).unwrap();
            prop_assert_eq!(of(&a.to_string()), of(&pretty));
            prop_assert_eq!(of(&a.to_string()) == of(&b.to_string()), a == b);
        }
    }
}
