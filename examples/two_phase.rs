//! A sink in two phases, as a stream processor drives one (Flink's `TwoPhaseCommittingSink`, for instance): at each
//! checkpoint a subtask *prepares* its commit and hands it to the coordinator as bytes; once the checkpoint is complete,
//! the coordinator *commits* them, if need be again after a restart, and from another process.
//!
//! ```text
//! cargo run --example two_phase -- prepare /tmp/readings 17 > /tmp/17     # staged and durable, nothing to be seen yet
//! cargo run --example two_phase -- commit  /tmp/readings < /tmp/17        # version 1: 3 accepted
//! cargo run --example two_phase -- commit  /tmp/readings < /tmp/17        # the same: it counts once
//! cargo run --example two_phase -- recover /tmp/readings 17               # checkpoint-17 was committed in version 1
//! cargo run --example two_phase -- prepare /tmp/readings 18 > /tmp/18
//! cargo run --example two_phase -- abort   /tmp/readings < /tmp/18        # the next vacuum deletes what it staged
//! ```

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use dedupe::ledger::entry::Batch;
use dedupe::session::{Prepared, Rows, SessionOptions};
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};

const USAGE: &str =
    "usage: two_phase prepare|recover TABLE CHECKPOINT, or two_phase commit|abort TABLE < PREPARED";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments.as_slice() {
        ["prepare", table, checkpoint] => {
            let prepared = prepare(table, checkpoint).await?;
            std::io::stdout().write_all(&prepared.encode()?)?;
        }
        ["commit", table] => {
            // From whatever instant on it is repeated: it is committed once.
            let committed = open(table).await?.commit(&prepared()?).await?;
            let again = if committed.batch_replayed { ", committed before" } else { "" };
            println!("version {}: {} accepted{again}", committed.version, committed.rows.accepted);
        }
        ["abort", table] => open(table).await?.abort(prepared()?).await,
        ["recover", table, checkpoint] => match open(table).await?.outcome(&batch(checkpoint)).await? {
            Some(outcome) => println!("{} was committed in version {}", batch(checkpoint), outcome.version),
            None => println!(
                "{} is not committed: commit what was prepared, or replay its rows",
                batch(checkpoint)
            ),
        },
        _ => return Err(USAGE.into()),
    }
    Ok(())
}

/// What the checkpoint is called in the table, for ever. One of several subtasks would add its number.
fn batch(checkpoint: &str) -> String {
    format!("checkpoint-{checkpoint}")
}

/// The rows between two checkpoints, judged and staged.
async fn prepare(location: &str, checkpoint: &str) -> Result<Prepared, Box<dyn Error>> {
    let rows = rows(checkpoint)?;
    let store = Store::open(location, &[])?;
    let table = Table::open_or_create(store, &rows.schema(), &NewTable::keyed_by(["id"])).await?;
    let mut options = SessionOptions::default();
    options.batch = Some(Batch::named(batch(checkpoint)));
    let mut session = table.begin(&rows.schema(), options).await?;
    let source = session.source("readings")?;
    let verdicts = session.judge(source, &rows).await?;
    session.write(Rows::of_batch(source, rows, verdicts)).await?;
    Ok(session.prepare().await?)
}

async fn open(location: &str) -> Result<Table, Box<dyn Error>> {
    Ok(Table::open(Store::open(location, &[])?).await?.ok_or("there is no such table")?)
}

fn prepared() -> Result<Prepared, Box<dyn Error>> {
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes)?;
    Ok(Prepared::decode(&bytes)?)
}

/// Three events of which one was delivered twice.
fn rows(checkpoint: &str) -> Result<RecordBatch, Box<dyn Error>> {
    let ids: Vec<String> = [0, 1, 2, 1].iter().map(|i| format!("{checkpoint}-{i}")).collect();
    let (ids, values): (ArrayRef, ArrayRef) =
        (Arc::new(StringArray::from(ids)), Arc::new(Int64Array::from(vec![10, 11, 12, 11])));
    Ok(RecordBatch::try_from_iter([("id", ids), ("value", values)])?)
}
