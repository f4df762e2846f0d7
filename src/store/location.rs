//! What a location given by a user means.
//!
//! What follows a bucket's name is its key, as it stands: `s3://b/a b#1%.parquet` is the object `a b#1%.parquet`, as
//! the clouds' own tools have it. Only `file://` is percent-decoded, because that is what a file URL is. User names,
//! passwords and queries are refused, since they would end up in manifests and messages.

use super::{Inner, Store, connect, local::Local, remote::Remote};
use crate::error::{Error, Result};
use object_store::memory::InMemory;
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

const KNOWN: &str = "a plain path, file://, s3://, gs://, az://, abfss:// or memory:";

/// The clouds that have a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Cloud {
    /// Amazon S3 and everything that speaks its dialect.
    S3,
    /// Google Cloud Storage.
    Gcs,
    /// Azure Blob Storage.
    Azure,
}

/// Where something lies.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// A path on this machine, as given.
    Local(PathBuf),
    /// A key (perhaps a pattern, perhaps a folder) in a bucket.
    Bucket {
        cloud: Cloud,
        /// `s3://bucket`: scheme and authority as given.
        bucket: String,
        key: String,
    },
    /// A key in a store that lives in this process, by name.
    Memory { name: String, key: String },
}

/// The named in-memory stores of this process, so that a test may open one twice.
static MEMORIES: LazyLock<Mutex<HashMap<String, Arc<InMemory>>>> = LazyLock::new(Mutex::default);

impl Place {
    /// Reads a location as a user writes it.
    pub(crate) fn parse(location: &str) -> Result<Self> {
        if location.is_empty() {
            return Err(Error::Usage(format!("an empty location was given; expected {KNOWN}")));
        }
        if let Some(rest) = location.strip_prefix("memory:") {
            let (name, key) = split_key(rest.trim_start_matches('/'));
            return Ok(Self::Memory { name: name.to_owned(), key: sound_key(key, location)? });
        }
        let Some((scheme, rest)) = split_scheme(location) else { return Ok(Self::Local(location.into())) };
        let cloud = match scheme.to_ascii_lowercase().as_str() {
            "file" => return local_of_url(rest, location).map(Self::Local),
            "s3" | "s3a" => Cloud::S3,
            "gs" => Cloud::Gcs,
            "az" | "azure" | "abfs" | "abfss" | "adl" => Cloud::Azure,
            _ => {
                let shown = display_safe(location);
                return Err(Error::Usage(format!(
                    "{shown}: no store has the scheme {scheme}://; expected {KNOWN}"
                )));
            }
        };
        let (authority, key) = split_key(rest);
        // In `abfss://container@account…` the part before the @ is no secret; elsewhere it is a user.
        let user = authority.rsplit_once('@').map(|(user, _)| user);
        if user.is_some_and(|user| cloud != Cloud::Azure || user.contains(':')) {
            return Err(Error::Usage(format!(
                "{}: credentials do not belong into a location; set the cloud's environment variables instead",
                display_safe(location)
            )));
        }
        if authority.is_empty() || authority.contains(['?', '#']) {
            return Err(Error::Usage(format!("{}: this names no bucket", display_safe(location))));
        }
        let key = sound_key(key, location)?;
        Ok(Self::Bucket { cloud, bucket: format!("{}://{authority}", scheme.to_ascii_lowercase()), key })
    }

    /// The key or path within its bucket or disk.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Local(path) => path.to_str().unwrap_or_default(),
            Self::Bucket { key, .. } | Self::Memory { key, .. } => key,
        }
    }

    /// The root that this place lies under: its bucket, or the disk's root.
    pub(crate) fn root(&self) -> Self {
        match self {
            Self::Local(_) => Self::Local("/".into()),
            Self::Bucket { cloud, bucket, .. } => {
                Self::Bucket { cloud: *cloud, bucket: bucket.clone(), key: String::new() }
            }
            Self::Memory { name, .. } => Self::Memory { name: name.clone(), key: String::new() },
        }
    }

    /// A store whose folder is this place.
    pub(crate) fn open(&self, options: &[(String, String)]) -> Result<Store> {
        let inner = match self {
            Self::Local(path) => {
                let root = absolute(path)?;
                if root.exists() && !root.is_dir() {
                    return Err(Error::Usage(format!("{}: this is a file, not a folder", root.display())));
                }
                Inner::Local(Arc::new(Local::new(root)))
            }
            Self::Bucket { cloud, bucket, key } => {
                let (ordinary, once, secrets) = connect::connect(*cloud, bucket, options)?;
                let url = format!("{bucket}/{key}");
                Inner::Remote(Arc::new(Remote::new(ordinary, once, key, &url, secrets)))
            }
            Self::Memory { name, key } => {
                let store = if name.is_empty() {
                    Arc::new(InMemory::new())
                } else {
                    let mut named = MEMORIES.lock().unwrap_or_else(PoisonError::into_inner);
                    Arc::clone(named.entry(name.clone()).or_default())
                };
                Inner::Remote(Arc::new(Remote::plain(store, key, &format!("memory://{name}/{key}"))))
            }
        };
        Ok(Store { inner, alone: false, cache: None })
    }
}

