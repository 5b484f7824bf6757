//! One request: which way it goes, whether it may, and what it is answered.
//!
//! Not here: how bodies are read (`body`) and what is in them (`records`, `segment`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use hyper::body::Body as _;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Credentials, Secret, basic_user};
use super::body::{Reading, budget, discard};
use super::intake::{Consignment, Intake};
use super::records::{self, ITEM_BYTES, Item};
use super::reply::{Refusal, allow_origin, json_response, preflight, text_response};
use super::segment::{Post, Receipt};
use crate::clock;
use crate::config::source::{Codec, HttpSource as Settings, segment_call};
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::memory::Share;

/// The longest idempotency key that is used, in bytes.
const MAX_KEY: usize = 255;

/// The longest piece of a header that goes into a record's metadata, in bytes.
const MAX_META: usize = 512;

/// How much larger than a body the events of a batch may be, as each repeats the batch's context.
const SPREAD: usize = 4;

/// Answers requests.
pub(super) struct Gate {
    path: String,
    codec: Codec,
    /// A decoder that has read nothing; each request has its own.
    decoder: Decoder,
    auth: Option<Credentials>,
    write_key: Option<Secret>,
    reading: Reading,
    intake: Intake,
    /// Requests under way.
    requests: TaskTracker,
    stop: CancellationToken,
}

