//! The `fluvio` source as it is written. The words are Fluvio's own. Not here: the client, which is
//! compiled in with the feature `fluvio`; these settings are read by every build.
//!
//! Invariant: the values of a SmartModule's parameters appear in no `Debug`.

use std::fmt;
use std::path::PathBuf;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Decoding;

/// Records of a Fluvio topic. Its cluster keeps the offset behind which everything was delivered or
/// is in the dead letters, by consumer and partition; a restart begins there.
///
/// Fluvio shares out nothing by itself: processes that divide a topic name their own `partitions`.
/// So a disk buffer is no worse here than elsewhere: what it holds is delivered by the process that
/// reads the same partitions the next time.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FluvioSourceConfig {
    /// The cluster's public address: `host:9003`. Default: that of the profile.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// The profile of `~/.fluvio/config` (or the file `FLV_PROFILE_PATH` names) to connect with,
    /// its encryption included. Either this or `endpoint`. Default: the current one.
    #[serde(default)]
    pub profile: Option<String>,
    /// The topic to read. It must exist.
    pub topic: String,
    /// Which partitions: `all`, a number, or a list of numbers. Default: `all`, new ones included.
    #[serde(default)]
    pub partitions: FluvioPartitions,
    /// The name offsets are kept under in the cluster. Pipelines that read the same topic for
    /// different purposes need different names. Default: `usercom-sink-` and the source's name.
    #[serde(default)]
    pub consumer: Option<String>,
    /// Where to begin, and whether offsets are committed to the cluster.
    #[serde(default)]
    pub offset: FluvioOffset,
    /// How payloads become records. One message is one record; an empty one is a dead letter.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times that name none, such as `2024-05-21 10:11:12`: `Europe/Warsaw`. It
    /// holds for the target `timestamp` and for `as = "timestamp"`, where the field has no `timezone`
    /// of its own, and in the preset. Set it where a system writes local time. Default: UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// Encryption of the connections to `endpoint`. A profile has its own.
    #[serde(default)]
    pub tls: FluvioTls,
    /// How much the cluster sends at once, in bytes. A batch that is larger is fetched by itself, up
    /// to 64 MiB or this, whichever is more. Default: Fluvio's own, 1 MiB, or what
    /// `FLV_CLIENT_MAX_FETCH_BYTES` says. With `transforms` at least 64 MiB is asked for, because the
    /// cluster passes over in silence what they make of one batch and is larger.
    #[serde(default)]
    #[schemars(range(min = 1, max = 2_147_483_647))]
    pub max_bytes: Option<u32>,
    /// Records read since the last kept offset at most, by partition: what a killed process leaves
    /// to be looked at twice. With `transforms`, more to the end of one answer. Default: 1000.
    #[serde(default = "FluvioSourceConfig::default_max_in_flight")]
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// How often an offset is kept while there is more to read, in milliseconds. It is kept sooner
    /// when a quarter of `max_in_flight` is settled, and at once where nothing more is there.
    /// Default: 1000.
    #[serde(default = "FluvioSourceConfig::default_commit_interval_ms")]
    #[schemars(range(min = 1))]
    pub commit_interval_ms: u64,
    /// SmartModules of the cluster that records pass before they are sent, in order. Only the ends of
    /// whole answers are kept behind them. Default: none.
    #[serde(default)]
    pub transforms: Vec<FluvioTransform>,
}

impl FluvioSourceConfig {
    /// The settings of a source that names its topic and nothing else.
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

    /// The name offsets are kept under, for the source called `name`.
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
    /// `all`: every partition, with those added later.
    Word(AllPartitions),
    /// The number of the one partition to read, such as `0`.
    One(#[schemars(range(max = 2_147_483_647))] u32),
    /// The numbers of the partitions to read, such as `[0, 2]`.
    List(Vec<u32>),
}

/// The value `all` of `partitions`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AllPartitions {
    /// Every partition there is.
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

/// Where reading begins, and whether offsets are committed to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FluvioOffset {
    /// Where to begin in a partition the consumer has no offset in: `beginning`, `end`, or a table
    /// with one of `absolute`, `from_beginning` and `from_end`. Default: `beginning`.
    pub start: FluvioStart,
    /// `manual` keeps the offset behind what is settled, and `auto` means the same here: an offset
    /// is never kept ahead of a delivery. With `none` nothing is kept and every run begins at
    /// `start`. Default: `manual`.
    pub strategy: FluvioStrategy,
}

/// Where reading begins without a kept offset.
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

/// The words for `offset.start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FluvioStartWord {
    /// At the oldest record that the topic still has.
    Beginning,
    /// After the newest record: only records produced from now on are read.
    End,
}

/// A place by number: one of its keys.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FluvioStartPlace {
    /// Begin at this offset.
    #[schemars(range(max = 9_223_372_036_854_775_807_u64))]
    pub absolute: Option<u64>,
    /// Begin this many records after the oldest one.
    pub from_beginning: Option<u32>,
    /// Begin this many records before the end.
    pub from_end: Option<u32>,
}

/// Whether offsets are committed to the cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FluvioStrategy {
    /// The offset after the last settled record is committed. Use it unless every run must begin at `start`.
    #[default]
    Manual,
    /// As `manual`.
    Auto,
    /// No offset is committed: every run begins at `start`.
    None,
}

impl FluvioStrategy {
    /// Whether offsets are kept in the cluster.
    pub fn keeps(self) -> bool {
        self != Self::None
    }
}

/// Encryption towards a cluster, as it is written. Fluvio's clients show a certificate of their own.
#[derive(Debug, Clone, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct FluvioTls {
    /// Whether connections are encrypted. Default: false.
    pub enabled: bool,
    /// The name in the cluster's certificate. Needed where TLS is enabled.
    pub domain: Option<String>,
    /// Certificates of the authorities that are trusted, a PEM file. Needed where TLS is enabled.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, a PEM file. Needed where TLS is enabled.
    pub crt_file: Option<PathBuf>,
    /// The client certificate's private key, a PEM file. Needed where TLS is enabled.
    pub key_file: Option<PathBuf>,
}

/// A SmartModule that records pass inside the cluster.
#[derive(Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FluvioTransform {
    /// The name of a SmartModule the cluster has.
    pub uses: String,
    /// Its parameters, as texts. Default: none.
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
