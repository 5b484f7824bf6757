//! Learns what a throttle allows from which attempts it accepts and which it refuses (status 429).
//!
//! [`QuotaEstimator`] is pure: it receives each start and each answer with its time, and says when
//! the next attempt may start. It knows no clock, no task and no request. Nothing is delayed until
//! something is refused.
//!
//! # What one refusal means
//! Services refuse for different reasons, and a single refusal does not say which:
//! * A window (so many a second, minute or hour) is used up: everything is refused until it ends.
//!   After `MIN_RUN` refusals with nothing accepted between them the estimator is *closed*
//!   (`closed`): everything waits, and one probe at a time finds the end. `Retry-After` of two
//!   seconds or more is obeyed; of one second it may mean any part of it.
//! * The pace is slightly above a rate: one refusal in fifty. Only that request waits, and the
//!   `pace` is corrected, so that about 2 % are refused.
//! * Chance (`chance`): the refused share does not depend on the pace. Only that request waits,
//!   and the pace stays. The share is measured at nine tenths of what the server accepts.
//! * Too many requests at a time (`cap`): only attempts above a number in flight are refused. The
//!   number is limited and not the pace.
//!
//! # What a closed period means
//! It can be the rest of a window, a quota that became smaller, or a disturbance that has nothing
//! to do with the pace. After the first one the former pace is resumed; if the next one comes at
//! once, the pace becomes what was accepted from the end of one closed period to the end of the
//! next, divided by the time between: exact for a window, whatever its length. Two equal cycles in
//! a row are a `window`. It is then used up evenly and tried for more at its end.

mod cap;
mod chance;
mod closed;
mod headers;
mod judge;
mod learned;
mod pace;
mod recent;
mod window;

use std::time::Duration;

use tokio::time::Instant;

use cap::{CapProbe, InFlightCap};
use chance::RandomRefusals;
use closed::{ClosedPeriod, ProbeBasis, VAGUE_HINT};
pub use headers::RateLimitHeaders;
use judge::JudgedSpan;
pub use learned::LearnedQuota;
use pace::PaceEstimate;
use recent::AcceptedLog;
use window::QuotaCycle;

/// Refusals in a row from which on everything waits, at least.
const MIN_RUN: u32 = 4;
/// A run of refusals that chance produces less often than this is not by chance.
const RUN_CHANCE: f64 = 1e-4;
/// The same where it is known that refusals are by chance.
const RUN_CHANCE_KNOWN: f64 = 1e-6;
/// How long a request that was refused alone waits at least.
const RETRY_ALONE: Duration = Duration::from_millis(100);
/// The same where the number of requests at a time is the reason.
const RETRY_IN_FLIGHT: Duration = Duration::from_millis(20);
/// How long to wait after a probe without an answer.
const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// The round trip that is assumed at first, in seconds.
const FIRST_RTT: f64 = 0.05;
/// The weight of the newest in means of round trips and of refused shares.
const RTT_WEIGHT: f64 = 0.1;
const SHARE_WEIGHT: f64 = 0.02;

/// What a refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterRefusal {
    /// Everything waits; the next attempt is a probe that may start after this long.
    PauseAll(Duration),
    /// Only the refused request waits, at least this long.
    RetryAlone(Duration),
    /// The request waits with all others for the end of a closed period.
    Join,
}

/// What the estimator has to know about an attempt when its answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AttemptTicket {
    started: Instant,
    /// How many were in flight, this one included.
    level: u32,
    /// Whether it was to find the end of a closed period.
    is_probe: bool,
    above_cap: CapProbe,
}

impl AttemptTicket {
    /// When the attempt was started.
    pub fn started(&self) -> Instant {
        self.started
    }
}

/// Refusals without an acceptance between them.
#[derive(Debug, Clone, Copy, Default)]
struct RefusalRun {
    count: u32,
    /// When the first of them was started.
    first: Option<Instant>,
    /// The share that was refused before.
    share_before: f64,
}

