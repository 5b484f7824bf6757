//! The eight attribute types. `check` is strict and used for custom attributes; `convert` is
//! lenient and used for event properties.
//!
//! # Invariants
//! The API returns values from both functions unchanged.

use jiff::Timestamp;
use jiff::civil::Date;
use serde_json::{Value, json};

use super::reply::{NOT_A_STRING, NOT_AN_INTEGER, too_long};

/// The longest text value of a custom attribute or an event property, in characters.
pub(super) const MAX_TEXT_LEN: usize = 255;

/// The type of a custom attribute or an event property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PropertyType {
    Boolean,
    Date,
    Datetime,
    Fixed,
    Float,
    Integer,
    Json,
    String,
}

impl PropertyType {
    const NAMES: [(&'static str, Self); 8] = [
        ("boolean", Self::Boolean),
        ("date", Self::Date),
        ("datetime", Self::Datetime),
        ("fixed", Self::Fixed),
        ("float", Self::Float),
        ("integer", Self::Integer),
        ("json", Self::Json),
        ("string", Self::String),
    ];

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|(_, found)| *found)
    }

    pub(super) fn as_str(self) -> &'static str {
        Self::NAMES
            .iter()
            .find(|(_, known)| *known == self)
            .map(|(name, _)| *name)
            .expect("every variant is in the table")
    }
}

/// The constraints of a custom attribute's values.
#[derive(Debug)]
pub(super) struct ValueRule {
    pub(super) value_type: PropertyType,
    /// The allowed values of a `fixed` attribute.
    pub(super) choices: Vec<String>,
    /// Whether a `fixed` attribute may have several values.
    pub(super) multiple: bool,
}

/// Accepts a value only if it has the attribute's type; the error says what is expected.
pub(super) fn check(value: &Value, rule: &ValueRule) -> Result<Value, String> {
    match rule.value_type {
        PropertyType::Boolean if value.is_boolean() => Ok(value.clone()),
        PropertyType::Boolean => Err("Must be a valid boolean.".into()),
        PropertyType::Integer if value.is_i64() => Ok(value.clone()),
        PropertyType::Integer => Err(NOT_AN_INTEGER.into()),
        PropertyType::Float if value.is_number() => Ok(value.clone()),
        PropertyType::Float => Err("A valid number is required.".into()),
        PropertyType::Json => Ok(value.clone()),
        PropertyType::Fixed => check_choice(value, rule),
        PropertyType::String => {
            let text = value.as_str().ok_or(NOT_A_STRING)?;
            if text.chars().count() > MAX_TEXT_LEN {
                return Err(too_long(MAX_TEXT_LEN));
            }
            Ok(value.clone())
        }
        PropertyType::Date => value
            .as_str()
            .filter(|text| text.len() == 10)
            .and_then(|text| text.parse::<Date>().ok())
            .map(|date| json!(date.to_string()))
            .ok_or_else(|| "Date has wrong format. Use this format instead: YYYY-MM-DD.".into()),
        PropertyType::Datetime => value
            .as_str()
            .and_then(micros_of)
            .map(|micros| json!(iso(micros)))
            .ok_or_else(|| DATETIME_FORMAT.into()),
    }
}

/// The message of Django REST Framework for a time that is not ISO 8601 with an offset.
pub(super) const DATETIME_FORMAT: &str = "Datetime has wrong format. Use one of these formats \
     instead: YYYY-MM-DDThh:mm[:ss[.uuuuuu]][+HH:MM|-HH:MM|Z].";

fn check_choice(value: &Value, rule: &ValueRule) -> Result<Value, String> {
    let picked: Vec<&str> = match value {
        Value::String(text) => vec![text.as_str()],
        Value::Array(items) => {
            items.iter().map(|item| item.as_str().ok_or(NOT_A_STRING)).collect::<Result<_, _>>()?
        }
        _ => return Err(NOT_A_STRING.into()),
    };
    for choice in &picked {
        if !rule.choices.iter().any(|known| known == choice) {
            return Err(format!("\"{choice}\" is not a valid choice."));
        }
    }
    match (rule.multiple, picked.as_slice()) {
        (true, _) => Ok(json!(picked)),
        (false, [one]) => Ok(json!(one)),
        (false, _) => Err("Exactly one choice is allowed.".into()),
    }
}

