//! Deduplication of messages in flight: the same message id again before the first is settled.
//!
//! The store remembers settled message ids. This module covers the time before, and the few batches
//! after, because a batch may have read the store just before a message was settled.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

/// What to do with an offered message.
#[derive(Debug, PartialEq, Eq)]
pub enum DedupeDecision<T> {
    /// The first of its id: process it.
    First(T),
    /// The first is in flight; [`InFlightMessages::commit`] returns the ticket.
    Queued,
    /// The first was settled recently.
    AlreadySettled(T),
}

/// Messages in flight by id, each with the tickets of its duplicates.
#[derive(Debug)]
pub struct InFlightMessages<K, T> {
    open: HashMap<K, Vec<T>>,
    committed: HashSet<K>,
    /// Committed ids in order, with the batch they were committed in.
    committed_in: VecDeque<(u64, K)>,
    batch: u64,
    retain_batches: u64,
}

impl<K: Hash + Eq + Clone, T> InFlightMessages<K, T> {
    /// Remembers committed ids for `retain_batches` batches: at least as many as may lie between
    /// reading the store and [`offer`](Self::offer).
    pub fn new(retain_batches: u64) -> Self {
        Self {
            open: HashMap::new(),
            committed: HashSet::new(),
            committed_in: VecDeque::new(),
            batch: 0,
            retain_batches,
        }
    }

    /// Begins a batch of offers.
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

    /// The first of this id is settled and stored. Returns the tickets of its duplicates.
    pub fn commit(&mut self, key: &K) -> Vec<T> {
        let followers = self.open.remove(key).unwrap_or_default();
        if self.committed.insert(key.clone()) {
            self.committed_in.push_back((self.batch, key.clone()));
        }
        followers
    }

    /// The first of this id was not delivered. Returns the tickets of its duplicates; a later message
    /// with this id is processed again.
    pub fn release(&mut self, key: &K) -> Vec<T> {
        self.open.remove(key).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_in_flight_is_queued_until_the_first_is_committed() {
        // Of equal messages one is processed; a duplicate is queued while it is in flight, is known
        // for the retained batches, and is left to the store after that.
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
    fn released_message_is_processed_again() {
        // A message whose first went to the dead letters may be tried again.
        let mut open = InFlightMessages::new(2);
        assert_eq!(open.offer("m", 1), DedupeDecision::First(1));
        assert_eq!(open.offer("m", 2), DedupeDecision::Queued);
        assert_eq!(open.release(&"m"), [2]);
        assert_eq!(open.offer("m", 3), DedupeDecision::First(3));
    }
}
