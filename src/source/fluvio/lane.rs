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

use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::cluster::{At, Cluster, ClusterError, Extent, Message, Stream, Until};
use super::envelope::Address;
use super::patience::{Patience, Waited};
use super::start::{self, Beginning, Doubt, Keeping, NoBeginning, Notes};
use super::verdicts::Verdicts;
use super::watch::{Settled, Watch};
use super::window::{Next, Window};
use crate::config::source::FluvioStart;
use crate::record::Record;
use crate::source::decode::Decoder;
use crate::source::{ReadMode, SourceError, permit};

/// How long a record that is known to be there may take, before it is taken for a mistake.
const PROMPT: Duration = Duration::from_secs(5);
/// How long a stop waits for such a record.
const GRACE: Duration = Duration::from_secs(1);
/// How often it is looked whether there is more, while records settle.
const GLANCE: Duration = Duration::from_millis(500);
/// How long the cluster may take to keep an offset.
const KEEP: Duration = Duration::from_secs(10);
/// How long a partition rests before an unsettled record is read again.
const REST: Duration = Duration::from_secs(1);
/// How often a stream is opened only to keep an offset, before that is left to the next record.
const ATTEMPTS: u32 = 3;
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
struct Reading {
    stream: Option<Box<dyn Stream>>,
    /// The offset behind the last record that was handed on.
    position: i64,
    /// As far as it is known.
    end: i64,
    window: Window,
    /// Before this offset a record may have been sent by somebody before.
    doubtful: i64,
    /// Whether the stream begins at a record that was handed on already.
    overlap: bool,
    /// How often that record did not come, in a row.
    overlaps: u32,
    verdicts: Verdicts,
    patience: Patience,
    settled: Settled,
    /// Behind everything that was ever handed on.
    high: i64,
    /// Whether a beginning is written down that is not needed any more once an offset is kept.
    noted: bool,
    /// Whether the topic was missing meanwhile.
    anew: bool,
}

