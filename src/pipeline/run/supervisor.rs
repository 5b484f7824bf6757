//! The parts of a pipeline while they run: starts them, connects them, and hears how they end.
//! What is exchanged on a reload, and in which order, is told in `exchange`.
//!
//! Invariant: at most one sink and one source of a name live at a time, and each tells its end once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::changes::Settings;
use super::parts::{BuiltSink, BuiltSource, shutdown_deadline};
use super::route::{Taker, Way, route};
use super::{Launch, RunError, Stop};
use crate::config::Loaded;
use crate::pipeline::Summary;
use crate::record::Record;
use crate::sink::{Healthcheck, SinkError};
use crate::source::SourceError;
use crate::telemetry::{ApiState, Roster, SinkMetrics, serve};

/// Records between a source and the sinks' buffers at most.
const CHANNEL: usize = 1024;

/// Senders of sinks, by name. A sink's input ends when the last of its senders is gone.
pub(super) type Senders = BTreeMap<String, mpsc::Sender<Record>>;

/// A pipeline that runs.
pub(super) struct Supervisor {
    pub(super) launch: Launch,
    pub(super) settings: Settings,
    pub(super) sinks: BTreeMap<String, LiveSink>,
    pub(super) sources: BTreeMap<String, LiveSource>,
    /// Sinks that were replaced or removed and could not settle all they had taken, nor keep it:
    /// their sources have been told so.
    pub(super) spilled: Vec<LiveSink>,
    /// How long the parts may take to end, once they are asked to.
    pub(super) deadline: watch::Sender<Duration>,
    ends: JoinSet<End>,
    helpers: JoinSet<()>,
    roster: Roster,
    running: Arc<AtomicBool>,
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
    /// Ends this one sink at once.
    pub(super) stop: CancellationToken,
    pub(super) role: Role,
}

/// A source that runs.
pub(super) struct LiveSource {
    pub(super) way: watch::Sender<Way>,
    /// Ends this one source as soon as what it yielded is settled.
    pub(super) stop: CancellationToken,
    /// Ends it at once.
    abandon: CancellationToken,
    pub(super) role: Role,
}

/// Whether a part belongs to the pipeline still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It does.
    Stays,
    /// It has been asked to end, and another may take its place.
    Leaves,
}

pub(super) enum End {
    Sink(String, Result<(), SinkError>),
    Source(String, Result<(), SourceError>),
}

impl LiveSource {
    pub(super) fn leave(&mut self) {
        self.role = Role::Leaves;
        self.stop.cancel();
    }

    /// Ends it at once. It reads again from its last checkpoint.
    pub(super) fn abandon(&self) {
        self.way.send_replace(Way::Cut);
        self.abandon.cancel();
    }
}

impl Supervisor {
    pub(super) fn new(launch: Launch, settings: Settings) -> Self {
        let deadline = watch::Sender::new(shutdown_deadline(&settings.pipeline));
        let mut helpers = JoinSet::new();
        helpers.spawn(enforce_deadline(launch.stop.clone(), deadline.subscribe()));
        Self {
            launch,
            settings,
            sinks: BTreeMap::new(),
            sources: BTreeMap::new(),
            spilled: Vec::new(),
            deadline,
            ends: JoinSet::new(),
            helpers,
            roster: Roster::default(),
            running: Arc::default(),
            counted: BTreeSet::new(),
            summary: Summary::default(),
            failed: None,
        }
    }

    /// Opens the status page, if there is to be one.
    pub(super) async fn open_status_page(&mut self) -> Result<(), RunError> {
        if let Some(api) = &self.settings.pipeline.api {
            let state = ApiState {
                metrics: self.launch.metrics.clone(),
                sinks: self.roster.clone(),
                running: Arc::clone(&self.running),
            };
            self.helpers.spawn(status_page(&api.listen, state).await?);
        }
        Ok(())
    }

