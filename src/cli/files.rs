//! `dedupe files TABLE`: the live data files, for other readers.

use serde_json::json;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, table_url};

const EXAMPLES: &str = "\
Examples:
  dedupe files /lake/events
  duckdb -c \"SELECT count(*) FROM read_parquet([$(dedupe files /lake/events | sed \"s/.*/'&'/\" | paste -sd,)])\"
  dedupe files /lake/events --version 41

A reader takes the list from here and not from a glob: files that are not (yet) part of the table lie beside those \
that are.";

/// Lists the live data files.
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
    let mut ledger = open(&args.table.table, args.version, context).await?;
    ledger.read_files().await?;
    let (store, state) = (ledger.store(), ledger.state());
    if !out.is_json() {
        for name in state.files()?.keys() {
            out.line(&store.location_of(name))?;
        }
        return Ok(Exit::Done);
    }
    out.open_list(&json!({ "table": table_url(store), "version": state.version() }), "files")?;
    for (i, (name, file)) in state.files()?.iter().enumerate() {
        let item = json!({
            "path": store.location_of(name),
            "name": name,
            "rows": file.item.rows,
            "bytes": file.item.bytes,
            "since": file.since,
        });
        out.item(i == 0, &item)?;
    }
    out.close_list()?;
    Ok(Exit::Done)
}
