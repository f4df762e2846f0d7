//! What happened, call by call: always as one hash, on demand as text.

use xxhash_rust::xxh3::Xxh3;

/// The numbered sequence of storage calls and what became of each.
#[derive(Default)]
pub struct Trace {
    hash: Box<Xxh3>,
    lines: Option<Vec<String>>,
    number: u64,
}

/// One step of a history.
pub struct Event<'a> {
    /// Virtual milliseconds since the start.
    pub at: u64,
    /// Who, in which life.
    pub who: (usize, u64),
    pub what: &'a str,
    pub name: &'a str,
    pub outcome: &'a str,
    /// A hash of the bytes sent or received.
    pub content: u64,
}

impl Trace {
    pub fn keep_lines(&mut self) {
        self.lines = Some(Vec::new());
    }

    pub fn note(&mut self, event: &Event<'_>) {
        self.number += 1;
        let numbers = [self.number, event.at, event.who.0 as u64, event.who.1, event.content];
        numbers.iter().for_each(|n| self.hash.update(&n.to_le_bytes()));
        for text in [event.what, event.name, event.outcome] {
            self.hash.update(text.as_bytes());
            self.hash.update(b"\0");
        }
        if let Some(lines) = &mut self.lines {
            let Event { at, who, what, name, outcome, content } = event;
            let seconds = *at as f64 / 1000.0;
            let (number, who) = (self.number, format!("{}.{}", super::actors::name_of(who.0), who.1));
            lines.push(format!(
                "{number:5} {seconds:9.3}s {who:14} {what:9} {name:72} {outcome} {content:016x}"
            ));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.digest()
    }

    pub fn take_lines(&mut self) -> Vec<String> {
        self.lines.take().unwrap_or_default()
    }
}
