//! Samples the components once a second and makes the [`Status`] and the [`History`] of them.
//!
//! # Invariants
//! Bounded: a minute of samples and an hour of points for each sink that belongs to the pipeline.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::activity::SinkPresent;
use super::component_state::{
    halted_words, moment, outage_words, overall, sink_state, source_state,
};
use super::components::{ComponentSet, Components, PipelinePhase, SinkEntry, SourceEntry};
use super::history::{History, Point, STEP_SECS};
use super::latency::LatencyCounts;
use super::status::{
    BacklogStatus, DeadLetterCount, DeadLettersStatus, LatencyStatus, NearestRuleCount,
    RecordCounts, RouteStatus, SinkStatus, SourceLagStatus, SourceStatus, Status, UnmatchedStatus,
};
use crate::clock;

/// How often [`StatusRecorder::record`] samples.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Samples of one component: a minute.
const MAX_SAMPLES: usize = 61;

/// The samples that rates are made of.
const RATE_WINDOW: Duration = Duration::from_secs(10);

/// The backlog's pace needs this long to be known.
const MIN_TREND: Duration = Duration::from_secs(5);

/// Records the status of a pipeline. Clones share it.
#[derive(Debug, Clone)]
pub struct StatusRecorder {
    components: Components,
    unready_after: SignedDuration,
    started: Timestamp,
    recorded: Arc<Mutex<Recorded>>,
}

#[derive(Debug, Default)]
struct Recorded {
    sinks: BTreeMap<String, SinkRecord>,
    sources: BTreeMap<String, SourceRecord>,
    ticks: u64,
}

#[derive(Debug, Default)]
struct SinkRecord {
    samples: VecDeque<SinkSample>,
    history: History,
}

#[derive(Debug, Clone)]
struct SinkSample {
    at: Instant,
    received: u64,
    settled: u64,
    requests: u64,
    routes: BTreeMap<String, u64>,
    latency: LatencyCounts,
    backlog: u64,
}

#[derive(Debug, Default)]
struct SourceRecord {
    samples: VecDeque<SourceSample>,
    /// Bytes of one record, as far as they are known.
    record_bytes: Option<f64>,
}

#[derive(Debug, Clone, Copy)]
struct SourceSample {
    at: Instant,
    records: u64,
    bytes: u64,
}

impl StatusRecorder {
    /// A recorder without samples. `/ready` fails once nothing could be delivered for
    /// `unready_after`.
    pub fn new(components: Components, unready_after: Duration) -> Self {
        Self {
            components,
            unready_after: SignedDuration::try_from(unready_after).unwrap_or(SignedDuration::MAX),
            started: clock::now(),
            recorded: Arc::default(),
        }
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.recorded.lock()
    }

    /// Samples for ever.
    pub async fn record(self) {
        loop {
            self.sample();
            tokio::time::sleep(SAMPLE_INTERVAL).await;
        }
    }

    /// Takes one sample.
    fn sample(&self) {
        let now = Instant::now();
        let components = self.components.present();
        let mut recorded = self.recorded();
        recorded.ticks += 1;
        recorded.sources.retain(|name, _| components.sources.contains_key(name));
        recorded.sinks.retain(|name, _| components.sinks.contains_key(name));
        for (name, source) in &components.sources {
            recorded.sources.entry(name.clone()).or_default().sample(source, now);
        }
        let Recorded { sinks, sources, ticks } = &mut *recorded;
        for (name, sink) in &components.sinks {
            let (backlog, _) = backlog(sink, &components, sources);
            let record = sinks.entry(name.clone()).or_default();
            record.sample(sink, backlog, now);
            if ticks.is_multiple_of(STEP_SECS) {
                record.point(sink, now);
            }
        }
    }

    /// The last hour of every sink, by name.
    pub fn history(&self) -> BTreeMap<String, Vec<Point>> {
        let recorded = self.recorded();
        recorded.sinks.iter().map(|(name, sink)| (name.clone(), sink.history.points())).collect()
    }

