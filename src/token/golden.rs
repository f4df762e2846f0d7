//! Golden vectors: values of every Arrow type that can be a key, with their bytes and tokens, in
//! `testdata/golden/tokens-v1.json`. A change of any of them is a new version of the encoding, never a new file.

use super::{Token, TokenHash, TokenKey, TokenSpec, hash::Hasher, layout};
use arrow::{
    array::{
        Array, ArrayRef, BinaryArray, BooleanArray, Decimal128Array, Decimal256Array, FixedSizeBinaryArray,
        Float16Array, Float32Array, Float64Array, Int64Array, MapArray, NullArray, RecordBatch, RunArray,
        StringArray, StructArray, UInt64Array,
    },
    buffer::{NullBuffer, OffsetBuffer},
    compute::cast,
    datatypes::{Float64Type, Int32Type, i256},
    util::display::{ArrayFormatter, FormatOptions},
};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit, extension::EXTENSION_TYPE_NAME_KEY};
use half::f16;
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, sync::Arc};

/// The key of the vectors: the bytes 0 to 15.
fn key() -> TokenKey {
    TokenKey::from_bytes(std::array::from_fn(|i| i as u8))
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    note: String,
    encoding: u32,
    key: TokenKey,
    vectors: Vec<Vector>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Vector {
    #[serde(rename = "type")]
    data_type: String,
    value: String,
    bytes: String,
    #[serde(rename = "siphash-2-4-128")]
    sip: String,
    #[serde(rename = "xxh3-128")]
    xxh3: String,
}

fn path() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "testdata", "golden", "tokens-v1.json"].iter().collect()
}

#[test]
fn no_golden_vector_has_changed() {
    let text = std::fs::read_to_string(path()).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    assert_eq!(golden.encoding, super::encode::ENCODING);
    let now = vectors();
    for (golden, now) in golden.vectors.iter().zip(&now) {
        assert_eq!(golden, now, "the encoding has changed: existing tables would forget their keys");
    }
    assert_eq!(golden.vectors.len(), now.len());
    assert!(golden.vectors.len() > 250);
}

#[test]
fn golden_vectors_with_the_same_bytes_are_exactly_those_with_the_same_token() {
    let vectors = vectors();
    for one in &vectors {
        for other in &vectors {
            assert_eq!(one.bytes == other.bytes, one.sip == other.sip);
            assert_eq!(one.bytes == other.bytes, one.xxh3 == other.xxh3);
        }
    }
}

/// Only for a *new* version of the encoding: `cargo test --lib regenerate -- --ignored`. What exists is left alone.
#[test]
#[ignore = "writes the golden file; only for a new version of the encoding"]
fn regenerate_the_golden_vectors() {
    if path().exists() {
        return;
    }
    let golden = Golden {
        note: "Keys of one column. Values are as Arrow shows them; times, dates and durations are the stored numbers. \
               Bytes and tokens are hexadecimal."
            .to_owned(),
        encoding: super::encode::ENCODING,
        key: key(),
        vectors: vectors(),
    };
    std::fs::write(path(), serde_json::to_string_pretty(&golden).unwrap() + "\n").unwrap();
}

fn vectors() -> Vec<Vector> {
    let mut vectors = Vec::new();
    for (field, array, labels) in columns() {
        let column = layout::column(&field, &array).unwrap();
        let through = |hash| tokens(&field, &array, hash);
        let (sip, xxh3) = (through(TokenHash::SipHash24), through(TokenHash::Xxh3));
        let sip_alone = Hasher::new(TokenHash::SipHash24, &key());
        let shown = labels.unwrap_or_else(|| shown(&array));
        for (row, value) in shown.into_iter().enumerate() {
            let mut bytes = Vec::new();
            column.append(row, &mut bytes);
            if let Some(sip) = &sip {
                assert_eq!(sip[row], sip_alone.token(&bytes));
            }
            let token = |all: &Option<Vec<Token>>, hash| {
                all.as_ref()
                    .map_or_else(|| Hasher::new(hash, &key()).token(&bytes), |all| all[row])
                    .to_string()
            };
            let extension = field.metadata().get(EXTENSION_TYPE_NAME_KEY);
            vectors.push(Vector {
                data_type: extension.cloned().unwrap_or_else(|| field.data_type().to_string()),
                value,
                bytes: bytes.iter().map(|b| format!("{b:02x}")).collect(),
                sip: token(&sip, TokenHash::SipHash24),
                xxh3: token(&xxh3, TokenHash::Xxh3),
            });
        }
    }
    vectors
}

