//! The estimator against servers with quotas, in made-up time.

use super::*;
use crate::deliver::concurrency::{Controller, ControllerSettings, LoadSignal};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// How a server counts.
enum Quota {
    Bucket {
        rate: f64,
        burst: f64,
        tokens: f64,
        last: Instant,
    },
    Fixed {
        num: u32,
        window: Duration,
        start: Instant,
        used: u32,
    },
    Sliding {
        num: usize,
        window: Duration,
        log: VecDeque<Instant>,
    },
    /// No quota at all: every so often a refusal, by dice.
    Chance {
        share: f64,
        dice: Box<StdRng>,
    },
}

impl Quota {
    fn bucket(rate: f64, burst: f64, now: Instant) -> Self {
        Self::Bucket { rate, burst, tokens: burst, last: now }
    }

    fn fixed(num: u32, window: Duration, now: Instant) -> Self {
        Self::Fixed { num, window, start: now, used: 0 }
    }

    /// `None` = accepted, else `Retry-After`.
    fn ask(&mut self, now: Instant) -> Option<Duration> {
        let whole = |d: Duration| Duration::from_secs_f64(d.as_secs_f64().ceil().max(1.0));
        match self {
            Self::Bucket { rate, burst, tokens, last } => {
                *tokens = (*tokens + (now - *last).as_secs_f64() * *rate).min(*burst);
                *last = now;
                if *tokens < 1.0 {
                    return Some(whole(Duration::from_secs_f64((1.0 - *tokens) / *rate)));
                }
                *tokens -= 1.0;
                None
            }
            Self::Fixed { num, window, start, used } => {
                while now >= *start + *window {
                    *start += *window;
                    *used = 0;
                }
                if *used == *num {
                    return Some(whole(*start + *window - now));
                }
                *used += 1;
                None
            }
            Self::Sliding { num, window, log } => {
                while log.front().is_some_and(|t| *t + *window <= now) {
                    log.pop_front();
                }
                if log.len() == *num {
                    return Some(whole(log[0] + *window - now));
                }
                log.push_back(now);
                None
            }
            Self::Chance { share, dice } => {
                dice.random_bool(*share).then_some(Duration::from_secs(1))
            }
        }
    }
}

struct Run {
    accepted: u32,
    refused: u32,
}

impl Run {
    fn refused_share(&self) -> f64 {
        f64::from(self.refused) / f64::from(self.refused + self.accepted)
    }
}

/// Runs the estimator and the controller with endless work against a server.
fn run(mut quota: Quota, start: Instant, latency: Duration, length: Duration) -> Run {
    let mut estimator = QuotaEstimator::new();
    let mut controller = Controller::new(ControllerSettings::default(), start);
    // (when the answer is back, when it was asked, Retry-After in ms or MAX for accepted)
    let mut flying: BinaryHeap<Reverse<(Instant, Instant, Option<Duration>)>> = BinaryHeap::new();
    let mut gate = start;
    let mut now = start;
    let mut result = Run { accepted: 0, refused: 0 };
    while now < start + length {
        let ready = estimator.ready_at(now).max(gate).max(now);
        let landing = flying.peek().map(|Reverse((back, ..))| *back);
        let may_start = flying.len() < controller.limit();
        if may_start && landing.is_none_or(|back| ready < back) {
            // Timers fire on the next whole millisecond.
            let micros = (ready - start).as_micros();
            now = start + Duration::from_millis(u64::try_from(micros.div_ceil(1000)).unwrap());
            estimator.take(now);
            controller.sent(now);
            let answer = quota.ask(now + latency / 2);
            flying.push(Reverse((now + latency, now, answer)));
            continue;
        }
        let Reverse((back, sent, answer)) = flying.pop().unwrap();
        now = now.max(back);
        match answer {
            None => {
                result.accepted += 1;
                estimator.accepted(now);
                controller.done(now, now - sent, LoadSignal::Good);
            }
            Some(pause) => {
                result.refused += 1;
                estimator.refused(now, sent, pause);
                gate = gate.max(now + pause);
                controller.done(now, now - sent, LoadSignal::Backpressure);
            }
        }
    }
    result
}

const MINUTE: Duration = Duration::from_secs(60);

fn check(name: &str, quota: Quota, start: Instant, rate: f64, latency_ms: u32) {
    let run = run(quota, start, Duration::from_millis(latency_ms.into()), MINUTE);
    let share = f64::from(run.accepted) / (rate * 60.0);
    println!(
        "{name} latency {latency_ms} ms: {:.1} % of the quota, {:.1} % refused",
        share * 100.0,
        run.refused_share() * 100.0
    );
    // At 500/s and 150 ms the ramp to the needed concurrency takes a noticeable part of the minute.
    let least = if rate * f64::from(latency_ms) > 50_000.0 { 0.9 } else { 0.95 };
    assert!(share >= least, "{name} at {latency_ms} ms: {share}");
    assert!(run.refused_share() <= 0.05, "{name} at {latency_ms} ms: {}", run.refused_share());
}

#[test]
fn token_bucket_quota_is_used_with_few_refusals() {
    // Guarantees >= 95 % of the quota and <= 5 % refusals over a minute, from a cold start.
    for latency in [2, 20, 50, 150] {
        for rate in [10.0, 50.0, 500.0] {
            let start = Instant::now();
            check("bucket", Quota::bucket(rate, rate, start), start, rate, latency);
        }
    }
}

