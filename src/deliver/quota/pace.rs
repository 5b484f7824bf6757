//! How fast attempts may start, and how the pace grows while nothing is refused.

use tokio::time::Instant;

use super::super::rate::GcraLimiter;

/// The slowest and the fastest pace, in attempts per second.
const SLOWEST: f64 = 0.005;
const FASTEST: f64 = 1e5;
/// Growth begins with this share of the base and doubles from there.
const FIRST_GROWTH: f64 = 0.01;
/// After this many doublings the pace is well above the base: growth is twice as fast.
const NEAR_DOUBLINGS: f64 = 2.6;
const MAX_DOUBLINGS: f64 = 40.0;
/// A raised quota starts with this many doublings.
const RAISED_DOUBLINGS: f64 = 4.5;
/// The shortest time of a doubling, in seconds and in attempts.
const MIN_DOUBLING_SECS: f64 = 1.5;
const MIN_DOUBLING_ATTEMPTS: f64 = 25.0;

/// A pace: a base that the server allowed, and its growth since then.
///
/// Growth is slow near the base, where refusals are likely, and accelerates: 1 % after the first
/// doubling time, 30 % after four, ten times after seven.
#[derive(Debug, Clone)]
pub(super) struct PaceEstimate {
    base: f64,
    doublings: f64,
    /// Seconds that a doubling takes at least.
    doubling_secs: f64,
    limiter: GcraLimiter,
}

impl PaceEstimate {
    pub(super) fn new(base: f64) -> Self {
        let base = base.clamp(SLOWEST, FASTEST);
        let limiter = GcraLimiter::per_second(base);
        Self { base, doublings: 0.0, doubling_secs: 0.0, limiter }
    }

    /// Attempts per second without the growth.
    pub(super) fn base(&self) -> f64 {
        self.base
    }

    /// Attempts per second now.
    pub(super) fn rate(&self) -> f64 {
        (self.base * (1.0 + FIRST_GROWTH * (self.doublings.exp2() - 1.0))).min(FASTEST)
    }

    /// Begins again from this base.
    pub(super) fn set(&mut self, base: f64) {
        self.base = base.clamp(SLOWEST, FASTEST);
        self.doublings = 0.0;
        self.limiter.set_per_second(self.base);
    }

    /// Sets how many seconds a doubling of the growth takes at least.
    pub(super) fn set_doubling_secs(&mut self, seconds: f64) {
        self.doubling_secs = seconds;
    }

    /// Reports that for this time the pace was used up and nothing was refused.
    pub(super) fn grow(&mut self, seconds: f64) {
        let doubling = (MIN_DOUBLING_ATTEMPTS / self.rate()).max(MIN_DOUBLING_SECS);
        let doubling = doubling.max(self.doubling_secs);
        let speed = if self.doublings > NEAR_DOUBLINGS { 2.0 } else { 1.0 };
        self.doublings = (self.doublings + speed * seconds / doubling).min(MAX_DOUBLINGS);
        self.limiter.set_per_second(self.rate());
    }

    /// Reports that the server allowed more than was known.
    pub(super) fn quota_was_raised(&mut self) {
        self.base = self.rate();
        self.doubling_secs = 0.0;
        self.doublings = RAISED_DOUBLINGS;
        self.limiter.set_per_second(self.rate());
    }

    pub(super) fn ready_at(&self, now: Instant) -> Instant {
        self.limiter.ready_at(now)
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.limiter.take(now);
    }
}
