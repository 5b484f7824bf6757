//! The HTTP server: checks each request in the order of the real framework, injects faults, and
//! calls its route.
//!
//! # Invariants
//! Every request below the base path gets one entry in the request log, answered or not.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;

use super::admin;
use super::connection::{ResetHandle, ResettableListener};
use super::context::{Ignored, PathKey, RequestVersion, RouteContext};
use super::faults::{InjectedFaults, LossMoment, ResponseLoss};
use super::reply::RouteReply;
use super::routes::{self, ApiRoute, Handler};
use super::state::EmulatorState;
use super::store::LoggedRequest;

/// The API's base path.
pub(super) const BASE_PATH: &str = "/api/public/";

/// The largest request body, in bytes.
const MAX_BODY_SIZE: usize = 4 * 1024 * 1024;

/// The route name that requests to unknown paths are counted under.
const UNKNOWN_ROUTE: &str = "(unknown)";

/// Serves until the token is cancelled, then lets running requests end.
pub(super) async fn serve(listener: TcpListener, state: Arc<EmulatorState>) {
    let stopped = state.token.clone().cancelled_owned();
    let app = Router::new()
        .fallback(answer)
        .with_state(state)
        .into_make_service_with_connect_info::<ResetHandle>();
    let served =
        axum::serve(ResettableListener(listener), app).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "emulator: the server ended");
    }
}

async fn answer(
    State(state): State<Arc<EmulatorState>>,
    ConnectInfo(connection): ConnectInfo<ResetHandle>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_SIZE).await else {
        let incoming = IncomingRequest::new(&state, parts, Bytes::new());
        state.store().record(&incoming.logged(413, None));
        return RouteReply::detail(413, "The body is too large or broke off.").into_response();
    };
    if let Some(path) = parts.uri.path().strip_prefix(admin::BASE_PATH) {
        if admin::is_cross_site(&parts.headers) {
            return admin::refuse_cross_site();
        }
        return admin::answer(&state, parts.method.as_str(), path, parts.uri.query(), &body);
    }
    let incoming = IncomingRequest::new(&state, parts, body);
    answer_api(&state, &connection, incoming).await
}

async fn answer_api(
    state: &EmulatorState,
    connection: &ResetHandle,
    incoming: IncomingRequest,
) -> Response<Body> {
    let faults = state.faults().draw();
    let reply = match faults.loss {
        Some(ResponseLoss::Hang(LossMoment::Before) | ResponseLoss::Reset(LossMoment::Before)) => {
            state.store().record(&incoming.logged(0, faults.loss.map(ResponseLoss::as_str)));
            None
        }
        _ => Some(incoming.process(state, &faults)),
    };
    match (faults.loss, reply) {
        (None, Some(reply)) => {
            delay(state, faults.delay).await;
            reply.into_response()
        }
        (Some(ResponseLoss::Hang(_)), _) => {
            state.token.cancelled().await;
            reset(connection)
        }
        _ => {
            delay(state, faults.delay).await;
            reset(connection)
        }
    }
}

/// Waits for the injected latency; a stop ends the wait.
async fn delay(state: &EmulatorState, delay: std::time::Duration) {
    if !delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = state.token.cancelled() => {}
        }
    }
}

/// Resets the connection: the response is never written.
fn reset(connection: &ResetHandle) -> Response<Body> {
    connection.reset();
    Response::new(Body::empty())
}

/// One request below the base path.
struct IncomingRequest {
    method: String,
    /// Relative to the base path, still encoded, without the query.
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Bytes,
    route: Option<(&'static ApiRoute, PathKey)>,
    /// `http://HOST`, from the request's Host header.
    origin: String,
    now: i64,
}

impl IncomingRequest {
    fn new(state: &EmulatorState, parts: Parts, body: Bytes) -> Self {
        let full = parts.uri.path();
        let (path, route) = match full.strip_prefix(BASE_PATH) {
            Some(path) => (path, routes::find(path)),
            None => (full, None),
        };
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        Self {
            method: parts.method.as_str().to_owned(),
            path: path.to_owned(),
            query: parts.uri.query().map(str::to_owned),
            origin: host
                .map_or_else(|| format!("http://{}", state.addr), |host| format!("http://{host}")),
            headers: parts.headers,
            body,
            route,
            now: crate::clock::now().as_microsecond(),
        }
    }

    fn logged<'a>(&'a self, status: u16, fault: Option<&'static str>) -> LoggedRequest<'a> {
        LoggedRequest {
            now: self.now,
            method: &self.method,
            path: &self.path,
            query: self.query.as_deref(),
            body: &self.body,
            status,
            route: self.route.as_ref().map_or(UNKNOWN_ROUTE, |(route, _)| route.template),
            fault,
        }
    }

    /// Runs the request and logs it. The response is not sent if it is lost.
    fn process(&self, state: &EmulatorState, faults: &InjectedFaults) -> RouteReply {
        match self.check(state, faults) {
            Err((reply, fault)) => {
                let lost = faults.loss.map(ResponseLoss::as_str);
                let status = if lost.is_some() { 0 } else { reply.status };
                state.store().record(&self.logged(status, lost.or(fault)));
                reply
            }
            Ok((handler, key, version, body)) => {
                let url = format!("{}{BASE_PATH}{}", self.origin, self.path);
                let query = self.query.as_deref().unwrap_or_default();
                let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
                let assume = *state.assumptions();
                let mut store = state.store();
                let reply = store.run(
                    |db| RouteContext {
                        db,
                        key,
                        query,
                        body,
                        version,
                        assume,
                        now: self.now,
                        url,
                        ignored: Ignored::default(),
                    },
                    handler,
                );
                let lost = faults.loss.map(ResponseLoss::as_str);
                let status = if lost.is_some() { 0 } else { reply.status };
                store.record(&self.logged(status, lost));
                reply
            }
        }
    }

