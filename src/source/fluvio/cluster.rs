//! The interface to Fluvio: what a reader needs of a cluster and of a stream.
//!
//! # Invariants
//!
//! An implementation returns batches as the cluster sent them and marks one that was cut off as
//! truncated. It commits exactly the offsets that the reader names.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

/// One record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its offset. With SmartModules it is only an estimate: counted from the first record of its
    /// batch.
    pub offset: i64,
    /// When it was produced, in milliseconds since 1970, where the cluster stores it.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its payload.
    pub value: Bytes,
}

/// The offsets that a partition holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OffsetRange {
    /// The oldest offset.
    pub start: i64,
    /// The offset after the newest record.
    pub end: i64,
}

/// The committed offset of a consumer and a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The offset of the last settled record.
    pub offset: i64,
    /// When it was committed, by the cluster's clock.
    pub changed: u64,
}

/// Whether a batch was received completely.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// All of it.
    Complete,
    /// Its end is missing, because the response was full.
    Truncated {
        /// The size of the whole batch, including what precedes its records, in bytes.
        size: u64,
    },
}

/// Records that were stored together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The offset of its first record.
    pub base: i64,
    /// The offset after its last record, as the cluster reports it.
    pub next: i64,
    /// Whether it was received completely.
    pub completeness: Completeness,
    /// Its records; of a truncated batch, those that are whole.
    pub messages: Vec<Message>,
}

/// The response to one request for records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FetchResponse {
    /// The batches, in order. The first may begin before the requested offset, and the last may be
    /// truncated.
    pub batches: Vec<Batch>,
    /// The offsets that the partition holds at that moment.
    pub offset_range: OffsetRange,
    /// With SmartModules: the offset up to which they processed records.
    pub scanned_to: Option<i64>,
}

/// An error of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It may pass: the cluster is down, or a connection broke.
    #[error("{0}")]
    Transient(String),
    /// Waiting does not help: settings, versions, permissions.
    #[error("{0}")]
    Permanent(String),
    /// The offset was removed by the topic's retention.
    #[error("the offset was removed; the oldest is {next}")]
    OffsetOutOfRange {
        /// The oldest offset that exists.
        next: i64,
    },
    /// The topic was deleted while it was read.
    #[error("the topic was deleted")]
    Deleted,
}

/// How to create a missing topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// The number of partitions.
    pub partitions: u32,
    /// The number of replicas of each.
    pub replication: u32,
    /// Whether replicas may be in one rack.
    pub ignore_rack: bool,
    /// How long records are retained at least, in seconds; `None`: Fluvio's default.
    pub retention_secs: Option<u32>,
    /// The size of a segment, in bytes; `None`: Fluvio's default.
    pub segment_bytes: Option<u32>,
    /// The largest size of a partition, in bytes; `None`: Fluvio's default.
    pub max_partition_bytes: Option<u64>,
    /// The compression that producers must use; `None`: any.
    pub compression: Option<Compression>,
    /// How duplicate records are detected; `None`: not at all.
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

/// The compression that producers of a topic must use.
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

/// How a topic detects duplicate records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deduplication {
    /// Among how many of the last records.
    pub count: u64,
    /// Among records of at most this age, in seconds.
    pub age_secs: Option<u64>,
    /// The SmartModule that detects them.
    pub uses: String,
    /// Its parameters.
    pub with: BTreeMap<String, String>,
}

/// A cluster as one source sees it: its topic and its consumer.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// The number of partitions of the topic; `None` where the topic does not exist.
    async fn partitions(&self) -> Result<Option<u32>, ClusterError>;

    /// Creates the topic. Succeeds where it exists by then.
    async fn create(&self, new_topic: &NewTopic) -> Result<(), ClusterError>;

    /// The committed offsets of the consumer, by partition.
    async fn committed(&self) -> Result<BTreeMap<u32, CommittedOffset>, ClusterError>;

    /// The offsets of the whole topic, by partition. They may be slightly out of date.
    async fn offset_ranges(&self) -> Result<BTreeMap<u32, OffsetRange>, ClusterError>;

    /// The offsets of one partition, from the server that holds it: always up to date.
    async fn offset_range(&self, partition: u32) -> Result<OffsetRange, ClusterError>;

    /// Requests records of one partition from an offset on, at most this many bytes per response.
    async fn open(
        &self,
        partition: u32,
        from: i64,
        max_bytes: Option<u32>,
    ) -> Result<Box<dyn RecordStream>, ClusterError>;

    /// Commits an offset, that of the last settled record; returns when the cluster has stored it.
    async fn commit(&self, partition: u32, offset: i64) -> Result<(), ClusterError>;

    /// Deletes the committed offset of a partition.
    async fn delete_committed(&self, partition: u32) -> Result<(), ClusterError>;

    /// Drops connections; the next request connects again.
    async fn disconnect(&self);
}

/// Responses of one partition. After each, the next must be requested.
#[async_trait]
pub trait RecordStream: Send {
    /// The next response, which holds at least one record or a part of one; `None` where the
    /// connection ended. A cancelled call loses nothing.
    async fn next(&mut self) -> Option<Result<FetchResponse, ClusterError>>;

    /// Requests what follows from an offset on.
    async fn request_next(&mut self, from: i64) -> Result<(), ClusterError>;
}
