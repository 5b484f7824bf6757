//! The User.com sink: builds a running consumer of records from its settings.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio_util::sync::CancellationToken;

use super::engine::{Engine, EngineParts};
use super::probe::{DeliveryProbe, DestinationProbe, OutageLog};
use super::quota_store::QuotaStore;
use super::simulated::SimulatedTransport;
use crate::buffer::{self, Buffer, StoreError};
use crate::config::fault::{ConfigPath, Fault};
use crate::config::sink::{BufferKind, UsercomSink};
use crate::deliver::{
    HttpTransport, PoisonPolicy, RunMode, SendError, Transport, TransportSettings,
};
use crate::mapping::CompiledMapping;
use crate::record::Record;
use crate::sink::{
    Destination, Healthcheck, HealthcheckError, OnAuthFailure, RecordSink, SinkBuildError,
    SinkContext, SinkError, SinkFactory, StreamSink,
};
use crate::telemetry::{SinkActivity, SinkMetrics, SinkPhase};
use crate::usercom::{self, ExecuteError, OpExecutor, Settings};

/// How often look-ups of users and companies are saved and the buffer's size is reported.
const SAVE_INTERVAL: Duration = Duration::from_secs(1);

/// Look-ups in one write at most.
const MAX_SAVED_TOGETHER: usize = 1024;

/// How often the catalogue is read again at start after a web page in place of the API, and the
/// wait in between.
const CATALOG_ATTEMPTS: u32 = 5;
const CATALOG_RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How long a sink that leaves waits for the end of its input.
const INPUT_TIMEOUT: Duration = Duration::from_secs(5);

/// Records in one push at most.
const MAX_PUSH_RECORDS: usize = 512;

#[async_trait]
impl SinkFactory for UsercomSink {
    fn validate(&self, at: &ConfigPath) -> Result<(), Vec<Fault>> {
        CompiledMapping::compile(at, &self.mapping, self.preset).map(|_| ())
    }

    async fn build(&self, cx: SinkContext) -> Result<(RecordSink, Healthcheck), SinkBuildError> {
        let config = Arc::new(self.clone());
        let at = ConfigPath::default().key("sinks").key(cx.name.as_str());
        let plan =
            CompiledMapping::compile(&at, &config.mapping, config.preset).map_err(|faults| {
                SinkBuildError::Settings(
                    faults.into_iter().map(|f| f.message).collect::<Vec<_>>().join("; "),
                )
            })?;
        let run = match cx.on_auth_failure {
            OnAuthFailure::Retry => RunMode::Service,
            OnAuthFailure::Abort => RunMode::ToTheEnd,
        };
        let poison = poison_policy(&config, run);
        let base_url =
            config.base_url().map_err(|error| SinkBuildError::Settings(error.to_string()))?;
        // The health check is a connection of its own, and logs its result itself.
        let transport = |halt, outages| {
            let settings = TransportSettings {
                sink: cx.name.clone(),
                base_url: base_url.clone(),
                api_key: config.api_key.clone(),
                request: config.request.clone(),
                halt,
                poison,
                key_check: Some(usercom::key_check()),
                route_closed: Duration::from_secs(config.delivery.route_closed_secs),
                cures: usercom::remediation,
            };
            let probe = Arc::new(DeliveryProbe::new(&cx.name, cx.metrics.clone(), outages));
            HttpTransport::new(settings, probe, cx.abort.clone())
                .map_err(|error| SinkBuildError::Settings(error.to_string()))
        };
        let halt = cx.on_auth_failure;
        let probe: Arc<dyn usercom::ExecutorObserver> =
            Arc::new(DestinationProbe::new(cx.name.clone(), cx.metrics.clone(), cx.destination));
        let destination = |transport: Arc<dyn Transport>| {
            let (users, delivery) = (config.users.clone(), config.delivery.clone());
            OpExecutor::new(transport, users, delivery, Arc::clone(&probe))
                .with_types(&config.attributes, &config.company_attributes)
                .with_account(&config.account)
        };
        let checked = destination(Arc::new(transport(OnAuthFailure::Abort, OutageLog::Off)?));
        let timeout = Duration::from_secs(config.healthcheck.timeout_secs);
        let healthcheck = Box::pin(healthcheck(checked, timeout));
        let transport = Arc::new(transport(halt, OutageLog::On)?);
        let usercom = Arc::new(destination(match cx.destination {
            Destination::Account => Arc::<HttpTransport>::clone(&transport),
            Destination::Simulated => {
                if config.healthcheck.enabled {
                    let check = usercom::key_check();
                    cx.metrics.request(check.method.as_str(), check.route);
                }
                let saved = cx.store.load_cache(&cx.name, config.users.cache_size).await;
                let saved = saved.map_err(|error| SinkBuildError::Storage(error.to_string()))?;
                Arc::new(SimulatedTransport::new(
                    cx.metrics.clone(),
                    &saved,
                    config.account.upsert_answer,
                ))
            }
        }));
        let buffer = buffer::open(&config.buffer, &cx.name, cx.store.clone(), cx.abort.clone())
            .await
            .map_err(|error| SinkBuildError::Storage(error.to_string()))?;
        // The first save also trims the look-ups of an earlier process.
        let (plan, saved) = (Arc::new(plan), AtomicUsize::new(config.users.cache_size));
        let said = AtomicBool::new(false);
        let quota =
            QuotaStore::new(cx.store.clone(), cx.name.clone(), base_url.to_string(), transport);
        let sink = DeliveringSink { config, plan, usercom, buffer, probe, saved, said, quota, cx };
        Ok((Box::new(sink), healthcheck))
    }
}

