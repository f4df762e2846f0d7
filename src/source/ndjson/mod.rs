//! NDJSON without traps: lines in, Arrow batches out, and nothing changed or dropped on the way.
//!
//! [`Lines`] cuts a stream into [`Block`]s of whole lines, [`Inference`] finds a schema for them, [`Decoder`]
//! turns a block into a batch of exactly the rows that fit the schema, and a [`BadLine`] for every other
//! line. A value is stored as it stands in the text or its row is refused with a reason: nothing is rounded,
//! parsed out of quotes, truncated or overwritten. A row is all or nothing, and no line harms its neighbours.
//!
//! # What happens to
//!
//! | input | outcome |
//! |---|---|
//! | byte order mark at the start of the stream | skipped; offsets count it |
//! | `\r\n`, lines of white space only, last line without `\n` | understood; blank lines are no rows but count as lines |
//! | line longer than the limit ([`MAX_LINE`] by default) | bad line with its first KiB, never held in memory |
//! | malformed JSON, `NaN`, two documents on a line, trailing comma | bad line |
//! | array or scalar on a line | bad line: a row is an object |
//! | invalid UTF-8, lone surrogate escapes, raw control characters in text | bad line |
//! | more than [`MAX_DEPTH`] objects and lists inside each other (the row is the first) | bad line |
//! | a member name twice in one object, at any depth, also by escapes (`"a"` and `"\u0061"`) | bad line |
//! | a number of more than 4300 digits before its point | bad line |
//! | `null` and a missing member | the same: Arrow null; a required column refuses both |
//! | member the schema lacks | [`Decoded::unknown_fields`], unless it is `null` |
//!
//! # What fits a column
//!
//! Numbers fit by value: an integer column takes `7`, `7.0` and `7e0` (so written, up to 2^53), never `7.5`
//! or `"7"`. A float column takes an integer only if it holds it exactly, and a decimal fraction only if it
//! survives: at most 15 significant digits, or digits that come back when the float is printed. A decimal
//! column takes what its precision and scale hold exactly. Text columns take text only. Date, time and
//! timestamp columns take ISO 8601 text: with an offset if and only if the column has a zone, and no finer
//! than the column's unit. Binary, duration, interval and other types that JSON has no notation for take only
//! null.
//!
//! # What is inferred
//!
//! | values of a member over all rows | column |
//! |---|---|
//! | `true`, `false` | boolean |
//! | integers | `int64`; `uint64` if some are above it and none negative |
//! | integers and fractions, all exact in 64-bit floats | `float64` |
//! | text | text |
//! | objects with at least one member | struct of the members, in order of appearance |
//! | lists with at least one value that is not null | list |
//! | anything else: two kinds, numbers that no type above holds, only nulls or empty, over [`MAX_MEMBERS`] members, deeper than [`MAX_NESTING`] | JSON text |
//!
//! **JSON text** is a text column with the Arrow extension `arrow.json` that holds the value as written,
//! without white space between tokens; order of members and spelling of numbers stay. It takes any value.

mod array;
mod column;
mod decode;
mod fit;
mod glance;
#[cfg(test)]
mod hostile;
mod infer;
mod lines;
mod number;
#[cfg(any(test, fuzzing))]
#[allow(clippy::unwrap_used, clippy::panic, reason = "it is a test's")]
pub(crate) mod oracle;
mod plan;
#[cfg(test)]
mod properties;
mod quick;
mod schema_file;
mod shape;
mod time;
mod walk;

pub use decode::{Decoded, Decoder};
pub use infer::Inference;
pub use lines::{Block, Line, Lines};
pub use schema_file::{schema_of_file, text_of_schema};

use crate::error::Error;
use arrow::datatypes::{DataType, Field};

/// How many objects and lists may stand inside each other in a line; the row itself is the first.
pub const MAX_DEPTH: usize = 128;

/// The usual limit for the bytes of one line.
pub const MAX_LINE: usize = 16 << 20;

/// The usual size of a block.
pub const BLOCK_BYTES: usize = 2 << 20;

/// Objects and lists within each other that become structs and lists of a schema; what is deeper is JSON text.
pub const MAX_NESTING: usize = 16;

/// A nested object with more different member names than this, over all rows, is kept as JSON text: it is a
/// dictionary, not a record.
pub const MAX_MEMBERS: usize = 1_000;

/// A line that gave no row, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadLine {
    /// Its number in the stream, from 1.
    pub line: u64,
    /// Where it begins in the decompressed stream, in bytes.
    pub offset: u64,
    /// What is wrong with it; names the column if the trouble is one of fit.
    pub reason: String,
    /// The line without its line break; only the first KiB of an overlong one.
    pub raw: Vec<u8>,
}

const EXTENSION_NAME: &str = "ARROW:extension:name";
const EXTENSION_METADATA: &str = "ARROW:extension:metadata";
const JSON_EXTENSION: &str = "arrow.json";

/// A nullable column of JSON text.
pub fn json_field(name: impl Into<String>) -> Field {
    Field::new(name, DataType::Utf8, true).with_metadata(
        [(EXTENSION_NAME, JSON_EXTENSION), (EXTENSION_METADATA, "")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
    )
}

/// Whether a column holds JSON text.
pub fn is_json(field: &Field) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == JSON_EXTENSION)
        && matches!(field.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}