/// `location` as it may be shown: without a user, a password or a query.
pub(crate) fn display_safe(location: &str) -> String {
    match split_scheme(location) {
        Some((scheme, rest)) if scheme.starts_with("abfs") => {
            let (rest, _) = cut_query(rest);
            let (authority, key) = rest.split_once('/').map_or((rest, None), |(a, k)| (a, Some(k)));
            let authority = match authority.rsplit_once('@') {
                Some((user, host)) => format!("{}@{host}", user.split(':').next().unwrap_or_default()),
                None => authority.to_owned(),
            };
            key.map_or(format!("{scheme}://{authority}"), |key| format!("{scheme}://{authority}/{key}"))
        }
        Some((scheme, rest)) => format!("{scheme}://{}", without_user_and_query(rest)),
        None => location.to_owned(),
    }
}

/// An address (without its scheme) without user, password and query.
pub(super) fn without_user_and_query(address: &str) -> String {
    let (address, _) = cut_query(address);
    let end = address.find('/').unwrap_or(address.len());
    let (authority, path) = address.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{host}{path}")
}

/// `path` as an absolute one, symbolic links resolved as far as it exists.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf> {
    let failed = |e| Error::store("find", path.display().to_string(), e);
    let path = std::path::absolute(path).map_err(failed)?;
    for ancestor in path.ancestors() {
        if let (Ok(real), Ok(rest)) = (ancestor.canonicalize(), path.strip_prefix(ancestor)) {
            // `join("")` would end the path with a separator.
            return Ok(if rest.as_os_str().is_empty() { real } else { real.join(rest) });
        }
    }
    Ok(path)
}

fn split_scheme(location: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = location.split_once("://")?;
    let sound = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    sound.then_some((scheme, rest))
}

fn split_key(rest: &str) -> (&str, &str) {
    rest.split_once('/').unwrap_or((rest, ""))
}

fn cut_query(text: &str) -> (&str, Option<&str>) {
    text.split_once('?').map_or((text, None), |(before, query)| (before, Some(query)))
}

/// `key` if every store can hold it and it hides no query. A `?` may still be a wildcard.
fn sound_key(key: &str, location: &str) -> Result<String> {
    let refuse = |reason: &str| Err(Error::Usage(format!("{}: {reason}", display_safe(location))));
    let is_query = |text: &str| {
        let name = text.split('=').next().unwrap_or_default();
        text.contains('=')
            && !name.is_empty()
            && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.%".contains(c))
    };
    if key.split('?').skip(1).any(is_query) {
        return refuse("a location has no query; credentials come from the cloud's environment variables");
    }
    let trimmed = key.strip_suffix('/').unwrap_or(key);
    let bad =
        |part: &str| part.is_empty() || part == "." || part == ".." || part.chars().any(char::is_control);
    if !trimmed.is_empty() && trimmed.split('/').any(bad) {
        return refuse("empty, `.` and `..` parts cannot be addressed in a bucket");
    }
    Ok(key.to_owned())
}

