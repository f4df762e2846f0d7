//! Writing the table's data files, without doing I/O: bytes come out, the caller stores them.
//!
//! Two ways lead into a file: a row group of a source is copied byte for byte ([`copyable`],
//! [`FileWriter::copy_some`]), or rows are encoded ([`RowGroupEncoder`], several in parallel) and appended. Promises:
//! a file holds exactly the rows given to it, in order; statistics, dictionaries, Bloom filters, page index, field ids
//! and key-value metadata of copied row groups survive; encoded ones have statistics and page index.

mod column;
mod compression;
mod copyable;
mod encode;
mod file;
mod folder;
mod layout;
mod partition;
mod range;

pub use column::encode_column;
pub use compression::CompressionChoice;
pub use copyable::copyable;
pub use encode::{ColumnEncoder, EncodedColumn, EncodedRowGroup, RowGroupEncoder};
pub use file::{FileSummary, FileWriter};
pub use folder::{FolderValue, NO_VALUE};
pub use layout::FileLayout;
pub use partition::{Partition, split, values_of};
pub use range::ColumnRange;

/// How data files are written.
#[derive(Debug, Clone)]
pub struct SinkOptions {
    /// A new file is begun once one has this many bytes.
    pub target_file_size: u64,
    /// Rows of an encoded row group.
    pub row_group_rows: usize,
    /// The codec of encoded row groups, and of those that may be copied.
    pub compression: CompressionChoice,
    /// The columns whose values become folders.
    pub partition_by: Vec<Partition>,
    /// Bytes that encoders may hold together.
    pub memory: usize,
}

impl Default for SinkOptions {
    fn default() -> Self {
        Self {
            target_file_size: 256 << 20,
            row_group_rows: 1 << 20,
            compression: CompressionChoice::AsSource,
            partition_by: Vec::new(),
            memory: 512 << 20,
        }
    }
}

#[cfg(test)]
mod tests;
