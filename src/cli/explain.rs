//! `dedupe explain TABLE --key …`: what the table knows about one key.

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Facts};
use super::values::KeyValues;
use super::{Context, open, table_url};
use crate::upkeep::explain::{Explanation, explain};

const EXAMPLES: &str = "\
Examples:
  dedupe explain /lake/events --key event_id=4f1c2d7a
  dedupe explain /lake/events --key 'user.id=17,ts=2026-01-31T10:00:00Z'
  dedupe explain /lake/events --key 'name=Smith\\, John,city'

Values are written as text: numbers, true/false, 2026-01-31, RFC 3339 instants, bytes as hexadecimal digits or a UUID. \
A column without = is null. A comma, equals sign or backslash in a value is written \\, \\= \\\\. Ends with 0 if the key \
is known, with 3 if it is not.";

/// Tells what the table knows about one key.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// The value of every key column.
    #[arg(long, value_name = "COL=VALUE[,COL=VALUE]", required = true)]
    key: Vec<KeyValues>,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Explained {
    table: String,
    /// The newest version that was looked at.
    as_of: Option<u64>,
    #[serde(flatten)]
    explanation: Explanation,
    /// Absolute path or URL of the data file.
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<String>,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let ledger = open(&args.table.table, None, context).await?;
    let key: Vec<_> = args.key.into_iter().flat_map(|values| values.0).collect();
    let explanation = explain(&ledger, &key).await?;
    let file = explanation.accepted.as_ref().and_then(|accepted| accepted.file.as_deref());
    let explained = Explained {
        table: table_url(ledger.store()),
        as_of: ledger.state().version(),
        path: file.map(|name| ledger.store().location_of(name)),
        explanation,
    };
    out.reply(&explained, || text(&explained))?;
    Ok(if explained.explanation.known { Exit::Done } else { Exit::No })
}

fn text(explained: &Explained) -> String {
    let Some(accepted) = &explained.explanation.accepted else {
        let as_of = explained.as_of.map_or("its creation".into(), |version| format!("version {version}"));
        return format!("unknown: no row with this key was accepted as of {as_of}\n");
    };
    let mut facts = Facts::default();
    facts.add("token", &explained.explanation.token).add("time", &accepted.time);
    facts.add("writer", &accepted.writer).add("session", &accepted.session);
    facts.add_some("batch", accepted.batch.as_ref()).add_some("source", accepted.source.as_ref());
    match (&explained.path, accepted.row) {
        (Some(path), Some(row)) => facts.add("file", path).add("row", render::number(row)),
        _ => facts.add("file", "its row was found in no live data file: run `dedupe verify`"),
    };
    facts.add("index", &accepted.index);
    format!("known since version {}\n{}", render::number(accepted.version), facts.text())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upkeep::explain::Acceptance;

    fn explained(accepted: Option<Acceptance>) -> Explained {
        let known = accepted.is_some();
        let path = known.then(|| "/t/data/f.parquet".into());
        let explanation = Explanation { token: "0f".into(), known, accepted };
        Explained { table: "/t".into(), as_of: Some(4), explanation, path }
    }

    #[test]
    fn an_unknown_key_is_told_in_one_line() {
        let explained = explained(None);
        assert_eq!(text(&explained), "unknown: no row with this key was accepted as of version 4\n");
        let json = serde_json::to_value(&explained).unwrap();
        assert_eq!(json, serde_json::json!({"table": "/t", "as_of": 4, "token": "0f", "known": false}));
    }

    #[test]
    fn a_known_key_is_told_with_its_way_into_the_table() {
        let explained = explained(Some(Acceptance {
            version: 2,
            time: "2026-01-31T10:00:00Z".into(),
            writer: "host:1".into(),
            session: "s".into(),
            batch: None,
            index: "_dedupe/tokens/r.run".into(),
            source: Some("/in/a.json".into()),
            file: Some("data/f.parquet".into()),
            row: Some(1234),
        }));
        let text = text(&explained);
        assert!(text.starts_with("known since version 2\n"), "{text}");
        assert!(text.contains("source   /in/a.json\nfile     /t/data/f.parquet\nrow      1,234\n"), "{text}");
        assert_eq!(serde_json::to_value(&explained).unwrap()["version"], 2);
    }
}
