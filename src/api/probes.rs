//! What other programs ask: metrics, readiness, status. None of it contains a secret or a value of
//! a record.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;
use crate::telemetry::MetricsFormat;

/// Where there is no pipeline.
fn nothing_runs() -> Response {
    (StatusCode::NOT_FOUND, "no pipeline runs here\n").into_response()
}

pub(super) async fn metrics(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    let format = MetricsFormat::for_accept(accept);
    match &state.service {
        Some(service) => {
            let text = service.metrics.render_as(format);
            ([(header::CONTENT_TYPE, format.content_type())], text).into_response()
        }
        None => nothing_runs(),
    }
}

pub(super) async fn ready(State(state): State<ApiState>) -> Response {
    let Some(service) = &state.service else {
        return "ready\n".into_response();
    };
    let reasons = service.recorder.not_ready();
    match reasons.is_empty() {
        true => "ready\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, reasons.join("\n") + "\n").into_response(),
    }
}

pub(super) async fn status(State(state): State<ApiState>) -> Response {
    match &state.service {
        Some(service) => Json(service.recorder.status()).into_response(),
        None => nothing_runs(),
    }
}

pub(super) async fn history(State(state): State<ApiState>) -> Response {
    match &state.service {
        Some(service) => Json(service.recorder.history()).into_response(),
        None => nothing_runs(),
    }
}
