//! The common part of a connector's config, as Fluvio defines it, for every version of it.
//!
//! Keys may be written with `-` or `_` between words; they are parsed with `_`.

#![expect(
    dead_code,
    reason = "values are declared for the schema, and read from the tree with their positions"
)]

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::config::source::{FluvioPartitions, FluvioStartPlace, FluvioStrategy};

/// A connector's config.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ConnectorFile {
    /// The version of the format. Default: 0.0.0.
    #[serde(default, rename = "apiVersion")]
    pub(super) api_version: ApiVersion,
    /// The settings that Fluvio uses.
    pub(super) meta: Meta,
    /// SmartModules that process records, in order.
    #[serde(default)]
    pub(super) transforms: Option<Vec<TransformStep>>,
    /// The settings of this sink.
    #[serde(default)]
    usercom: Option<Value>,
}

/// The known versions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    /// The first, which has no version field.
    #[default]
    #[serde(rename = "0.0.0")]
    V0,
    /// The second.
    #[serde(rename = "0.1.0")]
    V1,
    /// The third: the topic may be described.
    #[serde(rename = "0.2.0")]
    V2,
}

/// `meta`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Meta {
    /// The connector's name.
    pub(super) name: String,
    /// Its kind.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// Its version.
    version: String,
    /// The topic.
    pub(super) topic: Topic,
    /// How the topic is read.
    #[serde(default)]
    pub(super) consumer: Option<Consumer>,
    /// The settings of source connectors, which this is not.
    #[serde(default)]
    pub(super) producer: Option<Value>,
    /// The secrets that may be referenced.
    #[serde(default)]
    pub(super) secrets: Option<Vec<SecretName>>,
}

/// A topic, by name or described.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Topic {
    /// By name.
    Name(String),
    /// Described, so that it can be created.
    Described(Box<TopicConfig>),
}

/// How a topic is created if it is missing.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicConfig {
    /// The version of the description.
    #[serde(default)]
    version: Option<String>,
    /// Its name.
    pub(super) meta: TopicMeta,
    /// Its partitions.
    #[serde(default)]
    pub(super) partition: Option<TopicPartitioning>,
    /// How long records are retained.
    #[serde(default)]
    pub(super) retention: Option<Retention>,
    /// The compression that producers must use.
    #[serde(default)]
    pub(super) compression: Option<TopicCompression>,
    /// How duplicate records are detected.
    #[serde(default)]
    pub(super) deduplication: Option<TopicDeduplication>,
}

/// `topic.meta`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicMeta {
    /// The name.
    pub(super) name: String,
}

/// `topic.partition`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicPartitioning {
    /// The number of partitions.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) count: Option<u32>,
    /// The largest size of each, in bytes or with a unit.
    #[serde(default)]
    pub(super) max_size: Option<ByteQuantity>,
    /// The number of replicas.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) replication: Option<u32>,
    /// Whether replicas may be in one rack.
    #[serde(default)]
    pub(super) ignore_rack_assignment: Option<bool>,
}

/// `topic.retention`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    /// How long records are retained.
    #[serde(default)]
    pub(super) time: Option<String>,
    /// The size of a segment.
    #[serde(default)]
    pub(super) segment_size: Option<ByteQuantity>,
}

/// A size: a number of bytes, or a string with a unit.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ByteQuantity {
    /// Bytes.
    Bytes(u64),
    /// With a unit.
    Text(String),
}

/// `topic.compression`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicCompression {
    /// The compression.
    #[serde(default, rename = "type")]
    pub(super) kind: CompressionKind,
}

/// The compression that producers must use. The words are Fluvio's, with their capitals.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum CompressionKind {
    /// Any.
    #[default]
    Any,
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

/// `topic.deduplication`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopicDeduplication {
    /// Among which records duplicates are detected.
    pub(super) bounds: Bounds,
    /// How duplicates are detected.
    pub(super) filter: Filter,
}

/// `deduplication.bounds`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    /// The number of the last records.
    #[schemars(range(min = 1))]
    pub(super) count: u64,
    /// The largest age of records.
    #[serde(default)]
    pub(super) age: Option<String>,
}

/// `deduplication.filter`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// The SmartModule.
    pub(super) transform: FilterTransform,
}

/// `deduplication.filter.transform`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FilterTransform {
    /// Its name.
    pub(super) uses: String,
    /// Its parameters.
    #[serde(default)]
    pub(super) with: IndexMap<String, String>,
}

/// `meta.consumer`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Consumer {
    /// The consumer id under which offsets are committed.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Which partitions are read.
    #[serde(default)]
    pub(super) partition: Option<FluvioPartitions>,
    /// The largest response of the cluster, in bytes.
    #[serde(default)]
    pub(super) max_bytes: Option<ByteQuantity>,
    /// Where to start, and whether offsets are committed.
    #[serde(default)]
    pub(super) offset: Option<Offset>,
}

/// `consumer.offset`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Offset {
    /// Where to start.
    #[serde(default)]
    start: Option<Start>,
    /// Whether offsets are committed.
    strategy: FluvioStrategy,
    /// How often offsets are committed.
    #[serde(default)]
    pub(super) flush_period: Option<Period>,
}

/// Where to start.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Start {
    /// `beginning` or `end`.
    Word(StartWord),
    /// An offset, or a distance from the oldest record or from the end.
    Place(FluvioStartPlace),
}

/// The named start positions.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StartWord {
    /// At the oldest record.
    Beginning,
    /// After the newest record.
    End,
}

/// A duration, as Fluvio writes it here.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    /// Whole seconds.
    pub(super) secs: u64,
    /// Billionths of a second.
    #[serde(default)]
    pub(super) nanos: u32,
}

/// A secret that may be referenced.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretName {
    /// Its name.
    pub(super) name: String,
}

/// A SmartModule that processes records.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransformStep {
    /// Its name.
    uses: String,
    /// Its parameters.
    #[serde(default)]
    with: Option<IndexMap<String, Value>>,
    /// How many past records it processes when it starts.
    #[serde(default)]
    pub(super) lookback: Option<Value>,
}
