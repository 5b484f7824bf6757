//! Sources as they are written, one file a type.

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
    /// Lines of files, followed as they grow.
    File(FileSourceConfig),
    /// Lines of standard input.
    Stdin(StdinSourceConfig),
    /// Records that are posted to it, by pipelines and by Segment's SDKs.
    Http(HttpSourceConfig),
    /// Records of a Fluvio topic.
    Fluvio(FluvioSourceConfig),
    /// Records of Kafka topics, read as a member of a consumer group.
    Kafka(KafkaSourceConfig),
    /// Events that a Vector sends with its own `vector` sink, over gRPC.
    Vector(VectorSourceConfig),
}

impl SourceConfig {
    /// The `type`, as the file writes it.
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

    /// The zone of times in its records that name none.
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

    /// Whether it keeps a place of its own that it can begin from again. Others tell their senders
    /// what was not taken, or cannot be read a second time.
    pub fn is_read_again(&self) -> bool {
        match self {
            Self::File(_) | Self::Fluvio(_) | Self::Kafka(_) => true,
            Self::Stdin(_) | Self::Http(_) | Self::Vector(_) => false,
        }
    }
}
