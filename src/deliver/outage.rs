//! Detects outages: from the first of attempts that all fail to the first that shows that the API
//! works. The dispatcher reports every attempt; the time is an argument.
//!
//! # Invariants
//!
//! Every outage that began ends once, and one that has not lasted a second is not reported.
//! The reasons are bounded: a status or one of a few words.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::outcome::{AttemptDisposition, RetryReason};

/// Shorter series of failures are not outages: single requests fail, and are repeated.
const MIN_LENGTH: Duration = Duration::from_secs(1);

/// One failed attempt is not an outage, however long it took.
const MIN_FAILURES: u64 = 2;

/// An outage, so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutageReport {
    /// How long ago the first failed attempt started.
    pub length: Duration,
    /// Failed attempts.
    pub failures: u64,
    /// The same by reason: `status 503`.
    pub by_reason: BTreeMap<String, u64>,
    /// The last failure in full, with its remedy where there is one.
    pub last: String,
}

/// What an attempt changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutageChange {
    /// Every attempt fails.
    Began(OutageReport),
    /// An attempt shows that the API works.
    Ended(OutageReport),
    /// The process stops, or the sink is replaced, while it lasts.
    CutOff(OutageReport),
}

/// What an attempt shows about the API.
enum Health {
    Works,
    Fails(String),
    /// A throttle, or a connection that the server had closed.
    Unknown,
}

struct Failing {
    since: Instant,
    failures: u64,
    by_reason: BTreeMap<String, u64>,
    last: String,
    reported: bool,
}

impl Failing {
    fn report(&self, now: Instant) -> OutageReport {
        OutageReport {
            length: now.saturating_duration_since(self.since),
            failures: self.failures,
            by_reason: self.by_reason.clone(),
            last: self.last.clone(),
        }
    }
}

/// Finds outages in the results of attempts.
#[derive(Default)]
pub(super) struct OutageDetector {
    failing: Option<Failing>,
    worked: Option<Instant>,
}

impl OutageDetector {
    /// Whether an outage was reported and lasts.
    pub(super) fn is_reported(&self) -> bool {
        self.failing.as_ref().is_some_and(|failing| failing.reported)
    }

    /// Whether an attempt has shown since then that the API works.
    pub(super) fn worked_since(&self, then: Instant) -> bool {
        self.worked.is_some_and(|at| at >= then)
    }

    /// An attempt that started at `started` has ended.
    pub(super) fn attempted(
        &mut self,
        outcome: &AttemptDisposition,
        started: Instant,
        now: Instant,
    ) -> Option<OutageChange> {
        match health(outcome) {
            Health::Unknown => None,
            Health::Fails(why) => {
                let last = match outcome {
                    AttemptDisposition::Retry { why, .. } => why.text().into_owned(),
                    _ => String::new(),
                };
                self.failed(why, last, started, now)
            }
            Health::Works => self.worked(started, now),
        }
    }

    fn failed(
        &mut self,
        why: String,
        last: String,
        started: Instant,
        now: Instant,
    ) -> Option<OutageChange> {
        let failing = self.failing.get_or_insert_with(|| Failing {
            since: started,
            failures: 0,
            by_reason: BTreeMap::new(),
            last: String::new(),
            reported: false,
        });
        failing.failures += 1;
        failing.last = last;
        *failing.by_reason.entry(why).or_default() += 1;
        let report = failing.report(now);
        let begins =
            !failing.reported && report.length >= MIN_LENGTH && report.failures >= MIN_FAILURES;
        begins.then(|| {
            failing.reported = true;
            OutageChange::Began(report)
        })
    }

    fn worked(&mut self, started: Instant, now: Instant) -> Option<OutageChange> {
        self.worked = self.worked.max(Some(now));
        let failing = self.failing.as_ref()?;
        // It started before the outage: it shows nothing about the present.
        if failing.reported && started < failing.since {
            return None;
        }
        let failing = self.failing.take()?;
        failing.reported.then(|| OutageChange::Ended(failing.report(now)))
    }

