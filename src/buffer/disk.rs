//! The disk buffer keeps records in the store. It acknowledges a record as soon as it is durable,
//! or, where the source asks for it, as soon as it is settled.
//!
//! # Invariants
//! A record is in flight at most once at a time, and the oldest is yielded first. Records are
//! marked in the store before a non-idempotent request for them is sent, so a record without a mark
//! was never sent from here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::error::{BufferError, StoreError};
use super::memory::{reject_reason, settle_ack};
use super::pending_acks::PendingAcks;
use super::queue::{AppendOutcome, BufferedRow, NewRecord, Settlement};
use super::retry::{self, StorageRetry};
use super::store::Store;
use super::{
    Buffer, BufferSize, Buffered, Completion, PAGE_BYTES, PAGE_RECORDS, Token, UnsettledRecord,
};
use crate::ack::Verdict;
use crate::config::sink::{BufferConfig, WhenFull};
use crate::record::{AckOn, Record};

/// A buffer in the store.
pub struct DiskBuffer {
    sink: String,
    store: Store,
    max_size: u64,
    when_full: WhenFull,
    /// Ends the retries of failed writes.
    stop: CancellationToken,
    /// Cancelled when no more records are accepted.
    closed: CancellationToken,
    /// Bytes of records that are being written. They count as held, so that concurrent pushes
    /// together stay within the limit.
    reserved_bytes: Mutex<u64>,
    /// Wakes the reader: records were stored or returned.
    data_available: Notify,
    /// Wakes pushes that wait for space.
    space_available: Notify,
    /// Sequence number of the last record read. There is one reader.
    cursor: tokio::sync::Mutex<i64>,
    dispatched: Mutex<Dispatched>,
    pending_acks: PendingAcks,
    discarded: AtomicU64,
    errors: AtomicU64,
}

/// Records that were yielded and are not settled.
#[derive(Default)]
struct Dispatched {
    /// Yielded, neither settled nor returned.
    in_flight: BTreeSet<i64>,
    /// Returned unsettled, to be yielded again; the value says whether they may have been sent.
    returned: BTreeMap<i64, bool>,
}

impl DiskBuffer {
    /// Opens the buffer of one sink. Records of an earlier run are yielded first. A sink must have
    /// only one buffer at a time. See [`super::open`].
    ///
    /// # Errors
    /// [`BufferError::Store`] if the store cannot be read.
    pub async fn open(
        config: &BufferConfig,
        sink: &str,
        store: Store,
        stop: CancellationToken,
    ) -> Result<Self, BufferError> {
        Ok(Self {
            sink: sink.to_owned(),
            store,
            max_size: config.max_size,
            when_full: config.when_full,
            closed: stop.child_token(),
            stop,
            reserved_bytes: Mutex::default(),
            data_available: Notify::new(),
            space_available: Notify::new(),
            cursor: tokio::sync::Mutex::default(),
            dispatched: Mutex::default(),
            pending_acks: PendingAcks::default(),
            discarded: AtomicU64::new(0),
            errors: AtomicU64::new(0),
        })
    }

