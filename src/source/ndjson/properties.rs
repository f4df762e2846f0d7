//! Properties of inference and decoding together, held against serde_json's reading of the same lines.

use super::oracle::{block, blocks, decode, expected_members, infer, row_value};
use super::*;
use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use proptest::prelude::*;
use serde_json::{Map, Number, Value, json};
use std::sync::Arc;

fn number() -> impl Strategy<Value = Value> + Clone {
    prop_oneof![
        4 => (-20i64..20).prop_map(Value::from),
        1 => any::<i64>().prop_map(Value::from),
        1 => any::<u64>().prop_map(Value::from),
        2 => any::<i16>().prop_map(|v| Value::from(f64::from(v) / 8.0)),
        1 => any::<f64>().prop_filter_map("finite", |v| Number::from_f64(v).map(Value::from)),
    ]
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        3 => number(),
        2 => "[a-z\"\\\\\u{0}\u{e9}\u{1F600}\n]{0,6}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            object(inner).prop_map(Value::Object),
        ]
    })
}

fn object(value: impl Strategy<Value = Value>) -> impl Strategy<Value = Map<String, Value>> {
    let name =
        prop::sample::select(vec!["a", "b", "c", "d.e", "\u{e9}\"\n", "a\\u0062", "a\"b", "a\tb", "ab", ""]);
    prop::collection::vec((name, value), 0..5)
        .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Rows whose members mostly keep their type from row to row, as real ones do.
fn rows() -> impl Strategy<Value = Vec<Map<String, Value>>> {
    let steady = (number(), any::<i32>(), "[a-z]{0,3}", prop::collection::vec(-9i64..9, 0..3), any::<u8>())
        .prop_map(|(number, int, text, list, which)| {
            let mut row = Map::new();
            let nested = json!({"n": int, "l": [{"x": text}, {"y": list.clone(), "x": null}], "f": number});
            let all =
                [("i", json!(int)), ("f", number), ("t", json!(text)), ("l", json!(list)), ("s", nested)];
            for (i, (name, value)) in all.into_iter().enumerate() {
                if which >> i & 1 == 1 {
                    row.insert(name.to_owned(), if which >> 5 == 1 { Value::Null } else { value });
                }
            }
            row
        });
    prop_oneof![
        prop::collection::vec(object(any_value()), 0..12),
        prop::collection::vec(steady.clone(), 0..12),
        prop::collection::vec(prop_oneof![9 => steady, 1 => object(any_value())], 0..12),
    ]
}

fn text(rows: &[Map<String, Value>]) -> Vec<u8> {
    rows.iter().flat_map(|row| (serde_json::to_string(row).unwrap() + "\n").into_bytes()).collect()
}

/// The member names in order of appearance.
fn names(rows: &[Map<String, Value>]) -> Vec<String> {
    let mut names: Vec<String> = vec![];
    for name in rows.iter().flat_map(|row| row.keys()) {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

fn check_rows(schema: &Schema, decoded: &Decoded, rows: &[&Map<String, Value>]) -> Result<(), TestCaseError> {
    prop_assert_eq!(decoded.batch.num_rows(), rows.len());
    for (i, row) in rows.iter().enumerate() {
        prop_assert_eq!(row_value(&decoded.batch, i), expected_members(schema.fields(), row), "{:?}", schema);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_row_fits_the_schema_inferred_from_it_and_comes_back_value_by_value(rows in rows()) {
        let block = block(&text(&rows));
        let schema = infer(std::slice::from_ref(&block));
        let found: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        prop_assert_eq!(found, names(&rows));
        let decoded = decode(&schema, &block);
        prop_assert_eq!(&decoded.bad, &vec![]);
        prop_assert!(!decoded.unknown_fields);
        check_rows(&schema, &decoded, &rows.iter().collect::<Vec<_>>())?;
        prop_assert_eq!(decoded.lines, (1..=rows.len() as u64).collect::<Vec<_>>());
    }

    #[test]
    fn nothing_depends_on_how_the_input_is_cut_or_inferences_are_grouped(
        rows in rows(), size in 1usize..300, split in 0usize..12, broken in prop::collection::vec(0usize..12, 0..3),
    ) {
        let mut lines: Vec<String> = rows.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        for at in broken {
            lines.insert(at.min(lines.len()), "{\"i\":1,\"new\":\"x\",\"s\":{\"n\":1,\"l\":[".to_owned());
        }
        let text = (lines.join("\n") + "\n").into_bytes();
        let (whole, parts) = (block(&text), blocks(&text, size));
        let mut all = Inference::new();
        all.observe(&whole);
        let each: Vec<Inference> = parts.iter().map(|part| { let mut one = Inference::new(); one.observe(part); one }).collect();
        let (left, right) = each.split_at(split.min(each.len()));
        let merged = |parts: &[Inference]| parts.iter().cloned().fold(Inference::new(), |mut sum, one| { sum.merge(one); sum });
        let mut grouped = merged(left);
        grouped.merge(merged(right));
        prop_assert_eq!(&merged(&each), &all);
        prop_assert_eq!(&grouped, &all);

        let schema = all.finish().unwrap();
        let once = decode(&schema, &whole);
        let by_part: Vec<Decoded> = parts.iter().map(|part| decode(&schema, part)).collect();
        let batches: Vec<RecordBatch> = by_part.iter().map(|d| d.batch.clone()).collect();
        if !schema.fields().is_empty() {
            let joined = arrow::compute::concat_batches(&Arc::new(schema), &batches).unwrap();
            prop_assert_eq!(joined, once.batch);
        }
        prop_assert_eq!(by_part.iter().flat_map(|d| d.lines.clone()).collect::<Vec<_>>(), once.lines);
        prop_assert_eq!(by_part.iter().flat_map(|d| d.offsets.clone()).collect::<Vec<_>>(), once.offsets);
        prop_assert_eq!(by_part.iter().flat_map(|d| d.bad.clone()).collect::<Vec<_>>(), once.bad);
    }

    #[test]
    fn what_is_read_quickly_is_what_is_read_strictly(
        first in rows(), second in rows(), spaces in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        let schema = infer(&[block(&text(&first))]);
        let mut lines = [text(&first), text(&second)].concat();
        if spaces {
            lines = lines.iter().flat_map(|byte| if b",:{}[]".contains(byte) { vec![b' ', *byte, b' '] } else { vec![*byte] }).collect();
        }
        for (at, byte) in flips {
            if !lines.is_empty() {
                let at = at.index(lines.len());
                lines[at] = byte;
            }
        }
        let block = block(&lines);
        let decoder = Decoder::new(Arc::new(schema)).unwrap();
        let (quick, strict) = (decoder.decode_trusting(&block, i32::MAX / 2).unwrap(), decoder.decode_trusting(&block, -1).unwrap());
        prop_assert_eq!(quick.batch, strict.batch);
        prop_assert_eq!((quick.lines, quick.offsets), (strict.lines, strict.offsets));
        prop_assert_eq!((quick.bad, quick.unknown_fields), (strict.bad, strict.unknown_fields));
    }

    #[test]
    fn rows_without_news_leave_the_schema_as_it_was_made_of_the_first(
        first in rows(), second in rows(), trust in prop_oneof![Just(-1), Just(64), Just(i32::MAX / 2)],
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
    ) {
        let mut lines = text(&second);
        for (at, byte) in flips {
            if !lines.is_empty() {
                let at = at.index(lines.len());
                lines[at] = byte;
            }
        }
        let (before, after) = (block(&text(&first)), block(&lines));
        let mut known = Inference::new();
        known.observe(&before);
        let mut all = known.clone();
        all.observe(&after);
        let schema = known.clone().finish().unwrap();
        let decoder = Decoder::new(Arc::new(schema.clone())).unwrap().of(Some(Arc::new(known.clone())));
        let decoded = decoder.decode_trusting(&after, trust).unwrap();
        if all == known {
            prop_assert!(!decoded.news);
        }
        if !decoded.news {
            prop_assert_eq!(all.finish().unwrap(), schema.clone());
        }
        // And nothing else depends on it.
        let plain = Decoder::new(Arc::new(schema)).unwrap().decode_trusting(&after, trust).unwrap();
        prop_assert!(!plain.news);
        prop_assert_eq!((plain.batch, plain.bad, plain.lines), (decoded.batch, decoded.bad, decoded.lines));
    }

    #[test]
    fn a_contract_widened_by_what_it_lacks_keeps_every_accepted_row_whole(first in rows(), second in rows()) {
        let contract = infer(&[block(&text(&first))]);
        let block = block(&text(&second));
        let before = decode(&contract, &block);
        let mut inference = Inference::new();
        inference.observe_accepted(&block, &before);
        let widened = inference.widen(&contract).unwrap();
        prop_assert_eq!(widened.fields().iter().take(contract.fields().len()).map(|f| f.name()).collect::<Vec<_>>(),
            contract.fields().iter().map(|f| f.name()).collect::<Vec<_>>());
        prop_assert!(before.unknown_fields || widened == contract);

        let after = decode(&widened, &block);
        prop_assert!(!after.unknown_fields);
        // The same rows are refused, though perhaps for another of their members.
        let lines = |decoded: &Decoded| decoded.bad.iter().map(|bad| bad.line).collect::<Vec<_>>();
        prop_assert_eq!(lines(&after), lines(&before));
        let accepted: Vec<&Map<String, Value>> = after.lines.iter().map(|line| &second[*line as usize - 1]).collect();
        check_rows(&widened, &after, &accepted)?;
        // Nothing but nulls may be missing.
        for (i, row) in accepted.iter().enumerate() {
            prop_assert_eq!(row_value(&after.batch, i).as_object().unwrap().len(), row.values().filter(|v| !v.is_null()).count());
        }
        for bad in &after.bad {
            prop_assert!(bad.reason.starts_with("column "), "{}", bad.reason);
        }
    }
}
