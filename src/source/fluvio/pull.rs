//! One record after the other: yielded by the stream, decoded, handed on.
//!
//! Not here: when to stop reading (`window`). One invariant: a `next` that was begun is waited for,
//! or its stream is dropped with it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::cluster::{ClusterError, Message};
use super::lane::{Lane, Passage, Reading, Turn};
use super::window::Next;
use crate::ack::Verdict;
use crate::record::Record;
use crate::source::decode;
use crate::source::{ReadMode, SourceError, metadata, permit};

/// How long a record that is known to be there may take, before it is taken for a mistake.
pub(super) const PROMPT: Duration = Duration::from_secs(5);
/// How long a stop waits for such a record.
const GRACE: Duration = Duration::from_secs(1);

impl Lane {
    /// Reads one record and hands it on.
    pub(super) async fn pull(
        &mut self,
        reading: &mut Reading,
        next: Next,
        out: &mpsc::Sender<Record>,
    ) -> Result<Turn, SourceError> {
        // Room comes first where something waits to be kept: a record that was yielded and has no
        // room would be kept with it. Where nothing does, room is not held while nothing comes.
        let room = match next {
            Next::Wait => None,
            _ if reading.overlap => None,
            _ => match permit(out, &self.stop).await {
                Some(room) => Some(room),
                None => return Ok(Turn::End),
            },
        };
        let Some(stream) = reading.stream.as_mut() else {
            return Ok(Turn::On);
        };
        let yielded = match (next, self.mode) {
            (Next::Wait, ReadMode::Follow) => self.stop.run_until_cancelled(stream.next()).await,
            _ => tokio::select! {
                biased;
                yielded = stream.next() => Some(yielded),
                () = self.no_longer() => None,
            },
        };
        match yielded {
            // The stream goes with its `next`: neither may be touched again.
            None => {
                reading.stream = None;
                self.nothing_came(reading).await
            }
            Some(Some(Ok(message))) => {
                let again =
                    std::mem::take(&mut reading.overlap) && message.offset == reading.position - 1;
                if again {
                    reading.window.read(Instant::now());
                    reading.window.close();
                    return Ok(Turn::On);
                }
                let room = match room {
                    Some(room) => Some(room),
                    None => permit(out, &self.stop).await,
                };
                let Some(room) = room else {
                    reading.stream = None;
                    return Ok(Turn::End);
                };
                reading.patience.renew();
                reading.window.read(Instant::now());
                let records = self.records(reading, &message);
                self.send(records, room, out).await;
                self.passed(reading, &message).await;
                Ok(Turn::On)
            }
            Some(Some(Err(ClusterError::Gone { next }))) => {
                self.skip_to(reading, next);
                Ok(Turn::On)
            }
            Some(Some(Err(error))) => self.broke(reading, &error).await,
            Some(None) => self.ended(reading).await,
        }
    }

    /// A record that should be there did not come, or the source is to stop.
    pub(super) async fn nothing_came(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        reading.overlaps += u32::from(reading.overlap);
        match (self.mode, self.passage) {
            _ if self.stop.is_cancelled() => Ok(Turn::End),
            (ReadMode::Follow, _) => Ok(Turn::On),
            (ReadMode::Once, Passage::Some) => Ok(Turn::End),
            (ReadMode::Once, Passage::All) => {
                let why = "a record that is there did not come".to_owned();
                self.broke(reading, &ClusterError::Passing(why)).await
            }
        }
    }

    /// Until a record that should be there is not waited for any longer.
    pub(super) async fn no_longer(&self) {
        let stopped = self.stop.run_until_cancelled(sleep(PROMPT)).await.is_none();
        if stopped {
            sleep(GRACE).await;
        }
    }

    pub(super) async fn passed(&self, reading: &mut Reading, message: &Message) {
        if message.offset < reading.position {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                offset = message.offset,
                expected = reading.position,
                "the partition begins anew"
            );
        }
        reading.position = message.offset.saturating_add(1);
        reading.end = reading.end.max(reading.position);
        reading.high = reading.high.max(reading.position);
        if reading.position >= reading.end && self.mode == ReadMode::Follow {
            self.look(reading).await;
        }
    }

    /// Asks where the partition ends by now.
    pub(super) async fn look(&self, reading: &mut Reading) {
        if let Some(end) = self.watch.end(self.address.partition).await {
            reading.end = reading.end.max(end);
        }
        self.tell(reading);
    }

    /// Tells how far the partition is settled, as well as numbers can.
    pub(super) fn tell(&self, reading: &Reading) {
        let open = i64::try_from(reading.verdicts.open()).unwrap_or(i64::MAX);
        reading.settled.store(reading.position.saturating_sub(open), Ordering::Relaxed);
    }

    /// Hands on what a message holds: mostly one record. Where it is stopped amid several, those
    /// left are unsettled, and the message is read again.
    async fn send(
        &self,
        records: Vec<Record>,
        room: mpsc::Permit<'_, Record>,
        out: &mpsc::Sender<Record>,
    ) {
        let mut records = records.into_iter();
        if let Some(first) = records.next() {
            room.send(first);
        }
        for record in records {
            let Some(room) = permit(out, &self.stop).await else {
                return;
            };
            room.send(record);
        }
    }

    /// The records of a message, at least one.
    fn records(&self, reading: &Reading, message: &Message) -> Vec<Record> {
        let decoded = match message.value.is_empty() {
            true => Err("the record is empty".to_owned()),
            false => Ok(self.decoder.message(&message.value)),
        };
        let place = self.address.place(message.offset);
        let mut records = decode::records_of(decoded, &message.value, &place);
        let ack = reading.verdicts.ack(message.offset);
        for (part, record) in (0..).zip(&mut records) {
            record.meta = Some(metadata::merge(self.address.meta(message), record.meta.take()));
            record.transport_id = self.address.id(message).map(|id| decode::id_of_part(id, part));
            record.time = message.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
            record.maybe_sent = message.offset < reading.doubtful;
            record.ack = ack.clone();
        }
        // The share they were made from: those of the records say what became of the message.
        ack.settle(Verdict::Delivered);
        records
    }
}
