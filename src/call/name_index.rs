//! Finds the index of each name in a growing list, so that names stay unique.
//!
//! The caller owns the list. Up to `INLINE_CAP` names are in a table without allocation; more are
//! hashed, so that finding a name takes the same time in a list of ten and of a hundred thousand.
//! Names come from records, so the hash is keyed; the inline table is so small that colliding names
//! may be compared one by one.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::HashTable;

use super::fixed_key_map::hash;

/// The most names of the inline table.
const INLINE_CAP: usize = 64;
/// Slots of the inline table: twice as many, so that most names are in their own slot.
const INLINE_SLOTS: usize = 2 * INLINE_CAP;

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// An index of the names of a list.
#[derive(Debug, Clone)]
pub struct NameIndex {
    count: usize,
    /// Indexes in the list, counted from 1; 0 is free. A name is in its own slot or, if that is
    /// taken, in a later one. Used while there are few names.
    table: [u8; INLINE_SLOTS],
    /// Indexes in the list, once there are many names.
    places: HashTable<usize>,
}

impl Default for NameIndex {
    fn default() -> Self {
        Self { count: 0, table: [0; INLINE_SLOTS], places: HashTable::new() }
    }
}

impl NameIndex {
    /// The index of a name that was [inserted](Self::get_or_insert); `known` returns the name at an
    /// index.
    pub fn get<'n>(&self, name: &str, known: impl Fn(usize) -> &'n str) -> Option<usize> {
        match self.count > INLINE_CAP {
            true => self.find_hashed(name, known),
            false => self.find_inline(name, known).ok(),
        }
    }

    /// The index of a name, or `None` for a new one, which the caller must append to the list now.
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
                    // The count is at most `INLINE_CAP` here.
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

    /// The index of a name, or the free slot for it.
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

    /// Hashes a new name, and those that were inserted while there were few.
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
        // With few names or many, an inserted name is found at its index and any other is not
        // found.
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
