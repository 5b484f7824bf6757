//! The settings of the `fluvio` source. The words are Fluvio's own. Every build parses these
//! settings; only builds with the feature `fluvio` contain the client.
//!
//! # Invariants
//!
//! The values of a SmartModule's parameters appear in no `Debug` output.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Decoding;

/// Reads records of a Fluvio topic. The cluster stores, by consumer and partition, the offset up to
/// which everything was delivered or is in the dead letters; a restart begins there.
///
/// Fluvio does not distribute partitions: processes that share a topic each name their own
/// `partitions`. So a disk buffer is no disadvantage here: what it holds is delivered by the
/// process that reads the same partitions the next time.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FluvioSourceConfig {
    /// The cluster's public address: `host:9003`. Default: that of the profile.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The profile of `~/.fluvio/config` (or of the file in `FLV_PROFILE_PATH`) to connect with,
    /// including its encryption. Either this or `endpoint`. Default: the current one.
    #[serde(default)]
    pub profile: Option<String>,
    /// The topic to read. It must exist.
    pub topic: String,
    /// Which partitions: `all`, a number, or a list of numbers. Default: `all`, including new ones.
    #[serde(default)]
    pub partitions: FluvioPartitions,
    /// The consumer id under which offsets are committed. Pipelines that read the same topic for
    /// different purposes need different ids. Default: `usercom-sink-` and the source's name.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Where to start, and whether offsets are committed to the cluster.
    #[serde(default)]
    pub offset: FluvioOffset,
    /// How payloads become records. One message is one record; an empty one is a dead letter.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times without a zone, such as `2024-05-21 10:11:12`: `Europe/Warsaw`.
    /// It applies to the target `timestamp` and to `as = "timestamp"`, where the field has no
    /// `timezone` of its own, and to the preset. Set it where a system writes local time. Default:
    /// UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Encryption of the connections to `endpoint`. A profile has its own.
    #[serde(default)]
    pub tls: FluvioTls,
    /// The largest response of the cluster, in bytes. A larger batch is fetched alone, up to 64 MiB
    /// or this value, whichever is larger. Default: Fluvio's own, 1 MiB, or the value of
    /// `FLV_CLIENT_MAX_FETCH_BYTES`. With `transforms` at least 64 MiB is requested, because the
    /// cluster silently skips a larger result of one batch.
    #[serde(default)]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub max_bytes: Option<u32>,
    /// The most records per partition that are read after the last committed offset: these must be
    /// looked up after the process was killed. With `transforms`, more up to the end of one
    /// response. Default: 1000.
    #[serde(default = "FluvioSourceConfig::default_max_in_flight")]
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// How often an offset is committed while there is more to read, in milliseconds. It is
    /// committed sooner when a quarter of `max_in_flight` is settled, and at once at the end of the
    /// partition. Default: 1000.
    #[serde(default = "FluvioSourceConfig::default_commit_interval_ms")]
    #[schemars(range(min = 1))]
    pub commit_interval_ms: u64,
    /// SmartModules of the cluster that process records before they are sent, in order. With them
    /// only the ends of whole responses are committed. Default: none.
    #[serde(default)]
    pub transforms: Vec<FluvioTransform>,
}

impl FluvioSourceConfig {
    /// The settings of a source with only a topic.
    pub fn new(topic: impl Into<String>) -> Self {
        Self {
            endpoint: None,
            profile: None,
            topic: topic.into(),
            partitions: FluvioPartitions::default(),
            consumer: None,
            offset: FluvioOffset::default(),
            decoding: Decoding::default(),
            timezone: None,
            tls: FluvioTls::default(),
            max_bytes: None,
            max_in_flight: Self::default_max_in_flight(),
            commit_interval_ms: Self::default_commit_interval_ms(),
            transforms: Vec::new(),
        }
    }

    /// The consumer id of the source called `name`.
    pub fn consumer_id(&self, name: &str) -> String {
        self.consumer.clone().unwrap_or_else(|| format!("usercom-sink-{name}"))
    }

