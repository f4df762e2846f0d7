//! Ctrl-C and SIGTERM.
//!
//! The first one stops an ingest unless its commit has begun, which then is finished and takes moments, and makes
//! `doctor` clean up. The second one ends the process at once. Other commands end at the first: they only read, or
//! (compaction, vacuum) can be killed at any instant without harm.

use std::pin::pin;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::exit::Exit;
use super::screen::Screen;
use crate::error::{Error, Result};
use crate::report::Progress;

/// What came first, if anything did. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Interrupts(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    first: AtomicU8,
    asked: Notify,
}

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
        exit(self.0.first.load(Ordering::Relaxed))
    }

    /// Runs `ingest` to its end, or until it is to stop, has had `grace` to do so by itself, and its commit has not begun. Where that
    /// is so is certain: between two polls of a future nothing in it happens. What it has staged by then, no version names.
    pub(super) async fn stop_before_commit<T>(
        &self,
        progress: &Progress,
        grace: Duration,
        ingest: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let mut ingest = pin!(ingest);
        tokio::select! {
            ended = &mut ingest => return ended,
            () = self.0.asked.notified() => {}
        }
        if progress.is_committing() {
            return ingest.await;
        }
        match tokio::time::timeout(grace, &mut ingest).await {
            Ok(ended) => ended,
            Err(_) if progress.is_committing() => ingest.await,
            Err(_) => Err(Error::Interrupted),
        }
    }
}

async fn watch(seen: Interrupts, screen: Screen, ingest: Option<Progress>) {
    let Ok(mut signals) = Signals::new() else {
        return screen.line("warning: signals cannot be watched; Ctrl-C ends at once");
    };
    let first = signals.next().await;
    let Some(ingest) = ingest else { leave(&screen, exit(first), "interrupted") };
    seen.0.first.store(first, Ordering::Relaxed);
    screen.line(if ingest.is_committing() {
        "finishing the commit that has begun (once more to end at once)"
    } else {
        "stopping before the commit (once more to end at once)"
    });
    ingest.cancel();
    seen.0.asked.notify_one();
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::{pending, poll_fn, ready};
    use std::task::Poll;

    #[tokio::test]
    async fn a_run_that_waits_for_ever_is_stopped_before_its_commit() {
        let (interrupts, progress) = (Interrupts::default(), Progress::default());
        interrupts.0.asked.notify_one();
        let ended = interrupts.stop_before_commit(&progress, Duration::ZERO, pending::<Result<()>>()).await;
        assert!(matches!(ended, Err(Error::Interrupted)));
    }

    #[tokio::test]
    async fn a_commit_that_has_begun_is_finished() {
        let (interrupts, progress) = (Interrupts::default(), Progress::default());
        let mut polls = 0;
        let commit = poll_fn(|context| {
            polls += 1;
            progress.begin_commit();
            interrupts.0.asked.notify_one();
            context.waker().wake_by_ref();
            if polls < 5 { Poll::Pending } else { Poll::Ready(Ok(7)) }
        });
        assert_eq!(interrupts.stop_before_commit(&progress, Duration::ZERO, commit).await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_run_that_ends_by_itself_is_left_alone() {
        let ended = Interrupts::default()
            .stop_before_commit(&Progress::default(), Duration::ZERO, ready(Ok(1)))
            .await;
        assert_eq!(ended.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_has_its_grace_to_stop_by_itself_and_no_more() {
        let stopped = async |seconds| {
            let (interrupts, told) = (Interrupts::default(), Cell::new(false));
            interrupts.0.asked.notify_one();
            let run = async {
                tokio::time::sleep(Duration::from_secs(seconds)).await;
                told.set(true);
                Err::<(), _>(Error::Interrupted)
            };
            let ended =
                interrupts.stop_before_commit(&Progress::default(), Duration::from_secs(5), run).await;
            assert!(matches!(ended, Err(Error::Interrupted)));
            told.get()
        };
        assert!(stopped(4).await);
        assert!(!stopped(6).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_commit_that_begins_within_the_grace_is_finished() {
        let (interrupts, progress) = (Interrupts::default(), Progress::default());
        interrupts.0.asked.notify_one();
        let run = async {
            progress.begin_commit();
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(7)
        };
        assert_eq!(interrupts.stop_before_commit(&progress, Duration::from_secs(5), run).await.unwrap(), 7);
    }
}
