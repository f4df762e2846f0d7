//! The table's identity, `table.json`: written once at creation, never changed.

use serde::{Deserialize, Serialize};

use super::seal;
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
        let unfit = |why: String| Error::Internal(format!("table.json cannot be written: {why}"));
        let json = serde_json::to_vec_pretty(self).map_err(|e| unfit(e.to_string()))?;
        seal::seal(&json).ok_or_else(|| unfit("it is no object".into()))
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
        seal::check(object, bytes)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::{TokenHash, TokenKey};

    fn identity() -> TableIdentity {
        let key = TokenKey::from_bytes([0xa7; 16]);
        let spec = TokenSpec { encoding: 1, hash: TokenHash::SipHash24, key, columns: Vec::new() };
        TableIdentity::new(spec).unwrap()
    }

    /// `identity` with another text in one place, and a seal that fits.
    fn changed(identity: &TableIdentity, from: &str, to: &str) -> Vec<u8> {
        let text = serde_json::to_string_pretty(identity).unwrap();
        assert!(text.contains(from));
        seal::seal(text.replace(from, to).as_bytes()).unwrap()
    }

    #[test]
    fn an_identity_reads_back_and_no_two_are_alike() {
        let one = identity();
        assert_ne!(one.table, identity().table);
        assert_eq!((one.format, one.table.len(), one.single_writer), (FORMAT, 32, false));
        for identity in [one.clone(), TableIdentity { single_writer: true, ..one }] {
            let bytes = identity.encode().unwrap();
            assert_eq!(TableIdentity::decode("x", &bytes).unwrap(), identity);
            assert_eq!(String::from_utf8(bytes).unwrap().contains("single_writer"), identity.single_writer);
        }
    }

    #[test]
    fn damage_is_told_without_the_key_and_a_newer_format_is_refused() {
        let identity = identity();
        let sound = identity.encode().unwrap();
        for at in 0..sound.len() {
            let mut wrong = sound.clone();
            wrong[at] ^= 1;
            let error = TableIdentity::decode("x", &wrong).unwrap_err();
            assert!(matches!(&error, Error::Corrupt { object, .. } if object == "x"));
            assert!(!error.to_string().contains("a7a7"), "{error}");
        }
        let odd = changed(&identity, "siphash", "a7a7a7a7");
        let error = TableIdentity::decode("x", &odd).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }) && !error.to_string().contains("a7a7"), "{error}");
        let newer = changed(&identity, "\"format\": 1", "\"format\": 2");
        assert!(
            matches!(TableIdentity::decode("x", &newer), Err(Error::Refused(why)) if why.contains("format 2"))
        );
        let older = changed(&identity, "\"format\": 1", "\"format\": 0");
        assert!(TableIdentity::decode("x", &older).is_ok());
    }
}
