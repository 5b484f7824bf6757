//! Moments in time, in the forms real systems write them.
//!
//! | form | example |
//! |---|---|
//! | RFC 3339, ISO 8601 | `2024-05-21T10:11:12Z`, `2024-05-21 10:11:12,5+02:00`, `20240521T101112Z`, `2024-W21-2`, `2024-142` |
//! | with a named zone | `2024-05-21T10:11:12[Europe/Warsaw]`, `2024-05-21 10:11:12 Europe/Warsaw`, `2024-05-21 10:11:12 UTC` |
//! | digits of a calendar date | `20240521`, `202405211011`, `20240521101112` |
//! | seconds, milli-, micro-, nanoseconds since 1970, by size | `1716286272`, `1716286272000` |
//! | RFC 2822, RFC 850, asctime | `Tue, 21 May 2024 10:11:12 +0000`, `Tuesday, 21-May-24 10:11:12 GMT`, `Tue May 21 10:11:12 2024` |
//! | JavaScript, Go, Java, Ruby, SQL Server | `Tue May 21 2024 10:11:12 GMT+0200 (CEST)`, `2024-05-21 10:11:12.1 +0000 UTC m=+0.01`, `Tue May 21 12:11:12 CEST 2024`, `May 21 2024 10:11AM` |
//! | Apache, nginx, EXIF | `21/May/2024:10:11:12 +0000`, `2024/05/21 10:11:12`, `2024:05:21 10:11:12` |
//! | MongoDB, Firestore, ASP.NET | `{"$date": ...}`, `{"_seconds": 1716286272, "_nanoseconds": 0}`, `/Date(1716286272000)/` |
//!
//! Not read, because it could mean two things: `5/6/2024`, `05.06.2024`, two-digit years without a
//! weekday, a year alone, and other numbers of four to eight digits that are no calendar date.

mod digits;
mod object;
mod words;

use jiff::Timestamp;
use jiff::civil::{Date, DateTime, Time};
use jiff::fmt::temporal::Pieces;
use jiff::fmt::{rfc2822, strtime};
use jiff::tz::TimeZone;

pub use self::object::{instant_of_json, of_json};

/// Bytes of the longest text that is looked at.
const MAX_TEXT_LEN: usize = 128;

/// A moment, and the calendar date as it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParsedTimestamp {
    /// The instant.
    pub instant: Timestamp,
    /// The date as written, whatever zone it was written in.
    pub written: Date,
}

impl ParsedTimestamp {
    /// A civil time in a zone. Times that a clock change skips or repeats are read as RFC 5545 says.
    fn in_zone(civil: DateTime, zone: &TimeZone) -> Option<Self> {
        let instant = zone.to_timestamp(civil).ok()?;
        Some(Self { instant, written: civil.date() })
    }

    fn in_utc(instant: Timestamp) -> Self {
        Self { instant, written: instant.to_zoned_datetime(TimeZone::UTC).date() }
    }
}

/// Whether this is how systems write that there is no time: the year 1 of Go and .NET, 1899 and
/// 1900 of spreadsheets and SQL Server, the first second of 1970.
pub fn is_zero_time(instant: Timestamp) -> bool {
    /// The first second of 1901.
    const FIRST_USED: i64 = -2_177_452_800;
    instant == Timestamp::UNIX_EPOCH || instant.as_second() < FIRST_USED
}

/// Reads a moment from text, or from the text of a number. `zone` is that of times without one.
pub fn parse(text: &str, zone: &TimeZone) -> Option<ParsedTimestamp> {
    let text = text.trim();
    if text.is_empty() || text.len() > MAX_TEXT_LEN {
        return None;
    }
    if let Ok(instant) = text.parse::<Timestamp>() {
        let written = text.get(..10).and_then(|date| date.parse().ok());
        return Some(match written.or_else(|| text.parse().ok()) {
            Some(written) => ParsedTimestamp { instant, written },
            None => ParsedTimestamp::in_utc(instant),
        });
    }
    if digits::is_number(text) {
        return digits::parse(text, zone);
    }
    iso(text, zone)
        .or_else(|| object::asp_net(text))
        .or_else(|| mail(text))
        .or_else(|| words::parse(text, zone))
}

/// The instant of [`parse`], without the date as written.
pub fn instant(text: &str, zone: &TimeZone) -> Option<Timestamp> {
    let text = text.trim();
    match text.len() <= MAX_TEXT_LEN {
        true => text.parse().ok().or_else(|| parse(text, zone).map(|parsed| parsed.instant)),
        false => None,
    }
}