/// Whether reading goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
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
    async fn begin(&self) -> Result<Option<Reading>, SourceError> {
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

    fn patience(&self) -> Patience {
        Patience::new((self.mode == ReadMode::Once).then_some(ONCE))
    }

    async fn try_begin(&self) -> Result<Reading, NoBeginning> {
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
    async fn extent(&self) -> Result<Option<Extent>, ClusterError> {
        Ok(self.watch.extents().await?.get(&self.address.partition).copied())
    }

    fn until(&self) -> Until {
        match self.mode {
            ReadMode::Follow => Until::Stopped,
            ReadMode::Once => Until::PresentEnd,
        }
    }

    /// Waits before the next attempt. The error is `None` where the source is to stop.
    async fn again(
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

    async fn turn(
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

    /// Opens the stream again. With something to keep, at the record that was handed on last.
    async fn reopen(&mut self, reading: &mut Reading) -> Result<Turn, SourceError> {
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

    async fn try_reopen(&self, reading: &mut Reading) -> Result<(), ClusterError> {
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
    fn skip_to(&self, reading: &mut Reading, next: i64) {
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

    /// Reads one record and hands it on.
    async fn pull(
        &mut self,
        reading: &mut Reading,
        next: Next,
        out: &mpsc::Sender<Record>,
    ) -> Result<Turn, SourceError> {
        // Room comes first where something waits to be kept: a record that was yielded and has no
        // room would be kept with it. Where nothing does, room is not held while nothing comes.
        let room = match next {
            Next::Wait => None,
            _ if reading.overlap => None,
            _ => match permit(out, &self.stop).await {
                Some(room) => Some(room),
                None => return Ok(Turn::End),
            },
        };
        let Some(stream) = reading.stream.as_mut() else {
            return Ok(Turn::On);
        };
        let yielded = match (next, self.mode) {
            (Next::Wait, ReadMode::Follow) => self.stop.run_until_cancelled(stream.next()).await,
            _ => tokio::select! {
                biased;
                yielded = stream.next() => Some(yielded),
                () = self.no_longer() => None,
            },
        };
        match yielded {
            // The stream goes with its `next`: neither may be touched again.
            None => {
                reading.stream = None;
                self.nothing_came(reading).await
            }
            Some(Some(Ok(message))) => {
                let again =
                    std::mem::take(&mut reading.overlap) && message.offset == reading.position - 1;
                if again {
                    reading.window.read(Instant::now());
                    reading.window.close();
                    return Ok(Turn::On);
                }
                let room = match room {
                    Some(room) => Some(room),
                    None => permit(out, &self.stop).await,
                };
                let Some(room) = room else {
                    reading.stream = None;
                    return Ok(Turn::End);
                };
                reading.patience.renew();
                reading.window.read(Instant::now());
                room.send(self.record(reading, &message));
                self.passed(reading, &message).await;
                Ok(Turn::On)
            }
            Some(Some(Err(ClusterError::Gone { next }))) => {
                self.skip_to(reading, next);
                Ok(Turn::On)
            }
            Some(Some(Err(error))) => self.broke(reading, &error).await,
            Some(None) => self.ended(reading).await,
        }
    }

    /// A record that should be there did not come, or the source is to stop.
    async fn nothing_came(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        reading.overlaps += u32::from(reading.overlap);
        match (self.mode, self.passage) {
            _ if self.stop.is_cancelled() => Ok(Turn::End),
            (ReadMode::Follow, _) => Ok(Turn::On),
            (ReadMode::Once, Passage::Some) => Ok(Turn::End),
            (ReadMode::Once, Passage::All) => {
                let why = "a record that is there did not come".to_owned();
                self.broke(reading, &ClusterError::Passing(why)).await
            }
        }
    }

    /// Until a record that should be there is not waited for any longer.
    async fn no_longer(&self) {
        let stopped = self.stop.run_until_cancelled(sleep(PROMPT)).await.is_none();
        if stopped {
            sleep(GRACE).await;
        }
    }

    async fn passed(&self, reading: &mut Reading, message: &Message) {
        if message.offset < reading.position {
            tracing::warn!(
                topic = &*self.address.topic,
                partition = self.address.partition,
                offset = message.offset,
                expected = reading.position,
                "the partition begins anew"
            );
        }
        reading.position = message.offset.saturating_add(1);
        reading.end = reading.end.max(reading.position);
        reading.high = reading.high.max(reading.position);
        if reading.position >= reading.end && self.mode == ReadMode::Follow {
            self.look(reading).await;
        }
    }

    /// Asks where the partition ends by now.
    async fn look(&self, reading: &mut Reading) {
        if let Some(end) = self.watch.end(self.address.partition).await {
            reading.end = reading.end.max(end);
        }
        self.tell(reading);
    }

    /// Tells how far the partition is settled, as well as numbers can.
    fn tell(&self, reading: &Reading) {
        let open = i64::try_from(reading.verdicts.open()).unwrap_or(i64::MAX);
        reading.settled.store(reading.position.saturating_sub(open), Ordering::Relaxed);
    }

    fn record(&mut self, reading: &Reading, message: &Message) -> Record {
        let decoded = match message.value.is_empty() {
            true => Err("the record is empty".to_owned()),
            false => match self.decoder.decode(&message.value) {
                Ok(Some(body)) => Ok(body),
                Ok(None) => Err("the message holds no record".to_owned()),
                Err(why) => Err(why),
            },
        };
        let mut record = match decoded {
            Ok(body) => Record::new(body),
            Err(why) => {
                let mut record = Record::new(message.value.clone());
                let place = self.address.place(message.offset);
                record.fault = Some(format!("{place}: {why}").into());
                record
            }
        };
        record.meta = Some(self.address.meta(message));
        record.transport_id = self.address.id(message);
        record.time = message.timestamp.and_then(|at| Timestamp::from_millisecond(at).ok());
        record.maybe_sent = message.offset < reading.doubtful;
        record.with_ack(reading.verdicts.ack(message.offset))
    }

    async fn broke(
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
    async fn ended(&self, reading: &mut Reading) -> Result<Turn, SourceError> {
        if self.mode == ReadMode::Once {
            let end = self.watch.end(self.address.partition).await;
            if end.is_none_or(|end| end <= reading.position) || reading.overlap {
                return Ok(Turn::End);
            }
        }
        let error = ClusterError::Passing("the connection ended".into());
        self.broke(reading, &error).await
    }

    /// Waits for the verdicts of everything read, then keeps the offset.
    async fn settle(&mut self, reading: &mut Reading) -> Result<Turn, SourceError> {
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
    async fn rewind(&self, reading: &mut Reading, offset: i64) {
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
    async fn keep(&mut self, reading: &mut Reading) -> Result<(), ClusterError> {
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
    async fn keep_at_last(&mut self, reading: &mut Reading) {
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
    async fn keep_with_new_stream(&mut self, reading: &mut Reading) -> bool {
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
