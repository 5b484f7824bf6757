//! The producer of dead letters: rejected messages as they came, with the reason in a header.
//!
//! One invariant: a record is settled only when the brokers have acknowledged its letter; one they
//! refuse is tried again, and meanwhile no commit passes it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::time::Instant;

use super::context::Logs;
use super::desk::{Desk, Letter};
use crate::ack::Verdict;
use crate::config::source::KafkaSource;

/// The header that says why.
const REASON: &str = "usercom-sink-reason";
/// The header that says which message it was: `topic/partition/offset`.
const ORIGIN: &str = "usercom-sink-origin";

/// How long nothing is produced after a failure.
const REST: Duration = Duration::from_secs(1);

/// Produces letters. Works only while it is pumped.
pub(super) struct LetterBox {
    topic: String,
    producer: BaseProducer<Postman>,
    desk: Arc<Desk>,
    rest_until: Mutex<Option<Instant>>,
}

struct Postman {
    desk: Arc<Desk>,
    logs: Logs,
    /// Whether a letter came back since this was last asked.
    failed: AtomicBool,
}

impl ClientContext for Postman {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.logs.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logs.error(&error, reason);
    }
}

impl ProducerContext for Postman {
    type DeliveryOpaque = Box<Letter>;

    fn delivery(&self, result: &DeliveryResult<'_>, letter: Box<Letter>) {
        match result {
            Ok(_) => self.desk.settle(&letter.place, Verdict::Rejected),
            Err((error, _)) => {
                if !self.desk.is_closing() {
                    self.logs.error(error, "a dead letter could not be produced, trying again");
                }
                self.failed.store(true, Ordering::Release);
                self.desk.put_back(*letter);
            }
        }
    }
}

impl LetterBox {
    /// A producer to `topic`.
    pub(super) fn new(
        topic: &str,
        settings: &KafkaSource,
        desk: Arc<Desk>,
        logs: Logs,
    ) -> KafkaResult<Self> {
        let postman = Postman { desk: Arc::clone(&desk), logs, failed: AtomicBool::new(false) };
        let producer = super::options::producer(settings).create_with_context(postman)?;
        Ok(Self { topic: topic.to_owned(), producer, desk, rest_until: Mutex::default() })
    }

    /// Produces what waits, and settles what was acknowledged. Never blocks.
    pub(super) fn pump(&self) {
        self.producer.poll(Duration::ZERO);
        let now = Instant::now();
        let mut rest_until = self.rest_until.lock().unwrap_or_else(PoisonError::into_inner);
        if self.producer.context().failed.swap(false, Ordering::AcqRel) {
            *rest_until = Some(now + REST);
        }
        if rest_until.is_some_and(|until| now < until) {
            return;
        }
        while let Some(letter) = self.desk.next_letter() {
            if let Err(letter) = self.produce(letter) {
                self.desk.put_back(*letter);
                *rest_until = Some(now + REST);
                return;
            }
        }
    }

    fn produce(&self, letter: Letter) -> Result<(), Box<Letter>> {
        let letter = Box::new(letter);
        let place = &letter.place;
        let origin =
            format!("{}/{}/{}", place.partition.topic, place.partition.number, place.offset);
        let mut headers = OwnedHeaders::new();
        for (key, value) in &letter.original.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let headers = headers
            .insert(Header { key: REASON, value: Some(letter.reason.as_bytes()) })
            .insert(Header { key: ORIGIN, value: Some(origin.as_bytes()) });
        let key = letter.original.key.clone();
        let payload = letter.original.payload.clone();
        let mut record: BaseRecord<'_, [u8], [u8], Box<Letter>> =
            BaseRecord::with_opaque_to(&self.topic, letter).headers(headers);
        if let Some(key) = &key {
            record = record.key(key.as_slice());
        }
        if let Some(payload) = &payload {
            record = record.payload(payload);
        }
        self.producer.send(record).map_err(|(error, record)| {
            self.producer.context().logs.error(&error, "a dead letter could not be produced");
            record.delivery_opaque
        })
    }
}
