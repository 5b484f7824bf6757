//! The conversions of `as`.
//!
//! # Invariants
//! A conversion never loses information: 3.7 is not an integer, nor is a number beyond 64 bits; an
//! object is not a string.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::functions;
use super::json::{self, JsonKind};
use super::json_value::JsonValue;
use crate::call::trimmed;
use crate::coerce::number::{self, Number};
use crate::coerce::{boolean, timestamp};
use crate::config::mapping::TargetType;

/// How timestamps are read.
#[derive(Debug, Clone, Copy)]
pub(super) struct TimeFormat<'f> {
    /// The strptime format; without it every known format is accepted.
    pub(super) strptime: Option<&'f str>,
    /// The zone of timestamps without one.
    pub(super) zone: &'f TimeZone,
}

/// Converts a value.
pub(super) fn convert<'a>(
    to: TargetType,
    format: TimeFormat<'_>,
    datum: JsonValue<'a>,
) -> Result<Option<JsonValue<'a>>, String> {
    match to {
        TargetType::String => string(datum),
        TargetType::Integer => integer(datum),
        TargetType::Float => float(datum),
        TargetType::Boolean => boolean(datum),
        TargetType::Timestamp => {
            timestamp(&datum, format).map(|at| Some(JsonValue::Text(at.to_string().into())))
        }
        TargetType::Json if datum.kind() == JsonKind::String => functions::parse_json(datum),
        TargetType::Json => Ok(Some(datum)),
        TargetType::List if datum.kind() == JsonKind::Array => Ok(Some(datum)),
        TargetType::List => {
            Ok(Some(JsonValue::Json(json::render_array([datum.into_raw()]).into())))
        }
    }
}

/// Reads a moment from text, a number, or an object that stands for a moment (`{"$date": ...}`).
pub(super) fn timestamp(
    datum: &JsonValue<'_>,
    format: TimeFormat<'_>,
) -> Result<Timestamp, String> {
    let TimeFormat { strptime, zone } = format;
    let found = match (strptime, datum) {
        (_, JsonValue::Json(raw))
            if matches!(JsonKind::of(raw), JsonKind::Bool | JsonKind::Array) =>
        {
            None
        }
        (Some(strptime), datum) => datum.text().and_then(|text| {
            let read = timestamp::parse_format(strptime, trimmed(&text), zone);
            read.ok().map(|parsed| parsed.instant)
        }),
        (None, JsonValue::Text(text)) => timestamp::instant(text, zone),
        (None, JsonValue::Json(raw)) => timestamp::instant_of_json(raw, zone),
        (None, JsonValue::Object(fields)) => {
            timestamp::instant_of_json(&json::render_object(fields), zone)
        }
    };
    found.ok_or_else(|| match strptime {
        Some(format) => format!("{} is not a timestamp of the format {format:?}", datum.describe()),
        None => format!("{} is not a timestamp", datum.describe()),
    })
}

fn failure(datum: &JsonValue<'_>, wanted: &str) -> String {
    format!("{} is {wanted}", datum.describe())
}

