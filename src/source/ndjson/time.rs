//! Dates and times from ISO 8601 text, strictly: a text that a column could not give back is refused.
//!
//! `2024-02-29`, `23:59:59.123`, `2024-02-29T23:59:59.123Z` (a space or `t` for `T`; offsets as `Z`,
//! `+01:00`, `+0100`, `+01`; seconds may be missing). No week dates, no leap seconds, no `24:00`.

use arrow::datatypes::TimeUnit;

const DAY_SECONDS: i128 = 86_400;

/// Days since 1970-01-01.
pub(super) fn date(text: &str) -> Option<i64> {
    let mut scan = Scan(text.as_bytes());
    let days = scan.date()?;
    scan.0.is_empty().then_some(days)
}

/// Time of day in `unit`.
pub(super) fn time(text: &str, unit: TimeUnit) -> Option<i64> {
    let mut scan = Scan(text.as_bytes());
    let nanos = scan.time()?;
    if !scan.0.is_empty() {
        return None;
    }
    in_unit(nanos, unit)
}

/// Time since 1970-01-01T00:00 in `unit`: of the instant if `zoned` (the text must have an offset), else of
/// the wall clock (it must have none).
pub(super) fn timestamp(text: &str, unit: TimeUnit, zoned: bool) -> Option<i64> {
    let mut scan = Scan(text.as_bytes());
    let days = scan.date()?;
    scan.one_of(b"Tt ")?;
    let nanos = scan.time()?;
    let offset = if zoned { scan.offset()? } else { 0 };
    if !scan.0.is_empty() {
        return None;
    }
    in_unit((i128::from(days) * DAY_SECONDS - i128::from(offset)) * 1_000_000_000 + nanos, unit)
}

/// Nanoseconds in `unit`, if nothing is lost.
fn in_unit(nanos: i128, unit: TimeUnit) -> Option<i64> {
    let per = match unit {
        TimeUnit::Second => 1_000_000_000,
        TimeUnit::Millisecond => 1_000_000,
        TimeUnit::Microsecond => 1_000,
        TimeUnit::Nanosecond => 1,
    };
    if nanos % per == 0 { i64::try_from(nanos / per).ok() } else { None }
}

/// The text that is still to be read.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn date(&mut self) -> Option<i64> {
        let year = self.digits(4)?;
        self.one_of(b"-")?;
        let month = self.digits(2)?;
        self.one_of(b"-")?;
        let day = self.digits(2)?;
        let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let longest = match month {
            2 => 28 + i64::from(leap),
            4 | 6 | 9 | 11 => 30,
            1..=12 => 31,
            _ => return None,
        };
        (1..=longest).contains(&day).then(|| days_of(year, month, day))
    }

    /// Nanoseconds since midnight.
    fn time(&mut self) -> Option<i128> {
        let hour = self.digits(2).filter(|h| *h < 24)?;
        self.one_of(b":")?;
        let minute = self.digits(2).filter(|m| *m < 60)?;
        let (mut second, mut nanos) = (0, 0);
        if self.one_of(b":").is_some() {
            second = self.digits(2).filter(|s| *s < 60)?;
            if self.one_of(b".,").is_some() {
                nanos = self.fraction()?;
            }
        }
        Some(i128::from(hour * 3600 + minute * 60 + second) * 1_000_000_000 + nanos)
    }

    /// Digits after the point, as nanoseconds; beyond the ninth only zeros.
    fn fraction(&mut self) -> Option<i128> {
        let len = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at_checked(len).filter(|_| len > 0)?;
        self.0 = rest;
        if digits.iter().skip(9).any(|b| *b != b'0') {
            return None;
        }
        let padded = digits.iter().copied().chain(std::iter::repeat(b'0'));
        Some(padded.take(9).fold(0, |sum, b| sum * 10 + i128::from(b - b'0')))
    }

    /// Seconds east of Greenwich.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        let hours = self.digits(2).filter(|h| *h < 24)?;
        let colon = self.one_of(b":").is_some();
        let minutes = if colon || !self.0.is_empty() { self.digits(2).filter(|m| *m < 60)? } else { 0 };
        Some(sign * (hours * 3600 + minutes * 60))
    }

    fn digits(&mut self, count: usize) -> Option<i64> {
        let (digits, rest) = self.0.split_at_checked(count)?;
        if !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        self.0 = rest;
        Some(digits.iter().fold(0, |sum, b| sum * 10 + i64::from(b - b'0')))
    }

    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        wanted.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }
}

/// Days since 1970-01-01 in the Gregorian calendar, counting years from March so that the leap day is their
/// last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let leap_days = year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    year * 365 + leap_days + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn instants_need_an_offset_and_wall_clocks_must_have_none() {
        let second = |text, zoned| timestamp(text, TimeUnit::Second, zoned);
        assert_eq!(second("1970-01-01T00:00:00Z", true), Some(0));
        assert_eq!(second("1970-01-01T01:00:00+01:00", true), Some(0));
        assert_eq!(second("1969-12-31 19:30:00-0430", true), Some(0));
        assert_eq!(second("1970-01-01t02+02", true), None);
        assert_eq!(second("1970-01-01T02:00+02", true), Some(0));
        assert_eq!(second("1970-01-01T00:00:00", true), None);
        assert_eq!(second("1970-01-01T00:00:00Z", false), None);
        assert_eq!(second("1970-01-01T00:01", false), Some(60));
    }

    #[test]
    fn what_the_unit_cannot_hold_is_refused() {
        let text = "2024-02-29T23:59:59.123456789Z";
        assert_eq!(timestamp(text, TimeUnit::Nanosecond, true), Some(1_709_251_199_123_456_789));
        assert_eq!(timestamp(text, TimeUnit::Microsecond, true), None);
        assert_eq!(time("00:00:01.500", TimeUnit::Millisecond), Some(1500));
        assert_eq!(time("00:00:01.5000000000000", TimeUnit::Millisecond), Some(1500));
        assert_eq!(time("00:00:01.0000000001", TimeUnit::Nanosecond), None);
        assert_eq!(timestamp("9999-12-31T00:00:00Z", TimeUnit::Nanosecond, true), None);
        for bad in [
            "2023-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-1-1",
            "20240101",
            "2024-01-01 ",
            "+024-01-01",
            "",
        ] {
            assert_eq!(date(bad), None, "{bad}");
        }
        for bad in ["24:00", "23:60", "23:59:60", "1:00", "12:00:00.", "12:00:00Z", "12"] {
            assert_eq!(time(bad, TimeUnit::Nanosecond), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn dates_agree_with_chrono(days in -719_162i32..2_932_896) {
            let day = chrono::NaiveDate::from_num_days_from_ce_opt(days + 719_163).unwrap();
            prop_assert_eq!(date(&day.format("%Y-%m-%d").to_string()), Some(i64::from(days)));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[0-9TZ:+. -]{0,40}|.{0,12}") {
            let _ = (date(&text), time(&text, TimeUnit::Second), timestamp(&text, TimeUnit::Nanosecond, true));
        }
    }
}
