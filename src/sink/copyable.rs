//! Whether a row group may be copied byte for byte. When in doubt it may not: decoding and encoding is always right.

use super::FileLayout;
use crate::source::parquet::RowGroup;
use parquet::basic::ColumnOrder;
use parquet::file::reader::ChunkReader;

/// Whether `group` can be copied into a file of `layout`.
///
/// The layouts must agree to the last descriptor, and the file's key-value metadata too: `ARROW:schema` and its like
/// say how to read the very bytes. Codecs must be permitted. (Encrypted files, data in other files and offsets outside
/// of the file were refused when the footer was read; a dictionary offset of 0 was mended there.)
pub fn copyable<R: ChunkReader + Clone + Send + Sync + 'static>(
    group: &RowGroup<R>,
    layout: &FileLayout,
) -> bool {
    let source = group.file();
    let descriptors = layout.parquet_schema().columns();
    source.parquet_schema().root_schema() == layout.parquet_schema().root_schema()
        && source.key_value_metadata() == layout.key_value_metadata()
        && group.num_rows() > 0
        && group.metadata().columns().iter().zip(descriptors).all(|(column, descriptor)| {
            column.column_descr() == descriptor.as_ref()
                && layout.compression().permits(column.compression())
                && column.compressed_size() > 0
        })
}

/// Whether minimum and maximum of a column can be believed. Without a stated order they cannot: the file that we write
/// states one, and would turn doubt into certainty.
pub(super) fn ordered<R: ChunkReader + Clone + Send + Sync + 'static>(
    group: &RowGroup<R>,
    column: usize,
) -> bool {
    let orders = group.file().metadata().file_metadata().column_orders();
    orders
        .and_then(|orders| orders.get(column))
        .is_some_and(|order| matches!(order, ColumnOrder::TYPE_DEFINED_ORDER(_)))
}
