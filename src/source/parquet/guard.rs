//! What stands between a file that somebody else wrote and the decoder: panics become errors, and pages that would
//! unpack to more than a bound, alone or together, are refused before they are unpacked.

use super::compact::{DICTIONARY_PAGE, PageHead, Stop, page_head};
use super::cut::{Shape, lengths};
use crate::error::{Error, Result};
use bytes::Bytes;
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::reader::{ChunkReader, Length};
use std::cell::Cell;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The most bytes that one page may unpack to. Writers aim at one MiB; only a page with one huge value is larger.
pub(super) const MAX_PAGE_BYTES: i64 = 256 << 20;

/// The most bytes that the pages which a decoder holds at the same time (of each column it reads the dictionary and one
/// page) may unpack to, unless the caller has room for more.
pub(super) const MAX_HELD_BYTES: u64 = 512 << 20;

/// The most values that one page may claim to hold: run-length encoding can claim billions in a few bytes.
pub(super) const MAX_PAGE_VALUES: i64 = 64 << 20;

/// How much is read of a page header at first: page statistics may make it longer.
const PEEK: usize = 256;

/// The longest page header: page statistics hold whole values.
pub(super) const MAX_HEADER: usize = 16 << 20;

thread_local! {
    /// Whether this thread is at work on a file whose decoder may give up.
    static SHIELDED: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread would be caught and told as an error about a file, so that a program's panic hook
/// need not tell it as well.
pub fn is_shielded() -> bool {
    SHIELDED.get()
}

/// Runs `work` on behalf of the file at `url`; a panic inside the decoder is the file's fault.
pub(super) fn shielded<T>(url: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let before = SHIELDED.replace(true);
    // The decoder's state is thrown away after a panic, so nothing half-changed is seen again.
    let outcome = catch_unwind(AssertUnwindSafe(work));
    SHIELDED.set(before);
    outcome.unwrap_or_else(|panic| {
        let words = panic
            .downcast_ref::<&str>()
            .map(|words| (*words).to_owned())
            .or_else(|| panic.downcast_ref::<String>().cloned())
            .unwrap_or_default();
        Err(broken(url, format!("the decoder gave up: {words}")))
    })
}

/// The error about a file that is not what it claims to be.
pub(super) fn broken(url: &str, reason: impl std::fmt::Display) -> Error {
    Error::input(
        url,
        format!(
            "corrupt or unsupported Parquet file: {reason}; write it again from its origin, or leave it out"
        ),
    )
}

/// An input whose page headers are checked when the decoder reads them.
#[derive(Debug, Clone)]
pub(super) struct Guarded<R> {
    input: R,
    store_failed: Arc<AtomicBool>,
    held: Option<Arc<Mutex<Held>>>,
}

impl<R> Guarded<R> {
    pub(super) fn new(input: R) -> Self {
        Self { input, store_failed: Arc::default(), held: None }
    }

    pub(super) fn inner(&self) -> &R {
        &self.input
    }

    /// The same input for a decoder of these columns of a row group, whose pages may together unpack to `most` bytes.
    pub(super) fn holding<'a>(
        &self,
        columns: impl Iterator<Item = &'a ColumnChunkMetaData>,
        most: u64,
    ) -> Self
    where
        R: Clone,
    {
        let held = Some(Arc::new(Mutex::new(Held::of(columns, most))));
        Self { input: self.input.clone(), store_failed: Arc::clone(&self.store_failed), held }
    }

    /// The error that the decoder's words `error` mean: of the store if a read failed, else of the file.
    pub(super) fn blame(&self, url: &str, error: impl std::fmt::Display) -> Error {
        if self.store_failed.load(Ordering::Relaxed) {
            return Error::store("read", url, error.to_string());
        }
        broken(url, error)
    }
}

impl<R: Length> Length for Guarded<R> {
    fn len(&self) -> u64 {
        self.input.len()
    }
}

impl<R: ChunkReader> ChunkReader for Guarded<R> {
    type T = GuardedRead<R::T>;

    /// The decoder calls this for page headers only (no page index is given to it).
    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let inner = self.input.get_read(start).inspect_err(|error| self.note(error))?;
        let store_failed = Arc::clone(&self.store_failed);
        Ok(GuardedRead { inner, start, peeked: None, store_failed, held: self.held.clone() })
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let bytes = self.input.get_bytes(start, length).inspect_err(|error| self.note(error))?;
        let page = self.held.as_ref().and_then(|held| lock(held).delta_page(start));
        if let Some((shape, head)) = page {
            lengths::check(&shape, &head, &bytes)
                .map_err(|reason| ParquetError::General(format!("the page at byte {start}: {reason}")))?;
        }
        Ok(bytes)
    }
}

