//! The values of a call's object: nested objects are flattened, and each value is assigned to its
//! target.
//!
//! # Invariants
//!
//! A value belongs to one target, or to the remaining values. A value at the top level costs no
//! allocation.

use std::borrow::Cow;
use std::ops::Range;

use smallvec::SmallVec;

use super::aliases::{AliasMatch, AliasTable};
use crate::call::{
    Object, elements as walk_elements, entries, for_each_entry, has_escapes, trimmed,
};

/// Objects nested deeper than this stay JSON.
pub(super) const MAX_DEPTH: usize = 16;

/// Objects nested deeper than this are not values of their own: attributes do not have such names.
const MAX_WHOLE: usize = 4;

/// Targets that the quick pass compares in one object. Most objects have only a few.
const QUICK: usize = 16;

/// What was found for a target.
#[derive(Clone, Copy)]
struct FoundTrait<'c> {
    rank: usize,
    json: &'c str,
}

/// A value that belongs to no target.
struct UnmatchedTraits<'c> {
    name: TraitName<'c>,
    json: &'c str,
    what: TraitKind,
    /// The object that contains it, as an index into the remaining values.
    owner: Option<usize>,
}

/// The kind of a remaining value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TraitKind {
    /// A value.
    Value,
    /// An object whose values follow it, each under a name of its own.
    Opened,
}

/// A value that no spelling leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct UnmatchedTrait<'l> {
    /// The names that lead to it, joined with `_`.
    pub(super) name: &'l str,
    pub(super) json: &'l str,
    pub(super) what: TraitKind,
    /// The object that contains it, as an index into the remaining values.
    pub(super) owner: Option<usize>,
}

enum TraitName<'c> {
    /// A key at the top level.
    Key(&'c str),
    /// Joined keys, as a range in the text of names.
    Joined(Range<usize>),
}

/// What happens to values that no spelling leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum UnmatchedPolicy {
    Kept,
    Ignored,
}

/// All values of an object, assigned to a number of targets.
pub(super) struct FlattenedTraits<'c, const TARGETS: usize> {
    found: [Option<FoundTrait<'c>>; TARGETS],
    rest: Vec<UnmatchedTraits<'c>>,
    names: String,
}

impl<'c, const TARGETS: usize> FlattenedTraits<'c, TARGETS> {
    /// Flattens an object. Nulls are left out.
    pub(super) fn of(object: &'c Object<'_>, spellings: &AliasTable) -> Self {
        let mut leaves = Self::empty();
        leaves.rest.reserve(16);
        leaves.open(object, spellings, UnmatchedPolicy::Kept);
        leaves
    }

    /// Flattens only the parts of an object that spellings lead to; there are no remaining values.
    pub(super) fn among(object: &'c Object<'_>, spellings: &AliasTable) -> Self {
        let mut leaves = Self::empty();
        if let Object::Raw(text) = object
            && leaves.sift(text, TraitLevel::top(spellings))
        {
            return leaves;
        }
        let mut leaves = Self::empty();
        leaves.open(object, spellings, UnmatchedPolicy::Ignored);
        leaves
    }

    /// Finds targets in one pass, without checking whether names that match no target occur twice.
    /// Returns `false` if that is not enough, because a name with a meaning occurs twice or has
    /// escapes, or there are too many to compare each with all others.
    fn sift(&mut self, text: &'c str, at: TraitLevel<'_>) -> bool {
        let mut seen = SmallVec::<[&str; QUICK]>::new();
        for (name, json) in entries(text) {
            let Cow::Borrowed(name) = name else {
                return false;
            };
            let key = trimmed(name);
            let meaning = at.find(key);
            if meaning.target.is_none() && meaning.inner.is_none() {
                continue;
            }
            if seen.contains(&name) || seen.len() == QUICK {
                return false;
            }
            seen.push(name);
            match (meaning.target, meaning.inner) {
                _ if json == "null" || (key.is_empty() && at.depth == 0) => {}
                (_, Some(_)) if at.opens(json) => {
                    if !self.sift(json, at.inside(meaning)) {
                        return false;
                    }
                }
                (Some((target, rank)), _) => self.keep(target, rank, json),
                (None, _) => {}
            }
        }
        true
    }

