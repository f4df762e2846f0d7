//! The checks, one a promise. Each uses names of its own.

use super::{Answer, Certificate, Certifier, Finding, Latency, Promise, race};
use crate::clock::{self, Stopwatch};
use crate::error::{Error, Result};
use crate::store::{Listed, Put, Store};
use bytes::Bytes;
use futures::future::{BoxFuture, join_all, try_join_all};
use futures::{FutureExt, StreamExt, stream};
use std::sync::PoisonError;

/// More than one part of an upload, and more than one piece of a download.
const LARGE: usize = (17 << 20) + 5;

/// How often a put whose answer was unclear is tried under another name.
const TRIES: usize = 3;

/// What a check has seen.
#[derive(Debug)]
pub(super) enum Outcome {
    Kept(String),
    Broken(String),
}

use Outcome::{Broken, Kept};

/// Milliseconds of requests that were made one after the other.
#[derive(Debug, Default)]
pub(super) struct Times {
    put: Vec<f64>,
    get: Vec<f64>,
    list: Vec<f64>,
    clock_ahead: Option<f64>,
}

/// Whether the store knows conditional puts, and keeps them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Conditions {
    Kept,
    Ignored,
    /// It refuses them as something that it does not know.
    Unknown,
}

pub(super) async fn run(certifier: &Certifier) -> Certificate {
    let everything = certifier.extent.everything;
    let mut certificate = Certificate {
        clients: certifier.clients.len(),
        rounds: certifier.extent.rounds,
        ..Certificate::default()
    };
    let (conditions, mut findings) = if certifier.side_by_side() {
        // Nearly every store knows conditional puts. Where one does not, the others are checked again without.
        let (asked, others) = futures::join!(certifier.create_once(), certifier.others(true));
        let (conditions, mut findings) = asked;
        findings.extend(match conditions {
            Some(Conditions::Unknown) => certifier.others(false).await,
            Some(_) => others,
            None => Vec::new(),
        });
        (conditions, findings)
    } else {
        let (conditions, mut findings) = certifier.create_once().await;
        if let Some(conditions) = conditions {
            findings.extend(certifier.others(conditions != Conditions::Unknown).await);
        }
        (conditions, findings)
    };
    let of = |seen: &[Finding], promise| seen.iter().any(|finding| finding.promise == promise);
    for promise in Promise::ALL {
        let wanted = everything
            || !matches!(promise, Promise::ListAfterDelete | Promise::Ranges | Promise::LargeObject);
        if wanted && !of(&findings, promise) {
            let seen = match conditions {
                Some(_) if promise == Promise::CreateAfterDelete => {
                    // Without conditions any name can be written to again.
                    findings.push(Finding {
                        promise,
                        answer: Answer::Kept,
                        seen: "every write succeeds".into(),
                    });
                    continue;
                }
                Some(_) => "the store knows no conditional creates",
                None => "the first create got no clear answer",
            };
            findings.push(Finding { promise, answer: Answer::NotChecked, seen: seen.into() });
        }
    }
    findings.sort_by_key(|finding| finding.promise);
    certificate.findings = findings;
    let mut times = certifier.times.lock().unwrap_or_else(PoisonError::into_inner);
    certificate.put = latency(&mut times.put);
    certificate.get = latency(&mut times.get);
    certificate.list = latency(&mut times.list);
    certificate.clock_ahead_seconds = times.clock_ahead;
    certificate
}

async fn check(promise: Promise, seen: impl Future<Output = Result<Outcome>>) -> Finding {
    finding(promise, seen.await)
}

fn finding(promise: Promise, seen: Result<Outcome>) -> Finding {
    let (answer, seen) = match seen {
        Ok(Kept(seen)) => (Answer::Kept, seen),
        Ok(Broken(seen)) => (Answer::Broken, seen),
        // The store said something that cannot be; anything else is no answer.
        Err(error @ Error::Corrupt { .. }) => (Answer::Broken, error.to_string()),
        Err(error) => (Answer::NotChecked, error.to_string()),
    };
    Finding { promise, answer, seen }
}

