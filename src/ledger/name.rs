//! Names of objects within a table.
//!
//! Staged objects carry the stage at which they were begun: `<stage:020>-<session>-<n>.<extension>`. A name is
//! never used twice, and vacuum can judge any of them by its name alone, without a clock.

use std::collections::BTreeMap;
use std::fmt;

/// The folder of everything that is not data. Readers of the field skip names with a leading underscore.
pub const HOME: &str = "_dedupe";
/// The object that holds the table's identity.
pub const TABLE: &str = "_dedupe/table.json";
/// The folder of ledger entries.
pub const LEDGER: &str = "_dedupe/ledger";
/// The folder of checkpoints.
pub const CHECKPOINTS: &str = "_dedupe/checkpoint";
/// The folder of what checkpoints share.
pub const PARTS: &str = "_dedupe/parts";
/// The folder of token runs.
pub const TOKENS: &str = "_dedupe/tokens";
/// The folder of rows that were kept out.
pub const QUARANTINE: &str = "_dedupe/quarantine";
/// The folder of the leases of live writers.
pub const SESSIONS: &str = "_dedupe/session";
/// What the name of an object begins with that a probe of the store writes, and deletes again.
pub const PROBE: &str = "_dedupe/probe-";
/// The folder of the deduplicated rows.
pub const DATA: &str = "data";

/// The name of the manifest of `version`.
pub fn manifest(version: u64) -> String {
    format!("{LEDGER}/{version:020}.json")
}

/// The version whose manifest is called `name`, if it is the name of a manifest.
pub fn manifest_version(name: &str) -> Option<u64> {
    let digits = name.strip_prefix(LEDGER)?.strip_prefix('/')?.strip_suffix(".json")?;
    twenty_digits(digits)
}

/// The last part of a staged object's name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StagedName {
    /// How many ledger entries the writer had seen when it began the object.
    pub stage: u64,
    /// The writer's session: 32 lower-case hexadecimal digits.
    pub session: String,
    /// Counts the objects of a session, those of each extension by themselves: so a name does not depend on what else is
    /// under way at the moment.
    pub number: u64,
    /// `parquet`, `run`, `ndjson`.
    pub extension: String,
}

impl StagedName {
    /// Reads the staged name at the end of an object name, whatever folder it lies in.
    pub fn parse(object: &str) -> Option<Self> {
        let last = object.rsplit('/').next()?;
        let (stem, extension) = last.split_once('.')?;
        let mut parts = stem.split('-');
        let (stage, session, number) = (parts.next()?, parts.next()?, parts.next()?);
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if parts.next().is_some() || session.len() != 32 || !session.bytes().all(hex) || extension.is_empty()
        {
            return None;
        }
        if number.is_empty() || !number.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        Some(Self {
            stage: twenty_digits(stage)?,
            session: session.to_owned(),
            number: number.parse().ok()?,
            extension: extension.to_owned(),
        })
    }
}

impl fmt::Display for StagedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:020}-{}-{}.{}", self.stage, self.session, self.number, self.extension)
    }
}

/// Hands out the names of one session.
#[derive(Debug, Clone)]
pub struct Namer {
    session: String,
    stage: u64,
    /// By extension.
    numbers: BTreeMap<String, u64>,
}

impl Namer {
    /// Names for `session`, whose writer has seen `entries` ledger entries.
    pub fn new(session: &str, entries: u64) -> Self {
        Self { session: session.to_owned(), stage: entries, numbers: BTreeMap::new() }
    }

    /// From here on, names say that the writer has seen `entries` ledger entries.
    pub fn advance(&mut self, entries: u64) {
        self.stage = self.stage.max(entries);
    }

    /// The stage that names say now.
    pub fn stage(&self) -> u64 {
        self.stage
    }

    /// A new name in `folder`, with `extension`.
    pub fn next(&mut self, folder: &str, extension: &str) -> String {
        let next = self.numbers.entry(extension.to_owned()).or_default();
        let name = StagedName {
            stage: self.stage,
            session: self.session.clone(),
            number: *next,
            extension: extension.to_owned(),
        };
        *next += 1;
        format!("{folder}/{name}")
    }
}

fn twenty_digits(text: &str) -> Option<u64> {
    (text.len() == 20 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_staged_name_reads_back() {
        let name = StagedName { stage: 42, session: "0f".repeat(16), number: 7, extension: "parquet".into() };
        let text = format!("data/country=DE/{name}");
        assert_eq!(StagedName::parse(&text), Some(name));
    }

    #[test]
    fn foreign_names_are_not_staged_names() {
        for name in
            ["", "data/part-0.parquet", "data/1-2-3.parquet", "00000000000000000042.json", "data/.parquet"]
        {
            assert_eq!(StagedName::parse(name), None, "{name}");
        }
    }

    #[test]
    fn one_flaw_makes_a_name_foreign() {
        let (stage, session) = ("00000000000000000042", "0123456789abcdef".repeat(2));
        assert!(StagedName::parse(&format!("{stage}-{session}-7.run")).is_some());
        for flawed in [
            format!("{}-{session}-7.run", &stage[1..]),
            format!("0{stage}-{session}-7.run"),
            format!("+{}-{session}-7.run", &stage[1..]),
            format!("99999999999999999999-{session}-7.run"),
            format!("{stage}-{}-7.run", &session[1..]),
            format!("{stage}-{}-7.run", session.to_uppercase()),
            format!("{stage}-{}g-7.run", &session[1..]),
            format!("{stage}-{session}-.run"),
            format!("{stage}-{session}-+7.run"),
            format!("{stage}-{session}-18446744073709551616.run"),
            format!("{stage}-{session}-7-7.run"),
            format!("{stage}-{session}.run"),
            format!("{stage}-{session}-7."),
            format!("{stage}-{session}-7"),
        ] {
            assert_eq!(StagedName::parse(&flawed), None, "{flawed}");
        }
    }

    #[test]
    fn a_session_never_uses_a_name_twice_and_its_stage_only_rises() {
        let session = "0f".repeat(16);
        let mut namer = Namer::new(&session, 3);
        assert_eq!(namer.stage(), 3);
        assert_eq!(namer.next(DATA, "parquet"), format!("data/00000000000000000003-{session}-0.parquet"));
        namer.advance(7);
        namer.advance(5);
        assert_eq!(namer.stage(), 7);
        assert_eq!(namer.next(TOKENS, "run"), format!("_dedupe/tokens/00000000000000000007-{session}-0.run"));
        assert_eq!(namer.next(TOKENS, "run"), format!("_dedupe/tokens/00000000000000000007-{session}-1.run"));
    }

    #[test]
    fn a_manifest_name_reads_back() {
        assert_eq!(manifest(42), "_dedupe/ledger/00000000000000000042.json");
        assert_eq!(manifest_version(&manifest(u64::MAX)), Some(u64::MAX));
        assert_eq!(manifest_version("_dedupe/ledger/42.json"), None);
        assert_eq!(manifest_version("_dedupe/ledger/99999999999999999999.json"), None);
        assert_eq!(manifest_version("_dedupe/ledger/00000000000000000042.run"), None);
        assert_eq!(manifest_version("_dedupe/ledger/0000000000000000004x.json"), None);
    }
}