    /// All checks before the route, in the framework's order: path, version, key, throttle, (an
    /// injected error), method, body.
    fn check(
        &self,
        state: &EmulatorState,
        faults: &InjectedFaults,
    ) -> Result<AcceptedRequest, (RouteReply, Option<&'static str>)> {
        let plain = |reply| (reply, None);
        let (route, key) = self.route.clone().ok_or_else(|| plain(self.no_such_path()))?;
        let version = version(&self.headers).map_err(plain)?;
        if faults.revoked || !self.has_key(state) {
            let fault = faults.revoked.then_some("revoked");
            let reply = RouteReply::detail(401, "Invalid token.")
                .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Token"));
            return Err((reply, fault));
        }
        if !state.faults().take_token(Instant::now()) {
            return Err((throttled(), Some("rate_limit")));
        }
        if let Some(code) = faults.error {
            return Err((injected(code), Some("error")));
        }
        let handler = self.handler(route).map_err(plain)?;
        if version == RequestVersion::V1 && self.method != "GET" {
            return Err(plain(RouteReply::hinted(
                400,
                "Without a version the v1 field names apply, and these cannot be told from v2's.",
                "send the header `Accept: */*; version=2`",
            )));
        }
        let body = self.object().map_err(plain)?;
        Ok((handler, key, version, body))
    }

    fn no_such_path(&self) -> RouteReply {
        if !self.path.ends_with('/') && routes::find(&format!("{}/", self.path)).is_some() {
            return RouteReply::hinted(
                404,
                "Not found.",
                "every path ends in `/`, before the query too",
            );
        }
        if self.path.starts_with('/') {
            return RouteReply::hinted(404, "Not found.", "the API is below /api/public/");
        }
        RouteReply::not_found()
    }

    fn has_key(&self, state: &EmulatorState) -> bool {
        self.headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .is_some_and(|(scheme, key)| {
                scheme.eq_ignore_ascii_case("token") && state.is_api_key(key.trim())
            })
    }

    fn handler(&self, route: &ApiRoute) -> Result<Handler, RouteReply> {
        if let Some((_, handler)) = route.methods.iter().find(|(method, _)| *method == self.method)
        {
            return Ok(*handler);
        }
        let allowed: Vec<&str> = route.methods.iter().map(|(method, _)| *method).collect();
        let allowed = HeaderValue::from_str(&allowed.join(", "))
            .expect("method names are plain ASCII letters");
        Err(RouteReply::detail(405, &format!("Method \"{}\" not allowed.", self.method))
            .with_header(header::ALLOW, allowed))
    }

    /// The body as a JSON object; an empty body is an empty object.
    fn object(&self) -> Result<Map<String, Value>, RouteReply> {
        if self.body.is_empty() {
            return Ok(Map::new());
        }
        let content_type = self
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let media_type = content_type.split(';').next().unwrap_or_default().trim();
        if !media_type.eq_ignore_ascii_case("application/json") {
            let detail = format!("Unsupported media type \"{content_type}\" in request.");
            return Err(RouteReply::detail(415, &detail));
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(body)) => without_nuls(body),
            Ok(_) => Err(RouteReply::new(
                400,
                json!({ "non_field_errors": ["Invalid data. Expected a dictionary."] }),
            )),
            Err(error) => Err(RouteReply::detail(400, &format!("JSON parse error - {error}"))),
        }
    }
}

/// The body, or an error for every field with a NUL character, which the database of the real
/// service cannot store.
fn without_nuls(body: Map<String, Value>) -> Result<Map<String, Value>, RouteReply> {
    fn has_nul(value: &Value) -> bool {
        match value {
            Value::String(text) => text.contains('\0'),
            Value::Array(list) => list.iter().any(has_nul),
            Value::Object(object) => {
                object.iter().any(|(name, value)| name.contains('\0') || has_nul(value))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }
    let refused: Map<String, Value> = body
        .iter()
        .filter(|(name, value)| name.contains('\0') || has_nul(value))
        .map(|(name, _)| (name.clone(), json!(["Null characters are not allowed."])))
        .collect();
    if refused.is_empty() { Ok(body) } else { Err(RouteReply::new(400, Value::Object(refused))) }
}

/// What a checked request passes to its route.
type AcceptedRequest = (Handler, PathKey, RequestVersion, Map<String, Value>);

/// The version in the Accept header; v1 if there is none.
fn version(headers: &HeaderMap) -> Result<RequestVersion, RouteReply> {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let named = accepts
        .flat_map(|value| value.split(','))
        .flat_map(|media_type| media_type.split(';').skip(1))
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("version"))
        .map(|(_, version)| version.trim().trim_matches('"'));
    match named {
        None | Some("1") => Ok(RequestVersion::V1),
        Some("2") => Ok(RequestVersion::V2),
        Some(_) => Err(RouteReply::detail(406, "Invalid version in \"Accept\" header.")),
    }
}

fn throttled() -> RouteReply {
    RouteReply::detail(429, "Request was throttled. Expected available in 1 second.")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// An injected error; the work is not done.
fn injected(code: u16) -> RouteReply {
    match code {
        429 => throttled(),
        401 => RouteReply::detail(401, "Invalid token."),
        403 => RouteReply::detail(403, "You do not have permission to perform this action."),
        404 => RouteReply::not_found(),
        400..500 => RouteReply::detail(code, "The emulator was told to refuse this request."),
        _ => RouteReply::detail(code, "The emulator was told to fail this request."),
    }
}
