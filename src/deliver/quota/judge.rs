//! The conclusions of the estimator from a span of responses, and from the end of a closed period.

use tokio::time::Instant;

use super::QuotaEstimator;
use super::chance::{MIN_BELOW, RefusedShare, TrialPace};
use super::closed::ClosedPeriod;
use super::pace::PaceEstimate;
use super::window::{MIN_COUNT, WindowFill};
use super::{RefusalRun, secs};

/// A closed period of at least this many seconds ends a cycle; a shorter one shows that the pace is
/// too fast.
const LONG_CLOSED: f64 = 0.5;
/// The pace that is tried after the first closed period, as a multiple of what was accepted.
const SEARCH_FACTOR: f64 = 8.0;
/// How far above a measured rate to go, so that a higher rate is noticed.
const ABOVE: f64 = 1.015;
/// The step down after a few refusals.
const STEP_DOWN: f64 = 0.985;
/// A refused share up to this much is few.
const SMALL_SHARE: f64 = 0.03;
/// The step below a rate that was measured shortly before it was refused.
const BELOW_PROVEN: f64 = 0.965;
/// A larger refused share disproves the measured rate.
const DISPROVED: f64 = 0.6;
/// The pace is not raised while less than this share of it is used.
const USED: f64 = 0.7;
/// A doubling of the growth takes at most this many seconds where no window is known.
const MAX_DOUBLING_SECS: f64 = 5.0;
/// Attempts without a pace after which their refused share is evaluated, and a share that is too
/// large.
const MIN_UNPACED: f64 = 100.0;
const MAX_UNPACED_SHARE: f64 = 0.05;
/// Attempts that are necessary if refusals by chance make each measurement uncertain.
const MIN_WITH_CHANCE: f64 = 300.0;

/// Responses to attempts that started after the pace was evaluated last.
#[derive(Debug, Clone, Copy)]
pub(super) struct JudgedSpan {
    pub(super) since: Instant,
    pub(super) accepted: f64,
    pub(super) refused: f64,
    /// Attempts started since the growth was last updated, and when that was.
    pub(super) started: f64,
    grown: Instant,
}

impl JudgedSpan {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, accepted: 0.0, refused: 0.0, started: 0.0, grown: now }
    }

    fn share(&self) -> RefusedShare {
        RefusedShare { attempts: self.accepted + self.refused, refused: self.refused }
    }
}

impl QuotaEstimator {
    /// Sets the pace and begins a span.
    pub(super) fn set_pace(&mut self, now: Instant, base: f64) {
        match &mut self.pace {
            Some(pace) => pace.set(base),
            None => self.pace = Some(PaceEstimate::new(base)),
        }
        self.span = JudgedSpan::new(now);
    }

    /// Reports that an attempt was accepted again. `started`: when it started.
    pub(super) fn reopen(&mut self, now: Instant, started: Instant, closed: ClosedPeriod) {
        self.closed = None;
        let waited = secs(now, closed.since);
        if closed.probes == 0 && waited < 0.5 * self.rtt.max(0.02) {
            // The response was under way already: nothing was closed.
            self.run = RefusalRun::default();
            return;
        }
        if waited >= LONG_CLOSED {
            self.end_cycle(now, closed, waited);
        } else {
            let half = started.saturating_duration_since(closed.refused) / 2;
            self.slow_down(now, started.checked_sub(half).unwrap_or(started));
        }
        self.reopened = now;
        self.run = RefusalRun::default();
        self.span = JudgedSpan::new(now);
        self.chance.abandon_trial();
        self.edge = now;
    }

    /// The rate accepted over the last second, or over as many attempts as are significant.
    fn recent_rate(&self, now: Instant, pace: f64) -> f64 {
        self.recent.rate(now, (40.0 / pace).max(1.0))
    }

    /// Handles a short closed period, until `until`: the pace was too fast.
    fn slow_down(&mut self, now: Instant, until: Instant) {
        let Some(pace) = self.rate() else {
            let begin = self.cycle.start().unwrap_or(self.span.since);
            let length = secs(until, begin).clamp(0.02, 1.0);
            return self.set_pace(now, self.recent.rate(now, length));
        };
        let measured = match self.span.share().attempts {
            n if n < 20.0 => 0.0,
            _ => (self.span.accepted + 1.0) / secs(until, self.span.since).max(0.02),
        };
        let rate = measured.max(self.recent_rate(now, pace));
        self.set_pace(now, rate.clamp(pace * 0.25, pace * STEP_DOWN));
    }

