//! A row group from which a few rows are dropped without decoding it: its columns are cut side by side on the workers.
//! A column that cannot be cut is decoded and encoded, it alone.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;

use crate::error::Result;
use crate::sink::{self, FileLayout};
use crate::source::input::Input;
use crate::source::parquet::{CutColumn, RowGroup};
use crate::workers::{Started, Workers};

/// Of fewer rows than one in so many a row group is encoded anew: its dictionaries would be mostly of values that are
/// gone.
const LEAST_SHARE: u64 = 4;

/// A row group that is being cut.
pub(super) struct Cutting {
    pub(super) group: RowGroup<Input>,
    pub(super) keep: Arc<BooleanBuffer>,
    columns: Vec<Started<Option<CutColumn>>>,
}

impl Cutting {
    /// Whether it is worth while to cut a row group of which `accepted` rows stay, and its bytes fit into `memory`.
    pub(super) fn is_worth_while(group: &RowGroup<Input>, accepted: u64, memory: usize) -> bool {
        accepted.saturating_mul(LEAST_SHARE) >= group.num_rows() as u64
            && group.compressed_bytes() <= memory as u64
    }

    /// Begins to cut all columns of `group` to the rows of `keep`.
    pub(super) fn begin(group: RowGroup<Input>, keep: BooleanBuffer, workers: &Workers) -> Self {
        let keep = Arc::new(keep);
        let cut = |leaf| {
            let (group, keep) = (group.clone(), Arc::clone(&keep));
            workers.start(move || group.cut_column(leaf, &keep))
        };
        let columns = (0..group.metadata().num_columns()).map(cut).collect();
        Self { group, keep, columns }
    }

    /// All columns, cut, or decoded and encoded to `layout` where some cannot be; none if none can.
    pub(super) async fn finish(
        &mut self,
        layout: &FileLayout,
        workers: &Workers,
    ) -> Result<Option<Vec<CutColumn>>> {
        let mut cut = Vec::with_capacity(self.columns.len());
        for column in std::mem::take(&mut self.columns) {
            cut.push(column.await?);
        }
        let whole = cut.iter().all(Option::is_some);
        if !whole && (!layout.encodes() || cut.iter().all(Option::is_none)) {
            return Ok(None);
        }
        if !whole {
            encode_others(&self.group, &self.keep, &mut cut, layout, workers).await?;
        }
        Ok(cut.into_iter().collect())
    }
}

/// Encodes the columns that are missing in `cut`.
async fn encode_others(
    group: &RowGroup<Input>,
    keep: &Arc<BooleanBuffer>,
    cut: &mut [Option<CutColumn>],
    layout: &FileLayout,
    workers: &Workers,
) -> Result<()> {
    let missing = cut.iter().enumerate().filter(|(_, column)| column.is_none());
    let schema = group.file().parquet_schema();
    let mut roots: Vec<usize> = missing.map(|(leaf, _)| schema.get_column_root_idx(leaf)).collect();
    roots.dedup();
    let encode = |root: usize| {
        let (group, keep, layout) = (group.clone(), Arc::clone(keep), layout.clone());
        (root, workers.start(move || sink::encode_column(&group, root, &keep, &layout)))
    };
    let encoded: Vec<_> = roots.into_iter().map(encode).collect();
    for (root, columns) in encoded {
        for (leaf, column) in group.file().leaves_of(root).into_iter().zip(columns.await?) {
            if let Some(place) = cut.get_mut(leaf) {
                place.get_or_insert(column);
            }
        }
    }
    Ok(())
}
