//! Receives records over HTTP: lines or arrays from pipelines, calls from Segment's SDKs.
//!
//! | file | what it does |
//! |---|---|
//! | `server` | connections: accepting, TLS, time limits, shutdown |
//! | `handler` | one request: routing, credentials, response |
//! | `auth`, `auth_limiter` | credentials, and the limit on wrong ones |
//! | `meta` | the metadata of a request |
//! | `body` | reads and decompresses a body within limits |
//! | `records`, `form`, `segment` | decode a body into records |
//! | `intake` | sends records into the pipeline and returns their verdicts |
//!
//! Records have no position, because a request cannot be read again; decode errors contain the line
//! number in their text.
//!
//! # Invariants
//!
//! A request is answered with 200 only after every record of it has a verdict other than
//! [`Errored`](crate::ack::Verdict::Errored).

mod auth;
mod auth_limiter;
mod body;
mod form;
mod fuzz;
mod handler;
mod intake;
mod meta;
mod records;
mod reply;
mod segment;
mod server;

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) use self::fuzz::records_of_body;
use self::handler::RequestHandler;
use super::decode::Decoder;
use super::{ReadMode, Source, SourceError, tls};
use crate::config::source::HttpSourceConfig as Settings;
use crate::record::Record;
use crate::telemetry::SourceMetrics;

/// A server that receives records.
pub struct HttpSource {
    name: String,
    settings: Settings,
    decoder: Decoder,
    mode: ReadMode,
    metrics: Option<SourceMetrics>,
}

impl HttpSource {
    /// Prepares a server; it listens once it [runs](Source::run). With [`ReadMode::Once`] it ends
    /// immediately, because requests have no present end.
    ///
    /// # Errors
    ///
    /// Settings of the decoding that cannot work.
    pub fn new(name: &str, settings: Settings, mode: ReadMode) -> Result<Self, String> {
        let decoder = Decoder::in_zone(&settings.decoding, settings.timezone.as_deref())?;
        Ok(Self { name: name.to_owned(), settings, decoder, mode, metrics: None })
    }

    fn io(&self, what: &str) -> impl FnOnce(std::io::Error) -> SourceError + use<> {
        let context = format!("{what} of source `{}`", self.name);
        move |source| SourceError::Io { context, source }
    }
}

impl fmt::Debug for HttpSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for HttpSource {
    fn use_metrics(&mut self, metrics: &SourceMetrics) {
        self.metrics = Some(metrics.clone());
    }

    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        if self.mode == ReadMode::Once {
            tracing::warn!(
                source = self.name,
                "an http source has no end, so it does not run with `--once`"
            );
            return Ok(());
        }
        let acceptor =
            tls::acceptor(&self.settings.tls, b"http/1.1").map_err(self.io("the certificates"))?;
        let what = format!("the address {}", self.settings.address);
        let listener = TcpListener::bind(&self.settings.address).await.map_err(self.io(&what))?;
        let address = listener.local_addr().map_err(self.io(&what))?;
        let scheme = if acceptor.is_some() { "https" } else { "http" };
        tracing::info!(source = self.name, "listening on {scheme}://{address}");
        let limits = server::ConnectionLimits::of(&self.settings);
        let handler = Arc::new(RequestHandler::new(
            &self.name,
            self.settings,
            self.decoder,
            self.metrics,
            out,
            stop.clone(),
        ));
        server::serve(listener, acceptor, handler, limits, stop).await;
        Ok(())
    }
}
