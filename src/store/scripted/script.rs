//! What befalls which request: the notation, and faults that are drawn.
//!
//! One word a request, in the order in which they come for the watched object: `P` a put or `G` a get, and what
//! befalls it; nothing means that it is answered as it should be.
//!
//! | word | the request | the answer |
//! |---|---|---|
//! | `P500` | is not carried out | that status |
//! | `P500!` | is carried out | that status |
//! | `P500~` | is carried out at the next `+late` | that status |
//! | `Ptime` `Ptime!` `Ptime~` | as above | none: a time-out after 30 s |
//! | `Pcut` … | as above | none: the connection is closed |
//! | `Preset` … | as above | none: the connection is reset |
//! | `Pconn` | never leaves | no connection |
//! | `Pbare!` | is carried out | success, without the tag that must be there |
//! | `Ghalf` | | the connection is closed in the middle of the body |
//! | `Gshort` | | the body ends early, as if that were all |
//! | `Ghtml` | | success, with a page that somebody on the way put there |
//!
//! `x6` behind a word repeats it. `+late` lets late puts land, `+rival` lets somebody else take the name, both just
//! before the next request. `G503*` is no step: it befalls all gets behind the script, `G503@90s` those of the first
//! so many seconds.

use std::time::Duration;

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Answer {
    Honest,
    Status(u16),
    TimeOut,
    Cut,
    Reset,
    NoConnection,
    Bare,
    HalfBody,
    ShortBody,
    Page,
}

/// Whether a put that gets a wrong answer is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Effect {
    No,
    Yes,
    Late,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Fault(pub(crate) Answer, pub(crate) Effect);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    Request(char, Fault),
    Late,
    Rival,
}

/// What befalls the requests behind the script, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tail {
    pub(super) verb: char,
    pub(super) fault: Fault,
    pub(super) until: Option<Duration>,
}

/// How badly a store behaves whose faults are drawn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rates {
    /// Percent of puts and of gets that meet a fault.
    pub(crate) put: u64,
    pub(crate) get: u64,
    /// After so many requests nothing goes wrong any more.
    pub(crate) requests: u64,
}

/// One word of a script.
#[derive(Debug, Clone, Copy)]
pub(super) enum Word {
    Steps(Step, usize),
    Tail(Tail),
}

impl Word {
    pub(super) fn read(word: &str) -> Self {
        match word {
            "+late" => return Self::Steps(Step::Late, 1),
            "+rival" => return Self::Steps(Step::Rival, 1),
            _ => {}
        }
        let (word, times) = match word.rsplit_once('x') {
            Some((word, times)) if times.parse::<usize>().is_ok() => (word, times.parse().unwrap()),
            _ => (word, 1),
        };
        let (word, tail) = match word.split_once(['*', '@']) {
            Some((word, "")) => (word, Some(None)),
            Some((word, seconds)) => {
                let seconds = seconds.trim_end_matches('s').parse().unwrap();
                (word, Some(Some(Duration::from_secs(seconds))))
            }
            None => (word, None),
        };
        let verb = word.chars().next().unwrap();
        assert!("PG".contains(verb), "{word}");
        let rest = &word[1..];
        let (rest, effect) = match rest.char_indices().last() {
            Some((at, '!')) => (&rest[..at], Effect::Yes),
            Some((at, '~')) => (&rest[..at], Effect::Late),
            _ => (rest, Effect::No),
        };
        let answer = match rest {
            "" => Answer::Honest,
            "time" => Answer::TimeOut,
            "cut" => Answer::Cut,
            "reset" => Answer::Reset,
            "conn" => Answer::NoConnection,
            "bare" => Answer::Bare,
            "half" => Answer::HalfBody,
            "short" => Answer::ShortBody,
            "html" => Answer::Page,
            status => Answer::Status(status.parse().unwrap()),
        };
        let fault = Fault(answer, effect);
        match tail {
            Some(until) => Self::Tail(Tail { verb, fault, until }),
            None => Self::Steps(Step::Request(verb, fault), times),
        }
    }
}

/// Faults drawn from a seed.
#[derive(Debug)]
pub(super) struct Drawn {
    pub(super) rates: Rates,
    pub(super) seed: u64,
}

impl Drawn {
    /// What befalls the next request, of which there were `before`.
    pub(super) fn fault(&mut self, verb: char, before: usize) -> Option<Fault> {
        use Answer::*;
        use Effect::*;
        let rates = self.rates;
        let rate = if verb == 'P' { rates.put } else { rates.get };
        if before as u64 >= rates.requests || self.draw(100) >= rate {
            return None;
        }
        const PUTS: [Answer; 14] = [
            Status(500),
            Status(503),
            Status(429),
            Status(408),
            Status(409),
            Status(412),
            Status(502),
            Status(403),
            TimeOut,
            Cut,
            Reset,
            NoConnection,
            Bare,
            Status(400),
        ];
        const GETS: [Answer; 12] = [
            Status(500),
            Status(503),
            Status(429),
            Status(403),
            Status(502),
            TimeOut,
            Cut,
            Reset,
            NoConnection,
            HalfBody,
            ShortBody,
            Page,
        ];
        let answer = if verb == 'P' { PUTS[self.draw(14) as usize] } else { GETS[self.draw(12) as usize] };
        let effect = match answer {
            NoConnection => No,
            Bare => Yes,
            _ if verb == 'P' => [No, Yes, Late][self.draw(3) as usize],
            _ => No,
        };
        Some(Fault(answer, effect))
    }

    /// SplitMix64.
    pub(super) fn draw(&mut self, below: u64) -> u64 {
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.seed;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % below
    }
}
