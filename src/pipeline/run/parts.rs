//! Builds sinks and sources from their settings, without running them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::{RunError, RunOptions};
use crate::config::sink::BufferKind;
use crate::config::{Pipeline, SinkConfig as SinkSettings};
use crate::sink::{Destination, Healthcheck, OnAuthFailure, RecordSink, SinkContext, SinkFactory};
use crate::source::{
    self, Downstream, DownstreamBuffer, LocationMetadata, ReadMode, SharedCheckpoints, Source,
};
use crate::telemetry::{SinkMetrics, SourceMetrics};

/// A sink that does not run yet.
pub(super) struct BuiltSink {
    pub(super) name: String,
    pub(super) inputs: Vec<String>,
    pub(super) sink: RecordSink,
    pub(super) healthcheck: Option<Healthcheck>,
    pub(super) metrics: SinkMetrics,
    /// Whether its buffer survives it (disk buffer).
    pub(super) durable: bool,
    pub(super) stop: CancellationToken,
    /// Makes it end within seconds, with records left in a disk buffer.
    pub(super) leave: CancellationToken,
    pub(super) fed: CancellationToken,
}

/// A source that does not run yet.
pub(super) struct BuiltSource {
    pub(super) name: String,
    /// Its type in the pipeline file.
    pub(super) kind: &'static str,
    pub(super) source: Box<dyn Source>,
    pub(super) metrics: SourceMetrics,
    /// The time zone of its times, if its settings name one.
    pub(super) timezone: Option<Arc<str>>,
}

/// Builds the sinks that are `wanted`.
pub(super) async fn build_sinks(
    pipeline: &Pipeline,
    wanted: impl Fn(&str) -> bool,
    options: &RunOptions,
) -> Result<Vec<BuiltSink>, RunError> {
    let mut sinks = Vec::new();
    for (name, settings) in &pipeline.sinks {
        if !wanted(name) {
            continue;
        }
        let SinkSettings::Usercom(config) = settings;
        let metrics = options.metrics.sink(name);
        let cx = SinkContext {
            name: name.clone(),
            store: options.store.clone(),
            metrics: metrics.clone(),
            destination: options.destination,
            on_auth_failure: match options.mode {
                ReadMode::Once => OnAuthFailure::Abort,
                ReadMode::Follow => OnAuthFailure::Retry,
            },
            abort: options.stop.now.child_token(),
            leave: options.stop.graceful.child_token(),
            input_drained: CancellationToken::new(),
        };
        let (stop, fed) = (cx.abort.clone(), cx.input_drained.clone());
        let leave = cx.leave.clone();
        let built = config.build(cx).await;
        let (sink, healthcheck) =
            built.map_err(|error| RunError::Build { name: name.clone(), error })?;
        let is_checked = config.healthcheck.enabled && options.destination == Destination::Account;
        sinks.push(BuiltSink {
            name: name.clone(),
            inputs: config.inputs.clone(),
            sink,
            healthcheck: is_checked.then_some(healthcheck),
            metrics,
            durable: config.buffer.kind == BufferKind::Disk,
            stop,
            leave,
            fed,
        });
    }
    Ok(sinks)
}

/// Builds the sources that are `wanted`.
pub(super) fn build_sources(
    pipeline: &Pipeline,
    wanted: impl Fn(&str) -> bool,
    options: &RunOptions,
) -> Result<Vec<BuiltSource>, RunError> {
    let checkpoints: SharedCheckpoints = Arc::new(options.store.clone());
    let mut sources = Vec::new();
    for (name, settings) in &pipeline.sources {
        if !wanted(name) {
            continue;
        }
        let mut source = source::build(name, settings, options.mode, Arc::clone(&checkpoints))
            .map_err(RunError::Settings)?;
        let metrics = options.metrics.source(name, settings.kind());
        source.set_lag_gauge(metrics.lag());
        source.set_downstream(downstream(pipeline, name));
        source.use_metrics(&metrics);
        let timezone = settings.timezone().map(Arc::from);
        sources.push(BuiltSource {
            name: name.clone(),
            kind: settings.kind(),
            source,
            metrics,
            timezone,
        });
    }
    Ok(sources)
}

/// How the records of a source are used.
fn downstream(pipeline: &Pipeline, source: &str) -> Downstream {
    let takers = pipeline.sinks.values().filter_map(|SinkSettings::Usercom(sink)| {
        sink.inputs.iter().any(|input| input == source).then_some(sink)
    });
    let mut downstream =
        Downstream { buffer: DownstreamBuffer::Durable, location_metadata: LocationMetadata::Omit };
    for sink in takers {
        if sink.buffer.kind != BufferKind::Disk {
            downstream.buffer = DownstreamBuffer::Memory;
        }
        // A rule that reads the location contains its name in one of its texts.
        let rules = serde_json::to_string(&sink.mapping).unwrap_or_default();
        if ["%file", "%line", "%offset", "%\\\"", "\"%\"", "%."]
            .iter()
            .any(|place| rules.contains(place))
        {
            downstream.location_metadata = LocationMetadata::Include;
        }
    }
    downstream
}

/// The sources that a sink reads from; others are not started.
pub(super) fn taken_sources(pipeline: &Pipeline) -> BTreeSet<String> {
    let inputs = pipeline.sinks.values().flat_map(|SinkSettings::Usercom(sink)| &sink.inputs);
    inputs.filter(|name| pipeline.sources.contains_key(*name)).cloned().collect()
}

/// How long a pipeline may take to settle its records: the largest `shutdown_timeout_secs` of its
/// sinks.
pub(super) fn shutdown_deadline(pipeline: &Pipeline) -> Duration {
    let sinks = pipeline.sinks.values();
    let seconds =
        sinks.map(|SinkSettings::Usercom(sink)| sink.delivery.shutdown_timeout_secs).max();
    Duration::from_secs(seconds.unwrap_or(0))
}
