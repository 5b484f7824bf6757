//! Response times, in buckets that can be read back: a histogram of the metrics library cannot.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets grow by this factor from 1 ms; the last one holds everything slower.
const GROWTH: f64 = 1.25;
const BUCKETS: usize = 56;

/// Counts response times.
#[derive(Debug)]
pub struct Latency([AtomicU64; BUCKETS]);

impl Default for Latency {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatencyCounts([u64; BUCKETS]);

impl Default for LatencyCounts {
    fn default() -> Self {
        Self([0; BUCKETS])
    }
}

impl Latency {
    /// Counts one.
    pub fn add(&self, rtt: Duration) {
        let ms = rtt.as_secs_f64() * 1_000.0;
        let bucket = if ms <= 1.0 { 0.0 } else { (ms.ln() / GROWTH.ln()).ceil() };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative, and far below the limit of usize"
        )]
        let bucket = (bucket as usize).min(BUCKETS - 1);
        self.0[bucket].fetch_add(1, Ordering::Relaxed);
    }

    /// The counts so far.
    pub fn counts(&self) -> LatencyCounts {
        LatencyCounts(std::array::from_fn(|n| self.0[n].load(Ordering::Relaxed)))
    }
}

impl LatencyCounts {
    /// The response time, in milliseconds, that a share (0 to 1) of the responses between two
    /// moments did not exceed. `None` if there were none.
    pub fn quantile_since(&self, earlier: &Self, share: f64) -> Option<f64> {
        let counts = || self.0.iter().zip(&earlier.0).map(|(now, then)| now.saturating_sub(*then));
        let total: u64 = counts().sum();
        if total == 0 {
            return None;
        }
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let wanted = total as f64 * share;
        let mut seen = 0;
        let bucket = counts().position(|n| {
            seen += n;
            #[expect(clippy::cast_precision_loss, reason = "a share for people")]
            let reached = seen as f64 >= wanted;
            reached
        });
        let bucket = i32::try_from(bucket?).unwrap_or(i32::MAX);
        Some(GROWTH.powi(bucket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_within_one_bucket_of_the_truth() {
        // Guarantees the error of a quantile: at most a quarter too high, never too low.
        let latency = Latency::default();
        let before = latency.counts();
        assert_eq!(before.quantile_since(&before, 0.5), None);
        (1..=1_000).for_each(|ms| latency.add(Duration::from_millis(ms)));
        let now = latency.counts();
        for (share, truth) in [(0.5, 500.0), (0.95, 950.0), (1.0, 1_000.0)] {
            let found = now.quantile_since(&before, share).unwrap();
            assert!((truth..=truth * GROWTH).contains(&found), "{share}: {found}");
        }
        assert_eq!(now.quantile_since(&now, 0.5), None);
    }
}
