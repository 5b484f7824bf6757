//! A request and its answer, as plain values.

use bytes::Bytes;

/// The methods the destination uses.
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

/// Whether sending a request twice does harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Idempotency {
    /// Twice is as good as once: reads and upserts.
    Idempotent,
    /// Each arrival counts: events, page views. After an outcome that leaves open whether the
    /// request was carried out, the dispatcher does not repeat it but says so.
    NonIdempotent,
}

/// One request, relative to the base URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// Path and query behind the base URL, without a leading slash, already percent-encoded.
    pub path: String,
    /// The path's pattern, for metrics: `users-by-id/:id/events/`.
    pub route: &'static str,
    /// JSON body.
    pub body: Option<Bytes>,
    /// Whether it may be repeated blindly.
    pub idempotency: Idempotency,
    /// What the sender needs of the answer.
    pub expects: Expects,
}

/// The most of an answer's body that is read unless a request says otherwise, in bytes.
pub const MAX_RESPONSE_BYTES: usize = 1 << 20;

/// What the sender of a request needs of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expects {
    /// The longest body that is read, in bytes. A longer one counts as cut.
    pub max_body: usize,
    /// How much depends on the answer.
    pub need: Need,
}

impl Default for Expects {
    fn default() -> Self {
        Self { max_body: MAX_RESPONSE_BYTES, need: Need::Required }
    }
}

/// How much depends on an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Need {
    /// Nothing goes on without it.
    #[default]
    Required,
    /// The sender can do without, a look-up say. A web page in place of an answer is tried again a
    /// few times and then handed back; a route that is forbidden is handed back at once.
    Optional,
    /// Nothing goes on without it, but a 403 is an answer too: it may mean that the work was done
    /// before. It is handed back once it is known that the key works.
    EvenForbidden,
    /// It finds out whether the API is there and the key is good: whatever answer comes is handed
    /// back, or halts.
    FirstContact,
}

/// A final answer: 2xx, or a 4xx that will not change by asking again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiReply {
    /// The HTTP status.
    pub status: u16,
    /// The body, cut at the transport's size limit.
    pub body: Bytes,
}

impl ApiReply {
    /// Whether the status is 2xx.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}
