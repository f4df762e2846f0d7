//! Standard output: results, and nothing else.
//!
//! Everything goes through one locked, buffered handle. A reader that has seen enough (`dedupe log … | head`)
//! closes the pipe, which is a normal end and not a failure.

use std::io::{self, BufWriter, StdoutLock, Write};

use serde::Serialize;

use crate::error::Error;

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object, on failure too.
    Json,
}

/// Why a command stopped early.
#[derive(Debug)]
pub(super) enum Stop {
    /// It failed.
    Failed(Error),
    /// Whoever reads the output has seen enough.
    Closed,
    /// The output cannot be written.
    Unwritable(io::Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Only [`Out`] hands out `io::Error`s; all others are wrapped in an [`Error`] that says what was being done.
impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::Closed,
            _ => Self::Unwritable(error),
        }
    }
}

/// The locked handle.
pub(super) struct Out<W: Write = StdoutLock<'static>> {
    format: Format,
    /// Whether a list was begun, after which no other object can be printed.
    begun: bool,
    to: BufWriter<W>,
}

impl Out {
    /// Standard output.
    pub(super) fn stdout(format: Format) -> Self {
        Self::new(format, io::stdout().lock())
    }
}

impl<W: Write> Out<W> {
    pub(super) fn new(format: Format, to: W) -> Self {
        Self { format, begun: false, to: BufWriter::with_capacity(1 << 16, to) }
    }

    /// Whether JSON is wanted.
    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Whether an object can (still) be printed and is wanted.
    pub(super) fn takes_object(&self) -> bool {
        self.is_json() && !self.begun
    }

    /// Prints text as it is.
    pub(super) fn text(&mut self, text: &str) -> io::Result<()> {
        self.to.write_all(text.as_bytes())
    }

    /// Prints a line.
    pub(super) fn line(&mut self, line: &str) -> io::Result<()> {
        self.text(line)?;
        self.to.write_all(b"\n")
    }

    /// Prints bytes as they are.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes)
    }

    /// Prints the one JSON object of this command.
    pub(super) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut self.to, value)?;
        self.to.write_all(b"\n")
    }

    /// Prints `json` or what `text` makes, as asked for.
    pub(super) fn reply(&mut self, json: &impl Serialize, text: impl FnOnce() -> String) -> io::Result<()> {
        match self.format {
            Format::Json => self.json(json),
            Format::Text => self.text(&text()),
        }
    }

    /// Starts a JSON object whose last member is a list that is too long to be held: `head`'s members, then `list`.
    pub(super) fn open_list(&mut self, head: &serde_json::Value, list: &str) -> io::Result<()> {
        self.begun = true;
        let mut text = head.to_string();
        text.pop(); // the closing brace
        let comma = if text.ends_with('{') { "" } else { "," };
        self.text(&format!("{text}{comma}\"{list}\":["))
    }

    /// Adds an item to the open list.
    pub(super) fn item(&mut self, first: bool, item: &impl Serialize) -> io::Result<()> {
        self.text(if first { "\n" } else { ",\n" })?;
        serde_json::to_writer(&mut self.to, item)?;
        Ok(())
    }

    /// Ends the list and its object.
    pub(super) fn close_list(&mut self) -> io::Result<()> {
        self.text("\n]}\n")
    }

    /// Writes out what is buffered.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn printed(print: impl FnOnce(&mut Out<&mut Vec<u8>>) -> io::Result<()>) -> Value {
        let mut bytes = Vec::new();
        let mut out = Out::new(Format::Json, &mut bytes);
        print(&mut out).unwrap();
        out.flush().unwrap();
        drop(out);
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn a_list_that_is_printed_item_by_item_is_one_object() {
        let value = printed(|out| {
            out.open_list(&json!({"table": "/t", "nested": {"a": {}}}), "versions")?;
            out.item(true, &json!({"version": 0}))?;
            out.item(false, &json!({"version": 1}))?;
            out.close_list()
        });
        assert_eq!(value["versions"], json!([{"version": 0}, {"version": 1}]));
        assert_eq!(value["table"], "/t");
    }

    #[test]
    fn an_empty_list_and_an_empty_head_are_fine() {
        let value = printed(|out| {
            out.open_list(&json!({}), "files")?;
            out.close_list()
        });
        assert_eq!(value, json!({"files": []}));
    }

    #[test]
    fn a_closed_pipe_is_told_apart_from_a_full_disk() {
        assert!(matches!(Stop::from(io::Error::from(io::ErrorKind::BrokenPipe)), Stop::Closed));
        assert!(matches!(Stop::from(io::Error::from(io::ErrorKind::StorageFull)), Stop::Unwritable(_)));
    }
}
