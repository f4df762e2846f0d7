//! Leases: what is in flight on a table, for people and for politeness.
//!
//! A session that lives for longer than a moment writes `_dedupe/session/<session>.json` and renews it while it lives.
//! A vacuum chooses its floor below the stage of every session whose lease is alive, and `dedupe status` shows them. **No
//! safety rests on a lease:** one that is lost, late, forged or absent makes a vacuum less polite, or holds it back, and
//! nothing else. Whether a lease is alive is judged by the store's own times.

mod held;

pub(crate) use held::Held;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::ledger::name;
use crate::store::{Listed, Store};

/// The format version of leases that this program writes, and the newest it reads.
const FORMAT: u32 = 1;

/// The largest lease that is read, in bytes.
const MAX_LEASE: u64 = 64 << 10;

/// How long a lease lasts without being renewed, in seconds.
pub const LEASE_SECONDS: u64 = 60;

/// The longest lease that is believed, in seconds: longer ones are of damaged or hostile origin.
pub const LONGEST: u64 = 3600;

/// A session and what it is doing, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Format version of this lease.
    pub format: u32,
    /// The session: 32 hexadecimal digits.
    pub session: String,
    /// Host and process, for people.
    pub writer: String,
    /// What the session is for.
    pub kind: Kind,
    /// How many ledger entries it had seen when it began: nothing it stages is below.
    pub stage: u64,
    /// When it began, by its own clock. Information only.
    pub began: String,
    /// How long this lease lasts without being renewed.
    pub lease_seconds: u64,
    /// The batch that its commit is to make idempotent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub batch: Option<String>,
    /// What it has done so far.
    #[serde(flatten)]
    pub done: Done,
}

/// What a session is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It adds rows.
    Ingest,
    /// It merges runs.
    Compact,
    /// It deletes garbage, and stages nothing.
    Vacuum,
}

/// What a session has done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// Sources begun.
    #[serde(default)]
    pub sources: u64,
    /// Rows judged, or tokens merged.
    #[serde(default)]
    pub rows: u64,
    /// Data files staged.
    #[serde(default)]
    pub files: u64,
    /// Bytes in them, and in those that are being written.
    #[serde(default)]
    pub bytes: u64,
}

impl Lease {
    /// The lease of a session that begins now.
    pub fn new(session: &str, writer: &str, kind: Kind, stage: u64) -> Self {
        Self {
            format: FORMAT,
            session: session.to_owned(),
            writer: writer.to_owned(),
            kind,
            stage,
            began: crate::clock::now_text(),
            lease_seconds: LEASE_SECONDS,
            batch: None,
            done: Done::default(),
        }
    }

    /// The object that this lease is kept in.
    pub fn object(&self) -> String {
        format!("{}/{}.json", name::SESSIONS, self.session)
    }

    /// Writes the lease, or renews it.
    pub(crate) async fn write(&self, store: &Store) -> Result<()> {
        let json = serde_json::to_vec_pretty(self);
        let json = json.map_err(|e| Error::Internal(format!("a lease cannot be written as JSON: {e}")))?;
        store.put(&self.object(), json.into()).await
    }

    fn parse(session: &str, bytes: &[u8]) -> Option<Self> {
        let lease: Self = serde_json::from_slice(bytes).ok()?;
        (lease.format <= FORMAT && lease.session == session).then_some(lease)
    }
}

/// A lease as it was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its object.
    pub object: Listed,
    /// What it says; `None` if that is not understood.
    pub lease: Option<Lease>,
}

impl Found {
    /// Whether its session is taken for alive at `now`: it is given the lease time once more, since clocks, listings
    /// and requests are never exact.
    pub fn is_alive(&self, now: DateTime<Utc>) -> bool {
        now.signed_duration_since(self.object.modified) <= self.lasts() * 2
    }

    /// How long it lasts without being renewed.
    pub(crate) fn lasts(&self) -> Duration {
        let seconds =
            self.lease.as_ref().map_or(LEASE_SECONDS, |lease| lease.lease_seconds).clamp(1, LONGEST);
        Duration::seconds(seconds as i64)
    }
}

/// The session that the object called `name` is the lease of, if that is the name of one.
pub(crate) fn session_of(name: &str) -> Option<&str> {
    let session = name.strip_prefix(name::SESSIONS)?.strip_prefix('/')?.strip_suffix(".json")?;
    let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    (session.len() == 32 && session.bytes().all(hex)).then_some(session)
}

/// All leases of a table, sorted by name.
pub async fn leases(store: &Store) -> Result<Vec<Found>> {
    read(store, store.list(name::SESSIONS).await?).await
}

/// Reads the leases among `listed` objects. One that is gone by now is left out.
pub(crate) async fn read(store: &Store, listed: Vec<Listed>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for object in listed {
        let Some(session) = session_of(&object.name) else { continue };
        let lease = match store.get_limited(&object.name, MAX_LEASE).await {
            Ok(Some(bytes)) => Lease::parse(session, &bytes),
            Ok(None) => continue,
            Err(Error::Corrupt { .. }) => None,
            Err(error) => return Err(error),
        };
        found.push(Found { object, lease });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use object_store::memory::InMemory;
    use std::sync::Arc;

    fn found(age: i64, lease: Option<Lease>) -> (Found, DateTime<Utc>) {
        let now = DateTime::UNIX_EPOCH + Duration::days(1);
        let modified = now - Duration::seconds(age);
        (Found { object: Listed { name: String::new(), size: 0, modified, etag: None }, lease }, now)
    }

    fn lease() -> Lease {
        Lease::new(&"0f".repeat(16), "host:1", Kind::Ingest, 7)
    }

    #[test]
    fn a_lease_is_alive_for_twice_its_time_and_a_hostile_one_not_for_ever() {
        for (age, seconds, alive) in [
            (0, 60, true),
            (120, 60, true),
            (121, 60, false),
            (-1_000_000, 60, true),
            (7200, u64::MAX, true),
            (7201, u64::MAX, false),
            (3, 0, false),
        ] {
            let (found, now) = found(age, Some(Lease { lease_seconds: seconds, ..lease() }));
            assert_eq!(found.is_alive(now), alive, "{age} {seconds}");
        }
        let (unreadable, now) = found(120, None);
        assert!(unreadable.is_alive(now));
    }

    #[tokio::test]
    async fn leases_read_back_and_what_is_none_is_told_apart() {
        let store = Store::from_object_store(Arc::new(InMemory::new()), "t", "memory:");
        let mut written = lease();
        written.batch = Some("b".into());
        written.done = Done { sources: 1, rows: 2, files: 3, bytes: 4 };
        written.write(&store).await.unwrap();
        let impostor = format!("{}/{}.json", name::SESSIONS, "1e".repeat(16));
        store.put(&impostor, serde_json::to_vec(&written).unwrap().into()).await.unwrap();
        let huge = format!("{}/{}.json", name::SESSIONS, "2d".repeat(16));
        store.put(&huge, vec![b' '; MAX_LEASE as usize + 1].into()).await.unwrap();
        store.put(&format!("{}/README", name::SESSIONS), "x".into()).await.unwrap();
        let found = leases(&store).await.unwrap();
        let read: Vec<_> = found.into_iter().map(|found| (found.object.name, found.lease)).collect();
        assert_eq!(read, [(written.object(), Some(written)), (impostor, None), (huge, None)]);
    }
}
