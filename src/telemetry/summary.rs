//! The totals of one sink, which `run --once` prints at its end.

use std::collections::BTreeMap;

use serde::Serialize;

/// The totals of one sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct SinkSummary {
    /// Records taken from the sources (or from the buffer, where an earlier run left some).
    pub records: u64,
    /// Records delivered completely.
    pub delivered: u64,
    /// Records that no rule matched.
    pub unmatched: u64,
    /// Calls, by kind.
    pub calls: BTreeMap<String, u64>,
    /// HTTP requests, repeats included.
    pub requests: u64,
    /// HTTP requests by method and route.
    pub requests_by_route: BTreeMap<String, u64>,
    /// HTTP responses by status.
    pub responses_by_status: BTreeMap<String, u64>,
    /// Requests that were not needed, by reason.
    pub requests_saved: BTreeMap<String, u64>,
    /// Attributes created.
    pub attributes_created: u64,
    /// Values dropped because they do not fit their attribute's type.
    pub conversions_failed: u64,
    /// Records put into the dead letters, by reason.
    pub dead_letters: BTreeMap<String, u64>,
}

impl SinkSummary {
    /// Calls of all kinds.
    pub fn all_calls(&self) -> u64 {
        self.calls.values().sum()
    }

    /// Records put into the dead letters, for whatever reason.
    pub fn all_dead_letters(&self) -> u64 {
        self.dead_letters.values().sum()
    }
}
