//! Handles one request: routes it, checks its credentials and answers it.

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

use super::auth::{Credentials, SecretDigest, basic_user};
use super::auth_limiter::AuthLimiter;
use super::body::{BodyLimits, budget, discard};
use super::intake::{IngestRequest, RecordIngest};
use super::records::{self, BodyRecord, ITEM_BYTES};
use super::reply::{RequestError, allow_any_origin, json_response, preflight, text_response};
use super::segment::{ReceiveInfo, SegmentRequest};
use super::{form, meta};
use crate::clock;
use crate::config::source::{Codec, HttpSourceConfig as Settings, segment_call};
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::memory::MemoryReservation;
use crate::telemetry::SourceMetrics;

/// The longest idempotency key that is used, in bytes.
const MAX_IDEMPOTENCY_KEY_BYTES: usize = 255;

/// How many times larger than its body the events of a batch may be, as each repeats the batch's
/// context.
const MAX_BATCH_EXPANSION: usize = 4;

/// Answers requests.
pub(super) struct RequestHandler {
    source: String,
    metrics: Option<SourceMetrics>,
    auth_limiter: AuthLimiter,
    /// The headers that become metadata.
    headers: Vec<HeaderName>,
    path: String,
    codec: Option<Codec>,
    /// A decoder that has read nothing; each request clones it.
    decoder: Decoder,
    auth: Option<Credentials>,
    write_key: Option<SecretDigest>,
    body_limits: BodyLimits,
    intake: RecordIngest,
    /// Requests that are being handled.
    requests: TaskTracker,
    stop: CancellationToken,
}

impl RequestHandler {
    pub(super) fn new(
        source: &str,
        settings: Settings,
        decoder: Decoder,
        metrics: Option<SourceMetrics>,
        out: mpsc::Sender<Record>,
        stop: CancellationToken,
    ) -> Self {
        let names = settings.headers.iter().filter_map(|name| name.parse().ok()).collect();
        let timeout = Duration::from_secs(settings.response_timeout_secs);
        let intake = RecordIngest::new(out, metrics.as_ref(), timeout);
        Self {
            source: source.to_owned(),
            metrics,
            auth_limiter: AuthLimiter::default(),
            headers: names,
            path: settings.path,
            codec: settings.decoding.only_codec(),
            decoder,
            auth: settings.auth.as_ref().map(Credentials::of),
            write_key: settings.write_key.as_ref().map(SecretDigest::of),
            body_limits: BodyLimits {
                max_bytes: settings.max_body_bytes,
                timeout: Duration::from_secs(settings.read_timeout_secs),
                budget: budget(settings.max_body_bytes),
            },
            intake,
            requests: TaskTracker::new(),
            stop,
        }
    }

