//! Builds the client's settings from the source's.
//!
//! # Invariants
//!
//! A message about a wrong setting never shows a value of `librdkafka_options` that may be a
//! secret.

use std::sync::Arc;

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use secrecy::ExposeSecret;

use crate::config::is_secret_option;
use crate::config::source::KafkaSourceConfig;
use crate::redact::{REDACTED, Redactions};
use crate::source::ReadMode;

/// The values of `librdkafka_options` that must not be shown.
#[derive(Debug, Clone)]
pub(super) struct SecretOptions(Arc<Redactions>);

impl SecretOptions {
    pub(super) fn of(settings: &KafkaSourceConfig) -> Self {
        let mut secrets = Redactions::default();
        for (_, value) in
            settings.librdkafka_options.iter().filter(|(key, _)| is_secret_option(key))
        {
            secrets.add(value.expose_secret(), REDACTED);
        }
        Self(Arc::new(secrets.longest_first()))
    }

    /// A text of the client for the log: secrets redacted, on one line.
    pub(super) fn redact(&self, text: &str) -> String {
        let text = self.0.apply(text);
        text.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// Settings of the consumer.
pub(super) fn consumer(settings: &KafkaSourceConfig, mode: ReadMode) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("isolation.level", "read_committed");
    common(&mut config, settings);
    config
        .set("group.id", &settings.group_id)
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("auto.offset.reset", settings.auto_offset_reset.as_str())
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", settings.session_timeout_ms.to_string())
        .set("statistics.interval.ms", "5000")
        .set("enable.partition.eof", (mode == ReadMode::Once).to_string());
    config
}

/// Settings of the dead-letter producer.
pub(super) fn producer(settings: &KafkaSourceConfig) -> ClientConfig {
    let mut config = ClientConfig::new();
    // We retry a dead letter that cannot be produced; until then it only delays commits.
    config.set("message.timeout.ms", "30000").set("linger.ms", "5");
    common(&mut config, settings);
    config
}

fn common(config: &mut ClientConfig, settings: &KafkaSourceConfig) {
    config.set("client.id", "usercom-sink");
    for (key, value) in &settings.librdkafka_options {
        config.set(key, value.expose_secret());
    }
    config.set("bootstrap.servers", &settings.bootstrap_servers);
}

/// The message for settings that need another cargo feature.
const WITHOUT_TLS: &str = "this build is without the cargo feature `kafka-tls`";

/// Checks for settings that the client does not know or accept.
pub(super) fn check(config: &ClientConfig, secrets: &SecretOptions) -> Result<(), String> {
    // The client would report this only when it is created, and without a remedy.
    for key in ["sasl.mechanisms", "sasl.mechanism"] {
        let mechanism = config.get(key).unwrap_or_default().to_ascii_uppercase();
        let needs_tls = mechanism.starts_with("SCRAM-") || mechanism == "OAUTHBEARER";
        if needs_tls && !cfg!(feature = "kafka-tls") {
            let why = format!("the mechanism is not built in; {WITHOUT_TLS}");
            return Err(format!("`librdkafka_options.\"{key}\"`: {why}"));
        }
    }
    config.create_native_config().map(drop).map_err(|error| match error {
        KafkaError::ClientConfig(_, why, key, _) => {
            let tls = ["ssl.", "sasl.", "security."].iter().any(|start| key.starts_with(start));
            let help = match tls && !cfg!(feature = "kafka-tls") {
                true => format!("; {WITHOUT_TLS}"),
                false => String::new(),
            };
            format!("`librdkafka_options.\"{key}\"`: {}{help}", secrets.redact(&why))
        }
        other => secrets.redact(&other.to_string()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(options: &[(&str, &str)]) -> KafkaSourceConfig {
        let text = r#"{"bootstrap_servers": "b:1", "group_id": "g", "topics": ["t"]}"#;
        let mut settings: KafkaSourceConfig = serde_json::from_str(text).unwrap();
        for (key, value) in options {
            settings.librdkafka_options.insert((*key).to_owned(), (*value).into());
        }
        settings
    }

    #[test]
    fn option_owned_by_the_source_is_overridden() {
        // The source's own settings win over `librdkafka_options`.
        let settings = settings(&[("enable.auto.commit", "true"), ("client.id", "mine")]);
        let config = consumer(&settings, ReadMode::Follow);
        assert_eq!(config.get("enable.auto.commit"), Some("false"));
        assert_eq!(config.get("client.id"), Some("mine"));
        assert_eq!(config.get("enable.partition.eof"), Some("false"));
        assert_eq!(check(&config, &SecretOptions::of(&settings)), Ok(()));
    }

    #[test]
    fn no_config_fault_shows_a_secret() {
        // A refused value is named by its key; no message and no `Debug` output contains a secret.
        let settings = settings(&[("sasl.password", "hunter22"), ("fetch.min.bytes", "hunter22")]);
        let secrets = SecretOptions::of(&settings);
        let why = check(&consumer(&settings, ReadMode::Follow), &secrets).unwrap_err();
        assert!(why.contains("fetch.min.bytes"), "{why}");
        assert!(!why.contains("hunter22"), "{why}");
        assert!(!format!("{settings:?} {secrets:?}").contains("hunter22"));
        assert_eq!(secrets.redact("a hunter22\nb\n"), "a *** b");
    }

    #[test]
    fn tls_option_without_feature_is_rejected() {
        // With the feature the client accepts TLS and SCRAM settings; without it the setting is
        // refused and the message names the feature.
        let secure = [
            ("security.protocol", "sasl_ssl"),
            ("sasl.mechanisms", "SCRAM-SHA-512"),
            ("sasl.username", "u"),
            ("sasl.password", "hunter22"),
        ];
        for options in [&secure[..1], &secure[1..2], &secure[..]] {
            let settings = settings(options);
            let config = consumer(&settings, ReadMode::Follow);
            let checked = check(&config, &SecretOptions::of(&settings));
            assert_eq!(checked.is_ok(), cfg!(feature = "kafka-tls"), "{checked:?}");
            assert!(checked.err().is_none_or(|why| why.contains("`kafka-tls`")));
        }
        if cfg!(feature = "kafka-tls") {
            let config = consumer(&settings(&secure), ReadMode::Follow);
            let client: Result<rdkafka::consumer::BaseConsumer, _> = config.create();
            assert!(client.is_ok(), "{:?}", client.err());
        }
    }
}
