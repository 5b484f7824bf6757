//! The metadata of a Kafka message as JSON for `%` paths, and the message's id.
//!
//! # Invariants
//!
//! Bytes that are not UTF-8 become `0x` and their hexadecimal digits, so that two different keys
//! never look the same.

use std::borrow::Cow;
use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Serialize;

use crate::source::text::utf8_or_hex;

/// A header's name and value, as received.
pub(super) type Header = (String, Option<Vec<u8>>);

/// One message, without its payload.
#[derive(Debug)]
pub(super) struct MessageMetadata<'a> {
    pub(super) topic: &'a str,
    pub(super) partition: i32,
    pub(super) offset: i64,
    /// Milliseconds since 1970, where the topic stores them.
    pub(super) timestamp: Option<i64>,
    pub(super) key: Option<&'a [u8]>,
    pub(super) headers: &'a [Header],
}

impl MessageMetadata<'_> {
    /// `{"topic", "partition", "offset", "timestamp", "key", "headers"}`. A timestamp or key that
    /// the message does not have is absent. Of a repeated header the last value is used.
    pub(super) fn meta(&self) -> Bytes {
        let headers = self.headers.iter();
        let meta = MetadataJson {
            topic: self.topic,
            partition: self.partition,
            offset: self.offset,
            timestamp: self.timestamp,
            key: self.key.map(utf8_or_hex),
            headers: headers
                .map(|(name, value)| (&**name, value.as_deref().map(utf8_or_hex)))
                .collect(),
        };
        serde_json::to_vec(&meta).expect("names are texts, and nothing else can fail").into()
    }

    /// The id of the message for deduplication. It contains the timestamp: in a topic that was
    /// created again, another message has the same offset and must not get the same id. Without a
    /// timestamp there is no id.
    pub(super) fn id(&self) -> Option<String> {
        let timestamp = self.timestamp?;
        Some(format!("kafka/{}/{}/{}/{timestamp}", self.topic, self.partition, self.offset))
    }
}

/// The metadata as `%` paths see it.
#[derive(Serialize)]
struct MetadataJson<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timestamp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Cow<'a, str>>,
    headers: BTreeMap<&'a str, Option<Cow<'a, str>>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn metadata_holds_every_kafka_field() {
        // Key, headers and location are JSON; of equal headers the last wins; bytes are
        // hexadecimal.
        let headers = [
            ("trace".to_owned(), Some(b"a".to_vec())),
            ("raw".to_owned(), Some(vec![0xff, 0x00])),
            ("none".to_owned(), None),
            ("trace".to_owned(), Some(b"b\"".to_vec())),
        ];
        let mut message = MessageMetadata {
            topic: "events",
            partition: 3,
            offset: 17,
            timestamp: Some(1_767_225_600_000),
            key: Some(b"u1"),
            headers: &headers,
        };
        let meta: Value = serde_json::from_slice(&message.meta()).unwrap();
        let expected = serde_json::json!({
            "topic": "events", "partition": 3, "offset": 17, "timestamp": 1_767_225_600_000_i64,
            "key": "u1", "headers": { "trace": "b\"", "raw": "0xff00", "none": null },
        });
        assert_eq!(meta, expected);
        assert_eq!(message.id().unwrap(), "kafka/events/3/17/1767225600000");
        message.timestamp = None;
        message.key = None;
        let meta: Value = serde_json::from_slice(&message.meta()).unwrap();
        assert!(meta.get("key").is_none() && meta.get("timestamp").is_none(), "{meta}");
        assert_eq!(message.id(), None, "no time, no name");
    }
}
