//! The loop that sends one request until there is a final response.
//!
//! Pause, circuit breaker, permit, rate, attempt, classification: each is decided in its own
//! module; this file only calls them in order. It knows no HTTP.
//!
//! # Invariants
//!
//! While a request waits it holds no permit, except in the queue of the [admission
//! gate](super::admission) and while the mark that it may be sent is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::admission::{AdmissionGate, Throttled};
use super::auth::{
    AuthBreakerChange, AuthBreakerState, AuthCircuitBreaker, OnAuthFailure, ProbeToken,
};
use super::concurrency::{Controller, ControllerSettings, LoadSignal, Permit, ResizableSemaphore};
use super::observer::DeliveryObserver;
use super::outage::OutageDetector;
use super::outcome::{Attempt, AttemptDisposition, BrokenBody, RetryReason, SideEffect, classify};
use super::poison::PoisonPolicy;
use super::quota::{AttemptTicket, LearnedQuota, RateLimitHeaders};
use super::rate::GcraLimiter;
use super::request::{ApiReply, Need, Request};
use super::retry::{RetryBudget, RetryPolicy};
use super::routes::{RouteKey, RouteTable};
use super::transport::{Attempts, BeforeSend, SendError};
use crate::config::sink::RequestConfig;

mod failing;
mod send;

use failing::KeyChecks;

/// Makes one attempt.
#[async_trait]
pub(super) trait AttemptTransport: Send + Sync {
    /// Sends the request once and returns the result, within its own timeout.
    async fn attempt(&self, request: &Request, connection: ConnectionChoice) -> Attempt;
}

/// Which connection an attempt may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionChoice {
    /// Any connection, also one that was used before.
    Any,
    /// A new one.
    Fresh,
}

/// Web pages in a row after which an [optional](Need::Optional) request is given up.
const OPTIONAL_TRIES: u32 = 5;

/// The settings of the dispatcher apart from the transport.
pub(super) struct DispatcherSettings<'a> {
    /// The name of the sink, for the log.
    pub(super) sink: &'a str,
    pub(super) request: &'a RequestConfig,
    pub(super) halt: OnAuthFailure,
    pub(super) poison: PoisonPolicy,
    pub(super) key_check: Option<Request>,
    pub(super) route_closed: Duration,
    pub(super) cures: fn(u16) -> &'static str,
    pub(super) observer: Arc<dyn DeliveryObserver>,
    pub(super) stop: CancellationToken,
}

/// Sends requests over a transport.
pub(super) struct RequestDispatcher<W> {
    transport: W,
    /// The name of the sink, for the log.
    sink: String,
    retry: RetryPolicy,
    budget: Mutex<RetryBudget>,
    permits: Arc<ResizableSemaphore>,
    controller: Option<Mutex<Controller>>,
    in_flight: AtomicUsize,
    admission: AdmissionGate,
    halt: AuthCircuitBreaker,
    routes: RouteTable,
    poison: PoisonPolicy,
    key_check: Option<Request>,
    /// Held while it is checked whether the key works.
    checks: tokio::sync::Mutex<KeyChecks>,
    route_closed: Duration,
    cures: fn(u16) -> &'static str,
    outage: Mutex<OutageDetector>,
    observer: Arc<dyn DeliveryObserver>,
    stop: CancellationToken,
}

impl<W> Drop for RequestDispatcher<W> {
    fn drop(&mut self) {
        if let Some(change) = self.outage.lock().cut_off(Instant::now()) {
            self.observer.outage(change);
        }
    }
}

/// The permission for one attempt, with everything that has to be returned afterwards, however the
/// attempt ends.
struct AttemptPermit<'a, W> {
    dispatcher: &'a RequestDispatcher<W>,
    started: Instant,
    /// What the quota still waits for: the end of this attempt.
    ticket: Option<AttemptTicket>,
    probe_token: Option<ProbeToken>,
    _permit: Permit,
    /// Whether the controller still waits for this attempt's end.
    open: bool,
}

