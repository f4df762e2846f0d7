//! What a session has accepted itself: a set in memory that spills to runs when it outgrows its budget.

use super::write::RunUpload;
use super::{Budget, OpenRun};
use crate::error::{Error, Result};
use crate::index::SessionSet;
use crate::ledger::entry::{InlineTokens, RunRef};
use crate::ledger::name::{self, Namer};
use crate::store::{Store, compute};
use crate::token::{Token, TokenSum};
use crate::verdict::Lookups;

/// Bytes that a token takes in a set that has room enough, with something to spare.
const SPACIOUS: u64 = 32;

/// The exact set of the tokens that one session accepted.
#[derive(Debug)]
pub(crate) struct Own {
    set: SessionSet,
    spilled: Vec<Staged>,
    /// Bytes the set may take.
    memory: u64,
    /// Tokens that may come yet, if that is known.
    expected: u64,
    budget: Budget,
    sum: TokenSum,
    fresh: Vec<bool>,
    scratch: Option<Scratch>,
}

/// A run this session staged.
#[derive(Debug)]
pub(crate) struct Staged {
    pub(crate) reference: RunRef,
    pub(crate) run: OpenRun,
}

/// All tokens of a session, staged.
#[derive(Debug)]
pub(crate) struct Tokens {
    pub(crate) inline: InlineTokens,
    pub(crate) runs: Vec<Staged>,
}

/// Where to spill when the table must not be written to: a folder of its own that goes when the session goes.
#[derive(Debug)]
struct Scratch {
    store: Store,
    _folder: tempfile::TempDir,
}

impl Own {
    /// An empty set that takes up to `memory` bytes, and spills to the session's table.
    pub(crate) fn new(memory: u64) -> Self {
        Self {
            set: SessionSet::new(),
            spilled: Vec::new(),
            memory: memory / 4 * 3,
            expected: 0,
            budget: Budget::new(memory / 4),
            sum: TokenSum::default(),
            fresh: Vec::new(),
            scratch: None,
        }
    }

    /// An empty set that spills to a temporary folder, for those who only look.
    pub(crate) fn aside(memory: u64) -> Result<Self> {
        let folder = tempfile::TempDir::with_prefix("dedupe-")
            .map_err(|e| Error::store("create", "a temporary folder", e))?;
        let path = folder.path().to_str().ok_or_else(|| {
            Error::Usage(format!("the temporary folder {} is not UTF-8: set TMPDIR", folder.path().display()))
        })?;
        let store = Store::open(path, &[])?;
        Ok(Self { scratch: Some(Scratch { store, _folder: folder }), ..Self::new(memory) })
    }

    /// The same, that inserts into its set on up to so many threads.
    pub(crate) fn on_threads(self, threads: usize) -> Self {
        Self { set: self.set.on_threads(threads), ..self }
    }

    /// Says that so many tokens may come, at most, so that room for them is made at once.
    pub(crate) fn expect(&mut self, tokens: u64) {
        self.expected = tokens;
        // A table for more would be spilled before it is full.
        self.set.expect(tokens.min(self.memory / SPACIOUS) as usize);
    }

    /// The multiset hash of its tokens.
    pub(crate) fn sum(&self) -> TokenSum {
        self.sum
    }

    /// How often it outgrew its memory so far, and what looking tokens up in what was spilled has taken.
    pub(crate) fn lookups(&self) -> Lookups {
        let spills = Lookups { spills: self.spilled.len() as u64, ..Lookups::default() };
        self.spilled.iter().map(|staged| staged.run.lookups()).fold(spills, Lookups::plus)
    }

    /// Remembers distinct ascending `tokens`. Gives the positions of those it held before, ascending.
    pub(crate) async fn insert(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        tokens: &[Token],
    ) -> Result<Vec<u32>> {
        // Before anything is looked up: what is spilled now must be found among the runs, not in the emptied set.
        if !self.set.is_empty() && self.set.memory_after(tokens.len()) as u64 > self.memory {
            self.spill(store, namer).await?;
        }
        self.expected = self.expected.saturating_sub(tokens.len() as u64);
        let mut known = self.find_spilled(store, tokens).await?;
        let new: Vec<Token>;
        let unseen = if known.is_empty() {
            tokens
        } else {
            new = without(tokens, &known);
            &new
        };
        self.set.insert_batch(unseen, &mut self.fresh);
        for (token, fresh) in unseen.iter().zip(&self.fresh) {
            if *fresh {
                self.sum = self.sum.plus(TokenSum { count: 1, sum: token.0 });
            }
        }
        if known.is_empty() {
            known.extend((0..).zip(&self.fresh).filter(|(_, fresh)| !**fresh).map(|(position, _)| position));
        } else {
            let mut spilled = known.iter().copied().peekable();
            let places = (0u32..).take(tokens.len()).filter(|place| spilled.next_if_eq(place).is_none());
            let held: Vec<u32> =
                places.zip(&self.fresh).filter(|(_, fresh)| !**fresh).map(|(p, _)| p).collect();
            known.extend(held);
            known.sort_unstable();
        }
        Ok(known)
    }

    /// Which of ascending `tokens` it holds, without remembering the others.
    pub(crate) async fn find(&self, store: &Store, tokens: &[Token]) -> Result<Vec<u32>> {
        let mut known = self.find_spilled(store, tokens).await?;
        self.set.find_batch(tokens, &mut known);
        known.sort_unstable();
        known.dedup();
        Ok(known)
    }

