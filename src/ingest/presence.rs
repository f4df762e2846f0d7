//! Whether a text source has the key columns at all. Its lines may leave members out one by one, but a source of which
//! no row ever names a key column is a mistake: rows without it would be taken for rows whose key is null there.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow_schema::{DataType, Fields};

use crate::error::{Error, Result};
use crate::source::ndjson::{Block, Decoded, Inference};
use crate::token::{KeyColumn, TokenSpec};

/// What is known of one text source while it is read.
#[derive(Debug, Default)]
pub(crate) struct Presence {
    /// Rows so far.
    rows: u64,
    /// What the rows look like, as long as a key column is wanting.
    found: Inference,
    /// Each key column was named by some row.
    complete: bool,
}

impl Presence {
    /// Takes note of the rows of a block.
    pub(crate) fn observe(&mut self, block: &Block, decoded: &Decoded, spec: &TokenSpec) -> Result<()> {
        self.rows += decoded.batch.num_rows() as u64;
        if self.complete || spec.columns.iter().all(|column| has_value(&decoded.batch, &column.path)) {
            self.complete = true;
            return Ok(());
        }
        // Values are found quickly; names that stand with null only are not, and are rare.
        let mut block_found = Inference::new();
        block_found.observe_accepted(block, decoded);
        self.found.merge(block_found);
        self.complete = missing(self.found.clone().finish()?.fields(), spec).is_empty();
        Ok(())
    }

    /// At the end of the source `url`: an error if none of its rows named a key column. Forgets the source.
    pub(crate) fn end(&mut self, url: &str, spec: &TokenSpec) -> Result<()> {
        let Self { rows, found, complete } = std::mem::take(self);
        if complete || rows == 0 {
            return Ok(());
        }
        let schema = found.finish()?;
        let missing: Vec<&str> =
            missing(schema.fields(), spec).iter().map(|column| column.name.as_str()).collect();
        let has: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        Err(Error::input(
            url,
            format!(
                "it has no key column {}; its columns are: {}. (A source whose rows really have none says so with null.)",
                missing.join(", "),
                has.join(", ")
            ),
        ))
    }
}

/// The key columns that no row has named.
fn missing<'a>(fields: &Fields, spec: &'a TokenSpec) -> Vec<&'a KeyColumn> {
    spec.columns.iter().filter(|column| !is_named(fields, &column.path)).collect()
}

/// Whether the path leads somewhere, or to something of which no members are known.
fn is_named(fields: &Fields, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    fields.iter().find(|field| field.name() == name).is_some_and(|field| match field.data_type() {
        DataType::Struct(members) => is_named(members, rest),
        _ => true,
    })
}

fn has_value(batch: &RecordBatch, path: &[String]) -> bool {
    let Some((name, rest)) = path.split_first() else { return true };
    let member = |array: &ArrayRef, name: &String| array.as_struct_opt()?.column_by_name(name).cloned();
    let mut array = batch.column_by_name(name).cloned();
    for name in rest {
        array = array.and_then(|array| member(&array, name));
    }
    array.is_some_and(|array| array.null_count() < array.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ndjson::{BLOCK_BYTES, Decoder, Lines};
    use crate::token::{TokenHash, TokenKey};
    use std::sync::Arc;

    /// What is said at the end of a source with these lines, block by block.
    fn verdict(key: &[&str], blocks: &[&str]) -> std::result::Result<(), String> {
        let whole = blocks.concat();
        let schema = Arc::new(of(br#"{"a":1,"b":2,"c":{"d":3}}"#).1);
        let columns: Vec<String> = key.iter().map(|name| (*name).to_owned()).collect();
        let spec =
            TokenSpec::new(&columns, &schema, TokenHash::default(), TokenKey::from_bytes([7; 16])).unwrap();
        let decoder = Decoder::new(schema).unwrap();
        let mut presence = Presence::default();
        for block in blocks {
            let block = of(block.as_bytes()).0;
            presence.observe(&block, &decoder.decode(&block).unwrap(), &spec).unwrap();
        }
        let first = presence.end("x.ndjson", &spec).map_err(|error| error.to_string());
        // However the source is cut into blocks, the verdict is the same.
        let block = of(whole.as_bytes()).0;
        presence.observe(&block, &decoder.decode(&block).unwrap(), &spec).unwrap();
        assert_eq!(presence.end("x.ndjson", &spec).map_err(|error| error.to_string()), first);
        first
    }

    fn of(text: &[u8]) -> (Block, arrow_schema::Schema) {
        let block = Lines::new(std::io::Cursor::new(text.to_vec()), BLOCK_BYTES, 1 << 20).next_block();
        let block = block.unwrap().unwrap();
        let mut found = Inference::new();
        found.observe(&block);
        (block, found.finish().unwrap())
    }

    #[test]
    fn a_column_that_some_row_names_is_there() {
        assert_eq!(verdict(&["a", "b"], &["{\"a\":1}\n", "{\"b\":2}\n"]), Ok(()));
        assert_eq!(verdict(&["a", "b"], &["{\"a\":1}\n", "{\"a\":1,\"b\":null}\n"]), Ok(()));
        assert_eq!(verdict(&["a", "c.d"], &["{\"a\":1,\"c\":null}\n"]), Ok(()));
        assert_eq!(verdict(&["c.d"], &["{\"c\":{\"e\":1}}\n", "{\"c\":{\"d\":1}}\n"]), Ok(()));
    }

    #[test]
    fn a_column_that_no_row_names_is_missing() {
        let said = verdict(&["a", "b"], &["{\"a\":1,\"x\":1}\n", "{\"y\":1}\n"]).unwrap_err();
        assert!(said.contains("no key column b; its columns are: a, x, y"), "{said}");
        let said = verdict(&["a", "c.d"], &["{\"a\":1,\"c\":{\"e\":1}}\n"]).unwrap_err();
        assert!(said.contains("no key column c.d; its columns are: a, c"), "{said}");
        assert!(verdict(&["a"], &["{\"b\":1}\n"]).is_err());
    }
}
