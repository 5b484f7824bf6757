//! The loop that carries one request until there is an answer that stands.
//!
//! Gate, halt, permit, rate token, attempt, verdict: each is decided elsewhere, this file only puts
//! them in order. It knows no HTTP. The invariant: while a request waits, for whatever reason
//! but its turn at the [door](super::door) and the note that it may be sent, it holds no permit.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::concurrency::{Controller, ControllerSettings, Permit, Permits, Signal};
use super::door::Door;
use super::halt::{Halt, HaltChange, HaltPolicy, HaltState, Role};
use super::outcome::{Attempt, Fate, Outcome, Why, classify};
use super::probe::Probe;
use super::rate::Spacing;
use super::retry::{RetryBudget, RetryPolicy};
use super::wire::{Attempts, BeforeSend, Reply, Request, SendError, Transport};
use crate::config::sink::RequestConfig;

/// Makes one attempt.
#[async_trait]
pub(super) trait Wire: Send + Sync {
    /// Sends the request once and reports what came of it, within its own timeout.
    async fn attempt(&self, request: &Request) -> Attempt;
}

/// What the carrier needs to know besides the wire.
pub(super) struct CarrierSettings<'a> {
    pub(super) request: &'a RequestConfig,
    pub(super) halt: HaltPolicy,
    pub(super) cures: fn(u16) -> &'static str,
    pub(super) probe: Arc<dyn Probe>,
    pub(super) stop: CancellationToken,
}

/// Carries requests over a wire.
pub(super) struct Carrier<W> {
    wire: W,
    retry: RetryPolicy,
    budget: Mutex<RetryBudget>,
    permits: Arc<Permits>,
    controller: Option<Mutex<Controller>>,
    in_flight: AtomicUsize,
    door: Door,
    halt: Halt,
    cures: fn(u16) -> &'static str,
    probe: Arc<dyn Probe>,
    stop: CancellationToken,
}

/// Leave to make one attempt, with everything that has to be given back afterwards, however the
/// attempt ends.
struct Pass<'a, W> {
    carrier: &'a Carrier<W>,
    started: Instant,
    role: Option<Role>,
    _permit: Permit,
    /// Whether the controller still waits for this attempt's end.
    open: bool,
}

impl<W> Drop for Pass<'_, W> {
    fn drop(&mut self) {
        let left = self.carrier.in_flight.fetch_sub(1, Ordering::Relaxed) - 1;
        self.carrier.probe.in_flight(left);
        if self.open
            && let Some(controller) = &self.carrier.controller
        {
            locked(controller).dropped();
        }
    }
}

/// What to do after an attempt.
enum Next {
    Return(Reply),
    /// Wait for the cure, then try again.
    Halted,
    Again {
        why: Why,
        fate: Fate,
        wait: Duration,
    },
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<W: Wire> Carrier<W> {
    pub(super) fn new(wire: W, settings: CarrierSettings<'_>) -> Self {
        let CarrierSettings { request, halt, cures, probe, stop } = settings;
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
        probe.limit(limit);
        let window = Duration::from_secs(request.rate_limit_duration_secs.max(1));
        Self {
            wire,
            retry,
            budget: Mutex::new(RetryBudget::new(now, retry.longest)),
            permits: Permits::new(limit),
            controller: controller.map(Mutex::new),
            in_flight: AtomicUsize::new(0),
            door: Door::new(request.rate_limit_num.map(|num| Spacing::per_window(num, window))),
            halt: Halt::new(halt),
            cures,
            probe,
            stop,
        }
    }

    pub(super) fn halted(&self) -> watch::Receiver<HaltState> {
        self.halt.watch()
    }

    /// Waits for leave to make an attempt.
    async fn admit(&self, before: Option<&dyn BeforeSend>) -> Result<Pass<'_, W>, SendError> {
        loop {
            self.door.opened().await;
            let role = self.halt.admit().await.map_err(|status| SendError::Refused { status })?;
            let permit = self.permits.acquire().await;
            if !self.halt.allows(role.as_ref()) || !self.door.is_open(Instant::now()) {
                continue;
            }
            // With a permit in hand, so that only what is about to leave is noted as sent.
            if let Some(before) = before {
                before.before_send().await?;
            }
            let Some(started) = self.door.pass(|| self.halt.allows(role.as_ref())).await else {
                continue;
            };
            if let Some(controller) = &self.controller {
                locked(controller).sent(started);
            }
            self.probe.in_flight(self.in_flight.fetch_add(1, Ordering::Relaxed) + 1);
            return Ok(Pass { carrier: self, started, role, _permit: permit, open: true });
        }
    }

