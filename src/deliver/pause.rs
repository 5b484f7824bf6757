//! One pause for the whole sink (the gate).
//!
//! A pause is a point in time, not a count: a later one extends it, and all attempts wait for the
//! same one. The order in which they continue is decided elsewhere.
//!
//! # Invariants
//!
//! The gate never opens before the latest requested time.

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep_until};

/// The time until which nothing starts, without waiting.
#[derive(Debug, Clone, Copy, Default)]
pub struct PauseUntil {
    until: Option<Instant>,
}

impl PauseUntil {
    /// Extends the pause to `until`; a shorter one changes nothing. Returns whether it grew.
    pub fn extend(&mut self, until: Instant) -> bool {
        let grew = self.until.is_none_or(|present| present < until);
        if grew {
            self.until = Some(until);
        }
        grew
    }

    /// The time to wait for, if it is in the future.
    pub fn waiting(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }
}

/// The shared gate.
#[derive(Debug, Default)]
pub struct BackpressureGate {
    pause: Mutex<PauseUntil>,
}

impl BackpressureGate {
    fn pause(&self) -> MutexGuard<'_, PauseUntil> {
        self.pause.lock()
    }

    /// Closes the gate until `until`, or leaves it closed for longer. Returns whether that made the
    /// pause longer.
    pub fn pause_until(&self, until: Instant) -> bool {
        self.pause().extend(until)
    }

    /// Whether attempts may start now.
    pub fn is_open(&self, now: Instant) -> bool {
        self.pause().waiting(now).is_none()
    }

    /// Waits until the gate is open.
    pub async fn opened(&self) {
        loop {
            let waiting = self.pause().waiting(Instant::now());
            match waiting {
                // The pause may have been extended meanwhile: check again.
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;
    use std::time::Duration;
    use tokio::task::JoinSet;
    use tokio::time::sleep;

    async fn all_wait(pauses: Vec<(u64, u64)>, waiters: Vec<u64>) {
        let gate = Arc::new(BackpressureGate::default());
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (at, length) in pauses.clone() {
            let gate = Arc::clone(&gate);
            tasks.spawn(async move {
                sleep(Duration::from_millis(at)).await;
                gate.pause_until(Instant::now() + Duration::from_millis(length));
            });
        }
        for at in waiters {
            let gate = Arc::clone(&gate);
            let pauses = pauses.clone();
            tasks.spawn(async move {
                sleep(Duration::from_millis(at)).await;
                gate.opened().await;
                let passed = (Instant::now() - start).as_millis();
                for (from, length) in pauses {
                    let inside = u128::from(from) < passed && passed < u128::from(from + length);
                    assert!(!inside, "passed at {passed} during the pause {from}+{length}");
                }
            });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap();
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_request_is_sent_during_a_pause(
            pauses in proptest::collection::vec((0_u64..2000, 0_u64..1500), 0..8),
            waiters in proptest::collection::vec(0_u64..4000, 1..20),
        ) {
            // Guarantees that an attempt that starts at any time passes outside every requested pause.
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time().start_paused(true).build().unwrap();
            runtime.block_on(all_wait(pauses, waiters));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn shorter_pause_does_not_shorten_a_longer_one() {
        // Guarantees the maximum of all pauses, and the report of whether one grew.
        let gate = BackpressureGate::default();
        let start = Instant::now();
        assert!(gate.pause_until(start + Duration::from_secs(5)));
        assert!(!gate.pause_until(start + Duration::from_secs(2)));
        gate.opened().await;
        assert_eq!(start.elapsed(), Duration::from_secs(5));
        assert!(gate.is_open(Instant::now()));
    }
}
