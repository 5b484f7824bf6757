//! Where the reading thread, the verdicts and the clerk meet: the ledger under its lock, and the
//! rejected records that are yet to be produced to the topic of dead letters.
//!
//! Not here: the client. One invariant: a record in the queue of letters counts as in flight, so
//! that no commit passes it before the brokers have its letter.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::claim::Bequest;
use super::ledger::{Due, Ledger, Partition, Passage, Place};
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
    /// A verdict came, or the brokers have answered.
    told: Condvar,
    /// There is something for the clerk to do.
    errand: Condvar,
    /// The clerk may go.
    dismissed: AtomicBool,
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
        self.errand.notify_one();
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

    /// Whether a record may be handed on; see [`Ledger::hand_on`]. The clerk hears of a claim that
    /// is to be made.
    pub(super) fn hand_on(&self, place: &Place, most: usize) -> Passage {
        let mut ledger = self.ledger();
        let passage = ledger.hand_on(place, most);
        if ledger.is_stirred() {
            self.errand.notify_one();
        }
        passage
    }

    /// What the last owner left of a partition.
    pub(super) fn inherit(&self, partition: &Partition, bequest: Bequest) {
        self.ledger().inherit(partition, bequest);
        self.told.notify_all();
    }

    /// The brokers have what was due.
    pub(super) fn confirm(&self, done: &[Due]) {
        let mut ledger = self.ledger();
        done.iter().for_each(|due| ledger.confirm(due));
        self.told.notify_all();
    }

    /// Waits until there is something for the clerk to do, at most until `late`. `false` where the
    /// clerk may go.
    pub(super) fn await_errand(&self, late: Instant) -> bool {
        let mut ledger = self.ledger();
        loop {
            if self.dismissed.load(Ordering::Acquire) {
                return false;
            }
            let left = late.saturating_duration_since(Instant::now());
            if left.is_zero() || ledger.is_urgent() {
                return true;
            }
            let waited = self.errand.wait_timeout(ledger, left);
            ledger = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits, unless the clerk may go.
    pub(super) fn rest(&self, length: Duration) {
        let ledger = self.ledger();
        let stay = |_: &mut Ledger| !self.dismissed.load(Ordering::Acquire);
        drop(self.errand.wait_timeout_while(ledger, length, stay));
    }

    /// The clerk may go.
    pub(super) fn dismiss(&self) {
        let ledger = self.ledger();
        self.dismissed.store(true, Ordering::Release);
        drop(ledger);
        self.errand.notify_all();
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

    /// The only record of a partition that is ours, handed on.
    fn handed_on(desk: &Desk, offset: u64) -> Place {
        let partition = Partition { topic: "t".into(), number: 0 };
        desk.assign(vec![partition.clone()]);
        desk.ledger().inherit(&partition, Bequest::default());
        let tenure = desk.ledger().read(&partition, offset).unwrap();
        let place = Place { partition, tenure, offset };
        assert_eq!(desk.hand_on(&place, 9), Passage::Unclaimed);
        let due = desk.ledger().due();
        desk.confirm(&due);
        assert_eq!(desk.hand_on(&place, 9), Passage::First);
        place
    }

    #[test]
    fn the_clerk_is_called_and_sent_away() {
        // The clerk waits no longer than to the next commit, comes at once for a claim, and goes
        // when it is dismissed.
        let desk = Desk::default();
        let (soon, late) = (Duration::from_millis(20), Duration::from_secs(60));
        assert!(desk.await_errand(Instant::now() + soon), "a commit is due");
        desk.assign(vec![Partition { topic: "t".into(), number: 0 }]);
        assert!(desk.await_errand(Instant::now() + late), "nobody knows what was left");
        desk.dismiss();
        desk.rest(late);
        assert!(!desk.await_errand(Instant::now() + late));
    }

    #[test]
    fn a_rejected_record_is_open_until_its_letter_is_written() {
        // With a topic of dead letters a rejection alone moves no position; the letter does.
        let desk = Desk::default();
        let place = handed_on(&desk, 4);
        let partition = place.partition.clone();
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
        let place = handed_on(&desk, 4);
        let partition = place.partition.clone();
        let original = Original { key: None, payload: None, headers: Vec::new() };
        desk.verdict(place, Verdict::Rejected, None, Some(original));
        desk.forget(&[partition]);
        assert!(desk.next_letter().is_none());
    }
}