impl<R> Guarded<R> {
    fn note(&self, error: &ParquetError) {
        if matches!(error, ParquetError::External(_)) {
            self.store_failed.store(true, Ordering::Relaxed);
        }
    }
}

/// A stream that starts with a page header.
#[derive(Debug)]
pub(super) struct GuardedRead<T> {
    inner: T,
    start: u64,
    /// Bytes read ahead, and how many of them were given on. `None` until the first read: the decoder also opens
    /// streams that it never reads.
    peeked: Option<(Vec<u8>, usize)>,
    store_failed: Arc<AtomicBool>,
    held: Option<Arc<Mutex<Held>>>,
}

impl<T: Read> Read for GuardedRead<T> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.peeked.is_none() {
            let (ahead, head, length) = self.header()?;
            if let Some(held) = &self.held {
                lock(held).take(self.start, &head, length).map_err(std::io::Error::other)?;
            }
            self.peeked = Some((ahead, 0));
        }
        if let Some((ahead, given)) = &mut self.peeked {
            let mut rest = ahead.get(*given..).unwrap_or_default();
            if !rest.is_empty() {
                let count = rest.read(buf)?;
                *given += count;
                return Ok(count);
            }
        }
        self.inner.read(buf).inspect_err(|_| self.store_failed.store(true, Ordering::Relaxed))
    }
}

impl<T: Read> GuardedRead<T> {
    /// Reads on until the page header is whole, and a bit further. A decoder would believe any header: one that ends too
    /// early, or claims lists without end, is not given to it.
    fn header(&mut self) -> std::io::Result<(Vec<u8>, PageHead, usize)> {
        let mut ahead = Vec::with_capacity(PEEK);
        let mut most = PEEK;
        loop {
            let missing = most - ahead.len();
            let read = self.inner.by_ref().take(missing as u64).read_to_end(&mut ahead);
            let read = read.inspect_err(|_| self.store_failed.store(true, Ordering::Relaxed))?;
            let mut head = PageHead::default();
            let parsed = page_head(&ahead, &mut head);
            check_sizes(&head)?;
            match parsed {
                Ok(length) => return Ok((ahead, head, length)),
                Err(Stop::Short) if read == missing && most < MAX_HEADER => most *= 4,
                Err(_) => {
                    let place = self.start;
                    return Err(std::io::Error::other(format!("no page header at byte {place}")));
                }
            }
        }
    }
}

fn lock(held: &Mutex<Held>) -> MutexGuard<'_, Held> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the decoder holds of each column: its dictionary and the page it is at.
#[derive(Debug)]
struct Held {
    columns: Vec<HeldColumn>,
    bytes: u64,
    most: u64,
}

#[derive(Debug)]
struct HeldColumn {
    name: String,
    /// Where its chunk begins.
    start: u64,
    dictionary: u64,
    page: u64,
    /// Values that its footer says are still to come, and where the last page that was counted begins.
    values: i64,
    counted: Option<u64>,
    shape: Shape,
    /// Of a page whose values are delta-encoded texts, where its body begins, until that is read.
    delta: Option<(u64, PageHead)>,
}

impl Held {
    fn of<'a>(columns: impl Iterator<Item = &'a ColumnChunkMetaData>, most: u64) -> Self {
        let column = |column: &ColumnChunkMetaData| HeldColumn {
            name: column.column_path().string(),
            start: u64::try_from(column.dictionary_page_offset().unwrap_or(column.data_page_offset()))
                .unwrap_or(0),
            dictionary: 0,
            page: 0,
            values: column.num_values(),
            counted: None,
            shape: Shape::of(column.column_descr(), column.compression()),
            delta: None,
        };
        // Chunks without values may lie anywhere, and are never read.
        let mut columns: Vec<_> = columns.filter(|column| column.num_values() > 0).map(column).collect();
        columns.sort_unstable_by_key(|column| column.start);
        Self { columns, bytes: 0, most }
    }

    /// The page whose body begins at `start`, if its values are delta-encoded texts.
    fn delta_page(&mut self, start: u64) -> Option<(Shape, PageHead)> {
        let column =
            self.columns.iter_mut().find(|column| column.delta.is_some_and(|(body, _)| body == start))?;
        column.delta.take().map(|(_, head)| (column.shape, head))
    }

    /// Notes the page at `start`, whose header has `length` bytes, and which takes the place of the one before it in its
    /// column.
    fn take(&mut self, start: u64, head: &PageHead, length: usize) -> Result<(), String> {
        let at = self.columns.partition_point(|column| column.start <= start);
        let Some(column) = at.checked_sub(1).and_then(|at| self.columns.get_mut(at)) else { return Ok(()) };
        let bytes = u64::try_from(head.uncompressed).unwrap_or(0);
        let slot = if head.kind == DICTIONARY_PAGE { &mut column.dictionary } else { &mut column.page };
        self.bytes = self.bytes.saturating_sub(std::mem::replace(slot, bytes)).saturating_add(bytes);
        if self.bytes > self.most {
            return Err(format!(
                "its pages unpack to more than the {} bytes that may be held at a time; write it with smaller pages \
                 or row groups, or give more --memory",
                self.most
            ));
        }
        column.delta = (head.kind != DICTIONARY_PAGE && lengths::are_delta(head))
            .then(|| (start.saturating_add(length as u64), *head));
        // A header may be looked at twice; its values count once.
        if head.kind != DICTIONARY_PAGE && column.counted.is_none_or(|counted| start > counted) {
            column.counted = Some(start);
            column.values = column.values.saturating_sub(head.values);
            if column.values < 0 {
                return Err(format!("column `{}` holds more values than its footer says", column.name));
            }
        }
        Ok(())
    }
}