    /// The present status.
    pub fn status(&self) -> Status {
        let now = clock::now();
        let components = self.components.present();
        let recorded = self.recorded();
        let sinks: Vec<_> = components
            .sinks
            .iter()
            .map(|(name, sink)| sink_status(name, sink, &components, &recorded, now))
            .collect();
        let sources: Vec<_> = components
            .sources
            .iter()
            .map(|(name, source)| {
                source_status(name, source, &components, recorded.sources.get(name), now)
            })
            .collect();
        drop(recorded);
        let not_ready = self.not_ready_reasons(&components, now);
        let (state, reason) = overall(&components, &sinks, &sources);
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            process_id: Some(std::process::id()),
            time: now,
            started: self.started,
            state,
            reason,
            ready: not_ready.is_empty(),
            not_ready,
            sources,
            sinks,
        }
    }

    /// Why `/ready` fails; empty if it does not.
    pub fn not_ready(&self) -> Vec<String> {
        self.not_ready_reasons(&self.components.present(), clock::now())
    }

    fn not_ready_reasons(&self, components: &ComponentSet, now: Timestamp) -> Vec<String> {
        let mut reasons = Vec::new();
        match components.phase {
            PipelinePhase::Starting => reasons.push("not running: starting".to_owned()),
            PipelinePhase::Ended => reasons.push("not running: ended".to_owned()),
            PipelinePhase::Running | PipelinePhase::Draining => {}
        }
        for (name, sink) in &components.sinks {
            let present = sink.metrics.activity().present();
            if sink.metrics.is_halted() {
                reasons.push(format!(
                    "halted, the API key or the domain is refused: sink `{name}`{}",
                    halted_words(&present)
                ));
            } else if let Some(outage) = &present.outage
                && now.duration_since(outage.since) >= self.unready_after
            {
                reasons.push(format!(
                    "sink `{name}` can deliver nothing since {}: {}",
                    moment(outage.since),
                    outage_words(&outage.why)
                ));
            }
            if let Some(trouble) = &present.storage {
                reasons.push(format!(
                    "sink `{name}` cannot store anything since {}: {}",
                    moment(trouble.since),
                    trouble.why
                ));
            }
        }
        reasons
    }
}

impl SourceRecord {
    fn sample(&mut self, source: &SourceEntry, now: Instant) {
        let records = source.metrics.records();
        let bytes = source.position.as_ref().map_or(0, |position| position.bytes_read());
        push_bounded(&mut self.samples, SourceSample { at: now, records, bytes });
        let Some(then) = window(&self.samples, |s| s.at, RATE_WINDOW) else {
            return;
        };
        let (records, bytes) =
            (records.saturating_sub(then.records), bytes.saturating_sub(then.bytes));
        if records > 0 && bytes > 0 {
            self.record_bytes = Some(ratio(bytes, records));
        }
    }

    fn rate(&self) -> f64 {
        rate(&self.samples, |s| s.at, |s| s.records)
    }
}

impl SinkRecord {
    fn sample(&mut self, sink: &SinkEntry, backlog: u64, now: Instant) {
        let summary = sink.metrics.summary();
        let activity = sink.metrics.activity();
        let sample = SinkSample {
            at: now,
            received: summary.records,
            settled: activity.all_settled(),
            requests: summary.requests,
            routes: summary.requests_by_route,
            latency: activity.latency().counts(),
            backlog,
        };
        push_bounded(&mut self.samples, sample);
    }

    fn point(&mut self, sink: &SinkEntry, now: Instant) {
        let step = Duration::from_secs(STEP_SECS);
        let (Some(last), Some(then)) = (self.samples.back(), window(&self.samples, |s| s.at, step))
        else {
            return;
        };
        let seconds = now.saturating_duration_since(then.at).as_secs_f64().max(0.001);
        let (in_flight, limit) = sink.metrics.concurrency();
        let latency = latency(&last.latency, &then.latency);
        let point = Point {
            time: clock::now(),
            records_in: count(last.received.saturating_sub(then.received)) / seconds,
            records_out: count(last.settled.saturating_sub(then.settled)) / seconds,
            requests: count(last.requests.saturating_sub(then.requests)) / seconds,
            backlog: last.backlog,
            p50_ms: latency.map(|latency| latency.p50_ms),
            p95_ms: latency.map(|latency| latency.p95_ms),
            in_flight,
            limit,
            quota: sink.metrics.activity().present().quota,
        };
        self.history.push(point);
    }

