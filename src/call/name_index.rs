//! Where each name of a growing list stands, so that names stay unique.
//!
//! The list itself is the caller's. Up to `INLINE_CAP` names stand in a table without allocation; more
//! are hashed, so that finding a name costs the same in a list of ten and of a hundred thousand.
//! Names come from outside: the hash is keyed, and the table without allocation is small enough that
//! names chosen to collide are compared one by one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::HashTable;

use super::fixed_key_map::hash;

/// So many names are few.
const INLINE_CAP: usize = 64;
/// Places of the table of few: twice as many, so that most names stand where they belong.
const INLINE_SLOTS: usize = 2 * INLINE_CAP;

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// An index of the names of a list.
#[derive(Debug, Clone)]
pub struct NameIndex {
    count: usize,
    /// Places in the list, counted from 1, while there are few; 0 is free. A name stands at its own
    /// place of the table or behind it.
    table: [u8; INLINE_SLOTS],
    /// Places in the list once there are many.
    places: HashTable<usize>,
}

impl Default for NameIndex {
    fn default() -> Self {
        Self { count: 0, table: [0; INLINE_SLOTS], places: HashTable::new() }
    }
}

impl NameIndex {
    /// The place of a name among those that were [entered](Self::get_or_insert); `known` tells the name at a
    /// place.
    pub fn get<'n>(&self, name: &str, known: impl Fn(usize) -> &'n str) -> Option<usize> {
        match self.count > INLINE_CAP {
            true => self.find_hashed(name, known),
            false => self.find_inline(name, known).ok(),
        }
    }

    /// The place of a name; none for one that is new, which is to come to the end of the list now.
    pub fn get_or_insert<'n>(
        &mut self,
        name: &str,
        known: impl Fn(usize) -> &'n str,
    ) -> Option<usize> {
        if self.count < INLINE_CAP {
            return match self.find_inline(name, known) {
                Ok(place) => Some(place),
                Err(free) => {
                    self.count += 1;
                    // There are few.
                    self.table[free] = u8::try_from(self.count).unwrap_or_default();
                    None
                }
            };
        }
        let place = self.get(name, &known);
        if place.is_none() {
            self.index(name, known);
        }
        place
    }

    /// The place of a name, or where in the table it would stand.
    fn find_inline<'n>(
        &self,
        name: &str,
        known: impl Fn(usize) -> &'n str,
    ) -> Result<usize, usize> {
        let mut at = hash(name.as_bytes()) % INLINE_SLOTS;
        while let Some(place) = usize::from(self.table[at]).checked_sub(1) {
            if known(place) == name {
                return Ok(place);
            }
            at = (at + 1) % INLINE_SLOTS;
        }
        Err(at)
    }

    fn find_hashed<'n>(&self, name: &str, known: impl Fn(usize) -> &'n str) -> Option<usize> {
        self.places.find(HASH.hash_one(name), |place| known(*place) == name).copied()
    }

    /// Hashes a new name, and those that came while there were few.
    fn index<'n>(&mut self, name: &str, known: impl Fn(usize) -> &'n str) {
        let hash = |place: &usize| match *place == self.count {
            true => HASH.hash_one(name),
            false => HASH.hash_one(known(*place)),
        };
        for place in self.places.len()..=self.count {
            self.places.insert_unique(hash(&place), place, hash);
        }
        self.count += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_at_its_index() {
        // Few names or many: what was added is found at its place, anything else nowhere.
        for count in [0, 1, INLINE_CAP - 1, INLINE_CAP, INLINE_CAP + 1, 3 * INLINE_CAP] {
            let mut list: Vec<String> = Vec::new();
            let mut names = NameIndex::default();
            for n in 0..count {
                let name = format!("k{n}");
                assert_eq!(names.get(&name, |place| &list[place]), None);
                assert_eq!(names.get_or_insert(&name, |place| &list[place]), None);
                list.push(name);
            }
            for (place, name) in list.iter().enumerate() {
                assert_eq!(names.get(name, |place| &list[place]), Some(place));
                assert_eq!(names.get_or_insert(name, |place| &list[place]), Some(place));
            }
        }
    }
}
