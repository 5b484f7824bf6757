//! Under which names a value may come, and what it is then: exactly as they are spelled here, or
//! without regard to case, `_`, `-` and blanks.

use std::borrow::Cow;
use std::collections::HashMap;

/// What ranks names that are no exact spelling behind those that are.
const INEXACT: usize = 1 << 16;
/// Longer names are nobody's spelling.
const LONGEST: usize = 96;

/// A table of spellings, by what is left of a name without case and separators.
#[derive(Default)]
pub(super) struct Spellings(HashMap<String, Entry>);

#[derive(Default)]
struct Entry {
    /// Every spelling that squashes to this name, the best one first.
    spellings: Vec<Spelling>,
    /// What the names inside may be, if it is an object.
    inner: Option<Spellings>,
}

struct Spelling {
    name: &'static str,
    target: Option<(usize, usize)>,
}

/// What a name is.
#[derive(Clone, Copy, Default)]
pub(super) struct Meaning<'s> {
    /// The target it leads to, and how well it fits: less is better.
    pub(super) target: Option<(usize, usize)>,
    pub(super) inner: Option<&'s Spellings>,
    pub(super) is_exact: bool,
}

impl Spellings {
    pub(super) fn new<T: Copy + Into<usize>>(table: &[(T, &[&'static str])]) -> Self {
        let mut made = Self::default();
        for (target, spellings) in table {
            for (place, spelling) in spellings.iter().enumerate() {
                made.add(spelling, ((*target).into(), place));
            }
        }
        made
    }

    fn add(&mut self, name: &'static str, target: (usize, usize)) {
        self.entry(name).add(name, Some(target));
        if let Some((way, rest)) = name.split_once('.') {
            let entry = self.entry(way);
            entry.add(way, None);
            entry.inner.get_or_insert_default().add(rest, target);
        }
    }

    fn entry(&mut self, name: &str) -> &mut Entry {
        self.0.entry(squashed(name).into_owned()).or_default()
    }

    /// What a name is. `is_exact` says whether the names around it are spelled exactly.
    pub(super) fn find(&self, name: &str, is_exact: bool) -> Meaning<'_> {
        if name.len() > LONGEST {
            return Meaning::default();
        }
        let Some(Entry { spellings, inner }) = self.0.get(&*squashed(name)) else {
            return Meaning::default();
        };
        let inner = inner.as_ref();
        if is_exact && let Some(same) = spellings.iter().find(|known| known.name == name) {
            return Meaning { target: same.target, inner, is_exact };
        }
        let best = spellings.first().and_then(|best| best.target);
        let target = best.map(|(target, place)| (target, place + INEXACT));
        Meaning { target, inner, is_exact: false }
    }
}

impl Entry {
    fn add(&mut self, name: &'static str, target: Option<(usize, usize)>) {
        match self.spellings.iter_mut().find(|known| known.name == name) {
            Some(known) => known.target = known.target.or(target),
            None => self.spellings.push(Spelling { name, target }),
        }
    }
}

/// A name without case and separators. Many have none.
fn squashed(name: &str) -> Cow<'_, str> {
    let is_separator = |c: char| matches!(c, '_' | '-' | ' ');
    let is_plain = |b: u8| b.is_ascii() && !b.is_ascii_uppercase() && !is_separator(b.into());
    if name.bytes().all(is_plain) {
        return Cow::Borrowed(name);
    }
    let mut squashed = String::with_capacity(name.len());
    for c in name.chars().filter(|c| !is_separator(*c)) {
        match c.is_ascii() {
            true => squashed.push(c.to_ascii_lowercase()),
            false => squashed.extend(c.to_lowercase()),
        }
    }
    Cow::Owned(squashed)
}