fn local_of_url(rest: &str, location: &str) -> Result<PathBuf> {
    let path = rest.strip_prefix("localhost").filter(|path| path.starts_with('/')).unwrap_or(rest);
    if !path.starts_with('/') {
        let shown = display_safe(location);
        return Err(Error::Usage(format!(
            "{shown}: a file URL has three slashes and an absolute path (file:///…)"
        )));
    }
    let decoded = percent_encoding::percent_decode_str(path).decode_utf8();
    match decoded {
        Ok(decoded) if !decoded.contains('\0') => Ok(PathBuf::from(decoded.as_ref())),
        _ => Err(Error::Usage(format!("{}: this is no path", display_safe(location)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(cloud: Cloud, bucket: &str, key: &str) -> Place {
        Place::Bucket { cloud, bucket: bucket.into(), key: key.into() }
    }

    #[test]
    fn a_location_is_read_as_its_users_write_it() {
        let cases = [
            ("table", Place::Local("table".into())),
            ("/a b/c#1%", Place::Local("/a b/c#1%".into())),
            ("file:///a%20b/c", Place::Local("/a b/c".into())),
            ("file://localhost/a#b", Place::Local("/a#b".into())),
            ("file:///100%", Place::Local("/100%".into())),
            ("s3://b", bucket(Cloud::S3, "s3://b", "")),
            ("S3://b/a b#1%20.parquet", bucket(Cloud::S3, "s3://b", "a b#1%20.parquet")),
            ("gs://b/k/", bucket(Cloud::Gcs, "gs://b", "k/")),
            ("gs://b/part-?.json", bucket(Cloud::Gcs, "gs://b", "part-?.json")),
            ("az://c/k", bucket(Cloud::Azure, "az://c", "k")),
            (
                "abfss://c@acc.dfs.core.windows.net/k",
                bucket(Cloud::Azure, "abfss://c@acc.dfs.core.windows.net", "k"),
            ),
            ("memory://m/k", Place::Memory { name: "m".into(), key: "k".into() }),
            ("memory:", Place::Memory { name: String::new(), key: String::new() }),
        ];
        for (text, place) in cases {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_a_location_is_refused_without_showing_secrets() {
        let cases = [
            ("", "empty location"),
            (
                "ftp://u:planted@h/x?y=planted",
                "no store has the scheme ftp://; expected a plain path, file://, s3://",
            ),
            ("https://h/x?sig=planted", "no store has the scheme https://"),
            ("s3://planted:planted@b/k", "credentials do not belong"),
            ("abfss://c:planted@acc.dfs.core.windows.net/k", "credentials do not belong"),
            ("s3://b/k?X-Amz-Signature=planted", "a location has no query"),
            ("s3:///k", "names no bucket"),
            ("s3://b?x=planted", "names no bucket"),
            ("s3://b/a//k", "cannot be addressed"),
            ("s3://b/a/../k", "cannot be addressed"),
            ("file://host/x", "three slashes"),
        ];
        for (text, reason) in cases {
            let error = Place::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("planted"), "{error}");
        }
    }

    #[test]
    fn a_path_becomes_absolute_even_where_it_does_not_exist_yet() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        assert_eq!(absolute(&dir.path().join("x/y")).unwrap(), real.join("x/y"));
        assert_eq!(absolute(dir.path()).unwrap(), real);
    }

    #[test]
    fn schemes_have_their_other_names_and_what_is_no_scheme_is_a_path() {
        for (text, place) in [
            ("s3a://b/k", bucket(Cloud::S3, "s3a://b", "k")),
            ("azure://c/k", bucket(Cloud::Azure, "azure://c", "k")),
            ("abfs://c/k", bucket(Cloud::Azure, "abfs://c", "k")),
            ("adl://c/k", bucket(Cloud::Azure, "adl://c", "k")),
            ("memory://m", Place::Memory { name: "m".into(), key: String::new() }),
            ("1s3://b", Place::Local("1s3://b".into())),
            ("s 3://b", Place::Local("s 3://b".into())),
            ("://b", Place::Local("://b".into())),
        ] {
            assert_eq!(Place::parse(text).unwrap(), place, "{text}");
        }
        assert!(Place::parse("s3+x-y.z://b").unwrap_err().to_string().contains("scheme s3+x-y.z://"));
    }

    #[test]
    fn a_question_mark_is_a_wildcard_unless_a_query_follows() {
        for key in ["a=b?c", "?=x", "a?b c=d", "day=?/part-?.json", "a?b"] {
            assert_eq!(Place::parse(&format!("s3://b/{key}")).unwrap(), bucket(Cloud::S3, "s3://b", key));
        }
        for key in ["a?b=c", "a?X-Amz.Sig_1%20=c", "?a=b", "a?b?c=d"] {
            let error = Place::parse(&format!("s3://b/{key}")).unwrap_err().to_string();
            assert!(error.contains("no query"), "{key}: {error}");
        }
    }

    #[test]
    fn keys_that_no_bucket_can_hold_are_refused() {
        for text in ["s3://b/.", "s3://b/a/./k", "s3://b/..", "s3://b/a\tb", "s3://b/a//", "memory:m/a//b"] {
            let error = Place::parse(text).unwrap_err().to_string();
            assert!(error.contains("cannot be addressed"), "{text}: {error}");
        }
        assert!(Place::parse("s3://#x").unwrap_err().to_string().contains("names no bucket"));
        for text in ["file:///a%00b", "file:///%ff"] {
            assert!(Place::parse(text).unwrap_err().to_string().contains("this is no path"), "{text}");
        }
        assert!(Place::parse("file://localhostx/y").unwrap_err().to_string().contains("three slashes"));
    }

    #[test]
    fn a_place_knows_its_key_and_its_root() {
        for (text, key, root) in
            [("a/b", "a/b", "/"), ("s3://b/a/k", "a/k", "s3://b"), ("memory://m/a/k", "a/k", "memory://m")]
        {
            let place = Place::parse(text).unwrap();
            assert_eq!(place.key(), key);
            assert_eq!(place.root(), Place::parse(root).unwrap());
        }
    }

    #[test]
    fn what_is_shown_has_no_user_no_password_and_no_query() {
        for (text, shown) in [
            ("abfss://c:planted@acc/k/x?sig=planted", "abfss://c@acc/k/x"),
            ("abfss://c@acc", "abfss://c@acc"),
            ("abfss://acc/k", "abfss://acc/k"),
            ("https://planted:planted@h/x@y?planted", "https://h/x@y"),
            ("https://planted@h", "https://h"),
            ("plain?x@y", "plain?x@y"),
        ] {
            assert_eq!(display_safe(text), shown);
        }
    }
}
