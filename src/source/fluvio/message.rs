//! What Fluvio knows beside the payload, as JSON for `%` paths, and a record's name.
//!
//! Not here: the client. One invariant: a key that is no UTF-8 is never taken for another text: it
//! becomes `0x` and its hexadecimal digits.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::cluster::Message;
use crate::source::text::utf8_or_hex;

/// Where a partition's records come from.
#[derive(Debug, Clone)]
pub(super) struct TopicPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
}

impl TopicPartition {
    /// `{"topic", "partition", "offset", "timestamp", "key"}`. Absent are a timestamp and a key the
    /// record has not.
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

    /// Names the record for deduplication. The time is part of it: in a topic that was made again
    /// another record has the same offset. Without a time there is no name.
    pub(super) fn id(&self, message: &Message) -> Option<Arc<str>> {
        let timestamp = message.timestamp?;
        let (topic, partition, offset) = (&self.topic, self.partition, message.offset);
        Some(format!("fluvio/{topic}/{partition}/{offset}/{timestamp}").into())
    }

    /// Names a record that came through SmartModules, whose offset is only counted: by where its
    /// answer began and its place in it.
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

    /// Where a person would look.
    pub(super) fn place(&self, offset: i64) -> String {
        format!("{}/{}:{offset}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_holds_every_fluvio_field() {
        // Key and place are JSON; bytes are hexadecimal; what is not known is absent.
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
