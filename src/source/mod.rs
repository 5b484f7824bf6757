//! Sources: where records come from.
//!
//! Not here: what records mean, and where they go. One invariant: a source forgets a record only
//! after its verdict; what was not settled is read again by the next run, where it can be.

pub mod decode;
pub mod file;
#[cfg(feature = "fluvio")]
pub mod fluvio;
pub mod http;
mod in_flight;
mod inflate;
mod ingest;
#[cfg(feature = "kafka")]
pub mod kafka;
mod line;
mod memory;
mod metadata;
pub mod offset_tracker;
mod progress;
mod registry;
pub mod stdin;
#[cfg(any(feature = "fluvio", feature = "kafka"))]
mod text;
mod tls;
#[cfg(feature = "vector")]
pub mod vector;

use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::record::Record;
use crate::telemetry::{SourceLag, SourceMetrics};

pub use self::progress::ReadProgress;
pub use self::registry::{BuildError, ReadMode, build, decode_text, decoder};

/// Something that yields records.
#[async_trait]
pub trait Source: Send {
    /// Yields records into `out` until there are no more (`--once`, end of input) or `stop` is
    /// cancelled; then waits until every record it sent has its verdict, saves its checkpoints and
    /// returns. The channel is bounded: a full one holds the source back.
    ///
    /// A line that cannot be decoded is sent too, as a record with a [fault](Record::decode_error).
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError>;

    /// How far it has read, for sources that can tell; a handle to keep while it runs.
    fn progress(&self) -> Option<ReadProgress> {
        None
    }

    /// Is told, before it runs, what is done with its records. Sources to which that makes no
    /// difference leave it.
    fn set_downstream(&mut self, _downstream: Downstream) {}

    /// Is given, before it runs, where to say how far it is behind. Sources that cannot tell leave
    /// it.
    fn set_lag_gauge(&mut self, _lag: SourceLag) {}

    /// Is given, before it runs, where to count what it refuses. Sources that refuse nothing leave
    /// it.
    fn use_metrics(&mut self, _metrics: &SourceMetrics) {}
}

/// What is done with the records of a source.
#[derive(Debug, Clone, Copy, Default)]
pub struct Downstream {
    /// Where they wait.
    pub buffer: DownstreamBuffer,
    /// Whether anything asks where a record stands (`%file`, `%line`, `%offset`).
    pub location_metadata: LocationMetadata,
}

/// Where the records of a source wait before they are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DownstreamBuffer {
    /// In memory, of one sink at least: only the source can tell a later process what may have been
    /// sent.
    #[default]
    Memory,
    /// In durable buffers, which know what they sent.
    Durable,
}

/// Whether records say where they stand in their source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocationMetadata {
    /// They do.
    #[default]
    Include,
    /// Nothing asks for it.
    Omit,
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
    /// What is read over a network refused, or is not there.
    #[error("{context}: {why}")]
    Remote {
        /// What was being done.
        context: String,
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

/// Room for one record in the channel, or `None` where the receiver is gone or `stop` is cancelled.
async fn permit<'a>(
    out: &'a mpsc::Sender<Record>,
    stop: &CancellationToken,
) -> Option<mpsc::Permit<'a, Record>> {
    if stop.is_cancelled() {
        return None;
    }
    // Most of the time there is room; then nothing needs to be raced.
    if let Ok(permit) = out.try_reserve() {
        return Some(permit);
    }
    let permit = stop.run_until_cancelled(out.reserve()).await?.ok()?;
    // Room and stop may have come together; then stop wins.
    (!stop.is_cancelled()).then_some(permit)
}

fn check_limit(max_line_bytes: usize) -> Result<(), String> {
    match max_line_bytes {
        0 => Err("`max_line_bytes` must be at least 1".into()),
        _ => Ok(()),
    }
}
