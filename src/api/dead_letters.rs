//! Dead letters as JSON: list, one in full, export, replay and purge.

use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::timeout;

use super::{ApiState, Service};
use crate::buffer::{DeadLetterFilter, DeadLetterRow, StoreError, export as export_lines};

/// Dead letters of one answer.
const MAX_LISTED: usize = 200;

/// Dead letters read from the store at a time for an export.
const EXPORT_PAGE: usize = 200;

/// How long an answer waits for a replay; it continues after that.
const REPLAY_ANSWER: Duration = Duration::from_secs(20);

/// Selects dead letters, in a query.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LetterQuery {
    #[serde(default)]
    pub(super) sink: String,
    #[serde(default)]
    pub(super) reason: String,
    #[serde(default)]
    pub(super) rule: String,
    #[serde(default)]
    pub(super) since: String,
    /// Continues a list: only those with a smaller id.
    #[serde(default)]
    pub(super) before: String,
}

/// Selects dead letters, in a body. Without `ids`, `reason`, `rule` and `since` it must say `all`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Selection {
    sink: Option<String>,
    ids: Option<Vec<i64>>,
    reason: Option<String>,
    rule: Option<String>,
    since: Option<jiff::Timestamp>,
    #[serde(default)]
    all: bool,
    /// Purge: how many are to be deleted. Nothing is deleted if there are more by now.
    expect: Option<u64>,
}

/// An answer that says what is wrong.
pub(super) struct ApiError(StatusCode, String);

impl ApiError {
    fn bad(text: impl Into<String>) -> Self {
        Self(StatusCode::BAD_REQUEST, text.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        Self(StatusCode::SERVICE_UNAVAILABLE, error.to_string())
    }
}

/// The running pipeline.
pub(super) fn service(state: &ApiState) -> Result<&Service, ApiError> {
    let none = || ApiError(StatusCode::NOT_FOUND, "no pipeline runs here".to_owned());
    state.service.as_ref().ok_or_else(none)
}

impl Service {
    /// The sinks, by name.
    pub(super) fn sink_names(&self) -> Vec<String> {
        self.components.present().sinks.into_keys().collect()
    }

    /// The one sink that is named, or all.
    fn chosen(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let known = self.sink_names();
        if name.is_empty() {
            return Ok(known);
        }
        if known.iter().any(|sink| sink == name) {
            return Ok(vec![name.to_owned()]);
        }
        let text = format!("there is no sink {name:?}; the sinks are {}", known.join(", "));
        Err(ApiError::bad(text))
    }
}

impl LetterQuery {
    /// The filter.
    pub(super) fn filter(&self) -> Result<DeadLetterFilter, ApiError> {
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(DeadLetterFilter {
            ids: None,
            reason: given(&self.reason),
            rule: given(&self.rule),
            since: since(&self.since)?,
        })
    }

    fn before(&self) -> Result<Option<i64>, ApiError> {
        match self.before.as_str() {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| ApiError::bad("`before` is not the id of a dead letter")),
        }
    }
}

fn since(text: &str) -> Result<Option<jiff::Timestamp>, ApiError> {
    if text.is_empty() {
        return Ok(None);
    }
    // What a browser's field for date and time sends has no zone: it is UTC here.
    let with_zone = || format!("{text}Z").parse();
    let parsed = text.parse().or_else(|_| with_zone());
    let parsed: Result<jiff::Timestamp, _> =
        parsed.or_else(|_: jiff::Error| format!("{text}:00Z").parse());
    parsed.map(Some).map_err(|_| {
        ApiError::bad("`since` is not a time in RFC 3339's form: 2026-01-01T00:00:00Z")
    })
}

/// The newest dead letters that match, and whether there are more.
pub(super) async fn find(
    service: &Service,
    query: &LetterQuery,
) -> Result<(Vec<DeadLetterRow>, bool), ApiError> {
    let (filter, before) = (query.filter()?, query.before()?);
    let mut rows = Vec::new();
    for sink in service.chosen(&query.sink)? {
        let found =
            service.store.list_dead_letters(&sink, filter.clone(), MAX_LISTED + 1, before).await?;
        rows.extend(found);
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.id));
    let more = rows.len() > MAX_LISTED;
    rows.truncate(MAX_LISTED);
    Ok((rows, more))
}

/// How many dead letters match.
pub(super) async fn count(service: &Service, query: &LetterQuery) -> Result<u64, ApiError> {
    let filter = query.filter()?;
    let mut sum = 0;
    for sink in service.chosen(&query.sink)? {
        sum += service.store.count_matching_dead_letters(&sink, filter.clone()).await?;
    }
    Ok(sum)
}

#[derive(Serialize)]
struct Listed {
    dead_letters: Vec<DeadLetterRow>,
    matching: u64,
    more: bool,
}

pub(super) async fn list(
    State(state): State<ApiState>,
    Query(query): Query<LetterQuery>,
) -> Result<Response, ApiError> {
    let service = service(&state)?;
    let (dead_letters, more) = find(service, &query).await?;
    let matching = count(service, &query).await?;
    Ok(Json(Listed { dead_letters, matching, more }).into_response())
}

