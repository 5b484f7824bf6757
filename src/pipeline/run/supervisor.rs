//! The supervisor of a running pipeline: it starts and connects the parts and handles their ends.
//! `reload` replaces parts.
//!
//! # Invariants
//! At most one sink and one source of a name run at a time, and each reports its end once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::changes::RunSettings;
use super::parts::{BuiltSink, BuiltSource, shutdown_deadline};
use super::route::{SinkInput, SourceRoute, run_route};
use super::{RunError, RunOptions, Shutdown};
use crate::config::Loaded;
use crate::pipeline::Summary;
use crate::pipeline::status_service::StatusService;
use crate::record::Record;
use crate::sink::{Healthcheck, SinkError};
use crate::source::SourceError;
use crate::telemetry::{
    PipelinePhase, ReadPosition, SinkEntry, SinkMetrics, SourceEntry, SourceMetrics,
};

/// Records in a channel between a source and a sink at most.
const CHANNEL_CAPACITY: usize = 1024;

/// Senders of sinks, by name. A sink's input ends when the last of its senders is gone.
pub(super) type Senders = BTreeMap<String, mpsc::Sender<Record>>;

/// A pipeline that runs.
pub(super) struct Supervisor {
    pub(super) options: RunOptions,
    pub(super) settings: RunSettings,
    pub(super) sinks: BTreeMap<String, LiveSink>,
    pub(super) sources: BTreeMap<String, LiveSource>,
    /// Sinks that were replaced or removed before they settled or stored all their records. The
    /// sources of these records were notified.
    pub(super) unpersisted: Vec<LiveSink>,
    /// How long the parts may take to end after a stop.
    pub(super) deadline: watch::Sender<Duration>,
    ends: JoinSet<PartEnd>,
    helpers: JoinSet<()>,
    /// What is shown of the pipeline.
    pub(super) shown: StatusService,
    /// Sinks that ran at any time.
    counted: BTreeSet<String>,
    summary: Summary,
    failed: Option<RunError>,
}

/// A sink that runs.
pub(super) struct LiveSink {
    pub(super) inputs: Vec<String>,
    pub(super) sender: mpsc::WeakSender<Record>,
    pub(super) metrics: SinkMetrics,
    pub(super) durable: bool,
    pub(super) fed: CancellationToken,
    /// Aborts this sink.
    pub(super) stop: CancellationToken,
    /// Makes it end within seconds, with records left in a disk buffer.
    pub(super) leave: CancellationToken,
    pub(super) status: PartStatus,
}

/// A source that runs.
pub(super) struct LiveSource {
    pub(super) route: watch::Sender<SourceRoute>,
    /// Stops this source once its records are settled.
    pub(super) stop: CancellationToken,
    /// Aborts this source.
    abandon: CancellationToken,
    pub(super) status: PartStatus,
    kind: &'static str,
    metrics: SourceMetrics,
    position: Option<Arc<dyn ReadPosition>>,
}

/// Whether a part still belongs to the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PartStatus {
    /// It belongs to the pipeline.
    Active,
    /// It was asked to end; another may take its place.
    Leaving,
}

pub(super) enum PartEnd {
    Sink(String, Result<(), SinkError>),
    Source(String, Result<(), SourceError>),
}

impl LiveSource {
    pub(super) fn leave(&mut self) {
        self.status = PartStatus::Leaving;
        self.stop.cancel();
    }

    /// Aborts it. Its successor reads again from the last checkpoint.
    pub(super) fn abandon(&self) {
        self.route.send_replace(SourceRoute::Closed);
        self.abandon.cancel();
    }
}

impl Supervisor {
    pub(super) fn new(options: RunOptions, settings: RunSettings, shown: StatusService) -> Self {
        let deadline = watch::Sender::new(shutdown_deadline(&settings.pipeline));
        let mut helpers = JoinSet::new();
        helpers.spawn(enforce_deadline(options.stop.clone(), deadline.subscribe()));
        Self {
            options,
            settings,
            sinks: BTreeMap::new(),
            sources: BTreeMap::new(),
            unpersisted: Vec::new(),
            deadline,
            ends: JoinSet::new(),
            helpers,
            shown,
            counted: BTreeSet::new(),
            summary: Summary::default(),
            failed: None,
        }
    }

    /// Opens the status page, if one is configured.
    pub(super) async fn open_status_page(&mut self) -> Result<(), RunError> {
        let (store, metrics) = (self.options.store.clone(), self.options.metrics.clone());
        let stop = self.options.stop.graceful.clone();
        self.shown.serve(metrics, store.clone(), stop, &mut self.helpers).await?;
        self.shown.start(store, &mut self.helpers);
        Ok(())
    }

