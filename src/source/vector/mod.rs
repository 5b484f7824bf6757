//! Events that a Vector sends with its own `vector` sink, over gRPC.
//!
//! | file | what it is |
//! |---|---|
//! | `server` | connections: accepting, TLS, limits, the end |
//! | `door` | how many requests are read at once, and for how long; which codes leave |
//! | `service` | one request: events in, a status out |
//! | `event`, `value` | from an event to a record |
//! | `generated` | the messages, from `schema/proto` |
//!
//! Not here: positions; Vector keeps what was not acknowledged and sends it again, and the ids it
//! gives its events tell which. One invariant: a request is answered with OK only after every event
//! of it has a verdict other than [`Errored`](crate::ack::Verdict::Errored), and never with a code
//! that makes Vector drop it.
//!
//! Order: events of one request enter the pipeline in their order, requests in the order in which
//! they arrive. A Vector with `request.concurrency = "none"` sends one after the other, so that the
//! order holds from its sink to User.com; with any other it may overtake itself.

mod door;
mod event;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::clone_on_ref_ptr, reason = "generated")]
pub mod generated;
mod server;
mod service;
mod value;

use std::fmt;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{ReadMode, Source, SourceError};
use crate::config::source::VectorSource as Settings;
use crate::record::Record;

pub use self::event::{Decoded, decode};

/// A gRPC server that takes Vector's events.
pub struct VectorSource {
    name: String,
    settings: Settings,
    mode: ReadMode,
}

impl VectorSource {
    /// Prepares a server; it listens once it [runs](Source::run). With [`ReadMode::Once`] it ends
    /// at once: what is pushed has no present end.
    ///
    /// # Errors
    /// None so far: what may be wrong shows when it runs.
    pub fn new(name: &str, settings: Settings, mode: ReadMode) -> Result<Self, String> {
        Ok(Self { name: name.to_owned(), settings, mode })
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
    async fn run(
        self: Box<Self>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Result<(), SourceError> {
        if self.mode == ReadMode::Once {
            tracing::warn!(source = self.name, "a vector source has no present end: not opened");
            return Ok(());
        }
        let tls = server::tls(&self.settings).map_err(self.io("the certificates"))?;
        let what = format!("the address {}", self.settings.address);
        let listener = TcpListener::bind(&self.settings.address).await.map_err(self.io(&what))?;
        let address = listener.local_addr().map_err(self.io(&what))?;
        tracing::info!(source = self.name, "listening for Vector on {address}");
        let failed = self.io("the server");
        server::serve(listener, tls, &self.settings, out, stop)
            .await
            .map_err(|error| failed(std::io::Error::other(error)))
    }
}
