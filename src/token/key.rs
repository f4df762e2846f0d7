//! The key of a table, and the key bound to one input.
//!
//! A [`TokenSpec`] is fixed when a table is created: the place and the kind of each key column, the hash and its key.
//! Binding it to the schema of an input finds these columns there, or says what is missing; nothing is guessed.

use super::{
    Token,
    bound::{BoundKey, Place},
    encode::ENCODING,
    hash::{Hasher, TokenHash, TokenKey},
    kind::KeyKind,
    text,
};
use crate::error::{Error, Result};
use arrow_schema::{DataType, Fields, Schema};
use serde::{Deserialize, Serialize};

/// One column of a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// The name by which it was asked for: `id`, `id.orig_h`, `payload.push_id`.
    pub name: String,
    /// Where it lies: a top-level column, then struct members. Fixed with the table, so that a column that appears
    /// later under the same dotted name cannot take its place.
    pub path: Vec<String>,
    /// What it holds.
    pub kind: KeyKind,
}

/// How a table makes tokens. Pinned in `table.json`; it never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenSpec {
    /// The version of the canonical encoding.
    pub encoding: u32,
    /// The hash.
    pub hash: TokenHash,
    /// The random key of the hash.
    pub key: TokenKey,
    /// The key columns, in the order in which they are hashed.
    pub columns: Vec<KeyColumn>,
}

impl TokenSpec {
    /// Fixes the place and the kind of each key column by the schema of a table to be created. A name is taken
    /// literally first, dots and all, then as a path into structs.
    pub fn new(columns: &[String], schema: &Schema, hash: TokenHash, key: TokenKey) -> Result<Self> {
        let mut fixed: Vec<KeyColumn> = Vec::with_capacity(columns.len());
        for name in columns {
            if fixed.iter().any(|column| column.name == *name) {
                return Err(Error::Usage(format!("key column \"{name}\" is named twice; name it once")));
            }
            let usage = |why: String| Error::Usage(format!("key column \"{name}\" {why}"));
            let path = resolve(schema.fields(), name).ok_or_else(|| usage(missing(schema)))?;
            let place =
                locate(schema.fields(), &path).map_err(usage)?.ok_or_else(|| usage(missing(schema)))?;
            let kind = KeyKind::of(&place.field)
                .map_err(|why| usage(format!("cannot be a key: {why}; choose another column")))?
                .ok_or_else(|| {
                    usage(
                        "holds only nulls, so its kind cannot be fixed; give a schema that states its type"
                            .into(),
                    )
                })?;
            fixed.push(KeyColumn { name: name.clone(), path, kind });
        }
        let spec = Self { encoding: ENCODING, hash, key, columns: fixed };
        spec.check()?;
        Ok(spec)
    }

    /// Finds the key columns in the schema of `source`. A column that is missing there, or of another kind than the
    /// table's, is an error that says so.
    pub fn bind(&self, schema: &Schema, source: &str) -> Result<BoundKey> {
        self.check()?;
        let mut columns = Vec::with_capacity(self.columns.len());
        for KeyColumn { name, path, kind } in &self.columns {
            let input = |why: String| Error::input(source, format!("key column \"{name}\" {why}"));
            let place =
                locate(schema.fields(), path).map_err(input)?.ok_or_else(|| input(missing(schema)))?;
            let found = KeyKind::of(&place.field).map_err(|why| input(format!("cannot be a key: {why}")))?;
            if let Some(found) = found.filter(|found| found != kind) {
                return Err(input(format!(
                    "is {found} ({}) here, and {kind} in the table's key; the kind of a key never changes: convert \
                     the column in the source, or ingest it into a table of its own",
                    place.field.data_type()
                )));
            }
            columns.push(place);
        }
        let hasher = Hasher::new(self.hash, &self.key);
        Ok(BoundKey::new(source, hasher, columns))
    }

