//! Finding and opening sources, on disk and in a bucket.

use super::{discover::*, input::Input};
use crate::{
    error::{Error, Result},
    store::loopback::{ACCESS_KEY, Loopback, Mood, SECRET},
};
use parquet::file::reader::{ChunkReader, Length};
use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};
use tempfile::TempDir;

fn folder() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let real = dir.path().canonicalize().unwrap().join("in");
    fs::create_dir(&real).unwrap();
    (dir, real)
}

fn write(folder: &Path, names: &[&str]) {
    for name in names {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, name).unwrap();
    }
}

fn find_with(args: &[&str], options: &DiscoverOptions) -> Result<Vec<SourceFile>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    runtime.block_on(discover(&args, options))
}

fn find(args: &[&str]) -> Result<Vec<SourceFile>> {
    find_with(args, &DiscoverOptions::default())
}

/// The names found, relative to `folder`.
fn found(folder: &Path, args: &[&str]) -> Vec<String> {
    let sources = find(args).unwrap();
    let relative = |source: &SourceFile| {
        Path::new(&source.url).strip_prefix(folder).unwrap().to_str().unwrap().to_owned()
    };
    sources.iter().map(relative).collect()
}

fn text(input: &Input) -> std::io::Result<String> {
    let mut text = String::new();
    input.reader().map_err(std::io::Error::other)?.read_to_string(&mut text)?;
    Ok(text)
}