/// By the public way; `None` for a column of the type Null, of which no table can be made.
fn tokens(field: &Field, array: &ArrayRef, hash: TokenHash) -> Option<Vec<Token>> {
    let schema = Arc::new(Schema::new(vec![field.clone()]));
    let spec = TokenSpec::new(&[field.name().clone()], &schema, hash, key()).ok()?;
    let batch = RecordBatch::try_new(schema.clone(), vec![array.clone()]).unwrap();
    Some(spec.bind(&schema, "golden").unwrap().tokenise(&batch).unwrap().tokens)
}

fn shown(array: &ArrayRef) -> Vec<String> {
    let options = FormatOptions::new().with_null("null");
    let shown = ArrayFormatter::try_new(array, &options).unwrap();
    (0..array.len()).map(|row| shown.value(row).to_string()).collect()
}

type Case = (Field, ArrayRef, Option<Vec<String>>);

fn columns() -> Vec<Case> {
    let mut cases = Vec::new();
    scalars(&mut cases);
    times(&mut cases);
    strings(&mut cases);
    nested(&mut cases);
    cases
}

fn case(array: impl Array + 'static) -> Case {
    let array = Arc::new(array) as ArrayRef;
    (Field::new("k", array.data_type().clone(), true), array, None)
}

fn case_of(array: ArrayRef, labels: Option<Vec<String>>) -> Case {
    (Field::new("k", array.data_type().clone(), true), array, labels)
}

fn scalars(cases: &mut Vec<Case>) {
    use DataType::{Decimal32, Decimal64, Decimal128, Int8, Int16, Int32, UInt8, UInt16, UInt32};
    cases.push(case(NullArray::new(1)));
    cases.push(case(BooleanArray::from(vec![Some(false), Some(true), None])));
    for (data_type, low, high) in [
        (Int8, i8::MIN.into(), i8::MAX.into()),
        (Int16, i16::MIN.into(), i16::MAX.into()),
        (Int32, i32::MIN.into(), i32::MAX.into()),
        (DataType::Int64, i64::MIN, i64::MAX),
        (UInt8, 0, u8::MAX.into()),
        (UInt16, 0, u16::MAX.into()),
        (UInt32, 0, u32::MAX.into()),
    ] {
        let values =
            Int64Array::from(vec![Some(0), Some(1), Some(5), Some(low), Some(low / 2), Some(high), None]);
        cases.push(case_of(cast(&values, &data_type).unwrap(), None));
    }
    cases.push(case(UInt64Array::from(vec![0, 5, i64::MAX as u64, i64::MAX as u64 + 1, u64::MAX])));
    let halves = [0.0, -0.0, 1.0, -1.5, 65504.0, 6.0e-8, f32::NAN, f32::INFINITY, f32::NEG_INFINITY];
    cases.push(case(Float16Array::from_iter_values(halves.map(f16::from_f32))));
    cases.push(case(Float32Array::from_iter_values(halves.into_iter().chain([
        0.1,
        f32::MIN,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
    ]))));
    let doubles = [0.1, f64::MIN, f64::MAX, f64::MIN_POSITIVE, f64::from_bits(1), -f64::NAN];
    cases.push(case(Float64Array::from_iter_values(halves.map(f64::from).into_iter().chain(doubles))));
    let small = [0, 1, -1, 10, -1500, 99_999];
    for data_type in [Decimal32(9, 2), Decimal64(18, 2), Decimal128(38, 2), Decimal128(38, 0)] {
        let values = Decimal128Array::from_iter_values(small).with_precision_and_scale(38, 2).unwrap();
        cases.push(case_of(cast(&values, &data_type).unwrap(), None));
    }
    let wide = [i128::MIN, i128::MAX, 10_i128.pow(38)];
    let wide = wide.map(i256::from_i128).into_iter().chain([i256::from_string(&"9".repeat(76)).unwrap()]);
    let wide: Vec<_> = small.map(i256::from_i128).into_iter().chain(wide).collect();
    for (scale, labels) in [(2, None), (-3, Some(wide.iter().map(|v| format!("{v}e3")).collect()))] {
        let values = Decimal256Array::from_iter_values(wide.iter().copied());
        cases.push(case_of(Arc::new(values.with_precision_and_scale(76, scale).unwrap()), labels));
    }
    let thousands = Decimal128Array::from_iter_values(small).with_precision_and_scale(38, -3).unwrap();
    cases.push(case_of(Arc::new(thousands), Some(small.iter().map(|v| format!("{v}e3")).collect())));
}

