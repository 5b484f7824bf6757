//! A log of accepted attempts, as counts in time steps.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// The first length of a step. It doubles when there are too many steps.
const FIRST_STEP: Duration = Duration::from_millis(20);
/// The most steps that are stored.
const MAX_STEPS: usize = 2000;
/// Older attempts are removed.
const MAX_AGE: Duration = Duration::from_secs(3600);

/// The times of accepted attempts.
#[derive(Debug, Clone)]
pub(super) struct AcceptedLog {
    steps: VecDeque<(Instant, u32)>,
    step: Duration,
}

impl AcceptedLog {
    pub(super) fn new() -> Self {
        Self { steps: VecDeque::new(), step: FIRST_STEP }
    }

    /// Records an accepted attempt.
    pub(super) fn add(&mut self, now: Instant) {
        match self.steps.back_mut() {
            Some((since, count)) if now < *since + self.step => *count += 1,
            _ => self.steps.push_back((now, 1)),
        }
        while self.steps.front().is_some_and(|(since, _)| *since + MAX_AGE < now) {
            self.steps.pop_front();
        }
        if self.steps.len() > MAX_STEPS {
            self.coarsen();
        }
    }

    /// Merges neighbours into steps of twice the length.
    fn coarsen(&mut self) {
        self.step *= 2;
        let mut coarse: VecDeque<(Instant, u32)> = VecDeque::with_capacity(MAX_STEPS);
        for (at, count) in self.steps.drain(..) {
            match coarse.back_mut() {
                Some((since, sum)) if at < *since + self.step => *sum += count,
                _ => coarse.push_back((at, count)),
            }
        }
        self.steps = coarse;
    }

    /// Accepted attempts per second, over the last seconds.
    pub(super) fn rate(&self, now: Instant, seconds: f64) -> f64 {
        let from = now.checked_sub(Duration::from_secs_f64(seconds)).unwrap_or(now);
        let newest_first = self.steps.iter().rev();
        let counts = newest_first.take_while(|(at, _)| *at >= from).map(|(_, n)| f64::from(*n));
        counts.sum::<f64>() / seconds
    }
}