    fn default_max_in_flight() -> usize {
        1_000
    }

    fn default_commit_interval_ms() -> u64 {
        1_000
    }
}

/// Which partitions of a topic are read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FluvioPartitions {
    /// `all`: every partition, including those added later.
    Word(AllPartitions),
    /// The number of the only partition to read, such as `0`.
    One(#[schemars(range(max = 2_147_483_647))] u32),
    /// The numbers of the partitions to read, such as `[0, 2]`.
    List(Vec<u32>),
}

/// The value `all` of `partitions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllPartitions {
    /// Every partition.
    All,
}

impl Default for FluvioPartitions {
    fn default() -> Self {
        Self::Word(AllPartitions::All)
    }
}

impl FluvioPartitions {
    /// The numbers, or `None` for all.
    pub fn numbers(&self) -> Option<Vec<u32>> {
        match self {
            Self::Word(AllPartitions::All) => None,
            Self::One(number) => Some(vec![*number]),
            Self::List(numbers) => Some(numbers.clone()),
        }
    }
}

/// Where reading starts, and whether offsets are committed to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FluvioOffset {
    /// Where to start in a partition without a committed offset: `beginning`, `end`, or a table
    /// with one of `absolute`, `from_beginning` and `from_end`. Default: `beginning`.
    pub start: FluvioStart,
    /// With `manual`, and equally with `auto`, the offset after the last settled record is
    /// committed; it is never committed before delivery. With `none` nothing is committed and every
    /// run starts at `start`. Default: `manual`.
    pub strategy: FluvioStrategy,
}

/// Where reading starts without a committed offset.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum FluvioStart {
    /// `beginning` or `end`.
    Word(FluvioStartWord),
    /// An offset, or a distance from the oldest record or from the end.
    Place(FluvioStartPlace),
}

impl Default for FluvioStart {
    fn default() -> Self {
        Self::Word(FluvioStartWord::Beginning)
    }
}

/// The named values of `offset.start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FluvioStartWord {
    /// At the oldest record that the topic still has.
    Beginning,
    /// After the newest record: only records produced from now on are read.
    End,
}

/// A numeric start position: one of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FluvioStartPlace {
    /// Start at this offset.
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    pub absolute: Option<u64>,
    /// Start this many records after the oldest one.
    pub from_beginning: Option<u32>,
    /// Start this many records before the end.
    pub from_end: Option<u32>,
}

/// Whether offsets are committed to the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FluvioStrategy {
    /// The offset after the last settled record is committed. Use it unless every run must start at
    /// `start`.
    #[default]
    Manual,
    /// As `manual`.
    Auto,
    /// No offset is committed: every run starts at `start`.
    None,
}

impl FluvioStrategy {
    /// Whether offsets are committed to the cluster.
    pub fn keeps(self) -> bool {
        self != Self::None
    }
}

/// Encryption of connections to a cluster. Fluvio's clients send a certificate of their own.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FluvioTls {
    /// Whether connections are encrypted. Default: false.
    pub enabled: bool,
    /// The name in the cluster's certificate. Required where TLS is enabled.
    pub domain: Option<String>,
    /// Certificates of the trusted authorities, a PEM file. Required where TLS is enabled.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, a PEM file. Required where TLS is enabled.
    pub crt_file: Option<PathBuf>,
    /// The private key of the client's certificate, a PEM file. Required where TLS is enabled.
    pub key_file: Option<PathBuf>,
}

/// A SmartModule that processes records inside the cluster.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FluvioTransform {
    /// The name of a SmartModule of the cluster.
    pub uses: String,
    /// Its parameters, as strings. Default: none.
    #[serde(default)]
    pub with: IndexMap<String, String>,
}

impl fmt::Debug for FluvioTransform {
    /// Without the values of parameters, which may be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FluvioTransform")
            .field("uses", &self.uses)
            .field("with", &self.with.keys())
            .finish()
    }
}
