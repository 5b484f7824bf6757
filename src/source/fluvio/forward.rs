//! Forwards records one after the other: takes them from the queue, decodes and sends them.
//!
//! # Invariants
//!
//! Since the last committed offset at most `max_in_flight` records were forwarded; with
//! SmartModules, more only up to the end of one response, because no offset inside it may be
//! committed.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::mpsc;

use super::cluster::Message;
use super::commit_window::SettledTo;
use super::local_start::OffsetCommits;
use super::partition_reader::{Filtering, PartitionReader, QueueItem, ReaderState};
use crate::ack::Verdict;
use crate::record::Record;
use crate::source::{decode, metadata};

/// Records that are forwarded before other work is checked.
const MAX_FORWARD_BURST: usize = 256;

impl PartitionReader {
    /// Forwards as many records as there is room for.
    pub(super) fn forward(&self, reading: &mut ReaderState, out: &mpsc::Sender<Record>) {
        for _ in 0..MAX_FORWARD_BURST {
            self.skip_queued(reading);
            if !self.has_room(reading) {
                return;
            }
            let Ok(room) = out.try_reserve() else {
                return;
            };
            self.forward_one(reading, room);
        }
    }

    /// Whether a record waits that may be forwarded.
    pub(super) fn has_room(&self, reading: &ReaderState) -> bool {
        if !reading.ready.is_empty() {
            return true;
        }
        let Some(QueueItem::Record { index, .. }) = reading.queue.front() else {
            return false;
        };
        if self.filtering == Filtering::SmartModules && *index > 0 {
            return true;
        }
        let count = match self.offset_commits {
            OffsetCommits::Enabled if !reading.recreated => {
                reading.window.sent() - reading.committer.committed.records
            }
            _ => u64::try_from(reading.window.open()).unwrap_or(u64::MAX),
        };
        count < u64::try_from(self.limit.max(1)).unwrap_or(u64::MAX)
    }

    /// Skips queue items that hold no record.
    fn skip_queued(&self, reading: &mut ReaderState) {
        while reading.ready.is_empty()
            && let Some(QueueItem::Skip(to)) = reading.queue.front()
        {
            let to = *to;
            reading.queue.pop_front();
            reading.window.passed(to);
            reading.position = to;
            reading.high = reading.high.max(to);
        }
    }

    /// Forwards the next record. A message may hold several, or none.
    pub(super) fn forward_one(&self, reading: &mut ReaderState, room: mpsc::Permit<'_, Record>) {
        if reading.ready.is_empty() {
            self.decode_next(reading);
        }
        if let Some(record) = reading.ready.pop_front() {
            room.send(record);
        }
    }

    /// Decodes the next message.
    fn decode_next(&self, reading: &mut ReaderState) {
        let Some(QueueItem::Record { message, from, index, commit_offset }) =
            reading.queue.pop_front()
        else {
            return;
        };
        // With SmartModules a response is one unit: what came before in it may have been sent.
        let maybe_redelivered = reading.redelivered_left > 0
            || from < reading.redelivered_to
            || (self.filtering == Filtering::SmartModules
                && index > 0
                && reading.answer_maybe_redelivered);
        reading.answer_maybe_redelivered = maybe_redelivered;
        reading.redelivered_left = reading.redelivered_left.saturating_sub(1);
        let ack = reading.window.ack(from, commit_offset);
        let records = self.records(&message, from, index).into_iter().map(|mut record| {
            record.maybe_sent = maybe_redelivered;
            record.ack = ack.clone();
            record
        });
        reading.ready.extend(records);
        // The message's own clone of the acknowledgement: the clones of its records decide the
        // verdict.
        ack.settle(Verdict::Delivered);
        reading.position = match self.filtering {
            Filtering::Unfiltered => message.offset.saturating_add(1),
            Filtering::SmartModules => commit_offset.unwrap_or(reading.position),
        };
        reading.high = reading.high.max(reading.position);
    }

    /// Reports how far the partition is settled.
    pub(super) fn report_settled(&self, reading: &ReaderState, due: SettledTo) {
        reading.status.settled(due.offset);
    }

    fn records(&self, message: &Message, from: i64, index: usize) -> Vec<Record> {
        let decoded = match message.value.is_empty() {
            true => Err("the record is empty".to_owned()),
            false => Ok(self.decoder.message(&message.value)),
        };
        let transport = self.address.message(message);
        let mut records = decode::records_of(decoded, &message.value, &transport.location());
        let id: Option<Arc<str>> = match self.filtering {
            Filtering::Unfiltered => transport.id(),
            // With SmartModules the offset is only an estimate: the id is where the response began
            // and the record's index in it.
            Filtering::SmartModules => transport.id_with(format_args!("{from}+{index}")),
        }
        .map(Arc::from);
        for (part, record) in (0..).zip(&mut records) {
            record.meta = Some(metadata::merge(transport.meta().finish(), record.meta.take()));
            record.transport_id = id.as_ref().map(|id| decode::id_of_part(Arc::clone(id), part));
            record.event_time =
                message.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
        }
        records
    }
}
