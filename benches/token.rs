//! Nanoseconds to make a token, by the layout of the key and the hash.

use arrow::{
    array::{
        ArrayRef, Decimal128Array, DictionaryArray, FixedSizeBinaryArray, Int64Array, RecordBatch,
        StringArray, StringViewArray, StructArray, TimestampMicrosecondArray, UInt16Array,
    },
    datatypes::{DataType, Field, Schema},
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use dedupe::token::{TokenHash, TokenKey, TokenSpec};
use std::{hint::black_box, sync::Arc};

const ROWS: usize = 65_536;

/// Text in the form of a UUID: 36 characters, different in every row.
fn uuid(row: usize) -> String {
    let mixed = (row as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    let hex = format!("{mixed:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

fn columns() -> Vec<(&'static str, Vec<ArrayRef>)> {
    let uuids: Vec<String> = (0..ROWS).map(uuid).collect();
    let text = Arc::new(StringArray::from(uuids.clone())) as ArrayRef;
    let numbers = Arc::new(Int64Array::from_iter_values(0..ROWS as i64)) as ArrayRef;
    let some = StringArray::from_iter_values(uuids.iter().take(1000));
    let index = UInt16Array::from_iter_values((0..ROWS).map(|row| (row % 1000) as u16));
    let nullable = uuids.iter().enumerate().map(|(row, text)| (row % 10 != 0).then_some(text));
    let fields = [
        (Arc::new(Field::new("id", DataType::Utf8, true)), text.clone()),
        (Arc::new(Field::new("seq", DataType::Int64, true)), numbers.clone()),
    ];
    vec![
        ("utf8", vec![text.clone()]),
        ("utf8_nulls", vec![Arc::new(nullable.collect::<StringArray>())]),
        ("utf8_view", vec![Arc::new(StringViewArray::from_iter_values(&uuids))]),
        ("dictionary", vec![Arc::new(DictionaryArray::new(index, Arc::new(some)))]),
        ("int64", vec![numbers.clone()]),
        ("timestamp", vec![Arc::new(TimestampMicrosecondArray::from_iter_values(0..ROWS as i64))]),
        ("decimal", vec![Arc::new(Decimal128Array::from_iter_values((0..ROWS as i128).map(|v| v * 1000)))]),
        (
            "uuid_16",
            vec![Arc::new(
                FixedSizeBinaryArray::try_from_iter((0..ROWS as u128).map(u128::to_le_bytes)).unwrap(),
            )],
        ),
        ("utf8_and_int64", vec![text, numbers]),
        ("struct", vec![Arc::new(StructArray::from(fields.to_vec()))]),
    ]
}

fn tokenise(c: &mut Criterion) {
    for hash in [TokenHash::SipHash24, TokenHash::Xxh3] {
        let mut group = c.benchmark_group(format!("token/{hash}"));
        group.throughput(Throughput::Elements(ROWS as u64));
        for (name, arrays) in columns() {
            let names: Vec<String> = (0..arrays.len()).map(|i| format!("k{i}")).collect();
            let fields: Vec<_> =
                names.iter().zip(&arrays).map(|(n, a)| Field::new(n, a.data_type().clone(), true)).collect();
            let schema = Arc::new(Schema::new(fields));
            let spec = TokenSpec::new(&names, &schema, hash, TokenKey::from_bytes([7; 16])).unwrap();
            let key = spec.bind(&schema, "bench").unwrap();
            let batch = RecordBatch::try_new(schema, arrays).unwrap();
            group.bench_function(name, |b| b.iter(|| key.tokenise(black_box(&batch)).unwrap()));
        }
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .warm_up_time(std::time::Duration::from_millis(300))
        .measurement_time(std::time::Duration::from_millis(1500))
        .sample_size(20);
    targets = tokenise
}
criterion_main!(benches);