fn times(cases: &mut Vec<Case>) {
    use DataType::{Date32, Date64, Duration, Int32, Int64, Time32, Time64, Timestamp};
    use TimeUnit::{Microsecond, Millisecond, Nanosecond, Second};
    let mut push = |data_type: DataType, stored: DataType, values: &[i64]| {
        let whole = Int64Array::from(values.to_vec());
        let array = cast(&cast(&whole, &stored).unwrap(), &data_type).unwrap();
        cases.push(case_of(array, Some(values.iter().map(i64::to_string).collect())));
    };
    push(Date32, Int32, &[0, 20_484, -1, i32::MIN.into(), i32::MAX.into()]);
    push(Date64, Int64, &[0, 20_484 * 86_400_000, -86_400_000, 1, i64::MIN, i64::MAX]);
    push(Time32(Second), Int32, &[0, 86_399]);
    push(Time32(Millisecond), Int32, &[0, 86_399_000, 86_399_999]);
    push(Time64(Microsecond), Int64, &[0, 86_399_000_000, i64::MAX]);
    push(Time64(Nanosecond), Int64, &[0, 86_399_000_000_000, i64::MIN]);
    for (unit, second) in
        [(Second, 1), (Millisecond, 1000), (Microsecond, 1_000_000), (Nanosecond, 1_000_000_000)]
    {
        let values = [0, -second, 1_769_817_600 * second, 1, i64::MIN, i64::MAX];
        push(Timestamp(unit, None), Int64, &values);
        push(Timestamp(unit, Some("UTC".into())), Int64, &values);
        push(Timestamp(unit, Some("+05:30".into())), Int64, &values[..3]);
        push(Duration(unit), Int64, &values);
    }
}

fn strings(cases: &mut Vec<Case>) {
    use DataType::{BinaryView, Dictionary, Int8, Int64, LargeBinary, LargeUtf8, Utf8, Utf8View};
    let long = ["x".repeat(254), "x".repeat(255), "é".repeat(200)];
    let mut texts = vec![Some(""), Some("a"), Some("5"), Some("null"), Some("\0"), Some("Ärger 🦀"), None];
    texts.push(Some("0198f1c2-7b1e-7c44-9d0a-1f2e3d4c5b6a"));
    texts.extend(long.iter().map(|text| Some(text.as_str())));
    let texts = StringArray::from(texts);
    let dictionary = |values| Dictionary(Box::new(Int8), Box::new(values));
    for data_type in [Utf8, LargeUtf8, Utf8View, dictionary(Utf8)] {
        cases.push(case_of(cast(&texts, &data_type).unwrap(), None));
    }
    let runs = RunArray::<Int32Type>::try_new(
        &[2, 3, 4].to_vec().into(),
        &StringArray::from(vec![Some("a"), None, Some("")]),
    );
    cases.push(case(runs.unwrap()));
    let binaries: [&[u8]; 4] = [b"", b"a", &[0, 255, 128], &[7; 16]];
    let binaries = BinaryArray::from_iter(binaries.map(Some).into_iter().chain([None]));
    for data_type in [DataType::Binary, LargeBinary, BinaryView, dictionary(DataType::Binary)] {
        cases.push(case_of(cast(&binaries, &data_type).unwrap(), None));
    }
    let fixed = |size, rows: Vec<Option<Vec<u8>>>| {
        FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows.into_iter(), size).unwrap()
    };
    cases.push(case(fixed(16, vec![Some(vec![7; 16]), Some((0..16).collect()), None])));
    cases.push(case(fixed(1, vec![Some(vec![b'a']), None])));
    let numbers = Int64Array::from(vec![Some(5), Some(5), None, Some(-5)]);
    cases.push(case_of(cast(&numbers, &dictionary(Int64)).unwrap(), None));
    let json = StringArray::from(vec![
        Some("null"),
        Some(" null "),
        Some("\"null\""),
        Some("true"),
        Some("5"),
        Some("5.0e0"),
        Some("-0.0"),
        Some("123456789012345678901234567890.5"),
        Some("1E+400"),
        Some("\"\\u00e9\\n\\/\""),
        Some("[]"),
        Some("{}"),
        Some("[1, [null], {\"b\": 1, \"a\": 2}]"),
        Some("{\"a\":2,\"b\":1}"),
        Some("{ \"b\" : 1.0, \"a\" : 20e-1 }"),
        Some("{\"a\":1,\"a\":2}"),
        Some("not json"),
        Some(""),
        None,
    ]);
    let metadata = [(EXTENSION_TYPE_NAME_KEY.to_owned(), "arrow.json".to_owned())];
    let field = Field::new("k", Utf8, true).with_metadata(metadata.into());
    cases.push((field, Arc::new(json), None));
}

