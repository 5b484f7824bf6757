//! Properties of events that User.com refuses by name: the event is sent without them. A property
//! that is refused repeatedly is not sent any more.

use std::collections::HashMap;

use quick_cache::sync::Cache;

use super::body::named;
use crate::deliver::ApiReply;
use crate::schedule::PackedFields;
use crate::usercom::endpoint;
use crate::usercom::profile::limits::name_std;
use crate::usercom::profile_cache::hash;

/// Values of one property that are refused before the property itself counts as refused.
const REFUSED_VALUES: u32 = 3;
/// Events without the property that are sent before it is tried again.
const RETRY_EVERY: u32 = 1_000;
/// Properties stored at most.
const MAX_PROPERTIES: usize = 10_000;
/// How often an event is repeated without what its refusal named.
const MAX_REFUSALS: usize = 20;

/// Refusals in a row by event and property; after [`REFUSED_VALUES`] of them, events that were sent
/// without it count too.
pub(super) struct RefusedProperties(Cache<u64, u32>);

/// Properties that one event is sent without.
#[derive(Debug, Default)]
pub(super) struct LeftOutProperties {
    /// Left out before the first attempt.
    known: Vec<String>,
    /// Refused just now.
    new: Vec<String>,
    refusals: usize,
}

impl Default for RefusedProperties {
    fn default() -> Self {
        Self(Cache::new(MAX_PROPERTIES))
    }
}

impl RefusedProperties {
    /// The properties of an event that are not sent.
    pub(super) fn left_out(&self, event: &str, data: &PackedFields) -> LeftOutProperties {
        let mut left_out = LeftOutProperties::default();
        if !self.0.is_empty() {
            let names = data.iter().map(|field| field.name);
            let refused = |name: &&str| self.is_refused(event, name);
            left_out.known = names.filter(refused).map(str::to_owned).collect();
        }
        left_out
    }

    fn is_refused(&self, event: &str, property: &str) -> bool {
        let refused = self.0.get(&hash((event, property))).unwrap_or_default();
        refused >= REFUSED_VALUES && !(refused - REFUSED_VALUES + 1).is_multiple_of(RETRY_EVERY)
    }

    /// Records that User.com accepted an event with some of its properties.
    pub(super) fn taken(&self, event: &str, sent: &PackedFields, left_out: &LeftOutProperties) {
        if !self.0.is_empty() {
            for field in sent.iter() {
                self.0.remove(&hash((event, field.name)));
            }
        }
        for name in left_out.names() {
            let key = hash((event, name));
            let refused = self.0.get(&key).unwrap_or_default();
            self.0.insert(key, refused.saturating_add(1));
        }
    }
}

impl LeftOutProperties {
    /// All of them.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.known.iter().chain(&self.new).map(String::as_str)
    }

    /// Adds the properties that a refusal names; `false` if it names none that was sent, or after
    /// too many refusals.
    pub(super) fn add_named(&mut self, reply: &ApiReply, sent: &PackedFields) -> bool {
        self.refusals += 1;
        if self.refusals > MAX_REFUSALS {
            return false;
        }
        let names = || sent.iter().map(|field| field.name);
        let by_name: HashMap<String, &str> = names()
            .map(|name| (name_std(name), name))
            .chain(names().map(|name| (name.to_owned(), name)))
            .collect();
        let named = named(&endpoint::json(reply), |name| Some((*by_name.get(name)?).to_owned()));
        let found = !named.is_empty();
        self.new.extend(named);
        found
    }

    /// The properties that are sent; `None` where all are.
    pub(super) fn rest_of(&self, data: &PackedFields) -> Option<PackedFields> {
        if self.known.is_empty() && self.new.is_empty() {
            return None;
        }
        let is_left_out = |name: &str| self.names().any(|known| known == name);
        Some(data.iter().filter(|field| !is_left_out(field.name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schedule::{Field, FieldClass};

    fn data() -> PackedFields {
        let mut data = PackedFields::default();
        data.push(Field { name: "p", class: FieldClass::Custom, json: "1" });
        data
    }

    #[test]
    fn property_refused_three_times_in_a_row_is_not_sent() {
        // Guarantees that single values that are refused do not cost the property, and that a
        // property refused again and again costs no more requests, and is tried again later.
        let refused = RefusedProperties::default();
        let just_refused =
            LeftOutProperties { new: vec!["p".into()], ..LeftOutProperties::default() };
        let is_sent = || refused.left_out("e", &data()).names().next().is_none();
        for _ in 0..5 {
            refused.taken("e", &PackedFields::default(), &just_refused);
            refused.taken("e", &PackedFields::default(), &just_refused);
            assert!(is_sent());
            refused.taken("e", &data(), &LeftOutProperties::default());
        }
        let mut tries = Vec::new();
        for n in 0..2_500 {
            let mut left_out = refused.left_out("e", &data());
            if left_out.names().next().is_none() {
                tries.push(n);
                left_out.new.push("p".into());
            }
            refused.taken("e", &PackedFields::default(), &left_out);
        }
        assert_eq!(tries, [0, 1, 2, 1_002, 2_002]);
        assert!(refused.left_out("f", &data()).names().next().is_none());
    }
}
