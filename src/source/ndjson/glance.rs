//! A look at a line that finds out whether it tells anything new: most lines do not.
//!
//! What is known only grows, and a bad line tells nothing. So a line whose members are all known, with values of kinds
//! that they are known to have, changes nothing whether it turns out to be good or bad, and need not be read
//! strictly. Promise: of a good line, nothing new is overlooked. When in doubt the line is to be read.

use super::MAX_DEPTH;
use super::shape::{BOOL, Facts, INT, Members, NEGATIVE, Shape, TEXT, number_facts};

/// Digits of which a 64-bit float holds every integer, and gives every fraction back.
const PLAIN_DIGITS: usize = 15;

/// Whether `line`, if it is a good one, says nothing that `known` does not.
pub(super) fn tells_nothing_new(known: &Members, line: &[u8]) -> bool {
    let mut glance = Glance { rest: line };
    glance.skip_space();
    let seen = glance.object(known, 1);
    glance.skip_space();
    seen.is_some() && glance.rest.is_empty()
}

/// What is left of the line. Every step gives `None` if it comes upon something new, or something odd.
struct Glance<'a> {
    rest: &'a [u8],
}

impl Glance<'_> {
    fn object(&mut self, known: &Members, depth: usize) -> Option<()> {
        self.take(b'{')?;
        self.skip_space();
        if self.take(b'}').is_some() {
            return Some(());
        }
        let mut expected = 0;
        loop {
            self.take(b'"')?;
            let place = self.name(known, expected)?;
            expected = place + 1;
            self.skip_space();
            self.take(b':')?;
            self.skip_space();
            self.value(known.shapes.get(place)?, depth + 1)?;
            self.skip_space();
            match self.next()? {
                b',' => self.skip_space(),
                b'}' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Which of the known members the name is that begins after its quote.
    fn name(&mut self, known: &Members, expected: usize) -> Option<usize> {
        if let Some(name) = known.names.get(expected)
            && known.plain_names.get(expected) == Some(&true)
            && let Some(after) = after_name(self.rest, name)
            && let Some(after) = after.strip_prefix(b"\"")
        {
            self.rest = after;
            return Some(expected);
        }
        let end = memchr::memchr2(b'"', b'\\', self.rest)?;
        let (name, after) = self.rest.split_at_checked(end)?;
        // One that is spelled with escapes is read.
        self.rest = after.strip_prefix(b"\"")?;
        known.place(std::str::from_utf8(name).ok()?)
    }

    fn value(&mut self, known: &Shape, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        match *self.rest.first()? {
            b'"' => {
                self.next()?;
                self.text()?;
                known.has(TEXT).then_some(())
            }
            b'-' | b'0'..=b'9' => {
                let facts = self.number()?;
                known.has(facts).then_some(())
            }
            b'n' => self.word(b"null"),
            b't' if known.has(BOOL) => self.word(b"true"),
            b'f' if known.has(BOOL) => self.word(b"false"),
            b'{' | b'[' if known.is_json() => self.anything(),
            b'{' => self.object(known.members()?, depth),
            b'[' => self.list(known.items()?, depth),
            _ => None,
        }
    }

    fn list(&mut self, items: &Shape, depth: usize) -> Option<()> {
        self.take(b'[')?;
        self.skip_space();
        if self.take(b']').is_some() {
            return Some(());
        }
        loop {
            self.value(items, depth + 1)?;
            self.skip_space();
            match self.next()? {
                b',' => self.skip_space(),
                b']' => return Some(()),
                _ => return None,
            }
        }
    }

    /// Passes over an object or a list.
    fn anything(&mut self) -> Option<()> {
        let mut open = 0usize;
        loop {
            match self.next()? {
                b'"' => self.text()?,
                b'{' | b'[' => open += 1,
                b'}' | b']' => open = open.checked_sub(1)?,
                _ => {}
            }
            if open == 0 {
                return Some(());
            }
        }
    }

    /// Passes over text that begins after its quote.
    fn text(&mut self) -> Option<()> {
        loop {
            let at = quote_or_escape(self.rest)?;
            let (_, found) = self.rest.split_at_checked(at)?;
            match found {
                [b'"', after @ ..] => {
                    self.rest = after;
                    return Some(());
                }
                [_, _, after @ ..] => self.rest = after,
                _ => return None,
            }
        }
    }

    fn number(&mut self) -> Option<Facts> {
        let negative = self.rest.starts_with(b"-");
        let digits = self.rest.iter().skip(negative.into()).take_while(|byte| byte.is_ascii_digit()).count();
        let end = digits + usize::from(negative);
        let is_plain = !matches!(self.rest.get(end), Some(b'.' | b'e' | b'E' | b'+' | b'-'));
        if is_plain && (1..=PLAIN_DIGITS).contains(&digits) {
            self.rest = self.rest.get(end..)?;
            // -0 is no negative number: where none is known, it is read.
            return Some(if negative { INT | NEGATIVE } else { INT });
        }
        let in_number = |byte: &&u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
        let end = self.rest.iter().take_while(in_number).count();
        let (lexeme, after) = self.rest.split_at_checked(end)?;
        self.rest = after;
        Some(number_facts(lexeme))
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(word)?;
        Some(())
    }

    fn take(&mut self, byte: u8) -> Option<()> {
        match self.rest {
            [first, after @ ..] if *first == byte => {
                self.rest = after;
                Some(())
            }
            _ => None,
        }
    }

    fn next(&mut self) -> Option<u8> {
        let (first, after) = self.rest.split_first()?;
        self.rest = after;
        Some(*first)
    }

    fn skip_space(&mut self) {
        while let [b' ' | b'\t' | b'\r' | b'\n', after @ ..] = self.rest {
            self.rest = after;
        }
    }
}

/// What follows `name`, if `bytes` begin with it as JSON spells it. Names are mostly short: eight bytes at a time without a call.
pub(super) fn after_name<'a>(bytes: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let (begin, after) = bytes.split_at_checked(name.len())?;
    let ((begin, end), (words, rest)) = (begin.as_chunks::<8>(), name.as_bytes().as_chunks::<8>());
    let same = |(a, b): (&[u8; 8], &[u8; 8])| u64::from_ne_bytes(*a) == u64::from_ne_bytes(*b);
    let alike = begin.iter().zip(words).all(same) && end.iter().zip(rest).all(|(a, b)| a == b);
    alike.then_some(after)
}

/// Where the first `"` or `\` is. Texts are mostly short: eight bytes at a time without a call.
fn quote_or_escape(bytes: &[u8]) -> Option<usize> {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const TOPS: u64 = ONES << 7;
    // The lowest byte that is 0 gets its top bit set, and none below it.
    let zeros = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut at = 0;
    while let Some(word) = bytes.get(at..).and_then(|bytes| bytes.first_chunk()) {
        let word = u64::from_le_bytes(*word);
        let found = zeros(word ^ (ONES * u64::from(b'"'))) | zeros(word ^ (ONES * u64::from(b'\\')));
        if found != 0 {
            return Some(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    let rest = bytes.get(at..)?.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
    Some(at + rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::ndjson::Inference;
    use crate::source::ndjson::oracle::block;
    use proptest::prelude::*;

    fn known(text: &str) -> Inference {
        let mut inference = Inference::new();
        inference.observe(&block(text.as_bytes()));
        inference
    }

    #[test]
    fn a_name_with_escapes_is_not_what_they_stand_for() {
        let known = known(r#"{"a\\u0062":1,"c\"d":1}"#);
        assert!(!known.holds(br#"{"a\u0062":1}"#));
        assert!(!known.holds(br#"{"a\\u0062":1,"c"d":1}"#));
    }

    #[test]
    fn what_was_seen_before_is_nothing_new() {
        let known = known(
            "{\"a\":1,\"b\":\"x\",\"c\":{\"d\":[1.5]},\"e\":null}\n{\"a\":-1,\"f\":true,\"g\":{}}\n{\"g\":1}",
        );
        for line in [
            r#"{}"#,
            r#" { "a" : 12 , "b" : "\"\\ é" } "#,
            r#"{"f":false,"a":-7,"c":{"d":[]}}"#,
            r#"{"c":{"d":[0.5,2.25,null]},"e":null,"g":[{"new":"}"}]}"#,
            r#"{"c":{},"g":"any"}"#,
        ] {
            assert!(known.holds(line.as_bytes()), "{line}");
        }
        for line in [
            r#"{"a":1.5}"#,
            r#"{"a":"1"}"#,
            r#"{"a":12345678901234567890}"#,
            r#"{"new":null}"#,
            r#"{"c":{"new":1}}"#,
            r#"{"c":{"d":[true]}}"#,
            r#"{"c":[]}"#,
            r#"{"e":1}"#,
            r#"{"\u0061":1}"#,
            r#"[1]"#,
            r#"{"a":1"#,
            r#"{"a":1}}"#,
        ] {
            assert!(!known.holds(line.as_bytes()), "{line}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_passed_over_where_it_stands(name in "[ab]{0,20}", other in "[ab]{0,20}", after in "[ab]{0,3}") {
            for text in [format!("{name}{after}"), other] {
                prop_assert_eq!(after_name(text.as_bytes(), &name), text.as_bytes().strip_prefix(name.as_bytes()));
            }
        }

        #[test]
        fn a_quote_or_an_escape_is_found_where_it_is(bytes in prop::collection::vec(prop_oneof![8 => any::<u8>(), 1 => Just(b'"'), 1 => Just(b'\\')], 0..40)) {
            let expected = bytes.iter().position(|byte| matches!(byte, b'"' | b'\\'));
            prop_assert_eq!(quote_or_escape(&bytes), expected);
        }
    }
}
