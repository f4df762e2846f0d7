//! The library's choices as words on the command line.

use clap::ValueEnum;
use clap::builder::PossibleValue;

use crate::options::{OnBadFile, OnBadRow, Risk};
use crate::policy::NullKey;
use crate::source::discover::Format;
use crate::token::TokenHash;

impl ValueEnum for NullKey {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Quarantine, Self::Keep, Self::Fail]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Quarantine => PossibleValue::new("quarantine").help("Keep the row out, with its reason"),
            Self::Keep => PossibleValue::new("keep").help("Accept the row; such rows are never compared"),
            Self::Fail => PossibleValue::new("fail").help("Stop; nothing is committed"),
        })
    }
}

impl ValueEnum for OnBadRow {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Quarantine, Self::Fail]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Quarantine => {
                PossibleValue::new("quarantine").help("Keep the row out, with reason and origin")
            }
            Self::Fail => PossibleValue::new("fail").help("Stop; nothing is committed"),
        })
    }
}

impl ValueEnum for OnBadFile {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Fail, Self::Skip]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Fail => PossibleValue::new("fail").help("Stop; nothing is committed"),
            Self::Skip => PossibleValue::new("skip").help("Leave the file out; the manifest records it"),
        })
    }
}

impl ValueEnum for Risk {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::SingleWriter]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::SingleWriter => PossibleValue::new("single-writer")
                .help("Two writers at once would overwrite each other's commits; there will be only one"),
        })
    }
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Parquet, Self::Ndjson]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::Parquet => PossibleValue::new("parquet"),
            Self::Ndjson => PossibleValue::new("ndjson").aliases(["jsonl", "json"]),
        })
    }
}

impl ValueEnum for TokenHash {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::SipHash24, Self::Xxh3]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(match self {
            Self::SipHash24 => PossibleValue::new("siphash-2-4-128").help("Safe against chosen keys"),
            Self::Xxh3 => PossibleValue::new("xxh3-128").help("Faster, for producers that are trusted"),
        })
    }
}