/// With `run --once`, a request that always fails becomes a dead letter after at most this many
/// seconds.
const POISON_AFTER_SECS_ONCE: u64 = 60;

fn poison_policy(config: &UsercomSink, run: RunMode) -> PoisonPolicy {
    let secs = config.delivery.poison_after_secs;
    let secs = if run == RunMode::ToTheEnd { secs.min(POISON_AFTER_SECS_ONCE) } else { secs };
    let attempts = config.delivery.poison_attempts;
    PoisonPolicy { attempts, least: Duration::from_secs(secs), run }
}

async fn healthcheck(usercom: OpExecutor, timeout: Duration) -> Result<(), HealthcheckError> {
    let (message, refused) = match tokio::time::timeout(timeout, usercom.healthcheck()).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(ExecuteError::Send(SendError::Refused { status }))) => {
            (format!("refused with status {status}; {}", usercom::remediation(status)), true)
        }
        Ok(Err(failure)) => (failure.to_string(), false),
        Err(_) => (format!("no answer within {} s", timeout.as_secs()), false),
    };
    Err(HealthcheckError { message, refused })
}

/// A User.com sink, ready to run.
struct DeliveringSink {
    config: Arc<UsercomSink>,
    plan: Arc<CompiledMapping>,
    usercom: Arc<OpExecutor>,
    buffer: Arc<dyn Buffer>,
    probe: Arc<dyn usercom::ExecutorObserver>,
    /// Look-ups saved since the oldest were last deleted.
    saved: AtomicUsize,
    /// Whether the early deletion of message ids was logged.
    said: AtomicBool,
    quota: QuotaStore,
    cx: SinkContext,
}

