//! The lengths and names that User.com accepts. Lengths count characters; no character is cut in
//! two.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::PlanWarnings;
use super::flattened::{TraitKind, UnmatchedTrait};
use crate::call::{FixedKeyMap, NameIndex, trimmed, write_string};
use crate::schedule::{Field, FieldClass, PackedFields, ParentObject};

/// Characters of a first or last name.
pub(super) const MAX_PERSON_NAME_LEN: usize = 40;
/// Characters of a phone number, city, region or country.
pub(super) const MAX_SHORT_LEN: usize = 64;
/// Characters of an event name and of a text value.
pub(super) const MAX_TEXT_LEN: usize = 255;
/// Characters of an attribute's name.
pub(super) const MAX_ATTRIBUTE_NAME_LEN: usize = 32;

/// Characters of an e-mail address.
pub(super) const MAX_EMAIL_LEN: usize = 254;
/// Characters of a page's path.
pub(super) const MAX_PATH_LEN: usize = 2_048;
/// Characters of a host.
pub(super) const MAX_HOST_LEN: usize = 255;
/// Characters of a number as it is written.
const MAX_NUMBER_LEN: usize = 40;
/// Values of a profile or an event that one record may set; further ones are dropped.
pub(super) const MAX_VALUES: usize = 1_000;
/// Objects of a record that may be the value of an attribute.
const MAX_OBJECTS: usize = 100;
/// Tags one record may set.
pub(super) const MAX_TAGS: usize = 1_000;
/// Phone numbers of a company one record may set.
pub(super) const MAX_PHONES: usize = 100;

/// The reason for dropping a value beyond [`MAX_VALUES`].
pub(super) const TOO_MANY_VALUES: &str = "a record sets at most 1000 values";

/// A text without NUL characters, which no database behind a web service accepts.
pub(super) fn without_nuls(text: &str) -> Cow<'_, str> {
    match text.contains('\0') {
        true => Cow::Owned(text.replace('\0', "")),
        false => Cow::Borrowed(text),
    }
}

/// JSON text without NUL characters in its strings and names.
pub(super) fn json_without_nuls(json: &str) -> Cow<'_, str> {
    fn strip(value: &mut Value) {
        match value {
            Value::String(text) => *text = text.replace('\0', ""),
            Value::Array(list) => list.iter_mut().for_each(strip),
            Value::Object(object) => {
                let entries = std::mem::take(object).into_iter();
                object.extend(entries.map(|(name, mut value)| {
                    strip(&mut value);
                    (name.replace('\0', ""), value)
                }));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    // In JSON a NUL can only be written as an escape.
    if memchr::memmem::find(json.as_bytes(), b"\\u0000").is_none() {
        return Cow::Borrowed(json);
    }
    match serde_json::from_str::<Value>(json) {
        Ok(mut value) => {
            strip(&mut value);
            Cow::Owned(value.to_string())
        }
        // Text that cannot be parsed is left to the conversion.
        Err(_) => Cow::Borrowed(json),
    }
}

/// A number as servers accept it: within the range of a 64-bit float, and not longer than
/// [`MAX_NUMBER_LEN`]. `None` for one that is not, and that has no shorter form of the same value.
pub(super) fn number(json: &str) -> Option<Cow<'_, str>> {
    if json.len() <= 15 && json.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return Some(Cow::Borrowed(json));
    }
    let value: f64 = json.parse().ok()?;
    let is_whole = json.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    match value.is_finite() {
        true if json.len() <= MAX_NUMBER_LEN => Some(Cow::Borrowed(json)),
        // Digits beyond the precision of a float carry no value; those of a whole number may.
        true if !is_whole => serde_json::Number::from_f64(value).map(|n| Cow::Owned(n.to_string())),
        _ => None,
    }
}

/// Whether JSON text is a number.
pub(super) fn is_number(json: &str) -> bool {
    json.as_bytes().first().is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-')
}