pub(super) async fn show(
    State(state): State<ApiState>,
    Path(id): Path<i64>,
) -> Result<Response, ApiError> {
    let found = service(&state)?.store.dead_letter(id).await?;
    let found = found
        .ok_or_else(|| ApiError(StatusCode::NOT_FOUND, format!("there is no dead letter {id}")))?;
    Ok(Json(found).into_response())
}

/// The records themselves, one a line, so that a source can read them again.
pub(super) async fn export(
    State(state): State<ApiState>,
    Query(query): Query<LetterQuery>,
) -> Result<Response, ApiError> {
    let service = service(&state)?.clone();
    let (filter, sinks) = (query.filter()?, service.chosen(&query.sink)?);
    let begin = (service, sinks, filter, 0, 0);
    let lines =
        futures::stream::try_unfold(begin, |(service, sinks, filter, nth, offset)| async move {
            let Some(sink) = sinks.get(nth).cloned() else { return Ok(None) };
            let page = service.store.dead_letters(&sink, filter.clone(), EXPORT_PAGE, offset).await;
            let page = page.map_err(std::io::Error::other)?;
            let mut text = Vec::new();
            export_lines(&page, &mut text)?;
            let next = match page.len() {
                0 => (service, sinks, filter, nth + 1, 0),
                more => (service, sinks, filter, nth, offset + more),
            };
            Ok::<_, std::io::Error>(Some((Bytes::from(text), next)))
        });
    let headers = [
        (header::CONTENT_TYPE, "application/x-ndjson"),
        (header::CONTENT_DISPOSITION, "attachment; filename=\"dead-letters.ndjson\""),
    ];
    Ok((headers, Body::from_stream(lines)).into_response())
}

impl Selection {
    fn filter(&self) -> Result<DeadLetterFilter, ApiError> {
        let narrowed = self.ids.is_some()
            || self.reason.is_some()
            || self.rule.is_some()
            || self.since.is_some();
        if !narrowed && !self.all {
            let text = "say which: `ids`, `reason`, `rule`, `since`, or `\"all\": true`";
            return Err(ApiError::bad(text));
        }
        Ok(DeadLetterFilter {
            ids: self.ids.clone(),
            reason: self.reason.clone(),
            rule: self.rule.clone(),
            since: self.since,
        })
    }

    fn sinks(&self, service: &Service) -> Result<Vec<String>, ApiError> {
        service.chosen(self.sink.as_deref().unwrap_or_default())
    }
}

pub(super) async fn replay(
    State(state): State<ApiState>,
    Json(selection): Json<Selection>,
) -> Result<Response, ApiError> {
    let service = service(&state)?;
    let (filter, sinks) = (selection.filter()?, selection.sinks(service)?);
    if let Some(progress) = service.replayer.progress() {
        let text = format!(
            "another replay runs: {} of {} are done; try again later",
            progress.done, progress.total
        );
        return Err(ApiError(StatusCode::CONFLICT, text));
    }
    let replayer = std::sync::Arc::clone(&service.replayer);
    // It continues if the client goes away before the answer.
    #[expect(
        clippy::disallowed_methods,
        reason = "a replay that the end of the process cuts off keeps its dead letters"
    )]
    let running = tokio::spawn(async move { replayer.replay(sinks, filter).await });
    match timeout(REPLAY_ANSWER, running).await {
        Ok(Ok(Ok(replayed))) => Ok(Json(replayed).into_response()),
        Ok(Ok(Err(why))) => Err(ApiError(StatusCode::CONFLICT, why)),
        Ok(Err(error)) => Err(ApiError(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
        Err(_) => {
            let (running, last) = (service.replayer.progress(), service.replayer.last());
            let answer = json!({ "running": running, "last": last });
            Ok((StatusCode::ACCEPTED, Json(answer)).into_response())
        }
    }
}

pub(super) async fn progress(State(state): State<ApiState>) -> Result<Response, ApiError> {
    let replayer = &service(&state)?.replayer;
    // In this order: a replay that ends in between is seen as running or as the last one.
    let (running, last) = (replayer.progress(), replayer.last());
    Ok(Json(json!({ "running": running, "last": last })).into_response())
}

pub(super) async fn purge(
    State(state): State<ApiState>,
    Json(selection): Json<Selection>,
) -> Result<Response, ApiError> {
    let service = service(&state)?;
    let (filter, sinks) = (selection.filter()?, selection.sinks(service)?);
    if let Some(expected) = selection.expect {
        let mut found = 0;
        for sink in &sinks {
            found += service.store.count_matching_dead_letters(sink, filter.clone()).await?;
        }
        if found != expected {
            let text = format!(
                "{found} dead letters match now, not {expected}; nothing was deleted. Look again"
            );
            return Err(ApiError(StatusCode::CONFLICT, text));
        }
    }
    let mut purged = 0;
    for sink in &sinks {
        purged += service.store.purge_dead_letters(sink, filter.clone()).await?;
    }
    tracing::warn!(purged, "dead letters were deleted through the HTTP API");
    Ok(Json(json!({ "purged": purged })).into_response())
}
