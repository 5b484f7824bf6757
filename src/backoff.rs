//! Exponential backoff: waits that double up to a limit.

use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// A series of waits: the first, then twice as long each time, never above the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    limit: Duration,
    waits: u32,
}

impl Backoff {
    /// A series that has not begun.
    pub(crate) const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, waits: 0 }
    }

    /// The wait after this many failures in a row; after none it is the first one too.
    pub(crate) fn after(&self, failures: u32) -> Duration {
        let doublings = failures.saturating_sub(1).min(31);
        self.first.saturating_mul(1 << doublings).min(self.limit)
    }

    /// The next wait.
    pub(crate) fn next_wait(&mut self) -> Duration {
        self.waits = self.waits.saturating_add(1);
        self.last_wait()
    }

    /// The present wait: the one that [`next_wait`](Self::next_wait) returned last.
    pub(crate) fn last_wait(&self) -> Duration {
        self.after(self.waits)
    }

    /// Something succeeded: the series begins again.
    pub(crate) fn reset(&mut self) {
        self.waits = 0;
    }

    /// Waits for the next wait. `false` if the process stopped first.
    pub(crate) async fn wait(&mut self, stop: &CancellationToken) -> bool {
        let wait = self.next_wait();
        stop.run_until_cancelled(sleep(wait)).await.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const LIMIT: Duration = Duration::from_secs(10);

    #[test]
    fn waits_double_up_to_the_limit_and_begin_again_after_a_success() {
        // The series is 1, 2, 4, 8, 10, 10 and never overflows.
        let mut backoff = Backoff::new(Duration::from_secs(1), LIMIT);
        let waits: Vec<u64> = (0..6).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.after(u32::MAX), LIMIT);
        backoff.reset();
        assert_eq!(backoff.next_wait().as_secs(), 1);
        assert_eq!(backoff.last_wait().as_secs(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_ends_a_wait() {
        // A stopped process does not wait, a running one waits as long as the series says.
        let stop = CancellationToken::new();
        let begun = Instant::now();
        assert!(Backoff::new(LIMIT, LIMIT).wait(&stop).await);
        assert_eq!(begun.elapsed(), LIMIT);
        stop.cancel();
        assert!(!Backoff::new(LIMIT, LIMIT).wait(&stop).await);
        assert_eq!(begun.elapsed(), LIMIT);
    }
}
