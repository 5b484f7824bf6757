//! Acknowledgements of stored records whose sources want to hear of their settlement, not of their
//! being stored.
//!
//! They live in memory only: after a restart nobody waits any more. One invariant: an
//! acknowledgement that came in is told or dropped, never kept beyond its record.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::memory::tell;
use crate::ack::Ack;

/// What a record came to: nothing, or why it was rejected.
type RejectReason = Option<String>;

/// Acknowledgements by the sequence numbers of their records.
#[derive(Default)]
pub(super) struct PendingAcks(Mutex<PendingState>);

#[derive(Default)]
struct PendingState {
    acks: BTreeMap<i64, Ack>,
    /// Pushes under way whose records may be settled before their acknowledgements are here.
    pushing: usize,
    /// What was settled meanwhile and may have been one of theirs.
    early: BTreeMap<i64, RejectReason>,
}

/// A push under way.
pub(super) struct PushGuard<'a>(&'a PendingAcks);

impl PendingAcks {
    fn state(&self) -> MutexGuard<'_, PendingState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records are about to be stored whose acknowledgements will be handed in.
    pub(super) fn begin_push(&self) -> PushGuard<'_> {
        self.state().pushing += 1;
        PushGuard(self)
    }

    /// A record was settled.
    pub(super) fn finish(&self, seq: i64, reason: &RejectReason) {
        let mut state = self.state();
        let ack = state.acks.remove(&seq);
        if ack.is_none() && state.pushing > 0 {
            state.early.insert(seq, reason.clone());
        }
        // Whoever is told may do anything but wait for us.
        drop(state);
        if let Some(ack) = ack {
            tell(ack, reason.clone());
        }
    }
}

impl PushGuard<'_> {
    /// The acknowledgement of a record that is stored now.
    pub(super) fn register(&self, seq: i64, ack: Ack) {
        let mut state = self.0.state();
        match state.early.remove(&seq) {
            Some(reason) => {
                drop(state);
                tell(ack, reason);
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
