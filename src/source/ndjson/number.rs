//! Numbers by value, from the digits as written: what a type cannot hold exactly is `None`, never rounded.

use arrow::datatypes::i256;
use std::io::Write;

/// Significant digits that every normal `f64` (`f32`, `f16`) keeps.
const DOUBLE_DIGITS: usize = 15;
const SINGLE_DIGITS: usize = 6;
const HALF_DIGITS: usize = 3;
/// No `f64` has more significant decimal digits than this.
const MOST_DIGITS: usize = 767;
/// Up to here every integer is an `f64`.
const EXACT_DOUBLE: i64 = 1 << 53;

/// A number as its digits × 10^`exponent`, without zeros at either end of the digits (zero has none).
#[derive(Debug, Clone, Copy)]
struct Parts<'a> {
    negative: bool,
    /// The digits, in two pieces as the point parts them.
    digits: [&'a [u8]; 2],
    exponent: i64,
}

/// Whether the number is written without point and exponent.
pub(super) fn is_plain(lexeme: &[u8]) -> bool {
    lexeme.iter().all(|b| b.is_ascii_digit() || *b == b'-')
}

/// A plainly written integer that an `i64` holds: the fast way.
pub(super) fn plain_i64(lexeme: &[u8]) -> Option<i64> {
    let (negative, digits) = match lexeme.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, lexeme),
    };
    if digits.is_empty() || digits.len() > 18 {
        return std::str::from_utf8(lexeme).ok()?.parse().ok();
    }
    let mut value = 0i64;
    for b in digits {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value * 10 + i64::from(digit);
    }
    Some(if negative { -value } else { value })
}

/// The number if it is an integer of at most 38 digits. With point or exponent only up to 2^53 (`7.0`,
/// `7e0`), where digits and floating point mean the same, and not `-0.0`, whose sign would be lost.
pub(super) fn integer(lexeme: &[u8]) -> Option<i128> {
    if let Some(value) = plain_i64(lexeme) {
        return Some(i128::from(value));
    }
    let parts = parts(lexeme)?;
    if parts.is_zero() {
        return (!parts.negative || is_plain(lexeme)).then_some(0);
    }
    let value: i128 = scaled(&parts, 38, 0)?.parse().ok()?;
    (is_plain(lexeme) || value.unsigned_abs() <= u128::from(EXACT_DOUBLE.unsigned_abs())).then_some(value)
}

/// The number as an `f64` that gives it back: plainly written integers exactly, fractions to the digits
/// written.
pub(super) fn double(lexeme: &[u8]) -> Option<f64> {
    if let Some(small) = plain_i64(lexeme).filter(|v| v.unsigned_abs() <= EXACT_DOUBLE.unsigned_abs()) {
        return Some(if lexeme == b"-0" { -0.0 } else { small as f64 });
    }
    let text = std::str::from_utf8(lexeme).ok()?;
    let value: f64 = text.parse().ok()?;
    if is_plain(lexeme) {
        return (value.is_finite() && format!("{value:.0}") == text).then_some(value);
    }
    if value.is_normal() && few_digits(lexeme, DOUBLE_DIGITS) {
        return Some(value);
    }
    let parts = parts(lexeme)?;
    let survives = value.is_finite()
        && (parts.is_zero()
            || value.is_normal() && parts.len() <= DOUBLE_DIGITS
            || parts.is_shortest(format_args!("{value:e}"))
            || parts.len() <= MOST_DIGITS && parts.is(format!("{value:.*e}", parts.len() - 1).as_bytes()));
    survives.then_some(value)
}

/// The same for an `f32`, widened.
pub(super) fn single(lexeme: &[u8]) -> Option<f64> {
    let value: f32 = std::str::from_utf8(lexeme).ok()?.parse().ok()?;
    let wide = f64::from(value);
    if double(lexeme) == Some(wide) {
        return Some(wide);
    }
    let parts = parts(lexeme)?;
    let survives = value.is_finite()
        && !is_plain(lexeme)
        && !parts.is_zero()
        && (value.is_normal() && parts.len() <= SINGLE_DIGITS
            || parts.is_shortest(format_args!("{value:e}"))
            || parts.len() <= MOST_DIGITS && parts.is(format!("{value:.*e}", parts.len() - 1).as_bytes()));
    survives.then_some(wide)
}

/// The same for an `f16`, widened.
pub(super) fn half(lexeme: &[u8]) -> Option<f64> {
    let exact = double(lexeme)?;
    let value = half::f16::from_f64(exact);
    let wide = value.to_f64();
    if wide == exact {
        return Some(wide);
    }
    let survives = value.is_normal() && !is_plain(lexeme) && parts(lexeme)?.len() <= HALF_DIGITS;
    survives.then_some(wide)
}

