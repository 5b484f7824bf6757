//! What is worth keeping of an estimate, so that a restart does not learn it again.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::QuotaEstimator;
use super::cap::InFlightCap;
use super::chance::RandomRefusals;
use super::pace::PaceEstimate;
use super::window::{QuotaCycle, QuotaWindow};

/// What was learned of a throttle. Its JSON is stored: names stay, and each may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnedQuota {
    /// Attempts a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// The length of the server's window in seconds, and what it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<(f64, f64)>,
    /// Requests at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    /// The share that is refused by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_chance: Option<f64>,
}

impl LearnedQuota {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether it differs so little from another that it need not be stored again.
    pub fn is_close_to(&self, other: &Self) -> bool {
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 0.1 * a.abs().max(b.abs()),
            (a, b) => a.is_some() == b.is_some(),
        };
        near(self.rate, other.rate)
            && near(self.by_chance, other.by_chance)
            && near(self.window.map(|w| w.0), other.window.map(|w| w.0))
            && near(self.window.map(|w| w.1), other.window.map(|w| w.1))
            && self.in_flight == other.in_flight
    }
}

/// A number that makes sense. What is stored may come from anywhere.
fn sane(value: f64, most: f64) -> Option<f64> {
    (value.is_finite() && value > 0.0 && value <= most).then_some(value)
}

impl QuotaEstimator {
    /// What was learned so far.
    pub fn learned(&self) -> LearnedQuota {
        let share = self.chance.share();
        LearnedQuota {
            rate: self.pace.as_ref().map(PaceEstimate::base),
            window: self.cycle.window().map(|window| (window.length, window.count)),
            in_flight: self.cap.limit(),
            by_chance: (share > 0.0).then_some(share),
        }
    }

    /// An estimator that begins with what was learned before.
    pub fn with_learned(now: Instant, learned: LearnedQuota) -> Self {
        let mut estimator = Self::new(now);
        if let Some(rate) = learned.rate.and_then(|rate| sane(rate, 1e5)) {
            estimator.pace = Some(PaceEstimate::new(rate));
        }
        if let Some((length, count)) = learned.window
            && let (Some(length), Some(count)) = (sane(length, 1e6), sane(count, 1e9))
        {
            estimator.cycle = QuotaCycle::with_window(QuotaWindow { length, count });
        }
        if let Some(limit) = learned.in_flight.filter(|limit| *limit > 0) {
            estimator.cap = InFlightCap::with_limit(limit);
        }
        if let Some(share) = learned.by_chance.and_then(|share| sane(share, 0.9)) {
            estimator.chance = RandomRefusals::with_share(share);
        }
        estimator
    }
}
