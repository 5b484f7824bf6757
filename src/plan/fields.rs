//! The fields an op writes.
//!
//! Ops wait in lanes by the thousand, so that a set keeps its names and values in one text rather
//! than in a box each. Invariant: names are unique, and what was replaced takes no more room than
//! what is left.

use std::fmt;

/// How a field of a user or company is to be treated on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FieldClass {
    /// A field User.com has of its own; the value is final.
    Standard,
    /// A custom attribute; the value is converted to the attribute's type when it is sent.
    Custom,
    /// A list that is united with what is there, never replaced (`tags`).
    Union,
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

/// Fields of a user, company or event, in order, names unique.
#[derive(Clone, Default)]
pub struct FieldSet {
    text: String,
    places: Vec<Place>,
    /// Bytes of `text` that no field has any more.
    spent: usize,
}

/// Where a field stands in the text.
#[derive(Debug, Clone, Copy)]
struct Place {
    name: Span,
    json: Span,
    class: FieldClass,
}

/// A part of the text. A set is made of one record or of a few, which is far from 4 GiB.
#[derive(Debug, Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    fn new(start: usize, end: usize) -> Self {
        let at = |at| u32::try_from(at).expect("the text of a set is smaller than 4 GiB");
        Self { start: at(start), end: at(end) }
    }

    fn len(self) -> usize {
        (self.end - self.start) as usize
    }
}

impl FieldSet {
    /// An empty set with room for so many fields, of so many bytes together.
    pub fn with_capacity(fields: usize, bytes: usize) -> Self {
        Self { text: String::with_capacity(bytes), places: Vec::with_capacity(fields), spent: 0 }
    }

    /// The fields, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Field<'_>> {
        self.places.iter().map(|place| self.field(place))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The name at a place below [`len`](Self::len); none elsewhere.
    pub fn name(&self, place: usize) -> &str {
        self.places.get(place).map_or("", |place| self.field(place).name)
    }

    /// The place of a name.
    pub fn position(&self, name: &str) -> Option<usize> {
        self.iter().position(|field| field.name == name)
    }

    /// The value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|field| field.name == name).map(|field| field.json)
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
        let start = self.text.len();
        self.text.push_str(name);
        let middle = self.text.len();
        write(&mut self.text);
        let (name, json) = (Span::new(start, middle), Span::new(middle, self.text.len()));
        self.places.push(Place { name, json, class });
    }

    /// Gives the field at a place another value.
    pub fn replace(&mut self, place: usize, class: FieldClass, json: &str) {
        let start = self.text.len();
        self.text.push_str(json);
        let json = Span::new(start, self.text.len());
        if let Some(place) = self.places.get_mut(place) {
            self.spent += place.json.len();
            place.json = json;
            place.class = class;
        }
        if self.spent > self.text.len() / 2 {
            *self = self.iter().collect();
        }
    }

    fn field(&self, place: &Place) -> Field<'_> {
        let text = |span: Span| &self.text[span.start as usize..span.end as usize];
        Field { name: text(place.name), class: place.class, json: text(place.json) }
    }
}

impl<'a> FromIterator<Field<'a>> for FieldSet {
    /// A set of fields whose names are unique.
    fn from_iter<I: IntoIterator<Item = Field<'a>>>(fields: I) -> Self {
        let mut set = Self::default();
        for field in fields {
            set.push(field);
        }
        set
    }
}

impl PartialEq for FieldSet {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for FieldSet {}

impl fmt::Debug for FieldSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn field<'a>(name: &'a str, json: &'a str) -> Field<'a> {
        Field { name, class: FieldClass::Custom, json }
    }

    proptest! {
        #[test]
        fn a_set_is_a_list_of_unique_names(
            given in proptest::collection::vec(("[a-d]", "[0-9]{1,40}"), 0..60),
        ) {
            // Whatever is set again and again: the set is what a plain list of pairs would be, and
            // its text is bounded by what it holds.
            let mut set = FieldSet::default();
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
            let bytes: usize = list.iter().map(|(name, json)| name.len() + json.len()).sum();
            prop_assert!(set.text.len() <= 2 * bytes + 40);
            prop_assert_eq!(set.get("a"), list.iter().find(|(n, _)| *n == "a").map(|(_, j)| *j));
            prop_assert_eq!(&set.iter().collect::<FieldSet>(), &set);
        }
    }
}
