//! What a table knows about one key: since which version, when, by whom, from which source, and where its row lies.
//!
//! The index gives the answer; the data files are only searched for the row, the likely ones first. A key that the
//! index holds and no data file does is told as such: `verify` then says more.

use serde::Serialize;

use crate::error::{Error, Result};
use crate::ledger::entry::{DataFile, Entry, Ingest};
use crate::ledger::{Ledger, name};
use crate::runs::OpenRun;
use crate::source::input::Input;
use crate::source::parquet::ParquetFile;
use crate::store::compute;
use crate::token::{KeyKind, Token, TokenSpec};

/// Rows decoded at a time while a data file is searched.
const BATCH_ROWS: usize = 8192;

/// A key: the name of each key column and its value as text, `None` for null.
pub type KeyText = [(String, Option<String>)];

/// What is known about a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The key's token.
    pub token: String,
    /// Whether it was accepted.
    pub known: bool,
    /// How, if it was.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub accepted: Option<Acceptance>,
}

/// How a key was accepted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Acceptance {
    /// The version that accepted it.
    pub version: u64,
    /// When, by the writer's clock.
    pub time: String,
    /// By which writer: host and process.
    pub writer: String,
    /// In which session.
    pub session: String,
    /// As part of which batch.
    pub batch: Option<String>,
    /// The object of the index that holds the token: a run, or the manifest.
    pub index: String,
    /// Where its row came from: path or URL, without credentials.
    pub source: Option<String>,
    /// The data file that holds its row: name within the table.
    pub file: Option<String>,
    /// The row in that file, from 0.
    pub row: Option<u64>,
}

/// Explains `key` by the table as of the ledger's version.
pub async fn explain(ledger: &Ledger, key: &KeyText) -> Result<Explanation> {
    ledger.or_expired(explain_key(ledger, key).await).await
}

async fn explain_key(ledger: &Ledger, key: &KeyText) -> Result<Explanation> {
    let spec = &ledger.identity().token;
    let token = spec.token_of_text(key)?;
    let accepted = match find_version(ledger, token).await? {
        Some((version, index)) => Some(accepted(ledger, key, token, version, index).await?),
        None => None,
    };
    Ok(Explanation { token: token.to_string(), known: accepted.is_some(), accepted })
}

/// The version that accepted `token`, and the object that says so.
async fn find_version(ledger: &Ledger, token: Token) -> Result<Option<(u64, String)>> {
    let (store, state) = (ledger.store(), ledger.state());
    if let Some((version, _)) = state.inline.iter().find(|(_, tokens)| tokens.0.binary_search(&token).is_ok())
    {
        return Ok(Some((*version, name::manifest(*version))));
    }
    for live in state.runs.values().filter(|live| (live.item.min..=live.item.max).contains(&token.0)) {
        let run = OpenRun::open(store, &live.item).await?;
        if let Some(hit) = run.hits(store, &[token]).await?.first() {
            let version = run.commit_of(store, hit).await?.unwrap_or(live.since);
            return Ok(Some((version, live.item.name.clone())));
        }
    }
    Ok(None)
}

async fn accepted(
    ledger: &Ledger,
    key: &KeyText,
    token: Token,
    version: u64,
    index: String,
) -> Result<Acceptance> {
    let absent =
        || Error::corrupt(name::manifest(version), format!("it is absent, and {index} refers to it"));
    let entry = ledger.read(version).await?.ok_or_else(absent)?;
    let mut acceptance = Acceptance {
        version,
        index,
        source: None,
        file: None,
        row: None,
        batch: entry.ingest().and_then(|ingest| Some(ingest.batch.as_ref()?.id.clone())),
        time: entry.time.clone(),
        writer: entry.writer.clone(),
        session: entry.session.clone(),
    };
    for file in candidates(ledger, key, &entry).await? {
        let Some(row) = find_row(ledger, &file, token).await? else { continue };
        let ingest = entry.ingest().filter(|ingest| ingest.files.iter().any(|added| added.name == file.name));
        acceptance.source = ingest.and_then(|ingest| source_of(ingest, &file, row));
        acceptance.file = Some(file.name);
        acceptance.row = Some(row);
        break;
    }
    Ok(acceptance)
}

/// The live data files that can hold a row which `entry` accepted, the likely ones first: those it added, and what
/// compactions have since made of those that are no longer live.
async fn candidates(ledger: &Ledger, key: &KeyText, entry: &Entry) -> Result<Vec<DataFile>> {
    let mut listed = ledger.clone();
    listed.read_files().await?;
    let live = listed.state().files()?;
    let added = entry.ingest().map_or(&[][..], |ingest| &ingest.files);
    let mut files: Vec<DataFile> =
        added.iter().filter(|file| live.contains_key(&file.name)).cloned().collect();
    if files.len() < added.len() {
        let mut seen = None;
        let mut later: Vec<_> = live.values().filter(|file| file.since > entry.version).collect();
        later.sort_by_key(|file| file.since);
        for file in later {
            let compaction = match seen {
                Some((since, known)) if since == file.since => known,
                _ => ledger.read(file.since).await?.is_some_and(|entry| entry.kind() == "compact"),
            };
            seen = Some((file.since, compaction));
            if compaction {
                files.push(file.item.clone());
            }
        }
    }
    // A range that misleads costs time, and never an answer.
    files.sort_by_key(|file| !may_hold(&ledger.identity().token, file, key));
    Ok(files)
}

