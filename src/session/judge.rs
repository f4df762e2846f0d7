//! Verdicts: which rows of a chunk are the first of their key.
//!
//! A chunk is sorted once by token; repeats within it fall out, then what the table knows, then what this session
//! accepted before. What is left is new, and remembered. Rows are judged in input order: among equal keys the first
//! in source order, then row order, wins, whatever the number of threads (promise 5).

use std::sync::Arc;

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use crate::error::Result;
use crate::index::SortedBatch;
use crate::ledger::name::Namer;
use crate::policy::NullKey;
use crate::runs::{Known, Own};
use crate::store::Store;
use crate::token::{Token, TokenSum, Tokens};
use crate::verdict::Lookups;

/// The verdicts on one chunk.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Verdicts {
    /// Bit i: row i is accepted.
    pub keep: BooleanBuffer,
    /// Accepted rows, keyless ones included.
    pub accepted: u64,
    /// Accepted rows without a key.
    pub keyless: u64,
    /// Rows whose key was known.
    pub duplicate: u64,
    /// Rows without a key that are to be kept out, ascending.
    pub no_key: Vec<u32>,
    /// The multiset hash of the accepted rows' tokens.
    pub tokens: TokenSum,
}

impl Verdicts {
    /// The verdicts on no rows.
    pub fn none() -> Self {
        Self {
            keep: BooleanBuffer::new_unset(0),
            accepted: 0,
            keyless: 0,
            duplicate: 0,
            no_key: Vec::new(),
            tokens: TokenSum::default(),
        }
    }

    /// Whether every row is accepted.
    pub fn all_accepted(&self) -> bool {
        self.accepted == self.keep.len() as u64
    }

    /// The verdicts on the accepted rows alone, once the others are taken out.
    #[cfg(feature = "datafusion")]
    pub(crate) fn of_accepted(self) -> Self {
        let accepted = BooleanBuffer::new_set(self.accepted as usize);
        Self { keep: accepted, duplicate: 0, no_key: Vec::new(), ..self }
    }
}

/// Some rows to be judged: their tokens, and what becomes of those without a key.
pub(super) struct Judged<'a> {
    pub(super) tokens: &'a Tokens,
    pub(super) null_key: NullKey,
}

/// The tokens of chunks that are to be judged together, one after the other, each once: sorted, with its first row. What of judging
/// needs no session, and may be done elsewhere.
pub(crate) fn sorted<'a>(chunks: impl Iterator<Item = &'a Tokens> + Clone) -> Result<SortedBatch> {
    let mut rest = chunks.clone();
    let whole: Vec<Token>;
    let tokens = match (rest.next(), rest.next()) {
        (Some(only), None) => &only.tokens,
        _ => {
            whole = chunks.clone().flat_map(|chunk| chunk.tokens.iter().copied()).collect();
            &whole
        }
    };
    let mut batch = match chunks.clone().any(|chunk| chunk.keyless.is_some()) {
        false => SortedBatch::new(tokens)?,
        true => SortedBatch::of_rows(tokens, &with_key(chunks))?,
    };
    batch.take_repeats();
    Ok(batch)
}

/// What is left of a [sorted] batch without what a table knows.
pub(crate) struct Sifted(SortedBatch);

/// What a table knows at the version that a session began on. It remembers nothing, so that several may sift batches side by side.
#[derive(Debug, Clone)]
pub(crate) struct Sieve {
    store: Store,
    known: Arc<Known>,
}

impl Sieve {
    pub(super) fn new(store: &Store, known: Known) -> Self {
        Self { store: store.clone(), known: Arc::new(known) }
    }

    /// Takes out of a [sorted] batch what the table knows, and says what finding that out took.
    pub(crate) async fn sift(&self, mut batch: SortedBatch) -> Result<(Sifted, Lookups)> {
        let (hits, lookups) = self.known.find(&self.store, batch.tokens()).await?;
        batch.take(&hits);
        Ok((Sifted(batch), lookups))
    }

    /// What sifting has taken so far.
    pub(super) fn lookups(&self) -> Lookups {
        self.known.lookups()
    }

    /// How many of the rows to come are best judged together.
    pub(crate) fn best_batch(&self) -> u64 {
        self.known.best_batch()
    }
}