    /// Handles a long closed period: the rest of a window, a smaller quota, or a disturbance.
    fn end_cycle(&mut self, now: Instant, closed: ClosedPeriod, waited: f64) {
        let active = secs(closed.since, self.cycle.start().unwrap_or(closed.since));
        let was_kept = self.pace_kept.is_some_and(|at| secs(closed.since, at) < 2.0 * waited + 2.0);
        let seen = self.cycle.end(now, closed.refused);
        let window = self.cycle.window();
        let measured = match window {
            Some(window) => window.rate(),
            // The end is between the last refusal and now.
            None if seen.length < 3.0 => {
                seen.count / (seen.length - 0.5 * secs(now, closed.refused)).max(0.05)
            }
            None => seen.rate(),
        };
        let believed = was_kept || window.is_some();
        match self.pace.as_ref().map(PaceEstimate::base) {
            // Nothing was ever accepted: there is no rate.
            None if seen.count < 2.0 => {}
            None if !believed => self.keep_pace(now, SEARCH_FACTOR * measured),
            Some(base) if !believed && measured < 0.9 * base && active > 2.0 => {
                self.keep_pace(now, base);
            }
            base => {
                let above = window.is_some_and(|window| window.count >= MIN_COUNT);
                let rate = match (base, window) {
                    (Some(base), None) => measured.clamp(base * 0.02, base * SEARCH_FACTOR),
                    _ => measured,
                };
                self.set_pace(now, if above { rate * ABOVE } else { rate });
                self.pace_kept = None;
            }
        }
        self.edges_apart = self.pace_kept.is_none().then_some(seen.length);
        self.slow_growth(self.edges_apart.unwrap_or(0.0));
    }

    /// Treats a closed period as a disturbance and continues at this pace.
    fn keep_pace(&mut self, now: Instant, base: f64) {
        self.pace_kept = Some(now);
        self.set_pace(now, base);
    }

    /// If refusals are this many seconds apart, growth is slower.
    pub(super) fn slow_growth(&mut self, apart: f64) {
        let slow = match self.cycle.window() {
            Some(window) => window.length,
            None => (0.5 * apart).min(MAX_DOUBLING_SECS),
        };
        if let Some(pace) = &mut self.pace {
            pace.set_doubling_secs(slow);
        }
    }

    /// Evaluates what it can after an accepted attempt. `alternated`: the one before was refused.
    pub(super) fn judge(&mut self, now: Instant, started: Instant, alternated: bool) {
        let Some(pace) = &mut self.pace else { return self.judge_unpaced(now) };
        let rate = pace.rate();
        match self.cycle.fill(now) {
            WindowFill::Usual => {}
            WindowFill::Full => {
                if let Some(window) = self.cycle.window() {
                    pace.set_doubling_secs(window.length / 12.0);
                }
            }
            WindowFill::Over => {
                pace.quota_was_raised();
                return self.cycle.quota_was_raised();
            }
        }
        let length = secs(started, self.span.since).max(1e-3);
        if let Some(capacity) = self.chance.capacity()
            && self.measure_chance(now, capacity)
        {
            return;
        }
        self.grow(now, rate, length);
        if !self.is_conclusive(length, alternated) {
            return;
        }
        let seen = self.span.share();
        let excess = self.chance.excess(seen);
        match self.chance.note(TrialPace::Paced(rate), seen) {
            Some(TrialPace::Paced(rate)) => return self.set_pace(now, rate),
            Some(TrialPace::Unpaced(_)) => {
                self.pace = None;
                self.span = JudgedSpan::new(now);
                return;
            }
            None => {}
        }
        if alternated {
            self.note_edge(now);
        }
        if excess > 0.0 {
            let slower = self.slower(now, rate, length, excess);
            let by_chance = self.chance.share();
            let pace = if by_chance > 0.0 {
                self.chance.keep_below(slower / ABOVE * (1.0 - by_chance))
            } else {
                slower
            };
            self.set_pace(now, pace);
            if excess > SMALL_SHARE {
                self.proven = None;
            }
        } else {
            self.span = JudgedSpan::new(now);
        }
    }

