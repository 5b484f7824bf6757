//! A partition's stream, opened again where it broke or where what was asked for did not come.
//!
//! Not here: what is read from it (`intake`). One invariant: a new stream begins at the record that
//! was expected, unless the cluster says that this one is gone, or that the topic is another one.

use std::time::Duration;

use tokio::time::sleep;

use super::cluster::{ClusterError, Extent};
use super::keep::Keeper;
use super::lane::{Lane, Passage, Reading, Turn};
use super::ledger::Ledger;
use super::start::Keeping;
use crate::source::{ReadMode, SourceError};

/// How long a partition rests before an unsettled record is read again.
const REST: Duration = Duration::from_secs(1);

impl Lane {
    /// Opens the stream again.
    pub(super) async fn reopen(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        let stop = self.stop.clone();
        match stop.run_until_cancelled(self.try_reopen(reading)).await {
            None => Ok(Turn::End),
            Some(Ok(())) => Ok(Turn::On),
            Some(Err(error)) => self.refused(reading, &error).await,
        }
    }

    async fn try_reopen(&self, reading: &mut Reading) -> Result<(), ClusterError> {
        let partition = self.address.partition;
        if self.cluster.partitions().await?.is_none() {
            reading.anew = true;
            return Err(ClusterError::Passing("the topic is gone".into()));
        }
        let extent = self.cluster.extent(partition).await?;
        if reading.anew || self.is_another(reading, extent)? {
            self.begin_anew(reading, extent).await?;
        }
        if extent.start > reading.asked {
            return Err(ClusterError::Gone { next: extent.start });
        }
        let bytes = reading.enlarged.or(self.max_bytes);
        let stream = self.cluster.open(partition, reading.asked, bytes).await?;
        reading.stream = Some(stream);
        reading.end = extent.end.max(reading.asked);
        reading.quiet_at = self.quiet_at();
        Ok(())
    }

    /// Whether the partition ends before what was read of it, and has done so for long enough.
    fn is_another(&self, reading: &mut Reading, extent: Extent) -> Result<bool, ClusterError> {
        if extent.end >= reading.asked {
            reading.behind = 0;
            return Ok(false);
        }
        reading.behind += 1;
        if Self::is_believed(reading) {
            return Ok(true);
        }
        let (end, asked) = (extent.end, reading.asked);
        Err(ClusterError::Passing(format!("the partition ends at {end}, and {asked} was read")))
    }

    /// The topic was made anew: nothing that was read of it means anything for it.
    async fn begin_anew(&self, reading: &mut Reading, extent: Extent) -> Result<(), ClusterError> {
        // What is on its way belongs to the topic before; its verdicts keep nothing any more.
        reading.ledger.landed().await;
        reading.keeper.rest().await;
        if self.keeping == Keeping::Kept {
            self.cluster.forget(self.address.partition).await?;
            if let Err(error) = self.notes.began(extent.start).await {
                tracing::warn!(%error, "the beginning could not be written down");
            }
        }
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            before = reading.asked,
            end = extent.end,
            offset = extent.start,
            "the topic was made anew: it is read from its beginning"
        );
        reading.queue.clear();
        reading.ledger = Ledger::new(extent.start);
        reading.keeper = Keeper::new(extent.start, self.keeping == Keeping::Kept);
        reading.standing.begin(None);
        reading.asked = extent.start;
        reading.position = extent.start;
        reading.high = extent.start;
        reading.until = reading.until.map(|_| extent.end);
        (reading.doubts, reading.doubtful) = (0, i64::MIN);
        (reading.anew, reading.behind, reading.misses) = (false, 0, 0);
        reading.enlarged = None;
        Ok(())
    }

    /// What the cluster refused: whether reading goes on, and where.
    pub(super) async fn refused(
        &self,
        reading: &mut Reading,
        error: &ClusterError,
    ) -> Result<Turn, SourceError> {
        match error {
            ClusterError::Gone { next } if *next > reading.asked => {
                self.skip_to(reading, *next);
                Ok(Turn::On)
            }
            ClusterError::Deleted => {
                reading.anew = true;
                self.broke(reading, error).await
            }
            error => self.broke(reading, error).await,
        }
    }

    /// What was asked for was removed before it was read.
    pub(super) fn skip_to(&self, reading: &mut Reading, next: i64) {
        reading.stream = None;
        self.removed(reading.asked, next);
        reading.queue.push_back(super::lane::Fetched::Passed(next));
        reading.asked = next;
        reading.misses = 0;
    }

    /// Tells of records that nobody can read any more.
    pub(super) fn removed(&self, from: i64, to: i64) {
        let lost = u64::try_from(to - from).unwrap_or(0);
        self.watch.removed(self.address.partition, lost);
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

    pub(super) async fn broke(
        &self,
        reading: &mut Reading,
        error: &ClusterError,
    ) -> Result<Turn, SourceError> {
        reading.stream = None;
        match self.again(error, &mut reading.patience).await {
            Ok(()) => Ok(Turn::On),
            Err(None) => Ok(Turn::End),
            Err(Some(error)) => Err(error),
        }
    }

    /// Nothing came for a while: it is asked whether there is something.
    pub(super) async fn nothing_came(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        reading.quiet_at = self.quiet_at();
        let stop = self.stop.clone();
        let asked = self.cluster.extent(self.address.partition);
        let extent = match stop.run_until_cancelled(asked).await {
            None => return Ok(Turn::End),
            Some(Ok(extent)) => extent,
            Some(Err(error)) => return self.broke(reading, &error).await,
        };
        let (end, expected) = (extent.end, reading.asked);
        match (self.passage, self.mode) {
            _ if end == expected => Ok(Turn::On),
            _ if end < expected => {
                reading.stream = None;
                Ok(Turn::On)
            }
            (Passage::Some, ReadMode::Follow) => Ok(Turn::On),
            (Passage::Some, ReadMode::Once) => {
                tracing::info!(
                    topic = &*self.address.topic,
                    partition = self.address.partition,
                    offset = expected,
                    end,
                    "nothing more comes through the SmartModules: this run ends here, and the next \
                     one looks at the rest again"
                );
                Ok(Turn::End)
            }
            (Passage::All, _) => {
                let why = format!("the record at offset {expected} is there and did not come");
                self.broke(reading, &ClusterError::Passing(why)).await
            }
        }
    }

    /// A record came back unsettled: it and those behind it are read again, after a rest.
    pub(super) async fn rewind(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        let stop = self.stop.clone();
        reading.ready.clear();
        if stop.run_until_cancelled(reading.ledger.landed()).await.is_none() {
            return Ok(Turn::End);
        }
        let Some(offset) = reading.ledger.take_errored() else {
            return Ok(Turn::On);
        };
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            offset,
            "a record came back unsettled; reading it again"
        );
        reading.stream = None;
        reading.queue.clear();
        reading.doubtful = reading.doubtful.max(reading.high);
        reading.asked = offset;
        reading.position = offset;
        // A stop during the rest is seen by the next turn.
        stop.run_until_cancelled(sleep(REST)).await.unwrap_or(());
        Ok(Turn::On)
    }
}