impl<W> Drop for AttemptPermit<'_, W> {
    fn drop(&mut self) {
        let left = self.dispatcher.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.dispatcher.observer.in_flight(left);
        if self.open
            && let Some(controller) = &self.dispatcher.controller
        {
            controller.lock().dropped();
        }
        if let Some(ticket) = self.ticket.take() {
            self.dispatcher.admission.abandoned(Instant::now(), ticket);
        }
    }
}

/// What to do after an attempt.
enum AfterAttempt {
    Return(ApiReply),
    /// Wait until the server accepts the key, then try again.
    Halted,
    /// Check whether the key works.
    Forbidden {
        status: u16,
        reply: ApiReply,
        started: Instant,
        probe_token: Option<ProbeToken>,
    },
    Retry(NextAttempt),
}

/// Another attempt is needed.
struct NextAttempt {
    why: RetryReason,
    side_effect: SideEffect,
    wait: Duration,
    /// The response, if there was one.
    answer: Option<ApiReply>,
}

impl<W: AttemptTransport> RequestDispatcher<W> {
    pub(super) fn new(transport: W, settings: DispatcherSettings<'_>) -> Self {
        let DispatcherSettings {
            sink,
            request,
            halt,
            poison,
            key_check,
            route_closed,
            cures,
            observer,
            stop,
        } = settings;
        let now = Instant::now();
        let retry = RetryPolicy::new(request);
        let controller = match request.concurrency.fixed() {
            Some(_) => None,
            None => Some(Controller::new(ControllerSettings::default(), now)),
        };
        let limit = match (&controller, request.concurrency.fixed()) {
            (Some(controller), _) => controller.limit(),
            (None, fixed) => fixed.unwrap_or(1).max(1),
        };
        observer.limit(limit);
        let window = Duration::from_secs(request.rate_limit_duration_secs.max(1));
        Self {
            transport,
            sink: sink.to_owned(),
            retry,
            budget: Mutex::new(RetryBudget::new(now, retry.longest)),
            permits: ResizableSemaphore::new(limit),
            controller: controller.map(Mutex::new),
            in_flight: AtomicUsize::new(0),
            admission: AdmissionGate::new(
                request.rate_limit_num.map(|num| GcraLimiter::per_window(num, window)),
                now,
            ),
            halt: AuthCircuitBreaker::new(halt),
            routes: RouteTable::default(),
            poison,
            key_check,
            checks: tokio::sync::Mutex::default(),
            route_closed,
            cures,
            outage: Mutex::default(),
            observer,
            stop,
        }
    }

    pub(super) fn halted(&self) -> watch::Receiver<AuthBreakerState> {
        self.halt.watch()
    }

    /// The estimated quota of the server; `None` while it is not known.
    pub(super) fn learned_quota(&self) -> Option<LearnedQuota> {
        self.admission.learned(Instant::now())
    }

    /// Starts with an earlier estimate of the quota.
    pub(super) fn restore_quota(&self, learned: LearnedQuota) {
        self.admission.restore(Instant::now(), learned);
    }

    /// Whether the server answered any request successfully in the last half minute.
    pub(super) fn is_alive(&self) -> bool {
        self.routes.is_alive(Instant::now())
    }