    fn empty() -> Self {
        Self { found: [None; TARGETS], rest: Vec::new(), names: String::new() }
    }

    fn open(&mut self, object: &'c Object<'_>, spellings: &AliasTable, others: UnmatchedPolicy) {
        let mut walk = TraitWalk { leaves: self, others, owner: None, flat: String::new() };
        let top = TraitLevel::top(spellings);
        match object {
            Object::Raw(text) => for_each_entry(text, |name, json| walk.value(name, json, top)),
            Object::Parsed(fields) => {
                for (name, json) in fields.iter().filter(|(_, json)| !json.is_null()) {
                    walk.value(Cow::Borrowed(name), json.as_str(), top);
                }
            }
        }
    }

    /// The value of a target: that of its best spelling that is not the empty string.
    pub(super) fn get(&self, target: impl Into<usize>) -> Option<&'c str> {
        self.found.get(target.into())?.map(|found| found.json)
    }

    /// What no spelling leads to, in order, under flat names. Equal names occur as often as they
    /// were sent.
    pub(super) fn rest(&self) -> impl Iterator<Item = UnmatchedTrait<'_>> {
        self.rest.iter().map(|rest| {
            let name = match &rest.name {
                TraitName::Key(key) => key,
                TraitName::Joined(range) => &self.names[range.clone()],
            };
            UnmatchedTrait { name, json: rest.json, what: rest.what, owner: rest.owner }
        })
    }

    fn keep(&mut self, target: usize, rank: usize, json: &'c str) {
        debug_assert!(target < TARGETS, "a table has more targets than there is room for");
        let Some(place) = self.found.get_mut(target) else {
            return;
        };
        if place.is_none_or(|found| rank < found.rank) && !is_blank(json) {
            *place = Some(FoundTrait { rank, json });
        }
    }
}

/// A traversal of an object.
struct TraitWalk<'l, 'c, const TARGETS: usize> {
    leaves: &'l mut FlattenedTraits<'c, TARGETS>,
    others: UnmatchedPolicy,
    /// The current object, as an index into the remaining values.
    owner: Option<usize>,
    /// The keys of the enclosing objects, each followed by `_`.
    flat: String,
}

/// The current object.
#[derive(Clone, Copy)]
struct TraitLevel<'s> {
    /// The meanings of its names; `None` if they match no target.
    spellings: Option<&'s AliasTable>,
    /// Whether the names around it are spelled exactly.
    exact: bool,
    depth: usize,
}

impl<'s> TraitLevel<'s> {
    fn top(spellings: &'s AliasTable) -> Self {
        Self { spellings: Some(spellings), exact: true, depth: 0 }
    }

    /// The meaning of a name in it.
    fn find(self, key: &str) -> AliasMatch<'s> {
        self.spellings.map(|known| known.find(key, self.exact)).unwrap_or_default()
    }

    /// Whether an object in it is flattened.
    fn opens(self, json: &str) -> bool {
        json.starts_with('{') && self.depth < MAX_DEPTH
    }

    /// The object under a name.
    fn inside(self, name: AliasMatch<'s>) -> Self {
        Self { spellings: name.inner, exact: name.exact, depth: self.depth + 1 }
    }
}

