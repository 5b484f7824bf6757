//! Moments in time, in the spellings records use.
//!
//! Accepted without a format: RFC 3339 (without an offset: UTC; a date alone: midnight UTC),
//! RFC 2822, and seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by size:
//! below 10^11 seconds, below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

use super::datum::Datum;
use super::json::Kind;
use crate::call::trimmed;

/// Reads a moment from a number or text.
pub(super) fn of_datum(datum: Datum<'_>, format: Option<&str>) -> Result<Timestamp, String> {
    if !matches!(datum.kind(), Kind::String | Kind::Number) {
        return Err(format!("{} is no timestamp", datum.kind().name()));
    }
    let text = datum.text().unwrap_or_default();
    let found = match format {
        Some(format) => parse_format(format, trimmed(&text)).ok(),
        None => parse(trimmed(&text)),
    };
    found.ok_or_else(|| match format {
        Some(format) => format!("{} is no timestamp of the format {format:?}", datum.describe()),
        None => format!("{} is no timestamp", datum.describe()),
    })
}

/// Reads a moment from text in any of the accepted spellings.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Some(at) = epoch(text) {
        return Some(at);
    }
    if let Ok(civil) = text.parse::<DateTime>() {
        return utc(civil).ok();
    }
    rfc2822::parse(text).ok().map(|zoned| zoned.timestamp())
}

/// Reads a moment by a strptime format. Without an offset it is UTC, without a time midnight.
pub(super) fn parse_format(format: &str, text: &str) -> Result<Timestamp, jiff::Error> {
    let parts = strtime::parse(format, text)?;
    if let Ok(at) = parts.to_timestamp() {
        return Ok(at);
    }
    match parts.to_datetime() {
        Ok(civil) => utc(civil),
        Err(_) => utc(parts.to_date()?.to_datetime(jiff::civil::Time::midnight())),
    }
}

/// Whether a strptime format can be used: what it writes it must read back.
pub(super) fn check_format(format: &str) -> Result<(), jiff::Error> {
    let sample = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
    let text = strtime::format(format, &sample)?;
    parse_format(format, &text).map(|_| ())
}

fn utc(civil: DateTime) -> Result<Timestamp, jiff::Error> {
    TimeZone::UTC.to_timestamp(civil)
}

/// Reads a decimal number as time since 1970, exactly.
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

/// Writes a number with an exponent without it; others stay as they are.
fn expand(digits: &str) -> Option<std::borrow::Cow<'_, str>> {
    if !digits.bytes().next()?.is_ascii_digit() {
        return None;
    }
    if !digits.contains(['e', 'E']) {
        return Some(digits.into());
    }
    let value: f64 = digits.parse().ok()?;
    // Beyond this no unit makes a representable moment.
    (value < 1e24).then(|| format!("{value}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_in_every_spelling() {
        // Text, epochs of four sizes, floats and exponents name the same moment.
        for text in [
            "2026-01-01T00:00:00Z",
            "2026-01-01T02:00:00+02:00",
            "2026-01-01 00:00:00",
            "2026-01-01",
            "Thu, 1 Jan 2026 00:00:00 +0000",
            "1767225600",
            "1767225600.0",
            "1.7672256e9",
            "1767225600000",
            "1767225600000000",
            "1767225600000000000",
        ] {
            let at = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(at.to_string(), "2026-01-01T00:00:00Z", "{text}");
        }
    }

    #[test]
    fn fractions_are_exact() {
        // A fraction of a second keeps its digits; times before 1970 count backwards.
        assert_eq!(
            parse("1767225600.123456789").unwrap().to_string(),
            "2026-01-01T00:00:00.123456789Z"
        );
        assert_eq!(parse("-1.5").unwrap().to_string(), "1969-12-31T23:59:58.5Z");
    }

    #[test]
    fn nonsense_is_refused() {
        // What is no moment, or none a calendar holds, is refused, never wrapped around.
        for text in
            ["", "-", "yesterday", "1e999", "99999999999999999999999", "12:30", "1.2.3", "e5"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn formats() {
        // A format without an offset means UTC, one without a time means midnight.
        let read = |format, text| parse_format(format, text).unwrap().to_string();
        assert_eq!(read("%d.%m.%Y %H:%M", "01.02.2026 03:04"), "2026-02-01T03:04:00Z");
        assert_eq!(read("%d.%m.%Y", "01.02.2026"), "2026-02-01T00:00:00Z");
        assert_eq!(read("%Y-%m-%dT%H:%M:%S%z", "2026-02-01T03:04:05+0100"), "2026-02-01T02:04:05Z");
        assert!(check_format("%d.%m.%Y %H:%M").is_ok());
        for bad in ["%Q!", "%H:%M", "%", "no directive"] {
            assert!(check_format(bad).is_err(), "{bad}");
        }
    }
}
