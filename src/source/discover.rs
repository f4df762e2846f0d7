//! Finding the inputs: files, folders, patterns and URLs become a list of sources in a stable order.
//!
//! The order is that of the arguments; within a folder or pattern, that of the names' bytes, on a disk as in a
//! bucket. A source that is met twice is taken once, at its first place. Only regular files are sources. What begins
//! with `.` or `_` is skipped in folders and patterns, and so is, with a warning, what has no known suffix and what a
//! symbolic link would bring in from outside; named outright, all of these are taken or refused, never passed over.

use super::{
    input::Input,
    pattern::{Agreement, Pattern, has_wildcards, is_visible, split},
};
use crate::{
    error::{Error, Result},
    store::{Listed, Place, Store, absolute, aside, bare_tag, compute},
};
use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};
use std::{
    collections::{HashMap, HashSet},
    fs::{self, File, Metadata},
    io::ErrorKind,
    path::{Path, PathBuf},
};
use walkdir::WalkDir;

/// What the rows of a source are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// One JSON object a line.
    Ndjson,
}

/// How a source is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// Gzip, of one or more members.
    Gzip,
    /// Zstandard, of one or more frames.
    Zstd,
}

/// How [`discover`] goes about it.
#[derive(Clone, Default)]
pub struct DiscoverOptions {
    /// Take every source for this format, whatever its name says.
    pub format: Option<Format>,
    /// Settings for object stores, as for [`crate::store::Store::open`].
    pub store_options: Vec<(String, String)>,
    /// Follow symbolic links that lead out of a folder.
    pub follow_links: bool,
}

/// One source of rows.
#[derive(Debug, Clone)]
pub struct SourceFile {
    /// Absolute path or URL, without credentials; `-` for standard input.
    pub url: String,
    /// Length in bytes as stored, if known.
    pub size: Option<u64>,
    /// The store's tag of the content, where there is one.
    pub etag: Option<String>,
    /// When it was changed last, as RFC 3339 with nanoseconds.
    pub modified: Option<String>,
    /// What its rows are written in.
    pub format: Format,
    /// How it is compressed.
    pub compression: Compression,
    origin: Origin,
}

#[derive(Debug, Clone)]
enum Origin {
    Disk(PathBuf),
    Bucket(Store, String),
    Stdin,
}

impl std::fmt::Debug for DiscoverOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The values of store options may be secrets.
        let names: Vec<&str> = self.store_options.iter().map(|(name, _)| name.as_str()).collect();
        let Self { format, follow_links, .. } = self;
        write!(f, "DiscoverOptions({format:?}, follow_links: {follow_links}, store options {names:?})")
    }
}

/// Finds all sources that `args` name, in their order, sorted within a folder or pattern.
pub async fn discover(args: &[String], options: &DiscoverOptions) -> Result<Vec<SourceFile>> {
    if args.is_empty() {
        return Err(Error::Usage(
            "no source was given: name files, folders, patterns or URLs, or `-`".into(),
        ));
    }
    let mut stores: HashMap<Place, Store> = HashMap::new();
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for arg in args {
        let sources = if arg == "-" {
            vec![SourceFile::stdin(options.format)?]
        } else {
            match Place::parse(arg)? {
                Place::Local(path) => {
                    let options = options.clone();
                    compute(move || on_disk(&path, &options)).await?
                }
                place => {
                    let store = match stores.get(&place.root()) {
                        Some(store) => store.clone(),
                        None => {
                            let store = place.root().open(&options.store_options)?;
                            stores.insert(place.root(), store.clone());
                            store
                        }
                    };
                    let (key, format) = (place.key().to_owned(), options.format);
                    // Aside, so that later reads can use the same connections from blocking code.
                    aside::run(async move { in_bucket(store, &key, format).await }).await?
                }
            }
        };
        found.extend(sources.into_iter().filter(|source| seen.insert(source.url.clone())));
    }
    Ok(found)
}

