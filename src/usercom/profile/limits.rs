//! The lengths and names User.com accepts. Counts characters, never cuts one in two.

use std::borrow::Cow;
use std::collections::HashMap;

use sha2::{Digest, Sha256};

use super::Notes;
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
    let lower = name.trim().to_lowercase();
    lower.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect()
}

/// Adds custom attributes to a set under names User.com accepts. Two spellings of one attribute
/// stay one, the later value wins; two long names that would be cut to the same one stay two.
pub(super) struct Customs<'a> {
    set: &'a mut FieldSet,
    /// Standard form of the name in the set -> the full name it was made from.
    seen: HashMap<String, String>,
}

impl<'a> Customs<'a> {
    /// Adds to a set; what it holds already is not overwritten.
    pub(super) fn new(set: &'a mut FieldSet) -> Self {
        let seen = set.0.iter().map(|field| (name_std(&field.name), String::new())).collect();
        Self { set, seen }
    }

    /// Adds one attribute, or replaces the value of the attribute that is the same to User.com.
    pub(super) fn add(&mut self, name: &str, json: &str, notes: &mut Notes) {
        let name = name.trim();
        if name.is_empty() {
            notes.dropped("", "the attribute has no name");
            return;
        }
        let full = name_std(name);
        let mut short = Cow::Borrowed(crop_noting(name, ATTRIBUTE_NAME, name, notes).trim_end());
        let mut key = name_std(&short);
        if let Some(other) = self.seen.get(&key)
            && *other != full
        {
            if other.is_empty() {
                notes.dropped(name, "a standard field has this name");
                return;
            }
            short = Cow::Owned(with_suffix(name, &full));
            key = name_std(&short);
        }
        match self.set.0.iter_mut().find(|f| name_std(&f.name) == key) {
            Some(field) => field.json = json.into(),
            None => self.set.0.push(Field {
                name: short.into(),
                class: FieldClass::Custom,
                json: json.into(),
            }),
        }
        self.seen.insert(key, full);
    }

    /// Adds an attribute unless the set has one of that name.
    pub(super) fn add_missing(&mut self, name: &str, text: &str, notes: &mut Notes) {
        if !self.seen.contains_key(&name_std(name)) {
            let json = crate::call::Json::string(text);
            self.add(name, json.as_str(), notes);
        }
    }
}

/// A name cut short enough to carry a mark of the whole.
fn with_suffix(name: &str, full: &str) -> String {
    let digest = Sha256::digest(full.as_bytes());
    let mark = format!("_{:02x}{:02x}", digest[0], digest[1]);
    format!("{}{mark}", crop(name, ATTRIBUTE_NAME - mark.len()))
}
