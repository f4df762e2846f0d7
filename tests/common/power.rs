//! A model of a disk that forgets: what may be left of a folder after a power cut, worked out from the system calls
//! that were made to it.
//!
//! Bytes last once their file was synced, names once the folder they stand in was synced, and a folder with all that is
//! in it once its own name lasts. Everything else may have reached the disk or not, each change for itself, bytes by
//! the sector, and a file may have its new length with nothing in it. A sync that failed has kept nothing, and a later
//! one does not make up for it. That is less than any file system in use gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::disk::{Call, Dice};

/// What is written at once, or not.
const SECTOR: usize = 512;

/// What becomes of the changes that were not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Luck {
    /// None of them happened.
    None,
    /// All of them happened.
    All,
    /// Names are as they were last, bytes as they were last synced: the new file is there and empty.
    NamesOnly,
    /// Names are as they were last, and files as long, with zeros for what was not synced.
    NamesAndLengths,
    /// Each for itself, by the seed.
    Some(u64),
}

/// A folder's content after a cut: files by their path below the root; folders have no bytes.
pub type Left = BTreeMap<PathBuf, Option<Vec<u8>>>;

#[derive(Debug, Clone, Default)]
struct File {
    lasting: Vec<u8>,
    now: Vec<u8>,
    /// Offset and bytes of what was written since the last sync.
    written: Vec<(usize, Vec<u8>)>,
    doomed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder(usize),
}

/// Names that come and go together.
type Change = Vec<(String, Option<Node>)>;

#[derive(Debug, Clone, Default)]
struct Folder {
    lasting: BTreeMap<String, Node>,
    now: BTreeMap<String, Node>,
    changes: Vec<Change>,
    doomed: bool,
}

/// The disk below one folder, which itself lasts.
#[derive(Debug, Clone)]
pub struct Disk {
    root: PathBuf,
    files: Vec<File>,
    folders: Vec<Folder>,
}

impl Disk {
    /// The disk below `root`, with what is there now, all of it lasting.
    pub fn of(root: &Path) -> Self {
        let mut disk = Self { root: root.to_path_buf(), files: Vec::new(), folders: vec![Folder::default()] };
        if root.exists() {
            disk.take(root, 0);
        }
        disk
    }

