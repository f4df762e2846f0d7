//! Finds the schema that holds every good row of a stream.
//!
//! A bad line tells nothing: rows count only once they are read to the end. Inferences of parts merge to the
//! inference of the whole, wherever it was cut.

use super::decode::{Decoded, not_a_row};
use super::glance::tells_nothing_new;
use super::lines::Block;
use super::shape::{BOOL, Facts, Members, Shape, TEXT, number_facts};
use super::walk::{Names, Piece, Place, Walked, walk};
use super::{Error, MAX_MEMBERS, MAX_NESTING, is_json, json_field};
use crate::error::Result;
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use jiter::{Jiter, Peek};
use std::sync::Arc;

/// A schema wider than this is refused: such rows are better kept with a schema given by hand.
const MAX_COLUMNS: usize = 10_000;
/// What an inference may remember: parts of shapes, about 200 bytes each.
const MAX_SHAPES: usize = 250_000;

/// What is known about the rows seen so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inference {
    members: Members,
    /// More was seen than may be remembered.
    overflow: bool,
}

impl Inference {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether no column was seen.
    pub fn is_empty(&self) -> bool {
        self.members.names.is_empty()
    }

    /// Takes in the good rows of a block.
    pub fn observe(&mut self, block: &Block) {
        self.observe_but(block, &[]);
    }

    /// Takes in the rows of a block that a decoder accepted: what [`widen`](Self::widen) needs.
    pub fn observe_accepted(&mut self, block: &Block, decoded: &Decoded) {
        let bad: Vec<u64> = decoded.bad.iter().map(|bad| bad.line).collect();
        self.observe_but(block, &bad);
    }

    /// Whether a line, if it is a good one, tells nothing new. When in doubt it does.
    pub(super) fn holds(&self, line: &[u8]) -> bool {
        tells_nothing_new(&self.members, line)
    }

    /// Takes in a line, if it is a good one.
    pub(super) fn observe_line(&mut self, line: &[u8]) {
        self.observe_one(line, &mut Row::default());
        self.check_size();
    }

    /// Adds what another inference knows of rows that come after the own.
    pub fn merge(&mut self, later: Self) {
        self.members.join(later.members);
        self.overflow |= later.overflow;
        self.check_size();
    }

    /// The schema that holds all rows seen, every column nullable and in order of appearance.
    pub fn finish(self) -> Result<Schema> {
        self.checked(Schema::new(shallow(&self.members.fields(false).into(), None, 1)))
    }

    /// `contract` together with the members that it lacks, after its own; what it has stays as it is. Members
    /// that were only null are not added. To be used on rows that a decoder for `contract` accepted, which
    /// then all fit.
    pub fn widen(&self, contract: &Schema) -> Result<Schema> {
        let fields = widened(contract.fields(), &self.members, "", Mixture::Refused)?;
        let fields = shallow(&fields.into(), Some(contract.fields()), 1);
        self.checked(Schema::new_with_metadata(fields, contract.metadata().clone()))
    }

    /// As [`widen`](Self::widen), of rows that may not all fit `contract`: a struct or list for which other things
    /// were seen as well stays as it is.
    pub fn widen_loosely(&self, contract: &Schema) -> Result<Schema> {
        let fields = widened(contract.fields(), &self.members, "", Mixture::LeftAlone)?;
        let fields = shallow(&fields.into(), Some(contract.fields()), 1);
        self.checked(Schema::new_with_metadata(fields, contract.metadata().clone()))
    }

    /// `bad` holds line numbers to leave out, ascending.
    fn observe_but(&mut self, block: &Block, bad: &[u64]) {
        let mut bad = bad.iter().copied().peekable();
        let mut row = Row::default();
        for line in block.lines() {
            while bad.next_if(|number| *number < line.number).is_some() {}
            if bad.peek() != Some(&line.number) {
                self.observe_one(line.bytes, &mut row);
            }
        }
        self.check_size();
    }

    fn observe_one(&mut self, line: &[u8], row: &mut Row) {
        if !self.overflow && !self.holds(line) && row.read(line).is_ok() {
            let mut steps = row.steps.iter();
            // The first step opens the row.
            if steps.next().is_some() {
                object(&mut self.members, &mut steps, &row.names, MAX_COLUMNS);
            }
            self.overflow |= self.members.names.len() > MAX_COLUMNS;
        }
    }

    fn check_size(&mut self) {
        self.overflow |= self.members.size() > MAX_SHAPES;
        if self.overflow {
            self.members = Members::default();
        }
    }

    fn checked(&self, schema: Schema) -> Result<Schema> {
        let columns = leaves(schema.fields());
        if self.overflow || columns > MAX_COLUMNS {
            return Err(Error::Usage(format!(
                "the rows have more than {MAX_COLUMNS} different columns: give a schema with --schema FILE, in which \
                 objects used as dictionaries have the type \"json\""
            )));
        }
        Ok(schema)
    }
}

