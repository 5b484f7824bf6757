//! The `vector` source as it is written.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::TlsServer;

/// Events that a Vector sends with its own `vector` sink, over gRPC.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VectorSourceConfig {
    /// The IP address and port to listen on. Default: `127.0.0.1:6000`.
    #[serde(default = "VectorSourceConfig::default_address")]
    pub address: String,
    /// When a request is answered: `buffer`, once its events are in the sinks' buffers (durable,
    /// where these are on disk), or `delivery`, once User.com or the dead letters have them.
    /// Default: `buffer`.
    #[serde(default)]
    pub acknowledge: Acknowledge,
    /// Encryption of the connections; with `verify_certificate` a client has to show who it is.
    #[serde(default)]
    pub tls: TlsServer,
    /// The IANA time zone of times that name none, such as `2024-05-21 10:11:12`: `Europe/Warsaw`. It
    /// holds for the target `timestamp` and for `as = "timestamp"`, where the field has no `timezone`
    /// of its own, and in the preset. Set it where a system writes local time. Default: UTC.
    #[serde(default)]
    pub timezone: Option<String>,
    /// The largest request, in bytes, before and after it is inflated. A larger one is refused, with
    /// a line in the log, and Vector sends it again without end, so that nothing behind it gets
    /// through: raise this, or lower `batch.max_events` of Vector's sink. Default: 104857600
    /// (100 MiB), as Vector's own source has it.
    #[serde(default = "VectorSourceConfig::default_max_message_bytes")]
    #[schemars(range(min = 1024))]
    pub max_message_bytes: usize,
    /// Connections served at once; more wait until one ends or has been idle for 10 seconds. A
    /// connection that makes no request in its first 10 seconds is ended. Default: 1024.
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
