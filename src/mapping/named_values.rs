//! A growing set of named values: names stay unique and in order, the last value of a name counts.

use std::borrow::Cow;

use crate::call::{Fields, Json, NameIndex};

#[derive(Default)]
pub(super) struct NamedValues<'a> {
    fields: Fields<'a>,
    names: NameIndex,
}

impl<'a> NamedValues<'a> {
    /// The set with these fields, whose names are unique already.
    pub(super) fn from_unique(fields: Fields<'a>) -> Self {
        let mut set = Self::default();
        for (name, value) in fields {
            set.insert(name, value);
        }
        set
    }

    /// Sets a value, in place of an earlier one of that name.
    pub(super) fn insert(&mut self, name: Cow<'a, str>, value: Json<'a>) {
        match self.names.get_or_insert(&name, |place| &self.fields[place].0) {
            Some(place) => self.fields[place].1 = value,
            None => self.fields.push((name, value)),
        }
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
        self.names.get(name, |place| &self.fields[place].0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_or_many_names_stay_unique() {
        // Names stay unique and keep their first place, few or many.
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
