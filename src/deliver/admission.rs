//! The door: every attempt passes it alone, in the order of arrival, at the moment it may start.
//!
//! The first attempt in the queue waits for the gate, the client's rate and the learned quota together;
//! tokens are taken only when all three agree, so a pause or a cancelled caller wastes none. The
//! invariant: nothing starts while the gate is closed.

use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::pause::BackpressureGate;
use super::quota::{AfterRefusal, AttemptTicket, LearnedQuota, QuotaEstimator, RateLimitHeaders};
use super::rate::GcraLimiter;

/// Why a request that the server refused with 429 waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Throttled {
    /// Everything pauses, at least for this long.
    Paused(Duration),
    /// It joins a pause that had begun.
    Joined,
    /// It waits alone, at least for this long.
    Alone(Duration),
}

/// The door.
#[derive(Debug)]
pub(super) struct AdmissionGate {
    gate: BackpressureGate,
    line: tokio::sync::Mutex<Option<GcraLimiter>>,
    quota: Mutex<QuotaEstimator>,
    /// An answer came that the first attempt in the queue may have waited for.
    answered: Notify,
}

impl AdmissionGate {
    /// A door with the client's own limit, if there is one.
    pub(super) fn new(rate: Option<GcraLimiter>, now: Instant) -> Self {
        Self {
            gate: BackpressureGate::default(),
            line: tokio::sync::Mutex::new(rate),
            quota: Mutex::new(QuotaEstimator::new(now)),
            answered: Notify::new(),
        }
    }

    fn quota(&self) -> MutexGuard<'_, QuotaEstimator> {
        self.quota.lock()
    }

    /// What was learned of the server's quota; `None` while it is being found out.
    pub(super) fn learned(&self, now: Instant) -> Option<LearnedQuota> {
        self.quota().learned(now)
    }

    /// Begins with what was learned before. Only before the first attempt.
    pub(super) fn restore(&self, now: Instant, learned: LearnedQuota) {
        *self.quota() = QuotaEstimator::with_learned(now, learned);
    }

    /// Waits for the gate only, without a place in line.
    pub(super) async fn opened(&self) {
        self.gate.opened().await;
    }

    /// Waits for the turn and takes it. `None` when, at the turn, `wanted` says that the caller
    /// has no use for it any more; then nothing is taken.
    pub(super) async fn pass(&self, wanted: impl Fn() -> bool) -> Option<AttemptTicket> {
        let mut rate = self.line.lock().await;
        loop {
            self.gate.opened().await;
            if !wanted() {
                return None;
            }
            let now = Instant::now();
            let ready = {
                let mut quota = self.quota();
                let own = rate.as_ref().map_or(now, |rate| rate.ready_at(now));
                let ready = quota.ready_at(now).map(|ready| ready.max(own));
                if ready.is_some_and(|ready| ready <= now) && self.gate.is_open(now) {
                    if let Some(rate) = rate.as_mut() {
                        rate.take(now);
                    }
                    return Some(quota.take(now));
                }
                ready
            };
            match ready {
                // An answer can bring the moment forward.
                Some(ready) => {
                    tokio::select! {
                        () = sleep_until(ready) => {}
                        () = self.answered.notified() => {}
                    }
                }
                None => self.answered.notified().await,
            }
        }
    }

    /// Runs something on the quota, and wakes who is first in line if that may go on now.
    fn on_answer<T>(&self, now: Instant, act: impl FnOnce(&mut QuotaEstimator) -> T) -> T {
        let (done, is_earlier) = {
            let mut quota = self.quota();
            let before = quota.ready_at(now);
            let done = act(&mut quota);
            let is_earlier = match (before, quota.ready_at(now)) {
                (Some(before), Some(after)) => after < before,
                (None, after) => after.is_some(),
                (Some(_), None) => false,
            };
            (done, is_earlier)
        };
        if is_earlier {
            self.answered.notify_one();
        }
        done
    }

    /// The server took an attempt. Returns the pace, if there is one.
    pub(super) fn accepted(
        &self,
        now: Instant,
        ticket: AttemptTicket,
        headers: RateLimitHeaders,
    ) -> Option<f64> {
        self.on_answer(now, |quota| {
            quota.accepted(now, ticket);
            quota.headers(now, ticket, headers);
            quota.rate()
        })
    }

    /// An attempt ended without an answer.
    pub(super) fn abandoned(&self, now: Instant, ticket: AttemptTicket) {
        self.on_answer(now, |quota| quota.abandoned(now, ticket));
    }

    /// The server answered an attempt with 429.
    pub(super) fn refused(
        &self,
        now: Instant,
        ticket: AttemptTicket,
        after: Option<Duration>,
        headers: RateLimitHeaders,
    ) -> Throttled {
        self.on_answer(now, |quota| {
            let was_closed = quota.is_closed();
            match quota.refused(now, ticket, after, headers) {
                AfterRefusal::PauseAll(pause) if !was_closed => Throttled::Paused(pause),
                AfterRefusal::PauseAll(_) | AfterRefusal::Join => Throttled::Joined,
                AfterRefusal::RetryAlone(least) => Throttled::Alone(least),
            }
        })
    }

    /// Closes the gate for everyone. Returns whether that made the pause longer.
    pub(super) fn pause_until(&self, until: Instant) -> bool {
        self.gate.pause_until(until)
    }

    /// Whether the gate is open.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.gate.is_open(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::task::{JoinSet, yield_now};

    #[tokio::test(start_paused = true)]
    async fn requests_are_admitted_in_order_and_spaced() {
        // Guarantees that attempts start in the order they came and no faster than the limit, a
        // pause in the middle and a caller that gave up included.
        let door = Arc::new(AdmissionGate::new(
            Some(GcraLimiter::per_window(10, Duration::from_secs(1))),
            Instant::now(),
        ));
        let begin = Instant::now();
        let mut tasks = JoinSet::new();
        for n in 0..20_u32 {
            let door = Arc::clone(&door);
            tasks.spawn(async move { (n, door.pass(|| n != 7).await) });
            yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(450)).await;
        let pause = begin + Duration::from_secs(5);
        assert!(door.pause_until(pause));
        let mut starts = Vec::new();
        while let Some(done) = tasks.join_next().await {
            let (n, at) = done.unwrap();
            assert_eq!(at.is_none(), n == 7);
            starts.extend(at.map(|at| (n, at.started())));
        }
        starts.sort_by_key(|(_, at)| *at);
        assert!(starts.is_sorted_by_key(|(n, _)| *n), "{starts:?}");
        for (_, at) in &starts {
            assert!(*at < begin + Duration::from_millis(450) || *at >= pause);
        }
        // Timers tick in milliseconds, the tolerance is ten.
        for pair in starts.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= Duration::from_millis(90));
        }
    }
}