/// One row, taken apart before it counts.
#[derive(Default)]
struct Row {
    steps: Vec<Step>,
    names: Names,
    tape: Vec<u8>,
}

/// Small, because a line may consist of little else: elements of a list that say no more than the one before are not
/// noted at all.
enum Step {
    Null,
    Scalar(Facts),
    Object,
    List,
    Close,
    Name(Place),
}

impl Row {
    fn read(&mut self, line: &[u8]) -> Walked<()> {
        self.steps.clear();
        self.names.clear();
        let mut json = Jiter::with_tape(line, std::mem::take(&mut self.tape));
        let outcome = self.walk(&mut json);
        self.tape = json.into_tape();
        outcome
    }

    fn walk(&mut self, json: &mut Jiter<'_>) -> Walked<()> {
        let peek = json.peek()?;
        if peek != Peek::Object {
            return Err(not_a_row(json, &mut self.names, peek)?);
        }
        let steps = &mut self.steps;
        walk(json, &mut self.names, peek, 1, &mut |piece| {
            let step = match piece {
                Piece::Null => Step::Null,
                Piece::Bool(_) => Step::Scalar(BOOL),
                Piece::Text(_) => Step::Scalar(TEXT),
                Piece::Number(lexeme) => Step::Scalar(number_facts(lexeme)),
                Piece::OpenObject => Step::Object,
                Piece::OpenList => Step::List,
                Piece::CloseObject | Piece::CloseList => Step::Close,
                Piece::Name(_, name) => Step::Name(name.place()),
                Piece::Comma => return,
            };
            // Only in a list does a value follow a value, and there facts add up.
            match (steps.last_mut(), &step) {
                (Some(Step::Scalar(known)), Step::Scalar(more)) => *known |= more,
                (Some(Step::Scalar(_) | Step::Null), Step::Null) => {}
                _ => steps.push(step),
            }
        })?;
        Ok(json.finish()?)
    }
}

type Steps<'a> = std::slice::Iter<'a, Step>;

/// Takes in the members of an object up to its end; passes over the rest once there are more than `most`.
fn object(members: &mut Members, steps: &mut Steps<'_>, names: &Names, most: usize) {
    let mut expected = 0;
    while let Some(Step::Name(name)) = steps.next() {
        if members.names.len() > most {
            return skip(steps);
        }
        let (place, shape) = members.slot(names.at(*name), expected);
        expected = place + 1;
        if let (Some(shape), Some(step)) = (shape, steps.next()) {
            value(shape, step, steps, names);
        }
    }
}

/// Takes in one value, whose first step is given.
fn value(shape: &mut Shape, first: &Step, steps: &mut Steps<'_>, names: &Names) {
    match first {
        Step::Scalar(facts) => shape.note(*facts),
        Step::Object => match shape.object() {
            Some(members) => {
                object(members, steps, names, MAX_MEMBERS);
                shape.limit();
            }
            None => skip(steps),
        },
        Step::List => match shape.list() {
            Some(items) => {
                while let Some(step) = steps.next() {
                    match step {
                        Step::Close => break,
                        step => value(items, step, steps, names),
                    }
                }
            }
            None => skip(steps),
        },
        Step::Null | Step::Close | Step::Name(..) => {}
    }
}

/// Passes over the rest of an object or list.
fn skip(steps: &mut Steps<'_>) {
    let mut open = 1usize;
    for step in steps {
        match step {
            Step::Object | Step::List => open += 1,
            Step::Close => open -= 1,
            _ => {}
        }
        if open == 0 {
            return;
        }
    }
}

/// `fields` and, after them, the members that they lack. `path` is for messages.
/// Columns as they are, but new ones that nest deeper than [`MAX_NESTING`] end in JSON text: readers of the field
/// choke on deeper schemas, and a manifest holds a schema as nested JSON.
fn shallow(fields: &Fields, known: Option<&Fields>, depth: usize) -> Fields {
    let one = |field: &FieldRef| {
        let known = known.and_then(|known| known.find(field.name())).map(|(_, field)| field);
        shallow_field(field, known, depth)
    };
    fields.iter().map(one).collect()
}

fn shallow_field(field: &FieldRef, known: Option<&FieldRef>, depth: usize) -> FieldRef {
    let kind = match (field.data_type(), known.map(|known| known.data_type())) {
        (DataType::Struct(_) | DataType::List(_), None) if depth >= MAX_NESTING => {
            return Arc::new(json_field(field.name()));
        }
        (DataType::Struct(members), Some(DataType::Struct(known))) => {
            DataType::Struct(shallow(members, Some(known), depth + 1))
        }
        (DataType::Struct(members), None) => DataType::Struct(shallow(members, None, depth + 1)),
        (DataType::List(item), Some(DataType::List(known))) => {
            DataType::List(shallow_field(item, Some(known), depth + 1))
        }
        (DataType::List(item), None) => DataType::List(shallow_field(item, None, depth + 1)),
        _ => return Arc::clone(field),
    };
    Arc::new(field.as_ref().clone().with_data_type(kind))
}

