//! Builds a pipeline from its settings and runs it; the result is a summary.

mod changes;
mod parts;
mod reload;
mod route;
mod supervisor;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::changes::{RunSettings, shown_files};
use self::parts::{BuiltSink, BuiltSource, build_sinks, build_sources, taken_sources};
use self::supervisor::{Senders, Supervisor};
use super::status_service::StatusService;
use super::summary::Summary;
use crate::api::PlaygroundText;
use crate::buffer::{Store, StoreError};
use crate::config::{Fingerprints, Loaded, Pipeline, Report};
use crate::sink::{Destination, SinkBuildError, SinkError};
use crate::source::{self, ReadMode, Source, SourceError};
use crate::telemetry::{Metrics, StatusRecorder};

/// Stops a pipeline.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Cancel to stop the sources. Records in a memory buffer are settled within the deadline; those
    /// in a disk buffer stay there for the next start, but for open requests.
    pub graceful: CancellationToken,
    /// Cancel to stop everything now; records that are not settled stay in a disk buffer or with
    /// their source.
    pub now: CancellationToken,
}

/// How a pipeline is run.
pub struct RunOptions {
    /// Whether sources follow their input or stop at its present end.
    pub mode: ReadMode,
    /// The store of its state.
    pub store: Store,
    /// Its metrics.
    pub metrics: Metrics,
    /// Stops it.
    pub stop: Shutdown,
    /// Where the requests of its sinks go.
    pub destination: Destination,
}

/// Why a pipeline did not start or failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A sink could not be built.
    #[error("sink `{name}`: {error}")]
    Build {
        /// Which.
        name: String,
        /// Why.
        error: SinkBuildError,
    },
    /// A sink failed.
    #[error("sink `{name}`: {error}")]
    Sink {
        /// Which.
        name: String,
        /// Why.
        error: SinkError,
    },
    /// A source's settings are at fault.
    #[error("source `{}`: {}", .0.source_name, .0.why)]
    Settings(source::BuildError),
    /// A source failed.
    #[error("source `{name}`: {error}")]
    Source {
        /// Which.
        name: String,
        /// Why.
        error: SourceError,
    },
    /// The status page cannot be served.
    #[error("[api] listen = \"{listen}\": {error}")]
    Api {
        /// Where.
        listen: String,
        /// Why.
        error: std::io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A pipeline that has been built and is ready to run.
pub struct BuiltPipeline {
    sinks: Vec<BuiltSink>,
    sources: Vec<BuiltSource>,
    options: RunOptions,
    pipeline: Pipeline,
    files: Vec<PlaygroundText>,
    /// What is shown of it.
    shown: StatusService,
}

impl BuiltPipeline {
    /// Builds every part. Nothing runs yet.
    ///
    /// # Errors
    /// Where a part cannot be built.
    pub async fn build(pipeline: &Pipeline, options: RunOptions) -> Result<Self, RunError> {
        let sinks = build_sinks(pipeline, |_| true, &options).await?;
        let taken = taken_sources(pipeline);
        let sources = build_sources(pipeline, |name| taken.contains(name), &options)?;
        let shown = StatusService::new(pipeline);
        let pipeline = pipeline.clone();
        Ok(Self { sinks, sources, options, pipeline, files: Vec::new(), shown })
    }

    /// The status of the pipeline, from now until it has ended.
    pub fn status(&self) -> StatusRecorder {
        self.shown.recorder.clone()
    }

    /// Shows the files of the pipeline in the playground of the status page, without their secrets.
    /// `report` is that of their [loading](Loaded::warnings).
    pub fn show_files(&mut self, report: &Report) {
        self.files = shown_files(report);
        self.shown.show_files(self.files.clone());
    }

    /// Adds a custom source; sinks read from it by naming it in their `inputs`.
    pub fn add_source(&mut self, name: &str, kind: &'static str, source: Box<dyn Source>) {
        let metrics = self.options.metrics.source(name, kind);
        let name = name.to_owned();
        self.sources.push(BuiltSource { name, kind, source, metrics, timezone: None });
    }

    /// Runs the health checks of the sinks, by name.
    pub async fn healthchecks(
        &mut self,
    ) -> Vec<(String, Result<(), crate::sink::HealthcheckError>)> {
        let checks = self.sinks.iter_mut().filter_map(|sink| {
            sink.healthcheck.take().map(|check| {
                let name = sink.name.clone();
                async move { (name, check.await) }
            })
        });
        futures::future::join_all(checks).await
    }

    /// Runs until the sources end or it is stopped, and all their records are settled.
    ///
    /// # Errors
    ///
    /// If a part fails. A stop and a refused key are not errors; the summary has them.
    pub async fn run(self) -> Result<Summary, RunError> {
        self.supervise(Fingerprints::default(), None).await
    }

    /// Runs, and changes to every new pipeline that arrives through `reloads`: changed sources and
    /// sinks are replaced once they have settled their records, the others are not touched.
    /// `fingerprints` are those of the pipeline it was built from. Changes that cannot be made are
    /// logged, and the pipeline continues as before.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_reloading(
        self,
        fingerprints: Fingerprints,
        reloads: mpsc::Receiver<Loaded>,
    ) -> Result<Summary, RunError> {
        self.supervise(fingerprints, Some(reloads)).await
    }

    async fn supervise(
        self,
        fingerprints: Fingerprints,
        reloads: Option<mpsc::Receiver<Loaded>>,
    ) -> Result<Summary, RunError> {
        let settings = RunSettings { pipeline: self.pipeline, fingerprints, files: self.files };
        let mut supervisor = Supervisor::new(self.options, settings, self.shown);
        supervisor.open_status_page().await?;
        supervisor.start(self.sinks, self.sources, &mut Senders::new());
        supervisor.run(reloads).await
    }
}