fn refusal(result: Result<Vec<SourceFile>>) -> String {
    match result {
        Err(Error::Usage(reason)) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_folder_is_read_whole_in_the_order_of_its_names_without_what_is_hidden() {
    let (_dir, folder) = folder();
    write(&folder, &["b.json", "a/z.parquet", "a-b/x.jsonl.gz", "a.ndjson.zst", "Z.JSON", "ü/#1 50%.json"]);
    write(
        &folder,
        &[".hidden.json", "_SUCCESS", "_tmp/x.json", "a/.x.parquet.crc", "a/_meta.json", "readme.txt"],
    );
    let names = ["Z.JSON", "a-b/x.jsonl.gz", "a.ndjson.zst", "a/z.parquet", "b.json", "ü/#1 50%.json"];
    assert_eq!(found(&folder, &[folder.to_str().unwrap()]), names);
    let slash = format!("{}/", folder.display());
    assert_eq!(found(&folder, &[&slash]), names);
    assert_eq!(found(&folder, &[&format!("file://{}", folder.display())]), names);
    let kinds: Vec<(Format, Compression)> =
        find(&[&slash]).unwrap().iter().map(|source| (source.format, source.compression)).collect();
    use {Compression as C, Format as F};
    let expected = [
        (F::Ndjson, C::None),
        (F::Ndjson, C::Gzip),
        (F::Ndjson, C::Zstd),
        (F::Parquet, C::None),
        (F::Ndjson, C::None),
        (F::Ndjson, C::None),
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn arguments_keep_their_order_and_nothing_is_taken_twice() {
    let (_dir, folder) = folder();
    write(&folder, &["a.json", "b.json", "c/d.json"]);
    std::os::unix::fs::symlink("b.json", folder.join("link.json")).unwrap();
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let args = [at("c"), at("b.json"), at("c/../b.json"), at("link.json"), at("*.json"), at("")];
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    assert_eq!(found(&folder, &args), ["c/d.json", "b.json", "a.json"]);
}

#[test]
fn patterns_mean_the_same_as_in_a_shell() {
    let (_dir, folder) = folder();
    let names =
        ["d=1/a.json", "d=1/_x.json", "d=2/a.json", "d=2/b/c.json", "e/[1].json", "e/1.json", "top.json"];
    write(&folder, &names);
    let pattern = |pattern: &str| found(&folder, &[folder.join(pattern).to_str().unwrap()]);
    assert_eq!(pattern("*.json"), ["top.json"]);
    assert_eq!(pattern("d=*/*.json"), ["d=1/a.json", "d=2/a.json"]);
    assert_eq!(pattern("d=*"), ["d=1/a.json", "d=2/a.json", "d=2/b/c.json"]);
    assert_eq!(pattern("d=?/**/c.json"), ["d=2/b/c.json"]);
    assert_eq!(pattern("d=1/_*.json"), ["d=1/_x.json"]);
    // A file of that very name goes before the pattern.
    assert_eq!(pattern("e/[1].json"), ["e/[1].json"]);
    assert_eq!(pattern("**/1.json"), ["e/1.json"]);
}

#[test]
fn what_is_named_outright_is_taken_or_refused_never_skipped() {
    let (_dir, folder) = folder();
    write(&folder, &[".a.json", "_b.json", "data.txt", "x.parquet.gz", "x.parquet"]);
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    assert_eq!(found(&folder, &[&at(".a.json"), &at("_b.json")]), [".a.json", "_b.json"]);
    assert!(refusal(find(&[&at("data.txt")])).contains("--format parquet or --format ndjson"));
    assert!(refusal(find(&[&at("x.parquet.gz")])).contains("decompress it first"));
    assert!(refusal(find(&[&at("absent.json")])).contains("no such file"));
    assert!(refusal(find(&[&at("absent/*.json")])).contains("there is no folder"));
    assert!(refusal(find(&[&at("*.avro")])).contains("nothing to read was found"));
    assert!(refusal(find(&[&at("x.parquet"), ""])).contains("empty location"));
    assert!(refusal(find(&[])).contains("no source was given"));
    let forced = DiscoverOptions { format: Some(Format::Ndjson), ..DiscoverOptions::default() };
    let sources = find_with(&[&at("data.txt"), &at("*.parquet")], &forced).unwrap();
    assert!(sources.iter().all(|source| source.format == Format::Ndjson));
    assert_eq!(sources.len(), 2);
}

#[test]
fn only_regular_files_are_sources() {
    let (_dir, folder) = folder();
    write(&folder, &["a.json"]);
    let fifo = folder.join("fifo.json");
    assert!(std::process::Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(folder.join("socket.json")).unwrap();
    assert_eq!(found(&folder, &[folder.to_str().unwrap()]), ["a.json"]);
    assert!(refusal(find(&[fifo.to_str().unwrap()])).contains("no regular file"));
    assert!(refusal(find(&["/dev/null"])).contains("no regular file"));
}

#[test]
fn links_are_followed_within_a_folder_and_not_out_of_it() {
    use std::os::unix::fs::symlink;
    let (dir, folder) = folder();
    let outside = dir.path().canonicalize().unwrap().join("outside");
    write(&outside, &["secret.json"]);
    write(&folder, &["..data/k.json", "a.json"]);
    symlink("..data/k.json", folder.join("k.json")).unwrap();
    symlink(outside.join("secret.json"), folder.join("out.json")).unwrap();
    symlink(&outside, folder.join("out")).unwrap();
    symlink(".", folder.join("loop")).unwrap();
    symlink("nowhere", folder.join("broken.json")).unwrap();
    let argument = folder.to_str().unwrap();
    assert_eq!(found(&folder, &[argument]), ["a.json", "..data/k.json"]);
    let follow = DiscoverOptions { follow_links: true, ..DiscoverOptions::default() };
    let urls: Vec<String> =
        find_with(&[argument], &follow).unwrap().into_iter().map(|source| source.url).collect();
    assert_eq!(urls.len(), 3, "{urls:?}");
    assert!(urls.iter().any(|url| url.ends_with("outside/secret.json")));
    // Named outright, a link is what it leads to.
    let outright = find(&[folder.join("out.json").to_str().unwrap()]).unwrap();
    assert!(outright[0].url.ends_with("outside/secret.json"));
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_no_text_are_refused_rather_than_skipped() {
    use std::os::unix::ffi::OsStrExt;
    let (_dir, folder) = folder();
    fs::write(folder.join(std::ffi::OsStr::from_bytes(b"\xff.json")), "").unwrap();
    assert!(refusal(find(&[folder.to_str().unwrap()])).contains("no UTF-8"));
}

#[test]
fn the_identity_follows_place_size_and_time() {
    let (_dir, folder) = folder();
    write(&folder, &["a.json"]);
    let path = folder.join("a.json");
    let identity = || find(&[path.to_str().unwrap()]).unwrap()[0].identity().unwrap();
    let first = identity();
    assert_eq!(identity(), first);
    assert!(first.starts_with(&format!("{} size=6 modified=20", path.display())), "{first}");
    let file = fs::File::options().append(true).open(&path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_nanos(1_700_000_000_123_456_789))
        .unwrap();
    assert_eq!(identity(), format!("{} size=6 modified=2023-11-14T22:13:20.123456789Z", path.display()));
    assert_eq!(find(&["-"]).unwrap()[0].identity(), None);
}

#[test]
fn standard_input_is_ndjson_once() {
    let sources = find(&["-", "-"]).unwrap();
    assert_eq!((sources.len(), sources[0].url.as_str(), sources[0].format), (1, "-", Format::Ndjson));
    let forced = DiscoverOptions { format: Some(Format::Parquet), ..DiscoverOptions::default() };
    assert!(refusal(find_with(&["-"], &forced)).contains("cannot be read from standard input"));
    let input = sources[0].open().unwrap();
    assert!(input.get_bytes(0, 1).is_err());
}

#[test]
fn a_local_input_reads_in_order_and_at_any_place() {
    let (_dir, folder) = folder();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 249) as u8).collect();
    fs::write(folder.join("a.json"), &bytes).unwrap();
    let input = find(&[folder.to_str().unwrap()]).unwrap()[0].open().unwrap();
    assert_eq!(input.len(), bytes.len() as u64);
    reads_like(&input, &bytes);
    input.unchanged().unwrap();
    assert!(!format!("{input:?}").is_empty());
}

fn reads_like(input: &Input, bytes: &[u8]) {
    let mut all = Vec::new();
    input.reader().unwrap().read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    for (start, length) in [(0, 4), (8, 100_000), (2_000_000, 1_000_000), (2_999_992, 8), (17, 0)] {
        assert!(input.get_bytes(start as u64, length).unwrap() == bytes[start..start + length]);
        let mut some = vec![0; length];
        input.get_read(start as u64).unwrap().read_exact(&mut some).unwrap();
        assert!(some == bytes[start..start + length]);
    }
    let mut tail = Vec::new();
    input.get_read(1_000_001).unwrap().read_to_end(&mut tail).unwrap();
    assert!(tail == bytes[1_000_001..]);
    assert!(input.get_bytes(bytes.len() as u64, 1).is_err());
    assert!(input.get_bytes(u64::MAX, 1).is_err());
    assert!(input.get_bytes(0, usize::MAX).is_err());
    assert!(input.get_read(bytes.len() as u64 + 1).is_err());
}

#[test]
fn a_file_that_changes_is_noticed() {
    let (_dir, folder) = folder();
    write(&folder, &["a.json"]);
    let source = find(&[folder.to_str().unwrap()]).unwrap().remove(0);
    let input = source.open().unwrap();
    let mut file = fs::File::options().append(true).open(folder.join("a.json")).unwrap();
    file.write_all(b"more").unwrap();
    // What was found is what is read, and the change is an error.
    assert_eq!(text(&input).unwrap(), "a.json");
    assert!(input.unchanged().unwrap_err().to_string().contains("changed while it was being read"));
    assert!(source.open().unwrap_err().to_string().contains("changed since it was found"));
    file.set_len(2).unwrap();
    assert!(text(&input).unwrap_err().to_string().contains("changed while it was being read"));
}

#[test]
fn compressed_sources_are_decompressed_and_cut_ones_named() {
    let (_dir, folder) = folder();
    let mut gzip = Vec::new();
    for text in ["{}\n", "[]\n"] {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        gzip.extend(encoder.finish().unwrap());
    }
    fs::write(folder.join("a.json.gz"), &gzip).unwrap();
    fs::write(folder.join("b.json.gz"), &gzip[..gzip.len() - 2]).unwrap();
    fs::write(folder.join("c.json.zst"), zstd::encode_all(&b"{}\n"[..], 1).unwrap()).unwrap();
    let inputs: Vec<Input> =
        find(&[folder.to_str().unwrap()]).unwrap().iter().map(|source| source.open().unwrap()).collect();
    assert_eq!(text(&inputs[0]).unwrap(), "{}\n[]\n");
    let error = text(&inputs[1]).unwrap_err().to_string();
    assert!(error.contains("b.json.gz: the gzip stream ends early"), "{error}");
    assert_eq!(text(&inputs[2]).unwrap(), "{}\n");
}

fn bucket(server: &Loopback) -> DiscoverOptions {
    DiscoverOptions { store_options: server.options(), ..DiscoverOptions::default() }
}

#[test]
fn a_bucket_is_searched_like_a_disk() {
    let server = Loopback::start();
    let names =
        ["p/a.json", "p/d=1 #/50%.json", "p/d=1 #/_x.json", "p/d=2/ü+.json.gz", "p/.h/a.json", "pp/a.json"];
    for name in names.iter().chain(&["p/readme.txt", "p/d=1 #"]) {
        server.plant(&format!("bucket/{name}"), if *name == "p/d=1 #" { b"" } else { b"{}" });
    }
    let found = |args: &[&str]| -> Vec<String> {
        let sources = find_with(args, &bucket(&server)).unwrap();
        sources
            .into_iter()
            .map(|source| source.url.strip_prefix("s3://bucket/").unwrap().to_owned())
            .collect()
    };
    let all = ["p/a.json", "p/d=1 #/50%.json", "p/d=2/ü+.json.gz"];
    assert_eq!(found(&["s3://bucket/p"]), all);
    assert_eq!(found(&["s3://bucket/p/"]), all);
    assert_eq!(found(&["s3://bucket"]), [&all[..], &["pp/a.json"]].concat());
    assert_eq!(
        found(&["s3://bucket/p/d=2/ü+.json.gz", "s3://bucket/p/*"]),
        ["p/d=2/ü+.json.gz", all[0], all[1]]
    );
    assert_eq!(found(&["s3://bucket/p*/a.json"]), ["p/a.json", "pp/a.json"]);
    assert_eq!(
        found(&["s3://bucket/**/_x.json"]),
        Vec::<String>::new().into_iter().chain(["p/d=1 #/_x.json".into()]).collect::<Vec<_>>()
    );
}

#[test]
fn an_object_reads_in_order_and_at_any_place_from_any_thread() {
    let server = Loopback::start();
    let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 249) as u8).collect();
    server.plant("bucket/a.json", &bytes);
    let source = find_with(&["s3://bucket/a.json"], &bucket(&server)).unwrap().remove(0);
    assert_eq!(source.size, Some(3_000_000));
    let input = source.open().unwrap();
    reads_like(&input, &bytes);
    // In place, on a runtime that has only this thread.
    let single = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    single.block_on(async { reads_like(&source.open().unwrap(), &bytes) });
    input.unchanged().unwrap();
    let before = server.requests();
    let fresh = source.open().unwrap();
    for step in 0..1000 {
        fresh.get_bytes(step * 100, 100).unwrap();
    }
    assert_eq!(server.requests() - before, 1, "small steps share a window");
}

#[test]
fn an_object_that_changes_is_noticed() {
    let server = Loopback::start();
    server.plant("bucket/a.json", &[b'x'; 9_000_000]);
    let source = find_with(&["s3://bucket/a.json"], &bucket(&server)).unwrap().remove(0);
    let input = source.open().unwrap();
    let mut reader = input.reader().unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    server.plant("bucket/a.json", &[b'y'; 9_000_000]);
    let error = reader.read_to_end(&mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("changed while it was being read"), "{error}");
    assert!(input.unchanged().is_err());
    assert!(input.get_bytes(0, 1).is_err());
}

#[test]
fn what_is_wrong_with_a_bucket_is_told_without_secrets() {
    let server = Loopback::start();
    let options = bucket(&server);
    server.set(Mood::Forbid);
    let error = find_with(&["s3://bucket/x"], &options).unwrap_err();
    server.set(Mood::NoBucket);
    let missing = find_with(&["s3://bucket/x"], &options).unwrap_err().to_string();
    assert!(missing.contains("The bucket does not exist"), "{missing}");
    server.set(Mood::Honest);
    let absent = refusal(find_with(&["s3://bucket/x"], &options));
    assert!(absent.starts_with("s3://bucket/x: nothing to read"), "{absent}");
    let query = refusal(find_with(&["s3://bucket/x.json?X-Amz-Signature=PLANTED"], &options));
    server.plant("bucket/a.json", b"{}");
    let source = find_with(&["s3://bucket/a.json"], &options).unwrap().remove(0);
    let shown = format!(
        "{error} {error:?} {query} {options:?} {source:?} {:?} {:?}",
        source.open(),
        source.identity()
    );
    for secret in [SECRET, ACCESS_KEY, "PLANTED"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}
