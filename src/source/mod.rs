//! Sources: where records come from.
//!
//! # Invariants
//!
//! A source discards a record only after its verdict; what was not settled is read again by the
//! next run, where the source can be read again.

#[cfg(any(feature = "fluvio", feature = "kafka"))]
mod broker_message;
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
    /// Sends records to `out` until there are no more (`--once`, end of input) or `stop` is
    /// cancelled; then waits until every record that it sent has its verdict, saves its checkpoints
    /// and returns. The channel is bounded: while it is full, the source waits.
    ///
    /// A line that cannot be decoded is sent too, as a record with a [decode
    /// error](Record::decode_error).
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError>;

    /// How far it has read, for sources that know; a handle that can be read while the source runs.
    fn progress(&self) -> Option<ReadProgress> {
        None
    }

    /// Tells the source before it runs how its records are processed. The default ignores it.
    fn set_downstream(&mut self, _downstream: Downstream) {}

    /// Gives the source before it runs the gauge for how far it is behind. The default ignores it.
    fn set_lag_gauge(&mut self, _lag: SourceLag) {}

    /// Gives the source before it runs the counters for what it refuses. The default ignores it.
    fn use_metrics(&mut self, _metrics: &SourceMetrics) {}
}

/// How the records of a source are processed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Downstream {
    /// Where records wait before they are sent.
    pub buffer: DownstreamBuffer,
    /// Whether a mapping uses `%file`, `%line` or `%offset`.
    pub location_metadata: LocationMetadata,
}

/// Where the records of a source wait before they are sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum DownstreamBuffer {
    /// In memory, for at least one sink: only the source can record for a later process what may
    /// have been sent.
    #[default]
    Memory,
    /// In durable buffers only, which record what they sent.
    Durable,
}

/// Whether records carry their location in the source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum LocationMetadata {
    /// They do.
    #[default]
    Include,
    /// They do not, because no mapping uses it.
    Omit,
}

/// Why a source ended early.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Reading or writing failed.
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
    /// A remote service refused, or cannot be reached.
    #[error("{context}: {why}")]
    Remote {
        /// What was being done.
        context: String,
        /// The cause.
        why: String,
    },
}

/// Stores how far sources have read, by source name and a key that the source chooses (for a file,
/// its identity). The source chooses the format of values.
#[async_trait]
pub trait Checkpoints: Send + Sync {
    /// All checkpoints of one source.
    async fn load(&self, source: &str) -> Result<Vec<(String, String)>, SourceError>;
    /// Replaces checkpoints; they are durable when it returns. `None` removes a key.
    async fn save(
        &self,
        source: &str,
        rows: Vec<(String, Option<String>)>,
    ) -> Result<(), SourceError>;
}

/// A shared handle of [`Checkpoints`].
pub type SharedCheckpoints = Arc<dyn Checkpoints>;

/// Room for one record in the channel; `None` where the receiver is dropped or `stop` is cancelled.
async fn permit<'a>(
    out: &'a mpsc::Sender<Record>,
    stop: &CancellationToken,
) -> Option<mpsc::Permit<'a, Record>> {
    if stop.is_cancelled() {
        return None;
    }
    // Usually there is room, and no future has to be polled.
    if let Ok(permit) = out.try_reserve() {
        return Some(permit);
    }
    let permit = stop.run_until_cancelled(out.reserve()).await?.ok()?;
    // Where room and stop arrive together, stop wins.
    (!stop.is_cancelled()).then_some(permit)
}

fn check_limit(max_line_bytes: usize) -> Result<(), String> {
    match max_line_bytes {
        0 => Err("`max_line_bytes` must be at least 1".into()),
        _ => Ok(()),
    }
}
