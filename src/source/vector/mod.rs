//! Receives events that Vector sends with its `vector` sink, over gRPC.
//!
//! | file | what it does |
//! |---|---|
//! | `server` | the gRPC server: TLS, limits, shutdown |
//! | `connection` | limits the number of connections and silent ones |
//! | `order` | the order of the requests of one connection |
//! | `admission` | memory and time limits of requests, and their status codes |
//! | `request` | one request: from the body of a call to its records |
//! | `wire`, `value`, `event` | decode an event's bytes directly into a record |
//! | `unwanted` | metrics and the like: counted, and one dead letter a minute |
//! | `service` | sends records into the pipeline and returns a status |
//! | `generated` | the messages from `schema/proto`, for the server and the tests |
//!
//! Records have no position: Vector stores what was not acknowledged and sends it again. Events
//! that a transform made from one event share Vector's id. So an event is identified by that id, a
//! digest of its content, and its position among equal events of the same request.
//!
//! # Invariants
//!
//! A request is answered with OK only after every event of it has a verdict other than
//! [`Errored`](crate::ack::Verdict::Errored), and never with a code on which Vector drops it.
//!
//! Requests of one connection enter the pipeline in the order in which they arrive, each whole.
//! Where Vector itself sends out of order (any `request.concurrency` but `"none"`), that cannot be
//! corrected here; it is logged once.

mod admission;
mod connection;
mod event;
mod fuzz;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr, reason = "generated")]
pub mod generated;
mod order;
mod request;
mod server;
mod service;
mod unwanted;
mod value;
mod wire;

use std::fmt;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ReadMode, Source, SourceError, tls};
use crate::config::source::VectorSourceConfig as Settings;
use crate::record::Record;
use crate::telemetry::SourceMetrics;

pub use self::event::{DecodedEvent, EventKind, decode};
pub(crate) use self::fuzz::records_of_call;

/// A gRPC server that receives Vector's events.
pub struct VectorSource {
    name: String,
    settings: Settings,
    mode: ReadMode,
    metrics: Option<SourceMetrics>,
}

impl VectorSource {
    /// Prepares a server; it listens once it [runs](Source::run). With [`ReadMode::Once`] it ends
    /// immediately, because pushes have no present end.
    ///
    /// # Errors
    ///
    /// None so far: wrong settings are found when it runs.
    pub fn new(name: &str, settings: Settings, mode: ReadMode) -> Result<Self, String> {
        Ok(Self { name: name.to_owned(), settings, mode, metrics: None })
    }

    fn io(&self, what: &str) -> impl FnOnce(std::io::Error) -> SourceError + use<> {
        let context = format!("{what} of source `{}`", self.name);
        move |source| SourceError::Io { context, source }
    }
}

impl fmt::Debug for VectorSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VectorSource").field("settings", &self.settings).finish_non_exhaustive()
    }
}

#[async_trait]
impl Source for VectorSource {
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
                "a vector source has no end, so it does not run with `--once`"
            );
            return Ok(());
        }
        let acceptor =
            tls::acceptor(&self.settings.tls, b"h2").map_err(self.io("the certificates"))?;
        let what = format!("the address {}", self.settings.address);
        let listener = TcpListener::bind(&self.settings.address).await.map_err(self.io(&what))?;
        let address = listener.local_addr().map_err(self.io(&what))?;
        tracing::info!(source = self.name, "listening for Vector on {address}");
        let of = (self.name.as_str(), &self.settings);
        server::serve(listener, acceptor, of, self.metrics.clone(), out, stop).await;
        Ok(())
    }
}
