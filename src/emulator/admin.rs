//! `/__admin/`: state, request log and faults of the emulator, for tests and people. It needs no
//! token.
//!
//! # Invariants
//! Admin requests do not pass the checks of the API and are not logged, so they work under every
//! fault.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::context::RouteContext;
use super::faults::{FaultState, Faults, FaultsPatch};
use super::reply::{RouteError, RouteReply, RouteResult};
use super::routes;
use super::state::EmulatorState;

/// The base path of admin requests.
pub(super) const BASE_PATH: &str = "/__admin/";

/// The body of a reset, which clears the state, the log and the counts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    /// Whether to clear the faults too.
    #[serde(default)]
    faults: bool,
}

/// Whether a browser sends this request for a page of another site. Other clients send no `Origin`.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let Some(origin) = text(header::ORIGIN) else {
        let site = headers.get("sec-fetch-site");
        return site.is_some_and(|site| site == "cross-site" || site == "same-site");
    };
    let host = text(header::HOST).unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, origin)| origin != host)
}

/// The response to such a request.
pub(super) fn refuse_cross_site() -> Response<Body> {
    RouteReply::detail(403, "Pages of other sites may not call the emulator.").into_response()
}

/// Answers one admin request; the slash at the end of the path is optional.
pub(super) fn answer(
    state: &EmulatorState,
    method: &str,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Response<Body> {
    let reply = match (method, path.trim_end_matches('/')) {
        ("GET", "requests") => return requests(state, query.unwrap_or_default()),
        ("GET", "stats") => store_answer(state.store().stats()),
        ("GET", "state") => run(state, json!({}), all_profiles),
        ("GET", "faults") => faults_answer(&state.faults().faults),
        ("POST", "faults") => change_faults(state, body),
        ("GET", "assume") => assumptions_answer(state),
        ("POST", "assume") => change_assumptions(state, body),
        ("POST", "reset") => reset(state, body),
        ("GET", "events") => run(state, json!({}), all_definitions),
        ("POST", "events") => match serde_json::from_slice(body) {
            Ok(body) => run(state, body, routes::define_event),
            Err(error) => bad_body(&error),
        },
        (_, "requests" | "stats" | "state" | "faults" | "assume" | "reset" | "events") => {
            RouteReply::detail(405, &format!("Method \"{method}\" not allowed."))
        }
        _ => RouteReply::not_found(),
    };
    reply.into_response()
}

fn bad_body(error: &serde_json::Error) -> RouteReply {
    RouteReply::detail(400, &error.to_string())
}

fn store_answer(result: rusqlite::Result<Value>) -> RouteReply {
    match result {
        Ok(value) => RouteReply::ok(value),
        Err(error) => RouteReply::detail(500, &format!("the emulator's store failed: {error}")),
    }
}

/// The request log, or with `?since=SEQ` only later entries.
fn requests(state: &EmulatorState, query: &str) -> Response<Body> {
    let since = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "since")
        .map_or(Ok(0), |(_, value)| value.parse());
    let Ok(since) = since else {
        return RouteReply::detail(400, "since must be a sequence number").into_response();
    };
    match state.store().log_json(since) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => RouteReply::detail(500, &error.to_string()).into_response(),
    }
}

fn faults_answer(faults: &Faults) -> RouteReply {
    let mut out = json!(faults);
    out["error_code"] = json!(faults.error_codes.first());
    RouteReply::ok(out)
}

fn change_faults(state: &EmulatorState, body: &[u8]) -> RouteReply {
    let patch: FaultsPatch = match serde_json::from_slice(body) {
        Ok(patch) => patch,
        Err(error) => return bad_body(&error),
    };
    let mut state = state.faults();
    match state.patch(patch) {
        Ok(()) => faults_answer(&state.faults),
        Err(error) => RouteReply::detail(400, &error.to_string()),
    }
}

fn assumptions_answer(state: &EmulatorState) -> RouteReply {
    RouteReply::ok(Value::Object(state.assumptions().to_json()))
}

/// Changes the named facts; the others stay.
fn change_assumptions(state: &EmulatorState, body: &[u8]) -> RouteReply {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(error) => return bad_body(&error),
    };
    let mut assumptions = state.assumptions();
    match assumptions.patched(body) {
        Ok(changed) => *assumptions = changed,
        Err(error) => return RouteReply::detail(400, &error.to_string()),
    }
    drop(assumptions);
    assumptions_answer(state)
}

fn reset(state: &EmulatorState, body: &[u8]) -> RouteReply {
    let asked: ResetBody = match body {
        [] => ResetBody::default(),
        body => match serde_json::from_slice(body) {
            Ok(asked) => asked,
            Err(error) => return bad_body(&error),
        },
    };
    if asked.faults {
        *state.faults() = FaultState::new(Faults::default());
    }
    store_answer(state.store().reset().map(|()| json!({ "reset": true })))
}

/// Runs a handler on the store as an API route does.
fn run(
    state: &EmulatorState,
    body: Value,
    route: fn(&RouteContext<'_>) -> RouteResult,
) -> RouteReply {
    let Value::Object(body) = body else {
        return RouteReply::detail(400, "expected an object");
    };
    state.store().run(|db| RouteContext::internal(db, body), route)
}

/// The whole state, in order of arrival, without paging.
fn all_profiles(cx: &RouteContext<'_>) -> RouteResult {
    let users = each(cx, "SELECT id FROM users ORDER BY id", |id| {
        let mut user = routes::describe_user(cx, id)?;
        let events: i64 = cx
            .db
            .prepare_cached("SELECT count(*) FROM events WHERE user = ?")?
            .query_row([id], |row| row.get(0))?;
        // An attribute of this name is still in `attributes`.
        user["events"] = json!(events);
        Ok(user)
    })?;
    let companies =
        each(cx, "SELECT id FROM companies ORDER BY id", |id| routes::describe_company(cx, id))?;
    let attributes =
        each(cx, "SELECT id FROM attributes ORDER BY id", |id| routes::describe_attribute(cx, id))?;
    let events =
        each(cx, "SELECT id FROM events ORDER BY id", |id| routes::describe_event(cx, id))?;
    let page_views =
        each(cx, "SELECT id FROM page_views ORDER BY id", |id| routes::describe_page_view(cx, id))?;
    Ok(RouteReply::ok(json!({
        "users": users, "companies": companies, "attributes": attributes,
        "events": events, "page_views": page_views,
    })))
}

fn all_definitions(cx: &RouteContext<'_>) -> RouteResult {
    let all = each(cx, "SELECT id FROM event_definitions ORDER BY id", |id| {
        routes::describe_definition(cx, id)
    })?;
    Ok(RouteReply::ok(Value::Array(all)))
}

fn each(
    cx: &RouteContext<'_>,
    sql: &str,
    describe: impl Fn(i64) -> Result<Value, RouteError>,
) -> Result<Vec<Value>, RouteError> {
    let mut statement = cx.db.prepare_cached(sql)?;
    let ids: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ids.into_iter().map(describe).collect()
}
