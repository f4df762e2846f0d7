//! A small S3 on 127.0.0.1 for tests, which can be told to lie, to fail and to fall silent.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the server does with the conditional puts that come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Honest,
    /// Stores the object and answers with this status all the same.
    StoreThenStatus(u16),
    /// Stores the object and closes the connection.
    StoreThenClose,
    /// Stores the object and says nothing.
    StoreThenHang,
    /// Answers 409 and stores nothing.
    Conflict,
    /// Takes a conditional put for a plain one.
    IgnoreConditions,
    /// Refuses conditional puts as something that it does not implement.
    NoConditions,
    /// Leaves an object out of the first listing that should show it.
    StaleLists,
    /// Refuses everything with 403, repeating the key and the signed headers as S3 does.
    Forbid,
    /// Answers everything with the 404 of a missing bucket.
    NoBucket,
    /// Answers everything with 503.
    Down,
    /// Cuts the body of every GET in the middle.
    CutBodies,
}

#[derive(Debug)]
struct State {
    objects: Mutex<BTreeMap<String, (Vec<u8>, u64)>>,
    parts: Mutex<BTreeMap<(String, u32), Vec<u8>>>,
    mood: Mutex<Mood>,
    requests: AtomicU64,
    writes: AtomicU64,
    /// The writes that a listing came by.
    seen: Mutex<BTreeSet<u64>>,
}

/// The running server; its threads end with the test process.
#[derive(Debug, Clone)]
pub(crate) struct Loopback {
    state: Arc<State>,
    port: u16,
}

/// The secret that the clients of [`Loopback::options`] sign with.
pub(crate) const SECRET: &str = "PLANTED-SECRET-KEY";
/// The access key of the clients of [`Loopback::options`].
pub(crate) const ACCESS_KEY: &str = "PLANTED-ACCESS-KEY";

struct Request {
    method: String,
    key: String,
    query: Vec<(String, String)>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Loopback {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(State {
            objects: Mutex::default(),
            parts: Mutex::default(),
            mood: Mutex::new(Mood::Honest),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            seen: Mutex::default(),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                std::thread::spawn(move || serve(&state, stream));
            }
        });
        Self { state, port }
    }

    pub(crate) fn set(&self, mood: Mood) {
        *self.state.mood.lock().unwrap() = mood;
    }

    /// How many requests came, of any kind.
    pub(crate) fn requests(&self) -> u64 {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// The names of all objects, bucket included.
    pub(crate) fn names(&self) -> Vec<String> {
        self.state.objects.lock().unwrap().keys().cloned().collect()
    }

    /// The stored bytes of `bucket/key`.
    pub(crate) fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state.objects.lock().unwrap().get(key).map(|(bytes, _)| bytes.clone())
    }

    /// How many parts of unfinished uploads are kept.
    pub(crate) fn parts(&self) -> usize {
        self.state.parts.lock().unwrap().len()
    }

    /// Stores bytes as somebody else.
    pub(crate) fn plant(&self, key: &str, bytes: &[u8]) {
        store(&self.state, key, bytes.to_vec());
    }

    /// What an S3 client needs to come here.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        self.options_of(&[
            ("endpoint", ""),
            ("region", "us-east-1"),
            ("access_key_id", ACCESS_KEY),
            ("secret_access_key", SECRET),
        ])
    }

    /// `settings` with our address in place of empty values, and short time-outs.
    pub(crate) fn options_of(&self, settings: &[(&str, &str)]) -> Vec<(String, String)> {
        let address = format!("http://127.0.0.1:{}", self.port);
        let settings = settings.iter().chain(&[("timeout", "1s"), ("retry_timeout", "3s")]);
        let filled =
            settings.map(|(name, value)| (*name, if value.is_empty() { address.as_str() } else { *value }));
        filled.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}

fn store(state: &State, key: &str, bytes: Vec<u8>) {
    let write = state.writes.fetch_add(1, Ordering::SeqCst);
    state.objects.lock().unwrap().insert(key.to_owned(), (bytes, write));
}

