//! The fields that an op writes, packed into the text of one JSON object.
//!
//! Thousands of ops wait in queues. One text per op needs far less memory than two allocations per
//! field, and it is copied into the request as it stands.
//!
//! # Invariants
//! Names are unique. Replaced values take at most as much memory as current ones.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use jiff::tz::TimeZone;

use crate::call::{elements, write_string};

/// How a field of a user or company is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldClass {
    /// A field that User.com defines; the value is sent as it stands.
    Standard,
    /// A custom attribute; the value is converted to the attribute's type when the op is executed.
    Custom,
    /// A list that is added to the current one (`tags`).
    SetUnion,
}

/// One field of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name at User.com.
    pub name: &'a str,
    /// How to write it.
    pub class: FieldClass,
    /// The value as JSON text.
    pub json: &'a str,
}

/// An object whose values were flattened into fields. If a custom attribute of type `json` has its
/// name, the object is that attribute's value and its flattened fields are not sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentObject {
    /// The name at User.com.
    pub name: Box<str>,
    /// The object as JSON text.
    pub json: Box<str>,
    /// The enclosing object, as an index into the objects.
    pub within: Option<usize>,
}

/// Fields of a user, company or event, in order, names unique.
#[derive(Clone, Default)]
pub struct PackedFields {
    /// The entries of the JSON object, separated by commas.
    text: String,
    spans: Vec<FieldSpan>,
    /// Names that need JSON escapes, by index of their field, in order.
    escaped: Vec<(usize, Box<str>)>,
    /// Bytes of `text` that belong to replaced values.
    garbage_bytes: usize,
    /// Objects that enclose some of the fields.
    objects: Vec<ParentObject>,
    /// The writes that were merged into this set, the oldest first; empty for a single write.
    layers: Vec<PackedFields>,
    /// The zone of times that name no zone; `None` stands for UTC.
    timezone: Option<TimeZone>,
}

/// The range of a field in the text, from the quote before its name to the end of its value.
#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    start: u32,
    colon: u32,
    end: u32,
    /// The enclosing object, counted from 1; 0 for none.
    owner: u32,
    class: FieldClass,
}

impl FieldSpan {
    fn entry(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// The name between its quotes.
    fn name(self) -> Range<usize> {
        self.start as usize + 1..self.colon as usize - 1
    }

    fn json(self) -> Range<usize> {
        self.colon as usize + 1..self.end as usize
    }
}

/// An offset in the text. A set holds the fields of a few records, far below 4 GiB.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("the text of a set is smaller than 4 GiB")
}

impl PackedFields {
    /// An empty set with capacity for a number of fields and bytes of JSON.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        let (text, spans) = (String::with_capacity(bytes), Vec::with_capacity(fields));
        Self { text, spans, ..Self::default() }
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.spans.iter().enumerate().map(|(at, place)| self.field(at, *place))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// The name of the field at an index; empty for an index out of range.
    pub fn name(&self, at: usize) -> &str {
        self.spans.get(at).map_or("", |place| self.name_of(at, *place))
    }

