//! The standard fields of users and companies: their names, what each one takes, and how it is
//! shown. Not custom attributes, and not the storage.
//!
//! Invariant: a field that is shown differently from how it is written (a choice) is stored as it
//! was written.

use serde_json::{Value, json};

use super::reply::{NOT_A_STRING, NOT_AN_INTEGER, NULL, too_long};

/// The two kinds of thing that carry attributes and tags here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Company,
}

/// What a standard field takes.
#[derive(Debug, Clone, Copy)]
pub(super) enum Shape {
    /// Any text.
    Text,
    /// A text of at most so many characters.
    Short(usize),
    Email,
    Integer,
    /// A boolean with its value where none was written.
    Flag(bool),
    /// A number from 1 that comes out as a word; the first word where none was written.
    Choice(&'static [&'static str]),
    /// A list of texts.
    Texts,
}

const USER_FIELDS: &[(&str, Shape)] = &[
    ("email", Shape::Email),
    ("first_name", Shape::Short(40)),
    ("last_name", Shape::Short(40)),
    ("phone_number", Shape::Short(64)),
    ("city", Shape::Short(64)),
    ("region", Shape::Text),
    ("country", Shape::Text),
    ("gender", Shape::Choice(&["unknown", "male", "female"])),
    ("status", Shape::Choice(&["visitor", "user"])),
    ("score", Shape::Integer),
    ("unsubscribed", Shape::Flag(false)),
    ("notifications", Shape::Flag(true)),
    ("timezone", Shape::Text),
    ("gravatar_url", Shape::Text),
    ("facebook_url", Shape::Text),
    ("linkedin_url", Shape::Text),
    ("twitter_url", Shape::Text),
    ("google_url", Shape::Text),
    ("assigned_to", Shape::Integer),
];

const COMPANY_FIELDS: &[(&str, Shape)] = &[
    ("name", Shape::Text),
    ("email", Shape::Email),
    ("address", Shape::Text),
    ("city", Shape::Text),
    ("region", Shape::Text),
    ("country", Shape::Text),
    ("postal_code", Shape::Text),
    ("description", Shape::Text),
    ("phone_numbers", Shape::Texts),
    ("size", Shape::Integer),
    ("assigned_to", Shape::Integer),
];

/// Keys of an answer that a body cannot write; they are passed over without being counted.
pub(super) const READ_ONLY: &[&str] = &[
    "id",
    "lists",
    "companies",
    "attributes",
    "employees",
    "members",
    "page_views",
    "first_seen",
    "last_seen",
    "last_contacted",
    "created_at",
    "updated_at",
];

impl Kind {
    /// The attributes' content type, and the table of tags' word for it.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::User => "clientuser",
            Self::Company => "company",
        }
    }

    pub(super) fn fields(self) -> &'static [(&'static str, Shape)] {
        match self {
            Self::User => USER_FIELDS,
            Self::Company => COMPANY_FIELDS,
        }
    }

    pub(super) fn shape(self, field: &str) -> Option<Shape> {
        self.fields().iter().find(|(name, _)| *name == field).map(|(_, shape)| *shape)
    }

    /// Whether the API itself writes a field of this name, so that no attribute may take it.
    pub(super) fn is_standard(self, name: &str) -> bool {
        name == "custom_id"
            || name == "tags"
            || self.shape(name).is_some()
            || (self == Self::User && (name == "company_custom_id" || name == "user_key"))
    }

    pub(super) fn table(self) -> &'static str {
        match self {
            Self::User => "users",
            Self::Company => "companies",
        }
    }
}

/// Checks one standard field's value and gives it as it is stored.
pub(super) fn check_field(shape: Shape, value: &Value) -> Result<Value, String> {
    if value.is_null() {
        return Err(NULL.into());
    }
    let text = || value.as_str().ok_or_else(|| NOT_A_STRING.to_owned());
    match shape {
        Shape::Text => text().map(|_| ()),
        Shape::Short(max) if text()?.chars().count() > max => Err(too_long(max)),
        Shape::Short(_) => Ok(()),
        Shape::Email if is_email(text()?) => Ok(()),
        Shape::Email => Err("Enter a valid email address.".into()),
        Shape::Integer if value.is_i64() => Ok(()),
        Shape::Integer => Err(NOT_AN_INTEGER.into()),
        Shape::Flag(_) if value.is_boolean() => Ok(()),
        Shape::Flag(_) => Err("Must be a valid boolean.".into()),
        Shape::Choice(words) => match value.as_u64() {
            Some(number) if (1..=words.len() as u64).contains(&number) => Ok(()),
            _ => Err(format!(
                "\"{}\" is not a valid choice.",
                value.as_str().map_or_else(|| value.to_string(), str::to_owned)
            )),
        },
        Shape::Texts => match value.as_array() {
            None => Err(format!("Expected a list of items but got type \"{}\".", json_type(value))),
            Some(items) if items.iter().all(Value::is_string) => Ok(()),
            Some(_) => Err(NOT_A_STRING.into()),
        },
    }?;
    Ok(value.clone())
}

pub(super) fn json_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}

/// Empty clears the field; otherwise one `@` between two parts without blanks.
fn is_email(text: &str) -> bool {
    let parts: Vec<&str> = text.split('@').collect();
    text.is_empty()
        || (parts.len() == 2
            && parts.iter().all(|part| !part.is_empty())
            && !text.chars().any(char::is_whitespace))
}

/// A stored value as an answer shows it, with the default where nothing was written.
pub(super) fn shown(shape: Shape, stored: Option<Value>) -> Value {
    match (shape, stored) {
        (Shape::Choice(words), stored) => {
            let number = stored.as_ref().and_then(Value::as_u64).unwrap_or(1);
            let index = usize::try_from(number).unwrap_or(1).saturating_sub(1);
            json!(words.get(index))
        }
        (_, Some(value)) => value,
        (Shape::Flag(default), None) => json!(default),
        (Shape::Texts, None) => json!([]),
        (_, None) => Value::Null,
    }
}
