//! What a folder of sources may hold, and what of it is read: regular files that lie in it, and nothing else.

use crate::scene::{Scene, lines};
use dedupe::source::discover::{DiscoverOptions, discover};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// What is found, or the error. A file that is waited for would never end: such a test fails after a while.
fn found(args: &[String], follow_links: bool) -> Result<Vec<String>, String> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let options = DiscoverOptions { follow_links, ..DiscoverOptions::default() };
    let args = args.to_vec();
    let found = runtime.block_on(async move {
        tokio::time::timeout(Duration::from_secs(60), discover(&args, &options)).await
    });
    runtime.shutdown_background();
    match found.expect("it waits for ever") {
        Ok(sources) => Ok(sources.into_iter().map(|source| source.url).collect()),
        Err(error) => Err(error.to_string()),
    }
}

/// A folder with one honest file, and a secret outside of it.
fn scene() -> (Scene, String) {
    let scene = Scene::new();
    fs::create_dir_all(scene.path("in/deep")).unwrap();
    fs::create_dir_all(scene.path("out")).unwrap();
    scene.write("in/honest.ndjson", &lines(["a"]));
    scene.write("out/secret.ndjson", &lines(["s"]));
    let folder = scene.path("in").to_str().unwrap().to_owned();
    (scene, folder)
}

fn names(urls: &[String]) -> Vec<&str> {
    urls.iter().map(|url| url.rsplit('/').next().unwrap()).collect()
}

#[test]
fn links_out_of_a_named_folder_are_not_followed_and_links_within_are() {
    let (scene, folder) = scene();
    symlink(scene.path("out/secret.ndjson"), scene.path("in/a.ndjson")).unwrap();
    symlink("../out/secret.ndjson", scene.path("in/b.ndjson")).unwrap();
    symlink(scene.path("out"), scene.path("in/c")).unwrap();
    symlink("../../out/secret.ndjson", scene.path("in/deep/d.ndjson")).unwrap();
    symlink("/etc/passwd", scene.path("in/e.ndjson")).unwrap();
    symlink("/proc/self/environ", scene.path("in/f.ndjson")).unwrap();
    symlink("honest.ndjson", scene.path("in/g.ndjson")).unwrap();
    symlink("nowhere", scene.path("in/h.ndjson")).unwrap();
    for arg in [folder.clone(), format!("{folder}/**/*.ndjson"), format!("{folder}/*")] {
        assert_eq!(names(&found(&[arg], false).unwrap()), ["honest.ndjson"]);
    }
    // Who asks for it gets it; who names a link means what it leads to.
    assert!(names(&found(std::slice::from_ref(&folder), true).unwrap()).contains(&"secret.ndjson"));
    assert_eq!(names(&found(&[format!("{folder}/a.ndjson")], false).unwrap()), ["secret.ndjson"]);
    // A folder that is named by a link is that folder.
    symlink(scene.path("in"), scene.path("alias")).unwrap();
    let alias = scene.path("alias").to_str().unwrap().to_owned();
    assert_eq!(names(&found(&[alias], false).unwrap()), ["honest.ndjson"]);
}

#[test]
fn links_in_circles_come_to_an_end() {
    let (scene, folder) = scene();
    symlink(".", scene.path("in/self")).unwrap();
    symlink("..", scene.path("in/deep/up")).unwrap();
    symlink("loop.ndjson", scene.path("in/loop.ndjson")).unwrap();
    for follow in [false, true] {
        assert_eq!(
            names(&found(std::slice::from_ref(&folder), follow).unwrap()),
            ["honest.ndjson"],
            "{follow}"
        );
    }
}

#[test]
fn pipes_sockets_and_devices_are_no_sources_and_nobody_waits_for_them() {
    let (scene, folder) = scene();
    let pipe = scene.path("in/pipe.ndjson");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let _socket = UnixListener::bind(scene.path("in/socket.ndjson")).unwrap();
    symlink("/dev/zero", scene.path("in/zero.ndjson")).unwrap();
    symlink("/dev/zero", scene.path("in/zero.parquet")).unwrap();
    for follow in [false, true] {
        assert_eq!(names(&found(std::slice::from_ref(&folder), follow).unwrap()), ["honest.ndjson"]);
    }
    for name in ["pipe.ndjson", "socket.ndjson", "zero.ndjson", "zero.parquet"] {
        let error = found(&[format!("{folder}/{name}")], true).unwrap_err();
        assert!(error.contains("no regular file"), "{name}: {error}");
    }
    assert!(found(&["/proc/self/fd".into()], false).is_err());
}

