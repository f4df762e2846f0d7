//! A bucket behind the real clients of the clouds, that answers by a script: which request meets which fault.
//!
//! The clients' own HTTP connector is replaced, so that everything above the wire is what is shipped: request
//! building, classification of answers, retries. Time is tokio's; paused, minutes pass at once.
//! The notation stands in [`script`].

mod script;

use super::{Store, connect, location::Cloud, remote::Remote};
use async_trait::async_trait;
use bytes::Bytes;
use http_body::{Body, Frame};
use object_store::{
    ClientOptions,
    client::{
        HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
        HttpService,
    },
};
pub(crate) use script::{Answer, Effect, Fault, Rates};
use script::{Drawn, Step, Tail, Word};
use std::{
    collections::{BTreeMap, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll},
    time::Duration,
};

/// The clouds by the schemes of their URLs.
pub(crate) const CLOUDS: [&str; 3] = ["s3", "gs", "az"];

/// The bucket.
#[derive(Debug, Clone)]
pub(crate) struct Scripted {
    cloud: &'static str,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    objects: BTreeMap<String, (Bytes, u64)>,
    writes: u64,
    /// The part of a key that faults are for.
    watched: String,
    script: VecDeque<Step>,
    tails: Vec<Tail>,
    random: Option<Drawn>,
    late: Vec<(String, Bytes)>,
    rival: Bytes,
    start: tokio::time::Instant,
    /// Every request for what is watched, with what befell it: for messages.
    log: Vec<String>,
    /// What did not come as the script has it.
    complaints: Vec<String>,
    /// The bodies of puts of what is watched.
    bodies: Vec<Bytes>,
    fired: BTreeMap<(char, Fault), u64>,
}

impl Scripted {
    pub(crate) fn new(cloud: &'static str) -> Self {
        let state = State {
            objects: BTreeMap::new(),
            writes: 0,
            watched: "\0".into(),
            script: VecDeque::new(),
            tails: Vec::new(),
            random: None,
            late: Vec::new(),
            rival: Bytes::new(),
            start: tokio::time::Instant::now(),
            log: Vec::new(),
            complaints: Vec::new(),
            bodies: Vec::new(),
            fired: BTreeMap::new(),
        };
        Self { cloud, state: Arc::new(Mutex::new(state)) }
    }

    /// A store over the cloud's real client, with its own retries as shipped.
    pub(crate) fn store(&self) -> Store {
        let account = r#"{"disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}"#;
        let (cloud, options): (_, &[(&str, &str)]) = match self.cloud {
            "s3" => (
                Cloud::S3,
                &[
                    ("endpoint", "http://scripted.test"),
                    ("region", "us-east-1"),
                    ("access_key_id", "nobody"),
                    ("secret_access_key", "nothing"),
                ],
            ),
            "gs" => (Cloud::Gcs, &[("base_url", "http://scripted.test"), ("service_account_key", account)]),
            _ => (
                Cloud::Azure,
                &[
                    ("endpoint", "http://scripted.test"),
                    ("account_name", "nobody"),
                    ("account_key", "bm90aGluZw=="),
                ],
            ),
        };
        let options: Vec<_> = options.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let bucket = format!("{}://bucket", self.cloud);
        let connector = Arc::new(self.clone());
        let (ordinary, once, secrets) =
            connect::connect_with(cloud, &bucket, &options, &[], Some(connector)).unwrap();
        let remote = Remote::new(ordinary, once, "table", &format!("{bucket}/table"), secrets);
        Store { inner: super::Inner::Remote(Arc::new(remote)), alone: false, cache: None }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// From here on requests for `object` follow `script`; `rival` is what `+rival` writes there.
    pub(crate) fn play(&self, object: &str, script: &str, rival: Bytes) {
        let mut state = self.state();
        state.watched = format!("table/{object}");
        state.rival = rival;
        state.start = tokio::time::Instant::now();
        for word in script.split_whitespace() {
            match Word::read(word) {
                Word::Steps(step, times) => state.script.extend(std::iter::repeat_n(step, times)),
                Word::Tail(tail) => state.tails.push(tail),
            }
        }
    }

    /// From here on requests for keys that contain `part` meet faults drawn from `seed`.
    pub(crate) fn misbehave(&self, part: &str, seed: u64, rates: Rates) {
        let mut state = self.state();
        state.watched = part.to_owned();
        state.random = Some(Drawn { rates, seed });
    }

    /// From here on nothing goes wrong, and all late puts have landed.
    pub(crate) fn heal(&self) {
        let mut state = self.state();
        (state.script, state.tails, state.random) = (VecDeque::new(), Vec::new(), None);
        state.land_late();
    }

    /// What is left of the script, and what did not come as it has it.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let state = self.state();
        let left = state.script.iter().map(|step| format!("never came to {step:?}"));
        left.chain(state.complaints.iter().cloned()).collect()
    }

