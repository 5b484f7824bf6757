//! State shared by the poll thread, the ack callbacks and the commit thread: the partition tracker
//! under its lock, and rejected records that are yet to be produced to the dead-letter topic.
//!
//! # Invariants
//!
//! A record that waits for its dead letter counts as in flight, so that no commit passes it before
//! the brokers have acknowledged the dead letter.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Condvar, Mutex, MutexGuard};
use tokio::time::Instant;

use super::claim::PreviousOwnerState;
use super::headers::Header;
use super::partitions::{Admission, Partition, PartitionTracker, PendingCommit, RecordHandle};
use crate::ack::Verdict;

/// A message as it was read, to be produced again if it is rejected.
#[derive(Debug)]
pub(super) struct SourceMessage {
    pub(super) key: Option<Vec<u8>>,
    pub(super) payload: Option<Bytes>,
    pub(super) headers: Vec<Header>,
}

/// A rejected message on its way to the dead-letter topic.
#[derive(Debug)]
pub(super) struct DeadLetterMessage {
    pub(super) handle: RecordHandle,
    pub(super) source_message: SourceMessage,
    pub(super) reason: Arc<str>,
}

/// The reason of a rejection that has none.
const DEFAULT_REASON: &str = "rejected by a sink; its dead letters show why";

/// What the poll thread, the ack callbacks and the commit thread share.
#[derive(Debug, Default)]
pub(super) struct ConsumerState {
    tracker: Mutex<PartitionTracker>,
    /// Notified when a verdict or an answer of the brokers arrives.
    state_changed: Condvar,
    /// Notified when the committer has something to do.
    work_requested: Condvar,
    /// Whether the committer must end.
    stopped: AtomicBool,
    dead_letters: Mutex<VecDeque<DeadLetterMessage>>,
    /// Grows when a partition is assigned, revoked, errored or restarted.
    revision: AtomicU64,
    closing: AtomicBool,
}

