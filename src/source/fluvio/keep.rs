//! The end of a window: verdicts are waited for, then the offset is kept.
//!
//! Not here: how much is read before (`window`). One invariant: nothing is kept while a record the
//! stream yielded has no verdict, nor once one came back unsettled.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::cluster::ClusterError;
use super::lane::{Lane, Reading, Turn};
use super::pull::PROMPT;
use super::start::Keeping;
use crate::source::SourceError;

/// How often it is looked whether there is more, while records settle.
const GLANCE: Duration = Duration::from_millis(500);
/// How long the cluster may take to keep an offset.
const KEEP: Duration = Duration::from_secs(10);
/// How long a partition rests before an unsettled record is read again.
const REST: Duration = Duration::from_secs(1);

impl Lane {
    /// Waits for the verdicts of everything read, then keeps the offset.
    pub(super) async fn settle(&mut self, reading: &mut Reading) -> Result<Turn, SourceError> {
        let begun = Instant::now();
        while timeout(GLANCE, reading.verdicts.landed()).await.is_err() {
            if self.stop.is_cancelled() {
                return Ok(Turn::End);
            }
            self.look(reading).await;
            let patient = begun.elapsed() < self.interval;
            if !patient && !reading.window.is_full() && reading.position < reading.end {
                reading.window.go_on(Instant::now());
                return Ok(Turn::On);
            }
        }
        match reading.verdicts.take_errored() {
            Some(offset) => self.rewind(reading, offset).await,
            None => {
                if let Err(error) = self.keep(reading).await {
                    return self.broke(reading, &error).await;
                }
            }
        }
        Ok(Turn::On)
    }

    /// A record came back unsettled: it and those behind it are read again, after a rest.
    pub(super) async fn rewind(&self, reading: &mut Reading, offset: i64) {
        tracing::warn!(
            topic = &*self.address.topic,
            partition = self.address.partition,
            offset,
            "a record came back unsettled; reading it again"
        );
        // This stream may keep nothing any more, whatever comes next.
        reading.stream = None;
        reading.doubtful = reading.doubtful.max(reading.position);
        reading.position = offset;
        // What was settled before it is kept together with it.
        reading.window.kept();
        self.tell(reading);
        // A stop during the rest is seen by the next turn.
        self.stop.run_until_cancelled(sleep(REST)).await.unwrap_or(());
    }

    /// Has the cluster keep the offset. Everything the stream yielded is settled, and it yielded
    /// something: to commit nothing passes too, and keeps nothing.
    pub(super) async fn keep(&mut self, reading: &mut Reading) -> Result<(), ClusterError> {
        if let (Keeping::Kept, Some(stream)) = (self.keeping, reading.stream.as_mut()) {
            let kept = timeout(KEEP, async {
                stream.commit().await?;
                stream.flush().await
            });
            let no_answer = Err(ClusterError::Passing("no answer in time".into()));
            kept.await.unwrap_or(no_answer)?;
            if std::mem::take(&mut reading.noted)
                && let Err(error) = self.notes.forget().await
            {
                tracing::warn!(%error, "the written beginning could not be removed");
            }
        }
        reading.window.kept();
        reading.overlaps = 0;
        reading.patience.renew();
        self.tell(reading);
        Ok(())
    }

    /// At the end, keeps the offset of what has settled, with a new stream if need be.
    pub(super) async fn keep_at_last(&mut self, reading: &mut Reading) {
        if self.keeping == Keeping::Forgotten {
            return;
        }
        if !reading.window.is_empty() && !self.keep_with_new_stream(reading).await {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                "the last offset could not be kept; the last records are looked at again"
            );
            return;
        }
        // Where no offset was ever kept, the beginning that is written down still counts.
        if reading.position == reading.high
            && !reading.noted
            && let Err(error) = self.notes.ended(reading.position).await
        {
            tracing::warn!(%error, "the end could not be written down");
        }
    }

    /// Keeps the offset, with a new stream if need be.
    pub(super) async fn keep_with_new_stream(&mut self, reading: &mut Reading) -> bool {
        let ready = async {
            if reading.stream.is_none() {
                self.try_reopen(reading).await.ok()?;
                // Given up before: then it is not even tried.
                reading.overlap.then_some(())?;
            }
            let stream = reading.stream.as_mut()?;
            if !std::mem::take(&mut reading.overlap) {
                return Some(());
            }
            let message = stream.next().await?.ok()?;
            (message.offset == reading.position - 1).then_some(())
        };
        if !matches!(timeout(PROMPT, ready).await, Ok(Some(()))) {
            // A `next` that was begun may wait still.
            reading.stream = None;
            return false;
        }
        self.keep(reading).await.is_ok()
    }
}
