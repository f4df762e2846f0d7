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
    if opened.encoding() == Encoding::DELTA_LENGTH_BYTE_ARRAY {
        return match delta::count(values)? {
            count if count > most as u64 => unfit("more delta-encoded values than the page has"),
            _ => Ok(()),
        };
    }
    let (prefixes, rest) = delta::decode(values, most)?;
    let (suffixes, _) = delta::decode(rest, most)?;
    let length = |length: &i64| u64::try_from(*length as i32).ok();
    let lengths: Option<Vec<u64>> = prefixes.iter().chain(&suffixes).map(length).collect();
    let total = lengths.map(|lengths| lengths.iter().fold(0, |sum: u64, length| sum.saturating_add(*length)));
    match total {
        Some(total) if total <= MAX_PAGE_BYTES.cast_unsigned() => Ok(()),
        Some(_) => unfit("texts that share their beginnings unpack to more than 256 MiB in one page"),
        None => unfit("a text of negative length"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::parquet::compact::DATA_PAGE;
    use parquet::basic::Type;

    /// What is said of a page of three texts, encoded as `encoding` numbers it.
    fn said_of(encoding: i64, body: &[u8]) -> Result<(), &'static str> {
        let shape = Shape {
            kind: Type::BYTE_ARRAY,
            length: 0,
            max_def: 0,
            max_rep: 0,
            codec: Compression::UNCOMPRESSED,
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
}
