//! The values of a call, nested objects opened up, each findable by any of its spellings.
//!
//! Not here: what a value means. Invariant: a value is handed out once; what no rule took is left
//! for [`Leaves::rest`]. A value at the top costs no allocation: its names are slices of the call.

use std::borrow::Cow;
use std::fmt;

use indexmap::IndexMap;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::call::Fields;

/// Objects nested deeper than this stay JSON.
const MAX_DEPTH: usize = 16;
/// Up to so many keys are compared one by one; more are hashed.
const FEW: usize = 32;

/// One value that is not an object.
pub(super) struct Leaf<'c> {
    /// Keys from the outside in, joined with `.`.
    path: Cow<'c, str>,
    /// The path without case, underscores, dashes and blanks; `None` where that is the path.
    squashed: Option<Box<str>>,
    /// Keys joined with `_`: the name under which the value travels on.
    pub(super) flat: Cow<'c, str>,
    /// The value as JSON text.
    pub(super) json: &'c str,
    /// The mark of the squashed path.
    mark: u8,
    taken: bool,
}

impl Leaf<'_> {
    fn is_spelled(&self, spelling: &str) -> bool {
        let squashed = self.squashed.as_deref().unwrap_or(&self.path);
        squash_of(spelling).eq(squashed.bytes())
    }
}

/// All values of a call's fields or context.
pub(super) struct Leaves<'c> {
    leaves: Vec<Leaf<'c>>,
    /// A bit for every mark there is: most spellings are ruled out by it at once.
    marks: u64,
    /// What the squashed names at the top begin with, where not all were opened.
    roots: Option<&'static [&'static str]>,
}

impl<'c> Leaves<'c> {
    /// Opens up fields. Nulls are left out.
    pub(super) fn of(fields: &'c Fields<'_>) -> Self {
        Self::opened(fields, None)
    }

    /// Opens up those fields whose squashed names begin with one of `roots`. What is asked for must
    /// begin with one of them too.
    pub(super) fn below(fields: &'c Fields<'_>, roots: &'static [&'static str]) -> Self {
        Self::opened(fields, Some(roots))
    }

    fn opened(fields: &'c Fields<'_>, roots: Option<&'static [&'static str]>) -> Self {
        let wanted = |name: &str| {
            roots.is_none_or(|roots| !name.is_ascii() || roots.iter().any(|r| begins(name, r)))
        };
        let mut leaves = Vec::with_capacity(fields.len() + 8);
        let mut marks = 0;
        let trimmed = fields.iter().map(|(name, json)| (name.trim(), json));
        for (name, json) in trimmed.filter(|(name, _)| wanted(name)) {
            let name = Cow::Borrowed(name);
            open(name.clone(), name, json.as_str(), 0, &mut |path, flat, json| {
                let squashed = squash(&path);
                let mark = mark(squashed.as_deref().unwrap_or(&path));
                marks |= 1 << mark;
                leaves.push(Leaf { path, squashed, flat, json, mark, taken: false });
            });
        }
        Self { leaves, marks, roots }
    }

    /// Takes the first value, in the order of `spellings`, that is neither absent nor `""`. All
    /// other spellings are spent with it.
    ///
    /// A spelling, always of ASCII, is matched exactly first, then without regard to case, `_`, `-`
    /// and blanks.
    pub(super) fn take(&mut self, spellings: &[&str]) -> Option<&'c str> {
        let mut found = None;
        for exact in [true, false] {
            for spelling in spellings {
                let Some(mark) = self.marked(spelling) else { continue };
                for leaf in self.leaves.iter_mut().filter(|leaf| {
                    leaf.mark == mark
                        && !leaf.taken
                        && if exact { leaf.path == *spelling } else { leaf.is_spelled(spelling) }
                }) {
                    leaf.taken = true;
                    if found.is_none() && !is_blank(leaf.json) {
                        found = Some(leaf.json);
                    }
                }
            }
        }
        found
    }

    /// Marks keys as spent, however they are spelled.
    pub(super) fn discard(&mut self, names: &[&str]) {
        for name in names {
            let Some(mark) = self.marked(name) else { continue };
            for leaf in self.leaves.iter_mut().filter(|leaf| leaf.mark == mark) {
                leaf.taken |= leaf.is_spelled(name);
            }
        }
    }

    /// What no rule took, in order.
    pub(super) fn rest(&self) -> impl Iterator<Item = &Leaf<'c>> {
        self.leaves.iter().filter(|leaf| !leaf.taken)
    }

    /// The mark of a spelling, if any leaf bears it.
    fn marked(&self, spelling: &str) -> Option<u8> {
        debug_assert!(
            spelling.is_ascii()
                && !spelling.starts_with(SEPARATORS)
                && !spelling.ends_with(SEPARATORS),
            "{spelling}"
        );
        debug_assert!(
            self.roots.is_none_or(|roots| roots.iter().any(|root| begins(spelling, root))),
            "{spelling} was not opened"
        );
        let mark = mark(spelling);
        (self.marks & (1 << mark) != 0).then_some(mark)
    }
}