fn check_sizes(head: &PageHead) -> std::io::Result<()> {
    if head.uncompressed < 0 || head.compressed < 0 || head.values < 0 {
        return Err(std::io::Error::other("a page has an impossible size"));
    }
    if head.uncompressed > MAX_PAGE_BYTES {
        return Err(std::io::Error::other(format!(
            "a page unpacks to {} bytes, more than the {MAX_PAGE_BYTES} that are allowed",
            head.uncompressed
        )));
    }
    if head.values > MAX_PAGE_VALUES {
        return Err(std::io::Error::other(format!(
            "a page claims {} values, more than the {MAX_PAGE_VALUES} that are allowed",
            head.values
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A data page: kind 0, 4 bytes, packed 4, of one value.
    const HEADER: [u8; 13] = [0x15, 0x00, 0x15, 0x08, 0x15, 0x08, 0x2c, 0x15, 0x02, 0x15, 0x00, 0x00, 0x00];

    #[test]
    fn a_panic_becomes_an_input_error_with_its_words() {
        let error = shielded::<()>("a.parquet", || panic!("attempt to {}", "divide")).unwrap_err();
        assert!(matches!(error, Error::Input { .. }));
        assert!(error.to_string().contains("attempt to divide"), "{error}");
    }

    #[test]
    fn bytes_pass_through_unchanged() {
        let mut bytes: Vec<u8> = (0..2000u32).map(|n| (n % 7) as u8).collect();
        bytes.splice(3..3 + HEADER.len(), HEADER);
        let guarded = Guarded::new(Bytes::from(bytes.clone()));
        let mut read = Vec::new();
        guarded.get_read(3).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, bytes[3..]);
        assert_eq!(guarded.get_bytes(5, 9).unwrap(), bytes[5..14]);
    }

    #[test]
    fn a_header_is_given_on_if_it_is_whole_however_long_it_is() {
        let read = |bytes: &[u8]| {
            let mut all = Vec::new();
            Guarded::new(Bytes::copy_from_slice(bytes))
                .get_read(0)
                .unwrap()
                .read_to_end(&mut all)
                .map(|_| all)
        };
        // After it, a field that nobody knows: 5,000 bytes of text, and the end.
        let mut long = HEADER[..HEADER.len() - 1].to_vec();
        long.extend([0xa8, 0x88, 0x27]);
        long.resize(long.len() + 5000, b'x');
        assert!(read(&long).is_err());
        long.push(0);
        assert_eq!(read(&long).unwrap(), long);
        // A list of two billion booleans.
        let endless =
            [&HEADER[..HEADER.len() - 1], &[0x99, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00]].concat();
        assert!(read(&endless).is_err());
    }

    #[test]
    fn a_page_that_unpacks_to_too_much_is_refused_before_it_is_unpacked() {
        // kind 0, uncompressed 2^31 - 1, compressed 50
        let head: &[u8] = &[0x15, 0x00, 0x15, 0xfe, 0xff, 0xff, 0xff, 0x0f, 0x15, 0x64];
        let mut one = [0];
        let error =
            Guarded::new(Bytes::copy_from_slice(head)).get_read(0).unwrap().read(&mut one).unwrap_err();
        assert!(error.to_string().contains("2147483647"), "{error}");
    }
}
