//! Handles requests that fail for a reason of their own: one that is forbidden although the key
//! works, and one that always fails while others succeed.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    AfterAttempt, AttemptPermit, AttemptTransport, ConnectionChoice, NextAttempt,
    RequestDispatcher, key,
};
use crate::deliver::auth::ProbeToken;
use crate::deliver::outcome::{RetryReason, SideEffect};
use crate::deliver::poison::PoisonEvidence;
use crate::deliver::request::{ApiReply, Need, Request};
use crate::deliver::routes::{RouteChange, RouteState};
use crate::deliver::transport::{Attempts, BeforeSend, SendError};

/// The shortest time between two requests that only check whether the server works.
const PULSE: Duration = Duration::from_secs(5);

/// When it was checked whether the key works.
#[derive(Debug, Default)]
pub(super) struct KeyChecks {
    /// When it worked last.
    works: Option<Instant>,
    /// When it was checked last.
    asked: Option<Instant>,
}

/// The result of a check of the key.
enum Checked {
    Works,
    /// Sending is halted.
    Refused,
    /// There was no response that shows it.
    Unknown,
}

impl<W: AttemptTransport> RequestDispatcher<W> {
    /// A request of a route succeeded.
    pub(super) fn served(&self, request: &Request, now: Instant) {
        if self.routes.succeeded(key(request), now) == RouteChange::Opened {
            let (method, route) = (request.method.as_str(), request.route);
            let sink = &*self.sink;
            tracing::info!(
                sink,
                method,
                route,
                "the server allows this route again; sending goes on"
            );
        }
    }

    /// A request was forbidden: sends a request that every valid key may send. If that is allowed,
    /// only the route is closed; otherwise sending is halted.
    pub(super) async fn forbidden(
        &self,
        request: &Request,
        status: u16,
        reply: ApiReply,
        started: Instant,
        probe_token: Option<ProbeToken>,
    ) -> Result<AfterAttempt, SendError> {
        let suspicion = self.routes.suspect(key(request));
        match self.find_out(started, probe_token).await {
            Checked::Works => {}
            Checked::Refused => return Ok(AfterAttempt::Halted),
            Checked::Unknown => {
                let why = RetryReason::Status(status);
                let wait = self.wait(&why, None, 1, Instant::now());
                let (side_effect, answer) = (SideEffect::None, Some(reply));
                return Ok(AfterAttempt::Retry(NextAttempt { why, side_effect, wait, answer }));
            }
        }
        let now = Instant::now();
        let change = self.routes.forbidden(key(request), status, now);
        let (method, route) = (request.method.as_str(), request.route);
        drop(suspicion);
        if change == RouteChange::Closed {
            let cure = (self.cures)(status);
            tracing::error!(
                sink = &*self.sink,
                method,
                route,
                status,
                cure,
                gives_up_after = ?self.route_closed,
                "the API key works, but the server forbids this route: records that need it wait, \
                 then become dead letters; all others go on",
            );
        }
        if matches!(request.expects.need, Need::Optional | Need::EvenForbidden) {
            return Ok(AfterAttempt::Return(reply));
        }
        let wait = match self.routes.is_closed(key(request)) {
            true => Duration::ZERO,
            false => self.wait(&RetryReason::Forbidden(status), None, 1, now),
        };
        let (why, side_effect) = (RetryReason::Forbidden(status), SideEffect::None);
        Ok(AfterAttempt::Retry(NextAttempt { why, side_effect, wait, answer: Some(reply) }))
    }

    /// Whether the key works, checked after `started`.
    async fn find_out(&self, started: Instant, probe_token: Option<ProbeToken>) -> Checked {
        // While sending is halted, the prober checks. It must not wait for a task that waits for
        // its token.
        if probe_token.is_some() {
            return self.check_key(probe_token).await;
        }
        let mut checks = self.checks.lock().await;
        if checks.works.is_some_and(|at| at >= started) {
            return Checked::Works;
        }
        self.check_noting(&mut checks).await
    }

    async fn check_noting(&self, checks: &mut KeyChecks) -> Checked {
        checks.asked = Some(Instant::now());
        let checked = self.check_key(None).await;
        if matches!(checked, Checked::Works) {
            checks.works = Some(Instant::now());
        }
        checked
    }

