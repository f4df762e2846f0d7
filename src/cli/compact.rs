//! `dedupe compact TABLE`: fewer token runs, same tokens.

use serde_json::json;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, render, table_url};
use crate::upkeep::compact::compact;

const EXAMPLES: &str = "\
Example:
  dedupe compact /lake/events

Ingest compacts by itself when runs become many; this does it now, and whole. Writers never wait for it. Killed at any
instant it leaves the table as it was, or compacted.";

/// Merges token runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let mut ledger = open(&args.table.table, None, context).await?;
    let before = ledger.state().runs.len();
    compact(&mut ledger).await?;
    let (after, version) = (ledger.state().runs.len(), ledger.state().version());
    let table = table_url(ledger.store());
    let json = json!({ "table": table, "version": version, "runs_before": before, "runs": after });
    out.reply(&json, || {
        format!("{} became {}\n", render::count(before as u64, "run"), render::number(after as u64))
    })?;
    Ok(Exit::Done)
}
