//! A partition's stream, opened again where it broke or ended.
//!
//! Not here: what is read from it (`pull`). One invariant: with something to keep, a new stream
//! begins at the record that was handed on last, unless that record is gone.

use super::cluster::{At, ClusterError};
use super::lane::{Lane, Reading, Turn};
use crate::source::{ReadMode, SourceError};

/// How often a stream is opened only to keep an offset, before that is left to the next record.
const ATTEMPTS: u32 = 3;

impl Lane {
    /// Opens the stream again. With something to keep, at the record that was handed on last.
    pub(super) async fn reopen(&mut self, reading: &mut Reading) -> Result<Turn, SourceError> {
        match self.stop.run_until_cancelled(self.try_reopen(reading)).await {
            None => Ok(Turn::End),
            Some(Ok(())) => Ok(Turn::On),
            Some(Err(ClusterError::Gone { next })) => {
                self.skip_to(reading, next);
                Ok(Turn::On)
            }
            Some(Err(error)) => self.broke(reading, &error).await,
        }
    }

    pub(super) async fn try_reopen(&self, reading: &mut Reading) -> Result<(), ClusterError> {
        if self.cluster.partitions().await?.is_none() {
            reading.anew = true;
            return Err(ClusterError::Passing("the topic is gone".into()));
        }
        let extent = self.extent().await?;
        if std::mem::take(&mut reading.anew) {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                "the topic was made anew: reading it from its beginning"
            );
            reading.position = extent.map_or(0, |extent| extent.start);
            reading.window.kept();
        }
        let overlap = !reading.window.is_empty() && reading.overlaps < ATTEMPTS;
        if !overlap {
            // What was settled is kept together with the next record.
            reading.window.kept();
        }
        let at = At::Offset(reading.position - i64::from(overlap));
        let stream = self.cluster.open(self.address.partition, at, self.until()).await?;
        reading.overlap = overlap;
        reading.stream = Some(stream);
        reading.end = extent.map_or(reading.position, |extent| extent.end);
        Ok(())
    }

    /// The offset that was asked for is gone.
    pub(super) fn skip_to(&self, reading: &mut Reading, next: i64) {
        reading.stream = None;
        if next <= reading.position {
            // Only the record that was handed on already is gone.
            reading.overlaps = ATTEMPTS;
            return;
        }
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            lost = next - reading.position,
            "records were removed before they were read"
        );
        reading.position = next;
        reading.overlaps = ATTEMPTS;
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

    /// The stream ended: because everything is read, or because its connection did.
    pub(super) async fn ended(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        if self.mode == ReadMode::Once {
            let end = self.watch.end(self.address.partition).await;
            if end.is_none_or(|end| end <= reading.position) || reading.overlap {
                return Ok(Turn::End);
            }
        }
        let error = ClusterError::Passing("the connection ended".into());
        self.broke(reading, &error).await
    }
}
