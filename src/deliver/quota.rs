//! Learns the server's quota from its refusals, so that a limit nobody told us costs few of them.
//!
//! Additive-increase concurrency alone finds a quota by running into it again and again. This
//! estimator estimates the allowed rate at each refusal and spaces attempts just below it. It does
//! not pause (the [gate](super::pause) does) and knows no clock. The invariant: until the first
//! 429 it delays nothing.
//!
//! What can be known: over a time in which the server's bucket was empty at both ends, what it
//! accepted is its rate, if nothing was lost while we paused. So accepted / elapsed between two
//! refusals never exceeds the quota, while the pace that was refused is above it. The estimator
//! searches between the two.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use super::rate::GcraLimiter;

/// How close below an estimate to stay.
const BELOW: f64 = 0.97;
/// The step down after a pace that did not hold for long.
const STEP_DOWN: f64 = 0.9;
/// The deepest step down.
const STEP_DOWN_MOST: f64 = 0.5;
/// The step up after a refusal that the pace cannot have been the reason of.
const STEP_UP: f64 = 1.5;
/// A pace is slower than another below this share of it.
const SLOWER: f64 = 0.99;
/// A pace that held this long was nearly right.
const HELD: Duration = Duration::from_secs(10);
/// Growth a second near the pace that was last refused …
const GROWTH_NEAR: f64 = 0.0005;
/// … and far from it, once the pace has held.
const GROWTH_FAR: f64 = 0.05;
/// A refusal this long ago says nothing about how near the limit is.
const FORGOTTEN: Duration = Duration::from_secs(60);
/// What was accepted between two refusals this far apart is proof of a rate.
const PROOF: Duration = Duration::from_secs(2);
/// Near means within these shares of the refused pace.
const NEAR: std::ops::Range<f64> = 0.9..1.05;
/// The pace is not raised while less than this share of it is used.
const USED: f64 = 0.7;
/// The slowest pace, in attempts a second.
const SLOWEST: f64 = 0.05;
/// How long accepted attempts are remembered, and in which steps.
const MEMORY: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(100);

/// Accepted attempts of the recent past, counted in steps of 100 ms.
#[derive(Debug, Clone, Default)]
struct Recent(VecDeque<(Instant, u32)>);

impl Recent {
    fn add(&mut self, now: Instant) {
        match self.0.back_mut() {
            Some((since, count)) if now < *since + STEP => *count += 1,
            _ => self.0.push_back((now, 1)),
        }
        while self.0.front().is_some_and(|(since, _)| *since + MEMORY < now) {
            self.0.pop_front();
        }
    }

    fn within(&self, length: Duration, now: Instant) -> f64 {
        self.0
            .iter()
            .rev()
            .take_while(|(since, _)| now < *since + length)
            .map(|(_, count)| f64::from(*count))
            .sum()
    }
}

/// What a refusal left behind.
#[derive(Debug, Clone, Copy)]
struct ThrottleEvent {
    /// When it was seen.
    at: Instant,
    /// When the pause it asked for ends.
    resumes: Instant,
    /// The pace it refused, in attempts a second; 0 if the pace cannot have been the reason.
    pace: f64,
    /// What was accepted since.
    accepted: f64,
}

/// Estimates the rate that the server allows and spaces attempts just below it.
#[derive(Debug, Clone, Default)]
pub struct QuotaEstimator {
    recent: Recent,
    throttled: Option<ThrottleEvent>,
    /// The pace and its spacing; `None` until the first refusal.
    pace: Option<(f64, GcraLimiter)>,
    /// When the pace was last raised or set.
    raised: Option<Instant>,
    /// The highest rate that was proven lately, and when. A refusal below it is not the quota's: an
    /// overloaded part of the server, or chance.
    proven: Option<(Instant, f64)>,
}

impl QuotaEstimator {
    /// An estimator that knows of no quota.
    pub fn new() -> Self {
        Self::default()
    }

    /// The present pace in attempts a second, once there is one.
    pub fn rate(&self) -> Option<f64> {
        self.pace.as_ref().map(|(pace, _)| *pace)
    }

    /// The earliest moment the next attempt may start.
    pub fn ready_at(&self, now: Instant) -> Instant {
        self.pace.as_ref().map_or(now, |(_, spacing)| spacing.ready_at(now))
    }

    /// An attempt starts.
    pub fn take(&mut self, now: Instant) {
        if let Some((_, spacing)) = &mut self.pace {
            spacing.take(now);
        }
    }