    /// Sends a request that every valid key may send.
    async fn check_key(&self, mut probe_token: Option<ProbeToken>) -> Checked {
        let Some(request) = &self.key_check else {
            return Checked::Unknown;
        };
        let pass = loop {
            self.admission.opened().await;
            if !self.halt.allows(probe_token.as_ref()) {
                return Checked::Refused;
            }
            // Nothing is stored before a look-up, so nothing can fail.
            if let Ok(Some(pass)) = self.admit_as(&mut probe_token, None).await {
                break pass;
            }
        };
        match self.try_once(request, ConnectionChoice::Any, &Attempts::default(), pass).await {
            AfterAttempt::Return(reply) if reply.is_success() => Checked::Works,
            AfterAttempt::Halted => Checked::Refused,
            // A page that is not from the API, or no response.
            AfterAttempt::Return(_) | AfterAttempt::Forbidden { .. } | AfterAttempt::Retry(_) => {
                Checked::Unknown
            }
        }
    }

    /// Waits for permission to make an attempt at this request.
    pub(super) async fn leave(
        &self,
        request: &Request,
        attempts: &Attempts,
        before: Option<&dyn BeforeSend>,
    ) -> Result<AttemptPermit<'_, W>, SendError> {
        loop {
            let way = self.way(request, attempts).await?;
            let pass = self.admit(before).await?;
            // The route may have been closed while this request waited in the queue.
            if way == RouteState::Trial || !self.routes.is_shut(key(request)) {
                return Ok(pass);
            }
            if let Some(before) = before {
                before.not_sent();
            }
        }
    }

    /// Waits until a route may be used.
    async fn way(&self, request: &Request, attempts: &Attempts) -> Result<RouteState, SendError> {
        loop {
            let opened = self.routes.opened();
            let now = Instant::now();
            let way = self.routes.way(key(request), now);
            let RouteState::Closed { status, closed_for, until } = way else {
                return Ok(way);
            };
            // What the sender can do without is not waited for.
            let is_optional = request.expects.need == Need::Optional && !closed_for.is_zero();
            let left = self.route_closed.checked_sub(closed_for);
            let Some(left) = left.filter(|left| !left.is_zero() && !is_optional) else {
                let (method, route) = (request.method, request.route);
                let secs = closed_for.as_secs();
                return Err(SendError::RouteClosed { method, route, status, secs });
            };
            attempts.stalled.set();
            tokio::select! {
                () = opened => {}
                () = tokio::time::sleep_until(until.min(now + left)) => {}
            }
        }
    }

    /// A request failed: finds out whether the request or the server is the reason.
    pub(super) async fn note_failure(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        again: &NextAttempt,
    ) {
        if !again.why.concerns_request() {
            return;
        }
        attempts.stalled.set();
        if attempts.failure_history.failures(request.method, request.route) > 0 {
            self.take_pulse().await;
        }
        let (witness, failing) = self.routes.witness(key(request));
        attempts.failure_history.failed(
            key(request),
            Instant::now(),
            witness,
            &failing,
            again.why.text(),
            again.answer.clone(),
        );
    }

    /// If requests fail and nothing else was sent for a while, it is not known whether the server
    /// works: sends it a cheap request.
    async fn take_pulse(&self) {
        // A task that comes during another task's check continues without a check.
        let Ok(mut checks) = self.checks.try_lock() else {
            return;
        };
        let recent = |at: Instant| at + PULSE > Instant::now();
        let known =
            checks.asked.is_some_and(recent) || self.routes.last_success().is_some_and(recent);
        if !known && !self.halt.is_halted() {
            // The result of the check is in `routes`.
            self.check_noting(&mut checks).await;
        }
    }

    /// The error of a request that always fails while others succeed.
    pub(super) fn is_poison(&self, request: &Request, attempts: &Attempts) -> Option<SendError> {
        if attempts.failure_history.failures(request.method, request.route) < self.poison.attempts {
            return None;
        }
        let (_, failing) = self.routes.witness(key(request));
        let now = Instant::now();
        let (route, need) = (key(request), request.expects.need);
        let evidence = attempts.failure_history.poison(route, self.poison, now, &failing, need)?;
        let (method, route) = (request.method, request.route);
        let PoisonEvidence { failures, secs, why, answer } = evidence;
        Some(SendError::Poison { method, route, failures, secs, why, answer })
    }
}