/// All values under their flat names, in order; of equal names each comes.
pub(super) fn flat<'c>(fields: &'c Fields<'_>) -> Vec<(Cow<'c, str>, &'c str)> {
    let mut flattened = Vec::with_capacity(fields.len());
    for (name, json) in fields {
        let name = Cow::Borrowed(name.trim());
        open(name.clone(), name, json.as_str(), 0, &mut |_, flat, json| {
            flattened.push((flat, json));
        });
    }
    flattened
}

/// Six bits of a squashed name, the same for all of its spellings: its first and last letter.
fn mark(spelling: &str) -> u8 {
    let at = |byte: Option<&u8>| byte.map_or(0, u8::to_ascii_lowercase);
    let bytes = spelling.as_bytes();
    at(bytes.first()).wrapping_mul(5).wrapping_add(at(bytes.last())) & 63
}

fn open<'c>(
    path: Cow<'c, str>,
    flat: Cow<'c, str>,
    json: &'c str,
    depth: usize,
    into: &mut impl FnMut(Cow<'c, str>, Cow<'c, str>, &'c str),
) {
    if json == "null" || flat.is_empty() {
        return;
    }
    if depth < MAX_DEPTH
        && json.starts_with('{')
        && let Ok(object) = serde_json::from_str::<Object<'c>>(json)
    {
        for (key, value) in object.0 {
            let key = key.trim();
            let (path, flat) = (joined(&path, ".", key), joined(&flat, "_", key));
            open(path, flat, value.get(), depth + 1, into);
        }
        return;
    }
    into(path, flat, json);
}

fn joined<'c>(left: &str, with: &str, right: &str) -> Cow<'c, str> {
    Cow::Owned([left, with, right].concat())
}

/// The entries of an object as they stand; of equal keys the last value, in the first one's place.
struct Object<'c>(Vec<(Cow<'c, str>, &'c RawValue)>);

/// A key, borrowed where it has no escapes.
#[derive(serde::Deserialize)]
struct Key<'c>(#[serde(borrow)] Cow<'c, str>);

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(ObjectVisitor)
    }
}

struct ObjectVisitor;

impl<'de> Visitor<'de> for ObjectVisitor {
    type Value = Object<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut few: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(8);
        while let Some((Key(key), value)) = map.next_entry()? {
            match few.iter_mut().find(|(known, _)| *known == key) {
                Some(entry) => entry.1 = value,
                None => few.push((key, value)),
            }
            if few.len() > FEW {
                let mut many: IndexMap<_, _> = few.into_iter().collect();
                while let Some((Key(key), value)) = map.next_entry()? {
                    many.insert(key, value);
                }
                return Ok(Object(many.into_iter().collect()));
            }
        }
        Ok(Object(few))
    }
}

const SEPARATORS: [char; 3] = ['_', '-', ' '];

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'_' | b'-' | b' ')
}

