//! Reads records of Kafka topics as a member of a consumer group.
//!
//! Records carry no [`SourcePosition`](crate::record::SourcePosition): in a topic that was created
//! again, or a group whose offsets were reset, offsets go back, and a durable buffer would skip
//! records as duplicates. They carry a `transport_id` with the message's timestamp instead.
//!
//! # Invariants
//!
//! An offset is committed only when every record before it in its partition was delivered or is in
//! the dead letters.

mod callbacks;
mod claim;
mod committer;
mod consumer_state;
mod dead_letter_producer;
mod end_offsets;
mod headers;
mod logger;
mod options;
mod partitions;
mod pause;
mod reader;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use rdkafka::consumer::BaseConsumer;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::callbacks::ConsumerCallbacks;
use self::consumer_state::ConsumerState;
use self::dead_letter_producer::DeadLetterProducer;
use self::logger::ClientLogger;
use self::options::SecretOptions;
use self::reader::Reader;
use super::decode::Decoder;
use super::{ReadMode, Source, SourceError};
use crate::config::source::KafkaSourceConfig as Settings;
use crate::record::Record;
use crate::telemetry::SourceLag;

/// How long the last commit and leaving the group may take once everything is settled.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(10);

/// A member of a consumer group.
pub struct KafkaSource {
    name: String,
    settings: Settings,
    mode: ReadMode,
    decoder: Decoder,
    secrets: SecretOptions,
    lag: SourceLag,
}

impl KafkaSource {
    /// A source for these topics. It connects when it runs.
    ///
    /// # Errors
    ///
    /// Settings of the decoding that cannot work, and options that librdkafka does not know or
    /// accept; their values are not shown.
    pub fn new(name: &str, settings: Settings, mode: ReadMode) -> Result<Self, String> {
        let decoder = Decoder::in_zone(&settings.decoding, settings.timezone.as_deref())?;
        let secrets = SecretOptions::of(&settings);
        options::check(&options::consumer(&settings, mode), &secrets)?;
        if settings.dead_letter_topic.is_some() {
            options::check(&options::producer(&settings), &secrets)?;
        }
        let name = name.to_owned();
        Ok(Self { name, settings, mode, decoder, secrets, lag: SourceLag::default() })
    }

    fn remote(&self, context: &str, error: &rdkafka::error::KafkaError) -> SourceError {
        let why = self.secrets.redact(&error.to_string());
        SourceError::Remote { context: context.to_owned(), why }
    }

    fn consumer(
        &self,
        state: &Arc<ConsumerState>,
    ) -> Result<BaseConsumer<ConsumerCallbacks>, SourceError> {
        let logger = ClientLogger::new(&self.name, self.secrets.clone());
        let dead_letters = match &self.settings.dead_letter_topic {
            None => None,
            Some(topic) => {
                let made = DeadLetterProducer::new(
                    topic,
                    &self.settings,
                    Arc::clone(state),
                    logger.clone(),
                );
                Some(Arc::new(made.map_err(|e| self.remote("making a Kafka producer", &e))?))
            }
        };
        let context = ConsumerCallbacks {
            state: Arc::clone(state),
            dead_letters,
            lag: self.lag.clone(),
            logger,
            drain: Duration::from_millis(self.settings.drain_timeout_ms),
            awaiting_lookup: claim::awaiting_lookup(self.settings.max_in_flight),
            commit_lock: Mutex::default(),
        };
        let config = options::consumer(&self.settings, self.mode);
        config
            .create_with_context(context)
            .map_err(|error| self.remote("making a Kafka consumer", &error))
    }
}

impl fmt::Debug for KafkaSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KafkaSource")
            .field("name", &self.name)
            .field("group", &self.settings.group_id)
            .field("topics", &self.settings.topics)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for KafkaSource {
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        let state = Arc::new(ConsumerState::default());
        let consumer = self.consumer(&state)?;
        let reader = Reader {
            settings: self.settings,
            mode: self.mode,
            decoder: self.decoder,
            state,
            in_flight: Arc::default(),
            stop,
            runtime: Handle::current(),
        };
        let (settled, is_settled) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        // The client blocks, runs callbacks while it is polled, and may not end in time: it gets
        // its own thread, which the runtime does not wait for.
        std::thread::Builder::new()
            .name(format!("kafka-{}", self.name))
            .spawn(move || drop(end.send(reader.run(consumer, out, settled))))
            .map_err(|source| SourceError::Io { context: "starting a thread".into(), source })?;
        let context = "reading".to_owned();
        let failed = || SourceError::Remote { context, why: "the reading thread failed".into() };
        if is_settled.await.is_err() {
            return Err(failed());
        }
        match tokio::time::timeout(LEAVE_TIMEOUT, ended).await {
            Ok(Ok(end)) => end,
            Ok(Err(_)) => Err(failed()),
            Err(_) => {
                tracing::warn!(
                    source = self.name,
                    "the brokers did not answer the last commit in time; records after the last \
                     stored offset are read again by the next run"
                );
                Ok(())
            }
        }
    }

    fn set_lag_gauge(&mut self, lag: SourceLag) {
        self.lag = lag;
    }
}
