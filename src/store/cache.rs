//! A cache on the local disk of parts of objects that never change, for stores that are far away.
//!
//! For each object there is one sparse file in which a part stands at its own offset. Nothing says which parts are there:
//! a hole reads as zeros, and whoever asks knows the checksum of what he asks for. So a part that is absent, half written,
//! or damaged is the same: not what was asked for, fetched from the store, and written again. Any number of processes may
//! share a folder, for all write the same bytes to the same place.
//!
//! It is bounded: beyond its size the files that were used least recently go. It is never needed: whatever fails here only
//! costs a request.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use bytes::Bytes;

/// The end of the names of its files. Nothing else in the folder is touched.
const EXTENSION: &str = "dedupe-cache";

/// A folder of parts of objects.
#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Bytes of disk that it may take.
    size: u64,
    /// Bytes that it took when they were last counted, and those written since.
    used: AtomicU64,
}

impl Cache {
    /// The cache in `folder`, which is created if need be, for up to `size` bytes.
    pub(crate) fn open(folder: &Path, size: u64) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let cache = Self { folder: folder.to_owned(), size, used: AtomicU64::new(0) };
        cache.trim()?;
        Ok(cache)
    }

    /// What stands in the place of each range of the object, as far as it is there: to be checked.
    pub(crate) fn read(&self, object: &str, ranges: &[Range<u64>]) -> Vec<Option<Bytes>> {
        let path = self.path_of(object);
        let Ok(mut file) = File::open(&path) else { return vec![None; ranges.len()] };
        // Files that are used stay; whether this can be noted is of no importance.
        let _ = file.set_modified(crate::clock::now().into());
        let length = file.metadata().map_or(0, |meta| meta.len());
        let mut part = |range: &Range<u64>| {
            let bytes = usize::try_from(range.end.checked_sub(range.start)?).ok()?;
            // Only what the file bears out is allocated.
            (range.end <= length).then_some(())?;
            let mut part = vec![0; bytes];
            file.seek(SeekFrom::Start(range.start)).and_then(|_| file.read_exact(&mut part)).ok()?;
            Some(Bytes::from(part))
        };
        ranges.iter().map(&mut part).collect()
    }

    /// Keeps parts of the object, each with its offset. Best effort.
    pub(crate) fn write(&self, object: &str, parts: &[(u64, Bytes)]) {
        let bytes: u64 = parts.iter().map(|(_, part)| part.len() as u64).sum();
        if bytes > self.size / 2 {
            return;
        }
        let write = || -> io::Result<()> {
            if self.used.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes) > self.size {
                self.trim()?;
                self.used.fetch_add(bytes, Ordering::Relaxed);
            }
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(false).open(self.path_of(object))?;
            for (offset, part) in parts {
                file.seek(SeekFrom::Start(*offset))?;
                file.write_all(part)?;
            }
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!("the cache in {} could not be written to: {error}", self.folder.display());
        }
    }

    /// Counts what the cache takes, and deletes the files that were used least recently if that is too much: down to half,
    /// so that it is not done for every write.
    fn trim(&self) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let path = entry.path();
            let Ok(meta) = entry.metadata() else { continue };
            if meta.is_file() && path.extension().is_some_and(|extension| extension == EXTENSION) {
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), disk_bytes(&meta), path));
            }
        }
        let mut used: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
        if used >= self.size {
            files.sort();
            for (_, bytes, path) in files {
                if used <= self.size / 2 {
                    break;
                }
                // Another process may have been first, or still have it open: both are well.
                if fs::remove_file(path).is_ok() {
                    used = used.saturating_sub(bytes);
                }
            }
        }
        self.used.store(used, Ordering::Relaxed);
        Ok(())
    }

    /// Names of objects that never change are never used twice, not in any table.
    fn path_of(&self, object: &str) -> PathBuf {
        let last = object.rsplit('/').next().unwrap_or(object);
        self.folder.join(format!("{last}.{EXTENSION}"))
    }
}

/// What a file takes on the disk: less than its length where it has holes.
fn disk_bytes(meta: &fs::Metadata) -> u64 {
    #[cfg(unix)]
    {
        std::os::unix::fs::MetadataExt::blocks(meta).saturating_mul(512)
    }
    #[cfg(not(unix))]
    {
        meta.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(byte: u8, length: usize) -> Bytes {
        vec![byte; length].into()
    }

    #[test]
    fn what_was_written_is_read_and_the_rest_is_absent_or_zeros() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("new"), 1 << 30).unwrap();
        assert_eq!(cache.read("a/b.run", &[0..4]), [None]);
        cache.write("a/b.run", &[(100, part(7, 50)), (1 << 20, part(8, 10))]);
        let read = cache.read(
            "a/b.run",
            &[100..150, 110..111, 0..4, (1 << 20)..(1 << 20) + 10, (1 << 20)..(1 << 20) + 11],
        );
        assert_eq!(read, [Some(part(7, 50)), Some(part(7, 1)), Some(part(0, 4)), Some(part(8, 10)), None]);
        assert_eq!(cache.read("a/c.run", &[0..4, 5..6]), [None, None]);
        #[allow(clippy::reversed_empty_ranges)]
        let wrong = [9..4, 0..u64::MAX, 3..3];
        assert_eq!(cache.read("a/b.run", &wrong), [None, None, Some(Bytes::new())]);
        // Another process, later.
        let other = Cache::open(&folder.path().join("new"), 1 << 30).unwrap();
        assert_eq!(other.read("x/b.run", &[100..150]), [Some(part(7, 50))]);
    }

    #[test]
    fn it_stays_within_its_size_and_leaves_the_files_of_others() {
        let folder = tempfile::tempdir().unwrap();
        let foreign = folder.path().join("notes.txt");
        fs::write(&foreign, vec![1; 1 << 20]).unwrap();
        let size = 1 << 20;
        let cache = Cache::open(folder.path(), size).unwrap();
        for object in 0..40 {
            cache.write(&format!("{object}.run"), &[(9000, part(object, 100_000))]);
            let files = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap());
            let used: u64 =
                files.filter(|f| f.path() != foreign).map(|f| disk_bytes(&f.metadata().unwrap())).sum();
            assert!(used <= size + 200_000, "{used} bytes after {object}");
            assert_eq!(cache.read(&format!("{object}.run"), &[9000..9001]), [Some(part(object, 1))]);
        }
        assert_eq!(cache.read("0.run", &[9000..9001]), [None]);
        cache.write("large.run", &[(0, part(1, size as usize))]);
        assert_eq!(cache.read("large.run", &[0..1]), [None]);
        assert!(foreign.exists());
        fs::remove_dir_all(folder.path()).unwrap();
        // A folder that went away costs requests, nothing else.
        cache.write("1.run", &[(0, part(1, 10))]);
        assert_eq!(cache.read("1.run", &[0..1]), [None]);
    }
}
