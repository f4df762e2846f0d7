//! `dedupe log TABLE`: a line a version, newest first.

use serde::Serialize;
use serde_json::json;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Align};
use super::{Context, open, table_url};
use crate::ledger::Entry;
use crate::ledger::state::Applied;
use crate::upkeep::history::history;
use crate::verdict::Accounting;

const EXAMPLES: &str = "\
Examples:
  dedupe log /lake/events
  dedupe log /lake/events --limit 10
  dedupe log /lake/events --output json | jq -r '.versions[] | [.version, .accepted] | @tsv'";

/// Lists the versions of a table, newest first.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// Only the newest N versions [default: all]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    limit: Option<u64>,
}

/// One version, as `--output json` prints it in `versions`.
#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub(super) version: u64,
    pub(super) kind: &'static str,
    /// By the writer's clock: information only.
    pub(super) time: String,
    pub(super) writer: String,
    pub(super) session: String,
    pub(super) batch: Option<String>,
    #[serde(flatten)]
    pub(super) rows: Accounting,
    /// Data files added.
    pub(super) files: usize,
    /// Bytes in them.
    pub(super) bytes: u64,
    /// The rule it breaks, if it is void: it occupies its version and has no effect.
    pub(super) void: Option<String>,
}

impl Line {
    pub(super) fn of(entry: Entry, applied: &Applied) -> Self {
        let kind = entry.kind();
        let (batch, rows, files, bytes) = match entry.ingest() {
            Some(ingest) => (
                ingest.batch.as_ref().map(|batch| batch.id.clone()),
                ingest.rows,
                ingest.files.len(),
                ingest.files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.bytes)),
            ),
            None => Default::default(),
        };
        let void = match applied {
            Applied::Valid => None,
            Applied::Void(rule) => Some(rule.to_string()),
        };
        let Entry { version, time, writer, session, .. } = entry;
        Self { version, kind, time, writer, session, batch, rows, files, bytes, void }
    }
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let ledger = open(&args.table.table, None, context).await?;
    let entries = ledger.state().entries;
    let first = args.limit.map_or(0, |limit| entries.saturating_sub(limit));
    let mut lines = Vec::new();
    history(&ledger, first..entries, |entry, applied| lines.push(Line::of(entry, &applied))).await?;
    lines.reverse();
    if out.is_json() {
        let table = table_url(ledger.store());
        out.open_list(&json!({ "table": table, "version": ledger.state().version() }), "versions")?;
        for (i, line) in lines.iter().enumerate() {
            out.item(i == 0, line)?;
        }
        out.close_list()?;
    } else {
        out.text(&text(&lines))?;
    }
    Ok(Exit::Done)
}

fn text(lines: &[Line]) -> String {
    let header = [
        ("version", Align::Right),
        ("time", Align::Left),
        ("kind", Align::Left),
        ("read", Align::Right),
        ("accepted", Align::Right),
        ("duplicate", Align::Right),
        ("replayed", Align::Right),
        ("rejected", Align::Right),
        ("files", Align::Right),
        ("bytes", Align::Right),
        ("note", Align::Left),
    ];
    render::table(&header, lines.iter().map(cells))
}

fn cells(line: &Line) -> Vec<String> {
    let judged = line.kind == "ingest";
    let number = |n: u64| if judged { render::number(n) } else { String::new() };
    let note = match (&line.void, &line.batch) {
        (Some(rule), _) => format!("VOID: {rule}"),
        (None, Some(batch)) => format!("batch {batch}"),
        (None, None) => String::new(),
    };
    vec![
        render::number(line.version),
        line.time.clone(),
        line.kind.into(),
        number(line.rows.read),
        number(line.rows.accepted),
        number(line.rows.duplicate),
        number(line.rows.replayed),
        number(line.rows.rejected),
        number(line.files as u64),
        if judged { render::size(line.bytes) } else { String::new() },
        note,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commits_of_rows_show_numbers_and_void_entries_say_why() {
        let line = |version, kind, void: Option<&str>| Line {
            version,
            kind,
            time: "2026-01-31T10:00:00.000Z".into(),
            writer: "host:1".into(),
            session: "00".into(),
            batch: Some("b1".into()),
            rows: Accounting { read: 1500, accepted: 1500, ..Accounting::default() },
            files: 1,
            bytes: 2_000_000,
            void: void.map(str::to_owned),
        };
        let text = text(&[
            line(2, "ingest", Some("batch committed")),
            line(1, "ingest", None),
            line(0, "create", None),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[1].ends_with("VOID: batch committed"), "{text}");
        assert!(lines[2].contains("1,500") && lines[2].ends_with("batch b1"), "{text}");
        assert!(!lines[3].contains("1,500"), "{text}");
    }
}