    fn dispatched(&self) -> MutexGuard<'_, Dispatched> {
        self.dispatched.lock()
    }

    /// Reserves space for as many of the records as fit: at least one if the buffer is empty, at
    /// most a page, and only records with the same [`AckOn`]. `None` if none fits.
    fn reserve<'a>(&'a self, records: &[Record]) -> Option<Reservation<'a>> {
        let mut reserved_bytes = self.reserved_bytes.lock();
        let held = self.size().bytes.saturating_add(*reserved_bytes);
        let mut fitting: Vec<NewRecord> = Vec::new();
        let mut bytes = 0;
        let alike = records.iter().take_while(|record| record.ack_on == records[0].ack_on);
        for record in alike.take(PAGE_RECORDS) {
            let record = NewRecord::from(record);
            let more = record.size().saturating_add(bytes);
            let alone = held == 0 && fitting.is_empty();
            let fits = held.saturating_add(more) <= self.max_size
                && (more <= PAGE_BYTES || fitting.is_empty());
            if !alone && !fits {
                break;
            }
            fitting.push(record);
            bytes = more;
        }
        if fitting.is_empty() {
            return None;
        }
        *reserved_bytes += bytes;
        Some(Reservation { buffer: self, records: fitting, bytes })
    }

    /// Waits until `reserve` finds space for the first record.
    async fn reserve_or_wait(&self, records: &[Record]) -> Result<Reservation<'_>, BufferError> {
        loop {
            let space_available = self.space_available.notified();
            if let Some(room) = self.reserve(records) {
                return Ok(room);
            }
            tokio::select! {
                () = self.closed.cancelled() => return Err(BufferError::Closed),
                () = space_available => {}
            }
        }
    }

    /// Stores the records of a reservation.
    async fn take(&self, room: Reservation<'_>) -> Result<AppendOutcome, BufferError> {
        let mut retry = StorageRetry::new("append", &self.sink, &self.closed, &self.errors);
        let appended = loop {
            match self.store.append(&self.sink, room.records.clone()).await {
                Ok(appended) => break appended,
                Err(e) => tokio::select! {
                    biased;
                    waited = retry.wait(e) => waited.map_err(|e| match retry::is_final(&e) {
                        true => BufferError::Store(e),
                        false => BufferError::Stopped(e),
                    })?,
                    // Delivery freed space.
                    () = self.space_available.notified() => {}
                },
            }
        };
        retry.succeeded();
        drop(room);
        self.data_available.notify_one();
        Ok(appended)
    }

    fn discard(&self, records: impl Iterator<Item = Record>) {
        for record in records {
            self.discarded.fetch_add(1, Ordering::Relaxed);
            record.ack.reject("buffer_full: the buffer was full");
        }
    }

    /// Reads the next page, with retries.
    async fn read(&self, after: i64, max: usize) -> Result<Vec<BufferedRow>, StoreError> {
        let mut retry = StorageRetry::new("read", &self.sink, &self.stop, &self.errors);
        loop {
            match self.page(after, max).await {
                Ok(page) => {
                    retry.succeeded();
                    return Ok(page);
                }
                Err(e) => retry.wait(e).await?,
            }
        }
    }

    /// Reads the next page: returned records first, then records that were not read yet. The caller
    /// must yield it without awaiting in between.
    async fn page(&self, after: i64, max: usize) -> Result<Vec<BufferedRow>, StoreError> {
        let back: BTreeMap<i64, bool> = {
            let dispatched = self.dispatched();
            dispatched.returned.iter().take(max).map(|(k, v)| (*k, *v)).collect()
        };
        if !back.is_empty() {
            let seqs: Vec<i64> = back.keys().copied().collect();
            let mut page = self.store.read_these(&self.sink, &seqs).await?;
            for row in &mut page {
                row.maybe_sent = back.get(&row.seq).copied().unwrap_or_default();
            }
            if !page.is_empty() {
                return Ok(page);
            }
            // They were deleted meanwhile.
            self.dispatched().returned.retain(|seq, _| !back.contains_key(seq));
        }
        self.store.read(&self.sink, after, max).await
    }

    /// Marks the records of a page as in flight.
    fn hand_over(&self, page: Vec<BufferedRow>, cursor: &mut i64) -> Vec<Buffered> {
        let mut dispatched = self.dispatched();
        page.into_iter()
            .map(|row| {
                *cursor = row.seq.max(*cursor);
                dispatched.returned.remove(&row.seq);
                dispatched.in_flight.insert(row.seq);
                let mut record = row.record.into_record();
                // The record gets the same time at each read, so that a repeated event can be
                // recognised in the user's history.
                record.event_time.get_or_insert(row.received_at);
                Buffered { record, token: Token(Some(row.seq)), maybe_sent: row.maybe_sent }
            })
            .collect()
    }
}

/// Space reserved for records that are being stored; released on drop.
struct Reservation<'a> {
    buffer: &'a DiskBuffer,
    records: Vec<NewRecord>,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        *self.buffer.reserved_bytes.lock() -= self.bytes;
        self.buffer.space_available.notify_waiters();
    }
}

#[async_trait]
impl Buffer for DiskBuffer {
    async fn push(&self, mut records: Vec<Record>) -> Result<(), BufferError> {
        while !records.is_empty() {
            if self.closed.is_cancelled() {
                return Err(BufferError::Closed);
            }
            let room = match self.when_full {
                WhenFull::Block => self.reserve_or_wait(&records).await?,
                WhenFull::DropNewest => match self.reserve(&records) {
                    Some(room) => room,
                    None => {
                        self.discard(records.drain(..));
                        break;
                    }
                },
            };
            let taken = room.records.len();
            let push = self.pending_acks.begin_push();
            let appended = self.take(room).await?;
            // If some records were skipped, the numbers cannot be assigned to the others.
            let mut seqs = appended.seqs.filter(|_| appended.skipped == 0);
            for record in records.drain(..taken) {
                match (record.ack_on, seqs.next()) {
                    (AckOn::Finalized, Some(seq)) => push.register(seq, record.ack),
                    _ => record.ack.settle(Verdict::Delivered),
                }
            }
        }
        Ok(())
    }

