//! Tokens across Arrow types, against plain values: the same value gives the same token from every type that can
//! carry it, and two keys have one token exactly when they are equal, whatever their kinds.

#![no_main]

use arbitrary::{Arbitrary, Unstructured};
use arrow::array::{
    Array, ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array,
    Int32Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray, Time64NanosecondArray,
    TimestampMillisecondArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast_with_options, concat, CastOptions};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, TimeUnit};
use dedupe::token::{Token, TokenHash, TokenKey, TokenSpec};
use std::sync::Arc;

/// A value of one kind. Two are the same key exactly if they are equal.
#[derive(Debug, Clone, PartialEq, Arbitrary)]
enum Plain {
    Null,
    Boolean(bool),
    Integer(i64),
    Large(u64),
    Halves(i32),
    /// Unscaled and scale, brought to one form before they are compared.
    Decimal(i64, u8),
    Text(String),
    Binary(Vec<u8>),
    Day(i32),
    Time(u32),
    Instant(i32),
    Wall(i32),
    List(Vec<Option<i16>>),
    Struct(Option<i16>, Option<String>),
}

/// Where decimals of the same value are the same key, and whole numbers go by value.
fn canonical(value: &Plain) -> Plain {
    match value {
        Plain::Decimal(0, _) => Plain::Decimal(0, 0),
        Plain::Decimal(unscaled, scale) if scale % 19 > 0 && unscaled % 10 == 0 => {
            canonical(&Plain::Decimal(unscaled / 10, scale % 19 - 1))
        }
        Plain::Decimal(unscaled, scale) => Plain::Decimal(*unscaled, scale % 19),
        Plain::Large(number) => match i64::try_from(*number) {
            Ok(number) => Plain::Integer(number),
            Err(_) => value.clone(),
        },
        Plain::Struct(None, None) | Plain::List(_) | _ => value.clone(),
    }
}

/// The plainest array that holds the value.
fn array(value: &Plain) -> ArrayRef {
    match value {
        Plain::Null => Arc::new(Int64Array::from(vec![None])),
        Plain::Boolean(v) => Arc::new(BooleanArray::from(vec![*v])),
        Plain::Integer(v) => Arc::new(Int64Array::from(vec![*v])),
        Plain::Large(v) => Arc::new(UInt64Array::from(vec![*v])),
        Plain::Halves(v) => Arc::new(Float64Array::from(vec![f64::from(*v) / 2.0])),
        Plain::Decimal(v, scale) => Arc::new(
            Decimal128Array::from(vec![i128::from(*v)]).with_precision_and_scale(38, (scale % 19) as i8).unwrap(),
        ),
        Plain::Text(v) => Arc::new(StringArray::from(vec![v.as_str()])),
        Plain::Binary(v) => Arc::new(BinaryArray::from(vec![v.as_slice()])),
        Plain::Day(v) => Arc::new(Date32Array::from(vec![*v])),
        Plain::Time(v) => Arc::new(Time64NanosecondArray::from(vec![i64::from(*v) * 1_000_000])),
        Plain::Instant(v) => {
            Arc::new(TimestampMillisecondArray::from(vec![i64::from(*v)]).with_timezone("UTC"))
        }
        Plain::Wall(v) => Arc::new(TimestampMillisecondArray::from(vec![i64::from(*v)])),
        Plain::List(items) => {
            let items: Vec<Option<i32>> = items.iter().map(|item| item.map(i32::from)).collect();
            let offsets = OffsetBuffer::from_lengths([items.len()]);
            let field = Arc::new(Field::new("item", DataType::Int32, true));
            Arc::new(ListArray::new(field, offsets, Arc::new(Int32Array::from(items)), None))
        }
        Plain::Struct(a, b) => {
            let a: ArrayRef = Arc::new(Int32Array::from(vec![a.map(i32::from)]));
            let b: ArrayRef = Arc::new(StringArray::from(vec![b.as_deref()]));
            let field = |name: &str, array: &ArrayRef| Arc::new(Field::new(name, array.data_type().clone(), true));
            Arc::new(StructArray::from(vec![(field("a", &a), a), (field("b", &b), b)]))
        }
    }
}

