//! Standard error: errors, logs, and the progress bar, without getting in each other's way.

use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use indicatif::ProgressBar;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// Standard error with, at times, a bar at its bottom. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub(super) struct Screen(Arc<Mutex<Option<ProgressBar>>>);

impl Screen {
    /// Puts a bar there (or takes it away); what is printed from now on appears above it.
    pub(super) fn set_bar(&self, bar: Option<ProgressBar>) {
        *self.bar() = bar;
    }

    /// Prints a line. Trouble with standard error has nobody left to tell.
    pub(super) fn line(&self, line: &str) {
        let _ = self.print(format!("{line}\n").as_bytes());
    }

    /// Sends logs here: warnings by default, more with each `-v`, exactly what `RUST_LOG` says if it is set.
    pub(super) fn take_logs(&self, verbose: u8) {
        let level = match verbose {
            0 => "warn",
            1 => "dedupe=info,warn",
            2 => "dedupe=debug,info",
            _ => "dedupe=trace,debug",
        };
        let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(level));
        let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        // A second subscriber in one process (an embedding program, a test) keeps the first.
        let _ = tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(self.clone())
            .with_ansi(colour)
            .with_target(verbose > 1)
            .try_init();
    }

    fn print(&self, bytes: &[u8]) -> io::Result<()> {
        let bar = self.bar();
        // Libraries log what they were given, addresses with passwords included.
        let text = crate::store::redacted(&String::from_utf8_lossy(bytes));
        let print = || io::stderr().lock().write_all(text.as_bytes());
        match bar.as_ref() {
            Some(bar) => bar.suspend(print),
            None => print(),
        }
    }

    fn bar(&self) -> MutexGuard<'_, Option<ProgressBar>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.print(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