fn string(datum: JsonValue<'_>) -> Result<Option<JsonValue<'_>>, String> {
    match datum.into_text() {
        Ok(text) => Ok(Some(JsonValue::Text(text))),
        Err(other) => Err(format!("{} is not a string", other.kind().name())),
    }
}

fn integer(datum: JsonValue<'_>) -> Result<Option<JsonValue<'_>>, String> {
    let shown = || failure(&datum, "not an integer of 64 bits");
    let whole = match datum.kind() {
        JsonKind::Bool => Some(i128::from(is_true(&datum))),
        JsonKind::Number | JsonKind::String => number(&datum).and_then(Number::whole),
        _ => None,
    };
    let whole = whole.ok_or_else(shown)?;
    Ok(Some(JsonValue::Json(whole.to_string().into())))
}

fn float(datum: JsonValue<'_>) -> Result<Option<JsonValue<'_>>, String> {
    let value = match datum.kind() {
        JsonKind::Bool => Some(f64::from(u8::from(is_true(&datum)))),
        JsonKind::Number | JsonKind::String => number(&datum).map(as_float),
        _ => None,
    };
    let Some(value) = value.filter(|v| v.is_finite()) else {
        return Err(failure(&datum, "not a number"));
    };
    if datum.kind() == JsonKind::Number {
        // A number keeps its digits.
        return Ok(Some(datum));
    }
    let rendered = serde_json::Value::from(value).to_string();
    Ok(Some(JsonValue::Json(rendered.into())))
}

fn boolean(datum: JsonValue<'_>) -> Result<Option<JsonValue<'_>>, String> {
    let found = match datum.kind() {
        JsonKind::Bool => return Ok(Some(datum)),
        JsonKind::Number => match number(&datum).and_then(Number::whole) {
            Some(0) => Some(false),
            Some(1) => Some(true),
            _ => None,
        },
        JsonKind::String => word(&datum).and_then(|word| boolean::parse(&word)),
        _ => None,
    };
    let found = found.ok_or_else(|| failure(&datum, "neither true nor false"))?;
    let rendered = if found { "true" } else { "false" };
    Ok(Some(JsonValue::Json(Cow::Borrowed(rendered))))
}

fn is_true(datum: &JsonValue<'_>) -> bool {
    matches!(datum, JsonValue::Json(raw) if raw == "true")
}

fn word<'d>(datum: &'d JsonValue<'_>) -> Option<Cow<'d, str>> {
    match datum {
        JsonValue::Text(text) => Some(Cow::Borrowed(text)),
        JsonValue::Json(raw) => json::text(raw),
        JsonValue::Object(_) => None,
    }
}

/// The number of a value or of its text.
fn number(datum: &JsonValue<'_>) -> Option<Number> {
    number::of_text(&word(datum)?)
}

fn as_float(number: Number) -> f64 {
    match number {
        Number::Whole(whole) => whole as f64,
        Number::Float(float) => float,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(to: TargetType, json: &'static str) -> Option<String> {
        let datum = JsonValue::from_json(json).unwrap();
        let format = TimeFormat { strptime: None, zone: &TimeZone::UTC };
        let made = convert(to, format, datum).ok()?;
        made.map(|d| d.into_raw().into_owned())
    }

    #[test]
    fn every_type_converts_or_fails_as_documented() {
        // Each pair of type and input has one result; `None` is a failure.
        use TargetType::{Boolean, Float, Integer, Json, List, String, Timestamp};
        for (to, input, output) in [
            (String, "1.50", Some(r#""1.50""#)),
            (String, "true", Some(r#""true""#)),
            (String, "[1]", None),
            (Integer, r#"" 42 ""#, Some("42")),
            (Integer, "3.0", Some("3")),
            (Integer, "1e3", Some("1000")),
            (Integer, "3.7", None),
            (Integer, "true", Some("1")),
            (Integer, "18446744073709551615", Some("18446744073709551615")),
            (Integer, "18446744073709551616", None),
            (Integer, r#""""#, None),
            (Float, r#""1.5""#, Some("1.5")),
            (Float, "1.50", Some("1.50")),
            (Float, "123456789012345678901234567890", Some("123456789012345678901234567890")),
            (Float, r#""nan""#, None),
            (Float, "1e999", None),
            (Boolean, r#"" Yes""#, Some("true")),
            (Boolean, r#""OFF""#, Some("false")),
            (Boolean, "1.0", Some("true")),
            (Boolean, "2", None),
            (Boolean, "{}", None),
            (Timestamp, "1767225600", Some(r#""2026-01-01T00:00:00Z""#)),
            (Timestamp, r#"{"$date":1767225600000}"#, Some(r#""2026-01-01T00:00:00Z""#)),
            (Timestamp, "true", None),
            (Timestamp, "[1767225600]", None),
            (Integer, "9007199254740993.0", Some("9007199254740993")),
            (Json, r#""[1, 2]""#, Some("[1, 2]")),
            (Json, r#""x""#, None),
            (Json, "5", Some("5")),
            (List, "5", Some("[5]")),
            (List, "[5]", Some("[5]")),
            (List, r#"{"a":1}"#, Some(r#"[{"a":1}]"#)),
        ] {
            assert_eq!(run(to, input).as_deref(), output, "{to:?} of {input}");
        }
    }
}
