//! Reading valid JSON text without a tree: kinds, scalars, entries, elements.
//!
//! # Invariants
//! All functions read one level; deeper levels are skipped without recursion.

use std::borrow::Cow;

use crate::call::{self, Fields, Json};

pub(super) use crate::call::{unescape, write_string};

/// The kind of a JSON value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum JsonKind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl JsonKind {
    /// The kind of a value from its text, which has no leading white space.
    pub(super) fn of(raw: &str) -> Self {
        match raw.as_bytes().first() {
            Some(b'"') => Self::String,
            Some(b'{') => Self::Object,
            Some(b'[') => Self::Array,
            Some(b't' | b'f') => Self::Bool,
            Some(b'n') | None => Self::Null,
            Some(_) => Self::Number,
        }
    }

    /// The name with its article, for messages.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

/// A scalar as a string: a string unescaped, a number or boolean as written.
pub(super) fn text(raw: &str) -> Option<Cow<'_, str>> {
    match JsonKind::of(raw) {
        JsonKind::String => Some(unescape(raw)),
        JsonKind::Number | JsonKind::Bool => Some(Cow::Borrowed(raw)),
        JsonKind::Null | JsonKind::Array | JsonKind::Object => None,
    }
}

/// Renders an object.
pub(super) fn render_object(fields: &Fields<'_>) -> String {
    let size =
        fields.iter().map(|(name, value)| name.len() + value.as_str().len() + 4).sum::<usize>();
    let mut out = String::with_capacity(size + 2);
    out.push('{');
    for (n, (name, value)) in fields.iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        write_string(&mut out, name);
        out.push(':');
        out.push_str(value.as_str());
    }
    out.push('}');
    out
}

/// Renders an array of JSON texts.
pub(super) fn render_array<S: AsRef<str>>(elements: impl IntoIterator<Item = S>) -> String {
    let mut out = String::from("[");
    for (n, element) in elements.into_iter().enumerate() {
        if n > 0 {
            out.push(',');
        }
        out.push_str(element.as_ref());
    }
    out.push(']');
    out
}

/// The elements of an array; `None` for any other value.
pub(super) fn elements(raw: &str) -> Option<Vec<&str>> {
    (JsonKind::of(raw) == JsonKind::Array).then(|| call::elements(raw).collect())
}

/// The entries of an object, including nulls; of a repeated name the last value counts. `None` for
/// any other value.
pub(super) fn entries(raw: &str) -> Option<Fields<'_>> {
    if JsonKind::of(raw) != JsonKind::Object {
        return None;
    }
    let entries = call::unique_entries(raw).into_iter();
    Some(entries.map(|(name, json)| (name, Json::from_valid_unchecked(json))).collect())
}

/// Whether a text is a valid JSON value.
pub(super) fn is_valid(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

/// A value for a message: escaped, and truncated.
pub(super) fn excerpt(raw: &str) -> String {
    const MAX_EXCERPT_CHARS: usize = 60;
    let mut out: String = raw
        .chars()
        .take(MAX_EXCERPT_CHARS)
        .flat_map(|c| {
            let escaped: Box<dyn Iterator<Item = char>> = if c.is_control() {
                Box::new(c.escape_unicode())
            } else {
                Box::new(std::iter::once(c))
            };
            escaped
        })
        .collect();
    if raw.chars().nth(MAX_EXCERPT_CHARS).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_of_equal_names_replaces_earlier_value() {
        // Names that differ only in escapes are equal; the later value replaces the earlier.
        let fields = entries(r#"{"a.b":1,"x":null,"a\u002eb":2,"\ud83d":3}"#).unwrap();
        assert_eq!(render_object(&fields), "{\"a.b\":2,\"x\":null,\"\u{fffd}\":3}");
    }

    #[test]
    fn names_are_escaped_when_rendered() {
        // A name with quotes and control characters makes valid JSON.
        let fields: Fields<'_> = vec![("a\"\n".into(), Json::from_valid_unchecked("1"))];
        assert_eq!(render_object(&fields), r#"{"a\"\n":1}"#);
    }
}
