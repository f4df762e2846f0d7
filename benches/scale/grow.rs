//! Grows a table's index to any size, without any rows: for measuring only. Deterministic.
//!
//! ```text
//! cargo run --release --example grow -- TABLE TOKENS RUNS
//! ```
//!
//! Adds TOKENS tokens, evenly spread at random, in RUNS commits of one run each (or in the manifest, where they are few), to a table that has a schema (one that an
//! ingest has made). Each commit names a source, and a data file that does not exist, so that its sums are what they must be: look-ups,
//! compaction and `tokens` work as on any table, whatever reads rows does not. Small runs are merged on the way, as an ingest does it.

use std::error::Error;

use bytes::Bytes;
use dedupe::index::RunWriter;
use dedupe::ledger::entry::{Body, DataFile, Ingest, InlineTokens, RunRef, SourceUse};
use dedupe::ledger::log::{Proposal, Proposer};
use dedupe::ledger::name::{self, Namer};
use dedupe::ledger::{Entry, Ledger};
use dedupe::store::Store;
use dedupe::token::{Token, TokenSum};
use dedupe::upkeep::compact::compact_if_due;
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
        let seed = ledger.version() << 32;
        let (mut inline, mut reference) = (InlineTokens::default(), None);
        if count <= InlineTokens::MAX as u64 {
            inline.0 = Tokens::new(count, seed).flatten().collect();
        } else {
            reference = Some(write(&store, namer.next(name::TOKENS, "run"), count, seed).await?);
        }
        let entry = ledger.entry(&by, body(&ledger, reference, inline, namer.next(name::DATA, "parquet")))?;
        commit(&mut ledger, &entry).await?;
        if count <= InlineTokens::MAX as u64 {
            compact_if_due(&mut ledger, 256 << 20).await?;
        }
    }
    println!("version {}: {} tokens", ledger.version(), ledger.state().total.count);
    Ok(())
}

async fn write(store: &Store, name: String, count: u64, seed: u64) -> Result<RunRef, Box<dyn Error>> {
    let mut upload = store.create(&name).await?;
    let mut writer = RunWriter::new(&name, Vec::new(), None);
    for tokens in Tokens::new(count, seed) {
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

/// Ascending tokens, some at a time, each time in a share of the token space of their own.
struct Tokens {
    left: u64,
    share: u128,
    width: u128,
    state: u64,
}

impl Tokens {
    fn new(count: u64, seed: u64) -> Self {
        let width = u128::MAX / u128::from(count.div_ceil(TOGETHER).max(1));
        Self { left: count, share: 0, width, state: seed ^ 0x9e37_79b9_7f4a_7c15 }
    }

    /// SplitMix64.
    fn random(&mut self) -> u128 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u128::from(z ^ (z >> 31))
    }
}

impl Iterator for Tokens {
    type Item = Vec<Token>;

    fn next(&mut self) -> Option<Vec<Token>> {
        let count = self.left.min(TOGETHER);
        (count > 0).then_some(())?;
        let draw = |_| Token(self.share * self.width + (self.random() << 64 | self.random()) % self.width);
        let mut tokens: Vec<Token> = (0..count).map(draw).collect();
        tokens.sort_unstable();
        (self.left, self.share) = (self.left - count, self.share + 1);
        Some(tokens)
    }
}

/// An ingest of as many rows as there are tokens, in a file that does not exist.
fn body(ledger: &Ledger, run: Option<RunRef>, inline: InlineTokens, file: String) -> Body {
    let added = run.as_ref().map_or(TokenSum::of(&inline.0), |run| run.tokens);
    let rows = Accounting { read: added.count, accepted: added.count, ..Accounting::default() };
    let id = Some(u128::from(ledger.version()) << 64);
    let source = SourceUse { url: "grown".to_owned(), id, rows, ..SourceUse::default() };
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
        sources: vec![source],
        skipped: Vec::new(),
        files: vec![file],
        runs: run.into_iter().collect(),
        inline,
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
