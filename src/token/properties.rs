//! Properties of tokens, against a plain oracle: Rust values that are compared with `==`.

use super::{Token, TokenHash, TokenKey, TokenSpec, Tokens};
use arrow::{
    array::{
        Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
        DurationSecondArray, FixedSizeBinaryArray, FixedSizeListArray, Float16Array, Float64Array,
        Int16Array, Int32Array, Int64Array, LargeListArray, LargeListViewArray, ListArray, ListViewArray,
        MapArray, RecordBatch, RecordBatchOptions, RunArray, StringArray, StructArray, Time32SecondArray,
        new_null_array,
    },
    buffer::{NullBuffer, OffsetBuffer, ScalarBuffer},
    compute::{cast, concat},
    datatypes::{Int16Type, Int32Type, Int64Type, UInt8Type},
};
use arrow_schema::{DataType, Field, Fields, Schema, TimeUnit};
use proptest::prelude::*;
use std::{collections::BTreeMap, sync::Arc};

/// A key value as plain data. Floats are multiples of a half, so that `==` means what it says.
#[derive(Debug, Clone, PartialEq)]
enum Plain {
    Null,
    Boolean(bool),
    Integer(i64),
    Halves(i32),
    Text(String),
    Binary(Vec<u8>),
    List(Vec<Plain>),
    Struct(BTreeMap<String, Plain>),
    Map(BTreeMap<String, Plain>),
}

/// What a column holds.
#[derive(Debug, Clone)]
enum Form {
    Boolean,
    Integer,
    Halves,
    Text,
    Binary,
    List(Box<Form>),
    Struct(Vec<(String, Form)>),
    Map(Box<Form>),
}

fn any_form() -> impl Strategy<Value = Form> {
    let leaf =
        prop::sample::select(vec![Form::Boolean, Form::Integer, Form::Halves, Form::Text, Form::Binary]);
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            inner.clone().prop_map(|form| Form::List(Box::new(form))),
            inner.clone().prop_map(|form| Form::Map(Box::new(form))),
            prop::collection::vec(inner, 0..3).prop_map(|forms| {
                Form::Struct(["b", "a", "ab"].map(str::to_owned).into_iter().zip(forms).collect())
            }),
        ]
    })
}

/// Values from a small world, so that equal ones are common.
fn any_value(form: &Form) -> BoxedStrategy<Plain> {
    let some = match form {
        Form::Boolean => any::<bool>().prop_map(Plain::Boolean).boxed(),
        Form::Integer => {
            prop_oneof![-2..3_i64, Just(i64::MAX), Just(i64::MIN)].prop_map(Plain::Integer).boxed()
        }
        Form::Halves => (-2..3).prop_map(Plain::Halves).boxed(),
        Form::Text => "[ab\0]{0,2}".prop_map(Plain::Text).boxed(),
        Form::Binary => prop::collection::vec(0..3_u8, 0..3).prop_map(Plain::Binary).boxed(),
        Form::List(inner) => prop::collection::vec(any_value(inner), 0..3).prop_map(Plain::List).boxed(),
        Form::Map(inner) => {
            prop::collection::btree_map("[ab]{0,1}", any_value(inner), 0..3).prop_map(Plain::Map).boxed()
        }
        Form::Struct(members) => members
            .iter()
            .map(|(name, form)| (Just(name.clone()), any_value(form)).boxed())
            .collect::<Vec<_>>()
            .prop_map(|members| {
                // A null member is no member.
                Plain::Struct(members.into_iter().filter(|(_, value)| *value != Plain::Null).collect())
            })
            .boxed(),
    };
    prop_oneof![4 => some, 1 => Just(Plain::Null)].boxed()
}

fn arrow_type(form: &Form) -> DataType {
    let item = |form: &Form| Arc::new(Field::new("item", arrow_type(form), true));
    match form {
        Form::Boolean => DataType::Boolean,
        Form::Integer => DataType::Int64,
        Form::Halves => DataType::Float64,
        Form::Text => DataType::Utf8,
        Form::Binary => DataType::Binary,
        Form::List(inner) => DataType::List(item(inner)),
        Form::Map(inner) => DataType::Map(Arc::new(Field::new("entries", entries(inner), false)), false),
        Form::Struct(members) => DataType::Struct(
            members.iter().map(|(name, form)| Field::new(name, arrow_type(form), true)).collect(),
        ),
    }
}

fn entries(value: &Form) -> DataType {
    let value = Field::new("value", arrow_type(value), true);
    DataType::Struct(Fields::from(vec![Field::new("key", DataType::Utf8, false), value]))
}

