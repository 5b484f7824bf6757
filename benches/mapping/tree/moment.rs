//! Moments in the spellings records use: RFC 3339, a date with or without a time, RFC 2822, and
//! seconds, milli-, micro- or nanoseconds since 1970, told apart by size.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::rfc2822;
use jiff::tz::TimeZone;
use serde_json::Value;

/// The moment a value stands for.
pub(super) fn of(value: &Value) -> Option<Timestamp> {
    match value {
        Value::String(text) => written(text.trim()),
        Value::Number(number) => epoch(&number.to_string()),
        _ => None,
    }
}

fn written(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse() {
        return Some(at);
    }
    if let Some(at) = epoch(text) {
        return Some(at);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return TimeZone::UTC.to_timestamp(civil).ok();
    }
    rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

/// A decimal number, read without rounding.
fn epoch(text: &str) -> Option<Timestamp> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if digits.contains(['e', 'E']) {
        let number: f64 = text.parse().ok()?;
        return (number.abs() < 1e24).then(|| epoch(&number.to_string())).flatten();
    }
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let mut unit: i128 = match whole {
        ..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let mut nanos = whole.checked_mul(unit)?;
    for digit in fraction.bytes() {
        unit /= 10;
        nanos += i128::from(digit - b'0') * unit;
    }
    Timestamp::from_nanosecond(if text.starts_with('-') { -nanos } else { nanos }).ok()
}
