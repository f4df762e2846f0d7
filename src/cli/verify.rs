//! `dedupe verify TABLE`: the table against its own record.

use serde_json::json;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, render, table_url};
use crate::clock::Stopwatch;
use crate::upkeep::verify::{VerifyOptions, verify};

const EXAMPLES: &str = "\
Examples:
  dedupe verify /lake/events
  dedupe verify /lake/events --output json | jq -r '.problems[]'

Checks the row accounting of every commit, the checksums of every run, and that the keys of all rows in the live data
files are exactly the accepted ones: no duplicate, none missing. Reads the whole index and the key columns of all data.
Ends with 0 if everything holds, with 1 and a list of problems if not.";

/// Checks a table against its own record.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// As it was at this version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let stopwatch = Stopwatch::start();
    let ledger = open(&args.table.table, args.version, context).await?;
    let problems = verify(&ledger, &VerifyOptions::default()).await?.problems;
    let state = ledger.state();
    let (table, version) = (table_url(ledger.store()), state.version());
    let json = json!({
        "table": table,
        "version": version,
        "ok": problems.is_empty(),
        "problems": problems,
        "versions": state.entries,
        "files": state.files.len(),
        "runs": state.runs.len(),
        "tokens": state.total.count,
        "seconds": stopwatch.seconds(),
    });
    out.reply(&json, || {
        if !problems.is_empty() {
            let list: String =
                problems.iter().map(|problem| format!("- {}\n", render::clean(problem))).collect();
            return format!("{}\n{list}", render::count(problems.len() as u64, "problem"));
        }
        format!(
            "everything holds: {}, {}, {}\n",
            render::count(state.entries, "version"),
            render::count(state.files.len() as u64, "data file"),
            render::count(state.total.count, "token"),
        )
    })?;
    Ok(if problems.is_empty() { Exit::Done } else { Exit::Failed })
}
