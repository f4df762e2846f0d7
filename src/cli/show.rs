//! `dedupe show TABLE [VERSION]`: one version in full.

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::log::Line;
use super::out::{Out, Stop};
use super::render::{self, Align, Facts};
use super::{Context, open, table_url};
use crate::error::Error;
use crate::ledger::entry::{Body, Ingest};
use crate::ledger::{Entry, name};
use crate::upkeep::history::history;

const EXAMPLES: &str = "\
Examples:
  dedupe show /lake/events
  dedupe show /lake/events 42
  dedupe show /lake/events 42 --output json | jq .manifest.sources";

/// Shows one version.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// The version [default: the newest]
    #[arg(value_name = "VERSION")]
    version: Option<u64>,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Shown<'a> {
    table: String,
    version: u64,
    kind: &'static str,
    /// The rule it breaks, if it is void: it occupies its version and has no effect.
    void: Option<String>,
    /// The ledger entry as it is stored.
    manifest: &'a Entry,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let ledger = open(&args.table.table, None, context).await?;
    let newest = ledger.state().version();
    let asked = args.version.or(newest);
    let Some(version) = asked.filter(|version| newest.is_some_and(|newest| *version <= newest)) else {
        let reason = match newest {
            Some(newest) => format!("the newest is {newest}"),
            None => "the table has none yet".into(),
        };
        return Err(Error::Usage(format!("there is no version {}: {reason}", asked.unwrap_or(0))).into());
    };
    let mut found = None;
    history(&ledger, version..version + 1, |entry, applied| found = Some((entry, applied))).await?;
    let (entry, applied) = found
        .ok_or_else(|| Error::corrupt(name::manifest(version), "it was there a moment ago and is absent"))?;
    let line = Line::of(entry.clone(), &applied);
    let table = table_url(ledger.store());
    let shown = Shown { table, version, kind: line.kind, void: line.void.clone(), manifest: &entry };
    out.reply(&shown, || text(&shown.table, &entry, &line))?;
    Ok(Exit::Done)
}

fn text(table: &str, entry: &Entry, line: &Line) -> String {
    let mut facts = Facts::default();
    facts.add("table", table).add("version", render::number(entry.version)).add("kind", line.kind);
    facts.add_some("void", line.void.as_ref()).add("time", &entry.time);
    facts.add("writer", &entry.writer).add("session", &entry.session).add_some("batch", line.batch.as_ref());
    match &entry.body {
        Body::Create(create) => {
            facts.add("table id", &create.table);
        }
        Body::Policy { policy } => {
            facts.add("null key", format!("{:?}", policy.null_key).to_lowercase());
        }
        Body::Fence { floor, oldest } => {
            facts.add("floor", render::number(*floor)).add("oldest", render::number(*oldest));
        }
        Body::Compact(compact) => {
            facts.add("runs removed", render::number(compact.runs_removed.len() as u64));
            facts.add("inline removed", render::number(compact.inline_removed.len() as u64));
            facts.add("runs added", render::number(compact.runs_added.len() as u64));
            facts.add("files removed", render::number(compact.files_removed.len() as u64));
            facts.add("files added", render::number(compact.files_added.len() as u64));
        }
        Body::Ingest(ingest) => return facts.add_rows(&ingest.rows).text() + &lists(ingest),
    }
    facts.text()
}

fn lists(ingest: &Ingest) -> String {
    let mut text = String::new();
    let mut section = |title: &str, header: &[(&str, Align)], rows: Vec<Vec<String>>| {
        if !rows.is_empty() {
            text.push_str(&format!("\n{title}\n{}", render::table(header, rows)));
        }
    };
    let number = render::number;
    section(
        "SOURCES",
        &[
            ("read", Align::Right),
            ("accepted", Align::Right),
            ("duplicate", Align::Right),
            ("rejected", Align::Right),
            ("source", Align::Left),
        ],
        (ingest.sources.iter())
            .map(|source| {
                let url = match source.replay_of {
                    Some(version) => format!("{} (consumed before, by version {version})", source.url),
                    None => source.url.clone(),
                };
                let rows = &source.rows;
                vec![
                    number(rows.read),
                    number(rows.accepted),
                    number(rows.duplicate),
                    number(rows.rejected),
                    url,
                ]
            })
            .collect(),
    );
    section(
        "LEFT OUT",
        &[("source", Align::Left), ("reason", Align::Left)],
        ingest.skipped.iter().map(|skipped| vec![skipped.url.clone(), skipped.reason.clone()]).collect(),
    );
    let sized = [("rows", Align::Right), ("size", Align::Right), ("name", Align::Left)];
    let row = |rows: u64, bytes: u64, name: &String| vec![number(rows), render::size(bytes), name.clone()];
    section("DATA FILES", &sized, ingest.files.iter().map(|f| row(f.rows, f.bytes, &f.name)).collect());
    let mut runs: Vec<_> =
        ingest.runs.iter().map(|run| row(run.tokens.count, run.bytes, &run.name)).collect();
    if !ingest.inline.is_empty() {
        let count = ingest.inline.0.len() as u64;
        runs.push(row(count, count * 16, &"(in the manifest)".into()));
    }
    section("TOKEN RUNS", &[("tokens", Align::Right), ("size", Align::Right), ("name", Align::Left)], runs);
    section("QUARANTINE", &sized, ingest.quarantine.iter().map(|f| row(f.rows, f.bytes, &f.name)).collect());
    if let Some(change) = &ingest.schema {
        let fields = change.schema.fields();
        let row = |field: &arrow_schema::FieldRef| vec![field.name().clone(), field.data_type().to_string()];
        section(
            "SCHEMA FROM HERE ON",
            &[("column", Align::Left), ("type", Align::Left)],
            fields.iter().map(row).collect(),
        );
    }
    text
}
