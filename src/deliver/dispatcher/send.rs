//! The loop that sends one request until there is a final answer.

use async_trait::async_trait;
use tokio::time::Instant;

use super::{AfterAttempt, AttemptTransport, ConnectionChoice, RequestDispatcher};
use crate::deliver::outcome::{RetryReason, SideEffect};
use crate::deliver::request::{ApiReply, Request};
use crate::deliver::transport::{Attempts, BeforeSend, Denial, SendError, Transport};

impl<W: AttemptTransport> RequestDispatcher<W> {
    async fn carry(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: Option<&dyn BeforeSend>,
    ) -> Result<ApiReply, SendError> {
        if self.retry.exhausted(attempts.failed) {
            return Err(Self::give_up(attempts, "no attempts are left".into()));
        }
        let mut connection = ConnectionChoice::Any;
        loop {
            // After an ambiguous failure, the caller looked it up before it sends this request
            // again.
            if let Some(poison) = self.is_poison(request, attempts) {
                return Err(poison);
            }
            let pass = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(SendError::Stopped),
                pass = self.leave(request, attempts, before) => pass?,
            };
            attempts.sent = attempts.sent.saturating_add(1);
            // The permit and the probe token are returned before any waiting.
            let mut next = self.try_once(request, connection, attempts, pass).await;
            if let AfterAttempt::Forbidden { status, reply, started, probe_token } = next {
                next = tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return Err(SendError::Stopped),
                    next = self.forbidden(request, status, reply, started, probe_token) => next?,
                };
            }
            let again = match next {
                AfterAttempt::Return(reply) => {
                    attempts.failed = 0;
                    attempts.failure_history.succeeded(request.method, request.route);
                    attempts.stalled.clear();
                    return Ok(reply);
                }
                AfterAttempt::Halted | AfterAttempt::Forbidden { .. } => continue,
                AfterAttempt::Retry(again) => again,
            };
            attempts.failed_at = Some(Instant::now());
            if let (RetryReason::Connect(_), Some(before)) = (&again.why, before) {
                before.not_sent();
            }
            let is_stale = matches!(again.why, RetryReason::Stale(_));
            connection = if is_stale { ConnectionChoice::Fresh } else { ConnectionChoice::Any };
            // A connection that the server had closed is not a failure of the request.
            if !is_stale {
                if attempts.failed == 0 {
                    attempts.failing_since = Some(Instant::now());
                }
                attempts.failed = attempts.failed.saturating_add(1);
            }
            self.log_failure(request, attempts, &again.why);
            tokio::select! {
                biased;
                () = self.stop.cancelled() => {}
                () = self.note_failure(request, attempts, &again) => {}
            }
            if again.side_effect == SideEffect::Possible {
                let denial = match again.why {
                    RetryReason::Status(429) => Denial::TooMany,
                    RetryReason::Status(408 | 503) => Denial::Unavailable,
                    _ => Denial::None,
                };
                // Without a response it is not known yet whether it is sent again.
                if denial != Denial::None {
                    self.observer.retry(again.why.label());
                }
                // The unknown effect of the request is more important than the stop of the process.
                drop(self.rest(again.wait).await);
                return Err(SendError::Ambiguous { why: again.why.text(), denial });
            }
            if self.retry.exhausted(attempts.failed) {
                return Err(Self::give_up(attempts, again.why.text()));
            }
            self.observer.retry(again.why.label());
            self.rest(again.wait).await?;
        }
    }
}

#[async_trait]
impl<W: AttemptTransport> Transport for RequestDispatcher<W> {
    async fn send(
        &self,
        request: &Request,
        attempts: &mut Attempts,
    ) -> Result<ApiReply, SendError> {
        self.carry(request, attempts, None).await
    }

    async fn send_counted(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: &dyn BeforeSend,
    ) -> Result<ApiReply, SendError> {
        self.carry(request, attempts, Some(before)).await
    }

    fn is_alive(&self) -> bool {
        Self::is_alive(self)
    }
}