impl SourceFile {
    /// The file at `path`, named outright.
    pub fn on_disk(path: &Path, format: Option<Format>) -> Result<Self> {
        let shown = path.display();
        let path = path.canonicalize().map_err(|e| Error::input(shown.to_string(), e))?;
        let meta = path.metadata().map_err(|e| Error::input(shown.to_string(), e))?;
        if !meta.is_file() {
            let reason = "this is no regular file; to read a stream, pipe it in and name `-`";
            return Err(Error::Usage(format!("{shown}: {reason}")));
        }
        let (format, compression) = classify_outright(text_of(&path)?, format)?;
        Self::of_file(path, &meta, format, compression)
    }

    /// The object `name` of `store`, named outright; `None` where there is none.
    pub async fn in_store(store: &Store, name: &str, format: Option<Format>) -> Result<Option<Self>> {
        let Some(listed) = store.head(name).await? else { return Ok(None) };
        let (format, compression) = classify_outright(&store.location_of(name), format)?;
        Ok(Some(Self::of_object(store, listed, format, compression)))
    }

    /// Standard input: NDJSON, compressed or not.
    pub fn stdin(format: Option<Format>) -> Result<Self> {
        if format == Some(Format::Parquet) {
            let reason =
                "Parquet cannot be read from standard input, because it is read from its end; name a file";
            return Err(Error::Usage(reason.into()));
        }
        Ok(Self {
            url: "-".into(),
            size: None,
            etag: None,
            modified: None,
            format: Format::Ndjson,
            compression: Compression::None,
            origin: Origin::Stdin,
        })
    }

    /// Text that stays the same as long as the source does: where it lies, its size, and its tag or else its time.
    /// `None` where that is not known, as for standard input.
    pub fn identity(&self) -> Option<String> {
        let size = self.size?;
        match (&self.etag, &self.modified) {
            (Some(etag), _) => Some(format!("{} size={size} etag={}", self.url, bare_tag(etag))),
            (None, Some(modified)) => Some(format!("{} size={size} modified={modified}", self.url)),
            (None, None) => None,
        }
    }

    /// Opens the source; an error if it is no longer what was found.
    pub fn open(&self) -> Result<Input> {
        match &self.origin {
            Origin::Disk(path) => {
                let failed = |e: std::io::Error| Error::input(&self.url, e);
                // Something else may stand there now, and to open a pipe would wait for somebody to write into it.
                let now = path.symlink_metadata().map_err(failed)?;
                if !now.is_file() {
                    return Err(Error::input(&self.url, "it was changed since it was found; run again"));
                }
                let file = File::open(path).map_err(failed)?;
                let meta = file.metadata().map_err(failed)?;
                if Some(meta.len()) != self.size || modified_of(&meta) != self.modified {
                    return Err(Error::input(&self.url, "it was changed since it was found; run again"));
                }
                Input::disk(&self.url, self.compression, file)
            }
            Origin::Bucket(store, name) => {
                let (size, etag) = (self.size.unwrap_or_default(), self.etag.as_deref());
                Ok(Input::bucket(&self.url, self.compression, store.clone(), name, size, etag))
            }
            Origin::Stdin => Ok(Input::stdin(self.compression)),
        }
    }

    fn of_file(path: PathBuf, meta: &Metadata, format: Format, compression: Compression) -> Result<Self> {
        Ok(Self {
            url: text_of(&path)?.to_owned(),
            size: Some(meta.len()),
            etag: None,
            modified: modified_of(meta),
            format,
            compression,
            origin: Origin::Disk(path),
        })
    }

    fn of_object(store: &Store, listed: Listed, format: Format, compression: Compression) -> Self {
        Self {
            url: store.location_of(&listed.name),
            size: Some(listed.size),
            etag: listed.etag,
            modified: Some(time_text(listed.modified)),
            format,
            compression,
            origin: Origin::Bucket(store.clone(), listed.name),
        }
    }
}

