//! A partition's stream, opened again where it broke or where what was asked for did not come.
//!
//! Not here: what is read from it (`intake`). One invariant: a new stream begins at the record that
//! was expected, unless the cluster says that this one is gone, or that the topic is another one.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{ClusterError, OffsetRange};
use super::commit::OffsetCommitter;
use super::commit_window::CommitWindow;
use super::partition_reader::{Filtering, PartitionReader, ReaderState, ReaderStep};
use super::start::OffsetCommits;
use crate::source::{ReadMode, SourceError};

/// How long a partition rests before an unsettled record is read again.
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

    /// Whether the partition ends before what was read of it, and has done so for long enough.
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
            "the partition ends at {end}, and {next_fetch} was read"
        )))
    }

    /// The topic was made anew: nothing that was read of it means anything for it.
    async fn restart_topic(
        &self,
        reading: &mut ReaderState,
        offset_range: OffsetRange,
    ) -> Result<(), ClusterError> {
        // What is on its way belongs to the topic before; its verdicts keep nothing any more.
        reading.window.wait_until_settled().await;
        reading.committer.wait_idle().await;
        if self.commits_ == OffsetCommits::Enabled {
            self.cluster.delete_committed(self.address.partition).await?;
            if let Err(error) = self.local_start.reading_began(offset_range.start).await {
                tracing::warn!(%error, "the beginning could not be written down");
            }
        }
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            before = reading.next_fetch,
            end = offset_range.end,
            offset = offset_range.start,
            "the topic was made anew: it is read from its beginning"
        );
        reading.queue.clear();
        reading.window = CommitWindow::new(offset_range.start);
        reading.committer =
            OffsetCommitter::new(offset_range.start, self.commits_ == OffsetCommits::Enabled);
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

    /// What the cluster refused: whether reading goes on, and where.
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

    /// What was asked for was removed before it was read.
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
             delivered; keep records for longer than this program may stand still"
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

    /// Nothing came for a while: it is asked whether there is something.
    pub(super) async fn check_quiet(
        &self,
        reading: &mut ReaderState,
    ) -> Result<ReaderStep, SourceError> {
        reading.quiet_at = self.quiet_at();
        let stop = self.stop.clone();
        let next_fetch = self.cluster.offset_range(self.address.partition);
        let offset_range = match stop.run_until_cancelled(next_fetch).await {
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
                    "nothing more comes through the SmartModules: this run ends here, and the next \
                     one looks at the rest again"
                );
                Ok(ReaderStep::Stop)
            }
            (Filtering::Unfiltered, _) => {
                let why = format!("the record at offset {expected} is there and did not come");
                self.retry(reading, &ClusterError::Transient(why)).await
            }
        }
    }

    /// A record came back unsettled: it and those behind it are read again, after a rest.
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
            "a record came back unsettled; reading it again"
        );
        reading.stream = None;
        reading.queue.clear();
        reading.redelivered_to = reading.redelivered_to.max(reading.high);
        reading.next_fetch = offset;
        reading.position = offset;
        // A stop during the rest is seen by the next turn.
        stop.run_until_cancelled(sleep(REWIND_DELAY)).await.unwrap_or(());
        Ok(ReaderStep::Continue)
    }
}
