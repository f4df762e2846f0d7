//! The progress bar of an ingest: rows, rate, duplicates, time left. Only on a terminal.

use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;

use super::render;
use super::screen::Screen;
use crate::clock::Stopwatch;
use crate::report::Progress;

/// How often the bar looks at the counters.
const PERIOD: Duration = Duration::from_millis(150);

/// A bar that follows a run until it is dropped.
#[derive(Debug)]
pub(super) struct Bar {
    screen: Screen,
    task: JoinHandle<()>,
    bar: ProgressBar,
}

impl Bar {
    /// Shows `progress` if standard error is a terminal.
    pub(super) fn follow(progress: &Progress, screen: &Screen) -> Option<Self> {
        if !io::stderr().is_terminal() {
            return None;
        }
        let bar = ProgressBar::new_spinner();
        screen.set_bar(Some(bar.clone()));
        let task = tokio::spawn(draw(bar.clone(), progress.clone()));
        Some(Self { screen: screen.clone(), task, bar })
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.task.abort();
        self.screen.set_bar(None);
        self.bar.finish_and_clear();
    }
}

async fn draw(bar: ProgressBar, progress: Progress) {
    let stopwatch = Stopwatch::start();
    let mut known = None;
    loop {
        let (done, total) = progress.bytes();
        if known != Some(total) {
            known = Some(total);
            bar.set_length(total);
            // The templates are constants; were one wrong, indicatif's own style would do.
            if let Ok(style) = ProgressStyle::with_template(template(total > 0)) {
                bar.set_style(style.progress_chars("━╸ "));
            }
        }
        bar.set_position(done);
        bar.set_message(message(&progress, stopwatch.seconds()));
        bar.tick();
        tokio::time::sleep(PERIOD).await;
    }
}

fn template(bounded: bool) -> &'static str {
    if bounded {
        "{spinner} [{bar:24}] {percent:>3}% {decimal_bytes}/{decimal_total_bytes} · {msg} · {eta} left"
    } else {
        "{spinner} {msg} · {elapsed}"
    }
}

fn message(progress: &Progress, seconds: f64) -> String {
    let (rows, dropped) = (progress.rows(), progress.dropped());
    if progress.is_committing() {
        return format!("{} rows · committing", render::number(rows));
    }
    let rate = if seconds > 0.0 { (rows as f64 / seconds) as u64 } else { 0 };
    format!(
        "{} rows · {}/s · {} dropped",
        render::number(rows),
        render::number(rate),
        render::percent(dropped, rows)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_tells_rows_rate_and_duplicates() {
        let progress = Progress::default();
        assert_eq!(message(&progress, 0.0), "0 rows · 0/s · - dropped");
        progress.count(10_000, 2_500);
        assert_eq!(message(&progress, 2.0), "10,000 rows · 5,000/s · 25.0 % dropped");
        progress.begin_commit();
        assert_eq!(message(&progress, 2.0), "10,000 rows · committing");
    }

    #[test]
    fn both_templates_are_sound() {
        for bounded in [true, false] {
            assert!(ProgressStyle::with_template(template(bounded)).is_ok());
        }
    }
}