fn nested(cases: &mut Vec<Case>) {
    let numbers = Arc::new(Int64Array::from(vec![Some(1), None, Some(1), None, Some(9)])) as ArrayRef;
    let texts =
        Arc::new(StringArray::from(vec![Some("x"), Some("x"), None, None, Some("hidden")])) as ArrayRef;
    let nulls = || Some(NullBuffer::from(vec![true, true, true, true, false]));
    let member = |name: &str, array: &ArrayRef| Field::new(name, array.data_type().clone(), true);
    let pairs = |names: [&str; 2]| {
        let fields = Fields::from(vec![member(names[0], &numbers), member(names[1], &texts)]);
        StructArray::new(fields, vec![numbers.clone(), texts.clone()], nulls())
    };
    cases.push(case(pairs(["a", "b"])));
    cases.push(case(pairs(["b", "a"])));
    let inner = Arc::new(pairs(["a", "b"])) as ArrayRef;
    let outer = Fields::from(vec![member("s", &inner), member("a", &numbers)]);
    cases.push(case(StructArray::new(outer, vec![inner.clone(), numbers.clone()], nulls())));
    cases.push(case(StructArray::new_empty_fields(2, Some(NullBuffer::from(vec![true, false])))));

    let list = |elements: &ArrayRef, ends: &[i32], valid: Vec<bool>| {
        let field = Arc::new(Field::new("item", elements.data_type().clone(), true));
        let offsets = OffsetBuffer::new([&[0], ends].concat().into());
        arrow::array::ListArray::new(field, offsets, elements.clone(), Some(NullBuffer::from(valid)))
    };
    let lists = Arc::new(list(&numbers, &[0, 1, 3, 4, 5], vec![true, true, true, true, false])) as ArrayRef;
    cases.push(case_of(lists.clone(), None));
    cases.push(case_of(
        cast(&lists, &DataType::LargeList(Arc::new(Field::new("item", DataType::Int8, true)))).unwrap(),
        None,
    ));
    let view = DataType::ListView(Arc::new(Field::new("item", DataType::Int64, true)));
    cases.push(case_of(cast(&lists, &view).unwrap(), None));
    cases.push(case(list(&texts, &[0, 1, 3, 4, 5], vec![true; 5])));
    cases.push(case(list(&inner, &[1, 4], vec![true, true])));
    cases.push(case(list(&lists, &[0, 2, 5], vec![true, true, true])));
    let fixed = arrow::array::FixedSizeListArray::from_iter_primitive::<Float64Type, _, _>(
        [Some(vec![Some(0.0), None]), None, Some(vec![Some(-0.0), Some(2.5)])],
        2,
    );
    cases.push(case(fixed));

    let entry = |names: Vec<&str>, values: Vec<Option<i64>>| {
        let keys = Field::new("keys", DataType::Utf8, false);
        let fields = Fields::from(vec![keys, Field::new("values", DataType::Int64, true)]);
        StructArray::new(
            fields,
            vec![Arc::new(StringArray::from(names)), Arc::new(Int64Array::from(values))],
            None,
        )
    };
    let entries = entry(vec!["b", "a", "a", "b", "a"], vec![Some(2), Some(1), Some(1), Some(2), None]);
    let field = Arc::new(Field::new("entries", entries.data_type().clone(), false));
    let offsets = OffsetBuffer::new(vec![0, 0, 2, 4, 5, 5].into());
    let valid = NullBuffer::from(vec![true, true, true, true, false]);
    cases.push(case(MapArray::new(field, offsets, entries, Some(valid), false)));
}