    /// Waits for permission to make an attempt.
    async fn admit(
        &self,
        before: Option<&dyn BeforeSend>,
    ) -> Result<AttemptPermit<'_, W>, SendError> {
        loop {
            self.admission.opened().await;
            let mut probe_token =
                self.halt.admit().await.map_err(|status| SendError::Refused { status })?;
            if let Some(pass) = self.admit_as(&mut probe_token, before).await? {
                return Ok(pass);
            }
        }
    }

    /// Waits for a permit and in the queue of the admission gate. `None` if the probe token is not
    /// valid any more, or a pause began meanwhile.
    async fn admit_as(
        &self,
        probe_token: &mut Option<ProbeToken>,
        before: Option<&dyn BeforeSend>,
    ) -> Result<Option<AttemptPermit<'_, W>>, SendError> {
        let permit = self.permits.acquire().await;
        if !self.halt.allows(probe_token.as_ref()) || !self.admission.is_open(Instant::now()) {
            return Ok(None);
        }
        // With a permit, so that only a request that is about to be sent is marked as sent.
        if let Some(before) = before {
            before.before_send().await?;
        }
        let Some(ticket) = self.admission.pass(|| self.halt.allows(probe_token.as_ref())).await
        else {
            return Ok(None);
        };
        let started = ticket.started();
        if let Some(controller) = &self.controller {
            controller.lock().sent(started);
        }
        self.observer.in_flight(self.in_flight.fetch_add(1, Ordering::Relaxed) + 1);
        let probe_token = probe_token.take();
        Ok(Some(AttemptPermit {
            dispatcher: self,
            started,
            ticket: Some(ticket),
            probe_token,
            _permit: permit,
            open: true,
        }))
    }

    /// Makes one attempt and reports it to all observers.
    async fn try_once(
        &self,
        request: &Request,
        connection: ConnectionChoice,
        attempts: &Attempts,
        mut pass: AttemptPermit<'_, W>,
    ) -> AfterAttempt {
        let failed = attempts.failed;
        self.observer.request_sent(request.method, request.route);
        if failed == 0 {
            self.budget.lock().earn(pass.started);
        }
        let attempt = self.transport.attempt(request, connection).await;
        let now = Instant::now();
        let rtt = now.saturating_duration_since(pass.started);
        match &attempt {
            Attempt::Answer { status, .. } => self.observer.response(*status, request.route, rtt),
            Attempt::NotSent { .. } => self.observer.request_error("connect"),
            Attempt::TimedOut => self.observer.request_error("timeout"),
            Attempt::ConnectionLost { .. } | Attempt::Stale { .. } => {
                self.observer.request_error("connection_cut");
            }
        }
        let outcome = classify(
            &attempt,
            request.idempotency,
            self.retry.longest,
            crate::clock::system_time(),
        );
        self.feed_controller(&mut pass, &outcome, now, rtt);
        let change = self.outage.lock().attempted(&outcome, pass.started, now);
        if let Some(change) = change {
            self.observer.outage(change);
        }
        let throttled = self.feed_quota(&mut pass, &attempt, &outcome, now);
        self.decide(request, outcome, attempt, failed, pass, throttled, now)
    }

    /// Reports a response to the quota. Returns how the request waits if it was refused.
    fn feed_quota(
        &self,
        pass: &mut AttemptPermit<'_, W>,
        attempt: &Attempt,
        outcome: &AttemptDisposition,
        now: Instant,
    ) -> Option<Throttled> {
        // Without a response the ticket is returned with the permit.
        let Attempt::Answer { status, limits, .. } = attempt else { return None };
        let ticket = pass.ticket.take()?;
        if *status != 429 {
            if let Some(rate) = self.admission.accepted(now, ticket, *limits) {
                self.observer.rate(rate);
            }
            return None;
        }
        let after = match outcome {
            AttemptDisposition::Retry { after, .. } => *after,
            _ => None,
        };
        let longest = self.retry.longest;
        let reset = limits.reset.map(|reset| reset.min(longest));
        Some(self.admission.refused(now, ticket, after, RateLimitHeaders { reset, ..*limits }))
    }

    fn feed_controller(
        &self,
        pass: &mut AttemptPermit<'_, W>,
        outcome: &AttemptDisposition,
        now: Instant,
        rtt: Duration,
    ) {
        let Some(controller) = &self.controller else {
            return;
        };
        let signal = match outcome {
            AttemptDisposition::Delivered => LoadSignal::Good,
            // A throttle is handled by the quota.
            AttemptDisposition::Retry {
                why: RetryReason::Stale(_) | RetryReason::Status(429),
                ..
            } => LoadSignal::Neutral,
            AttemptDisposition::Retry { .. } => LoadSignal::Backpressure,
            AttemptDisposition::Reject { .. } | AttemptDisposition::Halt { .. } => {
                LoadSignal::Neutral
            }
        };
        pass.open = false;
        // The number of permits changes under the same lock, or two changes could be applied in the
        // wrong order.
        let mut controller = controller.lock();
        if let Some(limit) = controller.done(now, rtt, signal) {
            self.permits.set_limit(limit);
            self.observer.limit(limit);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "everything that is known of one attempt")]
    fn decide(
        &self,
        request: &Request,
        outcome: AttemptDisposition,
        attempt: Attempt,
        failed: u32,
        mut pass: AttemptPermit<'_, W>,
        throttled: Option<Throttled>,
        now: Instant,
    ) -> AfterAttempt {
        match outcome {
            AttemptDisposition::Delivered | AttemptDisposition::Reject { .. } => {
                self.key_works(pass.probe_token.as_ref(), now);
                if outcome == AttemptDisposition::Delivered {
                    self.served(request, now);
                }
                AfterAttempt::Return(reply(attempt))
            }
            AttemptDisposition::Halt { status: status @ 403 }
                if self.key_check.is_some() && request.expects.need != Need::FirstContact =>
            {
                let (started, probe_token) = (pass.started, pass.probe_token.take());
                AfterAttempt::Forbidden { status, reply: reply(attempt), started, probe_token }
            }
            AttemptDisposition::Halt { status } => {
                let change =
                    self.halt.refused(status, pass.started, now, pass.probe_token.as_ref());
                self.announce(change, status);
                AfterAttempt::Halted
            }
            AttemptDisposition::Retry { why, after, side_effect } => {
                if pass.probe_token.is_some() {
                    self.halt.inconclusive(now);
                }
                let tries = match request.expects.need {
                    Need::Required | Need::EvenForbidden => u32::MAX,
                    Need::Optional => OPTIONAL_TRIES,
                    Need::FirstContact => 0,
                };
                // A web page with a success status would be taken for a response at first contact.
                if let RetryReason::NotTheApi(page) = why
                    && failed >= tries
                    && (request.expects.need == Need::Optional || !(200..300).contains(&page))
                {
                    return AfterAttempt::Return(reply(attempt));
                }
                let wait = match throttled {
                    Some(throttled) => self.throttle(throttled, after, failed),
                    None => self.wait(&why, after, failed + 1, now),
                };
                let answer = matches!(attempt, Attempt::Answer { .. }).then(|| reply(attempt));
                AfterAttempt::Retry(NextAttempt { why, side_effect, wait, answer })
            }
        }
    }

    /// Reports a response that proves the key valid.
    fn key_works(&self, probe_token: Option<&ProbeToken>, now: Instant) {
        if probe_token.is_some() {
            self.announce(self.halt.accepted(now), 0);
        }
    }

    /// How long a request that was refused with 429 waits alone.
    fn throttle(&self, throttled: Throttled, after: Option<Duration>, failed: u32) -> Duration {
        match throttled {
            Throttled::Paused(pause) => {
                let sink = &*self.sink;
                tracing::info!(
                    sink,
                    ?pause,
                    reason = "too_many_requests",
                    "the server asks for a pause"
                );
                self.observer.paused(pause);
                Duration::ZERO
            }
            Throttled::Joined => Duration::ZERO,
            Throttled::Alone(least) => {
                let ceiling = self.retry.longest.max(least);
                let own = least.saturating_mul(1 << failed.min(16)).min(ceiling);
                match after {
                    // One second is the shortest time that most services can send.
                    Some(after) if after <= Duration::from_secs(1) => own.min(after),
                    Some(after) => after,
                    None => own,
                }
            }
        }
    }

    /// How long this request waits alone. A `Retry-After` with 503 pauses all requests instead,
    /// once.
    fn wait(
        &self,
        why: &RetryReason,
        after: Option<Duration>,
        failed: u32,
        now: Instant,
    ) -> Duration {
        // The next attempt opens a connection of its own.
        if matches!(why, RetryReason::Stale(_)) {
            return Duration::ZERO;
        }
        // Only this status applies to the whole server.
        if *why == RetryReason::Status(503)
            && let Some(pause) = after
        {
            let was_open = self.admission.is_open(now);
            if self.admission.pause_until(now + pause) && was_open {
                let (sink, reason) = (&*self.sink, why.label());
                if self.outage.lock().is_reported() {
                    tracing::debug!(sink, ?pause, reason, "the server asks for a pause");
                } else {
                    tracing::info!(sink, ?pause, reason, "the server asks for a pause");
                }
                self.observer.paused(pause);
            }
            return Duration::ZERO;
        }
        let earned = self.budget.lock().spend(now);
        let least = after.unwrap_or_default();
        self.retry.backoff(failed, &mut rand::rng()).max(earned).max(least)
    }

    fn announce(&self, change: AuthBreakerChange, status: u16) {
        let (sink, cure) = (&*self.sink, (self.cures)(status));
        match change {
            AuthBreakerChange::None => {}
            AuthBreakerChange::Halted => {
                tracing::error!(
                    sink,
                    status,
                    cure,
                    "{}; sending stops, and records wait. One line follows when it is accepted again",
                    refusal(status)
                );
                self.observer.halted(true);
            }
            AuthBreakerChange::StillHalted(wait) => {
                tracing::debug!(sink, status, cure, next = ?wait, "still: {}", refusal(status));
            }
            AuthBreakerChange::GaveUp => {
                tracing::error!(sink, status, cure, "{}; giving up", refusal(status));
            }
            AuthBreakerChange::Resumed { halted_for, refusals } => {
                let secs = halted_for.as_secs_f64();
                tracing::info!(
                    sink,
                    secs,
                    refusals,
                    "the server accepts requests again; sending goes on"
                );
                self.observer.halted(false);
            }
        }
    }

    /// Waits, unless the process stops first.
    async fn rest(&self, wait: Duration) -> Result<(), SendError> {
        if wait.is_zero() {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = self.stop.cancelled() => Err(SendError::Stopped),
            () = sleep(wait) => Ok(()),
        }
    }

    /// Repeated failures are logged at growing intervals.
    fn log_failure(&self, request: &Request, attempts: &Attempts, why: &RetryReason) {
        let (sink, route, failed) = (&*self.sink, request.route, attempts.failed);
        // In an outage every request fails; only its begin and its end are logged.
        let fails_alone =
            || attempts.failing_since.is_some_and(|since| self.outage.lock().worked_since(since));
        if failed >= 4 && failed.is_power_of_two() && fails_alone() {
            let method = request.method.as_str();
            let subject = attempts.subject();
            tracing::warn!(
                sink,
                op = subject.op,
                user = subject.user,
                company = subject.company,
                record = subject.record,
                method,
                route,
                failed,
                %why,
                "a request goes on failing and is tried again; what follows for the same user waits"
            );
        } else {
            tracing::debug!(sink, route, failed, %why, "attempt failed");
        }
    }

    fn give_up(attempts: &mut Attempts, why: std::borrow::Cow<'static, str>) -> SendError {
        let tried = std::mem::take(&mut attempts.failed);
        SendError::GivenUp { attempts: tried, why }
    }
}

fn key(request: &Request) -> RouteKey {
    (request.method, request.route)
}

/// The log message for a status that halts sending.
fn refusal(status: u16) -> &'static str {
    match status {
        402 => "the server answers that the account is not paid",
        403 => "the server forbids every request",
        _ => "the server refuses the API key",
    }
}

fn reply(attempt: Attempt) -> ApiReply {
    match attempt {
        Attempt::Answer { status, body, .. } => {
            let body = match body {
                Ok(body) => body,
                Err(BrokenBody::TooLarge { begin }) if !(200..300).contains(&status) => begin,
                Err(_) => Bytes::new(),
            };
            ApiReply { status, body }
        }
        // Only responses are delivered or rejected.
        _ => ApiReply { status: 0, body: Bytes::new() },
    }
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod failing_tests;
