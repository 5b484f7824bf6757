//! Running ops, and how many of them are stalled: their requests keep failing while User.com serves
//! other requests. Stalled ops, and the records that wait for them, do not count against the normal
//! limits, so that a few users whose requests always fail do not block all others.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::pending::{CallRef, PendingRecords};
use crate::deliver::Stalled;
use crate::schedule::{KeyedScheduler, QueueKey};

/// How often stalled ops are counted while a limit is reached.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// Factor on the limits of records and ops when stalled ones are included.
pub(super) const STALLED_FACTOR: usize = 10;

/// Running ops, and how many of them are stalled.
#[derive(Debug)]
pub(super) struct InFlightOps {
    ops: HashMap<u64, InFlightOp>,
    next: u64,
    counted_at: Instant,
    stalled: StalledTotals,
}

#[derive(Debug)]
struct InFlightOp {
    queue: QueueKey,
    call_refs: Vec<CallRef>,
    stalled: Stalled,
}

/// How much is stalled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StalledTotals {
    /// Stalled ops.
    pub(super) ops: usize,
    /// Records of these ops and of the ops that wait for them.
    pub(super) records: usize,
    /// Bytes of these records.
    pub(super) bytes: usize,
}

impl InFlightOps {
    pub(super) fn new() -> Self {
        Self {
            ops: HashMap::new(),
            next: 0,
            counted_at: Instant::now(),
            stalled: StalledTotals::default(),
        }
    }

    /// Adds a running op. Returns its number.
    pub(super) fn insert(
        &mut self,
        queue: QueueKey,
        call_refs: Vec<CallRef>,
        stalled: Stalled,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        self.ops.insert(number, InFlightOp { queue, call_refs, stalled });
        number
    }

    /// Removes an op that has ended.
    pub(super) fn remove(&mut self, number: u64) {
        self.ops.remove(&number);
    }

    /// The totals of the last count.
    pub(super) fn stalled(&self) -> StalledTotals {
        self.stalled
    }

    /// When to count again.
    pub(super) fn count_at(&self) -> Instant {
        self.counted_at + COUNT_INTERVAL
    }

    /// Counts again. While User.com answers no request at all, nothing is stalled.
    pub(super) fn count(
        &mut self,
        scheduler: &KeyedScheduler<CallRef>,
        pending: &PendingRecords,
        is_alive: impl FnOnce() -> bool,
    ) {
        self.counted_at = Instant::now();
        self.stalled = StalledTotals::default();
        let stalled: Vec<&InFlightOp> =
            self.ops.values().filter(|op| op.stalled.is_set()).collect();
        if stalled.is_empty() || !is_alive() {
            return;
        }
        let mut records = HashSet::new();
        for op in &stalled {
            records.extend(op.call_refs.iter().map(|call_ref| call_ref.record));
            records.extend(scheduler.queued_after(&op.queue).map(|call_ref| call_ref.record));
        }
        self.stalled = StalledTotals {
            ops: stalled.len(),
            records: records.len(),
            bytes: records.iter().map(|id| pending.bytes_of(*id)).sum(),
        };
    }
}
