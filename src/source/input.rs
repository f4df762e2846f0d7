//! An open source: bytes at any place for Parquet, decompressed bytes in order for text.
//!
//! Local files are read in place. Objects in buckets are read in windows that grow while a reader goes on in order,
//! and a few recent windows are kept, so that a Parquet reader's small steps do not become requests. Every read is
//! of the content that was found at first: a source that changes meanwhile is an error, never a mixture.

use super::{
    ahead::{Ahead, Fetches, Fetching},
    buffers::Buffers,
    discover::Compression,
    unpack::unpack,
};
use crate::{
    error::{Error, Result},
    store::{Store, aside},
};
use bytes::Bytes;
use parquet::{
    errors::ParquetError,
    file::reader::{ChunkReader, Length},
};
use std::{
    collections::VecDeque,
    fmt,
    fs::File,
    io::{self, Read},
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

/// The first window that a reader fetches from a bucket.
const FIRST_WINDOW: usize = 256 << 10;
/// The largest.
const LARGEST_WINDOW: usize = 4 << 20;
/// How much of its end is fetched ahead: as long as most footers are.
const END: u64 = 64 << 10;
/// How many recent windows are kept, over all readers of one input.
const WINDOWS: usize = 4;
/// How many windows a sequential reader has on their way.
const AHEAD: usize = 2;
/// The first and the largest step of a reader of a local file.
const STEPS: Range<usize> = 8 << 10..512 << 10;

/// An open source. Cheap to clone; clones may read at the same time.
#[derive(Clone)]
pub struct Input {
    shared: Arc<Shared>,
}

struct Shared {
    url: String,
    compression: Compression,
    size: u64,
    bytes: Kind,
}

enum Kind {
    Disk {
        file: File,
        modified: Option<SystemTime>,
        buffers: Buffers,
    },
    Bucket {
        store: Store,
        name: String,
        etag: Option<String>,
        windows: Mutex<VecDeque<(u64, Bytes)>>,
        fetches: Fetches,
    },
    Held(Bytes),
    Stdin,
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Input({})", self.shared.url)
    }
}

impl Input {
    /// The most memory that one input keeps for itself, beyond what it hands out.
    pub const MEMORY: usize = (WINDOWS + AHEAD + 1) * LARGEST_WINDOW;

    pub(super) fn disk(url: &str, compression: Compression, file: File) -> Result<Self> {
        let meta = file.metadata().map_err(|e| Error::input(url, e))?;
        if !meta.is_file() {
            return Err(Error::input(
                url,
                "this is no regular file; to read a stream, pipe it in and name `-`",
            ));
        }
        let bytes = Kind::Disk { file, modified: meta.modified().ok(), buffers: Buffers::default() };
        Ok(Self::new(url, compression, meta.len(), bytes))
    }

    pub(super) fn bucket(
        url: &str,
        compression: Compression,
        store: Store,
        name: &str,
        size: u64,
        etag: Option<&str>,
    ) -> Self {
        let (name, etag) = (name.to_owned(), etag.map(str::to_owned));
        Self::new(
            url,
            compression,
            size,
            Kind::Bucket { store, name, etag, windows: Mutex::default(), fetches: Fetches::default() },
        )
    }

    /// An object of a table, `size` bytes long, as a source.
    pub(crate) fn of_object(store: &Store, name: &str, size: u64) -> Result<Self> {
        let url = store.location_of(name);
        match store.local_path(name) {
            Some(path) => {
                let file = File::open(&path).map_err(|e| Error::store("open", url.clone(), e))?;
                Self::disk(&url, Compression::None, file)
            }
            None => Ok(Self::bucket(&url, Compression::None, store.clone(), name, size, None)),
        }
    }

    /// What was read of `url` before, whole.
    pub(crate) fn held(url: &str, bytes: Bytes) -> Self {
        Self::new(url, Compression::None, bytes.len() as u64, Kind::Held(bytes))
    }

    pub(super) fn stdin(compression: Compression) -> Self {
        Self::new("-", compression, 0, Kind::Stdin)
    }

    fn new(url: &str, compression: Compression, size: u64, bytes: Kind) -> Self {
        Self { shared: Arc::new(Shared { url: url.to_owned(), compression, size, bytes }) }
    }

    /// Where the bytes come from: an absolute path, a URL, or `-`.
    pub fn url(&self) -> &str {
        &self.shared.url
    }

    /// The decompressed bytes, in order. Blocks while it reads, so it belongs on a blocking thread.
    pub fn reader(&self) -> Result<Box<dyn Read + Send>> {
        let raw: Box<dyn Read + Send> = match &self.shared.bytes {
            Kind::Disk { .. } | Kind::Held(_) => Box::new(Reader::at(self, 0)),
            Kind::Bucket { .. } => Box::new(InOrder::new(self)),
            Kind::Stdin => Box::new(io::stdin()),
        };
        let unpacked = unpack(raw, self.shared.compression, &self.shared.url);
        unpacked.map_err(|error| Error::input(&self.shared.url, error))
    }

