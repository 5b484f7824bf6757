//! Acknowledgements of stored records whose sources wait for the final status, not for durability.
//!
//! They live in memory only: after a restart no source waits for them.
//!
//! # Invariants
//! A registered acknowledgement is settled when its record is, or dropped with this table.

use std::collections::BTreeMap;

use parking_lot::{Mutex, MutexGuard};

use super::memory::settle_ack;
use crate::ack::Ack;

/// Why a record was rejected; `None` if it was delivered.
type RejectReason = Option<String>;

/// Acknowledgements by the sequence numbers of their records.
#[derive(Default)]
pub(super) struct PendingAcks(Mutex<PendingState>);

#[derive(Default)]
struct PendingState {
    acks: BTreeMap<i64, Ack>,
    /// Running pushes, whose records may be settled before their acknowledgements are registered.
    pushing: usize,
    /// Records that were settled meanwhile and may belong to these pushes.
    early: BTreeMap<i64, RejectReason>,
}

/// A running push; ends on drop.
pub(super) struct PushGuard<'a>(&'a PendingAcks);

impl PendingAcks {
    fn state(&self) -> MutexGuard<'_, PendingState> {
        self.0.lock()
    }

    /// Announces that records are about to be stored whose acknowledgements will be registered.
    pub(super) fn begin_push(&self) -> PushGuard<'_> {
        self.state().pushing += 1;
        PushGuard(self)
    }

    /// Settles the acknowledgement of a record, if there is one.
    pub(super) fn finish(&self, seq: i64, reason: &RejectReason) {
        let mut state = self.state();
        let ack = state.acks.remove(&seq);
        if ack.is_none() && state.pushing > 0 {
            state.early.insert(seq, reason.clone());
        }
        // The callback may take any lock but this one.
        drop(state);
        if let Some(ack) = ack {
            settle_ack(ack, reason.clone());
        }
    }
}

impl PushGuard<'_> {
    /// Registers the acknowledgement of a record that is stored now.
    pub(super) fn register(&self, seq: i64, ack: Ack) {
        let mut state = self.0.state();
        match state.early.remove(&seq) {
            Some(reason) => {
                drop(state);
                settle_ack(ack, reason);
            }
            None => drop(state.acks.insert(seq, ack)),
        }
    }
}

impl Drop for PushGuard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.pushing -= 1;
        if state.pushing == 0 {
            state.early.clear();
        }
    }
}