fn on_disk(path: &Path, options: &DiscoverOptions) -> Result<Vec<SourceFile>> {
    let text = text_of(path)?;
    match fs::metadata(path) {
        Ok(meta) if meta.is_dir() => {
            let all =
                walk(path, options, |name| if visible(name) { Agreement::Full } else { Agreement::None })?;
            some(all, text)
        }
        Ok(_) => Ok(vec![SourceFile::on_disk(path, options.format)?]),
        Err(error) if error.kind() == ErrorKind::NotFound && has_wildcards(text) => {
            let (folder, pattern) = split(text);
            let pattern = Pattern::parse(pattern)?;
            let folder = Path::new(if folder.is_empty() { "." } else { folder });
            if !folder.is_dir() {
                return Err(Error::Usage(format!("{text}: there is no folder {}", folder.display())));
            }
            some(walk(folder, options, |name| pattern.agrees(name))?, text)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            Err(Error::Usage(format!("{text}: there is no such file or folder")))
        }
        Err(error) => Err(Error::store("find", text, error)),
    }
}

/// All sources below `folder` whose names (relative to it) fully agree.
fn walk(
    folder: &Path,
    options: &DiscoverOptions,
    agrees: impl Fn(&str) -> Agreement,
) -> Result<Vec<SourceFile>> {
    let failed = |e: std::io::Error| Error::store("list", folder.display().to_string(), e);
    let folder = absolute(folder)?;
    let name_of = |path: &Path| -> Result<String> {
        let parts = path.strip_prefix(&folder).unwrap_or(path).components();
        let parts: Result<Vec<&str>> = parts.map(|part| text_of(part.as_os_str().as_ref())).collect();
        Ok(parts?.join("/"))
    };
    let mut found: Vec<(String, SourceFile)> = Vec::new();
    let mut entries = WalkDir::new(&folder).min_depth(1).follow_links(options.follow_links).into_iter();
    while let Some(entry) = entries.next() {
        let entry = match entry {
            Ok(entry) => entry,
            Err(error) if error.loop_ancestor().is_some() => {
                tracing::warn!("{error}; not followed");
                continue;
            }
            // Deleted while we walked, or a link that leads nowhere.
            Err(error) if error.io_error().is_some_and(|e| e.kind() == ErrorKind::NotFound) => {
                tracing::warn!("{error}; skipped");
                continue;
            }
            Err(error) if error.path().is_some_and(Path::is_symlink) => {
                tracing::warn!("{error}; skipped");
                continue;
            }
            Err(error) => return Err(failed(error.into())),
        };
        let name = name_of(entry.path())?;
        let agreement = agrees(&name);
        if entry.file_type().is_dir() {
            if agreement == Agreement::None {
                entries.skip_current_dir();
            }
            continue;
        }
        if agreement != Agreement::Full {
            continue;
        }
        let Some((format, compression)) = classify_or_warn(&name, entry.path().display(), options.format)
        else {
            continue;
        };
        let Some(path) = regular_within(entry.path(), &folder, options.follow_links) else { continue };
        let meta = path.metadata().map_err(failed)?;
        found.push((name, SourceFile::of_file(path, &meta, format, compression)?));
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found.into_iter().map(|(_, source)| source).collect())
}

/// The real path of a regular file, if it may be taken from `folder`.
fn regular_within(path: &Path, folder: &Path, follow: bool) -> Option<PathBuf> {
    let skip = |why: &str| {
        tracing::warn!("{}: {why}; skipped", path.display());
        None
    };
    let Ok(real) = path.canonicalize() else { return skip("this link leads nowhere") };
    if !follow && !real.starts_with(folder) {
        return skip("this link leads out of its folder (name the file itself to take it)");
    }
    match real.metadata() {
        Ok(meta) if meta.is_file() => Some(real),
        Ok(meta) if meta.is_dir() => skip("this link leads to a folder"),
        _ => skip("this is no regular file"),
    }
}

