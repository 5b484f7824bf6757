//! What other programs ask: metrics, readiness, status. None of it contains a secret or a value of
//! a record.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::ApiState;

/// Where there is no pipeline.
fn nothing_runs() -> Response {
    (StatusCode::NOT_FOUND, "no pipeline runs here\n").into_response()
}

pub(super) async fn metrics(State(state): State<ApiState>) -> Response {
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match &state.service {
        Some(service) => ([(header::CONTENT_TYPE, kind)], service.metrics.render()).into_response(),
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
