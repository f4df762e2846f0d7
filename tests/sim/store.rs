//! A store that behaves as badly as real ones do, behind the interface of a bucket, in virtual time.
//!
//! Reads by name are strongly consistent and conditions are honoured: that is the contract. Everything else is up to
//! the seed. A request takes time to arrive and time to be answered, so requests overtake each other; it may not be
//! done, be done with its answer lost, or be done long after its sender has given up or died. Every request is also a
//! point at which its sender may die: before it is sent, while it is under way, or when it is done and not answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::time::Instant;
use xxhash_rust::xxh3::xxh3_64;

use super::Bug;
use super::rng::Rng;
use super::trace::{Event, Trace};

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Not done, and an error says so.
    FailBefore,
    /// Done, and answered by an error.
    FailAfter,
    /// Done, and never answered: the client's time-out ends the waiting.
    LostAnswer,
    /// Answered by an error, and done at any later time.
    LateLanding,
    /// Takes much longer than others, up to a minute: its sender as good as sleeps.
    Delay,
    /// Done after a request that was sent later.
    Reordered,
    /// A part or the completion of a multipart upload fails, done or not.
    TornMultipart,
    /// A listing without what was written lately, or with what was deleted lately.
    StaleList,
    /// A conditional put that is told "exists" and was not done.
    Conflict409,
    /// A conditional put that is told "exists" and was done.
    OwnExists,
    /// A conditional put that is told "precondition failed", its name being taken, by itself or others.
    Precondition412,
    /// Everybody is turned away for a while.
    Throttled,
    /// Fewer bytes arrive than were announced.
    ShortRead,
    /// A bit is wrong in what arrives of an object whose checksum somebody has.
    BitFlip,
    /// The sender dies.
    Crash,
}

pub const CLASSES: [Class; 15] = [
    Class::FailBefore,
    Class::FailAfter,
    Class::LostAnswer,
    Class::LateLanding,
    Class::Delay,
    Class::Reordered,
    Class::TornMultipart,
    Class::StaleList,
    Class::Conflict409,
    Class::OwnExists,
    Class::Precondition412,
    Class::Throttled,
    Class::ShortRead,
    Class::BitFlip,
    Class::Crash,
];

/// What a request is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Call {
    Put,
    PutOnce,
    Part,
    Complete,
    Get,
    List,
    Delete,
}