/// What becomes of a nested column for which other things were seen as well.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mixture {
    Refused,
    LeftAlone,
}

fn widened(fields: &Fields, seen: &Members, path: &str, mixture: Mixture) -> Result<Vec<FieldRef>> {
    let mut all = Vec::with_capacity(fields.len());
    for field in fields {
        let path = format!("{path}{}", field.name());
        all.push(match seen.get(field.name()) {
            Some(shape) => widened_field(field, shape, &path, mixture)?,
            None => field.clone(),
        });
    }
    let known: hashbrown::HashSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    all.extend(seen.fields(true).into_iter().filter(|field| !known.contains(field.name().as_str())));
    Ok(all)
}

fn widened_field(field: &FieldRef, shape: &Shape, path: &str, mixture: Mixture) -> Result<FieldRef> {
    if is_json(field) || !field.data_type().is_nested() || shape.is_unknown() {
        return Ok(field.clone());
    }
    if shape.is_json() && mixture == Mixture::LeftAlone {
        return Ok(field.clone());
    }
    // A map has as many keys as it likes.
    let is_flat_map = |kind: &DataType| match kind {
        DataType::Map(entries, _) => match entries.data_type() {
            DataType::Struct(pair) => pair.iter().all(|field| !field.data_type().is_nested()),
            _ => false,
        },
        _ => false,
    };
    if shape.is_json() && is_flat_map(field.data_type()) {
        return Ok(field.clone());
    }
    if shape.is_json() {
        return Err(Error::Refused(format!(
            "column {path}: its objects have too many different members, or rows that do not fit were taken in"
        )));
    }
    let same = |kind| Ok(Arc::new(Field::clone(field).with_data_type(kind)));
    match (field.data_type(), shape.members(), shape.items()) {
        (DataType::Struct(fields), Some(members), _) => {
            same(DataType::Struct(widened(fields, members, &format!("{path}."), mixture)?.into()))
        }
        (DataType::List(item), _, Some(items)) => {
            same(DataType::List(widened_field(item, items, path, mixture)?))
        }
        (DataType::LargeList(item), _, Some(items)) => {
            same(DataType::LargeList(widened_field(item, items, path, mixture)?))
        }
        (DataType::FixedSizeList(item, size), _, Some(items)) => {
            same(DataType::FixedSizeList(widened_field(item, items, path, mixture)?, *size))
        }
        (DataType::Map(entries, sorted), Some(members), _) => match entries.data_type() {
            DataType::Struct(pair) => {
                let mut pair = pair.to_vec();
                let mut all = Shape::default();
                members.shapes.iter().for_each(|shape| all.join(shape.clone()));
                if let Some(value) = pair.get_mut(1) {
                    *value = widened_field(value, &all, path, mixture)?;
                }
                let entries = Field::clone(entries).with_data_type(DataType::Struct(pair.into()));
                same(DataType::Map(Arc::new(entries), *sorted))
            }
            _ => Ok(field.clone()),
        },
        _ => Ok(field.clone()),
    }
}

/// How many leaf columns there are.
fn leaves(fields: &Fields) -> usize {
    fields.iter().map(|field| leaves_of(field)).sum()
}