impl<'c, const TARGETS: usize> TraitWalk<'_, 'c, TARGETS> {
    fn value(&mut self, name: Cow<'c, str>, json: &'c str, at: TraitLevel<'_>) {
        let key = trimmed(&name);
        if key.is_empty() && at.depth == 0 {
            return;
        }
        let meaning = at.find(key);
        if at.opens(json) && (self.others == UnmatchedPolicy::Kept || meaning.inner.is_some()) {
            let inside = at.inside(meaning);
            self.open(name, json, at, inside);
        } else if let Some((target, rank)) = meaning.target {
            self.leaves.keep(target, rank, json);
        } else if self.others == UnmatchedPolicy::Kept {
            self.add(name, json, TraitKind::Value, at);
        }
    }

    fn add(&mut self, name: Cow<'c, str>, json: &'c str, what: TraitKind, at: TraitLevel<'_>) {
        let name = match name {
            Cow::Borrowed(name) if at.depth == 0 => TraitName::Key(trimmed(name)),
            name => {
                let start = self.leaves.names.len();
                self.leaves.names.extend([&*self.flat, trimmed(&name)]);
                TraitName::Joined(start..self.leaves.names.len())
            }
        };
        self.leaves.rest.push(UnmatchedTraits { name, json, what, owner: self.owner });
    }

    fn open(
        &mut self,
        name: Cow<'c, str>,
        object: &'c str,
        at: TraitLevel<'_>,
        inside: TraitLevel<'_>,
    ) {
        let (outside, owner) = (self.flat.len(), self.owner);
        let key = trimmed(&name).to_owned();
        if self.others == UnmatchedPolicy::Kept && at.depth < MAX_WHOLE {
            self.add(name, object, TraitKind::Opened, at);
            self.owner = Some(self.leaves.rest.len() - 1);
        }
        self.flat.extend([&*key, "_"]);
        for_each_entry(object, |name, json| self.value(name, json, inside));
        self.flat.truncate(outside);
        self.owner = owner;
    }
}

fn is_blank(json: &str) -> bool {
    json.starts_with('"') && text(json).is_none_or(|text| trimmed(&text).is_empty())
}

/// The text of a string without escapes; `None` for everything else.
pub(super) fn plain(json: &str) -> Option<&str> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    (!has_escapes(inner)).then_some(inner)
}

/// The text of a scalar: strings decoded, numbers and booleans as written. `None` for `null`,
/// arrays and objects.
pub(in crate::usercom) fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => match plain(json) {
            Some(text) => Some(Cow::Borrowed(text)),
            None => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
        },
        b'[' | b'{' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

