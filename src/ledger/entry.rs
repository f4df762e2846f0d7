//! One ledger entry: the immutable record of one commit, as JSON.
//!
//! An entry is written once under its version's name and never changed. Its `id` is random and new for every
//! different content, so that a writer recognises its own bytes when it reads a version back; `prev` is the hash of
//! the entry before, so that an entry is valid at one place of one ledger only.

use arrow_schema::Schema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use super::seal;
use crate::error::{Error, Result};
use crate::policy::{NullKey, Policy};
use crate::token::{Token, TokenSum, hex128};
use crate::verdict::Accounting;

/// The format version of manifests that this program writes, and the newest it reads.
pub const FORMAT: u32 = 1;

/// The largest manifest that is read, in bytes: a limit against a hostile or damaged table.
pub const MAX_MANIFEST: u64 = 1 << 30;

/// A ledger entry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Format version of this manifest.
    pub format: u32,
    /// The version this entry makes.
    pub version: u64,
    /// 128 random bits, new for every different content.
    #[serde(with = "hex128")]
    pub id: u128,
    /// XXH3-128 of the bytes of the entry before; zero in version 0.
    #[serde(with = "hex128")]
    pub prev: u128,
    /// When the entry was made, by its writer's clock. Information only.
    pub time: String,
    /// The session that made it.
    pub session: String,
    /// Who runs that session, for people: host and process.
    pub writer: String,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// What an entry does to the table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Body {
    /// The table comes to be: once, and before all else.
    Create(Create),
    /// Rows were judged, and the survivors added.
    Ingest(Box<Ingest>),
    /// Token runs (or data files) were replaced by fewer that hold the same.
    Compact(Compact),
    /// The table's rules change.
    Policy {
        /// The new rules.
        policy: Policy,
    },
    /// From here on nothing staged below the floor may become part of the table.
    Fence {
        /// The lowest stage that is still welcome.
        floor: u64,
        /// The oldest version whose snapshot stays readable.
        #[serde(default)]
        oldest: u64,
    },
}

/// The first entry of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Create {
    /// The table's identity, as in `table.json`.
    pub table: String,
    /// The rules the table starts with.
    pub policy: Policy,
}

/// One commit of judged rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Ingest {
    /// The batch this commit makes idempotent, if the run was given one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<Batch>,
    /// The version of the policy under which the rows were judged.
    pub policy: u64,
    /// What became of rows without a key, where the run was told otherwise than the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub null_key: Option<NullKey>,
    /// The table's schema, if this commit gives it or widens it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaChange>,
    /// The sources consumed, in input order.
    pub sources: Vec<SourceUse>,
    /// Sources that could not be read and were left out on request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skipped: Vec<SkippedSource>,
    /// The data files added, in row order.
    pub files: Vec<DataFile>,
    /// The token runs added; together with `inline` exactly the tokens of the accepted rows.
    pub runs: Vec<RunRef>,
    /// Tokens of a very small commit, ascending, 16 big-endian bytes each, in base64.
    #[serde(default, skip_serializing_if = "InlineTokens::is_empty")]
    pub inline: InlineTokens,
    /// Files of rows that were kept out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub quarantine: Vec<QuarantineFile>,
    /// The row accounting of this commit.
    pub rows: Accounting,
    /// Accepted rows without a key, which have no token.
    #[serde(default)]
    pub keyless: u64,
    /// The multiset hash of the tokens this commit adds.
    pub added: TokenSum,
    /// The running multiset hash of all accepted tokens, this commit included.
    pub total: TokenSum,
}

/// A batch id and what it stood for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// The id, as given.
    pub id: String,
    /// XXH3-128 over the identities of the batch's sources, in order.
    #[serde(with = "hex128")]
    pub digest: u128,
}

impl Batch {
    /// A batch that nothing but its id tells from others: what a program is given that has no sources to be compared.
    pub fn named(id: impl Into<String>) -> Self {
        Self { id: id.into(), digest: 0 }
    }
}

/// A new schema, and the one it was derived from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SchemaChange {
    /// The version that gave the schema this one widens; 0 if there was none.
    pub base: u64,
    /// The whole new schema, as arrow-rs serialises it, with the names of metadata in order.
    #[serde(serialize_with = "schema_json::serialize")]
    pub schema: Schema,
}

