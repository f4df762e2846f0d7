//! The only file that reads a clock. Times are information for people; no decision about safety uses them.
//!
//! A simulation may put a clock of its own in place of the machine's, for one thread: [`drive`].

use std::cell::RefCell;
use std::rc::Rc;

use chrono::{DateTime, SecondsFormat, Utc};

type Clock = Rc<dyn Fn() -> DateTime<Utc>>;

thread_local! {
    static DRIVEN: RefCell<Option<Clock>> = const { RefCell::new(None) };
}

/// While it lives, its thread reads the clock given to [`drive`]; dropped, it puts the one before back.
#[must_use]
pub struct Driven(Option<Clock>);

/// Puts `clock` in place of the machine's, for everything that this thread does until the guard is dropped. It may
/// be skewed, jump and stand still: nothing but what people are shown depends on it. For simulations and tests.
pub fn drive(clock: impl Fn() -> DateTime<Utc> + 'static) -> Driven {
    Driven(DRIVEN.with(|driven| driven.replace(Some(Rc::new(clock)))))
}

impl Drop for Driven {
    fn drop(&mut self) {
        DRIVEN.with(|driven| driven.replace(self.0.take()));
    }
}

impl std::fmt::Debug for Driven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Driven")
    }
}

fn driven() -> Option<DateTime<Utc>> {
    let clock = DRIVEN.with(|driven| driven.borrow().clone())?;
    Some(clock())
}

/// The current time.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> DateTime<Utc> {
    driven().unwrap_or_else(Utc::now)
}

/// The current time as RFC 3339 in UTC with milliseconds, as manifests hold it.
pub fn now_text() -> String {
    now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The time by the runtime's timer, which is what pauses are counted by (and stands still where a test pauses it). It
/// decides how long to wait, and nothing else.
pub fn timer() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// A running stopwatch, for reports.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Started);

#[derive(Debug, Clone, Copy)]
enum Started {
    Monotonic(std::time::Instant),
    Driven(DateTime<Utc>),
}

impl Stopwatch {
    /// Starts a stopwatch.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(driven().map_or_else(|| Started::Monotonic(std::time::Instant::now()), Started::Driven))
    }

    /// Seconds since the start; none are shown for a clock that went backwards.
    pub fn seconds(&self) -> f64 {
        match self.0 {
            Started::Monotonic(start) => start.elapsed().as_secs_f64(),
            Started::Driven(start) => (now() - start).as_seconds_f64().max(0.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_driven_clock_is_read_by_its_thread_alone_and_gives_way_in_turn() {
        let at = |seconds| DateTime::from_timestamp(seconds, 0).unwrap();
        let before = now();
        let outer = drive(move || at(1_000));
        let inner = drive(move || at(-5));
        assert_eq!(now_text(), "1969-12-31T23:59:55.000Z");
        assert!(std::thread::spawn(now).join().unwrap() >= before);
        drop(inner);
        let stopwatch = Stopwatch::start();
        assert_eq!((now(), stopwatch.seconds()), (at(1_000), 0.0));
        drop(outer);
        assert!(now() >= before);
    }
}
