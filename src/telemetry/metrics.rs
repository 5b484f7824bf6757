//! Metrics: Vector's names where Vector has one, `usercom_*` otherwise.
//!
//! Each component has its own set, labelled `component_id`, in one registry that is rendered as
//! Prometheus text. There is no global recorder, so each test reads its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry};

use super::activity::{OpenRequests, SinkActivity};
use super::exposition::{MetricsFormat, exposition};
use super::status::PartitionLag;
use super::summary::SinkSummary;
use crate::call::CallKind;

type Labels = Vec<(&'static str, String)>;
type Counters = Family<Labels, Counter>;

/// All metrics of one process.
#[derive(Clone, Default)]
pub struct Metrics {
    inner: Arc<Mutex<MetricsInner>>,
}

/// Handles are stored by name, so that a replaced part continues the same counters.
#[derive(Default)]
struct MetricsInner {
    registry: Registry,
    sinks: BTreeMap<String, SinkMetrics>,
    sources: BTreeMap<(String, &'static str), SourceMetrics>,
}

impl Metrics {
    /// OpenMetrics text of everything.
    pub fn render(&self) -> String {
        self.render_as(MetricsFormat::OpenMetrics)
    }

    /// The text of everything, in a format.
    pub fn render_as(&self, format: MetricsFormat) -> String {
        let mut text = String::new();
        encode(&mut text, &self.inner().registry).expect("writing to a string does not fail");
        exposition(&text, format)
    }

    /// The metrics of one sink, the same ones for the same name.
    pub fn sink(&self, name: &str) -> SinkMetrics {
        let mut inner = self.inner();
        if let Some(known) = inner.sinks.get(name) {
            return known.clone();
        }
        let labels =
            [("component_id", name), ("component_kind", "sink"), ("component_type", "usercom")];
        let labels = labels.map(|(key, value)| (key.into(), value.to_owned().into()));
        let registry = inner.registry.sub_registry_with_labels(labels.into_iter());
        let metrics = SinkMetrics::register(registry);
        inner.sinks.insert(name.to_owned(), metrics.clone());
        metrics
    }

    /// Counts what one source yields; the same counters for the same name and kind.
    pub fn source(&self, name: &str, kind: &'static str) -> SourceMetrics {
        let mut inner = self.inner();
        if let Some(known) = inner.sources.get(&(name.to_owned(), kind)) {
            return known.clone();
        }
        let labels =
            [("component_id", name), ("component_kind", "source"), ("component_type", kind)];
        let labels = labels.map(|(key, value)| (key.into(), value.to_owned().into()));
        let registry = inner.registry.sub_registry_with_labels(labels.into_iter());
        let metrics = SourceMetrics {
            sent: registered(registry, "component_sent_events", "Records yielded"),
            errors: registered(
                registry,
                "component_errors",
                "Lines that could not be decoded, and requests that were refused",
            ),
            discarded: registered(
                registry,
                "component_discarded_events",
                "Events that are no events of a user, by kind",
            ),
            lag: SourceLag::default(),
            open_requests: OpenRequests::default(),
        };
        let help = "Records that are there and not settled, by partition";
        registry.register("source_lag_events", help, metrics.lag.events.clone());
        let help = "Records that were removed before they were read, by partition";
        registry.register("source_removed_events", help, metrics.lag.removed.clone());
        inner.sources.insert((name.to_owned(), kind), metrics.clone());
        metrics
    }

    fn inner(&self) -> MutexGuard<'_, MetricsInner> {
        self.inner.lock()
    }
}

/// Lag of a source: records that exist and are not settled, by partition. Clones share their
/// values.
#[derive(Debug, Clone, Default)]
pub struct SourceLag {
    events: Family<Labels, Gauge>,
    removed: Counters,
    /// The same values as in `events`, which cannot be read back.
    partitions: Arc<Mutex<BTreeMap<(String, i32), u64>>>,
}

impl SourceLag {
    /// Records of one partition were removed before they were read.
    pub fn removed(&self, topic: &str, partition: i32, events: u64) {
        self.removed.get_or_create(&Self::labels(topic, partition)).inc_by(events);
    }

    /// The records of one partition that are not settled.
    pub fn set(&self, topic: &str, partition: i32, events: u64) {
        let gauge = self.events.get_or_create(&Self::labels(topic, partition));
        gauge.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.partitions().insert((topic.to_owned(), partition), events);
    }

    /// Removes a partition that this process no longer reads.
    pub fn forget(&self, topic: &str, partition: i32) {
        self.events.remove(&Self::labels(topic, partition));
        self.partitions().remove(&(topic.to_owned(), partition));
    }

    /// The lag of every partition that this process reads.
    pub fn list(&self) -> Vec<PartitionLag> {
        let lag = |((topic, partition), events): (&(String, i32), &u64)| PartitionLag {
            topic: topic.clone(),
            partition: partition.to_string(),
            records_behind: *events,
        };
        self.partitions().iter().map(lag).collect()
    }

    fn partitions(&self) -> MutexGuard<'_, BTreeMap<(String, i32), u64>> {
        self.partitions.lock()
    }

    fn labels(topic: &str, partition: i32) -> Labels {
        vec![("topic", topic.to_owned()), ("partition", partition.to_string())]
    }
}

fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

/// The metrics of one source.
#[derive(Debug, Clone)]
pub struct SourceMetrics {
    sent: Counter,
    errors: Counters,
    discarded: Counters,
    lag: SourceLag,
    open_requests: OpenRequests,
}

impl SourceMetrics {
    /// Records yielded so far.
    pub fn records(&self) -> u64 {
        self.sent.get()
    }

    /// Counts the requests that are not answered yet.
    pub fn open_requests(&self) -> OpenRequests {
        self.open_requests.clone()
    }

    /// The lag gauge of this source.
    pub fn lag(&self) -> SourceLag {
        self.lag.clone()
    }

    /// A request was refused.
    pub fn refused(&self, why: &'static str) {
        count(&self.errors, &[("error_type", why), ("stage", "receiving")], 1);
    }

    /// An event that does not belong to a user was received.
    pub fn unwanted(&self, kind: &'static str) {
        count(&self.discarded, &[("intentional", "false"), ("reason", kind)], 1);
    }

    /// A record left the source.
    pub fn sent(&self, undecodable: u64, records: u64) {
        self.sent.inc_by(records);
        if undecodable > 0 {
            count(
                &self.errors,
                &[("error_type", "parser_failed"), ("stage", "receiving")],
                undecodable,
            );
        }
    }
}

/// The metrics of one sink. Clones share their values.
#[derive(Debug, Clone)]
pub struct SinkMetrics {
    received: Counter,
    sent: Counter,
    errors: Counters,
    discarded: Counters,
    requests: LabelledTotals,
    responses: LabelledTotals,
    rtt: Histogram,
    buffer_events: Gauge,
    buffer_bytes: Gauge,
    limit: Gauge,
    in_flight: Gauge,
    calls: LabelledTotals,
    per_call: Gauge<f64, AtomicU64>,
    saved: LabelledTotals,
    attributes_created: Counter,
    attributes_refused: Counter,
    users_adopted: Counter,
    match_conflicts: Counter,
    conversions_failed: Counter,
    dead_letters: LabelledTotals,
    retries: Counters,
    storage_errors: Counter,
    halted: Gauge<i64, AtomicI64>,
    reachable: Gauge<i64, AtomicI64>,
    totals: Arc<Totals>,
    activity: Arc<SinkActivity>,
}

/// Totals without labels, for the summary.
#[derive(Debug, Default)]
struct Totals {
    requests: AtomicU64,
    calls: AtomicU64,
    unmatched: AtomicU64,
}