    /// The index of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|field| field.name == name)
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|field| field.name == name).map(|field| field.json)
    }

    /// The objects that enclose some of the fields.
    pub fn objects(&self) -> &[ParentObject] {
        &self.objects
    }

    /// Adds an object and returns its index.
    pub fn add_object(&mut self, object: ParentObject) -> usize {
        self.objects.push(object);
        self.objects.len() - 1
    }

    /// The index of the object that encloses a field.
    pub fn owner(&self, at: usize) -> Option<usize> {
        let owner = self.spans.get(at)?.owner.checked_sub(1)?;
        usize::try_from(owner).ok()
    }

    /// Approximate size in bytes of JSON.
    pub fn bytes(&self) -> usize {
        let objects = self.objects.iter().map(|object| object.name.len() + object.json.len());
        self.text.len() + objects.sum::<usize>()
    }

    /// The writes of this set, the oldest first. A set that was not merged is one write.
    pub fn layers(&self) -> &[Self] {
        if self.layers.is_empty() { std::slice::from_ref(self) } else { &self.layers }
    }

    /// The zone of times that name no zone.
    pub fn timezone(&self) -> &TimeZone {
        const UTC: &TimeZone = &TimeZone::UTC;
        self.timezone.as_ref().unwrap_or(UTC)
    }

    /// Sets the zone of times that name no zone; `None` stands for UTC.
    pub fn set_timezone(&mut self, timezone: Option<TimeZone>) {
        self.timezone = timezone;
    }

    /// Merges writes, the oldest first: the last value of a name wins, set unions are combined.
    #[must_use]
    pub fn coalesced(writes: Vec<Self>) -> Self {
        let mut merged = FieldMerger::default();
        for field in writes.iter().flat_map(Self::iter) {
            merged.add(field);
        }
        let mut set = merged.done();
        set.layers = writes;
        set
    }

    /// Appends the fields as a JSON object.
    pub fn write_object(&self, out: &mut String) {
        out.push('{');
        if self.garbage_bytes == 0 {
            out.push_str(&self.text);
        } else {
            for (at, place) in self.spans.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                out.push_str(&self.text[place.entry()]);
            }
        }
        out.push('}');
    }

    /// Sets a field. A field of that name keeps its position and gets the new value.
    pub fn set(&mut self, field: Field<'_>) {
        match self.position(field.name) {
            Some(place) => self.replace(place, field.class, field.json),
            None => self.push(field),
        }
    }

    /// Adds a field whose name is new.
    pub fn push(&mut self, field: Field<'_>) {
        self.push_with(field.name, field.class, |out| out.push_str(field.json));
    }

    /// Adds a field whose name is new. `write` appends its JSON text.
    pub fn push_with(&mut self, name: &str, class: FieldClass, write: impl FnOnce(&mut String)) {
        let start = self.begin_entry();
        write_string(&mut self.text, name);
        let colon = self.text.len();
        if colon - start > name.len() + 2 {
            self.escaped.push((self.spans.len(), name.into()));
        }
        self.text.push(':');
        write(&mut self.text);
        self.spans.push(self.span_since(start, colon, class));
    }

    /// Adds a field with its enclosing object.
    pub fn push_within(&mut self, owner: Option<usize>, field: Field<'_>) {
        self.push(field);
        self.set_owner(self.spans.len() - 1, owner);
    }

    /// Sets the enclosing object of a field.
    pub fn set_owner(&mut self, at: usize, owner: Option<usize>) {
        if let Some(place) = self.spans.get_mut(at) {
            place.owner = owner.map_or(0, |owner| offset(owner + 1));
        }
    }

    /// Replaces the value of a field.
    pub fn replace(&mut self, at: usize, class: FieldClass, json: &str) {
        let Some(old) = self.spans.get(at).copied() else {
            return;
        };
        let start = self.begin_entry();
        let (quote, after_colon) = (old.entry().start, old.json().start);
        self.text.extend_from_within(quote..after_colon);
        self.text.push_str(json);
        self.spans[at] = self.span_since(start, start + after_colon - 1 - quote, class);
        self.garbage_bytes += old.entry().len() + 1;
        if self.garbage_bytes > self.text.len() / 2 {
            let owners: Vec<u32> = self.spans.iter().map(|place| place.owner).collect();
            let mut packed: Self = self.iter().collect();
            for (place, owner) in packed.spans.iter_mut().zip(owners) {
                place.owner = owner;
            }
            packed.layers = std::mem::take(&mut self.layers);
            packed.objects = std::mem::take(&mut self.objects);
            packed.timezone = self.timezone.take();
            *self = packed;
        }
    }

    /// Appends a comma if needed and returns where the next field starts.
    fn begin_entry(&mut self) -> usize {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.len()
    }

    /// The span of the field that was written last.
    fn span_since(&self, start: usize, colon: usize, class: FieldClass) -> FieldSpan {
        let (start, colon, end) = (offset(start), offset(colon), offset(self.text.len()));
        FieldSpan { start, colon, end, owner: 0, class }
    }

    fn field(&self, at: usize, place: FieldSpan) -> Field<'_> {
        let (name, json) = (self.name_of(at, place), &self.text[place.json()]);
        Field { name, class: place.class, json }
    }

    fn name_of(&self, at: usize, place: FieldSpan) -> &str {
        match self.escaped.binary_search_by_key(&at, |(escaped, _)| *escaped) {
            Ok(escaped) => &self.escaped[escaped].1,
            Err(_) => &self.text[place.name()],
        }
    }
}

