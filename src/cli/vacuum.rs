//! `dedupe vacuum TABLE`: deleting what no version needs any more.

use std::time::Duration;

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Align};
use super::{Context, open, table_url, values};
use crate::upkeep::vacuum::{Sort, Tally, VacuumOptions, VacuumReport, vacuum};

const EXAMPLES: &str = "\
Examples:
  dedupe vacuum /lake/events --dry-run
  dedupe vacuum /lake/events
  dedupe vacuum s3://lake/events --grace 7d
  dedupe vacuum s3://lake/events --output json | jq .deleted

Deletes what killed runs and lost races left, and objects that compactions replaced. It needs no pause of writers or \
readers and can be stopped and run again at any moment: it first writes a fence into the ledger, after which nothing staged \
below it can become part of the table. Whatever is younger than the grace time stays, and so does everything that a live \
writer (`dedupe status`) may still need. Versions older than that can no longer be read; what they were is still told by \
`dedupe log` and `dedupe show`. With --grace 0 a run that began less than a second ago may have to start over.";

/// Deletes what no version needs any more.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// Keep what is younger: objects, and versions for those who are reading them.
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = values::duration)]
    grace: Duration,
    /// Tell what would be deleted, and write nothing at all.
    #[arg(long)]
    dry_run: bool,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Reply {
    table: String,
    #[serde(flatten)]
    report: VacuumReport,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let mut ledger = open(&args.table.table, None, context).await?;
    let mut options = VacuumOptions::default();
    (options.grace, options.dry_run) = (args.grace, args.dry_run);
    let report = vacuum(&mut ledger, &options).await?;
    let reply = Reply { table: table_url(ledger.store()), report };
    out.reply(&reply, || text(&reply.report))?;
    Ok(Exit::Done)
}

fn text(report: &VacuumReport) -> String {
    let mut text = String::new();
    if report.dry_run {
        report.names.iter().for_each(|name| text.push_str(&format!("{}\n", render::clean(name))));
        text.push_str("dry run: nothing was written or deleted\n");
    }
    match report.version {
        Some(version) => {
            text.push_str(&format!("committed the fence in version {}\n", render::number(version)))
        }
        None if report.names.is_empty() && report.kept.objects > 0 => {
            text.push_str("nothing to delete yet\n")
        }
        None if report.names.is_empty() => {
            text.push_str("nothing to do: the table holds nothing that no version needs\n")
        }
        None => {}
    }
    let line = |name: &str, tally: &Tally| {
        vec![name.to_owned(), render::number(tally.objects), render::size(tally.bytes)]
    };
    let deleted: Vec<_> = report.deleted.iter().map(|(sort, tally)| line(word(*sort), tally)).collect();
    if !deleted.is_empty() {
        let title = if report.dry_run { "to delete" } else { "deleted" };
        text.push_str(&render::table(
            &[(title, Align::Left), ("objects", Align::Right), ("bytes", Align::Right)],
            deleted,
        ));
    }
    if report.kept.objects > 0 {
        let (objects, size) = (render::count(report.kept.objects, "object"), render::size(report.kept.bytes));
        text.push_str(&format!(
            "kept for now: {objects} ({size}), young or perhaps needed by somebody at work\n"
        ));
    }
    if report.oldest > 0 {
        text.push_str(&format!("versions from {} on can be read\n", render::number(report.oldest)));
    }
    for holder in &report.held_back_by {
        let writer = if holder.writer.is_empty() { "an unknown writer" } else { &holder.writer };
        text.push_str(&format!(
            "held back by {} (session {}), which began at stage {}\n",
            render::clean(writer),
            holder.session,
            render::number(holder.stage)
        ));
    }
    if !report.foreign.is_empty() {
        let foreign = render::count(report.foreign.len() as u64, "file");
        text.push_str(&format!("left alone: {foreign} that are not part of a table:\n"));
        report.foreign.iter().for_each(|name| text.push_str(&format!("  {}\n", render::clean(name))));
    }
    text
}

fn word(sort: Sort) -> &'static str {
    match sort {
        Sort::Data => "data files",
        Sort::Tokens => "token runs",
        Sort::Quarantine => "quarantine files",
        Sort::Checkpoint => "checkpoints",
        Sort::Lease => "leases of sessions that died",
        Sort::Probe => "probes",
        Sort::Leftover => "half-written files",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_in_order_is_told_in_one_line() {
        assert_eq!(
            text(&VacuumReport::default()),
            "nothing to do: the table holds nothing that no version needs\n"
        );
    }

    #[test]
    fn what_was_deleted_what_was_kept_and_why_is_told() {
        let report = VacuumReport {
            version: Some(1234),
            oldest: 1230,
            names: vec!["data/a".into()],
            deleted: [(Sort::Data, Tally { objects: 1, bytes: 2500 })].into(),
            kept: Tally { objects: 2, bytes: 1 },
            foreign: vec!["data/\u{1b}[2J".into()],
            ..VacuumReport::default()
        };
        let text = text(&report);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "committed the fence in version 1,234");
        assert_eq!(lines[2], "data files        1  2.5 kB");
        assert_eq!(lines[3], "kept for now: 2 objects (1 B), young or perhaps needed by somebody at work");
        assert_eq!(lines[4], "versions from 1,230 on can be read");
        assert_eq!(lines[6], "  data/\\u{1b}[2J");
    }
}
