//! Fewer, larger token runs: what keeps look-ups quick.
//!
//! Runs are grouped in tiers by size, each tier six times as large as the one below; a tier that has that many
//! runs is merged into one of the next. So every token is written about once a tier, and a table of a billion tokens
//! has some twenty to thirty runs. A compaction changes where tokens lie, not which there are: it is valid only if all its
//! inputs are still live, ingest never waits for it, and losing the race costs nothing but the work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use tracing::debug;

use crate::error::{Error, Result};
use crate::index::merge::{Commits, Merge, Piece, Step};
use crate::lease::{Held, Kind, Lease};
use crate::ledger::entry::{Body, Compact, InlineTokens, RunRef};
use crate::ledger::log::{Proposal, Proposer};
use crate::ledger::name::{self, Namer};
use crate::ledger::state::{Live, Void};
use crate::ledger::{Ledger, State};
use crate::runs::write::RunUpload;
use crate::runs::{OpenRun, Scan};
use crate::token::Token;

/// Runs of a tier are merged when there are this many.
const FANOUT: usize = 6;

/// The largest run of the lowest tier, in tokens.
const LOWEST: u64 = 1 << 10;

/// Inline tokens are moved into a run when so many manifests hold some.
const INLINE_MANIFESTS: usize = 64;

/// How often a compaction that lost its race is tried again.
const ATTEMPTS: usize = 3;

/// Bytes that one input of a merge holds: a piece of its tokens, with their versions.
const INPUT_BYTES: u64 = 3 << 19;

/// Tokens merged at a time.
const STEP: usize = 64 << 10;

/// What a compaction did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct CompactReport {
    /// The version that holds the result, if there was anything to do.
    pub version: Option<u64>,
    /// Runs before and after.
    pub runs_before: usize,
    /// Runs after.
    pub runs_after: usize,
    /// Tokens rewritten.
    pub tokens: u64,
}

/// What is to be merged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Choice {
    runs: Vec<String>,
    inline: Vec<u64>,
}

/// Merges runs if there are so many that look-ups suffer. Called after every commit.
pub async fn compact_if_due(ledger: &mut Ledger, memory: u64) -> Result<CompactReport> {
    compact_by(ledger, memory, |state, _| due(state)).await
}

/// Merges all runs, and all inline tokens, into one run: those that are there now. What others commit meanwhile would only
/// make it begin again, for ever where they commit faster than it merges.
pub async fn compact(ledger: &mut Ledger, memory: u64) -> Result<CompactReport> {
    let there = everything(ledger.state());
    compact_by(ledger, memory, |state, own| left_of(&there, state, own)).await
}

async fn compact_by(
    ledger: &mut Ledger,
    memory: u64,
    choose: impl Fn(&State, &BTreeSet<String>) -> Option<Choice>,
) -> Result<CompactReport> {
    let mut report = CompactReport { runs_before: ledger.state().runs.len(), ..CompactReport::default() };
    let by = Proposer::new()?;
    let mut namer = Namer::new(&by.session, ledger.state().entries);
    let mut lost = 0;
    let mut held = Held::none();
    // The runs that it merged itself.
    let mut own = BTreeSet::new();
    while let Some(mut choice) = choose(ledger.state(), &own) {
        if report.version.is_none() && lost == 0 {
            held = Held::begin(
                ledger.store(),
                Lease::new(&by.session, &by.writer, Kind::Compact, namer.stage()),
            );
        }
        // No more inputs than memory holds pieces of, the smallest first; the next turn goes on from there.
        let most = (memory / 2 / INPUT_BYTES).max(8) as usize;
        choice.runs.sort_by_key(|name| ledger.state().runs.get(name).map(|run| run.item.tokens.count));
        choice.runs.truncate(most);
        namer.advance(ledger.state().entries);
        let committed = match merge(ledger, &mut namer, &choice, &held).await {
            Ok(merged) => {
                own.insert(merged.name.clone());
                commit(ledger, &by, &choice, merged).await?
            }
            Err(error) => {
                // What is no longer live may have been vacuumed away while it was read.
                if ledger.refresh().await.is_err() || choice.is_live(ledger.state()) {
                    return Err(error);
                }
                None
            }
        };
        if let Some(tokens) = committed {
            report.version = Some(ledger.version());
            report.tokens += tokens;
        } else {
            lost += 1;
            if lost == ATTEMPTS {
                break;
            }
        }
    }
    held.end().await;
    report.runs_after = ledger.state().runs.len();
    Ok(report)
}

