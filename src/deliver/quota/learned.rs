//! The part of an estimate that is stored, so that a restart does not have to learn it again.

use std::ops::RangeInclusive;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::cap::InFlightCap;
use super::chance::RandomRefusals;
use super::pace::PaceEstimate;
use super::window::{QuotaCycle, QuotaWindow};
use super::{QuotaEstimator, secs};

/// Two numbers that differ by less than this share are equal.
const SAME: f64 = 0.03;
/// How far apart refusals are at a learned pace, in seconds: it need not grow fast.
const SECS_APART: f64 = 10.0;
/// How long a pace that was resumed after a closed period is tested, in seconds.
const TRIAL_SECS: f64 = 5.0;
/// The valid ranges: of a rate, a window's length in seconds and its count, a limit on
/// concurrent requests, and a share by chance. The stored row may have been edited.
const RATES: RangeInclusive<f64> = 1e-3..=1e5;
const WINDOW_SECS: RangeInclusive<f64> = 1.0..=86_400.0 * 31.0;
const WINDOW_COUNTS: RangeInclusive<f64> = 1.0..=1e9;
const IN_FLIGHT: RangeInclusive<u32> = 1..=100_000;
const BY_CHANCE: RangeInclusive<f64> = 0.01..=0.9;

/// The estimate of a throttle. Its JSON is stored: names never change, and each may be missing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LearnedQuota {
    /// Attempts per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<f64>,
    /// The length of the server's window in seconds, and its count.
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<(f64, f64)>,
    /// Concurrent requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight: Option<u32>,
    /// The share that is refused by chance.
    #[serde(skip_serializing_if = "Option::is_none")]
    by_chance: Option<f64>,
}

impl LearnedQuota {
    /// Whether no limit is known.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Requests a second that it allows; `None` if that is not known.
    pub fn per_sec(&self) -> Option<f64> {
        let window = self.window.map(|(length, count)| count / length);
        let known = [self.rate, window].into_iter().flatten();
        known.filter(|rate| rate.is_finite() && *rate > 0.0).reduce(f64::min)
    }

    /// Whether it differs so little from another that it need not be stored again.
    pub fn is_close_to(&self, other: &Self) -> bool {
        let near = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= SAME * a.abs().max(b.abs()),
            (a, b) => a.is_some() == b.is_some(),
        };
        near(self.rate, other.rate)
            && near(self.by_chance, other.by_chance)
            && near(self.window.map(|w| w.0), other.window.map(|w| w.0))
            && near(self.window.map(|w| w.1), other.window.map(|w| w.1))
            && self.in_flight == other.in_flight
    }
}

impl QuotaEstimator {
    /// The estimate so far; `None` while everything is refused, and shortly after that, when the
    /// pace may be far too fast.
    pub fn learned(&self, now: Instant) -> Option<LearnedQuota> {
        let is_tried = self.pace_kept.is_some_and(|at| secs(now, at) < TRIAL_SECS);
        if self.closed.is_some() || is_tried {
            return None;
        }
        let share = self.chance.share();
        Some(LearnedQuota {
            rate: self.pace.as_ref().map(PaceEstimate::base),
            window: self.cycle.window().map(|window| (window.length, window.count)),
            in_flight: self.cap.limit(),
            by_chance: (share > 0.0).then_some(share),
        })
    }