/// The unscaled value of a decimal of at most 38 digits.
pub(super) fn decimal(lexeme: &[u8], precision: u8, scale: i8) -> Option<i128> {
    scaled(&parts(lexeme)?, precision, scale)?.parse().ok()
}

/// The unscaled value of a decimal of at most 76 digits.
pub(super) fn decimal256(lexeme: &[u8], precision: u8, scale: i8) -> Option<i256> {
    i256::from_string(&scaled(&parts(lexeme)?, precision, scale)?)
}

/// The digits of the number × 10^`scale`, if it is an integer of at most `precision` digits.
fn scaled(parts: &Parts<'_>, precision: u8, scale: i8) -> Option<String> {
    if parts.is_zero() {
        return Some("0".to_owned());
    }
    let zeros = usize::try_from(parts.exponent.checked_add(i64::from(scale))?).ok()?;
    if parts.len().checked_add(zeros)? > usize::from(precision) {
        return None;
    }
    let sign = if parts.negative { "-" } else { "" };
    let [whole, fraction] = parts.digits.map(|digits| std::str::from_utf8(digits).unwrap_or_default());
    Some(format!("{sign}{whole}{fraction}{}", "0".repeat(zeros)))
}

/// Takes a number (JSON's notation) apart.
fn parts(lexeme: &[u8]) -> Option<Parts<'_>> {
    let (negative, rest) = match lexeme.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, lexeme),
    };
    let (mantissa, exponent) = cut(rest, |b| matches!(b, b'e' | b'E'));
    let (whole, fraction) = cut(mantissa, |b| *b == b'.');
    let whole = trim_start(whole);
    let mut digits = [whole, if whole.is_empty() { trim_start(fraction) } else { fraction }];
    let before = digits.map(<[u8]>::len);
    let [first, second] = &mut digits;
    *second = trim_end(second);
    if second.is_empty() {
        *first = trim_end(first);
    }
    let dropped = before.iter().sum::<usize>() - first.len() - second.len();
    let exponent = match std::str::from_utf8(exponent).ok()? {
        "" => 0,
        // An exponent beyond i64 is as good as the largest: nothing holds either.
        text if text.starts_with('-') => text.parse().unwrap_or(i64::MIN).max(i64::MIN / 2),
        text => text.parse().unwrap_or(i64::MAX).min(i64::MAX / 2),
    };
    let exponent = exponent + i64::try_from(dropped).ok()? - i64::try_from(fraction.len()).ok()?;
    Some(Parts { negative, digits, exponent })
}

impl Parts<'_> {
    fn len(&self) -> usize {
        self.digits.iter().map(|digits| digits.len()).sum()
    }

    fn is_zero(&self) -> bool {
        self.len() == 0
    }

    /// Whether the printed number is this one.
    fn is(&self, printed: &[u8]) -> bool {
        parts(printed).is_some_and(|other| {
            self.negative == other.negative
                && self.exponent == other.exponent
                && self.len() == other.len()
                && self.digits.into_iter().flatten().eq(other.digits.into_iter().flatten())
        })
    }

    /// The same for a float printed with as many digits as it needs: at most 24 bytes.
    fn is_shortest(&self, printed: std::fmt::Arguments<'_>) -> bool {
        let mut buffer = [0; 32];
        let mut rest = buffer.as_mut_slice();
        if self.len() > 17 || rest.write_fmt(printed).is_err() {
            return false;
        }
        let left = rest.len();
        self.is(buffer.get(..buffer.len() - left).unwrap_or_default())
    }
}

/// What stands before and after the first byte that is `at`.
fn cut(text: &[u8], at: impl Fn(&u8) -> bool) -> (&[u8], &[u8]) {
    match text.iter().position(at).and_then(|at| text.split_at_checked(at)) {
        Some((before, after)) => (before, after.get(1..).unwrap_or_default()),
        None => (text, &[]),
    }
}

fn trim_start(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().take_while(|b| **b == b'0').count();
    digits.get(zeros..).unwrap_or_default()
}

fn trim_end(digits: &[u8]) -> &[u8] {
    let zeros = digits.iter().rev().take_while(|b| **b == b'0').count();
    digits.get(..digits.len() - zeros).unwrap_or_default()
}