fn serve(state: &State, stream: TcpStream) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        state.requests.fetch_add(1, Ordering::SeqCst);
        let Some((status, headers, body)) = answer(state, &request) else { return };
        let cut = *state.mood.lock().unwrap() == Mood::CutBodies && request.method == "GET" && body.len() > 1;
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let sent: &[u8] = match (request.method.as_str(), cut) {
            ("HEAD", _) => &[],
            (_, true) => &body[..body.len() / 2],
            _ => &body,
        };
        // In one piece, or each answer waits for the acknowledgement of its own beginning.
        let answer = [head.as_bytes(), b"\r\n", sent].concat();
        if stream.write_all(&answer).is_err() || cut {
            return;
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|n| *n > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    // In a query a plus is a space; in a path it is itself.
    let plus = |text: &str| text.replace('+', " ");
    let decode = |text: &str| percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned();
    let query = query.split('&').filter(|pair| !pair.is_empty());
    let query = query
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(n, v)| (n.to_owned(), decode(&plus(v))));
    Some(Request { method, key: decode(path.trim_start_matches('/')), query: query.collect(), headers, body })
}

type Answer = (u16, Vec<(&'static str, String)>, Vec<u8>);

/// `None`: close the connection.
fn answer(state: &State, request: &Request) -> Option<Answer> {
    let mood = *state.mood.lock().unwrap();
    let key = &request.key;
    let plain = |status: u16, body: &str| Some((status, Vec::new(), body.as_bytes().to_vec()));
    let query = |name: &str| request.query.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str());
    match mood {
        Mood::Forbid => {
            return plain(
                403,
                &format!(
                    "<Error><Code>SignatureDoesNotMatch</Code><Message>No.</Message><AWSAccessKeyId>{ACCESS_KEY}\
                     </AWSAccessKeyId><CanonicalRequest>{:?}</CanonicalRequest></Error>",
                    request.headers
                ),
            );
        }
        Mood::Down => return plain(503, "<html>busy</html>"),
        Mood::NoBucket => {
            return plain(404, "<Error><Code>NoSuchBucket</Code><Message>None.</Message></Error>");
        }
        _ => {}
    }
    match request.method.as_str() {
        "PUT" if query("partNumber").is_some() => {
            let part = (query("uploadId").unwrap().to_owned(), query("partNumber").unwrap().parse().unwrap());
            state.parts.lock().unwrap().insert(part, request.body.clone());
            Some((200, vec![("etag", "\"part\"".into())], Vec::new()))
        }
        "PUT" => put(state, request, mood),
        "GET" | "HEAD" if query("list-type").is_some() => {
            plain(200, &list(state, key, query("prefix").unwrap_or(""), query("start-after").unwrap_or("")))
        }
        "GET" | "HEAD" => get(state, request),
        "POST" if query("uploads").is_some() => {
            let id = state.writes.fetch_add(1, Ordering::SeqCst);
            plain(200, &format!("<R><UploadId>{id}</UploadId></R>"))
        }
        "POST" if query("uploadId").is_some() => {
            let id = query("uploadId").unwrap();
            let mut parts = state.parts.lock().unwrap();
            let whole: Vec<u8> =
                parts.iter().filter(|((of, _), _)| of == id).flat_map(|(_, b)| b.clone()).collect();
            let known = parts.keys().any(|(of, _)| of == id);
            parts.retain(|(of, _), _| of != id);
            // Completed again, because its answer was lost: nothing changes.
            if known {
                store(state, key, whole);
            }
            plain(200, "<R><ETag>\"whole\"</ETag></R>")
        }
        "POST" if query("delete").is_some() => {
            let body = String::from_utf8(request.body.clone()).unwrap();
            let bucket = key.trim_end_matches('/');
            let mut objects = state.objects.lock().unwrap();
            let mut deleted = String::new();
            for name in body.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>")) {
                objects.remove(&format!("{bucket}/{}", unescape(name.0)));
                deleted.push_str(&format!("<Deleted><Key>{}</Key></Deleted>", name.0));
            }
            plain(200, &format!("<DeleteResult>{deleted}</DeleteResult>"))
        }
        "DELETE" if query("uploadId").is_some() => {
            let id = query("uploadId").unwrap();
            state.parts.lock().unwrap().retain(|(of, _), _| of != id);
            plain(204, "")
        }
        "DELETE" => {
            state.objects.lock().unwrap().remove(key);
            plain(204, "")
        }
        _ => plain(400, ""),
    }
}