    /// Answers one request.
    pub(super) async fn answer(self: Arc<Self>, peer: IpAddr, request: Request<Body>) -> Response {
        // Taken before the stop is checked, so that a waiter for running requests misses none.
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
                ("/" | "/health", _) => Err(RequestError::Method),
                _ => Err(RequestError::NotFound),
            }
        };
        answered.unwrap_or_else(|error| {
            self.report_refused(error, peer);
            error.into_response()
        })
    }

    /// Waits until running requests are answered and all records settled. New requests are refused
    /// meanwhile.
    pub(super) async fn settled(&self) {
        self.requests.close();
        self.requests.wait().await;
        self.intake.wait_until_idle().await;
    }

    async fn records(
        &self,
        peer: IpAddr,
        parts: &Parts,
        body: &mut Body,
    ) -> Result<Response, RequestError> {
        if !matches!(parts.method, Method::POST | Method::HEAD) {
            return Err(RequestError::Method);
        }
        if let Some(auth) = &self.auth {
            self.check_auth_limit(peer)?;
            if !auth.shown_in(&parts.headers) {
                self.auth_limiter.failed(peer);
                return Err(RequestError::Unauthorized(Some(auth.challenge())));
            }
        }
        self.check_not_draining()?;
        if parts.method == Method::HEAD {
            return Ok(text_response(StatusCode::OK, ""));
        }
        let media_type = media_type(&parts.headers);
        if media_type.starts_with("multipart/") {
            return Err(RequestError::Multipart);
        }
        let (body, mut reservation) = self.body_limits.read(&parts.headers, body).await?;
        let is_form_type = media_type == form::MEDIA_TYPE && self.codec == Some(Codec::Json);
        // `curl -d` sends this content type with JSON too.
        let form = is_form_type && !records::begins_as_json(&body);
        let items = match form {
            true => records::form(&body, &mut reservation)?,
            false => records::items(self.codec, &self.decoder, &body)?,
        };
        let outcome = self.take(items, &body, reservation, peer, parts).await?;
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
                Err(error) => {
                    self.report_refused(error, peer);
                    error.into_response()
                }
            },
            _ => {
                self.report_refused(RequestError::Method, peer);
                RequestError::Method.into_response()
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
    ) -> Result<(), RequestError> {
        let key = basic_user(&parts.headers).filter(|key| !key.is_empty());
        if self.write_key.is_some() || self.auth.is_some() {
            self.check_auth_limit(peer)?;
        }
        match (&self.write_key, &self.auth, &key) {
            (Some(known), _, Some(shown)) if !known.is(shown) => {
                self.auth_limiter.failed(peer);
                return Err(RequestError::WriteKey);
            }
            (None, Some(auth), _) if !auth.shown_in(&parts.headers) => {
                self.auth_limiter.failed(peer);
                return Err(RequestError::Unauthorized(None));
            }
            _ => {}
        }
        self.check_not_draining()?;
        let (body, reservation) = self.body_limits.read(&parts.headers, body).await?;
        let request = SegmentRequest::read(&body)?;
        if let (Some(known), None) = (&self.write_key, key) {
            let shown = request.write_key().unwrap_or_default();
            if !known.is(shown.as_bytes()) {
                self.auth_limiter.failed(peer);
                return Err(RequestError::WriteKey);
            }
        }
        let from_browser = parts.headers.contains_key(header::ORIGIN);
        let received = ReceiveInfo { at: clock::now(), ip: from_browser.then(|| peer.to_string()) };
        let items = match call {
            "batch" => request
                .batch(&received, self.body_limits.max_bytes.saturating_mul(MAX_BATCH_EXPANSION))?,
            kind => request.call(kind, &received),
        };
        self.take(items, &body, reservation, peer, parts).await.map(drop)
    }

    fn check_auth_limit(&self, peer: IpAddr) -> Result<(), RequestError> {
        if self.auth_limiter.allows(peer) { Ok(()) } else { Err(RequestError::AuthRateLimited) }
    }

    /// Counts a refused request and logs it; the log limiter folds repeated lines and shows their
    /// count.
    fn report_refused(&self, error: RequestError, peer: IpAddr) {
        if let Some(metrics) = &self.metrics {
            metrics.refused(error.kind());
        }
        let source = &self.source;
        match error {
            RequestError::Unauthorized(_)
            | RequestError::WriteKey
            | RequestError::AuthRateLimited => tracing::warn!(
                source, client = %peer, why = %error,
                "a request was refused because of its credentials: its records are lost unless the \
                 client stores them; compare its credentials with `auth` and `write_key` of this \
                 source"
            ),
            RequestError::TooLarge | RequestError::TooMany => tracing::warn!(
                source, client = %peer, why = %error, limit = self.body_limits.max_bytes,
                "a request was refused because of its size: its records are lost unless the client \
                 splits them; send smaller requests, or raise `max_body_bytes`"
            ),
            RequestError::Busy | RequestError::Unsettled | RequestError::Draining => {
                tracing::warn!(
                    source, client = %peer, why = %error,
                    "a request was answered with 503; the client must send it again"
                )
            }
            RequestError::NotFound | RequestError::Method => tracing::warn!(
                source, client = %peer, why = %error, expected = self.path,
                "a request was refused because of its path or method: send records as POST to \
                 `path`, and Segment calls to their own paths"
            ),
            _ => tracing::warn!(
                source, client = %peer, why = %error,
                "a request was refused because of its body: its records are lost unless the client \
                 stores them; check its format"
            ),
        }
    }

    fn check_not_draining(&self) -> Result<(), RequestError> {
        if self.stop.is_cancelled() { Err(RequestError::Draining) } else { Ok(()) }
    }

    async fn take(
        &self,
        items: Vec<BodyRecord>,
        body: &[u8],
        mut reservation: MemoryReservation,
        peer: IpAddr,
        parts: &Parts,
    ) -> Result<crate::source::ingest::IngestOutcome, RequestError> {
        reservation.grow(items.len() * ITEM_BYTES)?;
        let key = text(&parts.headers, "idempotency-key")
            .filter(|key| key.len() <= MAX_IDEMPOTENCY_KEY_BYTES);
        let meta = meta::of_request(peer, parts, &self.headers);
        // A record with metadata of its own has its own copy of the request's metadata.
        let own = items.iter().filter_map(|item| item.meta.as_ref());
        reservation.grow(own.map(|own| own.len().saturating_add(meta.len())).sum())?;
        // A key that is reused for another body must not make that body a duplicate, so the id
        // contains a digest of the body.
        let key = key.map(|key| format!("{key}/{}", hex::encode(&Sha256::digest(body)[..8])));
        Box::pin(self.intake.take(IngestRequest { items, meta, key, reservation })).await
    }
}

/// The path without a trailing slash.
fn without_slash(path: &str) -> &str {
    path.strip_suffix('/').unwrap_or(path)
}

fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok().filter(|text| !text.is_empty())
}

/// The media type of a body, without its parameters.
fn media_type(headers: &HeaderMap) -> String {
    let declared = text(headers, "content-type").unwrap_or_default();
    declared.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}