    /// Starts the built parts. `senders` are those of the running sinks; those of the new sinks are
    /// added.
    pub(super) fn start(
        &mut self,
        sinks: Vec<BuiltSink>,
        sources: Vec<BuiltSource>,
        senders: &mut Senders,
    ) {
        for sink in sinks {
            let name = sink.name.clone();
            senders.insert(name, self.start_sink(sink));
        }
        for BuiltSource { name, kind, source, metrics, timezone } in sources {
            let position =
                source.progress().map(|progress| -> Arc<dyn ReadPosition> { Arc::new(progress) });
            let (out, from) = mpsc::channel(CHANNEL_CAPACITY);
            let route = watch::Sender::new(self.route_of(&name, senders));
            self.helpers.spawn(run_route(from, route.subscribe(), metrics.clone(), timezone));
            let stop = self.options.stop.graceful.child_token();
            let abandon = CancellationToken::new();
            let live = LiveSource {
                route,
                stop: stop.clone(),
                abandon: abandon.clone(),
                status: PartStatus::Active,
                kind,
                metrics,
                position,
            };
            self.sources.insert(name.clone(), live);
            self.ends.spawn(async move {
                let end = abandon.run_until_cancelled_owned(source.run(out, stop)).await;
                PartEnd::Source(name, end.unwrap_or(Ok(())))
            });
        }
        self.publish();
    }

    fn start_sink(&mut self, built: BuiltSink) -> mpsc::Sender<Record> {
        let BuiltSink { name, inputs, sink, healthcheck, metrics, durable, stop, leave, fed } =
            built;
        if let Some(check) = healthcheck {
            self.helpers.spawn(report_health(name.clone(), check));
        }
        self.counted.insert(name.clone());
        reset(&metrics, self.options.store.buffer_size(&name));
        let (sender, receiver) = mpsc::channel(CHANNEL_CAPACITY);
        let live = LiveSink {
            inputs,
            sender: sender.downgrade(),
            metrics,
            durable,
            fed,
            stop,
            leave,
            status: PartStatus::Active,
        };
        self.sinks.insert(name.clone(), live);
        self.ends.spawn(async move { PartEnd::Sink(name, sink.run(stream(receiver)).await) });
        sender
    }

    /// Where the records of a source go.
    pub(super) fn route_of(&self, source: &str, senders: &Senders) -> SourceRoute {
        let takers = self.sinks.iter().filter_map(|(name, sink)| {
            let takes = sink.inputs.iter().any(|input| input == source);
            let sender = senders.get(name).filter(|_| takes)?;
            Some(SinkInput { name: name.as_str().into(), sender: sender.clone() })
        });
        SourceRoute::to(takers.collect())
    }

    /// Shows the current parts. Those that have ended by themselves stay in sight.
    pub(super) fn publish(&self) {
        let named = &self.settings.pipeline;
        let (sinks, sources) = (&self.sinks, &self.sources);
        self.shown.components.update(|shown| {
            shown
                .sinks
                .retain(|name, _| sinks.contains_key(name) || named.sinks.contains_key(name));
            shown
                .sources
                .retain(|name, _| sources.contains_key(name) || named.sources.contains_key(name));
            for (name, sink) in sinks {
                let entry =
                    SinkEntry { inputs: sink.inputs.clone(), metrics: sink.metrics.clone() };
                shown.sinks.insert(name.clone(), entry);
            }
            for (name, source) in &mut shown.sources {
                source.reading = sources.contains_key(name);
            }
            for (name, source) in sources {
                let entry = SourceEntry {
                    kind: source.kind.to_owned(),
                    metrics: source.metrics.clone(),
                    position: source.position.clone(),
                    reading: true,
                };
                shown.sources.insert(name.clone(), entry);
            }
        });
        let mut inputs = self.shown.inputs.write();
        *inputs = sinks.iter().map(|(name, sink)| (name.clone(), sink.sender.clone())).collect();
    }

    fn show_phase(&self, phase: PipelinePhase) {
        self.shown.components.update(|shown| shown.phase = phase);
    }

