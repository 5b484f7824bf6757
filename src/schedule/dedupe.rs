//! Deduplication of what is on its way: the same message offered again before the first is settled
//! for good.
//!
//! What was settled earlier is remembered on disk by the store. This covers the time in between,
//! and the short while in which whoever asked the store may hold an answer older than the settling.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// What becomes of an offered message.
#[derive(Debug, PartialEq, Eq)]
pub enum DedupeDecision<T> {
    /// The first of its key: it goes its way.
    First(T),
    /// A first one is on its way; the ticket comes back from [`InFlightMessages::commit`].
    Queued,
    /// The first was settled a moment ago.
    AlreadySettled(T),
}

/// Messages on their way, by key, each with those that follow it.
#[derive(Debug)]
pub struct InFlightMessages<K, T> {
    open: HashMap<K, Vec<T>>,
    committed: HashSet<K>,
    /// Closed keys in order, with the batch they were committed in.
    committed_in: VecDeque<(u64, K)>,
    batch: u64,
    retain_batches: u64,
}

impl<K: Hash + Eq + Clone, T> InFlightMessages<K, T> {
    /// Remembers committed keys for `retain_batches` batches: at least as many as may lie between asking the
    /// store and offering here.
    pub fn new(retain_batches: u64) -> Self {
        Self {
            open: HashMap::new(),
            committed: HashSet::new(),
            committed_in: VecDeque::new(),
            batch: 0,
            retain_batches,
        }
    }

    /// A new batch of offers begins.
    pub fn begin_batch(&mut self) {
        self.batch += 1;
        while let Some((batch, _)) = self.committed_in.front() {
            if batch + self.retain_batches >= self.batch {
                break;
            }
            if let Some((_, key)) = self.committed_in.pop_front() {
                self.committed.remove(&key);
            }
        }
    }

    /// Offers a message.
    pub fn offer(&mut self, key: K, ticket: T) -> DedupeDecision<T> {
        if self.committed.contains(&key) {
            return DedupeDecision::AlreadySettled(ticket);
        }
        match self.open.entry(key) {
            std::collections::hash_map::Entry::Vacant(slot) => {
                slot.insert(Vec::new());
                DedupeDecision::First(ticket)
            }
            std::collections::hash_map::Entry::Occupied(mut slot) => {
                slot.get_mut().push(ticket);
                DedupeDecision::Queued
            }
        }
    }

    /// The first of this key is settled, and the store knows: whoever waited for it.
    pub fn commit(&mut self, key: &K) -> Vec<T> {
        let followers = self.open.remove(key).unwrap_or_default();
        if self.committed.insert(key.clone()) {
            self.committed_in.push_back((self.batch, key.clone()));
        }
        followers
    }

    /// The first of this key was not delivered: whoever waited for it. A later one may try again.
    pub fn release(&mut self, key: &K) -> Vec<T> {
        self.open.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_waits_for_the_first() {
        // Of equal messages one goes; one that comes while it is out waits, one that comes right
        // after is known, and one that comes after the retain_batches's batches is the store's to know.
        let mut open = InFlightMessages::new(2);
        assert_eq!(open.offer("m", 1), DedupeDecision::First(1));
        assert_eq!(open.offer("m", 2), DedupeDecision::Queued);
        assert_eq!(open.offer("n", 3), DedupeDecision::First(3));
        assert_eq!(open.commit(&"m"), [2]);
        assert_eq!(open.offer("m", 4), DedupeDecision::AlreadySettled(4));
        open.begin_batch();
        open.begin_batch();
        assert_eq!(open.offer("m", 5), DedupeDecision::AlreadySettled(5));
        open.begin_batch();
        assert_eq!(open.offer("m", 6), DedupeDecision::First(6));
    }

    #[test]
    fn one_that_failed_is_not_remembered() {
        // A message whose first ended in the dead letters may be tried again.
        let mut open = InFlightMessages::new(2);
        assert_eq!(open.offer("m", 1), DedupeDecision::First(1));
        assert_eq!(open.offer("m", 2), DedupeDecision::Queued);
        assert_eq!(open.release(&"m"), [2]);
        assert_eq!(open.offer("m", 3), DedupeDecision::First(3));
    }
}
