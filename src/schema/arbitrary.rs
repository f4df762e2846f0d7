//! Random schemas and random rows for property tests: nested, nullable, every primitive type, every layout.

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use half::f16;
use proptest::prelude::*;
use std::sync::Arc;

/// A small generator of numbers, so that a failing case is two seeds.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 11) % n
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

fn flat_type() -> impl Strategy<Value = DataType> {
    use DataType::*;
    let unit = prop_oneof![
        Just(TimeUnit::Second),
        Just(TimeUnit::Millisecond),
        Just(TimeUnit::Microsecond),
        Just(TimeUnit::Nanosecond)
    ];
    let zone = prop_oneof![Just(None), Just(Some("UTC".into())), Just(Some("+02:00".into()))];
    let plain = prop_oneof![
        Just(Boolean),
        Just(Int8),
        Just(Int16),
        Just(Int32),
        Just(Int64),
        Just(UInt8),
        Just(UInt16),
        Just(UInt32),
        Just(UInt64),
        Just(Float16),
        Just(Float32),
        Just(Float64),
        Just(Date32),
        Just(Time32(TimeUnit::Second)),
        Just(Time32(TimeUnit::Millisecond)),
        Just(Time64(TimeUnit::Microsecond)),
        Just(Time64(TimeUnit::Nanosecond)),
    ];
    prop_oneof![
        4 => plain,
        2 => (unit.clone(), zone).prop_map(|(unit, zone)| Timestamp(unit, zone)),
        1 => unit.prop_map(Duration),
        2 => (1u8..=38, 0i8..=10).prop_map(|(digits, scale)| Decimal128(digits.max(scale as u8), scale)),
        1 => (39u8..=60, 0i8..=10).prop_map(|(digits, scale)| Decimal256(digits, scale)),
        1 => (1i32..20).prop_map(FixedSizeBinary),
        3 => prop_oneof![Just(Utf8), Just(LargeUtf8), Just(Utf8View)],
        2 => prop_oneof![Just(Binary), Just(LargeBinary), Just(BinaryView)],
        1 => Just(Dictionary(Box::new(Int32), Box::new(Utf8))),
        1 => Just(Dictionary(Box::new(UInt16), Box::new(LargeBinary))),
    ]
}

fn any_type() -> impl Strategy<Value = DataType> {
    flat_type().prop_recursive(3, 12, 4, |inner| {
        let member = (inner.clone(), any::<bool>());
        prop_oneof![
            member
                .clone()
                .prop_map(|(item, null)| DataType::List(Arc::new(Field::new("element", item, null)))),
            member
                .clone()
                .prop_map(|(item, null)| DataType::LargeList(Arc::new(Field::new("item", item, null)))),
            prop::collection::vec(member.clone(), 1..4)
                .prop_map(|members| DataType::Struct(named("m", members))),
            (flat_type(), inner).prop_map(|(key, value)| {
                let entries = vec![Field::new("key", key, false), Field::new("value", value, true)];
                let entries = Field::new("key_value", DataType::Struct(entries.into()), false);
                DataType::Map(Arc::new(entries), false)
            }),
        ]
    })
}

fn named(prefix: &str, members: Vec<(DataType, bool)>) -> Fields {
    members
        .into_iter()
        .enumerate()
        .map(|(at, (data_type, nullable))| Field::new(format!("{prefix}{at}"), data_type, nullable))
        .collect()
}

/// A schema of one to five columns of any type that Parquet can hold.
pub(crate) fn any_schema() -> impl Strategy<Value = SchemaRef> {
    prop::collection::vec((any_type(), any::<bool>()), 1..6)
        .prop_map(|columns| Arc::new(Schema::new(named("c", columns))))
}

/// `rows` random rows of `schema`.
pub(crate) fn random_batch(schema: &SchemaRef, rows: usize, dice: &mut Dice) -> RecordBatch {
    let columns = schema.fields().iter().map(|field| random_array(field, rows, dice)).collect();
    RecordBatch::try_new(Arc::clone(schema), columns).unwrap()
}

fn random_nulls(nullable: bool, rows: usize, dice: &mut Dice) -> Option<arrow::buffer::NullBuffer> {
    let percent = if nullable { dice.below(4) * 20 } else { 0 };
    (nullable && percent > 0).then(|| (0..rows).map(|_| !dice.chance(percent)).collect::<Vec<_>>().into())
}

/// How many different values a column repeats: few make dictionaries, many make them fall back.
fn text(dice: &mut Dice, distinct: u64) -> String {
    let n = dice.below(distinct);
    let long = if n.is_multiple_of(7) { "-and-a-tail-longer-than-a-view-holds-inline" } else { "" };
    format!("välue{n}{long}")
}

