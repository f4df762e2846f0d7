//! Ctrl-C and SIGTERM.
//!
//! The first one asks an ingest to stop before its commit; if the commit has begun it is finished, which takes
//! moments. The second one ends the process at once. Other commands end at the first: they only read, or (compaction)
//! can be killed at any instant without harm.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use super::exit::Exit;
use super::screen::Screen;
use crate::report::Progress;

/// What came first, if anything did. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupts(Arc<AtomicU8>);

const TERMINATED: u8 = 15;
const INTERRUPTED: u8 = 2;

impl Interrupts {
    /// Watches from now on, on the runtime of the caller. `ingest` is the run to be stopped gently, if there is one.
    pub(super) fn watch(screen: &Screen, ingest: Option<Progress>) -> Self {
        let seen = Self::default();
        tokio::spawn(watch(seen.clone(), screen.clone(), ingest));
        seen
    }

    /// How a run ends that was stopped.
    pub(super) fn exit(&self) -> Exit {
        exit(self.0.load(Ordering::Relaxed))
    }
}

async fn watch(seen: Interrupts, screen: Screen, ingest: Option<Progress>) {
    let Ok(mut signals) = Signals::new() else {
        return screen.line("warning: signals cannot be watched; Ctrl-C ends at once");
    };
    let first = signals.next().await;
    let Some(ingest) = ingest else { leave(&screen, exit(first), "interrupted") };
    seen.0.store(first, Ordering::Relaxed);
    ingest.cancel();
    screen.line(if ingest.is_committing() {
        "finishing the commit that has begun (once more to end at once)"
    } else {
        "stopping before the commit (once more to end at once)"
    });
    let second = signals.next().await;
    if ingest.is_committing() {
        leave(
            &screen,
            Exit::Unknown,
            "interrupted while committing: the outcome is unknown; re-running is safe",
        );
    }
    leave(&screen, exit(second), "interrupted before the commit; the table is unchanged");
}

fn leave(screen: &Screen, exit: Exit, message: &str) -> ! {
    screen.set_bar(None);
    screen.line(&format!("error: {message}"));
    process::exit(exit.code().into())
}

fn exit(signal: u8) -> Exit {
    if signal == TERMINATED { Exit::Terminated } else { Exit::Interrupted }
}

#[cfg(unix)]
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    fn new() -> std::io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
        }
    }
}

#[cfg(not(unix))]
struct Signals;

#[cfg(not(unix))]
impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self)
    }

    async fn next(&mut self) -> u8 {
        match tokio::signal::ctrl_c().await {
            Ok(()) => INTERRUPTED,
            Err(_) => std::future::pending().await,
        }
    }
}
