//! One request: which way it goes, whether it may, and what it is answered.
//!
//! Not here: how bodies are read (`body`) and what is in them (`records`, `segment`).

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, Method, Request, StatusCode, header};
use axum::response::Response;
use hyper::body::Body as _;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::auth::{Credentials, Secret, basic_user};
use super::body::{Reading, budget, discard};
use super::brake::Brake;
use super::intake::{Consignment, Intake};
use super::records::{self, ITEM_BYTES, Item};
use super::reply::{Refusal, allow_any_origin, json_response, preflight, text_response};
use super::segment::{Post, Receipt};
use super::{form, meta};
use crate::clock;
use crate::config::source::{Codec, HttpSourceConfig as Settings, segment_call};
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::memory::Share;
use crate::telemetry::SourceMetrics;

/// The longest idempotency key that is used, in bytes.
const MAX_KEY: usize = 255;

/// How much larger than a body the events of a batch may be, as each repeats the batch's context.
const SPREAD: usize = 4;

/// Answers requests.
pub(super) struct Gate {
    source: String,
    metrics: Option<SourceMetrics>,
    brake: Brake,
    /// The headers that become metadata.
    headers: Vec<HeaderName>,
    path: String,
    codec: Option<Codec>,
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
        source: &str,
        settings: Settings,
        decoder: Decoder,
        metrics: Option<SourceMetrics>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Self {
        let names = settings.headers.iter().filter_map(|name| name.parse().ok()).collect();
        Self {
            source: source.to_owned(),
            metrics,
            brake: Brake::default(),
            headers: names,
            path: settings.path,
            codec: settings.decoding.only_codec(),
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
        let answered = if without_slash(parts.uri.path()) == without_slash(&self.path) {
            self.records(peer, parts, body).await
        } else {
            match (parts.uri.path(), &parts.method) {
                ("/" | "/health", &Method::GET | &Method::HEAD) => {
                    Ok(text_response(StatusCode::OK, "ok\n"))
                }
                ("/" | "/health", _) => Err(Refusal::Method),
                _ => Err(Refusal::NotFound),
            }
        };
        answered.unwrap_or_else(|refusal| {
            self.refused(refusal, peer);
            refusal.into_response()
        })
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
        if let Some(auth) = &self.auth {
            self.not_braked(peer)?;
            if !auth.shown_in(&parts.headers) {
                self.brake.failed(peer);
                return Err(Refusal::Unauthorized(Some(auth.challenge())));
            }
        }
        self.not_draining()?;
        if parts.method == Method::HEAD {
            return Ok(text_response(StatusCode::OK, ""));
        }
        let media_type = media_type(&parts.headers);
        if media_type.starts_with("multipart/") {
            return Err(Refusal::Multipart);
        }
        let (body, mut share) = self.reading.read(&parts.headers, body).await?;
        let told_form = media_type == form::MEDIA_TYPE && self.codec == Some(Codec::Json);
        // `curl -d` says so of JSON too.
        let form = told_form && !records::begins_as_json(&body);
        let items = match form {
            true => records::form(&body, &mut share)?,
            false => records::items(self.codec, &self.decoder, &body)?,
        };
        let outcome = self.take(items, &body, share, peer, parts).await?;
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
                Err(refusal) => {
                    self.refused(refusal, peer);
                    refusal.into_response()
                }
            },
            _ => {
                self.refused(Refusal::Method, peer);
                Refusal::Method.into_response()
            }
        };
        allow_any_origin(&mut response);
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
        if self.write_key.is_some() || self.auth.is_some() {
            self.not_braked(peer)?;
        }
        match (&self.write_key, &self.auth, &key) {
            (Some(known), _, Some(shown)) if !known.is(shown) => {
                self.brake.failed(peer);
                return Err(Refusal::WriteKey);
            }
            (None, Some(auth), _) if !auth.shown_in(&parts.headers) => {
                self.brake.failed(peer);
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
                self.brake.failed(peer);
                return Err(Refusal::WriteKey);
            }
        }
        let from_browser = parts.headers.contains_key(header::ORIGIN);
        let receipt = Receipt { at: clock::now(), ip: from_browser.then(|| peer.to_string()) };
        let items = match call {
            "batch" => post.batch(&receipt, self.reading.max_bytes.saturating_mul(SPREAD))?,
            kind => post.call(kind, &receipt),
        };
        self.take(items, &body, share, peer, parts).await.map(drop)
    }

    fn not_braked(&self, peer: IpAddr) -> Result<(), Refusal> {
        if self.brake.allows(peer) { Ok(()) } else { Err(Refusal::Braked) }
    }

    /// Counts a request that is refused, and says so in the log; lines that repeat are left out
    /// there, with their number.
    fn refused(&self, refusal: Refusal, peer: IpAddr) {
        if let Some(metrics) = &self.metrics {
            metrics.refused(refusal.kind());
        }
        let source = &self.source;
        match refusal {
            Refusal::Unauthorized(_) | Refusal::WriteKey | Refusal::Braked => tracing::warn!(
                source, client = %peer, why = %refusal,
                "a request is refused for its credentials: its records are lost unless its sender \
                 keeps them; compare what it sends with `auth` and `write_key` of this source"
            ),
            Refusal::TooLarge | Refusal::TooMany => tracing::warn!(
                source, client = %peer, why = %refusal, limit = self.reading.max_bytes,
                "a request is refused for its size: its records are lost unless its sender divides \
                 them; send smaller requests, or raise `max_body_bytes`"
            ),
            Refusal::Busy | Refusal::Unsettled | Refusal::Draining => tracing::warn!(
                source, client = %peer, why = %refusal,
                "a request is answered with 503 and has to be sent again"
            ),
            Refusal::NotFound | Refusal::Method => tracing::warn!(
                source, client = %peer, why = %refusal, taken = self.path,
                "a request is refused for its path or method: records are posted to `path`, and \
                 Segment's calls to their own paths"
            ),
            _ => tracing::warn!(
                source, client = %peer, why = %refusal,
                "a request is refused for its body: its records are lost unless its sender keeps \
                 them"
            ),
        }
    }

    fn not_draining(&self) -> Result<(), Refusal> {
        if self.stop.is_cancelled() { Err(Refusal::Draining) } else { Ok(()) }
    }

    async fn take(
        &self,
        items: Vec<Item>,
        body: &[u8],
        mut share: Share,
        peer: IpAddr,
        parts: &Parts,
    ) -> Result<crate::source::push::Outcome, Refusal> {
        share.grow(items.len() * ITEM_BYTES)?;
        let key = text(&parts.headers, "idempotency-key").filter(|key| key.len() <= MAX_KEY);
        let meta = meta::of_request(peer, parts, &self.headers);
        // A record with metadata of its own has its own copy of the request's.
        let own = items.iter().filter_map(|item| item.meta.as_ref());
        share.grow(own.map(|own| own.len().saturating_add(meta.len())).sum())?;
        // A key that is used for another body too must not make one swallow the other.
        let key = key.map(|key| {
            let digest = Sha256::digest(body);
            let digest: String = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect();
            format!("{key}/{digest}")
        });
        Box::pin(self.intake.take(Consignment { items, meta, key, share })).await
    }
}

/// A path without a slash at its end.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// The media type of a body, without its parameters.
fn media_type(headers: &HeaderMap) -> String {
    let told = text(headers, "content-type").unwrap_or_default();
    told.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
