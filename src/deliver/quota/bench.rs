//! A test bench: simulated throttles of each kind, and clients with endless work.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::{AfterRefusal, AttemptTicket, QuotaEstimator, RateLimitHeaders};
use crate::deliver::concurrency::{Controller, ControllerSettings, LoadSignal};

/// A throttle. Times are seconds from the beginning of the run.
#[derive(Debug, Clone)]
pub(super) enum Throttle {
    /// Allows everything.
    Free,
    Bucket {
        rate: f64,
        burst: f64,
        tokens: f64,
        last: f64,
    },
    Fixed {
        num: u32,
        window: f64,
        present: f64,
        used: u32,
    },
    /// A list of the accepted ones, as Django REST Framework has it.
    Sliding {
        num: usize,
        window: f64,
        log: VecDeque<f64>,
    },
    /// So many requests at a time.
    InFlight {
        num: u32,
    },
    /// Refuses each so many-th, and asks another about the rest.
    Every {
        num: u32,
        asked: u32,
        rest: Box<Throttle>,
    },
    /// Refuses a share by chance, and asks another about the rest.
    Chance {
        share: f64,
        rest: Box<Throttle>,
    },
    /// Refuses everything between two moments.
    Storm {
        from: f64,
        to: f64,
        rest: Box<Throttle>,
    },
    /// Becomes another throttle at a moment.
    Change {
        at: f64,
        before: Box<Throttle>,
        after: Box<Throttle>,
    },
}

impl Throttle {
    pub(super) fn bucket(rate: f64, burst: f64) -> Self {
        Self::Bucket { rate, burst, tokens: burst, last: 0.0 }
    }

    pub(super) fn fixed(num: u32, window: f64) -> Self {
        Self::Fixed { num, window, present: 0.0, used: 0 }
    }

    pub(super) fn sliding(num: usize, window: f64) -> Self {
        Self::Sliding { num, window, log: VecDeque::new() }
    }

    pub(super) fn every(num: u32, rest: Self) -> Self {
        Self::Every { num, asked: 0, rest: Box::new(rest) }
    }

    pub(super) fn chance(share: f64, rest: Self) -> Self {
        Self::Chance { share, rest: Box::new(rest) }
    }

    pub(super) fn storm(from: f64, to: f64, rest: Self) -> Self {
        Self::Storm { from, to, rest: Box::new(rest) }
    }

    pub(super) fn change(at: f64, before: Self, after: Self) -> Self {
        Self::Change { at, before: Box::new(before), after: Box::new(after) }
    }

    /// `None` = accepted, else the seconds until it makes sense to ask again.
    fn ask(&mut self, now: f64, in_flight: u32, rng: &mut StdRng) -> Option<f64> {
        match self {
            Self::Free => None,
            Self::Bucket { rate, burst, tokens, last } => {
                *tokens = (*tokens + (now - *last) * *rate).min(*burst);
                *last = now;
                if *tokens < 1.0 {
                    return Some((1.0 - *tokens) / *rate);
                }
                *tokens -= 1.0;
                None
            }
            Self::Fixed { num, window, present, used } => {
                let start = (now / *window).floor() * *window;
                if start > *present {
                    (*present, *used) = (start, 0);
                }
                if *used >= *num {
                    return Some(*present + *window - now);
                }
                *used += 1;
                None
            }
            Self::Sliding { num, window, log } => {
                while log.front().is_some_and(|at| *at + *window <= now) {
                    log.pop_front();
                }
                if log.len() >= *num {
                    return Some(log[0] + *window - now);
                }
                log.push_back(now);
                None
            }
            Self::InFlight { num } => (in_flight > *num).then_some(1.0),
            Self::Every { num, asked, rest } => {
                *asked += 1;
                match asked.is_multiple_of(*num) {
                    true => Some(1.0),
                    false => rest.ask(now, in_flight, rng),
                }
            }
            Self::Chance { share, rest } => match rng.random_bool(*share) {
                true => Some(1.0),
                false => rest.ask(now, in_flight, rng),
            },
            Self::Storm { from, to, rest } => match (*from..*to).contains(&now) {
                true => Some(1.0),
                false => rest.ask(now, in_flight, rng),
            },
            Self::Change { at, before, after } => match now < *at {
                true => before.ask(now, in_flight, rng),
                false => after.ask(now, in_flight, rng),
            },
        }
    }
}

/// What refusals say of when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hints {
    None,
    RetryAfter,
    /// `RateLimit-Remaining` and `-Reset`.
    Headers,
}

/// Who sends, and how far away the server is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Processes that share the throttle.
    pub(super) clients: usize,
    /// Requests that each has to send at any time.
    pub(super) users: usize,
    /// The round trip in seconds.
    pub(super) latency: f64,
    /// Which part of it is over when a request arrives.
    pub(super) before: f64,
    /// By which share of itself it varies.
    pub(super) jitter: f64,
    pub(super) hints: Hints,
    /// How long it lasts, in seconds.
    pub(super) length: f64,
}

/// What was accepted and refused in each second.
#[derive(Debug, Clone)]
pub(super) struct BenchOutcome {
    pub(super) accepted: Vec<u32>,
    pub(super) refused: Vec<u32>,
}

impl BenchOutcome {
    /// Accepted attempts a second, from one second to another.
    pub(super) fn rate(&self, from: usize, to: usize) -> f64 {
        f64::from(self.accepted[from..to].iter().sum::<u32>()) / (to - from) as f64
    }

    /// The refused share in percent, from one second to another.
    pub(super) fn refused_percent(&self, from: usize, to: usize) -> f64 {
        let refused: u32 = self.refused[from..to].iter().sum();
        let accepted: u32 = self.accepted[from..to].iter().sum();
        100.0 * f64::from(refused) / f64::from((refused + accepted).max(1))
    }
}