/// Whether at most `limit` significant digits are written, zeros at the end included.
fn few_digits(lexeme: &[u8], limit: usize) -> bool {
    let mantissa = lexeme.iter().take_while(|b| !matches!(b, b'e' | b'E')).filter(|b| b.is_ascii_digit());
    mantissa.skip_while(|b| **b == b'0').take(limit + 1).count() <= limit
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn integers_count_by_value_and_never_round() {
        let read = |text: &str| integer(text.as_bytes());
        assert_eq!(read("7.0"), Some(7));
        assert_eq!(read("7e2"), Some(700));
        assert_eq!(read("1200e-2"), Some(12));
        assert_eq!(read("-9223372036854775808"), Some(i128::from(i64::MIN)));
        assert_eq!(read("18446744073709551615"), Some(i128::from(u64::MAX)));
        assert_eq!(read("-0"), Some(0));
        assert_eq!(read("0.0e999999999999999999999"), Some(0));
        assert_eq!(read("9007199254740992.0"), Some(1 << 53));
        for not in ["1.5", "1e-1", "-0.0", "1e39", "9007199254740994.0", "1e999999999999999999999"] {
            assert_eq!(read(not), None, "{not}");
        }
    }

    #[test]
    fn a_double_holds_a_number_only_if_it_gives_it_back() {
        for good in [
            "0.1",
            "-0.0",
            "0e5",
            "1.50",
            "1e22",
            "9007199254740992",
            "9007199254740994",
            "0.30000000000000004",
            "0.1000000000000000055511151231257827",
            "1.7976931348623157e308",
            "5e-324",
            "4.9406564584124654e-324",
            "5.684341886080801e-14",
            "5.684341886080802e-14",
            "100000000000000000000",
            "2.2250738585072014e-308",
        ] {
            let value = double(good.as_bytes());
            assert_eq!(value.map(f64::to_bits), Some(good.parse::<f64>().unwrap().to_bits()), "{good}");
        }
        for bad in [
            "1e309",
            "-1e400",
            "1e-400",
            "9007199254740993",
            "9007199254740993.0",
            "0.1234567890123456789",
            "1.234567890123456e-320",
            "12345678901234567890",
            "1e99999999999999999999999",
        ] {
            assert_eq!(double(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(double(b"-0").map(f64::to_bits), Some((-0.0f64).to_bits()));
    }

    #[test]
    fn singles_and_halves_hold_their_own_digits_or_exact_values() {
        assert_eq!(single(b"0.1"), Some(f64::from(0.1f32)));
        assert_eq!(single(b"0.10000000149011612"), Some(f64::from(0.1f32)));
        assert_eq!(single(b"16777216"), Some(16_777_216.0));
        assert_eq!(single(b"3.4028235e38"), Some(f64::from(f32::MAX)));
        for bad in ["16777217", "0.123456789", "1e39", "1e-50"] {
            assert_eq!(single(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(half(b"0.5"), Some(0.5));
        assert_eq!(half(b"2049"), None);
        assert_eq!(half(b"1e5"), None);
    }

    #[test]
    fn decimals_are_exact_or_nothing() {
        assert_eq!(decimal(b"12.340", 5, 2), Some(1234));
        assert_eq!(decimal(b"-1.2e3", 6, 2), Some(-120_000));
        assert_eq!(decimal(b"0.000", 1, 0), Some(0));
        assert_eq!(decimal(b"12300", 3, -2), Some(123));
        for bad in ["12.345", "1000.00", "1e-3"] {
            assert_eq!(decimal(bad.as_bytes(), 5, 2), None, "{bad}");
        }
        let long = "9".repeat(76);
        assert_eq!(decimal256(long.as_bytes(), 76, 0), i256::from_string(&long));
        assert_eq!(decimal256(format!("{long}0").as_bytes(), 76, 0), None);
    }

    proptest! {
        #[test]
        fn every_printed_float_is_held(bits in any::<u64>(), short in any::<u32>(), digits in 16usize..30) {
            let (value, small) = (f64::from_bits(bits), f32::from_bits(short));
            if value.is_finite() {
                for text in [format!("{value:e}"), format!("{value:.digits$e}"), format!("{value:?}")] {
                    prop_assert_eq!(double(text.as_bytes()).map(f64::to_bits), Some(bits), "{}", text);
                }
            }
            if small.is_finite() {
                prop_assert_eq!(single(format!("{small:e}").as_bytes()), Some(f64::from(small)));
            }
        }

        #[test]
        fn integers_agree_with_the_standard_library(value in any::<i128>(), shift in 0u32..127) {
            let value = value >> shift;
            let text = value.to_string();
            let fits = value.unsigned_abs() < 10u128.pow(38);
            prop_assert_eq!(integer(text.as_bytes()), fits.then_some(value));
            prop_assert_eq!(plain_i64(text.as_bytes()), i64::try_from(value).ok());
            let exact = (value as f64) as i128 == value && (value as f64) < 1.7e38;
            prop_assert_eq!(double(text.as_bytes()), exact.then_some(value as f64));
        }
    }
}
