//! Reopens a partition's stream where it broke, or where the requested record was not received.
//!
//! # Invariants
//!
//! A new stream begins at the expected record, unless the cluster reports that this record was
//! removed or that the topic is another one.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{ClusterError, OffsetRange};
use super::commit_window::CommitWindow;
use super::committer::OffsetCommitter;
use super::local_start::OffsetCommits;
use super::partition_reader::{Filtering, PartitionReader, ReaderState, ReaderStep};
use crate::source::{ReadMode, SourceError};

/// The pause before an errored record is read again.
const REWIND_DELAY: Duration = Duration::from_secs(1);

impl PartitionReader {
    /// Opens the stream again.
    pub(super) async fn reopen(
        &self,
        reading: &mut ReaderState,
    ) -> Result<ReaderStep, SourceError> {
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.try_reopen(reading)).await {
            None => Ok(ReaderStep::Stop),
            Some(Ok(())) => Ok(ReaderStep::Continue),
            Some(Err(error)) => self.handle_error(reading, &error).await,
        }
    }

    async fn try_reopen(&self, reading: &mut ReaderState) -> Result<(), ClusterError> {
        let partition = self.address.partition;
        if self.cluster.partitions().await?.is_none() {
            reading.recreated = true;
            return Err(ClusterError::Transient("the topic is gone".into()));
        }
        let offset_range = self.cluster.offset_range(partition).await?;
        if reading.recreated || self.is_other_topic(reading, offset_range)? {
            self.restart_topic(reading, offset_range).await?;
        }
        if offset_range.start > reading.next_fetch {
            return Err(ClusterError::OffsetOutOfRange { next: offset_range.start });
        }
        let bytes = reading.enlarged.or(self.max_bytes);
        let stream = self.cluster.open(partition, reading.next_fetch, bytes).await?;
        reading.stream = Some(stream);
        reading.end = offset_range.end.max(reading.next_fetch);
        reading.quiet_at = self.quiet_at();
        Ok(())
    }

    /// Whether the partition has ended before what was read of it for long enough.
    fn is_other_topic(
        &self,
        reading: &mut ReaderState,
        offset_range: OffsetRange,
    ) -> Result<bool, ClusterError> {
        if offset_range.end >= reading.next_fetch {
            reading.earlier_ends = 0;
            return Ok(false);
        }
        reading.earlier_ends += 1;
        if Self::is_confirmed(reading) {
            return Ok(true);
        }
        let (end, next_fetch) = (offset_range.end, reading.next_fetch);
        Err(ClusterError::Transient(format!(
            "the partition ends at offset {end}, but offset {next_fetch} was already read"
        )))
    }

    /// The topic was created again: positions of the old topic mean nothing in it.
    async fn restart_topic(
        &self,
        reading: &mut ReaderState,
        offset_range: OffsetRange,
    ) -> Result<(), ClusterError> {
        // Records in flight belong to the old topic; their verdicts commit nothing.
        reading.window.wait_until_settled().await;
        reading.committer.wait_idle().await;
        if self.offset_commits == OffsetCommits::Enabled {
            self.cluster.delete_committed(self.address.partition).await?;
            if let Err(error) = self.local_start.reading_began(offset_range.start).await {
                tracing::warn!(%error, "the start note could not be stored; if this process is killed before its first commit, the next one uses `offset.start` again");
            }
        }
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            before = reading.next_fetch,
            end = offset_range.end,
            offset = offset_range.start,
            "the topic was created again: it is read from its beginning"
        );
        reading.queue.clear();
        reading.window = CommitWindow::new(offset_range.start);
        reading.committer =
            OffsetCommitter::new(offset_range.start, self.offset_commits == OffsetCommits::Enabled);
        reading.status.begin(None);
        reading.next_fetch = offset_range.start;
        reading.position = offset_range.start;
        reading.high = offset_range.start;
        reading.until = reading.until.map(|_| offset_range.end);
        (reading.redelivered_left, reading.redelivered_to) = (0, i64::MIN);
        (reading.recreated, reading.earlier_ends, reading.misses) = (false, 0, 0);
        reading.enlarged = None;
        Ok(())
    }

    /// Handles an error of the cluster: whether reading continues, and where.
    pub(super) async fn handle_error(
        &self,
        reading: &mut ReaderState,
        error: &ClusterError,
    ) -> Result<ReaderStep, SourceError> {
        match error {
            ClusterError::OffsetOutOfRange { next } if *next > reading.next_fetch => {
                self.skip_to(reading, *next);
                Ok(ReaderStep::Continue)
            }
            ClusterError::Deleted => {
                reading.recreated = true;
                self.retry(reading, error).await
            }
            error => self.retry(reading, error).await,
        }
    }

    /// The requested record was removed before it was read.
    pub(super) fn skip_to(&self, reading: &mut ReaderState, next: i64) {
        reading.stream = None;
        self.report_removed(reading.next_fetch, next);
        reading.queue.push_back(super::partition_reader::QueueItem::Skip(next));
        reading.next_fetch = next;
        reading.misses = 0;
    }

    /// Reports records that can no longer be read.
    pub(super) fn report_removed(&self, from: i64, to: i64) {
        let lost = u64::try_from(to - from).unwrap_or(0);
        self.monitor.report_removed(self.address.partition, lost);
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            lost,
            from,
            to,
            "records were removed by the topic's retention before they were read: they are not \
             delivered; set a retention longer than this program may be stopped"
        );
    }

    pub(super) async fn retry(
        &self,
        reading: &mut ReaderState,
        error: &ClusterError,
    ) -> Result<ReaderStep, SourceError> {
        reading.stream = None;
        match self.back_off(error, &mut reading.retry).await {
            Ok(()) => Ok(ReaderStep::Continue),
            Err(None) => Ok(ReaderStep::Stop),
            Err(Some(error)) => Err(error),
        }
    }

    /// Nothing was received for a while: checks whether there is something to read.
    pub(super) async fn check_quiet(
        &self,
        reading: &mut ReaderState,
    ) -> Result<ReaderStep, SourceError> {
        reading.quiet_at = self.quiet_at();
        let stop = self.stop.clone();
        let request = self.cluster.offset_range(self.address.partition);
        let offset_range = match stop.run_until_cancelled(request).await {
            None => return Ok(ReaderStep::Stop),
            Some(Ok(offset_range)) => offset_range,
            Some(Err(error)) => return self.retry(reading, &error).await,
        };
        let (end, expected) = (offset_range.end, reading.next_fetch);
        match (self.filtering, self.mode) {
            _ if end == expected => Ok(ReaderStep::Continue),
            _ if end < expected => {
                reading.stream = None;
                Ok(ReaderStep::Continue)
            }
            (Filtering::SmartModules, ReadMode::Follow) => Ok(ReaderStep::Continue),
            (Filtering::SmartModules, ReadMode::Once) => {
                tracing::info!(
                    topic = &*self.address.topic,
                    partition = self.address.partition,
                    offset = expected,
                    end,
                    "the SmartModules passed no more records: this run ends here, and the next one \
                     checks the rest again"
                );
                Ok(ReaderStep::Stop)
            }
            (Filtering::Unfiltered, _) => {
                let why = format!("the record at offset {expected} exists but was not received");
                self.retry(reading, &ClusterError::Transient(why)).await
            }
        }
    }

    /// A record is errored: it and those after it are read again, after a pause.
    pub(super) async fn rewind(
        &self,
        reading: &mut ReaderState,
    ) -> Result<ReaderStep, SourceError> {
        let stop = self.stop.clone();
        reading.ready.clear();
        if stop.run_until_cancelled(reading.window.wait_until_settled()).await.is_none() {
            return Ok(ReaderStep::Stop);
        }
        let Some(offset) = reading.window.take_errored() else {
            return Ok(ReaderStep::Continue);
        };
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            offset,
            "a record was not settled; the partition is read again from it"
        );
        reading.stream = None;
        reading.queue.clear();
        reading.redelivered_to = reading.redelivered_to.max(reading.high);
        reading.next_fetch = offset;
        reading.position = offset;
        // A stop during the pause is handled in the next iteration.
        stop.run_until_cancelled(sleep(REWIND_DELAY)).await.unwrap_or(());
        Ok(ReaderStep::Continue)
    }
}
