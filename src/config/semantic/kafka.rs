//! Checks Kafka sources, and sinks that read one through a disk buffer.

use std::collections::HashSet;

use secrecy::ExposeSecret;

use super::FaultCollector;
use crate::config::fault::{ConfigPath, Target};
use crate::config::pipeline::SinkConfig;
use crate::config::recover::RecoveredParts;
use crate::config::sink::BufferKind;
use crate::config::source::{KafkaSourceConfig, SourceConfig};
use crate::config::suggest::regex_fault;

/// librdkafka's own default of `max.poll.interval.ms`.
const MAX_POLL_INTERVAL_MS: u64 = 300_000;

/// Settings of librdkafka that the source must own, and what to write instead.
const OWNED_OPTIONS: &[(&str, &str)] = &[
    ("bootstrap.servers", "write `bootstrap_servers` instead"),
    ("metadata.broker.list", "write `bootstrap_servers` instead"),
    ("group.id", "write `group_id` instead"),
    ("auto.offset.reset", "write `auto_offset_reset` instead"),
    ("session.timeout.ms", "write `session_timeout_ms` instead"),
    ("auto.commit.interval.ms", "write `commit_interval_ms` instead"),
    (
        "auto.commit.enable",
        "leave it out: offsets are committed only after their records are settled",
    ),
    (
        "enable.auto.commit",
        "leave it out: offsets are committed only after their records are settled",
    ),
    (
        "enable.auto.offset.store",
        "leave it out: offsets are committed only after their records are settled",
    ),
    ("offset.store.method", "leave it out: offsets are stored by the brokers"),
    ("enable.partition.eof", "leave it out: `run --once` sets it where it needs it"),
    ("partition.assignment.strategy", "leave it out: it is always `cooperative-sticky`"),
    ("group.protocol", "leave it out: it is always `classic`"),
    ("statistics.interval.ms", "leave it out: the metric of the lag is made from it"),
    ("transactional.id", "leave it out: the source does not produce in transactions"),
];

/// Faults of one Kafka source, except its decoding. `path` is `sources.NAME`.
pub(super) fn check(faults: &mut FaultCollector<'_>, path: &ConfigPath, kafka: &KafkaSourceConfig) {
    servers(faults, path, &kafka.bootstrap_servers);
    if kafka.group_id.trim().is_empty() {
        let help = "name it after the pipeline: every process of the group writes the same name";
        faults.at("E0352", path.key("group_id"), Target::Value, "the group has no name", help);
    }
    topics(faults, path, kafka);
    options(faults, path, kafka);
}

fn servers(faults: &mut FaultCollector<'_>, path: &ConfigPath, servers: &str) {
    let wrong = servers.split(',').map(str::trim).find(|server| !is_server(server));
    if let Some(wrong) = wrong {
        let message = match wrong {
            "" => "a broker without a name".to_owned(),
            _ => format!("`{wrong}` is not the address of a broker"),
        };
        let help = "write `host:port`, several separated by commas: `kafka-1:9092,kafka-2:9092`";
        faults.at("E0351", path.key("bootstrap_servers"), Target::Value, message, help);
    }
}

/// `host`, `host:port` or `[address]:port`, with an optional protocol before it.
fn is_server(text: &str) -> bool {
    let address = text.split_once("://").map_or(text, |(_, address)| address);
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (address, None),
    };
    let named = !host.is_empty()
        && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]%".contains(&b));
    named && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0))
}