#[test]
fn a_file_that_becomes_a_pipe_or_a_link_after_it_was_found_is_refused() {
    let (scene, folder) = scene();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let file = scene.path("in/honest.ndjson");
    for pipe in [true, false] {
        let _ = fs::remove_file(&file);
        scene.write("in/honest.ndjson", &lines(["a"]));
        let sources =
            runtime.block_on(discover(std::slice::from_ref(&folder), &DiscoverOptions::default())).unwrap();
        fs::remove_file(&file).unwrap();
        if pipe {
            assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
        } else {
            symlink(scene.path("out/secret.ndjson"), &file).unwrap();
        }
        let error = sources[0].open().unwrap_err().to_string();
        assert!(error.contains("it was changed"), "{error}");
    }
}

#[test]
fn names_that_lead_up_are_names_and_nothing_is_decoded_twice() {
    let (scene, folder) = scene();
    // On a disk these are odd names of files that lie where they lie.
    for odd in ["%2e%2e%2fsecret.ndjson", "..ndjson", "a..b.ndjson", "back\\..\\slash.ndjson"] {
        fs::write(Path::new(&folder).join(odd), lines(["o"])).unwrap();
    }
    let all = found(std::slice::from_ref(&folder), false).unwrap();
    let real = fs::canonicalize(&folder).unwrap();
    assert!(all.iter().all(|url| Path::new(url).starts_with(&real)), "{all:?}");
    assert!(names(&all).contains(&"%2e%2e%2fsecret.ndjson"), "{all:?}");
    assert!(!names(&all).contains(&"secret.ndjson"), "{all:?}");
    // Whoever names a path with `..` means it; a pattern has none.
    let up = format!("{folder}/../out/secret.ndjson");
    assert_eq!(names(&found(&[up], false).unwrap()), ["secret.ndjson"]);
    assert!(found(&[format!("{folder}/*/../../out/*.ndjson")], false).is_err());
    // In a bucket there is no way up, spelled out or encoded.
    for location in ["s3://b/in/../out/x.ndjson", "memory://m/in/../x.ndjson", "s3://b/./x.ndjson"] {
        let error = found(&[location.into()], false).unwrap_err();
        assert!(error.contains("cannot be addressed"), "{location}: {error}");
    }
    let decoded = scene.path("out/secret.ndjson").display().to_string().replace("/out/", "/in/%2e%2e/out/");
    let error = found(&[format!("file://{decoded}")], false);
    // A file URL is decoded once, by its own rules: this one names the secret, as `..` in a path does.
    assert_eq!(error.map(|urls| urls.len()), Ok(1));
    let twice = decoded.replace('%', "%25");
    assert!(found(&[format!("file://{twice}")], false).unwrap_err().contains("no such file"));
}

#[test]
fn a_pipe_within_a_table_is_no_object_and_nobody_waits_for_it() {
    let scene = Scene::with_table();
    let identity = scene.path("t/_dedupe/table.json");
    let next = scene.path("t/_dedupe/ledger/00000000000000000002.json");
    assert!(Command::new("mkfifo").arg(&next).status().unwrap().success());
    let mut child = scene.command(&["status", "t"]).spawn().unwrap();
    let ended = (0..600).find_map(|_| {
        std::thread::park_timeout(Duration::from_millis(100));
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    assert_eq!(ended.expect("it waits for ever").code(), Some(0));
    fs::remove_file(&identity).unwrap();
    assert!(Command::new("mkfifo").arg(&identity).status().unwrap().success());
    let mut child = scene.command(&["status", "t"]).spawn().unwrap();
    let ended = (0..600).find_map(|_| {
        std::thread::park_timeout(Duration::from_millis(100));
        child.try_wait().unwrap()
    });
    let _ = child.kill();
    assert_eq!(ended.expect("it waits for ever").code(), Some(2));
}
