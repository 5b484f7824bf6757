//! Numbers as JSON writes them, compared by value without rounding either of them away.

use std::cmp::Ordering;

/// A number: whole where it is written so and fits, else a float.
#[derive(Debug, Clone, Copy)]
pub(super) enum Number {
    Whole(i128),
    Float(f64),
}

impl Number {
    /// Reads a JSON number. Numbers beyond the range of f64 are infinite, and so still compare.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(whole) = text.parse() {
            return Some(Self::Whole(whole));
        }
        text.parse().ok().filter(|f: &f64| !f.is_nan()).map(Self::Float)
    }

    /// Compares by value: 1 equals 1.0.
    pub(super) fn compare(self, other: Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Whole(a), Self::Whole(b)) => Some(a.cmp(&b)),
            (Self::Float(a), Self::Float(b)) => a.partial_cmp(&b),
            (Self::Whole(a), Self::Float(b)) => whole_to_float(a, b),
            (Self::Float(a), Self::Whole(b)) => whole_to_float(b, a).map(Ordering::reverse),
        }
    }

    /// The number as a whole one, if it is one and fits 64 bits, signed or unsigned.
    pub(super) fn whole(self) -> Option<i128> {
        let whole = match self {
            Self::Whole(whole) => whole,
            Self::Float(float) => exact(float)?,
        };
        (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(&whole).then_some(whole)
    }
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
    fn compared_by_value() {
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
