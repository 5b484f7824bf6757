//! A list of named values with unique names. The last value of a name counts, at its first position.

use std::borrow::Cow;

use crate::call::{Fields, Json, NameIndex};

#[derive(Default)]
pub(super) struct NamedValues<'a> {
    fields: Fields<'a>,
    names: NameIndex,
}

impl<'a> NamedValues<'a> {
    /// From fields with unique names.
    pub(super) fn from_unique(fields: Fields<'a>) -> Self {
        let mut set = Self::default();
        for (name, value) in fields {
            set.insert(name, value);
        }
        set
    }

    /// Sets a value; replaces an earlier one of that name.
    pub(super) fn insert(&mut self, name: Cow<'a, str>, value: Json<'a>) {
        match self.names.get_or_insert(&name, |place| &self.fields[place].0) {
            Some(place) => self.fields[place].1 = value,
            None => self.fields.push((name, value)),
        }
    }

    /// The value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.position(name).map(|place| &self.fields[place].1)
    }

    /// The fields in the order in which their names were added.
    pub(super) fn into_fields(self) -> Fields<'a> {
        self.fields
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.names.get(name, |place| &self.fields[place].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_names_stays_unique() {
        // Few or many names stay unique and keep their first position.
        for count in [3, 60, 200] {
            let mut set = NamedValues::default();
            for value in ["1", "2"] {
                for n in 0..count {
                    set.insert(format!("k{n}").into(), Json::from_valid_unchecked(value));
                }
            }
            assert_eq!(set.get("k1").unwrap().as_str(), "2");
            let fields = set.into_fields();
            assert_eq!(fields.len(), count);
            assert_eq!(fields[2].0, "k2");
        }
    }
}
