//! Grows a table's index to any size, without any rows: for measuring only. Deterministic.
//!
//! ```text
//! cargo run --release --example grow -- TABLE TOKENS RUNS
//! ```
//!
//! Adds TOKENS tokens, evenly spread at random, in RUNS commits of one run each, to a table that has a schema (one that an
//! ingest has made). Each commit names a data file that does not exist, so that its sums are what they must be: look-ups,
//! compaction and `tokens` work as on any table, whatever reads rows does not.

use std::error::Error;

use bytes::Bytes;
use dedupe::index::RunWriter;
use dedupe::ledger::entry::{Body, DataFile, Ingest, InlineTokens, RunRef, SourceUse};
use dedupe::ledger::log::{Proposal, Proposer};
use dedupe::ledger::name::{self, Namer};
use dedupe::ledger::{Entry, Ledger};
use dedupe::store::Store;
use dedupe::token::{Token, TokenSum};
use dedupe::verdict::Accounting;

/// Tokens drawn and sorted at a time, from a share of the token space that is theirs.
const TOGETHER: u64 = 512;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().collect();
    let [_, table, tokens, runs] = &args[..] else { return Err("usage: grow TABLE TOKENS RUNS".into()) };
    let (tokens, runs): (u64, u64) = (tokens.parse()?, runs.parse()?);
    let store = Store::open(table, &[])?;
    let mut ledger = Ledger::open(store.clone()).await?.ok_or("there is no table: ingest something first")?;
    for run in 0..runs {
        let by = Proposer::new()?;
        let mut namer = Namer::new(&by.session, ledger.state().entries);
        let count = tokens / runs + u64::from(run < tokens % runs);
        let reference = write(&store, namer.next(name::TOKENS, "run"), count, ledger.version() << 32).await?;
        let entry = ledger.entry(&by, body(&ledger, reference, namer.next(name::DATA, "parquet")))?;
        commit(&mut ledger, &entry).await?;
        println!("version {}: {count} tokens", ledger.version());
    }
    Ok(())
}

async fn write(store: &Store, name: String, count: u64, seed: u64) -> Result<RunRef, Box<dyn Error>> {
    let mut upload = store.create(&name).await?;
    let mut writer = RunWriter::new(&name, Vec::new(), None);
    let mut state = seed ^ 0x9e37_79b9_7f4a_7c15;
    let mut random = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    let shares = count.div_ceil(TOGETHER);
    let width = u128::MAX / u128::from(shares.max(1));
    for share in 0..shares {
        let mut tokens: Vec<Token> = (0..TOGETHER.min(count - share * TOGETHER))
            .map(|_| {
                Token(u128::from(share) * width + (u128::from(random()) << 64 | u128::from(random())) % width)
            })
            .collect();
        tokens.sort_unstable();
        writer.push_all(&tokens)?;
        if writer.sink().len() > 4 << 20 {
            upload.write(Bytes::from(std::mem::take(writer.sink()))).await?;
        }
    }
    let (summary, rest) = writer.finish()?;
    upload.write(Bytes::from(rest)).await?;
    upload.finish().await?;
    Ok(RunRef {
        name,
        bytes: summary.bytes,
        min: summary.min.0,
        max: summary.max.0,
        tokens: summary.tokens,
        check: format!("{:016x}", summary.checksum),
    })
}

/// An ingest of as many rows as `run` has tokens, in a file that does not exist.
fn body(ledger: &Ledger, run: RunRef, file: String) -> Body {
    let added: TokenSum = run.tokens;
    let rows = Accounting { read: added.count, accepted: added.count, ..Accounting::default() };
    let file = DataFile {
        name: file,
        rows: added.count,
        bytes: 0,
        check: "0".repeat(16),
        keyless: 0,
        tokens: added,
        origin: vec![(0, added.count)],
        key_range: Vec::new(),
    };
    Body::Ingest(Box::new(Ingest {
        batch: None,
        policy: ledger.state().policy_version,
        null_key: None,
        schema: None,
        sources: vec![SourceUse { url: "grown".to_owned(), rows, ..SourceUse::default() }],
        skipped: Vec::new(),
        files: vec![file],
        runs: vec![run],
        inline: InlineTokens::default(),
        quarantine: Vec::new(),
        rows,
        keyless: 0,
        added,
        total: ledger.state().total.plus(added),
    }))
}

async fn commit(ledger: &mut Ledger, entry: &Entry) -> Result<(), Box<dyn Error>> {
    match ledger.propose(entry).await? {
        Proposal::Committed => Ok(()),
        other => Err(format!("another writer works on the table, or the entry is wrong: {other:?}").into()),
    }
}
