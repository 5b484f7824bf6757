//! What a sink and a source are doing at present, beyond what their counters say: read-only for
//! the page and the log, written by the components themselves.
//!
//! # Invariants
//! Everything is bounded; a note costs no more than an uncontended lock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::errors::ErrorLog;
use super::latency::Latency;
use super::status::DeadLetterCount;
use super::tap::Tap;
use crate::clock;

/// Different labels counted by one [`LabelCounts`]; more are counted together.
const MAX_LABELS: usize = 200;

/// Unmatched records compared with the rules a second.
const MAX_EXAMINED_PER_SEC: u32 = 50;

/// What a label beyond the limit is counted as.
const OTHER_LABEL: &str = "(others)";

/// Counts by label.
#[derive(Debug, Default)]
pub struct LabelCounts(Mutex<BTreeMap<(String, String), u64>>);

impl LabelCounts {
    /// Counts one.
    pub fn add(&self, one: &str, two: &str) {
        let mut counts = self.0.lock();
        let key = (one.to_owned(), two.to_owned());
        let full = counts.len() >= MAX_LABELS && !counts.contains_key(&key);
        let key = if full { (OTHER_LABEL.to_owned(), String::new()) } else { key };
        *counts.entry(key).or_default() += 1;
    }

    /// The counts, largest first.
    pub fn list(&self) -> Vec<((String, String), u64)> {
        let counts = self.0.lock();
        let mut all: Vec<_> = counts.iter().map(|(key, n)| (key.clone(), *n)).collect();
        all.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
        all
    }
}

/// Allows so many a second.
#[derive(Debug)]
pub(super) struct SecondLimit {
    per_sec: u32,
    used: Mutex<Option<(Instant, u32)>>,
}

impl SecondLimit {
    pub(super) fn new(per_sec: u32) -> Self {
        Self { per_sec, used: Mutex::default() }
    }

    /// Whether one more is allowed now; it then counts.
    pub(super) fn allows(&self) -> bool {
        let now = Instant::now();
        let mut used = self.used.lock();
        match &mut *used {
            Some((since, n)) if now.duration_since(*since) < Duration::from_secs(1) => {
                *n += 1;
                *n <= self.per_sec
            }
            begin => {
                *begin = Some((now, 1));
                true
            }
        }
    }
}

/// What a sink does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SinkPhase {
    /// It reads its state and the attribute catalogue.
    #[default]
    Starting,
    /// It delivers.
    Delivering,
    /// Its input has ended and it delivers what is left.
    Draining,
    /// It has ended.
    Ended,
}

/// Why storage fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageTrouble {
    /// Since when.
    pub since: Timestamp,
    /// What is wrong and what to do.
    pub why: String,
}

/// Attempts that fail one after another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outage {
    /// The first failure since the last good answer.
    pub since: Timestamp,
    /// What the last attempt met: `connect`, `timeout`, `status 503`.
    pub why: String,
}

/// The present of a sink.
#[derive(Debug, Clone, Default)]
pub struct SinkPresent {
    /// What it does.
    pub phase: SinkPhase,
    /// Since when and with which status sending is halted.
    pub halted: Option<(Timestamp, u16)>,
    /// Failures since the last good answer.
    pub outage: Option<Outage>,
    /// Until when all requests wait.
    pub paused_until: Option<Timestamp>,
    /// The learned quota, in requests a second.
    pub quota: Option<f64>,
    /// Why storage fails.
    pub storage: Option<StorageTrouble>,
    /// Since when a push into the buffer waits.
    pub input_blocked: Option<Timestamp>,
    /// Dead letters in the store.
    pub stored_dead: Option<Vec<DeadLetterCount>>,
    /// Records between the buffer and their settlement.
    pub pending: u64,
    /// Records that are not settled, in the buffer and out of it.
    pub waiting: u64,
    /// When the oldest record arrived that is between the buffer and its settlement.
    pub oldest_pending: Option<Timestamp>,
    /// When the oldest record in the buffer arrived.
    pub oldest_buffered: Option<Timestamp>,
    last_status: u16,
}

/// What a sink is doing.
#[derive(Debug)]
pub struct SinkActivity {
    settled: AtomicU64,
    /// Whether no record is taken from the buffer now.
    full: AtomicBool,
    present: Mutex<SinkPresent>,
    latency: Latency,
    errors: ErrorLog,
    dead: LabelCounts,
    nearest: LabelCounts,
    examined: SecondLimit,
    tap: Tap,
}

impl Default for SinkActivity {
    fn default() -> Self {
        Self {
            settled: AtomicU64::new(0),
            full: AtomicBool::new(false),
            present: Mutex::default(),
            latency: Latency::default(),
            errors: ErrorLog::default(),
            dead: LabelCounts::default(),
            nearest: LabelCounts::default(),
            examined: SecondLimit::new(MAX_EXAMINED_PER_SEC),
            tap: Tap::default(),
        }
    }
}