impl Call {
    fn name(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::PutOnce => "put_once",
            Self::Part => "part",
            Self::Complete => "complete",
            Self::Get => "get",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// What is decided about a request when it is sent.
#[derive(Debug, Default)]
struct Fate {
    fault: Option<Class>,
    /// Milliseconds until it is done, and from then until it is answered.
    arrives: u64,
    answered: u64,
    dies: Option<Death>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Death {
    Unsent,
    UnderWay,
    Unanswered,
}

/// What a request does.
#[derive(Debug, Clone)]
enum Effect {
    Put { name: String, bytes: Bytes, once: bool },
    Delete { name: String },
}

#[derive(Debug, Clone)]
struct Object {
    bytes: Bytes,
    modified: u64,
    tag: u64,
}

/// A change that listings may not show yet: its time, the name, and what was there before.
type Change = (u64, String, Option<Object>);

/// The store, and all that is under way.
pub struct World {
    inner: Mutex<Inner>,
    begun: Instant,
}

struct Inner {
    rng: Rng,
    objects: BTreeMap<String, Object>,
    /// Done when their time has come, whoever has died by then.
    under_way: BTreeMap<(u64, u64), (usize, Effect)>,
    changes: VecDeque<Change>,
    sent: u64,
    latest_done: u64,
    throttled_until: u64,
    /// How bad it is, in thousandths of the usual rates. 0 = healed.
    mood: u64,
    fired: [u64; CLASSES.len()],
    calls: u64,
    trace: Trace,
    bug: Bug,
    /// With [`Bug::NoSync`]: what was written by whom, and is lost when that one dies.
    unsynced: Vec<((usize, u64), String)>,
}

/// How many calls a history may make before everything heals, so that it comes to an end.
const MOST_CALLS: u64 = 3_000;

impl World {
    pub fn new(seed: u64, mood: u64, bug: Bug) -> Arc<Self> {
        let inner = Inner {
            rng: Rng::new(seed, 1),
            objects: BTreeMap::new(),
            under_way: BTreeMap::new(),
            changes: VecDeque::new(),
            sent: 0,
            latest_done: 0,
            throttled_until: 0,
            mood,
            fired: [0; CLASSES.len()],
            calls: 0,
            trace: Trace::default(),
            bug,
            unsynced: Vec::new(),
        };
        Arc::new(Self { inner: Mutex::new(inner), begun: Instant::now() })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Virtual milliseconds since the start.
    pub fn now(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// From here on nothing goes wrong.
    pub fn heal(&self) {
        self.lock().mood = 0;
    }

    /// Of everything under way, some is done now, the rest never.
    pub fn settle(&self) {
        let now = self.now();
        let mut inner = self.lock();
        for (_, (who, effect)) in std::mem::take(&mut inner.under_way) {
            if inner.rng.chance(500) {
                inner.land(now, who, effect);
            }
        }
    }

    pub fn calls(&self) -> u64 {
        self.lock().calls
    }

    pub fn fired(&self) -> [u64; CLASSES.len()] {
        self.lock().fired
    }

    pub fn names(&self) -> Vec<String> {
        self.lock().objects.keys().cloned().collect()
    }

    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        self.lock().objects.get(name).map(|object| object.bytes.clone())
    }

    pub fn trace(&self, with: impl FnOnce(&mut Trace)) {
        with(&mut self.lock().trace);
    }

    /// Notes something that is no request.
    pub fn note(&self, who: (usize, u64), what: &str, outcome: &str) {
        let at = self.now();
        self.lock().trace.note(&Event { at, who, what, name: "", outcome, content: 0 });
    }
}

impl Inner {
    fn fire(&mut self, class: Class) {
        self.fired[class as usize] += 1;
    }

    /// Whether something befalls that strikes so many of a thousand requests on a usual day.
    fn strikes(&mut self, of_thousand: u64) -> bool {
        self.rng.below(1_000_000) < of_thousand * self.mood
    }

    fn fate(&mut self, now: u64, call: Call, name: &str) -> Fate {
        let mut fate = Fate { arrives: self.rng.from(1, 12), ..Fate::default() };
        if self.calls > MOST_CALLS {
            self.mood = 0;
        }
        if self.mood == 0 {
            return fate;
        }
        if self.strikes(6) {
            fate.dies = Some(match self.rng.below(3) {
                0 => Death::Unsent,
                1 => Death::UnderWay,
                _ => Death::Unanswered,
            });
        }
        if self.strikes(35) {
            // Mostly a while, sometimes as if the machine had slept.
            let most = if self.rng.chance(200) { 60_000 } else { 1_500 };
            let while_ms = self.rng.from(50, most);
            if self.rng.chance(700) {
                fate.arrives += while_ms
            } else {
                fate.answered += while_ms
            }
            self.fire(Class::Delay);
        }
        if self.strikes(1) {
            self.throttled_until = now + self.rng.from(100, 3_000);
        }
        fate.fault = self.fault(now, call, name);
        if let Some(Class::LostAnswer) = fate.fault {
            fate.answered = 30_000;
        }
        fate
    }

    fn fault(&mut self, now: u64, call: Call, name: &str) -> Option<Class> {
        if now < self.throttled_until && self.rng.chance(800) {
            return Some(Class::Throttled);
        }
        if self.strikes(6) {
            return Some(Class::FailBefore);
        }
        let checked = [
            "_dedupe/tokens/",
            "_dedupe/checkpoint/",
            "_dedupe/parts/",
            "_dedupe/ledger/",
            "_dedupe/table.json",
            "data/",
        ];
        let choices: &[(Class, u64)] = match call {
            Call::PutOnce => &[
                (Class::FailAfter, 30),
                (Class::LostAnswer, 25),
                (Class::LateLanding, 40),
                (Class::Conflict409, 50),
                (Class::OwnExists, 50),
                (Class::Precondition412, 50),
            ],
            Call::Put => &[(Class::FailAfter, 15), (Class::LostAnswer, 10), (Class::LateLanding, 20)],
            Call::Part | Call::Complete => &[(Class::TornMultipart, 40)],
            Call::Get if checked.iter().any(|folder| name.contains(folder)) => {
                &[(Class::ShortRead, 6), (Class::BitFlip, 12)]
            }
            Call::Get => &[(Class::ShortRead, 2)],
            Call::List => &[(Class::StaleList, 400)],
            Call::Delete => &[(Class::FailAfter, 15), (Class::LostAnswer, 10), (Class::LateLanding, 20)],
        };
        choices.iter().find(|(_, rate)| self.strikes(*rate)).map(|(class, _)| *class)
    }

    /// Does what is due by now.
    fn catch_up(&mut self, now: u64) {
        while let Some(first) = self.under_way.first_entry() {
            if first.key().0 > now {
                break;
            }
            let (who, effect) = first.remove();
            self.land(now, who, effect);
        }
    }

    fn land(&mut self, now: u64, who: usize, effect: Effect) {
        let (name, content) = match &effect {
            Effect::Put { name, bytes, .. } => (name.clone(), xxh3_64(bytes)),
            Effect::Delete { name } => (name.clone(), 0),
        };
        let outcome = if self.apply(now, effect) { "done" } else { "refused" };
        self.trace.note(&Event { at: now, who: (who, 0), what: "…lands", name: &name, outcome, content });
    }

    /// Whether it was done: a conditional put is not, where something is.
    fn apply(&mut self, now: u64, effect: Effect) -> bool {
        match effect {
            Effect::Put { name, bytes, once } => {
                let ignored = self.bug == Bug::ConditionIgnored && self.rng.chance(300);
                if once && self.objects.contains_key(&name) && !ignored {
                    return false;
                }
                let object = Object { bytes, modified: now, tag: self.sent };
                let before = self.objects.insert(name.clone(), object);
                self.changes.push_back((now, name, before));
            }
            Effect::Delete { name } => {
                let before = self.objects.remove(&name);
                self.changes.push_back((now, name, before));
            }
        }
        if self.changes.len() > 40 {
            self.changes.pop_front();
        }
        true
    }

    /// The order in which requests are done is not that in which they were sent.
    fn done(&mut self, sent: u64) {
        if sent < self.latest_done {
            self.fire(Class::Reordered);
        }
        self.latest_done = self.latest_done.max(sent);
    }

    fn later(&mut self, now: u64, who: usize, effect: Effect) {
        let most = if self.rng.chance(300) { 90_000 } else { 2_000 };
        let due = now + self.rng.from(1, most);
        let number = self.sent;
        self.sent += 1;
        self.under_way.insert((due, number), (who, effect));
    }
}

/// One life of an actor: it may end at any request.
#[derive(Default)]
pub struct Life {
    pub number: u64,
    dead: AtomicBool,
    waker: Mutex<Option<Waker>>,
    /// Requests that read something broken: errors of the actor may come from them.
    pub broken_reads: AtomicU64,
    /// It cannot die: errors only.
    pub immortal: bool,
}

impl Life {
    pub fn is_over(&self) -> bool {
        self.dead.load(Ordering::Relaxed)
    }

    pub fn watch(&self, waker: &Waker) {
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
    }

    async fn end(&self) -> ! {
        self.dead.store(true, Ordering::Relaxed);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
        std::future::pending().await
    }
}

/// The store, as one life of an actor sees it.
#[derive(Clone)]
pub struct Client {
    world: Arc<World>,
    actor: usize,
    pub life: Arc<Life>,
    /// Sees the store as it is, and leaves no trace.
    healthy: bool,
}

/// A request that is under way; if its sender goes away before it is done, it may be done all the same.
struct UnderWay<'a> {
    client: &'a Client,
    effect: Option<Effect>,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if let Some(effect) = self.effect.take() {
            let now = self.client.world.now();
            let mut inner = self.client.world.lock();
            if inner.rng.chance(500) {
                inner.later(now, self.client.actor, effect);
            }
        }
    }
}

impl Client {
    pub fn new(world: &Arc<World>, actor: usize, number: u64) -> Self {
        let life = Arc::new(Life { number, ..Life::default() });
        Self { world: Arc::clone(world), actor, life, healthy: false }
    }

    /// For those who judge afterwards.
    pub fn healthy(world: &Arc<World>) -> Self {
        Self { healthy: true, ..Self::new(world, 0, 0) }
    }

    fn note(&self, call: Call, name: &str, outcome: &str, content: u64) {
        let at = self.world.now();
        let who = (self.actor, self.life.number);
        self.world.lock().trace.note(&Event { at, who, what: call.name(), name, outcome, content });
    }

    /// Decides what becomes of a request. Whoever is dead sends none.
    fn send(&self, call: Call, name: &str) -> Result<(Fate, u64)> {
        if self.life.is_over() {
            return Err(broken("the sender is dead"));
        }
        let now = self.world.now();
        let mut inner = self.world.lock();
        inner.catch_up(now);
        inner.calls += 1;
        inner.sent += 1;
        let sent = inner.sent;
        let mut fate = inner.fate(now, call, name);
        if self.life.immortal || aside() {
            fate.dies = None;
        }
        Ok((fate, sent))
    }

    async fn wait(&self, milliseconds: u64) {
        if milliseconds > 0 && !aside() {
            tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        }
    }

    async fn die(&self, call: Call, name: &str, how: &str) -> ! {
        self.note(call, name, how, 0);
        {
            let mut inner = self.world.lock();
            inner.fire(Class::Crash);
            let who = (self.actor, self.life.number);
            let lost: Vec<String> =
                inner.unsynced.iter().filter(|(by, _)| *by == who).map(|(_, name)| name.clone()).collect();
            lost.iter().for_each(|name| drop(inner.objects.remove(name)));
        }
        self.life.end().await
    }

    /// A request that changes something. `Ok(false)`: refused, because the name is taken.
    async fn change(&self, call: Call, effect: Effect) -> Result<bool> {
        let (name, content) = match &effect {
            Effect::Put { name, bytes, .. } => (name.clone(), xxh3_64(bytes)),
            Effect::Delete { name } => (name.clone(), 0),
        };
        if self.healthy {
            return Ok(self.world.lock().apply(self.world.now(), effect));
        }
        let (fate, sent) = self.send(call, &name)?;
        if fate.dies == Some(Death::Unsent) {
            self.die(call, &name, "dies before it is sent").await;
        }
        let fault = fate.fault;
        let undone = matches!(
            fault,
            Some(Class::FailBefore | Class::Throttled | Class::Conflict409 | Class::LateLanding)
        );
        {
            let mut way = UnderWay { client: self, effect: (!undone).then(|| effect.clone()) };
            if fate.dies == Some(Death::UnderWay) {
                self.die(call, &name, "dies under way").await;
            }
            self.wait(fate.arrives).await;
            way.effect = None;
        }
        let now = self.world.now();
        let (result, outcome) = {
            let mut inner = self.world.lock();
            inner.catch_up(now);
            if let Some(class) = fault
                && !matches!(class, Class::Precondition412 | Class::OwnExists)
            {
                inner.fire(class);
            }
            match fault {
                Some(Class::TornMultipart) if inner.rng.chance(500) => (Err(broken("torn")), "500, not done"),
                Some(Class::FailBefore) => (Err(broken("500")), "500, not done"),
                Some(Class::Throttled) => (Err(broken("503 SlowDown")), "503, not done"),
                Some(Class::Conflict409) => (Err(exists(&name)), "409, not done"),
                Some(Class::LateLanding) => {
                    inner.later(now, self.actor, effect);
                    (Err(broken("connection reset")), "error, will land")
                }
                _ => {
                    inner.done(sent);
                    let put = matches!(effect, Effect::Put { .. });
                    let landed = inner.apply(now, effect);
                    if inner.bug == Bug::NoSync && put && call == Call::Put {
                        inner.unsynced.push(((self.actor, self.life.number), name.clone()));
                    }
                    match (fault, landed) {
                        (Some(Class::FailAfter), true) => (Err(broken("500")), "500, done"),
                        (Some(Class::FailAfter), false) => (Err(broken("500")), "500, taken"),
                        (Some(Class::LostAnswer), true) => (Err(broken("timed out")), "time-out, done"),
                        (Some(Class::LostAnswer), false) => (Err(broken("timed out")), "time-out, taken"),
                        (Some(Class::TornMultipart), _) => (Err(broken("torn")), "500, done"),
                        (Some(Class::OwnExists), true) => {
                            inner.fire(Class::OwnExists);
                            (Err(exists(&name)), "exists, own")
                        }
                        (Some(Class::Precondition412), landed) => {
                            inner.fire(Class::Precondition412);
                            (Err(precondition(&name)), if landed { "412, own" } else { "412, taken" })
                        }
                        (_, true) => (Ok(true), "done"),
                        (_, false) => (Ok(false), "taken"),
                    }
                }
            }
        };
        self.note(call, &name, outcome, content);
        if fate.dies == Some(Death::Unanswered) {
            self.die(call, &name, "dies before the answer").await;
        }
        self.wait(fate.answered).await;
        result
    }

    /// A request that only asks. What it sees is as of the moment when it arrives.
    async fn ask<T>(
        &self,
        call: Call,
        name: &str,
        see: impl FnOnce(&mut Inner, Option<Class>) -> Result<(T, u64)>,
    ) -> Result<T> {
        if self.healthy {
            return see(&mut self.world.lock(), None).map(|(seen, _)| seen);
        }
        let (fate, sent) = self.send(call, name)?;
        if matches!(fate.dies, Some(Death::Unsent | Death::UnderWay)) {
            self.die(call, name, "dies before it is asked").await;
        }
        self.wait(fate.arrives).await;
        let now = self.world.now();
        let (result, outcome, content) = {
            let mut inner = self.world.lock();
            inner.catch_up(now);
            inner.done(sent);
            match fate.fault {
                Some(class @ (Class::FailBefore | Class::Throttled)) => {
                    inner.fire(class);
                    (Err(broken("500")), "500", 0)
                }
                fault => match see(&mut inner, fault) {
                    Ok((seen, content)) => {
                        (Ok(seen), if fault.is_some() { "broken" } else { "seen" }, content)
                    }
                    Err(error) => (Err(error), "absent", 0),
                },
            }
        };
        if matches!(fate.fault, Some(Class::ShortRead | Class::BitFlip)) {
            self.life.broken_reads.fetch_add(1, Ordering::Relaxed);
        }
        self.note(call, name, outcome, content);
        if fate.dies == Some(Death::Unanswered) {
            self.die(call, name, "dies before the answer").await;
        }
        self.wait(fate.answered).await;
        result
    }
}

impl Inner {
    fn get(&mut self, path: &Path, options: &GetOptions, fault: Option<Class>) -> Result<(GetResult, u64)> {
        let object = self.objects.get(path.as_ref()).cloned().ok_or_else(|| absent(path))?;
        let size = object.bytes.len() as u64;
        let range = match &options.range {
            Some(range) => range.as_range(size).map_err(|e| broken(&e.to_string()))?,
            None => 0..size,
        };
        let mut bytes = match options.head {
            true => Bytes::new(),
            false => object.bytes.slice(range.start as usize..range.end as usize),
        };
        let content = xxh3_64(&bytes);
        if !bytes.is_empty() {
            match fault {
                Some(Class::ShortRead) => {
                    bytes.truncate(self.rng.below(bytes.len() as u64) as usize);
                    self.fire(Class::ShortRead);
                }
                Some(Class::BitFlip) => {
                    let mut damaged = bytes.to_vec();
                    let at = self.rng.below(damaged.len() as u64) as usize;
                    damaged[at] ^= 1 << self.rng.below(8);
                    bytes = damaged.into();
                    self.fire(Class::BitFlip);
                }
                _ => {}
            }
        }
        let payload = GetResultPayload::Stream(stream::iter([Ok(bytes)]).boxed());
        let meta = object.meta(path.as_ref());
        Ok((GetResult { payload, meta, range, attributes: Attributes::new() }, content))
    }

    fn list(&mut self, prefix: &str, fault: Option<Class>) -> Result<(Vec<ObjectMeta>, u64)> {
        let within =
            |name: &str| prefix.is_empty() || name.strip_prefix(prefix).is_some_and(|n| n.starts_with('/'));
        let mut shown: BTreeMap<String, Object> = self
            .objects
            .iter()
            .filter(|(name, _)| within(name))
            .map(|(name, object)| (name.clone(), object.clone()))
            .collect();
        if fault == Some(Class::StaleList) {
            let mut stale = false;
            for at in (0..self.changes.len()).rev() {
                let (_, name, before) = self.changes[at].clone();
                if within(&name) && self.rng.chance(500) {
                    stale = true;
                    match before {
                        Some(object) => drop(shown.insert(name, object)),
                        None => drop(shown.remove(&name)),
                    }
                }
            }
            if stale {
                self.fire(Class::StaleList);
            }
        }
        let content = shown.len() as u64;
        Ok((shown.iter().map(|(name, object)| object.meta(name)).collect(), content))
    }
}

impl Object {
    fn meta(&self, name: &str) -> ObjectMeta {
        ObjectMeta {
            location: Path::from(name),
            last_modified: store_time(self.modified),
            size: self.bytes.len() as u64,
            e_tag: Some(self.tag.to_string()),
            version: None,
        }
    }
}

/// The store's own clock.
fn store_time(milliseconds: u64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000 + milliseconds as i64).unwrap_or_default()
}

/// Whether the caller is a thread aside that reads a source for somebody: it neither waits nor dies.
fn aside() -> bool {
    Handle::try_current().is_ok_and(|handle| handle.runtime_flavor() == RuntimeFlavor::MultiThread)
}

fn broken(why: &str) -> Error {
    Error::Generic { store: "simulated", source: why.to_owned().into() }
}

fn exists(name: &str) -> Error {
    Error::AlreadyExists { path: name.into(), source: "simulated".into() }
}

fn precondition(name: &str) -> Error {
    Error::Precondition { path: name.into(), source: "simulated".into() }
}

fn absent(path: &Path) -> Error {
    Error::NotFound { path: path.to_string(), source: "simulated".into() }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Client({})", self.actor)
    }
}