/// The plainest array of these values. What lies under a null is rubbish on purpose.
fn array(form: &Form, values: &[Plain]) -> ArrayRef {
    let valid: Vec<bool> = values.iter().map(|value| *value != Plain::Null).collect();
    let nulls = Some(NullBuffer::from(valid));
    let with_nulls = |array: ArrayRef| {
        let data = array.to_data().into_builder().nulls(nulls.clone()).build().unwrap();
        arrow::array::make_array(data)
    };
    match form {
        Form::Boolean => with_nulls(Arc::new(BooleanArray::from_iter(
            values.iter().map(|v| Some(if let Plain::Boolean(v) = v { *v } else { true })),
        ))),
        Form::Integer => with_nulls(Arc::new(Int64Array::from_iter_values(
            values.iter().map(|v| if let Plain::Integer(v) = v { *v } else { 1 }),
        ))),
        Form::Halves => with_nulls(Arc::new(Float64Array::from_iter_values(
            values.iter().map(|v| if let Plain::Halves(v) = v { f64::from(*v) / 2.0 } else { -0.0 }),
        ))),
        Form::Text => with_nulls(Arc::new(StringArray::from_iter_values(
            values.iter().map(|v| if let Plain::Text(v) = v { v.as_str() } else { "a" }),
        ))),
        Form::Binary => with_nulls(Arc::new(BinaryArray::from_iter_values(
            values.iter().map(|v| if let Plain::Binary(v) = v { v.as_slice() } else { &[1] }),
        ))),
        Form::List(inner) => {
            let rubbish = vec![Plain::Null; 2];
            let rows = values.iter().map(|v| if let Plain::List(v) = v { v } else { &rubbish });
            let offsets = OffsetBuffer::from_lengths(rows.clone().map(Vec::len));
            let elements = array(inner, &rows.flatten().cloned().collect::<Vec<_>>());
            let field = Arc::new(Field::new("item", elements.data_type().clone(), true));
            Arc::new(ListArray::new(field, offsets, elements, nulls))
        }
        Form::Map(inner) => {
            let rubbish = BTreeMap::from([("b".to_owned(), Plain::Null)]);
            let rows = values.iter().map(|v| if let Plain::Map(v) = v { v } else { &rubbish });
            let offsets = OffsetBuffer::from_lengths(rows.clone().map(BTreeMap::len));
            // Backwards: the order of entries means nothing.
            let flat: Vec<_> = rows.flat_map(|row| row.iter().rev()).collect();
            let keys = StringArray::from_iter_values(flat.iter().map(|(key, _)| key));
            let held = array(inner, &flat.into_iter().map(|(_, value)| value.clone()).collect::<Vec<_>>());
            let DataType::Struct(fields) = entries(inner) else { unreachable!() };
            let pairs = StructArray::new(fields, vec![Arc::new(keys), held], None);
            let field = Arc::new(Field::new("entries", pairs.data_type().clone(), false));
            Arc::new(MapArray::new(field, offsets, pairs, nulls, false))
        }
        Form::Struct(members) => {
            let empty = BTreeMap::new();
            let rows = values.iter().map(|v| if let Plain::Struct(v) = v { v } else { &empty });
            let columns: Vec<_> = members
                .iter()
                .map(|(name, form)| {
                    let values = rows.clone().map(|row| row.get(name).cloned().unwrap_or(Plain::Null));
                    array(form, &values.collect::<Vec<_>>())
                })
                .collect();
            let DataType::Struct(fields) = arrow_type(form) else { unreachable!() };
            Arc::new(StructArray::try_new_with_length(fields, columns, nulls, values.len()).unwrap())
        }
    }
}