    /// An estimator that starts with an earlier estimate.
    pub fn with_learned(now: Instant, learned: LearnedQuota) -> Self {
        let mut estimator = Self::new(now);
        if let Some(rate) = learned.rate.filter(|rate| RATES.contains(rate)) {
            estimator.pace = Some(PaceEstimate::new(rate));
        }
        if let Some((length, count)) = learned.window
            && WINDOW_SECS.contains(&length)
            && WINDOW_COUNTS.contains(&count)
        {
            estimator.cycle = QuotaCycle::with_window(QuotaWindow { length, count });
        }
        estimator.slow_growth(SECS_APART);
        if let Some(limit) = learned.in_flight.filter(|limit| IN_FLIGHT.contains(limit)) {
            estimator.cap = InFlightCap::with_limit(limit);
        }
        if let Some(share) = learned.by_chance.filter(|share| BY_CHANCE.contains(share)) {
            estimator.chance = RandomRefusals::with_share(share);
        }
        estimator
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::bench::{Client, Hints, Load, Throttle, run_clients};
    use super::*;

    const LOAD: Load = Load {
        clients: 1,
        users: 40,
        latency: 0.05,
        before: 0.5,
        jitter: 0.2,
        hints: Hints::None,
        length: 60.0,
    };

    /// What a process learned of a throttle when it is killed after some seconds.
    fn learn_for(throttle: Throttle, seconds: u32) -> Option<LearnedQuota> {
        let start = Instant::now();
        let mut clients = [Client::new(start, LOAD.users)];
        let load = Load { length: f64::from(seconds), ..LOAD };
        run_clients(throttle, load, start, &mut clients, 7);
        clients[0].estimator.learned(start + std::time::Duration::from_secs(seconds.into()))
    }

    /// What is stored of it when it is killed after a minute, or two: not each moment stores.
    fn learn(throttle: &Throttle) -> LearnedQuota {
        let learned = (50..=130).rev().find_map(|s| learn_for(throttle.clone(), s)).unwrap();
        let json = serde_json::to_string(&learned).unwrap();
        let read: LearnedQuota = serde_json::from_str(&json).unwrap();
        assert!(read.is_close_to(&learned) && !read.is_empty(), "{json}");
        read
    }

    #[test]
    fn restarted_estimator_uses_the_quota_from_the_first_second() {
        // Guarantees that a process that begins with what another learned uses 95 % of the quota
        // in its first 20 s, with fewer refusals than one that has to search, and 6 % at most: a
        // bucket that filled up meanwhile allows more at first.
        for (name, throttle, ideal) in [
            ("sliding 50/1", Throttle::sliding(50, 1.0), 50.0),
            ("fixed 100/10", Throttle::fixed(100, 10.0), 10.0),
            ("sliding 600/60", Throttle::sliding(600, 60.0), 10.0),
            ("bucket 20/s of 20", Throttle::bucket(20.0, 20.0), 20.0),
            ("8 at a time", Throttle::InFlight { num: 8 }, 160.0),
        ] {
            let learned = learn(&throttle);
            let start = Instant::now();
            let [new, continued] = [LearnedQuota::default(), learned].map(|learned| {
                let mut client = Client::new(start, LOAD.users);
                client.estimator = QuotaEstimator::with_learned(start, learned);
                let load = Load { length: 20.0, ..LOAD };
                let outcome = run_clients(throttle.clone(), load, start, &mut [client], 8);
                (100.0 * outcome.rate(0, 20) / ideal, outcome.refused_percent(0, 20))
            });
            println!(
                "{name}: {learned:?}; used and refused: new {new:.1?}, continued {continued:.1?}"
            );
            assert!(continued.0 >= 95.0 && continued.1 <= new.1.min(6.0), "{name}: {continued:?}");
        }
    }

    #[test]
    fn small_change_is_not_stored_again() {
        // Guarantees that a pace that varies by 2 % is the same, and one that varies by 5 % is not,
        // nor is a limit that is known to one of them only.
        let at = |rate: f64| LearnedQuota { rate: Some(rate), ..LearnedQuota::default() };
        assert!(at(50.0).is_close_to(&at(51.0)));
        assert!(!at(50.0).is_close_to(&at(52.6)));
        assert!(!at(50.0).is_close_to(&LearnedQuota::default()));
        assert!(!at(50.0).is_close_to(&LearnedQuota { in_flight: Some(8), ..at(50.0) }));
    }

    #[test]
    fn nothing_is_learned_while_everything_is_refused() {
        // Guarantees that an estimate during a storm of refusals is not stored.
        let now = Instant::now();
        let mut estimator = QuotaEstimator::new(now);
        assert_eq!(estimator.learned(now), Some(LearnedQuota::default()));
        for _ in 0..super::super::MIN_RUN {
            let ticket = estimator.take(now);
            estimator.refused(now, ticket, None, super::super::RateLimitHeaders::default());
        }
        assert!(estimator.is_closed());
        assert_eq!(estimator.learned(now), None);
    }

    #[test]
    fn stored_values_that_make_no_sense_are_ignored() {
        // Guarantees that an edited row limits nothing, and that unknown keys are allowed.
        for json in [
            "{}",
            r#"{"rate":-1,"window":[0,5],"in_flight":0,"by_chance":2}"#,
            r#"{"rate":0,"window":[60,-5],"in_flight":4294967295,"by_chance":-0.5}"#,
            r#"{"rate":1e-300,"window":[1e-300,1e-300],"by_chance":1e-300}"#,
            r#"{"rate":null,"later":{"a":1}}"#,
        ] {
            let now = Instant::now();
            let learned: LearnedQuota = serde_json::from_str(json).unwrap();
            let estimator = QuotaEstimator::with_learned(now, learned);
            assert_eq!(estimator.learned(now), Some(LearnedQuota::default()), "{json}");
            assert_eq!(estimator.ready_at(now), Some(now), "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_stored_quota_never_gets_stuck(
            rate in proptest::option::of(prop_oneof![any::<f64>(), 1e-3..1e5]),
            window in proptest::option::of(prop_oneof![
                any::<(f64, f64)>(),
                (1.0..2.7e6, 1.0..1e9),
            ]),
            in_flight in proptest::option::of(any::<u32>()),
            by_chance in proptest::option::of(prop_oneof![any::<f64>(), 0.01..0.9]),
            answers in proptest::collection::vec(any::<bool>(), 0..60),
        ) {
            // Guarantees that whatever is stored, an attempt may start within ten minutes.
            let learned = LearnedQuota { rate, window, in_flight, by_chance };
            let mut now = Instant::now();
            let mut estimator = QuotaEstimator::with_learned(now, learned);
            for accepted in answers {
                let ready = estimator.ready_at(now).unwrap().max(now);
                prop_assert!(ready - now <= std::time::Duration::from_secs(600));
                now = ready;
                let ticket = estimator.take(now);
                now += std::time::Duration::from_millis(20);
                match accepted {
                    true => estimator.accepted(now, ticket),
                    false => drop(estimator.refused(
                        now, ticket, None, super::super::RateLimitHeaders::default(),
                    )),
                }
            }
        }
    }
}
