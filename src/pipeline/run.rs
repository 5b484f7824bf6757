//! From settings to a running pipeline and back to a summary.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::summary::Summary;
use crate::buffer::{Store, StoreError};
use crate::config::{ApiConfig, Pipeline, SinkConfig as SinkSettings};
use crate::record::Record;
use crate::sink::{
    BuildError, Healthcheck, RecordSink, Refusal, SinkConfig, SinkContext, SinkError,
};
use crate::source::{self, ReadMode, ReadProgress, SharedCheckpoints, Source, SourceError};
use crate::telemetry::{ApiState, Metrics, SinkMetrics, SourceMetrics, serve};

/// Records between a source and the sinks' buffers at most.
const CHANNEL: usize = 1024;

/// Records handed on together at most.
const CHUNK: usize = 256;

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
        error: BuildError,
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
    deadline: Duration,
    api: Option<ApiConfig>,
}

struct BuiltSink {
    name: String,
    inputs: Vec<String>,
    sink: RecordSink,
    healthcheck: Option<Healthcheck>,
    metrics: SinkMetrics,
}

struct BuiltSource {
    name: String,
    source: Box<dyn Source>,
    metrics: SourceMetrics,
}

impl Launched {
    /// Builds every part. Nothing runs yet.
    ///
    /// # Errors
    /// Where a part cannot be built.
    pub async fn build(pipeline: &Pipeline, launch: Launch) -> Result<Self, RunError> {
        let mut sinks = Vec::new();
        let mut deadline = Duration::ZERO;
        for (name, settings) in &pipeline.sinks {
            let SinkSettings::Usercom(config) = settings;
            let metrics = launch.metrics.sink(name);
            let cx = SinkContext {
                name: name.clone(),
                store: launch.store.clone(),
                metrics: metrics.clone(),
                refusal: match launch.mode {
                    ReadMode::Once => Refusal::GiveUp,
                    ReadMode::Follow => Refusal::Wait,
                },
                stop: launch.stop.now.clone(),
            };
            let built = config.build(cx).await;
            let (sink, healthcheck) =
                built.map_err(|error| RunError::Build { name: name.clone(), error })?;
            deadline = deadline.max(Duration::from_secs(config.delivery.shutdown_timeout_secs));
            sinks.push(BuiltSink {
                name: name.clone(),
                inputs: config.inputs.clone(),
                sink,
                healthcheck: config.healthcheck.enabled.then_some(healthcheck),
                metrics,
            });
        }
        let checkpoints: SharedCheckpoints = Arc::new(launch.store.clone());
        let mut sources = Vec::new();
        for (name, settings) in &pipeline.sources {
            if !sinks.iter().any(|sink| sink.inputs.contains(name)) {
                continue;
            }
            let metrics = launch.metrics.source(name, settings.kind());
            let checkpoints = Arc::clone(&checkpoints);
            let source = source::build(name, settings, launch.mode, checkpoints)
                .map_err(RunError::Settings)?;
            if let Some(lag) = source.lag() {
                launch.metrics.lag(name, settings.kind(), &lag);
            }
            sources.push(BuiltSource { name: name.clone(), source, metrics });
        }
        Ok(Self { sinks, sources, launch, deadline, api: pipeline.api.clone() })
    }

    /// How far the sources have read, for those that know how much there is.
    pub fn progress(&self) -> Vec<ReadProgress> {
        self.sources.iter().filter_map(|source| source.source.progress()).collect()
    }

