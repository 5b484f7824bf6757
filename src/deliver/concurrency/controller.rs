//! Adaptive concurrency: additive increase, multiplicative decrease, with Vector's constants.
//!
//! It receives the starts and ends of attempts and returns how many may be in flight. A window
//! lasts one mean round trip; at its end the limit grows by one, falls to nine tenths, or stays. It
//! differs from Vector in three points, each for a measured reason:
//!
//! * It starts by doubling, until the first back pressure or rise in latency: adding one per round
//!   trip takes 10 s to reach 200 at 50 ms.
//! * It stores an unloaded round trip and does not accept latency beyond twice that. A mean that
//!   follows the latency lets the latency of a queueing server grow without end.
//! * The stored round trip is measured again from time to time, with a third of the limit for three
//!   round trips, and at once when half the limit does not make a slow server faster, so that a
//!   change in the mix of requests is not mistaken for load.
//!
//! # Invariants
//!
//! 1 <= limit <= the configured maximum.

use std::time::Duration;

use tokio::time::Instant;

/// The controller's constants.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ControllerSettings {
    /// The first limit. Default: 1.
    pub initial: usize,
    /// The highest limit. Default: 200.
    pub max: usize,
    /// The factor of a decrease. Default: 0.9.
    pub decrease_ratio: f64,
    /// The weight of the newest window in the mean of the past. Default: 0.4.
    pub ewma_alpha: f64,
    /// How many standard deviations above the past mean count as a rise in latency. Default: 2.5.
    pub rtt_deviation_scale: f64,
}

impl Default for ControllerSettings {
    fn default() -> Self {
        Self {
            initial: 1,
            max: 200,
            decrease_ratio: 0.9,
            ewma_alpha: 0.4,
            rtt_deviation_scale: 2.5,
        }
    }
}

/// What an attempt shows about the server's load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoadSignal {
    /// It was completed; its round trip counts.
    Good,
    /// Overload: 429, 5xx, timeout, no connection.
    Backpressure,
    /// Nothing (for example a 400).
    Neutral,
}

/// Ratios to the unloaded latency: above the first one there is load, below the second there is
/// none.
const HIGH: f64 = 2.0;
const LOW: f64 = 1.5;
/// Differences below this many seconds are noise of timers and schedulers.
const NOISE: f64 = 0.005;
/// How long the unloaded round trip is valid: this long, and this many round trips.
const RENEW: Duration = Duration::from_secs(30);
const RENEW_TRIPS: f64 = 100.0;
/// Round trips a drain takes.
const DRAIN_WINDOWS: u8 = 3;
/// Half the limit must bring the latency below this share of what it was; otherwise load was not
/// the reason.
const RELIEF: f64 = 0.75;
/// The window before any round trip is known.
const FIRST_WINDOW: f64 = 1.0;

/// Exponentially weighted mean and variance of window means, in seconds.
#[derive(Debug, Clone, Copy)]
struct LatencyHistory {
    mean: f64,
    variance: f64,
}

/// The current window.
#[derive(Debug, Clone, Copy)]
struct RttWindow {
    started: Instant,
    sum: f64,
    count: u32,
    /// The limit was reached: more could have been sent.
    full: bool,
    pressed: bool,
}

impl RttWindow {
    fn new(now: Instant) -> Self {
        Self { started: now, sum: 0.0, count: 0, full: false, pressed: false }
    }

    fn mean(&self) -> Option<f64> {
        (self.count > 0).then(|| self.sum / f64::from(self.count))
    }
}

/// A short time at a third of the limit, to measure the unloaded round trip again.
#[derive(Debug, Clone, Copy)]
struct Drain {
    back_to: usize,
    windows: u8,
    lowest: f64,
}

/// Where a series of decreases for high latency began.
#[derive(Debug, Clone, Copy)]
struct HighLatency {
    limit: usize,
    mean: f64,
}

/// The controller.
#[derive(Debug, Clone)]
pub struct Controller {
    settings: ControllerSettings,
    limit: usize,
    in_flight: usize,
    window: RttWindow,
    past: Option<LatencyHistory>,
    /// The unloaded round trip and when it was last measured.
    unloaded: Option<(f64, Instant)>,
    doubling: bool,
    drain: Option<Drain>,
    high: Option<HighLatency>,
    /// Back pressure on attempts started before this time has been taken into account.
    answered: Instant,
}

impl Controller {
    /// A controller at its first limit.
    pub fn new(settings: ControllerSettings, now: Instant) -> Self {
        Self {
            settings,
            limit: settings.initial.clamp(1, settings.max.max(1)),
            in_flight: 0,
            window: RttWindow::new(now),
            past: None,
            unloaded: None,
            doubling: true,
            drain: None,
            high: None,
            answered: now,
        }
    }

    /// The current limit.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Records the start of an attempt.
    pub fn sent(&mut self, now: Instant) {
        if self.in_flight == 0 && self.window.count == 0 {
            // After a time without attempts the window starts with the first one.
            self.window.started = now;
        }
        self.in_flight += 1;
        self.window.full |= self.in_flight >= self.limit;
    }