/// The first `cap` characters.
pub(crate) fn truncate(text: &str, cap: usize) -> &str {
    // No text has more characters than bytes.
    if text.len() <= cap {
        return text;
    }
    match text.char_indices().nth(cap) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The first `cap` characters; a truncation is noted for `field`.
pub(super) fn truncate_noting<'t>(
    text: &'t str,
    cap: usize,
    field: &str,
    notes: &mut PlanWarnings,
) -> &'t str {
    let cropped = truncate(text, cap);
    if cropped.len() < text.len() {
        notes.cropped(field);
    }
    cropped
}

/// The form in which User.com compares names: lower case, blanks as underscores.
pub(crate) fn name_std(name: &str) -> String {
    std_form(name).into_owned()
}

/// The bytes that the standard form leaves unchanged.
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

/// The same without a copy for most names, which are in standard form already.
pub(crate) fn std_form(name: &str) -> Cow<'_, str> {
    if name.bytes().all(|byte| STANDARD[usize::from(byte)]) {
        return Cow::Borrowed(name);
    }
    Cow::Owned(name.trim().to_lowercase().replace(char::is_whitespace, "_"))
}

/// The names of User.com's own fields, which no attribute may have: a value under such a name would
/// not become an attribute, and under `custom_id` it would change the identity of the user.
pub(super) type ReservedNames = FixedKeyMap<()>;

/// Reserved names, which are in standard form.
pub(super) fn reserved_names(names: &[&str]) -> ReservedNames {
    let mut own = ReservedNames::default();
    names.iter().for_each(|name| own.insert(name.as_bytes(), ()));
    own
}

/// Adds custom attributes to a set under names that User.com accepts. Two spellings of one
/// attribute stay one, and the later value is used; two long names that would be truncated to the
/// same name stay two.
pub(super) struct CustomAttributes<'a> {
    set: &'a mut PackedFields,
    /// Fields that the set had before, whose names are reserved.
    before: usize,
    own: &'a ReservedNames,
    seen: SetNames,
    /// Where the objects are in the set, by their index among the values that are added; `None` for
    /// one that is not in it.
    objects: HashMap<usize, Option<usize>>,
    /// Objects that are dropped with everything in them, by the same index.
    refused: HashSet<usize>,
    /// Values added or requested.
    added: usize,
    values: usize,
}

/// The names of attributes in standard form, in the order they were added.
#[derive(Default)]
struct SetNames {
    names: NameIndex,
    forms: Vec<NameForm>,
    /// The text of all forms.
    text: String,
}

/// The name of an attribute in standard form.
struct NameForm {
    range: Range<usize>,
    /// The full name in standard form, if it was truncated.
    full: Option<Box<str>>,
}

impl SetNames {
    fn place(&self, form: &str) -> Option<usize> {
        self.names.get(form, |place| &self.text[self.forms[place].range.clone()])
    }

    /// Records the name of the attribute that is added.
    fn note(&mut self, form: &str, full: Option<Box<str>>) {
        self.names.get_or_insert(form, |place| &self.text[self.forms[place].range.clone()]);
        let start = self.text.len();
        self.text.push_str(form);
        self.forms.push(NameForm { range: start..self.text.len(), full });
    }

    /// The full name, in standard form, of an attribute.
    fn full(&self, place: usize) -> &str {
        let form = &self.forms[place];
        form.full.as_deref().unwrap_or(&self.text[form.range.clone()])
    }
}

impl<'a> CustomAttributes<'a> {
    /// Adds to a set that holds only fields with reserved names.
    pub(super) fn new(set: &'a mut PackedFields, own: &'a ReservedNames) -> Self {
        debug_assert!(set.iter().all(|field| own.get(field.name.as_bytes()).is_some()), "{set:?}");
        let mut seen = SetNames::default();
        seen.forms.reserve(24);
        seen.text.reserve(512);
        Self {
            before: set.len(),
            set,
            own,
            seen,
            objects: HashMap::new(),
            refused: HashSet::new(),
            added: 0,
            values: 0,
        }
    }

