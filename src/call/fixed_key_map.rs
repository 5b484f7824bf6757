//! A set of names that is put together once and asked often: the keys a table reads, the spellings
//! a field has.
//!
//! Not for names that come from outside: they are looked up here, never added, so that nobody can
//! choose them to fall into one place.

/// What stands behind each of a number of names.
#[derive(Debug, Clone)]
pub struct FixedKeyMap<T> {
    /// A power of two of slots, at least half of them free; a name stands at its own place or
    /// behind it.
    slots: Vec<Option<(Box<[u8]>, T)>>,
    count: usize,
    /// A bit for every length the names have.
    lengths: u64,
}

impl<T> Default for FixedKeyMap<T> {
    fn default() -> Self {
        Self { slots: Vec::new(), count: 0, lengths: 0 }
    }
}

impl<T> FixedKeyMap<T> {
    /// Whether there is no name.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What stands behind a name.
    pub fn get(&self, name: &[u8]) -> Option<&T> {
        self.slots.get(self.place(name)?)?.as_ref().map(|(_, value)| value)
    }

    /// What stands behind a name, to be changed.
    pub fn get_mut(&mut self, name: &[u8]) -> Option<&mut T> {
        let place = self.place(name)?;
        self.slots.get_mut(place)?.as_mut().map(|(_, value)| value)
    }

    fn place(&self, name: &[u8]) -> Option<usize> {
        // Where there are few names, most others are told by their lengths.
        if self.lengths & length_bit(name) == 0 {
            return None;
        }
        let mask = self.slots.len().checked_sub(1)?;
        let mut at = hash(name) & mask;
        while let Some((known, _)) = self.slots.get(at)? {
            if **known == *name {
                return Some(at);
            }
            at = (at + 1) & mask;
        }
        None
    }

    /// Adds a name that is not there yet.
    pub fn insert(&mut self, name: &[u8], value: T) {
        debug_assert!(self.get(name).is_none(), "the name is there");
        if 2 * (self.count + 1) > self.slots.len() {
            let room = (4 * (self.count + 1)).next_power_of_two();
            let old = std::mem::take(&mut self.slots);
            self.slots.resize_with(room, || None);
            for (name, value) in old.into_iter().flatten() {
                self.insert_slot(name, value);
            }
        }
        self.insert_slot(name.into(), value);
        self.count += 1;
        self.lengths |= length_bit(name);
    }

    fn insert_slot(&mut self, name: Box<[u8]>, value: T) {
        let mask = self.slots.len() - 1;
        let mut at = hash(&name) & mask;
        while self.slots[at].is_some() {
            at = (at + 1) & mask;
        }
        self.slots[at] = Some((name, value));
    }
}

fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

/// A number that depends on a name's length and its first and last bytes.
pub(super) fn hash(name: &[u8]) -> usize {
    let four = |bytes: &[u8; 4]| u64::from(u32::from_le_bytes(*bytes));
    let ends = match (name.first_chunk(), name.last_chunk()) {
        (Some(first), Some(last)) => four(first) << 32 | four(last),
        _ => name.iter().fold(0, |ends, byte| ends << 8 | u64::from(*byte)),
    };
    // The upper half of a product depends on all bits of its factors.
    let product = (ends ^ (name.len() as u64) << 24).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (product >> 40) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inserted_key_is_found() {
        // Every name leads to its own value, however many there are, and no other name to any.
        for count in [0, 1, 2, 3, 50, 1_000] {
            let mut lexicon = FixedKeyMap::default();
            for n in 0..count {
                lexicon.insert(format!("name_{n}").as_bytes(), n);
            }
            assert_eq!(lexicon.is_empty(), count == 0);
            for n in 0..count {
                assert_eq!(lexicon.get(format!("name_{n}").as_bytes()), Some(&n));
                assert_eq!(lexicon.get(format!("name_{n}x").as_bytes()), None);
            }
            assert_eq!(lexicon.get(b""), None);
        }
    }
}
