//! Records between the buffer and their settlement: how many of their ops are open, and what to
//! store when the last one ends.
//!
//! # Invariants
//! A record leaves this table exactly once, and only after all its ops ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use jiff::Timestamp;

use super::marks::SentCount;
use crate::buffer::{Buffered, Completion, DeadLetter, Token, UnsettledRecord};
use crate::deliver::poison::FailureHistory;
use crate::record::Record;

/// Identifies a record while it is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PendingId(u64);

/// Identifies the call that an op belongs to: its record and the number of the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CallRef {
    pub(super) record: PendingId,
    pub(super) call: u32,
}

/// A record with open ops.
#[derive(Debug)]
struct Pending {
    buffered: Buffered,
    bytes: usize,
    open: u32,
    has_calls: bool,
    /// How many of its non-idempotent requests may have been sent; `None` before the first is
    /// executed.
    sent: Option<SentCount>,
    /// Failures of an op of this record that was given up and is retried.
    failure_history: FailureHistory,
    /// Boxed because it is rare and large.
    dead: Option<Box<DeadLetter>>,
    /// Message keys that this record is the first to carry, by call.
    keys: Vec<(u32, String)>,
    /// Calls with a rejected op.
    refused: Vec<u32>,
}

impl Pending {
    fn may_have_been_sent(&self) -> bool {
        let left = self.sent.as_ref().is_some_and(|sent| sent.load(Ordering::Acquire) > 0);
        left || self.buffered.maybe_sent
    }
}

/// A record whose ops have all ended.
#[derive(Debug)]
pub(super) struct Finished {
    /// What to store.
    pub(super) settled: Completion,
    /// Whether calls were made from it.
    pub(super) has_calls: bool,
    /// Keys of messages that were not delivered.
    pub(super) abandoned: Vec<String>,
}

/// All pending records of a sink.
#[derive(Debug, Default)]
pub(super) struct PendingRecords {
    records: HashMap<PendingId, Pending>,
    next: u64,
    bytes: usize,
}

impl PendingRecords {
    /// How many records are pending.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// Bytes of all pending records.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// When the oldest of them arrived in the buffer.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.records.values().map(|pending| pending.buffered.arrived).min()
    }

    /// Bytes of one record.
    pub(super) fn bytes_of(&self, id: PendingId) -> usize {
        self.records.get(&id).map_or(0, |pending| pending.bytes)
    }

    /// Adds a record with one open share, which the first [`release`](Self::release) closes, so
    /// that it cannot finish while its ops are being scheduled.
    pub(super) fn insert(&mut self, buffered: Buffered) -> PendingId {
        let id = PendingId(self.next);
        self.next += 1;
        let bytes = buffered.record.body.len();
        self.bytes += bytes;
        let pending = Pending {
            buffered,
            bytes,
            open: 1,
            has_calls: false,
            sent: None,
            failure_history: FailureHistory::default(),
            dead: None,
            keys: Vec::new(),
            refused: Vec::new(),
        };
        self.records.insert(id, pending);
        id
    }

    /// A call was made from this record.
    pub(super) fn has_call(&mut self, id: PendingId) {
        self.get(id).has_calls = true;
    }

    /// Another op of this record is open.
    pub(super) fn retain(&mut self, id: PendingId) {
        self.get(id).open += 1;
    }

    /// This record is the first to carry a message key.
    pub(super) fn owns_key(&mut self, call_ref: CallRef, key: String) {
        self.get(call_ref.record).keys.push((call_ref.call, key));
    }

    /// A non-idempotent op of this record is about to be executed.
    pub(super) fn start_sending(&mut self, id: PendingId) -> (Token, SentCount) {
        let pending = self.get(id);
        // If an earlier process may have sent it, the count never returns to zero.
        let before = u32::from(pending.buffered.maybe_sent);
        let sent = pending.sent.get_or_insert_with(|| Arc::new(AtomicU32::new(before)));
        (pending.buffered.token, Arc::clone(sent))
    }

    /// Earlier failures of an op that is retried now.
    pub(super) fn take_failure_history(&mut self, id: PendingId) -> FailureHistory {
        std::mem::take(&mut self.get(id).failure_history)
    }

    /// Keeps the failures of an op that was given up and will be retried.
    pub(super) fn set_failure_history(&mut self, id: PendingId, failure_history: FailureHistory) {
        self.get(id).failure_history = failure_history;
    }

    /// The record itself, while it is pending.
    pub(super) fn record(&self, id: PendingId) -> Option<&Record> {
        self.records.get(&id).map(|pending| &pending.buffered.record)
    }

    /// Removes all records, to return them to the buffer.
    pub(super) fn take_all(&mut self) -> Vec<UnsettledRecord> {
        let unsettled = |pending: Pending| UnsettledRecord {
            maybe_sent: pending.may_have_been_sent(),
            token: pending.buffered.token,
            ack: pending.buffered.record.ack,
        };
        self.bytes = 0;
        self.records.drain().map(|(_, pending)| unsettled(pending)).collect()
    }

    /// An op of this record was tried, and it is unknown whether the request arrived.
    pub(super) fn mark_maybe_sent(&mut self, id: PendingId) {
        let pending = self.get(id);
        if pending.may_have_been_sent() {
            pending.buffered.maybe_sent = true;
            if let Some(sent) = &pending.sent {
                sent.fetch_add(1, Ordering::AcqRel);
            }
        }
    }

    /// Whether this record's events may have been sent, by an earlier process or by an attempt that
    /// was given up.
    pub(super) fn is_maybe_sent(&self, id: PendingId) -> bool {
        self.records.get(&id).is_some_and(|pending| pending.buffered.maybe_sent)
    }

    /// Rejects a call of this record. The dead letter gets the first reason.
    pub(super) fn reject_call(
        &mut self,
        call_ref: CallRef,
        letter: impl FnOnce(&Record) -> DeadLetter,
    ) {
        let pending = self.get(call_ref.record);
        pending.refused.push(call_ref.call);
        if pending.dead.is_none() {
            pending.dead = Some(Box::new(letter(&pending.buffered.record)));
        }
    }

    /// One op has ended. Returns the record if it was the last.
    pub(super) fn release(&mut self, id: PendingId) -> Option<Finished> {
        let pending = self.get(id);
        pending.open -= 1;
        if pending.open > 0 {
            return None;
        }
        let pending = self.records.remove(&id).expect("it was there a line ago");
        self.bytes -= pending.bytes;
        let (abandoned, seen): (Vec<_>, Vec<_>) =
            pending.keys.into_iter().partition(|(call, _)| pending.refused.contains(call));
        let names = |keys: Vec<(u32, String)>| keys.into_iter().map(|(_, key)| key).collect();
        let settled = Completion {
            token: pending.buffered.token,
            ack: pending.buffered.record.ack,
            dead: pending.dead.map(|letter| *letter).into_iter().collect(),
            seen: names(seen),
        };
        Some(Finished { settled, has_calls: pending.has_calls, abandoned: names(abandoned) })
    }

    fn get(&mut self, id: PendingId) -> &mut Pending {
        self.records.get_mut(&id).expect("a call reference lives only while its record is pending")
    }
}
