//! `dedupe doctor URL_OR_TABLE`: whether a store can be trusted, and what ails a table.

use serde::Serialize;

use super::exit::Exit;
use super::out::{Out, Stop};
use super::render::{self, Facts};
use super::{Context, table_url};
use crate::clock::Stopwatch;
use crate::error::{Error, Result};
use crate::store::Store;
use crate::store::certify::{Answer, Certificate, Certifier, Extent, Latency};
use crate::upkeep::doctor::{Diagnosis, Health, Problem, examine};

const EXAMPLES: &str = "\
Examples:
  dedupe doctor s3://lake                        can this bucket hold tables?
  dedupe doctor /lake/events                     and is this table well?
  dedupe doctor s3://lake/events --no-write      only read
  dedupe doctor az://lake --clients 32 --rounds 20 --output json | jq '.problems[]'

The store is certified by a few hundred small requests and one object of 17 MiB, in a folder _dedupe/probe-… of its own that is \
deleted again: creates of one name, one after the other and by many clients at once; reads and listings right after writes \
and deletes; ranges, sizes, uploads in parts. A promise that was kept was kept this time; more rounds are better evidence.

If there is a table, its ledger is replayed from version 0 without checkpoints, every damaged or void entry is explained, \
checkpoints are compared with the replay, and every object that the table names must be there with its size. Nothing of a \
table is ever changed. `dedupe verify` goes further and reads all data.

Ends with 0 if all is well, with 1 and a list of problems if not.";

/// Checks whether a store keeps what tables rest on, and a table's ledger and objects.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// A bucket, a folder, or a table: a path or URL (s3://, gs://, az://, abfss://, file://).
    #[arg(value_name = "URL_OR_TABLE")]
    location: String,
    /// Write nothing: look at the table only, and do not certify the store.
    #[arg(long)]
    no_write: bool,
    /// How many clients race, each with connections of its own.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..=256))]
    clients: u16,
    /// How often each promise is tried.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: u16,
}

/// What `--output json` prints.
#[derive(Debug, Serialize)]
struct Reply {
    location: String,
    /// Whether there are no problems.
    healthy: bool,
    /// The store's certificate; null with `--no-write`.
    store: Option<Certificate>,
    #[serde(flatten)]
    diagnosis: Diagnosis,
    seconds: f64,
}

pub(super) async fn run(args: Args, context: &Context, out: &mut Out) -> Result<Exit, Stop> {
    let stopwatch = Stopwatch::start();
    let store = Store::open(&args.location, &context.store_options)?;
    let mut diagnosis = examine(&store).await?;
    let certificate = if args.no_write { None } else { Some(certify(&args, context, &mut diagnosis).await?) };
    if let Some(certificate) = &certificate {
        diagnosis.add_certificate(certificate);
    }
    let reply = Reply {
        location: table_url(&store),
        healthy: diagnosis.problems.is_empty(),
        store: certificate,
        diagnosis,
        seconds: stopwatch.seconds(),
    };
    out.reply(&reply, || text(&reply))?;
    Ok(if reply.healthy { Exit::Done } else { Exit::Failed })
}

/// Certifies the store, and cleans up whether that came to its end or was interrupted.
async fn certify(args: &Args, context: &Context, diagnosis: &mut Diagnosis) -> Result<Certificate> {
    let clients: Result<Vec<Store>> =
        (0..args.clients).map(|_| Store::open(&args.location, &context.store_options)).collect();
    let mut certifier = Certifier::new(clients?, Extent { rounds: args.rounds.into(), ..Extent::FULL })?;
    certifier.stop_with(&context.progress);
    let certificate = certifier.run().await;
    let left = certifier.clean_up().await;
    if context.progress.is_cancelled() {
        return Err(Error::Interrupted);
    }
    // Where nothing could be written, nothing stayed behind either.
    let wrote = certificate.findings.iter().any(|finding| finding.answer != Answer::NotChecked);
    if let Some(first) = left.first().filter(|_| wrote) {
        diagnosis.problems.push(Problem {
            what: format!(
                "{} could not be deleted again: {first}",
                render::count(left.len() as u64, "probe")
            ),
            advice: "delete them by hand, or let this client delete under _dedupe/".into(),
        });
    }
    Ok(certificate)
}

fn text(reply: &Reply) -> String {
    let mut facts = Facts::default();
    facts.add("location", &reply.location);
    if let Some(store) = &reply.store {
        facts.add("clients", format!("{}, {}", store.clients, render::count(store.rounds as u64, "round")));
        for (name, latency) in [("put", store.put), ("get", store.get), ("list", store.list)] {
            facts.add_some(name, took(latency));
        }
        facts.add_some(
            "clock",
            store.clock_ahead_seconds.map(|ahead| {
                let way = if ahead < 0.0 { "behind" } else { "ahead of" };
                format!("{:.1} s {way} ours (information only)", ahead.abs())
            }),
        );
    }
    match &reply.diagnosis.table {
        Some(health) => drop(facts.add("table", told(health))),
        None => drop(facts.add("table", "none")),
    }
    let mut text = facts.text();
    if let Some(store) = &reply.store {
        text.push('\n');
        let rows = store.findings.iter().map(|finding| {
            let answer = match finding.answer {
                Answer::Kept => "kept",
                Answer::Broken => "BROKEN",
                Answer::NotChecked => "not checked",
            };
            vec![answer.into(), finding.promise.to_string(), finding.seen.clone()]
        });
        let header = ["", "promise", "seen"].map(|name| (name, render::Align::Left));
        text.push_str(&render::table(&header, rows));
    }
    text.push('\n');
    for note in &reply.diagnosis.notes {
        text.push_str(&format!("note: {}\n", render::clean(note)));
    }
    let problems = &reply.diagnosis.problems;
    if problems.is_empty() {
        text.push_str("healthy\n");
        return text;
    }
    text.push_str(&render::count(problems.len() as u64, "problem"));
    text.push('\n');
    for problem in problems {
        text.push_str(&format!(
            "- {}\n  what to do: {}\n",
            render::clean(&problem.what),
            render::clean(&problem.advice)
        ));
    }
    text
}

fn took(latency: Latency) -> Option<String> {
    (latency.requests > 0)
        .then(|| format!("{:.1} ms (median), {:.1} ms (worst)", latency.median_ms, latency.worst_ms))
}

fn told(health: &Health) -> String {
    let count = |n: usize, one: &str| render::count(n as u64, one);
    let mut text = format!(
        "{} replayed, {} void; {}, {}, {}; {} compared",
        match health.entries {
            1 => "1 entry".to_owned(),
            n => format!("{} entries", render::number(n)),
        },
        render::number(health.void),
        count(health.files, "data file"),
        count(health.runs, "run"),
        count(health.quarantine, "quarantine file"),
        render::count(health.checkpoints, "checkpoint"),
    );
    if health.unnamed > 0 {
        text.push_str(&format!(
            "; {} ({}) that no version names",
            render::count(health.unnamed, "object"),
            render::size(health.unnamed_bytes)
        ));
    }
    text
}