    /// An error if the source was changed since it was opened. Called when all was read, it says that what was read
    /// is what is there. It asks the store, so in a bucket's case it blocks.
    pub fn unchanged(&self) -> Result<()> {
        let same = match &self.shared.bytes {
            Kind::Disk { file, modified, .. } => {
                let meta = file.metadata().map_err(|e| Error::input(&self.shared.url, e))?;
                meta.len() == self.shared.size && meta.modified().ok() == *modified
            }
            Kind::Bucket { store, name, etag, .. } => {
                let (store, wanted) = (store.clone(), name.clone());
                let now = aside::start(async move { store.head(&wanted).await })?.wait()?;
                now.is_some_and(|now| {
                    let tags = etag.as_deref().zip(now.etag.as_deref());
                    now.size == self.shared.size
                        && tags.is_none_or(|(old, new)| {
                            crate::store::bare_tag(old) == crate::store::bare_tag(new)
                        })
                })
            }
            Kind::Held(_) | Kind::Stdin => true,
        };
        if same { Ok(()) } else { Err(self.changed()) }
    }

    /// The first bytes of `range`, or all: as many as are there without another request.
    fn some_of(&self, range: Range<u64>) -> Result<Bytes> {
        if let Kind::Bucket { fetches, .. } = &self.shared.bytes
            && let Some(bytes) = fetches.find(&range).filter(|bytes| !bytes.is_empty())
        {
            return Ok(bytes);
        }
        self.bytes_of(range)
    }

    /// The stored bytes of `range`, which must lie within the source.
    fn bytes_of(&self, range: Range<u64>) -> Result<Bytes> {
        match &self.shared.bytes {
            Kind::Disk { file, buffers, .. } => {
                let filled = buffers.filled(length(&range), |bytes| read_exact_at(file, bytes, range.start));
                filled.map_err(|error| self.unreadable(error))
            }
            Kind::Bucket { windows, fetches, .. } => match fetches.find(&range) {
                Some(bytes) if bytes.len() == length(&range) => Ok(bytes),
                _ => self.windowed(windows, range),
            },
            // Both ends lie within: the size is theirs.
            Kind::Held(bytes) => Ok(bytes.slice(range.start as usize..range.end as usize)),
            Kind::Stdin => {
                Err(Error::input("-", "standard input can only be read in order; save it to a file first"))
            }
        }
    }

    /// Begins to fetch `ranges` if this lies in a bucket, so that they are there when they are read; they are kept as long as
    /// what this returns is. A range is read from one fetch or not at all: what is read at once belongs into one.
    pub(crate) fn fetch_ahead(&self, ranges: impl IntoIterator<Item = Range<u64>>) -> Ahead {
        let Kind::Bucket { fetches, .. } = &self.shared.bytes else { return Ahead::default() };
        let begin = |range: Range<u64>| {
            let fetch = fetches.begin(range.start..range.end.min(self.shared.size));
            let fetching = Fetching::of(&fetch);
            if let Ok(get) = self.get(fetch.range()) {
                // Where it cannot even be started, whoever reads will learn why.
                let _ = aside::start(async move {
                    let bytes = get.await?;
                    fetching.end(Some(bytes));
                    Ok(())
                });
            }
            fetch
        };
        fetches.hold(ranges.into_iter().filter(|range| !range.is_empty()).map(begin).collect())
    }

    /// Begins to fetch the end, where a Parquet file has its footer.
    pub(crate) fn fetch_end_ahead(&self) -> Ahead {
        let size = self.shared.size;
        self.fetch_ahead(std::iter::once(size.saturating_sub(END)..size))
    }

    fn windowed(&self, windows: &Mutex<VecDeque<(u64, Bytes)>>, range: Range<u64>) -> Result<Bytes> {
        let mut window = FIRST_WINDOW;
        {
            let windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
            for (start, bytes) in windows.iter() {
                let end = start + bytes.len() as u64;
                if *start <= range.start && range.end <= end {
                    let offset = length(&(*start..range.start));
                    return Ok(bytes.slice(offset..offset + length(&range)));
                }
                // Somebody reads on from here.
                if (*start..=end).contains(&range.start) {
                    window = window.max(bytes.len().saturating_mul(2).min(LARGEST_WINDOW));
                }
            }
        }
        let wanted = length(&range);
        let end = range.end.max(range.start.saturating_add(window as u64)).min(self.shared.size);
        let bytes = self.fetch(range.start..end)?.wait()?;
        let answer = bytes.slice(..wanted.min(bytes.len()));
        // Larger ones were asked for as a whole, and their reader has them now.
        if bytes.len() <= LARGEST_WINDOW {
            let mut windows = windows.lock().unwrap_or_else(PoisonError::into_inner);
            windows.push_back((range.start, bytes));
            while windows.len() > WINDOWS {
                windows.pop_front();
            }
        }
        Ok(answer)
    }

    /// Starts to fetch `range` from the bucket.
    fn fetch(&self, range: Range<u64>) -> Result<aside::Pending<Bytes>> {
        aside::start(self.get(range)?)
    }

