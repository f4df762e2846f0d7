//! `dedupe compact TABLE`: fewer token runs, same tokens.

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, render, table_url, values};
use crate::options::default_memory;
use crate::upkeep::compact::{CompactReport, compact};

const EXAMPLES: &str = "\
Examples:
  dedupe compact /lake/events
  dedupe compact s3://lake/events --memory 256MiB

Ingest compacts by itself when runs become many; this does it now, and whole. Writers never wait for it. Killed at any \
instant it leaves the table as it was, or compacted.";

/// Merges token runs.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// Memory it may take [default: a quarter of the machine's, at most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    memory: Option<u64>,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Reply {
    table: String,
    #[serde(flatten)]
    report: CompactReport,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let mut ledger = open(&args.table.table, None, context).await?;
    let report = compact(&mut ledger, args.memory.unwrap_or_else(default_memory)).await?;
    let reply = Reply { table: table_url(ledger.store()), report };
    out.reply(&reply, || text(&reply.report))?;
    Ok(Exit::Done)
}

fn text(report: &CompactReport) -> String {
    let Some(version) = report.version else {
        return format!("nothing to do: the table has {}\n", render::count(report.runs_after as u64, "run"));
    };
    format!(
        "committed version {}: {} became {}, {} rewritten\n",
        render::number(version),
        render::count(report.runs_before as u64, "run"),
        render::number(report.runs_after as u64),
        render::count(report.tokens, "token"),
    )
}
