//! How a command that did not simply succeed ends: what is said, where, and with which code.

use std::ffi::OsString;

use serde_json::json;

use super::exit::{self, Exit};
use super::out::{Format, Out, Stop};
use super::render;
use super::screen::Screen;
use crate::error::{Error, Result};

/// Turns the end of a command into its exit code, and says what went wrong.
pub(super) fn conclude(ended: Result<Exit, Stop>, interrupted: Exit, screen: &Screen, out: &mut Out) -> Exit {
    let (stop, done) = match ended {
        Ok(exit) => (out.flush().err().map(Stop::from), exit),
        Err(stop) => (Some(stop), Exit::Done),
    };
    match stop {
        None | Some(Stop::Closed) => done,
        Some(Stop::Unwritable(e)) => {
            screen.line(&format!("error: done, but standard output cannot be written: {e}"));
            Exit::ReportLost
        }
        Some(Stop::Failed(error)) => {
            let exit = match error {
                Error::Interrupted => interrupted,
                ref error => Exit::from(error),
            };
            let message = in_full(&error);
            screen.line(&format!("error: {}", render::clean_lines(&message)));
            if out.takes_object() {
                // Should that fail too, the line above and the exit code have said it all.
                let _ = out.json(&failure(exit::kind(&error), &message, exit)).and_then(|()| out.flush());
            }
            exit
        }
    }
}

/// Prints what the parser has to say: help and version are results, everything else is an error.
pub(super) fn not_understood(error: &clap::Error, words: &[OsString]) -> Exit {
    let _ = error.print();
    if !error.use_stderr() {
        return Exit::Done;
    }
    if wants_json(words) {
        let message = error.to_string();
        let message = message.trim_start_matches("error: ").trim_end();
        let mut out = Out::stdout(Format::Json);
        let _ = out.json(&failure("usage", message, Exit::Usage)).and_then(|()| out.flush());
    }
    Exit::Usage
}

/// Whether JSON was asked for, in a command line that was not understood.
fn wants_json(words: &[OsString]) -> bool {
    words.iter().any(|word| word == "--output=json")
        || words.windows(2).any(|pair| {
            pair.first().is_some_and(|w| w == "--output") && pair.last().is_some_and(|w| w == "json")
        })
}

fn failure(kind: &str, message: &str, exit: Exit) -> serde_json::Value {
    json!({ "error": { "kind": kind, "message": message, "exit": exit.code() } })
}

/// An error with those of its causes that it does not tell itself.
fn in_full(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(e) = cause {
        let words = e.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn json_is_recognised_in_a_command_line_that_is_wrong_elsewhere() {
        assert!(wants_json(&words("dedupe stats --output json /t")));
        assert!(wants_json(&words("dedupe stats --output=json /t")));
        assert!(!wants_json(&words("dedupe stats --output text json")));
        assert!(!wants_json(&words("dedupe")));
    }

    #[test]
    fn a_cause_is_told_once() {
        let cause = std::io::Error::other("disk on fire");
        let error = Error::store("read", "x", cause);
        assert_eq!(in_full(&error), "read x: disk on fire");
    }
}
