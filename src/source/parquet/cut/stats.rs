//! What a cut leaves of the statistics of a chunk and of its pages: what is still true, and nothing else.

use parquet::basic::BoundaryOrder;
use parquet::data_type::AsBytes;
use parquet::file::metadata::{ColumnChunkMetaData, ColumnIndexBuilder};
use parquet::file::page_index::column_index::{ColumnIndexMetaData, PrimitiveColumnIndex};
use parquet::file::page_index::offset_index::OffsetIndexMetaData;
use parquet::file::statistics::{Statistics, ValueStatistics};

/// What became of a page of the source.
#[derive(Debug, Clone, Copy)]
pub(super) enum PageFate {
    /// Passed on as it was.
    Kept,
    /// Some of its rows are left.
    Cut { nulls: i64, before: i64, all_null: bool },
    /// None of its rows is left.
    Dropped { nulls: i64 },
}

/// What the page index of the source says of a chunk, if it can be believed.
#[derive(Debug)]
pub(super) struct PageIndexes<'a> {
    source: Option<(&'a ColumnIndexMetaData, &'a OffsetIndexMetaData)>,
    rows: usize,
}

impl<'a> PageIndexes<'a> {
    pub(super) fn new(
        source: Option<(&'a ColumnIndexMetaData, &'a OffsetIndexMetaData)>,
        rows: usize,
        pages: usize,
    ) -> Self {
        let source = source.map(|(columns, offsets)| {
            let whole = !matches!(columns, ColumnIndexMetaData::NONE) && columns.num_pages() == pages as u64;
            (if whole { columns } else { &ColumnIndexMetaData::NONE }, offsets)
        });
        Self { source, rows }
    }

    /// How many rows begin in a page.
    pub(super) fn rows(&self, page: usize) -> Option<i64> {
        let places = self.source?.1.page_locations();
        let next = places.get(page + 1).map_or(self.rows as i64, |next| next.first_row_index);
        Some(next - places.get(page)?.first_row_index)
    }

    /// How many values of a page are null.
    pub(super) fn nulls(&self, page: usize) -> Option<i64> {
        self.columns()?.null_count(page)
    }

    fn columns(&self) -> Option<&'a ColumnIndexMetaData> {
        self.source
            .map(|(columns, _)| columns)
            .filter(|columns| !matches!(columns, ColumnIndexMetaData::NONE))
    }

    /// The column index of what is left. Bounds of a page also bound what is left of it, and keep their order.
    pub(super) fn cut(&self, chunk: &ColumnChunkMetaData, fates: &[PageFate]) -> Option<ColumnIndexMetaData> {
        let columns = self.columns()?;
        let nested = chunk.column_descr().max_rep_level() > 0;
        let mut index = ColumnIndexBuilder::new(chunk.column_type());
        index.set_boundary_order(columns.get_boundary_order().unwrap_or(BoundaryOrder::UNORDERED));
        for (page, fate) in fates.iter().enumerate() {
            let source_nulls = columns.null_count(page)?;
            let (nulls, all_null) = match *fate {
                PageFate::Dropped { .. } => continue,
                PageFate::Kept => (source_nulls, columns.is_null_page(page)),
                PageFate::Cut { nulls, all_null, .. } => match (nested, source_nulls) {
                    (true, 0) if !all_null => (0, false),
                    // Whether an empty list counts as null is not agreed upon.
                    (true, _) => return None,
                    (false, _) => (nulls, all_null),
                },
            };
            match bounds(columns, page).filter(|_| !all_null) {
                Some((min, max)) => index.append(false, min, max, nulls),
                None if all_null => index.append(true, Vec::new(), Vec::new(), nulls),
                None => return None,
            }
        }
        index.build().ok()
    }
}

/// The statistics of what is left of a chunk, which has `values` values, nulls included.
pub(super) fn of_chunk(source: &ColumnChunkMetaData, fates: &[PageFate], values: i64) -> Option<Statistics> {
    let statistics = source.statistics()?;
    let before = statistics.null_count_opt().and_then(|nulls| i64::try_from(nulls).ok());
    let nested = source.column_descr().max_rep_level() > 0;
    let nulls = match before {
        Some(0) => Some(0),
        // Whether an empty list counts as null is not agreed upon.
        Some(_) if nested => None,
        Some(before) => {
            let gone = fates.iter().map(|fate| match fate {
                PageFate::Kept => 0,
                PageFate::Cut { nulls, before, .. } => before - nulls,
                PageFate::Dropped { nulls } => *nulls,
            });
            Some(before - gone.sum::<i64>()).filter(|nulls| (0..=values).contains(nulls))
        }
        None => None,
    };
    let nulls = nulls.and_then(|nulls| u64::try_from(nulls).ok());
    // The deprecated fields have no way to say that a bound is not exact.
    let unbounded = nulls == u64::try_from(values).ok() || statistics.is_min_max_deprecated();
    macro_rules! bounds {
        ($($kind:ident),*) => {
            match statistics {
                $(Statistics::$kind(known) => Statistics::$kind(left(known, nulls, unbounded)),)*
            }
        };
    }
    Some(bounds!(Boolean, Int32, Int64, Int96, Float, Double, ByteArray, FixedLenByteArray))
}

/// Bounds of all values bound those that are left, but may not be among them any more.
fn left<T: Clone>(known: &ValueStatistics<T>, nulls: Option<u64>, unbounded: bool) -> ValueStatistics<T> {
    let (min, max) =
        if unbounded { (None, None) } else { (known.min_opt().cloned(), known.max_opt().cloned()) };
    ValueStatistics::new(min, max, None, nulls, false).with_min_is_exact(false).with_max_is_exact(false)
}

/// The bounds of a page, as bytes.
fn bounds(columns: &ColumnIndexMetaData, page: usize) -> Option<(Vec<u8>, Vec<u8>)> {
    fn of<T: AsBytes>(index: &PrimitiveColumnIndex<T>, page: usize) -> Option<(Vec<u8>, Vec<u8>)> {
        Some((index.min_value(page)?.as_bytes().to_vec(), index.max_value(page)?.as_bytes().to_vec()))
    }
    match columns {
        ColumnIndexMetaData::NONE => None,
        ColumnIndexMetaData::BOOLEAN(index) => of(index, page),
        ColumnIndexMetaData::INT32(index) => of(index, page),
        ColumnIndexMetaData::INT64(index) => of(index, page),
        ColumnIndexMetaData::INT96(index) => of(index, page),
        ColumnIndexMetaData::FLOAT(index) => of(index, page),
        ColumnIndexMetaData::DOUBLE(index) => of(index, page),
        ColumnIndexMetaData::BYTE_ARRAY(index) | ColumnIndexMetaData::FIXED_LEN_BYTE_ARRAY(index) => {
            Some((index.min_value(page)?.to_vec(), index.max_value(page)?.to_vec()))
        }
    }
}
