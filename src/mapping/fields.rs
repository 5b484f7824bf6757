//! A growing set of named values: names stay unique and in order, the last value of a name counts.
//!
//! Few names are compared one by one; from [`MANY`] on they are hashed, so that an object with a
//! hundred thousand keys costs no more a key than one with ten.

use std::borrow::Cow;
use std::collections::HashMap;

use crate::call::{Fields, Json};

const MANY: usize = 32;

#[derive(Default)]
pub(super) struct FieldSet<'a> {
    fields: Fields<'a>,
    places: HashMap<Cow<'a, str>, usize>,
}

impl<'a> FieldSet<'a> {
    /// The set with these fields, whose names are unique already.
    pub(super) fn from_unique(fields: Fields<'a>) -> Self {
        let mut set = Self { fields, places: HashMap::new() };
        set.index_if_many();
        set
    }

    /// Sets a value, in place of an earlier one of that name.
    pub(super) fn insert(&mut self, name: Cow<'a, str>, value: Json<'a>) {
        if let Some(place) = self.place(&name) {
            self.fields[place].1 = value;
            return;
        }
        if !self.places.is_empty() {
            self.places.insert(name.clone(), self.fields.len());
        }
        self.fields.push((name, value));
        self.index_if_many();
    }

    /// The value of a name.
    pub(super) fn get(&self, name: &str) -> Option<&Json<'a>> {
        self.place(name).map(|place| &self.fields[place].1)
    }

    /// The fields, in the order their names first came.
    pub(super) fn into_fields(self) -> Fields<'a> {
        self.fields
    }

    fn place(&self, name: &str) -> Option<usize> {
        if self.places.is_empty() {
            self.fields.iter().position(|(known, _)| known == name)
        } else {
            self.places.get(name).copied()
        }
    }

    fn index_if_many(&mut self) {
        if self.places.is_empty() && self.fields.len() >= MANY {
            let names = self.fields.iter().enumerate();
            self.places = names.map(|(n, (name, _))| (name.clone(), n)).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unique_on_both_sides_of_the_limit() {
        // Names stay unique and keep their first place, hashed or not.
        for count in [3, MANY - 1, MANY, MANY + 40] {
            let mut set = FieldSet::default();
            for value in ["1", "2"] {
                for n in 0..count {
                    set.insert(format!("k{n}").into(), Json::trusted(value));
                }
            }
            assert_eq!(set.get("k1").unwrap().as_str(), "2");
            let fields = set.into_fields();
            assert_eq!(fields.len(), count);
            assert_eq!(fields[2].0, "k2");
        }
    }
}
