//! The page for people: one view a file. No view computes; each draws what it is given.

mod layout;
mod letters;
mod plot;
mod status_view;
mod trying;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};
use serde::Deserialize;

use super::dead_letters::{LetterQuery, count, find, service};
use super::{ApiState, guard};
use layout::{PageFrame, View, frame};

pub(super) use status_view::status_fragment;
pub(super) use trying::{playground_result, tapped};

/// Assets change only with the program.
const ASSET_CACHE: &str = "no-cache";

pub(super) async fn css() -> Response {
    let headers =
        [(header::CONTENT_TYPE, "text/css; charset=utf-8"), (header::CACHE_CONTROL, ASSET_CACHE)];
    (headers, include_str!("../assets/page.css")).into_response()
}

pub(super) async fn js() -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/javascript; charset=utf-8"),
        (header::CACHE_CONTROL, ASSET_CACHE),
    ];
    (headers, include_str!("../assets/page.js")).into_response()
}

fn framed(state: &ApiState, headers: &HeaderMap, view: View, body: &Markup) -> Response {
    let signed_in = state.access.is_signed_in(headers);
    let dead = state.service.as_ref().map_or(0, |service| {
        let sinks = service.components.present().sinks;
        let stored = |present: crate::telemetry::SinkPresent| {
            present.stored_dead.map_or(0, |all| all.iter().map(|group| group.count).sum::<u64>())
        };
        sinks.values().map(|sink| stored(sink.metrics.activity().present())).sum()
    });
    let about = PageFrame { view, runs: state.service.is_some(), dead, signed_in };
    frame(&about, body).into_response()
}

pub(super) async fn status(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    let Some(service) = &state.service else {
        return axum::response::Redirect::to("/playground").into_response();
    };
    let body = status_view::view(service);
    framed(&state, &headers, View::Status, &body)
}

pub(super) async fn dead_letters(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(query): Query<LetterQuery>,
) -> Response {
    let listed = async {
        let service = service(&state)?;
        let (rows, more) = find(service, &query).await?;
        let matching = count(service, &query).await?;
        let groups = letters::groups(service).await?;
        Ok::<_, super::dead_letters::ApiError>((rows, more, matching, groups, service.sink_names()))
    };
    match listed.await {
        Ok((rows, more, matching, groups, sinks)) => {
            let list = letters::List { query: &query, rows, more, matching, groups, sinks };
            framed(&state, &headers, View::DeadLetters, &list.view())
        }
        Err(error) => error.into_response(),
    }
}

pub(super) async fn dead_letter(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Path(id): Path<i64>,
) -> Response {
    let found = match service(&state) {
        Ok(service) => service.store.dead_letter(id).await,
        Err(error) => return error.into_response(),
    };
    match found {
        Ok(Some(letter)) => framed(&state, &headers, View::DeadLetters, &letters::one(&letter)),
        Ok(None) => {
            let gone = letters::gone(id);
            (StatusCode::NOT_FOUND, framed(&state, &headers, View::DeadLetters, &gone))
                .into_response()
        }
        Err(error) => super::dead_letters::ApiError::from(error).into_response(),
    }
}

pub(super) async fn tap(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    let Ok(service) = service(&state) else { return not_found(State(state), headers).await };
    let body = trying::tap_view(&service.sink_names(), service.show_values);
    framed(&state, &headers, View::Tap, &body)
}

#[derive(Deserialize)]
pub(super) struct PlaygroundQuery {
    letter: Option<i64>,
}

pub(super) async fn playground(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(query): Query<PlaygroundQuery>,
) -> Response {
    let mut records = state.playground.records();
    let mut sink = None;
    if let (Some(id), Some(service)) = (query.letter, &state.service)
        && let Ok(Some(letter)) = service.store.dead_letter(id).await
    {
        records = String::from_utf8_lossy(&letter.letter.record).into_owned();
        sink = Some((letter.sink, id));
    }
    let body = trying::playground_view(&state.playground.files(), &records, sink.as_ref());
    framed(&state, &headers, View::Playground, &body)
}

#[derive(Deserialize)]
pub(super) struct LoginQuery {
    #[serde(default)]
    to: String,
}

pub(super) async fn login_form(
    State(state): State<ApiState>,
    headers: HeaderMap,
    Query(query): Query<LoginQuery>,
) -> Response {
    if !state.access.has_token() {
        return axum::response::Redirect::to("/").into_response();
    }
    framed(&state, &headers, View::Login, &layout::login(guard::safe_path(&query.to), None))
}

/// The login form after a wrong token.
pub(super) fn login_again(state: &ApiState, to: &str) -> Response {
    let body = layout::login(guard::safe_path(to), Some("This is not the token."));
    let page = framed(state, &HeaderMap::new(), View::Login, &body);
    (StatusCode::UNAUTHORIZED, page).into_response()
}

pub(super) async fn not_found(State(state): State<ApiState>, headers: HeaderMap) -> Response {
    let body = html! {
        h1 { "Nothing here" }
        p { "This address has no page. " a href="/" { "Go to the status" } "." }
    };
    (StatusCode::NOT_FOUND, framed(&state, &headers, View::None, &body)).into_response()
}
