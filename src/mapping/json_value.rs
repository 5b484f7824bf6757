//! A value between the record and a call: JSON text, an unescaped string, or parsed entries.
//!
//! # Invariants
//! A value is never null. Null is the same as missing, which is `None`.

use std::borrow::Cow;

use super::json::{self, JsonKind};
use crate::call::{Fields, Json};

#[derive(Debug, Clone)]
pub(super) enum JsonValue<'a> {
    /// JSON text of any value but null.
    Json(Cow<'a, str>),
    /// A string, unescaped.
    Text(Cow<'a, str>),
    /// A parsed object. Its values may be null.
    Object(Fields<'a>),
}

impl<'a> JsonValue<'a> {
    /// From JSON text; `None` for null.
    pub(super) fn from_json(text: impl Into<Cow<'a, str>>) -> Option<Self> {
        let text = text.into();
        (JsonKind::of(&text) != JsonKind::Null).then_some(Self::Json(text))
    }

    pub(super) fn kind(&self) -> JsonKind {
        match self {
            Self::Json(raw) => JsonKind::of(raw),
            Self::Text(_) => JsonKind::String,
            Self::Object(_) => JsonKind::Object,
        }
    }

    /// The text of a scalar.
    pub(super) fn text(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Json(raw) => json::text(raw),
            Self::Object(_) => None,
        }
    }

    /// The text of a scalar; returns an array or an object unchanged.
    pub(super) fn into_text(self) -> Result<Cow<'a, str>, Self> {
        match self {
            Self::Text(text) => Ok(text),
            Self::Json(Cow::Borrowed(raw)) => json::text(raw).ok_or(self),
            Self::Json(Cow::Owned(ref raw)) => match json::text(raw) {
                Some(text) => Ok(Cow::Owned(text.into_owned())),
                None => Err(self),
            },
            Self::Object(_) => Err(self),
        }
    }

    /// JSON text.
    pub(super) fn into_raw(self) -> Cow<'a, str> {
        match self {
            Self::Json(raw) => raw,
            Self::Text(text) => {
                let mut raw = String::with_capacity(text.len() + 2);
                json::write_string(&mut raw, &text);
                Cow::Owned(raw)
            }
            Self::Object(fields) => Cow::Owned(json::render_object(&fields)),
        }
    }

    pub(super) fn into_json(self) -> Json<'a> {
        Json::from_valid_unchecked(self.into_raw())
    }

    /// The entries of an object, including nulls; returns any other value unchanged.
    pub(super) fn into_entries(self) -> Result<Fields<'a>, Self> {
        match self {
            Self::Object(fields) => Ok(fields),
            Self::Json(Cow::Borrowed(raw)) => json::entries(raw).ok_or(self),
            Self::Json(Cow::Owned(ref raw)) => match json::entries(raw) {
                Some(fields) => Ok(fields
                    .into_iter()
                    .map(|(name, value)| (Cow::Owned(name.into_owned()), value.into_owned()))
                    .collect()),
                None => Err(self),
            },
            Self::Text(_) => Err(self),
        }
    }

    /// For messages: the value, escaped and truncated.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Json(raw) => json::excerpt(raw),
            Self::Text(text) => json::excerpt(&format!("{text:?}")),
            Self::Object(fields) => json::excerpt(&json::render_object(fields)),
        }
    }
}