#[async_trait]
impl StreamSink<Record> for DeliveringSink {
    async fn run(self: Box<Self>, input: BoxStream<'_, Record>) -> Result<(), SinkError> {
        let buffer = Arc::clone(&self.buffer);
        let metrics = self.cx.metrics.clone();
        let (fed, fed_metrics) = (self.cx.input_drained.clone(), metrics.clone());
        let feed = async {
            feed(input, &*buffer, fed_metrics.activity()).await;
            fed.cancel();
            fed_metrics.activity().phase(SinkPhase::Draining);
            std::future::pending::<()>().await;
        };
        metrics.activity().restart();
        let kind = self.config.buffer.kind;
        let mut gauge = BufferGauge { buffer: &*buffer, kind, metrics, dropped: 0, failed: 0 };
        let end = tokio::select! {
            end = self.deliver() => end,
            () = feed => unreachable!("feeding never ends before delivery"),
            () = gauge.read_regularly() => unreachable!("reading never ends"),
        };
        gauge.read();
        gauge.metrics.activity().phase(SinkPhase::Ended);
        end
    }
}

/// Reports the buffer's size, and the records it dropped, to the metrics.
struct BufferGauge<'a> {
    buffer: &'a dyn Buffer,
    kind: BufferKind,
    metrics: SinkMetrics,
    dropped: u64,
    failed: u64,
}

impl BufferGauge<'_> {
    async fn read_regularly(&mut self) {
        loop {
            self.read();
            self.metrics.activity().oldest_buffered(self.buffer.oldest().await);
            tokio::time::sleep(SAVE_INTERVAL).await;
        }
    }

    fn read(&mut self) {
        let size = self.buffer.size();
        self.metrics.buffer(size.events, size.bytes);
        let activity = self.metrics.activity();
        // A disk buffer counts records until they are settled, a memory buffer until they are read.
        activity.waiting(match self.kind {
            BufferKind::Disk => size.events,
            BufferKind::Memory => size.events + activity.all_pending(),
        });
        activity.storage(self.buffer.storage_trouble());
        let dropped = self.buffer.discarded();
        if dropped > self.dropped {
            self.metrics.dropped_newest(dropped - self.dropped);
            self.dropped = dropped;
        }
        let failed = self.buffer.storage_errors();
        if failed > self.failed {
            self.metrics.storage_errors(failed - self.failed);
            self.failed = failed;
        }
    }
}

/// Pushes all input into the buffer, then closes it.
async fn feed(input: BoxStream<'_, Record>, buffer: &dyn Buffer, activity: &SinkActivity) {
    let mut input = input.ready_chunks(MAX_PUSH_RECORDS);
    while let Some(records) = input.next().await {
        activity.input_blocked(true);
        let pushed = buffer.push(records).await;
        activity.input_blocked(false);
        if let Err(error) = pushed {
            tracing::error!(%error, "records could not be buffered; their source sends them again");
        }
    }
    buffer.close();
}

impl DeliveringSink {
    async fn deliver(self: Box<Self>) -> Result<(), SinkError> {
        self.restore().await?;
        if self.open().await? == CatalogLoad::NotNeeded {
            return self.finish(Ok(())).await;
        }
        if !self.cx.input_drained.is_cancelled() {
            self.cx.metrics.activity().phase(SinkPhase::Delivering);
        }
        let leave = CancellationToken::new();
        let engine = Engine::new(EngineParts {
            name: self.cx.name.clone(),
            config: Arc::clone(&self.config),
            plan: Arc::clone(&self.plan),
            settings: Settings::from(&self.config.users).with_account(&self.config.account),
            usercom: Arc::clone(&self.usercom),
            buffer: Arc::clone(&self.buffer),
            store: self.cx.store.clone(),
            metrics: self.cx.metrics.clone(),
            probe: Arc::clone(&self.probe),
            leave: leave.clone(),
            stop: self.cx.abort.clone(),
        });
        let leaving = async {
            self.wait_until_leaving().await;
            leave.cancel();
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = engine.run() => end,
            () = self.save_regularly() => unreachable!("saving never ends"),
            () = leaving => unreachable!("it waits for ever"),
        };
        self.save().await;
        self.trim().await;
        self.finish(end).await
    }

