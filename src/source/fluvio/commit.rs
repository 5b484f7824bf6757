//! Commits the offset of a partition while reading continues.
//!
//! # Invariants
//!
//! At most one commit is in progress, so that a lower offset is never stored after a higher one.

use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::cluster::ClusterError;
use super::commit_window::SettledTo;
use super::local_start::OffsetCommits;
use super::partition_reader::{PartitionReader, ReaderState};

/// How long the cluster may take to store an offset.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after a failed commit.
const COMMIT_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// While there is more to read, an offset is committed when this fraction of a window is settled.
const COMMIT_DIVISOR: usize = 4;

impl PartitionReader {
    /// Starts a commit where one is due.
    pub(super) fn commit_if_due(&self, reading: &mut ReaderState) {
        let due = reading.window.settled_to();
        self.report_settled(reading, due);
        if self.commit_at(reading).is_some_and(|at| at <= Instant::now()) {
            self.spawn_commit(reading, due);
        }
    }

    /// When the next commit is due.
    pub(super) fn commit_at(&self, reading: &ReaderState) -> Option<Instant> {
        let committer = &reading.committer;
        let due = reading.window.settled_to();
        let is_due = due != committer.committed && committer.task.is_empty() && !reading.recreated;
        if self.offset_commits == OffsetCommits::Disabled || !is_due {
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

    /// The commit in progress has ended.
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
                    tracing::info!(topic, partition, "offsets are committed again");
                }
                if std::mem::take(&mut reading.committer.noted)
                    && let Err(error) = self.local_start.clear().await
                {
                    tracing::warn!(%error, "the start note could not be removed; a committed offset has priority over it, so nothing need be done");
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
                        "an offset could not be committed; it is tried again, and reading \
                         continues for up to `max_in_flight` records"
                    );
                }
                self.cluster.disconnect().await;
            }
        }
    }

    /// At the end, commits the offset of what is settled.
    pub(super) async fn commit_final(&self, reading: &mut ReaderState) {
        // An offset of a deleted topic would mean other records in the next topic of that name.
        if self.offset_commits == OffsetCommits::Disabled || reading.recreated {
            return;
        }
        let due = reading.window.settled_to();
        let kept = timeout(COMMIT_TIMEOUT, async {
            if !reading.committer.task.is_empty() {
                let kept = reading.committer.finished().await;
                self.finish_commit(reading, kept).await;
            }
            // A connection that broke in the meantime must not cause records to be checked again,
            // so it is tried twice.
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
                "the last offset could not be committed; the next run reads the last records again \
                 and looks them up before sending"
            );
            return;
        }
        // Where no offset was ever committed, the start note still counts.
        let is_clean = due.offset == reading.high && !reading.window.is_errored();
        if is_clean
            && !reading.committer.noted
            && let Err(error) = self.local_start.reading_ended(due.offset).await
        {
            tracing::warn!(%error, "the end note could not be stored; the next run looks its first records up before sending");
        }
    }
}
