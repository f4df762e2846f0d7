//! `dedupe tokens TABLE -o FILE`: the index as Parquet.

use std::path::PathBuf;

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, render, table_url};
use crate::upkeep::export::{Exported, export_tokens};

const EXAMPLES: &str = "\
Examples:
  dedupe tokens /lake/events -o tokens.parquet
  duckdb -c \"SELECT run, count(*) FROM 'tokens.parquet' GROUP BY run\"

Columns: token (16 bytes), commit (the version that accepted it), run (the run or manifest that holds it). A token is \
the keyed digest of a row's key; the key itself cannot be recovered from it.";

/// Exports the accepted tokens as Parquet.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// Only the tokens of this run (name within the table, or the last part of it).
    #[arg(long, value_name = "NAME")]
    run: Option<String>,
    /// The local file to write, over an older one.
    #[arg(short = 'o', long, value_name = "FILE")]
    to: PathBuf,
    /// As it was at this version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Reply {
    table: String,
    version: Option<u64>,
    file: String,
    #[serde(flatten)]
    exported: Exported,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let ledger = open(&args.table.table, args.version, context).await?;
    let exported = export_tokens(&ledger, args.run.as_deref(), &args.to).await?;
    let reply = Reply {
        table: table_url(ledger.store()),
        version: ledger.state().version(),
        file: args.to.display().to_string(),
        exported,
    };
    out.reply(&reply, || {
        let (tokens, runs) = (render::count(exported.tokens, "token"), render::count(exported.runs, "run"));
        format!(
            "wrote {tokens} of {runs} to {} ({})\n",
            render::clean(&reply.file),
            render::size(exported.bytes)
        )
    })?;
    Ok(Exit::Done)
}
