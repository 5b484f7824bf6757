//! Converts one value to one attribute type. What does not fit is an error, never a guess.

use std::borrow::Cow;

use jiff::tz::TimeZone;
use serde::de::IgnoredAny;
use serde_json::Value;

use crate::call::{Json, needs_no_escaping};
use crate::coerce::boolean;
use crate::coerce::number::{self, Number};
use crate::coerce::timestamp::{self, ParsedTimestamp};
use crate::usercom::profile::limits::truncate;

/// Characters of a text value.
pub(in crate::usercom) const MAX_TEXT_LEN: usize = 255;

/// The types of attributes User.com has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValueType {
    /// `true` or `false`.
    Boolean,
    /// `YYYY-MM-DD`.
    Date,
    /// ISO 8601.
    DateTime,
    /// One or several of a list of choices.
    Fixed {
        /// The choices as declared; empty if the catalogue does not have them.
        choices: Vec<Box<str>>,
        /// Whether several may be chosen.
        many: Cardinality,
    },
    /// A number.
    Float,
    /// A whole number.
    Integer,
    /// Any JSON.
    Json,
    /// Text of up to 255 characters.
    String,
}

/// How many of a list may be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cardinality {
    /// One.
    One,
    /// Any number.
    Many,
}

impl ValueType {
    /// Parses a type as the catalogue names it. An unknown type accepts any JSON.
    pub(in crate::usercom) fn parse(name: &str, choices: &Value, many: bool) -> Self {
        match name {
            "boolean" => Self::Boolean,
            "date" => Self::Date,
            "datetime" => Self::DateTime,
            "fixed" => Self::Fixed {
                choices: declared(choices),
                many: if many { Cardinality::Many } else { Cardinality::One },
            },
            "float" => Self::Float,
            "integer" => Self::Integer,
            "string" => Self::String,
            _ => Self::Json,
        }
    }
}

impl ValueType {
    /// The name User.com has for it.
    pub(in crate::usercom) fn as_str(&self) -> &'static str {
        match self {
            Self::Boolean => "boolean",
            Self::Date => "date",
            Self::DateTime => "datetime",
            Self::Fixed { .. } => "fixed",
            Self::Float => "float",
            Self::Integer => "integer",
            Self::Json => "json",
            Self::String => "string",
        }
    }
}

/// Choices are strings, or objects that contain one.
fn declared(choices: &Value) -> Vec<Box<str>> {
    let text = |choice: &Value| -> Option<Box<str>> {
        let text = choice
            .as_str()
            .or_else(|| ["value", "name"].iter().find_map(|key| choice.get(key)?.as_str()))?;
        Some(text.into())
    };
    choices.as_array().map(|list| list.iter().filter_map(text).collect()).unwrap_or_default()
}

/// Why a value does not fit a type.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// There is nothing to send.
    #[error("null has no value")]
    Null,
    /// Not of the needed kind.
    #[error("not {0}")]
    Not(&'static str),
    /// Not among the choices.
    #[error("not one of the attribute's choices")]
    NoChoice,
}

/// Converts a JSON value to an attribute's type; times without a zone are in UTC.
///
/// # Errors
///
/// When the value has no equivalent in that type, or is not JSON.
pub fn convert<'j>(
    json_text: &'j str,
    value_type: &ValueType,
) -> Result<Json<'j>, ConversionError> {
    convert_in(&TimeZone::UTC, json_text, value_type)
}

/// Converts a JSON value to an attribute's type; returns the JSON to send. Times without a zone are
/// in `timezone`.
///
/// # Errors
///
/// When the value has no equivalent in that type, or is not JSON.
pub(in crate::usercom) fn convert_in<'j>(
    timezone: &TimeZone,
    json_text: &'j str,
    value_type: &ValueType,
) -> Result<Json<'j>, ConversionError> {
    if *value_type == ValueType::String {
        return string(json_text);
    }
    let value: Value = serde_json::from_str(json_text).map_err(|_| ConversionError::Not("JSON"))?;
    if value.is_null() {
        return Err(ConversionError::Null);
    }
    let out = match value_type {
        ValueType::Boolean => boolean(&value)?.to_string(),
        ValueType::Date => date(json_text, timezone)?,
        ValueType::DateTime => datetime(json_text, timezone)?,
        ValueType::Fixed { choices, many } => fixed(&value, choices, *many)?,
        ValueType::Float => float(&value)?,
        ValueType::Integer => integer(&value)?,
        // Strings were handled above.
        ValueType::Json | ValueType::String => json_text.to_owned(),
    };
    Ok(Json::from_valid_unchecked(out))
}