    fn take(&mut self, path: &Path, folder: usize) {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            let node = if entry.file_type().unwrap().is_dir() {
                self.folders.push(Folder::default());
                let new = self.folders.len() - 1;
                self.take(&entry.path(), new);
                Node::Folder(new)
            } else {
                let now = std::fs::read(entry.path()).unwrap();
                self.files.push(File { lasting: now.clone(), now, ..File::default() });
                Node::File(self.files.len() - 1)
            };
            self.folders[folder].lasting.insert(name.clone(), node);
            self.folders[folder].now.insert(name, node);
        }
    }

    /// Does what the call did.
    pub fn apply(&mut self, call: &Call) {
        // A call that was reported as failed counts if its effect is in the trace all the same.
        let done = call.result >= 0 && !matches!(call.fault.as_str(), "kill-before" | "stop-before");
        match call.kind.as_str() {
            "sync" | "syncdir" if done && call.fault != "lie" => self.sync(&call.path),
            "sync" | "syncdir" if call.result < 0 || call.fault == "lie" => self.doom(&call.path),
            _ if !done => {}
            "mkdir" => {
                self.folders.push(Folder::default());
                let node = Node::Folder(self.folders.len() - 1);
                self.change(&[(&call.path, Some(node))]);
            }
            "create" if self.find(&call.path).is_none() => {
                self.files.push(File::default());
                let node = Node::File(self.files.len() - 1);
                self.change(&[(&call.path, Some(node))]);
            }
            "write" => self.write(&call.path, usize::try_from(call.offset).unwrap(), &call.data),
            "truncate" => panic!("the model knows no truncation: {call:?}"),
            "link" => {
                let node = self.find(&call.path);
                self.change(&[(&call.other, node)]);
            }
            "rename" => {
                let node = self.find(&call.path);
                self.change(&[(&call.path, None), (&call.other, node)]);
            }
            "unlink" | "rmdir" => self.change(&[(&call.path, None)]),
            _ => {}
        }
    }

    /// What is left after a cut now.
    pub fn cut(&self, luck: Luck) -> Left {
        let seed = if let Luck::Some(seed) = luck { seed } else { 0 };
        let mut left = Left::new();
        self.leave(0, Path::new(""), luck, &mut Dice::new(seed), &mut left);
        left
    }

    fn leave(&self, folder: usize, path: &Path, luck: Luck, dice: &mut Dice, left: &mut Left) {
        let folder = &self.folders[folder];
        let mut names = folder.lasting.clone();
        for change in &folder.changes {
            let happened = match luck {
                Luck::None => false,
                Luck::Some(_) => dice.throw(2) == 0,
                _ => true,
            };
            for (name, node) in change.iter().filter(|_| happened) {
                match node {
                    Some(node) => names.insert(name.clone(), *node),
                    None => names.remove(name),
                };
            }
        }
        for (name, node) in names {
            let path = path.join(name);
            match node {
                Node::Folder(folder) => {
                    left.insert(path.clone(), None);
                    self.leave(folder, &path, luck, dice, left);
                }
                Node::File(file) => {
                    left.insert(path, Some(self.files[file].left(luck, dice)));
                }
            }
        }
    }

    fn parts<'a>(&self, path: &'a Path) -> Option<Vec<&'a str>> {
        path.strip_prefix(&self.root).ok()?.components().map(|part| part.as_os_str().to_str()).collect()
    }

    fn find(&self, path: &Path) -> Option<Node> {
        let mut node = Node::Folder(0);
        for part in self.parts(path)? {
            let Node::Folder(folder) = node else { return None };
            node = *self.folders[folder].now.get(part)?;
        }
        Some(node)
    }

    fn change(&mut self, names: &[(&Path, Option<Node>)]) {
        let mut by_folder = BTreeMap::<usize, Change>::new();
        for (path, node) in names {
            let (Some(Node::Folder(folder)), Some(name)) =
                (path.parent().and_then(|parent| self.find(parent)), path.file_name())
            else {
                panic!("{} has no folder", path.display())
            };
            by_folder.entry(folder).or_default().push((name.to_str().unwrap().to_owned(), *node));
        }
        for (folder, change) in by_folder {
            let folder = &mut self.folders[folder];
            for (name, node) in &change {
                match node {
                    Some(node) => folder.now.insert(name.clone(), *node),
                    None => folder.now.remove(name),
                };
            }
            folder.changes.push(change);
        }
    }

    fn write(&mut self, path: &Path, offset: usize, bytes: &[u8]) {
        let Some(Node::File(file)) = self.find(path) else { panic!("{} is no file", path.display()) };
        let file = &mut self.files[file];
        overwrite(&mut file.now, offset, bytes);
        file.written.push((offset, bytes.to_vec()));
    }

    fn sync(&mut self, path: &Path) {
        match self.find(path) {
            Some(Node::File(file)) if !self.files[file].doomed => {
                let file = &mut self.files[file];
                file.lasting.clone_from(&file.now);
                file.written.clear();
            }
            Some(Node::Folder(folder)) if !self.folders[folder].doomed => {
                let folder = &mut self.folders[folder];
                folder.lasting.clone_from(&folder.now);
                folder.changes.clear();
            }
            _ => {}
        }
    }

    fn doom(&mut self, path: &Path) {
        match self.find(path) {
            Some(Node::File(file)) => self.files[file].doomed = true,
            Some(Node::Folder(folder)) => self.folders[folder].doomed = true,
            None => {}
        }
    }
}

