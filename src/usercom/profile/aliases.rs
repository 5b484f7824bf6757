//! The names under which a value may be sent, and what it means then.
//!
//! A table of spellings is built once; after that a name is looked up once, however many spellings
//! there are, and most names are rejected by their first and last letter. A spelling is matched
//! exactly, or without regard to case, `_`, `-` and blanks: its *normalized* form.

use crate::call::FixedKeyMap;

/// Longer normalized names match no spelling.
const MAX_KEY_LEN: usize = 48;

/// The meaning of a name.
#[derive(Clone, Copy, Default)]
pub(super) struct AliasMatch<'s> {
    /// The target it leads to, and its rank: lower is better.
    pub(super) target: Option<(usize, usize)>,
    /// The meanings of the names in it, if it is an object.
    pub(super) inner: Option<&'s AliasTable>,
    /// Whether the name is spelled exactly.
    pub(super) exact: bool,
}

/// A table of spellings.
#[derive(Default)]
pub(super) struct AliasTable {
    exact: FixedKeyMap<usize>,
    normalized: FixedKeyMap<usize>,
    entries: Vec<AliasEntry>,
    /// For each first letter, the last letters that occur.
    ends: FirstLastFilter,
}

/// The target of one spelling.
#[derive(Default)]
struct AliasEntry {
    target: Option<(usize, usize)>,
    inner: Option<AliasTable>,
}

impl AliasTable {
    /// Builds a table. Of a target's spellings the first that has a value is used, exact ones
    /// before all others. A spelling is ASCII, and leads to one target only.
    pub(super) fn new<T: Copy + Into<usize>>(table: &[(T, &[&'static str])]) -> Self {
        let mut made = Self::default();
        for (target, spellings) in table {
            for (place, spelling) in spellings.iter().enumerate() {
                made.add((*target).into(), place, spelling);
            }
        }
        made
    }

    fn add(&mut self, target: usize, place: usize, spelling: &'static str) {
        let (known, _) = self.entry(spelling).target.get_or_insert((target, place));
        debug_assert_eq!(*known, target, "{spelling} means two things");
        if let Some((way, rest)) = spelling.split_once('.') {
            let inner = self.entry(way).inner.get_or_insert_default();
            inner.add(target, place, rest);
        }
    }

    /// The entry of a spelling, created if it is missing.
    fn entry(&mut self, spelling: &'static str) -> &mut AliasEntry {
        let entry = match self.exact.get(spelling.as_bytes()) {
            Some(entry) => *entry,
            None => {
                self.entries.push(AliasEntry::default());
                let entry = self.entries.len() - 1;
                self.exact.insert(spelling.as_bytes(), entry);
                let normalized = normalized(spelling).expect("a spelling is short");
                if self.normalized.get(normalized.as_bytes()).is_none() {
                    self.normalized.insert(normalized.as_bytes(), entry);
                }
                entry
            }
        };
        self.ends.add(spelling);
        &mut self.entries[entry]
    }

    /// The meaning of a name. `exact` says whether the names around it are spelled exactly.
    pub(super) fn find(&self, name: &str, exact: bool) -> AliasMatch<'_> {
        if !self.ends.may_have(name) {
            return AliasMatch::default();
        }
        if let (true, Some(entry)) = (exact, self.exact.get(name.as_bytes())) {
            let AliasEntry { target, inner } = &self.entries[*entry];
            return AliasMatch { target: *target, inner: inner.as_ref(), exact };
        }
        self.find_squashed(name)
    }

    fn find_squashed(&self, name: &str) -> AliasMatch<'_> {
        let name = normalized(name).unwrap_or_default();
        let Some(entry) = self.normalized.get(name.as_bytes()) else {
            return AliasMatch::default();
        };
        let AliasEntry { target, inner } = &self.entries[*entry];
        let target = target.map(|(target, place)| (target, place + INEXACT));
        AliasMatch { target, inner: inner.as_ref(), exact: false }
    }
}

/// Added to the rank of names that are not spelled exactly, so that they come last.
const INEXACT: usize = 1 << 16;

/// Pairs of first and last letters.
#[derive(Default)]
struct FirstLastFilter([u32; 32]);

impl FirstLastFilter {
    fn add(&mut self, spelling: &str) {
        if let Some((first, last)) = Self::of(spelling) {
            self.0[first] |= 1 << last;
        }
    }

    /// `false` if no spelling has this name in any normalized form.
    fn may_have(&self, name: &str) -> bool {
        Self::of(name).is_none_or(|(first, last)| self.0[first] & (1 << last) != 0)
    }

    /// The first and last letter of a name whose normalized form keeps them; `None` for others.
    fn of(name: &str) -> Option<(usize, u32)> {
        let letter = |byte: Option<&u8>| {
            // A character whose low bits equal those of a letter shares that letter's bit.
            byte.filter(|byte| byte.is_ascii() && !is_separator(**byte)).map(|byte| byte & 31)
        };
        let (first, last) = (letter(name.as_bytes().first())?, letter(name.as_bytes().last())?);
        Some((first.into(), last.into()))
    }
}

fn is_separator(byte: u8) -> bool {
    matches!(byte, b'_' | b'-' | b' ')
}

/// A name without case and separators; `None` where it matches no spelling.
fn normalized(name: &str) -> Option<String> {
    // Some letters outside of ASCII have a lower-case form within ASCII, which may be shorter.
    if name.len() > 2 * MAX_KEY_LEN {
        return None;
    }
    let normalized: String = match name.is_ascii() {
        true => {
            let bytes = name.bytes().filter(|byte| !is_separator(*byte));
            bytes.map(|byte| char::from(byte.to_ascii_lowercase())).collect()
        }
        false => {
            let chars = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
            chars.flat_map(char::to_lowercase).collect()
        }
    };
    (normalized.len() <= MAX_KEY_LEN).then_some(normalized)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alias_resolves_to_its_target() {
        // Case, separators and nesting do not matter; exact spellings rank before all others, and
        // those in their order.
        let table = AliasTable::new(&[
            (0_usize, &["first_name", "firstName", "given"][..]),
            (1, &["address.postal_code", "zip"]),
            (2, &["key"]),
        ]);
        let found = |name: &str| table.find(name, true).target;
        assert_eq!(found("first_name"), Some((0, 0)));
        assert_eq!(found("firstName"), Some((0, 1)));
        assert_eq!(found("First-Name"), Some((0, INEXACT)));
        assert_eq!(found("_first_name "), Some((0, INEXACT)));
        assert_eq!(found("GIVEN"), Some((0, INEXACT + 2)));
        assert_eq!(found("\u{212a}ey"), Some((2, INEXACT)));
        assert_eq!(found("address.postal_code"), Some((1, 0)));
        assert_eq!(found("kéy"), None);
        assert_eq!(found(""), None);
        assert_eq!(found(&"k".repeat(500)), None);
        let exact = table.find("address", true);
        assert_eq!(exact.target, None);
        let inner = exact.inner.expect("something lies in it");
        assert_eq!(inner.find("postal_code", exact.exact).target, Some((1, 0)));
        let spoken = table.find("Address", true);
        let inner = spoken.inner.expect("something lies in it");
        assert_eq!(inner.find("postal_code", spoken.exact).target, Some((1, INEXACT)));
        assert!(table.find("zip", true).inner.is_none());
    }
}
