//! Moments that databases and frameworks write as objects: MongoDB's extended JSON, Firestore,
//! ASP.NET.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::{ParsedTimestamp, digits, instant, parse};
use crate::coerce::offset::offset;

/// Bytes of the longest object that is looked at.
const MAX_TEXT_LEN: usize = 256;

/// Reads a moment from JSON text: a string, a number, or an object that stands for a moment.
pub fn of_json(json: &str, zone: &TimeZone) -> Option<ParsedTimestamp> {
    match json.as_bytes().first()? {
        b'"' => {
            // Texts without escapes are read where they stand.
            let inner = json.strip_prefix('"')?.strip_suffix('"')?;
            if !inner.contains('\\') {
                return parse(inner, zone);
            }
            parse(&serde_json::from_str::<String>(json).ok()?, zone)
        }
        b'{' if json.len() <= MAX_TEXT_LEN => object(&serde_json::from_str(json).ok()?, zone),
        b'-' | b'0'..=b'9' => parse(json, zone),
        _ => None,
    }
}

/// The instant of [`of_json`], without the date as written.
pub fn instant_of_json(json: &str, zone: &TimeZone) -> Option<Timestamp> {
    let inner = json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    match inner.filter(|inner| !inner.contains('\\')) {
        Some(text) => instant(text, zone),
        None => of_json(json, zone).map(|parsed| parsed.instant),
    }
}

fn object(value: &Value, zone: &TimeZone) -> Option<ParsedTimestamp> {
    let fields = value.as_object()?;
    if let Some(date) = fields.get("$date") {
        return (fields.len() == 1).then(|| mongo(date, zone)).flatten();
    }
    if let Some(timestamp) = fields.get("$timestamp") {
        let seconds = timestamp.get("t").and_then(Value::as_i64)?;
        return Timestamp::from_second(seconds).ok().map(ParsedTimestamp::in_utc);
    }
    let number = |names: &[&str]| -> Option<i64> {
        let found = names.iter().find_map(|name| fields.get(*name))?;
        found.as_i64().or_else(|| found.as_str()?.parse().ok())
    };
    // Nothing else may be in it: an object with a key `seconds` can be many things.
    if fields.len() != 2 {
        return None;
    }
    let seconds = number(&["_seconds", "seconds", "epochSecond"])?;
    let nanos = number(&["_nanoseconds", "nanoseconds", "nanos", "nano"])?;
    let instant = Timestamp::new(seconds, i32::try_from(nanos).ok()?).ok()?;
    Some(ParsedTimestamp::in_utc(instant))
}

/// `"2024-05-21T10:11:12Z"`, milliseconds, or `{"$numberLong": "milliseconds"}`.
fn mongo(date: &Value, zone: &TimeZone) -> Option<ParsedTimestamp> {
    match date {
        Value::String(text) => parse(text, zone),
        Value::Number(number) => digits::millis(&number.to_string()),
        Value::Object(fields) if fields.len() == 1 => {
            digits::millis(fields.get("$numberLong")?.as_str()?)
        }
        _ => None,
    }
}

/// `/Date(1716286272000)/`; an offset behind the milliseconds says where it was written, which
/// changes nothing.
pub(super) fn asp_net(text: &str) -> Option<ParsedTimestamp> {
    let inner = text.strip_prefix("/Date(")?.strip_suffix(")/")?;
    let sign = inner.get(1..)?.find(['+', '-']).map(|at| at + 1);
    let (number, behind) = inner.split_at(sign.unwrap_or(inner.len()));
    if !behind.is_empty() {
        offset(behind)?;
    }
    digits::millis(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_with_a_timestamp_is_parsed() {
        // MongoDB's and Firestore's objects are read; objects with anything else in them are not.
        for json in [
            r#"{"$date":"2024-05-21T10:11:12Z"}"#,
            r#"{"$date":1716286272000}"#,
            r#"{"$date":{"$numberLong":"1716286272000"}}"#,
            r#"{"$timestamp":{"t":1716286272,"i":1}}"#,
            r#"{"_seconds":1716286272,"_nanoseconds":0}"#,
            r#"{"seconds":"1716286272","nanos":0}"#,
            r#"{"epochSecond":1716286272,"nano":0}"#,
            r#""2024-05-21T10:11:12\u005a""#,
            "1716286272",
        ] {
            let parsed = of_json(json, &TimeZone::UTC).map(|m| m.instant.to_string());
            assert_eq!(parsed.as_deref(), Some("2024-05-21T10:11:12Z"), "{json}");
        }
        for json in ["{}", r#"{"$date":true}"#, r#"{"seconds":5,"x":1}"#, "[1716286272]", "true"] {
            assert_eq!(of_json(json, &TimeZone::UTC), None, "{json}");
        }
    }
}
