//! The disk buffer: records wait in the store, and their sources are told "delivered" as soon as
//! they are durable, or where they ask for it, as soon as they are settled.
//!
//! One invariant: a record is handed out at most once at a time, oldest first. What may have been
//! sent is marked in the store before it is sent, so a record without a mark was never sent from
//! here.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::error::{BufferError, StoreError};
use super::memory::{reason, tell};
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
    /// Ends the repeating of failed writes.
    stop: CancellationToken,
    /// No more pushes.
    closed: CancellationToken,
    /// Bytes of records that are being written. They count as held, so that pushes side by side
    /// stay within the limit together.
    reserved_bytes: Mutex<u64>,
    /// Wakes the reader: records came, or came back.
    data_available: Notify,
    /// Wakes pushes that wait for room.
    space_available: Notify,
    /// Where the one reader stands: the last record read.
    cursor: tokio::sync::Mutex<i64>,
    dispatched: Mutex<Dispatched>,
    pending_acks: PendingAcks,
    discarded: AtomicU64,
    errors: AtomicU64,
}

/// Records that left, and may come back.
#[derive(Default)]
struct Dispatched {
    /// Handed out, neither settled nor given back.
    in_flight: BTreeSet<i64>,
    /// Given back, to be handed out again; whether they may have been sent.
    returned: BTreeMap<i64, bool>,
}

impl DiskBuffer {
    /// The buffer of one sink; what is stored of an earlier run comes first. There must be one at a
    /// time for a sink. See [`super::open`].
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
        self.dispatched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reserves room for as many of the records as there is room for, at least one if the buffer is
    /// empty and at most a page, all of whose sources are told at the same time. `None` if there is
    /// room for none.
    fn reserve<'a>(&'a self, records: &[Record]) -> Option<Reservation<'a>> {
        let mut reserved_bytes = self.reserved_bytes.lock().unwrap_or_else(PoisonError::into_inner);
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

    /// Waits until `reserve` finds room for the first record.
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

    /// Stores what room was reserved for.
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
                    // Delivery has made room.
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

    /// The next page, however often it has to be asked for.
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

    /// The next page: what was given back first, then what was not read yet. The caller must let it
    /// go without waiting for anything.
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
            // Somebody else settled them: they are not ours any more.
            self.dispatched().returned.retain(|seq, _| !back.contains_key(seq));
        }
        self.store.read(&self.sink, after, max).await
    }

    /// Notes a page as away.
    fn hand_over(&self, page: Vec<BufferedRow>, cursor: &mut i64) -> Vec<Buffered> {
        let mut dispatched = self.dispatched();
        page.into_iter()
            .map(|row| {
                *cursor = row.seq.max(*cursor);
                dispatched.returned.remove(&row.seq);
                dispatched.in_flight.insert(row.seq);
                let mut record = row.record.into_record();
                // The same each time it is read, so that what it becomes can be recognised.
                record.event_time.get_or_insert(row.received_at);
                Buffered { record, token: Token(Some(row.seq)), maybe_sent: row.maybe_sent }
            })
            .collect()
    }
}

/// Room taken for records on their way into the store; given up when dropped.
struct Reservation<'a> {
    buffer: &'a DiskBuffer,
    records: Vec<NewRecord>,
    bytes: u64,
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let reserved_bytes = self.buffer.reserved_bytes.lock();
        *reserved_bytes.unwrap_or_else(PoisonError::into_inner) -= self.bytes;
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
            // Where some were left out, nobody can say which of them the numbers are.
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
            // Asked before the page is read: a push that was over by then is on the page.
            let closed = self.closed.is_cancelled();
            let after = *cursor;
            match self.read(after, max).await {
                Err(e) => {
                    tracing::error!(sink = self.sink, error = %e, "buffer not read to its end");
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
            acks.push((item.token.seq(), item.ack, reason(&item.dead)));
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
            tell(ack, reason);
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
        // What is still away keeps the mark it has, if any.
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
