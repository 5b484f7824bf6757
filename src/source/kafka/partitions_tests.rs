//! The partition tracker, tested with simulated events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::source::kafka::claim::awaiting_lookup;

const MAX_IN_FLIGHT: usize = 100;

fn partition(number: i32) -> Partition {
    Partition { topic: "t".into(), number }
}

/// A tracker of one partition without an earlier owner.
fn alone() -> PartitionTracker {
    let mut tracker = PartitionTracker::default();
    join(&mut tracker, 0);
    tracker
}

fn join(tracker: &mut PartitionTracker, number: i32) {
    tracker.assign(partition(number));
    tracker.set_previous_owner(&partition(number), PreviousOwnerState::default());
}

fn read(tracker: &mut PartitionTracker, number: i32, offset: u64) -> RecordHandle {
    let partition = partition(number);
    let epoch = tracker.read(&partition, offset).unwrap();
    RecordHandle { partition, epoch, offset }
}

/// Commits what is due; the brokers accept it.
fn commit(tracker: &mut PartitionTracker) -> Vec<PendingCommit> {
    let due = tracker.due();
    due.iter().for_each(|due| tracker.confirm(due));
    due
}

/// Reads and forwards a record, with a commit where it needs one.
fn send(tracker: &mut PartitionTracker, number: i32, offset: u64) -> RecordHandle {
    let handle = read(tracker, number, offset);
    if tracker.admit(&handle, MAX_IN_FLIGHT) == Admission::AwaitingClaim {
        commit(tracker);
        assert_eq!(tracker.admit(&handle, MAX_IN_FLIGHT), Admission::Fresh);
    }
    handle
}

/// The position of partition 0 that is due to be committed.
fn position(tracker: &PartitionTracker) -> Option<u64> {
    tracker.due().first().map(|due| due.state.position)
}

#[test]
fn only_gapless_settled_position_is_due() {
    // Out-of-order verdicts make nothing due until the first record has its verdict, and a position
    // stays due until the brokers have stored it.
    let mut tracker = alone();
    assert!(tracker.due().is_empty(), "nothing was read");
    let handles: Vec<_> = [7, 8, 11].map(|offset| send(&mut tracker, 0, offset)).into();
    assert!(tracker.due().is_empty(), "the claim was made at the first record");
    tracker.settled(&handles[2], Verdict::Delivered);
    tracker.settled(&handles[1], Verdict::Rejected);
    assert!(tracker.due().is_empty());
    tracker.settled(&handles[0], Verdict::Delivered);
    assert_eq!(position(&tracker), Some(12));
    assert_eq!(position(&tracker), Some(12), "a commit that failed is due again");
    assert_eq!(commit(&mut tracker).len(), 1);
    assert!(tracker.due().is_empty());
}

#[test]
fn no_record_is_forwarded_before_its_claim() {
    // No record is forwarded before the previous owner's state is known and the brokers store a
    // claim; a claim alone is due even where the position did not change.
    let mut tracker = PartitionTracker::default();
    tracker.assign(partition(0));
    let handle = read(&mut tracker, 0, 5);
    assert_eq!(tracker.admit(&handle, MAX_IN_FLIGHT), Admission::AwaitingClaim);
    assert!(tracker.is_waiting_for_brokers() && tracker.due().is_empty());
    tracker.set_previous_owner(&partition(0), PreviousOwnerState::of(5, "", 0));
    assert_eq!(tracker.admit(&handle, MAX_IN_FLIGHT), Admission::AwaitingClaim);
    assert!(tracker.take_new_claim() && tracker.is_waiting_for_brokers());
    let due = tracker.due();
    assert_eq!(due[0].state, CommitState { position: 5, claim: 105 });
    assert_eq!(
        tracker.admit(&handle, MAX_IN_FLIGHT),
        Admission::AwaitingClaim,
        "it may not have arrived"
    );
    tracker.confirm(&due[0]);
    assert_eq!(tracker.admit(&handle, 0), Admission::AtCapacity);
    assert_eq!(tracker.admit(&handle, MAX_IN_FLIGHT), Admission::Fresh);
    assert!(!tracker.take_new_claim() && !tracker.is_waiting_for_brokers());
    for offset in 6..60 {
        send(&mut tracker, 0, offset);
    }
    assert!(
        tracker.take_new_claim() && tracker.is_waiting_for_brokers(),
        "the next claim, before it is needed"
    );
    assert_eq!(tracker.due()[0].state.position, 5);
}

