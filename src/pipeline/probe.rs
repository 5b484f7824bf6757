//! Turns the events that `deliver` and `usercom` report into metrics and log lines.

use std::collections::HashSet;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::advice;
use super::engine::subject::shown;
use crate::deliver::Method;
use crate::deliver::outage::{OutageChange, OutageReport};
use crate::sink::Destination;
use crate::telemetry::SinkMetrics;
use crate::{deliver, usercom};

/// Counts delivery events and logs outages.
pub(super) struct DeliveryProbe {
    sink: String,
    metrics: SinkMetrics,
    outages: OutageLog,
}

/// Whether outages are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutageLog {
    On,
    Off,
}

impl DeliveryProbe {
    pub(super) fn new(sink: &str, metrics: SinkMetrics, outages: OutageLog) -> Self {
        Self { sink: sink.to_owned(), metrics, outages }
    }
}

impl deliver::DeliveryObserver for DeliveryProbe {
    fn request_sent(&self, method: Method, route: &'static str) {
        self.metrics.request(method.as_str(), route);
    }

    fn response(&self, status: u16, route: &'static str, rtt: Duration) {
        self.metrics.response(status, route, rtt);
        let activity = self.metrics.activity();
        activity.answered(status, rtt);
        self.metrics.reachable(activity.present().outage.is_none());
        if status == 429 || status == 408 || status >= 500 || matches!(status, 401..=403) {
            let detail = format!("{route} was answered with status {status}");
            activity.errors().add(&format!("status_{status}"), detail, advice::for_status(status));
        }
    }

    fn request_error(&self, kind: &'static str) {
        let error_type = if kind == "timeout" { "timed_out" } else { "connection_failed" };
        self.metrics.error(error_type, "sending");
        self.metrics.activity().unanswered(kind);
        self.metrics.reachable(false);
        let detail = match kind {
            "connect" => "no connection to User.com",
            "timeout" => "no answer within `request.timeout_secs`",
            _ => "a connection was cut before its answer",
        };
        self.metrics.activity().errors().add(kind, detail.to_owned(), advice::for_no_answer(kind));
    }

    fn retry(&self, reason: &'static str) {
        self.metrics.retry(reason);
    }

    fn in_flight(&self, n: usize) {
        self.metrics.in_flight(n);
    }

    fn limit(&self, n: usize) {
        self.metrics.limit(n);
    }

    fn halted(&self, halted: bool) {
        self.metrics.halted(halted);
        self.metrics.activity().halted(halted);
    }

    fn outage(&self, change: OutageChange) {
        if self.outages == OutageLog::Off {
            return;
        }
        let (OutageChange::Began(report)
        | OutageChange::Ended(report)
        | OutageChange::CutOff(report)) = &change;
        let sink = &*self.sink;
        let (secs, failed_attempts) = (report.length.as_secs_f64(), report.failures);
        let why: Vec<_> = report.by_reason.iter().map(|(why, n)| format!("{why}: {n}")).collect();
        let why = why.join(", ");
        let waiting = self.metrics.activity().present().waiting;
        match &change {
            OutageChange::Began(OutageReport { last, .. }) => tracing::warn!(
                sink,
                why,
                failed_attempts,
                last,
                "User.com cannot be reached, or answers with errors: records wait, nothing is lost, \
                 and sending goes on by itself. One line follows when it is over"
            ),
            OutageChange::Ended(_) => tracing::info!(
                sink,
                secs,
                failed_attempts,
                why,
                waiting,
                "User.com answers again: the outage is over, and the waiting records are sent"
            ),
            OutageChange::CutOff(_) => tracing::warn!(
                sink,
                secs,
                failed_attempts,
                why,
                "stopped while User.com cannot be reached, or answers with errors; what was not \
                 delivered is sent by the next start"
            ),
        }
    }

    fn paused(&self, length: Duration) {
        self.metrics.activity().paused(length);
    }

    fn rate(&self, per_sec: f64) {
        self.metrics.activity().quota(per_sec);
    }
}

/// Names that are warned about at most; further ones are only counted.
const MAX_WARNED_NAMES: usize = 1000;

/// Counts events of the destination and warns once per attribute.
pub(super) struct DestinationProbe {
    sink: String,
    metrics: SinkMetrics,
    destination: Destination,
    warned: Mutex<HashSet<(Warning, String)>>,
    /// When the limit of new attributes was last logged.
    limit_told: Mutex<Option<Instant>>,
}

