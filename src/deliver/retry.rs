//! How long to wait before the next attempt: exponential backoff with full jitter, and a retry
//! budget that all requests share.
//!
//! Time and randomness are arguments.
//!
//! # Invariants
//!
//! The budget makes waits longer; it never forbids a retry.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::config::sink::RequestConfig;

/// When to send a request again, and when to give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The ceiling of the first wait.
    pub initial: Duration,
    /// The ceiling of every wait.
    pub longest: Duration,
    /// How many retries are allowed; `None` = any number.
    pub repeats: Option<u32>,
}

impl RetryPolicy {
    /// Reads `retry_initial_backoff_secs`, `retry_max_duration_secs` and `retry_attempts`.
    pub fn new(config: &RequestConfig) -> Self {
        Self {
            initial: Duration::from_secs(config.retry_initial_backoff_secs),
            longest: Duration::from_secs(config.retry_max_duration_secs),
            repeats: (config.retry_attempts > 0).then_some(config.retry_attempts),
        }
    }

    /// Whether this many failures in a row use up the retries.
    pub fn exhausted(&self, failed: u32) -> bool {
        self.repeats.is_some_and(|repeats| failed > repeats)
    }

    /// The longest wait after this many failures: `initial` doubled for every failure but the
    /// first, never above `longest`.
    pub fn ceiling(&self, failed: u32) -> Duration {
        Backoff::new(self.initial, self.longest).after(failed)
    }

    /// Full jitter: a random wait up to the ceiling, so that requests that failed together are not
    /// sent again together.
    pub fn backoff(&self, failed: u32, rng: &mut impl Rng) -> Duration {
        self.ceiling(failed).mul_f64(rng.random::<f64>())
    }
}

/// Retries as a share of traffic: a token bucket that first attempts fill.
///
/// A retry takes a token. If there is none, it waits until its token is there, so a server that is
/// down receives [`FLOOR_PER_SEC`](Self::FLOOR_PER_SEC) retries a second, however many requests
/// wait.
#[derive(Debug, Clone)]
pub struct RetryBudget {
    tokens: f64,
    refilled: Instant,
    longest: Duration,
}

impl RetryBudget {
    /// Retries earned by one first attempt.
    pub const SHARE: f64 = 0.2;
    /// Retries a second that need not be earned.
    pub const FLOOR_PER_SEC: f64 = 10.0;
    /// Retries that can be saved.
    pub const SAVED: f64 = 100.0;

    /// A budget with the floor of one second in it; no wait that it returns is longer than
    /// `longest`.
    pub fn new(now: Instant, longest: Duration) -> Self {
        Self { tokens: Self::FLOOR_PER_SEC, refilled: now, longest }
    }

    fn refill(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.refilled).as_secs_f64();
        self.refilled = self.refilled.max(now);
        self.tokens = (self.tokens + elapsed * Self::FLOOR_PER_SEC).min(Self::SAVED);
    }

    /// Records a first attempt.
    pub fn earn(&mut self, now: Instant) {
        self.refill(now);
        self.tokens = (self.tokens + Self::SHARE).min(Self::SAVED);
    }

    /// Takes a retry out of the budget and returns how long it has to wait for it: zero while the
    /// budget lasts.
    pub fn spend(&mut self, now: Instant) -> Duration {
        self.refill(now);
        // Debt is capped, so a long outage does not slow later traffic.
        let deepest = -Self::FLOOR_PER_SEC * self.longest.as_secs_f64();
        self.tokens = (self.tokens - 1.0).max(deepest);
        let debt = (-self.tokens).max(0.0);
        Duration::from_secs_f64(debt / Self::FLOOR_PER_SEC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    fn policy(repeats: Option<u32>) -> RetryPolicy {
        RetryPolicy { initial: Duration::from_secs(1), longest: Duration::from_secs(60), repeats }
    }

    #[test]
    fn backoff_ceiling_doubles_up_to_its_maximum() {
        // Guarantees the series 1, 2, 4 … 32, 60, 60 for the defaults, without overflow.
        let policy = policy(None);
        let series: Vec<u64> = (1..=8).map(|n| policy.ceiling(n).as_secs()).collect();
        assert_eq!(series, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(policy.ceiling(u32::MAX), Duration::from_secs(60));
    }

    #[test]
    fn zero_attempts_means_no_limit() {
        // Guarantees that retry_attempts = 0 never gives up and n allows exactly n retries.
        let unlimited = RetryPolicy::new(&RequestConfig::default());
        assert!(!unlimited.exhausted(u32::MAX));
        assert!(!policy(Some(3)).exhausted(3));
        assert!(policy(Some(3)).exhausted(4));
    }

    #[test]
    fn full_jitter_covers_the_whole_interval() {
        // Guarantees that waits spread from near zero to near the ceiling.
        let mut rng = StdRng::seed_from_u64(7);
        let waits: Vec<_> = (0..1000).map(|_| policy(None).backoff(4, &mut rng)).collect();
        let mean = waits.iter().sum::<Duration>() / 1000;
        assert!(waits.iter().any(|w| *w < Duration::from_millis(400)));
        assert!(waits.iter().any(|w| *w > Duration::from_millis(7600)));
        assert!((3.5..4.5).contains(&mean.as_secs_f64()), "{mean:?}");
    }

    #[test]
    fn retry_budget_falls_to_floor_rate() {
        // Guarantees that a thousand failures at once retry no faster than the floor, and that none
        // is refused.
        let now = Instant::now();
        let mut budget = RetryBudget::new(now, Duration::from_secs(600));
        let waits: Vec<_> = (0..1000).map(|_| budget.spend(now)).collect();
        for second in 0..90_u64 {
            let due = waits.iter().filter(|w| (second..second + 1).contains(&w.as_secs())).count();
            assert!(due <= 21, "{due} retries in second {second}");
        }
        assert!(waits.last().unwrap().as_secs() >= 98);
    }

    #[test]
    fn retries_up_to_a_fifth_of_traffic_are_not_delayed() {
        // Guarantees that occasional failures are not slowed down.
        let mut now = Instant::now();
        let mut budget = RetryBudget::new(now, Duration::from_secs(60));
        for n in 0..10_000 {
            now += Duration::from_millis(1);
            budget.earn(now);
            if n % 5 == 0 {
                assert_eq!(budget.spend(now), Duration::ZERO);
            }
        }
    }

    proptest! {
        #[test]
        fn backoff_stays_within_bounds(failed in 1_u32.., seed: u64) {
            // Guarantees 0 <= backoff <= ceiling <= longest.
            let policy = policy(None);
            let mut rng = StdRng::seed_from_u64(seed);
            prop_assert!(policy.backoff(failed, &mut rng) <= policy.ceiling(failed));
        }

        #[test]
        fn retry_budget_wait_never_exceeds_maximum(
            steps in proptest::collection::vec((0_u64..2000, any::<bool>()), 1..300),
        ) {
            // Guarantees that debt is bounded whatever the history.
            let longest = Duration::from_secs(5);
            let mut now = Instant::now();
            let mut budget = RetryBudget::new(now, longest);
            for (millis, retry) in steps {
                now += Duration::from_millis(millis);
                if retry {
                    prop_assert!(budget.spend(now) <= longest);
                } else {
                    budget.earn(now);
                }
            }
        }
    }
}
