//! A User.com sink for other programs: they hand it a stream of records and need no pipeline file.

use std::path::{Path, PathBuf};

use futures::{Stream, StreamExt};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::buffer::{Access, Store};
use crate::config::sink::{BufferKind, UsercomSink};
use crate::config::{ProcessEnvironment, SinkConfig, SourceText, Style, load};
use crate::record::Record;
use crate::sink::{
    Destination, Healthcheck, HealthcheckError, OnAuthFailure, RecordSink, SinkBuildError,
    SinkContext, SinkError, SinkFactory,
};
use crate::telemetry::{Metrics, SinkMetrics, SinkSummary};

/// The source that a sink's settings name where records come from a stream.
const STREAM_SOURCE: &str = "stream";

/// A User.com sink inside another program.
///
/// ```no_run
/// use futures::stream;
/// use usercom_sink::{Record, Sink};
///
/// # async fn deliver() -> Result<(), Box<dyn std::error::Error>> {
/// let settings = serde_json::json!({ "app": "acme", "api_key": "${KEY}", "preset": "segment" });
/// let sink = Sink::builder("crm", settings).build().await?;
/// let signup = r#"{ "type": "track", "userId": "u1", "event": "Signed up" }"#;
/// let summary = sink.run(stream::iter([Record::new(signup)])).await?;
/// assert_eq!(summary.delivered, 1);
/// # Ok(())
/// # }
/// ```
pub struct Sink {
    sink: RecordSink,
    healthcheck: Option<Healthcheck>,
    metrics: SinkMetrics,
    store: Store,
}

/// Settings of a [`Sink`] that is not built yet.
pub struct SinkBuilder {
    name: String,
    settings: Value,
    data_dir: Option<PathBuf>,
    metrics: Metrics,
    on_auth_failure: OnAuthFailure,
    abort: CancellationToken,
}

impl Sink {
    /// Begins a sink. `settings` are the keys of a pipeline file's `[sinks.NAME]` without `type` and
    /// `inputs`; `${VAR}` in a text is replaced as in a pipeline file. `name` stands in logs, metrics
    /// and the stored state.
    pub fn builder(name: impl Into<String>, settings: Value) -> SinkBuilder {
        SinkBuilder {
            name: name.into(),
            settings,
            data_dir: None,
            metrics: Metrics::default(),
            on_auth_failure: OnAuthFailure::Abort,
            abort: CancellationToken::new(),
        }
    }

    /// Asks User.com once whether it accepts the API key. Later calls return `Ok` without a request.
    ///
    /// # Errors
    /// [`HealthcheckError`] where it does not, or does not answer in time.
    pub async fn healthcheck(&mut self) -> Result<(), HealthcheckError> {
        match self.healthcheck.take() {
            Some(check) => check.await,
            None => Ok(()),
        }
    }

    /// Delivers the records of a stream. Returns once the stream has ended and every record is
    /// delivered, in the dead letters, or matched by no rule. Each record's
    /// [`Ack`](crate::ack::Ack) is notified as soon as that record is.
    ///
    /// # Errors
    /// [`SinkError`] where it had to stop earlier. The acknowledgements of the records that are not
    /// settled then say [`Errored`](crate::ack::Verdict::Errored), unless a disk buffer holds them.
    pub async fn run(
        self,
        records: impl Stream<Item = Record> + Send,
    ) -> Result<SinkSummary, SinkError> {
        let end = self.sink.run(records.boxed()).await;
        self.store.close().await;
        end.map(|()| self.metrics.summary())
    }
}

impl SinkBuilder {
    /// Keeps dead letters, message ids, look-ups and a disk buffer in this folder, which one process
    /// at a time may use. Default: they are kept in memory and are lost when the program ends.
    pub fn data_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.data_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Counts in these metrics, which the program may [render](Metrics::render) for Prometheus.
    /// Default: metrics of its own.
    pub fn metrics(mut self, metrics: Metrics) -> Self {
        self.metrics = metrics;
        self
    }

    /// What happens when User.com refuses the API key. Default: [`OnAuthFailure::Abort`].
    pub fn on_auth_failure(mut self, policy: OnAuthFailure) -> Self {
        self.on_auth_failure = policy;
        self
    }

    /// Ends [`Sink::run`] with [`SinkError::Aborted`] as soon as this token is cancelled. To stop
    /// without leaving work, end the stream instead.
    pub fn abort_on(mut self, abort: CancellationToken) -> Self {
        self.abort = abort;
        self
    }

    /// Checks the settings and opens the storage. No request is sent yet.
    ///
    /// # Errors
    /// [`SinkBuildError`] where settings or storage do not allow it; it lists every fault of the
    /// settings.
    pub async fn build(self) -> Result<Sink, SinkBuildError> {
        let config = self.config()?;
        let store = match self.data_dir {
            Some(dir) => tokio::task::spawn_blocking(move || Store::open(&dir, Access::Owner))
                .await
                .unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic())),
            None if config.buffer.kind == BufferKind::Disk => {
                let why = "`buffer.type = \"disk\"` needs a `data_dir`";
                return Err(SinkBuildError::Settings(why.to_owned()));
            }
            None => Store::in_memory(),
        };
        let store = store.map_err(|error| SinkBuildError::Storage(error.to_string()))?;
        let metrics = self.metrics.sink(&self.name);
        let context = SinkContext {
            name: self.name,
            store: store.clone(),
            metrics: metrics.clone(),
            destination: Destination::Account,
            on_auth_failure: self.on_auth_failure,
            leave: CancellationToken::new(),
            abort: self.abort,
            input_drained: CancellationToken::new(),
        };
        let (sink, healthcheck) = config.build(context).await?;
        Ok(Sink { sink, healthcheck: Some(healthcheck), metrics, store })
    }

    /// The settings, checked like those of a pipeline file with one sink.
    fn config(&self) -> Result<UsercomSink, SinkBuildError> {
        let bad = SinkBuildError::Settings;
        let Value::Object(mut settings) = self.settings.clone() else {
            return Err(bad("expected an object".to_owned()));
        };
        settings.insert("type".to_owned(), json!("usercom"));
        settings.insert("inputs".to_owned(), json!([STREAM_SOURCE]));
        let document = json!({
            "sources": { STREAM_SOURCE: { "type": "stdin" } },
            "sinks": { self.name.as_str(): settings },
        });
        let text = SourceText::new("settings.json", format!("{document:#}"));
        let loaded = load(&[text], &ProcessEnvironment, &|at, sink| {
            sink.validate(at).err().unwrap_or_default()
        });
        let loaded = loaded.map_err(|report| bad(report.render(Style::Plain)))?;
        let (_, SinkConfig::Usercom(config)) =
            loaded.pipeline.sinks.into_iter().next().expect("the document has one sink");
        Ok(*config)
    }
}
