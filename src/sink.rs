//! The traits of a sink, in Vector's names and shape: a configuration that validates without
//! touching the world and builds a stream consumer and a health check.

use async_trait::async_trait;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use crate::buffer::Store;
use crate::config::fault::{ConfigPath, Fault};
use crate::record::Record;
use crate::telemetry::SinkMetrics;

/// Consumes a stream until it ends.
#[async_trait]
pub trait StreamSink<T> {
    /// Runs until `input` ends and everything taken from it is settled.
    ///
    /// # Errors
    /// [`SinkError`] where it had to stop earlier; what was not settled is in its buffer, or its
    /// acknowledgement says errored.
    async fn run(self: Box<Self>, input: BoxStream<'_, T>) -> Result<(), SinkError>;
}

/// A sink of records, ready to run.
pub type RecordSink = Box<dyn StreamSink<Record> + Send>;

/// Asks the other side once whether it would take what is sent.
pub type Healthcheck = BoxFuture<'static, Result<(), HealthcheckError>>;

/// The settings of a sink.
#[async_trait]
pub trait SinkFactory: Send + Sync {
    /// Finds faults without input or output. `at` is where the settings stand in their file.
    ///
    /// # Errors
    /// Every fault found.
    fn validate(&self, at: &ConfigPath) -> Result<(), Vec<Fault>>;

    /// Builds the sink and its health check. The health check is not made yet.
    ///
    /// # Errors
    /// [`SinkBuildError`] where settings or storage do not allow it.
    async fn build(&self, cx: SinkContext) -> Result<(RecordSink, Healthcheck), SinkBuildError>;
}

/// What a sink is given beside its settings.
#[derive(Clone)]
pub struct SinkContext {
    /// The sink's name in the pipeline.
    pub name: String,
    /// Where it keeps what must survive.
    pub store: Store,
    /// Where it counts.
    pub metrics: SinkMetrics,
    /// What it does when the other side refuses the key.
    pub on_auth_failure: OnAuthFailure,
    /// Ends it at once, with work left.
    pub abort: CancellationToken,
    /// Cancelled by the sink once its input has ended and everything from it is in its buffer.
    pub input_drained: CancellationToken,
}

/// What a sink does when the other side refuses its key or its domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnAuthFailure {
    /// Halt and probe until it is taken again.
    Retry,
    /// Stop with [`SinkError::KeyRefused`].
    Abort,
}

/// Why a sink stopped before its input ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkError {
    /// The other side refused the API key or the sending domain.
    #[error("User.com {} (status {status}); {cure}", refusal(*.status))]
    KeyRefused {
        /// 401, 402 or 403.
        status: u16,
        /// What to do about it.
        cure: &'static str,
    },
    /// It was told to stop.
    #[error("stopped with {pending} records left")]
    Aborted {
        /// Records not settled.
        pending: u64,
    },
    /// The other side does not answer as its API does.
    #[error("{0}")]
    UnexpectedApi(String),
    /// Its storage failed.
    #[error("storage failed: {0}")]
    Storage(String),
}

/// What a status that ends everything says.
fn refusal(status: u16) -> &'static str {
    match status {
        402 => "asks for a payment before it takes requests",
        _ => "refused the API key",
    }
}

/// Why a sink could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SinkBuildError {
    /// The settings are at fault; `validate` says where.
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
    /// What happened, and the cure where one is known.
    pub message: String,
    /// Whether the API key or the domain was refused.
    pub refused: bool,
}