    fn get(&self, range: Range<u64>) -> Result<impl Future<Output = Result<Bytes>> + Send + use<>> {
        let Kind::Bucket { store, name, etag, .. } = &self.shared.bytes else {
            return Err(Error::Internal(format!("{} lies in no bucket", self.shared.url)));
        };
        let (store, name, etag) = (store.clone(), name.clone(), etag.clone());
        Ok(async move { store.get_range_of(&name, range, etag.as_deref()).await })
    }

    /// Fills `target` from `start` on if that takes no more than to read from a disk; says whether it did.
    fn read_into(&self, start: u64, target: &mut [u8]) -> Result<bool> {
        let Kind::Disk { file, .. } = &self.shared.bytes else { return Ok(false) };
        read_exact_at(file, target, start).map_err(|error| self.unreadable(error))?;
        Ok(true)
    }

    fn unreadable(&self, error: io::Error) -> Error {
        match error.kind() {
            io::ErrorKind::UnexpectedEof => self.changed(),
            _ => Error::input(&self.shared.url, error),
        }
    }

    fn changed(&self) -> Error {
        let reason = "it was changed while it was being read; run again when nobody writes to it";
        Error::input(&self.shared.url, reason)
    }

    fn within(&self, start: u64, length: usize) -> Result<Range<u64>, ParquetError> {
        let size = self.shared.size;
        match start.checked_add(length as u64) {
            Some(end) if end <= size => Ok(start..end),
            _ => Err(ParquetError::EOF(format!(
                "{length} bytes from {start} on were expected, and there are {size}"
            ))),
        }
    }
}

impl Length for Input {
    fn len(&self) -> u64 {
        self.shared.size
    }
}

impl ChunkReader for Input {
    type T = Reader;

    fn get_read(&self, start: u64) -> Result<Reader, ParquetError> {
        self.within(start, 0)?;
        Ok(Reader::at(self, start))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        let range = self.within(start, length)?;
        self.bytes_of(range).map_err(|error| ParquetError::External(Box::new(error)))
    }
}

/// Reads an [`Input`] in order from some place on, as stored. Readers do not disturb each other.
#[derive(Debug)]
pub struct Reader {
    input: Input,
    next: u64,
    step: usize,
    buffer: Bytes,
}

impl Reader {
    fn at(input: &Input, start: u64) -> Self {
        Self { input: input.clone(), next: start, step: STEPS.start, buffer: Bytes::new() }
    }
}

impl Read for Reader {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && !target.is_empty() {
            let end = self.next.saturating_add(self.step as u64).min(self.input.shared.size);
            if self.next >= end {
                return Ok(0);
            }
            // Who asks for as much as would be read gets it without another copy.
            if let Some(target) = target.get_mut(..length(&(self.next..end)))
                && self.input.read_into(self.next, target).map_err(io::Error::other)?
            {
                self.next = end;
                self.step = (self.step * 2).min(STEPS.end);
                return Ok(target.len());
            }
            self.buffer = self.input.some_of(self.next..end).map_err(io::Error::other)?;
            self.next += self.buffer.len() as u64;
            self.step = (self.step * 2).min(STEPS.end);
        }
        Ok(take(&mut self.buffer, target))
    }
}

/// Reads a whole object of a bucket in order, with the next windows on their way.
struct InOrder {
    input: Input,
    next: u64,
    step: usize,
    buffer: Bytes,
    coming: VecDeque<aside::Pending<Bytes>>,
}

impl InOrder {
    fn new(input: &Input) -> Self {
        Self {
            input: input.clone(),
            next: 0,
            step: FIRST_WINDOW,
            buffer: Bytes::new(),
            coming: VecDeque::new(),
        }
    }

    fn order(&mut self) -> Result<()> {
        while self.coming.len() < AHEAD && self.next < self.input.shared.size {
            let end = self.next.saturating_add(self.step as u64).min(self.input.shared.size);
            self.coming.push_back(self.input.fetch(self.next..end)?);
            self.next = end;
            self.step = (self.step * 2).min(LARGEST_WINDOW);
        }
        Ok(())
    }
}

impl Read for InOrder {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.buffer.is_empty() && !target.is_empty() {
            self.order().map_err(io::Error::other)?;
            if let Some(first) = self.coming.pop_front() {
                self.buffer = first.wait().map_err(io::Error::other)?;
                self.order().map_err(io::Error::other)?;
            }
        }
        Ok(take(&mut self.buffer, target))
    }
}

/// Moves as much as fits from `buffer` to `target`.
fn take(buffer: &mut Bytes, target: &mut [u8]) -> usize {
    let moved = buffer.split_to(buffer.len().min(target.len()));
    // Both are of the same length, so this cannot fail.
    if let Some(target) = target.get_mut(..moved.len()) {
        target.copy_from_slice(&moved);
    }
    moved.len()
}

/// The length of a range that is known to fit in memory's address space.
fn length(range: &Range<u64>) -> usize {
    usize::try_from(range.end.saturating_sub(range.start)).unwrap_or(usize::MAX)
}

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !buffer.is_empty() {
        match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                buffer = buffer.get_mut(read..).unwrap_or_default();
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
