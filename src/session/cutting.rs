//! A row group from which a few rows are dropped without decoding it: its columns are cut side by side on the workers.
//! A column that cannot be cut is decoded and encoded, it alone.

use std::sync::Arc;

use arrow::buffer::BooleanBuffer;

use crate::error::Result;
use crate::sink::{self, FileLayout};
use crate::source::ahead::Ahead;
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

    /// Begins to cut all columns of `group` to the rows of `keep`, once what is fetched ahead of them is there.
    pub(super) fn begin(
        group: RowGroup<Input>,
        keep: BooleanBuffer,
        ahead: &Arc<Ahead>,
        workers: &Workers,
    ) -> Self {
        let keep = Arc::new(keep);
        let cut = |leaf| {
            let (group, keep) = (group.clone(), Arc::clone(&keep));
            let (ahead, until_read) = (Arc::clone(ahead), Arc::clone(ahead));
            let work = move || {
                let cut = group.cut_column(leaf, &keep);
                drop(until_read);
                cut
            };
            workers.start_after(async move { ahead.arrived().await }, work)
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
        self.group.only_whole(&mut cut);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sink::{CompressionChoice, FileWriter};
    use crate::source::parquet::ParquetFile;
    use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
    use arrow::compute::{concat_batches, filter_record_batch};
    use parquet::arrow::ArrowWriter;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::Compression;
    use parquet::file::properties::WriterProperties;
    use std::num::NonZeroUsize;

    /// A row group of two columns, of which the second is packed as nothing here can pack it.
    fn odd_group() -> (RecordBatch, RowGroup<Input>) {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..30_000));
        let texts: ArrayRef = Arc::new(StringArray::from_iter(
            (0..30_000).map(|row| (row % 5 > 0).then(|| format!("text {row}"))),
        ));
        let batch = RecordBatch::try_from_iter([("a", numbers), ("b", texts)]).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(Compression::SNAPPY)
            .set_column_compression("b".into(), Compression::LZ4)
            .build();
        let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        let bytes = writer.into_inner().unwrap();
        let file = ParquetFile::open(Input::held("memory", bytes.into()), "memory").unwrap();
        (batch, file.row_group(0).unwrap())
    }

    #[tokio::test]
    async fn only_the_column_that_cannot_be_cut_is_encoded() {
        let (batch, group) = odd_group();
        let keep = BooleanBuffer::collect_bool(batch.num_rows(), |row| row % 7 > 0);
        assert!(group.cut_column(0, &keep).unwrap().is_some());
        assert!(group.cut_column(1, &keep).unwrap().is_none());
        let file = group.file();
        let layout = FileLayout::of_source(file, file.schema(), CompressionChoice::AsSource).unwrap();
        let workers = Workers::new(NonZeroUsize::MIN);
        let mut cutting = Cutting::begin(group.clone(), keep.clone(), &Arc::default(), &workers);
        let columns = cutting.finish(&layout, &workers).await.unwrap().unwrap();
        let mut writer = FileWriter::new(layout, Vec::new()).unwrap();
        for column in columns {
            writer.append_cut(&group, column).unwrap();
        }
        writer.end_cut(&group, keep.count_set_bits() as u64).unwrap();
        writer.close().unwrap();
        let written = ParquetRecordBatchReaderBuilder::try_new(writer.take_bytes().unwrap()).unwrap();
        let written: Vec<_> = written.build().unwrap().map(Result::unwrap).collect();
        let expected = filter_record_batch(&batch, &keep.into()).unwrap();
        assert_eq!(concat_batches(&batch.schema(), &written).unwrap(), expected);
    }
}