    /// The token of a key given as text, each value parsed by its column's kind; `None` is null. Every key column must
    /// be given once, in any order. Text by kind: `true`/`false`; whole, floating and decimal numbers; text as it is;
    /// binary as hexadecimal digits or a UUID; `2026-01-31`; `23:59:59.5`; an instant as RFC 3339; a timestamp without
    /// the zone; a duration as `1500ms` (`ns us ms s min h d`); JSON. Structs, lists and maps have no text.
    pub fn token_of_text(&self, values: &[(String, Option<String>)]) -> Result<Token> {
        self.check()?;
        if let Some((name, _)) = values.iter().find(|(name, _)| self.columns.iter().all(|c| c.name != *name))
        {
            let names: Vec<_> = self.columns.iter().map(|column| column.name.as_str()).collect();
            return Err(Error::Usage(format!(
                "\"{name}\" is no column of the key, which is {}",
                names.join(", ")
            )));
        }
        let mut bytes = Vec::new();
        for column in &self.columns {
            let mut given = values.iter().filter(|(name, _)| *name == column.name);
            let value = match (given.next(), given.next()) {
                (Some((_, value)), None) => value.as_deref(),
                (None, _) => {
                    return Err(Error::Usage(format!(
                        "no value is given for key column \"{}\"",
                        column.name
                    )));
                }
                _ => return Err(Error::Usage(format!("key column \"{}\" is given twice", column.name))),
            };
            text::append(&mut bytes, column.kind, value)
                .map_err(|why| Error::Usage(format!("the value of key column \"{}\" {why}", column.name)))?;
        }
        Ok(Hasher::new(self.hash, &self.key).token(&bytes))
    }

    fn check(&self) -> Result<()> {
        if self.encoding != ENCODING {
            return Err(Error::Refused(format!(
                "the table's tokens use key encoding {}, and this program knows {ENCODING}; use a newer dedupe",
                self.encoding
            )));
        }
        if self.columns.is_empty() {
            return Err(Error::Usage("a key needs at least one column".to_owned()));
        }
        Ok(())
    }
}

/// A name as a path: the longest literal name first, then ever shorter ones with the rest as a member of a struct.
pub(crate) fn resolve(fields: &Fields, name: &str) -> Option<Vec<String>> {
    if fields.iter().any(|field| field.name() == name) {
        return Some(vec![name.to_owned()]);
    }
    name.rmatch_indices('.').find_map(|(dot, _)| {
        let (head, rest) = (&name[..dot], &name[dot + 1..]);
        let DataType::Struct(members) = fields.iter().find(|field| field.name() == head)?.data_type() else {
            return None;
        };
        let mut path = vec![head.to_owned()];
        path.extend(resolve(members, rest)?);
        Some(path)
    })
}

/// Follows a path; `None` where a name is not there, an error that says what stands in the way.
fn locate(fields: &Fields, path: &[String]) -> Result<Option<Place>, String> {
    let mut members = fields;
    let mut root = 0;
    let mut walked = Vec::with_capacity(path.len());
    for (level, name) in path.iter().enumerate() {
        let mut same = members.iter().enumerate().filter(|(_, field)| field.name() == name);
        let Some((position, field)) = same.next() else { return Ok(None) };
        if same.next().is_some() {
            return Err(format!(
                "is ambiguous: two columns are named \"{name}\"; rename one of them in the source"
            ));
        }
        if level == 0 {
            root = position;
        }
        walked.push(name.clone());
        match field.data_type() {
            _ if walked.len() == path.len() => {}
            // Null throughout, so are its members.
            DataType::Null => {}
            DataType::Struct(inner) => {
                members = inner;
                continue;
            }
            other => return Err(format!("is not there: \"{}\" is {other}, not a struct", walked.join("."))),
        }
        return Ok(Some(Place { root, path: walked, field: field.as_ref().clone() }));
    }
    Ok(None)
}