/// Other types that carry the value as it is: only casts that give it back count.
fn others(plain: &ArrayRef) -> Vec<ArrayRef> {
    use DataType::*;
    let unit = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
    let types: Vec<DataType> = match plain.data_type() {
        Int64 | UInt64 => vec![Int8, Int16, Int32, Int64, UInt8, UInt16, UInt32, UInt64],
        Float64 => vec![Float16, Float32],
        Decimal128(_, scale) => vec![Decimal64(18, *scale), Decimal128(38, scale + 2), Decimal256(76, scale + 9)],
        Utf8 => vec![LargeUtf8, Utf8View],
        Binary => vec![LargeBinary, BinaryView],
        Date32 => vec![Date64],
        Time64(_) => vec![Time32(TimeUnit::Millisecond), Time64(TimeUnit::Microsecond)],
        Timestamp(_, None) => unit.into_iter().map(|unit| Timestamp(unit, None)).collect(),
        Timestamp(_, Some(_)) => {
            unit.into_iter().flat_map(|u| ["UTC", "+05:30"].map(|zone| Timestamp(u, Some(zone.into())))).collect()
        }
        List(item) => vec![LargeList(item.clone()), ListView(item.clone())],
        _ => vec![],
    };
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    let mut all = Vec::new();
    for data_type in types {
        let Ok(other) = cast_with_options(plain, &data_type, &strict) else { continue };
        let Ok(back) = cast_with_options(&other, plain.data_type(), &strict) else { continue };
        if back.as_ref() == plain.as_ref() {
            all.push(other);
        }
    }
    // In a dictionary, and as a slice of something longer.
    let keys = Int32Array::from(vec![0]);
    all.extend(DictionaryArray::<Int32Type>::try_new(keys, plain.clone()).ok().map(|a| Arc::new(a) as ArrayRef));
    all.extend(concat(&[plain.as_ref(), plain.as_ref(), plain.as_ref()]).ok().map(|three| three.slice(1, 1)));
    all
}

fn token(columns: &[ArrayRef]) -> Token {
    let names: Vec<String> = (0..columns.len()).map(|at| format!("k{at}")).collect();
    let fields: Vec<Field> =
        names.iter().zip(columns).map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let key = TokenKey::from_bytes([3; 16]);
    let spec = TokenSpec::new(&names, &schema, TokenHash::SipHash24, key).unwrap();
    let batch = RecordBatch::try_new(schema.clone(), columns.to_vec()).unwrap();
    spec.bind(&schema, "fuzzed").unwrap().tokenise(&batch).unwrap().tokens[0]
}

/// A key of a few columns.
fn key(input: &mut Unstructured<'_>) -> arbitrary::Result<Vec<Plain>> {
    let columns = input.int_in_range(1..=4)?;
    (0..columns).map(|_| Plain::arbitrary(input)).collect()
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut input = Unstructured::new(bytes);
    let (Ok(first), Ok(second)) = (key(&mut input), key(&mut input)) else { return };
    let keys = [first, second];
    let tokens = keys.each_ref().map(|key| {
        let columns: Vec<ArrayRef> = key.iter().map(array).collect();
        let plain = token(&columns);
        let others: Vec<Vec<ArrayRef>> = columns.iter().map(others).collect();
        // All columns change at once: so there are few keys to hash, and each type of each column still comes.
        for at in 0..others.iter().map(Vec::len).max().unwrap_or(0) {
            let changed = columns.iter().zip(&others).map(|(plain, others)| others.get(at).unwrap_or(plain).clone());
            let changed: Vec<ArrayRef> = changed.collect();
            let types = || changed.iter().map(|column| column.data_type()).collect::<Vec<_>>();
            assert_eq!(token(&changed), plain, "{key:?} as {:?}", types());
        }
        plain
    });
    let [one, other] = keys.each_ref().map(|key| key.iter().map(canonical).collect::<Vec<_>>());
    assert_eq!(one == other, tokens[0] == tokens[1], "{one:?} {other:?}");
});
