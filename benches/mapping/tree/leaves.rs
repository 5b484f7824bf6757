//! The values of a tree, nested objects opened up, each under what it means.

use serde_json::{Map, Value};

use super::spellings::Spellings;
use super::text::trimmed;

/// Objects nested deeper than this stay whole.
pub(super) const MAX_DEPTH: usize = 16;

/// All values of an object, of which a number of targets are found.
pub(super) struct Leaves<const TARGETS: usize> {
    /// Each with its rank: less is better.
    found: [Option<(usize, Value)>; TARGETS],
    /// What no spelling leads to, under flat names.
    pub(super) rest: Vec<(String, Value)>,
}

/// An object on the way.
#[derive(Clone, Copy)]
struct Level<'s> {
    /// What the names in it may be.
    spellings: Option<&'s Spellings>,
    is_exact: bool,
    depth: usize,
}

/// What becomes of values no spelling leads to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Others {
    Kept,
    Ignored,
}

impl<const TARGETS: usize> Leaves<TARGETS> {
    /// Opens up an object. Nulls are left out.
    pub(super) fn of(object: Map<String, Value>, spellings: &Spellings) -> Self {
        Self::opened(object, spellings, Others::Kept)
    }

    /// Opens up as much of an object as spellings lead to.
    pub(super) fn among(object: Map<String, Value>, spellings: &Spellings) -> Self {
        Self::opened(object, spellings, Others::Ignored)
    }

    fn opened(object: Map<String, Value>, spellings: &Spellings, others: Others) -> Self {
        let mut leaves = Self { found: [const { None }; TARGETS], rest: Vec::new() };
        let top = Level { spellings: Some(spellings), is_exact: true, depth: 0 };
        leaves.open(object, others, top, &mut String::new());
        leaves
    }

    /// The value of a target: that of its best spelling which is not blank.
    pub(super) fn take(&mut self, target: impl Into<usize>) -> Option<Value> {
        self.found[target.into()].take().map(|(_, value)| value)
    }

    fn open(
        &mut self,
        object: Map<String, Value>,
        others: Others,
        at: Level<'_>,
        path: &mut String,
    ) {
        for (name, value) in object {
            let key = name.trim();
            if value.is_null() || (key.is_empty() && at.depth == 0) {
                continue;
            }
            let meaning =
                at.spellings.map(|known| known.find(key, at.is_exact)).unwrap_or_default();
            let opens = others == Others::Kept || meaning.inner.is_some();
            match (value, meaning.target) {
                (Value::Object(inner), _) if opens && at.depth < MAX_DEPTH => {
                    let outside = path.len();
                    path.extend([key, "_"]);
                    let (spellings, is_exact) = (meaning.inner, meaning.is_exact);
                    self.open(
                        inner,
                        others,
                        Level { spellings, is_exact, depth: at.depth + 1 },
                        path,
                    );
                    path.truncate(outside);
                }
                (value, Some((target, rank))) => self.keep(target, rank, value),
                (value, None) if others == Others::Kept => {
                    let name = match at.depth {
                        0 => trimmed(name),
                        _ => [path, key].concat(),
                    };
                    self.rest.push((name, value));
                }
                _ => {}
            }
        }
    }

    fn keep(&mut self, target: usize, rank: usize, value: Value) {
        let place = &mut self.found[target];
        let is_blank = value.as_str().is_some_and(|text| text.trim().is_empty());
        if !is_blank && place.as_ref().is_none_or(|(known, _)| rank < *known) {
            *place = Some((rank, value));
        }
    }
}
