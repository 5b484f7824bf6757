//! Ops that wait because requests of their own keep failing while User.com serves others, and the
//! records that wait behind them. They are not counted among those that may be under way, so that
//! a few users whose requests always fail do not take the places of everyone else.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use super::pending::{CallRef, PendingRecords};
use crate::deliver::Stalled;
use crate::schedule::{KeyedScheduler, QueueKey};

/// How often they are counted, while it matters.
const COUNT_INTERVAL: Duration = Duration::from_millis(100);

/// How many times as many records and ops may be under way, with those that are stalled.
pub(super) const STALLED_FACTOR: usize = 10;

/// The ops that are out, and how many of them are stalled.
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
    /// Ops that are out.
    pub(super) ops: usize,
    /// Records they and what waits behind them belong to.
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

    /// An op goes out. Names it until it is back.
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

    /// An op is back.
    pub(super) fn remove(&mut self, number: u64) {
        self.ops.remove(&number);
    }

    /// How much was stalled when it was last counted.
    pub(super) fn stalled(&self) -> StalledTotals {
        self.stalled
    }

    /// When it is to be counted again.
    pub(super) fn count_at(&self) -> Instant {
        self.counted_at + COUNT_INTERVAL
    }

    /// Counts again. While User.com answers nobody, nothing is stalled: everybody waits.
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
