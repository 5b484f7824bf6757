//! Knows whether an attempt opened a connection or reused an idle one, and when idle connections
//! are not reused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use tower_layer::Layer;
use tower_service::Service;

tokio::task_local! {
    /// Set when the attempt of this task opens a connection.
    static OPENED: Arc<AtomicBool>;
}

/// Runs an attempt; returns whether it opened a connection.
pub(super) async fn watched<T>(attempt: impl Future<Output = T>) -> (T, bool) {
    let opened = Arc::new(AtomicBool::new(false));
    let done = OPENED.scope(Arc::clone(&opened), attempt).await;
    (done, opened.load(Ordering::Relaxed))
}

/// Records that a connection is opened.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordConnects;

impl<S> Layer<S> for RecordConnects {
    type Service = RecordingConnector<S>;

    fn layer(&self, inner: S) -> RecordingConnector<S> {
        RecordingConnector(inner)
    }
}

/// A connector that records its use.
#[derive(Debug, Clone)]
pub(super) struct RecordingConnector<S>(S);

impl<S: Service<T>, T> Service<T> for RecordingConnector<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, target: T) -> S::Future {
        // Outside an attempt the flag does not exist.
        OPENED.try_with(|opened| opened.store(true, Ordering::Relaxed)).unwrap_or_default();
        self.0.call(target)
    }
}

/// When two idle connections were found closed within this time, none is reused for as long.
const DISTRUST: Duration = Duration::from_secs(60);

/// Whether idle connections are reused.
#[derive(Debug, Default)]
pub(super) struct KeptConnections(Mutex<TrustState>);

#[derive(Debug, Default)]
struct TrustState {
    last_closed: Option<Instant>,
    distrusted_until: Option<Instant>,
}

impl KeptConnections {
    /// Reports that the server had closed an idle connection.
    pub(super) fn closed(&self, now: Instant) {
        let mut found = self.0.lock();
        if found.last_closed.is_some_and(|last| now < last + DISTRUST) {
            if found.distrusted_until.is_none_or(|until| until < now) {
                tracing::info!(
                    "the server closes idle connections without notice; for a minute each request \
                     opens a connection of its own; nothing need be done"
                );
            }
            found.distrusted_until = Some(now + DISTRUST);
        }
        found.last_closed = Some(now);
    }

    /// Whether an idle connection may be reused.
    pub(super) fn allows(&self, now: Instant) -> bool {
        let found = self.0.lock();
        found.distrusted_until.is_none_or(|until| until <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_connections_are_not_reused_after_two_were_closed() {
        // Guarantees that one closed connection changes nothing, that a second one within a minute
        // stops reuse for a minute, and that reuse begins again.
        let trust = KeptConnections::default();
        let begin = Instant::now();
        trust.closed(begin);
        assert!(trust.allows(begin));
        trust.closed(begin + DISTRUST * 2);
        assert!(trust.allows(begin + DISTRUST * 2));
        let second = begin + DISTRUST * 2 + Duration::from_secs(1);
        trust.closed(second);
        assert!(!trust.allows(second));
        assert!(trust.allows(second + DISTRUST));
    }
}
