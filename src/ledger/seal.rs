//! JSON that vouches for itself: the last member, `check`, is the hash of all bytes before its line.
//!
//! An entry is vouched for by the `prev` of the entry behind it; nothing stands behind the newest one, and nothing at
//! all behind `table.json`. Bytes that were damaged on their way can still be JSON, and mean something else. The seal
//! is the same in every format version, so that damage is told from news before anything else is believed.

use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};

/// What stands before and after the 32 hexadecimal digits, at the very end.
const BEFORE: &[u8] = b"  \"check\": \"";
const AFTER: &[u8] = b"\"\n}\n";
const DIGITS: usize = 32;

/// `json`, the text of an object with one member or more, with its seal. `None` if it is no such text.
pub fn seal(json: &[u8]) -> Option<Vec<u8>> {
    let members = json.trim_ascii_end().strip_suffix(b"}")?.trim_ascii_end();
    if !members.starts_with(b"{") || members.len() == 1 {
        return None;
    }
    let mut sealed = [members, b",\n"].concat();
    let check = format!("{:032x}", xxh3_128(&sealed));
    sealed.extend([BEFORE, check.as_bytes(), AFTER].concat());
    Some(sealed)
}

/// The bytes before the seal, and the seal's digits. `None` if there is no seal.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = bytes.strip_suffix(AFTER)?;
    let (rest, digits) = rest.split_at_checked(rest.len().checked_sub(DIGITS)?)?;
    Some((rest.strip_suffix(BEFORE)?, digits))
}

/// Whether `bytes` are as they were sealed.
pub fn holds(bytes: &[u8]) -> bool {
    split(bytes).is_some_and(|(sealed, digits)| format!("{:032x}", xxh3_128(sealed)).as_bytes() == digits)
}

/// [`Error::Corrupt`], and why, if `bytes` are not as they were sealed. `object` names them.
pub fn check(object: &str, bytes: &[u8]) -> Result<()> {
    match split(bytes) {
        _ if holds(bytes) => Ok(()),
        Some(_) => Err(Error::corrupt(
            object,
            "it was changed: its last member, `check`, is not the hash of its bytes",
        )),
        None => Err(Error::corrupt(
            object,
            "it does not end in the member `check`, as whatever dedupe writes does",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seal_is_the_last_member_and_hashes_all_bytes_before_its_line() {
        let sealed = seal(b"{\n  \"a\": 1\n}\n").unwrap();
        let before = "{\n  \"a\": 1,\n";
        let hash = xxh3_128(before.as_bytes());
        assert_eq!(
            String::from_utf8(sealed.clone()).unwrap(),
            format!("{before}  \"check\": \"{hash:032x}\"\n}}\n")
        );
        assert!(holds(&sealed) && check("x", &sealed).is_ok());
        let value: serde_json::Value = serde_json::from_slice(&sealed).unwrap();
        assert_eq!(value["check"], format!("{hash:032x}"));
    }

    #[test]
    fn every_wrong_bit_every_cut_and_every_addition_is_noticed() {
        let sealed = seal(b"{\n  \"a\": \"text\",\n  \"b\": [1, 2]\n}").unwrap();
        for at in 0..sealed.len() {
            for bit in 0..8 {
                let mut wrong = sealed.clone();
                wrong[at] ^= 1 << bit;
                assert!(!holds(&wrong), "bit {bit} of byte {at}");
                assert!(matches!(check("x", &wrong), Err(Error::Corrupt { object, .. }) if object == "x"));
            }
            assert!(!holds(&sealed[..at]) && !holds(&sealed[at + 1..]), "cut at {at}");
        }
        assert!(!holds(&[&sealed[..], b"\n"].concat()) && !holds(&[b" ", &sealed[..]].concat()));
    }

    #[test]
    fn what_lacks_a_seal_is_told_from_what_was_changed() {
        let told = |bytes: &[u8]| check("x", bytes).unwrap_err().to_string();
        assert!(told(b"{\n  \"format\": 1\n}\n").contains("does not end in the member `check`"));
        let changed = seal(b"{\"a\": 1}")
            .unwrap()
            .iter()
            .map(|b| if *b == b'1' { b'2' } else { *b })
            .collect::<Vec<_>>();
        assert!(told(&changed).contains("it was changed"), "{}", told(&changed));
    }

    #[test]
    fn only_objects_with_members_are_sealed() {
        for text in ["", "}", "{}", "{ \n}", "[1]", "1"] {
            assert_eq!(seal(text.as_bytes()), None, "{text:?}");
        }
    }
}
