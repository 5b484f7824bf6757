//! One partition: its stream, the records on their way, and the offset that is kept.
//!
//! Fluvio's commit names no offset. It means everything the stream has yielded, and must not be
//! made beside a `next` that waits. So a record is handed on, and while more is known to be there,
//! more are, up to the limit of the window or until its time is up. Then nothing is read until
//! every one of them has its verdict, and the offset is committed and flushed. Where nothing more
//! is there, that is at once: under low traffic a window is one record. A `next` that waits
//! without limit is only begun when nothing waits to be kept, and so may be dropped by a stop.
//!
//! A stream that broke is opened again at the record that was handed on last. That record is
//! yielded a second time, not handed on, and makes the new stream able to keep what the old one
//! could not.
//!
//! One invariant: when an offset is kept, every record up to it was delivered or is in the dead
//! letters. A record that came back unsettled is read again before anything behind it is kept.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, ClusterError, Extent, Stream, Until};
use super::envelope::Address;
use super::patience::{Patience, Waited};
use super::start::{self, Beginning, Doubt, Keeping, NoBeginning, Notes};
use super::verdicts::Verdicts;
use super::watch::{Settled, Watch};
use super::window::{Next, Window};
use crate::config::source::FluvioStart;
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::{ReadMode, SourceError};

/// How long a run that waits for nothing waits for the cluster.
pub(super) const ONCE: Duration = Duration::from_secs(30);

/// Which records of a partition its stream yields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// All of them.
    All,
    /// Those that SmartModules let pass: the last ones may not be among them.
    Some,
}

/// What a partition is read with.
pub(super) struct Lane {
    pub(super) address: Address,
    pub(super) cluster: Arc<dyn Cluster>,
    pub(super) watch: Arc<Watch>,
    pub(super) mode: ReadMode,
    pub(super) passage: Passage,
    pub(super) start: FluvioStart,
    pub(super) keeping: Keeping,
    pub(super) limit: usize,
    pub(super) interval: Duration,
    pub(super) decoder: Decoder,
    pub(super) notes: Notes,
    pub(super) stop: CancellationToken,
}

