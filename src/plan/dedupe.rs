//! Deduplication of what is on its way: the same message offered again before the first is settled
//! for good.
//!
//! What was settled earlier is remembered on disk by the store. This covers the time in between,
//! and the short while in which whoever asked the store may hold an answer older than the settling.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// What becomes of an offered message.
#[derive(Debug, PartialEq, Eq)]
pub enum Offer<T> {
    /// The first of its key: it goes its way.
    First(T),
    /// A first one is on its way; the ticket comes back from [`InFlight::close`].
    Waits,
    /// The first was settled a moment ago.
    Settled(T),
}

/// Messages on their way, by key, each with those that follow it.
#[derive(Debug)]
pub struct InFlight<K, T> {
    open: HashMap<K, Vec<T>>,
    closed: HashSet<K>,
    /// Closed keys in order, with the batch they were closed in.
    closed_in: VecDeque<(u64, K)>,
    batch: u64,
    memory: u64,
}

impl<K: Hash + Eq + Clone, T> InFlight<K, T> {
    /// Remembers closed keys for `memory` batches: at least as many as may lie between asking the
    /// store and offering here.
    pub fn new(memory: u64) -> Self {
        Self {
            open: HashMap::new(),
            closed: HashSet::new(),
            closed_in: VecDeque::new(),
            batch: 0,
            memory,
        }
    }

    /// A new batch of offers begins.
    pub fn begin_batch(&mut self) {
        self.batch += 1;
        while let Some((batch, _)) = self.closed_in.front() {
            if batch + self.memory >= self.batch {
                break;
            }
            if let Some((_, key)) = self.closed_in.pop_front() {
                self.closed.remove(&key);
            }
        }
    }

    /// Offers a message.
    pub fn offer(&mut self, key: K, ticket: T) -> Offer<T> {
        if self.closed.contains(&key) {
            return Offer::Settled(ticket);
        }
        match self.open.entry(key) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Vec::new());
                Offer::First(ticket)
            }
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                slot.get_mut().push(ticket);
                Offer::Waits
            }
        }
    }

    /// The first of this key is settled, and the store knows: whoever waited for it.
    pub fn close(&mut self, key: &K) -> Vec<T> {
        let followers = self.open.remove(key).unwrap_or_default();
        if self.closed.insert(key.clone()) {
            self.closed_in.push_back((self.batch, key.clone()));
        }
        followers
    }

    /// The first of this key was not delivered: whoever waited for it. A later one may try again.
    pub fn abandon(&mut self, key: &K) -> Vec<T> {
        self.open.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        // Of equal messages one goes; one that comes while it is out waits, one that comes right
        // after is known, and one that comes after the memory's batches is the store's to know.
        let mut open = InFlight::new(2);
        assert_eq!(open.offer("m", 1), Offer::First(1));
        assert_eq!(open.offer("m", 2), Offer::Waits);
        assert_eq!(open.offer("n", 3), Offer::First(3));
        assert_eq!(open.close(&"m"), [2]);
        assert_eq!(open.offer("m", 4), Offer::Settled(4));
        open.begin_batch();
        open.begin_batch();
        assert_eq!(open.offer("m", 5), Offer::Settled(5));
        open.begin_batch();
        assert_eq!(open.offer("m", 6), Offer::First(6));
    }

    #[test]
    fn one_that_failed_is_not_remembered() {
        // A message whose first ended in the dead letters may be tried again.
        let mut open = InFlight::new(2);
        assert_eq!(open.offer("m", 1), Offer::First(1));
        assert_eq!(open.offer("m", 2), Offer::Waits);
        assert_eq!(open.abandon(&"m"), [2]);
        assert_eq!(open.offer("m", 3), Offer::First(3));
    }
}
