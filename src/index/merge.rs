//! Merges ascending token streams into one: the heart of compaction.
//!
//! The live runs of a table are disjoint, because each was judged against all before it. A token that two inputs
//! hold means that the index is damaged, so it is an error, not something to tidy away. The merge does no I/O: it
//! says which input it needs a piece of, and holds one piece of each.

use crate::error::{Error, Result};
use crate::token::Token;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;

/// Some ascending tokens of one input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The tokens.
    pub tokens: Vec<Token>,
    /// The versions that accepted them.
    pub commits: Commits,
}

/// The ledger versions that accepted some tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Commits {
    /// One for all: a run that an ingest wrote.
    All(u64),
    /// One each: a run that a compaction wrote.
    Each(Vec<u64>),
}

/// What a merge asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The next piece of this input ([`Merge::feed`]), or word that there is none ([`Merge::end`]).
    Needs(usize),
    /// To be called again: it gave as many tokens as it was allowed to.
    Paused,
    /// Nothing: all inputs have ended.
    Done,
}

/// A merge of k ascending inputs.
#[derive(Debug)]
pub struct Merge {
    inputs: Vec<Input>,
    /// The next token of each input that has one at hand.
    heads: BinaryHeap<Reverse<(Token, usize)>>,
    /// Inputs whose next piece is needed.
    hungry: Vec<usize>,
    /// The token given last, and its input.
    last: Option<(Token, usize)>,
}

#[derive(Debug)]
struct Input {
    name: String,
    piece: Piece,
    /// The next token of the piece to give.
    next: usize,
    /// The last token of all pieces so far.
    last: Option<Token>,
}