/// RFC 2822, with the short zone names it defines.
fn mail(text: &str) -> Option<ParsedTimestamp> {
    let zoned = rfc2822::parse(text).ok()?;
    Some(ParsedTimestamp { instant: zoned.timestamp(), written: zoned.date() })
}

/// ISO 8601 with or without an offset and a zone in brackets. The named zone says what the offset
/// is; without one the offset counts, and without either the given zone.
fn iso(text: &str, zone: &TimeZone) -> Option<ParsedTimestamp> {
    let pieces = Pieces::parse(text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time().unwrap_or_else(Time::midnight));
    if let Some(offset) = pieces.to_numeric_offset() {
        return ParsedTimestamp::in_zone(civil, &TimeZone::fixed(offset));
    }
    // A zone nobody knows is no zone: the time is not read.
    let named = pieces.to_time_zone().ok()?;
    ParsedTimestamp::in_zone(civil, named.as_ref().unwrap_or(zone))
}

/// Reads a moment by a strptime format. Without a zone it is in the given one, without a time
/// midnight.
///
/// # Errors
/// Where the text does not follow the format, or names no date or no known zone.
pub fn parse_format(
    format: &str,
    text: &str,
    zone: &TimeZone,
) -> Result<ParsedTimestamp, jiff::Error> {
    let parts = strtime::parse(format, text)?;
    let civil = match parts.to_datetime() {
        Ok(civil) => civil,
        Err(_) => match parts.to_date() {
            Ok(date) => date.to_datetime(Time::midnight()),
            // Seconds since 1970 say it all.
            Err(error) => {
                return parts.to_timestamp().map(ParsedTimestamp::in_utc).map_err(|_| error);
            }
        },
    };
    let named;
    let fixed;
    let zone = match (parts.offset(), parts.iana_time_zone()) {
        (Some(offset), _) => {
            fixed = TimeZone::fixed(offset);
            &fixed
        }
        (None, Some(name)) => {
            named = TimeZone::get(name)?;
            &named
        }
        (None, None) => match parts.to_timestamp() {
            Ok(instant) => return Ok(ParsedTimestamp { instant, written: civil.date() }),
            Err(_) => zone,
        },
    };
    Ok(ParsedTimestamp { instant: zone.to_timestamp(civil)?, written: civil.date() })
}

