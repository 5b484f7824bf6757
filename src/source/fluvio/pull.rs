//! One record after the other: taken from what was fetched, decoded, handed on.
//!
//! Not here: what is fetched (`intake`). One invariant: of the records handed on since the last kept
//! offset there are never more than `max_in_flight`; behind SmartModules, more only to the end of
//! one answer, as no offset within it may be kept.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::cluster::Message;
use super::lane::{Fetched, Lane, Passage, Reading};
use super::ledger::Reached;
use super::start::Keeping;
use crate::ack::Verdict;
use crate::record::Record;
use crate::source::{decode, metadata};

/// Records that are handed on before it is looked whether there is something else to do.
const RUN: usize = 256;

impl Lane {
    /// Hands on what there is room for.
    pub(super) fn hand_on(&self, reading: &mut Reading, out: &mpsc::Sender<Record>) {
        for _ in 0..RUN {
            self.pass(reading);
            if !self.has_room(reading) {
                return;
            }
            let Ok(room) = out.try_reserve() else {
                return;
            };
            self.hand_on_one(reading, room);
        }
    }

    /// Whether a record waits that may be handed on.
    pub(super) fn has_room(&self, reading: &Reading) -> bool {
        if !reading.ready.is_empty() {
            return true;
        }
        let Some(Fetched::Record { index, .. }) = reading.queue.front() else {
            return false;
        };
        if self.passage == Passage::Some && *index > 0 {
            return true;
        }
        let count = match self.keeping {
            Keeping::Kept if !reading.anew => {
                reading.ledger.handed_on() - reading.keeper.kept.records
            }
            _ => u64::try_from(reading.ledger.open()).unwrap_or(u64::MAX),
        };
        count < u64::try_from(self.limit.max(1)).unwrap_or(u64::MAX)
    }

    /// What holds no record is passed.
    fn pass(&self, reading: &mut Reading) {
        while reading.ready.is_empty()
            && let Some(Fetched::Passed(to)) = reading.queue.front()
        {
            let to = *to;
            reading.queue.pop_front();
            reading.ledger.passed(to);
            reading.position = to;
            reading.high = reading.high.max(to);
        }
    }

    /// Hands on the next record. A message may hold several, or none.
    pub(super) fn hand_on_one(&self, reading: &mut Reading, room: mpsc::Permit<'_, Record>) {
        if reading.ready.is_empty() {
            self.decode_next(reading);
        }
        if let Some(record) = reading.ready.pop_front() {
            room.send(record);
        }
    }

    /// Decodes the next message.
    fn decode_next(&self, reading: &mut Reading) {
        let Some(Fetched::Record { message, from, index, behind }) = reading.queue.pop_front()
        else {
            return;
        };
        // Behind SmartModules an answer is one: what came before in it may have been sent.
        let is_doubtful = reading.doubts > 0
            || from < reading.doubtful
            || (self.passage == Passage::Some && index > 0 && reading.answer_is_doubtful);
        reading.answer_is_doubtful = is_doubtful;
        reading.doubts = reading.doubts.saturating_sub(1);
        let ack = reading.ledger.ack(from, behind);
        let records = self.records(&message, from, index).into_iter().map(|mut record| {
            record.maybe_sent = is_doubtful;
            record.ack = ack.clone();
            record
        });
        reading.ready.extend(records);
        // The share they were made from: those of the records say what became of the message.
        ack.settle(Verdict::Delivered);
        reading.position = match self.passage {
            Passage::All => message.offset.saturating_add(1),
            Passage::Some => behind.unwrap_or(reading.position),
        };
        reading.high = reading.high.max(reading.position);
    }

    /// Tells how far the partition is settled.
    pub(super) fn tell(&self, reading: &Reading, due: Reached) {
        reading.standing.settled(due.offset);
    }

    fn records(&self, message: &Message, from: i64, index: usize) -> Vec<Record> {
        let decoded = match message.value.is_empty() {
            true => Err("the record is empty".to_owned()),
            false => Ok(self.decoder.message(&message.value)),
        };
        let place = self.address.place(message.offset);
        let mut records = decode::records_of(decoded, &message.value, &place);
        let id = match self.passage {
            Passage::All => self.address.id(message),
            Passage::Some => self.address.id_in_answer(message, from, index),
        };
        for (part, record) in (0..).zip(&mut records) {
            record.meta = Some(metadata::merge(self.address.meta(message), record.meta.take()));
            record.transport_id = id.as_ref().map(|id| decode::id_of_part(Arc::clone(id), part));
            record.event_time =
                message.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
        }
        records
    }
}