/// The path without case and separators, where that is not the path itself.
fn squash(path: &str) -> Option<Box<str>> {
    let plain = |b: u8| b.is_ascii() && !b.is_ascii_uppercase() && !is_separator(b);
    if path.bytes().all(plain) {
        return None;
    }
    let squashed: String =
        path.chars().filter(|c| !SEPARATORS.contains(c)).flat_map(char::to_lowercase).collect();
    Some(squashed.into())
}

/// The same of ASCII, byte by byte.
fn squash_of(spelling: &str) -> impl Iterator<Item = u8> {
    spelling.bytes().filter(|b| !is_separator(*b)).map(|b| b.to_ascii_lowercase())
}

/// Whether a name of ASCII, squashed, begins with a squashed root.
fn begins(name: &str, root: &str) -> bool {
    let mut name = squash_of(name);
    squash_of(root).all(|byte| name.next() == Some(byte))
}

fn is_blank(json: &str) -> bool {
    json.starts_with('"') && text(json).is_none_or(|text| text.trim().is_empty())
}

/// The text of a string that has no escapes; `None` for everything else.
pub(super) fn plain(json: &str) -> Option<&str> {
    let inner = json.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.as_bytes().contains(&b'\\')).then_some(inner)
}

/// The text of a scalar: strings decoded, numbers and booleans as written. `None` for `null`,
/// arrays and objects.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => match plain(json) {
            Some(text) => Some(Cow::Borrowed(text)),
            None => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
        },
        b'[' | b'{' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

/// The elements of an array.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    json.starts_with('[').then(|| serde_json::from_str(json).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Json;

    fn fields(entries: &[(&'static str, &'static str)]) -> Fields<'static> {
        entries.iter().map(|(name, json)| ((*name).into(), Json::trusted(*json))).collect()
    }

    #[test]
    fn any_spelling_finds_its_value() {
        // Case, separators and nesting do not matter; the exact spelling is preferred, and all
        // others are spent with it.
        let fields = fields(&[
            ("First-Name", "\"a\""),
            ("firstName", "\"b\""),
            ("Address", r#"{"Postal Code":1,"city":"x","city":"y"}"#),
            ("\u{212a}ey", "5"),
        ]);
        let mut leaves = Leaves::of(&fields);
        assert_eq!(leaves.take(&["first_name", "firstName"]), Some("\"b\""));
        assert_eq!(leaves.take(&["first_name"]), None);
        assert_eq!(leaves.take(&["address.postal_code"]), Some("1"));
        assert_eq!(leaves.take(&["key"]), Some("5"));
        let rest: Vec<_> = leaves.rest().map(|leaf| (&*leaf.flat, leaf.json)).collect();
        assert_eq!(rest, [("Address_city", "\"y\"")]);
    }

    #[test]
    fn roots_open_every_spelling() {
        // Names at the top are opened if they may lead to a root, however they are spelled.
        let fields =
            fields(&[("Page", r#"{"URL":"u"}"#), ("pa-ge.path", "\"p\""), ("os", "\"o\"")]);
        let mut leaves = Leaves::below(&fields, &["page"]);
        assert_eq!(leaves.rest().count(), 2);
        assert_eq!(leaves.take(&["page.url"]), Some("\"u\""));
        assert_eq!(leaves.take(&["page.path"]), Some("\"p\""));
    }

    #[test]
    fn many_keys_keep_their_order() {
        // Of equal keys the last value stands in the first one's place, few or many.
        for count in [3, FEW, FEW + 1, 3 * FEW] {
            let entries: Vec<_> =
                (0..count).chain([1]).enumerate().map(|(n, k)| format!("\"k{k}\":{n}")).collect();
            let text = format!("{{{}}}", entries.join(","));
            let Object(object) = serde_json::from_str(&text).unwrap();
            assert_eq!(object.len(), count);
            assert_eq!((&*object[1].0, object[1].1.get()), ("k1", &*count.to_string()));
        }
    }
}
