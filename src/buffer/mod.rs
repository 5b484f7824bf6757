//! Buffers: where records wait between their source and User.com, and what outlives a restart.
//!
//! [`store::Store`] is the pipeline's one storage engine; [`MemoryBuffer`] and [`DiskBuffer`] stand
//! on it behind the trait [`Buffer`]. Not here: what a record means, and who sends it.
//!
//! One invariant: a record pushed into a buffer leaves it only by [`Buffer::settle`], or by an
//! acknowledgement that tells its source to offer it again.

mod dead_letters;
mod disk;
mod error;
mod file_watch;
mod free_space;
mod integrity;
mod lock;
mod memory;
mod pending_acks;
mod queue;
mod retry;
mod schema;
pub mod store;
mod trim;
mod writer;

use std::sync::Arc;

use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::ack::Ack;
use crate::config::sink::{BufferConfig, BufferKind};
use crate::record::Record;

pub use dead_letters::{DeadLetter, DeadLetterFilter, Exported, StoredDeadLetter, export};
pub use disk::DiskBuffer;
pub use error::{BufferError, StoreError};
pub use memory::MemoryBuffer;
pub use queue::{AppendOutcome, BufferedRow, NewRecord, Settlement};
pub use store::{Access, Store};

/// The most records one [`Buffer::next`] or [`Store::read`] yields.
pub const PAGE_RECORDS: usize = 1000;

/// The most bytes of records one [`Store::read`] yields, unless a single record is larger: 4 MiB.
pub const PAGE_BYTES: u64 = 4 << 20;

/// What is counted per record beside its own bytes: keys, numbers, page headers.
pub const RECORD_OVERHEAD: u64 = 64;

/// How much a buffer holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BufferSize {
    /// Records.
    pub events: u64,
    /// Bytes of their bodies and metadata, with [`RECORD_OVERHEAD`] for each.
    pub bytes: u64,
}

/// Which buffered record is meant. Memory buffers keep no rows, so their tokens are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(Option<i64>);

impl Token {
    /// The row's sequence number in the store; `None` for a memory buffer.
    pub fn seq(self) -> Option<i64> {
        self.0
    }
}

/// A record on its way out of a buffer.
#[derive(Debug)]
pub struct Buffered {
    /// The record. From a disk buffer its acknowledgement is one nobody waits for: the source was
    /// told when the record became durable.
    pub record: Record,
    /// Names the record in [`Completion`] and [`UnsettledRecord`].
    pub token: Token,
    /// Whether it may already have been sent: an earlier run had
    /// [marked](Buffer::mark_dispatched) it when the process died, or its
    /// [source](Record::maybe_sent) says so.
    pub maybe_sent: bool,
}

/// What became of a record.
#[derive(Debug)]
pub struct Completion {
    /// The record's token.
    pub token: Token,
    /// The record's acknowledgement. It is settled once everything below is durable: rejected if
    /// there is a dead letter, delivered otherwise.
    pub ack: Ack,
    /// What could not be delivered, and why.
    pub dead: Vec<DeadLetter>,
    /// Message keys that were delivered and must not be sent again.
    pub seen: Vec<String>,
}

/// A record that nobody settled: its retries are used up, or the process is stopping.
#[derive(Debug)]
pub struct UnsettledRecord {
    /// The record's token.
    pub token: Token,
    /// The record's acknowledgement. A memory buffer drops it unsettled, so that the source offers
    /// the record again; a disk buffer keeps the record and yields it again.
    pub ack: Ack,
    /// Whether a request for it may have arrived.
    pub maybe_sent: bool,
}

/// Where records wait between their source and User.com.
///
/// Many may push; one reader at a time gets records, others wait their turn. Dropping the future of
/// [`next`](Self::next) loses nothing.
#[async_trait]
pub trait Buffer: Send + Sync {
    /// Takes records, in order.
    ///
    /// Where there is no room it waits (`when_full = "block"`), or settles the records it has no
    /// room for as [rejected](crate::ack::Verdict::Rejected) and counts them as
    /// [discarded](Self::discarded) (`"drop_newest"`): these are lost on the user's own wish and
    /// must not be offered again. One record larger than the whole buffer is taken when the buffer
    /// is empty.
    ///
    /// A disk buffer returns once the records are durable, and then settles them as delivered,
    /// unless they want to hear of their [settlement](crate::record::AckOn); if storage fails it tries again, which holds the source back. In a memory buffer the
    /// acknowledgement stays with the record.
    ///
    /// # Errors
    /// [`BufferError::Closed`] after [`close`](Self::close), [`BufferError::Stopped`] if that came
    /// while storage was failing. Records not taken are dropped unsettled, so their sources offer
    /// them again.
    async fn push(&self, records: Vec<Record>) -> Result<(), BufferError>;

    /// Waits for at least one record and yields up to `max` (at most [`PAGE_RECORDS`]), oldest
    /// first. `None` once the buffer is closed and has nothing more to hand out.
    async fn next(&self, max: usize) -> Option<Vec<Buffered>>;

    /// Notes, before it happens, that requests for records leave which must not be sent twice:
    /// after a crash only these may have been sent. The marks of those in `not_sent` are taken
    /// away. Durable once it returns; storage errors are tried again until the stop token given at
    /// the start is cancelled. A memory buffer does nothing: the sources of its records know.
    ///
    /// # Errors
    /// [`BufferError::Stopped`] if stopped while storage was failing; then nothing must be sent.
    async fn mark_dispatched(
        &self,
        sent: Vec<Token>,
        not_sent: Vec<Token>,
    ) -> Result<(), BufferError>;

    /// Says what became of records. Durable once it returns; storage errors are tried again until
    /// the stop token given at the start is cancelled.
    ///
    /// # Errors
    /// [`BufferError::Stopped`] if stopped while storage was failing. The records then count as
    /// unsettled: a disk buffer yields them again after a restart, a memory buffer's sources offer
    /// them again.
    async fn settle(&self, items: Vec<Completion>) -> Result<(), BufferError>;

    /// Takes back records that were not settled. See [`UnsettledRecord`].
    async fn return_unsettled(&self, items: Vec<UnsettledRecord>);

    /// Takes no more records. What is in the buffer is still handed out.
    fn close(&self);

    /// The last call, when nothing is being delivered any more: of the records that were given
    /// back, those that may have been sent are marked, and the others are not. After a shutdown
    /// without this call, every record that had been marked and not settled is yielded with
    /// [`maybe_sent`](Buffered::maybe_sent) at the next start.
    ///
    /// # Errors
    /// [`BufferError::Store`] if it could not be written; nothing is lost then.
    async fn finish(&self) -> Result<(), BufferError>;

    /// How much it holds. A disk buffer counts records until they are settled, a memory buffer
    /// until they are handed out.
    fn size(&self) -> BufferSize;

    /// How many records were dropped since the start because there was no room.
    fn discarded(&self) -> u64;

    /// How often storage failed since the start, or had no room, and was tried again.
    fn storage_errors(&self) -> u64;
}

/// The buffer a sink is configured with.
///
/// `stop` ends the repeating of failed writes; cancel it only when the process must end now.
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