    /// Makes one attempt and tells everyone concerned.
    async fn try_once(&self, request: &Request, failed: u32, mut pass: Pass<'_, W>) -> Next {
        self.probe.request_sent(request.method, request.route);
        if failed == 0 {
            locked(&self.budget).earn(pass.started);
        }
        let attempt = self.wire.attempt(request).await;
        let now = Instant::now();
        let rtt = now.saturating_duration_since(pass.started);
        match &attempt {
            Attempt::Answer { status, .. } => self.probe.response(*status, request.route, rtt),
            Attempt::NotSent { .. } => self.probe.request_error("connect"),
            Attempt::TimedOut => self.probe.request_error("timeout"),
            Attempt::Cut { .. } => self.probe.request_error("connection_cut"),
        }
        let outcome = classify(&attempt, request.repeat, self.retry.longest, wall_clock());
        self.feed_controller(&mut pass, &outcome, now, rtt);
        if let Attempt::Answer { status, .. } = &attempt
            && *status != 429
        {
            self.door.accepted(now);
        }
        self.decide(outcome, attempt, failed, &pass, now)
    }

    fn feed_controller(
        &self,
        pass: &mut Pass<'_, W>,
        outcome: &Outcome,
        now: Instant,
        rtt: Duration,
    ) {
        let Some(controller) = &self.controller else {
            return;
        };
        let signal = match outcome {
            Outcome::Delivered => Signal::Good,
            Outcome::Retry { .. } => Signal::Backpressure,
            Outcome::Reject { .. } | Outcome::Halt { .. } => Signal::Neutral,
        };
        pass.open = false;
        // The permits follow under the same lock, or two changes could arrive in the wrong order.
        let mut controller = locked(controller);
        if let Some(limit) = controller.done(now, rtt, signal) {
            self.permits.set_limit(limit);
            self.probe.limit(limit);
        }
    }

    fn decide(
        &self,
        outcome: Outcome,
        attempt: Attempt,
        failed: u32,
        pass: &Pass<'_, W>,
        now: Instant,
    ) -> Next {
        match outcome {
            Outcome::Delivered | Outcome::Reject { .. } => {
                if pass.role.is_some() {
                    self.announce(self.halt.accepted(now), 0);
                }
                Next::Return(reply(attempt))
            }
            Outcome::Halt { status } => {
                let change = self.halt.refused(status, pass.started, now, pass.role.as_ref());
                self.announce(change, status);
                Next::Halted
            }
            Outcome::Retry { why, after, fate } => {
                if pass.role.is_some() {
                    self.halt.inconclusive(now);
                }
                let wait = self.wait(&why, after, failed + 1, pass.started, now);
                Next::Again { why, fate, wait }
            }
        }
    }

    /// How long this request waits by itself. What the server asked for pauses everyone instead,
    /// once; whoever was on the way already then joins that pause.
    fn wait(
        &self,
        why: &Why,
        after: Option<Duration>,
        failed: u32,
        started: Instant,
        now: Instant,
    ) -> Duration {
        let mut rng = rand::rng();
        let throttled = *why == Why::Status(429);
        if !throttled && after.is_none() {
            let earned = locked(&self.budget).spend(now);
            return self.retry.backoff(failed, &mut rng).max(earned);
        }
        let pause = after.unwrap_or_else(|| self.retry.gate(failed, &mut rng));
        let mut again = false;
        if throttled {
            match self.door.refused(now, started, pause) {
                Some(rate) => self.probe.rate(rate),
                None => again = true,
            }
        }
        // A pause of our own making is not made longer by what was on its way when it began.
        if again && after.is_none() {
            return Duration::ZERO;
        }
        let was_open = self.door.is_open(now);
        if self.door.pause_until(now + pause) && was_open {
            tracing::info!(pause = ?pause, reason = why.label(), "the server asks for a pause");
            self.probe.paused(pause);
        }
        Duration::ZERO
    }