/// A source and what became of its rows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceUse {
    /// Path or URL, without credentials.
    pub url: String,
    /// Size in bytes, where known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// The store's version tag, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// Time of last modification as the store tells it, where there is no tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<String>,
    /// XXH3-128 of url, size and tag (or time): how the same source is recognised. None for standard input.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "hex128_option")]
    pub id: Option<u128>,
    /// The version that consumed this source before, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replay_of: Option<u64>,
    /// What became of its rows.
    pub rows: Accounting,
}

/// A source that was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SkippedSource {
    /// Path or URL, without credentials.
    pub url: String,
    /// Why.
    pub reason: String,
}

/// A live Parquet file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Name within the table.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// XXH3-64 of its bytes, in hexadecimal.
    pub check: String,
    /// Rows in it without a key.
    #[serde(default)]
    pub keyless: u64,
    /// The multiset hash of its tokens.
    pub tokens: TokenSum,
    /// Where its rows came from, in row order: index into the entry's sources, and rows. In JSON as text: `0:500 1:7`.
    #[serde(with = "origin_text")]
    pub origin: Vec<(u32, u64)>,
    /// Smallest and greatest value of each key column, as text, where the column has an order; null = not known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key_range: Vec<Option<(String, String)>>,
}

/// A live token run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRef {
    /// Name within the table.
    pub name: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Its smallest token.
    #[serde(with = "hex128")]
    pub min: u128,
    /// Its greatest token.
    #[serde(with = "hex128")]
    pub max: u128,
    /// The multiset hash of its tokens.
    pub tokens: TokenSum,
    /// XXH3-64 of the run's footer, which in turn holds the checksums of all its blocks, in hexadecimal.
    pub check: String,
}

/// A file of rows that were kept out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuarantineFile {
    /// Name within the table.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Size in bytes.
    pub bytes: u64,
}

/// Runs and files replaced by fewer that hold the same.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compact {
    /// Token runs that are no longer live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs_removed: Vec<String>,
    /// Versions whose inline tokens are no longer needed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inline_removed: Vec<u64>,
    /// Token runs that replace them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs_added: Vec<RunRef>,
    /// Data files that are no longer live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files_removed: Vec<String>,
    /// Data files that replace them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files_added: Vec<DataFile>,
}

/// The tokens of a very small commit, ascending.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InlineTokens(pub Vec<Token>);

impl InlineTokens {
    /// Up to this many tokens stand in the manifest instead of a run of their own.
    pub const MAX: usize = 256;

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Entry {
    /// The bytes of this entry, as they are stored. Stable: the same entry always gives the same bytes.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let unfit =
            |why: String| Error::Internal(format!("version {} cannot be written: {why}", self.version));
        let json = serde_json::to_vec_pretty(self).map_err(|e| unfit(e.to_string()))?;
        seal::seal(&json).ok_or_else(|| unfit("it is no object".into()))
    }

    /// Reads an entry. `object` names it in errors. Bytes that are not as they were sealed, are no entry, or of a newer
    /// format stop the reader: to guess what they mean would be to break the table's promises.
    pub fn decode(object: &str, bytes: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        struct Header {
            format: u32,
            kind: String,
        }
        seal::check(object, bytes)?;
        let header: Header = serde_json::from_slice(bytes).map_err(|e| Error::corrupt(object, e))?;
        if header.format > FORMAT {
            return Err(Error::Refused(format!(
                "{object} has format {}, this program reads up to {FORMAT}: use a newer version of dedupe",
                header.format
            )));
        }
        const KINDS: [&str; 5] = ["create", "ingest", "compact", "policy", "fence"];
        if !KINDS.contains(&header.kind.as_str()) {
            return Err(Error::Refused(format!(
                "{object} is of kind {:?}, which this program does not know: use a newer version of dedupe",
                header.kind
            )));
        }
        serde_json::from_slice(bytes).map_err(|e| Error::corrupt(object, e))
    }

    /// XXH3-128 of an entry's bytes: the `prev` of the entry after.
    pub fn hash(bytes: &[u8]) -> u128 {
        xxh3_128(bytes)
    }

