//! Records between the buffer and their settlement: which of their ops are still open, and what is
//! to be written down when the last one closes.
//!
//! One invariant: a record leaves here exactly once, and only with all its ops settled.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::marks::SentCount;
use crate::buffer::{Buffered, Completion, DeadLetter, Token, UnsettledRecord};
use crate::deliver::poison::Troubles;
use crate::record::Record;

/// Names a record while it is pending.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RecordId(u64);

/// What a lane gives back when an op is settled: whose it was, and which of the record's calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) record: RecordId,
    pub(super) call: u32,
}

/// A record with open ops.
#[derive(Debug)]
struct Pending {
    buffered: Buffered,
    bytes: usize,
    open: u32,
    has_calls: bool,
    /// How many of its requests that must not be sent twice may have left; `None` before the first
    /// of them is carried out.
    sent: Option<SentCount>,
    /// What failed of an op of it that was given up and is tried again.
    troubles: Troubles,
    /// Rare and large, so it is not part of every entry.
    dead: Option<Box<DeadLetter>>,
    /// Message keys this record is the first of, by call.
    keys: Vec<(u32, String)>,
    /// Calls of which an op was refused.
    refused: Vec<u32>,
}

impl Pending {
    fn may_have_been_sent(&self) -> bool {
        let left = self.sent.as_ref().is_some_and(|sent| sent.load(Ordering::Acquire) > 0);
        left || self.buffered.maybe_sent
    }
}

/// A record all of whose ops are settled.
#[derive(Debug)]
pub(super) struct Finished {
    /// What the buffer is to be told.
    pub(super) settled: Completion,
    /// Whether calls were made from it.
    pub(super) has_calls: bool,
    /// Keys of messages that were not delivered.
    pub(super) abandoned: Vec<String>,
}

/// All pending records of a sink.
#[derive(Debug, Default)]
pub(super) struct PendingRecords {
    records: HashMap<RecordId, Pending>,
    next: u64,
    bytes: usize,
}

impl PendingRecords {
    /// How many records are pending.
    pub(super) fn len(&self) -> usize {
        self.records.len()
    }

    /// How many bytes of record text they hold.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How many bytes of text one of them holds.
    pub(super) fn bytes_of(&self, id: RecordId) -> usize {
        self.records.get(&id).map_or(0, |pending| pending.bytes)
    }

    /// Takes a record in, with one share held open until [`close`](Self::close) is called for it
    /// the first time: so that it cannot finish while its ops are still being pushed.
    pub(super) fn open(&mut self, buffered: Buffered) -> RecordId {
        let id = RecordId(self.next);
        self.next += 1;
        let bytes = buffered.record.body.len();
        self.bytes += bytes;
        let pending = Pending {
            buffered,
            bytes,
            open: 1,
            has_calls: false,
            sent: None,
            troubles: Troubles::default(),
            dead: None,
            keys: Vec::new(),
            refused: Vec::new(),
        };
        self.records.insert(id, pending);
        id
    }

    /// A call was made from this record.
    pub(super) fn has_call(&mut self, id: RecordId) {
        self.get(id).has_calls = true;
    }

    /// Another op of this record is open.
    pub(super) fn hold(&mut self, id: RecordId) {
        self.get(id).open += 1;
    }

    /// This record is the first to carry a message key.
    pub(super) fn owns_key(&mut self, ticket: Ticket, key: String) {
        self.get(ticket.record).keys.push((ticket.call, key));
    }

    /// An op of this record that must not be sent twice is about to be carried out.
    pub(super) fn sending(&mut self, id: RecordId) -> (Token, SentCount) {
        let pending = self.get(id);
        // What an earlier process may have sent is never known again not to have been sent.
        let before = u32::from(pending.buffered.maybe_sent);
        let sent = pending.sent.get_or_insert_with(|| Arc::new(AtomicU32::new(before)));
        (pending.buffered.token, Arc::clone(sent))
    }

    /// What failed of an op that is tried again now.
    pub(super) fn take_troubles(&mut self, id: RecordId) -> Troubles {
        std::mem::take(&mut self.get(id).troubles)
    }

    /// An op was given up and will be tried again.
    pub(super) fn keep_troubles(&mut self, id: RecordId, troubles: Troubles) {
        self.get(id).troubles = troubles;
    }

    /// The record itself, while it is pending.
    pub(super) fn record(&self, id: RecordId) -> Option<&Record> {
        self.records.get(&id).map(|pending| &pending.buffered.record)
    }

    /// Gives up on all of them: what is to be given back to the buffer.
    pub(super) fn take_all(&mut self) -> Vec<UnsettledRecord> {
        let return_unsettled = |pending: Pending| UnsettledRecord {
            maybe_sent: pending.may_have_been_sent(),
            token: pending.buffered.token,
            ack: pending.buffered.record.ack,
        };
        self.bytes = 0;
        self.records.drain().map(|(_, pending)| return_unsettled(pending)).collect()
    }

    /// An op of this record was tried, and it is not known whether it arrived.
    pub(super) fn doubt(&mut self, id: RecordId) {
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
    pub(super) fn in_doubt(&self, id: RecordId) -> bool {
        self.records.get(&id).is_some_and(|pending| pending.buffered.maybe_sent)
    }

    /// A call of this record was refused. The first reason is the one that is kept.
    pub(super) fn refuse(&mut self, ticket: Ticket, letter: impl FnOnce(&Record) -> DeadLetter) {
        let pending = self.get(ticket.record);
        pending.refused.push(ticket.call);
        if pending.dead.is_none() {
            pending.dead = Some(Box::new(letter(&pending.buffered.record)));
        }
    }

    /// One op is settled; the record, if it was the last.
    pub(super) fn close(&mut self, id: RecordId) -> Option<Finished> {
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

    fn get(&mut self, id: RecordId) -> &mut Pending {
        self.records.get_mut(&id).expect("tickets are held only while their record is pending")
    }
}
