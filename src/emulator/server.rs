//! The HTTP side: what is checked before a route runs, in the order the real framework does it, and
//! the faults on the way in and out. Not what a route does.
//!
//! Invariant: every request below the base path gets one line in the log, answered or not.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Response, header};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::admin;
use super::ask::{Ask, Ignored, Key, Version};
use super::connection::{CuttableListener, Scissors};
use super::faults::{Fate, FaultState, Faults, Loss, Moment};
use super::reply::Reply;
use super::routes::{self, Handler, Route};
use super::store::{Line, Store};

/// The API's base path.
pub(super) const BASE: &str = "/api/public/";

/// The largest body taken, in bytes.
const MAX_BODY: usize = 4 * 1024 * 1024;

/// The name under which requests to no known path are counted.
const UNKNOWN_ROUTE: &str = "(unknown)";

/// What all requests share.
#[derive(Debug)]
pub(super) struct Shared {
    addr: SocketAddr,
    secret: Secret,
    store: Mutex<Store>,
    faults: Mutex<FaultState>,
    /// Cancelled when the emulator stops.
    pub(super) token: CancellationToken,
}

/// The API key; never shown.
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Shared {
    pub(super) fn new(
        addr: SocketAddr,
        api_key: String,
        store: Store,
        faults: Faults,
        token: CancellationToken,
    ) -> Self {
        Self {
            addr,
            secret: Secret(api_key),
            store: Mutex::new(store),
            faults: Mutex::new(FaultState::new(faults)),
            token,
        }
    }

    /// A panic under the lock rolled its transaction back, so the store is still good.
    pub(super) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, FaultState> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Serves until the token is cancelled, then lets the requests under way end.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let stopped = shared.token.clone().cancelled_owned();
    let app = Router::new()
        .fallback(answer)
        .with_state(shared)
        .into_make_service_with_connect_info::<Scissors>();
    let served = axum::serve(CuttableListener(listener), app).with_graceful_shutdown(stopped).await;
    if let Err(error) = served {
        tracing::error!(%error, "emulator: the server ended");
    }
}

async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(scissors): ConnectInfo<Scissors>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY).await else {
        let incoming = Incoming::new(&shared, parts, Bytes::new());
        shared.store().record(&incoming.line(413, None));
        return Reply::detail(413, "The body is too large or broke off.").into_response();
    };
    if let Some(path) = parts.uri.path().strip_prefix(admin::BASE) {
        if admin::is_cross_site(&parts.headers) {
            return admin::refuse_cross_site();
        }
        return admin::answer(&shared, parts.method.as_str(), path, parts.uri.query(), &body);
    }
    let incoming = Incoming::new(&shared, parts, body);
    answer_api(&shared, &scissors, incoming).await
}

async fn answer_api(shared: &Shared, scissors: &Scissors, incoming: Incoming) -> Response<Body> {
    let fate = shared.faults().draw();
    let reply = match fate.loss {
        Some(Loss::Hang(Moment::Before) | Loss::Reset(Moment::Before)) => {
            shared.store().record(&incoming.line(0, fate.loss.map(Loss::as_str)));
            None
        }
        _ => Some(incoming.process(shared, &fate)),
    };
    match (fate.loss, reply) {
        (None, Some(reply)) => {
            wait(shared, fate.delay).await;
            reply.into_response()
        }
        (Some(Loss::Hang(_)), _) => {
            shared.token.cancelled().await;
            cut(scissors)
        }
        _ => {
            wait(shared, fate.delay).await;
            cut(scissors)
        }
    }
}

/// The latency; a stop ends it.
async fn wait(shared: &Shared, delay: std::time::Duration) {
    if !delay.is_zero() {
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = shared.token.cancelled() => {}
        }
    }
}

/// The answer is never written: the connection breaks at its first byte.
fn cut(scissors: &Scissors) -> Response<Body> {
    scissors.cut();
    Response::new(Body::empty())
}

/// One request below the base path.
struct Incoming {
    method: String,
    /// Relative to the base path, still encoded, without the query.
    path: String,
    query: Option<String>,
    headers: HeaderMap,
    body: Bytes,
    route: Option<(&'static Route, Key)>,
    /// `http://HOST`, as the caller named it.
    origin: String,
    now: i64,
}

impl Incoming {
    fn new(shared: &Shared, parts: Parts, body: Bytes) -> Self {
        let full = parts.uri.path();
        let (path, route) = match full.strip_prefix(BASE) {
            Some(path) => (path, routes::find(path)),
            None => (full, None),
        };
        let host = parts.headers.get(header::HOST).and_then(|host| host.to_str().ok());
        Self {
            method: parts.method.as_str().to_owned(),
            path: path.to_owned(),
            query: parts.uri.query().map(str::to_owned),
            origin: host
                .map_or_else(|| format!("http://{}", shared.addr), |host| format!("http://{host}")),
            headers: parts.headers,
            body,
            route,
            now: crate::clock::now().as_microsecond(),
        }
    }