impl Merge {
    /// A merge of as many inputs as there are `names`, which appear in messages only.
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        let empty = || Piece { tokens: Vec::new(), commits: Commits::All(0) };
        let inputs: Vec<Input> =
            names.into_iter().map(|name| Input { name, piece: empty(), next: 0, last: None }).collect();
        let hungry = (0..inputs.len()).rev().collect();
        Self { heads: BinaryHeap::with_capacity(inputs.len()), inputs, hungry, last: None }
    }

    /// Gives the next piece of an input that was asked for; an empty one changes nothing.
    pub fn feed(&mut self, input: usize, piece: Piece) -> Result<()> {
        let Some(state) = self.inputs.get_mut(input).filter(|_| self.hungry.contains(&input)) else {
            return Err(Error::Internal(format!("a merge was fed input {input}, which it did not ask for")));
        };
        if let Commits::Each(commits) = &piece.commits
            && commits.len() != piece.tokens.len()
        {
            let (tokens, commits) = (piece.tokens.len(), commits.len());
            return Err(Error::corrupt(&state.name, format_args!("{commits} commits for {tokens} tokens")));
        }
        let Some((first, last)) = piece.tokens.first().copied().zip(piece.tokens.last().copied()) else {
            return Ok(());
        };
        if !piece.tokens.is_sorted_by(|a, b| a < b) || state.last.is_some_and(|before| first <= before) {
            return Err(Error::corrupt(&state.name, format_args!("its tokens do not ascend towards {last}")));
        }
        (state.piece, state.next, state.last) = (piece, 0, Some(last));
        self.heads.push(Reverse((first, input)));
        self.hungry.retain(|hungry| *hungry != input);
        Ok(())
    }

    /// Says that an input that was asked for has ended.
    pub fn end(&mut self, input: usize) {
        self.hungry.retain(|hungry| *hungry != input);
    }

    /// Gives up to `most` tokens, ascending, each with its commit, to `give`.
    pub fn step(&mut self, most: usize, mut give: impl FnMut(Token, u64) -> Result<()>) -> Result<Step> {
        if let Some(input) = self.hungry.last() {
            return Ok(Step::Needs(*input));
        }
        for _ in 0..most {
            let Some(mut head) = self.heads.peek_mut() else { return Ok(Step::Done) };
            let Reverse((token, input)) = *head;
            let Some(state) = self.inputs.get_mut(input) else { return Ok(Step::Done) };
            if let Some((last, before)) = self.last
                && last == token
            {
                let other = self.inputs.get(before).map(|input| input.name.clone()).unwrap_or_default();
                let name = self.inputs.get(input).map(|input| input.name.clone()).unwrap_or_default();
                return Err(Error::corrupt(
                    name,
                    format_args!("it holds token {token}, and so does {other}"),
                ));
            }
            let commit = match &state.piece.commits {
                Commits::All(commit) => *commit,
                Commits::Each(commits) => commits.get(state.next).copied().unwrap_or_default(),
            };
            self.last = Some((token, input));
            state.next += 1;
            match state.piece.tokens.get(state.next) {
                Some(next) => {
                    *head = Reverse((*next, input));
                    drop(head);
                    give(token, commit)?;
                }
                None => {
                    PeekMut::pop(head);
                    (state.piece.tokens, state.piece.commits) = (Vec::new(), Commits::All(0));
                    self.hungry.push(input);
                    give(token, commit)?;
                    return Ok(Step::Needs(input));
                }
            }
        }
        Ok(Step::Paused)
    }

    /// Bytes of memory that its pieces hold.
    pub fn memory(&self) -> usize {
        let piece = |piece: &Piece| {
            let commits = match &piece.commits {
                Commits::All(_) => 0,
                Commits::Each(commits) => commits.capacity() * size_of::<u64>(),
            };
            piece.tokens.capacity() * size_of::<Token>() + commits
        };
        self.inputs.iter().map(|input| piece(&input.piece)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{any_tokens, token};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Merges whole inputs, fed in pieces of `piece` tokens, `most` at a time.
    fn merge(inputs: &[Vec<(Token, u64)>], piece: usize, most: usize) -> Result<Vec<(Token, u64)>> {
        let mut merge = Merge::new((0..inputs.len()).map(|i| format!("run {i}")));
        let mut rest: Vec<&[(Token, u64)]> = inputs.iter().map(Vec::as_slice).collect();
        let mut out = Vec::new();
        loop {
            match merge.step(most, |token, commit| {
                out.push((token, commit));
                Ok(())
            })? {
                Step::Needs(input) if rest[input].is_empty() => merge.end(input),
                Step::Needs(input) => {
                    let (now, later) = rest[input].split_at(piece.min(rest[input].len()));
                    rest[input] = later;
                    let (tokens, commits) = now.iter().copied().unzip();
                    merge.feed(input, Piece { tokens, commits: Commits::Each(commits) })?;
                }
                Step::Paused => {}
                Step::Done => return Ok(out),
            }
        }
    }

    proptest! {
        #[test]
        fn disjoint_inputs_become_one_sorted_whole(
            tokens in any_tokens(300), k in 1usize..9, piece in 1usize..40, most in 1usize..50
        ) {
            let whole: BTreeMap<Token, u64> = tokens.into_iter().zip(0..).collect();
            let mut inputs = vec![Vec::new(); k];
            for (token, commit) in &whole {
                inputs[(token.0 % 31 % k as u128) as usize].push((*token, *commit));
            }
            prop_assert_eq!(merge(&inputs, piece, most).unwrap(), whole.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn a_token_in_two_inputs_is_damage(
            tokens in any_tokens(100), k in 2usize..6, at in any::<prop::sample::Index>(), piece in 1usize..40
        ) {
            let whole: BTreeMap<Token, u64> = tokens.into_iter().zip(0..).collect();
            prop_assume!(!whole.is_empty());
            let mut inputs = vec![Vec::new(); k];
            for (i, (token, commit)) in whole.iter().enumerate() {
                inputs[i % k].push((*token, *commit));
                if i == at.index(whole.len()) {
                    inputs[(i + 1) % k].push((*token, *commit));
                }
            }
            let error = merge(&inputs, piece, 1000).unwrap_err();
            prop_assert!(matches!(error, Error::Corrupt { .. }), "{}", error);
        }
    }

    #[test]
    fn an_input_that_does_not_ascend_is_damage() {
        for tokens in [[token(1), token(1)], [Token(9), Token(3)]] {
            for piece in [1, 2] {
                let input = tokens.iter().map(|token| (*token, 0)).collect();
                assert!(matches!(merge(&[input], piece, 9), Err(Error::Corrupt { .. })));
            }
        }
    }

    #[test]
    fn one_commit_can_stand_for_a_whole_run() {
        let mut merge = Merge::new(["a".to_owned()]);
        assert_eq!(merge.step(9, |_, _| Ok(())).unwrap(), Step::Needs(0));
        merge.feed(0, Piece { tokens: vec![Token(1), Token(2)], commits: Commits::All(7) }).unwrap();
        let mut out = Vec::new();
        let step = merge.step(9, |token, commit| {
            out.push((token.0, commit));
            Ok(())
        });
        assert_eq!(step.unwrap(), Step::Needs(0));
        assert_eq!(out, [(1, 7), (2, 7)]);
        assert!(merge.feed(1, Piece { tokens: vec![], commits: Commits::All(0) }).is_err());
        merge.end(0);
        assert_eq!(merge.step(9, |_, _| Ok(())).unwrap(), Step::Done);
    }
}