/// The same values in another layout.
fn disguised(plain: &ArrayRef, how: u8) -> ArrayRef {
    let len = plain.len();
    match how {
        0 => plain.clone(),
        // A slice out of something longer.
        1 => {
            let around = new_null_array(plain.data_type(), 3);
            let last = plain.slice(len.saturating_sub(1), usize::from(len > 0));
            concat(&[&around, &last, plain, &around]).unwrap().slice(3 + last.len(), len)
        }
        // A dictionary, in reverse and with values that nobody uses, some nulls as keys and some as values.
        2 => {
            let keys =
                (0..len).map(|row| (plain.is_valid(row) || row % 2 == 0).then_some((len - 1 - row) as i16));
            let reversed: Vec<_> = (0..len).rev().map(|row| plain.slice(row, 1)).collect();
            let mut parts: Vec<&dyn Array> = reversed.iter().map(|part| part.as_ref()).collect();
            let unused = new_null_array(plain.data_type(), 2);
            parts.push(&unused);
            Arc::new(DictionaryArray::<Int16Type>::new(keys.collect(), concat(&parts).unwrap()))
        }
        // Runs of one, sliced, that are counted in any width.
        3 if len > 0 => {
            let around = new_null_array(plain.data_type(), 1);
            let values = concat(&[&around, plain, &around]).unwrap();
            let ends = (0..len + 2).map(|row| row as i16 + 2);
            let (narrow, middle) = (Int16Array::from_iter_values(ends.clone()), ends.clone().map(i32::from));
            let (middle, wide) = (Int32Array::from_iter_values(middle), ends.map(i64::from));
            match len % 3 {
                0 => Arc::new(RunArray::<Int16Type>::try_new(&narrow, &values).unwrap().slice(2, len)),
                1 => Arc::new(RunArray::<Int32Type>::try_new(&middle, &values).unwrap().slice(2, len)),
                _ => {
                    let ends = Int64Array::from_iter_values(wide);
                    Arc::new(RunArray::<Int64Type>::try_new(&ends, &values).unwrap().slice(2, len))
                }
            }
        }
        _ => relaid(plain),
    }
}

/// Another Arrow type of the same kind.
fn relaid(plain: &ArrayRef) -> ArrayRef {
    let to = |data_type: &DataType| cast(plain, data_type).unwrap();
    match plain.data_type() {
        DataType::Utf8 => to(&DataType::Utf8View),
        DataType::Binary => to(&DataType::LargeBinary),
        DataType::Float64 => to(&DataType::Float16),
        DataType::List(field) => {
            // The elements of the rows lie backwards.
            let list = plain.as_list::<i32>();
            let (mut offsets, mut sizes, mut parts) = (vec![0; list.len()], vec![0; list.len()], Vec::new());
            let mut at = 0;
            for row in (0..list.len()).rev() {
                let elements = disguised(&list.value(row), 1);
                (offsets[row], sizes[row]) = (at, elements.len() as i32);
                at += elements.len() as i32;
                parts.push(elements);
            }
            let parts: Vec<&dyn Array> = parts.iter().map(|part| part.as_ref()).collect();
            let elements = if parts.is_empty() { list.values().slice(0, 0) } else { concat(&parts).unwrap() };
            let nulls = list.nulls().cloned();
            if list.len() % 2 == 0 {
                let wide = |numbers: Vec<i32>| numbers.into_iter().map(i64::from).collect();
                let (offsets, sizes) = (wide(offsets), wide(sizes));
                return Arc::new(LargeListViewArray::new(field.clone(), offsets, sizes, elements, nulls));
            }
            let (offsets, sizes) = (ScalarBuffer::from(offsets), ScalarBuffer::from(sizes));
            Arc::new(ListViewArray::new(field.clone(), offsets, sizes, elements, nulls))
        }
        DataType::Struct(fields) if !fields.is_empty() => {
            let array = plain.as_struct();
            let members = fields.iter().zip(array.columns()).rev();
            let members = members.map(|(field, column)| {
                let column = disguised(column, 2);
                (Arc::new(field.as_ref().clone().with_data_type(column.data_type().clone())), column)
            });
            let (fields, columns): (Vec<_>, Vec<_>) = members.unzip();
            Arc::new(StructArray::new(fields.into(), columns, array.nulls().cloned()))
        }
        _ => plain.clone(),
    }
}

