//! `dedupe quarantine TABLE`: the rows that were kept out.

use serde_json::json;
use serde_json::value::RawValue;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Align};
use super::{Context, open, table_url};
use crate::error::Result;
use crate::ledger::Ledger;
use crate::ledger::entry::QuarantineFile;
use crate::ledger::state::Live;

/// How much of a file is read at a time.
const PIECE: u64 = 8 << 20;

const EXAMPLES: &str = "\
Examples:
  dedupe quarantine /lake/events
  dedupe quarantine /lake/events --version 42 --print
  dedupe quarantine /lake/events --print | jq -r .reason | sort | uniq -c
  dedupe quarantine /lake/events --print | jq -r '.raw // empty' > mend-and-ingest-again.ndjson";

/// Lists or prints the rows that were kept out.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// Only rows that this version kept out [default: those of all versions]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
    /// Print the rows themselves, one JSON object a line: source, line and offset (or row), reason, raw (or record).
    #[arg(long)]
    print: bool,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let mut ledger = open(&args.table.table, None, context).await?;
    ledger.read_files().await?;
    let asked = |file: &&Live<QuarantineFile>| args.version.is_none_or(|version| file.since == version);
    let mut files: Vec<&Live<QuarantineFile>> = ledger.state().quarantine()?.values().filter(asked).collect();
    files.sort_by(|a, b| (a.since, &a.item.name).cmp(&(b.since, &b.item.name)));
    match (out.is_json(), args.print) {
        (false, false) => out.text(&list(&ledger, &files))?,
        (false, true) => {
            for file in files {
                print(&ledger, &file.item, |line| out.bytes(line)).await?;
            }
        }
        (true, false) => out.json(&head(&ledger, &files))?,
        (true, true) => {
            out.open_list(&head(&ledger, &files), "records")?;
            let mut first = true;
            for file in files {
                print(&ledger, &file.item, |line| {
                    let printed = match serde_json::from_slice::<&RawValue>(line) {
                        Ok(record) => out.item(first, &record),
                        Err(_) => out.item(first, &String::from_utf8_lossy(line)),
                    };
                    first = false;
                    printed
                })
                .await?;
            }
            out.close_list()?;
        }
    }
    Ok(Exit::Done)
}

fn head(ledger: &Ledger, files: &[&Live<QuarantineFile>]) -> serde_json::Value {
    let file = |live: &&Live<QuarantineFile>| {
        let QuarantineFile { name, rows, bytes } = &live.item;
        json!({ "version": live.since, "rows": rows, "bytes": bytes, "path": ledger.store().location_of(name) })
    };
    json!({
        "table": table_url(ledger.store()),
        "version": ledger.state().version(),
        "rows": files.iter().fold(0, |sum: u64, file| sum.saturating_add(file.item.rows)),
        "files": files.iter().map(file).collect::<Vec<_>>(),
    })
}

fn list(ledger: &Ledger, files: &[&Live<QuarantineFile>]) -> String {
    if files.is_empty() {
        return "no rows were kept out\n".into();
    }
    let header =
        [("version", Align::Right), ("rows", Align::Right), ("size", Align::Right), ("file", Align::Left)];
    let row = |file: &&Live<QuarantineFile>| {
        let path = ledger.store().location_of(&file.item.name);
        vec![render::number(file.since), render::number(file.item.rows), render::size(file.item.bytes), path]
    };
    render::table(&header, files.iter().map(row))
}

/// Gives `each` the lines of a quarantine file, line breaks included, without holding the file in memory.
async fn print(
    ledger: &Ledger,
    file: &QuarantineFile,
    mut each: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<(), Stop> {
    let mut rest: Vec<u8> = Vec::new();
    let mut start = 0;
    while start < file.bytes {
        let end = file.bytes.min(start + PIECE);
        rest.extend_from_slice(&ledger.store().get_range(&file.name, start..end).await?);
        start = end;
        let whole = memchr::memrchr(b'\n', &rest).map_or(0, |at| at + 1);
        for line in rest.get(..whole).unwrap_or_default().split_inclusive(|byte| *byte == b'\n') {
            each(line)?;
        }
        rest.drain(..whole);
    }
    if rest.is_empty() { Ok(()) } else { Ok(each(&rest)?) }
}
