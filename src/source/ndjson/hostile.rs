//! Lines that nobody should send, each with its outcome, and files made to break parsers.

use super::oracle::{block, decode, infer, is_row, row_value};
use super::*;
use arrow::datatypes::Schema;
use proptest::prelude::*;
use std::collections::HashSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// The reasons of the bad lines, by line number.
fn reasons(schema: &Schema, text: &[u8]) -> Vec<(u64, String)> {
    decode(schema, &block(text)).bad.into_iter().map(|bad| (bad.line, bad.reason)).collect()
}

#[test]
fn each_bad_line_is_named_with_its_place_and_its_neighbours_survive() {
    let lines: [(&[u8], &str); 14] = [
        (b"{\"a\":1", "malformed JSON at byte 6"),
        (b"[1,2]", "a list, where a row must be an object"),
        (b"12", "a number, where a row must be an object"),
        (b"{\"a\":1}{\"a\":2}", "malformed JSON at byte 7: trailing characters"),
        (b"{\"a\":1,}", "trailing comma"),
        (b"{\"a\":\"x\"}", "column a: text \"x\" where int64 is expected"),
        (b"{\"a\":\"12\"}", "column a: text \"12\" where int64 is expected"),
        (b"{\"a\":1.5}", "column a: 1.5 does not fit int64"),
        (b"{\"a\":9223372036854775808}", "column a: 9223372036854775808 does not fit int64"),
        (b"{\"s\":{\"t\":12}}", "column s.t: 12 where text is expected"),
        (b"{\"s\":{\"t\":\"\xFF\"}}", "invalid UTF-8 at byte 11"),
        (b"{\"s\":{\"t\":\"\\ud800\"}}", "malformed JSON at byte 17"),
        (b"{\"a\":1,\"\\u0061\":1}", "member \"a\" stands twice in one object"),
        (b"{\"x\":1,\"x\":1}", "member \"x\" stands twice in one object"),
    ];
    let good: &[u8] = b"{\"a\":1,\"s\":{\"t\":\"x\"}}";
    let schema = infer(&[block(good)]);
    let mut text = [good, b"\n"].concat();
    for (line, _) in lines {
        text.extend([line, b"\n", good, b"\r\n"].concat());
    }
    let decoded = decode(&schema, &block(&text));
    assert_eq!(decoded.batch.num_rows(), lines.len() + 1);
    assert!(!decoded.unknown_fields);
    for row in 0..decoded.batch.num_rows() {
        assert_eq!(
            row_value(&decoded.batch, row),
            serde_json::from_slice::<serde_json::Value>(good).unwrap()
        );
    }
    assert_eq!(decoded.bad.len(), lines.len());
    for (i, (bad, (line, reason))) in decoded.bad.iter().zip(lines).enumerate() {
        assert_eq!(bad.line, 2 * i as u64 + 2);
        assert_eq!(bad.raw, line);
        assert_eq!(&text[bad.offset as usize..][..line.len()], line);
        assert!(bad.reason.contains(reason), "{} / {reason}", bad.reason);
    }
}

#[test]
fn broken_json_after_a_misfit_still_rejects_only_its_own_line() {
    let schema = infer(&[block(b"{\"l\":[{\"a\":1}],\"m\":{\"n\":[[1]]}}")]);
    let text = b"{\"l\":[{\"a\":7},{\"a\":8},{\"a\":\"x\"}]}\n{\"m\":{\"n\":[[5],[6,\n{\"l\":[{\"a\":2}],\"m\":{\"n\":[[],[3]]}}";
    let decoded = decode(&schema, &block(text));
    assert_eq!(decoded.bad.len(), 2, "{:?}", decoded.bad);
    assert_eq!(row_value(&decoded.batch, 0), serde_json::json!({"l": [{"a": 2}], "m": {"n": [[], [3]]}}));
}

#[test]
fn a_file_in_utf_16_is_called_that() {
    let text: Vec<u8> = "\u{feff}{\"a\":1}".encode_utf16().flat_map(u16::to_le_bytes).collect();
    assert!(reasons(&Schema::empty(), &text)[0].1.contains("UTF-16"));
}

#[test]
fn nesting_is_limited_alike_in_known_and_unknown_members() {
    let nested = |n: usize| format!("{{\"a\":{}{}}}", "[".repeat(n), "]".repeat(n)).into_bytes();
    let known = Schema::new(vec![json_field("a")]);
    for schema in [Schema::empty(), known] {
        assert!(reasons(&schema, &nested(MAX_DEPTH - 1)).is_empty());
        assert!(reasons(&schema, &nested(MAX_DEPTH))[0].1.contains("more than 128"));
        assert!(reasons(&schema, &nested(2_000_000))[0].1.contains("more than 128"));
    }
    let deep = format!("{}1{}", "{\"a\":".repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH)).into_bytes();
    let schema = infer(&[block(&deep)]);
    assert!(reasons(&schema, &deep).is_empty());
    let deeper = format!("{}1{}", "{\"a\":".repeat(MAX_DEPTH + 1), "}".repeat(MAX_DEPTH + 1)).into_bytes();
    assert_eq!(reasons(&schema, &deeper).len(), 1);
    assert!(infer(&[block(&deeper)]).fields().is_empty());
}

