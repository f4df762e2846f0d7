//! Embedding: the rows come from your own program, as Arrow record batches, and not from files.
//!
//! ```text
//! cargo run --example embed -- /tmp/readings     # version 1: 6 read, 4 accepted, 2 duplicate
//! cargo run --example embed -- /tmp/readings     # the batch was committed: nothing to do
//! ```
//!
//! The loop is the whole of it: judge a batch by its key, write what was accepted, commit once at the end. Nothing
//! is visible before the commit; a program that dies in between leaves the table as it was.

use std::error::Error;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use dedupe::ledger::entry::Batch;
use dedupe::policy::NullKey;
use dedupe::session::{Rows, SessionOptions};
use dedupe::store::Store;
use dedupe::table::{NewTable, Table};

/// What this run stands for. A second run with the same id finds it committed and does nothing.
const BATCH: &str = "readings-2026-01-31T10";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let location = std::env::args().nth(1).ok_or("usage: embed TABLE")?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("reading_id", DataType::Utf8, false),
        Field::new("celsius", DataType::Float64, true),
    ]));
    let store = Store::open(&location, &[])?;
    let mut table = Table::open_or_create(store, &schema, &NewTable::keyed_by(["reading_id"])).await?;
    if let Some(outcome) = table.outcome(BATCH).await? {
        println!("{BATCH} was committed in version {}: nothing to do", outcome.version);
        return Ok(());
    }

    let mut options = SessionOptions::default();
    options.null_key = Some(NullKey::Fail);
    options.memory = 256 << 20;
    options.batch = Some(Batch::named(BATCH));
    let mut session = table.begin(&schema, options).await?;
    let source = session.source("sensors")?;
    for batch in batches(&schema)? {
        let verdicts = session.judge(source, &batch).await?;
        session.write(Rows::of_batch(source, batch, verdicts)).await?;
    }

    // If another writer commits in between, what was staged is judged against its entry and committed after it.
    let (committed, _ledger) = session.commit().await?;
    let rows = committed.rows;
    println!(
        "version {}: {} read, {} accepted, {} duplicate",
        committed.version, rows.read, rows.accepted, rows.duplicate
    );
    Ok(())
}

/// Two batches as an at-least-once transport might hand them over: the second repeats two rows of the first.
fn batches(schema: &Arc<Schema>) -> Result<Vec<RecordBatch>, Box<dyn Error>> {
    let batch = |ids: [&str; 3], celsius: [f64; 3]| {
        let ids: ArrayRef = Arc::new(StringArray::from(ids.to_vec()));
        let celsius: ArrayRef = Arc::new(Float64Array::from(celsius.to_vec()));
        RecordBatch::try_new(Arc::clone(schema), vec![ids, celsius])
    };
    Ok(vec![batch(["a1", "a2", "a3"], [20.5, 20.7, 20.6])?, batch(["a2", "a3", "a4"], [20.7, 20.6, 20.9])?])
}
