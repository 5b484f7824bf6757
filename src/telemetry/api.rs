//! The status page: `/metrics`, `/health`, `/ready`.
//!
//! `/health` says the process lives, `/ready` that it can deliver. Neither tells anything secret.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::{Metrics, SinkMetrics};

/// What the status page shows.
#[derive(Clone)]
pub struct ApiState {
    /// Where `/metrics` comes from.
    pub metrics: Metrics,
    /// The sinks `/ready` asks about.
    pub sinks: Roster,
    /// Whether the pipeline runs: set once everything is started, unset when it stops.
    pub running: Arc<AtomicBool>,
}

/// The sinks that belong to the pipeline at present. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Roster(Arc<RwLock<BTreeMap<String, SinkMetrics>>>);

impl Roster {
    /// Replaces all of it.
    pub fn set(&self, sinks: BTreeMap<String, SinkMetrics>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = sinks;
    }

    /// The names of those that are halted.
    fn halted(&self) -> Vec<String> {
        let sinks = self.0.read().unwrap_or_else(PoisonError::into_inner);
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
    let server = async move {
        let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
        if let Err(error) = served.await {
            tracing::warn!(%error, "the status page ended");
        }
    };
    Ok((addr, server))
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
