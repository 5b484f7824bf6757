//! What a running pipeline does to be looked at: samples, counts of dead letters, the line in the
//! log, and the HTTP API.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::live_replay::{LiveReplayer, SinkInputs};
use super::playground::{DryPlayground, DryTap};
use super::run::RunError;
use crate::api::{AccessRules, ApiState, PlaygroundText, Service, bind};
use crate::buffer::Store;
use crate::config::{ApiConfig, Pipeline};
use crate::telemetry::{Components, DeadLetterCount, Metrics, StatusRecorder, log_line};

/// How often it is looked whether dead letters came or went.
const COUNT_INTERVAL: Duration = Duration::from_secs(2);

/// Counting takes at most this share of the time.
const COUNT_PAUSE_FACTOR: u32 = 50;

/// What is shown of a running pipeline. Clones share it.
#[derive(Clone)]
pub(super) struct StatusService {
    pub(super) components: Components,
    pub(super) inputs: SinkInputs,
    pub(super) files: Arc<RwLock<Vec<PlaygroundText>>>,
    pub(super) recorder: StatusRecorder,
    pipeline: Arc<RwLock<Arc<Pipeline>>>,
    api: ApiConfig,
}

impl StatusService {
    pub(super) fn new(pipeline: &Pipeline) -> Self {
        let components = Components::default();
        let api = pipeline.api.clone().unwrap_or_default();
        let unready_after = Duration::from_secs(api.unready_after_secs);
        Self {
            recorder: StatusRecorder::new(components.clone(), unready_after),
            components,
            inputs: Arc::default(),
            files: Arc::default(),
            pipeline: Arc::new(RwLock::new(Arc::new(pipeline.clone()))),
            api,
        }
    }

    /// Shows files in the playground.
    pub(super) fn show_files(&self, files: Vec<PlaygroundText>) {
        *self.files.write() = files;
    }

    /// The pipeline was reloaded.
    pub(super) fn reloaded(&self, pipeline: &Pipeline, files: Vec<PlaygroundText>) {
        *self.pipeline.write() = Arc::new(pipeline.clone());
        self.show_files(files);
    }

    /// Begins to sample, to count and to log.
    pub(super) fn start(&self, store: Store, tasks: &mut JoinSet<()>) {
        tasks.spawn(self.recorder.clone().record());
        tasks.spawn(count_dead_letters(store, self.components.clone()));
        if self.api.log_interval_secs > 0 {
            let interval = Duration::from_secs(self.api.log_interval_secs);
            tasks.spawn(log_regularly(self.recorder.clone(), interval));
        }
    }

    /// Opens the HTTP API, if an address is configured.
    pub(super) async fn serve(
        &self,
        metrics: Metrics,
        store: Store,
        stop: CancellationToken,
        tasks: &mut JoinSet<()>,
    ) -> Result<(), RunError> {
        let Some(listen) = &self.api.listen else { return Ok(()) };
        let failed = |error| RunError::Api { listen: listen.clone(), error };
        let addr: std::net::SocketAddr =
            listen.parse().map_err(|_| failed(std::io::ErrorKind::InvalidInput.into()))?;
        let bound = bind(addr).await.map_err(failed)?;
        let access = AccessRules::new(addr.ip(), self.api.token.as_ref(), &self.api.hosts);
        let replayer = LiveReplayer {
            store: store.clone(),
            inputs: Arc::clone(&self.inputs),
            stop,
            replays: Mutex::default(),
        };
        let service = Service {
            metrics,
            components: self.components.clone(),
            recorder: self.recorder.clone(),
            store,
            replayer: Arc::new(replayer),
            tap: Arc::new(DryTap { pipeline: Arc::clone(&self.pipeline) }),
            show_values: self.api.show_values,
        };
        let state = ApiState {
            service: Some(service),
            playground: Arc::new(DryPlayground::new(Arc::clone(&self.files))),
            access: Arc::new(access),
        };
        tracing::info!(addr = %bound.address(), "status page: http://{}/", bound.address());
        tasks.spawn(bound.serve(state, CancellationToken::new()));
        Ok(())
    }
}

/// Counts the dead letters of each sink after they changed, never for more than a share of the time.
async fn count_dead_letters(store: Store, components: Components) {
    let mut counted = BTreeMap::new();
    loop {
        for (name, sink) in components.present().sinks {
            let activity = sink.metrics.activity();
            let version = store.dead_letters_version();
            if counted.get(&name) == Some(&version) {
                continue;
            }
            let begun = Instant::now();
            if let Ok(groups) = store.group_dead_letters(&name).await {
                let groups = groups.into_iter().map(|group| DeadLetterCount {
                    reason: group.reason,
                    rule: group.rule,
                    count: group.count,
                });
                activity.stored_dead(groups.collect());
                counted.insert(name, version);
            }
            sleep(begun.elapsed() * COUNT_PAUSE_FACTOR).await;
        }
        sleep(COUNT_INTERVAL).await;
    }
}

/// Logs one line a sink.
async fn log_regularly(recorder: StatusRecorder, interval: Duration) {
    loop {
        sleep(interval).await;
        for sink in recorder.status().sinks {
            tracing::info!(sink = sink.name, "{}", log_line(&sink));
        }
    }
}
