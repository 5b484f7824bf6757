//! Fetches the end offsets of all partitions at once: for the lag, and to detect another process
//! that commits offsets for the same consumer.
//!
//! # Invariants
//!
//! What is compared with the cluster's answer did not change while it was fetched.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use tokio::time::{Instant, sleep};

use super::cluster::{Cluster, ClusterError, CommittedOffset, OffsetRange};
use crate::telemetry::SourceLag;

/// In one of this many checks for another process, our own commits are held back.
const HOLD_EVERY: u64 = 6;
/// How long commits are held back, where little is read. Where much is read, two processes never
/// commit the same offset.
const HOLD_DURATION: Duration = Duration::from_secs(2);

/// What is known of the partitions.
pub(super) struct OffsetMonitor {
    cluster: Arc<dyn Cluster>,
    topic: Arc<str>,
    lag: SourceLag,
    statuses: Mutex<BTreeMap<u32, Arc<PartitionStatus>>>,
    /// How often another process was checked for.
    looks: AtomicU64,
}

/// How far one partition was read; shared with its reader.
#[derive(Debug, Default)]
pub(super) struct PartitionStatus {
    inner: Mutex<StatusState>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct StatusState {
    /// Everything before this offset is settled.
    settled: i64,
    ours: OwnCommit,
    /// What the cluster returned last, and our own commit at that time.
    last_seen: Option<(OwnCommit, Option<CommittedOffset>)>,
    /// Whether another process was reported.
    foreign_reported: bool,
    /// No commit before this moment.
    hold_until: Option<Instant>,
}

/// The last offset that we committed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct OwnCommit {
    offset: Option<i64>,
    /// Grows whenever a commit is sent or confirmed.
    count: u64,
    is_on_its_way: bool,
}

impl PartitionStatus {
    /// Reading begins with this committed offset.
    pub(super) fn begin(&self, kept: Option<i64>) {
        let mut inner = self.inner();
        let count = inner.ours.count + 1;
        inner.ours = OwnCommit { offset: kept, count, is_on_its_way: false };
        inner.last_seen = None;
    }

    /// Everything before `offset` is settled.
    pub(super) fn settled(&self, offset: i64) {
        self.inner().settled = offset;
    }

    /// A commit was sent.
    pub(super) fn commit_sent(&self) {
        let mut inner = self.inner();
        inner.ours.count += 1;
        inner.ours.is_on_its_way = true;
    }

    /// The cluster has stored it.
    pub(super) fn commit_confirmed(&self, offset: i64) {
        let mut inner = self.inner();
        inner.ours.count += 1;
        inner.ours.offset = Some(offset);
        inner.ours.is_on_its_way = false;
    }

    /// The result is unknown until the next commit is stored.
    pub(super) fn commit_unknown(&self) {
        self.inner().ours.count += 1;
    }

    /// No commit is sent before this moment.
    pub(super) fn hold_until(&self) -> Option<Instant> {
        self.inner().hold_until
    }

    fn hold(&self, until: Instant) {
        self.inner().hold_until = Some(until);
    }

    fn ours(&self) -> OwnCommit {
        self.inner().ours
    }

    /// What another process committed, if that is seen for the first time. `before` was our commit
    /// before the cluster was asked.
    fn foreign_commit(
        &self,
        before: OwnCommit,
        told: Option<CommittedOffset>,
    ) -> Option<CommittedOffset> {
        let mut inner = self.inner();
        if inner.ours != before || before.is_on_its_way || inner.foreign_reported {
            return None;
        }
        let is_other = match inner.last_seen {
            // We have committed nothing since, so the stored offset must not have changed.
            Some((ours, last)) if ours == before => last != told,
            _ => told.map(|kept| kept.offset) != before.offset,
        };
        inner.last_seen = Some((before, told));
        inner.foreign_reported = is_other && told.is_some();
        told.filter(|_| is_other)
    }

    fn inner(&self) -> MutexGuard<'_, StatusState> {
        self.inner.lock()
    }
}

impl OffsetMonitor {
    pub(super) fn new(cluster: Arc<dyn Cluster>, topic: Arc<str>, lag: SourceLag) -> Self {
        Self { cluster, topic, lag, statuses: Mutex::default(), looks: AtomicU64::new(0) }
    }