#[test]
fn fixed_window_quota_is_used_with_few_refusals() {
    // Guarantees the same against a server that counts per second.
    for latency in [2, 20, 50, 150] {
        for rate in [10, 50, 500] {
            let start = Instant::now();
            let quota = Quota::fixed(rate, Duration::from_secs(1), start);
            check("fixed", quota, start, f64::from(rate), latency);
        }
    }
}

#[test]
fn sliding_window_quota_is_used_with_few_refusals() {
    // Guarantees the same against a server that remembers its last requests.
    for latency in [2, 20, 50, 150] {
        for rate in [10_u32, 50, 500] {
            let start = Instant::now();
            let quota = Quota::Sliding {
                num: rate as usize,
                window: Duration::from_secs(1),
                log: VecDeque::new(),
            };
            check("sliding", quota, start, f64::from(rate), latency);
        }
    }
}

#[test]
fn large_burst_does_not_mislead_estimate_for_long() {
    // Guarantees that a first estimate a hundred times too high is corrected within a few refusals.
    let start = Instant::now();
    let run = run(Quota::bucket(10.0, 1000.0, start), start, Duration::from_millis(50), MINUTE * 5);
    assert!(run.accepted >= 3000 * 95 / 100, "{}", run.accepted);
    assert!(run.refused_share() <= 0.1, "{}", run.refused_share());
}

#[test]
fn no_request_is_delayed_before_first_refusal() {
    // Guarantees that a server without a quota is never paced.
    let mut estimator = QuotaEstimator::new();
    let now = Instant::now();
    for _ in 0..1000 {
        assert_eq!(estimator.ready_at(now), now);
        estimator.take(now);
        estimator.accepted(now);
    }
    assert_eq!(estimator.rate(), None);
}

#[test]
fn raised_quota_is_found() {
    // Guarantees that after a quota is lifted tenfold the pace follows within minutes.
    let start = Instant::now();
    let mut estimator = QuotaEstimator::new();
    let mut now = start;
    for _ in 0..10 {
        now += Duration::from_millis(100);
        estimator.accepted(now);
    }
    assert!(estimator.refused(now, now, Duration::from_secs(1)));
    let low = estimator.rate().unwrap();
    now += Duration::from_secs(1);
    while now < start + MINUTE * 5 {
        now = estimator.ready_at(now).max(now) + Duration::from_micros(1);
        estimator.take(now);
        estimator.accepted(now);
    }
    assert!(estimator.rate().unwrap() > low * 10.0);
}

#[test]
fn refusals_of_one_episode_lower_rate_once() {
    // Guarantees that a hundred answers to attempts already on their way count as one.
    let mut estimator = QuotaEstimator::new();
    let start = Instant::now();
    let now = start + Duration::from_millis(50);
    estimator.accepted(now);
    assert!(estimator.refused(now, start, Duration::from_secs(1)));
    let rate = estimator.rate();
    for _ in 0..100 {
        assert!(!estimator.refused(now, start, Duration::from_secs(1)));
    }
    assert_eq!(estimator.rate(), rate);
}

#[test]
fn refusals_without_success_set_no_rate() {
    // Guarantees that a server that refuses from the first moment on (someone else used up the
    // quota) is not crept along at for minutes afterwards.
    let mut estimator = QuotaEstimator::new();
    let mut now = Instant::now();
    for _ in 0..5 {
        estimator.refused(now, now, Duration::from_secs(1));
        now += Duration::from_secs(1);
    }
    assert_eq!(estimator.rate(), None);
    assert_eq!(estimator.ready_at(now), now);
}

#[test]
fn one_refusal_lowers_rate_by_half_at_most() {
    // Guarantees that one refusal right after another does not throw away a pace that was found.
    let mut estimator = QuotaEstimator::new();
    let mut now = Instant::now();
    for _ in 0..100 {
        now += Duration::from_millis(10);
        estimator.accepted(now);
    }
    estimator.refused(now, now, Duration::from_secs(1));
    let before = estimator.rate().unwrap();
    now += Duration::from_secs(1);
    assert!(estimator.refused(now, now, Duration::from_secs(1)));
    assert!(estimator.rate().unwrap() >= before * 0.5);
}

#[test]
fn random_refusals_do_not_collapse_the_rate() {
    // Guarantees that refusals that have nothing to do with the pace cost little more than the
    // pauses they ask for: without those there would be 70 attempts to each second of pause.
    let rate = |seed| {
        let start = Instant::now();
        let chance =
            Quota::Chance { share: 1.0 / 70.0, dice: Box::new(StdRng::seed_from_u64(seed)) };
        let run = run(chance, start, Duration::from_millis(20), MINUTE * 5);
        f64::from(run.accepted) / 300.0
    };
    let rates: Vec<f64> = (0..10).map(rate).collect();
    println!("by chance: {rates:.1?}/s");
    assert!(rates.iter().sum::<f64>() / 10.0 >= 20.0, "{rates:?}");
    assert!(rates.iter().all(|rate| *rate >= 10.0), "{rates:?}");
}