    /// How many requests came for what is watched.
    pub(crate) fn log(&self) -> Vec<String> {
        self.state().log.clone()
    }

    pub(crate) fn bodies(&self) -> Vec<Bytes> {
        self.state().bodies.clone()
    }

    pub(crate) fn fired(&self) -> BTreeMap<(char, Fault), u64> {
        self.state().fired.clone()
    }

    pub(crate) fn object(&self, name: &str) -> Option<Bytes> {
        self.state().objects.get(&format!("bucket/table/{name}")).map(|(bytes, _)| bytes.clone())
    }

    /// The header that makes a put conditional.
    fn condition(&self) -> (&'static str, &'static str) {
        if self.cloud == "gs" { ("x-goog-if-generation-match", "0") } else { ("if-none-match", "*") }
    }

    /// What a put of an occupied name is told.
    fn refusal(&self) -> u16 {
        if self.cloud == "az" { 409 } else { 412 }
    }

    fn put(&self, key: &str, body: &Bytes) -> u16 {
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return self.refusal();
        }
        state.write(key, body);
        if self.cloud == "az" { 201 } else { 200 }
    }
}

impl State {
    fn write(&mut self, key: &str, body: &Bytes) {
        self.writes += 1;
        self.objects.insert(key.to_owned(), (body.clone(), self.writes));
    }

    /// Late puts are conditional like all others.
    fn land_late(&mut self) {
        for (key, body) in std::mem::take(&mut self.late) {
            if !self.objects.contains_key(&key) {
                self.write(&key, &body);
            }
        }
    }

    /// What befalls the request that has just come.
    fn next(&mut self, verb: char, key: &str) -> Fault {
        const HONEST: Fault = Fault(Answer::Honest, Effect::No);
        if !key.contains(&self.watched) {
            return HONEST;
        }
        let before = self.log.len();
        if let Some(random) = &mut self.random {
            let lands = !self.late.is_empty() && random.draw(4) == 0;
            let fault = random.fault(verb, before).unwrap_or(HONEST);
            if lands {
                self.land_late();
            }
            return fault;
        }
        loop {
            match self.script.pop_front() {
                Some(Step::Late) => self.land_late(),
                Some(Step::Rival) => {
                    let (key, rival) = (key.to_owned(), self.rival.clone());
                    if !self.objects.contains_key(&key) {
                        self.write(&key, &rival);
                    }
                }
                Some(Step::Request(wanted, fault)) => {
                    if wanted != verb {
                        self.complaints.push(format!("{verb} came instead of {wanted} with {fault:?}"));
                    }
                    return fault;
                }
                None => break,
            }
        }
        let passed = self.start.elapsed();
        let tail =
            self.tails.iter().find(|tail| tail.verb == verb && tail.until.is_none_or(|until| passed < until));
        match tail {
            Some(tail) => tail.fault,
            None => {
                if self.tails.is_empty() {
                    self.complaints.push(format!("{verb} came behind the script"));
                }
                HONEST
            }
        }
    }
}

impl HttpConnector for Scripted {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Scripted {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = collect(body).await;
        let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8_lossy().into_owned();
        let (key, query) = (path.trim_start_matches('/').to_owned(), head.uri.query().unwrap_or_default());
        if query.contains("list") {
            // Only checkpoints are listed, and there are none.
            let empty = if self.cloud == "az" {
                "<EnumerationResults><Blobs></Blobs></EnumerationResults>"
            } else {
                "<ListBucketResult></ListBucketResult>"
            };
            return Ok(answer(200, empty.into()));
        }
        let range = head.headers.get("range").and_then(|range| range.to_str().ok()).map(str::to_owned);
        match head.method.as_str() {
            "PUT" => {
                let (name, value) = self.condition();
                let conditional = head.headers.get(name).is_some_and(|found| found == value);
                let block = self.cloud != "az"
                    || head.headers.get("x-ms-blob-type").is_some_and(|found| found == "BlockBlob");
                if !conditional || !block {
                    let complaint = format!("a put of {key} came without {name}: {value}");
                    self.state().complaints.push(complaint);
                }
                self.answer_put(&key, &body).await
            }
            "GET" => self.answer_get(&key, range.as_deref(), true).await,
            "HEAD" => self.answer_get(&key, None, false).await,
            other => {
                self.state().complaints.push(format!("{other} {key}"));
                Ok(answer(405, Bytes::new()))
            }
        }
    }
}

