//! The common part of a connector's config: what Fluvio itself says there, for every version of it.
//!
//! Keys may be written with `-` or `_` between words; they are read with `_`.
//!
//! Not here: what it means for us (`assemble`).

#![expect(
    dead_code,
    reason = "many a value is asked for here and taken from the tree, where it has its place"
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
    /// What Fluvio needs to know.
    pub(super) meta: Meta,
    /// SmartModules that records pass, in order.
    #[serde(default)]
    pub(super) transforms: Option<Vec<TransformStep>>,
    /// Our own settings.
    #[serde(default)]
    usercom: Option<Value>,
}

/// The versions there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum ApiVersion {
    /// The first, which says no version.
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
    /// How sources write, which this is not.
    #[serde(default)]
    pub(super) producer: Option<Value>,
    /// The secrets that may be used.
    #[serde(default)]
    pub(super) secrets: Option<Vec<SecretName>>,
}

/// A topic, by name or described.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Topic {
    /// By name.
    Name(String),
    /// Described, so that it can be made.
    Described(Box<TopicConfig>),
}

/// How a topic is made where it is missing.
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
    /// How long records are kept.
    #[serde(default)]
    pub(super) retention: Option<Retention>,
    /// What producers compress with.
    #[serde(default)]
    pub(super) compression: Option<TopicCompression>,
    /// How repeated records are told.
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
    /// How many.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) count: Option<u32>,
    /// The largest size of each.
    #[serde(default)]
    pub(super) max_size: Option<ByteQuantity>,
    /// How many copies.
    #[serde(default)]
    #[schemars(range(min = 1, max = 65_536))]
    pub(super) replication: Option<u32>,
    /// Whether copies may lie in one rack.
    #[serde(default)]
    pub(super) ignore_rack_assignment: Option<bool>,
}

/// `topic.retention`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Retention {
    /// How long.
    #[serde(default)]
    pub(super) time: Option<String>,
    /// The size of a segment.
    #[serde(default)]
    pub(super) segment_size: Option<ByteQuantity>,
}

/// A size: a number of bytes, or a text with a unit.
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
    /// With what.
    #[serde(default, rename = "type")]
    pub(super) kind: CompressionKind,
}

/// What producers compress with. The words are Fluvio's, capitals and all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub(super) enum CompressionKind {
    /// Anything.
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
    /// Among which records.
    pub(super) bounds: Bounds,
    /// By what.
    pub(super) filter: Filter,
}

/// `deduplication.bounds`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Bounds {
    /// How many of the last.
    #[schemars(range(min = 1))]
    pub(super) count: u64,
    /// How old at most.
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
    /// The name offsets are kept under.
    #[serde(default)]
    pub(super) id: Option<String>,
    /// Which partitions.
    #[serde(default)]
    pub(super) partition: Option<FluvioPartitions>,
    /// How much the cluster sends at once.
    #[serde(default)]
    pub(super) max_bytes: Option<ByteQuantity>,
    /// Where to begin, and whether the place is kept.
    #[serde(default)]
    pub(super) offset: Option<Offset>,
}

/// `consumer.offset`.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Offset {
    /// Where to begin.
    #[serde(default)]
    start: Option<Start>,
    /// Whether the place is kept.
    strategy: FluvioStrategy,
    /// How often it is kept.
    #[serde(default)]
    pub(super) flush_period: Option<Period>,
}

/// Where to begin.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum Start {
    /// `beginning` or `end`.
    Word(StartWord),
    /// An offset, or a distance from the oldest record or from the end.
    Place(FluvioStartPlace),
}

/// The words for a start.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum StartWord {
    /// At the oldest record.
    Beginning,
    /// Behind the newest record.
    End,
}

/// A time, as Fluvio writes it here.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Period {
    /// Whole seconds.
    pub(super) secs: u64,
    /// Billionths of a second.
    #[serde(default)]
    pub(super) nanos: u32,
}

/// A secret that may be used.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SecretName {
    /// Its name.
    pub(super) name: String,
}

/// A SmartModule that records pass.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TransformStep {
    /// Its name.
    uses: String,
    /// Its parameters.
    #[serde(default)]
    with: Option<IndexMap<String, Value>>,
    /// How far it looks back when it starts.
    #[serde(default)]
    pub(super) lookback: Option<Value>,
}