    async fn finish(&self, end: Result<(), SinkError>) -> Result<(), SinkError> {
        self.buffer.finish().await.map_err(|error| SinkError::Storage(error.to_string()))?;
        let left = self.buffer.size().events;
        if end.is_ok() && left > 0 {
            let sink = &*self.cx.name;
            tracing::info!(
                sink,
                records = left,
                "records wait in the disk buffer; the next start delivers them"
            );
        }
        end
    }

    /// Returns once the sink is to end with records left in its disk buffer.
    async fn wait_until_leaving(&self) {
        if self.config.buffer.kind != BufferKind::Disk {
            std::future::pending::<()>().await;
        }
        self.cx.leave.cancelled().await;
        // A full buffer may block its input. Records that are not in it go back to their source.
        let drained = self.cx.input_drained.cancelled();
        if tokio::time::timeout(INPUT_TIMEOUT, drained).await.is_err() {
            let sink = &*self.cx.name;
            tracing::warn!(
                sink,
                "the disk buffer has no room for all records that were read; their sources send them again"
            );
        }
    }

    /// Reads the attribute catalogue, and retries until User.com answers. A service that stops with
    /// nothing to deliver does not wait for it; `run --once` asks at least once, which checks the
    /// key.
    async fn open(&self) -> Result<CatalogLoad, SinkError> {
        let rest = Duration::from_secs(self.config.request.retry_max_duration_secs);
        let is_service = self.cx.on_auth_failure == OnAuthFailure::Retry;
        let mut pages = 0;
        loop {
            let opened = tokio::select! {
                opened = self.usercom.open() => opened,
                () = self.wait_until_drained(), if is_service => return Ok(CatalogLoad::NotNeeded),
                () = self.wait_until_leaving() => return Ok(CatalogLoad::NotNeeded),
            };
            match opened {
                Err(ExecuteError::Send(error @ SendError::GivenUp { .. })) => {
                    tracing::warn!(%error, "the attribute catalogue could not be read yet, so nothing is sent; trying again");
                }
                // A gateway in maintenance answers with a page for a while, a wrong address always.
                Err(failure) if failure.is_page() && pages < CATALOG_ATTEMPTS => {
                    pages += 1;
                    tracing::warn!(%failure, "the address answers with a web page or a redirect instead of the API; trying again");
                    tokio::select! {
                        () = self.cx.abort.cancelled() => {
                            return Err(SinkError::Aborted { pending: 0 });
                        }
                        () = tokio::time::sleep(CATALOG_RETRY_INTERVAL) => continue,
                    }
                }
                opened => return opened.map(|()| CatalogLoad::Loaded).map_err(catalog_error),
            }
            tokio::select! {
                () = self.cx.abort.cancelled() => return Err(SinkError::Aborted { pending: 0 }),
                () = self.wait_until_drained() => return Ok(CatalogLoad::NotNeeded),
                () = self.wait_until_leaving() => return Ok(CatalogLoad::NotNeeded),
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    /// Returns once the input has ended and nothing is left to deliver; never returns if something
    /// is.
    async fn wait_until_drained(&self) {
        self.cx.input_drained.cancelled().await;
        if self.buffer.size().events > 0 {
            std::future::pending::<()>().await;
        }
    }

    async fn restore(&self) -> Result<(), SinkError> {
        let storage = |error: StoreError| SinkError::Storage(error.to_string());
        let rows = self
            .cx
            .store
            .load_cache(&self.cx.name, self.config.users.cache_size)
            .await
            .map_err(storage)?;
        self.usercom.restore(rows);
        self.quota.restore().await.map_err(storage)
    }

    async fn save_regularly(&self) {
        let window = self.config.delivery.dedupe_window_secs;
        let mut rounds = 0u64;
        loop {
            tokio::time::sleep(SAVE_INTERVAL).await;
            self.save().await;
            // Without this a sink that writes nothing would not notice a removed file. The store
            // logs what it finds.
            if let Err(error) = self.cx.store.check_file().await {
                tracing::debug!(%error, "the store's file was checked");
            }
            rounds += 1;
            self.trim().await;
            if rounds.is_multiple_of(60) {
                self.expire_seen_messages(window).await;
            }
        }
    }

    /// Trims dead letters and message ids to their limits.
    async fn trim(&self) {
        let (store, sink) = (&self.cx.store, &*self.cx.name);
        let max_size = self.config.dead_letters.max_size;
        match store.trim_dead_letters(sink, max_size).await {
            Ok(0) => {}
            Ok(deleted) => {
                self.cx.metrics.dead_letters_deleted(deleted);
                tracing::warn!(
                    sink,
                    deleted,
                    max_size,
                    "the dead letters had grown over `dead_letters.max_size`: the oldest are \
                     deleted, and can be neither seen nor replayed any more; set it higher, or find \
                     out with `dead-letters list` why so many records are refused"
                );
            }
            Err(error) => {
                tracing::warn!(sink, %error, "the dead letters could not be trimmed to `dead_letters.max_size`; trying again")
            }
        }
        let max = self.config.delivery.dedupe_max_entries;
        match store.trim_seen(sink, max).await {
            Ok(0) => {}
            Ok(forgotten) if !self.said.swap(true, Ordering::Relaxed) => tracing::warn!(
                sink,
                forgotten,
                max,
                "more message ids than `delivery.dedupe_max_entries` came in within \
                 `delivery.dedupe_window_secs`: the oldest are deleted, now and from now on, and a \
                 record that comes again after that is sent again; set it higher if such records come"
            ),
            Ok(forgotten) => {
                tracing::debug!(sink, forgotten, "the oldest message ids are deleted")
            }
            Err(error) => {
                tracing::warn!(sink, %error, "message ids could not be trimmed to `delivery.dedupe_max_entries`; trying again")
            }
        }
    }

    async fn expire_seen_messages(&self, window_secs: u64) {
        let window =
            jiff::SignedDuration::from_secs(i64::try_from(window_secs).unwrap_or(i64::MAX / 2));
        let Ok(before) = crate::clock::now().checked_sub(window) else {
            return;
        };
        if let Err(error) = self.cx.store.expire_seen(&self.cx.name, before).await {
            tracing::warn!(%error, "expired message ids could not be deleted; trying again");
        }
    }

    /// Saves look-ups. A failure costs look-ups after a restart, never records.
    async fn save(&self) {
        self.quota.save().await;
        // In pieces, so that completions are written in between.
        loop {
            let changes = self.usercom.take_changes(MAX_SAVED_TOGETHER);
            if changes.is_empty() {
                return;
            }
            self.save_changes(changes).await;
        }
    }

    async fn save_changes(&self, changes: Vec<(String, Option<String>)>) {
        // The store may hold a tenth more look-ups than the cache.
        let size = self.config.users.cache_size;
        let saved = self.saved.fetch_add(changes.len(), Ordering::Relaxed) + changes.len();
        let due = saved > size / 10;
        if due {
            self.saved.store(0, Ordering::Relaxed);
        }
        let keep = due.then_some(size);
        if let Err(error) = self.cx.store.save_cache(&self.cx.name, changes, keep).await {
            tracing::warn!(%error, "look-ups of users could not be saved; after a restart they are made again");
        }
    }
}

/// The result of reading the catalogue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CatalogLoad {
    Loaded,
    /// The sink stops and has nothing to deliver.
    NotNeeded,
}

fn catalog_error(failure: ExecuteError) -> SinkError {
    match failure {
        ExecuteError::Send(SendError::Refused { status }) => {
            SinkError::KeyRefused { status, cure: usercom::remediation(status) }
        }
        ExecuteError::Send(SendError::Stopped) => SinkError::Aborted { pending: 0 },
        ExecuteError::Reject { status: Some(_), .. } => {
            SinkError::UnexpectedApi(format!("{failure}; {}", failure.remediation()))
        }
        other => SinkError::UnexpectedApi(other.to_string()),
    }
}