impl ConsumerState {
    /// The tracker, locked while the guard lives.
    pub(super) fn tracker(&self) -> MutexGuard<'_, PartitionTracker> {
        self.tracker.lock()
    }

    fn dead_letters(&self) -> MutexGuard<'_, VecDeque<DeadLetterMessage>> {
        self.dead_letters.lock()
    }

    /// These partitions were assigned to us.
    pub(super) fn assign(&self, partitions: Vec<Partition>) {
        let mut tracker = self.tracker();
        for partition in partitions {
            tracker.assign(partition);
        }
        self.work_requested.notify_one();
        self.bump_revision();
    }

    /// These partitions were revoked: their records in flight belong to another member.
    pub(super) fn forget(&self, partitions: &[Partition]) {
        let mut tracker = self.tracker();
        for partition in partitions {
            tracker.forget(partition);
        }
        self.bump_revision();
    }

    /// Whether a record may be forwarded; see [`PartitionTracker::admit`]. Wakes the committer
    /// where a claim must be committed.
    pub(super) fn admit(&self, handle: &RecordHandle, most: usize) -> Admission {
        let mut tracker = self.tracker();
        let admission = tracker.admit(handle, most);
        if tracker.take_new_claim() {
            self.work_requested.notify_one();
        }
        admission
    }

    /// What the previous owner of a partition committed.
    pub(super) fn set_previous_owner(&self, partition: &Partition, previous: PreviousOwnerState) {
        self.tracker().set_previous_owner(partition, previous);
        self.state_changed.notify_all();
    }

    /// The brokers have stored what was due.
    pub(super) fn confirm(&self, done: &[PendingCommit]) {
        let mut tracker = self.tracker();
        done.iter().for_each(|due| tracker.confirm(due));
        self.state_changed.notify_all();
    }

    /// Waits until the committer has something to do, at most until `late`. `false` where the
    /// committer must end.
    pub(super) fn wait_for_work(&self, late: Instant) -> bool {
        let mut tracker = self.tracker();
        loop {
            if self.stopped.load(Ordering::Acquire) {
                return false;
            }
            let left = late.saturating_duration_since(Instant::now());
            if left.is_zero() || tracker.is_waiting_for_brokers() {
                return true;
            }
            self.work_requested.wait_for(&mut tracker, left);
        }
    }

    /// Pauses, unless the committer must end.
    pub(super) fn pause(&self, length: Duration) {
        let mut tracker = self.tracker();
        let stay = |_: &mut PartitionTracker| !self.stopped.load(Ordering::Acquire);
        self.work_requested.wait_while_for(&mut tracker, stay, length);
    }

    /// Stops the committer.
    pub(super) fn stop(&self) {
        let tracker = self.tracker();
        self.stopped.store(true, Ordering::Release);
        drop(tracker);
        self.work_requested.notify_all();
    }

    /// The verdict of a record. A rejected record whose message is given waits for its dead letter.
    pub(super) fn verdict(
        &self,
        handle: RecordHandle,
        verdict: Verdict,
        reason: Option<Arc<str>>,
        source_message: Option<SourceMessage>,
    ) {
        match source_message {
            Some(source_message) if verdict == Verdict::Rejected => {
                if self.tracker().is_current(&handle) {
                    let reason = reason.unwrap_or_else(|| DEFAULT_REASON.into());
                    self.dead_letters().push_back(DeadLetterMessage {
                        handle,
                        source_message,
                        reason,
                    });
                }
            }
            _ => self.settle(&handle, verdict),
        }
    }

    /// A record is settled, and its dead letter is produced where there is one.
    pub(super) fn settle(&self, handle: &RecordHandle, verdict: Verdict) {
        self.tracker().settled(handle, verdict);
        if verdict == Verdict::Errored {
            self.bump_revision();
        }
        self.state_changed.notify_all();
    }

    /// The oldest dead letter whose partition is still ours.
    pub(super) fn next_dead_letter(&self) -> Option<DeadLetterMessage> {
        loop {
            let dead_letter = self.dead_letters().pop_front()?;
            if self.tracker().is_current(&dead_letter.handle) {
                return Some(dead_letter);
            }
        }
    }

    /// A dead letter could not be produced: it becomes the next one again.
    pub(super) fn requeue(&self, dead_letter: DeadLetterMessage) {
        self.dead_letters().push_front(dead_letter);
    }

    /// Waits until a verdict arrives, at most this long.
    pub(super) fn wait(&self, limit: Duration) {
        let mut tracker = self.tracker();
        self.state_changed.wait_for(&mut tracker, limit);
    }

    /// Grows when a partition is assigned, revoked, errored or restarted.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// Something about the partitions changed.
    pub(super) fn bump_revision(&self) {
        self.revision.fetch_add(1, Ordering::AcqRel);
    }

    /// From now on, revoked partitions are forgotten without waiting for their records.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// Whether revoked partitions are forgotten without waiting.
    pub(super) fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Forwards the only record of a partition that is ours.
    fn forward_one(state: &ConsumerState, offset: u64) -> RecordHandle {
        let partition = Partition { topic: "t".into(), number: 0 };
        state.assign(vec![partition.clone()]);
        state.tracker().set_previous_owner(&partition, PreviousOwnerState::default());
        let epoch = state.tracker().read(&partition, offset).unwrap();
        let handle = RecordHandle { partition, epoch, offset };
        assert_eq!(state.admit(&handle, 9), Admission::AwaitingClaim);
        let due = state.tracker().due();
        state.confirm(&due);
        assert_eq!(state.admit(&handle, 9), Admission::Fresh);
        handle
    }

    #[test]
    fn committer_wakes_for_claims_and_stops() {
        // The committer waits at most until the next commit, wakes for a claim, and ends when it is
        // stopped.
        let state = ConsumerState::default();
        let (soon, late) = (Duration::from_millis(20), Duration::from_secs(60));
        assert!(state.wait_for_work(Instant::now() + soon), "a commit is due");
        state.assign(vec![Partition { topic: "t".into(), number: 0 }]);
        assert!(
            state.wait_for_work(Instant::now() + late),
            "the previous owner was not looked up yet"
        );
        state.stop();
        state.pause(late);
        assert!(!state.wait_for_work(Instant::now() + late));
    }

    #[test]
    fn rejected_record_stays_open_until_its_dead_letter_is_written() {
        // With a dead-letter topic a rejection alone moves no position; the produced dead letter
        // does.
        let state = ConsumerState::default();
        let handle = forward_one(&state, 4);
        let partition = handle.partition.clone();
        let source_message = SourceMessage { key: None, payload: None, headers: Vec::new() };
        state.verdict(handle, Verdict::Rejected, Some("no id".into()), Some(source_message));
        assert_eq!(state.tracker().mark(&partition), Some(4));
        let dead_letter = state.next_dead_letter().unwrap();
        assert_eq!(&*dead_letter.reason, "no id");
        state.requeue(dead_letter);
        let dead_letter = state.next_dead_letter().unwrap();
        state.settle(&dead_letter.handle, Verdict::Rejected);
        assert_eq!(state.tracker().mark(&partition), Some(5));
    }

    #[test]
    fn dead_letters_of_a_revoked_partition_are_dropped() {
        // The present owner of the partition reads the record again and writes the dead letter.
        let state = ConsumerState::default();
        let handle = forward_one(&state, 4);
        let partition = handle.partition.clone();
        let source_message = SourceMessage { key: None, payload: None, headers: Vec::new() };
        state.verdict(handle, Verdict::Rejected, None, Some(source_message));
        state.forget(&[partition]);
        assert!(state.next_dead_letter().is_none());
    }
}