/// Whether the file's key ranges allow `key`, as far as they can be compared.
fn may_hold(spec: &TokenSpec, file: &DataFile, key: &KeyText) -> bool {
    spec.columns.iter().zip(&file.key_range).all(|(column, range)| {
        let value = key.iter().find(|(name, _)| *name == column.name).and_then(|(_, value)| value.as_deref());
        let (Some(value), Some((min, max))) = (value, range) else { return true };
        match column.kind {
            KeyKind::Integer => match (value.parse::<i128>(), min.parse(), max.parse()) {
                (Ok(value), Ok(min), Ok(max)) => (min..=max).contains(&value),
                _ => true,
            },
            KeyKind::Text => (min.as_str()..=max.as_str()).contains(&value),
            _ => true,
        }
    })
}

/// The row of `file` whose key has this token.
async fn find_row(ledger: &Ledger, file: &DataFile, token: Token) -> Result<Option<u64>> {
    let spec = ledger.identity().token.clone();
    let url = ledger.store().location_of(&file.name);
    let (store, name, size) = (ledger.store().clone(), file.name.clone(), file.bytes);
    compute(move || {
        let parquet = ParquetFile::open(Input::of_object(&store, &name, size)?, &url)?;
        let key = spec.bind(parquet.schema(), &url)?;
        let mut row = 0;
        for group in parquet.row_groups() {
            for batch in group.key_batches(&key.paths(), BATCH_ROWS)? {
                let tokens = key.tokenise(&batch?)?;
                let has_key = |at: usize| tokens.keyless.as_ref().is_none_or(|keyless| !keyless.value(at));
                let mut places = tokens.tokens.iter().enumerate();
                if let Some((at, _)) = places.find(|(at, found)| **found == token && has_key(*at)) {
                    return Ok(Some(row + at as u64));
                }
                row += tokens.tokens.len() as u64;
            }
        }
        Ok(None)
    })
    .await
}

/// The source of a row of `file`, which the ingest added.
fn source_of(ingest: &Ingest, file: &DataFile, row: u64) -> Option<String> {
    let mut end = 0u64;
    let (source, _) = file.origin.iter().find(|(_, rows)| {
        end = end.saturating_add(*rows);
        row < end
    })?;
    Some(ingest.sources.get(*source as usize)?.url.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::entry::SourceUse;
    use crate::token::{KeyColumn, TokenHash, TokenKey, TokenSum};

    fn file(origin: &[(u32, u64)], range: Option<(&str, &str)>) -> DataFile {
        DataFile {
            name: "data/f".into(),
            rows: 0,
            bytes: 0,
            check: String::new(),
            keyless: 0,
            tokens: TokenSum::default(),
            origin: origin.to_vec(),
            key_range: vec![range.map(|(min, max)| (min.into(), max.into()))],
        }
    }

    fn spec(kind: KeyKind) -> TokenSpec {
        let columns = vec![KeyColumn { name: "id".into(), path: vec!["id".into()], kind }];
        TokenSpec { encoding: 1, hash: TokenHash::SipHash24, key: TokenKey::from_bytes([0; 16]), columns }
    }

    fn id(value: Option<&str>) -> Vec<(String, Option<String>)> {
        vec![("id".into(), value.map(str::to_owned))]
    }

    #[test]
    fn a_rows_source_follows_from_its_place_in_the_file() {
        let source = |url: &str| SourceUse { url: url.into(), ..SourceUse::default() };
        let ingest = Ingest { sources: vec![source("a"), source("b")], ..Ingest::default() };
        let file = file(&[(1, 2), (0, 0), (0, 3)], None);
        let found: Vec<_> = (0..6).map(|row| source_of(&ingest, &file, row)).collect();
        let expected = [Some("b"), Some("b"), Some("a"), Some("a"), Some("a"), None];
        assert_eq!(found, expected.map(|url| url.map(str::to_owned)));
        let hostile = super::tests::file(&[(9, u64::MAX), (0, u64::MAX)], None);
        assert_eq!(source_of(&ingest, &hostile, 5), None);
    }

    #[test]
    fn ranges_are_compared_by_the_kind_of_the_column() {
        let integers = file(&[], Some(("-5", "10")));
        for (value, expected) in [("7", true), ("-5", true), ("11", false), ("-6", false), ("seven", true)] {
            assert_eq!(may_hold(&spec(KeyKind::Integer), &integers, &id(Some(value))), expected, "{value}");
        }
        let texts = file(&[], Some(("apple", "melon")));
        for (value, expected) in [("banana", true), ("pear", false), ("Apple", false)] {
            assert_eq!(may_hold(&spec(KeyKind::Text), &texts, &id(Some(value))), expected, "{value}");
        }
    }

    #[test]
    fn what_cannot_be_compared_may_hold_the_key() {
        let ranged = file(&[], Some(("1", "2")));
        assert!(may_hold(&spec(KeyKind::Integer), &ranged, &id(None)));
        assert!(may_hold(&spec(KeyKind::Instant), &ranged, &id(Some("3"))));
        assert!(may_hold(&spec(KeyKind::Integer), &file(&[], None), &id(Some("3"))));
    }
}
