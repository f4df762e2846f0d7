//! Whether the leaves of a nested column tell of the same lists.
//!
//! The leaves of a list of structs, or of a map, each repeat where its entries begin and end. A damaged file may
//! contradict itself there; a decoder believes the first leaf. Rows that are cut out of every leaf by itself would then
//! be other rows than a decoder sees, so such columns are not cut: see [`RowGroup::only_whole`].

use super::CutColumn;
use crate::source::parquet::RowGroup;
use parquet::basic::Repetition;
use parquet::file::reader::ChunkReader;
use parquet::schema::types::{SchemaDescriptor, Type};
use std::fmt;
use xxhash_rust::xxh3::Xxh3;

/// The levels of a group of columns: how many of what leads to it is optional or repeated, and how many is repeated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Levels {
    def: u32,
    rep: u32,
}

/// Of each leaf, the levels of the innermost group that it shares with the leaf before it.
pub(in super::super) fn shared_levels(schema: &SchemaDescriptor) -> Vec<Levels> {
    let mut shared = Vec::with_capacity(schema.num_columns());
    for root in schema.root_schema().get_fields() {
        walk(root, Levels::default(), Levels::default(), &mut shared);
    }
    shared
}

/// Appends the leaves of `column`, which lies in a group of `levels` and of which the first shares `first` with the
/// leaf before it.
fn walk(column: &Type, mut levels: Levels, mut first: Levels, shared: &mut Vec<Levels>) {
    if column.is_primitive() {
        return shared.push(first);
    }
    let info = column.get_basic_info();
    if info.has_repetition() && info.repetition() != Repetition::REQUIRED {
        levels.def += 1;
        levels.rep += u32::from(info.repetition() == Repetition::REPEATED);
    }
    for member in column.get_fields() {
        walk(member, levels, first, shared);
        first = levels;
    }
}

/// What a leaf tells of the lists that it shares with the leaves at its sides, as its pages come.
#[derive(Debug)]
pub(super) struct Lists {
    before: Option<Digest>,
    after: Option<Digest>,
}

/// The same as two numbers: equal where the levels are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ListDigests {
    before: Option<u128>,
    after: Option<u128>,
}

impl Lists {
    pub(super) fn of(shared: &[Levels], leaf: usize) -> Self {
        let digest =
            |leaf: usize| shared.get(leaf).filter(|levels| levels.rep > 0).map(|levels| Digest::of(*levels));
        Self { before: digest(leaf), after: digest(leaf + 1) }
    }

    /// Adds the repetition and definition levels of the next page.
    pub(super) fn add(&mut self, rep: &[u32], def: impl Iterator<Item = u32> + Clone) {
        for digest in [&mut self.before, &mut self.after].into_iter().flatten() {
            digest.add(rep, def.clone());
        }
    }

    pub(super) fn finish(self) -> ListDigests {
        let finish = |digest: Option<Digest>| digest.map(|digest| digest.hash.digest128());
        ListDigests { before: finish(self.before), after: finish(self.after) }
    }
}

struct Digest {
    shared: Levels,
    hash: Box<Xxh3>,
    page: Vec<u8>,
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Digest").field(&self.shared).finish()
    }
}

impl Digest {
    fn of(shared: Levels) -> Self {
        Self { shared, hash: Box::default(), page: Vec::new() }
    }

    fn add(&mut self, rep: &[u32], def: impl Iterator<Item = u32>) {
        self.page.clear();
        // What repeats within the shared group is a leaf's own, as is what is missing within it.
        let own = rep.iter().zip(def).filter(|(rep, _)| **rep <= self.shared.rep);
        for (rep, def) in own {
            self.page.extend((*rep as u16).to_le_bytes());
            self.page.extend((def.min(self.shared.def) as u16).to_le_bytes());
        }
        self.hash.update(&self.page);
    }
}

impl<R: ChunkReader + Clone + Send + Sync + 'static> RowGroup<R> {
    /// Takes out of `cut`, which has a place for every leaf, all leaves of the nested columns of which some leaf could
    /// not be cut, or of which leaves contradict each other: they are to be decoded together.
    pub fn only_whole(&self, cut: &mut [Option<CutColumn>]) {
        let schema = self.file().parquet_schema();
        let leaves: Vec<usize> = (0..cut.len().min(schema.num_columns())).collect();
        let same_root =
            |a: &usize, b: &usize| schema.get_column_root_idx(*a) == schema.get_column_root_idx(*b);
        for leaves in leaves.chunk_by(same_root) {
            let [first, .., last] = leaves else { continue };
            let Some(columns) = cut.get_mut(*first..=*last) else { continue };
            let agree = columns.windows(2).all(|pair| match pair {
                [Some(a), Some(b)] => a.lists.after == b.lists.before,
                _ => false,
            });
            if !agree {
                let (url, group) = (self.file().url(), self.index());
                tracing::debug!(
                    url,
                    group,
                    first,
                    "the leaves of a nested column are decoded together, not cut"
                );
                columns.fill_with(|| None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::schema::parser::parse_message_type;
    use std::sync::Arc;

    #[test]
    fn leaves_share_the_levels_of_the_innermost_group_around_both() {
        let schema = "message m {
            required int32 a;
            optional group s { optional int32 b; repeated int32 c; }
            optional group l (LIST) { repeated group list { optional group element {
                required int32 d; optional int32 e; repeated group f { required int32 g; required int32 h; }
            } } }
            repeated int32 i;
        }";
        let schema = SchemaDescriptor::new(Arc::new(parse_message_type(schema).unwrap()));
        let shared: Vec<_> = shared_levels(&schema).iter().map(|levels| (levels.def, levels.rep)).collect();
        // In order: a, b, c, d, e, g, h, i.
        assert_eq!(shared, [(0, 0), (0, 0), (1, 0), (0, 0), (3, 1), (3, 1), (4, 2), (0, 0)]);
    }

    #[test]
    fn digests_differ_with_what_is_shared_and_not_with_what_is_not() {
        let shared = [Levels::default(), Levels { def: 2, rep: 1 }];
        let digest = |rep: &[u32], def: &[u32]| {
            let mut lists = Lists::of(&shared, 1);
            lists.add(rep, def.iter().copied());
            let digests = lists.finish();
            assert_eq!(digests.after, None);
            digests.before.unwrap()
        };
        let base = digest(&[0, 1, 0], &[2, 3, 1]);
        // A list within the entry, and a null within it.
        assert_eq!(base, digest(&[0, 2, 1, 0], &[4, 4, 2, 1]));
        assert_ne!(base, digest(&[0, 0, 1], &[2, 3, 1]));
        assert_ne!(base, digest(&[0, 1, 0], &[2, 3, 0]));
        assert_ne!(base, digest(&[0, 1], &[2, 3]));
    }
}
