//! What is known of each route: its successes, how many of its requests fail at present, and
//! whether it is closed because the server forbids it although the API key works.
//!
//! It decides without waiting; the time is an argument. A route is a method and the pattern of a
//! path.
//!
//! # Invariants
//!
//! A closed route lets at most one attempt through per wait. A success opens it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::poison::{FailureCount, RecentSuccesses};
use super::request::Method;
use crate::backoff::Backoff;

/// The first wait before a closed route is tried again, and the longest.
const FIRST_TRIAL_WAIT: Duration = Duration::from_secs(1);
const MAX_TRIAL_WAIT: Duration = Duration::from_secs(30);

/// How often a request that waits for a route under suspicion checks it again.
const SUSPICION_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Refusals in a row that close a route that has worked before: fewer may concern single records.
const MIN_REFUSALS_IN_A_ROW: u32 = 3;

/// How long a success of any request proves that the server works.
const ALIVE_WINDOW: Duration = Duration::from_secs(30);

/// Identifies a route.
pub(super) type RouteKey = (Method, &'static str);

#[derive(Debug, Default)]
struct RouteRecord {
    successes: u64,
    last_success: Option<Instant>,
    failing: FailureCount,
    refused_in_a_row: u32,
    closed: Option<ClosedRoute>,
    /// Refusals for which it is not known yet whether the server refuses the whole route.
    suspicions: usize,
}

#[derive(Debug, Clone, Copy)]
struct ClosedRoute {
    status: u16,
    since: Instant,
    backoff: Backoff,
    next: Instant,
}

#[derive(Debug, Default)]
struct RouteTableState {
    routes: HashMap<RouteKey, RouteRecord>,
    successes: u64,
    last_success: Option<Instant>,
}

/// All routes that were used.
#[derive(Debug, Default)]
pub(super) struct RouteTable {
    all: Mutex<RouteTableState>,
    opened: Notify,
}

/// Whether a route may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteState {
    /// It may.
    Open,
    /// It is closed, and this attempt tests whether it still is.
    Trial,
    /// Not before `until`.
    Closed {
        /// 403.
        status: u16,
        /// For how long it has been closed.
        closed_for: Duration,
        /// When the next attempt may be made.
        until: Instant,
    },
}

/// What a report changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RouteChange {
    /// Nothing.
    None,
    /// The route is closed from now on.
    Closed,
    /// The route was closed, and is open.
    Opened,
}

