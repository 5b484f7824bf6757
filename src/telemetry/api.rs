//! The status page: `/metrics`, `/health`, `/ready`.
//!
//! `/health` says that the process runs, `/ready` that it can deliver. Neither contains a secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use parking_lot::RwLock;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;

use super::{Metrics, SinkMetrics};

/// Connections served at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 64;

/// How long the head of a request may take, an idle connection is kept, and an answer may stay
/// unread.
const HEADERS_TIMEOUT: Duration = Duration::from_secs(10);

/// The most bytes of a request's head.
const MAX_HEADERS_SIZE: usize = 16 << 10;

/// How long accepting pauses after it failed: mostly for want of file descriptors.
const ACCEPT_RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// How long connections have to end.
const CONNECTION_CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// What the status page shows.
#[derive(Clone)]
pub struct ApiState {
    /// Where `/metrics` comes from.
    pub metrics: Metrics,
    /// The sinks `/ready` asks about.
    pub sinks: SinkRegistry,
    /// Whether the pipeline runs: set once everything is started, unset when it stops.
    pub running: Arc<AtomicBool>,
}

/// The sinks that belong to the pipeline at present. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct SinkRegistry(Arc<RwLock<BTreeMap<String, SinkMetrics>>>);

impl SinkRegistry {
    /// Replaces all of it.
    pub fn set(&self, sinks: BTreeMap<String, SinkMetrics>) {
        *self.0.write() = sinks;
    }

    /// The names of those that are halted.
    fn halted(&self) -> Vec<String> {
        let sinks = self.0.read();
        sinks.iter().filter(|(_, m)| m.is_halted()).map(|(name, _)| name.clone()).collect()
    }
}

/// Serves the status page until `stop`.
///
/// # Errors
/// Where the address cannot be listened on.
pub async fn serve(
    listen: SocketAddr,
    state: ApiState,
    stop: CancellationToken,
) -> std::io::Result<(SocketAddr, impl Future<Output = ()>)> {
    let listener = TcpListener::bind(listen).await?;
    let addr = listener.local_addr()?;
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(|| async { "ok\n" }))
        .route("/ready", get(ready))
        .with_state(state);
    let server = accept(listener, router, stop);
    Ok((addr, server))
}

/// Serves connections, no more than may be, with a limit on every wait; who never ends a request's
/// head, or never reads an answer, does not hold a connection for long.
async fn accept(listener: TcpListener, router: Router, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let graceful = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    let serving = async {
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the status page cannot accept a connection");
                    sleep(ACCEPT_RETRY_INTERVAL).await;
                    continue;
                }
            };
            while connections.try_join_next().is_some() {}
            let mut stream = TimeoutStream::new(stream);
            stream.set_write_timeout(Some(HEADERS_TIMEOUT));
            let service = TowerToHyperService::new(router.clone());
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADERS_TIMEOUT)
                .max_buf_size(MAX_HEADERS_SIZE)
                .serve_connection(TokioIo::new(Box::pin(stream)), service);
            let connection = graceful.watch(connection);
            connections.spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "a connection to the status page ended early");
                }
                drop(place);
            });
        }
    };
    tokio::select! {
        () = serving => {}
        () = stop.cancelled() => {}
    }
    drop(timeout(CONNECTION_CLOSE_TIMEOUT, graceful.shutdown()).await);
    connections.shutdown().await;
}

async fn metrics(State(state): State<ApiState>) -> impl IntoResponse {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], state.metrics.render())
}

async fn ready(State(state): State<ApiState>) -> (StatusCode, String) {
    if !state.running.load(Ordering::Acquire) {
        return (StatusCode::SERVICE_UNAVAILABLE, "not running\n".into());
    }
    let halted = state.sinks.halted();
    if halted.is_empty() {
        return (StatusCode::OK, "ready\n".into());
    }
    let text = format!("halted, the API key or the domain is refused: {}\n", halted.join(", "));
    (StatusCode::SERVICE_UNAVAILABLE, text)
}