impl SinkMetrics {
    fn register(r: &mut Registry) -> Self {
        let rtt = Histogram::new(exponential_buckets(0.001, 2.0, 16));
        r.register(
            "http_client_response_rtt_seconds",
            "Time from request to response",
            rtt.clone(),
        );
        let metrics = Self {
            received: registered(r, "component_received_events", "Records taken from the sources"),
            sent: registered(r, "component_sent_events", "Records delivered whole"),
            errors: registered(r, "component_errors", "Errors, by type and stage"),
            discarded: registered(r, "component_discarded_events", "Records dropped"),
            requests: LabelledTotals::registered(
                r,
                "http_client_requests_sent",
                "HTTP requests, repeats included",
            ),
            responses: LabelledTotals::registered(
                r,
                "http_client_responses",
                "HTTP responses, by status",
            ),
            rtt,
            buffer_events: registered(r, "buffer_size_events", "Records in the buffer"),
            buffer_bytes: registered(r, "buffer_size_bytes", "Bytes in the buffer"),
            limit: registered(r, "adaptive_concurrency_limit", "Requests allowed in flight"),
            in_flight: registered(r, "adaptive_concurrency_in_flight", "Requests in flight"),
            calls: LabelledTotals::registered(r, "usercom_calls", "Calls made from records"),
            per_call: registered(
                r,
                "usercom_requests_per_call",
                "Requests sent for one call, on average",
            ),
            saved: LabelledTotals::registered(
                r,
                "usercom_requests_saved",
                "Requests that were not needed, by reason",
            ),
            attributes_created: registered(r, "usercom_attributes_created", "Attributes created"),
            users_adopted: registered(
                r,
                "usercom_users_adopted",
                "Records without an id of yours that got the id of a user",
            ),
            match_conflicts: registered(
                r,
                "usercom_match_conflicts",
                "Users whose person is in the account under another id, or more than once",
            ),
            attributes_refused: registered(
                r,
                "usercom_attributes_refused",
                "Attributes not created because users.max_new_attributes_per_hour was reached",
            ),
            conversions_failed: registered(
                r,
                "usercom_conversions_failed",
                "Values left out because they do not fit their field or attribute",
            ),
            dead_letters: LabelledTotals::registered(
                r,
                "usercom_dead_letters",
                "Records put into the dead letters",
            ),
            retries: registered(r, "usercom_retries", "Requests repeated"),
            storage_errors: registered(
                r,
                "storage_errors",
                "Times the store could not be written or read, or had no room, and it was tried again",
            ),
            halted: registered(r, "usercom_halted", "1 while the API key or the domain is refused"),
            reachable: registered(
                r,
                "usercom_reachable",
                "0 from the first attempt that fails until User.com answers again",
            ),
            totals: Arc::default(),
            activity: Arc::default(),
        };
        metrics.reachable.set(1);
        metrics.begin_at_zero();
        metrics
    }

    /// Creates counters with the value 0 before their first event, so that an alert on the rate
    /// sees the first one.
    fn begin_at_zero(&self) {
        for reason in ["unmatched", "buffer_full"] {
            count(&self.discarded, &[("intentional", "true"), ("reason", reason)], 0);
        }
        for error_type in ["request_failed", "connection_failed", "timed_out"] {
            count(&self.errors, &[("error_type", error_type), ("stage", "sending")], 0);
        }
        count(&self.errors, &[("error_type", "conversion_failed"), ("stage", "processing")], 0);
        for by in ["folded", "unchanged", "member", "deduplicated", "verified"] {
            count(&self.saved.family, &[("by", by)], 0);
        }
        for reason in ["undecodable", "missing_required", "no_identity", "status_400"] {
            count(&self.dead_letters.family, &[("reason", reason)], 0);
        }
        for reason in ["connect", "timeout", "connection_cut", "too_many_requests", "server_error"]
        {
            count(&self.retries, &[("reason", reason)], 0);
        }
    }

