//! The memory buffer: a bounded queue. Acknowledgements stay with their records, so their sources
//! send again what a crash loses.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use super::dead_letters::DeadLetter;
use super::error::BufferError;
use super::queue::{NewRecord, Settlement};
use super::retry;
use super::store::Store;
use super::{Buffer, BufferSize, Buffered, Completion, PAGE_RECORDS, Token, UnsettledRecord};
use crate::ack::{Ack, Verdict};
use crate::config::sink::{BufferConfig, WhenFull};
use crate::record::Record;

/// A bounded queue in memory.
pub struct MemoryBuffer {
    sink: String,
    /// Stores dead letters and message keys, which survive a restart in any case.
    store: Store,
    when_full: WhenFull,
    stop: CancellationToken,
    /// One permit for each record that fits.
    room: Semaphore,
    queue: Mutex<Queue>,
    /// Wakes the reader: a record was added, or the buffer was closed.
    news: Notify,
    /// Held by the reader that waits for records.
    reading: tokio::sync::Mutex<()>,
    discarded: AtomicU64,
    errors: AtomicU64,
}

#[derive(Default)]
struct Queue {
    records: VecDeque<(Record, u64)>,
    bytes: u64,
    closed: bool,
}

impl MemoryBuffer {
    /// An empty buffer for `max_events` records. See [`super::open`].
    pub fn new(config: &BufferConfig, sink: &str, store: Store, stop: CancellationToken) -> Self {
        Self {
            sink: sink.to_owned(),
            store,
            when_full: config.when_full,
            stop,
            room: Semaphore::new(config.max_events.clamp(1, Semaphore::MAX_PERMITS)),
            queue: Mutex::default(),
            news: Notify::new(),
            reading: tokio::sync::Mutex::default(),
            discarded: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// Waits for space for one record. `false` if the record must be dropped.
    async fn find_room(&self) -> Result<bool, BufferError> {
        let permit = match self.when_full {
            WhenFull::Block => self.room.acquire().await.map_err(|_| BufferError::Closed)?,
            WhenFull::DropNewest => match self.room.try_acquire() {
                Ok(permit) => permit,
                Err(tokio::sync::TryAcquireError::NoPermits) => return Ok(false),
                Err(tokio::sync::TryAcquireError::Closed) => return Err(BufferError::Closed),
            },
        };
        // The space is taken until the record is yielded.
        permit.forget();
        Ok(true)
    }

    fn put(&self, record: Record) -> Result<(), BufferError> {
        let size = NewRecord::from(&record).size();
        let mut queue = self.queue();
        if queue.closed {
            return Err(BufferError::Closed);
        }
        queue.bytes += size;
        queue.records.push_back((record, size));
        drop(queue);
        self.news.notify_one();
        Ok(())
    }

    /// Records, or none yet; the error says that no more will come.
    fn take(&self, max: usize) -> Result<Vec<Buffered>, BufferError> {
        let mut queue = self.queue();
        let n = max.clamp(1, PAGE_RECORDS).min(queue.records.len());
        if n == 0 && queue.closed {
            return Err(BufferError::Closed);
        }
        let taken: Vec<_> = queue.records.drain(..n).collect();
        queue.bytes -= taken.iter().map(|(_, size)| size).sum::<u64>();
        drop(queue);
        self.room.add_permits(n);
        Ok(taken
            .into_iter()
            .map(|(record, _)| Buffered {
                maybe_sent: record.maybe_sent,
                record,
                token: Token(None),
            })
            .collect())
    }
}

#[async_trait]
impl Buffer for MemoryBuffer {
    async fn push(&self, records: Vec<Record>) -> Result<(), BufferError> {
        for record in records {
            if self.find_room().await? {
                self.put(record)?;
            } else {
                self.discarded.fetch_add(1, Ordering::Relaxed);
                record.ack.reject("buffer_full: the buffer was full");
            }
        }
        Ok(())
    }

    async fn next(&self, max: usize) -> Option<Vec<Buffered>> {
        let _turn = self.reading.lock().await;
        loop {
            match self.take(max) {
                Ok(taken) if taken.is_empty() => self.news.notified().await,
                Ok(taken) => return Some(taken),
                Err(_) => return None,
            }
        }
    }

    /// The source of a record tracks whether it may have been sent.
    async fn mark_dispatched(&self, _: Vec<Token>, _: Vec<Token>) -> Result<(), BufferError> {
        Ok(())
    }

    async fn settle(&self, items: Vec<Completion>) -> Result<(), BufferError> {
        let mut batch = Vec::new();
        let mut acks = Vec::with_capacity(items.len());
        for item in items {
            acks.push((item.ack, reject_reason(&item.dead)));
            if !item.dead.is_empty() || !item.seen.is_empty() {
                batch.push(Settlement { seq: None, dead: item.dead, seen: item.seen });
            }
        }
        if !batch.is_empty() {
            retry::settle(&self.store, &self.sink, &self.stop, &self.errors, batch)
                .await
                .map_err(BufferError::Stopped)?;
        }
        for (ack, reason) in acks {
            settle_ack(ack, reason);
        }
        Ok(())
    }

    async fn return_unsettled(&self, items: Vec<UnsettledRecord>) {
        for item in items {
            item.ack.settle(Verdict::Errored);
        }
    }

    fn close(&self) {
        self.queue().closed = true;
        self.room.close();
        self.news.notify_one();
    }

    async fn finish(&self) -> Result<(), BufferError> {
        Ok(())
    }

    fn size(&self) -> BufferSize {
        let queue = self.queue();
        BufferSize {
            events: u64::try_from(queue.records.len()).unwrap_or(u64::MAX),
            bytes: queue.bytes,
        }
    }

    fn storage_errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn discarded(&self) -> u64 {
        self.discarded.load(Ordering::Relaxed)
    }
}

/// Why a record was not delivered, as text for its source; `None` if all of it was delivered.
pub(super) fn reject_reason(dead: &[DeadLetter]) -> Option<String> {
    dead.first().map(|letter| format!("{}: {}", letter.reason, letter.detail))
}

/// Settles an acknowledgement as delivered, or as rejected with the reason.
pub(super) fn settle_ack(ack: Ack, reason: Option<String>) {
    match reason {
        None => ack.settle(Verdict::Delivered),
        Some(reason) => ack.reject(&reason),
    }
}
