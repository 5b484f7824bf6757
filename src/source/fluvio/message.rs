//! The metadata of a Fluvio record as JSON for `%` paths, and the record's id.
//!
//! # Invariants
//!
//! A key that is not UTF-8 becomes `0x` and its hexadecimal digits, so that two different keys
//! never look the same.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::cluster::Message;
use crate::source::text::utf8_or_hex;

/// The partition that records come from.
#[derive(Debug, Clone)]
pub(super) struct TopicPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
}

impl TopicPartition {
    /// `{"topic", "partition", "offset", "timestamp", "key"}`. A timestamp or key that the record
    /// does not have is absent.
    pub(super) fn meta(&self, message: &Message) -> Bytes {
        let mut meta = Map::new();
        meta.insert("topic".into(), (&*self.topic).into());
        meta.insert("partition".into(), self.partition.into());
        meta.insert("offset".into(), message.offset.into());
        if let Some(timestamp) = message.timestamp {
            meta.insert("timestamp".into(), timestamp.into());
        }
        if let Some(key) = &message.key {
            meta.insert("key".into(), utf8_or_hex(key).into());
        }
        Value::from(meta).to_string().into()
    }

    /// The id of the record for deduplication. It contains the timestamp: in a topic that was
    /// created again another record has the same offset. Without a timestamp there is no id.
    pub(super) fn id(&self, message: &Message) -> Option<Arc<str>> {
        let timestamp = message.timestamp?;
        let (topic, partition, offset) = (&self.topic, self.partition, message.offset);
        Some(format!("fluvio/{topic}/{partition}/{offset}/{timestamp}").into())
    }

    /// The id of a record that passed SmartModules, whose offset is only an estimate: where its
    /// response began, and its index in it.
    pub(super) fn id_in_answer(
        &self,
        message: &Message,
        from: i64,
        index: usize,
    ) -> Option<Arc<str>> {
        let timestamp = message.timestamp?;
        let (topic, partition) = (&self.topic, self.partition);
        Some(format!("fluvio/{topic}/{partition}/{from}+{index}/{timestamp}").into())
    }

    /// The location of a record, for messages.
    pub(super) fn place(&self, offset: i64) -> String {
        format!("{}/{}:{offset}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_holds_every_fluvio_field() {
        // Key and location are JSON; bytes are hexadecimal; unknown fields are absent.
        let address = TopicPartition { topic: "events".into(), partition: 3 };
        let mut message = Message {
            offset: 17,
            timestamp: Some(1_767_225_600_000),
            key: Some(Bytes::from_static(b"u\"1")),
            value: Bytes::new(),
        };
        let meta: Value = serde_json::from_slice(&address.meta(&message)).unwrap();
        let expected = serde_json::json!({
            "topic": "events", "partition": 3, "offset": 17,
            "timestamp": 1_767_225_600_000_i64, "key": "u\"1",
        });
        assert_eq!(meta, expected);
        assert_eq!(&*address.id(&message).unwrap(), "fluvio/events/3/17/1767225600000");
        message.key = Some(Bytes::from_static(&[0xff, 0x00]));
        message.timestamp = None;
        let meta: Value = serde_json::from_slice(&address.meta(&message)).unwrap();
        assert_eq!(meta["key"], "0xff00");
        assert!(meta.get("timestamp").is_none(), "{meta}");
        assert_eq!(address.id(&message), None, "no time, no name");
    }
}
