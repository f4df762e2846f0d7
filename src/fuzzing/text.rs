//! NDJSON against serde_json, and everything else that is read as text.

use super::Choices;
use crate::cli::fuzzing as cli;
use crate::ledger::name::StagedName;
use crate::ledger::seal::seal;
use crate::ledger::{TableIdentity, name};
use crate::sink::{CompressionChoice, Partition};
use crate::source::discover::fuzz_pattern;
use crate::source::ndjson::oracle::{Strict, expected_members, is_row, row_value};
use crate::source::ndjson::{
    Block, Decoder, Inference, Line, Lines, json_field, schema_of_file, text_of_schema,
};
use crate::store::{Place, display_safe};
use crate::token::{KeyColumn, KeyKind, TokenHash, TokenKey, TokenSpec, resolve};
use arrow_schema::Schema;
use std::sync::Arc;

/// Lines are cut, inferred and decoded: exactly the lines that a strict parser reads become rows, and an inferred
/// schema gives every value back.
pub fn ndjson(bytes: &[u8]) {
    let mut choices = Choices(bytes);
    let (size, limit) = (choices.below(4096) as usize, choices.below(8192) as usize + 1);
    let text = choices.0;
    let mut lines = Lines::new(text, size, limit);
    let mut blocks = Vec::new();
    while let Some(block) = lines.next_block().unwrap() {
        blocks.push(block);
    }
    let mut inference = Inference::new();
    blocks.iter().for_each(|block| inference.observe(block));
    let inferred = inference.finish();
    let known = Schema::new(vec![json_field("a"), json_field("id")]);
    let mut schemas = vec![Schema::empty(), known];
    schemas.extend(inferred.ok());
    let lines: Vec<Vec<(Line<'_>, Option<bool>)>> =
        blocks.iter().map(|block| block.lines().map(|line| (line, is_row(line.bytes))).collect()).collect();
    for block in &blocks {
        assert!(block.lines().all(|line| line.bytes.len() <= limit));
        let split = block.clone().split(1 + size % 7);
        assert!(split.iter().flat_map(Block::lines).eq(block.lines()), "{block:?} is not {split:?}");
    }
    for (at, schema) in schemas.into_iter().enumerate() {
        let decoder = Decoder::new(Arc::new(schema)).unwrap();
        for (block, lines) in blocks.iter().zip(&lines) {
            let decoded = decoder.decode(block).unwrap();
            assert_eq!(decoded.batch.num_rows(), decoded.lines.len());
            let mut rows = decoded.lines.iter().enumerate();
            let mut next = rows.next();
            for (line, is_row) in lines {
                let row = next.filter(|(_, number)| **number == line.number);
                if let Some(is_row) = is_row {
                    assert_eq!(row.is_some(), *is_row, "{:?}", String::from_utf8_lossy(line.bytes));
                }
                let Some((row, _)) = row else { continue };
                if let (2, Ok(given)) = (at, serde_json::from_slice(line.bytes)) {
                    let found = row_value(&decoded.batch, row);
                    assert_eq!(found, expected_members(decoder.schema().fields(), &given));
                }
                next = rows.next();
            }
        }
    }
}

/// What people and tables write as text: locations, patterns, sizes, keys, values, schemas, names, `table.json`.
pub fn text(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match which % 10 {
        0 => {
            let shown = display_safe(text);
            let told = match Place::parse(text) {
                Ok(place) => format!("{place:?}"),
                Err(error) => error.to_string(),
            };
            assert!(!shown.is_empty() || text.is_empty());
            assert!(!told.is_empty());
        }
        // A secret in every place where a location can hold one.
        1 => {
            const SECRET: &str = "pl4nted";
            if text.contains(SECRET) {
                return;
            }
            let host: String = text.chars().filter(char::is_ascii_alphabetic).take(20).collect();
            for location in [
                format!("s3://user:{SECRET}@{host}/{text}"),
                format!("s3://{SECRET}@{host}/{text}"),
                format!("gs://{host}/{text}?X-Sig={SECRET}"),
                format!("https://{host}/?sig={SECRET}&{text}"),
                format!("abfss://{host}:{SECRET}@account/{text}"),
                format!("{host}x://{host}:{SECRET}@{text}"),
            ] {
                let told = Place::parse(&location).expect_err(&location).to_string();
                assert!(!told.contains(SECRET), "{told}");
                assert!(!display_safe(&location).contains(SECRET), "{location}");
            }
        }
        2 => {
            let (pattern, name) = text.split_once('\n').unwrap_or((text, "a/b.json"));
            // Deep patterns over deep names cost their product: those of a command line are short.
            if pattern.matches("**").count() <= 4 && name.len() < 200 {
                fuzz_pattern(pattern, name);
            }
        }
        3 => cli::values(text),
        4 => {
            if let Ok(schema) = schema_of_file(text) {
                assert_eq!(schema_of_file(&text_of_schema(&schema)).unwrap(), schema);
                let _ = Decoder::new(Arc::new(schema.clone()));
                let (first, _) = text.split_once('.').unwrap_or((text, ""));
                let _ = resolve(schema.fields(), first);
            }
        }
        5 => {
            use KeyKind::{
                Binary, Boolean, Date, Decimal, Duration, Float, Instant, Integer, Json, List, Map, Struct,
                Text, Time, Timestamp,
            };
            let kinds = [
                Boolean, Integer, Float, Decimal, Text, Binary, Date, Time, Instant, Timestamp, Duration,
                Json, Struct, List, Map,
            ];
            for kind in kinds {
                let column = KeyColumn { name: "k".into(), path: vec!["k".into()], kind };
                let (hash, key) = (TokenHash::SipHash24, TokenKey::from_bytes([1; 16]));
                let spec = TokenSpec { encoding: 1, hash, key, columns: vec![column] };
                let _ = spec.token_of_text(&[("k".into(), Some(text.into()))]);
            }
        }
        6 => {
            let _ = Partition::parse(text);
            let _ = text.parse::<CompressionChoice>();
            let _ = text.parse::<TokenHash>();
        }
        7 => {
            if let Some(staged) = StagedName::parse(text) {
                let again = StagedName::parse(&staged.to_string()).unwrap();
                assert_eq!(again, staged);
            }
            if let Some(version) = name::manifest_version(text) {
                assert_eq!(name::manifest(version), text);
            }
        }
        8 => {
            // Damage of any kind to the text that holds the key must not bring the key into a message.
            let key = "00112233445566778899aabbccddeeff";
            let sound = format!(
                "{{\"format\":1,\"table\":\"t\",\"token\":{{\"encoding\":1,\"hash\":\"siphash-2-4-128\",\"key\":\"{key}\",\"columns\":[]}}}}"
            );
            let at = usize::from(rest.first().copied().unwrap_or(0)) % sound.len();
            let damaged = format!("{}{text}{}", &sound[..at], &sound[at..]);
            for bytes in [damaged.as_bytes(), text.as_bytes()] {
                let sealed = seal(bytes);
                match TableIdentity::decode("table.json", sealed.as_deref().unwrap_or(bytes)) {
                    Ok(identity) => assert!(!format!("{identity:?}").contains(key)),
                    Err(error) => assert!(!error.to_string().contains(&key[..8]) || text.contains(&key[..8])),
                }
            }
        }
        _ => {
            let _ = crate::token::encode::ENCODING;
            let column = KeyColumn { name: "k".into(), path: vec!["k".into()], kind: KeyKind::Json };
            let spec = TokenSpec {
                encoding: 1,
                hash: TokenHash::Xxh3,
                key: TokenKey::from_bytes([1; 16]),
                columns: vec![column],
            };
            let token = |text: &str| spec.token_of_text(&[("k".into(), Some(text.into()))]).ok();
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
                // The same document, laid out otherwise, is the same key.
                let pretty = serde_json::to_string_pretty(&value).unwrap();
                if serde_json::from_str::<Strict>(text).is_ok() && !has_float(&value) {
                    assert_eq!(token(text), token(&pretty), "{text}");
                }
            }
        }
    }
}

/// Whether a number would be changed by going through a float.
fn has_float(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Number(number) => number.is_f64(),
        serde_json::Value::Array(items) => items.iter().any(has_float),
        serde_json::Value::Object(members) => members.values().any(has_float),
        _ => false,
    }
}
