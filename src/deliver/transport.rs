//! How requests are sent: the trait of what sends them, and why there may be no response.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;

use super::poison::FailureHistory;
use super::request::{ApiReply, Method, Request};
use super::subject::Subject;

/// Why there is no final response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A request that [counts](super::Idempotency::NonIdempotent) may or may not have been carried
    /// out. The dispatcher has already waited its backoff; the caller may look it up and send it
    /// again.
    #[error("the request may have been carried out: {why}")]
    Ambiguous {
        /// What happened (timeout, connection reset).
        why: Cow<'static, str>,
        /// Whether the server said that it did not carry out the request.
        denial: Denial,
    },
    /// `retry_attempts` are used up. The record is not rejected: its source or buffer holds it.
    #[error("gave up after {attempts} attempts: {why}")]
    GivenUp {
        /// How often it was tried.
        attempts: u32,
        /// The failure of the last attempt.
        why: Cow<'static, str>,
    },
    /// 401, 402 or 403, and the dispatcher does not wait until the key is accepted again (`run
    /// --once`).
    #[error("refused with status {status}")]
    Refused {
        /// 401, 402 or 403.
        status: u16,
    },
    /// The API key works, but this route has been forbidden for longer than
    /// `delivery.route_closed_secs`.
    #[error("{} {route} has been answered {status} for {secs} s although the API key works", .method.as_str())]
    RouteClosed {
        /// The method.
        method: Method,
        /// The path's pattern.
        route: &'static str,
        /// 403.
        status: u16,
        /// For how long.
        secs: u64,
    },
    /// This request failed `delivery.poison_attempts` times while others succeeded.
    #[error("{} {route} failed {failures} times in {secs} s while other requests succeeded; last: {why}", .method.as_str())]
    Poison {
        /// The method.
        method: Method,
        /// The path's pattern.
        route: &'static str,
        /// How often it failed.
        failures: u32,
        /// Seconds since it failed first.
        secs: u64,
        /// The failure of the last attempt.
        why: Cow<'static, str>,
        /// The last response, if there was one.
        answer: Option<ApiReply>,
    },
    /// The process is stopping.
    #[error("stopped before an answer came")]
    Stopped,
}

/// Whether the server said that it did not carry out a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It did not say so.
    None,
    /// It answered 429: too many requests. Servers usually count a request before they carry it
    /// out.
    TooMany,
    /// It answered 408 or 503: not now.
    Unavailable,
}

/// The attempts of one op, over all its requests.
#[derive(Debug, Default)]
pub struct Attempts {
    /// HTTP requests sent for this op so far, retries included.
    pub sent: u32,
    /// Failed attempts in a row of the current request; determines backoff and `retry_attempts`.
    pub failed: u32,
    /// When the first of them ended.
    pub failing_since: Option<Instant>,
    /// When the last attempt failed: whatever it did at the server, it did before.
    pub failed_at: Option<Instant>,
    /// Identifies the op in logs: which user, which record.
    pub subject: Option<Arc<Subject>>,
    /// Its failures, to distinguish a request that can never succeed from an outage. They are kept
    /// when the op is given up and tried again.
    pub failure_history: FailureHistory,
    /// Notified of whether the op waits because its own requests fail.
    pub stalled: Stalled,
}

impl Attempts {
    /// What is sent, for logs.
    pub fn subject(&self) -> &Subject {
        self.subject.as_deref().unwrap_or(&Subject::NONE)
    }
}

/// Whether an op waits because its own requests fail, for the code that counts such ops.
#[derive(Debug, Clone, Default)]
pub struct Stalled(Arc<AtomicBool>);

impl Stalled {
    /// The current value.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Called before a request that [counts](super::Idempotency::NonIdempotent) is sent, so that the
/// mark "may have been sent" is stored first.
#[async_trait]
pub trait BeforeSend: Send + Sync {
    /// Called before each attempt, when the request already has its position among the requests in
    /// flight. The request is sent only after this has returned.
    ///
    /// # Errors
    ///
    /// [`SendError::Stopped`] if the mark could not be stored until the process stopped; then the
    /// request is not sent.
    async fn before_send(&self) -> Result<(), SendError>;

    /// Reports that the attempt ended before anything was sent: there was no connection.
    fn not_sent(&self);
}

/// Sends requests to the destination and returns final responses.
///
/// An implementation handles concurrency, rate, pauses, retries and halts; its caller receives
/// final responses only.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request until there is a final response or a reason why there is none.
    async fn send(&self, request: &Request, attempts: &mut Attempts)
    -> Result<ApiReply, SendError>;

    /// The same for a request that [counts](super::Idempotency::NonIdempotent): `before` is called
    /// before each attempt.
    async fn send_counted(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: &dyn BeforeSend,
    ) -> Result<ApiReply, SendError> {
        before.before_send().await?;
        self.send(request, attempts).await
    }

    /// Whether the server answered any request successfully within the last half minute.
    fn is_alive(&self) -> bool {
        true
    }
}