/// Converts a flat value to the type, if possible.
pub(super) fn convert(value: &Value, value_type: PropertyType) -> Option<Value> {
    match value_type {
        PropertyType::Json => Some(value.clone()),
        PropertyType::String | PropertyType::Fixed => as_text(value).map(Value::String),
        PropertyType::Boolean => as_bool(value).map(Value::Bool),
        PropertyType::Integer => as_integer(value).map(|number| json!(number)),
        PropertyType::Float => match value {
            Value::Number(_) => Some(value.clone()),
            Value::String(text) => {
                text.trim().parse::<f64>().ok().filter(|n| n.is_finite()).map(|n| json!(n))
            }
            _ => None,
        },
        PropertyType::Date => {
            as_micros(value).map(|micros| json!(&iso(micros)[..10])).or_else(|| {
                let date = value.as_str()?.trim().parse::<Date>().ok()?;
                Some(json!(date.to_string()))
            })
        }
        PropertyType::Datetime => as_micros(value).map(|micros| json!(iso(micros))),
    }
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

fn as_bool(value: &Value) -> Option<bool> {
    match as_text(value)?.trim().to_ascii_lowercase().as_str() {
        "true" | "1" => Some(true),
        "false" | "0" => Some(false),
        _ => None,
    }
}

fn as_integer(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| {
            let float = number.as_f64()?;
            (float.fract() == 0.0).then(|| format!("{float:.0}").parse().ok())?
        }),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    }
}

fn as_micros(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => micros_of(text.trim()),
        Value::Number(number) => seconds_to_micros(number.as_i64()?),
        _ => None,
    }
}

/// Reads ISO 8601 with an offset; microseconds since 1970.
pub(super) fn micros_of(text: &str) -> Option<i64> {
    text.parse::<Timestamp>().ok().map(Timestamp::as_microsecond)
}

/// UNIX seconds as microseconds, if the time is between the years 1 and 9999.
pub(super) fn seconds_to_micros(seconds: i64) -> Option<i64> {
    let moment = Timestamp::from_second(seconds).ok()?;
    (moment.as_second() > -62_135_596_800).then(|| moment.as_microsecond())
}

/// A time as the API writes it: `2017-06-13T12:22:38.748397Z`.
pub(super) fn iso(micros: i64) -> String {
    match Timestamp::from_microsecond(micros) {
        Ok(moment) => moment.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string(),
        Err(_) => micros.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_values_convert_or_go() {
        // Guarantees that a property's value is stored in the type of its definition, or not at
        // all.
        let rows = [
            (json!(12), PropertyType::String, Some(json!("12"))),
            (json!(true), PropertyType::String, Some(json!("true"))),
            (json!([1]), PropertyType::String, None),
            (json!(" 12 "), PropertyType::Integer, Some(json!(12))),
            (json!(12.0), PropertyType::Integer, Some(json!(12))),
            (json!(12.5), PropertyType::Integer, None),
            (json!("x"), PropertyType::Integer, None),
            (json!("1.5"), PropertyType::Float, Some(json!(1.5))),
            (json!("nan"), PropertyType::Float, None),
            (json!("TRUE"), PropertyType::Boolean, Some(json!(true))),
            (json!(0), PropertyType::Boolean, Some(json!(false))),
            (json!("yes"), PropertyType::Boolean, None),
            (json!("2026-01-02"), PropertyType::Date, Some(json!("2026-01-02"))),
            (json!("2026-01-02T23:00:00Z"), PropertyType::Date, Some(json!("2026-01-02"))),
            (json!(0), PropertyType::Datetime, Some(json!("1970-01-01T00:00:00.000000Z"))),
            (json!("2026-01-02"), PropertyType::Datetime, None),
        ];
        for (value, value_type, wanted) in rows {
            assert_eq!(convert(&value, value_type), wanted, "{value} as {}", value_type.as_str());
        }
    }

    #[test]
    fn attribute_values_must_have_their_type() {
        // Guarantees that a custom attribute accepts no value of another type, so that a client's
        // mistake is visible.
        let rule =
            |value_type| ValueRule { value_type, choices: vec!["a".into()], multiple: false };
        assert!(check(&json!("12"), &rule(PropertyType::Integer)).is_err());
        assert!(check(&json!(12), &rule(PropertyType::String)).is_err());
        assert!(check(&json!("2026-1-2"), &rule(PropertyType::Date)).is_err());
        assert!(check(&json!("2026-01-02T03:04:05"), &rule(PropertyType::Datetime)).is_err());
        assert_eq!(check(&json!(["a"]), &rule(PropertyType::Fixed)), Ok(json!("a")));
        assert!(check(&json!("b"), &rule(PropertyType::Fixed)).is_err());
        let many = ValueRule { multiple: true, ..rule(PropertyType::Fixed) };
        assert_eq!(check(&json!("a"), &many), Ok(json!(["a"])));
    }
}