#[test]
fn objects_used_as_dictionaries_become_json_text_and_absurd_width_is_refused() {
    let wide = |n: usize| (0..n).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(",");
    let text = format!("{{\"d\":{{{}}}}}\n{{\"d\":{{{}}}}}", wide(MAX_MEMBERS), wide(MAX_MEMBERS + 1));
    let schema = infer(&[block(text.as_bytes())]);
    assert!(is_json(schema.field(0)));
    assert!(reasons(&schema, text.as_bytes()).is_empty());
    let mut inference = Inference::new();
    inference.observe(&block(format!("{{{}}}", wide(20_000)).as_bytes()));
    assert!(inference.finish().unwrap_err().to_string().contains("--schema"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn exactly_the_lines_that_a_strict_parser_reads_become_rows(
        pieces in prop::collection::vec(prop::sample::select(vec![
            &b"{"[..], b"}", b"[", b"]", b":", b",", b"\"a\"", b"\"b\"", b"\"\\u0061\"", b"\"\\ud83d\\ude00\"", b"\"\\udc00\"",
            b"1", b"-", b"0", b".5", b"e3", b"true", b"null", b"nul", b" ", b"\t", b"\"", b"\\", b"\xFF", b"\xC3\xA9", b"\x00",
            b"\"a\":1", b"{\"a\":", b"\"c\":[]", b"{\"b\":[{},{}]}",
        ]), 0..14),
        wrap in any::<bool>(),
    ) {
        let inner = pieces.concat();
        let line = if wrap { [b"{\"a\":", &inner[..], b"}"].concat() } else { inner };
        let rows = usize::from(is_row(&line) == Some(true));
        let known = Schema::new(vec![json_field("a"), json_field("c")]);
        for schema in [Schema::empty(), known, infer(&[block(&line)])] {
            let decoded = decode(&schema, &block(&line));
            prop_assert_eq!(decoded.batch.num_rows(), rows, "{:?} {:?}", String::from_utf8_lossy(&line), decoded.bad);
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), size in 1usize..64, max in 0usize..64) {
        let mut lines = Lines::new(&bytes[..], size, max);
        while let Some(block) = lines.next_block().unwrap() {
            decode(&infer(std::slice::from_ref(&block)), &block);
        }
    }
}

/// The folder of real files, where there is one.
fn realdata() -> Option<PathBuf> {
    std::env::var_os("DEDUPE_REALDATA").map(PathBuf::from).filter(|folder| folder.is_dir())
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = vec![];
    for entry in walkdir::WalkDir::new(folder).sort_by_file_name() {
        let entry = entry.unwrap();
        if entry.file_type().is_file() {
            found.push(entry.into_path());
        }
    }
    found
}

#[test]
fn every_file_of_the_hostile_suite_has_a_clean_outcome() {
    let Some(folder) = realdata() else { return };
    let mut rows = 0;
    for file in files(&folder.join("json_hostile")) {
        let bytes = std::fs::read(&file).unwrap();
        let block = block(&bytes);
        let schema = infer(std::slice::from_ref(&block));
        let decoded = decode(&schema, &block);
        let bad: HashSet<u64> = decoded.bad.iter().map(|bad| bad.line).collect();
        for line in block.lines() {
            if let Some(is_row) = is_row(line.bytes) {
                assert!(bad.contains(&line.number) != is_row, "{file:?} line {}", line.number);
            }
        }
        rows += decoded.batch.num_rows();
    }
    assert!(rows > 0);
}

#[test]
fn every_real_event_fits_the_schema_inferred_from_its_file_and_is_read_as_serde_json_reads_it() {
    let Some(folder) = realdata() else { return };
    for file in files(&folder.join("events")).iter().filter(|f| f.extension().is_some_and(|e| e == "gz")) {
        let mut bytes = vec![];
        flate2::read::MultiGzDecoder::new(std::fs::File::open(file).unwrap())
            .read_to_end(&mut bytes)
            .unwrap();
        let block = Block { bytes, first_line: 1, offset: 0, overlong: vec![] };
        let schema = infer(std::slice::from_ref(&block));
        let decoded = decode(&schema, &block);
        assert_eq!(decoded.bad, vec![], "{file:?}");
        for (i, line) in block.lines().enumerate() {
            let given: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(line.bytes).unwrap();
            assert_eq!(
                row_value(&decoded.batch, i),
                super::oracle::expected_members(schema.fields(), &given)
            );
        }
    }
}
