//! Numbers as JSON writes them, compared by value without rounding either of them away.

use std::borrow::Cow;
use std::cmp::Ordering;

/// A number: whole where it is written so and fits, else a float.
#[derive(Debug, Clone, Copy)]
pub enum Number {
    /// A whole number, however it is written: `12`, `12.0`, `1.2e1`.
    Whole(i128),
    /// Any other number, and whole ones beyond 128 bits.
    Float(f64),
}

impl Number {
    /// Reads a JSON number. Numbers beyond the range of f64 are infinite, and so still compare.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        if let Some(whole) = plain_whole(text).and_then(|whole| whole.parse().ok()) {
            return Some(Self::Whole(whole));
        }
        text.parse().ok().filter(|f: &f64| !f.is_nan()).map(Self::Float)
    }

    /// Compares by value: 1 equals 1.0.
    pub fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Whole(a), Self::Float(b)) => whole_to_float(a, b),
            (Self::Float(a), Self::Whole(b)) => whole_to_float(b, a).map(Ordering::reverse),
        }
    }

    /// The number as a whole one, if it is one and fits 64 bits, signed or unsigned.
    pub fn whole(self) -> Option<i128> {
        let whole = match self {
            Self::Whole(whole) => whole,
            Self::Float(float) => exact(float)?,
        };
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole).then_some(whole)
    }
}

/// The number a text is, blanks around it aside. Words that Rust reads as numbers and people do not
/// (`nan`, `infinity`) are none.
pub fn of_text(text: &str) -> Option<Number> {
    let text = text.trim();
    let numeric = |b: u8| b.is_ascii_digit() || b"+-.eE".contains(&b);
    text.bytes().all(numeric).then(|| Number::parse(text)).flatten()
}

/// Digits of the longest whole number that is written out.
const MAX_DIGITS: usize = 40;

/// A whole number without fraction and exponent, exactly: `12.0` is `12`, `1.2e3` is `1200`. `None`
/// where it is not whole, no number, or too long to be written out.
pub fn plain_whole(text: &str) -> Option<Cow<'_, str>> {
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", text),
    };
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if !unsigned.is_empty() && all_digits(unsigned) {
        return Some(Cow::Borrowed(if unsigned == "0" { "0" } else { text }));
    }
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    let exponent: i32 = exponent.parse().ok()?;
    let scale = exponent.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    let digits = [whole, fraction].concat();
    let mut digits = digits.trim_start_matches('0').to_owned();
    if digits.is_empty() {
        return Some(Cow::Borrowed("0"));
    }
    if scale < 0 {
        let cut = usize::try_from(-scale).ok()?;
        let kept = digits.len().checked_sub(cut)?;
        if digits[kept..].bytes().any(|b| b != b'0') || kept == 0 {
            return None;
        }
        digits.truncate(kept);
    } else {
        let zeros = usize::try_from(scale).ok().filter(|zeros| *zeros <= MAX_DIGITS)?;
        digits.push_str(&"0".repeat(zeros));
    }
    (digits.len() <= MAX_DIGITS).then(|| Cow::Owned(format!("{sign}{digits}")))
}

/// 2^120, well inside i128: floats below it convert exactly when they have no fraction.
const EXACT: f64 = 1.329_227_995_784_916e36;

#[expect(clippy::cast_possible_truncation, reason = "checked: no fraction, in range")]
fn exact(float: f64) -> Option<i128> {
    (float.fract() == 0.0 && float.abs() < EXACT).then_some(float as i128)
}

#[expect(clippy::cast_possible_truncation, reason = "the floor of a float in range")]
fn whole_to_float(whole: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    if float.abs() >= EXACT {
        return (whole as f64).partial_cmp(&float);
    }
    let floor = float.floor();
    let order = whole.cmp(&(floor as i128));
    Some(if order == Ordering::Equal && float > floor { Ordering::Less } else { order })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_in_any_notation_is_an_integer() {
        // Fractions of zeros and exponents change nothing, and no digit is rounded away.
        for (text, whole) in [
            ("12", Some("12")),
            ("12.0", Some("12")),
            ("1.2e3", Some("1200")),
            ("1200e-2", Some("12")),
            ("-0", Some("0")),
            ("0.000", Some("0")),
            ("-7.0", Some("-7")),
            ("9007199254740993.0", Some("9007199254740993")),
            ("12.5", None),
            ("1e-1", None),
            ("1e400", None),
            ("1e", None),
            ("", None),
            (".5", None),
        ] {
            assert_eq!(plain_whole(text).as_deref(), whole, "{text}");
        }
        assert_eq!(
            Number::parse("9007199254740993.0").unwrap().whole(),
            Some(9_007_199_254_740_993)
        );
        assert!(of_text("nan").is_none() && of_text("").is_none());
        assert!(matches!(of_text(" 12 "), Some(Number::Whole(12))));
    }

    #[test]
    fn numbers_of_equal_value_compare_equal() {
        // Whole and broken numbers, beyond 53 and 64 bits, order as mathematics does.
        let compare = |a: &str, b: &str| {
            let (a, b) = (Number::parse(a).unwrap(), Number::parse(b).unwrap());
            assert_eq!(a.compare(b), b.compare(a).map(Ordering::reverse));
            a.compare(b).unwrap()
        };
        assert_eq!(compare("1", "1.0"), Ordering::Equal);
        assert_eq!(compare("1e2", "100"), Ordering::Equal);
        assert_eq!(compare("-1", "-1.5"), Ordering::Greater);
        assert_eq!(compare("9007199254740993", "9007199254740992.0"), Ordering::Greater);
        assert_eq!(compare("9223372036854775808", "9223372036854775807"), Ordering::Greater);
        assert_eq!(compare("1e999", "5"), Ordering::Greater);
        assert_eq!(Number::parse("18446744073709551616").unwrap().whole(), None);
        assert_eq!(Number::parse("3.0").unwrap().whole(), Some(3));
    }
}
