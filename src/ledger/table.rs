//! The table's identity, `table.json`: written once at creation, never changed.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::random;
use crate::token::TokenSpec;

/// The format version of tables that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// What makes a table this table, for ever.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TableIdentity {
    /// Format version of the table as a whole.
    pub format: u32,
    /// 128 random bits in hexadecimal.
    pub table: String,
    /// How a row's key becomes its token: key columns and kinds, function, random key, encoding version.
    pub token: TokenSpec,
    /// Whether the store does not keep conditional writes, and whoever created the table said that only one writer
    /// at a time will run: then entries are looked for before they are written, and nothing else protects them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub single_writer: bool,
}

impl TableIdentity {
    /// A new table's identity.
    pub fn new(token: TokenSpec) -> Result<Self> {
        Ok(Self { format: FORMAT, table: random::identity()?, token, single_writer: false })
    }

    /// The bytes of `table.json`. They hold the token key and belong nowhere else.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|e| Error::Internal(format!("table.json cannot be written: {e}")))?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads `table.json`. `object` names it in errors.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        // The message of the parser could quote the token key, so only the place is told.
        let place = |e: serde_json::Error| {
            Error::corrupt(object, format!("line {}, column {} is not as it must be", e.line(), e.column()))
        };
        let header: Header = serde_json::from_slice(bytes).map_err(place)?;
        if header.format > FORMAT {
            return Err(Error::Refused(format!(
                "the table has format {}, this program reads up to {FORMAT}: use a newer version of dedupe",
                header.format
            )));
        }
        serde_json::from_slice(bytes).map_err(place)
    }
}
