//! Builds responses: refusals by cause, and the headers that browsers need.
//!
//! # Invariants
//!
//! Nothing of the request is echoed.

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::source::inflate::InflateError;
use crate::source::memory::OutOfMemoryBudget;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum RequestError {
    #[error("there is nothing at this path")]
    NotFound,
    #[error("this path takes POST")]
    Method,
    #[error("the credentials are missing or wrong")]
    Unauthorized(Option<&'static str>),
    #[error("the write key is missing or wrong")]
    WriteKey,
    #[error("too many wrong credentials from this address; try again later")]
    AuthRateLimited,
    #[error(
        "multipart bodies are not supported: send JSON, or a form without files as \
         application/x-www-form-urlencoded"
    )]
    Multipart,
    #[error("the content encoding is not one of gzip, deflate and zstd, or more than one")]
    ContentCoding,
    #[error("the body is too large")]
    TooLarge,
    #[error("the request has too many records")]
    TooMany,
    #[error("the body did not arrive in time")]
    Slow,
    #[error("the body ended early or cannot be decompressed")]
    Broken,
    #[error("the body is not a JSON object")]
    NotAnObject,
    #[error("the body has no array `batch`")]
    NoBatch,
    #[error("there is no room for more; send the request again")]
    Busy,
    #[error("not every record was settled; send the request again")]
    Unsettled,
    #[error("shutting down; send the request again")]
    Draining,
}

impl RequestError {
    fn status(self) -> StatusCode {
        match self {
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Unauthorized(_) | Self::WriteKey => StatusCode::UNAUTHORIZED,
            Self::AuthRateLimited => StatusCode::TOO_MANY_REQUESTS,
            Self::ContentCoding | Self::Multipart => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooLarge | Self::TooMany => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Slow => StatusCode::REQUEST_TIMEOUT,
            Self::Broken | Self::NotAnObject | Self::NoBatch => StatusCode::BAD_REQUEST,
            Self::Busy | Self::Unsettled | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// Its label in metrics.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::NotFound => "unknown_path",
            Self::Method => "method",
            Self::Unauthorized(_) => "unauthorized",
            Self::WriteKey => "wrong_write_key",
            Self::AuthRateLimited => "too_many_wrong_credentials",
            Self::Multipart => "multipart",
            Self::ContentCoding => "unknown_compression",
            Self::TooLarge => "request_too_large",
            Self::TooMany => "too_many_events",
            Self::Slow => "too_slow",
            Self::Broken => "malformed",
            Self::NotAnObject | Self::NoBatch => "not_segment",
            Self::Busy => "no_room",
            Self::Unsettled => "unsettled",
            Self::Draining => "draining",
        }
    }

    /// Whether the connection is closed after the response, because the body was not read to its
    /// end.
    fn closes(self) -> bool {
        matches!(
            self,
            Self::TooLarge | Self::Slow | Self::Broken | Self::Draining | Self::AuthRateLimited
        )
    }

    pub(super) fn into_response(self) -> Response {
        let body = json!({ "success": false, "error": self.to_string() });
        let mut response = json_response(self.status(), &body);
        let headers = response.headers_mut();
        match self {
            Self::Unauthorized(Some(challenge)) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
            }
            Self::ContentCoding => {
                let known = HeaderValue::from_static("gzip, deflate, zstd");
                headers.insert(header::ACCEPT_ENCODING, known);
            }
            Self::Busy | Self::Unsettled | Self::Draining | Self::AuthRateLimited => {
                // Random, so that clients do not all return at the same moment.
                let wait = HeaderValue::from(rand::random_range(1..=5_u16));
                headers.insert(header::RETRY_AFTER, wait);
            }
            _ => {}
        }
        if self.closes() {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl From<OutOfMemoryBudget> for RequestError {
    fn from(_: OutOfMemoryBudget) -> Self {
        Self::Busy
    }
}

impl From<InflateError> for RequestError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooLarge => Self::TooLarge,
            InflateError::OutOfMemoryBudget(_) => Self::Busy,
            InflateError::Broken => Self::Broken,
        }
    }
}

/// A response with a JSON body.
pub(super) fn json_response(status: StatusCode, body: &Value) -> Response {
    with_body(status, "application/json", body.to_string())
}

/// A response in plain text.
pub(super) fn text_response(status: StatusCode, body: &str) -> Response {
    with_body(status, "text/plain; charset=utf-8", body.to_owned())
}

fn with_body(status: StatusCode, kind: &'static str, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// The response to a CORS preflight request.
pub(super) fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    let methods = HeaderValue::from_static("POST, OPTIONS");
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    let fields = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned();
    let fields = fields.unwrap_or(HeaderValue::from_static("authorization, content-type"));
    headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, fields);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    response
}

/// Lets a browser pass the response to any page. Credentials of the browser (cookies, passwords)
/// are never allowed: only the write key in the request counts.
pub(super) fn allow_any_origin(response: &mut Response) {
    let any = HeaderValue::from_static("*");
    response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, any);
}