#[test]
fn records_that_wait_for_a_claim_are_all_forwarded() {
    // Records that were read before the first of them had its claim belong to one epoch.
    let mut tracker = alone();
    let handles: Vec<_> = (3..6).map(|offset| read(&mut tracker, 0, offset)).collect();
    assert_eq!(tracker.admit(&handles[0], MAX_IN_FLIGHT), Admission::AwaitingClaim);
    commit(&mut tracker);
    for handle in &handles {
        assert_eq!(tracker.admit(handle, MAX_IN_FLIGHT), Admission::Fresh);
    }
    assert_eq!(tracker.in_flight(), 3);
}

#[test]
fn verdict_of_earlier_epoch_changes_nothing() {
    // Records in flight of a revoked partition neither count nor settle after it is assigned again.
    let mut tracker = alone();
    let old = send(&mut tracker, 0, 5);
    tracker.forget(&partition(0));
    assert_eq!(tracker.in_flight(), 0);
    tracker.settled(&old, Verdict::Delivered);
    assert!(tracker.due().is_empty());
    join(&mut tracker, 0);
    assert_eq!(tracker.admit(&old, MAX_IN_FLIGHT), Admission::Revoked);
    let new = send(&mut tracker, 0, 5);
    tracker.settled(&old, Verdict::Errored);
    assert_eq!((tracker.in_flight(), tracker.errored().len()), (1, 0));
    tracker.settled(&new, Verdict::Delivered);
    assert_eq!(position(&tracker), Some(6));
}

#[test]
fn errored_record_is_read_again() {
    // After an errored record nothing is sent and nothing is due; once the others are settled,
    // reading starts again at it, and records after it that were forwarded may already have been
    // sent.
    let mut tracker = alone();
    let handles: Vec<_> = (0..3).map(|offset| send(&mut tracker, 0, offset)).collect();
    tracker.settled(&handles[0], Verdict::Delivered);
    tracker.settled(&handles[1], Verdict::Errored);
    assert_eq!(tracker.errored(), [partition(0)]);
    assert_eq!(tracker.read(&partition(0), 3), None);
    assert_eq!(tracker.rewind(&partition(0)), None, "one is still in flight");
    tracker.settled(&handles[2], Verdict::Delivered);
    assert_eq!(tracker.rewind(&partition(0)), Some(1));
    assert_eq!(position(&tracker), Some(1));
    for (offset, admission) in
        [(1, Admission::MaybeRedelivered), (2, Admission::MaybeRedelivered), (3, Admission::Fresh)]
    {
        let handle = read(&mut tracker, 0, offset);
        assert_eq!(tracker.admit(&handle, MAX_IN_FLIGHT), admission);
        tracker.settled(&handle, Verdict::Delivered);
    }
    assert_eq!(position(&tracker), Some(4));
}

#[test]
fn partition_with_offsets_that_go_back_is_read() {
    // Offsets that go back (a truncated or new topic) are records like others and are claimed
    // again; a commit of the old offsets in the meantime has no effect.
    let mut tracker = alone();
    let old = send(&mut tracker, 0, 900);
    tracker.settled(&old, Verdict::Delivered);
    let late = tracker.due();
    let new = read(&mut tracker, 0, 0);
    tracker.confirm(&late[0]);
    assert_eq!(tracker.admit(&new, MAX_IN_FLIGHT), Admission::AwaitingClaim);
    assert_eq!(position(&tracker), Some(0));
    commit(&mut tracker);
    assert_eq!(tracker.admit(&new, MAX_IN_FLIGHT), Admission::Fresh);
    tracker.settled(&old, Verdict::Delivered);
    assert!(tracker.due().is_empty());
    tracker.settled(&new, Verdict::Delivered);
    assert_eq!(position(&tracker), Some(1));
    assert_eq!(tracker.in_flight(), 0);
}

#[test]
fn member_that_leaves_normally_leaves_no_open_claim() {
    // With everything settled the last commit claims nothing; with open records it claims exactly
    // these.
    let mut tracker = alone();
    let handles: Vec<_> = (0..3).map(|offset| send(&mut tracker, 0, offset)).collect();
    tracker.settled(&handles[0], Verdict::Delivered);
    tracker.release(&[partition(0)]);
    assert_eq!(tracker.due()[0].state, CommitState { position: 1, claim: 3 });
    tracker.settled(&handles[1], Verdict::Delivered);
    tracker.settled(&handles[2], Verdict::Delivered);
    assert_eq!(commit(&mut tracker)[0].state, CommitState { position: 3, claim: 3 });
    assert!(tracker.due().is_empty());
}

