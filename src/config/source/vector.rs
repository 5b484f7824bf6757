//! The settings of the `vector` source.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TlsServer;

/// Receives events that Vector sends with its `vector` sink, over gRPC.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VectorSourceConfig {
    /// The IP address and port to listen on. Default: `127.0.0.1:6000`.
    #[serde(default = "VectorSourceConfig::default_address")]
    pub address: String,
    /// When a request is answered: `buffer`, once its events are in the sinks' buffers (durable,
    /// where these are on disk), or `delivery`, once they are delivered or in the dead letters.
    /// Default: `buffer`.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// Encryption of the connections; with `verify_certificate` a client must send a certificate.
    #[serde(default)]
    pub tls: TlsServer,
    /// The IANA time zone of times without a zone, such as `2024-05-21 10:11:12`: `Europe/Warsaw`.
    /// It applies to the target `timestamp` and to `as = "timestamp"`, where the field has no
    /// `timezone` of its own, and to the preset. Set it where a system writes local time. Default:
    /// UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The largest request, in bytes, before and after decompression. A larger one is refused with
    /// a log message, and Vector repeats it without end and sends nothing after it: raise this, or
    /// lower `batch.max_events` of Vector's sink. Default: 104857600 (100 MiB), as in Vector's own
    /// source.
    #[serde(default = "VectorSourceConfig::default_max_message_bytes")]
    #[schemars(range(min = 1024))]
    pub max_message_bytes: usize,
    /// The most connections that are served at once; more wait until one ends or was idle for 10
    /// seconds. A connection without a request in its first 10 seconds is closed. Default: 1024.
    #[serde(default = "VectorSourceConfig::default_max_connections")]
    #[schemars(range(min = 1, max = 65536))]
    pub max_connections: usize,
    /// How long a request may take to arrive, in seconds. Default: 30.
    #[serde(default = "VectorSourceConfig::default_read_timeout_secs")]
    #[schemars(range(min = 1))]
    pub read_timeout_secs: u64,
}

impl VectorSourceConfig {
    fn default_address() -> String {
        "127.0.0.1:6000".into()
    }

    fn default_max_message_bytes() -> usize {
        100 << 20
    }

    fn default_max_connections() -> usize {
        1024
    }

    fn default_read_timeout_secs() -> u64 {
        30
    }
}

/// When a request is answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Acknowledge {
    /// Once its events are in the sinks' buffers.
    #[default]
    Buffer,
    /// Once they are delivered or in the dead letters.
    Delivery,
}
