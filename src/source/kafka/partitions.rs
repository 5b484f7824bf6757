//! Tracks our partitions: how far each is settled and how far it is claimed.
//!
//! A partition that is revoked and assigned again starts a new epoch: each verdict carries the
//! epoch of its record, and verdicts of an earlier epoch change nothing.
//!
//! # Invariants
//!
//! A position is due for a commit only while its partition is ours, and only if every record before
//! it was delivered or is in the dead letters.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::claim::{CommitState, PreviousOwnerState, SendAheadClaim, reach};
use crate::ack::Verdict;
use crate::source::offset_tracker::{OffsetTracker, StreamPosition};

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Partition {
    pub(super) topic: Arc<str>,
    pub(super) number: i32,
}

/// One period of owning a partition and reading it from one offset on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AssignmentEpoch(u64);

/// Identifies a record; its verdict refers to it.
#[derive(Debug, Clone)]
pub(super) struct RecordHandle {
    pub(super) partition: Partition,
    pub(super) epoch: AssignmentEpoch,
    pub(super) offset: u64,
}

/// Whether a record may be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// The partition is no longer ours.
    Revoked,
    /// Not now: the limit of records in flight is reached.
    AtCapacity,
    /// Not before the brokers store a claim that covers it.
    AwaitingClaim,
    /// Yes, and it counts as forwarded. No earlier process forwarded it.
    Fresh,
    /// Yes, and it counts as forwarded. Another process may already have sent it.
    MaybeRedelivered,
}

/// What is to be committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PendingCommit {
    pub(super) partition: Partition,
    pub(super) epoch: AssignmentEpoch,
    pub(super) state: CommitState,
}

/// The partitions that are ours.
#[derive(Debug, Default)]
pub(super) struct PartitionTracker {
    owned: BTreeMap<Partition, PartitionState>,
    epochs: u64,
    in_flight: usize,
    /// Whether a claim was requested since this was last read.
    new_claim: bool,
}

#[derive(Debug)]
struct PartitionState {
    epoch: AssignmentEpoch,
    /// The offset after the last record that was read in this epoch.
    read_to: u64,
    /// What the previous owner committed; `None` until the brokers have answered.
    previous: Option<PreviousOwnerState>,
    /// `None` until the first record asks to be forwarded.
    progress: Option<PartitionProgress>,
    /// Whether a record was not settled, so that the partition must be read again.
    errored: bool,
}

/// How far a partition has come.
#[derive(Debug)]
struct PartitionProgress {
    watermark: OffsetTracker,
    claim: SendAheadClaim,
    /// What the brokers are known to store.
    confirmed: Option<CommitState>,
}

impl PartitionProgress {
    fn state(&self) -> CommitState {
        CommitState { position: self.watermark.mark().position, claim: self.claim.wanted() }
    }
}

impl PartitionState {
    fn in_flight(&self) -> usize {
        self.progress.as_ref().map_or(0, |progress| progress.watermark.in_flight())
    }

    fn mark(&self) -> Option<u64> {
        self.progress.as_ref().map(|progress| progress.watermark.mark().position)
    }
}

impl PartitionTracker {
    /// A partition was assigned to us.
    pub(super) fn assign(&mut self, partition: Partition) {
        self.forget(&partition);
        let epoch = self.next_tenure();
        let owned =
            PartitionState { epoch, read_to: 0, previous: None, progress: None, errored: false };
        self.owned.insert(partition, owned);
    }

    /// A partition was revoked.
    pub(super) fn forget(&mut self, partition: &Partition) {
        if let Some(owned) = self.owned.remove(partition) {
            self.in_flight -= owned.in_flight();
        }
    }

    /// The partitions that are ours.
    pub(super) fn owned(&self) -> impl Iterator<Item = &Partition> {
        self.owned.keys()
    }

    /// Partitions whose committed state was not fetched yet.
    pub(super) fn awaiting_lookup(&self) -> Vec<Partition> {
        let awaiting_lookup = self.owned.iter().filter(|(_, owned)| owned.previous.is_none());
        awaiting_lookup.map(|(partition, _)| partition.clone()).collect()
    }

