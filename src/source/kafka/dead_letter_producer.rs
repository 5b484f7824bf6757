//! Produces dead letters: rejected messages as they were read, with the reason in a header.
//!
//! # Invariants
//!
//! A record is settled only when the brokers have acknowledged its dead letter. One that they
//! refuse is tried again, and no commit passes it meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use tokio::time::Instant;

use super::consumer_state::{ConsumerState, DeadLetterMessage};
use super::logger::ClientLogger;
use crate::ack::Verdict;
use crate::config::source::KafkaSourceConfig;

/// The header with the reason.
const REASON_HEADER: &str = "usercom-sink-reason";
/// The header that names the rejected message: `topic/partition/offset`.
const ORIGIN_HEADER: &str = "usercom-sink-origin";

/// The pause after a failure.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Produces dead letters while it is polled.
pub(super) struct DeadLetterProducer {
    topic: String,
    producer: BaseProducer<ProducerCallbacks>,
    state: Arc<ConsumerState>,
    retry_at: Mutex<Option<Instant>>,
}

struct ProducerCallbacks {
    state: Arc<ConsumerState>,
    logger: ClientLogger,
    /// Whether a dead letter failed since this was last read.
    failed: AtomicBool,
}

impl ClientContext for ProducerCallbacks {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        self.logger.line(level, facility, text);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.logger.error(&error, reason);
    }
}

impl ProducerContext for ProducerCallbacks {
    type DeliveryOpaque = Box<DeadLetterMessage>;

    fn delivery(&self, result: &DeliveryResult<'_>, dead_letter: Box<DeadLetterMessage>) {
        match result {
            Ok(_) => self.state.settle(&dead_letter.handle, Verdict::Rejected),
            Err((error, _)) => {
                if !self.state.is_closing() {
                    self.logger
                        .error(error, "a dead letter could not be produced to `dead_letter_topic`; it is tried again, and commits of its partition wait for it");
                }
                self.failed.store(true, Ordering::Release);
                self.state.requeue(*dead_letter);
            }
        }
    }
}

impl DeadLetterProducer {
    /// A producer for `topic`.
    pub(super) fn new(
        topic: &str,
        settings: &KafkaSourceConfig,
        state: Arc<ConsumerState>,
        logger: ClientLogger,
    ) -> KafkaResult<Self> {
        let callbacks =
            ProducerCallbacks { state: Arc::clone(&state), logger, failed: AtomicBool::new(false) };
        let producer = super::options::producer(settings).create_with_context(callbacks)?;
        Ok(Self { topic: topic.to_owned(), producer, state, retry_at: Mutex::default() })
    }

    /// Produces waiting dead letters and settles acknowledged ones. Never blocks.
    pub(super) fn poll(&self) {
        self.producer.poll(Duration::ZERO);
        let now = Instant::now();
        let mut retry_at = self.retry_at.lock();
        if self.producer.context().failed.swap(false, Ordering::AcqRel) {
            *retry_at = Some(now + RETRY_INTERVAL);
        }
        if retry_at.is_some_and(|until| now < until) {
            return;
        }
        while let Some(dead_letter) = self.state.next_dead_letter() {
            if let Err(dead_letter) = self.produce(dead_letter) {
                self.state.requeue(*dead_letter);
                *retry_at = Some(now + RETRY_INTERVAL);
                return;
            }
        }
    }

    fn produce(&self, dead_letter: DeadLetterMessage) -> Result<(), Box<DeadLetterMessage>> {
        let dead_letter = Box::new(dead_letter);
        let handle = &dead_letter.handle;
        let origin =
            format!("{}/{}/{}", handle.partition.topic, handle.partition.number, handle.offset);
        let mut headers = OwnedHeaders::new();
        for (key, value) in &dead_letter.source_message.headers {
            headers = headers.insert(Header { key, value: value.as_deref() });
        }
        let headers = headers
            .insert(Header { key: REASON_HEADER, value: Some(dead_letter.reason.as_bytes()) })
            .insert(Header { key: ORIGIN_HEADER, value: Some(origin.as_bytes()) });
        let key = dead_letter.source_message.key.clone();
        let payload = dead_letter.source_message.payload.clone();
        let mut record: BaseRecord<'_, [u8], [u8], Box<DeadLetterMessage>> =
            BaseRecord::with_opaque_to(&self.topic, dead_letter).headers(headers);
        if let Some(key) = &key {
            record = record.key(key.as_slice());
        }
        if let Some(payload) = &payload {
            record = record.payload(payload);
        }
        self.producer.send(record).map_err(|(error, record)| {
            self.producer
                .context()
                .logger
                .error(&error, "a dead letter could not be handed to the client; it is tried again, and commits of its partition wait for it");
            record.delivery_opaque
        })
    }
}