    /// Records arrived.
    pub fn received(&self, records: u64) {
        self.received.inc_by(records);
    }

    /// Records received so far.
    pub fn all_received(&self) -> u64 {
        self.received.get()
    }

    /// Records were delivered completely.
    pub fn delivered(&self, records: u64) {
        self.sent.inc_by(records);
    }

    /// A record that no rule matched was settled.
    pub fn unmatched(&self) {
        self.totals.unmatched.fetch_add(1, Ordering::Relaxed);
        count(&self.discarded, &[("intentional", "true"), ("reason", "unmatched")], 1);
    }

    /// Records were dropped because the buffer was full.
    pub fn dropped_newest(&self, records: u64) {
        count(&self.discarded, &[("intentional", "true"), ("reason", "buffer_full")], records);
    }

    /// Old dead letters were deleted because there were too many.
    pub fn dead_letters_deleted(&self, records: u64) {
        let labels = [("intentional", "true"), ("reason", "dead_letters_full")];
        count(&self.discarded, &labels, records);
    }

    /// The store failed, or had no room, and is tried again.
    pub fn storage_errors(&self, times: u64) {
        self.storage_errors.inc_by(times);
    }

    /// An error occurred, permanent or not. `error_type` and `stage` are words of Vector's lists.
    pub fn error(&self, error_type: &'static str, stage: &'static str) {
        count(&self.errors, &[("error_type", error_type), ("stage", stage)], 1);
    }

    /// A call was made from a record.
    pub fn call(&self, kind: CallKind) {
        self.totals.calls.fetch_add(1, Ordering::Relaxed);
        self.calls.add(&[("call", kind.as_str())], kind.as_str(), 1);
        self.set_per_call();
    }

    /// An HTTP request was sent.
    pub fn request(&self, method: &str, route: &str) {
        self.totals.requests.fetch_add(1, Ordering::Relaxed);
        self.requests.add(&[("method", method), ("route", route)], &format!("{method} {route}"), 1);
        self.set_per_call();
    }

    /// An HTTP response came.
    pub fn response(&self, status: u16, route: &str, rtt: Duration) {
        let status = status.to_string();
        self.responses.add(&[("status", &status), ("route", route)], &status, 1);
        self.rtt.observe(rtt.as_secs_f64());
    }

    /// A request will be repeated.
    pub fn retry(&self, reason: &str) {
        count(&self.retries, &[("reason", reason)], 1);
    }

    /// A request was not needed.
    pub fn saved(&self, by: &str, requests: u64) {
        self.saved.add(&[("by", by)], by, requests);
    }

    /// An attribute was created.
    pub fn attribute_created(&self) {
        self.attributes_created.inc();
    }

    /// An attribute was not created because too many were within the last hour; its value is left
    /// out.
    pub fn attribute_refused(&self) {
        self.attributes_refused.inc();
    }

    /// A record without an external id got the id of a user.
    pub fn user_adopted(&self) {
        self.users_adopted.inc();
    }

    /// A person was found under another external id, or more than once.
    pub fn match_conflict(&self) {
        self.match_conflicts.inc();
    }

    /// A value was left out because it does not fit its attribute's type, or its field.
    pub fn conversion_failed(&self) {
        self.conversions_failed.inc();
        self.error("conversion_failed", "processing");
    }

    /// A record went to the dead letters.
    pub fn dead_letter(&self, reason: &str) {
        self.dead_letters.add(&[("reason", reason)], reason, 1);
    }