    /// The server took an attempt: any answer but 429.
    pub fn accepted(&mut self, now: Instant) {
        self.recent.add(now);
        if let Some(throttled) = &mut self.throttled {
            throttled.accepted += 1.0;
        }
        self.raise(now);
    }

    /// The server refused an attempt that was started at `started`, and asked for a pause. Returns
    /// whether this taught something: refusals of attempts that were already on their way when the
    /// last one was seen do not.
    pub fn refused(&mut self, now: Instant, started: Instant, pause: Duration) -> bool {
        if self.throttled.is_some_and(|last| started < last.resumes) {
            return false;
        }
        let (pace, next) = match (self.rate(), self.throttled) {
            (Some(pace), Some(last)) => {
                let proven = self.prove(last, now);
                // A pace that held, and is below the one that was refused before, is not the
                // quota's either.
                let held = now.saturating_duration_since(last.resumes) >= HELD;
                let slower = held && pace < last.pace * SLOWER;
                if pace <= proven || slower {
                    (0.0, pace * STEP_UP)
                } else {
                    (pace, Self::step_down(pace, last, now).max(proven * BELOW).min(pace))
                }
            }
            // The first time there is no pace yet: what the server took in as much time as it now
            // wants to rest. That is exact for counting windows and too high by a bucket's size
            // for buckets, which the next refusals correct.
            _ => {
                let window = pause.clamp(Duration::from_secs(1), MEMORY);
                let taken = self.recent.within(window, now) / window.as_secs_f64();
                (taken, taken * BELOW)
            }
        };
        self.throttled = Some(ThrottleEvent { at: now, resumes: now + pause, pace, accepted: 0.0 });
        // A server that has taken nothing at all has not shown any rate: only the pause counts.
        if next > 0.0 {
            self.set(next, now + pause);
        }
        true
    }

    /// What the server is known to take, from what it took since the last refusal and before.
    fn prove(&mut self, last: ThrottleEvent, now: Instant) -> f64 {
        self.proven = self.proven.filter(|(at, _)| now.saturating_duration_since(*at) < FORGOTTEN);
        let best = self.proven.map_or(0.0, |(_, rate)| rate);
        let elapsed = now.saturating_duration_since(last.at);
        if elapsed >= PROOF {
            let rate = last.accepted / elapsed.as_secs_f64();
            if rate > best {
                self.proven = Some((now, rate));
                return rate;
            }
        }
        best
    }

    fn step_down(pace: f64, last: ThrottleEvent, now: Instant) -> f64 {
        if now.saturating_duration_since(last.resumes) >= HELD {
            return pace * BELOW;
        }
        let elapsed = now.saturating_duration_since(last.at).as_secs_f64();
        let floor = if elapsed > 0.0 { last.accepted / elapsed } else { 0.0 };
        // Between the two, nearer to neither; but one bad moment must not cost more than half.
        (floor * pace).sqrt().clamp(pace * STEP_DOWN_MOST, pace * STEP_DOWN).max(floor * BELOW)
    }

    fn set(&mut self, pace: f64, from: Instant) {
        let pace = pace.max(SLOWEST);
        match &mut self.pace {
            Some((present, spacing)) => {
                *present = pace;
                spacing.set_per_second(pace);
            }
            None => self.pace = Some((pace, GcraLimiter::per_second(pace))),
        }
        self.raised = Some(from);
    }

    /// Probes upwards, once a second at the most, while the pace is what holds us back.
    fn raise(&mut self, now: Instant) {
        let (Some(pace), Some(throttled), Some(raised)) =
            (self.rate(), self.throttled, self.raised)
        else {
            return;
        };
        let since = now.saturating_duration_since(raised);
        // A slow pace needs longer to show whether it is used.
        let span = Duration::from_secs_f64((5.0 / pace).clamp(1.0, MEMORY.as_secs_f64() / 2.0));
        if since < span {
            return;
        }
        let used = self.recent.within(span, now) / span.as_secs_f64() / pace;
        let fresh = now.saturating_duration_since(throttled.resumes) < FORGOTTEN;
        let near = fresh && NEAR.contains(&(pace / throttled.pace.max(SLOWEST)));
        let growth = if near { GROWTH_NEAR } else { GROWTH_FAR };
        let step = if used >= USED { pace * growth * since.as_secs_f64() } else { 0.0 };
        self.set(pace + step, now);
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;