    async fn next(&self, max: usize) -> Option<Vec<Buffered>> {
        let max = max.clamp(1, PAGE_RECORDS);
        let mut cursor = self.cursor.lock().await;
        loop {
            // Checked before the page is read: a push that ended before is on the page.
            let closed = self.closed.is_cancelled();
            let after = *cursor;
            match self.read(after, max).await {
                Err(e) => {
                    tracing::error!(sink = self.sink, error = %e, "the buffer could not be read to its end; its records are delivered after a restart");
                    return None;
                }
                Ok(page) if !page.is_empty() => return Some(self.hand_over(page, &mut cursor)),
                Ok(_) if closed => return None,
                Ok(_) => {}
            }
            tokio::select! {
                () = self.closed.cancelled() => {}
                () = self.data_available.notified() => {}
            }
        }
    }

    async fn mark_dispatched(
        &self,
        sent: Vec<Token>,
        not_sent: Vec<Token>,
    ) -> Result<(), BufferError> {
        let seqs = |tokens: Vec<Token>| tokens.into_iter().filter_map(Token::seq).collect();
        let (sent, not_sent): (Vec<i64>, Vec<i64>) = (seqs(sent), seqs(not_sent));
        retry::mark(&self.store, &self.sink, &self.stop, &self.errors, sent, not_sent)
            .await
            .map_err(BufferError::Stopped)
    }

    async fn settle(&self, items: Vec<Completion>) -> Result<(), BufferError> {
        let mut acks = Vec::with_capacity(items.len());
        let mut batch = Vec::with_capacity(items.len());
        for item in items {
            acks.push((item.token.seq(), item.ack, reject_reason(&item.dead)));
            batch.push(Settlement { seq: item.token.seq(), dead: item.dead, seen: item.seen });
        }
        let seqs: Vec<i64> = batch.iter().filter_map(|s| s.seq).collect();
        retry::settle(&self.store, &self.sink, &self.stop, &self.errors, batch)
            .await
            .map_err(BufferError::Stopped)?;
        {
            let mut dispatched = self.dispatched();
            for seq in seqs {
                dispatched.in_flight.remove(&seq);
            }
        }
        for (seq, ack, reason) in acks {
            if let Some(seq) = seq {
                self.pending_acks.finish(seq, &reason);
            }
            settle_ack(ack, reason);
        }
        self.space_available.notify_waiters();
        Ok(())
    }

    async fn return_unsettled(&self, items: Vec<UnsettledRecord>) {
        {
            let mut dispatched = self.dispatched();
            for item in items {
                item.ack.settle(Verdict::Errored);
                if let Some(seq) = item.token.seq()
                    && dispatched.in_flight.remove(&seq)
                {
                    dispatched.returned.insert(seq, item.maybe_sent);
                }
            }
        }
        self.data_available.notify_one();
    }

    fn close(&self) {
        self.closed.cancel();
    }

    async fn finish(&self) -> Result<(), BufferError> {
        // Records in flight keep their marks.
        let (sent, not_sent): (Vec<_>, Vec<_>) = self
            .dispatched()
            .returned
            .iter()
            .map(|(seq, maybe)| (*seq, *maybe))
            .partition(|(_, maybe)| *maybe);
        let seqs = |of: Vec<(i64, bool)>| of.into_iter().map(|(seq, _)| seq).collect::<Vec<_>>();
        let (sent, not_sent) = (seqs(sent), seqs(not_sent));
        if sent.is_empty() && not_sent.is_empty() {
            return Ok(());
        }
        Ok(self.store.change_marks(&self.sink, sent, not_sent).await?)
    }

    fn size(&self) -> BufferSize {
        self.store.buffer_size(&self.sink)
    }

    fn storage_errors(&self) -> u64 {
        self.errors.load(Ordering::Relaxed)
    }

    fn discarded(&self) -> u64 {
        self.discarded.load(Ordering::Relaxed)
    }
}