fn random_array(field: &Field, rows: usize, dice: &mut Dice) -> ArrayRef {
    let nulls = random_nulls(field.is_nullable(), rows, dice);
    let distinct = [2, 20, 100_000][dice.below(3) as usize];
    macro_rules! primitive {
        ($kind:ty, $value:expr) => {{
            let values: Vec<<$kind as ArrowPrimitiveType>::Native> = (0..rows).map(|_| $value).collect();
            let array = PrimitiveArray::<$kind>::new(values.into(), nulls);
            Arc::new(array.with_data_type(field.data_type().clone())) as ArrayRef
        }};
    }
    let small = |dice: &mut Dice| dice.below(distinct) as i64 - 1;
    use DataType::*;
    match field.data_type() {
        Boolean => {
            let values: Vec<bool> = (0..rows).map(|_| dice.chance(50)).collect();
            Arc::new(BooleanArray::new(values.into(), nulls))
        }
        Int8 => primitive!(Int8Type, small(dice) as i8),
        Int16 => primitive!(Int16Type, small(dice) as i16),
        Int32 => primitive!(Int32Type, dice.next() as i32 >> dice.below(32)),
        Int64 => primitive!(Int64Type, dice.next() as i64 >> dice.below(60)),
        UInt8 => primitive!(UInt8Type, small(dice) as u8),
        UInt16 => primitive!(UInt16Type, small(dice) as u16),
        UInt32 => primitive!(UInt32Type, dice.next() as u32 >> dice.below(32)),
        UInt64 => primitive!(UInt64Type, dice.next() >> dice.below(60)),
        Float16 => primitive!(Float16Type, f16::from_f32(small(dice) as f32 / 2.0)),
        Float32 => primitive!(Float32Type, small(dice) as f32 / 3.0),
        Float64 => primitive!(Float64Type, small(dice) as f64 / 3.0),
        Date32 => primitive!(Date32Type, small(dice) as i32),
        Date64 => primitive!(Date64Type, small(dice) * 86_400_000),
        Time32(TimeUnit::Second) => primitive!(Time32SecondType, dice.below(86_400) as i32),
        Time32(_) => primitive!(Time32MillisecondType, dice.below(86_400_000) as i32),
        Time64(TimeUnit::Microsecond) => primitive!(Time64MicrosecondType, dice.below(86_400_000_000) as i64),
        Time64(_) => primitive!(Time64NanosecondType, dice.below(86_400_000_000_000) as i64),
        Timestamp(TimeUnit::Second, _) => primitive!(TimestampSecondType, small(dice) * 1000),
        Timestamp(TimeUnit::Millisecond, _) => primitive!(TimestampMillisecondType, small(dice) * 1001),
        Timestamp(TimeUnit::Microsecond, _) => primitive!(TimestampMicrosecondType, small(dice) * 1_000_003),
        Timestamp(TimeUnit::Nanosecond, _) => {
            primitive!(TimestampNanosecondType, small(dice) * 1_000_000_007)
        }
        Duration(TimeUnit::Second) => primitive!(DurationSecondType, small(dice)),
        Duration(TimeUnit::Millisecond) => primitive!(DurationMillisecondType, small(dice)),
        Duration(TimeUnit::Microsecond) => primitive!(DurationMicrosecondType, small(dice)),
        Duration(TimeUnit::Nanosecond) => primitive!(DurationNanosecondType, small(dice)),
        Decimal128(digits, _) => {
            let bound = 10i128.pow(u32::from(*digits).min(18)) - 1;
            primitive!(Decimal128Type, i128::from(small(dice)) % bound.max(1))
        }
        Decimal256(_, _) => primitive!(Decimal256Type, i256::from_i128(i128::from(dice.next() as i64))),
        FixedSizeBinary(size) => {
            let bytes: Vec<u8> =
                (0..rows * *size as usize).map(|_| dice.below(distinct.min(256)) as u8).collect();
            Arc::new(FixedSizeBinaryArray::new(*size, bytes.into(), nulls))
        }
        Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | Dictionary(_, _) => {
            let values: StringArray = (0..rows)
                .map(|at| {
                    nulls.as_ref().is_none_or(|n| n.is_valid(at)).then(|| text(dice, distinct.min(500)))
                })
                .collect();
            cast(&(Arc::new(values) as ArrayRef), field.data_type()).unwrap()
        }
        Struct(members) => {
            let members_arrays = members.iter().map(|member| random_array(member, rows, dice)).collect();
            Arc::new(StructArray::new(members.clone(), members_arrays, nulls))
        }
        List(item) => {
            let (offsets, total) = random_offsets(rows, nulls.as_ref(), dice);
            let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
            Arc::new(ListArray::new(Arc::clone(item), offsets, random_array(item, total, dice), nulls))
        }
        LargeList(item) => {
            let (offsets, total) = random_offsets(rows, nulls.as_ref(), dice);
            let offsets: Vec<i64> = offsets.into_iter().map(i64::from).collect();
            let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
            Arc::new(LargeListArray::new(Arc::clone(item), offsets, random_array(item, total, dice), nulls))
        }
        Map(entries, sorted) => {
            let (offsets, total) = random_offsets(rows, nulls.as_ref(), dice);
            let offsets = arrow::buffer::OffsetBuffer::new(offsets.into());
            let values = random_array(entries, total, dice).as_struct().clone();
            Arc::new(MapArray::new(Arc::clone(entries), offsets, values, nulls, *sorted))
        }
        Null => Arc::new(NullArray::new(rows)),
        other => panic!("no random values of {other}"),
    }
}

fn random_offsets(
    rows: usize,
    nulls: Option<&arrow::buffer::NullBuffer>,
    dice: &mut Dice,
) -> (Vec<i32>, usize) {
    let mut offsets = vec![0i32];
    for row in 0..rows {
        let length = if nulls.is_none_or(|n| n.is_valid(row)) { dice.below(4) as i32 } else { 0 };
        offsets.push(offsets[row] + length);
    }
    let total = offsets[rows] as usize;
    (offsets, total)
}
