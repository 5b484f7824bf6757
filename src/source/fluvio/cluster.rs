//! The seam to Fluvio: what the reader needs of a cluster and of a stream, and nothing more.
//!
//! Not here: the client itself (`client`). Who implements these traits adds nothing of their own: an
//! answer holds the batches as the cluster sent them, with what was cut off at their end marked as
//! cut, and an offset is kept when, and only when, the reader names it.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

/// One record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its offset. Behind SmartModules it is only counted from the first record of its batch.
    pub offset: i64,
    /// When it was produced, in milliseconds since 1970, where the cluster knows.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its payload.
    pub value: Bytes,
}

/// What there is of a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffsetRange {
    /// The oldest offset.
    pub start: i64,
    /// The offset behind the newest record.
    pub end: i64,
}

/// The offset a cluster keeps for a consumer and a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedOffset {
    /// That of the last settled record.
    pub offset: i64,
    /// When it was kept, by the cluster's clock.
    pub changed: u64,
}

/// Whether all of a batch came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// All of it.
    Complete,
    /// Its end is missing: the answer was full. So large is the whole batch, in bytes.
    Truncated {
        /// With everything that stands before its records.
        size: u64,
    },
}

/// Records that were stored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The offset of its first record.
    pub base: i64,
    /// The offset behind its last record, by the cluster's own number.
    pub next: i64,
    /// Whether all of it came.
    pub completeness: Completeness,
    /// Its records, of a cut batch those that are whole.
    pub messages: Vec<Message>,
}

/// What the cluster answers to one question for records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// The batches, in order. The first may begin before the offset that was asked for, and the
    /// last may be cut.
    pub batches: Vec<Batch>,
    /// What there is of the partition at that moment.
    pub offset_range: OffsetRange,
    /// Behind SmartModules: the offset behind everything they looked at.
    pub scanned_to: Option<i64>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It may pass: the cluster is down, or a connection broke.
    #[error("{0}")]
    Transient(String),
    /// It does not pass by waiting: settings, versions, permissions.
    #[error("{0}")]
    Permanent(String),
    /// The offset was removed by the topic's retention.
    #[error("the offset is gone, the oldest is {next}")]
    OffsetOutOfRange {
        /// The oldest offset there is.
        next: i64,
    },
    /// The topic was deleted while it was read.
    #[error("the topic was deleted")]
    Deleted,
}

/// How a topic is to be made where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// How many partitions.
    pub partitions: u32,
    /// How many copies of each.
    pub replication: u32,
    /// Whether copies may lie in one rack.
    pub ignore_rack: bool,
    /// How long records are kept at least, in seconds; `None`: Fluvio's own default.
    pub retention_secs: Option<u32>,
    /// The size of a segment, in bytes; `None`: Fluvio's own default.
    pub segment_bytes: Option<u32>,
    /// The size of a partition at most, in bytes; `None`: Fluvio's own default.
    pub max_partition_bytes: Option<u64>,
    /// The compression producers are held to; `None`: any.
    pub compression: Option<Compression>,
    /// How repeated records are told; `None`: not at all.
    pub deduplication: Option<Deduplication>,
}

impl Default for NewTopic {
    fn default() -> Self {
        Self {
            partitions: 1,
            replication: 1,
            ignore_rack: false,
            retention_secs: None,
            segment_bytes: None,
            max_partition_bytes: None,
            compression: None,
            deduplication: None,
        }
    }
}

/// What producers of a topic must compress with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Nothing.
    None,
    /// gzip.
    Gzip,
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard.
    Zstd,
}

/// How a topic tells repeated records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplication {
    /// Among how many of the last records.
    pub count: u64,
    /// Among records of this age at most, in seconds.
    pub age_secs: Option<u64>,
    /// The SmartModule that tells.
    pub uses: String,
    /// Its parameters.
    pub with: BTreeMap<String, String>,
}

/// A cluster, as one source sees it: its topic and its consumer.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// How many partitions the topic has; `None` where there is no such topic.
    async fn partitions(&self) -> Result<Option<u32>, ClusterError>;

    /// Makes the topic. One that exists by now is as good.
    async fn create(&self, new_topic: &NewTopic) -> Result<(), ClusterError>;

    /// The offsets kept for the consumer, by partition.
    async fn committed(&self) -> Result<BTreeMap<u32, CommittedOffset>, ClusterError>;

    /// What there is of the whole topic, by partition. It may be behind the truth by a moment.
    async fn offset_ranges(&self) -> Result<BTreeMap<u32, OffsetRange>, ClusterError>;

    /// What there is of one partition, by the server that has it: the truth.
    async fn offset_range(&self, partition: u32) -> Result<OffsetRange, ClusterError>;

    /// Asks for the records of one partition from an offset on, at most so many bytes at once.
    async fn open(
        &self,
        partition: u32,
        from: i64,
        max_bytes: Option<u32>,
    ) -> Result<Box<dyn RecordStream>, ClusterError>;

    /// Has the cluster keep an offset, that of the last settled record; returns once it does.
    async fn commit(&self, partition: u32, offset: i64) -> Result<(), ClusterError>;

    /// Has the cluster forget the offset it keeps of a partition.
    async fn delete_committed(&self, partition: u32) -> Result<(), ClusterError>;

    /// Forgets connections, so that whatever is asked next connects anew.
    async fn disconnect(&self);
}

/// Answers of one partition. To each, the next one has to be asked for.
#[async_trait]
pub trait RecordStream: Send {
    /// The next answer, which holds at least one record or a part of one; `None` where the
    /// connection ended. A call that is dropped loses nothing.
    async fn next(&mut self) -> Option<Result<FetchResponse, ClusterError>>;

    /// Asks for what follows from an offset on.
    async fn request_next(&mut self, from: i64) -> Result<(), ClusterError>;
}
