//! Responses: a status, a JSON body, and the error formats of Django REST Framework.
//!
//! # Invariants
//! Every error body is a JSON object, either `{"detail": …}` or `{field: [messages]}`.

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::{Map, Value, json};

/// A response.
#[derive(Debug)]
pub(super) struct RouteReply {
    pub(super) status: u16,
    /// `None` for a response without a body (204).
    pub(super) body: Option<Value>,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
}

/// Why a request failed.
#[derive(Debug)]
pub(super) enum RouteError {
    /// A response with an error status.
    Reply(RouteReply),
    /// The store failed: 500.
    Store(rusqlite::Error),
}

/// The result of a route.
pub(super) type RouteResult = Result<RouteReply, RouteError>;

impl From<rusqlite::Error> for RouteError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Store(error)
    }
}

impl From<RouteReply> for RouteError {
    fn from(reply: RouteReply) -> Self {
        Self::Reply(reply)
    }
}

impl RouteReply {
    pub(super) fn new(status: u16, body: Value) -> Self {
        Self { status, body: Some(body), headers: Vec::new() }
    }

    pub(super) fn ok(body: Value) -> Self {
        Self::new(200, body)
    }

    pub(super) fn created(body: Value) -> Self {
        Self::new(201, body)
    }

    pub(super) fn no_content() -> Self {
        Self { status: 204, body: None, headers: Vec::new() }
    }

    pub(super) fn detail(status: u16, detail: &str) -> Self {
        Self::new(status, json!({ "detail": detail }))
    }

    /// An error that also says what the caller probably did wrong.
    pub(super) fn hinted(status: u16, detail: &str, hint: &str) -> Self {
        Self::new(status, json!({ "detail": detail, "hint": hint }))
    }

    pub(super) fn not_found() -> Self {
        Self::detail(404, "Not found.")
    }

    pub(super) fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub(super) fn into_response(self) -> Response<Body> {
        let body = match &self.body {
            Some(value) => Body::from(value.to_string()),
            None => Body::empty(),
        };
        let mut response = Response::new(body);
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        if self.body.is_some() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        for (name, value) in self.headers {
            headers.insert(name, value);
        }
        response
    }
}

/// Errors of a body's fields, collected so that one response reports them all.
#[derive(Debug, Default)]
pub(super) struct FieldErrors(Map<String, Value>);

impl FieldErrors {
    pub(super) fn add(&mut self, field: &str, message: impl Into<String>) {
        self.0.insert(field.to_owned(), json!([message.into()]));
    }

    /// Fails if any error was added.
    pub(super) fn into_result(self) -> Result<(), RouteError> {
        if self.0.is_empty() {
            return Ok(());
        }
        Err(RouteReply::new(400, Value::Object(self.0)).into())
    }

    /// The error for one invalid field.
    pub(super) fn one(field: &str, message: impl Into<String>) -> RouteError {
        RouteReply::new(400, json!({ field: [message.into()] })).into()
    }
}

/// Messages of Django REST Framework that several routes use.
pub(super) const REQUIRED: &str = "This field is required.";
pub(super) const NULL: &str = "This field may not be null.";
pub(super) const BLANK: &str = "This field may not be blank.";
pub(super) const NOT_A_STRING: &str = "Not a valid string.";
pub(super) const NOT_AN_INTEGER: &str = "A valid integer is required.";

/// The message of Django REST Framework for a string that is too long.
pub(super) fn too_long(max: usize) -> String {
    format!("Ensure this field has no more than {max} characters.")
}