fn leaves_of(field: &Field) -> usize {
    match field.data_type() {
        DataType::Struct(fields) => leaves(fields),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            leaves_of(item)
        }
        DataType::Map(entries, _) => leaves_of(entries),
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ndjson::oracle::{block, decode, infer};
    use crate::source::ndjson::{schema_of_file, text_of_schema};

    fn inferred(text: &str) -> String {
        text_of_schema(&infer(&[block(text.as_bytes())]))
    }

    fn printed(fields: &str) -> String {
        text_of_schema(&schema_of_file(&format!("{{\"fields\":[{fields}]}}")).unwrap())
    }

    #[test]
    fn columns_keep_the_order_of_appearance_and_widen_only_without_loss() {
        for (values, kind) in [
            ("1 -2", "\"int64\""),
            ("1 2.5", "\"float64\""),
            ("9007199254740993 0.5", "\"json\""),
            ("1 18446744073709551615", "\"uint64\""),
            ("-1 18446744073709551615", "\"json\""),
            ("18446744073709551616", "\"json\""),
            ("0.1 1e400", "\"json\""),
            ("0.12345678901234567890", "\"json\""),
            ("true false null", "\"bool\""),
            ("true 1", "\"json\""),
            ("\"x\" \"1\"", "\"text\""),
            ("1 \"1\"", "\"json\""),
            ("null null", "\"json\""),
            ("{} null", "\"json\""),
            ("[] [null]", "\"json\""),
            ("[] [1] [null,2.5]", "{\"list\":\"float64\"}"),
            ("[1,\"a\"]", "{\"list\":\"json\"}"),
            (
                "[[]] [[{\"z\":1}]]",
                "{\"list\":{\"list\":{\"struct\":[{\"name\":\"z\",\"type\":\"int64\"}]}}}",
            ),
            ("{\"a\":1} 1", "\"json\""),
            ("{\"a\":1} [1]", "\"json\""),
            ("[1] 1", "\"json\""),
            (
                "{\"b\":1} {\"a\":null,\"b\":2}",
                "{\"struct\":[{\"name\":\"b\",\"type\":\"int64\"},{\"name\":\"a\",\"type\":\"json\"}]}",
            ),
        ] {
            let lines: Vec<String> =
                values.split(' ').map(|value| format!("{{\"z\":0,\"v\":{value}}}")).collect();
            let fields = format!("{{\"name\":\"z\",\"type\":\"int64\"}},{{\"name\":\"v\",\"type\":{kind}}}");
            assert_eq!(inferred(&lines.join("\n")), printed(&fields), "{values}");
        }
    }

    #[test]
    fn bad_lines_tell_nothing() {
        let text = "{\"a\":1}\n{\"a\":\"x\",\"b\":1\n[1]\n{\"a\":{},\"c\":1,\"c\":1}\n{\"a\":\"\\ud800\"}";
        assert_eq!(inferred(text), printed("{\"name\":\"a\",\"type\":\"int64\"}"));
    }

    #[test]
    fn a_map_of_more_keys_than_objects_may_have_members_stops_nothing() {
        let contract = schema_of_file(r#"{"fields": [{"name": "m", "type": {"map": "text"}}]}"#).unwrap();
        let mut lines: String =
            (0..=MAX_MEMBERS).map(|key| format!("{{\"m\":{{\"k{key}\":\"v\"}}}}\n")).collect();
        lines.push_str("{\"m\":{},\"new\":1}\n");
        let block = block(lines.as_bytes());
        let decoded = decode(&contract, &block);
        assert!(decoded.unknown_fields && decoded.bad.is_empty());
        let mut inference = Inference::new();
        inference.observe_accepted(&block, &decoded);
        let widened = inference.widen(&contract).unwrap();
        let expected = r#"{"name": "m", "type": {"map": "text"}}, {"name": "new", "type": "int64"}"#;
        assert_eq!(text_of_schema(&widened), printed(expected));
    }

    #[test]
    fn a_contract_gets_new_members_at_every_level_and_keeps_its_own_types() {
        let contract = schema_of_file(
            r#"{"fields": [{"name": "a", "type": "int8"}, {"name": "j", "type": "json"},
                {"name": "s", "type": {"struct": [{"name": "x", "type": "int64"}]}},
                {"name": "l", "type": {"list": {"struct": [{"name": "x", "type": "int64"}]}}},
                {"name": "m", "type": {"map": {"struct": [{"name": "x", "type": "int64"}]}}}]}"#,
        )
        .unwrap();
        let block = block(
            b"{\"a\":null,\"j\":1,\"s\":{\"y\":\"t\",\"n\":null},\"l\":[{\"x\":1,\"y\":true}],\"m\":{\"k\":{\"z\":1.5}},\"new\":{\"p\":[]}}\n\
              {\"a\":\"misfit\",\"only here\":1,\"s\":5}",
        );
        let decoded = decode(&contract, &block);
        assert!(decoded.unknown_fields && decoded.bad.len() == 1);
        let mut inference = Inference::new();
        inference.observe_accepted(&block, &decoded);
        let widened = inference.widen(&contract).unwrap();
        let expected = r#"{"name": "a", "type": "int8"}, {"name": "j", "type": "json"},
            {"name": "s", "type": {"struct": [{"name": "x", "type": "int64"}, {"name": "y", "type": "text"}]}},
            {"name": "l", "type": {"list": {"struct": [{"name": "x", "type": "int64"}, {"name": "y", "type": "bool"}]}}},
            {"name": "m", "type": {"map": {"struct": [{"name": "x", "type": "int64"}, {"name": "z", "type": "float64"}]}}},
            {"name": "new", "type": {"struct": [{"name": "p", "type": "json"}]}}"#;
        assert_eq!(text_of_schema(&widened), printed(expected));
        let again = decode(&widened, &block);
        assert!(!again.unknown_fields && again.bad.len() == 1);
    }
}