    /// Nothing is sent any more.
    pub(super) fn cut_off(&mut self, now: Instant) -> Option<OutageChange> {
        let failing = self.failing.take()?;
        failing.reported.then(|| OutageChange::CutOff(failing.report(now)))
    }
}

fn health(outcome: &AttemptDisposition) -> Health {
    let why = match outcome {
        AttemptDisposition::Delivered
        | AttemptDisposition::Reject { .. }
        | AttemptDisposition::Halt { .. } => return Health::Works,
        AttemptDisposition::Retry { why, .. } => why,
    };
    Health::Fails(match why {
        RetryReason::Stale(_) | RetryReason::Forbidden(_) | RetryReason::Status(429) => {
            return Health::Unknown;
        }
        RetryReason::Connect(_) => "no connection".to_owned(),
        RetryReason::Timeout => "no answer in time".to_owned(),
        RetryReason::TooLarge => "answer too long".to_owned(),
        RetryReason::Cut(_) | RetryReason::BrokenBody => "answer cut off".to_owned(),
        RetryReason::NotTheApi(status) => format!("web page or redirect with status {status}"),
        RetryReason::Status(status) => format!("status {status}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deliver::outcome::SideEffect;

    fn fails(why: RetryReason) -> AttemptDisposition {
        AttemptDisposition::Retry { why, after: None, side_effect: SideEffect::None }
    }

    #[test]
    fn outage_is_reported_at_its_begin_and_end_with_counts() {
        // Guarantees one change at the begin and one at the end, whatever happens in between.
        let (mut detector, start) = (OutageDetector::default(), Instant::now());
        let at = |millis| start + Duration::from_millis(millis);
        let unavailable = fails(RetryReason::Status(503));
        assert_eq!(detector.attempted(&unavailable, at(0), at(10)), None);
        assert_eq!(detector.attempted(&unavailable, at(500), at(510)), None);
        let refused = fails(RetryReason::Connect("refused".to_owned()));
        let Some(OutageChange::Began(report)) = detector.attempted(&refused, at(1_200), at(1_210))
        else {
            panic!("it has begun");
        };
        assert_eq!((report.failures, report.length), (3, Duration::from_millis(1_210)));
        assert_eq!(report.last, "no connection: refused");
        for n in 2..50 {
            assert_eq!(detector.attempted(&unavailable, at(n * 1_000), at(n * 1_000)), None);
        }
        assert!(detector.is_reported());
        // An answer to a request from before the outage, and a throttle.
        let late = start.checked_sub(Duration::from_secs(1)).unwrap_or(start);
        if late < start {
            assert_eq!(detector.attempted(&AttemptDisposition::Delivered, late, at(50_000)), None);
        }
        let throttled = fails(RetryReason::Status(429));
        assert_eq!(detector.attempted(&throttled, at(50_000), at(50_000)), None);
        let ended = detector.attempted(&AttemptDisposition::Delivered, at(60_000), at(61_000));
        let Some(OutageChange::Ended(report)) = ended else { panic!("it has ended") };
        assert_eq!((report.failures, report.length), (51, Duration::from_secs(61)));
        assert_eq!(report.by_reason["status 503"], 50);
        assert_eq!(report.by_reason["no connection"], 1);
        assert!(!detector.is_reported());
        assert_eq!(detector.cut_off(at(62_000)), None);
    }

    #[test]
    fn failures_among_successes_are_no_outage() {
        // Guarantees that chance failures, one slow failure and short trouble are not reported.
        let (mut detector, start) = (OutageDetector::default(), Instant::now());
        let timeout = fails(RetryReason::Timeout);
        let mut now = start;
        for n in 0..100 {
            let outcome = if n % 2 == 0 { &timeout } else { &AttemptDisposition::Delivered };
            now += Duration::from_millis(900);
            assert_eq!(detector.attempted(outcome, now, now), None, "{n}");
        }
        let ended = now + Duration::from_secs(30);
        assert_eq!(detector.attempted(&timeout, now, ended), None);
        assert_eq!(detector.cut_off(ended), None);
    }
}
