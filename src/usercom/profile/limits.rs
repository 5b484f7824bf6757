//! The lengths and names User.com accepts. Counts characters, never cuts one in two.

use std::borrow::Cow;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::Notes;
use crate::call::{Lexicon, Names, trimmed, write_string};
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
    // No text has more characters than bytes.
    if text.len() <= cap {
        return text;
    }
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

/// The bytes that standard form leaves as they are.
const STANDARD: [bool; 256] = {
    let mut standard = [false; 256];
    let mut byte = 0_u8;
    while byte.is_ascii() {
        let is_blank = byte.is_ascii_whitespace() || byte == 11;
        standard[byte as usize] = !byte.is_ascii_uppercase() && !is_blank;
        byte += 1;
    }
    standard
};

/// The same; most names are their own.
pub(crate) fn std_form(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| STANDARD[usize::from(byte)]) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.trim().to_lowercase().replace(char::is_whitespace, "_"))
}

/// The names of fields User.com has of its own, which no attribute may have: what is written under
/// them is no attribute, and under `custom_id` it would be somebody else.
pub(super) type OwnNames = Lexicon<()>;

/// Own names, which are in standard form.
pub(super) fn own_names(names: &[&str]) -> OwnNames {
    let mut own = OwnNames::default();
    names.iter().for_each(|name| own.add(name.as_bytes(), ()));
    own
}

/// Adds custom attributes to a set under names User.com accepts. Two spellings of one attribute
/// stay one, the later value wins; two long names that would be cut to the same one stay two.
pub(super) struct Customs<'a> {
    set: &'a mut FieldSet,
    /// Fields the set had before, whose names are own ones.
    before: usize,
    own: &'a OwnNames,
    seen: Seen,
}

/// The names of attributes in standard form, in the order they were added.
#[derive(Default)]
struct Seen {
    names: Names,
    forms: Vec<Form>,
    /// The text of all forms.
    text: String,
}

/// The name of an attribute in standard form.
struct Form {
    range: Range<usize>,
    /// The full name in standard form, if it was cut.
    full: Option<Box<str>>,
}

impl Seen {
    fn place(&self, form: &str) -> Option<usize> {
        self.names.place(form, |place| &self.text[self.forms[place].range.clone()])
    }

    /// Notes the name of the attribute that is added.
    fn note(&mut self, form: &str, full: Option<Box<str>>) {
        self.names.enter(form, |place| &self.text[self.forms[place].range.clone()]);
        let start = self.text.len();
        self.text.push_str(form);
        self.forms.push(Form { range: start..self.text.len(), full });
    }

    /// The full name, in standard form, of an attribute.
    fn full(&self, place: usize) -> &str {
        let form = &self.forms[place];
        form.full.as_deref().unwrap_or(&self.text[form.range.clone()])
    }
}

impl<'a> Customs<'a> {
    /// Adds to a set that holds fields with own names only.
    pub(super) fn new(set: &'a mut FieldSet, own: &'a OwnNames) -> Self {
        debug_assert!(set.iter().all(|field| own.get(field.name.as_bytes()).is_some()), "{set:?}");
        let mut seen = Seen::default();
        seen.forms.reserve(24);
        seen.text.reserve(512);
        Self { before: set.len(), set, own, seen }
    }

    /// Adds one attribute, or replaces the value of the attribute that is the same to User.com.
    pub(super) fn add(&mut self, name: &str, json: &str, notes: &mut Notes) {
        let name = trimmed(name);
        if name.is_empty() {
            notes.dropped("", "the attribute has no name");
            return;
        }
        let full = std_form(name);
        let mut short = Cow::Borrowed(crop_noting(name, ATTRIBUTE_NAME, name, notes).trim_end());
        let mut form = match short.len() == name.len() {
            true => Cow::Borrowed(&*full),
            false => Cow::Owned(name_std(&short)),
        };
        if self.own.get(form.as_bytes()).is_some() {
            notes.dropped(name, "a standard field has this name");
            return;
        }
        let mut place = self.seen.place(&form);
        if place.is_some_and(|place| self.seen.full(place) != &*full) {
            short = Cow::Owned(with_suffix(name, &full));
            form = Cow::Owned(name_std(&short));
            place = self.seen.place(&form);
        }
        let cut = (form != full).then(|| Box::from(&*full));
        match place {
            Some(place) => {
                self.set.replace(self.before + place, FieldClass::Custom, json);
                self.seen.forms[place].full = cut;
            }
            None => {
                self.set.push(Field { name: &short, class: FieldClass::Custom, json });
                self.seen.note(&form, cut);
            }
        }
    }

    /// Adds an attribute unless the set has one of that name, which is in standard form and short.
    pub(super) fn add_missing(&mut self, name: &'static str, text: &str) {
        debug_assert!(name.len() <= ATTRIBUTE_NAME && std_form(name) == name, "{name}");
        if self.seen.place(name).is_none() {
            self.set.push_with(name, FieldClass::Custom, |out| write_string(out, text));
            self.seen.note(name, None);
        }
    }
}

/// A name cut short enough to carry a mark of the whole.
fn with_suffix(name: &str, full: &str) -> String {
    let digest = Sha256::digest(full.as_bytes());
    let mark = format!("_{:02x}{:02x}", digest[0], digest[1]);
    format!("{}{mark}", crop(name, ATTRIBUTE_NAME - mark.len()))
}
