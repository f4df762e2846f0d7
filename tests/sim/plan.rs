//! What a history is about: writers, the batches they bring, and the circumstances. All of it follows from the seed.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, Field, Schema};
use dedupe::ledger::log::Patience;
use dedupe::options::MIB;

use super::rng::Rng;

/// A key, if the row has one, and a number that no other row has.
pub type Row = (Option<u64>, i64);

#[derive(Debug)]
pub struct Source {
    pub url: String,
    /// How it is recognised, if it is.
    pub id: Option<u128>,
    pub chunks: Vec<Vec<Row>>,
}

impl Source {
    pub fn rows(&self) -> impl Iterator<Item = &Row> {
        self.chunks.iter().flatten()
    }
}

#[derive(Debug)]
pub struct Batch {
    pub number: usize,
    /// Its id and digest, if it has some.
    pub id: Option<(String, u128)>,
    /// Whether its rows have a column more than those of others.
    pub wide: bool,
    pub sources: Vec<Arc<Source>>,
}

/// How an actor's clock goes.
#[derive(Debug, Clone, Copy)]
pub enum Clock {
    /// So many seconds off.
    Skewed(i64),
    /// Off by up to so many seconds, otherwise each time.
    Jumping(i64),
    /// Always the same time.
    Frozen(i64),
}

#[derive(Debug)]
pub struct Plan {
    pub writers: Vec<Vec<Arc<Batch>>>,
    /// All batches, by number.
    pub batches: Vec<Arc<Batch>>,
    pub memory: u64,
    /// Objects longer than this are uploaded in parts.
    pub part: NonZeroUsize,
    pub partitioned: bool,
    pub patience: Patience,
    /// One for each actor.
    pub clocks: Vec<Clock>,
    /// In thousandths of the usual rates.
    pub mood: u64,
    pub keys: u64,
    /// Whether all writers begin at the same moment.
    pub rush: bool,
}

const YEARS_10: i64 = 315_576_000;

impl Plan {
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::new(seed, 0);
        let writers = rng.from(3, 5);
        let keys = [25, 60, 200][rng.below(3) as usize];
        let (mut all, mut sources, mut number): (Vec<Arc<Batch>>, Vec<Arc<Source>>, i64) = Default::default();
        let mut plans = Vec::new();
        for writer in 0..writers {
            let mut mine: Vec<Arc<Batch>> = Vec::new();
            for _ in 0..rng.from(2, 4) {
                // The same batch from two machines.
                if rng.chance(150) && !all.is_empty() {
                    let other = Arc::clone(&all[rng.below(all.len() as u64) as usize]);
                    if !mine.iter().any(|batch| batch.number == other.number) {
                        mine.push(other);
                        continue;
                    }
                }
                let mut used: Vec<Arc<Source>> = Vec::new();
                for _ in 0..rng.from(1, 3) {
                    // The same source in two batches.
                    if rng.chance(150) && !sources.is_empty() {
                        let other = Arc::clone(&sources[rng.below(sources.len() as u64) as usize]);
                        if !used.iter().any(|source| source.url == other.url) {
                            used.push(other);
                            continue;
                        }
                    }
                    used.push(source(&mut rng, writer, keys, &mut number, &mut sources));
                }
                let at = all.len();
                let id = rng.chance(500).then(|| (format!("batch-{at}"), at as u128 + 1));
                let batch = Batch { number: at, id, wide: rng.chance(150), sources: used };
                all.push(Arc::new(batch));
                mine.extend(all.last().cloned());
            }
            plans.push(mine);
        }
        let skew = |rng: &mut Rng| rng.below(2 * YEARS_10 as u64) as i64 - YEARS_10;
        let clock = |rng: &mut Rng| match rng.below(3) {
            0 => Clock::Skewed(skew(rng)),
            1 => Clock::Jumping(YEARS_10),
            _ => Clock::Frozen(skew(rng)),
        };
        let impatient = rng.chance(300);
        Self {
            writers: plans,
            batches: all,
            memory: if rng.chance(400) { 1 } else { 64 * MIB },
            part: NonZeroUsize::new(if rng.chance(700) { 600 } else { 8 << 20 }).unwrap_or(NonZeroUsize::MIN),
            partitioned: rng.chance(150),
            patience: match impatient {
                true => Patience { attempts: 2, total: Duration::from_secs(5), ..Patience::default() },
                false => Patience::default(),
            },
            clocks: (0..writers + 3).map(|_| clock(&mut rng)).collect(),
            mood: [500, 1000, 1000, 2000][rng.below(4) as usize],
            keys,
            rush: rng.chance(500),
        }
    }
}

fn source(
    rng: &mut Rng,
    writer: u64,
    keys: u64,
    number: &mut i64,
    all: &mut Vec<Arc<Source>>,
) -> Arc<Source> {
    let shared = rng.from(100, 900);
    let mut row = |rng: &mut Rng| {
        *number += 1;
        let key = match rng.below(1000) {
            chance if chance < 15 => None,
            chance if chance < shared => Some(rng.below(keys)),
            _ => Some((writer + 1) * 1_000_000 + rng.below(300)),
        };
        (key, *number)
    };
    let chunks = (0..rng.from(1, 3)).map(|_| (0..rng.from(1, 14)).map(|_| row(rng)).collect()).collect();
    let at = all.len();
    let id = rng.chance(600).then(|| u128::from(rng.next()) << 32 | at as u128);
    let source = Arc::new(Source { url: format!("source-{at}"), id, chunks });
    if id.is_some() {
        all.push(Arc::clone(&source));
    }
    source
}

/// The columns of a batch's rows.
pub fn schema(wide: bool) -> Schema {
    let mut fields = vec![
        Field::new("id", DataType::Utf8, true),
        Field::new("n", DataType::Int64, true),
        Field::new("p", DataType::Int64, true),
    ];
    if wide {
        let metadata =
            ["unit", "owner", "origin", "since"].map(|name| (name.to_owned(), format!("the {name}")));
        fields.push(Field::new("x", DataType::Int64, true).with_metadata(metadata.into()));
    }
    Schema::new(fields)
}
