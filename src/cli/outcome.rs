//! `dedupe outcome TABLE BATCH`: was it committed?

use serde::Serialize;

use super::args::TableArg;
use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Facts};
use super::writers::{self, Writer};
use super::{Context, open, table_url};
use crate::error::Error;
use crate::ledger::name;
use crate::verdict::Accounting;

const EXAMPLES: &str = "\
Examples:
  dedupe outcome /lake/events 2026-01-31T10
  dedupe outcome /lake/events 2026-01-31T10 >/dev/null && rm -r landing/2026-01-31T10

Ends with 0 if the batch is committed (processed), with 3 if it is not: it is being worked on (received), or the run \
that had it was fenced off by a vacuum and can no longer commit (fenced), or the table knows nothing of it (unknown). A batch \
that is unknown now can still be committed by a run that is not over; to run it (again) is always safe.";

/// Tells whether a batch was committed.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    table: TableArg,
    /// The batch, as given to `ingest --batch-id`.
    #[arg(value_name = "BATCH")]
    batch: String,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Outcome {
    table: String,
    batch: String,
    /// `committed`, `received` (a live session holds it), `fenced` (a session held it that can no longer commit), or
    /// `unknown`.
    outcome: &'static str,
    /// The newest version that was looked at.
    as_of: Option<u64>,
    /// The version that committed it, and from here on: what that commit was.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<u64>,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    commit: Option<Commit>,
    /// Sessions that hold the batch, by their leases, if it is not committed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    in_flight: Vec<Writer>,
}

#[derive(Debug, Serialize)]
struct Commit {
    time: String,
    writer: String,
    #[serde(flatten)]
    rows: Accounting,
    files: u64,
    bytes: u64,
    sources: u64,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let mut ledger = open(&args.table.table, None, context).await?;
    let mut in_flight = Vec::new();
    if ledger.batch(&args.batch).await?.is_none() {
        in_flight = writers::in_flight(ledger.store(), ledger.state()).await?;
        in_flight.retain(|writer| writer.batch.as_ref() == Some(&args.batch));
        // In this order: a session takes its lease back after its commit, so if neither is seen there was neither.
        ledger.refresh().await?;
    }
    let version = ledger.batch(&args.batch).await?.map(|seen| seen.version);
    let commit = match version {
        None => None,
        Some(version) => {
            let damaged = |reason| Error::corrupt(name::manifest(version), reason);
            let entry = ledger.read(version).await?.ok_or_else(|| damaged("it is absent"))?;
            let ingest = entry.ingest().ok_or_else(|| damaged("it does not hold the batch it should"))?;
            Some(Commit {
                rows: ingest.rows,
                files: ingest.files.len() as u64,
                bytes: ingest.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes)),
                sources: ingest.sources.len() as u64,
                time: entry.time.clone(),
                writer: entry.writer.clone(),
            })
        }
    };
    let outcome = Outcome {
        table: table_url(ledger.store()),
        batch: args.batch,
        outcome: if commit.is_some() { "committed" } else { not_committed(&in_flight) },
        as_of: ledger.state().version(),
        version,
        in_flight: if commit.is_some() { Vec::new() } else { in_flight },
        commit,
    };
    out.reply(&outcome, || text(&outcome))?;
    Ok(if outcome.commit.is_some() { Exit::Done } else { Exit::No })
}

/// What is known of a batch that is not committed, by the sessions that hold it.
fn not_committed(in_flight: &[Writer]) -> &'static str {
    if in_flight.iter().any(|writer| writer.alive && !writer.fenced) {
        return "received";
    }
    if in_flight.iter().any(|writer| writer.fenced) { "fenced" } else { "unknown" }
}

fn text(outcome: &Outcome) -> String {
    let batch = render::clean(&outcome.batch);
    let (Some(commit), Some(version)) = (&outcome.commit, outcome.version) else {
        let as_of = outcome.as_of.map_or("its creation".into(), |version| format!("version {version}"));
        let told = match outcome.outcome {
            "received" => format!("batch {batch} is being worked on, and not committed as of {as_of}\n"),
            "fenced" => format!(
                "batch {batch} is not committed as of {as_of}, and the run that held it was fenced off by a vacuum: it \
                 cannot commit any more; run it again\n"
            ),
            _ => format!("batch {batch} is unknown to the table as of {as_of}; to run it (again) is safe\n"),
        };
        return told + &writers::text(&outcome.in_flight);
    };
    let mut facts = Facts::default();
    facts.add("table", &outcome.table).add("time", &commit.time).add("writer", &commit.writer);
    facts.add_rows(&commit.rows).add("sources", render::number(commit.sources));
    facts.add("files", format!("{} ({})", render::number(commit.files), render::size(commit.bytes)));
    format!("batch {batch} was committed in version {version}\n{}", facts.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(commit: Option<Commit>) -> Outcome {
        Outcome {
            table: "/t".into(),
            batch: "b\u{7}".into(),
            outcome: if commit.is_some() { "committed" } else { "unknown" },
            as_of: Some(7),
            version: commit.is_some().then_some(3),
            commit,
            in_flight: Vec::new(),
        }
    }

    #[test]
    fn unknown_is_told_with_what_to_do_and_without_numbers() {
        let outcome = outcome(None);
        assert!(
            text(&outcome).starts_with("batch b\\u{7} is unknown to the table as of version 7; to run it")
        );
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!(json["outcome"], "unknown");
        assert!(json.get("accepted").is_none() && json.get("version").is_none());
    }

    #[test]
    fn committed_is_told_with_the_numbers_of_the_commit() {
        let rows = Accounting { read: 5, accepted: 4, duplicate: 1, ..Accounting::default() };
        let commit = Commit { time: "t".into(), writer: "w".into(), rows, files: 1, bytes: 9, sources: 2 };
        let outcome = outcome(Some(commit));
        assert!(text(&outcome).contains("committed in version 3\n"));
        let json = serde_json::to_value(&outcome).unwrap();
        assert_eq!((&json["version"], &json["accepted"], &json["files"]), (&3.into(), &4.into(), &1.into()));
    }
}