    /// The ingest in this entry, if it is one.
    pub fn ingest(&self) -> Option<&Ingest> {
        match &self.body {
            Body::Ingest(ingest) => Some(ingest),
            _ => None,
        }
    }

    /// The kind, as it stands in the manifest.
    pub fn kind(&self) -> &'static str {
        match self.body {
            Body::Create(_) => "create",
            Body::Ingest(_) => "ingest",
            Body::Compact(_) => "compact",
            Body::Policy { .. } => "policy",
            Body::Fence { .. } => "fence",
        }
    }
}

impl Serialize for InlineTokens {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        use base64::Engine;
        let bytes: Vec<u8> = self.0.iter().flat_map(|token| token.0.to_be_bytes()).collect();
        s.serialize_str(&base64::engine::general_purpose::STANDARD.encode(bytes))
    }
}

impl<'de> Deserialize<'de> for InlineTokens {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        use base64::Engine;
        use serde::de::Error as _;
        let text = String::deserialize(d)?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text).map_err(D::Error::custom)?;
        let (tokens, rest) = bytes.as_chunks::<16>();
        if !rest.is_empty() || tokens.len() > Self::MAX {
            return Err(D::Error::custom("inline tokens are not up to 256 values of 16 bytes"));
        }
        let tokens: Vec<Token> = tokens.iter().map(|bytes| Token(u128::from_be_bytes(*bytes))).collect();
        if !tokens.is_sorted_by(|a, b| a < b) {
            return Err(D::Error::custom("inline tokens are not ascending"));
        }
        Ok(Self(tokens))
    }
}

mod origin_text {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(origin: &[(u32, u64)], s: S) -> Result<S::Ok, S::Error> {
        let parts: Vec<String> = origin.iter().map(|(source, rows)| format!("{source}:{rows}")).collect();
        s.serialize_str(&parts.join(" "))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(u32, u64)>, D::Error> {
        let part = |part: &str| {
            let (source, rows) = part.split_once(':')?;
            Some((source.parse().ok()?, rows.parse().ok()?))
        };
        let text = String::deserialize(d)?;
        let parts: Option<Vec<_>> = text.split_whitespace().map(part).collect();
        parts.ok_or_else(|| D::Error::custom("expected pairs of source and rows, such as 0:500 1:7"))
    }
}

/// Arrow keeps metadata in hash maps, which give their members in another order each time: here they are sorted, so
/// that the same schema is always the same bytes.
pub(super) mod schema_json {
    use arrow_schema::Schema;
    use serde::{Serialize, Serializer, ser::Error};
    use serde_json::Value;

    pub(in crate::ledger) fn serialize<S: Serializer>(schema: &Schema, s: S) -> Result<S::Ok, S::Error> {
        let mut json = serde_json::to_value(schema).map_err(S::Error::custom)?;
        sort_metadata(&mut json);
        json.serialize(s)
    }

    pub(in crate::ledger) fn serialize_option<S: Serializer>(
        schema: &Option<Schema>,
        s: S,
    ) -> Result<S::Ok, S::Error> {
        match schema {
            Some(schema) => serialize(schema, s),
            None => s.serialize_none(),
        }
    }

