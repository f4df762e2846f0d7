//! The only file that reads a clock. Times are information for people; no decision about safety uses them.

use chrono::{DateTime, SecondsFormat, Utc};

/// The current time.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
pub fn now() -> DateTime<Utc> {
    Utc::now()
}

/// The current time as RFC 3339 in UTC with milliseconds, as manifests hold it.
pub fn now_text() -> String {
    now().to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A running stopwatch, for reports.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(std::time::Instant);

impl Stopwatch {
    /// Starts a stopwatch.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the monotonic clock")]
    pub fn start() -> Self {
        Self(std::time::Instant::now())
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.0.elapsed().as_secs_f64()
    }
}