    /// Starts what was built. `senders` are those of the sinks that run already; the new ones'
    /// are added.
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
        for BuiltSource { name, source, metrics, timezone } in sources {
            let (out, from) = mpsc::channel(CHANNEL);
            let way = watch::Sender::new(self.way_of(&name, senders));
            self.helpers.spawn(route(from, way.subscribe(), metrics, timezone));
            let stop = self.launch.stop.graceful.child_token();
            let abandon = CancellationToken::new();
            let live =
                LiveSource { way, stop: stop.clone(), abandon: abandon.clone(), role: Role::Stays };
            self.sources.insert(name.clone(), live);
            self.ends.spawn(async move {
                let end = abandon.run_until_cancelled_owned(source.run(out, stop)).await;
                End::Source(name, end.unwrap_or(Ok(())))
            });
        }
        self.publish();
    }

    fn start_sink(&mut self, built: BuiltSink) -> mpsc::Sender<Record> {
        let BuiltSink { name, inputs, sink, healthcheck, metrics, durable, stop, fed } = built;
        if let Some(check) = healthcheck {
            self.helpers.spawn(report_health(name.clone(), check));
        }
        self.counted.insert(name.clone());
        reset(&metrics, self.launch.store.buffer_size(&name));
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let live = LiveSink {
            inputs,
            sender: sender.downgrade(),
            metrics,
            durable,
            fed,
            stop,
            role: Role::Stays,
        };
        self.sinks.insert(name.clone(), live);
        self.ends.spawn(async move { End::Sink(name, sink.run(stream(receiver)).await) });
        sender
    }

    /// Where the records of a source go.
    pub(super) fn way_of(&self, source: &str, senders: &Senders) -> Way {
        let takers = self.sinks.iter().filter_map(|(name, sink)| {
            let takes = sink.inputs.iter().any(|input| input == source);
            let sender = senders.get(name).filter(|_| takes)?;
            Some(Taker { name: name.as_str().into(), sender: sender.clone() })
        });
        Way::to(takers.collect())
    }

    /// `/ready` asks the sinks that belong to the pipeline now.
    fn publish(&self) {
        let sinks = self.sinks.iter().map(|(name, sink)| (name.clone(), sink.metrics.clone()));
        self.roster.set(sinks.collect());
    }

    /// Runs until every part has ended.
    pub(super) async fn run(
        mut self,
        mut reloads: Option<mpsc::Receiver<Loaded>>,
    ) -> Result<Summary, RunError> {
        let started = tokio::time::Instant::now();
        self.running.store(true, Ordering::Release);
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
        self.running.store(false, Ordering::Release);
        self.helpers.shutdown().await;
        for name in &self.counted {
            self.summary.left += self.launch.store.buffer_size(name).events;
            let metrics = self.launch.metrics.sink(name);
            self.summary.sinks.insert(name.clone(), metrics.summary());
        }
        self.summary.seconds = started.elapsed().as_secs_f64();
        self.failed.map_or(Ok(self.summary), Err)
    }

    /// Whether the whole pipeline is to end.
    pub(super) fn is_stopping(&self) -> bool {
        self.launch.stop.graceful.is_cancelled() || self.launch.stop.now.is_cancelled()
    }

    /// Ends everything, because it cannot go on.
    pub(super) fn fail(&mut self, error: RunError) {
        self.failed.get_or_insert(error);
        self.launch.stop.now.cancel();
        self.launch.stop.graceful.cancel();
    }

    /// Waits for the next part to end, and hears how.
    pub(super) async fn next_end(&mut self) {
        match self.ends.join_next().await {
            Some(end) => self.ended(joined(end)),
            None => std::future::pending().await,
        }
    }

    fn ended(&mut self, end: End) {
        match end {
            End::Source(name, result) => self.source_ended(name, result),
            End::Sink(name, result) => {
                let sink = self.sinks.remove(&name);
                match sink.filter(|sink| sink.role == Role::Leaves && !self.is_stopping()) {
                    Some(sink) => self.sink_left(&name, sink, result),
                    None => self.sink_ended(name, result),
                }
            }
        }
    }

    fn source_ended(&mut self, name: String, result: Result<(), SourceError>) {
        let leaves = self.sources.remove(&name).is_some_and(|source| source.role == Role::Leaves);
        match result {
            Ok(()) => {}
            Err(error) if leaves => {
                tracing::warn!(source = name, %error, "the old source ended badly");
            }
            Err(error) => {
                // The other sources' records are settled as on SIGTERM.
                self.launch.stop.graceful.cancel();
                self.failed.get_or_insert(RunError::Source { name, error });
            }
        }
    }

    /// A sink that was asked to leave has ended.
    fn sink_left(&mut self, name: &str, sink: LiveSink, result: Result<(), SinkError>) {
        match result {
            Ok(()) => return,
            Err(SinkError::Aborted { .. }) => {}
            Err(error) => tracing::warn!(sink = name, %error, "the old sink ended badly"),
        }
        if !(sink.durable && sink.fed.is_cancelled()) {
            self.spilled.push(sink);
        }
    }

    fn sink_ended(&mut self, name: String, result: Result<(), SinkError>) {
        match result {
            Ok(()) => {}
            Err(SinkError::Aborted { .. }) => self.summary.stopped_early = true,
            Err(SinkError::KeyRefused { status, cure }) => {
                tracing::error!(sink = name, status, "User.com refused the API key: {cure}");
                self.summary.key_refused = Some(status);
                self.launch.stop.now.cancel();
                self.launch.stop.graceful.cancel();
            }
            Err(error) => self.fail(RunError::Sink { name, error }),
        }
    }
}

/// A part begins with nothing in flight and a key nobody has refused yet.
pub(super) fn reset(metrics: &SinkMetrics, buffer: crate::buffer::BufferSize) {
    metrics.halted(false);
    metrics.in_flight(0);
    metrics.buffer(buffer.events, buffer.bytes);
}

fn joined(end: Result<End, tokio::task::JoinError>) -> End {
    end.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// The next settings; never any where nobody can send some.
async fn next_reload(reloads: &mut Option<mpsc::Receiver<Loaded>>) -> Option<Loaded> {
    match reloads {
        Some(reloads) => reloads.recv().await,
        None => std::future::pending().await,
    }
}

fn stream(mut receiver: mpsc::Receiver<Record>) -> BoxStream<'static, Record> {
    futures::stream::poll_fn(move |cx| receiver.poll_recv(cx)).boxed()
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
async fn enforce_deadline(stop: Stop, deadline: watch::Receiver<Duration>) {
    stop.graceful.cancelled().await;
    let deadline = *deadline.borrow();
    tokio::time::sleep(deadline).await;
    stop.now.cancel();
}