    /// How many records fewer there are each second, over the last minute.
    fn shrinks_per_sec(&self) -> Option<f64> {
        let last = self.samples.back()?;
        let first = match self.samples.len() < MAX_SAMPLES {
            // At the start the backlog is still being found, so its pace counts from the largest.
            true => self.samples.iter().rev().max_by_key(|sample| sample.backlog)?,
            false => self.samples.front()?,
        };
        let elapsed = last.at.saturating_duration_since(first.at);
        let shrunk = count(first.backlog) - count(last.backlog);
        (elapsed >= MIN_TREND).then(|| shrunk / elapsed.as_secs_f64())
    }
}

fn push_bounded<T>(samples: &mut VecDeque<T>, sample: T) {
    if samples.len() == MAX_SAMPLES {
        samples.pop_front();
    }
    samples.push_back(sample);
}

/// The oldest sample that is at most `length` older than the last.
fn window<T>(samples: &VecDeque<T>, at: impl Fn(&T) -> Instant, length: Duration) -> Option<&T> {
    let last = at(samples.back()?);
    // A sample may come a little late.
    let length = length + SAMPLE_INTERVAL / 2;
    samples.iter().find(|sample| last.saturating_duration_since(at(sample)) <= length)
}

/// What was counted a second, over [`RATE_WINDOW`].
fn rate<T>(samples: &VecDeque<T>, at: impl Fn(&T) -> Instant, counted: impl Fn(&T) -> u64) -> f64 {
    let (Some(last), Some(then)) = (samples.back(), window(samples, &at, RATE_WINDOW)) else {
        return 0.0;
    };
    let elapsed = at(last).saturating_duration_since(at(then)).as_secs_f64();
    if elapsed > 0.0 { count(counted(last).saturating_sub(counted(then))) / elapsed } else { 0.0 }
}

fn latency(now: &LatencyCounts, then: &LatencyCounts) -> Option<LatencyStatus> {
    Some(LatencyStatus {
        p50_ms: now.quantile_since(then, 0.5)?,
        p95_ms: now.quantile_since(then, 0.95)?,
    })
}

#[expect(clippy::cast_precision_loss, reason = "numbers for people")]
fn count(n: u64) -> f64 {
    n as f64
}

fn ratio(a: u64, b: u64) -> f64 {
    count(a) / count(b)
}

/// Records to deliver, and whether a part of them is estimated.
fn backlog(
    sink: &SinkEntry,
    components: &ComponentSet,
    recorded: &BTreeMap<String, SourceRecord>,
) -> (u64, bool) {
    let mut records = sink.metrics.activity().present().waiting;
    let mut estimated = false;
    for input in &sink.inputs {
        let Some(source) = components.sources.get(input).filter(|source| source.reading) else {
            continue;
        };
        records += source.metrics.lag().list().iter().map(|p| p.records_behind).sum::<u64>();
        let behind = source
            .position
            .as_ref()
            .map_or(0, |position| position.bytes_total().saturating_sub(position.bytes_read()));
        let size = recorded.get(input).and_then(|record| record.record_bytes);
        if let (1.., Some(size)) = (behind, size) {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "an estimate, not negative"
            )]
            let unread = (count(behind) / size) as u64;
            records += unread;
            estimated |= unread > 0;
        }
    }
    (records, estimated)
}

