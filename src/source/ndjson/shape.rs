//! What is known about the values of one member: a lattice that only grows, so that the order and grouping in
//! which rows are seen do not matter (but for the order of members, which is that of their appearance).

use super::plan::is_plain_name;
use super::{MAX_MEMBERS, json_field, number};
use arrow::datatypes::{DataType, Field, FieldRef};
use hashbrown::HashMap;
use std::sync::Arc;

/// A set of facts about the values seen, nulls apart.
pub(super) type Facts = u16;
pub(super) const BOOL: Facts = 1;
/// An integer that an `i64` holds.
pub(super) const INT: Facts = 1 << 1;
pub(super) const NEGATIVE: Facts = 1 << 2;
/// An integer that only a `u64` holds.
const BIG: Facts = 1 << 3;
/// An integer that an `f64` does not hold exactly.
const INEXACT: Facts = 1 << 4;
/// A number with point or exponent that an `f64` gives back.
const FLOAT: Facts = 1 << 5;
pub(super) const TEXT: Facts = 1 << 6;
const OBJECT: Facts = 1 << 7;
const LIST: Facts = 1 << 8;
/// No narrower type holds what was seen: the top, nothing else is remembered beside it.
const JSON: Facts = 1 << 9;
const NUMBER: Facts = INT | BIG | FLOAT;

/// What is known about the values of one member.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    facts: Facts,
    members: Option<Box<Members>>,
    items: Option<Box<Shape>>,
}

/// The members of an object, in order of appearance.
#[derive(Debug, Clone, Default)]
pub(super) struct Members {
    pub names: Vec<String>,
    /// Which of the names may be compared with a line as it stands.
    pub plain_names: Vec<bool>,
    pub shapes: Vec<Shape>,
    by_name: HashMap<String, usize>,
}

impl PartialEq for Members {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names && self.shapes == other.shapes
    }
}

impl Eq for Members {}

/// The facts about a number as written.
pub(super) fn number_facts(lexeme: &[u8]) -> Facts {
    if !number::is_plain(lexeme) {
        return if number::double(lexeme).is_some() { FLOAT } else { JSON };
    }
    let inexact = if number::double(lexeme).is_some() { 0 } else { INEXACT };
    match number::plain_i64(lexeme) {
        Some(..0) => INT | NEGATIVE | inexact,
        Some(_) => INT | inexact,
        None if number::integer(lexeme).is_some_and(|v| u64::try_from(v).is_ok()) => BIG | inexact,
        None => JSON,
    }
}

impl Shape {
    /// Whether nothing but null was seen.
    pub(super) fn is_unknown(&self) -> bool {
        self.facts == 0
    }

    /// Whether no narrower type holds what was seen.
    pub(super) fn is_json(&self) -> bool {
        self.facts == JSON
    }

    /// Whether these facts about a scalar are known already.
    pub(super) fn has(&self, facts: Facts) -> bool {
        self.is_json() || facts & !self.facts == 0
    }

    /// Adds a fact about a scalar.
    pub(super) fn note(&mut self, facts: Facts) {
        self.facts |= facts;
        self.settle();
    }

    /// Notes an object; its members, unless they no longer matter.
    pub(super) fn object(&mut self) -> Option<&mut Members> {
        self.note(OBJECT);
        if self.is_json() {
            return None;
        }
        Some(self.members.get_or_insert_default())
    }

    /// Notes a list; its elements, unless they no longer matter.
    pub(super) fn list(&mut self) -> Option<&mut Shape> {
        self.note(LIST);
        if self.is_json() {
            return None;
        }
        Some(self.items.get_or_insert_default())
    }

    /// The members seen, if all values were objects.
    pub(super) fn members(&self) -> Option<&Members> {
        self.members.as_deref()
    }

    /// The elements seen, if all values were lists.
    pub(super) fn items(&self) -> Option<&Shape> {
        self.items.as_deref()
    }

    /// Gives up on members that are too many.
    pub(super) fn limit(&mut self) {
        if self.members.as_ref().is_some_and(|members| members.names.len() > MAX_MEMBERS) {
            self.note(JSON);
        }
    }

