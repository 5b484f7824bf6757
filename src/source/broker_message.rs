//! A message of a broker (Kafka, Fluvio): its metadata as JSON for `%` paths, its id and its
//! location.
//!
//! # Invariants
//!
//! Bytes that are not UTF-8 become `0x` and their hexadecimal digits, so that two different keys
//! never look the same.

use std::borrow::Cow;
use std::fmt::Display;

use super::metadata::Metadata;

/// One message, without its payload.
#[derive(Debug, Clone, Copy)]
pub(super) struct BrokerMessage<'a> {
    /// What ids begin with: `kafka` or `fluvio`.
    pub(super) broker: &'static str,
    pub(super) topic: &'a str,
    pub(super) partition: i64,
    pub(super) offset: i64,
    /// Milliseconds since 1970, where the topic stores them.
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<&'a [u8]>,
}

impl BrokerMessage<'_> {
    /// `{"topic", "partition", "offset", "timestamp", "key"}`. A timestamp or key that the message
    /// does not have is absent.
    pub(super) fn meta(&self) -> Metadata {
        let mut meta = Metadata::default()
            .with("topic", self.topic)
            .with("partition", self.partition)
            .with("offset", self.offset);
        if let Some(timestamp) = self.timestamp {
            meta = meta.with("timestamp", timestamp);
        }
        if let Some(key) = self.key {
            meta = meta.with("key", utf8_or_hex(key));
        }
        meta
    }

    /// The id of the message for deduplication. It contains the timestamp: in a topic that was
    /// created again, another message has the same offset and must not get the same id. Without a
    /// timestamp there is no id.
    pub(super) fn id(&self) -> Option<String> {
        self.id_with(self.offset)
    }

    /// As [`id`](Self::id), with another text in place of the offset.
    pub(super) fn id_with(&self, offset: impl Display) -> Option<String> {
        let (broker, topic, partition) = (self.broker, self.topic, self.partition);
        Some(format!("{broker}/{topic}/{partition}/{offset}/{}", self.timestamp?))
    }

    /// Where the message is, for logs and dead letters.
    pub(super) fn location(&self) -> String {
        format!("{}/{}:{}", self.topic, self.partition, self.offset)
    }
}

/// The bytes as text.
pub(super) fn utf8_or_hex(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(format!("0x{}", hex::encode(bytes))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn meta(message: &BrokerMessage<'_>) -> Value {
        serde_json::from_slice(&message.meta().finish()).unwrap()
    }

    #[test]
    fn metadata_and_id_hold_every_field_of_the_message() {
        // Keys are escaped as JSON; bytes are hexadecimal; unknown fields are absent; a message
        // without a timestamp has no id.
        let mut message = BrokerMessage {
            broker: "fluvio",
            topic: "events",
            partition: 3,
            offset: 17,
            timestamp: Some(1_767_225_600_000),
            key: Some(b"u\"1"),
        };
        let expected = json!({
            "topic": "events", "partition": 3, "offset": 17,
            "timestamp": 1_767_225_600_000_i64, "key": "u\"1",
        });
        assert_eq!(meta(&message), expected);
        assert_eq!(message.id().unwrap(), "fluvio/events/3/17/1767225600000");
        assert_eq!(message.id_with("9+1").unwrap(), "fluvio/events/3/9+1/1767225600000");
        assert_eq!(message.location(), "events/3:17");
        message.key = Some(&[0xff, 0x00]);
        message.timestamp = None;
        assert_eq!(meta(&message)["key"], "0xff00");
        assert!(meta(&message).get("timestamp").is_none());
        assert_eq!(message.id(), None);
        message.key = None;
        assert!(meta(&message).get("key").is_none());
    }
}