    /// The offsets of every partition.
    pub(super) async fn offset_ranges(&self) -> Result<BTreeMap<u32, OffsetRange>, ClusterError> {
        let offset_ranges = self.cluster.offset_ranges().await;
        if offset_ranges.is_err() {
            // Streams do not depend on the connection that is used here.
            self.cluster.disconnect().await;
        }
        offset_ranges
    }

    /// From now on the lag of a partition is reported, and its committed offset is watched.
    pub(super) fn enter(
        &self,
        partition: u32,
        settled: i64,
        kept: Option<CommittedOffset>,
    ) -> Arc<PartitionStatus> {
        let status = Arc::clone(self.statuses().entry(partition).or_default());
        status.begin(kept.map(|kept| kept.offset));
        status.settled(settled);
        status
    }

    /// Records that were removed before they were read.
    pub(super) fn report_removed(&self, partition: u32, records: u64) {
        self.lag.removed(&self.topic, number(partition), records);
    }

    /// Reports how far behind every partition is.
    pub(super) fn report_lag(&self, offset_ranges: &BTreeMap<u32, OffsetRange>) {
        for (partition, status) in &*self.statuses() {
            let Some(offset_range) = offset_ranges.get(partition) else {
                continue;
            };
            let behind = offset_range.end - status.inner().settled.max(offset_range.start);
            self.lag.set(&self.topic, number(*partition), u64::try_from(behind).unwrap_or(0));
        }
    }

    /// Reports offsets that another process commits under our consumer id. Two processes that read
    /// the same end commit the same offsets at the same moments; so from time to time ours are held
    /// back, to see whether an offset is committed all the same.
    pub(super) async fn detect_foreign_commits(&self) {
        if self.looks.fetch_add(1, Ordering::Relaxed) % HOLD_EVERY == 1 {
            let until = Instant::now() + HOLD_DURATION;
            self.statuses().values().for_each(|status| status.hold(until));
            // Checked shortly before our commits continue.
            sleep(HOLD_DURATION - HOLD_DURATION / 10).await;
        }
        let before: Vec<(u32, Arc<PartitionStatus>, OwnCommit)> = self
            .statuses()
            .iter()
            .map(|(partition, status)| (*partition, Arc::clone(status), status.ours()))
            .collect();
        let Ok(kept) = self.cluster.committed().await else {
            return;
        };
        for (partition, status, ours) in before {
            let Some(kept) = status.foreign_commit(ours, kept.get(&partition).copied()) else {
                continue;
            };
            tracing::warn!(
                topic = &*self.topic,
                partition,
                ours = ours.offset,
                committed = kept.offset,
                "another process commits offsets of the same consumer and partition: both deliver \
                 its records; give each process its own `partitions`, or another `consumer`"
            );
        }
    }

    fn statuses(&self) -> MutexGuard<'_, BTreeMap<u32, Arc<PartitionStatus>>> {
        self.statuses.lock()
    }
}

fn number(partition: u32) -> i32 {
    i32::try_from(partition).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(offset: i64, changed: u64) -> Option<CommittedOffset> {
        Some(CommittedOffset { offset, changed })
    }

    #[test]
    fn offset_committed_by_another_consumer_is_detected() {
        // Our own commits are never reported as foreign, whenever they are seen. Another offset is,
        // and so is the same offset that was committed again while we committed nothing. It is
        // reported once.
        let status = PartitionStatus::default();
        status.begin(Some(9));
        assert_eq!(status.foreign_commit(status.ours(), kept(9, 1)), None);
        let before = status.ours();
        status.commit_sent();
        assert_eq!(status.foreign_commit(before, kept(12, 2)), None, "it changed meanwhile");
        assert_eq!(status.foreign_commit(status.ours(), kept(12, 2)), None, "it is on its way");
        status.commit_confirmed(12);
        assert_eq!(status.foreign_commit(status.ours(), kept(12, 2)), None);
        assert_eq!(status.foreign_commit(status.ours(), kept(12, 2)), None);
        assert_eq!(status.foreign_commit(status.ours(), kept(12, 3)), kept(12, 3));
        assert_eq!(status.foreign_commit(status.ours(), kept(15, 4)), None, "it was told");
        let other = PartitionStatus::default();
        other.begin(None);
        assert_eq!(other.foreign_commit(other.ours(), None), None);
        assert_eq!(other.foreign_commit(other.ours(), kept(3, 1)), kept(3, 1));
    }
}