    /// Records that an attempt was abandoned, which shows nothing.
    pub fn dropped(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Records that an attempt ended `rtt` after its start. Returns the limit if it changed.
    pub fn done(&mut self, now: Instant, rtt: Duration, signal: LoadSignal) -> Option<usize> {
        self.in_flight = self.in_flight.saturating_sub(1);
        match signal {
            LoadSignal::Good => {
                self.window.sum += rtt.as_secs_f64();
                self.window.count += 1;
            }
            LoadSignal::Backpressure => {
                let started = now.checked_sub(rtt).unwrap_or(now);
                self.window.pressed |= started >= self.answered;
            }
            LoadSignal::Neutral => {}
        }
        let length = self.window.mean().or(self.past.map(|past| past.mean)).unwrap_or(FIRST_WINDOW);
        let over = now.saturating_duration_since(self.window.started).as_secs_f64() >= length;
        if !over {
            return None;
        }
        let before = self.limit;
        self.close_window(now);
        (self.limit != before).then_some(self.limit)
    }

    fn close_window(&mut self, now: Instant) {
        let window = std::mem::replace(&mut self.window, RttWindow::new(now));
        self.window.full = self.in_flight >= self.limit;
        if let Some(drain) = self.drain {
            return self.drained(drain, window, now);
        }
        if window.pressed {
            self.doubling = false;
            self.decrease(now);
        } else if let Some(mean) = window.mean() {
            self.adjust(mean, window.full, now);
        }
        self.remember(window, now);
    }

    /// Changes the limit according to the round trips of a window.
    fn adjust(&mut self, mean: f64, full: bool, now: Instant) {
        let over = |factor: f64| {
            self.unloaded.is_some_and(|(unloaded, _)| mean > unloaded * factor + NOISE)
        };
        if self.doubling {
            if over(LOW) {
                self.doubling = false;
                self.decrease(now);
            } else if full {
                self.limit = (self.limit * 2).min(self.settings.max);
            }
            return;
        }
        let Some(past) = self.past else { return };
        let deviation = (self.settings.rtt_deviation_scale * past.variance.sqrt()).max(NOISE);
        if over(HIGH) {
            return self.relieve(mean, now);
        }
        self.high = None;
        if mean >= past.mean + deviation.max(past.mean * 0.1) {
            self.decrease(now);
        } else if full && !over(LOW) && mean <= past.mean * 1.01 {
            self.limit = (self.limit + 1).min(self.settings.max);
        }
    }

    /// The latency is high: lower the limit, unless a lower limit has been shown not to help.
    fn relieve(&mut self, mean: f64, now: Instant) {
        let began = *self.high.get_or_insert(HighLatency { limit: self.limit, mean });
        if self.limit * 2 <= began.limit.max(2) {
            self.high = None;
            if mean > began.mean * RELIEF {
                self.unloaded = Some((mean, now));
                return;
            }
        }
        self.decrease(now);
    }

    fn decrease(&mut self, now: Instant) {
        self.limit = scaled(self.limit, self.settings.decrease_ratio);
        self.answered = now;
    }

    /// Merges a window into the past, and starts a drain when the unloaded round trip is stale.
    fn remember(&mut self, window: RttWindow, now: Instant) {
        let Some(mean) = window.mean() else { return };
        self.past = Some(match self.past {
            None => LatencyHistory { mean, variance: 0.0 },
            Some(past) => {
                let alpha = self.settings.ewma_alpha;
                let diff = mean - past.mean;
                LatencyHistory {
                    mean: past.mean + alpha * diff,
                    variance: (1.0 - alpha) * (past.variance + alpha * diff * diff),
                }
            }
        });
        match self.unloaded {
            Some((unloaded, seen)) if mean > unloaded * 1.1 => {
                let age = now.saturating_duration_since(seen);
                if age >= RENEW && age.as_secs_f64() >= mean * RENEW_TRIPS {
                    self.drain =
                        Some(Drain { back_to: self.limit, windows: DRAIN_WINDOWS, lowest: mean });
                    self.limit = scaled(self.limit, 1.0 / 3.0);
                }
            }
            Some((unloaded, _)) if mean > unloaded => self.unloaded = Some((unloaded, now)),
            _ => self.unloaded = Some((mean, now)),
        }
    }

    /// One window of a drain is over. The first one still holds attempts from before.
    fn drained(&mut self, drain: Drain, window: RttWindow, now: Instant) {
        if window.pressed {
            self.drain = None;
            return self.decrease(now);
        }
        let Some(mean) = window.mean() else { return };
        let lowest = drain.lowest.min(mean);
        if drain.windows > 1 {
            self.drain = Some(Drain { windows: drain.windows - 1, lowest, ..drain });
            return;
        }
        self.drain = None;
        self.unloaded = Some((lowest, now));
        self.limit = drain.back_to;
    }
}

/// A limit times a ratio of at most one, rounded down, at least one.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "limits are small and ratios positive"
)]
fn scaled(limit: usize, ratio: f64) -> usize {
    ((limit as f64 * ratio).floor() as usize).max(1)
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
