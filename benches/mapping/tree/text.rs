//! Texts: of values, without blanks around them, and no longer than they may be.

use serde_json::Value;

use super::Notes;

/// Characters of a text value.
pub(super) const TEXT: usize = 255;
/// Characters of a phone number, city, region or country.
pub(super) const SHORT: usize = 64;

/// The text of a scalar; nothing for null, lists and objects.
pub(super) fn text(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// A text as it is, everything else as JSON.
pub(super) fn shown(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

/// The text of a scalar without blanks around it.
pub(super) fn word(value: Value) -> Option<String> {
    text(value).map(trimmed)
}

/// A text without blanks around it.
pub(super) fn trimmed(text: String) -> String {
    match text.trim() {
        inner if inner.len() == text.len() => text,
        inner => inner.to_owned(),
    }
}

/// A text without its blanks.
pub(super) fn dense(mut text: String) -> String {
    text.retain(|c| !c.is_whitespace());
    text
}

/// The first `cap` characters.
pub(super) fn crop(text: &str, cap: usize) -> &str {
    // No text has more characters than bytes.
    if text.len() <= cap {
        return text;
    }
    text.char_indices().nth(cap).map_or(text, |(end, _)| &text[..end])
}

/// The first `cap` characters; a cut is noted.
pub(super) fn cropped(mut text: String, cap: usize, field: &str, notes: &mut Notes) -> String {
    let end = crop(&text, cap).len();
    if end < text.len() {
        notes.cropped.push(field.to_owned());
        text.truncate(end);
    }
    text
}
