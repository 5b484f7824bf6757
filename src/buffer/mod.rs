//! Buffers hold records between their source and User.com; the store keeps what must survive a
//! restart.
//!
//! [`store::Store`] is the pipeline's only storage engine. [`MemoryBuffer`] and [`DiskBuffer`] use
//! it and implement the trait [`Buffer`].
//!
//! # Invariants
//! A record that was pushed into a buffer leaves it only by [`Buffer::settle`], or by an
//! acknowledgement that makes its source send the record again.

mod copy;
mod dead_letter_summary;
mod dead_letters;
mod disk;
mod error;
mod file_watch;
mod free_space;
mod integrity;
mod lock;
mod memory;
mod paths;
mod pending_acks;
mod queue;
mod quotas;
mod retry;
mod schema;
mod seen;
mod sizes;
mod sql;
pub mod store;
mod survey;
mod totals;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::ack::Ack;
use crate::config::sink::{BufferConfig, BufferKind};
use crate::record::Record;

pub use dead_letter_summary::DeadLetterCause;
pub use dead_letters::{DeadLetter, DeadLetterFilter, Exported, StoredDeadLetter, export};
pub use disk::DiskBuffer;
pub use error::{BufferError, StoreError};
pub use memory::MemoryBuffer;
pub use queue::{AppendOutcome, BufferedRow, NewRecord, Settlement};
pub use sizes::{BufferSize, RECORD_OVERHEAD};
pub use store::{Access, Store};
pub use survey::{DeadLetterGroup, DeadLetterRow};

/// The most records one [`Buffer::next`] or [`Store::read`] yields.
pub const PAGE_RECORDS: usize = 1000;

/// The most bytes of records one [`Store::read`] yields, unless a single record is larger: 4 MiB.
pub const PAGE_BYTES: u64 = 4 << 20;

/// Identifies a buffered record. A memory buffer has no rows, so all its tokens are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(Option<i64>);

impl Token {
    /// The row's sequence number in the store; `None` for a memory buffer.
    pub fn seq(self) -> Option<i64> {
        self.0
    }
}

/// A record read from a buffer, for delivery.
#[derive(Debug)]
pub struct Buffered {
    /// The record. From a disk buffer its acknowledgement is a no-op: the source was notified when
    /// the record became durable.
    pub record: Record,
    /// Identifies the record in [`Completion`] and [`UnsettledRecord`].
    pub token: Token,
    /// Whether it may already have been sent: an earlier run had
    /// [marked](Buffer::mark_dispatched) it when the process died, or its
    /// [source](Record::maybe_sent) says so.
    pub maybe_sent: bool,
    /// When the buffer accepted it.
    pub arrived: Timestamp,
}

/// The final status of a record.
#[derive(Debug)]
pub struct Completion {
    /// The record's token.
    pub token: Token,
    /// The record's acknowledgement. It is settled once the fields below are durable: as rejected
    /// if there is a dead letter, as delivered otherwise.
    pub ack: Ack,
    /// What could not be delivered, and why.
    pub dead: Vec<DeadLetter>,
    /// Message keys that were delivered and must not be sent again.
    pub seen: Vec<String>,
}

/// A record without a final status: its retries are used up, or the process is stopping.
#[derive(Debug)]
pub struct UnsettledRecord {
    /// The record's token.
    pub token: Token,
    /// The record's acknowledgement. A memory buffer drops it unsettled, so that the source sends
    /// the record again; a disk buffer keeps the record and yields it again.
    pub ack: Ack,
    /// Whether a request for it may have arrived.
    pub maybe_sent: bool,
}