fn topics(faults: &mut FaultCollector<'_>, path: &ConfigPath, kafka: &KafkaSourceConfig) {
    let letters = kafka.dead_letter_topic.as_deref();
    let mut seen = HashSet::new();
    for (index, topic) in kafka.topics.iter().enumerate() {
        let path = path.key("topics").index(index);
        let pattern = topic.starts_with('^').then(|| regex::Regex::new(topic));
        if !seen.insert(topic) {
            let message = format!("topic `{topic}` is listed twice");
            faults.at("E0353", path, Target::Value, message, "leave one of them out");
        } else if let Some(Err(error)) = &pattern {
            let message = format!("bad regular expression: {}", regex_fault(error));
            let help = "a topic that begins with `^` is a pattern of names: `^app-.*`";
            faults.at("E0353", path, Target::Value, message, help);
        } else if pattern.is_none() && !is_topic(topic) {
            let message = format!("{topic:?} cannot be a topic");
            let help = "at most 249 letters, digits, `.`, `_` and `-`; a pattern begins with `^`";
            faults.at("E0353", path, Target::Value, message, help);
        } else if let Some(letters) = letters {
            let read = match &pattern {
                Some(Ok(pattern)) => pattern.is_match(letters),
                _ => topic == letters,
            };
            if read {
                let message = format!("the dead letters in `{letters}` would be read again");
                let help = "choose a `dead_letter_topic` that is not among the `topics`";
                faults.at("E0353", path, Target::Value, message, help);
            }
        }
    }
    if let Some(letters) = letters
        && !is_topic(letters)
    {
        let message = format!("{letters:?} cannot be a topic");
        let help = "at most 249 letters, digits, `.`, `_` and `-`";
        faults.at("E0353", path.key("dead_letter_topic"), Target::Value, message, help);
    }
}

fn is_topic(name: &str) -> bool {
    (1..=249).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn options(faults: &mut FaultCollector<'_>, path: &ConfigPath, kafka: &KafkaSourceConfig) {
    let below = path.key("librdkafka_options");
    for key in kafka.librdkafka_options.keys() {
        if let Some((_, help)) = OWNED_OPTIONS.iter().find(|(owned, _)| owned == key) {
            let message = format!("`{key}` belongs to the source");
            faults.at("E0350", below.key(key), Target::Key, message, *help);
        }
    }
    let limit = kafka.librdkafka_options.get("max.poll.interval.ms");
    let limit = limit.and_then(|text| text.expose_secret().parse().ok());
    let limit = limit.unwrap_or(MAX_POLL_INTERVAL_MS);
    if kafka.drain_timeout_ms >= limit {
        let message = format!(
            "the group waits at most {limit} ms for a member, so it cannot drain for {} ms",
            kafka.drain_timeout_ms
        );
        let help = "choose less, or raise `librdkafka_options.\"max.poll.interval.ms\"`";
        faults.at("E0354", path.key("drain_timeout_ms"), Target::Value, message, help);
    }
    if kafka.session_timeout_ms > limit {
        let message = format!("the session may not last longer than {limit} ms");
        let help = "choose less, or raise `librdkafka_options.\"max.poll.interval.ms\"`";
        faults.at("E0354", path.key("session_timeout_ms"), Target::Value, message, help);
    }
}

/// Sinks with a disk buffer that read a Kafka source: what they hold is committed, so other members
/// of the group cannot read it.
pub(super) fn buffered_on_disk(faults: &mut FaultCollector<'_>, parts: &RecoveredParts) {
    let is_kafka = |(_, source): &&(String, SourceConfig)| matches!(source, SourceConfig::Kafka(_));
    let kafkas: HashSet<&str> =
        parts.sources.iter().filter(is_kafka).map(|(name, _)| name.as_str()).collect();
    for recovered in &parts.sinks {
        let SinkConfig::Usercom(sink) = &recovered.config;
        if sink.buffer.kind != BufferKind::Disk {
            continue;
        }
        if let Some(index) = sink.inputs.iter().position(|input| kafkas.contains(input.as_str())) {
            let path = recovered.path().key("inputs").index(index);
            let message = "offsets are committed as soon as this machine's disk has the records";
            let help = "write `buffer.type = \"memory\"`: then they are committed once delivered, \
                        and another member of the group takes over what this one did not deliver";
            faults.at("W0350", path, Target::Value, message, help);
        }
    }
}
