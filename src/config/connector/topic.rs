//! The topic as a connector's config describes it, for when it is missing.
//!
//! # Invariants
//!
//! What the config does not set is left to Fluvio.

use std::collections::BTreeMap;

use super::meta::{ApiVersion, ByteQuantity, CompressionKind, ConnectorFile, Topic, TopicConfig};
use crate::config::fault::{ConfigPath, Fault, Target};
use crate::config::quantity::{bytes, duration};

/// How a topic is created.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TopicShape {
    /// How many partitions; at least one.
    pub partitions: Option<u32>,
    /// The number of replicas of each.
    pub replication: Option<u32>,
    /// Whether replicas may be in one rack.
    pub ignore_rack: bool,
    /// How long records are kept, in seconds.
    pub retention_secs: Option<u32>,
    /// The size of a segment, in bytes.
    pub segment_bytes: Option<u32>,
    /// The largest size of a partition, in bytes.
    pub max_partition_bytes: Option<u64>,
    /// The compression that producers must use: `none`, `gzip`, `snappy`, `lz4` or `zstd`.
    pub compression: Option<&'static str>,
    /// How duplicate records are detected.
    pub deduplication: Option<DeduplicationShape>,
}

/// How a topic detects duplicate records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeduplicationShape {
    /// Among how many of the last records.
    pub count: u64,
    /// Among records of at most this age, in seconds.
    pub age_secs: Option<u64>,
    /// The SmartModule that detects them.
    pub uses: String,
    /// Its parameters.
    pub with: BTreeMap<String, String>,
}

/// The topic that a config describes; its faults are added to `faults`.
pub(super) fn shape(file: &ConnectorFile, faults: &mut Vec<Fault>) -> TopicShape {
    let path = ConfigPath::default().key("meta").key("topic");
    let config = match &file.meta.topic {
        Topic::Name(name) => {
            if file.api_version == ApiVersion::V2 {
                faults.push(Fault {
                    code: "E0409",
                    path,
                    target: Target::Value,
                    message: "with `apiVersion: 0.2.0` or later a topic is a table, and not only its name"
                        .to_owned(),
                    help: Some(format!(
                        "write `topic: {{ meta: {{ name: {name} }} }}`, or `apiVersion: 0.1.0`"
                    )),
                });
            }
            return TopicShape::default();
        }
        Topic::Described(config) => config,
    };
    if file.api_version != ApiVersion::V2 {
        faults.push(Fault {
            code: "E0409",
            path: path.clone(),
            target: Target::Key,
            message: "a topic can be described only from `apiVersion: 0.2.0` on".to_owned(),
            help: Some("write that version, or only the topic's name".to_owned()),
        });
    }
    let mut reader = TopicReader { path, faults };
    reader.shape(config)
}

struct TopicReader<'a> {
    path: ConfigPath,
    faults: &'a mut Vec<Fault>,
}

impl TopicReader<'_> {
    fn shape(&mut self, config: &TopicConfig) -> TopicShape {
        let partition = config.partition.as_ref();
        let retention = config.retention.as_ref();
        let time = retention.and_then(|retention| retention.time.as_deref());
        let segment = retention.and_then(|retention| retention.segment_size.as_ref());
        let largest = partition.and_then(|partition| partition.max_size.as_ref());
        TopicShape {
            partitions: partition.and_then(|partition| partition.count),
            replication: partition.and_then(|partition| partition.replication),
            ignore_rack: partition
                .and_then(|partition| partition.ignore_rack_assignment)
                .unwrap_or_default(),
            retention_secs: self
                .time(&["retention", "time"], time)
                .and_then(|secs| self.narrow(&["retention", "time"], secs)),
            segment_bytes: self
                .size(&["retention", "segment_size"], segment)
                .and_then(|bytes| self.narrow(&["retention", "segment_size"], bytes)),
            max_partition_bytes: self.size(&["partition", "max_size"], largest),
            compression: config.compression.as_ref().and_then(|it| match it.kind {
                CompressionKind::Any => None,
                CompressionKind::None => Some("none"),
                CompressionKind::Gzip => Some("gzip"),
                CompressionKind::Snappy => Some("snappy"),
                CompressionKind::Lz4 => Some("lz4"),
                CompressionKind::Zstd => Some("zstd"),
            }),
            deduplication: config.deduplication.as_ref().map(|deduplication| {
                let age = deduplication.bounds.age.as_deref();
                let transform = &deduplication.filter.transform;
                let with = transform.with.iter();
                DeduplicationShape {
                    count: deduplication.bounds.count,
                    age_secs: self.time(&["deduplication", "bounds", "age"], age),
                    uses: transform.uses.clone(),
                    with: with.map(|(key, value)| (key.clone(), value.clone())).collect(),
                }
            }),
        }
    }

    fn at(&self, keys: &[&str]) -> ConfigPath {
        keys.iter().fold(self.path.clone(), |path, key| path.key(*key))
    }

    fn fault(&mut self, keys: &[&str], message: String, help: &str) {
        let path = self.at(keys);
        let help = Some(help.to_owned());
        self.faults.push(Fault { code: "E0410", path, target: Target::Value, message, help });
    }

    fn time(&mut self, keys: &[&str], text: Option<&str>) -> Option<u64> {
        let text = text?;
        let time = duration(text).filter(|time| time.subsec_nanos() == 0);
        let time = time.map(|time| time.as_secs());
        if time.is_none() {
            self.fault(keys, format!("{text:?} is not a duration"), "write `7d`, or `2h 30m`");
        }
        time
    }

    fn size(&mut self, keys: &[&str], size: Option<&ByteQuantity>) -> Option<u64> {
        match size? {
            ByteQuantity::Bytes(bytes) => Some(*bytes),
            ByteQuantity::Text(text) => {
                let size = bytes(text);
                if size.is_none() {
                    self.fault(
                        keys,
                        format!("{text:?} is not a size"),
                        "write `16 MiB`, or `1 GB`",
                    );
                }
                size
            }
        }
    }

    fn narrow(&mut self, keys: &[&str], number: u64) -> Option<u32> {
        let narrow = u32::try_from(number).ok();
        if narrow.is_none() {
            self.fault(keys, "this is more than Fluvio allows".to_owned(), "write a smaller value");
        }
        narrow
    }
}