fn latency(times: &mut [f64]) -> Latency {
    times.sort_unstable_by(f64::total_cmp);
    let at = |index: usize| times.get(index).copied().unwrap_or_default();
    Latency {
        requests: times.len(),
        median_ms: at(times.len() / 2),
        worst_ms: at(times.len().saturating_sub(1)),
    }
}

impl Certifier {
    /// Whether checks run at the same time: where each request may be slow and whoever creates a table waits. Otherwise one
    /// follows the other, so that what a request takes can be told.
    fn side_by_side(&self) -> bool {
        !self.extent.everything && self.client.local_path("").is_none()
    }

    /// All promises but those about [creating twice](Self::create_once).
    async fn others(&self, conditional: bool) -> Vec<Finding> {
        let mut checks: Vec<BoxFuture<'_, Finding>> = Vec::new();
        if conditional {
            checks.push(check(Promise::Race, self.race()).boxed());
        }
        checks.push(check(Promise::ReadAfterWrite, self.read_after_write(conditional)).boxed());
        checks.push(check(Promise::ReadAfterDelete, self.read_after_delete(conditional)).boxed());
        if conditional {
            checks.push(check(Promise::CreateAfterDelete, self.create_after_delete()).boxed());
        }
        checks.push(check(Promise::ListAfterWrite, self.list_after_write(conditional)).boxed());
        if self.extent.everything {
            checks.push(check(Promise::ListAfterDelete, self.list_after_delete(conditional)).boxed());
            checks.push(check(Promise::Ranges, self.ranges(conditional)).boxed());
            checks.push(check(Promise::LargeObject, self.large_object()).boxed());
        }
        let at_a_time = if self.side_by_side() { checks.len() } else { 1 };
        stream::iter(checks).buffered(at_a_time).collect().await
    }

    /// Some clients, as many as ask at the same time.
    fn some_clients(&self) -> impl Iterator<Item = &Store> {
        self.clients.iter().take(3)
    }

    /// Whether any of some clients sees an object of this name.
    async fn is_seen(&self, name: &str) -> Result<bool> {
        let looks = self.some_clients().map(|client| async move {
            let (got, head) = futures::try_join!(client.get(name), client.head(name))?;
            Ok(got.is_some() || head.is_some())
        });
        Ok(try_join_all(looks).await?.contains(&true))
    }

    fn go_on(&self) -> Result<()> {
        if self.progress.is_cancelled() { Err(Error::Interrupted) } else { Ok(()) }
    }

    /// A name that was never used, and will be cleaned up.
    fn name(&self) -> String {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        let name = format!("{}/{:04}", self.folder, written.len());
        written.insert(name.clone());
        name
    }

    fn timed(&self, watch: Stopwatch, of: fn(&mut Times) -> &mut Vec<f64>) {
        of(&mut self.times.lock().unwrap_or_else(PoisonError::into_inner)).push(watch.seconds() * 1000.0);
    }

    async fn put_once(&self, name: &str, bytes: &Bytes) -> Put {
        let watch = Stopwatch::start();
        let put = self.client.put_once(name, bytes.clone()).await;
        self.timed(watch, |times| &mut times.put);
        put
    }

    async fn get(&self, name: &str) -> Result<Option<Bytes>> {
        let watch = Stopwatch::start();
        let got = self.client.get(name).await;
        self.timed(watch, |times| &mut times.get);
        got
    }

    async fn list(&self, name: &str) -> Result<Option<Listed>> {
        let watch = Stopwatch::start();
        let listed = self.client.list(&self.folder).await;
        self.timed(watch, |times| &mut times.list);
        Ok(listed?.into_iter().find(|listed| listed.name == name))
    }

