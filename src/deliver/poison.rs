//! Distinguishes poison, a request that always fails while the server accepts others, from an
//! outage.
//!
//! The time and the server's successes are arguments. A request is poison when it has failed
//! [`PoisonPolicy::attempts`] times over at least [`PoisonPolicy::least`], and
//! * other requests of its route succeeded repeatedly between its failures; or
//! * one succeeded no earlier than `SLACK` before its first failure, the server answered other
//!   routes between its failures, and hardly any other request of its route fails; or
//! * its sender can do without the answer, and the server answered other routes between its failures.
//!
//! # Invariants
//!
//! While no request succeeds, no request is poison.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::request::{ApiReply, Method, Need};

/// How long before the first failure a success of the same route still counts: requests of several
/// users are in flight at the same time.
const SLACK: Duration = Duration::from_secs(10);

/// Failures between which others have to succeed, at most.
const WITNESSED: u32 = 5;

/// Requests of a route that may fail at the same time without this being an outage of the route.
const MAX_FAILING_ALONE: usize = 2;

/// After this many times [`PoisonPolicy::least`], a run to the end no longer treats many failing
/// requests of a route as an outage while the server answers all other routes.
const OUTAGE_FACTOR: u32 = 5;

/// The most requests of one op that are tracked.
const WATCHED: usize = 4;

/// When a request is poison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoisonPolicy {
    /// Failures that are necessary; 0 = a request is never poison.
    pub attempts: u32,
    /// The shortest time since the first failure.
    pub least: Duration,
    /// What the run waits for.
    pub run: RunMode,
}

/// What a run waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMode {
    /// For nothing: it runs until it is stopped.
    Service,
    /// For the end of its input (`--once`).
    ToTheEnd,
}

impl Default for PoisonPolicy {
    fn default() -> Self {
        Self { attempts: 10, least: Duration::from_secs(600), run: RunMode::Service }
    }
}

/// The successes of the server when an attempt failed.
#[derive(Debug, Clone, Copy, Default)]
pub struct RecentSuccesses {
    /// Successes of the same method and route so far.
    pub route: u64,
    /// When the last of them was.
    pub route_last: Option<Instant>,
    /// Successes of any route so far.
    pub any: u64,
}

/// What failed of one op, by method and route.
#[derive(Debug, Default)]
pub struct FailureHistory(Vec<RouteFailure>);

/// Counts the requests of one route that fail at present: each holds a clone, and so do the route
/// and the caller.
#[derive(Debug, Clone, Default)]
pub(super) struct FailureCount(Arc<()>);

impl FailureCount {
    /// How many there are.
    fn count(&self) -> usize {
        Arc::strong_count(&self.0).saturating_sub(2)
    }
}

/// Why a request is poison.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PoisonEvidence {
    /// How often it failed.
    pub(super) failures: u32,
    /// Seconds since it failed first.
    pub(super) secs: u64,
    /// The failure of the last attempt.
    pub(super) why: Cow<'static, str>,
    /// The last response, if there was one.
    pub(super) answer: Option<ApiReply>,
}

#[derive(Debug)]
struct RouteFailure {
    method: Method,
    route: &'static str,
    first: Instant,
    failures: u32,
    seen: RecentSuccesses,
    /// Whether a success of the route is close to the first failure or after it.
    succeeds: bool,
    /// Failures before which another request of the route succeeded since the previous failure.
    accompanied: u32,
    /// Failures before which the server answered any request successfully since the previous
    /// failure.
    alive: u32,
    why: Cow<'static, str>,
    answer: Option<ApiReply>,
    _failing: FailureCount,
}

impl FailureHistory {
    fn find(&self, method: Method, route: &'static str) -> Option<usize> {
        self.0.iter().position(|trouble| trouble.method == method && trouble.route == route)
    }

    /// How often requests of this route have failed.
    pub fn failures(&self, method: Method, route: &'static str) -> u32 {
        self.find(method, route).map_or(0, |at| self.0[at].failures)
    }

    /// Records a failed attempt.
    pub(super) fn failed(
        &mut self,
        (method, route): (Method, &'static str),
        now: Instant,
        witness: RecentSuccesses,
        failing: &FailureCount,
        why: Cow<'static, str>,
        answer: Option<ApiReply>,
    ) {
        let at = self.find(method, route).unwrap_or_else(|| {
            if self.0.len() == WATCHED {
                self.0.remove(0);
            }
            let near = witness.route_last.is_some_and(|last| last + SLACK >= now);
            self.0.push(RouteFailure {
                method,
                route,
                first: now,
                failures: 0,
                seen: witness,
                succeeds: near,
                accompanied: 0,
                alive: 0,
                why: Cow::Borrowed(""),
                answer: None,
                _failing: failing.clone(),
            });
            self.0.len() - 1
        });
        let trouble = &mut self.0[at];
        trouble.failures = trouble.failures.saturating_add(1);
        trouble.accompanied += u32::from(witness.route > trouble.seen.route);
        trouble.alive += u32::from(witness.any > trouble.seen.any);
        trouble.succeeds |= witness.route > trouble.seen.route;
        trouble.seen = witness;
        (trouble.why, trouble.answer) = (why, answer);
    }

    /// Records that a request succeeded. Returns whether it had failed before.
    pub(super) fn succeeded(&mut self, method: Method, route: &'static str) -> bool {
        let before = self.0.len();
        self.0.retain(|trouble| !(trouble.method == method && trouble.route == route));
        self.0.len() < before
    }

    /// Why a request is poison, if it is.
    pub(super) fn poison(
        &self,
        (method, route): (Method, &'static str),
        policy: PoisonPolicy,
        now: Instant,
        failing: &FailureCount,
        need: Need,
    ) -> Option<PoisonEvidence> {
        let trouble = &self.0[self.find(method, route)?];
        let since = now.saturating_duration_since(trouble.first);
        if policy.attempts == 0 || trouble.failures < policy.attempts || since < policy.least {
            return None;
        }
        let often = policy.attempts.div_ceil(2).clamp(1, WITNESSED);
        let many_are_patient =
            policy.run == RunMode::ToTheEnd && since >= policy.least * OUTAGE_FACTOR;
        let alone = failing.count() <= MAX_FAILING_ALONE || many_are_patient;
        // What the sender can do without may fail always, and for all.
        let is_typical = need != Need::Optional;
        let works = !is_typical || (trouble.succeeds && alone);
        let proven = trouble.accompanied >= often || (works && trouble.alive >= often);
        proven.then(|| PoisonEvidence {
            failures: trouble.failures,
            secs: since.as_secs(),
            why: trouble.why.clone(),
            answer: trouble.answer.clone(),
        })
    }
}

#[cfg(test)]
#[path = "poison_tests.rs"]
mod tests;