/// Proposes the compaction until it is known whether it stands. Returns how many tokens it moved; `None` if it lost.
async fn commit(ledger: &mut Ledger, by: &Proposer, choice: &Choice, merged: RunRef) -> Result<Option<u64>> {
    let tokens = merged.tokens.count;
    let body = Compact {
        runs_removed: choice.runs.clone(),
        inline_removed: choice.inline.clone(),
        runs_added: vec![merged],
        ..Compact::default()
    };
    loop {
        let entry = ledger.entry(by, Body::Compact(body.clone()))?;
        match ledger.propose(&entry).await? {
            Proposal::Committed => return Ok(Some(tokens)),
            Proposal::Lost(_) => drop(ledger.refresh().await?),
            Proposal::Void(Void::NotLive(name)) => {
                debug!("another compaction was first: {name} is no longer live");
                return Ok(None);
            }
            Proposal::Void(Void::BelowFloor(name)) => {
                debug!("a vacuum took this compaction for dead: {name} lies below its floor");
                return Ok(None);
            }
            Proposal::Void(void) => {
                return Err(Error::Refused(format!("the compaction is void: {void}")));
            }
        }
    }
}

impl Choice {
    fn is_live(&self, state: &State) -> bool {
        self.runs.iter().all(|run| state.runs.contains_key(run))
            && self.inline.iter().all(|version| state.inline.contains_key(version))
    }
}

/// The tier of a run with so many tokens.
fn tier(tokens: u64) -> u32 {
    let mut tier = 0;
    let mut most = LOWEST;
    while tokens > most {
        tier += 1;
        most = most.saturating_mul(FANOUT as u64);
    }
    tier
}

/// The lowest tier that is full, with all below it: they would only be merged again soon.
fn due(state: &State) -> Option<Choice> {
    let mut tiers = BTreeMap::<u32, Vec<&Live<RunRef>>>::new();
    for run in state.runs.values() {
        tiers.entry(tier(run.item.tokens.count)).or_default().push(run);
    }
    let full = tiers.iter().find(|(_, runs)| runs.len() >= FANOUT).map(|(tier, _)| *tier);
    let inline_full = state.inline.len() >= INLINE_MANIFESTS;
    if full.is_none() && !inline_full {
        return None;
    }
    let below = tiers.range(..=full.unwrap_or(0)).flat_map(|(_, runs)| runs.iter());
    let runs: Vec<String> = match full {
        Some(_) => below.map(|run| run.item.name.clone()).collect(),
        None => Vec::new(),
    };
    Some(Choice { runs, inline: state.inline.keys().copied().collect() })
}

fn everything(state: &State) -> Choice {
    Choice { runs: state.runs.keys().cloned().collect(), inline: state.inline.keys().copied().collect() }
}

/// What is still to be merged of what was `there` at the beginning, with what was merged of it since.
fn left_of(there: &Choice, state: &State, own: &BTreeSet<String>) -> Option<Choice> {
    let is_part = |run: &&String| there.runs.contains(run) || own.contains(*run);
    let runs: Vec<String> = state.runs.keys().filter(is_part).cloned().collect();
    let inline: Vec<u64> =
        there.inline.iter().copied().filter(|version| state.inline.contains_key(version)).collect();
    (runs.len() > 1 || !inline.is_empty()).then_some(Choice { runs, inline })
}

/// Writes one run with all tokens of the chosen ones, each with the version that accepted it.
async fn merge(ledger: &Ledger, namer: &mut Namer, choice: &Choice, held: &Held) -> Result<RunRef> {
    let (store, state) = (ledger.store(), ledger.state());
    let mut inputs = Vec::new();
    let mut commits: Vec<u64> = choice.inline.clone();
    for run in choice.runs.iter().filter_map(|name| state.runs.get(name)) {
        let open = OpenRun::open(store, &run.item).await?;
        let own = open.meta().commits().unwrap_or(run.since..=run.since);
        commits.extend([*own.start(), *own.end()]);
        inputs.push(Source::Run(Scan::new(Arc::clone(open.meta())), run.since));
    }
    for (version, tokens) in choice.inline.iter().filter_map(|version| state.inline.get_key_value(version)) {
        inputs.push(Source::Inline(Some(tokens.clone()), *version));
    }
    let names = choice.runs.iter().cloned();
    let mut merge = Merge::new(names.chain(choice.inline.iter().map(|version| format!("version {version}"))));
    let commits = commits.iter().min().zip(commits.iter().max()).map(|(low, high)| *low..=*high);
    let mut upload = RunUpload::begin(store, namer.next(name::TOKENS, "run"), commits).await?;
    let mut merged: Vec<(Token, u64)> = Vec::with_capacity(STEP);
    loop {
        let step = merge.step(STEP - merged.len(), |token, commit| {
            merged.push((token, commit));
            Ok(())
        })?;
        if merged.len() == STEP || step == Step::Done {
            upload.push_with_commits(&merged).await?;
            held.update(|done| done.rows += merged.len() as u64);
            merged.clear();
        }
        match step {
            Step::Done => return upload.finish().await,
            Step::Paused => {}
            Step::Needs(input) => {
                let piece = match inputs.get_mut(input) {
                    Some(Source::Run(scan, since)) => scan.next_piece(store, *since).await?,
                    Some(Source::Inline(tokens, since)) => {
                        tokens.take().map(|tokens| Piece { tokens: tokens.0, commits: Commits::All(*since) })
                    }
                    None => None,
                };
                match piece {
                    Some(piece) => merge.feed(input, piece)?,
                    None => merge.end(input),
                }
            }
        }
    }
}