/// A model that stores everything: one partition, its brokers, and the processes that own it one
/// after the other.
struct TrackerWorld {
    /// What the brokers store.
    committed: Option<CommitState>,
    tracker: PartitionTracker,
    /// Where the owner reads next.
    next: u64,
    buffered: Vec<RecordHandle>,
    open: Vec<RecordHandle>,
    /// Offsets that were ever forwarded, and those that were settled.
    sent_to: BTreeSet<u64>,
    settled: BTreeSet<u64>,
    /// The end of the furthest claim that was ever made.
    claimed: u64,
    keeps_texts: bool,
}

#[derive(Debug, Clone)]
enum TrackerOp {
    Read,
    HandOn,
    Settle(usize, Verdict),
    /// A commit, whether it arrives, and whether its answer does.
    Commit {
        arrives: bool,
        answered: bool,
    },
    Rewind,
    /// The owner is killed, and another takes over.
    Kill,
    /// The owner leaves normally; its records in flight settle first, or not in time.
    Leave {
        in_time: bool,
        arrives: bool,
    },
}

fn any_op() -> impl Strategy<Value = TrackerOp> {
    let verdict = prop_oneof![
        12 => Just(Verdict::Delivered),
        2 => Just(Verdict::Rejected),
        1 => Just(Verdict::Errored),
    ];
    prop_oneof![
        12 => Just(TrackerOp::Read),
        14 => Just(TrackerOp::HandOn),
        10 => (any::<usize>(), verdict).prop_map(|(n, v)| TrackerOp::Settle(n, v)),
        8 => (0..10u8, any::<bool>()).prop_map(|(n, answered)| {
            TrackerOp::Commit { arrives: n > 1, answered: n > 2 || answered }
        }),
        2 => Just(TrackerOp::Rewind),
        1 => Just(TrackerOp::Kill),
        1 => (any::<bool>(), any::<bool>())
            .prop_map(|(in_time, arrives)| TrackerOp::Leave { in_time, arrives }),
    ]
}

/// Some offsets are not records: transaction markers and compacted records.
fn is_record(offset: u64) -> bool {
    offset % 5 != 2 && !(40..160).contains(&(offset % 200))
}

impl TrackerWorld {
    fn new(keeps_texts: bool) -> Self {
        let mut world = Self {
            committed: None,
            tracker: PartitionTracker::default(),
            next: 0,
            buffered: Vec::new(),
            open: Vec::new(),
            sent_to: BTreeSet::new(),
            settled: BTreeSet::new(),
            claimed: 0,
            keeps_texts,
        };
        world.succeed();
        world
    }

    /// A new process becomes the owner.
    fn succeed(&mut self) {
        self.tracker = PartitionTracker::default();
        self.buffered.clear();
        self.open.clear();
        self.tracker.assign(partition(0));
        let previous = self.committed.map_or_else(PreviousOwnerState::default, |state| {
            let text = if self.keeps_texts { state.text() } else { String::new() };
            PreviousOwnerState::of(state.position, &text, awaiting_lookup(MAX_IN_FLIGHT))
        });
        self.tracker.set_previous_owner(&partition(0), previous);
        self.next = self.committed.map_or(0, |state| state.position);
    }

    fn commit(&mut self, arrives: bool, answered: bool) {
        for due in self.tracker.due() {
            let unsettled = self.sent_to.difference(&self.settled).next();
            let position = due.state.position;
            assert!(unsettled.is_none_or(|first| position <= *first), "{position} is too far");
            if arrives {
                self.committed = Some(due.state);
                self.claimed = self.claimed.max(due.state.claim);
                if answered {
                    self.tracker.confirm(&due);
                }
            }
        }
    }

    fn admit(&mut self) {
        if self.buffered.is_empty() {
            return;
        }
        let offset = self.buffered[0].offset;
        let admission = self.tracker.admit(&self.buffered[0], MAX_IN_FLIGHT);
        match admission {
            Admission::Revoked => drop(self.buffered.remove(0)),
            Admission::AtCapacity | Admission::AwaitingClaim => {}
            Admission::Fresh => {
                assert!(!self.sent_to.contains(&offset), "{offset} was sent_to on before");
                self.passed(offset);
            }
            Admission::MaybeRedelivered => {
                let reason = self.sent_to.contains(&offset) || offset < self.claimed;
                assert!(reason || !self.keeps_texts, "there is no maybe_sent_to about {offset}");
                self.passed(offset);
            }
        }
    }

    fn passed(&mut self, offset: u64) {
        self.sent_to.insert(offset);
        self.open.push(self.buffered.remove(0));
    }