    fn sort_metadata(json: &mut Value) {
        match json {
            Value::Object(members) => {
                if let Some(Value::Object(metadata)) = members.get_mut("metadata") {
                    metadata.sort_keys();
                }
                members.values_mut().for_each(sort_metadata);
            }
            Value::Array(items) => items.iter_mut().for_each(sort_metadata),
            _ => {}
        }
    }
}

mod hex128_option {
    use crate::token::hex128;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &Option<u128>, s: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => hex128::serialize(value, s),
            None => s.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u128>, D::Error> {
        #[derive(Deserialize)]
        struct Hex(#[serde(with = "hex128")] u128);
        Ok(Option::<Hex>::deserialize(d)?.map(|hex| hex.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_schema::{DataType, Field};

    fn entry() -> Entry {
        let tokens = vec![Token(1), Token(u128::MAX)];
        Entry {
            format: FORMAT,
            version: 3,
            id: 7,
            prev: 9,
            time: "2026-01-01T00:00:00.000Z".into(),
            session: "ab".repeat(16),
            writer: "host:1".into(),
            body: Body::Ingest(Box::new(Ingest {
                batch: Some(Batch { id: "b".into(), digest: 5 }),
                schema: Some(SchemaChange {
                    base: 0,
                    schema: Schema::new(vec![Field::new("id", DataType::Utf8, true)]),
                }),
                sources: vec![SourceUse { url: "a.parquet".into(), id: Some(3), ..Default::default() }],
                added: TokenSum::of(&tokens),
                inline: InlineTokens(tokens),
                ..Default::default()
            })),
        }
    }

    #[test]
    fn an_entry_reads_back() {
        let entry = entry();
        let bytes = entry.encode().unwrap();
        assert_eq!(Entry::decode("x", &bytes).unwrap(), entry);
        assert_eq!(Entry::decode("x", &bytes).unwrap().encode().unwrap(), bytes);
    }

    #[test]
    fn the_same_schema_always_gives_the_same_bytes() {
        use crate::ledger::{State, checkpoint};
        use std::collections::HashMap;
        let schema = || {
            // Every map is seeded anew, so that each has an order of its own.
            let metadata: HashMap<String, String> =
                (0..20).map(|i| (format!("name {i}"), format!("value {i}"))).collect();
            let field = |name: &str| Field::new(name, DataType::Utf8, true).with_metadata(metadata.clone());
            let inner = DataType::Struct(vec![field("a"), field("b")].into());
            Schema::new_with_metadata(vec![Field::new("s", inner, true), field("id")], metadata.clone())
        };
        let bytes = |schema: Schema| {
            let mut entry = entry();
            let Body::Ingest(ingest) = &mut entry.body else { unreachable!() };
            ingest.schema = Some(SchemaChange { base: 0, schema: schema.clone() });
            let entry = entry.encode().unwrap();
            let mut state = State::default();
            (state.entries, state.schema) = (1, Some(schema));
            (
                Entry::decode("x", &entry).unwrap().encode().unwrap(),
                entry,
                checkpoint::encode(&state).unwrap(),
            )
        };
        let first = bytes(schema());
        assert_eq!(first.0, first.1);
        for _ in 0..10 {
            assert_eq!(bytes(schema()), first);
        }
    }

    /// The text of the entry, without its seal.
    fn unsealed() -> String {
        serde_json::to_string_pretty(&entry()).unwrap()
    }

    fn decode_sealed(text: &str) -> Result<Entry> {
        Entry::decode("x", &seal::seal(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_newer_format_or_an_unknown_kind_is_refused_not_ignored() {
        assert_eq!(decode_sealed(&unsealed()).unwrap(), entry());
        let newer = unsealed().replace("\"format\": 1", "\"format\": 2");
        assert!(matches!(decode_sealed(&newer), Err(Error::Refused(why)) if why.contains("x has format 2")));
        let unknown = unsealed().replace("\"kind\": \"ingest\"", "\"kind\": \"rewind\"");
        assert!(matches!(decode_sealed(&unknown), Err(Error::Refused(why)) if why.contains("rewind")));
    }

    #[test]
    fn damaged_bytes_are_corrupt() {
        let bytes = entry().encode().unwrap();
        for at in 0..bytes.len() {
            assert!(matches!(Entry::decode("x", &bytes[..at]), Err(Error::Corrupt { .. })), "cut at {at}");
            // The lowest bit of a digit makes another number of it, and every text another text.
            let mut wrong = bytes.clone();
            wrong[at] ^= 1;
            assert!(matches!(Entry::decode("x", &wrong), Err(Error::Corrupt { .. })), "a bit of byte {at}");
        }
    }

    #[test]
    fn an_entry_without_a_seal_is_no_entry() {
        let error = Entry::decode("x", unsealed().as_bytes()).unwrap_err();
        assert!(matches!(&error, Error::Corrupt { object, .. } if object == "x"));
        assert!(error.to_string().contains("does not end in the member `check`"), "{error}");
    }

    #[test]
    fn the_kind_is_the_one_in_the_manifest() {
        let create = Create { table: "t".into(), policy: Policy::default() };
        let bodies = [
            entry().body,
            Body::Create(create),
            Body::Compact(Compact::default()),
            Body::Policy { policy: Policy::default() },
            Body::Fence { floor: 1, oldest: 0 },
        ];
        for body in bodies {
            let entry = Entry { body, ..entry() };
            let bytes = entry.encode().unwrap();
            let value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(value["kind"], entry.kind());
            assert_eq!(entry.ingest().is_some(), entry.kind() == "ingest");
            assert_eq!(Entry::decode("x", &bytes).unwrap(), entry);
        }
    }

    #[test]
    fn what_is_absent_reads_as_what_it_stands_for() {
        let fence = Entry { body: Body::Fence { floor: 3, oldest: 0 }, ..entry() };
        let text = serde_json::to_string_pretty(&fence).unwrap().replace(",\n  \"oldest\": 0", "");
        assert!(!text.contains("oldest"));
        assert_eq!(decode_sealed(&text).unwrap(), fence);
        let nothing = Entry { body: Body::Ingest(Box::default()), ..entry() };
        let text = serde_json::to_string_pretty(&nothing).unwrap();
        for member in ["batch", "null_key", "schema", "skipped", "inline", "quarantine"] {
            assert!(!text.contains(&format!("\"{member}\"")), "{member}");
        }
        assert_eq!(decode_sealed(&text).unwrap(), nothing);
        let text = serde_json::to_string_pretty(&SourceUse::default()).unwrap();
        for member in ["size", "etag", "modified", "\"id\"", "replay_of"] {
            assert!(!text.contains(member), "{member}");
        }
    }

    #[test]
    fn the_origin_of_rows_is_written_as_pairs() {
        let file = |origin: &str| {
            serde_json::json!({
                "name": "n", "rows": 507, "bytes": 1, "check": "", "origin": origin,
                "tokens": {"count": 507, "sum": "0".repeat(32)},
            })
        };
        let read: DataFile = serde_json::from_value(file("0:500 1:7")).unwrap();
        assert_eq!(read.origin, [(0, 500), (1, 7)]);
        assert_eq!(serde_json::to_value(&read).unwrap()["origin"], "0:500 1:7");
        assert_eq!(serde_json::from_value::<DataFile>(file("")).unwrap().origin, []);
        for wrong in ["0", "0:", ":1", "0:x", "0:1 2", "-1:1", "0:1:2"] {
            assert!(serde_json::from_value::<DataFile>(file(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn inline_tokens_are_up_to_256_whole_ones() {
        let read = |tokens: Vec<Token>| {
            let text = serde_json::to_string(&InlineTokens(tokens.clone())).unwrap();
            serde_json::from_str::<InlineTokens>(&text).is_ok_and(|read| read.0 == tokens)
        };
        let tokens = |count: u128| (0..count).map(Token).collect::<Vec<_>>();
        assert!(read(tokens(0)) && read(tokens(1)) && read(tokens(256)));
        assert!(!read(tokens(257)));
        assert!(!read(vec![Token(3), Token(3)]));
        assert!(InlineTokens(tokens(0)).is_empty() && !InlineTokens(tokens(1)).is_empty());
        // 17 bytes, and what is no base64.
        for wrong in ["\"AAAAAAAAAAAAAAAAAAAAAAA=\"", "\"?\"", "7"] {
            assert!(serde_json::from_str::<InlineTokens>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_hash_of_bytes_is_xxh3_128() {
        assert_eq!(Entry::hash(b""), 0x99aa_06d3_0147_98d8_6001_c324_468d_497f);
    }

    #[test]
    fn inline_tokens_must_ascend() {
        let text = unsealed();
        let mut descending = InlineTokens(vec![Token(2), Token(1)]);
        let bad = serde_json::to_string(&descending).unwrap();
        descending.0.reverse();
        let start = text.find("\"inline\": ").unwrap() + 10;
        let end = start + text[start..].find(',').unwrap();
        let text = format!("{}{bad}{}", &text[..start], &text[end..]);
        assert!(matches!(decode_sealed(&text), Err(Error::Corrupt { .. })));
    }
}
