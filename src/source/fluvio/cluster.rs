//! The seam to Fluvio: what the reader needs of a cluster and of a stream, and nothing more.
//!
//! Not here: the client itself (`client`). Who implements these traits keeps one rule, which is the
//! client's and is the reader's whole difficulty: [`Stream::commit`] names no offset. It means
//! everything the stream has yielded, settled or not.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;

/// One record of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its offset.
    pub offset: i64,
    /// When it was produced, in milliseconds since 1970, where the cluster knows.
    pub timestamp: Option<i64>,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its payload.
    pub value: Bytes,
}

/// What there is of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The oldest offset.
    pub start: i64,
    /// The offset behind the newest record. It may be behind the truth, never before it.
    pub end: i64,
}

/// Where a stream begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Behind the offset the cluster keeps for the consumer; there must be one.
    Kept,
    /// At this offset, whatever is kept.
    Offset(i64),
}

/// Where a stream ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// Never: it waits for more.
    Stopped,
    /// Where the partition ends when the stream is opened.
    PresentEnd,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClusterError {
    /// It may pass: the cluster is down, or a connection broke.
    #[error("{0}")]
    Passing(String),
    /// It does not pass by waiting: settings, versions, permissions.
    #[error("{0}")]
    Lasting(String),
    /// The offset was removed by the topic's retention.
    #[error("the offset is gone, the oldest is {next}")]
    Gone {
        /// The oldest offset there is.
        next: i64,
    },
}

/// How a topic is to be made where it is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicWish {
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

impl Default for TopicWish {
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
    async fn create(&self, wish: &TopicWish) -> Result<(), ClusterError>;

    /// The offsets kept for the consumer, by partition: each that of the last settled record.
    async fn kept(&self) -> Result<BTreeMap<u32, i64>, ClusterError>;

    /// What there is of the topic, by partition.
    async fn extents(&self) -> Result<BTreeMap<u32, Extent>, ClusterError>;

    /// A stream of one partition. Never of several: a client that connects again by itself would
    /// begin in all of them at the offset of one.
    async fn open(
        &self,
        partition: u32,
        at: At,
        until: Until,
    ) -> Result<Box<dyn Stream>, ClusterError>;

    /// Forgets connections, so that whatever is asked next connects anew.
    async fn disconnect(&self);
}

/// The records of one partition, in order.
#[async_trait]
pub trait Stream: Send {
    /// The next record; `None` at the end, or where the connection ended.
    ///
    /// A call that was begun has to be waited for, or else the stream has to be dropped: to commit
    /// beside a call that waits would wait for ever.
    async fn next(&mut self) -> Option<Result<Message, ClusterError>>;

    /// Takes everything yielded for settled.
    async fn commit(&mut self) -> Result<(), ClusterError>;

    /// Has the cluster keep what was committed; returns once it does.
    async fn flush(&mut self) -> Result<(), ClusterError>;
}
