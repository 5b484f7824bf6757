//! The body of a user or company as it grows: standard fields, then custom attributes, which are
//! strings under names User.com accepts.
//!
//! Two spellings of one attribute stay one, the later value wins; two long names that would be cut
//! to the same one stay two.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::Notes;
use super::text::{TEXT, crop, cropped, shown, text, trimmed};

/// Characters of an attribute's name.
const NAME: usize = 32;

pub(super) struct Body {
    fields: Map<String, Value>,
    /// The names of User.com's own fields.
    own: &'static [&'static str],
    /// Attributes whose names are not their own standard form, or were cut, by that form.
    odd: HashMap<String, Odd>,
}

struct Odd {
    name: String,
    /// The standard form of the whole name.
    full: String,
}

/// Who has a name already.
enum Taken<'b> {
    Nobody,
    Standard,
    Custom { name: &'b str, full: &'b str },
}

impl Body {
    /// The body of whom this id names. No attribute may have one of the `own` names of User.com's
    /// fields.
    pub(super) fn of(own_id: String, own: &'static [&'static str]) -> Self {
        let mut body = Self { fields: Map::new(), own, odd: HashMap::new() };
        body.put("custom_id", own_id);
        body
    }

    pub(super) fn done(self) -> Map<String, Value> {
        self.fields
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.fields.contains_key(name)
    }

    /// Adds a standard field.
    pub(super) fn put(&mut self, name: &'static str, value: impl Into<Value>) {
        self.fields.insert(name.to_owned(), value.into());
    }

    /// Adds a standard field that is a text.
    pub(super) fn put_text(
        &mut self,
        name: &'static str,
        value: Option<Value>,
        cap: usize,
        notes: &mut Notes,
    ) {
        match value.map(text) {
            Some(Some(value)) => self.put_string(name, value, cap, notes),
            Some(None) => notes.dropped(name, "a text is needed, this is a list"),
            None => {}
        }
    }

    pub(super) fn put_string(
        &mut self,
        name: &'static str,
        value: String,
        cap: usize,
        notes: &mut Notes,
    ) {
        self.put(name, trimmed(cropped(trimmed(value), cap, name, notes)));
    }

    /// Adds a list of texts, unless it is empty.
    pub(super) fn put_list(&mut self, name: &'static str, texts: Vec<String>) {
        if !texts.is_empty() {
            self.put(name, texts);
        }
    }

    /// Adds a custom attribute.
    pub(super) fn custom(&mut self, name: String, value: Value, notes: &mut Notes) {
        let name = trimmed(name);
        if name.is_empty() {
            notes.dropped("", "the attribute has no name");
            return;
        }
        let full = standard_form(&name);
        let mut short = Cow::Borrowed(crop(&name, NAME));
        if short.len() < name.len() {
            notes.cropped.push(name.clone());
            short = short.trim_end().to_owned().into();
        }
        let mut form = match short.len() == name.len() {
            true => full.clone(),
            false => Cow::Owned(standard_form(&short).into_owned()),
        };
        let mut taken = self.taken(&form);
        if let Taken::Custom { full: other, .. } = taken
            && *other != *full
        {
            short = Cow::Owned(with_mark(&name, &full));
            form = Cow::Owned(standard_form(&short).into_owned());
            taken = self.taken(&form);
        }
        let known = match taken {
            Taken::Standard => return notes.dropped(&name, "a standard field has this name"),
            Taken::Custom { name, .. } => Some(name.to_owned()),
            Taken::Nobody => None,
        };
        let value = attribute(value);
        if *short == *full {
            // The usual case: such a name is found in the fields themselves.
            let name = known.unwrap_or_else(|| short.into_owned());
            self.fields.insert(name, value);
            return;
        }
        let (form, full) = (form.into_owned(), full.into_owned());
        let name = known.unwrap_or_else(|| short.into_owned());
        self.odd.insert(form, Odd { name: name.clone(), full });
        self.fields.insert(name, value);
    }

    /// Adds a custom attribute unless there is one of that name, which is in standard form.
    pub(super) fn custom_if_missing(&mut self, name: &'static str, text: String) {
        if let Taken::Nobody = self.taken(name) {
            self.fields.insert(name.to_owned(), attribute(text.into()));
        }
    }

    fn taken<'b>(&'b self, form: &'b str) -> Taken<'b> {
        if self.own.contains(&form) {
            return Taken::Standard;
        }
        if let Some(odd) = self.odd.get(form) {
            return Taken::Custom { name: &odd.name, full: &odd.full };
        }
        match self.fields.contains_key(form) {
            true => Taken::Custom { name: form, full: form },
            false => Taken::Nobody,
        }
    }
}

/// A value as an attribute of type string.
fn attribute(value: Value) -> Value {
    let mut text = shown(value);
    text.truncate(crop(&text, TEXT).len());
    Value::String(text)
}

/// The form in which User.com tells names apart: lower case, blanks as underscores.
fn standard_form(name: &str) -> Cow<'_, str> {
    let is_own =
        |b: u8| b.is_ascii() && !b.is_ascii_uppercase() && !b.is_ascii_whitespace() && b != 11;
    if name.bytes().all(is_own) {
        return Cow::Borrowed(name);
    }
    let lower = name.trim().to_lowercase();
    lower.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

/// A name cut short enough to carry a mark of the whole.
fn with_mark(name: &str, full: &str) -> String {
    let digest = Sha256::digest(full.as_bytes());
    let mark = format!("_{:02x}{:02x}", digest[0], digest[1]);
    format!("{}{mark}", crop(name, NAME - mark.len()))
}
