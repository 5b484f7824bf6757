//! Throttles as real services have them, in real time. They share no code with the client.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// How a service limits requests.
#[derive(Debug, Clone)]
pub(crate) enum Limit {
    /// At most so many in any span of this length, as Django REST Framework counts: refused
    /// requests do not count.
    Sliding { num: usize, window: f64 },
    /// At most so many in each window; windows follow each other.
    Fixed { num: u32, window: f64 },
    /// A bucket that refills at this rate and holds so many.
    Bucket { rate: f64, burst: f64 },
    /// At most so many at a time.
    InFlight { num: usize },
}

/// What a refusal says of when to come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hint {
    None,
    /// `Retry-After` in whole seconds.
    RetryAfter,
    /// `X-RateLimit-Remaining` and `-Reset`, the latter in seconds.
    Headers,
}

/// An answer of a throttle, and when it came, in seconds since the first one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Decision {
    pub(crate) at: f64,
    pub(crate) is_accepted: bool,
}

/// A running throttle.
#[derive(Debug, Clone)]
pub(crate) struct Throttle {
    limit: Limit,
    hint: Hint,
    /// Another limit from this second on.
    change: Option<(f64, Limit)>,
    /// Everything is refused between these seconds.
    storm: (f64, f64),
    /// Every so many-th request is refused besides; 0: none.
    every: u32,
    asked: u32,
    start: Option<Instant>,
    accepted: VecDeque<f64>,
    window: (f64, u32),
    tokens: Option<(f64, f64)>,
    log: Vec<Decision>,
    in_flight: usize,
    /// How long accepted requests took, in seconds, and how many they were.
    served: (f64, u32),
}

impl Throttle {
    pub(crate) fn new(limit: Limit, hint: Hint) -> Self {
        Self {
            limit,
            hint,
            change: None,
            storm: (0.0, 0.0),
            every: 0,
            asked: 0,
            start: None,
            accepted: VecDeque::new(),
            window: (0.0, 0),
            tokens: None,
            log: Vec::new(),
            in_flight: 0,
            served: (0.0, 0),
        }
    }

    /// From this second on it has another limit.
    pub(crate) fn then(mut self, at: f64, limit: Limit) -> Self {
        self.change = Some((at, limit));
        self
    }

    /// Between these seconds everything is refused.
    pub(crate) fn storm(mut self, from: f64, to: f64) -> Self {
        self.storm = (from, to);
        self
    }

    /// Every `every`-th request is refused, whatever the pace.
    pub(crate) fn refusing_every(mut self, every: u32) -> Self {
        self.every = every;
        self
    }

    /// Seconds since the first request.
    pub(crate) fn now(&self) -> f64 {
        self.start.map_or(0.0, |start| start.elapsed().as_secs_f64())
    }

    /// An accepted request was answered after this long.
    pub(crate) fn served(&mut self, took: Duration) {
        self.in_flight = self.in_flight.saturating_sub(1);
        self.served.0 += took.as_secs_f64();
        self.served.1 += 1;
    }

    /// What a limit on requests at a time allows, in requests a second: how long they take is the
    /// server's matter.
    pub(crate) fn allowed_at_a_time(&self) -> Option<f64> {
        let Limit::InFlight { num } = self.limit else { return None };
        #[expect(clippy::cast_precision_loss, reason = "a small count")]
        let num = num as f64;
        Some(num * f64::from(self.served.1) / self.served.0.max(1e-9))
    }

    /// What it decided so far.
    pub(crate) fn log(&self) -> &[Decision] {
        &self.log
    }

    /// Decides about a request. `None`: accepted, and `served` is called when it has its answer;
    /// else the headers of the refusal, each with its line end.
    pub(crate) fn ask(&mut self) -> Option<String> {
        let now = Instant::now();
        let at = (now - *self.start.get_or_insert(now)).as_secs_f64();
        if let Some((_, limit)) = self.change.take_if(|(from, _)| at >= *from) {
            self.limit = limit;
            self.tokens = None;
        }
        self.asked += 1;
        let by_chance = self.every > 0 && self.asked.is_multiple_of(self.every);
        let is_storm = (self.storm.0..self.storm.1).contains(&at);
        let wait = if by_chance || is_storm { Some(1.0) } else { self.count(at) };
        self.log.push(Decision { at, is_accepted: wait.is_none() });
        if wait.is_none() {
            self.in_flight += 1;
        }
        let seconds = Duration::from_secs_f64(wait?.ceil().max(1.0)).as_secs();
        Some(match self.hint {
            Hint::None => String::new(),
            Hint::RetryAfter => format!("Retry-After: {seconds}\r\n"),
            Hint::Headers => {
                format!("X-RateLimit-Remaining: 0\r\nX-RateLimit-Reset: {seconds}\r\n")
            }
        })
    }

    /// `None`: there is room; else the seconds until there is.
    fn count(&mut self, at: f64) -> Option<f64> {
        match self.limit {
            Limit::Sliding { num, window } => {
                while self.accepted.front().is_some_and(|first| first + window <= at) {
                    self.accepted.pop_front();
                }
                if self.accepted.len() >= num {
                    // After a change to a smaller number more than that may be in the window.
                    return Some(self.accepted[self.accepted.len() - num] + window - at);
                }
                self.accepted.push_back(at);
                None
            }
            Limit::Fixed { num, window } => {
                let start = (at / window).floor() * window;
                if start > self.window.0 {
                    self.window = (start, 0);
                }
                if self.window.1 >= num {
                    return Some(start + window - at);
                }
                self.window.1 += 1;
                None
            }
            Limit::Bucket { rate, burst } => {
                let (tokens, last) = self.tokens.unwrap_or((burst, at));
                let tokens = (tokens + (at - last) * rate).min(burst);
                let is_enough = tokens >= 1.0;
                self.tokens = Some((if is_enough { tokens - 1.0 } else { tokens }, at));
                (!is_enough).then(|| (1.0 - tokens) / rate)
            }
            Limit::InFlight { num } => (self.in_flight >= num).then_some(1.0),
        }
    }
}