    /// Adds a source of one's own; sinks take it by naming it among their `inputs`.
    pub fn add_source(&mut self, name: &str, kind: &'static str, source: Box<dyn Source>) {
        let metrics = self.launch.metrics.source(name, kind);
        self.sources.push(BuiltSource { name: name.to_owned(), source, metrics });
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
        let started = tokio::time::Instant::now();
        let stop = self.launch.stop.clone();
        let running = Arc::new(AtomicBool::new(false));
        let mut helpers = JoinSet::new();
        if let Some(api) = &self.api {
            let state = ApiState {
                metrics: self.launch.metrics.clone(),
                sinks: self.sinks.iter().map(|s| (s.name.clone(), s.metrics.clone())).collect(),
                running: Arc::clone(&running),
            };
            helpers.spawn(status_page(&api.listen, state).await?);
        }
        helpers.spawn(enforce_deadline(stop.clone(), self.deadline));

        let metrics: Vec<(String, SinkMetrics)> =
            self.sinks.iter().map(|sink| (sink.name.clone(), sink.metrics.clone())).collect();
        let mut ends = JoinSet::new();
        let mut outlets: Vec<(Vec<String>, mpsc::Sender<Record>)> = Vec::new();
        for BuiltSink { name, inputs, sink, healthcheck, .. } in self.sinks {
            if let Some(check) = healthcheck {
                helpers.spawn(report_health(name.clone(), check));
            }
            let (sender, receiver) = mpsc::channel(CHANNEL);
            outlets.push((inputs, sender));
            ends.spawn(async move { End::Sink(name, sink.run(stream(receiver)).await) });
        }
        for BuiltSource { name, source, metrics } in self.sources {
            let (sender, receiver) = mpsc::channel(CHANNEL);
            let takers = outlets.iter().filter(|(inputs, _)| inputs.contains(&name));
            let takers = takers.map(|(_, sender)| sender.clone()).collect();
            helpers.spawn(route(receiver, takers, metrics));
            let stop = stop.graceful.clone();
            ends.spawn(async move { End::Source(name, source.run(sender, stop).await) });
        }
        drop(outlets);
        running.store(true, Ordering::Release);

        let mut summary = Summary::default();
        let mut failed = None;
        while let Some(end) = ends.join_next().await {
            match end.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())) {
                End::Source(_, Ok(())) | End::Sink(_, Ok(())) => {}
                End::Sink(_, Err(SinkError::Stopped { .. })) => summary.stopped_early = true,
                End::Sink(_, Err(SinkError::KeyRefused { status, cure })) => {
                    tracing::error!(status, "User.com refused the API key: {cure}");
                    summary.key_refused = Some(status);
                    stop.now.cancel();
                    stop.graceful.cancel();
                }
                End::Sink(name, Err(error)) => {
                    stop.now.cancel();
                    stop.graceful.cancel();
                    failed.get_or_insert(RunError::Sink { name, error });
                }
                End::Source(name, Err(error)) => {
                    // The other sources' records are settled as on SIGTERM.
                    stop.graceful.cancel();
                    failed.get_or_insert(RunError::Source { name, error });
                }
            }
        }
        running.store(false, Ordering::Release);
        helpers.shutdown().await;
        for (name, metrics) in metrics {
            summary.left += self.launch.store.buffer_size(&name).events;
            summary.sinks.insert(name, metrics.summary());
        }
        summary.seconds = started.elapsed().as_secs_f64();
        failed.map_or(Ok(summary), Err)
    }
}

enum End {
    Sink(String, Result<(), SinkError>),
    Source(String, Result<(), SourceError>),
}

fn stream(mut receiver: mpsc::Receiver<Record>) -> BoxStream<'static, Record> {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed()
}

/// Hands a source's records to every sink that takes them, and counts them.
async fn route(
    mut from: mpsc::Receiver<Record>,
    to: Vec<mpsc::Sender<Record>>,
    metrics: SourceMetrics,
) {
    let mut chunk = Vec::with_capacity(CHUNK);
    while from.recv_many(&mut chunk, CHUNK).await > 0 {
        let undecodable = chunk.iter().filter(|record| record.fault.is_some()).count();
        metrics.sent(undecodable as u64, chunk.len() as u64);
        for record in chunk.drain(..) {
            let Some((last, others)) = to.split_last() else {
                return;
            };
            for sink in others {
                // A sink that is gone drops the record's share: errored, so the source keeps it.
                drop(sink.send(record.clone()).await);
            }
            drop(last.send(record).await);
        }
    }
}

async fn status_page(
    listen: &str,
    state: ApiState,
) -> Result<impl Future<Output = ()> + use<>, RunError> {
    let failed = |error| RunError::Api { listen: listen.to_owned(), error };
    let addr = listen.parse().map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
    let (addr, server) = serve(addr, state, CancellationToken::new()).await.map_err(failed)?;
    tracing::info!(%addr, "status page");
    Ok(server)
}

async fn report_health(name: String, check: Healthcheck) {
    match check.await {
        Ok(()) => tracing::info!(sink = name, "health check passed"),
        Err(error) => tracing::error!(sink = name, %error, "health check failed"),
    }
}

/// Once asked to stop, everything ends within the deadline.
async fn enforce_deadline(stop: Stop, deadline: Duration) {
    stop.graceful.cancelled().await;
    tokio::time::sleep(deadline).await;
    stop.now.cancel();
}
