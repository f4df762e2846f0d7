//! An object store that answers as badly as real ones do: scripted call by call, or at random from a seed.
//!
//! Wrap any store, put it under [`dedupe::store::Store::from_object_store`], and either say what happens to the next
//! call ([`FaultStore::next`], [`FaultStore::always`]) or let a seed decide ([`FaultStore::seeded`]). What happened is
//! kept in [`FaultStore::calls`] and [`FaultStore::fired`]. Nothing here reads a clock or draws randomness, so one
//! seed and one order of calls give one history.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// What a call does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Call {
    Put,
    Get,
    List,
    Delete,
}

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// It happens, and the answer is an error.
    AckLost,
    /// It does not happen, and the answer is an error. (For gets and lists: the error is all there is.)
    NotDone,
    /// A put that happens and is answered "already exists": the client met its own first attempt.
    OwnExists,
    /// A put that does not happen and is answered "already exists": S3's 409.
    FakeExists,
    /// A put that is answered with an error and happens later, see [`FaultStore::land_late`].
    Late,
    /// Nothing goes wrong, but all late puts land just before.
    AfterLate,
    /// A get of a whole object in which the lowest bit of this byte is wrong.
    WrongBit(u16),
    /// A list that does not show what the last put made.
    Stale,
    /// Nothing goes wrong, but it takes so many milliseconds.
    Slow(u16),
}

/// How often something goes wrong in a seeded store, in thousandths of the calls.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    pub put: u16,
    pub get: u16,
    pub list: u16,
    pub delete: u16,
    /// Before any call, a late put lands.
    pub lands: u16,
}

impl Default for Rates {
    /// As bad as in the longest nights.
    fn default() -> Self {
        Self { put: 200, get: 100, list: 100, delete: 100, lands: 100 }
    }
}

/// The store.
#[derive(Debug)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    control: Arc<Mutex<Control>>,
}

#[derive(Debug, Default)]
struct Control {
    script: VecDeque<Rule>,
    seeded: Option<(Rates, u64)>,
    late: Vec<(Path, PutPayload, PutOptions)>,
    last_put: Option<Path>,
    calls: Vec<(Call, String)>,
    fired: BTreeMap<(Call, Fault), u64>,
}

#[derive(Debug, Clone)]
struct Rule {
    call: Call,
    part: String,
    fault: Fault,
    /// How often it still applies; `None` = always.
    left: Option<u32>,
}

impl FaultStore {
    /// A store without faults, until some are asked for.
    pub fn new(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        Arc::new(Self { inner, control: Arc::default() })
    }

    /// A store whose faults are drawn from `seed`.
    pub fn seeded(inner: Arc<dyn ObjectStore>, seed: u64, rates: Rates) -> Arc<Self> {
        let store = Self::new(inner);
        store.control().seeded = Some((rates, seed));
        store
    }

    /// The next `call` on an object whose name contains `part` suffers `fault`. Several are served in order.
    pub fn next(&self, call: Call, part: &str, fault: Fault) {
        self.rule(call, part, fault, Some(1));
    }

    /// As [`Self::next`], for so many calls.
    pub fn times(&self, times: u32, call: Call, part: &str, fault: Fault) {
        self.rule(call, part, fault, Some(times));
    }

    /// As [`Self::next`], until [`Self::heal`].
    pub fn always(&self, call: Call, part: &str, fault: Fault) {
        self.rule(call, part, fault, None);
    }

    fn rule(&self, call: Call, part: &str, fault: Fault, left: Option<u32>) {
        self.control().script.push_back(Rule { call, part: part.to_owned(), fault, left });
    }

    /// From here on nothing goes wrong. Late puts stay under way.
    pub fn heal(&self) {
        let mut control = self.control();
        control.script.clear();
        control.seeded = None;
    }

    /// How many late puts are under way.
    pub fn late(&self) -> usize {
        self.control().late.len()
    }

    /// All late puts land now, in order; those whose name is taken by now are refused, as by any store.
    pub async fn land_late(&self) {
        let late = std::mem::take(&mut self.control().late);
        for (path, payload, options) in late {
            let _ = self.inner.put_opts(&path, payload, options).await;
        }
    }

    /// Every call so far, with the object's name.
    pub fn calls(&self) -> Vec<(Call, String)> {
        self.control().calls.clone()
    }

    /// How many calls of this kind there were on objects whose name contains `part`.
    pub fn count(&self, call: Call, part: &str) -> usize {
        self.control().calls.iter().filter(|(c, name)| *c == call && name.contains(part)).count()
    }

    /// How often each fault fired.
    pub fn fired(&self) -> BTreeMap<(Call, Fault), u64> {
        self.control().fired.clone()
    }

    fn control(&self) -> MutexGuard<'_, Control> {
        lock(&self.control)
    }

    /// Notes the call, lets late puts land, waits if it is to be slow, and says what goes wrong.
    async fn begin(&self, call: Call, path: &Path) -> Option<Fault> {
        let (fault, lands) = {
            let mut control = self.control();
            let lands = control.lands();
            (control.begin(call, path.as_ref()), lands)
        };
        if let Some((path, payload, options)) = lands {
            let _ = self.inner.put_opts(&path, payload, options).await;
        }
        match fault {
            Some(Fault::AfterLate) => self.land_late().await,
            Some(Fault::Slow(ms)) => tokio::time::sleep(Duration::from_millis(ms.into())).await,
            other => return other,
        }
        None
    }
}

impl Control {
    fn begin(&mut self, call: Call, name: &str) -> Option<Fault> {
        self.calls.push((call, name.to_owned()));
        let fault = self.scripted(call, name).or_else(|| self.drawn(call))?;
        *self.fired.entry((call, fault)).or_default() += 1;
        Some(fault)
    }

