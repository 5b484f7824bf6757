//! How long and how often a cluster is asked again.
//!
//! # Invariants
//! A stop ends a wait at once.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;

/// The first wait.
const INITIAL_WAIT: Duration = Duration::from_millis(200);
/// The longest pause.
const MAX_WAIT: Duration = Duration::from_secs(10);

/// Attempts with a backoff, until one succeeds or the time is over.
#[derive(Debug)]
pub(super) struct ClusterRetry {
    backoff: Backoff,
    /// How long it is tried without success; `None`: without end.
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
    /// The limit of time is reached.
    Exhausted,
}

impl ClusterRetry {
    /// Attempts without end, or for `limit`.
    pub(super) fn new(limit: Option<Duration>) -> Self {
        let backoff = Backoff::new(INITIAL_WAIT, MAX_WAIT);
        Self { backoff, limit, since: Instant::now() }
    }

    /// An attempt succeeded.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.limit);
    }

    /// Waits before the next attempt.
    pub(super) async fn wait(&mut self, stop: &CancellationToken) -> WaitOutcome {
        let mut after = self.backoff;
        let end = self.since.elapsed() + after.next_wait();
        if self.limit.is_some_and(|limit| end > limit) {
            return WaitOutcome::Exhausted;
        }
        match self.backoff.wait(stop).await {
            true => WaitOutcome::Elapsed,
            false => WaitOutcome::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_grow_and_end_at_the_deadline() {
        // Pauses grow, their sum stays within the limit, and a stop ends them.
        let stop = CancellationToken::new();
        let mut retry = ClusterRetry::new(Some(Duration::from_secs(3)));
        let begun = Instant::now();
        let mut attempts = 0;
        while retry.wait(&stop).await == WaitOutcome::Elapsed {
            attempts += 1;
        }
        assert_eq!(attempts, 4, "0.2 + 0.4 + 0.8 + 1.6 seconds");
        assert_eq!(begun.elapsed().as_secs(), 3);
        stop.cancel();
        assert_eq!(ClusterRetry::new(None).wait(&stop).await, WaitOutcome::Stopped);
    }
}