    fn settle(&mut self, n: usize, verdict: Verdict) {
        let handle = self.open.remove(n);
        if self.tracker.is_current(&handle) && verdict != Verdict::Errored {
            self.settled.insert(handle.offset);
        }
        self.tracker.settled(&handle, verdict);
    }

    fn take(&mut self, step: TrackerOp) {
        match step {
            TrackerOp::Read => {
                let offset = (self.next..).find(|offset| is_record(*offset)).unwrap();
                if let Some(epoch) = self.tracker.read(&partition(0), offset) {
                    self.next = offset + 1;
                    self.buffered.push(RecordHandle { partition: partition(0), epoch, offset });
                }
            }
            TrackerOp::HandOn => self.admit(),
            TrackerOp::Settle(n, verdict) if !self.open.is_empty() => {
                self.settle(n % self.open.len(), verdict);
            }
            TrackerOp::Settle(..) => {}
            TrackerOp::Commit { arrives, answered } => self.commit(arrives, answered),
            TrackerOp::Rewind => {
                if let Some(position) = self.tracker.rewind(&partition(0)) {
                    self.next = position;
                }
            }
            TrackerOp::Kill => self.succeed(),
            TrackerOp::Leave { in_time, arrives } => {
                while in_time && !self.open.is_empty() {
                    self.settle(0, Verdict::Delivered);
                }
                self.tracker.release(&[partition(0)]);
                self.commit(arrives, arrives);
                self.succeed();
            }
        }
        let first = self.sent_to.difference(&self.settled).next().copied().unwrap_or(u64::MAX);
        assert!(self.committed.is_none_or(|state| state.position <= first));
    }
}

proptest! {
    #[test]
    fn next_owner_knows_what_may_have_been_sent(
        steps in proptest::collection::vec(any_op(), 0..400),
    ) {
        // Whatever settles, fails, is killed or taken over: a record that was forwarded before
        // never counts as new, one that no process claimed never counts as possibly sent, and no
        // commit passes a record that was forwarded and is not settled.
        let mut world = TrackerWorld::new(true);
        for step in steps {
            world.take(step);
        }
    }

    #[test]
    fn in_flight_count_equals_open_records_of_partitions(
        steps in proptest::collection::vec((0..3i32, 0..4u8, any::<usize>()), 0..200),
    ) {
        // However partitions are assigned and revoked, the records in flight are those that were
        // forwarded in present epochs and have no verdict.
        let mut tracker = PartitionTracker::default();
        let mut open: Vec<RecordHandle> = Vec::new();
        let mut next = [0u64; 3];
        for (number, what, n) in steps {
            let index = usize::try_from(number).unwrap();
            let owned = tracker.owned().any(|p| p.number == number);
            match what {
                0 | 1 if owned => {
                    open.push(send(&mut tracker, number, next[index]));
                    next[index] += 1;
                }
                2 if !open.is_empty() => {
                    let handle = open.swap_remove(n % open.len());
                    tracker.settled(&handle, Verdict::Delivered);
                }
                3 if owned => tracker.forget(&partition(number)),
                _ if !owned => join(&mut tracker, number),
                _ => {}
            }
            let counted = open.iter().filter(|handle| tracker.is_current(handle)).count();
            prop_assert_eq!(tracker.in_flight(), counted);
            prop_assert_eq!(tracker.in_flight_of(&[0, 1, 2].map(partition)), counted);
        }
    }
}

#[test]
fn missing_commit_metadata_marks_a_bounded_range_as_maybe_sent() {
    // Without a claim, as many records after the commit count as possibly sent as may have been in
    // flight and settled since; forwarded records are among them as long as no record delays the
    // commit.
    let mut world = TrackerWorld::new(false);
    for _ in 0..300 {
        world.take(TrackerOp::Read);
        world.take(TrackerOp::HandOn);
        world.take(TrackerOp::Commit { arrives: true, answered: true });
        world.take(TrackerOp::HandOn);
        if world.open.len() > MAX_IN_FLIGHT / 2 {
            world.take(TrackerOp::Settle(0, Verdict::Delivered));
        }
    }
    world.take(TrackerOp::Kill);
    for _ in 0..300 {
        world.take(TrackerOp::Read);
        world.take(TrackerOp::HandOn);
        world.take(TrackerOp::Commit { arrives: true, answered: true });
        world.take(TrackerOp::HandOn);
        world.take(TrackerOp::Settle(0, Verdict::Delivered));
    }
    assert!(world.sent_to.len() > 300);
}
