//! `/__admin/`: what black-box checks and curious people ask the emulator itself. No token, no
//! faults, no log.
//!
//! Invariant: nothing here goes through the API's gate, so it answers whatever the faults are.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::ask::Ask;
use super::faults::{FaultState, Faults, FaultsPatch};
use super::reply::{Outcome, Refusal, Reply};
use super::routes;
use super::server::Shared;

/// The path below which all of this is.
pub(super) const BASE: &str = "/__admin/";

/// What a reset forgets besides the state, the log and the counts.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ResetBody {
    /// Whether the faults go too.
    #[serde(default)]
    faults: bool,
}

/// Whether a page of another site makes a browser ask. What is not a browser sends no `Origin`.
pub(super) fn is_cross_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(|value: &HeaderValue| value.to_str().unwrap_or("?"));
    let Some(origin) = text(header::ORIGIN) else {
        let site = headers.get("sec-fetch-site");
        return site.is_some_and(|site| site == "cross-site" || site == "same-site");
    };
    let host = text(header::HOST).unwrap_or_default();
    origin.split_once("://").is_none_or(|(_, origin)| origin != host)
}

/// The answer to such a page.
pub(super) fn refuse_cross_site() -> Response<Body> {
    Reply::detail(403, "Pages of other sites may not ask the emulator.").into_response()
}

/// Answers one admin request; a slash at the path's end may be there or not.
pub(super) fn answer(
    shared: &Shared,
    method: &str,
    path: &str,
    query: Option<&str>,
    body: &[u8],
) -> Response<Body> {
    let reply = match (method, path.trim_end_matches('/')) {
        ("GET", "requests") => return requests(shared, query.unwrap_or_default()),
        ("GET", "stats") => store_answer(shared.store().stats()),
        ("GET", "state") => run(shared, json!({}), state),
        ("GET", "faults") => faults_answer(&shared.faults().faults),
        ("POST", "faults") => change_faults(shared, body),
        ("POST", "reset") => reset(shared, body),
        ("GET", "events") => run(shared, json!({}), all_definitions),
        ("POST", "events") => match serde_json::from_slice(body) {
            Ok(body) => run(shared, body, routes::define_event),
            Err(error) => bad_body(&error),
        },
        (_, "requests" | "stats" | "state" | "faults" | "reset" | "events") => {
            Reply::detail(405, &format!("Method \"{method}\" not allowed."))
        }
        _ => Reply::not_found(),
    };
    reply.into_response()
}

fn bad_body(error: &serde_json::Error) -> Reply {
    Reply::detail(400, &error.to_string())
}

fn store_answer(result: rusqlite::Result<Value>) -> Reply {
    match result {
        Ok(value) => Reply::ok(value),
        Err(error) => Reply::detail(500, &format!("the emulator's store failed: {error}")),
    }
}

/// The log, or with `?since=SEQ` only what came after.
fn requests(shared: &Shared, query: &str) -> Response<Body> {
    let since = url::form_urlencoded::parse(query.as_bytes())
        .find(|(key, _)| key == "since")
        .map_or(Ok(0), |(_, value)| value.parse());
    let Ok(since) = since else {
        return Reply::detail(400, "since must be a sequence number").into_response();
    };
    match shared.store().log_json(since) {
        Ok(bytes) => {
            let mut response = Response::new(Body::from(bytes));
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            response
        }
        Err(error) => Reply::detail(500, &error.to_string()).into_response(),
    }
}

fn faults_answer(faults: &Faults) -> Reply {
    let mut out = json!(faults);
    out["error_code"] = json!(faults.error_codes.first());
    Reply::ok(out)
}

fn change_faults(shared: &Shared, body: &[u8]) -> Reply {
    let patch: FaultsPatch = match serde_json::from_slice(body) {
        Ok(patch) => patch,
        Err(error) => return bad_body(&error),
    };
    let mut state = shared.faults();
    match state.patch(patch) {
        Ok(()) => faults_answer(&state.faults),
        Err(error) => Reply::detail(400, &error.to_string()),
    }
}

fn reset(shared: &Shared, body: &[u8]) -> Reply {
    let asked: ResetBody = match body {
        [] => ResetBody::default(),
        body => match serde_json::from_slice(body) {
            Ok(asked) => asked,
            Err(error) => return bad_body(&error),
        },
    };
    if asked.faults {
        *shared.faults() = FaultState::new(Faults::default());
    }
    store_answer(shared.store().reset().map(|()| json!({ "reset": true })))
}

/// Runs something that reads or writes the store as a route does.
fn run(shared: &Shared, body: Value, route: fn(&Ask<'_>) -> Outcome) -> Reply {
    let Value::Object(body) = body else {
        return Reply::detail(400, "expected an object");
    };
    shared.store().run(|db| Ask::internal(db, body), route)
}

/// Everything that is stored, in order of arrival, without pages.
fn state(ask: &Ask<'_>) -> Outcome {
    let users = each(ask, "SELECT id FROM users ORDER BY id", |id| {
        let mut user = routes::describe_user(ask, id)?;
        let events: i64 = ask
            .db
            .prepare_cached("SELECT count(*) FROM events WHERE user = ?")?
            .query_row([id], |row| row.get(0))?;
        // An attribute of this name, should there be one, is still in `attributes`.
        user["events"] = json!(events);
        Ok(user)
    })?;
    let companies =
        each(ask, "SELECT id FROM companies ORDER BY id", |id| routes::describe_company(ask, id))?;
    let attributes = each(ask, "SELECT id FROM attributes ORDER BY id", |id| {
        routes::describe_attribute(ask, id)
    })?;
    let events =
        each(ask, "SELECT id FROM events ORDER BY id", |id| routes::describe_event(ask, id))?;
    let page_views = each(ask, "SELECT id FROM page_views ORDER BY id", |id| {
        routes::describe_page_view(ask, id)
    })?;
    Ok(Reply::ok(json!({
        "users": users, "companies": companies, "attributes": attributes,
        "events": events, "page_views": page_views,
    })))
}

fn all_definitions(ask: &Ask<'_>) -> Outcome {
    let all = each(ask, "SELECT id FROM event_definitions ORDER BY id", |id| {
        routes::describe_definition(ask, id)
    })?;
    Ok(Reply::ok(Value::Array(all)))
}

fn each(
    ask: &Ask<'_>,
    sql: &str,
    describe: impl Fn(i64) -> Result<Value, Refusal>,
) -> Result<Vec<Value>, Refusal> {
    let mut statement = ask.db.prepare_cached(sql)?;
    let ids: Vec<i64> = statement.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
    ids.into_iter().map(describe).collect()
}