    /// Adds all that `later` knows.
    pub(super) fn join(&mut self, later: Self) {
        self.facts |= later.facts;
        match (&mut self.members, later.members) {
            (Some(members), Some(later)) => members.join(*later),
            (members @ None, later) => *members = later,
            (Some(_), None) => {}
        }
        match (&mut self.items, later.items) {
            (Some(items), Some(later)) => items.join(*later),
            (items @ None, later) => *items = later,
            (Some(_), None) => {}
        }
        self.settle();
        self.limit();
    }

    fn settle(&mut self) {
        let has = |facts: Facts| self.facts & facts != 0;
        let kinds = [BOOL, NUMBER, TEXT, OBJECT, LIST].into_iter().filter(|kind| has(*kind)).count();
        if kinds > 1 || has(JSON) || has(BIG) && has(NEGATIVE) || has(FLOAT) && has(INEXACT) {
            *self = Self { facts: JSON, members: None, items: None };
        }
    }

    /// The column that holds all that was seen. With `skip_unknown`, members that were only null are left
    /// out.
    pub(super) fn field(&self, name: &str, skip_unknown: bool) -> Field {
        let plain = |kind| Field::new(name, kind, true);
        let has = |facts: Facts| self.facts & facts != 0;
        if has(BOOL) {
            plain(DataType::Boolean)
        } else if has(FLOAT) {
            plain(DataType::Float64)
        } else if has(BIG) {
            plain(DataType::UInt64)
        } else if has(INT) {
            plain(DataType::Int64)
        } else if has(TEXT) {
            plain(DataType::Utf8)
        } else if let Some(members) =
            self.members.as_ref().map(|m| m.fields(skip_unknown)).filter(|m| !m.is_empty())
        {
            plain(DataType::Struct(members.into()))
        } else if let Some(items) = self.items.as_ref().filter(|items| !items.is_unknown()) {
            plain(DataType::List(Arc::new(items.field(Field::LIST_FIELD_DEFAULT_NAME, skip_unknown))))
        } else {
            json_field(name)
        }
    }

    /// How many shapes it is made of.
    pub(super) fn size(&self) -> usize {
        1 + self.members().map_or(0, Members::size) + self.items().map_or(0, Self::size)
    }
}

impl Members {
    /// The shape of a member and its place. The one at place `expected` is tried first.
    pub(super) fn slot(&mut self, name: &str, expected: usize) -> (usize, Option<&mut Shape>) {
        let found = match self.names.get(expected) {
            Some(known) if known == name => expected,
            _ => match self.by_name.get(name) {
                Some(place) => *place,
                None => {
                    let place = self.names.len();
                    self.by_name.insert(name.to_owned(), place);
                    self.names.push(name.to_owned());
                    self.plain_names.push(is_plain_name(name));
                    self.shapes.push(Shape::default());
                    place
                }
            },
        };
        (found, self.shapes.get_mut(found))
    }

    /// The place of a member.
    pub(super) fn place(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// What is known of a member.
    pub(super) fn get(&self, name: &str) -> Option<&Shape> {
        self.shapes.get(self.place(name)?)
    }

    /// Adds all that `later` knows; members new to it come after the own.
    pub(super) fn join(&mut self, later: Self) {
        for (i, (name, shape)) in later.names.iter().zip(later.shapes).enumerate() {
            if let (_, Some(own)) = self.slot(name, i) {
                own.join(shape);
            }
        }
    }

    /// A column for each member.
    pub(super) fn fields(&self, skip_unknown: bool) -> Vec<FieldRef> {
        let members = self.names.iter().zip(&self.shapes);
        members
            .filter(|(_, shape)| !(skip_unknown && shape.is_unknown()))
            .map(|(name, shape)| Arc::new(shape.field(name, skip_unknown)))
            .collect()
    }

    /// How many shapes it is made of.
    pub(super) fn size(&self) -> usize {
        self.shapes.iter().map(Shape::size).sum()
    }
}
