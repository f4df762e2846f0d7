//! The lengths of texts that are delta-encoded, before a decoder believes them: it makes room for as many values as a page
//! claims, and a text may repeat most of the one before it in no bytes at all.

use super::page::{self, Scratch, Shape};
use super::{Fit, delta, unfit};
use crate::source::parquet::compact::PageHead;
use crate::source::parquet::guard::MAX_PAGE_BYTES;
use parquet::basic::{Compression, Encoding};

/// Whether the values of a page are of an encoding that [`check`] is about.
pub(in super::super) fn are_delta(head: &PageHead) -> bool {
    matches!(
        page::encoding_of(head.encoding),
        Some(Encoding::DELTA_LENGTH_BYTE_ARRAY | Encoding::DELTA_BYTE_ARRAY)
    )
}

/// What is wrong with the lengths in the page `stored`, if something is.
pub(in super::super) fn check(shape: &Shape, head: &PageHead, stored: &[u8]) -> Result<(), &'static str> {
    // The decoder alone knows the framings of this codec, which no writer of these encodings uses.
    if shape.codec == Compression::LZ4 {
        return Ok(());
    }
    checked(shape, head, stored).map_err(|unfit| unfit.0)
}

fn checked(shape: &Shape, head: &PageHead, stored: &[u8]) -> Fit<()> {
    let mut scratch = Scratch::default();
    let opened = page::open(shape, head, stored, 0, &mut scratch)?;
    let (values, most) = opened.stored_values();
    let (first, rest) = lengths(values, most)?;
    if opened.encoding() == Encoding::DELTA_LENGTH_BYTE_ARRAY {
        return if shape.text { ends_are_whole(&first, rest) } else { Ok(()) };
    }
    let (suffixes, data) = lengths(rest, most)?;
    let total = first.iter().chain(&suffixes).fold(0u64, |sum, length| sum.saturating_add(*length as u64));
    if total > MAX_PAGE_BYTES.cast_unsigned() {
        return unfit("texts that share their beginnings unpack to more than 256 MiB in one page");
    }
    if shape.text { texts_are_whole(&first, &suffixes, data) } else { Ok(()) }
}

/// So many lengths at most, and what comes after them.
fn lengths(bytes: &[u8], most: usize) -> Fit<(Vec<usize>, &[u8])> {
    let (lengths, rest) = delta::decode(bytes, most)?;
    let length = |length: i64| usize::try_from(length as i32);
    match lengths.into_iter().map(length).collect() {
        Ok(lengths) => Ok((lengths, rest)),
        Err(_) => unfit("a text of negative length"),
    }
}

/// A decoder looks at all texts together, which may be well-formed where one of them ends within a character.
fn ends_are_whole(lengths: &[usize], data: &[u8]) -> Fit<()> {
    let mut end = 0usize;
    for length in lengths {
        end = end.saturating_add(*length);
        if data.get(end).is_some_and(|next| next & 0xc0 == 0x80) {
            return unfit("a text that ends within a character");
        }
    }
    Ok(())
}

/// As [`ends_are_whole`], of texts that begin as the one before.
fn texts_are_whole(prefixes: &[usize], suffixes: &[usize], mut data: &[u8]) -> Fit<()> {
    let mut text = Vec::new();
    for (prefix, suffix) in prefixes.iter().zip(suffixes) {
        let Some((new, rest)) = data.split_at_checked(*suffix).filter(|_| *prefix <= text.len()) else {
            return unfit("delta-encoded texts that are cut off");
        };
        data = rest;
        text.truncate(*prefix);
        text.extend_from_slice(new);
        if std::str::from_utf8(&text).is_err() {
            return unfit("a text that is not UTF-8");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parquet::compact::DATA_PAGE;
    use parquet::basic::Type;

    /// What is said of a page of three texts, encoded as `encoding` numbers it.
    fn said_of(encoding: i64, body: &[u8]) -> Result<(), &'static str> {
        said_of_texts(encoding, body, false)
    }

    fn said_of_texts(encoding: i64, body: &[u8], text: bool) -> Result<(), &'static str> {
        let shape = Shape {
            kind: Type::BYTE_ARRAY,
            length: 0,
            max_def: 0,
            max_rep: 0,
            codec: Compression::UNCOMPRESSED,
            text,
        };
        let size = body.len() as i64;
        let head = PageHead {
            kind: DATA_PAGE,
            uncompressed: size,
            compressed: size,
            values: 3,
            encoding,
            ..PageHead::default()
        };
        assert!(are_delta(&head));
        check(&shape, &head, body)
    }

    fn lengths(lengths: &[&[i64]]) -> Vec<u8> {
        let mut body = Vec::new();
        lengths.iter().for_each(|lengths| delta::encode(lengths, true, &mut body));
        body
    }

    #[test]
    fn more_values_than_the_page_has_are_refused_before_room_is_made_for_them() {
        assert_eq!(said_of(6, &lengths(&[&[1, 2, 3]])), Ok(()));
        assert_eq!(said_of(7, &lengths(&[&[0, 1, 1], &[1, 2, 3]])), Ok(()));
        for body in [lengths(&[&[1, 2, 3, 4]]), vec![0x80, 0x01, 0x04, 0xff, 0xff, 0xff, 0xff, 0x7f, 0x00]] {
            assert!(said_of(6, &body).unwrap_err().starts_with("more delta-encoded values"));
            assert!(said_of(7, &body).unwrap_err().starts_with("more delta-encoded values"));
        }
        assert!(said_of(7, &lengths(&[&[0, 1, 1], &[1, 2, 3, 4]])).is_err());
        assert!(said_of(6, &[]).is_err());
    }

    #[test]
    fn texts_that_repeat_a_long_one_are_counted_in_full() {
        let most = 256 << 20;
        assert_eq!(said_of(7, &lengths(&[&[0, most / 2, 0], &[most / 2, 0, 0]])), Ok(()));
        assert!(said_of(7, &lengths(&[&[0, most / 2, 1], &[most / 2, 0, 0]])).is_err());
        assert!(said_of(7, &lengths(&[&[0, -1, 0], &[1, 1, 1]])).is_err());
    }

    #[test]
    fn a_text_that_ends_within_a_character_is_refused_though_all_together_are_well_formed() {
        let with =
            |lengths_of: &[&[i64]], data: &str| [lengths(lengths_of), data.as_bytes().to_vec()].concat();
        assert_eq!(said_of_texts(6, &with(&[&[1, 2, 1]], "aéb"), true), Ok(()));
        assert!(said_of_texts(6, &with(&[&[2, 1, 1]], "aéb"), true).is_err());
        assert_eq!(said_of_texts(6, &with(&[&[2, 1, 1]], "aéb"), false), Ok(()));
        assert_eq!(said_of_texts(7, &with(&[&[0, 1, 0], &[1, 2, 1]], "aéb"), true), Ok(()));
        assert!(said_of_texts(7, &with(&[&[0, 0, 0], &[2, 1, 1]], "aéb"), true).is_err());
        assert_eq!(said_of_texts(7, &with(&[&[0, 0, 0], &[2, 1, 1]], "aéb"), false), Ok(()));
    }
}
