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
use std::num::NonZeroUsize;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use arrow_schema::{DataType, Field, Schema};
use dedupe::ledger::entry::{Batch, SourceUse};
use dedupe::ledger::log::Proposer;
use dedupe::ledger::{Ledger, TableIdentity};
use dedupe::policy::{NullKey, Policy};
use dedupe::session::{Chunk, Rows, Session, SessionOptions};
use dedupe::sink::SinkOptions;
use dedupe::store::Store;
use dedupe::token::{TokenHash, TokenKey, TokenSpec};
use dedupe::workers::Workers;

/// What this run stands for. A second run with the same id finds it committed and does nothing.
const BATCH: &str = "readings-2026-01-31T10";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let location = std::env::args().nth(1).ok_or("usage: embed TABLE")?;
    let schema = Arc::new(Schema::new(vec![
        Field::new("reading_id", DataType::Utf8, false),
        Field::new("celsius", DataType::Float64, true),
    ]));

    let ledger = open_or_create(&location, &schema).await?;
    if let Some(seen) = ledger.state().batches.get(BATCH) {
        println!("{BATCH} was committed in version {}: nothing to do", seen.version);
        return Ok(());
    }

    // The contract is the table's schema, widened by whatever our batches have more.
    let contract = match &ledger.state().schema {
        Some(table) => Arc::new(dedupe::schema::widen(table, &schema)?),
        None => Arc::clone(&schema),
    };
    let options = SessionOptions {
        null_key: Some(NullKey::Fail),
        sink: SinkOptions::default(),
        memory: 256 << 20,
        dry_run: false,
        batch: Some(Batch { id: BATCH.to_owned(), digest: 0 }),
    };
    let workers = Workers::new(std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN));
    let mut session = Session::begin(ledger, contract, options, &workers).await?;

    let source = session.add_source(SourceUse { url: "sensors".to_owned(), ..SourceUse::default() })?;
    let key = session.identity().token.bind(&schema, "sensors")?;
    for batch in batches(&schema)? {
        let tokens = key.tokenise(&batch)?;
        let verdicts = session.judge(source, &tokens).await?;
        // With another choice than `NullKey::Fail`, the rows in `verdicts.no_key` go to `session.reject` here.
        session.write(Rows { source, chunk: Chunk::Batch(batch), verdicts }).await?;
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

/// Opens the table, or creates it with `reading_id` as its key.
async fn open_or_create(location: &str, schema: &Schema) -> Result<Ledger, Box<dyn Error>> {
    let store = Store::open(location, &[])?;
    if let Some(ledger) = Ledger::open(store.clone()).await? {
        return Ok(ledger);
    }
    // A store that ignores conditional writes cannot hold a table.
    store.probe().await?;
    let key = ["reading_id".to_owned()];
    let spec = TokenSpec::new(&key, schema, TokenHash::default(), TokenKey::random()?)?;
    let by = Proposer { session: dedupe::random::identity()?, writer: "embed".to_owned() };
    Ok(Ledger::create(store, TableIdentity::new(spec)?, Policy::default(), &by).await?)
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