    fn scripted(&mut self, call: Call, name: &str) -> Option<Fault> {
        let at = self.script.iter().position(|rule| rule.call == call && name.contains(&rule.part))?;
        let rule = self.script.get_mut(at)?;
        let fault = rule.fault;
        if let Some(left) = &mut rule.left {
            *left -= 1;
            if *left == 0 {
                self.script.remove(at);
            }
        }
        Some(fault)
    }

    fn drawn(&mut self, call: Call) -> Option<Fault> {
        let (rates, _) = self.seeded?;
        let (rate, faults): (u16, &[Fault]) = match call {
            Call::Put => (
                rates.put,
                &[
                    Fault::AckLost,
                    Fault::NotDone,
                    Fault::OwnExists,
                    Fault::FakeExists,
                    Fault::Late,
                    Fault::Slow(300),
                ],
            ),
            Call::Get => (rates.get, &[Fault::NotDone, Fault::Slow(300)]),
            Call::List => (rates.list, &[Fault::NotDone]),
            Call::Delete => (rates.delete, &[Fault::NotDone, Fault::AckLost]),
        };
        let hit = self.draw(1000) < u64::from(rate);
        let which = self.draw(faults.len() as u64);
        hit.then(|| faults[which as usize])
    }

    fn lands(&mut self) -> Option<(Path, PutPayload, PutOptions)> {
        let (rates, _) = self.seeded?;
        if self.late.is_empty() || self.draw(1000) >= u64::from(rates.lands) {
            return None;
        }
        let which = self.draw(self.late.len() as u64);
        Some(self.late.remove(which as usize))
    }

    /// SplitMix64.
    fn draw(&mut self, below: u64) -> u64 {
        let Some((_, state)) = &mut self.seeded else { return 0 };
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}

fn lock(control: &Mutex<Control>) -> MutexGuard<'_, Control> {
    control.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lost(call: Call) -> Error {
    Error::Generic { store: "faulty", source: format!("planted: the answer to {call:?} was lost").into() }
}

fn exists(path: &Path) -> Error {
    Error::AlreadyExists { path: path.to_string(), source: "planted".into() }
}

impl std::fmt::Display for FaultStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultStore({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.begin(Call::Put, path).await;
        match fault {
            Some(Fault::NotDone) => return Err(lost(Call::Put)),
            // Only a conditional put can be told that something exists.
            Some(Fault::FakeExists) if options.mode == PutMode::Create => return Err(exists(path)),
            Some(Fault::Late) => {
                self.control().late.push((path.clone(), payload, options));
                return Err(lost(Call::Put));
            }
            _ => {}
        }
        let conditional = options.mode == PutMode::Create;
        let result = self.inner.put_opts(path, payload, options).await?;
        self.control().last_put = Some(path.clone());
        match fault {
            Some(Fault::AckLost) => Err(lost(Call::Put)),
            Some(Fault::OwnExists) if conditional => Err(exists(path)),
            _ => Ok(result),
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        match self.begin(Call::Put, path).await {
            Some(Fault::NotDone | Fault::AckLost | Fault::Late) => Err(lost(Call::Put)),
            _ => self.inner.put_multipart_opts(path, options).await,
        }
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        match self.begin(Call::Get, path).await {
            Some(Fault::NotDone | Fault::AckLost) => Err(lost(Call::Get)),
            Some(Fault::WrongBit(at)) => {
                let found = self.inner.get_opts(path, options).await?;
                let (meta, range, attributes) =
                    (found.meta.clone(), found.range.clone(), found.attributes.clone());
                let mut bytes = found.bytes().await?.to_vec();
                if let Some(byte) = bytes.get_mut(usize::from(at)) {
                    *byte ^= 1;
                }
                let payload = GetResultPayload::Stream(stream::iter([Ok(bytes.into())]).boxed());
                Ok(GetResult { payload, meta, range, attributes })
            }
            _ => self.inner.get_opts(path, options).await,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (inner, control) = (Arc::clone(&self.inner), Arc::clone(&self.control));
        paths
            .then(move |path| {
                let (inner, control) = (Arc::clone(&inner), Arc::clone(&control));
                async move {
                    let path = path?;
                    let fault = lock(&control).begin(Call::Delete, path.as_ref());
                    if fault == Some(Fault::NotDone) {
                        return Err(lost(Call::Delete));
                    }
                    let mut deleted = inner.delete_stream(stream::iter([Ok(path.clone())]).boxed());
                    while let Some(result) = deleted.next().await {
                        result?;
                    }
                    if fault == Some(Fault::AckLost) { Err(lost(Call::Delete)) } else { Ok(path) }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (fault, hidden) = {
            let mut control = self.control();
            (control.begin(Call::List, prefix.map_or("", |p| p.as_ref())), control.last_put.clone())
        };
        match fault {
            Some(Fault::NotDone) => stream::iter([Err(lost(Call::List))]).boxed(),
            Some(Fault::Stale) => {
                let shown = move |meta: &Result<ObjectMeta>| {
                    let stale = meta.as_ref().is_ok_and(|meta| Some(&meta.location) == hidden.as_ref());
                    futures::future::ready(!stale)
                };
                self.inner.list(prefix).filter(shown).boxed()
            }
            _ => self.inner.list(prefix),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        match self.begin(Call::List, prefix.unwrap_or(&Path::default())).await {
            Some(Fault::NotDone | Fault::AckLost) => Err(lost(Call::List)),
            _ => self.inner.list_with_delimiter(prefix).await,
        }
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
