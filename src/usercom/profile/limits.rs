//! The lengths and names User.com accepts. Counts characters, never cuts one in two.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Notes;
use crate::call::Json;
use crate::plan::{Field, FieldClass, FieldSet};

/// Characters of a first or last name.
pub(super) const PERSON_NAME: usize = 40;
/// Characters of a phone number, city, region or country.
pub(super) const SHORT: usize = 64;
/// Characters of an event name and of a text value.
pub(super) const TEXT: usize = 255;
/// Characters of an attribute's name.
pub(super) const ATTRIBUTE_NAME: usize = 32;

/// The first `cap` characters.
pub(crate) fn crop(text: &str, cap: usize) -> &str {
    match text.char_indices().nth(cap) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The first `cap` characters; a cut is noted against `field`.
pub(super) fn crop_noting<'t>(
    text: &'t str,
    cap: usize,
    field: &str,
    notes: &mut Notes,
) -> &'t str {
    let cropped = crop(text, cap);
    if cropped.len() < text.len() {
        notes.cropped(field);
    }
    cropped
}

/// The form in which User.com tells names apart: lower case, blanks as underscores.
pub(crate) fn name_std(name: &str) -> String {
    std_form(name).into_owned()
}

/// The same; most names are their own.
pub(crate) fn std_form(name: &str) -> Cow<'_, str> {
    let own =
        |b: u8| b.is_ascii() && !b.is_ascii_uppercase() && !b.is_ascii_whitespace() && b != 11;
    if name.bytes().all(own) {
        return Cow::Borrowed(name);
    }
    let lower = name.trim().to_lowercase();
    lower.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

/// Adds custom attributes to a set under names User.com accepts. Two spellings of one attribute
/// stay one, the later value wins; two long names that would be cut to the same one stay two.
pub(super) struct Customs<'a> {
    set: &'a mut FieldSet,
    /// By the standard form of a name in the set.
    seen: HashMap<Box<str>, Seen>,
}

/// A field of the set.
struct Seen {
    place: usize,
    /// The full name it was made from, in standard form; `None` for a standard field.
    full: Option<Box<str>>,
}

impl<'a> Customs<'a> {
    /// Adds to a set, to which about `more` come; what it holds already is not overwritten.
    pub(super) fn new(set: &'a mut FieldSet, more: usize) -> Self {
        let mut seen = HashMap::with_capacity(set.0.len() + more);
        for (place, field) in set.0.iter().enumerate() {
            seen.entry(std_form(&field.name).into()).or_insert(Seen { place, full: None });
        }
        set.0.reserve(more);
        Self { set, seen }
    }

    /// Adds one attribute, or replaces the value of the attribute that is the same to User.com.
    pub(super) fn add(&mut self, name: &str, json: impl Into<Box<str>>, notes: &mut Notes) {
        let name = name.trim();
        if name.is_empty() {
            notes.dropped("", "the attribute has no name");
            return;
        }
        let full = std_form(name);
        let mut short = Cow::Borrowed(crop_noting(name, ATTRIBUTE_NAME, name, notes).trim_end());
        let mut key = match short.len() == name.len() {
            true => full.clone(),
            false => Cow::Owned(name_std(&short)),
        };
        match self.seen.get(&*key).map(|seen| seen.full.as_deref()) {
            Some(None) => {
                notes.dropped(name, "a standard field has this name");
                return;
            }
            Some(Some(other)) if *other != *full => {
                short = Cow::Owned(with_suffix(name, &full));
                key = Cow::Owned(name_std(&short));
            }
            _ => {}
        }
        if let Some(seen) = self.seen.get_mut(&*key) {
            self.set.0[seen.place].json = json.into();
            seen.full = Some(full.into());
            return;
        }
        let place = self.set.0.len();
        self.set.0.push(Field { name: short.into(), class: FieldClass::Custom, json: json.into() });
        self.seen.insert(key.into(), Seen { place, full: Some(full.into()) });
    }

    /// Adds an attribute unless the set has one of that name.
    pub(super) fn add_missing(&mut self, name: &str, text: &str, notes: &mut Notes) {
        if !self.seen.contains_key(&*std_form(name)) {
            self.add(name, Json::string(text).into_text(), notes);
        }
    }
}

/// A name cut short enough to carry a mark of the whole.
fn with_suffix(name: &str, full: &str) -> String {
    let digest = Sha256::digest(full.as_bytes());
    let mark = format!("_{:02x}{:02x}", digest[0], digest[1]);
    format!("{}{mark}", crop(name, ATTRIBUTE_NAME - mark.len()))
}