    /// Writes a new object, by a conditional put if the store knows such.
    async fn write(&self, name: &str, bytes: &Bytes, conditional: bool) -> Result<()> {
        if conditional {
            match self.put_once(name, bytes).await {
                Put::Landed => return Ok(()),
                Put::Taken => {}
                Put::Failed(error) | Put::Unknown(error) if matches!(error, Error::Refused(_)) => {
                    return Err(error);
                }
                Put::Failed(_) | Put::Unknown(_) => {}
            }
        }
        self.client.put(name, bytes.clone()).await
    }

    /// [`Promise::CreateOnce`] and [`Promise::RefusedWrite`]. `None`: the store gave no clear answer at all.
    async fn create_once(&self) -> (Option<Conditions>, Vec<Finding>) {
        let mut findings = Vec::new();
        let mut conditions = Conditions::Kept;
        for _ in 0..self.extent.rounds {
            let (created, refused) = if self.side_by_side() {
                let (created, refused) = futures::join!(self.create_twice(), self.refused_write());
                (created, Some(refused))
            } else {
                (self.create_twice().await, None)
            };
            let (seen, outcome) = match created {
                Ok(seen) => seen,
                Err(error) => {
                    findings.push(finding(Promise::CreateOnce, Err(error)));
                    return (None, findings);
                }
            };
            let refused = match (seen, refused) {
                (Conditions::Kept, Some(refused)) => refused,
                (Conditions::Kept, None) => self.refused_write().await,
                _ => Ok(Broken(String::new())),
            };
            conditions = seen;
            findings = vec![finding(Promise::CreateOnce, Ok(outcome))];
            if seen != Conditions::Kept {
                let seen = "no create was refused".into();
                findings.push(Finding { promise: Promise::RefusedWrite, answer: Answer::NotChecked, seen });
                break;
            }
            findings.push(finding(Promise::RefusedWrite, refused));
            if findings.iter().any(|finding| finding.answer != Answer::Kept) {
                break;
            }
        }
        (Some(conditions), findings)
    }

