//! The `kafka` source as it is written. The names are Vector's, and librdkafka's below
//! `librdkafka_options`. Not here: the client itself, which is compiled in with the feature
//! `kafka`; these settings are read by every build.
//!
//! Invariant: the values of `librdkafka_options` appear in no `Debug` and no message.

use indexmap::IndexMap;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};

use super::Decoding;

/// Records of Kafka topics, read as a member of a consumer group. Offsets are committed only behind
/// records that were delivered or are in the dead letters.
///
/// Use it with `buffer.type = "memory"`: a disk buffer belongs to its machine, and what it holds is
/// committed in Kafka and so offered to no other member of the group.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSourceConfig {
    /// Brokers to begin with: `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// The consumer group. Processes of one group share the partitions.
    pub group_id: String,
    /// Topics to read. One that begins with `^` is a regular expression of topic names. At least
    /// one.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// Where to begin in a partition the group has no valid offset in. Default: `earliest`.
    #[serde(default)]
    pub auto_offset_reset: AutoOffsetReset,
    /// A topic that rejected records are produced to as well, with their key, payload and headers
    /// as they came, and the reason in the header `usercom-sink-reason`. Their offsets are committed
    /// only after the brokers have them. With a disk buffer a record is accepted before it can be
    /// rejected, so that only dead letters of its own machine tell. Default: none.
    #[serde(default)]
    pub dead_letter_topic: Option<String>,
    /// How payloads become records. One message is one record; an empty one, or a tombstone, is a
    /// dead letter.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times that name none, such as `2024-05-21 10:11:12`: `Europe/Warsaw`. It
    /// holds for the target `timestamp` and for `as = "timestamp"`, where the field has no `timezone`
    /// of its own, and in the preset. Set it where a system writes local time. Default: UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// How often settled offsets are committed, in milliseconds. Default: 5000.
    #[serde(default = "KafkaSourceConfig::default_commit_interval_ms")]
    #[schemars(range(min = 1))]
    pub commit_interval_ms: u64,
    /// After how long without a heartbeat the group takes this member for dead, in milliseconds.
    /// Default: 10000.
    #[serde(default = "KafkaSourceConfig::default_session_timeout_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub session_timeout_ms: u64,
    /// How long records in flight may take to settle when their partition goes to another member,
    /// in milliseconds. What is later is in doubt for the other member, which looks whether it
    /// arrived. Heartbeats go on
    /// meanwhile; it must be below librdkafka's `max.poll.interval.ms`. Default: 30000.
    #[serde(default = "KafkaSourceConfig::default_drain_timeout_ms")]
    #[schemars(range(min = 1))]
    pub drain_timeout_ms: u64,
    /// Records without a verdict at most: what has to settle before a partition can go, and what
    /// its successor has to look for at User.com if this process is killed. A disk buffer gives its
    /// verdict at once. Default: 1000.
    #[serde(default = "KafkaSourceConfig::default_max_in_flight")]
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// Further settings of librdkafka as texts, such as `"security.protocol" = "sasl_ssl"`. Values
    /// are shown nowhere. Settings that the source must own are refused. Default: none.
    #[serde(default, serialize_with = "names_only")]
    #[schemars(with = "IndexMap<String, String>")]
    pub librdkafka_options: IndexMap<String, SecretString>,
}

impl KafkaSourceConfig {
    fn default_commit_interval_ms() -> u64 {
        5_000
    }

    fn default_session_timeout_ms() -> u64 {
        10_000
    }

    fn default_drain_timeout_ms() -> u64 {
        30_000
    }

    fn default_max_in_flight() -> usize {
        1_000
    }
}

/// Where to begin in a partition the group has no valid offset in. The words are librdkafka's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AutoOffsetReset {
    /// At the oldest record that the topic still has.
    #[default]
    Earliest,
    /// As `earliest`.
    Smallest,
    /// As `earliest`.
    Beginning,
    /// After the newest record: only records produced from now on are read.
    Latest,
    /// As `latest`.
    Largest,
    /// As `latest`.
    End,
    /// Nowhere: the source ends with an error.
    Error,
}

impl AutoOffsetReset {
    /// The word, as the file writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Earliest => "earliest",
            Self::Smallest => "smallest",
            Self::Beginning => "beginning",
            Self::Latest => "latest",
            Self::Largest => "largest",
            Self::End => "end",
            Self::Error => "error",
        }
    }

    /// Whether it means the oldest record.
    pub fn is_earliest(self) -> bool {
        matches!(self, Self::Earliest | Self::Smallest | Self::Beginning)
    }
}

/// Settings are written without their values, which may be secrets.
fn names_only<S: Serializer>(
    options: &IndexMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(options.keys().map(|key| (key, "***")))
}