impl SinkActivity {
    fn locked(&self) -> MutexGuard<'_, SinkPresent> {
        self.present.lock()
    }

    /// A copy of the present.
    pub fn present(&self) -> SinkPresent {
        self.locked().clone()
    }

    /// Forgets what an earlier sink of this name was doing; counts stay.
    pub fn restart(&self) {
        let mut present = self.locked();
        let stored_dead = present.stored_dead.take();
        *present = SinkPresent { stored_dead, ..SinkPresent::default() };
    }

    /// The sink does something else now.
    pub fn phase(&self, phase: SinkPhase) {
        self.locked().phase = phase;
    }

    /// Records have a final status: delivered, unmatched or dead.
    pub fn settled(&self, records: u64) {
        self.settled.fetch_add(records, Ordering::Relaxed);
    }

    /// Records with a final status.
    pub fn all_settled(&self) -> u64 {
        self.settled.load(Ordering::Relaxed)
    }

    /// Whether no more records are taken from the buffer: as many as may be are in flight, or there
    /// are no more.
    pub fn full(&self, full: bool) {
        self.full.store(full, Ordering::Relaxed);
    }

    /// Whether no more records are taken from the buffer now.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    /// So many records are between the buffer and their settlement.
    pub fn pending(&self, records: u64) {
        self.locked().pending = records;
    }

    /// So many records are between the buffer and their settlement, at present.
    pub fn all_pending(&self) -> u64 {
        self.locked().pending
    }

    /// So many records are not settled, in the buffer and out of it.
    pub fn waiting(&self, records: u64) {
        self.locked().waiting = records;
    }

    /// When the oldest record arrived that is between the buffer and its settlement.
    pub fn oldest_pending(&self, at: Option<Timestamp>) {
        self.locked().oldest_pending = at;
    }

    /// When the oldest record in the buffer arrived.
    pub fn oldest_buffered(&self, at: Option<Timestamp>) {
        self.locked().oldest_buffered = at;
    }

    /// Whether an unmatched record is to be compared with the rules now: that costs time, so only
    /// some of many are.
    pub fn examines_unmatched(&self) -> bool {
        self.examined.allows()
    }

    /// The live sample of its records.
    pub fn tap(&self) -> &Tap {
        &self.tap
    }

    /// An answer came. One that says "later" (429, 5xx) is not a good one.
    pub fn answered(&self, status: u16, rtt: Duration) {
        self.latency.add(rtt);
        let mut present = self.locked();
        present.last_status = status;
        if status == 429 || status == 408 || (status >= 500 && status != 501) {
            Self::fail(&mut present, format!("status {status}"));
        } else {
            present.outage = None;
        }
    }

    /// An attempt ended without an answer.
    pub fn unanswered(&self, why: &str) {
        Self::fail(&mut self.locked(), why.to_owned());
    }

    fn fail(present: &mut SinkPresent, why: String) {
        match &mut present.outage {
            Some(outage) => outage.why = why,
            None => present.outage = Some(Outage { since: clock::now(), why }),
        }
    }

    /// Sending is halted, or continues.
    pub fn halted(&self, halted: bool) {
        let mut present = self.locked();
        present.halted = halted.then(|| (clock::now(), present.last_status));
    }

    /// All requests wait this long.
    pub fn paused(&self, length: Duration) {
        let length = jiff::SignedDuration::try_from(length).unwrap_or_default();
        self.locked().paused_until = clock::now().checked_add(length).ok();
    }

    /// The learned quota, in requests a second.
    pub fn quota(&self, per_sec: f64) {
        self.locked().quota = Some(per_sec);
    }

    /// Storage fails, or works again.
    pub fn storage(&self, why: Option<String>) {
        let mut present = self.locked();
        present.storage = why.map(|why| {
            let since = present.storage.as_ref().map_or_else(clock::now, |trouble| trouble.since);
            StorageTrouble { since, why }
        });
    }

    /// A push into the buffer begins to wait, or is done.
    pub fn input_blocked(&self, blocked: bool) {
        self.locked().input_blocked = blocked.then(clock::now);
    }

    /// Dead letters in the store.
    pub fn stored_dead(&self, counts: Vec<DeadLetterCount>) {
        self.locked().stored_dead = Some(counts);
    }

    /// Response times.
    pub fn latency(&self) -> &Latency {
        &self.latency
    }

    /// Errors by kind.
    pub fn errors(&self) -> &ErrorLog {
        &self.errors
    }

    /// Dead letters since the start, by reason and rule.
    pub fn dead(&self) -> &LabelCounts {
        &self.dead
    }

    /// Unmatched records, by the rule that came nearest.
    pub fn nearest(&self) -> &LabelCounts {
        &self.nearest
    }
}

/// Requests to a source that are not answered yet. Clones share the count.
#[derive(Debug, Clone, Default)]
pub struct OpenRequests(Arc<AtomicU64>);

/// One request; it counts until it is dropped.
#[derive(Debug)]
pub struct OpenRequest(OpenRequests);

impl OpenRequests {
    /// A request came.
    pub fn open(&self) -> OpenRequest {
        self.0.fetch_add(1, Ordering::Relaxed);
        OpenRequest(self.clone())
    }

    /// How many are open.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outage_lasts_from_first_failure_to_first_good_answer() {
        // Guarantees what ends an outage: an answer that is not "later", also a refusal of one call.
        let activity = SinkActivity::default();
        assert!(activity.present().outage.is_none());
        activity.unanswered("connect");
        let since = activity.present().outage.unwrap().since;
        activity.answered(503, Duration::from_millis(1));
        let outage = activity.present().outage.unwrap();
        assert_eq!((outage.since, outage.why.as_str()), (since, "status 503"));
        activity.answered(400, Duration::from_millis(1));
        assert!(activity.present().outage.is_none());
    }

    #[test]
    fn labels_beyond_the_limit_are_counted_together() {
        // Guarantees that the table is bounded and that no count is lost.
        let counts = LabelCounts::default();
        (0..1_000).for_each(|n| counts.add("reason", &n.to_string()));
        let all = counts.list();
        assert!(all.len() <= MAX_LABELS + 1);
        assert_eq!(all.iter().map(|(_, n)| n).sum::<u64>(), 1_000);
    }
}