impl RouteTable {
    fn all(&self) -> MutexGuard<'_, RouteTableState> {
        self.all.lock()
    }

    /// Whether an attempt may be made now.
    pub(super) fn way(&self, key: RouteKey, now: Instant) -> RouteState {
        let mut all = self.all();
        let Some(route) = all.routes.get_mut(&key) else {
            return RouteState::Open;
        };
        match &mut route.closed {
            Some(closed) if closed.next > now => RouteState::Closed {
                status: closed.status,
                closed_for: now.saturating_duration_since(closed.since),
                until: closed.next,
            },
            Some(closed) => {
                closed.next = now + closed.backoff.last_wait();
                RouteState::Trial
            }
            None if route.suspicions > 0 => RouteState::Closed {
                status: 403,
                closed_for: Duration::ZERO,
                until: now + SUSPICION_POLL_INTERVAL,
            },
            None => RouteState::Open,
        }
    }

    /// Reports that a request was refused; until the guard is dropped nothing more is sent on its
    /// route.
    pub(super) fn suspect(&self, key: RouteKey) -> SuspectedRoute<'_> {
        self.all().routes.entry(key).or_default().suspicions += 1;
        SuspectedRoute { routes: self, key }
    }

    /// Whether only the attempt that tests a route may be sent on it.
    pub(super) fn is_shut(&self, key: RouteKey) -> bool {
        let all = self.all();
        all.routes.get(&key).is_some_and(|route| route.closed.is_some() || route.suspicions > 0)
    }

    /// Waits until some closed route is opened.
    pub(super) fn opened(&self) -> tokio::sync::futures::Notified<'_> {
        self.opened.notified()
    }

    /// Whether a route is closed.
    pub(super) fn is_closed(&self, key: RouteKey) -> bool {
        self.all().routes.get(&key).is_some_and(|route| route.closed.is_some())
    }

    /// Reports that the server answered a request of this route as its API does.
    pub(super) fn succeeded(&self, key: RouteKey, now: Instant) -> RouteChange {
        let mut all = self.all();
        all.successes += 1;
        all.last_success = Some(now);
        let route = all.routes.entry(key).or_default();
        route.successes += 1;
        route.last_success = Some(now);
        route.refused_in_a_row = 0;
        let was_closed = route.closed.take().is_some();
        drop(all);
        match was_closed {
            true => {
                self.opened.notify_waiters();
                RouteChange::Opened
            }
            false => RouteChange::None,
        }
    }

    /// Reports that the server refused a request of this route although the key works.
    pub(super) fn forbidden(&self, key: RouteKey, status: u16, now: Instant) -> RouteChange {
        let mut all = self.all();
        let route = all.routes.entry(key).or_default();
        route.refused_in_a_row = route.refused_in_a_row.saturating_add(1);
        if let Some(closed) = &mut route.closed {
            closed.status = status;
            closed.next = now + closed.backoff.next_wait();
            return RouteChange::None;
        }
        if route.last_success.is_some() && route.refused_in_a_row < MIN_REFUSALS_IN_A_ROW {
            return RouteChange::None;
        }
        let mut backoff = Backoff::new(FIRST_TRIAL_WAIT, MAX_TRIAL_WAIT);
        let next = now + backoff.next_wait();
        route.closed = Some(ClosedRoute { status, since: now, backoff, next });
        RouteChange::Closed
    }

    /// What is known of the successes of the server.
    pub(super) fn witness(&self, key: RouteKey) -> (RecentSuccesses, FailureCount) {
        let mut all = self.all();
        let any = all.successes;
        let route = all.routes.entry(key).or_default();
        let witness =
            RecentSuccesses { route: route.successes, route_last: route.last_success, any };
        (witness, route.failing.clone())
    }

    /// When the server last answered any request as its API does.
    pub(super) fn last_success(&self) -> Option<Instant> {
        self.all().last_success
    }

    /// Whether it did so recently.
    pub(super) fn is_alive(&self, now: Instant) -> bool {
        self.last_success().is_some_and(|last| last + ALIVE_WINDOW > now)
    }
}

/// While it is being tested whether a refusal concerns the whole route.
#[derive(Debug)]
pub(super) struct SuspectedRoute<'a> {
    routes: &'a RouteTable,
    key: RouteKey,
}

impl Drop for SuspectedRoute<'_> {
    fn drop(&mut self) {
        if let Some(route) = self.routes.all().routes.get_mut(&self.key) {
            route.suspicions -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: RouteKey = (Method::Post, "r/");
    const OTHER: RouteKey = (Method::Get, "r/");

    #[test]
    fn forbidden_route_is_closed_and_tried_again_at_growing_intervals() {
        // Guarantees that a route that never worked is closed at once, that one attempt passes per
        // interval, that other routes stay open, and that a success opens it.
        let routes = RouteTable::default();
        let begin = Instant::now();
        assert_eq!(routes.forbidden(KEY, 403, begin), RouteChange::Closed);
        let mut now = begin;
        let mut waits = Vec::new();
        for _ in 0..7 {
            let RouteState::Closed { status: 403, until, .. } = routes.way(KEY, now) else {
                panic!("it is closed");
            };
            assert_eq!(routes.way(OTHER, now), RouteState::Open);
            waits.push((until - now).as_secs());
            now = until;
            assert_eq!(routes.way(KEY, now), RouteState::Trial);
            assert!(matches!(routes.way(KEY, now), RouteState::Closed { .. }));
            assert_eq!(routes.forbidden(KEY, 403, now), RouteChange::None);
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(routes.succeeded(KEY, now), RouteChange::Opened);
        assert_eq!(routes.way(KEY, now), RouteState::Open);
    }

    #[test]
    fn route_that_works_is_closed_after_three_refusals_in_a_row() {
        // Guarantees that a single forbidden record does not close a route that serves others.
        let routes = RouteTable::default();
        let now = Instant::now();
        for _ in 0..5 {
            routes.succeeded(KEY, now);
            assert_eq!(routes.forbidden(KEY, 403, now), RouteChange::None);
            assert_eq!(routes.forbidden(KEY, 403, now), RouteChange::None);
        }
        assert_eq!(routes.forbidden(KEY, 403, now), RouteChange::Closed);
        assert!(routes.is_closed(KEY) && !routes.is_closed(OTHER));
    }
}
