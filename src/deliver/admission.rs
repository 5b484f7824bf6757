//! The admission gate: every attempt passes it alone, in order of arrival, when it may start.
//!
//! The first attempt in the queue waits for the pause, the client's rate and the estimated quota
//! together; tokens are taken only when all three allow it, so a pause or a cancelled caller wastes
//! none.
//!
//! # Invariants
//!
//! Nothing starts during a pause.

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

/// The gate.
#[derive(Debug)]
pub(super) struct AdmissionGate {
    gate: BackpressureGate,
    line: tokio::sync::Mutex<Option<GcraLimiter>>,
    quota: Mutex<QuotaEstimator>,
    /// Notifies of a response for which the first attempt in the queue may have waited.
    answered: Notify,
}

impl AdmissionGate {
    /// A gate with the client's own limit, if there is one.
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

    /// The estimated quota of the server; `None` while it is not known.
    pub(super) fn learned(&self, now: Instant) -> Option<LearnedQuota> {
        self.quota().learned(now)
    }

    /// Starts with an earlier estimate. Call it only before the first attempt.
    pub(super) fn restore(&self, now: Instant, learned: LearnedQuota) {
        *self.quota() = QuotaEstimator::with_learned(now, learned);
    }

    /// Waits for the end of a pause only, without a position in the queue.
    pub(super) async fn opened(&self) {
        self.gate.opened().await;
    }

    /// Waits in the queue and takes the tokens. `None` if `wanted` returns false when the attempt
    /// may start, because the caller does not need it any more; then nothing is taken.
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
                // A response can make the time earlier.
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

    /// Runs a function on the quota, and notifies the first attempt in the queue if it may start
    /// now.
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

    /// Reports that the server accepted an attempt. Returns the pace, if there is one.
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

    /// Reports that an attempt ended without a response.
    pub(super) fn abandoned(&self, now: Instant, ticket: AttemptTicket) {
        self.on_answer(now, |quota| quota.abandoned(now, ticket));
    }

    /// Reports that the server answered an attempt with 429.
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

    /// Pauses all attempts. Returns whether that made the pause longer.
    pub(super) fn pause_until(&self, until: Instant) -> bool {
        self.gate.pause_until(until)
    }

    /// Whether there is no pause.
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
        // Guarantees that attempts start in order of arrival and no faster than the limit, also
        // with a pause in between and a caller that gave up.
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
        // Timers have ticks of a millisecond; the tolerance is ten.
        for pair in starts.windows(2) {
            assert!(pair[1].1 - pair[0].1 >= Duration::from_millis(90));
        }
    }
}
