//! Who is at work on a table, as their leases tell. Information only, so this machine's clock may judge their age.

use serde::Serialize;

use super::render::{self, Align};
use crate::clock;
use crate::error::Result;
use crate::lease::{Done, Found, Kind, leases};
use crate::ledger::State;
use crate::store::Store;

/// A session that holds a lease, or held one when it ended.
#[derive(Debug, Serialize)]
pub(super) struct Writer {
    session: String,
    /// Host and process.
    pub(super) writer: String,
    kind: Kind,
    /// How many ledger entries it had seen when it began.
    pub(super) stage: u64,
    /// When it began, by its own clock.
    pub(super) began: String,
    /// When its lease was renewed last, by the store's clock.
    renewed: String,
    /// Whether its lease is alive. If not, the session has died, or sleeps, or its machine cannot reach the store.
    pub(super) alive: bool,
    /// Whether it began below the floor: it cannot commit what it staged then.
    pub(super) fenced: bool,
    pub(super) batch: Option<String>,
    #[serde(flatten)]
    pub(super) done: Done,
}

/// All sessions with a lease, the one that began first before the others. Leases that are not understood are left out.
pub(super) async fn in_flight(store: &Store, state: &State) -> Result<Vec<Writer>> {
    let found = leases(store).await?;
    // This machine's clock may be behind the store's.
    let now = found.iter().map(|found| found.object.modified).fold(clock::now(), |now, at| now.max(at));
    let writer = |found: &Found| {
        let lease = found.lease.clone()?;
        Some(Writer {
            alive: found.is_alive(now),
            renewed: found.object.modified.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
            fenced: lease.kind != Kind::Vacuum && lease.stage < state.floor,
            session: lease.session,
            writer: lease.writer,
            kind: lease.kind,
            stage: lease.stage,
            began: lease.began,
            batch: lease.batch,
            done: lease.done,
        })
    };
    let mut writers: Vec<Writer> = found.iter().filter_map(writer).collect();
    writers.sort_by(|a, b| (a.stage, &a.session).cmp(&(b.stage, &b.session)));
    Ok(writers)
}

/// A table of them; nothing if there are none.
pub(super) fn text(writers: &[Writer]) -> String {
    if writers.is_empty() {
        return String::new();
    }
    let header = [
        ("writer", Align::Left),
        ("kind", Align::Left),
        ("since", Align::Left),
        ("lease", Align::Left),
        ("stage", Align::Right),
        ("rows", Align::Right),
        ("staged", Align::Right),
        ("batch", Align::Left),
    ];
    let kind = |kind: Kind| match kind {
        Kind::Ingest => "ingest",
        Kind::Compact => "compact",
        Kind::Vacuum => "vacuum",
    };
    let row = |writer: &Writer| {
        let lease = match (writer.alive, writer.fenced) {
            (_, true) => "fenced off",
            (true, false) => "alive",
            (false, false) => "overdue",
        };
        vec![
            writer.writer.clone(),
            kind(writer.kind).into(),
            writer.began.clone(),
            lease.into(),
            render::number(writer.stage),
            render::number(writer.done.rows),
            render::size(writer.done.bytes),
            writer.batch.clone().unwrap_or_default(),
        ]
    };
    format!("\nIN FLIGHT\n{}", render::table(&header, writers.iter().map(row)))
}
