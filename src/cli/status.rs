//! `dedupe status TABLE`: what a table holds.

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Facts};
use super::writers::{self, Writer, in_flight};
use super::{Context, open_to_tell, table_url};
use crate::ledger::Ledger;
use crate::policy::NullKey;
use crate::source::ndjson::text_of_schema;
use crate::token::{KeyColumn, TokenHash};
use crate::verdict::Accounting;

const EXAMPLES: &str = "\
Examples:
  dedupe status /lake/events
  dedupe status s3://lake/events --version 41
  dedupe status /lake/events --output json | jq .duplicate_rate";

/// Shows what a table holds.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// As it was at this version [default: the newest]
    #[arg(long, value_name = "N")]
    version: Option<u64>,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Status<'a> {
    table: String,
    /// The table's identity, which stays the same wherever the table is moved to.
    id: &'a str,
    /// Null if the table's creation was interrupted before its first entry; the next ingest completes it.
    version: Option<u64>,
    /// Ledger entries, void ones included.
    versions: u64,
    key: &'a [KeyColumn],
    token_hash: TokenHash,
    /// Rows in the live data files.
    rows: u64,
    /// Of these, rows without a key.
    keyless: u64,
    files: usize,
    bytes: u64,
    tokens: u64,
    runs: usize,
    run_bytes: u64,
    inline_tokens: usize,
    /// Duplicate and replayed rows by rows read; null before anything was read.
    duplicate_rate: Option<f64>,
    /// Row accounting of all commits together.
    totals: Accounting,
    sources: u64,
    batches: u64,
    quarantine_files: usize,
    quarantine_rows: u64,
    null_key: NullKey,
    partition_by: &'a [String],
    /// As `ingest --schema` reads it.
    schema: Option<serde_json::Value>,
    last_commit: Option<LastCommit<'a>>,
    /// Nothing staged below this can become part of the table: a vacuum's fence says so.
    floor: u64,
    /// The oldest version that can still be read.
    oldest: u64,
    /// Sessions under way, by their leases; of an old version there are none.
    in_flight: Vec<Writer>,
}

#[derive(Debug, Serialize)]
struct LastCommit<'a> {
    version: u64,
    time: &'a str,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let mut ledger = open_to_tell(&args.table.table, args.version, context).await?;
    ledger.read_files().await?;
    let mut status = status(&ledger)?;
    if args.version.is_none() {
        status.in_flight = in_flight(ledger.store(), ledger.state()).await?;
    }
    out.reply(&status, || text(&status))?;
    Ok(Exit::Done)
}

fn status(ledger: &Ledger) -> crate::Result<Status<'_>> {
    let (state, token) = (ledger.state(), &ledger.identity().token);
    let (files, quarantine) = (state.files()?, state.quarantine()?);
    let sum = |numbers: &mut dyn Iterator<Item = u64>| numbers.fold(0, u64::saturating_add);
    let known = state.rows.duplicate.saturating_add(state.rows.replayed);
    Ok(Status {
        table: table_url(ledger.store()),
        id: &ledger.identity().table,
        version: state.version(),
        versions: state.entries,
        key: &token.columns,
        token_hash: token.hash,
        rows: sum(&mut files.values().map(|file| file.item.rows)),
        keyless: state.keyless,
        files: files.len(),
        bytes: sum(&mut files.values().map(|file| file.item.bytes)),
        tokens: state.total.count,
        runs: state.runs.len(),
        run_bytes: sum(&mut state.runs.values().map(|run| run.item.bytes)),
        inline_tokens: state.inline_count(),
        duplicate_rate: (state.rows.read > 0).then(|| known as f64 / state.rows.read as f64),
        totals: state.rows,
        sources: state.sources,
        batches: state.batches,
        quarantine_files: quarantine.len(),
        quarantine_rows: sum(&mut quarantine.values().map(|file| file.item.rows)),
        null_key: state.policy.null_key,
        partition_by: &state.policy.partition_by,
        schema: state.schema.as_ref().and_then(|schema| serde_json::from_str(&text_of_schema(schema)).ok()),
        last_commit: state.last_ingest.as_ref().map(|(version, time)| LastCommit { version: *version, time }),
        floor: state.floor,
        oldest: state.oldest,
        in_flight: Vec::new(),
    })
}

fn text(status: &Status<'_>) -> String {
    let mut facts = Facts::default();
    facts.add("table", &status.table);
    facts.add_some("version", status.version.map(render::number));
    if status.version.is_none() {
        facts.add("version", "none yet: its creation was interrupted, the next ingest completes it");
    }
    if let Some(last) = &status.last_commit {
        facts.add("last commit", format!("version {} at {}", render::number(last.version), last.time));
    }
    let key: Vec<String> =
        status.key.iter().map(|column| format!("{} ({})", column.name, column.kind)).collect();
    facts.add("key", key.join(", "));
    facts.add("rows", render::number(status.rows));
    if status.keyless > 0 {
        facts.add("without key", render::number(status.keyless));
    }
    facts.add("files", format!("{} ({})", render::number(status.files as u64), render::size(status.bytes)));
    let mut tokens =
        format!("{} in {}", render::number(status.tokens), render::count(status.runs as u64, "run"));
    tokens.push_str(&format!(" ({})", render::size(status.run_bytes)));
    if status.inline_tokens > 0 {
        tokens.push_str(&format!(", {} of them in manifests", render::number(status.inline_tokens as u64)));
    }
    facts.add("tokens", tokens);
    facts.add_rows(&status.totals);
    let known = status.totals.duplicate.saturating_add(status.totals.replayed);
    facts.add("duplicate rate", render::percent(known, status.totals.read));
    facts.add("sources", render::number(status.sources));
    if status.batches > 0 {
        facts.add("batches", render::number(status.batches));
    }
    if status.quarantine_files > 0 {
        let files = render::count(status.quarantine_files as u64, "file");
        facts.add("quarantine", format!("{} in {files}", render::count(status.quarantine_rows, "row")));
    }
    if !status.partition_by.is_empty() {
        facts.add("partitioned by", status.partition_by.join(", "));
    }
    let fields = status.schema.as_ref().and_then(|schema| schema.get("fields")?.as_array());
    facts.add_some("columns", fields.map(|fields| render::number(fields.len() as u64)));
    if status.floor > 0 {
        facts.add("floor", format!("stage {}", render::number(status.floor)));
    }
    if status.oldest > 0 {
        facts.add("readable", format!("from version {} on", render::number(status.oldest)));
    }
    facts.text() + &writers::text(&status.in_flight)
}