/// What reading has come to.
pub(super) struct Reading {
    pub(super) stream: Option<Box<dyn Stream>>,
    /// The offset behind the last record that was handed on.
    pub(super) position: i64,
    /// As far as it is known.
    pub(super) end: i64,
    pub(super) window: Window,
    /// Before this offset a record may have been sent by somebody before.
    pub(super) doubtful: i64,
    /// Whether the stream begins at a record that was handed on already.
    pub(super) overlap: bool,
    /// How often that record did not come, in a row.
    pub(super) overlaps: u32,
    pub(super) verdicts: Verdicts,
    pub(super) patience: Patience,
    pub(super) settled: Settled,
    /// Behind everything that was ever handed on.
    pub(super) high: i64,
    /// Whether a beginning is written down that is not needed any more once an offset is kept.
    pub(super) noted: bool,
    /// Whether the topic was missing meanwhile.
    pub(super) anew: bool,
}

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    On,
    End,
}
impl Lane {
    /// Reads until `stop` is cancelled, the receiver is gone, or in a run that waits for nothing
    /// everything is read; then waits for the verdicts and keeps the offset.
    pub(super) async fn run(mut self, out: mpsc::Sender<Record>) -> Result<(), SourceError> {
        let Some(mut reading) = self.begin().await? else {
            return Ok(());
        };
        let end = loop {
            match self.turn(&mut reading, &out).await {
                Ok(Turn::On) => {}
                Ok(Turn::End) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        // The receiver must see the end, or it would wait for more while we wait for it.
        drop(out);
        reading.verdicts.landed().await;
        if reading.verdicts.take_errored().is_none() {
            self.keep_at_last(&mut reading).await;
        }
        end
    }

    /// The place to begin at, once the cluster tells. `None` where it is stopped before.
    pub(super) async fn begin(&self) -> Result<Option<Reading>, SourceError> {
        let mut patience = self.patience();
        loop {
            let error = match self.stop.run_until_cancelled(self.try_begin()).await {
                None => return Ok(None),
                Some(Ok(reading)) => return Ok(Some(reading)),
                Some(Err(NoBeginning::Notes(error))) => return Err(error),
                Some(Err(NoBeginning::Cluster(error))) => error,
            };
            match self.again(&error, &mut patience).await {
                Ok(()) => {}
                Err(None) => return Ok(None),
                Err(Some(error)) => return Err(error),
            }
        }
    }

    pub(super) fn patience(&self) -> Patience {
        Patience::new((self.mode == ReadMode::Once).then_some(ONCE))
    }

    pub(super) async fn try_begin(&self) -> Result<Reading, NoBeginning> {
        let partition = self.address.partition;
        let extent = self.extent().await?;
        let cluster = &*self.cluster;
        let Beginning { at, position, doubt, kept } =
            start::find(cluster, partition, extent, &self.start, self.keeping, &self.notes).await?;
        let stream = self.cluster.open(partition, at, self.until()).await?;
        let limit = i64::try_from(self.limit).unwrap_or(i64::MAX);
        let doubtful = match doubt {
            Doubt::MaybeSent => position.saturating_add(limit),
            Doubt::New => position,
        };
        let settled = self.watch.enter(partition);
        settled.store(position, Ordering::Relaxed);
        tracing::info!(
            topic = &*self.address.topic,
            partition,
            offset = position,
            end = extent.map(|extent| extent.end),
            "reading"
        );
        Ok(Reading {
            stream: Some(stream),
            position,
            end: extent.map_or(position, |extent| extent.end),
            window: Window::new(self.limit, self.interval),
            doubtful,
            overlap: false,
            overlaps: 0,
            verdicts: Verdicts::default(),
            patience: self.patience(),
            settled,
            high: position,
            noted: self.keeping == Keeping::Kept && !kept,
            anew: false,
        })
    }

    /// What there is of the partition, if the cluster tells.
    pub(super) async fn extent(&self) -> Result<Option<Extent>, ClusterError> {
        Ok(self.watch.extents().await?.get(&self.address.partition).copied())
    }

    pub(super) fn until(&self) -> Until {
        match self.mode {
            ReadMode::Follow => Until::Stopped,
            ReadMode::Once => Until::PresentEnd,
        }
    }

    /// Waits before the next attempt. The error is `None` where the source is to stop.
    pub(super) async fn again(
        &self,
        error: &ClusterError,
        patience: &mut Patience,
    ) -> Result<(), Option<SourceError>> {
        let Address { topic, partition } = &self.address;
        let failed = || {
            let context = format!("reading topic `{topic}`, partition {partition}");
            Some(SourceError::Remote { context, why: error.to_string() })
        };
        if let ClusterError::Lasting(_) = error {
            return Err(failed());
        }
        tracing::warn!(topic = &**topic, partition, %error, "the cluster is asked again");
        self.cluster.disconnect().await;
        match patience.wait(&self.stop).await {
            Waited::Enough => Ok(()),
            Waited::Stopped => Err(None),
            Waited::Over => Err(failed()),
        }
    }

    pub(super) async fn turn(
        &mut self,
        reading: &mut Reading,
        out: &mpsc::Sender<Record>,
    ) -> Result<Turn, SourceError> {
        if self.stop.is_cancelled() || out.is_closed() {
            return Ok(Turn::End);
        }
        if reading.stream.is_none() {
            return self.reopen(reading).await;
        }
        if reading.overlap {
            // Until it has yielded something, a stream can keep nothing.
            return self.pull(reading, Next::Read, out).await;
        }
        let end = match self.mode {
            ReadMode::Follow => reading.end,
            // The stream itself tells, and without delay.
            ReadMode::Once => i64::MAX,
        };
        match reading.window.next(reading.position, end, Instant::now()) {
            Next::Settle => self.settle(reading).await,
            next => self.pull(reading, next, out).await,
        }
    }
}
