//! Where the reading thread and the verdicts meet: the ledger under its lock, and the rejected
//! records that are yet to be produced to the topic of dead letters.
//!
//! Not here: the client. One invariant: a record in the queue of letters counts as in flight, so
//! that no commit passes it before the brokers have its letter.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;

use super::ledger::{Ledger, Partition, Place};
use super::meta::Header;
use crate::ack::Verdict;

/// A message as it came, to be produced again if it is rejected.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Bytes>,
    pub(super) headers: Vec<Header>,
}

/// A rejected message on its way to the topic of dead letters.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) place: Place,
    pub(super) original: Original,
    pub(super) reason: Arc<str>,
}

/// What is told where nobody said why.
const NO_REASON: &str = "rejected by a sink; its dead letters tell why";

/// What the reading thread and the verdicts share.
#[derive(Debug, Default)]
pub(super) struct Desk {
    ledger: Mutex<Ledger>,
    /// A verdict came.
    told: Condvar,
    letters: Mutex<VecDeque<Letter>>,
    /// Grows when a partition comes, goes, fails or begins anew.
    revision: AtomicU64,
    closing: AtomicBool,
}

impl Desk {
    /// The ledger, for as long as the guard lives.
    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn letters(&self) -> MutexGuard<'_, VecDeque<Letter>> {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// These partitions are ours from now on.
    pub(super) fn assign(&self, partitions: Vec<Partition>) {
        let mut ledger = self.ledger();
        for partition in partitions {
            ledger.assign(partition);
        }
        self.revise();
    }

    /// These partitions are ours no more: what is still in flight of them is somebody else's.
    pub(super) fn forget(&self, partitions: &[Partition]) {
        let mut ledger = self.ledger();
        for partition in partitions {
            ledger.forget(partition);
        }
        self.revise();
    }

    /// The verdict of a record. With its original, a rejected one waits for its letter.
    pub(super) fn verdict(
        &self,
        place: Place,
        verdict: Verdict,
        reason: Option<Arc<str>>,
        original: Option<Original>,
    ) {
        match original {
            Some(original) if verdict == Verdict::Rejected => {
                if self.ledger().holds(&place) {
                    let reason = reason.unwrap_or_else(|| NO_REASON.into());
                    self.letters().push_back(Letter { place, original, reason });
                }
            }
            _ => self.settle(&place, verdict),
        }
    }

    /// A record is settled for good, its letter written where there is one.
    pub(super) fn settle(&self, place: &Place, verdict: Verdict) {
        self.ledger().settled(place, verdict);
        if verdict == Verdict::Errored {
            self.revise();
        }
        self.told.notify_all();
    }

    /// The oldest letter that still matters.
    pub(super) fn next_letter(&self) -> Option<Letter> {
        loop {
            let letter = self.letters().pop_front()?;
            if self.ledger().holds(&letter.place) {
                return Some(letter);
            }
        }
    }

    /// A letter could not be produced: it is the next again.
    pub(super) fn put_back(&self, letter: Letter) {
        self.letters().push_front(letter);
    }

    /// Waits until a verdict comes, at most so long.
    pub(super) fn wait(&self, limit: Duration) {
        let ledger = self.ledger();
        drop(self.told.wait_timeout(ledger, limit).unwrap_or_else(PoisonError::into_inner));
    }

    /// Grows when a partition comes, goes, fails or begins anew.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Something about the partitions changed.
    pub(super) fn revise(&self) {
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on nothing is waited for any more when partitions go.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether nothing is waited for any more.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rejected_record_is_open_until_its_letter_is_written() {
        // With a topic of dead letters a rejection alone moves no position; the letter does.
        let desk = Desk::default();
        let partition = Partition { topic: "t".into(), number: 0 };
        desk.assign(vec![partition.clone()]);
        let tenure = desk.ledger().tenure(&partition).unwrap();
        let mut place = Place { partition: partition.clone(), tenure, offset: 4 };
        assert!(desk.ledger().sent(&mut place));
        let original = Original { key: None, payload: None, headers: Vec::new() };
        desk.verdict(place, Verdict::Rejected, Some("no id".into()), Some(original));
        assert_eq!(desk.ledger().mark(&partition), Some(4));
        let letter = desk.next_letter().unwrap();
        assert_eq!(&*letter.reason, "no id");
        desk.put_back(letter);
        let letter = desk.next_letter().unwrap();
        desk.settle(&letter.place, Verdict::Rejected);
        assert_eq!(desk.ledger().mark(&partition), Some(5));
    }

    #[test]
    fn letters_of_a_partition_that_went_are_dropped() {
        // Who owns the partition now reads the record again and writes the letter.
        let desk = Desk::default();
        let partition = Partition { topic: "t".into(), number: 0 };
        desk.assign(vec![partition.clone()]);
        let tenure = desk.ledger().tenure(&partition).unwrap();
        let mut place = Place { partition: partition.clone(), tenure, offset: 4 };
        assert!(desk.ledger().sent(&mut place));
        let original = Original { key: None, payload: None, headers: Vec::new() };
        desk.verdict(place, Verdict::Rejected, None, Some(original));
        desk.forget(&[partition]);
        assert!(desk.next_letter().is_none());
    }
}