impl File {
    fn left(&self, luck: Luck, dice: &mut Dice) -> Vec<u8> {
        let mut bytes = self.lasting.clone();
        match luck {
            Luck::None | Luck::NamesOnly => {}
            Luck::All => bytes.clone_from(&self.now),
            Luck::NamesAndLengths => bytes.resize(self.now.len().max(bytes.len()), 0),
            Luck::Some(_) => {
                for (offset, written) in &self.written {
                    for (number, sector) in written.chunks(SECTOR).enumerate() {
                        if dice.throw(2) == 0 {
                            overwrite(&mut bytes, offset + number * SECTOR, sector);
                        }
                    }
                }
            }
        }
        bytes
    }
}

fn overwrite(bytes: &mut Vec<u8>, offset: usize, with: &[u8]) {
    let end = offset + with.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(with);
}

/// Makes `left` real in the empty folder `root`.
pub fn restore(left: &Left, root: &Path) {
    for (path, bytes) in left {
        match bytes {
            None => std::fs::create_dir(root.join(path)).unwrap(),
            Some(bytes) => std::fs::write(root.join(path), bytes).unwrap(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(kind: &str, path: &str, other: &str, data: &[u8]) -> Call {
        Call {
            run: String::new(),
            process: 1,
            kind: kind.into(),
            result: data.len() as i64,
            fault: String::new(),
            offset: 0,
            data: data.to_vec(),
            path: Path::new("/d").join(path),
            other: Path::new("/d").join(other),
        }
    }

    fn left(disk: &Disk, luck: Luck) -> Vec<(String, String)> {
        let text =
            |bytes: Option<Vec<u8>>| bytes.map_or("/".into(), |bytes| String::from_utf8(bytes).unwrap());
        let left = disk.cut(luck);
        left.into_iter().map(|(path, bytes)| (path.to_str().unwrap().to_owned(), text(bytes))).collect()
    }

    #[test]
    fn nothing_lasts_that_was_not_synced() {
        let mut disk = Disk::of(Path::new("/d"));
        for (kind, path, other, data) in [
            ("mkdir", "f", "", ""),
            ("create", "f/a", "", ""),
            ("write", "f/a", "", "text"),
            ("link", "f/a", "f/b", ""),
        ] {
            disk.apply(&call(kind, path, other, data.as_bytes()));
        }
        let is = |disk: &Disk, luck, wanted: &[(&str, &str)]| {
            let wanted: Vec<_> = wanted.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
            assert_eq!(left(disk, luck), wanted);
        };
        is(&disk, Luck::None, &[]);
        is(&disk, Luck::All, &[("f", "/"), ("f/a", "text"), ("f/b", "text")]);
        is(&disk, Luck::NamesOnly, &[("f", "/"), ("f/a", ""), ("f/b", "")]);
        is(&disk, Luck::NamesAndLengths, &[("f", "/"), ("f/a", "\0\0\0\0"), ("f/b", "\0\0\0\0")]);
        disk.apply(&call("syncdir", "f", "", b""));
        is(&disk, Luck::None, &[]);
        disk.apply(&call("syncdir", "", "", b""));
        is(&disk, Luck::None, &[("f", "/"), ("f/a", ""), ("f/b", "")]);
        disk.apply(&call("sync", "f/b", "", b""));
        is(&disk, Luck::None, &[("f", "/"), ("f/a", "text"), ("f/b", "text")]);
        disk.apply(&call("unlink", "f/a", "", b""));
        is(&disk, Luck::None, &[("f", "/"), ("f/a", "text"), ("f/b", "text")]);
        is(&disk, Luck::All, &[("f", "/"), ("f/b", "text")]);
    }

    #[test]
    fn a_sync_that_failed_has_kept_nothing_for_good() {
        let mut disk = Disk::of(Path::new("/d"));
        disk.apply(&call("create", "a", "", b""));
        disk.apply(&Call { result: -5, ..call("syncdir", "", "", b"") });
        disk.apply(&call("syncdir", "", "", b""));
        assert_eq!(left(&disk, Luck::None), []);
    }
}
