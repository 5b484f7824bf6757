//! The settings of the `kafka` source. The names are Vector's, and librdkafka's below
//! `librdkafka_options`. Every build parses these settings; only builds with the feature `kafka`
//! contain the client.
//!
//! # Invariants
//!
//! The values of `librdkafka_options` appear in no `Debug` output and no message.

use indexmap::IndexMap;
use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize, Serializer};

use super::Decoding;
use crate::redact::REDACTED;

/// Reads records of Kafka topics as a member of a consumer group. Offsets are committed only after
/// their records were delivered or are in the dead letters.
///
/// Use it with `buffer.type = "memory"`: a disk buffer is on one machine, and what it holds is
/// already committed in Kafka, so no other member of the group can read it.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSourceConfig {
    /// Initial brokers: `host:port`, several separated by commas.
    pub bootstrap_servers: String,
    /// The consumer group. Processes of one group share the partitions.
    pub group_id: String,
    /// Topics to read. One that begins with `^` is a regular expression of topic names. At least
    /// one.
    #[schemars(length(min = 1))]
    pub topics: Vec<String>,
    /// Where to start in a partition for which the group has no valid offset. Default: `earliest`.
    #[serde(default)]
    pub auto_offset_reset: AutoOffsetReset,
    /// A topic to which rejected records are also produced, with their original key, payload and
    /// headers, and the reason in the header `usercom-sink-reason`. Their offsets are committed
    /// only after the brokers have stored them. With a disk buffer a record is acknowledged before
    /// it can be rejected, so rejected records are then only in the dead letters of its machine.
    /// Default: none.
    #[serde(default)]
    pub dead_letter_topic: Option<String>,
    /// How payloads become records. One message is one record; a message without payload (a
    /// tombstone) is a dead letter.
    #[serde(default)]
    pub decoding: Decoding,
    /// The IANA time zone of times without a zone, such as `2024-05-21 10:11:12`: `Europe/Warsaw`.
    /// It applies to the target `timestamp` and to `as = "timestamp"`, where the field has no
    /// `timezone` of its own, and to the preset. Set it where a system writes local time. Default:
    /// UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// How often settled offsets are committed, in milliseconds. Default: 5000.
    #[serde(default = "KafkaSourceConfig::default_commit_interval_ms")]
    #[schemars(range(min = 1))]
    pub commit_interval_ms: u64,
    /// After how long without a heartbeat the group removes this member, in milliseconds. Default:
    /// 10000.
    #[serde(default = "KafkaSourceConfig::default_session_timeout_ms")]
    #[schemars(range(min = 1, max = 3_600_000))]
    pub session_timeout_ms: u64,
    /// How long records in flight may take to settle when their partition is revoked, in
    /// milliseconds. Later ones count as possibly already sent for the next owner, which looks them
    /// up. Heartbeats continue meanwhile; it must be less than librdkafka's `max.poll.interval.ms`.
    /// Default: 30000.
    #[serde(default = "KafkaSourceConfig::default_drain_timeout_ms")]
    #[schemars(range(min = 1))]
    pub drain_timeout_ms: u64,
    /// The most records without a final status: these must settle before a partition can be
    /// revoked, and the next owner must look them up at User.com if this process is killed. A disk
    /// buffer acknowledges at once. Default: 1000.
    #[serde(default = "KafkaSourceConfig::default_max_in_flight")]
    #[schemars(range(min = 1))]
    pub max_in_flight: usize,
    /// Further settings of librdkafka as strings, such as `"security.protocol" = "sasl_ssl"`.
    /// Values appear in no output. Settings that the source must control are rejected. Default:
    /// none.
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

/// Where to start in a partition for which the group has no valid offset. The words are
/// librdkafka's.
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
    /// No start: the source ends with an error.
    Error,
}

impl AutoOffsetReset {
    /// The name in the pipeline file.
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

/// Settings are serialized without their values, which may be secrets.
fn names_only<S: Serializer>(
    options: &IndexMap<String, SecretString>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(options.keys().map(|key| (key, REDACTED)))
}