/// Judges chunks, one after the other but all as one batch, which was [sorted] and [sifted](Sieve::sift), against what this session
/// accepted before, and remembers what is new.
pub(super) async fn judge(
    store: &Store,
    namer: &mut Namer,
    own: &mut Own,
    chunks: &[Judged<'_>],
    Sifted(mut batch): Sifted,
) -> Result<Vec<Verdicts>> {
    let hits = own.insert(store, namer, batch.tokens()).await?;
    batch.take(&hits);
    let rows = chunks.iter().map(|chunk| chunk.tokens.tokens.len()).sum();
    let mut keep = BooleanBufferBuilder::new(rows);
    keep.append_n(rows, false);
    for row in batch.rows() {
        keep.set_bit(*row as usize, true);
    }
    let keep = keep.finish();
    let mut start = 0;
    let verdicts = chunks.iter().map(|chunk| {
        let rows = chunk.tokens.tokens.len();
        let mine = keep.slice(start, rows);
        start += rows;
        chunk.verdicts(&mine)
    });
    Ok(verdicts.collect())
}

/// The rows that have a key, counted over all chunks.
fn with_key<'a>(chunks: impl Iterator<Item = &'a Tokens>) -> Vec<u32> {
    let (mut rows, mut start) = (Vec::new(), 0);
    for chunk in chunks {
        let count = chunk.tokens.len();
        let keyed = |row: &usize| chunk.keyless.as_ref().is_none_or(|mask| !mask.value(*row));
        rows.extend((0..count).filter(keyed).map(|row| (start + row) as u32));
        start += count;
    }
    rows
}

impl Judged<'_> {
    /// The verdicts on its rows, of which those of `new` have a key that nobody had before.
    fn verdicts(&self, new: &BooleanBuffer) -> Verdicts {
        let mut keep = BooleanBufferBuilder::new(new.len());
        keep.append_buffer(new);
        let (mut keyless, mut no_key) = (0, Vec::new());
        for row in self.tokens.keyless.iter().flat_map(BooleanBuffer::set_indices) {
            if self.null_key == NullKey::Keep {
                keep.set_bit(row, true);
                keyless += 1;
            } else {
                no_key.push(row as u32);
            }
        }
        let mut tokens = TokenSum::default();
        for token in new.set_indices().filter_map(|row| self.tokens.tokens.get(row)) {
            tokens = tokens.plus(TokenSum { count: 1, sum: token.0 });
        }
        let accepted = tokens.count + keyless;
        let duplicate = new.len() as u64 - accepted - no_key.len() as u64;
        Verdicts { keep: keep.finish(), accepted, keyless, duplicate, no_key, tokens }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::samples::{any_token, any_tokens};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn chunks_judged_together_are_judged_as_one_after_the_other(
            chunks in proptest::collection::vec((any_tokens(40), any::<bool>(), any::<u64>()), 1..6),
            before in proptest::collection::vec(any_token(), 0..40), copies in 1usize..3
        ) {
            let chunks: Vec<(Tokens, NullKey)> = chunks.iter().cycle().take(chunks.len() * copies).map(|(tokens, keep, mask)| {
                let keyless = (mask % 3 != 0).then(|| (0..tokens.len()).map(|row| mask >> (row % 64) & 1 == 1 && row % 3 == 0).collect());
                (Tokens { tokens: tokens.clone(), keyless }, if *keep { NullKey::Keep } else { NullKey::Quarantine })
            }).collect();
            let judged = |chunks: &[(Tokens, NullKey)]| {
                let store = Store::open("memory:", &[]).unwrap();
                let mut namer = Namer::new("", 0);
                let mut own = Own::new(1 << 20);
                let before: Vec<Token> = before.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
                futures::executor::block_on(own.insert(&store, &mut namer, &before)).unwrap();
                let all: Vec<Judged<'_>> =
                    chunks.iter().map(|(tokens, null_key)| Judged { tokens, null_key: *null_key }).collect();
                let batch = sorted(chunks.iter().map(|(tokens, _)| tokens)).unwrap();
                futures::executor::block_on(async {
                    let (sifted, _) = Sieve::new(&store, Known::nothing()).sift(batch).await.unwrap();
                    judge(&store, &mut namer, &mut own, &all, sifted).await.unwrap()
                })
            };
            let mut seen: BTreeSet<Token> = before.iter().copied().collect();
            for (verdicts, (tokens, null_key)) in judged(&chunks).iter().zip(&chunks) {
                let (mut rows, mut keyless, mut no_key) = (Vec::new(), 0, Vec::new());
                let mut sum = TokenSum::default();
                for (row, token) in tokens.tokens.iter().enumerate() {
                    if tokens.keyless.as_ref().is_some_and(|mask| mask.value(row)) {
                        if *null_key == NullKey::Keep { keyless += 1; rows.push(row) } else { no_key.push(row as u32) }
                    } else if seen.insert(*token) {
                        rows.push(row);
                        sum = sum.plus(TokenSum { count: 1, sum: token.0 });
                    }
                }
                prop_assert_eq!(verdicts.keep.set_indices().collect::<Vec<_>>(), rows.clone());
                prop_assert_eq!((verdicts.accepted, verdicts.keyless, &verdicts.no_key), (rows.len() as u64, keyless, &no_key));
                prop_assert_eq!(verdicts.tokens, sum);
                let rest = (tokens.tokens.len() - rows.len() - no_key.len()) as u64;
                prop_assert_eq!((verdicts.duplicate, verdicts.keep.len()), (rest, tokens.tokens.len()));
            }
        }
    }
}