impl Scripted {
    fn begin(&self, verb: char, key: &str) -> Fault {
        let mut state = self.state();
        let fault = state.next(verb, key);
        if key.contains(&state.watched) {
            state.log.push(format!("{verb} {:?} {:?}", fault.0, fault.1));
            *state.fired.entry((verb, fault)).or_default() += 1;
        }
        fault
    }

    async fn answer_put(&self, key: &str, body: &Bytes) -> Result<HttpResponse, HttpError> {
        let Fault(what, effect) = self.begin('P', key);
        {
            let mut state = self.state();
            if key.contains(&state.watched) {
                state.bodies.push(body.clone());
            }
        }
        let status = match (what, effect) {
            (Answer::Honest, _) | (_, Effect::Yes) => self.put(key, body),
            (_, Effect::Late) => {
                self.state().late.push((key.to_owned(), body.clone()));
                0
            }
            (_, Effect::No) => 0,
        };
        match what {
            Answer::Bare if (200..300).contains(&status) => {
                let mut bare = answer(status, Bytes::new());
                bare.headers_mut().remove("etag");
                Ok(bare)
            }
            // Told what is so.
            Answer::Honest | Answer::Bare => Ok(answer(status, error_body("Conflict"))),
            other => self.fail(other).await,
        }
    }

    async fn answer_get(
        &self,
        key: &str,
        range: Option<&str>,
        body: bool,
    ) -> Result<HttpResponse, HttpError> {
        let Fault(what, _) = self.begin('G', key);
        let found = self.state().objects.get(key).cloned();
        let honest = |found: Option<(Bytes, u64)>| match found {
            None => answer(404, error_body("NoSuchKey")),
            Some((bytes, write)) => {
                let from: usize = range
                    .and_then(|range| range.strip_prefix("bytes=")?.split_once('-')?.0.parse().ok())
                    .unwrap_or(0);
                let part = bytes.slice(from.min(bytes.len())..);
                let mut response = answer(if range.is_some() { 206 } else { 200 }, part);
                let headers = response.headers_mut();
                headers.insert("etag", format!("\"{write}\"").parse().unwrap());
                if range.is_some() {
                    let text = format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len());
                    headers.insert("content-range", text.parse().unwrap());
                }
                response
            }
        };
        match what {
            Answer::Honest => {
                let mut response = honest(found);
                if !body {
                    *response.body_mut() = Bytes::new().into();
                }
                Ok(response)
            }
            Answer::HalfBody | Answer::ShortBody => {
                let mut response = honest(found);
                let whole = std::mem::replace(response.body_mut(), Bytes::new().into()).bytes().await?;
                let half =
                    Broken { bytes: Some(whole.slice(..whole.len() / 2)), fails: what == Answer::HalfBody };
                *response.body_mut() = HttpResponseBody::new(half);
                Ok(response)
            }
            Answer::Page => Ok(answer(200, "<html>Sign in to the hotel's network</html>".into())),
            other => self.fail(other).await,
        }
    }

    async fn fail(&self, what: Answer) -> Result<HttpResponse, HttpError> {
        let failed = |kind| Err(HttpError::new(kind, std::io::Error::other("planted")));
        match what {
            Answer::Status(status) => Ok(answer(status, error_body("Planted"))),
            Answer::TimeOut => {
                tokio::time::sleep(Duration::from_secs(30)).await;
                failed(HttpErrorKind::Timeout)
            }
            // As the shipped connector classes an answer that never came.
            Answer::Cut => failed(HttpErrorKind::Request),
            Answer::Reset => failed(HttpErrorKind::Interrupted),
            _ => failed(HttpErrorKind::Connect),
        }
    }
}

fn error_body(code: &str) -> Bytes {
    format!("<Error><Code>{code}</Code><Message>planted</Message></Error>").into()
}

fn answer(status: u16, body: Bytes) -> HttpResponse {
    let length = body.len();
    let mut response = HttpResponse::new(body.into());
    *response.status_mut() = status.try_into().unwrap();
    let headers = response.headers_mut();
    headers.insert("content-length", length.into());
    headers.insert("etag", "\"0\"".parse().unwrap());
    headers.insert("last-modified", "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
    response
}

async fn collect(mut body: impl Body<Data = Bytes> + Unpin) -> Bytes {
    let mut whole = Vec::new();
    while let Some(Ok(frame)) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
        whole.extend_from_slice(&frame.into_data().unwrap_or_default());
    }
    whole.into()
}

/// A body that ends too early.
struct Broken {
    bytes: Option<Bytes>,
    fails: bool,
}

impl Body for Broken {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        Poll::Ready(match self.bytes.take() {
            Some(bytes) => Some(Ok(Frame::data(bytes))),
            None if self.fails => {
                self.fails = false;
                Some(Err(HttpError::new(HttpErrorKind::Interrupted, std::io::Error::other("planted"))))
            }
            None => None,
        })
    }
}