/// The elements of an array; `None` for other values.
pub(super) fn elements(json: &str) -> Option<impl Iterator<Item = &str>> {
    json.starts_with('[').then(|| walk_elements(json))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::call::Json;

    fn table() -> AliasTable {
        AliasTable::new(&[
            (0_usize, &["first_name", "firstName"][..]),
            (1, &["address.postal_code"]),
            (2, &["key"]),
            (3, &["page.url"]),
            (4, &["page.path"]),
        ])
    }

    #[test]
    fn every_alias_finds_its_value() {
        // Case, separators and nesting do not matter; the exact spelling is preferred, and all
        // others are used up with it. What remains keeps its order; of equal keys the last counts.
        let object = Object::Parsed(vec![
            ("First-Name".into(), Json::from_valid_unchecked("\"a\"")),
            ("firstName".into(), Json::from_valid_unchecked("\"b\"")),
            ("first_name".into(), Json::from_valid_unchecked("\" \"")),
            (
                "Address".into(),
                Json::from_valid_unchecked(r#"{"Postal Code":1,"city":"x","n":null,"city":"y"}"#),
            ),
            ("\u{212a}ey".into(), Json::from_valid_unchecked("5")),
            (" plan ".into(), Json::from_valid_unchecked("[1]")),
        ]);
        let leaves = FlattenedTraits::<5>::of(&object, &table());
        assert_eq!(leaves.get(0_usize), Some("\"b\""));
        assert_eq!(leaves.get(1_usize), Some("1"));
        assert_eq!(leaves.get(2_usize), Some("5"));
        assert_eq!(leaves.get(3_usize), None);
        let values = leaves.rest().filter(|other| other.what == TraitKind::Value);
        let rest: Vec<_> = values.map(|other| (other.name, other.json)).collect();
        assert_eq!(rest, [("Address_city", "\"y\""), ("plan", "[1]")]);
    }

    #[test]
    fn only_matched_leaves_are_kept() {
        // If remaining values are not needed, objects are flattened only on the way to a spelling.
        let text = r#"{"Page":{"URL":"u","x":1},"pa-ge.path":"p","os":{"name":"o"}}"#;
        let object = Object::Raw(text);
        let leaves = FlattenedTraits::<5>::among(&object, &table());
        assert_eq!(leaves.get(3_usize), Some("\"u\""));
        assert_eq!(leaves.get(4_usize), Some("\"p\""));
        assert_eq!(leaves.rest().count(), 0);
    }

    /// Objects whose names are repeated, unusual and nested.
    fn object() -> impl Strategy<Value = String> {
        let name = prop::sample::select(vec![
            "first_name",
            "First-Name",
            "firstName",
            "key",
            "KEY",
            "\\u006bey",
            " key",
            "page",
            "Page",
            "url",
            "URL",
            "path",
            "address",
            "postal_code",
            "other",
            "",
            "page.url",
        ]);
        let leaf = prop::sample::select(vec!["null", "1", "\"\"", "\" \"", "\"x\"", "[2]"]);
        let leaf = leaf.prop_map(str::to_owned);
        leaf.prop_recursive(2, 24, 6, move |inner| {
            prop::collection::vec((name.clone(), inner), 0..7).prop_map(|entries| {
                let entries = entries.iter().map(|(name, json)| format!("\"{name}\":{json}"));
                format!("{{{}}}", entries.collect::<Vec<_>>().join(","))
            })
        })
    }

    proptest! {
        #[test]
        fn fast_lookup_equals_full_lookup(text in object()) {
            // Whatever an object repeats, spells unusually or nests: the quick pass and the
            // thorough one find the same targets.
            let quick = Object::Raw(&text);
            let thorough = Object::Parsed(quick.clone().into_fields());
            let table = table();
            let (quick, thorough) =
                (FlattenedTraits::<5>::among(&quick, &table), FlattenedTraits::<5>::among(&thorough, &table));
            for target in 0_usize..5 {
                prop_assert_eq!(quick.get(target), thorough.get(target), "{} in {}", target, &text);
            }
        }
    }

    #[test]
    fn object_comes_before_its_members() {
        // An object that is flattened is among the remaining values too, and its values say which
        // object they are in.
        let object = Object::Raw(r#"{"a":{"b":1,"c":{"d":2}},"e":{}}"#);
        let leaves = FlattenedTraits::<5>::of(&object, &table());
        let rest: Vec<_> =
            leaves.rest().map(|other| (other.name, other.what, other.owner)).collect();
        let (value, opened) = (TraitKind::Value, TraitKind::Opened);
        assert_eq!(
            rest[..3],
            [("a", opened, None), ("a_b", value, Some(0)), ("a_c", opened, Some(0))]
        );
        assert_eq!(rest[3..], [("a_c_d", value, Some(2)), ("e", opened, None)]);
    }

    #[test]
    fn deeply_nested_value_stays_json() {
        // Objects nested without end are flattened to a depth, and the rest is sent as JSON.
        let depth = 3 * MAX_DEPTH;
        let text = "{\"a\":".repeat(depth) + "1" + &"}".repeat(depth);
        let object = Object::Raw(&text);
        let leaves = FlattenedTraits::<5>::of(&object, &table());
        let rest: Vec<_> = leaves.rest().filter(|other| other.what == TraitKind::Value).collect();
        assert_eq!(rest.len(), 1);
        assert!(rest[0].name.starts_with("a_a_a") && rest[0].json.starts_with("{\"a\":{"));
    }
}
