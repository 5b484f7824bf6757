//! Writes the log of librdkafka into the log of this program.
//!
//! # Invariants
//! No line shows a secret value of `librdkafka_options`.

use std::sync::Arc;

use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;

use super::options::SecretOptions;

/// Forwards the client's log lines to `tracing`.
#[derive(Debug, Clone)]
pub(super) struct ClientLogger {
    pub(super) source: Arc<str>,
    secrets: SecretOptions,
}

impl ClientLogger {
    pub(super) fn new(source: &str, secrets: SecretOptions) -> Self {
        Self { source: source.into(), secrets }
    }

    pub(super) fn line(&self, level: RDKafkaLogLevel, facility: &str, text: &str) {
        let (source, text) = (&*self.source, self.secrets.redact(text));
        match level {
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error => tracing::error!(source, facility, "librdkafka: {text}"),
            RDKafkaLogLevel::Warning => tracing::warn!(source, facility, "librdkafka: {text}"),
            RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
                tracing::info!(source, facility, "librdkafka: {text}");
            }
            RDKafkaLogLevel::Debug => tracing::debug!(source, facility, "librdkafka: {text}"),
        }
    }

    pub(super) fn error(&self, error: &KafkaError, what: &str) {
        let (source, what) = (&*self.source, self.secrets.redact(what));
        let error = self.secrets.redact(&error.to_string());
        tracing::warn!(source, error, "{what}");
    }
}
