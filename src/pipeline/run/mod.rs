//! From settings to a running pipeline and back to a summary. How the parts live and are exchanged
//! is told in the files below.

mod changes;
mod exchange;
mod parts;
mod route;
mod supervisor;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::changes::Settings;
use self::parts::{BuiltSink, BuiltSource, build_sinks, build_sources, taken_sources};
use self::supervisor::{Senders, Supervisor};
use super::summary::Summary;
use crate::buffer::{Store, StoreError};
use crate::config::{Fingerprints, Loaded, Pipeline};
use crate::sink::{SinkBuildError, SinkError};
use crate::source::{self, ReadMode, ReadProgress, Source, SourceError};
use crate::telemetry::Metrics;

/// How a pipeline is stopped.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Sources stop; what they yielded is settled within the deadline.
    pub graceful: CancellationToken,
    /// Everything stops; what is not settled stays where it is kept.
    pub now: CancellationToken,
}

/// How a pipeline is run.
pub struct Launch {
    /// Whether sources follow their input or stop at its present end.
    pub mode: ReadMode,
    /// Where state is kept.
    pub store: Store,
    /// Where it counts.
    pub metrics: Metrics,
    /// How it is stopped.
    pub stop: Stop,
}

/// Why a pipeline did not run, or not to its end.
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
    /// A sink ended early.
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
    /// A source ended early.
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
pub struct Launched {
    sinks: Vec<BuiltSink>,
    sources: Vec<BuiltSource>,
    launch: Launch,
    pipeline: Pipeline,
}

impl Launched {
    /// Builds every part. Nothing runs yet.
    ///
    /// # Errors
    /// Where a part cannot be built.
    pub async fn build(pipeline: &Pipeline, launch: Launch) -> Result<Self, RunError> {
        let sinks = build_sinks(pipeline, |_| true, &launch).await?;
        let taken = taken_sources(pipeline);
        let sources = build_sources(pipeline, |name| taken.contains(name), &launch)?;
        Ok(Self { sinks, sources, launch, pipeline: pipeline.clone() })
    }

    /// How far the sources have read, for those that know how much there is.
    pub fn progress(&self) -> Vec<ReadProgress> {
        self.sources.iter().filter_map(|source| source.source.progress()).collect()
    }

    /// Adds a source of one's own; sinks take it by naming it among their `inputs`.
    pub fn add_source(&mut self, name: &str, kind: &'static str, source: Box<dyn Source>) {
        let metrics = self.launch.metrics.source(name, kind);
        self.sources.push(BuiltSource { name: name.to_owned(), source, metrics, timezone: None });
    }

    /// Makes the sinks' health checks, by name.
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

    /// Runs until the sources end or it is stopped, and everything yielded is settled.
    ///
    /// # Errors
    /// Where a part fails; being stopped and a refused key are told in the summary.
    pub async fn run(self) -> Result<Summary, RunError> {
        self.supervise(Fingerprints::default(), None).await
    }

    /// Runs, and goes over to every new pipeline that comes through `reloads`: sources and sinks
    /// that changed are exchanged once they have settled what they had taken, the others are left
    /// alone. `fingerprints` are those of the pipeline it was built from. One change is made at a
    /// time; what cannot be changed is logged, and the pipeline goes on as it was.
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
        let settings = Settings { pipeline: self.pipeline, fingerprints };
        let mut supervisor = Supervisor::new(self.launch, settings);
        supervisor.open_status_page().await?;
        supervisor.start(self.sinks, self.sources, &mut Senders::new());
        supervisor.run(reloads).await
    }
}