impl<'a> FromIterator<Field<'a>> for PackedFields {
    /// A set of fields whose names are unique.
    fn from_iter<I: IntoIterator<Item = Field<'a>>>(fields: I) -> Self {
        let mut set = Self::default();
        for field in fields {
            set.push(field);
        }
        set
    }
}

/// Merges the fields of several writes.
#[derive(Default)]
struct FieldMerger<'a> {
    places: HashMap<&'a str, usize>,
    fields: Vec<MergedField<'a>>,
}

/// The last value of a field, or the elements of a set union.
struct MergedField<'a> {
    last: Field<'a>,
    elements: Vec<&'a str>,
    seen: HashSet<&'a str>,
}

impl<'a> FieldMerger<'a> {
    fn add(&mut self, field: Field<'a>) {
        let place = *self.places.entry(field.name).or_insert_with(|| {
            let (elements, seen) = (Vec::new(), HashSet::new());
            self.fields.push(MergedField { last: field, elements, seen });
            self.fields.len() - 1
        });
        let merged = &mut self.fields[place];
        merged.last = field;
        if field.class == FieldClass::SetUnion {
            let new = elements(field.json).filter(|element| merged.seen.insert(element));
            merged.elements.extend(new);
        }
    }

    fn done(self) -> PackedFields {
        let mut set = PackedFields::default();
        for MergedField { last, elements, .. } in self.fields {
            match last.class {
                FieldClass::SetUnion if !elements.is_empty() => {
                    set.push_with(last.name, last.class, |out| write_list(out, &elements));
                }
                _ => set.push(last),
            }
        }
        set
    }
}

/// Appends a list of JSON values.
pub fn write_list(out: &mut String, elements: &[&str]) {
    out.push('[');
    for (at, element) in elements.iter().enumerate() {
        out.push_str(if at == 0 { "" } else { "," });
        out.push_str(element);
    }
    out.push(']');
}

/// The same fields in the same order, whatever writes were merged.
impl PartialEq for PackedFields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for PackedFields {}

impl fmt::Debug for PackedFields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use super::*;
    use proptest::prelude::*;

    fn field<'a>(name: &'a str, json: &'a str) -> Field<'a> {
        Field { name, class: FieldClass::Custom, json }
    }

    proptest! {
        #[test]
        fn any_sequence_of_sets_equals_a_plain_list(
            given in proptest::collection::vec(("[a-d\"\\n]", "[0-9]{1,40}"), 0..60),
        ) {
            // After any sequence of `set` the fields equal those of a plain list of pairs, also as a
            // JSON object, and the size of the text is bounded by its content.
            let mut set = PackedFields::default();
            let mut list: Vec<(&str, &str)> = Vec::new();
            for (name, json) in &given {
                set.set(field(name, json));
                match list.iter_mut().find(|(known, _)| known == name) {
                    Some(entry) => entry.1 = json,
                    None => list.push((name, json)),
                }
            }
            let held: Vec<_> = set.iter().map(|field| (field.name, field.json)).collect();
            prop_assert_eq!(&held, &list);
            let mut object = String::new();
            set.write_object(&mut object);
            let entries: Vec<_> = crate::call::entries(&object).collect();
            prop_assert_eq!(entries.len(), list.len());
            let same = |(entry, given): (&(Cow<'_, str>, &str), &(&str, &str))| {
                (&*entry.0, entry.1) == *given
            };
            prop_assert!(entries.iter().zip(&list).all(same), "{object}");
            prop_assert!(set.text.len() <= 2 * object.len() + 60);
            prop_assert_eq!(set.get("a"), list.iter().find(|(n, _)| *n == "a").map(|(_, j)| *j));
            prop_assert_eq!(&set.iter().collect::<PackedFields>(), &set);
        }
    }
}
