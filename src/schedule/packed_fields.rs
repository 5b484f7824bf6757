//! The fields an op writes.
//!
//! Ops wait in lanes by the thousand, so that a set keeps its names and values in one text rather
//! than in a box each: that of the JSON object they will be. Invariant: names are unique, and what
//! was replaced takes no more room than what is left.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;

use crate::call::{elements, write_string};

/// How a field of a user or company is to be treated on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldClass {
    /// A field User.com has of its own; the value is final.
    Standard,
    /// A custom attribute; the value is converted to the attribute's type when it is sent.
    Custom,
    /// A list that is united with what is there, never replaced (`tags`).
    SetUnion,
}

/// One field of a profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// The name at User.com.
    pub name: &'a str,
    /// How to treat it.
    pub class: FieldClass,
    /// The value as JSON text.
    pub json: &'a str,
}

/// An object whose values are fields of their own. Where its name is that of a custom attribute of
/// type `json`, it is that attribute's value, and the fields inside it are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParentObject {
    /// The name at User.com.
    pub name: Box<str>,
    /// The object as JSON text.
    pub json: Box<str>,
    /// The object it lies in, by its place among the objects.
    pub within: Option<usize>,
}

/// Fields of a user, company or event, in order, names unique.
#[derive(Clone, Default)]
pub struct PackedFields {
    /// The fields as they stand in a JSON object, a comma between each two.
    text: String,
    spans: Vec<FieldSpan>,
    /// Names that JSON writes with escapes, in the order of their places.
    escaped: Vec<(usize, Box<str>)>,
    /// Bytes of `text` that no field has any more.
    garbage_bytes: usize,
    /// Objects some of the fields lie in.
    objects: Vec<ParentObject>,
    /// The writes this set was folded from, the oldest first; empty for a set that is one write.
    layers: Vec<PackedFields>,
}

/// Where a field stands in the text: from the quote before its name to the end of its value.
#[derive(Debug, Clone, Copy)]
struct FieldSpan {
    start: u32,
    colon: u32,
    end: u32,
    /// The object it lies in, counted from 1; 0 for none.
    owner: u32,
    class: FieldClass,
}

impl FieldSpan {
    fn entry(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Between the quotes.
    fn name(self) -> Range<usize> {
        self.start as usize + 1..self.colon as usize - 1
    }

    fn json(self) -> Range<usize> {
        self.colon as usize + 1..self.end as usize
    }
}

/// A place in the text. A set is made of one record or of a few, which is far from 4 GiB.
fn offset(at: usize) -> u32 {
    u32::try_from(at).expect("the text of a set is smaller than 4 GiB")
}

impl PackedFields {
    /// An empty set with room for so many fields, of so many bytes of JSON together.
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

    /// The name at a place below [`len`](Self::len); none elsewhere.
    pub fn name(&self, at: usize) -> &str {
        self.spans.get(at).map_or("", |place| self.name_of(at, *place))
    }

    /// The place of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|field| field.name == name)
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|field| field.name == name).map(|field| field.json)
    }

    /// The objects some of the fields lie in.
    pub fn objects(&self) -> &[ParentObject] {
        &self.objects
    }

    /// Adds an object, and says where it stands among the objects.
    pub fn add_object(&mut self, object: ParentObject) -> usize {
        self.objects.push(object);
        self.objects.len() - 1
    }

    /// The object a field lies in, by its place among the objects.
    pub fn owner(&self, at: usize) -> Option<usize> {
        let owner = self.spans.get(at)?.owner.checked_sub(1)?;
        usize::try_from(owner).ok()
    }

    /// Bytes of JSON the fields take, roughly.
    pub fn bytes(&self) -> usize {
        let objects = self.objects.iter().map(|object| object.name.len() + object.json.len());
        self.text.len() + objects.sum::<usize>()
    }

    /// The writes this set stands for, the oldest first. A set that was not folded is one write.
    pub fn layers(&self) -> &[Self] {
        if self.layers.is_empty() { std::slice::from_ref(self) } else { &self.layers }
    }

    /// One set for several writes, the oldest first. Its fields are those of all writes together:
    /// the last value of a name wins, lists that only grow are united.
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

    /// Sets a field; one of that name is replaced where it stands.
    pub fn set(&mut self, field: Field<'_>) {
        match self.position(field.name) {
            Some(place) => self.replace(place, field.class, field.json),
            None => self.push(field),
        }
    }

    /// Adds a field whose name the set does not have.
    pub fn push(&mut self, field: Field<'_>) {
        self.push_with(field.name, field.class, |out| out.push_str(field.json));
    }

    /// Adds a field whose name the set does not have, and whose JSON text `write` appends.
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

    /// Adds a field that lies in an object.
    pub fn push_within(&mut self, owner: Option<usize>, field: Field<'_>) {
        self.push(field);
        self.set_owner(self.spans.len() - 1, owner);
    }

    /// Says in which object the field at a place lies.
    pub fn set_owner(&mut self, at: usize, owner: Option<usize>) {
        if let Some(place) = self.spans.get_mut(at) {
            place.owner = owner.map_or(0, |owner| offset(owner + 1));
        }
    }

    /// Gives the field at a place another value.
    pub fn replace(&mut self, at: usize, class: FieldClass, json: &str) {
        let Some(old) = self.spans.get(at).copied() else {
            return;
        };
        let start = self.begin_entry();
        let (quote, behind_colon) = (old.entry().start, old.json().start);
        self.text.extend_from_within(quote..behind_colon);
        self.text.push_str(json);
        self.spans[at] = self.span_since(start, start + behind_colon - 1 - quote, class);
        self.garbage_bytes += old.entry().len() + 1;
        if self.garbage_bytes > self.text.len() / 2 {
            let owners: Vec<u32> = self.spans.iter().map(|place| place.owner).collect();
            let mut packed: Self = self.iter().collect();
            for (place, owner) in packed.spans.iter_mut().zip(owners) {
                place.owner = owner;
            }
            packed.layers = std::mem::take(&mut self.layers);
            packed.objects = std::mem::take(&mut self.objects);
            *self = packed;
        }
    }

    /// Where the next field starts: behind a comma, if there are others.
    fn begin_entry(&mut self) -> usize {
        if !self.text.is_empty() {
            self.text.push(',');
        }
        self.text.len()
    }

    /// The place of the field that was written last.
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

/// Fields of several writes on their way into one set.
#[derive(Default)]
struct FieldMerger<'a> {
    places: HashMap<&'a str, usize>,
    fields: Vec<MergedField<'a>>,
}

/// The last value of a field, or the elements of a list that only grows.
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
            let news = elements(field.json).filter(|element| merged.seen.insert(element));
            merged.elements.extend(news);
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

/// The same fields in the same order, whatever they were folded from.
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
        fn a_set_is_a_list_of_unique_names(
            given in proptest::collection::vec(("[a-d\"\\n]", "[0-9]{1,40}"), 0..60),
        ) {
            // Whatever is set again and again: the set is what a plain list of pairs would be, also
            // as a JSON object, and its text is bounded by what it holds.
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
