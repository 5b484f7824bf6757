//! The last hour of a sink, in steps of five seconds, for plots.
//!
//! # Invariants
//! Bounded: [`HOUR`] points.

use std::collections::VecDeque;

use jiff::Timestamp;
use serde::Serialize;

/// Points of an hour.
pub(super) const HOUR: usize = 720;

/// Seconds between two points.
pub(super) const STEP_SECS: u64 = 5;

/// A sink at one moment; rates are over the step before it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// When.
    pub time: Timestamp,
    /// Records taken a second.
    pub records_in: f64,
    /// Records settled a second.
    pub records_out: f64,
    /// Requests a second.
    pub requests: f64,
    /// Records to deliver, here and unread.
    pub backlog: u64,
    /// Half of the responses took at most this many milliseconds.
    pub p50_ms: Option<f64>,
    /// 95 of 100 responses took at most this many milliseconds.
    pub p95_ms: Option<f64>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Requests allowed in flight.
    pub limit: u64,
    /// The learned quota, in requests a second.
    pub quota: Option<f64>,
}

/// The points of the last hour, oldest first.
#[derive(Debug, Clone, Default)]
pub struct History(VecDeque<Point>);

impl History {
    /// Adds a point; the oldest leaves if there are too many.
    pub fn push(&mut self, point: Point) {
        if self.0.len() == HOUR {
            self.0.pop_front();
        }
        self.0.push_back(point);
    }

    /// The points, oldest first.
    pub fn points(&self) -> Vec<Point> {
        self.0.iter().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_holds_one_hour() {
        // Guarantees the bound, and that the oldest points leave first.
        let mut history = History::default();
        for n in 0..HOUR as u64 + 10 {
            history.push(Point {
                time: Timestamp::UNIX_EPOCH,
                records_in: 0.0,
                records_out: 0.0,
                requests: 0.0,
                backlog: n,
                p50_ms: None,
                p95_ms: None,
                in_flight: 0,
                limit: 0,
                quota: None,
            });
        }
        let points = history.points();
        assert_eq!((points.len(), points[0].backlog), (HOUR, 10));
        assert_eq!(HOUR as u64 * STEP_SECS, 3_600);
    }
}
