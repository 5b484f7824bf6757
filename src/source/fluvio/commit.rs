//! The offset that the cluster keeps, beside the reading.
//!
//! Not here: how far everything is settled (`ledger`). One invariant: at most one offset is on its
//! way at a time, so that a lower one never comes after a higher one.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::cluster::ClusterError;
use super::commit_window::SettledTo;
use super::partition_reader::{PartitionReader, ReaderState};
use super::start::OffsetCommits;

/// How long the cluster may take to keep an offset.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it is left alone after it could not.
const COMMIT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// As much of a window is settled before its offset is kept, while there is more to read.
const COMMIT_DIVISOR: usize = 4;

/// What is kept, and what is being kept.
pub(super) struct OffsetCommitter {
    /// How far the cluster keeps what we read.
    pub(super) committed: SettledTo,
    task: JoinSet<Result<SettledTo, ClusterError>>,
    /// Not before this moment.
    after: Instant,
    /// When an offset was last sent, or the first record after a rest handed on.
    since: Instant,
    /// Whether the last attempt failed.
    failed: bool,
    /// Whether a beginning is written down that is not needed any more once an offset is kept.
    noted: bool,
}

impl OffsetCommitter {
    /// Nothing before `offset` needs to be kept.
    pub(super) fn new(offset: i64, noted: bool) -> Self {
        let now = Instant::now();
        let kept = SettledTo { offset, records: 0 };
        Self { committed: kept, task: JoinSet::new(), after: now, since: now, failed: false, noted }
    }

    /// The end of what is on its way; waits for ever where nothing is.
    pub(super) async fn finished(&mut self) -> Result<SettledTo, ClusterError> {
        match self.task.join_next().await {
            None => std::future::pending().await,
            Some(Ok(kept)) => kept,
            Some(Err(error)) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// Waits until nothing is on its way, whatever became of it.
    pub(super) async fn wait_idle(&mut self) {
        while self.task.join_next().await.is_some() {}
    }
}

impl PartitionReader {
    /// Begins to keep an offset where that is due.
    pub(super) fn commit_if_due(&self, reading: &mut ReaderState) {
        let due = reading.window.settled_to();
        self.report_settled(reading, due);
        if self.commit_at(reading).is_some_and(|at| at <= Instant::now()) {
            self.spawn_commit(reading, due);
        }
    }

    /// When an offset is to be kept, as things stand.
    pub(super) fn commit_at(&self, reading: &ReaderState) -> Option<Instant> {
        let committer = &reading.committer;
        let due = reading.window.settled_to();
        let is_due = due != committer.committed && committer.task.is_empty() && !reading.recreated;
        if self.commits_ == OffsetCommits::Disabled || !is_due {
            return None;
        }
        let settled = due.records.saturating_sub(committer.committed.records);
        let part = u64::try_from((self.limit / COMMIT_DIVISOR).max(1)).unwrap_or(u64::MAX);
        let is_all =
            reading.window.open() == 0 && reading.is_drained() && reading.position >= reading.end;
        let is_much = settled >= part;
        let at = if is_all || is_much { committer.after } else { committer.since + self.interval };
        let held = reading.status.hold_until().filter(|_| !is_much).unwrap_or(at);
        Some(at.max(committer.after).max(held))
    }

    fn spawn_commit(&self, reading: &mut ReaderState, due: SettledTo) {
        let cluster = std::sync::Arc::clone(&self.cluster);
        let partition = self.address.partition;
        reading.committer.since = Instant::now();
        reading.status.commit_sent();
        reading.committer.task.spawn(async move {
            let kept = timeout(COMMIT_TIMEOUT, cluster.commit(partition, due.offset - 1)).await;
            let kept = kept.unwrap_or(Err(ClusterError::Transient("no answer in time".into())));
            kept.map(|()| due)
        });
    }

    /// What was on its way is kept, or is not.
    pub(super) async fn finish_commit(
        &self,
        reading: &mut ReaderState,
        kept: Result<SettledTo, ClusterError>,
    ) {
        match kept {
            Ok(kept) => {
                reading.committer.committed = kept;
                reading.status.commit_confirmed(kept.offset - 1);
                if std::mem::take(&mut reading.committer.failed) {
                    let (topic, partition) = (&*self.address.topic, self.address.partition);
                    tracing::info!(topic, partition, "offsets are kept again");
                }
                if std::mem::take(&mut reading.committer.noted)
                    && let Err(error) = self.local_start.clear().await
                {
                    tracing::warn!(%error, "the written beginning could not be removed");
                }
            }
            Err(error) => {
                reading.status.commit_unknown();
                reading.committer.after = Instant::now() + COMMIT_RETRY_INTERVAL;
                if !std::mem::replace(&mut reading.committer.failed, true) {
                    tracing::warn!(
                        topic = &*self.address.topic,
                        partition = self.address.partition,
                        %error,
                        "an offset could not be kept; it is tried again, and reading goes on up to \
                         `max_in_flight` records"
                    );
                }
                self.cluster.disconnect().await;
            }
        }
    }

    /// At the end, keeps the offset of what has settled.
    pub(super) async fn commit_final(&self, reading: &mut ReaderState) {
        // An offset of a topic that is gone would mean something else in the next one.
        if self.commits_ == OffsetCommits::Disabled || reading.recreated {
            return;
        }
        let due = reading.window.settled_to();
        let kept = timeout(COMMIT_TIMEOUT, async {
            if !reading.committer.task.is_empty() {
                let kept = reading.committer.finished().await;
                self.finish_commit(reading, kept).await;
            }
            // A connection that broke meanwhile is no reason to look at records again.
            for _ in 0..2 {
                if reading.committer.committed == due {
                    break;
                }
                self.spawn_commit(reading, due);
                let kept = reading.committer.finished().await;
                self.finish_commit(reading, kept).await;
            }
        });
        if kept.await.is_err() || reading.committer.committed != due {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                "the last offset could not be kept; the last records are looked at again"
            );
            return;
        }
        // Where no offset was ever kept, the beginning that is written down still counts.
        let in_peace = due.offset == reading.high && !reading.window.is_errored();
        if in_peace
            && !reading.committer.noted
            && let Err(error) = self.local_start.reading_ended(due.offset).await
        {
            tracing::warn!(%error, "the end could not be written down");
        }
    }
}
