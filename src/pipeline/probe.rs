//! Where the rooms' observations become metrics and log lines.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::deliver::Method;
use crate::telemetry::SinkMetrics;
use crate::{deliver, usercom};

/// Counts what delivery tells.
pub(super) struct DeliveryProbe(pub(super) SinkMetrics);

impl deliver::Probe for DeliveryProbe {
    fn request_sent(&self, method: Method, route: &'static str) {
        self.0.request(method.as_str(), route);
    }

    fn response(&self, status: u16, route: &'static str, rtt: Duration) {
        self.0.response(status, route, rtt);
    }

    fn request_error(&self, kind: &'static str) {
        let error_type = if kind == "timeout" { "timed_out" } else { "connection_failed" };
        self.0.error(error_type, "sending");
    }

    fn retry(&self, reason: &'static str) {
        self.0.retry(reason);
    }

    fn in_flight(&self, n: usize) {
        self.0.in_flight(n);
    }

    fn limit(&self, n: usize) {
        self.0.limit(n);
    }

    fn halted(&self, halted: bool) {
        self.0.halted(halted);
    }
}

/// Attribute names warned about at most; beyond that only the counters tell.
const MAX_WARNED_NAMES: usize = 1000;

/// Counts what the destination tells, and warns once for each attribute.
pub(super) struct DestinationProbe {
    sink: String,
    metrics: SinkMetrics,
    warned: Mutex<HashSet<(Warning, String)>>,
    /// When it was last told that attributes are left out at the limit.
    limit_told: Mutex<Option<Instant>>,
}

/// What a field is warned about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Warning {
    Unfit,
    DroppedField,
    Cropped,
}

/// How often it is told that attributes are left out at the limit.
const LIMIT_WARNING_INTERVAL: Duration = Duration::from_secs(3_600);

impl DestinationProbe {
    pub(super) fn new(sink: String, metrics: SinkMetrics) -> Self {
        Self { sink, metrics, warned: Mutex::default(), limit_told: Mutex::default() }
    }

    fn first_of(&self, what: Warning, name: &str) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < MAX_WARNED_NAMES && warned.insert((what, name.to_owned()))
    }
}

impl usercom::Probe for DestinationProbe {
    fn attribute_created(&self, name: &str, value_type: &str) {
        self.metrics.attribute_created();
        tracing::info!(sink = self.sink, attribute = ?name, value_type, "attribute created");
    }

    fn attribute_refused(&self, name: &str, limit: usize) {
        self.metrics.attribute_refused();
        self.metrics.conversion_failed();
        let mut told = self.limit_told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= LIMIT_WARNING_INTERVAL) {
            *told = Some(Instant::now());
            tracing::error!(
                sink = self.sink, attribute = ?name, limit,
                "so many attributes were created within an hour that no more are: unknown \
                 attributes are left out of what is sent. If they are wanted, raise \
                 `users.max_new_attributes_per_hour`; if not, find out who sends them: leave them \
                 out in the mapping, or set `users.unknown_attributes = \"drop\"`"
            );
        }
    }

    fn conversion_failed(&self, name: &str, reason: &str) {
        self.metrics.conversion_failed();
        if self.first_of(Warning::Unfit, name) {
            tracing::warn!(
                sink = self.sink, attribute = ?name, reason,
                "value left out, because it does not fit; the rest of the record is sent. Later \
                 ones of this name are only counted, in usercom_conversions_failed_total"
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
                "field left out; the rest of the record is sent. Later ones of this name are only \
                 counted, in usercom_conversions_failed_total"
            );
        }
    }

    fn cropped(&self, field: &str) {
        if self.first_of(Warning::Cropped, field) {
            tracing::warn!(
                sink = self.sink,
                ?field,
                "cut to the length User.com takes; later ones of this name are cut without a word"
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
