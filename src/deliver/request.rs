//! A request and its response, as plain values.

use bytes::Bytes;

/// The methods that the destination uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Read.
    Get,
    /// Create or do.
    Post,
    /// Update.
    Put,
    /// Remove.
    Delete,
}

impl Method {
    /// The method as HTTP writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
        }
    }
}

/// Whether it is harmful to send a request twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Not harmful: reads and upserts.
    Idempotent,
    /// Each copy counts: events, page views. After an outcome that leaves open whether the request
    /// was carried out, the dispatcher does not repeat it but reports that.
    NonIdempotent,
}

/// One request, relative to the base URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query after the base URL, without a leading slash, percent-encoded.
    pub path: String,
    /// The path's pattern, for metrics: `users-by-id/:id/events/`.
    pub route: &'static str,
    /// JSON body.
    pub body: Option<Bytes>,
    /// Whether it may be repeated after an unknown outcome.
    pub idempotency: Idempotency,
    /// What the caller needs of the response.
    pub expects: Expects,
}

/// The most bytes of a response's body that are read unless a request sets another limit.
pub const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// What the caller of a request needs of the response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expects {
    /// The longest body that is read, in bytes. A longer one counts as truncated.
    pub max_body: usize,
    /// How important the response is.
    pub need: Need,
}

impl Default for Expects {
    fn default() -> Self {
        Self { max_body: MAX_RESPONSE_BYTES, need: Need::Required }
    }
}

/// How important a response is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Need {
    /// The op cannot continue without it.
    #[default]
    Required,
    /// The caller can do without it, for example a look-up. A web page in place of a response is
    /// requested again a few times and then returned; a refusal of the route is returned at once,
    /// and a closed route is not waited for.
    Optional,
    /// The op cannot continue without it, but a 403 is a response too: the work may have been done
    /// before. It is returned once it is known that the key works.
    EvenForbidden,
    /// It checks whether the API is there and the key is valid: every response is returned, or
    /// halts the sink.
    FirstContact,
}

/// A final response: 2xx, or a 4xx that will not change by a retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiReply {
    /// The HTTP status.
    pub status: u16,
    /// The body, truncated at the request's limit.
    pub body: Bytes,
}

impl ApiReply {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
