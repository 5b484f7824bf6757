//! Sources: where records come from.

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::record::Record;

/// Something that yields records.
#[async_trait]
pub trait Source: Send {
    /// Yields records into `out` until there are no more (`--once`, end of input) or `stop` is
    /// cancelled; then waits until every record it sent has its verdict, saves its checkpoints and
    /// returns. The channel is bounded: a full one holds the source back.
    ///
    /// A line that cannot be decoded is sent too, as a record with a [fault](Record::fault).
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError>;
}

/// Why a source ended early.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Input or output failed.
    #[error("{context}: {source}")]
    Io {
        /// What was being done, with the path.
        context: String,
        /// The cause.
        source: std::io::Error,
    },
    /// The checkpoints could not be read or written.
    #[error("checkpoints of source `{source_name}`: {why}")]
    Checkpoints {
        /// Which source.
        source_name: String,
        /// The cause.
        why: String,
    },
}

/// Where sources keep how far they have come, by source name and a key of the source's own
/// (a file's identity). Values are text of the source's own making.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// All checkpoints of one source.
    async fn load(&self, source: &str) -> Result<Vec<(String, String)>, SourceError>;
    /// Replaces checkpoints; durable once it returns. `None` removes a key.
    async fn save(
        &self,
        source: &str,
        rows: Vec<(String, Option<String>)>,
    ) -> Result<(), SourceError>;
}

/// Shared handle of [`Checkpoints`].
pub type SharedCheckpoints = Arc<dyn Checkpoints>;