    /// The buffer's size.
    pub fn buffer(&self, events: u64, bytes: u64) {
        self.buffer_events.set(i64::try_from(events).unwrap_or(i64::MAX));
        self.buffer_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// The concurrency limit.
    pub fn limit(&self, limit: usize) {
        self.limit.set(i64::try_from(limit).unwrap_or(i64::MAX));
    }

    /// Requests in flight.
    pub fn in_flight(&self, n: usize) {
        self.in_flight.set(i64::try_from(n).unwrap_or(i64::MAX));
    }

    /// Whether sending is halted because the key or the domain is refused.
    pub fn halted(&self, halted: bool) {
        self.halted.set(i64::from(halted));
    }

    /// Whether the last attempt was answered.
    pub fn reachable(&self, reachable: bool) {
        self.reachable.set(i64::from(reachable));
    }

    /// What the sink is doing.
    pub fn activity(&self) -> &SinkActivity {
        &self.activity
    }

    /// Records and bytes in the buffer.
    pub fn buffered(&self) -> (u64, u64) {
        let read = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        (read(&self.buffer_events), read(&self.buffer_bytes))
    }

    /// Requests in flight, and how many may be.
    pub fn concurrency(&self) -> (u64, u64) {
        let read = |gauge: &Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        (read(&self.in_flight), read(&self.limit))
    }

    /// Whether sending is halted.
    pub fn is_halted(&self) -> bool {
        self.halted.get() != 0
    }

    /// The sums so far.
    pub fn summary(&self) -> SinkSummary {
        SinkSummary {
            records: self.received.get(),
            delivered: self.sent.get(),
            unmatched: self.totals.unmatched.load(Ordering::Relaxed),
            calls: self.calls.sums(),
            requests: self.totals.requests.load(Ordering::Relaxed),
            requests_by_route: self.requests.sums(),
            responses_by_status: self.responses.sums(),
            requests_saved: self.saved.sums(),
            attributes_created: self.attributes_created.get(),
            conversions_failed: self.conversions_failed.get(),
            dead_letters: self.dead_letters.sums(),
        }
    }

    fn set_per_call(&self) {
        let calls = self.totals.calls.load(Ordering::Relaxed);
        if calls > 0 {
            let requests = self.totals.requests.load(Ordering::Relaxed);
            #[expect(clippy::cast_precision_loss, reason = "an average for people")]
            self.per_call.set(requests as f64 / calls as f64);
        }
    }
}

/// A labelled counter that also sums by the label used in the summary.
#[derive(Debug, Clone, Default)]
struct LabelledTotals {
    family: Counters,
    sums: Arc<Mutex<BTreeMap<String, u64>>>,
}

impl LabelledTotals {
    fn registered(registry: &mut Registry, name: &str, help: &str) -> Self {
        let tally = Self::default();
        registry.register(name, help, tally.family.clone());
        tally
    }

    fn add(&self, labels: &[(&'static str, &str)], sum: &str, by: u64) {
        count(&self.family, labels, by);
        let mut sums = self.sums.lock();
        match sums.get_mut(sum) {
            Some(n) => *n += by,
            None => {
                sums.insert(sum.to_owned(), by);
            }
        }
    }

    fn sums(&self) -> BTreeMap<String, u64> {
        self.sums.lock().clone()
    }
}

fn count(family: &Counters, labels: &[(&'static str, &str)], by: u64) {
    let labels: Labels = labels.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    family.get_or_create(&labels).inc_by(by);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_name_shares_one_set_of_metrics() {
        // Guarantees that asking twice gives the same counters, and one line in the rendered text.
        let metrics = Metrics::default();
        metrics.sink("crm").received(2);
        metrics.sink("crm").received(3);
        metrics.source("app", "file").sent(0, 4);
        metrics.source("app", "file").sent(0, 5);
        let text = metrics.render();
        let lines = |word| -> Vec<&str> { text.lines().filter(|l| l.starts_with(word)).collect() };
        let received = lines("component_received_events_total");
        assert!(received.len() == 1 && received[0].ends_with(" 5"), "{text}");
        let sent: Vec<&str> = lines("component_sent_events_total")
            .into_iter()
            .filter(|l| l.contains("app"))
            .collect();
        assert!(sent.len() == 1 && sent[0].ends_with(" 9"), "{text}");
    }
}