/// Checks that a strptime format can be used: what it writes it must read back.
///
/// # Errors
/// Why it cannot.
pub fn check_format(format: &str) -> Result<(), jiff::Error> {
    let sample = Timestamp::UNIX_EPOCH.to_zoned_datetime(TimeZone::UTC);
    let text = strtime::format(format, &sample)?;
    parse_format(format, &text, &TimeZone::UTC).map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn utc(text: &str) -> Option<String> {
        parse(text, &TimeZone::UTC).map(|parsed| parsed.instant.to_string())
    }

    fn warsaw() -> TimeZone {
        TimeZone::get("Europe/Warsaw").unwrap()
    }

    #[test]
    fn timestamp_in_every_format_gives_the_same_instant() {
        // Whatever system wrote it: the same moment is read.
        for text in [
            "2024-05-21T10:11:12Z",
            "2024-05-21t10:11:12z",
            "2024-05-21T12:11:12+02:00",
            "2024-05-21T12:11:12+0200",
            "2024-05-21 10:11:12",
            "2024-05-21 10:11:12 UTC",
            "2024-05-21 10:11:12 GMT",
            "2024-05-21 10:11:12 Z",
            "2024-05-21T10:11:12 UTC",
            "2024-05-21 10:11:12+00",
            "2024-05-21 12:11:12 +0200",
            "2024-05-21 12:11:12 +02:00",
            "2024-05-21 10:11:12.000000 +0000 UTC",
            "2024-05-21 12:11:12 +0200 CEST m=+0.010000001",
            "2024-05-21 07:11:12 -0300 -03",
            "2024-5-21 10:11:12",
            "May 21st, 2024 10:11:12",
            "2024-05-21 12:11:12 Europe/Warsaw",
            "2024-05-21T12:11:12[Europe/Warsaw]",
            "2024-05-21T12:11:12+02:00[Europe/Warsaw]",
            "2024-05-21 12:11:12 CEST",
            "20240521T101112Z",
            "20240521101112",
            "20240521 101112",
            "20240521 10:11:12",
            "2024/05/21 10:11:12",
            "2024.05.21 10:11:12",
            "2024:05:21 10:11:12",
            "2024-W21-2T10:11:12Z",
            "2024-W21-2 10:11:12",
            "2024-142T10:11:12Z",
            "Tue May 21 2024 12:11:12 GMT+0200 (CEST)",
            "Tue May 21 2024 12:11:12 GMT+0200 (Central European Summer Time)",
            "Tue, 21 May 2024 10:11:12 GMT",
            "Tue, 21 May 2024 12:11:12 +0200",
            "21 May 2024 10:11:12 +0000",
            "Tue May 21 10:11:12 2024",
            "Tue May 21 10:11:12 UTC 2024",
            "Tue May 21 12:11:12 CEST 2024",
            "Tuesday, 21-May-24 10:11:12 GMT",
            "Tuesday, 21-May-2024 10:11:12 GMT",
            "21-May-2024 10:11:12",
            "21/May/2024:10:11:12 +0000",
            "[21/May/2024:12:11:12 +0200]",
            "May 21, 2024 10:11:12 AM",
            "May 21, 2024, 10:11:12\u{202f}AM",
            "1716286272",
            "1716286272.0",
            "1.716286272e9",
            "1716286272000",
            "1716286272000000",
            "1716286272000000000",
            "/Date(1716286272000)/",
            "/Date(1716286272000+0200)/",
            " 2024-05-21T10:11:12Z\n",
        ] {
            assert_eq!(utc(text).as_deref(), Some("2024-05-21T10:11:12Z"), "{text}");
        }
    }

    #[test]
    fn date_without_time_is_midnight() {
        // A date alone is its midnight; digits of a plausible calendar date are that date.
        for text in [
            "2024-05-21",
            "2024/05/21",
            "2024.05.21",
            "20240521",
            "202405210000",
            "2024-142",
            "2024-W21-2",
            "May 21, 2024",
            "21 May 2024",
            "Tue May 21 2024",
            "21-May-2024",
            "2024-05-21Z",
        ] {
            assert_eq!(utc(text).as_deref(), Some("2024-05-21T00:00:00Z"), "{text}");
        }
        let half_past = parse("May 21 2024 12:30PM", &TimeZone::UTC).unwrap();
        assert_eq!(half_past.instant.to_string(), "2024-05-21T12:30:00Z");
        let midnight = parse("May 21 2024 12:30am", &TimeZone::UTC).unwrap();
        assert_eq!(midnight.instant.to_string(), "2024-05-21T00:30:00Z");
    }

    #[test]
    fn fractional_seconds_are_exact() {
        // A fraction of a second keeps its digits, behind a point or a comma; times before 1970
        // count backwards.
        for (text, moment) in [
            ("1767225600.123456789", "2026-01-01T00:00:00.123456789Z"),
            ("2026-01-01 00:00:00,123", "2026-01-01T00:00:00.123Z"),
            ("2026-01-01 01:00:00.1234567 +01:00", "2026-01-01T00:00:00.1234567Z"),
            ("-1.5", "1969-12-31T23:59:58.5Z"),
            ("-641865600", "1949-08-30T00:00:00Z"),
        ] {
            assert_eq!(utc(text).as_deref(), Some(moment), "{text}");
        }
    }

    #[test]
    fn given_zone_applies_only_to_times_without_zone() {
        // The zone of a source moves times that name none, and no others; across clock changes too.
        let read = |text| parse(text, &warsaw()).unwrap();
        for (text, moment) in [
            ("2024-05-21 10:11:12", "2024-05-21T08:11:12Z"),
            ("2024-01-21 10:11:12", "2024-01-21T09:11:12Z"),
            ("20240521101112", "2024-05-21T08:11:12Z"),
            ("2024/05/21 10:11:12", "2024-05-21T08:11:12Z"),
            ("Tue May 21 10:11:12 2024", "2024-05-21T08:11:12Z"),
            ("2024-05-21", "2024-05-20T22:00:00Z"),
            ("2024-05-21T10:11:12Z", "2024-05-21T10:11:12Z"),
            ("2024-05-21 10:11:12 UTC", "2024-05-21T10:11:12Z"),
            ("2024-05-21T10:11:12[America/New_York]", "2024-05-21T14:11:12Z"),
            ("1716286272", "2024-05-21T10:11:12Z"),
            ("2024-03-31 02:30:00", "2024-03-31T01:30:00Z"),
            ("2024-10-27 02:30:00", "2024-10-27T00:30:00Z"),
        ] {
            assert_eq!(read(text).instant.to_string(), moment, "{text}");
        }
        assert_eq!(read("2024-05-21").written.to_string(), "2024-05-21");
    }

    #[test]
    fn date_is_kept_as_written() {
        // The calendar date stays as it was written, whatever the instant is in UTC.
        for text in [
            "1990-05-07T00:00:00.000+02:00",
            "1990-05-07T23:30:00-05:00",
            "19900507",
            "19900507120000",
            "199005071200",
            "1990/05/07",
            "Mon May 07 1990 00:30:00 GMT+0200",
            "19900507T003000+0200",
        ] {
            let parsed = parse(text, &TimeZone::UTC).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(parsed.written.to_string(), "1990-05-07", "{text}");
        }
    }

    #[test]
    fn invalid_or_ambiguous_timestamp_is_rejected() {
        // Nonsense, other calendars' orders and numbers that are no calendar date give nothing.
        for text in [
            "",
            "-",
            "yesterday",
            "tomorrow",
            "1e999",
            "99999999999999999999999",
            "12:30",
            "1.2.3",
            "e5",
            "1990",
            "199005",
            "19901301",
            "31121990",
            "45433",
            "2024-02-30",
            "5/6/2024",
            "21/05/2024",
            "05.06.2024",
            "21-MAY-24",
            "2024",
            "May 2024",
            "Mon May 21 2024",
            "2024-05-21 10:11:12 IST",
            "2024-05-21 10:11:12 Europe/Nowhere",
            "2024-05-21T10:11:12[Europe/Nowhere]",
            "2024-05-21 25:00:00",
            "0000-00-00 00:00:00",
            "2024-05-21 2024-05-22",
            "1.5 May 2024",
            "nan",
            "inf",
            "+",
            "2024-05-21 10:11:12 +",
        ] {
            assert_eq!(utc(text), None, "{text}");
        }
        assert_eq!(utc(&"1 ".repeat(500)), None);
    }

    #[test]
    fn zero_timestamps_are_recognised() {
        // What stands for "no time" is told from a time.
        for text in ["0001-01-01T00:00:00Z", "0", "1970-01-01T00:00:00Z", "1900-01-01 00:00:00"] {
            assert!(is_zero_time(instant(text, &TimeZone::UTC).unwrap()), "{text}");
        }
        for text in ["1", "1950-01-01", "1901-01-01"] {
            assert!(!is_zero_time(instant(text, &TimeZone::UTC).unwrap()), "{text}");
        }
    }

    #[test]
    fn format_string_is_applied() {
        // A format without an offset means the given zone, one without a time midnight; a zone that
        // the text names is obeyed.
        let read = |format: &str, text: &str, zone: &TimeZone| {
            parse_format(format, text, zone).map(|parsed| parsed.instant.to_string()).ok()
        };
        for (format, text, moment) in [
            ("%d.%m.%Y %H:%M", "01.02.2026 03:04", Some("2026-02-01T03:04:00Z")),
            ("%d.%m.%Y", "01.02.2026", Some("2026-02-01T00:00:00Z")),
            ("%Y-%m-%dT%H:%M:%S%z", "2026-02-01T03:04:05+0100", Some("2026-02-01T02:04:05Z")),
            (
                "%Y-%m-%d %H:%M:%S %Q",
                "2024-05-21 10:11:12 Europe/Warsaw",
                Some("2024-05-21T08:11:12Z"),
            ),
            ("%Y-%m-%d %Q", "2024-05-21 Europe/Nowhere", None),
            ("%s", "1716286272", Some("2024-05-21T10:11:12Z")),
        ] {
            assert_eq!(read(format, text, &TimeZone::UTC).as_deref(), moment, "{format} {text}");
        }
        let moved = read("%d.%m.%Y %H:%M", "01.02.2026 03:04", &warsaw());
        assert_eq!(moved.as_deref(), Some("2026-02-01T02:04:00Z"));
        assert!(check_format("%d.%m.%Y %H:%M").is_ok());
        assert!(check_format("%Y-%m-%d %H:%M:%S %Q").is_ok());
        for bad in ["%Q!", "%H:%M", "%", "no directive"] {
            assert!(check_format(bad).is_err(), "{bad}");
        }
    }
}