    /// What the previous owner of a partition committed.
    pub(super) fn set_previous_owner(
        &mut self,
        partition: &Partition,
        previous: PreviousOwnerState,
    ) {
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.previous.get_or_insert(previous);
        }
    }

    /// A record was read. Returns the epoch that it belongs to; `None` where no record of its
    /// partition is expected.
    ///
    /// An offset lower than one that was already read means that the partition was truncated or
    /// created again: its earlier records can no longer be read.
    pub(super) fn read(&mut self, partition: &Partition, offset: u64) -> Option<AssignmentEpoch> {
        let fresh = self.next_tenure();
        let owned = self.owned.get_mut(partition)?;
        if owned.errored {
            return None;
        }
        if offset < owned.read_to {
            self.in_flight -= owned.in_flight();
            owned.epoch = fresh;
            owned.progress = None;
            owned.previous = Some(PreviousOwnerState::default());
        }
        owned.read_to = offset + 1;
        Some(owned.epoch)
    }

    /// Whether a record's verdict still counts.
    pub(super) fn is_current(&self, handle: &RecordHandle) -> bool {
        self.owned.get(&handle.partition).is_some_and(|owned| owned.epoch == handle.epoch)
    }

    /// Whether a record may be forwarded, while at most `most` are in flight. Records of one epoch
    /// ask in the order of their offsets.
    pub(super) fn admit(&mut self, handle: &RecordHandle, most: usize) -> Admission {
        let reach = reach(most, self.owned.len());
        let Some(owned) = self.owned.get_mut(&handle.partition) else {
            return Admission::Revoked;
        };
        if owned.errored || owned.epoch != handle.epoch {
            return Admission::Revoked;
        }
        let Some(previous) = owned.previous else {
            return Admission::AwaitingClaim;
        };
        let progress = owned.progress.get_or_insert_with(|| PartitionProgress {
            watermark: OffsetTracker::new(at(handle.offset)),
            claim: SendAheadClaim::new(handle.offset, previous),
            confirmed: None,
        });
        self.new_claim |= progress.claim.request(handle.offset, reach);
        if !progress.claim.covers(handle.offset) {
            return Admission::AwaitingClaim;
        }
        if self.in_flight >= most {
            return Admission::AtCapacity;
        }
        progress.watermark.sent(at(handle.offset + 1));
        self.in_flight += 1;
        match progress.claim.admit(handle.offset) {
            true => Admission::MaybeRedelivered,
            false => Admission::Fresh,
        }
    }

    /// The verdict of a record. Verdicts of an earlier epoch are ignored.
    pub(super) fn settled(&mut self, handle: &RecordHandle, verdict: Verdict) {
        let Some(owned) = self.owned.get_mut(&handle.partition) else {
            return;
        };
        if owned.epoch != handle.epoch {
            return;
        }
        let before = owned.in_flight();
        if let Some(progress) = &mut owned.progress {
            progress.watermark.settled(handle.offset + 1, verdict);
        }
        self.in_flight -= before - owned.in_flight();
        owned.errored |= verdict == Verdict::Errored;
    }

    /// Records without a verdict, of all our partitions.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Records without a verdict, of these partitions.
    pub(super) fn in_flight_of(&self, partitions: &[Partition]) -> usize {
        partitions.iter().filter_map(|p| self.owned.get(p)).map(PartitionState::in_flight).sum()
    }

    /// Whether a claim was requested since the last call.
    pub(super) fn take_new_claim(&mut self) -> bool {
        std::mem::take(&mut self.new_claim)
    }

    /// Whether the brokers must answer before records can be forwarded.
    pub(super) fn is_waiting_for_brokers(&self) -> bool {
        self.owned.values().any(|owned| match &owned.progress {
            None => owned.previous.is_none(),
            Some(progress) => progress.claim.is_awaiting_grant(),
        })
    }

    /// What must be committed so that the brokers store what is settled and claimed.
    pub(super) fn due(&self) -> Vec<PendingCommit> {
        let due = self.owned.iter().filter_map(|(partition, owned)| {
            let progress = owned.progress.as_ref()?;
            let state = progress.state();
            (progress.confirmed != Some(state)).then(|| PendingCommit {
                partition: partition.clone(),
                epoch: owned.epoch,
                state,
            })
        });
        due.collect()
    }

    /// The brokers have stored it. Changes since then stay due.
    pub(super) fn confirm(&mut self, done: &PendingCommit) {
        let owned = self.owned.get_mut(&done.partition);
        if let Some(owned) = owned.filter(|owned| owned.epoch == done.epoch)
            && let Some(progress) = &mut owned.progress
        {
            progress.confirmed = Some(done.state);
            progress.claim.grant(done.state.claim);
        }
    }

    /// Nothing more of these partitions is forwarded: their unused claims are due to be released.
    pub(super) fn release(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            let owned = self.owned.get_mut(partition);
            if let Some(progress) = owned.and_then(|owned| owned.progress.as_mut()) {
                progress.claim.release();
            }
        }
    }

    /// The offset up to which a partition is settled, once something was read of it.
    pub(super) fn mark(&self, partition: &Partition) -> Option<u64> {
        self.owned.get(partition)?.mark()
    }

    /// Partitions with a record that was not settled.
    pub(super) fn errored(&self) -> Vec<Partition> {
        let errored = self.owned.iter().filter(|(_, owned)| owned.errored);
        errored.map(|(partition, _)| partition.clone()).collect()
    }

    /// A partition must be read again from its first unsettled record.
    pub(super) fn mark_errored(&mut self, partition: &Partition) {
        if let Some(owned) = self.owned.get_mut(partition) {
            owned.errored = true;
        }
    }

    /// Where an errored partition must be read again; `None` while records of it are still in
    /// flight. Records from there on are read again, and those that were forwarded may already have
    /// been sent.
    pub(super) fn rewind(&mut self, partition: &Partition) -> Option<u64> {
        let epoch = self.next_tenure();
        let owned = self.owned.get_mut(partition)?;
        if !owned.errored || owned.in_flight() > 0 {
            return None;
        }
        let position = owned.mark()?;
        let progress = owned.progress.as_mut()?;
        progress.watermark = OffsetTracker::new(at(position));
        progress.claim.rewind();
        owned.epoch = epoch;
        owned.read_to = position;
        owned.errored = false;
        Some(position)
    }

    fn next_tenure(&mut self) -> AssignmentEpoch {
        self.epochs += 1;
        AssignmentEpoch(self.epochs)
    }
}

fn at(position: u64) -> StreamPosition {
    StreamPosition { position, lines: None }
}

#[cfg(test)]
#[path = "partitions_tests.rs"]
mod tests;