fn tokens_of(columns: &[ArrayRef], hash: TokenHash) -> Tokens {
    let names: Vec<String> = (0..columns.len()).map(|i| format!("k{i}")).collect();
    let fields: Vec<_> =
        names.iter().zip(columns).map(|(n, c)| Field::new(n, c.data_type().clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let spec = TokenSpec::new(&names, &schema, hash, TokenKey::from_bytes([3; 16])).unwrap();
    let rows = RecordBatchOptions::new().with_row_count(columns.first().map(|column| column.len()));
    let batch = RecordBatch::try_new_with_options(schema.clone(), columns.to_vec(), &rows).unwrap();
    spec.bind(&schema, "test").unwrap().tokenise(&batch).unwrap()
}

fn alone(array: &ArrayRef) -> Vec<Token> {
    tokens_of(std::slice::from_ref(array), TokenHash::SipHash24).tokens
}

fn any_column() -> impl Strategy<Value = (Form, Vec<Plain>)> {
    any_form().prop_flat_map(|form| {
        let values = prop::collection::vec(any_value(&form), 0..12);
        values.prop_map(move |values| (form.clone(), values))
    })
}

fn any_key() -> impl Strategy<Value = (Vec<Form>, Vec<Vec<Plain>>)> {
    prop::collection::vec(any_form(), 1..4).prop_flat_map(|forms| {
        let row: Vec<_> = forms.iter().map(any_value).collect();
        prop::collection::vec(row, 0..12).prop_map(move |rows| (forms.clone(), rows))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn two_keys_have_the_same_token_exactly_when_they_are_equal(
        (forms, rows) in any_key(),
        how in any::<[u8; 3]>(),
    ) {
        let columns: Vec<_> = forms.iter().enumerate().map(|(column, form)| {
            let values: Vec<_> = rows.iter().map(|row| row[column].clone()).collect();
            disguised(&array(form, &values), how[column] % 5)
        }).collect();
        for hash in [TokenHash::SipHash24, TokenHash::Xxh3] {
            let found = tokens_of(&columns, hash);
            for (row, token) in rows.iter().zip(&found.tokens) {
                for (other_row, other) in rows.iter().zip(&found.tokens) {
                    prop_assert_eq!(row == other_row, token == other, "{:?} {:?}", row, other_row);
                }
            }
            for (position, row) in rows.iter().enumerate() {
                let keyless = row.iter().all(|value| *value == Plain::Null);
                prop_assert_eq!(found.keyless.as_ref().is_some_and(|set| set.value(position)), keyless);
            }
        }
    }

    #[test]
    fn layouts_slices_and_rubbish_under_nulls_do_not_change_a_token((form, values) in any_column()) {
        let plain = array(&form, &values);
        let expected = alone(&plain);
        prop_assert_eq!(expected.len(), values.len());
        for how in 0..5 {
            let disguised = disguised(&plain, how);
            prop_assert_eq!(&alone(&disguised), &expected, "layout {}", how);
            if values.len() > 2 {
                prop_assert_eq!(&alone(&disguised.slice(1, values.len() - 2)), &expected[1..values.len() - 1]);
            }
        }
    }

    #[test]
    fn a_token_of_a_row_does_not_depend_on_the_rows_around_it((form, values) in any_column()) {
        let together = alone(&array(&form, &values));
        for (value, token) in values.iter().zip(together) {
            prop_assert_eq!(alone(&array(&form, std::slice::from_ref(value))), vec![token]);
        }
    }

    #[test]
    fn a_new_nullable_member_of_a_struct_never_changes_a_token(
        (form, values) in any_column(),
        new in any_form(),
        first in any::<bool>(),
    ) {
        let inner = array(&form, &values);
        let present = new_null_array(&arrow_type(&new), values.len());
        let member = |name: &str, column: &ArrayRef| {
            (Arc::new(Field::new(name, column.data_type().clone(), true)), column.clone())
        };
        let narrow: ArrayRef = Arc::new(StructArray::from(vec![member("m", &inner)]));
        let mut members = vec![member("m", &inner), member(if first { "a" } else { "z" }, &present)];
        members.rotate_right(usize::from(first));
        let wide: ArrayRef = Arc::new(StructArray::from(members));
        prop_assert_eq!(alone(&narrow), alone(&wide));
        // One level down as well, and inside of lists.
        let nested = |inner: &ArrayRef| -> ArrayRef { Arc::new(StructArray::from(vec![member("s", inner)])) };
        prop_assert_eq!(alone(&nested(&narrow)), alone(&nested(&wide)));
        let listed = |inner: &ArrayRef| -> ArrayRef {
            let field = Arc::new(Field::new("item", inner.data_type().clone(), true));
            Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([inner.len()]), inner.clone(), None))
        };
        prop_assert_eq!(alone(&listed(&narrow)), alone(&listed(&wide)));
    }

    #[test]
    fn an_integer_has_one_token_in_every_width_that_can_hold_it(value in any::<i64>(), shift in 0..64_u32) {
        let value = value >> shift;
        let widest: ArrayRef = Arc::new(Int64Array::from(vec![value]));
        use DataType::{Int8, Int16, Int32, UInt8, UInt16, UInt32, UInt64};
        for data_type in [Int8, Int16, Int32, UInt8, UInt16, UInt32, UInt64] {
            let narrow = cast(&widest, &data_type).unwrap();
            if narrow.is_valid(0) {
                prop_assert_eq!(alone(&narrow), alone(&widest));
            }
        }
    }

    #[test]
    fn an_instant_has_one_token_in_every_unit_and_zone(seconds in -9_000_000_000..9_000_000_000_i64) {
        let mut tokens = Vec::new();
        let units = [TimeUnit::Second, TimeUnit::Millisecond, TimeUnit::Microsecond, TimeUnit::Nanosecond];
        for (unit, factor) in units.into_iter().zip([1, 1000, 1_000_000, 1_000_000_000]) {
            let stored: ArrayRef = Arc::new(Int64Array::from(vec![seconds * factor]));
            for zone in ["UTC", "+09:00", "Europe/Berlin"] {
                // The cast relabels the stored number, which is the instant in UTC whatever the zone.
                let array = cast(&stored, &DataType::Timestamp(unit, Some(zone.into()))).unwrap();
                tokens.extend(alone(&array));
            }
            let unzoned = cast(&stored, &DataType::Timestamp(unit, None)).unwrap();
            prop_assert_ne!(alone(&unzoned)[0], tokens[0]);
        }
        prop_assert!(tokens.iter().all(|token| *token == tokens[0]));
    }

    #[test]
    fn a_decimal_has_one_token_in_every_width_and_scale(unscaled in -99_999..99_999_i128, scale in 0..3_i8) {
        let narrow = Decimal128Array::from(vec![unscaled]).with_precision_and_scale(5, scale).unwrap();
        let narrow: ArrayRef = Arc::new(narrow);
        use DataType::{Decimal32, Decimal64, Decimal128, Decimal256};
        for wide in [Decimal32(9, 4), Decimal64(18, 9), Decimal128(38, 30), Decimal256(76, 60)] {
            prop_assert_eq!(alone(&cast(&narrow, &wide).unwrap()), alone(&narrow));
        }
    }

    #[test]
    fn dates_times_and_durations_have_one_token_in_every_unit(days in any::<i32>(), second in 0..86_400_i32) {
        let date: ArrayRef = Arc::new(Date32Array::from(vec![days]));
        prop_assert_eq!(alone(&date), alone(&cast(&date, &DataType::Date64).unwrap()));
        let time: ArrayRef = Arc::new(Time32SecondArray::from(vec![second]));
        let duration: ArrayRef = Arc::new(DurationSecondArray::from(vec![i64::from(days)]));
        prop_assert_eq!(alone(&time), alone(&cast(&time, &DataType::Time32(TimeUnit::Millisecond)).unwrap()));
        for unit in [TimeUnit::Microsecond, TimeUnit::Nanosecond] {
            prop_assert_eq!(alone(&time), alone(&cast(&time, &DataType::Time64(unit)).unwrap()));
            prop_assert_eq!(alone(&duration), alone(&cast(&duration, &DataType::Duration(unit)).unwrap()));
        }
    }

    #[test]
    fn a_float_has_one_token_in_every_width_that_holds_it(bits in any::<u16>()) {
        let half: ArrayRef = Arc::new(Float16Array::from(vec![half::f16::from_bits(bits)]));
        for wide in [DataType::Float32, DataType::Float64] {
            prop_assert_eq!(alone(&cast(&half, &wide).unwrap()), alone(&half));
        }
    }

    #[test]
    fn fixed_size_lists_and_binaries_are_lists_and_binaries(
        rows in prop::collection::vec(prop::option::of(any::<[u8; 2]>()), 3..9),
    ) {
        let binary: ArrayRef = Arc::new(BinaryArray::from_iter(rows.iter().map(|row| row.as_ref())));
        let fixed = FixedSizeBinaryArray::try_from_sparse_iter_with_size(rows.iter().cloned(), 2).unwrap();
        let fixed: ArrayRef = Arc::new(fixed);
        prop_assert_eq!(alone(&fixed), alone(&binary));
        prop_assert_eq!(&alone(&fixed.slice(1, 2)), &alone(&binary)[1..3]);

        let elements = || rows.iter().map(|row| row.map(|row| row.map(Some)));
        let fixed: ArrayRef = Arc::new(FixedSizeListArray::from_iter_primitive::<UInt8Type, _, _>(elements(), 2));
        let list: ArrayRef = Arc::new(LargeListArray::from_iter_primitive::<UInt8Type, _, _>(elements()));
        prop_assert_eq!(alone(&fixed), alone(&list));
        prop_assert_eq!(&alone(&fixed.slice(1, 2)), &alone(&list)[1..3]);
        prop_assert_eq!(&alone(&list.slice(2, 1)), &alone(&list)[2..3]);
    }
}
