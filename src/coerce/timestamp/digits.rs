//! Parses timestamps that are numbers: the digits of a calendar date, or time since 1970.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

use super::ParsedTimestamp;

/// Whether a text is a decimal number, with or without sign, fraction and exponent.
pub(super) fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    digits.as_bytes().first().is_some_and(u8::is_ascii_digit)
        && digits.parse::<f64>().is_ok()
        && !digits.ends_with('.')
}

/// Parses the text of a number.
///
/// Eight, twelve or fourteen digits that are a plausible calendar date are that date. Other numbers
/// of four to eight digits are rejected: they may be a year, a month or a serial number, but not a
/// time since 1970. All others count from 1970: below 10^11 seconds, below 10^14 milliseconds,
/// below 10^17 microseconds, else nanoseconds.
pub(super) fn parse(text: &str, zone: &TimeZone) -> Option<ParsedTimestamp> {
    if text.starts_with('-') {
        return epoch(text).map(ParsedTimestamp::in_utc);
    }
    let plain = expand(text)?;
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    if fraction.bytes().all(|b| b == b'0')
        && let Some(civil) = calendar(whole)
    {
        return ParsedTimestamp::in_zone(civil, zone);
    }
    match whole.trim_start_matches('0').len() {
        4..=8 => None,
        _ => epoch(text).map(ParsedTimestamp::in_utc),
    }
}

/// `YYYYMMDD`, with an optional `hhmm` or `hhmmss` after it, where the calendar has such a day and
/// the year is plausible.
fn calendar(digits: &str) -> Option<DateTime> {
    let years = match digits.len() {
        8 | 14 => 1800..=2199,
        // As milliseconds since 1970 such numbers would be times from 1973 to 2001.
        12 => 1900..=2099,
        _ => return None,
    };
    let part = |from: usize, to: usize| digits.get(from..to)?.parse::<i8>().ok();
    let year: i16 = digits.get(..4)?.parse().ok()?;
    if !years.contains(&year) {
        return None;
    }
    let date = Date::new(year, part(4, 6)?, part(6, 8)?).ok()?;
    let hour = if digits.len() > 8 { part(8, 10)? } else { 0 };
    let minute = if digits.len() > 8 { part(10, 12)? } else { 0 };
    let second = if digits.len() > 12 { part(12, 14)? } else { 0 };
    let time = jiff::civil::Time::new(hour, minute, second, 0).ok()?;
    Some(date.to_datetime(time))
}

/// The date of eight digits.
pub(super) fn date(digits: &str) -> Option<Date> {
    let is_date = digits.len() == 8 && digits.bytes().all(|b| b.is_ascii_digit());
    is_date.then(|| calendar(digits)).flatten().map(|civil| civil.date())
}

/// Parses a decimal number as time since 1970, exactly.
fn epoch(text: &str) -> Option<Timestamp> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let plain = expand(digits)?;
    let (whole, fraction) = plain.split_once('.').unwrap_or((&plain, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: i128 = whole.parse().ok()?;
    let nanos_per_unit: i128 = match whole {
        ..100_000_000_000 => 1_000_000_000,
        100_000_000_000..100_000_000_000_000 => 1_000_000,
        100_000_000_000_000..100_000_000_000_000_000 => 1_000,
        _ => 1,
    };
    let mut nanos = whole.checked_mul(nanos_per_unit)?;
    let mut unit = nanos_per_unit;
    for digit in fraction.bytes() {
        unit /= 10;
        nanos += i128::from(digit - b'0') * unit;
    }
    Timestamp::from_nanosecond(if negative { -nanos } else { nanos }).ok()
}

/// Milliseconds since 1970.
pub(super) fn millis(text: &str) -> Option<ParsedTimestamp> {
    let millis: i64 = text.parse().ok()?;
    Timestamp::from_millisecond(millis).ok().map(ParsedTimestamp::in_utc)
}

/// Writes a number with an exponent without it; others are unchanged.
fn expand(digits: &str) -> Option<Cow<'_, str>> {
    if !digits.bytes().next()?.is_ascii_digit() {
        return None;
    }
    if !digits.contains(['e', 'E']) {
        return Some(digits.into());
    }
    let value: f64 = digits.parse().ok()?;
    // Beyond this no unit gives a representable timestamp.
    (value < 1e24).then(|| format!("{value}").into())
}