fn put(state: &State, request: &Request, mood: Mood) -> Option<Answer> {
    // S3 and Azure, and Google.
    let conditions = ["if-none-match", "x-goog-if-generation-match"];
    let conditional = conditions.iter().any(|name| request.headers.contains_key(*name));
    if conditional && mood == Mood::NoConditions {
        let code =
            "<Error><Code>NotImplemented</Code><Message>A header is not implemented.</Message></Error>";
        return Some((501, Vec::new(), code.as_bytes().to_vec()));
    }
    if conditional && mood == Mood::Conflict {
        return Some((409, Vec::new(), b"<Error><Code>ConditionalRequestConflict</Code></Error>".to_vec()));
    }
    {
        // Looked at and written in one step, or two of many could both find it absent.
        let mut objects = state.objects.lock().unwrap();
        if conditional && objects.contains_key(&request.key) && mood != Mood::IgnoreConditions {
            return Some((412, Vec::new(), b"<Error><Code>PreconditionFailed</Code></Error>".to_vec()));
        }
        let write = state.writes.fetch_add(1, Ordering::SeqCst);
        objects.insert(request.key.clone(), (request.body.clone(), write));
    }
    match mood {
        Mood::StoreThenStatus(status) if conditional => Some((status, Vec::new(), Vec::new())),
        Mood::StoreThenClose if conditional => None,
        Mood::StoreThenHang if conditional => {
            // Longer than any test waits; the client gives up first.
            std::thread::park_timeout(std::time::Duration::from_secs(20));
            None
        }
        _ => {
            let time = "Wed, 21 Oct 2015 07:28:00 GMT".to_owned();
            let headers =
                vec![("etag", "\"new\"".into()), ("last-modified", time), ("x-goog-generation", "1".into())];
            Some((200, headers, Vec::new()))
        }
    }
}

fn get(state: &State, request: &Request) -> Option<Answer> {
    let Some((bytes, write)) = state.objects.lock().unwrap().get(&request.key).cloned() else {
        return Some((404, Vec::new(), b"<Error><Code>NoSuchKey</Code></Error>".to_vec()));
    };
    let etag = format!("\"{write}\"");
    if request.headers.get("if-match").is_some_and(|wanted| *wanted != etag) {
        return Some((412, Vec::new(), Vec::new()));
    }
    let time = "Wed, 21 Oct 2015 07:28:00 GMT".to_owned();
    let mut headers = vec![("etag", etag), ("last-modified", time), ("x-goog-generation", "1".into())];
    let range = request.headers.get("range").and_then(|range| range.strip_prefix("bytes="));
    let Some((first, last)) = range.and_then(|range| range.split_once('-')) else {
        return Some((200, headers, bytes));
    };
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap_or(usize::MAX));
    let end = last.saturating_add(1).min(bytes.len());
    if first >= end {
        return Some((416, Vec::new(), Vec::new()));
    }
    headers.push(("content-range", format!("bytes {first}-{}/{}", end - 1, bytes.len())));
    Some((206, headers, bytes[first..end].to_vec()))
}

fn list(state: &State, bucket: &str, prefix: &str, after: &str) -> String {
    let bucket = format!("{}/", bucket.trim_end_matches('/'));
    let mut body = String::from("<ListBucketResult>");
    let stale = *state.mood.lock().unwrap() == Mood::StaleLists;
    let mut seen = state.seen.lock().unwrap();
    for (key, (bytes, write)) in state.objects.lock().unwrap().iter() {
        let Some(key) = key.strip_prefix(&bucket).filter(|key| key.starts_with(prefix) && *key > after)
        else {
            continue;
        };
        if seen.insert(*write) && stale {
            continue;
        }
        let key = key.replace('&', "&amp;").replace('<', "&lt;");
        body.push_str(&format!(
            "<Contents><Key>{key}</Key><Size>{}</Size><ETag>\"{write}\"</ETag>\
             <LastModified>2015-10-21T07:28:00.000Z</LastModified></Contents>",
            bytes.len()
        ));
    }
    body + "</ListBucketResult>"
}

fn unescape(text: &str) -> String {
    text.replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&quot;", "\"")
        .replace("&apos;", "'")
        .replace("&amp;", "&")
}
