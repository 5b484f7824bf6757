//! A record: what a source yields, before anyone knows what it means.
//!
//! The body is always JSON text. Sources that receive something else (a log line, a protobuf
//! event) render it to JSON once, at the edge, so that the buffer, the mapping and the dead letters
//! all speak of the same bytes. Not here: decoding (`source::decode`) and meaning (`mapping`).

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;

use crate::ack::Ack;

/// One record on its way through the pipeline.
#[derive(Debug, Clone)]
pub struct Record {
    /// The record as JSON text. Sources check that it parses.
    pub body: Bytes,
    /// What the transport knew beside the body, as a JSON object, for `%` paths (Kafka's topic,
    /// partition, headers). `None` where the transport knows nothing.
    pub meta: Option<Bytes>,
    /// The position in its source, for sources that can be read again.
    pub origin: Option<SourcePosition>,
    /// A stable id given by the transport, used for deduplication where the mapping names no
    /// `message_id`.
    pub transport_id: Option<Arc<str>>,
    /// When it happened, as far as the transport knows: the time of calls that name none. With it a
    /// record that comes a second time makes the same calls as the first time. `None` where the
    /// transport knows no time.
    pub event_time: Option<Timestamp>,
    /// Whether somebody else may have sent it before, a process that died say. Then User.com is
    /// asked before it is sent, where `delivery.verify_ambiguous` is on.
    pub maybe_sent: bool,
    /// Why the body could not be decoded. Then `body` holds the raw bytes as they were received,
    /// and the record's only way is to the dead letters.
    pub decode_error: Option<Arc<str>>,
    /// Says back to the source what became of the record.
    pub ack: Ack,
    /// When it says so.
    pub ack_on: AckOn,
}

/// When a source is told what became of a record.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum AckOn {
    /// As soon as the record is kept by somebody who answers for it: a durable buffer, or User.com.
    #[default]
    Persisted,
    /// Once it is settled: User.com has it, or the dead letters have. A durable buffer keeps the
    /// record all the same, and after a restart delivers it without a word to its source. Sources
    /// whose records have an [`SourcePosition`] do without this.
    Finalized,
}

impl Record {
    /// A record with a body and nothing else; its verdict is told to nobody.
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

    /// Writes the zone of the source's times into the metadata, as `%timezone`.
    pub fn note_timezone(&mut self, timezone: &str) {
        let zone = serde_json::Value::from(timezone);
        let known = self.meta.as_deref().and_then(|meta| std::str::from_utf8(meta).ok());
        let open = known.map(str::trim_end).and_then(|meta| meta.strip_suffix('}'));
        let meta = match open {
            // Of a name given twice the last value counts: this one.
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

/// A place in a source that can be read again: where a reader that wants everything *after* this
/// record must start.
///
/// Positions of one key only ever grow. A durable buffer remembers the highest position it took per
/// key and skips what it is shown a second time, so that a crash between "stored" and "checkpoint
/// written" repeats nothing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SourcePosition {
    /// What is being read: a file's identity and generation, a topic's partition.
    pub stream_id: Arc<str>,
    /// The first position behind the record: a byte offset, a partition's next offset.
    pub end_offset: u64,
    /// Where a person would look: `logs/app.ndjson:17`.
    pub location: Arc<str>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timezone_is_added_to_the_metadata() {
        // What the transport knew stays, and the source's zone comes to it.
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
