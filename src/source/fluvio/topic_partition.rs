//! The partition that records of Fluvio come from, and what identifies a record in it.

use std::sync::Arc;

use super::cluster::Message;
use crate::source::broker_message::BrokerMessage;

/// The partition that records come from.
#[derive(Debug, Clone)]
pub(super) struct TopicPartition {
    pub(super) topic: Arc<str>,
    pub(super) partition: u32,
}

impl TopicPartition {
    /// The record as a broker's message.
    pub(super) fn message<'a>(&'a self, message: &'a Message) -> BrokerMessage<'a> {
        BrokerMessage {
            broker: "fluvio",
            topic: &self.topic,
            partition: self.partition.into(),
            offset: message.offset,
            timestamp: message.timestamp,
            key: message.key.as_deref(),
        }
    }

    /// The key of the partition's local start position: the location of its first record.
    pub(super) fn first_location(&self) -> String {
        format!("{}/{}:0", self.topic, self.partition)
    }
}