async fn in_bucket(store: Store, key: &str, format: Option<Format>) -> Result<Vec<SourceFile>> {
    let shown = store.location_of(key);
    let folder = key.trim_end_matches('/');
    let is_folder = folder.is_empty() || key.ends_with('/');
    if !is_folder && let Some(source) = SourceFile::in_store(&store, key, format).await? {
        return Ok(vec![source]);
    }
    let (folder, pattern) = match has_wildcards(key) {
        true => {
            let (folder, pattern) = split(key);
            (folder, Some(Pattern::parse(pattern)?))
        }
        false => (folder, None),
    };
    let mut found = Vec::new();
    for listed in store.list(folder).await? {
        let name = listed.name.strip_prefix(folder).unwrap_or(&listed.name).trim_start_matches('/');
        let taken = match &pattern {
            Some(pattern) => pattern.agrees(name) == Agreement::Full,
            None => visible(name),
        };
        // An empty object that is called like a folder marks one, for tools that want to see it.
        let marker = listed.size == 0 && classify(name, None).is_none();
        if !taken || name.is_empty() || marker {
            continue;
        }
        if let Some((format, compression)) = classify_or_warn(name, store.location_of(&listed.name), format) {
            found.push(SourceFile::of_object(&store, listed, format, compression));
        }
    }
    some(found, &shown)
}

fn visible(name: &str) -> bool {
    name.split('/').all(is_visible)
}

/// `found`, unless it is empty: whoever names something expects it to be there.
fn some(found: Vec<SourceFile>, named: &str) -> Result<Vec<SourceFile>> {
    if found.is_empty() {
        return Err(Error::Usage(format!(
            "{named}: nothing to read was found there (wanted: .parquet, .ndjson, .jsonl, .json, the last three also \
             with .gz or .zst; --format takes any name)"
        )));
    }
    Ok(found)
}

/// What a name says about the bytes; `None` if nothing that can be read.
fn classify(name: &str, format: Option<Format>) -> Option<(Format, Compression)> {
    let lower = name.to_ascii_lowercase();
    let (stem, compression) = match (lower.strip_suffix(".gz"), lower.strip_suffix(".zst")) {
        (Some(stem), _) => (stem, Compression::Gzip),
        (_, Some(stem)) => (stem, Compression::Zstd),
        _ => (lower.as_str(), Compression::None),
    };
    let format = match stem.rsplit_once('.').map(|(_, suffix)| suffix) {
        _ if format.is_some() => format?,
        Some("parquet") => Format::Parquet,
        Some("ndjson" | "jsonl" | "json") => Format::Ndjson,
        _ => return None,
    };
    // Parquet compresses within; as a whole it could not be read from its end.
    (format == Format::Ndjson || compression == Compression::None).then_some((format, compression))
}

fn classify_outright(name: &str, format: Option<Format>) -> Result<(Format, Compression)> {
    classify(name, format).ok_or_else(|| {
        let compressed =
            classify(name, Some(Format::Parquet)).is_none() && name.to_lowercase().contains(".parquet");
        Error::Usage(if compressed || format == Some(Format::Parquet) {
            format!(
                "{name}: a Parquet file that is compressed as a whole cannot be read; decompress it first"
            )
        } else {
            format!("{name}: its name does not tell its format; say --format parquet or --format ndjson")
        })
    })
}

fn classify_or_warn(
    name: &str,
    shown: impl std::fmt::Display,
    format: Option<Format>,
) -> Option<(Format, Compression)> {
    let class = classify(name, format);
    if class.is_none() {
        tracing::warn!(
            "{shown}: its name does not tell a format that can be read; skipped (--format takes any name)"
        );
    }
    class
}

fn text_of(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::Usage(format!(
            "{}: this name is no UTF-8 text and could not be recorded; rename it",
            path.display()
        ))
    })
}

fn modified_of(meta: &Metadata) -> Option<String> {
    meta.modified().ok().map(|time| time_text(time.into()))
}

fn time_text(time: DateTime<Utc>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Nanos, true)
}

/// For the fuzzer: a pattern and a name, whatever they are.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz_pattern(pattern: &str, name: &str) {
    let (_, pattern) = split(pattern);
    if let Ok(pattern) = Pattern::parse(pattern) {
        let _ = pattern.agrees(name);
    }
}