impl Gate {
    pub(super) fn new(
        settings: Settings,
        decoder: Decoder,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            path: settings.path,
            codec: settings.decoding.codec,
            decoder,
            auth: settings.auth.as_ref().map(Credentials::of),
            write_key: settings.write_key.as_ref().map(Secret::of),
            reading: Reading {
                max_bytes: settings.max_body_bytes,
                timeout: Duration::from_secs(settings.read_timeout_secs),
                budget: budget(settings.max_body_bytes),
            },
            intake: Intake::new(out, Duration::from_secs(settings.response_timeout_secs)),
            requests: TaskTracker::new(),
            stop,
        }
    }

    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, peer: IpAddr, request: Request<Body>) -> Response {
        // Taken before looking, so that who waits for the requests under way misses none.
        let _under_way = self.requests.token();
        let (parts, mut body) = request.into_parts();
        let response = self.route(peer, &parts, &mut body).await;
        let waits = parts.headers.contains_key(header::EXPECT)
            || response.status() == StatusCode::REQUEST_TIMEOUT;
        if !response.status().is_success() && !waits && !body.is_end_stream() {
            discard(&mut body).await;
        }
        response
    }

    async fn route(&self, peer: IpAddr, parts: &Parts, body: &mut Body) -> Response {
        if let Some(call) = segment_call(parts.uri.path()) {
            return self.segment(call, peer, parts, body).await;
        }
        if parts.uri.path() == self.path {
            let answered = self.records(peer, parts, body).await;
            return answered.unwrap_or_else(Refusal::into_response);
        }
        match (parts.uri.path(), &parts.method) {
            ("/" | "/health", &Method::GET | &Method::HEAD) => {
                text_response(StatusCode::OK, "ok\n")
            }
            ("/" | "/health", _) => Refusal::Method.into_response(),
            _ => Refusal::NotFound.into_response(),
        }
    }

    /// Waits until the requests under way are answered and all records settled. New requests are
    /// refused by then.
    pub(super) async fn settled(&self) {
        self.requests.close();
        self.requests.wait().await;
        self.intake.landed().await;
    }

    async fn records(
        &self,
        peer: IpAddr,
        parts: &Parts,
        body: &mut Body,
    ) -> Result<Response, Refusal> {
        if !matches!(parts.method, Method::POST | Method::HEAD) {
            return Err(Refusal::Method);
        }
        if let Some(auth) = self.auth.as_ref().filter(|auth| !auth.shown_in(&parts.headers)) {
            return Err(Refusal::Unauthorized(Some(auth.challenge())));
        }
        self.not_draining()?;
        if parts.method == Method::HEAD {
            return Ok(text_response(StatusCode::OK, ""));
        }
        let (body, share) = self.reading.read(&parts.headers, body).await?;
        let items = records::items(self.codec, &self.decoder, &body)?;
        let outcome = self.take(items, share, peer, parts).await?;
        let accepted = outcome.received - outcome.rejected;
        Ok(json_response(
            StatusCode::OK,
            &json!({
                "received": outcome.received, "accepted": accepted, "rejected": outcome.rejected,
            }),
        ))
    }

    async fn segment(
        &self,
        call: &'static str,
        peer: IpAddr,
        parts: &Parts,
        body: &mut Body,
    ) -> Response {
        let mut response = match parts.method {
            Method::OPTIONS => preflight(&parts.headers),
            Method::POST => match self.event(call, peer, parts, body).await {
                Ok(()) => json_response(StatusCode::OK, &json!({ "success": true })),
                Err(refusal) => refusal.into_response(),
            },
            _ => Refusal::Method.into_response(),
        };
        allow_origin(parts.headers.get(header::ORIGIN), &mut response);
        response
    }

    async fn event(
        &self,
        call: &'static str,
        peer: IpAddr,
        parts: &Parts,
        body: &mut Body,
    ) -> Result<(), Refusal> {
        let key = basic_user(&parts.headers).filter(|key| !key.is_empty());
        match (&self.write_key, &self.auth, &key) {
            (Some(known), _, Some(shown)) if !known.is(shown) => return Err(Refusal::WriteKey),
            (None, Some(auth), _) if !auth.shown_in(&parts.headers) => {
                return Err(Refusal::Unauthorized(None));
            }
            _ => {}
        }
        self.not_draining()?;
        let (body, share) = self.reading.read(&parts.headers, body).await?;
        let post = Post::read(&body)?;
        if let (Some(known), None) = (&self.write_key, key) {
            let shown = post.write_key().unwrap_or_default();
            if !known.is(shown.as_bytes()) {
                return Err(Refusal::WriteKey);
            }
        }
        let from_browser = parts.headers.contains_key(header::ORIGIN);
        let receipt = Receipt { at: clock::now(), ip: from_browser.then(|| peer.to_string()) };
        let items = match call {
            "batch" => post.batch(&receipt, self.reading.max_bytes.saturating_mul(SPREAD))?,
            kind => post.call(kind, &receipt),
        };
        self.take(items, share, peer, parts).await.map(drop)
    }

    fn not_draining(&self) -> Result<(), Refusal> {
        if self.stop.is_cancelled() { Err(Refusal::Draining) } else { Ok(()) }
    }

    async fn take(
        &self,
        items: Vec<Item>,
        mut share: Share,
        peer: IpAddr,
        parts: &Parts,
    ) -> Result<crate::source::push::Outcome, Refusal> {
        share.grow(items.len() * ITEM_BYTES)?;
        let key = text(&parts.headers, "idempotency-key").filter(|key| key.len() <= MAX_KEY);
        let meta = meta(peer, parts);
        let key = key.map(str::to_owned);
        Box::pin(self.intake.take(Consignment { items, meta, key, share })).await
    }
}

/// What the transport knows, for `%` paths: `%path`, `%ip`, `%user_agent`, `%content_type`.
fn meta(peer: IpAddr, parts: &Parts) -> Bytes {
    let mut meta = serde_json::Map::new();
    meta.insert("path".into(), parts.uri.path().into());
    meta.insert("ip".into(), peer.to_string().into());
    for (key, name) in [("user_agent", "user-agent"), ("content_type", "content-type")] {
        if let Some(value) = text(&parts.headers, name).filter(|value| value.len() <= MAX_META) {
            meta.insert(key.into(), value.into());
        }
    }
    serde_json::Value::Object(meta).to_string().into()
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}