    /// Adds the next of the values that no spelling leads to.
    pub(super) fn add(&mut self, other: UnmatchedTrait<'_>, notes: &mut PlanWarnings) {
        let place = self.added;
        self.added += 1;
        let within = other.owner.and_then(|owner| {
            if self.refused.contains(&owner) {
                self.refused.insert(place);
            }
            self.objects.get(&owner).copied().flatten()
        });
        if self.refused.contains(&place) {
            return;
        }
        let name = without_nuls(other.name);
        let name = trimmed(&name);
        if other.what == TraitKind::Opened {
            if other.owner.is_none() && self.is_own(name) {
                notes.dropped(name, "User.com has a field of this name");
                self.refused.insert(place);
                return;
            }
            let object = self.object(name, other.json, within);
            self.objects.insert(place, object);
            return;
        }
        self.values += 1;
        if self.values > MAX_VALUES {
            notes.dropped("traits", TOO_MANY_VALUES);
        } else if is_number(other.json) && number(other.json).is_none() {
            notes.dropped(name, "a number that no server accepts");
        } else {
            self.value(name, &json_without_nuls(other.json), within, notes);
        }
    }

    /// Whether a name is reserved, as it is or truncated to its length.
    fn is_own(&self, name: &str) -> bool {
        self.own.get(std_form(name).as_bytes()).is_some()
    }

    /// Adds an object, in case its attribute has the type `json`; returns where it is in the set.
    fn object(&mut self, name: &str, json: &str, within: Option<usize>) -> Option<usize> {
        let fits = !name.is_empty() && name.chars().count() <= MAX_ATTRIBUTE_NAME_LEN;
        if !fits || self.is_own(name) || self.set.objects().len() == MAX_OBJECTS {
            return None;
        }
        let json = Box::from(&*json_without_nuls(json));
        Some(self.set.add_object(ParentObject { name: name.into(), json, within }))
    }

    /// Adds one attribute, or replaces the value of the attribute that is the same for User.com.
    fn value(&mut self, name: &str, json: &str, within: Option<usize>, notes: &mut PlanWarnings) {
        if name.is_empty() {
            notes.dropped("", "the attribute has no name");
            return;
        }
        let full = std_form(name);
        let mut short =
            Cow::Borrowed(truncate_noting(name, MAX_ATTRIBUTE_NAME_LEN, name, notes).trim_end());
        let mut form = match short.len() == name.len() {
            true => Cow::Borrowed(&*full),
            false => Cow::Owned(name_std(&short)),
        };
        if self.own.get(form.as_bytes()).is_some() {
            notes.dropped(name, "User.com has a field of this name");
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
                self.set.set_owner(self.before + place, within);
                self.seen.forms[place].full = cut;
            }
            None => {
                self.set
                    .push_within(within, Field { name: &short, class: FieldClass::Custom, json });
                self.seen.note(&form, cut);
            }
        }
    }

    /// Adds an attribute unless the set has one of that name. The name must be short and in
    /// standard form.
    pub(super) fn add_missing(&mut self, name: &'static str, text: &str) {
        debug_assert!(name.len() <= MAX_ATTRIBUTE_NAME_LEN && std_form(name) == name, "{name}");
        if self.seen.place(name).is_none() {
            let text = without_nuls(text);
            self.set.push_with(name, FieldClass::Custom, |out| write_string(out, &text));
            self.seen.note(name, None);
        }
    }
}

/// A truncated name with a suffix that is derived from the full name.
fn with_suffix(name: &str, full: &str) -> String {
    let mark = format!("_{}", hex::encode(&Sha256::digest(full.as_bytes())[..2]));
    format!("{}{mark}", truncate(name, MAX_ATTRIBUTE_NAME_LEN - mark.len()))
}