fn sink_status(
    name: &str,
    sink: &SinkEntry,
    components: &ComponentSet,
    recorded: &Recorded,
    now: Timestamp,
) -> SinkStatus {
    let activity = sink.metrics.activity();
    let present = activity.present();
    let summary = sink.metrics.summary();
    let (_, waiting_bytes) = sink.metrics.buffered();
    let (in_flight, concurrency_limit) = sink.metrics.concurrency();
    let empty = SinkRecord::default();
    let record = recorded.sinks.get(name).unwrap_or(&empty);
    let (records, estimated) = backlog(sink, components, &recorded.sources);
    let shrinks = record.shrinks_per_sec();
    let ends_in_secs = match shrinks {
        _ if records == 0 => None,
        Some(pace) if pace > 0.0 => Some(count(records) / pace),
        _ => None,
    };
    let per_sec = |route: &str| {
        rate(&record.samples, |s| s.at, |s| s.routes.get(route).copied().unwrap_or(0))
    };
    let (state, reason) = sink_state(sink, &present, components.phase, now);
    let requests = summary.requests_by_route.iter().map(|(route, total)| RouteStatus {
        route: route.clone(),
        total: *total,
        per_sec: per_sec(route),
    });
    let then = window(&record.samples, |s| s.at, RATE_WINDOW);
    let last = record.samples.back();
    SinkStatus {
        name: name.to_owned(),
        inputs: sink.inputs.clone(),
        state,
        reason,
        records: RecordCounts {
            received: summary.records,
            delivered: summary.delivered,
            unmatched: summary.unmatched,
            dead_letters: summary.all_dead_letters(),
            settled: activity.all_settled(),
        },
        records_in_per_sec: rate(&record.samples, |s| s.at, |s| s.received),
        records_out_per_sec: rate(&record.samples, |s| s.at, |s| s.settled),
        requests_per_sec: rate(&record.samples, |s| s.at, |s| s.requests),
        requests: requests.collect(),
        requests_saved: summary.requests_saved.clone(),
        waiting: present.waiting,
        waiting_bytes,
        oldest_secs: [present.oldest_pending, present.oldest_buffered]
            .into_iter()
            .flatten()
            .min()
            .filter(|_| present.waiting > 0)
            .map(|at| now.duration_since(at).as_secs_f64().max(0.0)),
        in_flight,
        concurrency_limit,
        quota_per_sec: present.quota,
        paused_until: present.paused_until.filter(|until| *until > now),
        latency: last.zip(then).and_then(|(now, then)| latency(&now.latency, &then.latency)),
        dead_letters: dead_letters(sink, &present),
        unmatched: unmatched(sink, summary.unmatched),
        errors: activity.errors().list(),
        backlog: BacklogStatus {
            records,
            estimated,
            shrinks_per_sec: shrinks.unwrap_or(0.0),
            ends_in_secs,
            ends_at: ends_in_secs.and_then(|secs| {
                let length = SignedDuration::try_from_secs_f64(secs.ceil()).ok()?;
                now.checked_add(length).ok()
            }),
        },
    }
}

fn dead_letters(sink: &SinkEntry, present: &SinkPresent) -> DeadLettersStatus {
    let since_start = sink.metrics.activity().dead().list();
    let counted = since_start.iter().map(|((reason, rule), count)| DeadLetterCount {
        reason: reason.clone(),
        rule: (!rule.is_empty()).then(|| rule.clone()),
        count: *count,
    });
    DeadLettersStatus {
        since_start: since_start.iter().map(|(_, count)| count).sum(),
        stored: present.stored_dead.as_ref().map(|all| all.iter().map(|d| d.count).sum()),
        by_reason: present.stored_dead.clone().unwrap_or_else(|| counted.collect()),
    }
}

fn unmatched(sink: &SinkEntry, total: u64) -> UnmatchedStatus {
    let nearest = sink.metrics.activity().nearest().list();
    UnmatchedStatus {
        total,
        examined: nearest.iter().map(|(_, count)| count).sum(),
        by_nearest_rule: nearest
            .into_iter()
            .map(|((rule, _), count)| NearestRuleCount { rule, count })
            .collect(),
    }
}

fn source_status(
    name: &str,
    source: &SourceEntry,
    components: &ComponentSet,
    record: Option<&SourceRecord>,
    now: Timestamp,
) -> SourceStatus {
    let (state, reason) = source_state(name, source, components, now);
    let partitions = source.metrics.lag().list();
    let position = source.position.as_ref();
    let requests = source.metrics.open_requests().count();
    SourceStatus {
        name: name.to_owned(),
        kind: source.kind.clone(),
        state,
        reason,
        records: source.metrics.records(),
        records_per_sec: record.map_or(0.0, SourceRecord::rate),
        lag: SourceLagStatus {
            bytes_behind: position.map(|p| p.bytes_total().saturating_sub(p.bytes_read())),
            bytes_total: position.map(|p| p.bytes_total()),
            files: position.and_then(|p| p.files()),
            records_behind: matches!(source.kind.as_str(), "kafka" | "fluvio")
                .then(|| partitions.iter().map(|p| p.records_behind).sum()),
            partitions,
            requests_in_flight: matches!(source.kind.as_str(), "http" | "vector")
                .then_some(requests),
        },
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