    async fn create_twice(&self) -> Result<(Conditions, Outcome)> {
        self.go_on()?;
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"second"));
        let name = match self.create(&first).await? {
            Ok(name) => name,
            Err((conditions, seen)) => return Ok((conditions, Broken(seen))),
        };
        for _ in 0..TRIES {
            match self.put_once(&name, &second).await {
                Put::Taken => {
                    return Ok((Conditions::Kept, Kept("a second create of one name was refused".into())));
                }
                Put::Landed => {
                    let seen = "it ignores If-None-Match (a second create of one name succeeded)".into();
                    return Ok((Conditions::Ignored, Broken(seen)));
                }
                Put::Failed(error) | Put::Unknown(error) => drop(error),
            }
        }
        match self.put_once(&name, &second).await {
            Put::Failed(error) | Put::Unknown(error) => Err(error),
            _ => Err(Error::store("write", name, "the store answers now so, now so")),
        }
    }

    /// Creates an object under a fresh name; in `Err` what is wrong with that.
    async fn create(&self, bytes: &Bytes) -> Result<Result<String, (Conditions, String)>> {
        let mut last = None;
        for _ in 0..TRIES {
            let name = self.name();
            match self.put_once(&name, bytes).await {
                Put::Landed => return Ok(Ok(name)),
                Put::Taken => last = None,
                Put::Failed(Error::Refused(why)) | Put::Unknown(Error::Refused(why)) => {
                    return Ok(Err((Conditions::Unknown, why)));
                }
                Put::Failed(error) | Put::Unknown(error) => last = Some(error),
            }
        }
        match last {
            Some(error) => Err(error),
            None => Ok(Err((Conditions::Unknown, "it reports fresh names as taken".into()))),
        }
    }

    async fn refused_write(&self) -> Result<Outcome> {
        let (first, second) = (Bytes::from_static(b"first"), Bytes::from_static(b"the second"));
        let name = self.name();
        match self.put_once(&name, &first).await {
            Put::Landed => {}
            Put::Taken => return Err(Error::store("write", name, "the create got no clear answer")),
            Put::Failed(error) | Put::Unknown(error) => return Err(error),
        }
        let puts = join_all(self.some_clients().map(|client| client.put_once(&name, second.clone()))).await;
        if puts.iter().any(|put| matches!(put, Put::Landed)) {
            return Ok(Broken("a second create of one name succeeded".into()));
        }
        let (got, head) = futures::try_join!(self.client.get(&name), self.client.head(&name))?;
        if got.as_ref() != Some(&first) {
            return Ok(Broken("the object is another one, or gone, after refused creates".into()));
        }
        // Side by side with the checks of listings, this one would remind a forgetful store.
        let listed = if self.side_by_side() { None } else { self.list(&name).await? };
        // A listing that does not show it is another promise's business.
        if [head, listed].iter().flatten().any(|listed| listed.size != first.len() as u64) {
            return Ok(Broken("its size is another one after refused creates".into()));
        }
        Ok(Kept("bytes and size stayed those of the first".into()))
    }

    async fn race(&self) -> Result<Outcome> {
        race::races(&self.clients, self.extent.rounds, || self.go_on().map(|()| self.name())).await
    }

    async fn read_after_write(&self, conditional: bool) -> Result<Outcome> {
        for round in 0..self.extent.rounds {
            self.go_on()?;
            let (name, bytes) = (self.name(), Bytes::from(format!("round {round}")));
            // Whoever has just seen that it is absent must not go on believing it.
            if self.is_seen(&name).await? {
                return Ok(Broken("a name that was never written to has an object".into()));
            }
            let before = clock::now();
            self.write(&name, &bytes, conditional).await?;
            let after = clock::now();
            if self.get(&name).await?.as_ref() != Some(&bytes) {
                return Ok(Broken("an object that was just written is absent, or another one".into()));
            }
            let reads = try_join_all(self.some_clients().map(|client| client.get(&name)));
            let (reads, head) = futures::try_join!(reads, self.client.head(&name))?;
            if reads.iter().any(|read| read.as_ref() != Some(&bytes)) {
                return Ok(Broken("another client does not read what was just written".into()));
            }
            let Some(head) = head.filter(|head| head.size == bytes.len() as u64) else {
                return Ok(Broken("the size of an object that was just written is absent or wrong".into()));
            };
            let middle = before + (after - before) / 2;
            let ahead = (head.modified - middle).as_seconds_f64();
            self.times.lock().unwrap_or_else(PoisonError::into_inner).clock_ahead = Some(ahead);
        }
        Ok(Kept("every object was read back at once, after it had been seen to be absent".into()))
    }

    async fn read_after_delete(&self, conditional: bool) -> Result<Outcome> {
        for _ in 0..self.extent.rounds {
            self.go_on()?;
            let name = self.name();
            self.write(&name, &Bytes::from_static(b"to be deleted"), conditional).await?;
            let _ = self.get(&name).await?;
            self.client.delete(&name).await?;
            if self.is_seen(&name).await? {
                return Ok(Broken("an object that was just deleted can still be read".into()));
            }
        }
        Ok(Kept("no deleted object was read".into()))
    }

    async fn create_after_delete(&self) -> Result<Outcome> {
        let bytes = [Bytes::from_static(b"before"), Bytes::from_static(b"and after")];
        for _ in 0..self.extent.rounds {
            self.go_on()?;
            let name = match self.create(&bytes[0]).await? {
                Ok(name) => name,
                Err((_, why)) => return Ok(Broken(why)),
            };
            self.client.delete(&name).await?;
            match self.put_once(&name, &bytes[1]).await {
                Put::Landed => {}
                Put::Taken if self.get(&name).await?.is_none() => {
                    return Ok(Broken("a create of a name whose object was deleted was refused".into()));
                }
                Put::Taken => {}
                Put::Failed(error) | Put::Unknown(error) => return Err(error),
            }
            if self.get(&name).await?.as_ref() != Some(&bytes[1]) {
                return Ok(Broken("what was created after a delete is not read back".into()));
            }
        }
        Ok(Kept("it landed, and its bytes were read back".into()))
    }

    async fn list_after_write(&self, conditional: bool) -> Result<Outcome> {
        for round in 0..self.extent.rounds {
            self.go_on()?;
            let (name, bytes) = (self.name(), Bytes::from("x".repeat(round + 1)));
            if self.list(&name).await?.is_some() {
                return Ok(Broken("a listing shows an object that was never written".into()));
            }
            self.write(&name, &bytes, conditional).await?;
            match self.list(&name).await? {
                None => {
                    return Ok(Broken("its listing does not show an object that was just written".into()));
                }
                Some(listed) if listed.size != bytes.len() as u64 => {
                    return Ok(Broken(format!("its listing says {} bytes of {}", listed.size, bytes.len())));
                }
                Some(_) => {}
            }
        }
        Ok(Kept("every object was listed at once, with its size".into()))
    }

    async fn list_after_delete(&self, conditional: bool) -> Result<Outcome> {
        for _ in 0..self.extent.rounds {
            self.go_on()?;
            let name = self.name();
            self.write(&name, &Bytes::from_static(b"to be deleted"), conditional).await?;
            let _ = self.list(&name).await?;
            self.client.delete(&name).await?;
            if self.list(&name).await?.is_some() {
                return Ok(Broken("its listing shows an object that was just deleted".into()));
            }
        }
        Ok(Kept("no deleted object was listed".into()))
    }

    async fn ranges(&self, conditional: bool) -> Result<Outcome> {
        self.go_on()?;
        let name = self.name();
        let whole = pattern(100_003);
        let size = whole.len() as u64;
        self.write(&name, &whole, conditional).await?;
        let ranges = [0..1, 0..size, 1..4096, size / 2..size / 2 + 77, size - 1..size];
        for range in ranges.clone() {
            let wanted = whole.slice(range.start as usize..range.end as usize);
            if self.client.get_range(&name, range.clone()).await? != wanted {
                return Ok(Broken(format!("bytes {} to {} are others", range.start, range.end)));
            }
        }
        let got = self.client.get_ranges(&name, &ranges).await?;
        let wanted = ranges.iter().map(|range| whole.slice(range.start as usize..range.end as usize));
        if !got.into_iter().eq(wanted) {
            return Ok(Broken("several ranges asked for at once are others".into()));
        }
        if self.client.get_range(&name, size - 1..size + 1).await.is_ok() {
            return Ok(Broken("it answers for bytes behind an object's end".into()));
        }
        let heads = [self.client.head(&name).await?, self.list(&name).await?];
        if let Some(wrong) = heads.iter().flatten().find(|listed| listed.size != size) {
            return Ok(Broken(format!("an object of {size} bytes is said to have {}", wrong.size)));
        }
        Ok(Kept(format!("{} ranges of an object of {size} bytes", ranges.len())))
    }

    async fn large_object(&self) -> Result<Outcome> {
        let name = self.name();
        let whole = pattern(LARGE);
        let mut upload = self.client.create(&name).await?;
        for piece in whole.chunks(1 << 20) {
            self.go_on()?;
            upload.write(whole.slice_ref(piece)).await?;
        }
        if self.client.head(&name).await?.is_some() {
            return Ok(Broken("it can be seen before it is complete".into()));
        }
        upload.finish().await?;
        let heads = [self.client.head(&name).await?, self.list(&name).await?];
        if let Some(wrong) = heads.iter().flatten().find(|listed| listed.size != LARGE as u64) {
            return Ok(Broken(format!("{LARGE} bytes were uploaded, and it is said to have {}", wrong.size)));
        }
        if self.client.get(&name).await?.as_ref() != Some(&whole) {
            return Ok(Broken("what is read back is not what was uploaded".into()));
        }
        Ok(Kept(format!("{LARGE} bytes appeared at the end of the upload, all of them")))
    }
}

/// Bytes of which no two stretches are alike.
fn pattern(length: usize) -> Bytes {
    (0..length as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}
