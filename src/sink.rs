//! The traits of a sink, shaped like Vector's: settings validate without I/O and build a stream
//! consumer and a health check.

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::buffer::Store;
use crate::config::fault::{ConfigPath, Fault};
use crate::record::Record;
use crate::telemetry::SinkMetrics;

pub use crate::deliver::OnAuthFailure;

/// Consumes a stream until it ends.
#[async_trait]
pub trait StreamSink<T> {
    /// Runs until `input` ends and everything taken from it is settled.
    ///
    /// # Errors
    /// [`SinkError`] where it had to stop earlier. Records that are not settled are in its disk
    /// buffer, or their acknowledgements say errored.
    async fn run(self: Box<Self>, input: BoxStream<'_, T>) -> Result<(), SinkError>;
}

/// A sink of records, ready to run.
pub type RecordSink = Box<dyn StreamSink<Record> + Send>;

/// Asks the destination once whether it accepts requests.
pub type Healthcheck = BoxFuture<'static, Result<(), HealthcheckError>>;

/// The settings of a sink.
#[async_trait]
pub trait SinkFactory: Send + Sync {
    /// Finds faults without I/O. `at` is the path of the settings in their file.
    ///
    /// # Errors
    /// Every fault found.
    fn validate(&self, at: &ConfigPath) -> Result<(), Vec<Fault>>;

    /// Builds the sink and its health check. The health check does not run yet.
    ///
    /// # Errors
    /// [`SinkBuildError`] where settings or storage do not allow it.
    async fn build(&self, cx: SinkContext) -> Result<(RecordSink, Healthcheck), SinkBuildError>;
}

/// What a sink needs besides its settings.
#[derive(Clone)]
pub struct SinkContext {
    /// The sink's name in the pipeline.
    pub name: String,
    /// Its durable state: buffer, message ids, look-ups, dead letters.
    pub store: Store,
    /// Its metrics.
    pub metrics: SinkMetrics,
    /// Where its requests go.
    pub destination: Destination,
    /// What it does when the destination refuses the API key.
    pub on_auth_failure: OnAuthFailure,
    /// Cancelled to end it at once, with work left.
    pub abort: CancellationToken,
    /// Cancelled when it should end within seconds. A sink with a disk buffer then ends its open
    /// requests and leaves the rest in the buffer; one with a memory buffer delivers what it has.
    pub leave: CancellationToken,
    /// Cancelled by the sink once its input has ended and every record of it is in its buffer.
    pub input_drained: CancellationToken,
}

/// Where a sink's requests go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Destination {
    /// To User.com.
    #[default]
    Account,
    /// Nowhere: they are counted, and answered as those of an empty account.
    Simulated,
}

/// Why a sink stopped before its input ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The destination refused the API key or the sending domain.
    #[error("User.com {} (status {status}); {cure}", refusal(*.status))]
    KeyRefused {
        /// 401, 402 or 403.
        status: u16,
        /// What to do about it.
        cure: &'static str,
    },
    /// [`SinkContext::abort`] was cancelled.
    #[error("stopped with {pending} records left")]
    Aborted {
        /// Records that are not settled.
        pending: u64,
    },
    /// The destination does not answer as User.com's API does.
    #[error("{0}")]
    UnexpectedApi(String),
    /// The storage failed.
    #[error("storage failed: {0}")]
    Storage(String),
}

/// What a status that ends the sink means.
fn refusal(status: u16) -> &'static str {
    match status {
        402 => "asks for a payment before it takes requests",
        _ => "refused the API key",
    }
}

/// Why a sink could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkBuildError {
    /// The settings have faults; `validate` lists them.
    #[error("bad settings: {0}")]
    Settings(String),
    /// The storage could not be opened.
    #[error("storage: {0}")]
    Storage(String),
}

/// Why a health check failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct HealthcheckError {
    /// What happened, and what to do where it is known.
    pub message: String,
    /// Whether the API key or the domain was refused.
    pub refused: bool,
}