/// Estimates what the server allows and says when the next attempt may start.
#[derive(Debug, Clone)]
pub struct QuotaEstimator {
    created: Instant,
    in_flight: u32,
    /// The mean round trip in seconds.
    rtt: f64,
    /// `None` until something is refused.
    pace: Option<PaceEstimate>,
    closed: Option<ClosedPeriod>,
    run: RefusalRun,
    /// What was refused lately outside of closed periods, as a mean with falling weights.
    refused_share: f64,
    last_refused: Instant,
    /// Answers to attempts from before the end of the last closed period teach nothing.
    reopened: Instant,
    span: JudgedSpan,
    cycle: QuotaCycle,
    /// When a closed period was taken for a disturbance.
    pace_kept: Option<Instant>,
    /// When something was last accepted after a refusal, and the mean of the times between.
    edge: Instant,
    edges_apart: Option<f64>,
    /// The highest rate that was seen to be accepted without any refusal.
    proven: Option<f64>,
    chance: RandomRefusals,
    cap: InFlightCap,
    /// The pace before a limit on requests at a time was found.
    pace_before_cap: Option<f64>,
    recent: AcceptedLog,
    /// Whether a refusal came with headers that said that nothing remains.
    trusts_headers: bool,
}

impl QuotaEstimator {
    /// An estimator that knows of no quota.
    pub fn new(now: Instant) -> Self {
        Self {
            created: now,
            in_flight: 0,
            rtt: FIRST_RTT,
            pace: None,
            closed: None,
            run: RefusalRun::default(),
            refused_share: 0.0,
            last_refused: now,
            reopened: now,
            span: JudgedSpan::new(now),
            cycle: QuotaCycle::new(),
            pace_kept: None,
            edge: now,
            edges_apart: None,
            proven: None,
            chance: RandomRefusals::default(),
            cap: InFlightCap::new(),
            pace_before_cap: None,
            recent: AcceptedLog::new(),
            trusts_headers: false,
        }
    }

    /// The present pace in attempts a second, once there is one.
    pub fn rate(&self) -> Option<f64> {
        self.pace.as_ref().map(PaceEstimate::rate)
    }

    /// Whether everything waits for the end of a closed period.
    pub fn is_closed(&self) -> bool {
        self.closed.is_some()
    }

    /// The earliest moment the next attempt may start. `None`: after the next answer.
    pub fn ready_at(&self, now: Instant) -> Option<Instant> {
        if self.in_flight >= self.cap.allowed() {
            return None;
        }
        match &self.closed {
            Some(closed) if closed.probe.is_some() => None,
            Some(closed) => Some(closed.next_probe),
            None => Some(self.pace.as_ref().map_or(now, |pace| pace.ready_at(now))),
        }
    }

    /// An attempt starts. Its ticket has to come back, whatever becomes of it.
    pub fn take(&mut self, now: Instant) -> AttemptTicket {
        if let Some(closed) = &mut self.closed {
            // A probe does not wait for the pace, so it must not delay the attempts after it.
            closed.probe = Some(now);
            closed.probes += 1;
        } else if let Some(pace) = &mut self.pace {
            pace.take(now);
        }
        self.in_flight = self.in_flight.saturating_add(1);
        self.span.started += 1.0;
        let level = self.in_flight;
        let above_cap = self.cap.sent(level);
        AttemptTicket { started: now, level, is_probe: self.closed.is_some(), above_cap }
    }

    /// An attempt ended without an answer, which teaches nothing.
    pub fn abandoned(&mut self, now: Instant, ticket: AttemptTicket) {
        self.in_flight = self.in_flight.saturating_sub(1);
        if ticket.is_probe
            && let Some(closed) = &mut self.closed
            && closed.probe == Some(ticket.started)
        {
            closed.probe = None;
            closed.next_probe = now + PROBE_AGAIN;
        }
    }