fn missing(schema: &Schema) -> String {
    const SHOWN: usize = 60;
    let mut names = Vec::new();
    list_names(schema.fields(), "", &mut names);
    let more = names.len().saturating_sub(SHOWN);
    names.truncate(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("is missing; the columns are {}{more}", names.join(", "))
}

fn list_names(fields: &Fields, prefix: &str, names: &mut Vec<String>) {
    for field in fields {
        let name = format!("{prefix}{}", field.name());
        names.push(name.clone());
        if let DataType::Struct(members) = field.data_type() {
            list_names(members, &format!("{name}."), names);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::{
        array::{
            ArrayRef, Int64Array, NullArray, RecordBatch, StringArray, StringDictionaryBuilder, StructArray,
        },
        buffer::NullBuffer,
        datatypes::Int8Type,
    };
    use arrow_schema::Field;
    use std::sync::Arc;

    const KEY: [u8; 16] = [9; 16];

    fn spec(columns: &[&str], schema: &Schema) -> Result<TokenSpec> {
        let columns: Vec<_> = columns.iter().map(|name| (*name).to_owned()).collect();
        TokenSpec::new(&columns, schema, TokenHash::default(), TokenKey::from_bytes(KEY))
    }

    fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))
            .unwrap()
    }

    fn texts(values: Vec<Option<&str>>) -> ArrayRef {
        Arc::new(StringArray::from(values))
    }

    fn numbers(values: Vec<Option<i64>>) -> ArrayRef {
        Arc::new(Int64Array::from(values))
    }

    fn member(name: &str, array: ArrayRef, nulls: Option<Vec<bool>>) -> ArrayRef {
        let field = Field::new(name, array.data_type().clone(), true);
        Arc::new(StructArray::new(vec![field].into(), vec![array], nulls.map(NullBuffer::from)))
    }

    #[test]
    fn a_name_is_taken_literally_first_and_then_as_a_path() {
        let inside = member("orig_h", texts(vec![Some("in")]), None);
        let both = batch(vec![("id", inside.clone()), ("id.orig_h", texts(vec![Some("literal")]))]);
        assert_eq!(spec(&["id.orig_h"], both.schema_ref()).unwrap().columns[0].path, ["id.orig_h"]);
        let nested = batch(vec![("a.b", member("c.d", inside, None))]);
        let spec = spec(&["a.b.c.d.orig_h"], nested.schema_ref()).unwrap();
        assert_eq!(spec.columns[0].path, ["a.b", "c.d", "orig_h"]);
        let key = spec.bind(nested.schema_ref(), "f").unwrap();
        assert_eq!((key.roots(), key.paths()), (vec![0], vec![spec.columns[0].path.clone()]));
    }

    #[test]
    fn a_literal_column_that_comes_later_does_not_take_the_place_of_a_path() {
        let inside = member("orig_h", texts(vec![Some("in")]), None);
        let before = batch(vec![("id", inside.clone())]);
        let after = batch(vec![("id.orig_h", texts(vec![Some("late")])), ("id", inside)]);
        let spec = spec(&["id.orig_h"], before.schema_ref()).unwrap();
        let token = |batch: &RecordBatch| {
            spec.bind(batch.schema_ref(), "f").unwrap().tokenise(batch).unwrap().tokens[0]
        };
        assert_eq!(token(&before), token(&after));
    }

    #[test]
    fn a_null_parent_makes_its_members_null_whatever_lies_under_it() {
        let member = member("id", texts(vec![Some("a"), Some("a"), None]), Some(vec![true, false, true]));
        let nested = batch(vec![("p", member)]);
        let flat = batch(vec![("p", texts(vec![Some("a"), None, None]))]);
        let tokens = |name: &str, batch: &RecordBatch| {
            let spec = spec(&[name], batch.schema_ref()).unwrap();
            spec.bind(batch.schema_ref(), "f").unwrap().tokenise(batch).unwrap()
        };
        let found = tokens("p.id", &nested);
        assert_eq!(found.tokens, tokens("p", &flat).tokens);
        assert_eq!(found.keyless.unwrap().iter().collect::<Vec<_>>(), [false, true, true]);
    }

    #[test]
    fn a_missing_column_names_the_source_and_lists_what_there_is() {
        let table = batch(vec![("id", texts(vec![]))]);
        let other = batch(vec![("a", texts(vec![])), ("s", member("t", numbers(vec![]), None))]);
        let spec = spec(&["id"], table.schema_ref()).unwrap();
        let error = spec.bind(other.schema_ref(), "day.parquet").unwrap_err();
        assert!(matches!(error, Error::Input { .. }));
        assert_eq!(error.to_string(), "day.parquet: key column \"id\" is missing; the columns are a, s, s.t");
        let error = super::tests::spec(&["nope"], other.schema_ref()).unwrap_err();
        assert!(error.to_string().contains("\"nope\" is missing; the columns are a, s, s.t"));
    }

    #[test]
    fn another_kind_is_refused_with_both_named() {
        let table = batch(vec![("id", numbers(vec![]))]);
        let other = batch(vec![("id", texts(vec![]))]);
        let error = spec(&["id"], table.schema_ref()).unwrap().bind(other.schema_ref(), "f").unwrap_err();
        assert!(error.to_string().contains("is text (Utf8) here, and integer in the table's key"), "{error}");
    }

    #[test]
    fn what_no_key_can_be_made_of_is_refused_at_the_start() {
        let twice =
            Schema::new(vec![Field::new("a", DataType::Utf8, true), Field::new("a", DataType::Utf8, true)]);
        let table = batch(vec![("n", Arc::new(NullArray::new(0))), ("id", texts(vec![]))]);
        for (columns, schema, said) in [
            (vec![], table.schema_ref().as_ref(), "at least one"),
            (vec!["id", "id"], table.schema_ref(), "twice"),
            (vec!["n"], table.schema_ref(), "only nulls"),
            (vec!["a"], &twice, "ambiguous"),
        ] {
            let error = spec(&columns, schema).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn of_many_columns_sixty_are_named_where_one_is_missing() {
        let told = |columns: usize| {
            let columns = (0..columns).map(|n| Field::new(format!("c{n}"), DataType::Int8, true));
            spec(&["id"], &Schema::new(columns.collect::<Vec<_>>())).unwrap_err().to_string()
        };
        assert!(told(60).ends_with("c58, c59"), "{}", told(60));
        assert!(told(63).ends_with("c58, c59 and 3 more"), "{}", told(63));
    }

    #[test]
    fn a_column_of_nulls_fits_every_kind_at_every_level_of_a_path() {
        let table = batch(vec![
            ("p", member("id", texts(vec![None, None]), None)),
            ("q", numbers(vec![None, Some(5)])),
        ]);
        let spec = spec(&["p.id", "q"], table.schema_ref()).unwrap();
        let nulls = || Arc::new(NullArray::new(2)) as ArrayRef;
        let expected = spec.bind(table.schema_ref(), "f").unwrap().tokenise(&table).unwrap().tokens;
        for p in [nulls(), member("id", nulls(), None)] {
            let other = batch(vec![("q", numbers(vec![None, Some(5)])), ("p", p)]);
            let key = spec.bind(other.schema_ref(), "f").unwrap();
            assert_eq!(key.roots(), [0, 1]);
            let tokens = key.tokenise(&other).unwrap();
            assert_eq!(tokens.tokens, expected);
            assert_eq!(tokens.keyless.unwrap().iter().collect::<Vec<_>>(), [true, false]);
        }
    }

    #[test]
    fn a_batch_may_be_a_projection_and_one_that_does_not_fit_is_an_error() {
        let s = member("b", texts(vec![Some("x")]), None);
        let whole =
            batch(vec![("a", numbers(vec![Some(1)])), ("c", numbers(vec![Some(2)])), ("s", s.clone())]);
        let key = spec(&["s.b", "a"], whole.schema_ref()).unwrap().bind(whole.schema_ref(), "f").unwrap();
        let expected = key.tokenise(&whole).unwrap().tokens;
        let projected = batch(vec![("s", s.clone()), ("a", numbers(vec![Some(1)]))]);
        assert_eq!(key.tokenise(&projected).unwrap().tokens, expected);
        for unfit in [
            batch(vec![("a", numbers(vec![Some(1)]))]),
            batch(vec![("s", s.clone()), ("a", texts(vec![Some("1")]))]),
            batch(vec![("s", numbers(vec![Some(1)])), ("a", numbers(vec![Some(1)]))]),
        ] {
            assert!(matches!(key.tokenise(&unfit), Err(Error::Input { .. })));
        }
        // A struct as a whole must not lose a member to a projection.
        let whole_struct = spec(&["s"], whole.schema_ref()).unwrap().bind(whole.schema_ref(), "f").unwrap();
        assert!(
            whole_struct.tokenise(&batch(vec![("s", member("z", texts(vec![Some("x")]), None))])).is_err()
        );
    }

    #[test]
    fn json_text_that_lost_its_mark_in_a_batch_is_still_json() {
        let metadata = [("ARROW:extension:name".to_owned(), "arrow.json".to_owned())];
        let json = Field::new("j", DataType::Utf8, true).with_metadata(metadata.into());
        let key = spec(&["j"], &Schema::new(vec![json.clone()]))
            .unwrap()
            .bind(&Schema::new(vec![json]), "f")
            .unwrap();
        let rows =
            batch(vec![("j", texts(vec![Some("{\"a\": 1.0}"), Some("{\"a\":1}"), Some("null"), None]))]);
        let tokens = key.tokenise(&rows).unwrap();
        assert_eq!(tokens.tokens[0], tokens.tokens[1]);
        assert_eq!(tokens.tokens[2], tokens.tokens[3]);
        assert_eq!(tokens.keyless.unwrap().iter().collect::<Vec<_>>(), [false, false, true, true]);
    }

    #[test]
    fn a_dictionary_gives_the_tokens_of_its_values_even_where_it_is_empty_or_all_null() {
        let mut builder = StringDictionaryBuilder::<Int8Type>::new();
        builder.append_nulls(2);
        let nulls: ArrayRef = Arc::new(builder.finish());
        builder.extend([Some("a"), None, Some("b"), Some("a")]);
        let some: ArrayRef = Arc::new(builder.finish());
        let tokens = |array: ArrayRef| {
            let batch = batch(vec![("k", array)]);
            let spec = spec(&["k"], batch.schema_ref()).unwrap();
            spec.bind(batch.schema_ref(), "f").unwrap().tokenise(&batch).unwrap()
        };
        assert_eq!(tokens(nulls.clone()).tokens, tokens(texts(vec![None, None])).tokens);
        assert_eq!(tokens(some).tokens, tokens(texts(vec![Some("a"), None, Some("b"), Some("a")])).tokens);
        assert!(tokens(nulls.slice(0, 0)).tokens.is_empty());
    }

    #[test]
    fn a_spec_goes_through_json_and_an_unknown_encoding_is_refused() {
        let table = batch(vec![("id", texts(vec![]))]);
        let mut spec = spec(&["id"], table.schema_ref()).unwrap();
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(
            json,
            "{\"encoding\":1,\"hash\":\"siphash-2-4-128\",\"key\":\"09090909090909090909090909090909\",\
             \"columns\":[{\"name\":\"id\",\"path\":[\"id\"],\"kind\":\"text\"}]}"
        );
        assert_eq!(serde_json::from_str::<TokenSpec>(&json).unwrap(), spec);
        assert!(!format!("{spec:?}").contains("0909"));
        let bound = format!("{:?}", spec.bind(table.schema_ref(), "f").unwrap());
        assert!(bound.contains("Sip(…)") && !bound.contains("0909"), "{bound}");
        spec.encoding = 2;
        assert!(matches!(spec.bind(table.schema_ref(), "f"), Err(Error::Refused(_))));
    }

    #[test]
    fn a_key_given_as_text_wants_every_column_once_in_any_order() {
        let table = batch(vec![("a", numbers(vec![Some(5), Some(5)])), ("b", texts(vec![Some("x"), None]))]);
        let spec = spec(&["b", "a"], table.schema_ref()).unwrap();
        let tokens = spec.bind(table.schema_ref(), "f").unwrap().tokenise(&table).unwrap().tokens;
        let given = |values: &[(&str, Option<&str>)]| {
            let own = |(name, value): &(&str, Option<&str>)| ((*name).to_owned(), value.map(str::to_owned));
            spec.token_of_text(&values.iter().map(own).collect::<Vec<_>>())
        };
        assert_eq!(given(&[("a", Some("5")), ("b", Some("x"))]).unwrap(), tokens[0]);
        assert_eq!(given(&[("b", None), ("a", Some("5"))]).unwrap(), tokens[1]);
        for (values, said) in [
            (vec![("a", Some("5"))], "no value is given for key column \"b\""),
            (vec![("a", None), ("b", None), ("a", None)], "twice"),
            (vec![("a", None), ("b", None), ("c", None)], "\"c\" is no column of the key, which is b, a"),
            (vec![("a", Some("five")), ("b", None)], "key column \"a\" is not integer: \"five\""),
        ] {
            let error = given(&values).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
