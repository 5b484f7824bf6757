//! Live updates of the status view: the same HTML as the page, rendered once for all who look.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::Stream;

use super::{ApiState, page};

/// How often the status is sent.
const INTERVAL: Duration = Duration::from_secs(2);

/// Streams at once, so that probes and metrics always find a connection.
const MAX_STREAMS: usize = 32;

static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// The right to have a stream.
pub(super) struct StreamPermit;

impl StreamPermit {
    pub(super) fn take() -> Option<Self> {
        let free = |n: usize| (n < MAX_STREAMS).then_some(n + 1);
        STREAMS.fetch_update(Ordering::AcqRel, Ordering::Acquire, free).ok().map(|_| Self)
    }
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Ordering::AcqRel);
    }
}

pub(super) fn too_many_streams() -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, "too many viewers\n").into_response()
}

/// A stream of server-sent events.
pub(super) fn stream(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    use futures::StreamExt as _;
    let events = events.map(Ok::<_, Infallible>);
    Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response()
}

pub(super) async fn status_events(State(state): State<ApiState>) -> Response {
    let Some(service) = state.service.clone() else {
        return (StatusCode::NOT_FOUND, "no pipeline runs here\n").into_response();
    };
    let Some(permit) = StreamPermit::take() else { return too_many_streams() };
    let permit = Arc::new(permit);
    stream(futures::stream::unfold(Duration::ZERO, move |wait| {
        let (service, permit) = (service.clone(), Arc::clone(&permit));
        async move {
            tokio::time::sleep(wait).await;
            let html = page::status_fragment(&service).into_string();
            let _held = &permit;
            Some((Event::default().event("status").data(html), INTERVAL))
        }
    }))
}