/// One input of a merge, and the version that accepted its tokens if it does not say so itself.
enum Source {
    Run(Scan, u64),
    Inline(Option<InlineTokens>, u64),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::token::TokenSum;

    fn state(counts: &[u64]) -> State {
        let mut state = State::default();
        for (since, count) in (1..).zip(counts) {
            let name = format!("run-{since:04}");
            let tokens = TokenSum { count: *count, sum: 0 };
            let item = RunRef { name: name.clone(), bytes: 0, min: 0, max: 0, tokens, check: String::new() };
            state.runs.insert(name, Live { since, item });
        }
        state
    }

    #[test]
    fn a_tier_is_merged_when_it_is_full_together_with_those_below() {
        assert_eq!(due(&state(&[1000; FANOUT - 1])), None);
        assert_eq!(due(&state(&[1000; FANOUT])).unwrap().runs.len(), FANOUT);
        let full = [100_000; FANOUT].into_iter().chain([5, 10_000_000]).collect::<Vec<u64>>();
        let choice = due(&state(&full)).unwrap();
        let wanted: BTreeSet<String> = (1..=FANOUT + 1).map(|run| format!("run-{run:04}")).collect();
        assert_eq!(choice.runs.into_iter().collect::<BTreeSet<_>>(), wanted);
    }

    #[test]
    fn what_comes_while_everything_is_merged_is_left_for_another_time() {
        let mut now = state(&[1000, 2000]);
        now.inline.insert(7, InlineTokens(vec![Token(7)]));
        let there = everything(&now);
        assert_eq!(left_of(&there, &now, &BTreeSet::new()), Some(there.clone()));
        // Both runs and the inline tokens became run-0003; run-0004 and version 9 came meanwhile.
        let mut later = state(&[0, 0, 3001, 5]);
        later.runs.retain(|name, _| name.as_str() > "run-0002");
        later.inline.insert(9, InlineTokens(vec![Token(9)]));
        let own = BTreeSet::from(["run-0003".to_owned()]);
        assert_eq!(left_of(&there, &later, &own), None);
        // One of three could not be merged at once.
        let mut half = state(&[0, 2000, 1001, 5]);
        half.runs.remove("run-0001");
        assert_eq!(left_of(&there, &half, &own).unwrap().runs, ["run-0002", "run-0003"]);
    }

    #[test]
    fn many_inline_manifests_become_a_run() {
        let mut state = state(&[1000]);
        for version in 0..INLINE_MANIFESTS as u64 {
            state.inline.insert(version, InlineTokens(vec![Token(u128::from(version))]));
        }
        let choice = due(&state).unwrap();
        assert!(choice.runs.is_empty());
        assert_eq!(choice.inline.len(), INLINE_MANIFESTS);
    }

    /// How often each token was written after so many commits of `size` tokens, and the most runs there were.
    fn grown(commits: u64, size: u64) -> (f64, usize) {
        let (mut runs, mut inline, mut written, mut most) = (Vec::<u64>::new(), 0, 0, 0);
        for _ in 0..commits {
            if size <= InlineTokens::MAX as u64 {
                inline += 1;
            } else {
                runs.push(size);
                written += size;
            }
            loop {
                let mut state = state(&runs);
                state.inline = (0..inline).map(|version| (version, InlineTokens(Vec::new()))).collect();
                let Some(choice) = due(&state) else { break };
                let merged: BTreeSet<usize> = choice
                    .runs
                    .iter()
                    .map(|name| name["run-".len()..].parse::<usize>().unwrap() - 1)
                    .collect();
                let sum = merged.iter().map(|at| runs[*at]).sum::<u64>() + choice.inline.len() as u64 * size;
                runs =
                    runs.iter().enumerate().filter(|(at, _)| !merged.contains(at)).map(|(_, n)| *n).collect();
                runs.push(sum);
                written += sum;
                inline = 0;
            }
            most = most.max(runs.len());
        }
        assert_eq!(runs.iter().sum::<u64>() + inline * size, commits * size);
        (written as f64 / (commits * size) as f64, most)
    }

    #[test]
    fn runs_stay_few_and_tokens_are_written_few_times() {
        for size in [1, 10, 256, 257, 1000, 5000, 70_000, 1_000_000] {
            let (times, most) = grown(1000, size);
            assert!(times <= 5.0, "{size} tokens a commit: each written {times} times");
            assert!(most <= 20, "{size} tokens a commit: {most} runs");
        }
        assert!(grown(5000, 10).0 <= 5.0);
    }
}