/// Holds records between their source and User.com.
///
/// Several tasks may push; one reader at a time gets records, other readers wait. Dropping the
/// future of [`next`](Self::next) loses nothing.
#[async_trait]
pub trait Buffer: Send + Sync {
    /// Accepts records, in order.
    ///
    /// Where the buffer is full it waits (`when_full = "block"`), or settles the records that do
    /// not fit as [rejected](crate::ack::Verdict::Rejected) and counts them as
    /// [discarded](Self::discarded) (`"drop_newest"`): the user configured that they are lost, so
    /// they must not be sent again. One record larger than the whole buffer is accepted when the
    /// buffer is empty.
    ///
    /// A disk buffer returns once the records are durable, and then settles them as delivered,
    /// unless their [`AckOn`](crate::record::AckOn) asks for the final status. If storage fails it
    /// retries, and the source waits meanwhile. In a memory buffer the acknowledgement stays with
    /// the record.
    ///
    /// # Errors
    ///
    /// [`BufferError::Closed`] after [`close`](Self::close), [`BufferError::Stopped`] if
    /// that came while storage was failing. Records that were not accepted are dropped unsettled,
    /// so their sources send them again.
    async fn push(&self, records: Vec<Record>) -> Result<(), BufferError>;

    /// Waits for at least one record and yields up to `max` (at most [`PAGE_RECORDS`]), oldest
    /// first. `None` once the buffer is closed and empty.
    async fn next(&self, max: usize) -> Option<Vec<Buffered>>;

    /// Marks records before non-idempotent requests for them are sent: after a crash only marked
    /// records may have been sent. Removes the marks of the records in `not_sent`. Durable once it
    /// returns. Storage errors are retried until the buffer's stop token is cancelled. A memory
    /// buffer does nothing: the sources of its records track this.
    ///
    /// # Errors
    ///
    /// [`BufferError::Stopped`] if stopped while storage was failing; then the requests
    /// must not be sent.
    async fn mark_dispatched(
        &self,
        sent: Vec<Token>,
        not_sent: Vec<Token>,
    ) -> Result<(), BufferError>;

    /// Stores the final status of records. Durable once it returns. Storage errors are retried
    /// until the buffer's stop token is cancelled.
    ///
    /// # Errors
    ///
    /// [`BufferError::Stopped`] if stopped while storage was failing. The records then
    /// count as unsettled: a disk buffer yields them again after a restart, the sources of a memory
    /// buffer send them again.
    async fn settle(&self, items: Vec<Completion>) -> Result<(), BufferError>;

    /// Takes back records that were not settled. See [`UnsettledRecord`].
    async fn return_unsettled(&self, items: Vec<UnsettledRecord>);

    /// Accepts no more records. Records in the buffer are still yielded.
    fn close(&self);

    /// Call this last, when no delivery is running. Of the records that were returned unsettled, it
    /// marks those that may have been sent and unmarks the others. After a shutdown without this
    /// call, every record that was marked and not settled is yielded with
    /// [`maybe_sent`](Buffered::maybe_sent) at the next start.
    ///
    /// # Errors
    /// [`BufferError::Store`] if it could not be written; nothing is lost then.
    async fn finish(&self) -> Result<(), BufferError>;

    /// How much it holds. A disk buffer counts records until they are settled, a memory buffer
    /// until they are yielded.
    fn size(&self) -> BufferSize;

    /// When the oldest record arrived of those that [`size`](Self::size) counts.
    async fn oldest(&self) -> Option<Timestamp>;

    /// How many records were dropped since the start because the buffer was full.
    fn discarded(&self) -> u64;

    /// How often storage failed or was full since the start, and was retried.
    fn storage_errors(&self) -> u64;

    /// Why storage fails at present; `None` while it works.
    fn storage_trouble(&self) -> Option<String>;
}

/// Opens the buffer that a sink is configured with.
///
/// `stop` ends the retries of failed writes; cancel it only when the process must end now.
///
/// # Errors
/// [`BufferError::Store`] if the store cannot be read.
pub async fn open(
    config: &BufferConfig,
    sink: &str,
    store: Store,
    stop: CancellationToken,
) -> Result<Arc<dyn Buffer>, BufferError> {
    Ok(match config.kind {
        BufferKind::Memory => Arc::new(MemoryBuffer::new(config, sink, store, stop)),
        BufferKind::Disk => Arc::new(DiskBuffer::open(config, sink, store, stop).await?),
    })
}