    fn announce(&self, change: HaltChange, status: u16) {
        let cure = (self.cures)(status);
        match change {
            HaltChange::None => {}
            HaltChange::Halted => {
                tracing::error!(status, cure, "the server refuses the api key; sending stops");
                self.probe.halted(true);
            }
            HaltChange::StillHalted(wait) => {
                tracing::warn!(status, cure, next = ?wait, "the api key is still refused");
            }
            HaltChange::GaveUp => {
                tracing::error!(status, cure, "the api key is refused; giving up");
            }
            HaltChange::Resumed => {
                tracing::info!("the api key is accepted again; sending goes on");
                self.probe.halted(false);
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

    /// One failure is no news, and neither is each of many.
    fn tell(request: &Request, attempts: &Attempts, why: &Why) {
        let (route, failed) = (request.route, attempts.failed);
        if failed >= 4 && failed.is_power_of_two() {
            tracing::warn!(route, failed, %why, "a request goes on failing; trying again");
        } else {
            tracing::debug!(route, failed, %why, "attempt failed");
        }
    }

    fn give_up(attempts: &mut Attempts, why: std::borrow::Cow<'static, str>) -> SendError {
        let tried = std::mem::take(&mut attempts.failed);
        SendError::GivenUp { attempts: tried, why }
    }
}

fn wall_clock() -> SystemTime {
    let millis = u64::try_from(crate::clock::now().as_millisecond()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::from_millis(millis)
}

fn reply(attempt: Attempt) -> Reply {
    match attempt {
        Attempt::Answer { status, body, .. } => Reply { status, body: body.unwrap_or_default() },
        // Only answers are delivered or rejected.
        _ => Reply { status: 0, body: Bytes::new() },
    }
}

impl<W: Wire> Carrier<W> {
    async fn carry(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: Option<&dyn BeforeSend>,
    ) -> Result<Reply, SendError> {
        if self.retry.exhausted(attempts.failed) {
            return Err(Self::give_up(attempts, "no attempts are left".into()));
        }
        loop {
            let pass = tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(SendError::Stopped),
                pass = self.admit(before) => pass?,
            };
            attempts.sent = attempts.sent.saturating_add(1);
            // The permit and the prober's role go back with the pass, before any waiting.
            let (why, fate, wait) = match self.try_once(request, attempts.failed, pass).await {
                Next::Return(reply) => {
                    attempts.failed = 0;
                    return Ok(reply);
                }
                Next::Halted => continue,
                Next::Again { why, fate, wait } => (why, fate, wait),
            };
            if let (Why::Connect(_), Some(before)) = (&why, before) {
                before.not_sent();
            }
            attempts.failed = attempts.failed.saturating_add(1);
            Self::tell(request, attempts, &why);
            if fate == Fate::Unknown {
                // That the fate is open matters more than that the process stops.
                drop(self.rest(wait).await);
                return Err(SendError::Ambiguous { why: why.text() });
            }
            if self.retry.exhausted(attempts.failed) {
                return Err(Self::give_up(attempts, why.text()));
            }
            self.probe.retry(why.label());
            self.rest(wait).await?;
        }
    }
}

#[async_trait]
impl<W: Wire> Transport for Carrier<W> {
    async fn send(&self, request: &Request, attempts: &mut Attempts) -> Result<Reply, SendError> {
        self.carry(request, attempts, None).await
    }

    async fn send_counted(
        &self,
        request: &Request,
        attempts: &mut Attempts,
        before: &dyn BeforeSend,
    ) -> Result<Reply, SendError> {
        self.carry(request, attempts, Some(before)).await
    }
}

#[cfg(test)]
#[path = "carrier_tests.rs"]
mod tests;
