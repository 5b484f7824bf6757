//! A server that takes everything and answers at once what a client needs to continue: so that what
//! is measured is the client.
//!
//! Not the emulator: it keeps no users, checks nothing and knows no fault. Invariant: it does the
//! same for every client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::clock;
use crate::poster::Sent;

/// The base path of the API.
const BASE: &str = "/api/public/";

/// Where the bench asks what has come.
const REQUESTS: &str = "/__admin/requests";

/// What the server remembers.
#[derive(Default)]
pub(crate) struct Seen {
    /// The last number given to a user or company.
    number: AtomicU64,
    /// What came, in order, where it is to be remembered.
    log: Option<Mutex<Vec<Sent>>>,
    /// When the catalogue was last answered, and when the first request after that came.
    first: Mutex<(Option<Instant>, Option<Instant>)>,
}

impl Seen {
    /// One that remembers requests, or only counts.
    pub(crate) fn new(log: bool) -> Arc<Self> {
        Arc::new(Self { log: log.then(Mutex::default), ..Self::default() })
    }

    /// When the catalogue was answered, and when the first other request came.
    pub(crate) fn first(&self) -> (Option<Instant>, Option<Instant>) {
        *self.first.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes connections for as long as it is polled.
pub(crate) async fn serve(listener: TcpListener, seen: Arc<Seen>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        while connections.try_join_next().is_some() {}
        drop(stream.set_nodelay(true));
        let seen = Arc::clone(&seen);
        connections.spawn(async move {
            let answer = service_fn(move |request| answer(Arc::clone(&seen), request));
            // A client that goes away is none of our business.
            drop(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), answer)
                    .await,
            );
        });
    }
}

/// A socket on loopback, and its base URL.
pub(crate) async fn listen() -> (TcpListener, String) {
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(address).await.expect("loopback has a free port");
    let base = format!("http://{}{BASE}", listener.local_addr().expect("it is bound"));
    (listener, base)
}

async fn answer(
    seen: Arc<Seen>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if path == REQUESTS {
        return Ok(ok(StatusCode::OK, seen.told()));
    }
    let path = path.strip_prefix(BASE).unwrap_or(path);
    let catalogue = parts.method == Method::GET && path.starts_with("attributes/");
    seen.note(parts.method.as_str(), path, &body, catalogue);
    let (status, answer) = seen.canned(&parts.method, path, &body);
    if catalogue {
        let mut first = seen.first.lock().unwrap_or_else(PoisonError::into_inner);
        if first.1.is_none() {
            first.0 = Some(clock());
        }
    }
    Ok(ok(status, answer))
}

fn ok(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(CONTENT_TYPE, json);
    response
}

impl Seen {
    fn note(&self, method: &str, path: &str, body: &Bytes, catalogue: bool) {
        if !catalogue {
            let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
            first.1.get_or_insert_with(clock);
        }
        if let Some(log) = &self.log {
            let sent = Sent::new(method, path, body);
            log.lock().unwrap_or_else(PoisonError::into_inner).push(sent);
        }
    }

    fn told(&self) -> Vec<u8> {
        let log = self.log.as_ref().map(|log| log.lock().unwrap_or_else(PoisonError::into_inner));
        let sent = log.as_ref().map_or(&[][..], |log| log);
        serde_json::to_vec(sent).expect("requests are plain")
    }

    /// What User.com would answer, as far as a client cares.
    fn canned(&self, method: &Method, path: &str, body: &[u8]) -> (StatusCode, Bytes) {
        let number = || self.number.fetch_add(1, Ordering::Relaxed) + 1;
        let first = path.split('/').next().unwrap_or_default();
        let answer = match (method.as_str(), first) {
            ("GET", "attributes") => {
                Bytes::from_static(br#"{"count":0,"next":null,"previous":null,"results":[]}"#)
            }
            ("POST", "attributes") => {
                let asked: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
                let of = |name: &str| asked[name].clone();
                let made = json!({
                    "name": of("name"), "value_type": "string", "content_type": of("content_type"),
                });
                return (StatusCode::CREATED, made.to_string().into());
            }
            ("POST", "users") => format!("{{\"created\":true,\"id\":{}}}", number()).into(),
            ("GET", _) => {
                let id = number();
                format!("{{\"id\":{id},\"user_key\":\"key-{id}\",\"employees\":[]}}").into()
            }
            ("POST" | "PUT", "companies" | "companies-by-id") => {
                format!("{{\"id\":{},\"employees\":[]}}", number()).into()
            }
            _ => Bytes::from_static(br#"{"success":true}"#),
        };
        (StatusCode::OK, answer)
    }
}
