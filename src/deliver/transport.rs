//! How requests are sent: the trait of whatever sends them, and why there may be no answer.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use tokio::time::Instant;

use super::poison::FailureHistory;
use super::request::{ApiReply, Method, Request};
use super::subject::Subject;

/// Why there is no final answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// A request that [counts](super::Idempotency::NonIdempotent) may or may not have been carried out. The dispatcher
    /// has already waited its backoff; the caller may look, and send again.
    #[error("the request may have been carried out: {why}")]
    Ambiguous {
        /// What happened (timeout, connection reset).
        why: Cow<'static, str>,
        /// Whether the server said that it did not carry the request out.
        denial: Denial,
    },
    /// `retry_attempts` are used up. The record is not rejected: its source or buffer keeps it.
    #[error("gave up after {attempts} attempts: {why}")]
    GivenUp {
        /// How often it was tried.
        attempts: u32,
        /// What the last attempt met.
        why: Cow<'static, str>,
    },
    /// 401, 402 or 403 while the dispatcher was told not to wait for a cure (`run --once`).
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
    /// This request failed `delivery.poison_attempts` times over, while others succeeded.
    #[error("{} {route} failed {failures} times in {secs} s while other requests succeeded; last: {why}", .method.as_str())]
    Poison {
        /// The method.
        method: Method,
        /// The path's pattern.
        route: &'static str,
        /// How often it failed.
        failures: u32,
        /// How long ago it failed first, in seconds.
        secs: u64,
        /// What the last attempt met.
        why: Cow<'static, str>,
        /// The last answer, if there was one.
        answer: Option<ApiReply>,
    },
    /// The process is stopping.
    #[error("stopped before an answer came")]
    Stopped,
}

/// Whether the server said that it did not carry a request out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Denial {
    /// It said nothing of the kind.
    None,
    /// It answered 429: too many requests. As a rule a request is counted before it is carried out.
    TooMany,
}

/// How often one op has been tried, over all the requests it takes.
#[derive(Debug, Default)]
pub struct Attempts {
    /// HTTP requests sent for this op so far, retries included.
    pub sent: u32,
    /// Failed attempts in a row of the present request; drives backoff and `retry_attempts`.
    pub failed: u32,
    /// When the first of them ended.
    pub failing_since: Option<Instant>,
    /// Names the op in logs: which user, which record.
    pub subject: Option<Arc<Subject>>,
    /// What has failed of it, for telling a request that can never succeed from an outage. It
    /// outlives an op that is given up and tried again.
    pub failure_history: FailureHistory,
    /// Told whether the op waits because requests of its own fail.
    pub stalled: Stalled,
}

impl Attempts {
    /// What is sent, for logs.
    pub fn subject(&self) -> &Subject {
        self.subject.as_deref().unwrap_or(&Subject::NONE)
    }
}

/// Whether an op waits because requests of its own fail, for the code that counts such ops.
#[derive(Debug, Clone, Default)]
pub struct Stalled(Arc<AtomicBool>);

impl Stalled {
    /// Whether it does.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(super) fn clear(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Is asked before a request that [counts](super::Idempotency::NonIdempotent) leaves, so that it can be noted durably
/// that the request may have been sent.
#[async_trait]
pub trait BeforeSend: Send + Sync {
    /// Called before each attempt, while the request already has its place among the requests in
    /// flight. The request leaves only after this has returned.
    ///
    /// # Errors
    /// [`SendError::Stopped`] where the note could not be made until the process stopped; then the
    /// request does not leave.
    async fn before_send(&self) -> Result<(), SendError>;

    /// The attempt ended before anything was sent: there was no connection.
    fn not_sent(&self);
}

/// Carries requests to the destination and brings final answers back.
///
/// An implementation takes care of concurrency, rate, pauses, retries and halts; its caller
/// only sees answers that stand.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends one request until there is a final answer or a reason there is none.
    async fn send(&self, request: &Request, attempts: &mut Attempts)
    -> Result<ApiReply, SendError>;

    /// The same for a request that [counts](super::Idempotency::NonIdempotent): `before` is asked before each attempt.
    async fn send_counted(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: &dyn BeforeSend,
    ) -> Result<ApiReply, SendError> {
        before.before_send().await?;
        self.send(request, attempts).await
    }

    /// Whether the other side answered a request of anybody's well within the last half minute.
    fn is_alive(&self) -> bool {
        true
    }
}
