//! The client's own rate limit: when the next attempt may start so that no window holds too many.
//!
//! It is the generic cell rate algorithm with a tolerance in time in place of a burst in cells.
//! Order of arrival is kept by the admission gate, not here.
//!
//! # Invariants
//!
//! In no half-open window of `rate_limit_duration` do more than `rate_limit_num` attempts start.

use std::time::Duration;

use tokio::time::Instant;

/// Evenly spaced starts.
///
/// If each start were spaced from the last one, a timer that fires late would cost throughput. So
/// starts are spaced on an ideal timeline, and an attempt may be later than its slot by the
/// tolerance without losing it. The spacing is `(window + tolerance) / num`, which keeps the
/// invariant exact; the tolerance is 1 % of the window, at most 20 ms.
#[derive(Debug, Clone)]
pub struct GcraLimiter {
    interval: Duration,
    tolerance: Duration,
    ideal: Option<Instant>,
}

impl GcraLimiter {
    /// At most `num` starts in any window of this length. A `num` of 0 counts as 1.
    pub fn per_window(num: u32, window: Duration) -> Self {
        let tolerance = (window / 100).min(Duration::from_millis(20));
        let interval = (window + tolerance) / num.max(1);
        // Integer division rounds down; one nanosecond more keeps the invariant exact.
        Self { interval: interval + Duration::from_nanos(1), tolerance, ideal: None }
    }

    /// `per_sec` starts a second, with a tolerance of a few timer ticks.
    pub fn per_second(per_sec: f64) -> Self {
        let mut spacing =
            Self { interval: Duration::ZERO, tolerance: Duration::from_millis(10), ideal: None };
        spacing.set_per_second(per_sec);
        spacing
    }

    /// Changes the rate; attempts that have started are not affected.
    pub fn set_per_second(&mut self, per_sec: f64) {
        self.interval = Duration::from_secs_f64(1.0 / per_sec.clamp(0.001, 1e6));
    }

    /// The earliest moment the next attempt may start.
    pub fn ready_at(&self, now: Instant) -> Instant {
        self.ideal.unwrap_or(now)
    }

    /// Records that an attempt starts now. Call it only when [`ready_at`](Self::ready_at) has come.
    pub fn take(&mut self, now: Instant) {
        let on_time = match self.ideal {
            // Late by less than the tolerance: the timeline is kept. Later: it begins again, as far
            // back as the tolerance allows.
            Some(ideal) => match now.checked_sub(self.tolerance) {
                Some(earliest) => ideal.max(earliest),
                None => now,
            },
            None => now,
        };
        self.ideal = Some(on_time + self.interval);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn starts(spacing: &mut GcraLimiter, delays: &[u64]) -> Vec<Instant> {
        let mut now = Instant::now();
        let mut starts = Vec::new();
        for delay in delays {
            // The caller wakes at the requested time, plus the delay of the machine.
            now = now.max(spacing.ready_at(now)) + Duration::from_micros(*delay);
            spacing.take(now);
            starts.push(now);
        }
        starts
    }

    #[test]
    fn late_timer_costs_no_throughput() {
        // Guarantees at least 98 % of 500/s although every wake-up is a millisecond late.
        let mut spacing = GcraLimiter::per_window(500, Duration::from_secs(1));
        let starts = starts(&mut spacing, &[1000; 5000]);
        let took = (starts[4999] - starts[0]).as_secs_f64();
        assert!(took < 5000.0 / 500.0 / 0.98, "{took}");
    }

    #[test]
    fn request_starts_are_evenly_spaced() {
        // Guarantees there is no burst at the start.
        let mut spacing = GcraLimiter::per_window(10, Duration::from_secs(1));
        let starts = starts(&mut spacing, &[0; 20]);
        for pair in starts.windows(2) {
            assert!(pair[1] - pair[0] >= Duration::from_millis(100));
        }
    }

    proptest! {
        #[test]
        fn no_window_exceeds_the_limit(
            num in 1_u32..60,
            window_ms in 50_u64..3000,
            delays in proptest::collection::vec(
                prop_oneof![Just(0), 0_u64..2000, 0_u64..400_000], 1..400),
        ) {
            // Guarantees the invariant for every window, however late callers wake.
            let window = Duration::from_millis(window_ms);
            let mut spacing = GcraLimiter::per_window(num, window);
            let starts = starts(&mut spacing, &delays);
            for (i, first) in starts.iter().enumerate() {
                let inside = starts[i..].iter().take_while(|t| **t < *first + window).count();
                prop_assert!(inside <= num as usize, "{inside} > {num}");
            }
        }

        #[test]
        fn server_with_same_bucket_never_refuses(
            num in 1_u32..100,
            delays in proptest::collection::vec(0_u64..50_000, 1..500),
        ) {
            // Guarantees that a token bucket of the same size and refill is never found empty.
            let mut spacing = GcraLimiter::per_window(num, Duration::from_secs(1));
            let starts = starts(&mut spacing, &delays);
            let (mut tokens, mut last) = (f64::from(num), starts[0]);
            for start in starts {
                let refill = (start - last).as_secs_f64() * f64::from(num);
                tokens = (tokens + refill).min(f64::from(num)) - 1.0;
                prop_assert!(tokens > -1e-6, "{tokens}");
                last = start;
            }
        }
    }
}
