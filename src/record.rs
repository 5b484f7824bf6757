//! A record: what a source yields, before it is mapped.
//!
//! # Invariants
//! The body is JSON text. Sources that receive another format (a log line, a protobuf event)
//! convert it once, so that buffer, mapping and dead letters hold the same bytes. The only
//! exception is a record with a `decode_error`, whose body holds the bytes as received.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::ack::Ack;

/// One record on its way through the pipeline.
#[derive(Debug, Clone)]
pub struct Record {
    /// The record as JSON text. Sources check that it parses.
    pub body: Bytes,
    /// Transport metadata as a JSON object, for `%` paths (Kafka: topic, partition, headers). `None`
    /// where the transport has none.
    pub meta: Option<Bytes>,
    /// Its position, for sources that can be read again.
    pub origin: Option<SourcePosition>,
    /// A stable id from the transport. It is used for deduplication where the mapping sets no
    /// `message_id`.
    pub transport_id: Option<Arc<str>>,
    /// The transport's timestamp, for calls that set none. With it a record that is read twice makes
    /// the same calls both times. `None` where the transport has no timestamp.
    pub event_time: Option<Timestamp>,
    /// Whether it was possibly already sent, for example by a process that crashed. With
    /// `delivery.verify_ambiguous` User.com is then asked before it is sent again.
    pub maybe_sent: bool,
    /// Why the body could not be decoded. `body` then holds the bytes as received, and the record
    /// goes to the dead letters.
    pub decode_error: Option<Arc<str>>,
    /// Reports the final status to the source.
    pub ack: Ack,
    /// When it reports.
    pub ack_on: AckOn,
}

/// When a record is acknowledged to its source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckOn {
    /// Once a disk buffer has stored it, or, without a disk buffer, once it is settled.
    #[default]
    Persisted,
    /// Once it is settled: delivered or in the dead letters. A disk buffer stores it nevertheless, and
    /// delivers it after a restart without notifying the source. Sources whose records have a
    /// [`SourcePosition`] do not need this.
    Finalized,
}

impl Record {
    /// A record with a body and nothing else. Its acknowledgement has no callback.
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self {
            body: body.into(),
            meta: None,
            origin: None,
            transport_id: None,
            event_time: None,
            maybe_sent: false,
            decode_error: None,
            ack: Ack::noop(),
            ack_on: AckOn::Persisted,
        }
    }

    /// Adds the source's time zone to the metadata, as `%timezone`.
    pub fn note_timezone(&mut self, timezone: &str) {
        let zone = serde_json::Value::from(timezone);
        let known = self.meta.as_deref().and_then(|meta| std::str::from_utf8(meta).ok());
        let open = known.map(str::trim_end).and_then(|meta| meta.strip_suffix('}'));
        let meta = match open {
            // Of a repeated key the last value counts.
            Some(open) if open.trim() != "{" => format!("{open},\"timezone\":{zone}}}"),
            _ => format!("{{\"timezone\":{zone}}}"),
        };
        self.meta = Some(meta.into());
    }

    /// The same record with another acknowledgement.
    pub fn with_ack(mut self, ack: Ack) -> Self {
        self.ack = ack;
        self
    }
}

/// A record's position in a source that can be read again.
///
/// Offsets of one stream only grow. A disk buffer remembers the highest offset per stream and skips
/// records that it receives twice, so that a crash between "stored" and "checkpoint written"
/// delivers nothing twice.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourcePosition {
    /// What is read: a file's identity and generation, a topic's partition.
    pub stream_id: Arc<str>,
    /// Where reading continues after this record: a byte offset, a partition's next offset.
    pub end_offset: u64,
    /// The location for people: `logs/app.ndjson:17`.
    pub location: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn noted_timezone_is_added_to_the_metadata() {
        // The transport's metadata stays; the source's zone is added.
        for (meta, expected) in [
            (None, r#"{"timezone":"Europe/Warsaw"}"#),
            (Some("{}"), r#"{"timezone":"Europe/Warsaw"}"#),
            (Some(r#"{"topic":"t"} "#), r#"{"topic":"t","timezone":"Europe/Warsaw"}"#),
        ] {
            let mut record = Record::new("{}");
            record.meta = meta.map(Bytes::from);
            record.note_timezone("Europe/Warsaw");
            assert_eq!(record.meta.as_deref(), Some(expected.as_bytes()));
        }
    }
}