    /// While the pace is kept below what the server accepts: measures what chance refuses. Returns
    /// whether that is so; it is not when more is refused, since the server accepts less now.
    fn measure_chance(&mut self, now: Instant, capacity: f64) -> bool {
        let seen = self.span.share();
        if self.chance.is_exceeded(seen) {
            self.chance.stop_below();
            return false;
        }
        if seen.attempts >= MIN_BELOW {
            self.chance.stop_below();
            self.chance.measured(seen);
            self.set_pace(now, capacity / (1.0 - self.chance.share()));
        }
        true
    }

    /// Raises the pace while it is used and nothing is refused.
    fn grow(&mut self, now: Instant, rate: f64, length: f64) {
        let quiet = secs(now, self.span.grown);
        let Some(pace) = &mut self.pace else { return };
        if quiet < 0.1 || self.span.started < 3.0 {
            return;
        }
        let is_used = self.span.started / quiet >= USED * rate;
        let is_quiet = secs(now, self.last_refused) > quiet || self.chance.share() > 0.0;
        if is_used && is_quiet && self.run.count == 0 {
            pace.grow(quiet);
        }
        self.span.grown = now;
        self.span.started = 0.0;
        if self.span.refused == 0.0 && self.span.accepted >= 40.0 && length > 1.0 {
            let window = (40.0 / rate).max(1.0);
            let recent = if length > window { self.recent.rate(now, window) } else { 0.0 };
            let seen = (self.span.accepted / length).max(recent).min(rate);
            self.proven = Some(self.proven.map_or(seen, |proven| proven.max(seen)));
        }
    }

    /// Whether the span is long enough to evaluate the pace. It is exact if an attempt was accepted
    /// after a refusal at both ends.
    fn is_conclusive(&self, length: f64, alternated: bool) -> bool {
        let (accepted, refused) = (self.span.accepted, self.span.refused);
        if self.chance.share() > 0.0 {
            return accepted + refused >= MIN_WITH_CHANCE
                || self.chance.is_exceeded(self.span.share());
        }
        let is_over = self.run.count == 0 && refused > 0.0 && length >= 2.0 && accepted >= 60.0;
        if !alternated && !is_over {
            return false;
        }
        match self.cycle.window() {
            Some(window) => length >= 0.7 * window.length,
            None => {
                accepted >= 40.0 && length >= 0.3
                    || accepted >= 20.0 && refused >= 4.0
                    || accepted >= 4.0 && refused >= 12.0
                    || accepted >= 5.0 && length > 2.0
            }
        }
    }

    /// Reports that an attempt was accepted after refusals: with a window, the next one begins.
    fn note_edge(&mut self, now: Instant) {
        let apart = secs(now, self.edge);
        self.edge = now;
        self.cycle.window_began(now);
        let mean = self.edges_apart.map_or(apart, |mean| mean + 0.5 * (apart - mean));
        self.edges_apart = Some(mean);
        self.slow_growth(mean.min(apart));
    }

    /// The pace after a span in which too much was refused.
    fn slower(&self, now: Instant, rate: f64, length: f64, excess: f64) -> f64 {
        if excess <= SMALL_SHARE {
            return rate * STEP_DOWN;
        }
        let by_chance = 1.0 - self.chance.share();
        let mut measured = self.span.accepted / length / by_chance;
        if length >= 2.0 * (40.0 / rate).max(1.0) {
            // The pace was lower at the beginning of a long span.
            measured = measured.max(self.recent_rate(now, rate) / by_chance);
        }
        if let Some(proven) = self.proven
            && self.cycle.window().is_none()
            && excess < DISPROVED
        {
            measured = measured.max(proven * BELOW_PROVEN);
        }
        (measured * ABOVE).clamp(0.02 * rate, STEP_DOWN * rate)
    }

    /// Without a pace: sets one when too much is refused, to find out whether that helps.
    fn judge_unpaced(&mut self, now: Instant) {
        let seen = self.span.share();
        if seen.attempts < MIN_UNPACED {
            return;
        }
        let explained = self.cap.limit().is_some() || self.chance.share() > 0.0;
        if explained || seen.value() <= MAX_UNPACED_SHARE {
            self.span = JudgedSpan::new(now);
            return;
        }
        let rate = seen.attempts / secs(now, self.span.since).max(0.01);
        self.set_pace(now, rate);
        self.chance.note(TrialPace::Unpaced(rate), seen);
    }
}
