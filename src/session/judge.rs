//! Verdicts: which rows of a chunk are the first of their key.
//!
//! A chunk is sorted once by token; repeats within it fall out, then what the table knows, then what this session
//! accepted before. What is left is new, and remembered. Rows are judged in input order: among equal keys the first
//! in source order, then row order, wins, whatever the number of threads (promise 5).

use arrow::array::BooleanBufferBuilder;
use arrow::buffer::BooleanBuffer;

use crate::error::Result;
use crate::index::SortedBatch;
use crate::ledger::name::Namer;
use crate::policy::NullKey;
use crate::runs::{Known, Own};
use crate::store::Store;
use crate::token::{TokenSum, Tokens};

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

/// What rows are judged against.
pub(super) struct Memory<'a> {
    pub(super) known: &'a mut Known,
    pub(super) own: &'a mut Own,
}

/// Judges a chunk against what is known, and remembers what is new.
pub(super) async fn judge(
    store: &Store,
    namer: &mut Namer,
    memory: Memory<'_>,
    tokens: &Tokens,
    null_key: NullKey,
) -> Result<Verdicts> {
    let rows = tokens.tokens.len();
    let mut keep = BooleanBufferBuilder::new(rows);
    keep.append_n(rows, false);
    let (mut keyless, mut no_key) = (0, Vec::new());
    let mut batch = match &tokens.keyless {
        None => SortedBatch::new(&tokens.tokens)?,
        Some(mask) => {
            for row in mask.set_indices() {
                if null_key == NullKey::Keep {
                    keep.set_bit(row, true);
                    keyless += 1;
                } else {
                    no_key.push(row as u32);
                }
            }
            let with_key: Vec<u32> =
                (0..rows).filter(|row| !mask.value(*row)).map(|row| row as u32).collect();
            SortedBatch::of_rows(&tokens.tokens, &with_key)?
        }
    };
    let mut duplicate = batch.take_repeats().len();
    let hits = memory.known.find(store, batch.tokens()).await?;
    duplicate += batch.take(&hits).len();
    let hits = memory.own.insert(store, namer, batch.tokens()).await?;
    duplicate += batch.take(&hits).len();
    for row in batch.rows() {
        keep.set_bit(*row as usize, true);
    }
    Ok(Verdicts {
        keep: keep.finish(),
        accepted: batch.len() as u64 + keyless,
        keyless,
        duplicate: duplicate as u64,
        no_key,
        tokens: TokenSum::of(batch.tokens()),
    })
}