impl std::fmt::Display for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "simulated")
    }
}

fn joined(payload: &PutPayload) -> Bytes {
    match payload.as_ref() {
        [one] => one.clone(),
        many => many.concat().into(),
    }
}

#[async_trait]
impl ObjectStore for Client {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let once = options.mode == PutMode::Create;
        let effect = Effect::Put { name: path.to_string(), bytes: joined(&payload), once };
        match self.change(if once { Call::PutOnce } else { Call::Put }, effect).await? {
            true => Ok(PutResult { e_tag: None, version: None }),
            false => Err(exists(path.as_ref())),
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let name = path.to_string();
        Ok(Box::new(Upload { client: self.clone(), name, parts: Arc::default(), number: 0 }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.ask(Call::Get, path.as_ref(), |inner, fault| inner.get(path, &options, fault)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let client = self.clone();
        paths
            .then(move |path| {
                let client = client.clone();
                async move {
                    let path = path?;
                    client.change(Call::Delete, Effect::Delete { name: path.to_string() }).await?;
                    Ok(path)
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (client, prefix) = (self.clone(), prefix.map_or_else(String::new, ToString::to_string));
        stream::once(async move {
            let listed = client.ask(Call::List, &prefix, |inner, fault| inner.list(&prefix, fault)).await?;
            Ok::<_, Error>(stream::iter(listed.into_iter().map(Ok)))
        })
        .try_flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(broken("nobody lists like this"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(broken("nobody copies"))
    }
}

/// A multipart upload: nothing is seen of it until it is complete.
struct Upload {
    client: Client,
    name: String,
    parts: Arc<Mutex<BTreeMap<usize, Bytes>>>,
    number: usize,
}

impl std::fmt::Debug for Upload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Upload({})", self.name)
    }
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, payload: PutPayload) -> UploadPart {
        let (client, name, parts) = (self.client.clone(), self.name.clone(), Arc::clone(&self.parts));
        let number = self.number;
        self.number += 1;
        Box::pin(async move {
            let bytes = joined(&payload);
            client
                .ask(Call::Part, &format!("{name}#{number}"), |inner, fault| {
                    parts.lock().unwrap_or_else(PoisonError::into_inner).insert(number, bytes.clone());
                    if fault == Some(Class::TornMultipart) {
                        inner.fire(Class::TornMultipart);
                        return Err(broken("a part was lost"));
                    }
                    Ok(((), xxh3_64(&bytes)))
                })
                .await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let parts = std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        if parts.len() != self.number {
            return Err(broken("a part is missing"));
        }
        let bytes: Vec<u8> = parts.values().flat_map(|part| part.iter().copied()).collect();
        let effect = Effect::Put { name: self.name.clone(), bytes: bytes.into(), once: false };
        self.client.change(Call::Complete, effect).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