/// Any value as a string that is not too long. Most are short strings without escapes.
fn string(json_text: &str) -> Result<Json<'_>, ConversionError> {
    match inner(json_text) {
        Some(inner) if inner.len() <= MAX_TEXT_LEN && needs_no_escaping(inner) => {
            Ok(Json::from_valid_unchecked(json_text))
        }
        _ => Ok(Json::string(truncate(&text(json_text)?, MAX_TEXT_LEN))),
    }
}

/// Whether conversion to `string` truncates the value.
pub(in crate::usercom) fn overflows(json_text: &str) -> bool {
    // Escapes make JSON longer than the string it stands for, never shorter.
    json_text.len() > MAX_TEXT_LEN
        && text(json_text).is_ok_and(|text| text.chars().count() > MAX_TEXT_LEN)
}

/// The text of a value: strings decoded, everything else as its JSON.
fn text(json_text: &str) -> Result<Cow<'_, str>, ConversionError> {
    if json_text == "null" {
        return Err(ConversionError::Null);
    }
    let text = match inner(json_text) {
        Some(_) => serde_json::from_str(json_text).map(Cow::Owned),
        None => serde_json::from_str(json_text).map(|IgnoredAny| Cow::Borrowed(json_text)),
    };
    text.map_err(|_| ConversionError::Not("JSON"))
}

/// The text between the quotes of a string.
fn inner(json_text: &str) -> Option<&str> {
    json_text.strip_prefix('"')?.strip_suffix('"')
}

fn boolean(value: &Value) -> Result<bool, ConversionError> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::String(word) => boolean::parse(word),
        Value::Number(number) if number.as_f64() == Some(1.0) => Some(true),
        Value::Number(number) if number.as_f64() == Some(0.0) => Some(false),
        _ => None,
    }
    .ok_or(ConversionError::Not("true or false"))
}

fn integer(value: &Value) -> Result<String, ConversionError> {
    const NOT: ConversionError = ConversionError::Not("a whole number");
    let text = match value {
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.trim().to_owned(),
        _ => return Err(NOT),
    };
    let whole = number::of_text(&text).and_then(Number::whole).ok_or(NOT)?;
    i64::try_from(whole).map(|whole| whole.to_string()).map_err(|_| NOT)
}

fn float(value: &Value) -> Result<String, ConversionError> {
    const NOT: ConversionError = ConversionError::Not("a number");
    match value {
        Value::Number(number) => Ok(number.to_string()),
        Value::String(text) => {
            let text = text.trim();
            if let Ok(whole) = text.parse::<i64>() {
                return Ok(whole.to_string());
            }
            let number: f64 = text.parse().map_err(|_| NOT)?;
            serde_json::Number::from_f64(number).map(|n| n.to_string()).ok_or(NOT)
        }
        _ => Err(NOT),
    }
}

/// Reads a timestamp. Without a zone it is in UTC.
pub(in crate::usercom) fn moment(json_text: &str) -> Option<ParsedTimestamp> {
    timestamp::of_json(json_text, &TimeZone::UTC)
}

fn date(json_text: &str, timezone: &TimeZone) -> Result<String, ConversionError> {
    timestamp::of_json(json_text, timezone)
        .map(|moment| Value::from(moment.written.to_string()).to_string())
        .ok_or(ConversionError::Not("a date"))
}

fn datetime(json_text: &str, timezone: &TimeZone) -> Result<String, ConversionError> {
    let moment =
        timestamp::of_json(json_text, timezone).ok_or(ConversionError::Not("a date and time"))?;
    let text = moment.instant.to_string();
    Ok(Value::from(text.replace('Z', "+00:00")).to_string())
}

fn fixed(
    value: &Value,
    choices: &[Box<str>],
    many: Cardinality,
) -> Result<String, ConversionError> {
    let choose = |value: &Value| -> Result<Value, ConversionError> {
        let text = match value {
            Value::String(text) => text.trim().to_owned(),
            Value::Number(_) | Value::Bool(_) => value.to_string(),
            _ => return Err(ConversionError::NoChoice),
        };
        if choices.is_empty() {
            return Ok(Value::from(text));
        }
        let lower = text.to_lowercase();
        choices
            .iter()
            .find(|choice| ***choice == *text)
            .or_else(|| choices.iter().find(|choice| choice.trim().to_lowercase() == lower))
            .map(|choice| Value::from(&**choice))
            .ok_or(ConversionError::NoChoice)
    };
    let chosen = match (value, many) {
        (Value::Array(list), Cardinality::Many) => {
            Value::Array(list.iter().map(choose).collect::<Result<_, _>>()?)
        }
        (Value::Array(list), Cardinality::One) => match list.as_slice() {
            [only] => choose(only)?,
            _ => return Err(ConversionError::NoChoice),
        },
        (single, Cardinality::Many) => Value::Array(vec![choose(single)?]),
        (single, Cardinality::One) => choose(single)?,
    };
    Ok(chosen.to_string())
}