/// What a warning is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Warning {
    Mismatch,
    DroppedField,
    Shortened,
    AdoptionRefused,
}

/// How often the limit of new attributes is logged.
const LIMIT_WARNING_INTERVAL: Duration = Duration::from_secs(3_600);

impl DestinationProbe {
    pub(super) fn new(sink: String, metrics: SinkMetrics, destination: Destination) -> Self {
        Self { sink, metrics, destination, warned: Mutex::default(), limit_told: Mutex::default() }
    }

    fn first_of(&self, what: Warning, name: &str) -> bool {
        let mut warned = self.warned.lock();
        warned.len() < MAX_WARNED_NAMES && warned.insert((what, name.to_owned()))
    }
}

impl usercom::ExecutorObserver for DestinationProbe {
    fn attribute_created(&self, name: &str, value_type: &str) {
        self.metrics.attribute_created();
        match self.destination {
            Destination::Account => {
                tracing::info!(sink = self.sink, attribute = ?name, value_type, "attribute created");
            }
            Destination::Simulated => tracing::info!(
                sink = self.sink, attribute = ?name, value_type,
                "attribute would be created, if the account does not have it"
            ),
        }
    }

    fn attribute_refused(&self, name: &str, limit: usize) {
        self.metrics.attribute_refused();
        self.metrics.conversion_failed();
        let mut told = self.limit_told.lock();
        if told.is_none_or(|at| at.elapsed() >= LIMIT_WARNING_INTERVAL) {
            *told = Some(Instant::now());
            tracing::error!(
                sink = self.sink, attribute = ?name, limit,
                "attribute dropped: `users.max_new_attributes_per_hour` attributes were created within \
                 the last hour; the rest of the record is sent. If new attributes are wanted, raise \
                 the limit; if not, drop them in the mapping or set `users.unknown_attributes = \
                 \"drop\"`"
            );
        }
    }

    fn conversion_failed(&self, name: &str, reason: &str) {
        self.metrics.conversion_failed();
        if self.first_of(Warning::Mismatch, name) {
            tracing::warn!(
                sink = self.sink, attribute = ?name, reason,
                "value dropped, because it does not fit; the rest of the record is sent. Further ones of \
                 this name are only counted, in usercom_conversions_failed_total"
            );
        }
    }

    fn field_dropped(&self, field: &str, why: &str) {
        self.metrics.conversion_failed();
        if self.first_of(Warning::DroppedField, field) {
            tracing::warn!(
                sink = self.sink,
                ?field,
                why,
                "field dropped; the rest of the record is sent. Further ones of this name are only \
                 counted, in usercom_conversions_failed_total"
            );
        }
    }

    fn cropped(&self, field: &str) {
        if self.first_of(Warning::Shortened, field) {
            tracing::warn!(
                sink = self.sink,
                ?field,
                "value shortened to the length that User.com accepts; further ones of this name are shortened \
                 without a message"
            );
        }
    }

    fn user_adopted(&self, user: &str) {
        self.metrics.user_adopted();
        tracing::debug!(sink = self.sink, user = %shown(user), "a record without an id of yours got this user's id");
    }

    fn match_conflict(&self, user: &str, why: &str, then: &'static str) {
        self.metrics.match_conflict();
        tracing::warn!(
            sink = self.sink, user = %shown(user), why, then,
            "the person is in the account already under another id, or more than once. \
             `users.match_conflict` decides what happens; merge the records in User.com where they \
             are one person"
        );
    }

    fn search_unanswered(&self, key: &'static str, why: &str) {
        tracing::error!(
            sink = self.sink,
            key,
            why,
            "User.com does not answer searches by this key: a person who is in the account without an \
             id of yours is not found, and gets a second record. A search is tried again every 10 \
             minutes. Allow GET users/search/ for the API key; or take the key out of `users.match_by` \
             (`match_by = []` for none), and no search is made"
        );
    }

    fn adoption_refused(&self, user: &str, status: u16) {
        if self.first_of(Warning::AdoptionRefused, "") {
            tracing::error!(
                sink = self.sink, user = %shown(user), status,
                "User.com does not let a record that was found for a user have the user's id: the user \
                 gets a separate record. Allow PUT users/<number>/ for the API key; or set \
                 `users.match_by = []`, and no search is made. Further cases are not logged"
            );
        }
    }

    fn saved(&self, by: &'static str) {
        self.metrics.saved(by, 1);
    }

    fn duplicate_avoided(&self) {
        self.metrics.saved("verified", 1);
    }
}
