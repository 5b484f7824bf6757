//! Where each name of a growing list stands, so that names stay unique.
//!
//! Not the list: that is the caller's. Few names are compared one by one, and most not even that,
//! because a bit says that the name is new; many are hashed, so that a list of a hundred thousand
//! costs no more a name than one of ten. Names come from outside: the hash is keyed.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::LazyLock;

use hashbrown::HashTable;

use super::lexicon::mixed;

/// From so many names on they are hashed.
const MANY: usize = 32;

static HASH: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// An index of the names of a list.
#[derive(Debug, Clone, Default)]
pub struct Names {
    count: usize,
    /// A bit for every mark the names have.
    marks: u64,
    /// Places, once there are many.
    places: HashTable<usize>,
}

impl Names {
    /// The place of a name among those that were [added](Self::added); `known` tells the name at a
    /// place.
    pub fn place<'n>(&self, name: &str, known: impl Fn(usize) -> &'n str) -> Option<usize> {
        if self.count >= MANY {
            let hash = HASH.hash_one(name);
            self.places.find(hash, |place| known(*place) == name).copied()
        } else if self.marks & mark(name) == 0 {
            None
        } else {
            (0..self.count).find(|place| known(*place) == name)
        }
    }

    /// A name, which is new, came to the end of the list.
    pub fn added<'n>(&mut self, name: &str, known: impl Fn(usize) -> &'n str) {
        self.count += 1;
        self.marks |= mark(name);
        if self.count >= MANY {
            self.index(known);
        }
    }

    #[cold]
    fn index<'n>(&mut self, known: impl Fn(usize) -> &'n str) {
        let hash = |place: &usize| HASH.hash_one(known(*place));
        for place in self.places.len()..self.count {
            self.places.insert_unique(hash(&place), place, hash);
        }
    }
}

/// One bit of 64.
fn mark(name: &str) -> u64 {
    1 << (mixed(name.as_bytes()) & 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_found_where_it_stands() {
        // Few names or many: what was added is found at its place, anything else nowhere.
        for count in [0, 1, MANY - 1, MANY, 3 * MANY] {
            let mut list: Vec<String> = Vec::new();
            let mut names = Names::default();
            for n in 0..count {
                let name = format!("k{n}");
                assert_eq!(names.place(&name, |place| &list[place]), None);
                list.push(name.clone());
                names.added(&name, |place| &list[place]);
            }
            for (place, name) in list.iter().enumerate() {
                assert_eq!(names.place(name, |place| &list[place]), Some(place));
            }
        }
    }
}
