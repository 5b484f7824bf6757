//! Events that a Vector sends with its own `vector` sink, over gRPC.
//!
//! | file | what it is |
//! |---|---|
//! | `server` | the gRPC server: TLS, limits, the end |
//! | `connection` | connections: no more than may be, none that only takes a place |
//! | `order` | the order of the requests of one connection |
//! | `door` | what requests may hold and how long they may take; which codes leave |
//! | `request` | one request: from the body of a call to the records in it |
//! | `wire`, `value`, `event` | from an event's bytes to a record, without anything in between |
//! | `unwanted` | metrics and the like: counted, and one dead letter a minute |
//! | `service` | records into the pipeline, a status out |
//! | `generated` | the messages, from `schema/proto`: what the server and the tests speak |
//!
//! Not here: positions; Vector keeps what was not acknowledged and sends it again. Its id of an
//! event names what a source read; events made of one share it. So an event is known by that id,
//! a digest of its content, and its place among equal ones of the same request.
//!
//! # Invariants
//! A request is answered with OK only after every event of it has a verdict other than
//! [`Errored`](crate::ack::Verdict::Errored), and never with a code that makes Vector drop it.
//!
//! Requests of one connection enter the pipeline in the order in which they arrive, each whole. What
//! Vector itself sends in another order than it read (any `request.concurrency` but `"none"`) cannot
//! be put right here; it is said once when it is seen.

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

/// A gRPC server that takes Vector's events.
pub struct VectorSource {
    name: String,
    settings: Settings,
    mode: ReadMode,
    metrics: Option<SourceMetrics>,
}

impl VectorSource {
    /// Prepares a server; it listens once it [runs](Source::run). With [`ReadMode::Once`] it ends
    /// at once: what is pushed has no present end.
    ///
    /// # Errors
    /// None so far: what may be wrong shows when it runs.
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
            tracing::warn!(source = self.name, "a vector source has no present end: not opened");
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
