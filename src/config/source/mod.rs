//! The settings of sources, one file per type.

mod decoding;
mod file;
mod fluvio;
mod http;
mod kafka;
mod stdin;
mod tls;
mod vector;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::decoding::{Codec, Decoding, DecodingStep, MultilineConfig, MultilineMode};
pub use self::file::{FileFingerprint, FileSourceConfig, ReadFrom};
pub use self::fluvio::{
    AllPartitions, FluvioOffset, FluvioPartitions, FluvioSourceConfig, FluvioStart,
    FluvioStartPlace, FluvioStartWord, FluvioStrategy, FluvioTls, FluvioTransform,
};
pub(crate) use self::http::segment_call;
pub use self::http::{HttpAuth, HttpAuthStrategy, HttpSourceConfig};
pub use self::kafka::{AutoOffsetReset, KafkaSourceConfig};
pub use self::stdin::StdinSourceConfig;
pub use self::tls::TlsServer;
pub use self::vector::{Acknowledge, VectorSourceConfig};

/// A source, by `type`.
#[derive(Debug, Clone, Deserialize, Serialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum SourceConfig {
    /// Reads lines of files, following them as they grow.
    File(FileSourceConfig),
    /// Reads lines of standard input.
    Stdin(StdinSourceConfig),
    /// Receives records over HTTP, from pipelines and from Segment's SDKs.
    Http(HttpSourceConfig),
    /// Reads records of a Fluvio topic.
    Fluvio(FluvioSourceConfig),
    /// Reads records of Kafka topics as a member of a consumer group.
    Kafka(KafkaSourceConfig),
    /// Receives events that Vector sends with its `vector` sink, over gRPC.
    Vector(VectorSourceConfig),
}

impl SourceConfig {
    /// The `type` in the pipeline file.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Stdin(_) => "stdin",
            Self::Http(_) => "http",
            Self::Fluvio(_) => "fluvio",
            Self::Kafka(_) => "kafka",
            Self::Vector(_) => "vector",
        }
    }

    /// The zone of times without a zone in its records.
    pub fn timezone(&self) -> Option<&str> {
        let timezone = match self {
            Self::File(source) => &source.timezone,
            Self::Stdin(source) => &source.timezone,
            Self::Http(source) => &source.timezone,
            Self::Fluvio(source) => &source.timezone,
            Self::Kafka(source) => &source.timezone,
            Self::Vector(source) => &source.timezone,
        };
        timezone.as_deref()
    }

    /// Whether it stores a position from which it can read again. Other sources report to their
    /// clients what was not accepted, or cannot be read again.
    pub fn is_read_again(&self) -> bool {
        match self {
            Self::File(_) | Self::Fluvio(_) | Self::Kafka(_) => true,
            Self::Stdin(_) | Self::Http(_) | Self::Vector(_) => false,
        }
    }
}