    /// The server took an attempt: any answer but 429.
    pub fn accepted(&mut self, now: Instant, ticket: AttemptTicket) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.rtt += RTT_WEIGHT * (secs(now, ticket.started) - self.rtt);
        self.cycle.accept(ticket.started);
        self.recent.add(now);
        self.cap.accepted(ticket.level, ticket.above_cap);
        if let Some(closed) = self.closed {
            if ticket.started > closed.refused {
                self.reopen(now, ticket.started, closed);
            }
            return;
        }
        self.cycle.roll(ticket.started);
        if ticket.started >= self.reopened {
            self.refused_share *= 1.0 - SHARE_WEIGHT;
        }
        if ticket.started >= self.span.since {
            self.span.accepted += 1.0;
        }
        let alternated = self.run.first.is_some_and(|first| ticket.started > first);
        if alternated {
            self.run = RefusalRun::default();
            self.cap.alternated();
        }
        self.judge(now, ticket.started, alternated);
    }

    /// An accepted attempt came with headers. Where they were right before, the last one that is
    /// allowed closes the estimator without a refusal.
    pub fn headers(&mut self, now: Instant, ticket: AttemptTicket, headers: RateLimitHeaders) {
        if let (Some(0), Some(reset)) = (headers.remaining, headers.reset)
            && self.trusts_headers
            && reset > VAGUE_HINT
            && self.closed.is_none()
            && ticket.started >= self.reopened
        {
            self.closed = Some(ClosedPeriod::new(now, ticket.started));
            self.probe_refused(now, Some(reset));
        }
    }

    /// The server refused an attempt with 429. `after`: what `Retry-After` said.
    pub fn refused(
        &mut self,
        now: Instant,
        ticket: AttemptTicket,
        after: Option<Duration>,
        headers: RateLimitHeaders,
    ) -> AfterRefusal {
        self.trusts_headers |= headers.remaining == Some(0) && headers.reset.is_some();
        let hint = after.or(headers.reset.filter(|_| headers.remaining.is_none_or(|n| n == 0)));
        self.in_flight = self.in_flight.saturating_sub(1);
        if let Some(closed) = &mut self.closed {
            closed.refused = closed.refused.max(ticket.started);
            return if ticket.is_probe {
                self.probe_refused(now, hint)
            } else {
                AfterRefusal::Join
            };
        }
        if ticket.started < self.reopened {
            return AfterRefusal::Join;
        }
        self.cap.refused(ticket.level, ticket.above_cap);
        if self.is_cap(now) {
            return AfterRefusal::RetryAlone(RETRY_IN_FLIGHT);
        }
        self.count_refusal(now, ticket.started);
        let first = self.run.first.unwrap_or(ticket.started);
        // At a pace the refused ones must also lie apart: some that were sent together say little.
        let is_long = self.pace.is_none() || secs(ticket.started, first) >= self.rtt * 0.7;
        if self.run.count < self.min_run() || !is_long {
            return AfterRefusal::RetryAlone(RETRY_ALONE);
        }
        self.cap.forget_evidence();
        self.closed = Some(ClosedPeriod::new(now, ticket.started));
        self.probe_refused(now, hint)
    }

    fn count_refusal(&mut self, now: Instant, started: Instant) {
        if self.run.count == 0 {
            self.run.share_before = self.refused_share;
        }
        self.refused_share += SHARE_WEIGHT * (1.0 - self.refused_share);
        self.run.count += 1;
        self.run.first.get_or_insert(started);
        self.last_refused = now;
        if started >= self.span.since {
            self.span.refused += 1.0;
        }
    }

    /// How many refusals in a row are not by chance.
    fn min_run(&self) -> u32 {
        let share = self.run.share_before.min(0.3).max(self.chance.share()).clamp(0.01, 0.7);
        let mut run = MIN_RUN;
        let rare = if self.chance.share() > 0.0 { RUN_CHANCE_KNOWN } else { RUN_CHANCE };
        while share.powf(f64::from(run)) > rare {
            run += 1;
        }
        run
    }

    /// Sets the time of the next probe.
    fn probe_refused(&mut self, now: Instant, hint: Option<Duration>) -> AfterRefusal {
        let basis = ProbeBasis {
            began: self.cycle.start().unwrap_or(self.created),
            accepted: self.cycle.accepted(),
            end: self.cycle.expected_end(now),
            rtt: self.rtt,
        };
        let Some(closed) = &mut self.closed else { return AfterRefusal::Join };
        closed.probe = None;
        AfterRefusal::PauseAll(closed.schedule(now, hint, basis))
    }

    /// Whether the number of requests at a time explains a refusal.
    fn is_cap(&mut self, now: Instant) -> bool {
        if self.cap.limit().is_some() {
            if self.cap.still_fits() {
                return true;
            }
            if let Some(base) = self.pace_before_cap {
                self.set_pace(now, base);
            }
            return false;
        }
        if self.cap.learn().is_none() {
            return false;
        }
        self.pace_before_cap = self.rate();
        self.pace = None;
        self.chance = RandomRefusals::default();
        self.span = JudgedSpan::new(now);
        true
    }
}

/// Seconds between two moments.
fn secs(later: Instant, earlier: Instant) -> f64 {
    later.saturating_duration_since(earlier).as_secs_f64()
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod bench;

#[cfg(test)]
#[allow(clippy::cast_possible_truncation)]
mod tests;