    /// Stages all tokens: inline if they are few, as runs otherwise, the last of which is to be called `name`.
    pub(crate) async fn finish(mut self, store: &Store, name: String) -> Result<Tokens> {
        let mut set = self.set;
        let tokens = compute(move || Ok(set.take_sorted())).await?;
        if self.spilled.is_empty() && tokens.len() <= InlineTokens::MAX {
            return Ok(Tokens { inline: InlineTokens(tokens), runs: Vec::new() });
        }
        if !tokens.is_empty() {
            self.spilled.push(stage(store, name, tokens, true).await?);
        }
        Ok(Tokens { inline: InlineTokens::default(), runs: self.spilled })
    }

    async fn find_spilled(&self, store: &Store, tokens: &[Token]) -> Result<Vec<u32>> {
        let store = self.scratch.as_ref().map_or(store, |scratch| &scratch.store);
        let mut found = Vec::new();
        for staged in &self.spilled {
            found.extend(staged.run.find(store, tokens, &self.budget).await?);
        }
        found.sort_unstable();
        Ok(found)
    }

    async fn spill(&mut self, store: &Store, namer: &mut Namer) -> Result<()> {
        let store = self.scratch.as_ref().map_or(store, |scratch| &scratch.store);
        let tokens = self.set.take_sorted();
        tracing::debug!(tokens = tokens.len(), "the session's set is full: spilling it to a run");
        self.spilled.push(stage(store, run_name(namer), tokens, false).await?);
        self.expect(self.expected);
        Ok(())
    }
}

impl Tokens {
    /// None.
    #[cfg(feature = "cluster")]
    pub(crate) fn none() -> Self {
        Self { inline: InlineTokens::default(), runs: Vec::new() }
    }

    /// Adds ascending `tokens`, of which it holds none and no inline ones so far: inline if they are few.
    #[cfg(feature = "cluster")]
    pub(crate) async fn add_few(
        &mut self,
        store: &Store,
        namer: &mut Namer,
        tokens: Vec<Token>,
    ) -> Result<()> {
        if tokens.len() <= InlineTokens::MAX {
            self.inline = InlineTokens(tokens);
        } else {
            self.runs.push(stage(store, run_name(namer), tokens, true).await?);
        }
        Ok(())
    }

    /// What an earlier process staged.
    pub(crate) async fn reopen(store: &Store, runs: &[RunRef], inline: InlineTokens) -> Result<Self> {
        let mut staged = Vec::with_capacity(runs.len());
        for reference in runs {
            let run = OpenRun::open(store, reference).await?;
            staged.push(Staged { reference: reference.clone(), run });
        }
        Ok(Self { inline, runs: staged })
    }

    /// How many, and their sum.
    pub(crate) fn sum(&self) -> TokenSum {
        self.runs
            .iter()
            .map(|staged| staged.reference.tokens)
            .fold(TokenSum::of(&self.inline.0), TokenSum::plus)
    }

    /// Which of ascending `tokens` are among them.
    pub(crate) async fn find(&self, store: &Store, tokens: &[Token], budget: &Budget) -> Result<Vec<u32>> {
        let mut found = crate::index::lookup::common(tokens, &self.inline.0);
        for staged in &self.runs {
            found.extend(staged.run.find(store, tokens, budget).await?);
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Takes ascending `tokens` out: runs that hold any of them are written anew.
    pub(crate) async fn remove(&mut self, store: &Store, namer: &mut Namer, tokens: &[Token]) -> Result<()> {
        let here = crate::index::lookup::common(&self.inline.0, tokens);
        self.inline.0 = without(&self.inline.0, &here);
        let budget = Budget::new(0);
        for staged in std::mem::take(&mut self.runs) {
            let gone = staged.run.find(store, tokens, &budget).await?;
            if gone.is_empty() {
                self.runs.push(staged);
                continue;
            }
            let gone: Vec<Token> =
                gone.iter().filter_map(|place| tokens.get(*place as usize)).copied().collect();
            if gone.len() as u64 == staged.run.len() {
                continue;
            }
            self.runs.push(rewrite(store, namer, &staged, &gone).await?);
        }
        Ok(())
    }
}

/// `tokens` without those at the ascending `positions`.
pub(crate) fn without(tokens: &[Token], positions: &[u32]) -> Vec<Token> {
    let mut gone = positions.iter().copied().peekable();
    let kept = (0u32..).zip(tokens).filter(|(place, _)| gone.next_if_eq(place).is_none());
    kept.map(|(_, token)| *token).collect()
}

/// How a run is called.
pub(crate) fn run_name(namer: &mut Namer) -> String {
    namer.next(name::TOKENS, "run")
}

/// Writes ascending tokens as a run; keeps them at hand if asked to.
async fn stage(store: &Store, name: String, tokens: Vec<Token>, keep: bool) -> Result<Staged> {
    let mut upload = RunUpload::begin(store, name, None).await?;
    upload.push_all(&tokens).await?;
    let (reference, run) = upload.finish_open().await?;
    Ok(Staged { reference, run: if keep { run.with_tokens(tokens) } else { run } })
}

/// Writes a staged run anew without the ascending tokens `gone`.
async fn rewrite(store: &Store, namer: &mut Namer, staged: &Staged, gone: &[Token]) -> Result<Staged> {
    if let Some(tokens) = staged.run.resident() {
        let places = crate::index::lookup::common(tokens, gone);
        return stage(store, run_name(namer), without(tokens, &places), true).await;
    }
    let mut upload = RunUpload::begin(store, run_name(namer), None).await?;
    let mut scan = super::Scan::new(std::sync::Arc::clone(staged.run.meta()));
    while let Some(tokens) = scan.next_tokens(store).await? {
        let places = crate::index::lookup::common(&tokens, gone);
        upload.push_all(&without(&tokens, &places)).await?;
    }
    let (reference, run) = upload.finish_open().await?;
    Ok(Staged { reference, run })
}

#[cfg(test)]
mod tests;