    fn line<'a>(&'a self, status: u16, fault: Option<&'static str>) -> Line<'a> {
        Line {
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

    /// Decides on the answer, has the effect, and logs both. No answer goes out if it is lost.
    fn process(&self, shared: &Shared, fate: &Fate) -> Reply {
        match self.gate(shared, fate) {
            Err((reply, fault)) => {
                let lost = fate.loss.map(Loss::as_str);
                let status = if lost.is_some() { 0 } else { reply.status };
                shared.store().record(&self.line(status, lost.or(fault)));
                reply
            }
            Ok((handler, key, version, body)) => {
                let url = format!("{}{BASE}{}", self.origin, self.path);
                let query = self.query.as_deref().unwrap_or_default();
                let query = url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
                let mut store = shared.store();
                let reply = store.run(
                    |db| Ask {
                        db,
                        key,
                        query,
                        body,
                        version,
                        now: self.now,
                        url,
                        ignored: Ignored::default(),
                    },
                    handler,
                );
                let lost = fate.loss.map(Loss::as_str);
                let status = if lost.is_some() { 0 } else { reply.status };
                store.record(&self.line(status, lost));
                reply
            }
        }
    }

    /// Everything that can refuse a request before its route sees it, in the framework's order:
    /// path, version, key, throttle, (an injected error), method, body.
    fn gate(&self, shared: &Shared, fate: &Fate) -> Result<Passed, (Reply, Option<&'static str>)> {
        let plain = |reply| (reply, None);
        let (route, key) = self.route.clone().ok_or_else(|| plain(self.no_such_path()))?;
        let version = version(&self.headers).map_err(plain)?;
        if fate.revoked || !self.has_key(&shared.secret.0) {
            let fault = fate.revoked.then_some("revoked");
            let reply = Reply::detail(401, "Invalid token.")
                .with_header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Token"));
            return Err((reply, fault));
        }
        if !shared.faults().take_token(Instant::now()) {
            return Err((throttled(), Some("rate_limit")));
        }
        if let Some(code) = fate.error {
            return Err((injected(code), Some("error")));
        }
        let handler = self.handler(route).map_err(plain)?;
        if version == Version::V1 && self.method != "GET" {
            return Err(plain(Reply::hinted(
                400,
                "Without a version the v1 field names apply, and these cannot be told from v2's.",
                "send the header `Accept: */*; version=2`",
            )));
        }
        let body = self.object().map_err(plain)?;
        Ok((handler, key, version, body))
    }

    fn no_such_path(&self) -> Reply {
        if !self.path.ends_with('/') && routes::find(&format!("{}/", self.path)).is_some() {
            return Reply::hinted(
                404,
                "Not found.",
                "every path ends in `/`, before the query too",
            );
        }
        if self.path.starts_with('/') {
            return Reply::hinted(404, "Not found.", "the API is below /api/public/");
        }
        Reply::not_found()
    }

    fn has_key(&self, secret: &str) -> bool {
        self.headers
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .is_some_and(|(scheme, key)| {
                scheme.eq_ignore_ascii_case("token") && key.trim() == secret
            })
    }

    fn handler(&self, route: &Route) -> Result<Handler, Reply> {
        if let Some((_, handler)) = route.methods.iter().find(|(method, _)| *method == self.method)
        {
            return Ok(*handler);
        }
        let allowed: Vec<&str> = route.methods.iter().map(|(method, _)| *method).collect();
        let allowed = HeaderValue::from_str(&allowed.join(", "))
            .expect("method names are plain ASCII letters");
        Err(Reply::detail(405, &format!("Method \"{}\" not allowed.", self.method))
            .with_header(header::ALLOW, allowed))
    }

    /// The body as a JSON object; an empty body is an empty object.
    fn object(&self) -> Result<Map<String, Value>, Reply> {
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
            return Err(Reply::detail(415, &detail));
        }
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(body)) => without_nuls(body),
            Ok(_) => Err(Reply::new(
                400,
                json!({ "non_field_errors": ["Invalid data. Expected a dictionary."] }),
            )),
            Err(error) => Err(Reply::detail(400, &format!("JSON parse error - {error}"))),
        }
    }
}

/// The body, or the refusal of every field with a NUL character in it, which the database behind the
/// real service cannot hold.
fn without_nuls(body: Map<String, Value>) -> Result<Map<String, Value>, Reply> {
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
    if refused.is_empty() { Ok(body) } else { Err(Reply::new(400, Value::Object(refused))) }
}

/// What a request that passed the gate brings to its route.
type Passed = (Handler, Key, Version, Map<String, Value>);

/// The version named in the Accept header; v1 when none is.
fn version(headers: &HeaderMap) -> Result<Version, Reply> {
    let accepts = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let named = accepts
        .flat_map(|value| value.split(','))
        .flat_map(|media_type| media_type.split(';').skip(1))
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("version"))
        .map(|(_, version)| version.trim().trim_matches('"'));
    match named {
        None | Some("1") => Ok(Version::V1),
        Some("2") => Ok(Version::V2),
        Some(_) => Err(Reply::detail(406, "Invalid version in \"Accept\" header.")),
    }
}

fn throttled() -> Reply {
    Reply::detail(429, "Request was throttled. Expected available in 1 second.")
        .with_header(header::RETRY_AFTER, HeaderValue::from_static("1"))
}

/// An error that was asked for; the work is not done.
fn injected(code: u16) -> Reply {
    match code {
        429 => throttled(),
        401 => Reply::detail(401, "Invalid token."),
        403 => Reply::detail(403, "You do not have permission to perform this action."),
        404 => Reply::not_found(),
        400..500 => Reply::detail(code, "The emulator was told to refuse this request."),
        _ => Reply::detail(code, "The emulator was told to fail this request."),
    }
}
