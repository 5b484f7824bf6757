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
type Reason = Option<String>;

/// Acknowledgements by the sequence numbers of their records.
#[derive(Default)]
pub(super) struct Waiting(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    acks: BTreeMap<i64, Ack>,
    /// Pushes under way whose records may be settled before their acknowledgements are here.
    pushing: usize,
    /// What was settled meanwhile and may have been one of theirs.
    early: BTreeMap<i64, Reason>,
}

/// A push under way.
pub(super) struct Pushing<'a>(&'a Waiting);

impl Waiting {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records are about to be stored whose acknowledgements will be handed in.
    pub(super) fn pushing(&self) -> Pushing<'_> {
        self.inner().pushing += 1;
        Pushing(self)
    }

    /// A record was settled.
    pub(super) fn settled(&self, seq: i64, reason: &Reason) {
        let mut inner = self.inner();
        let ack = inner.acks.remove(&seq);
        if ack.is_none() && inner.pushing > 0 {
            inner.early.insert(seq, reason.clone());
        }
        // Whoever is told may do anything but wait for us.
        drop(inner);
        if let Some(ack) = ack {
            tell(ack, reason.clone());
        }
    }
}

impl Pushing<'_> {
    /// The acknowledgement of a record that is stored now.
    pub(super) fn wait(&self, seq: i64, ack: Ack) {
        let mut inner = self.0.inner();
        match inner.early.remove(&seq) {
            Some(reason) => {
                drop(inner);
                tell(ack, reason);
            }
            None => drop(inner.acks.insert(seq, ack)),
        }
    }
}

impl Drop for Pushing<'_> {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.pushing -= 1;
        if inner.pushing == 0 {
            inner.early.clear();
        }
    }
}
