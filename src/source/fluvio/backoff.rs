//! The pause before a cluster is asked again.
//!
//! # Invariants
//!
//! A stop ends a pause at once.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

/// The first pause.
const INITIAL_WAIT: Duration = Duration::from_millis(200);
/// The longest pause.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Pauses that double until something succeeds.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
    /// How long to try without success; `None`: for ever.
    limit: Option<Duration>,
    /// The start of the present attempts.
    since: Instant,
}

/// How a pause ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitOutcome {
    /// It is time to try again.
    Elapsed,
    /// The source was stopped.
    Stopped,
    /// The limit is reached.
    Exhausted,
}

impl Backoff {
    /// Without a limit, or with one.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        Self { next: INITIAL_WAIT, limit, since: Instant::now() }
    }

    /// An attempt succeeded.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Waits before the next attempt.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> WaitOutcome {
        let tried = self.since.elapsed();
        if self.limit.is_some_and(|limit| tried + self.next > limit) {
            return WaitOutcome::Exhausted;
        }
        let waited = stop.run_until_cancelled(sleep(self.next)).await;
        self.next = (self.next * 2).min(MAX_WAIT);
        if waited.is_some() { WaitOutcome::Elapsed } else { WaitOutcome::Stopped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_end_at_the_deadline() {
        // Pauses grow, their sum stays within the limit, and a stop ends them.
        let stop = CancellationToken::new();
        let mut backoff = Backoff::new(Some(Duration::from_secs(3)));
        let begun = Instant::now();
        let mut attempts = 0;
        while backoff.wait(&stop).await == WaitOutcome::Elapsed {
            attempts += 1;
        }
        assert_eq!(attempts, 4, "0.2 + 0.4 + 0.8 + 1.6 seconds");
        assert_eq!(begun.elapsed().as_secs(), 3);
        stop.cancel();
        assert_eq!(Backoff::new(None).wait(&stop).await, WaitOutcome::Stopped);
    }
}
