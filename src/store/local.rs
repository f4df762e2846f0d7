//! The durable store on a local disk.
//!
//! An object is written to a temporary file beside its final name, synced, and given its name by a hard link, which
//! fails if the name is taken: so a name is either absent or whole, whatever is killed when. Then the folder is
//! synced, so that the name itself survives a power cut; who finds the name taken syncs it as well, because the other
//! writer may have been killed in between. A folder that cannot be synced once its new name is visible
//! poisons the store: later calls fail, because what they would read might not be on the disk.

use super::compute::started;
use super::{Listed, Put, TEMPORARY_PREFIX, check_name};
use crate::error::{Error, Result};
use bytes::Bytes;
use chrono::{DateTime, Utc};
use std::{
    collections::HashSet,
    fs::{self, File, Metadata, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    ops::Range,
    path::{Path, PathBuf},
    sync::{Mutex, OnceLock, PoisonError, mpsc},
};
use walkdir::WalkDir;

/// A folder of durable objects.
#[derive(Debug)]
pub(super) struct Local {
    root: PathBuf,
    /// Folders whose own names are known to be on the disk.
    settled: Mutex<HashSet<PathBuf>>,
    /// What failed, once nothing read here can be trusted any more.
    poisoned: OnceLock<String>,
    #[cfg(test)]
    pub(super) fail_folder_sync: std::sync::atomic::AtomicBool,
}

/// A file that has no final name yet. Dropped before [`Local::publish`], it disappears.
#[derive(Debug)]
pub(super) struct Staged {
    temporary: PathBuf,
    file: Option<File>,
}

impl Drop for Staged {
    fn drop(&mut self) {
        // A leftover is harmless, so a failure here is too.
        let _ = fs::remove_file(&self.temporary);
    }
}

impl Local {
    /// The folder at `root`, an absolute path that need not exist yet.
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            settled: Mutex::default(),
            poisoned: OnceLock::new(),
            #[cfg(test)]
            fail_folder_sync: std::sync::atomic::AtomicBool::new(false),
        }
    }

    pub(super) fn path_of(&self, name: &str) -> PathBuf {
        // `extend` part by part, because pushing "" would end the path with a separator.
        let mut path = self.root.clone();
        path.extend(name.split('/').filter(|part| !part.is_empty()));
        path
    }

    pub(super) fn put_once(&self, name: &str, bytes: &[u8]) -> Put {
        match self.stage(name, bytes) {
            Ok(staged) => self.publish(staged, name),
            Err(error) => Put::Failed(error),
        }
    }

    pub(super) fn get_limited(&self, name: &str, max: u64) -> Result<Option<Bytes>> {
        let Some((mut file, meta)) = self.open(name)? else { return Ok(None) };
        if meta.len() > max {
            return Err(too_large(name, meta.len(), max));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        file.read_to_end(&mut bytes).map_err(|e| self.failed("read", name, e))?;
        Ok(Some(bytes.into()))
    }

    pub(super) fn get_ranges(&self, name: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let Some((mut file, meta)) = self.open(name)? else { return Err(absent(&self.path_of(name))) };
        let mut read = |range: &Range<u64>| {
            let length = range_length(name, range, meta.len())?;
            let mut bytes = vec![0; length];
            read_at(&mut file, range.start, &mut bytes).map_err(|e| self.failed("read", name, e))?;
            Ok(Bytes::from(bytes))
        };
        ranges.iter().map(&mut read).collect()
    }

    pub(super) fn head(&self, name: &str) -> Result<Option<Listed>> {
        let Some((_, meta)) = self.open(name)? else { return Ok(None) };
        Ok(Some(listed(name.to_owned(), &meta)))
    }

    pub(super) fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>> {
        let mut found = self.walk(prefix, |name| {
            let file = name.rsplit('/').next().unwrap_or(name);
            !file.starts_with(TEMPORARY_PREFIX) && after.is_none_or(|after| name > after)
        })?;
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    pub(super) fn leftovers(&self) -> Result<Vec<Listed>> {
        self.walk("", |name| name.rsplit('/').next().unwrap_or(name).starts_with(TEMPORARY_PREFIX))
    }

    pub(super) fn delete(&self, name: &str) -> Result<()> {
        self.check(name)?;
        match fs::remove_file(self.path_of(name)) {
            Err(error) if !is_absent(&error) => Err(self.failed("delete", name, error)),
            _ => Ok(()),
        }
    }

    pub(super) fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut staged = self.stage(name, bytes)?;
        staged.file = None;
        fs::rename(&staged.temporary, self.path_of(name)).map_err(|e| self.failed("write", name, e))
    }

    /// Begins a file that will be called `name`.
    pub(super) fn create(self: std::sync::Arc<Self>, name: &str) -> Result<LocalUpload> {
        let staged = self.begin(name)?;
        Ok(LocalUpload { store: self, name: name.to_owned(), staged, written: 0, ahead: Ahead::new() })
    }

    /// Writes and syncs `bytes` to a temporary file in the folder of `name`.
    fn stage(&self, name: &str, bytes: &[u8]) -> Result<Staged> {
        let mut staged = self.begin(name)?;
        if let Some(file) = &mut staged.file {
            file.write_all(bytes)
                .and_then(|()| file.sync_all())
                .map_err(|e| self.failed("write", name, e))?;
        }
        Ok(staged)
    }

    fn begin(&self, name: &str) -> Result<Staged> {
        self.check(name)?;
        let path = self.path_of(name);
        let folder = path.parent().unwrap_or(&self.root);
        self.settle(folder).map_err(|e| self.failed("create the folder of", name, e))?;
        let temporary = folder.join(format!("{TEMPORARY_PREFIX}{}", crate::random::identity()?));
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
        let file = Some(file.map_err(|e| self.failed("write", name, e))?);
        Ok(Staged { temporary, file })
    }

    /// Gives the staged file its name for good.
    fn publish(&self, mut staged: Staged, name: &str) -> Put {
        let path = self.path_of(name);
        staged.file = None;
        // Before there is a name, so that a lack of file handles fails cleanly.
        let folder = match Folder::open(path.parent().unwrap_or(&self.root)) {
            Ok(folder) => folder,
            Err(error) => return Put::Failed(self.failed("open the folder of", name, error)),
        };
        let linked = match fs::hard_link(&staged.temporary, &path) {
            Err(error) if no_links(&error) => {
                return Put::Failed(Error::Refused(format!(
                    "{}: this file system has no hard links ({error}), and without them two writers could overwrite \
                     each other's commits; keep the table on another disk or in a bucket",
                    path.display()
                )));
            }
            Err(error) if is_refusal(&error) => return Put::Failed(self.failed("write", name, error)),
            linked => linked,
        };
        // Whatever the answer was: the caller decides by what it reads there, and that must last.
        if let Err(error) = self.sync(&folder) {
            return Put::Unknown(self.poison("sync the folder of", name, error));
        }
        match linked {
            Ok(()) => Put::Landed,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Put::Taken,
            Err(error) => Put::Unknown(self.failed("write", name, error)),
        }
    }

    /// Makes sure that the names found in the folder `name` last.
    pub(super) fn settle_names(&self, name: &str) -> Result<()> {
        match Folder::open(&self.path_of(name)).and_then(|folder| self.sync(&folder)) {
            Err(error) if !is_absent(&error) && !is_forbidden(&error) => {
                Err(self.poison("sync", name, error))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn is_poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    /// Creates `folder` with all that lead to it and syncs their names, once.
    fn settle(&self, folder: &Path) -> io::Result<()> {
        let known =
            |folder: &Path| self.settled.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        if known(folder) {
            return Ok(());
        }
        fs::create_dir_all(folder)?;
        // That a folder is there says nothing: another writer may have created it and not synced its name yet.
        for (child, parent) in folder.ancestors().zip(folder.ancestors().skip(1)) {
            if known(child) {
                break;
            }
            let opened = Folder::open(parent);
            let is_open = opened.is_ok();
            match opened.and_then(|parent| self.sync(&parent)) {
                // Folders above the table may forbid opening them; they are not ours to repair.
                Err(error) if is_forbidden(&error) && !parent.starts_with(&self.root) => {}
                Err(error) => {
                    // A system tells of a failed sync once: a later one may succeed, and the names be lost all the same.
                    if is_open {
                        let cause = Error::store("sync", parent.display().to_string(), error.to_string());
                        let _ = self.poisoned.set(cause.to_string());
                    }
                    return Err(error);
                }
                Ok(()) => {}
            }
        }
        let own = folder.ancestors().take_while(|path| path.starts_with(&self.root)).map(Path::to_path_buf);
        self.settled.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
        Ok(())
    }

    fn sync(&self, folder: &Folder) -> io::Result<()> {
        #[cfg(test)]
        if self.fail_folder_sync.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(io::Error::other("planted failure of fsync"));
        }
        folder.sync()
    }

    fn open(&self, name: &str) -> Result<Option<(File, Metadata)>> {
        self.check(name)?;
        let path = self.path_of(name);
        // To open a pipe would wait for somebody to write into it.
        let opened = match fs::metadata(&path) {
            Ok(meta) if !meta.is_file() => return Ok(None),
            Ok(_) => File::open(&path).and_then(|file| file.metadata().map(|meta| (file, meta))),
            Err(error) => Err(error),
        };
        match opened {
            Ok(opened) => Ok(Some(opened)),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(self.failed("read", name, error)),
        }
    }

    fn walk(&self, prefix: &str, keep: impl Fn(&str) -> bool) -> Result<Vec<Listed>> {
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() {
            self.check(prefix)?;
        }
        let mut found = Vec::new();
        for entry in WalkDir::new(self.path_of(prefix)) {
            let entry = match entry {
                Ok(entry) => entry,
                // Deleted while we walked, or never there.
                Err(error) if error.io_error().is_some_and(is_absent) => continue,
                Err(error) => return Err(self.failed("list", prefix, io::Error::from(error))),
            };
            let Some(name) = self.name_of(entry.path()).filter(|name| keep(name)) else { continue };
            match entry.metadata() {
                Ok(meta) if meta.is_file() => found.push(listed(name, &meta)),
                Ok(_) => {}
                Err(error) if error.io_error().is_some_and(is_absent) => {}
                Err(error) => return Err(self.failed("list", prefix, io::Error::from(error))),
            }
        }
        Ok(found)
    }

    /// The object name of a path; files whose names are no text are not ours.
    fn name_of(&self, path: &Path) -> Option<String> {
        let parts: Option<Vec<&str>> =
            path.strip_prefix(&self.root).ok()?.components().map(|part| part.as_os_str().to_str()).collect();
        parts.map(|parts| parts.join("/"))
    }

    fn check(&self, name: &str) -> Result<()> {
        check_name(name)?;
        if let Some(cause) = self.poisoned.get() {
            let reason = format!(
                "the disk failed to keep an earlier write ({cause}), so nothing read now can be trusted to last; \
                 check the disk, then run again"
            );
            return Err(self.failed("use", name, io::Error::other(reason)));
        }
        Ok(())
    }

    /// The error of a sync that failed, after which every call on this store does.
    fn poison(&self, action: &'static str, name: &str, error: io::Error) -> Error {
        let error = self.failed(action, name, error);
        let _ = self.poisoned.set(error.to_string());
        error
    }

    fn failed(&self, action: &'static str, name: &str, error: io::Error) -> Error {
        Error::store(action, self.path_of(name).display().to_string(), error)
    }
}

/// Fills `bytes` from `offset` on. One call of the system where it can be: small reads cost little else.
fn read_at(file: &mut File, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
    #[cfg(unix)]
    {
        std::os::unix::fs::FileExt::read_exact_at(file, bytes, offset)
    }
    #[cfg(not(unix))]
    {
        io::Seek::seek(file, io::SeekFrom::Start(offset)).and_then(|_| file.read_exact(bytes))
    }
}

/// A folder that can be synced.
struct Folder(#[cfg(unix)] File);

impl Folder {
    #[cfg(unix)]
    fn open(path: &Path) -> io::Result<Self> {
        File::open(path).map(Self)
    }

    #[cfg(unix)]
    fn sync(&self) -> io::Result<()> {
        match self.0.sync_all() {
            // Some network and user-space file systems cannot sync folders; there is nothing more to be had there.
            Err(e) if matches!(e.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => Ok(()),
            other => other,
        }
    }

    #[cfg(not(unix))]
    fn open(_path: &Path) -> io::Result<Self> {
        Ok(Self())
    }

    #[cfg(not(unix))]
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A file on its way to its name.
#[derive(Debug)]
pub(super) struct LocalUpload {
    store: std::sync::Arc<Local>,
    name: String,
    staged: Staged,
    written: u64,
    ahead: Ahead,
}

/// Syncs that are made while a file is still being written, so that the last one has little left to wait for. They change
/// nothing about what is promised: only the last one counts. But one that fails is told of once, and so it ends the upload.
#[derive(Debug)]
struct Ahead {
    /// Bytes to be written from one to the next.
    step: u64,
    /// What was written when the last one began.
    begun: u64,
    running: Option<mpsc::Receiver<io::Result<()>>>,
}

impl Ahead {
    const STEP: u64 = 32 << 20;

    fn new() -> Self {
        Self { step: Self::STEP, begun: 0, running: None }
    }

    /// Begins another one, once enough was written and the one before is done.
    fn look(&mut self, file: &File, written: u64) -> io::Result<()> {
        if written - self.begun < self.step {
            return Ok(());
        }
        match self.running.as_ref().map(mpsc::Receiver::try_recv) {
            Some(Err(mpsc::TryRecvError::Empty)) => return Ok(()),
            Some(Ok(done)) => done?,
            Some(Err(mpsc::TryRecvError::Disconnected)) => return Err(stopped()),
            None => {}
        }
        // Without a handle to spare it is done at the end.
        let Ok(file) = file.try_clone() else { return Ok(()) };
        let (sender, receiver) = mpsc::channel();
        if started(move || drop(sender.send(file.sync_data()))) {
            (self.begun, self.running) = (written, Some(receiver));
        }
        Ok(())
    }

    /// Waits for the one that is under way.
    fn end(&mut self) -> io::Result<()> {
        self.running.take().map_or(Ok(()), |running| running.recv().unwrap_or_else(|_| Err(stopped())))
    }
}

fn stopped() -> io::Error {
    io::Error::other("the program was ending")
}

impl LocalUpload {
    pub(super) fn write(&mut self, chunks: &[Bytes]) -> Result<()> {
        let Some(file) = &mut self.staged.file else {
            return Err(Error::Internal(format!("{} was written to after its end", self.name)));
        };
        for chunk in chunks {
            file.write_all(chunk).map_err(|e| self.store.failed("write", &self.name, e))?;
            self.written += chunk.len() as u64;
        }
        self.ahead.look(file, self.written).map_err(|e| self.store.failed("sync", &self.name, e))
    }

    pub(super) fn finish(self) -> Result<u64> {
        let Self { store, name, staged, written, mut ahead } = self;
        ahead.end().map_err(|e| store.failed("sync", &name, e))?;
        if let Some(file) = &staged.file {
            file.sync_all().map_err(|e| store.failed("sync", &name, e))?;
        }
        match store.publish(staged, &name) {
            Put::Landed => Ok(written),
            Put::Taken => Err(Error::Internal(format!(
                "{} was about to be written twice",
                store.path_of(&name).display()
            ))),
            Put::Failed(error) | Put::Unknown(error) => Err(error),
        }
    }
}

/// The error for an object that ought to be there.
pub(super) fn absent(object: &Path) -> Error {
    Error::store("read", object.display().to_string(), "there is no such object")
}

/// The error for an object beyond its size limit.
pub(super) fn too_large(name: &str, size: u64, max: u64) -> Error {
    Error::corrupt(name, format!("it has {size} bytes, and at most {max} were expected"))
}

/// The length of `range`, if it lies within an object of `size` bytes.
pub(super) fn range_length(name: &str, range: &Range<u64>, size: u64) -> Result<usize> {
    let length = range.end.checked_sub(range.start).and_then(|length| usize::try_from(length).ok());
    match length {
        Some(length) if range.end <= size => Ok(length),
        _ => Err(Error::corrupt(
            name,
            format!("bytes {} to {} were expected, and it has {size}", range.start, range.end),
        )),
    }
}

fn listed(name: String, meta: &Metadata) -> Listed {
    let modified = meta.modified().map(DateTime::<Utc>::from).unwrap_or_default();
    Listed { name, size: meta.len(), modified, etag: None }
}

/// Whether `error` says that nothing is there (a file where a folder was expected included).
fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Whether `error` says that the file system cannot link. (Linux answers `EPERM` there.)
fn no_links(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::PermissionDenied)
}

/// Whether `error` says that a folder may be neither opened nor changed: what is in it is not for us to sync.
fn is_forbidden(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem)
}

/// Whether `error` says that the file system will not make a name, and so never does later either.
fn is_refusal(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::StorageFull
            | ErrorKind::QuotaExceeded
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::TooManyLinks
    )
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// What the system's own answers to a call mean here.
    #[test]
    fn each_answer_of_the_system_has_its_meaning() {
        const EPERM: i32 = 1;
        const ENOENT: i32 = 2;
        const EIO: i32 = 5;
        const EACCES: i32 = 13;
        const EEXIST: i32 = 17;
        const ENOTDIR: i32 = 20;
        const ENOSPC: i32 = 28;
        const EROFS: i32 = 30;
        const EMLINK: i32 = 31;
        const EOPNOTSUPP: i32 = 95;
        const EDQUOT: i32 = 122;
        let all = [EPERM, ENOENT, EIO, EACCES, EEXIST, ENOTDIR, ENOSPC, EROFS, EMLINK, EOPNOTSUPP, EDQUOT];
        let those = |means: fn(&io::Error) -> bool| {
            all.into_iter().filter(|code| means(&io::Error::from_raw_os_error(*code))).collect::<Vec<_>>()
        };
        assert_eq!(those(is_absent), [ENOENT, ENOTDIR]);
        assert_eq!(those(no_links), [EPERM, EACCES, EOPNOTSUPP]);
        assert_eq!(those(is_forbidden), [EPERM, EACCES, EROFS]);
        assert_eq!(those(is_refusal), [ENOSPC, EROFS, EMLINK, EDQUOT]);
    }

    #[test]
    fn an_object_was_modified_when_its_file_was() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().to_path_buf());
        local.put("x", b"1").unwrap();
        let file = fs::metadata(folder.path().join("x")).unwrap().modified().unwrap();
        assert_eq!(local.head("x").unwrap().unwrap().modified, DateTime::<Utc>::from(file));
    }

    #[test]
    fn names_that_cannot_be_synced_poison_the_store_unless_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().to_path_buf());
        local.put("ledger/1", b"1").unwrap();
        local.settle_names("ledger").unwrap();
        local.settle_names("absent").unwrap();
        local.fail_folder_sync.store(true, std::sync::atomic::Ordering::SeqCst);
        local.settle_names("absent").unwrap();
        assert!(!local.is_poisoned());
        let error = local.settle_names("ledger").unwrap_err().to_string();
        assert!(error.contains("sync") && error.contains("planted"), "{error}");
        assert!(local.is_poisoned() && local.get_limited("ledger/1", 9).is_err());
    }

    #[test]
    fn only_a_name_that_is_occupied_is_taken() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().to_path_buf());
        let staged = local.stage("x", b"1").unwrap();
        fs::remove_file(&staged.temporary).unwrap();
        assert!(matches!(local.publish(staged, "x"), Put::Unknown(_)));
        assert!(matches!(local.put_once("x", b"1"), Put::Landed));
        assert!(matches!(local.put_once("x", b"1"), Put::Taken));
    }

    #[test]
    fn what_cannot_be_looked_at_is_no_absence() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().to_path_buf());
        std::os::unix::fs::symlink("loop", folder.path().join("loop")).unwrap();
        assert!(local.get_limited("loop", 9).is_err() && local.head("loop").is_err());
        assert!(local.list("loop", None).is_err());
    }

    #[test]
    fn a_folder_is_no_object_and_is_not_deleted_for_one() {
        let folder = tempfile::tempdir().unwrap();
        let local = Local::new(folder.path().to_path_buf());
        local.put("a/b", b"1").unwrap();
        assert!(local.head("a").unwrap().is_none() && local.get_limited("a", 9).unwrap().is_none());
        assert!(local.delete("a").is_err());
        assert!(local.head("a/b").unwrap().is_some());
    }

    /// Looks again until the sync that is under way has ended.
    fn settle(ahead: &mut Ahead, file: &File, written: u64) -> io::Result<()> {
        while ahead.begun < written {
            ahead.look(file, written)?;
            std::thread::yield_now();
        }
        Ok(())
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn syncs_go_on_beside_writing_and_one_that_failed_is_not_forgotten() {
        let file = tempfile::tempfile().unwrap();
        let mut ahead = Ahead { step: 10, ..Ahead::new() };
        ahead.look(&file, 9).unwrap();
        assert!(ahead.running.is_none());
        settle(&mut ahead, &file, 10).unwrap();
        ahead.end().unwrap();
        // The next not before as much was written again.
        ahead.look(&file, 19).unwrap();
        assert!(ahead.running.is_none());
        settle(&mut ahead, &file, 25).unwrap();
        ahead.end().unwrap();
        // A pipe cannot be synced.
        let (_reader, pipe) = io::pipe().unwrap();
        let pipe = File::from(std::os::fd::OwnedFd::from(pipe));
        let mut ahead = Ahead { step: 10, ..Ahead::new() };
        ahead.look(&pipe, 10).unwrap();
        assert!(ahead.end().is_err());
        let mut ahead = Ahead { step: 10, ..Ahead::new() };
        ahead.look(&pipe, 10).unwrap();
        assert!(settle(&mut ahead, &pipe, 20).is_err());
    }

    #[tokio::test]
    async fn where_there_is_one_thread_nothing_is_synced_before_the_end() {
        let mut ahead = Ahead { step: 10, ..Ahead::new() };
        ahead.look(&tempfile::tempfile().unwrap(), 100).unwrap();
        assert!(ahead.running.is_none());
        ahead.end().unwrap();
    }
}
