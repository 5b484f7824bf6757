//! Deduplication of what is on its way: the same message offered twice before the first is settled.
//!
//! What was settled earlier is remembered on disk by the store; this covers the moment in between.
//! The second takes no way of its own: it shares the first's.

use std::collections::HashMap;
use std::hash::Hash;

/// Messages on their way, by key, each with those that follow it.
#[derive(Debug)]
pub struct InFlight<K, T> {
    open: HashMap<K, Vec<T>>,
}

impl<K: Hash + Eq, T> Default for InFlight<K, T> {
    fn default() -> Self {
        Self {
            open: HashMap::new(),
        }
    }
}

impl<K: Hash + Eq, T> InFlight<K, T> {
    /// Offers a message. The first of its key gets its ticket back and goes its way; a later one
    /// waits for the first to [close](Self::close).
    pub fn offer(&mut self, key: K, ticket: T) -> Option<T> {
        match self.open.entry(key) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Vec::new());
                Some(ticket)
            }
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                slot.get_mut().push(ticket);
                None
            }
        }
    }

    /// The first of this key is settled: whoever waited for it.
    pub fn close<Q>(&mut self, key: &Q) -> Vec<T>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.open.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        // Of two equal messages one goes, the other is told of when the first is settled.
        let mut open = InFlight::default();
        assert_eq!(open.offer("m", 1), Some(1));
        assert_eq!(open.offer("m", 2), None);
        assert_eq!(open.offer("n", 3), Some(3));
        assert_eq!(open.close("m"), [2]);
        assert_eq!(open.offer("m", 4), Some(4));
    }
}