    /// Runs until every part has ended.
    pub(super) async fn run(
        mut self,
        mut reloads: Option<mpsc::Receiver<Loaded>>,
    ) -> Result<Summary, RunError> {
        let started = tokio::time::Instant::now();
        self.show_phase(PipelinePhase::Running);
        let stop = self.options.stop.graceful.clone();
        let components = self.shown.components.clone();
        self.helpers.spawn(async move {
            stop.cancelled().await;
            components.update(|shown| shown.phase = PipelinePhase::Draining);
        });
        loop {
            tokio::select! {
                end = self.ends.join_next() => match end {
                    Some(end) => self.ended(joined(end)),
                    None => break,
                },
                next = next_reload(&mut reloads), if !self.is_stopping() => match next {
                    Some(loaded) => Box::pin(self.reload(loaded.into())).await,
                    None => reloads = None,
                },
            }
        }
        self.show_phase(PipelinePhase::Ended);
        self.helpers.shutdown().await;
        for name in &self.counted {
            self.summary.left += self.options.store.buffer_size(name).events;
            let metrics = self.options.metrics.sink(name);
            self.summary.sinks.insert(name.clone(), metrics.summary());
        }
        self.summary.seconds = started.elapsed().as_secs_f64();
        self.failed.map_or(Ok(self.summary), Err)
    }

    /// Whether the whole pipeline is stopping.
    pub(super) fn is_stopping(&self) -> bool {
        self.options.stop.graceful.is_cancelled() || self.options.stop.now.is_cancelled()
    }

    /// Stops everything after an error.
    pub(super) fn fail(&mut self, error: RunError) {
        self.failed.get_or_insert(error);
        self.options.stop.now.cancel();
        self.options.stop.graceful.cancel();
    }

    /// Waits for the next part to end and handles its result.
    pub(super) async fn next_end(&mut self) {
        match self.ends.join_next().await {
            Some(end) => self.ended(joined(end)),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, end: PartEnd) {
        match end {
            PartEnd::Source(name, result) => self.source_ended(name, result),
            PartEnd::Sink(name, result) => {
                let sink = self.sinks.remove(&name);
                match sink.filter(|sink| sink.status == PartStatus::Leaving && !self.is_stopping())
                {
                    Some(sink) => self.sink_left(&name, sink, result),
                    None => self.sink_ended(name, result),
                }
            }
        }
        self.publish();
    }

    fn source_ended(&mut self, name: String, result: Result<(), SourceError>) {
        let leaves =
            self.sources.remove(&name).is_some_and(|source| source.status == PartStatus::Leaving);
        match result {
            Ok(()) => {}
            Err(error) if leaves => {
                tracing::warn!(source = name, %error, "the replaced source failed while it ended; its records are read again");
            }
            Err(error) => {
                // The records of the other sources are settled as after SIGTERM.
                self.options.stop.graceful.cancel();
                self.failed.get_or_insert(RunError::Source { name, error });
            }
        }
    }

    /// Handles the end of a leaving sink.
    fn sink_left(&mut self, name: &str, sink: LiveSink, result: Result<(), SinkError>) {
        match result {
            Ok(()) => return,
            Err(SinkError::Aborted { .. }) => {}
            Err(error) => {
                tracing::warn!(sink = name, %error, "the replaced sink failed while it ended; records it had not settled are delivered again")
            }
        }
        if !(sink.durable && sink.fed.is_cancelled()) {
            self.unpersisted.push(sink);
        }
    }

    fn sink_ended(&mut self, name: String, result: Result<(), SinkError>) {
        match result {
            Ok(()) => {}
            Err(SinkError::Aborted { .. }) => self.summary.stopped_early = true,
            Err(SinkError::KeyRefused { status, cure }) => {
                tracing::error!(sink = name, status, "User.com refused the API key: {cure}");
                self.summary.key_refused = Some(status);
                self.options.stop.now.cancel();
                self.options.stop.graceful.cancel();
            }
            Err(error) => self.fail(RunError::Sink { name, error }),
        }
    }
}

/// Resets the gauges of a sink that starts.
pub(super) fn reset(metrics: &SinkMetrics, buffer: crate::buffer::BufferSize) {
    metrics.halted(false);
    metrics.in_flight(0);
    metrics.buffer(buffer.events, buffer.bytes);
}

fn joined(end: Result<PartEnd, tokio::task::JoinError>) -> PartEnd {
    end.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The next settings; never returns if reloads are not possible.
async fn next_reload(reloads: &mut Option<mpsc::Receiver<Loaded>>) -> Option<Loaded> {
    match reloads {
        Some(reloads) => reloads.recv().await,
        None => std::future::pending().await,
    }
}

fn stream(mut receiver: mpsc::Receiver<Record>) -> BoxStream<'static, Record> {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed()
}

async fn report_health(name: String, check: Healthcheck) {
    match check.await {
        Ok(()) => tracing::info!(sink = name, "health check passed"),
        Err(error) => tracing::error!(sink = name, %error, "health check failed"),
    }
}

/// Stops everything once the deadline after a graceful stop has passed.
async fn enforce_deadline(stop: Shutdown, deadline: watch::Receiver<Duration>) {
    stop.graceful.cancelled().await;
    let deadline = *deadline.borrow();
    tokio::time::sleep(deadline).await;
    stop.now.cancel();
}
