//! The values of a call, nested objects opened up, each findable by any of its spellings.
//!
//! Not here: what a value means. Invariant: a value is handed out once; what no rule took is left
//! for [`Leaves::rest`].

use std::borrow::Cow;

use indexmap::IndexMap;
use serde_json::value::RawValue;

use crate::call::Fields;

/// Objects nested deeper than this stay JSON.
const MAX_DEPTH: usize = 16;

/// One value that is not an object.
pub(super) struct Leaf<'c> {
    /// Keys from the outside in, joined with `.`.
    path: String,
    /// The path without case, underscores, dashes and blanks.
    squashed: String,
    /// Keys joined with `_`: the name under which the value travels on.
    pub(super) flat: String,
    /// The value as JSON text.
    pub(super) json: &'c str,
    taken: bool,
}

/// All values of a call's fields or context.
pub(super) struct Leaves<'c>(Vec<Leaf<'c>>);

impl<'c> Leaves<'c> {
    /// Opens up fields. Nulls are left out.
    pub(super) fn of(fields: &'c Fields<'_>) -> Self {
        let mut leaves = Vec::with_capacity(fields.len());
        for (name, json) in fields {
            open(name.trim().to_owned(), name.trim().to_owned(), json.as_str(), 0, &mut leaves);
        }
        Self(leaves)
    }

    /// Takes the first value, in the order of `spellings`, that is neither absent nor `""`. All
    /// other spellings are spent with it.
    ///
    /// A spelling is matched exactly first, then without regard to case, `_`, `-` and blanks.
    pub(super) fn take(&mut self, spellings: &[&str]) -> Option<&'c str> {
        let mut found = None;
        for exact in [true, false] {
            for spelling in spellings {
                let squashed = squash(spelling);
                for leaf in self.0.iter_mut().filter(|leaf| {
                    !leaf.taken
                        && if exact { leaf.path == *spelling } else { leaf.squashed == squashed }
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
            let squashed = squash(name);
            for leaf in self.0.iter_mut().filter(|leaf| leaf.squashed == squashed) {
                leaf.taken = true;
            }
        }
    }

    /// What no rule took, in order.
    pub(super) fn rest(&self) -> impl Iterator<Item = &Leaf<'c>> {
        self.0.iter().filter(|leaf| !leaf.taken)
    }
}

fn open<'c>(path: String, flat: String, json: &'c str, depth: usize, into: &mut Vec<Leaf<'c>>) {
    if json == "null" || flat.is_empty() {
        return;
    }
    if depth < MAX_DEPTH
        && json.starts_with('{')
        && let Ok(object) = serde_json::from_str::<IndexMap<String, &RawValue>>(json)
    {
        for (key, value) in object {
            let key = key.trim();
            let (path, flat) = (format!("{path}.{key}"), format!("{flat}_{key}"));
            open(path, flat, value.get(), depth + 1, into);
        }
        return;
    }
    let squashed = squash(&path);
    into.push(Leaf { path, squashed, flat, json, taken: false });
}

fn squash(path: &str) -> String {
    path.chars().filter(|c| !matches!(c, '_' | '-' | ' ')).flat_map(char::to_lowercase).collect()
}

fn is_blank(json: &str) -> bool {
    json.starts_with('"') && text(json).is_none_or(|text| text.trim().is_empty())
}

/// The text of a scalar: strings decoded, numbers and booleans as written. `None` for `null`,
/// arrays and objects.
pub(super) fn text(json: &str) -> Option<Cow<'_, str>> {
    match json.as_bytes().first()? {
        b'"' => serde_json::from_str::<String>(json).ok().map(Cow::Owned),
        b'[' | b'{' | b'n' => None,
        _ => Some(Cow::Borrowed(json)),
    }
}

/// The elements of an array.
pub(super) fn elements(json: &str) -> Option<Vec<&RawValue>> {
    json.starts_with('[').then(|| serde_json::from_str(json).ok()).flatten()
}
