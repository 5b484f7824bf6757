//! Where the rooms' observations become metrics and log lines.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

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
const WARNED: usize = 1000;

/// Counts what the destination tells, and warns once for each attribute.
pub(super) struct DestinationProbe {
    metrics: SinkMetrics,
    warned: Mutex<HashSet<String>>,
}

impl DestinationProbe {
    pub(super) fn new(metrics: SinkMetrics) -> Self {
        Self { metrics, warned: Mutex::default() }
    }

    fn first_of(&self, name: &str) -> bool {
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        warned.len() < WARNED && warned.insert(name.to_owned())
    }
}

impl usercom::Probe for DestinationProbe {
    fn attribute_created(&self, name: &str) {
        self.metrics.attribute_created();
        tracing::info!(attribute = ?name, "created with type string");
    }

    fn conversion_failed(&self, name: &str, reason: &str) {
        self.metrics.conversion_failed();
        if self.first_of(name) {
            tracing::warn!(attribute = ?name, reason, "left out, its value does not fit the attribute's type");
        }
    }

    fn field_dropped(&self, field: &str, why: &str) {
        self.metrics.error("conversion_failed", "processing");
        if self.first_of(field) {
            tracing::warn!(?field, why, "left out");
        }
    }

    fn saved(&self, by: &'static str) {
        self.metrics.saved(by, 1);
    }

    fn duplicate_avoided(&self) {
        self.metrics.saved("verified", 1);
    }
}
