//! `dedupe verify TABLE`: the table against its own record.

use std::num::NonZeroUsize;

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::{Context, open, render, table_url, values};
use crate::clock::Stopwatch;
use crate::upkeep::verify::{VerifyOptions, VerifyReport, verify};

const EXAMPLES: &str = "\
Examples:
  dedupe verify /lake/events
  dedupe verify /lake/events --output json | jq -r '.problems[]'

Checks the row accounting of every commit, the checksums of every run, and that the keys of all rows in the live data \
files are exactly the accepted ones: no duplicate, none missing. Reads the whole index and all data files. \
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
    /// Memory it may take [default: a quarter of the machine's, at most 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = values::memory)]
    memory: Option<u64>,
    /// Threads that read and tokenise [default: one a processor]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Reply {
    table: String,
    version: Option<u64>,
    /// Whether everything holds, that is, whether there are no problems.
    ok: bool,
    #[serde(flatten)]
    report: VerifyReport,
    versions: u64,
    files: usize,
    runs: usize,
    seconds: f64,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let stopwatch = Stopwatch::start();
    let mut ledger = open(&args.table.table, args.version, context).await?;
    let mut options = VerifyOptions::default();
    options.memory = args.memory.unwrap_or(options.memory);
    options.threads = args.threads.unwrap_or(options.threads);
    let report = verify(&ledger, &options).await?;
    ledger.read_files().await?;
    let state = ledger.state();
    let reply = Reply {
        table: table_url(ledger.store()),
        version: state.version(),
        ok: report.problems.is_empty(),
        report,
        versions: state.entries,
        files: state.files()?.len(),
        runs: state.runs.len(),
        seconds: stopwatch.seconds(),
    };
    out.reply(&reply, || text(&reply))?;
    Ok(if reply.ok { Exit::Done } else { Exit::Failed })
}

fn text(reply: &Reply) -> String {
    let problems = &reply.report.problems;
    let notes: String =
        reply.report.notes.iter().map(|note| format!("note: {}\n", render::clean(note))).collect();
    if !reply.ok {
        let list: String = problems.iter().map(|problem| format!("- {}\n", render::clean(problem))).collect();
        return format!("{notes}{}\n{list}", render::count(problems.len() as u64, "problem"));
    }
    format!(
        "{notes}everything holds: {}, {} in {}, {} in {}, {:.2} s\n",
        render::count(reply.versions, "version"),
        render::count(reply.report.rows, "row"),
        render::count(reply.files as u64, "data file"),
        render::count(reply.report.tokens, "token"),
        render::count(reply.runs as u64, "run"),
        reply.seconds,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_listed_one_a_line() {
        let problems = vec!["a row is missing".into(), "so is\nanother".into()];
        let report = VerifyReport { problems, ..VerifyReport::default() };
        let table = "/t".to_owned();
        let mut reply = Reply {
            table,
            version: Some(1),
            ok: false,
            report,
            versions: 2,
            files: 1,
            runs: 1,
            seconds: 0.5,
        };
        assert_eq!(text(&reply), "2 problems\n- a row is missing\n- so is\\nanother\n");
        (reply.ok, reply.report.rows, reply.report.tokens) = (true, 2000, 1999);
        let expected =
            "everything holds: 2 versions, 2,000 rows in 1 data file, 1,999 tokens in 1 run, 0.50 s\n";
        assert_eq!(text(&reply), expected);
    }
}