/// One process: its estimator, its concurrency, and the users whose requests wait.
pub(super) struct Client {
    pub(super) estimator: QuotaEstimator,
    controller: Controller,
    in_flight: usize,
    /// When which user may send, and how often its request was refused.
    ready: BTreeSet<(Instant, usize, u32)>,
}

impl Client {
    pub(super) fn new(start: Instant, users: usize) -> Self {
        Self {
            estimator: QuotaEstimator::new(start),
            controller: Controller::new(ControllerSettings::default(), start),
            in_flight: 0,
            ready: (0..users).map(|user| (start, user, 0)).collect(),
        }
    }

    /// When it sends next. Timers fire at whole milliseconds.
    fn next_start(&self, start: Instant, now: Instant) -> Option<Instant> {
        let (ready, ..) = self.ready.first()?;
        if self.in_flight >= self.controller.limit() {
            return None;
        }
        let ready = (*ready).max(self.estimator.ready_at(now)?).max(now);
        if ready == now {
            return Some(now);
        }
        let micros = u64::try_from((ready - start).as_micros()).unwrap() + 1;
        Some(start + Duration::from_millis(micros.div_ceil(1000)))
    }
}

/// What happens next to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    Arrives,
    /// Accepted, or refused with this `Retry-After`.
    Answered(Option<Duration>),
}

type Event = Reverse<(Instant, Step, usize, usize, u32, AttemptTicket)>;

/// Runs clients against a throttle.
pub(super) fn run(throttle: Throttle, load: Load, seed: u64) -> BenchOutcome {
    let start = Instant::now();
    let mut clients: Vec<_> = (0..load.clients).map(|_| Client::new(start, load.users)).collect();
    run_clients(throttle, load, start, &mut clients, seed)
}

/// Runs these clients against a throttle.
pub(super) fn run_clients(
    mut throttle: Throttle,
    load: Load,
    start: Instant,
    clients: &mut [Client],
    seed: u64,
) -> BenchOutcome {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut events: BinaryHeap<Event> = BinaryHeap::new();
    let mut now = start;
    let mut at_server = 0;
    let seconds = load.length as usize + 1;
    let mut outcome = BenchOutcome { accepted: vec![0; seconds], refused: vec![0; seconds] };
    let end = start + Duration::from_secs_f64(load.length);
    let part = |part: f64, rng: &mut StdRng| {
        let varies = 1.0 + 2.0 * load.jitter * (rng.random::<f64>() - 0.5);
        Duration::from_secs_f64(load.latency * part * varies)
    };
    while now < end {
        let starts = clients.iter().enumerate();
        let next = starts.filter_map(|(n, c)| Some((c.next_start(start, now)?, n))).min();
        let event = events.peek().map(|Reverse((at, ..))| *at);
        if let Some((at, n)) = next
            && event.is_none_or(|event| at <= event)
        {
            now = at;
            let client = &mut clients[n];
            if client.estimator.ready_at(now).is_none_or(|ready| ready > now) {
                continue;
            }
            let (_, user, failed) = client.ready.pop_first().unwrap();
            let ticket = client.estimator.take(now);
            client.controller.sent(now);
            client.in_flight += 1;
            let arrives = now + part(load.before, &mut rng);
            events.push(Reverse((arrives, Step::Arrives, n, user, failed, ticket)));
            continue;
        }
        let Some(Reverse((at, step, n, user, failed, ticket))) = events.pop() else {
            panic!("stuck: no request may be sent and none is in flight");
        };
        now = now.max(at);
        let Step::Answered(answer) = step else {
            at_server += 1;
            let wait = throttle.ask((now - start).as_secs_f64(), at_server, &mut rng);
            let answer = wait.map(|wait| Duration::from_secs_f64(wait.ceil().max(1.0)));
            // A refusal takes no work.
            let left = if answer.is_some() { load.before / 2.0 } else { 1.0 - load.before };
            let back = part(left, &mut rng);
            events.push(Reverse((now + back, Step::Answered(answer), n, user, failed, ticket)));
            continue;
        };
        at_server -= 1;
        let client = &mut clients[n];
        client.in_flight -= 1;
        let rtt = now - ticket.started();
        let second = (now - start).as_secs() as usize;
        let Some(hint) = answer else {
            if let Some(count) = outcome.accepted.get_mut(second) {
                *count += 1;
            }
            client.estimator.accepted(now, ticket);
            client.controller.done(now, rtt, LoadSignal::Good);
            client.ready.insert((now, user, 0));
            continue;
        };
        if let Some(count) = outcome.refused.get_mut(second) {
            *count += 1;
        }
        let headers = match load.hints {
            Hints::Headers => RateLimitHeaders { remaining: Some(0), reset: Some(hint) },
            _ => RateLimitHeaders::default(),
        };
        let hint = (load.hints == Hints::RetryAfter).then_some(hint);
        let advice = client.estimator.refused(now, ticket, hint, headers);
        client.controller.done(now, rtt, LoadSignal::Neutral);
        let ready = match advice {
            AfterRefusal::PauseAll(_) | AfterRefusal::Join => now,
            AfterRefusal::RetryAlone(least) => now + alone(least, failed, hint),
        };
        client.ready.insert((ready, user, failed + 1));
    }
    outcome
}

/// As the dispatcher does it.
fn alone(least: Duration, failed: u32, hint: Option<Duration>) -> Duration {
    let own = (least * (1 << failed.min(9))).min(Duration::from_secs(60));
    match hint {
        Some(hint) if hint > Duration::from_secs(1) => hint,
        Some(hint) => own.min(hint),
        None => own,
    }
}
