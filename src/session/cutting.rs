//! A row group from which a few rows are dropped without decoding it: its columns are cut side by side on the workers.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;

use crate::error::Result;
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

    /// All columns, cut; none if some column cannot be.
    pub(super) async fn finish(&mut self) -> Result<Option<Vec<CutColumn>>> {
        let mut cut = Vec::with_capacity(self.columns.len());
        for column in std::mem::take(&mut self.columns) {
            match column.await? {
                Some(column) => cut.push(column),
                None => return Ok(None),
            }
        }
        Ok(Some(cut))
    }
}
